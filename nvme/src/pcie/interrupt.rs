//! When a completion queue interrupts its host: at most once per burst, later if the host asked
//! for coalescing, and never not at all. That a host is still at what it was told of before is
//! judged by who has the queue.
//!
//! An interrupt that cannot be delivered (nothing is bound to the vector, or it is masked) stays
//! owed and is delivered by the first pass that can.

use super::message::ControllerView;

/// The interrupt that a completion queue owes its host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owed {
    completions: u32,
    since_ns: u64,
}

impl Owed {
    /// A completion was posted.
    #[inline]
    pub fn add(&mut self, now_ns: u64) {
        if self.completions == 0 {
            self.since_ns = now_ns;
        }
        self.completions = self.completions.saturating_add(1);
    }

    /// True while an interrupt is owed.
    #[inline]
    pub fn is_owed(&self) -> bool {
        self.completions != 0
    }

    /// For how long it is owed.
    #[inline]
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.since_ns)
    }

    /// Nothing is owed any more: the host has seen for itself.
    #[inline]
    pub fn forget(&mut self) {
        self.completions = 0;
    }

    /// Delivers the interrupt if it is due and can be: true if nothing is owed afterwards.
    #[inline]
    pub fn settle(&mut self, view: &ControllerView, vector: u16, now_ns: u64) -> bool {
        self.is_due(view, vector, now_ns) && self.settle_at_once(view, vector)
    }

    /// The same without coalescing, which the admin queue does not know.
    #[inline]
    pub fn settle_at_once(&mut self, view: &ControllerView, vector: u16) -> bool {
        match view.vectors.get(usize::from(vector)) {
            Some(Some(interrupt)) => {
                interrupt.signal();
                self.completions = 0;
                true
            }
            _ => false,
        }
    }

    /// NVMe Base 2.0, 5.27.1.6: either the threshold or the time; either one as zero switches
    /// coalescing off.
    fn is_due(&self, view: &ControllerView, vector: u16, now_ns: u64) -> bool {
        let coalescing = view.coalescing;
        let exempt = view
            .uncoalesced
            .get(usize::from(vector))
            .copied()
            .unwrap_or(true);
        exempt
            || coalescing.completions == 0
            || coalescing.delay_ns == 0
            || self.completions >= u32::from(coalescing.completions)
            || self.age_ns(now_ns) >= coalescing.delay_ns
    }
}

//! Which queues have something: idle ones cost a comparison.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::{Lane, PollGroup};

/// What is to be known of a lane to see that nothing has happened to it: many fit in a cache line.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    /// Its doorbell's place in the doorbell pages; none there if it has to be looked at always.
    word: usize,
    /// The doorbell's value, as far as it was looked.
    seen: u32,
}

impl Watch {
    fn of(lane: &Lane) -> Watch {
        let word = lane.queue.doorbell_word().filter(|_| lane.retry.is_empty());
        Watch {
            word: word.unwrap_or(usize::MAX),
            seen: lane.queue.tail(),
        }
    }

    #[inline]
    fn is_due(&self, doorbells: &[AtomicU32]) -> bool {
        // Relaxed: what follows looks again.
        let now = doorbells.get(self.word).map(|word| word.load(Relaxed));
        now != Some(self.seen)
    }
}

impl PollGroup {
    /// Fetches from every queue that may have something. Of the others nothing is touched but the
    /// doorbell.
    #[inline]
    pub(super) fn fetch_all(&mut self) -> bool {
        if self.watches.len() != self.lanes.len() {
            return self.fetch_and_watch_all();
        }
        let (mut busy, mut from) = (false, 0);
        while let Some(index) = self.next_due(from) {
            busy |= self.fetch(index);
            self.watches[index] = Watch::of(&self.lanes[index]);
            from = index + 1;
        }
        busy
    }

    #[inline]
    fn next_due(&self, from: usize) -> Option<usize> {
        let doorbells = self.doorbells.words();
        let mut rest = self.watches[from..].iter();
        let at = rest.position(|watch| watch.is_due(doorbells))?;
        Some(from + at)
    }

    #[cold]
    fn fetch_and_watch_all(&mut self) -> bool {
        let mut busy = false;
        self.watches.clear();
        for index in 0..self.lanes.len() {
            busy |= self.fetch(index);
            self.watches.push(Watch::of(&self.lanes[index]));
        }
        busy
    }
}

//! Submission and completion queues: rings in guest memory, and the credit between them.
//!
//! A command is only fetched with a [`CqSlot`] in hand, room in the completion queue that nobody
//! else can take, so posting its completion cannot fail for space (NVMe Base 2.0, 3.3.1.2.1).
//!
//! A ring whose memory was unmapped is *parked*: nothing is fetched from it, completions wait in
//! their slots, and all goes on when the same addresses are mapped again.

mod completion;
mod submission;

pub use self::completion::CompletionQueue;
pub use self::submission::SubmissionQueue;

/// A doorbell value outside its queue: error, and the queue is not looked at again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidDoorbell(pub u32);

/// Number of a slot among those of one submission queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotIndex(pub u16);

/// Room for one entry in a completion queue. Taken before a command is fetched, used up when its
/// completion is posted; it must not be lost on the way.
#[must_use]
#[derive(Debug)]
pub struct CqSlot(());

/// Room for several.
#[must_use]
#[derive(Debug)]
pub struct CqSlots(u32);

impl CqSlots {
    /// Room for one of them, while there is any.
    #[inline]
    pub fn take(&mut self) -> Option<CqSlot> {
        self.0 = self.0.checked_sub(1)?;
        Some(CqSlot(()))
    }

    /// For how many.
    #[inline]
    pub fn count(&self) -> u32 {
        self.0
    }

    /// Takes one in again that was not used.
    #[inline]
    pub fn put_back(&mut self, credit: CqSlot) {
        let CqSlot(()) = credit;
        self.0 += 1;
    }
}

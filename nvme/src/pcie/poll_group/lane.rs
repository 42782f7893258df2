//! A queue of a poll group, with what the group notes of it.

use super::SlotIndex;
use crate::pcie::interrupt::Owed;
use crate::pcie::queue::{CompletionQueue, SubmissionQueue};
use crate::spec::{Cqe, Status};

/// A submission queue and what waits in it.
pub(super) struct Lane {
    pub(super) queue: SubmissionQueue,
    /// Index of its completion queue in `completions`.
    pub(super) cq: usize,
    /// Fetched commands that could not be started yet, the oldest last.
    pub(super) retry: Vec<SlotIndex>,
}

/// A completion queue and the interrupt it owes.
pub(super) struct CompletionLane {
    pub(super) queue: CompletionQueue,
    pub(super) owed: Owed,
}

impl Lane {
    /// Posts the completion of the command in a slot, which is free then.
    #[inline]
    pub(super) fn post(
        &mut self,
        completions: &mut CompletionLane,
        slot: SlotIndex,
        status: Status,
    ) {
        let credit = self.queue.credit();
        let held = self.queue.slot(slot);
        let cqe = Cqe::new(0, self.queue.head(), self.queue.id(), held.cid(), status);
        if completions.queue.post(credit, held, &cqe) {
            held.release();
            self.queue.take_back(slot);
        }
    }
}

impl CompletionLane {
    /// Owes the host an interrupt for what was posted, if it wants any. True if it owed none.
    #[inline]
    pub(super) fn owe(&mut self, now_ns: u64) -> bool {
        if self.queue.vector().is_none() {
            return false;
        }
        let first = !self.owed.is_owed();
        self.owed.add(now_ns);
        first
    }
}

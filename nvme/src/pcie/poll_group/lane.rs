//! A queue of a poll group, with what the group notes of it.

use super::SlotIndex;
use crate::pcie::interrupt::Owed;
use crate::pcie::message::ControllerView;
use crate::pcie::queue::{CompletionQueue, InvalidDoorbell, SubmissionQueue};
use crate::spec::{Cqe, Status};

/// How long a host may be at what it was told of before it is interrupted for more all the same:
/// it may have seen all there was and not rung its doorbell.
pub(super) const HOST_BUSY_NS_MAX: u64 = 50_000;

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
    /// The tail of the queue when the host was last interrupted.
    told: u64,
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
    pub(super) fn new(queue: CompletionQueue) -> CompletionLane {
        CompletionLane {
            queue,
            owed: Owed::default(),
            told: 0,
        }
    }

    /// What the host was told may not have reached it.
    pub(super) fn tell_again(&mut self) {
        self.told = 0;
    }

    /// Interrupts the host if that is owed and due, and can be done. A host that has not consumed
    /// all that it was told of is still at it, and will look at what came since: it is interrupted
    /// when it has rung its doorbell and left some, or has taken too long. True if nothing is owed
    /// any more.
    ///
    /// # Errors
    /// [`InvalidDoorbell`], once.
    #[inline]
    pub(super) fn settle(
        &mut self,
        view: &ControllerView,
        now_ns: u64,
    ) -> Result<bool, InvalidDoorbell> {
        let Some(vector) = self.queue.vector().filter(|_| self.owed.is_owed()) else {
            return Ok(false);
        };
        if self.queue.head_position() < self.told {
            self.queue.consume()?;
            if !self.queue.has_unconsumed() {
                self.owed.forget();
                return Ok(true);
            }
            let is_at_it = self.queue.head_position() < self.told;
            if is_at_it && self.owed.age_ns(now_ns) < HOST_BUSY_NS_MAX {
                return Ok(false);
            }
        }
        let settled = self.owed.settle(view, vector, now_ns);
        if settled {
            self.told = self.queue.tail_position();
        }
        Ok(settled)
    }

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

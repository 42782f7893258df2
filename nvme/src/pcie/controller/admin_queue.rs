//! The admin queue: fetching commands, and completing them now, later, or when an event comes.

use std::sync::atomic::Ordering::Relaxed;

use super::execution::Execution;
use super::{Controller, commands};
use crate::admin::log_page::note_error;
use crate::pcie::interrupt::Owed;
use crate::pcie::message::CommandError;
use crate::pcie::queue::{CompletionQueue, InvalidDoorbell, SlotIndex, SubmissionQueue};
use crate::pcie::state::SlotState;
use crate::spec::admin::AsyncEvent;
use crate::spec::{CommandId, Cqe, QueueId, Status};

/// Most commands executed in one pass.
const BURST_MAX: usize = 8;
/// The admin completion queue interrupts by vector 0 (NVMe over PCIe Transport 1.0, 3.5).
pub(super) const ADMIN_VECTOR: u16 = 0;

/// The admin queues of an enabled controller.
#[derive(Debug)]
pub(super) struct AdminQueue {
    sq: SubmissionQueue,
    cq: CompletionQueue,
    owed: Owed,
    /// Commands of an earlier life that are to be executed again, the oldest last.
    again: Vec<SlotIndex>,
    /// Event requests that were aborted and wait for room in the completion queue.
    aborted: Vec<SlotIndex>,
    /// Commands that complete when the poll groups have this view.
    with_view: Vec<(u64, SlotIndex, u32)>,
}

impl AdminQueue {
    pub(super) fn new(sq: SubmissionQueue, cq: CompletionQueue) -> AdminQueue {
        AdminQueue {
            sq,
            cq,
            owed: Owed::default(),
            again: Vec::new(),
            aborted: Vec::new(),
            with_view: Vec::new(),
        }
    }

    /// The queues of an earlier life: what was posted is posted again, what was in flight is
    /// executed again.
    pub(super) fn resume(sq: SubmissionQueue, cq: CompletionQueue) -> AdminQueue {
        let mut queue = AdminQueue::new(sq, cq);
        for slot in queue.sq.occupied().collect::<Vec<_>>() {
            match queue.sq.slot(slot).state() {
                SlotState::Posting => queue.cq.catch_up(queue.sq.slot(slot)),
                _ => {
                    let credit = queue.cq.readmit();
                    queue.sq.keep(credit);
                    queue.again.push(slot);
                }
            }
        }
        let sq = &queue.sq;
        queue
            .again
            .sort_by_key(|&slot| std::cmp::Reverse(sq.slot(slot).sq_position()));
        queue.owed.add(0);
        queue
    }

    pub(super) fn remove(self) {
        self.sq.remove();
        self.cq.remove();
    }

    /// The next command to execute.
    fn next(&mut self) -> Result<Option<SlotIndex>, InvalidDoorbell> {
        if self.sq.is_parked() || self.cq.is_parked() {
            return Ok(None);
        }
        if let Some(slot) = self.again.pop() {
            return Ok(Some(slot));
        }
        if self.sq.look()? == 0 {
            return Ok(None);
        }
        let Some(credit) = self.cq.reserve(1)?.take() else {
            return Ok(None);
        };
        match self.sq.pop(credit) {
            Ok((slot, _)) => {
                self.sq.note_head();
                Ok(Some(slot))
            }
            Err(credit) => {
                self.cq.hand_back(credit);
                Ok(None)
            }
        }
    }

    /// Posts the completion of a command that holds room for it.
    fn complete(&mut self, slot: SlotIndex, status: Status, dword0: u32, now_ns: u64) {
        let credit = self.sq.credit();
        let cid = self.sq.slot(slot).cid();
        let cqe = Cqe::new(dword0, self.sq.head(), QueueId::ADMIN, cid, status);
        if self.cq.post(credit, self.sq.slot(slot), &cqe) {
            self.release(slot);
        }
        self.owed.add(now_ns);
    }

    fn release(&mut self, slot: SlotIndex) {
        self.sq.slot(slot).end_effect();
        self.sq.release(slot);
    }

    /// Gives the room of a command back: it may wait for ever.
    fn park(&mut self) {
        let credit = self.sq.credit();
        self.cq.hand_back(credit);
    }

    /// Takes room for a command that was parked; false if there is none.
    fn unpark(&mut self) -> bool {
        let room = self.cq.reserve(1).ok();
        let Some(credit) = room.and_then(|mut room| room.take()) else {
            return false;
        };
        self.sq.keep(credit);
        true
    }

    /// Owes the host an interrupt for what it has not consumed.
    fn owe_unconsumed(&mut self, now_ns: u64) -> Result<(), InvalidDoorbell> {
        self.cq.consume()?;
        if self.cq.has_unconsumed() && !self.owed.is_owed() {
            self.owed.add(now_ns);
        }
        Ok(())
    }

    /// Finds the rings again after memory was mapped or unmapped.
    fn settle(&mut self, memory: &bdev::memory::GuestMemory) {
        self.sq.settle(memory, None);
        self.cq.settle(memory, None);
        if self.cq.is_parked() {
            return;
        }
        for slot in self.sq.occupied().collect::<Vec<_>>() {
            let posting = self.sq.slot(slot).state() == SlotState::Posting;
            if posting && self.cq.repost(self.sq.slot(slot)) {
                self.release(slot);
                self.owed.add(0);
            }
        }
    }
}

impl Controller {
    pub(super) fn settle_admin(&mut self) {
        if let Some(admin) = &mut self.admin {
            admin.settle(&self.memory);
        }
    }

    pub(super) fn poll_admin(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..BURST_MAX {
            let Some(admin) = &mut self.admin else {
                return busy;
            };
            match admin.next() {
                Ok(Some(slot)) => self.execute(slot),
                Ok(None) => break,
                Err(InvalidDoorbell(value)) => {
                    tracing::debug!(value, "admin doorbell outside its queue");
                    self.report(AsyncEvent::INVALID_DOORBELL_VALUE);
                    break;
                }
            }
            busy = true;
        }
        self.answer_parked();
        if let Some(admin) = &mut self.admin {
            if admin.owed.is_owed() {
                admin.owed.settle_at_once(&self.view, ADMIN_VECTOR);
            }
        }
        busy
    }

    /// The vector of the admin queue can be delivered from now on.
    pub(super) fn owe_unconsumed_admin(&mut self) {
        let Some(admin) = &mut self.admin else { return };
        if let Err(InvalidDoorbell(value)) = admin.owe_unconsumed(self.now_ns) {
            tracing::debug!(value, "admin doorbell outside its queue");
            self.report(AsyncEvent::INVALID_DOORBELL_VALUE);
        }
    }

    fn execute(&mut self, slot: SlotIndex) {
        let Some(admin) = &mut self.admin else { return };
        let sqe = admin.sq.slot(slot).sqe();
        match commands::execute(self, slot, &sqe) {
            Ok(Execution::Done(dword0)) => self.complete_admin(slot, Status::SUCCESS, dword0),
            Ok(Execution::WithView(dword0)) => {
                let view = self.next_view();
                if let Some(admin) = &mut self.admin {
                    admin.with_view.push((view, slot, dword0));
                }
            }
            Ok(Execution::Pending) => {}
            Ok(Execution::Parked) => {
                if let Some(admin) = &mut self.admin {
                    admin.park();
                }
            }
            Err(status) => self.complete_admin(slot, status, 0),
        }
    }

    /// Completes an admin command, and notes it in the error log if it failed.
    pub(super) fn complete_admin(&mut self, slot: SlotIndex, status: Status, dword0: u32) {
        let Some(admin) = &mut self.admin else { return };
        if status != Status::SUCCESS {
            let sqe = admin.sq.slot(slot).sqe();
            let (cid, nsid) = (sqe.cid(), sqe.nsid());
            let error = CommandError {
                sqid: QueueId::ADMIN,
                cid,
                status,
                nsid,
                lba: 0,
            };
            note_error(self.state.controller(), &error);
        }
        admin.complete(slot, status, dword0, self.now_ns);
    }

    /// Every poll group has this view.
    pub(super) fn view_is_seen(&mut self, number: u64) {
        let Some(admin) = &mut self.admin else { return };
        let now_ns = self.now_ns;
        for (view, slot, dword0) in std::mem::take(&mut admin.with_view) {
            if view <= number {
                admin.complete(slot, Status::SUCCESS, dword0, now_ns);
            } else {
                admin.with_view.push((view, slot, dword0));
            }
        }
    }

    /// Answers event requests that were aborted or whose event has come, as there is room.
    fn answer_parked(&mut self) {
        let now_ns = self.now_ns;
        let Some(admin) = &mut self.admin else { return };
        while let Some(&slot) = admin.aborted.first() {
            if !admin.unpark() {
                return;
            }
            admin.aborted.remove(0);
            admin.complete(slot, Status::COMMAND_ABORT_REQUESTED, 0, now_ns);
        }
        let mut answered = false;
        while let Some((slot, event)) = self.async_events.due() {
            if !admin.unpark() {
                break;
            }
            self.async_events.answer(event);
            admin.complete(slot, Status::SUCCESS, event.into(), now_ns);
            answered = true;
        }
        // Only now: an event that is told twice after a crash does no harm, a lost one may.
        if answered {
            self.save_async_events();
        }
    }

    /// Notes that an admin command is good, before a poll group hears of it.
    pub(super) fn begin_effect(&self, slot: SlotIndex) {
        if let Some(admin) = &self.admin {
            admin.sq.slot(slot).begin_effect();
        }
    }

    /// Whether an earlier life found this admin command good and had a poll group carry it out.
    pub(super) fn has_begun_effect(&self, slot: SlotIndex) -> bool {
        let admin = self.admin.as_ref();
        admin.is_some_and(|admin| admin.sq.slot(slot).has_begun_effect())
    }

    /// Aborts an asynchronous event request; true if there was one.
    pub(super) fn abort_async_event(&mut self, cid: CommandId) -> bool {
        let Some(admin) = &mut self.admin else {
            return false;
        };
        let is_it = |slot: SlotIndex| admin.sq.slot(slot).cid() == cid;
        let Some(slot) = self.async_events.abort(is_it) else {
            return false;
        };
        // The host is to have it before it has the answer to its Abort, if there is room for both.
        if admin.aborted.is_empty() && admin.unpark() {
            admin.complete(slot, Status::COMMAND_ABORT_REQUESTED, 0, self.now_ns);
        } else {
            admin.aborted.push(slot);
        }
        true
    }

    /// Something happened that the host may hear of.
    pub(super) fn report(&mut self, event: AsyncEvent) {
        self.async_events.report(event);
        self.save_async_events();
    }

    /// The host has read a log page without retaining the event.
    pub(super) fn clear_events(&mut self, lid: u8) {
        self.async_events.clear(lid);
        self.save_async_events();
    }

    pub(super) fn save_async_events(&self) {
        let words = self.async_events.to_words();
        for (word, value) in self.state.controller().async_events.iter().zip(words) {
            word.store(value, Relaxed);
        }
    }
}

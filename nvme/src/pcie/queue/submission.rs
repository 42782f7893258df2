//! A submission queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use bdev::memory::{
    Access, GuestMemory, GuestRing, Iova, MemoryError, SharedPages, SharedSlice, SharedValue,
};

use super::{CqSlot, InvalidDoorbell, SlotIndex};
use crate::pcie::doorbell::{Doorbell, Side};
use crate::pcie::message::{ShadowDoorbells, SqSpec};
use crate::pcie::state::{ControllerState, Slot, SlotState, SqBlock};
use crate::spec::{QueueId, Sqe};

/// Words of 8 bytes.
const SQE_WORDS: usize = 8;

/// How many commands are called for together: as many lines as a core can wait for at one time.
const CALLED_FOR_MAX: u32 = 16;

/// A submission queue, owned by one poll group (or, the admin queue, by the controller).
#[derive(Debug)]
pub struct SubmissionQueue {
    id: QueueId,
    cqid: QueueId,
    base: Iova,
    entries: u32,
    ring: Option<GuestRing<SQE_WORDS>>,
    doorbell: Doorbell,
    head: u32,
    tail: u32,
    head_position: u64,
    stopped: bool,
    free: Vec<u16>,
    slots: SharedSlice<Slot>,
    block: SharedValue<SqBlock>,
    /// Credits of the fetched commands that were not completed yet.
    credits: u32,
}

impl SubmissionQueue {
    /// An empty queue; its doorbell and its durable block start from 0.
    ///
    /// # Errors
    /// When its memory is not mapped, or there can be no such queue (`Misaligned`).
    pub fn new(
        state: &Arc<ControllerState>,
        doorbells: &Arc<SharedPages>,
        memory: &GuestMemory,
        spec: &SqSpec,
    ) -> Result<SubmissionQueue, MemoryError> {
        let ring = memory.ring(spec.base, spec.entries, Access::Read)?;
        let block = state.sq(spec.id).ok_or(MemoryError::Misaligned)?;
        block.base.store(spec.base.0, Relaxed);
        block.cqid.store(spec.cqid.0.into(), Relaxed);
        block.head_position.store(0, Relaxed);
        let slots = state.slots(spec.id).ok_or(MemoryError::Misaligned)?;
        for slot in slots {
            // Reading is enough for slots that were never used: their pages need not exist.
            if slot.state() != SlotState::Free {
                slot.end_effect();
                slot.release();
            }
        }
        Doorbell::new(doorbells, spec.id, Side::Submission).clear();
        // Release: a process that dies here leaves no queue, or a whole one.
        block.entries.store(spec.entries, Release);
        let mut queue = SubmissionQueue::resume(state, doorbells, spec.id)?;
        queue.ring = Some(ring);
        Ok(queue)
    }

    /// The queue that the durable state describes, parked.
    ///
    /// # Errors
    /// `Misaligned` when the state describes none.
    pub fn resume(
        state: &Arc<ControllerState>,
        doorbells: &Arc<SharedPages>,
        id: QueueId,
    ) -> Result<SubmissionQueue, MemoryError> {
        let shared = state.sq_block(id).zip(state.slots_of(id));
        let (shared_block, slots) = shared.ok_or(MemoryError::Misaligned)?;
        let block = &shared_block;
        let entries = block.entries.load(Relaxed);
        if entries < 2 {
            return Err(MemoryError::Misaligned);
        }
        // A command that reached its slot was fetched, even if the head had no time to move.
        let fetched = slots.iter().filter(|slot| slot.state() != SlotState::Free);
        let fetched = fetched.map(|slot| slot.sq_position().wrapping_add(1));
        let head_position = block.head_position.load(Relaxed);
        let head_position = fetched.fold(head_position, u64::max);
        let head = (head_position % u64::from(entries)) as u32;
        // The lowest slots are handed out first and stay in the cache.
        let free = (0..slots.len() as u16).rev();
        let free = free.filter(|&slot| slots[usize::from(slot)].state() == SlotState::Free);
        Ok(SubmissionQueue {
            id,
            cqid: QueueId(block.cqid.load(Relaxed) as u16),
            base: Iova(block.base.load(Relaxed)),
            entries,
            ring: None,
            doorbell: Doorbell::new(doorbells, id, Side::Submission),
            head,
            tail: head,
            head_position,
            stopped: false,
            free: free.collect(),
            credits: 0,
            slots,
            block: shared_block,
        })
    }

    /// Its number.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// The completion queue it posts to.
    pub fn cqid(&self) -> QueueId {
        self.cqid
    }

    /// Its durable block.
    #[inline]
    pub fn block(&self) -> &SqBlock {
        &self.block
    }

    /// One of its slots. Slot numbers come from [`SubmissionQueue::pop`] and are always in range.
    #[inline]
    pub fn slot(&self, index: SlotIndex) -> &Slot {
        &self.slots[usize::from(index.0)]
    }

    /// Slots that hold something.
    pub fn occupied(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        (0u16..)
            .zip(self.slots.iter())
            .filter(|(_, slot)| slot.state() != SlotState::Free)
            .map(|(index, _)| SlotIndex(index))
    }

    /// True when no slot holds anything.
    pub fn is_drained(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// The head that completions report (SQHD).
    #[inline]
    pub fn head(&self) -> u16 {
        self.head as u16
    }

    /// The tail, as far as the doorbell was looked at.
    #[inline]
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Whether it has nothing more until its word in the doorbell page changes.
    #[inline]
    pub fn waits_for_doorbell(&self) -> bool {
        self.head == self.tail && !self.doorbell.is_shadowed()
    }

    /// Looks at the doorbell: how many commands are there to fetch.
    ///
    /// # Errors
    /// [`InvalidDoorbell`], once: the queue is stopped and says nothing more.
    #[inline]
    pub fn look(&mut self) -> Result<u32, InvalidDoorbell> {
        let tail = self.doorbell.load();
        if tail != self.tail {
            self.ring_doorbell(tail)?;
        }
        if self.stopped {
            return Ok(0);
        }
        let ahead = if self.tail >= self.head {
            self.tail
        } else {
            self.tail + self.entries
        };
        Ok(ahead - self.head)
    }

    /// Calls for the commands of a burst, so that their lines come from the host's core at one
    /// time and not one after the other. The first needs no call.
    #[inline]
    pub fn call_for(&self, count: u32) {
        let Some(ring) = &self.ring else { return };
        let mut index = self.head;
        for _ in 1..count.min(CALLED_FOR_MAX) {
            index = self.after(index);
            ring.prefetch(index);
        }
    }

    #[inline]
    fn ring_doorbell(&mut self, tail: u32) -> Result<(), InvalidDoorbell> {
        if self.stopped || self.ring.is_none() {
            return Ok(());
        }
        if tail >= self.entries {
            self.stopped = true;
            return Err(InvalidDoorbell(tail));
        }
        self.tail = tail;
        self.doorbell.seen(tail);
        Ok(())
    }

    /// True while its memory is unmapped.
    pub fn is_parked(&self) -> bool {
        self.ring.is_none()
    }

    /// Nothing more is fetched from this queue.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Fetches the next command into a slot, with a copy for who executes it at once, or hands the
    /// credit back: the queue is empty or parked, or all its slots are taken. A stopped queue is
    /// found out by [`look`](Self::look), which comes first.
    #[inline(always)]
    pub fn pop(&mut self, credit: CqSlot) -> Result<(SlotIndex, Sqe), CqSlot> {
        if self.head == self.tail {
            return Err(credit);
        }
        let Some(ring) = &self.ring else {
            return Err(credit);
        };
        let Some(index) = self.free.pop() else {
            return Err(credit);
        };
        let CqSlot(()) = credit;
        self.credits += 1;
        let sqe = Sqe::from_words(ring.load_entry(self.head));
        self.slot(SlotIndex(index)).fetch(&sqe, self.head_position);
        self.head_position += 1;
        self.head = self.after(self.head);
        Ok((SlotIndex(index), sqe))
    }

    #[inline]
    fn after(&self, index: u32) -> u32 {
        if index + 1 == self.entries {
            0
        } else {
            index + 1
        }
    }

    /// Notes in the durable state how far was fetched. Due after a burst, and before the slot of a
    /// command of the burst is released: until then the slots tell.
    #[inline]
    pub fn note_head(&self) {
        self.block().set_head_position(self.head_position);
    }

    /// Takes the credit of a command in a slot into keeping.
    #[inline]
    pub fn keep(&mut self, credit: CqSlot) {
        let CqSlot(()) = credit;
        self.credits += 1;
    }

    /// The credit of a command that is to be completed (or to be parked without one).
    #[inline]
    pub fn credit(&mut self) -> CqSlot {
        assert!(self.credits > 0, "a command completes once");
        self.credits -= 1;
        CqSlot(())
    }

    /// The slot is free again: its completion was posted or is not wanted any more.
    #[inline]
    pub fn release(&mut self, index: SlotIndex) {
        self.slot(index).release();
        self.take_back(index);
    }

    /// As [`release`](Self::release), of a slot that was released already.
    #[inline]
    pub fn take_back(&mut self, index: SlotIndex) {
        self.free.push(index.0);
    }

    /// Finds the ring and the shadow doorbell again after memory was mapped or unmapped.
    pub fn settle(&mut self, memory: &GuestMemory, shadow: Option<ShadowDoorbells>) {
        if self.ring.as_ref().is_none_or(GuestRing::retired) {
            self.ring = memory.ring(self.base, self.entries, Access::Read).ok();
        }
        // Without its shadow buffers the host is not heard: parked, like without the ring.
        if self.doorbell.shadow(memory, shadow).is_err() {
            self.ring = None;
        }
    }

    /// Forgets the queue in the durable state.
    pub fn remove(self) {
        self.block().entries.store(0, Relaxed);
    }
}

//! A completion queue.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use bdev::memory::{Access, GuestMemory, GuestRing, Iova, MemoryError, SharedPages, SharedValue};

use super::{CqSlot, CqSlots, InvalidDoorbell};
use crate::pcie::doorbell::{Doorbell, Side};
use crate::pcie::message::{CqSpec, ShadowDoorbells};
use crate::pcie::state::{ControllerState, CqBlock, Slot};
use crate::spec::{Cqe, QueueId};

/// Words of 8 bytes.
const CQE_WORDS: usize = 2;

/// A completion queue, owned by one poll group (or, the admin queue, by the controller).
#[derive(Debug)]
pub struct CompletionQueue {
    id: QueueId,
    base: Iova,
    entries: u32,
    vector: Option<u16>,
    ring: Option<GuestRing<CQE_WORDS>>,
    doorbell: Doorbell,
    head: u32,
    tail: u32,
    phase: bool,
    /// Entries posted that the host has not consumed, as far as was looked.
    unconsumed: u32,
    /// Credits handed out and not used yet.
    reserved: u32,
    stopped: bool,
    block: SharedValue<CqBlock>,
}

impl CompletionQueue {
    /// An empty queue; its doorbell and its durable block start from 0.
    ///
    /// # Errors
    /// When its memory is not mapped, or there can be no such queue (`Misaligned`).
    pub fn new(
        state: &Arc<ControllerState>,
        doorbells: &Arc<SharedPages>,
        memory: &GuestMemory,
        spec: &CqSpec,
    ) -> Result<CompletionQueue, MemoryError> {
        let ring = memory.ring(spec.base, spec.entries, Access::Write)?;
        let block = state.cq(spec.id).ok_or(MemoryError::Misaligned)?;
        block.base.store(spec.base.0, Relaxed);
        block.set_vector(spec.vector);
        block.head_position.store(0, Relaxed);
        block.tail_position.store(0, Relaxed);
        Doorbell::new(doorbells, spec.id, Side::Completion).clear();
        // Release: a process that dies here leaves no queue, or a whole one.
        block.entries.store(spec.entries, Release);
        let mut queue = CompletionQueue::resume(state, doorbells, spec.id)?;
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
    ) -> Result<CompletionQueue, MemoryError> {
        let shared_block = state.cq_block(id).ok_or(MemoryError::Misaligned)?;
        let block = &shared_block;
        let entries = block.entries.load(Relaxed);
        let tail_position = block.tail_position.load(Relaxed);
        let unconsumed = tail_position.wrapping_sub(block.head_position.load(Relaxed));
        if entries < 2 || unconsumed >= u64::from(entries) {
            return Err(MemoryError::Misaligned);
        }
        let tail = (tail_position % u64::from(entries)) as u32;
        Ok(CompletionQueue {
            id,
            base: Iova(block.base.load(Relaxed)),
            entries,
            vector: block.vector(),
            ring: None,
            doorbell: Doorbell::new(doorbells, id, Side::Completion),
            head: (tail + entries - unconsumed as u32) % entries,
            tail,
            phase: (tail_position / u64::from(entries)) % 2 == 0,
            unconsumed: unconsumed as u32,
            reserved: 0,
            stopped: false,
            block: shared_block,
        })
    }

    /// Its number.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Its interrupt vector, if interrupts are enabled for it.
    pub fn vector(&self) -> Option<u16> {
        self.vector
    }

    /// Room for up to `wanted` completions; less, or none, until the host has consumed some.
    ///
    /// # Errors
    /// [`InvalidDoorbell`], once: the queue is stopped and gives no more room.
    #[inline]
    pub fn reserve(&mut self, wanted: u32) -> Result<CqSlots, InvalidDoorbell> {
        if self.room() < wanted {
            self.consume()?;
        }
        let count = if self.stopped || self.ring.is_none() {
            0
        } else {
            wanted.min(self.room())
        };
        self.reserved += count;
        Ok(CqSlots(count))
    }

    /// As [`reserve`](Self::reserve), for `waiting` commands, or as many of them as are half of
    /// what the host keeps in flight: those, what is executed, and what it has not consumed, of all
    /// queues that post here. `bounds` are those of the half.
    ///
    /// # Errors
    /// As for [`reserve`](Self::reserve).
    #[inline(never)] // For a burst, among what is for each command.
    pub fn reserve_half(
        &mut self,
        waiting: u32,
        bounds: RangeInclusive<u32>,
    ) -> Result<CqSlots, InvalidDoorbell> {
        if waiting == 0 {
            return Ok(CqSlots(0));
        }
        self.consume()?;
        let half = (waiting + self.reserved + self.unconsumed) / 2;
        self.reserve(waiting.min(half.clamp(*bounds.start(), *bounds.end())))
    }

    /// Entries that nobody has a claim to. One stays empty, so that full and empty differ.
    #[inline]
    fn room(&self) -> u32 {
        (self.entries - 1).saturating_sub(self.unconsumed + self.reserved)
    }

    /// A credit for a command that was fetched in an earlier life or parked without one.
    pub fn readmit(&mut self) -> CqSlot {
        self.reserved += 1;
        CqSlot(())
    }

    /// Gives a credit back unused.
    #[inline]
    pub fn hand_back(&mut self, credit: CqSlot) {
        let CqSlot(()) = credit;
        self.reserved -= 1;
    }

    /// Gives those back that were not used.
    #[inline]
    pub fn hand_back_rest(&mut self, credits: CqSlots) {
        let CqSlots(count) = credits;
        self.reserved -= count;
    }

    /// Looks at the head doorbell; not while parked, when that may be elsewhere.
    ///
    /// # Errors
    /// [`InvalidDoorbell`] when the host claims to have consumed what was never posted.
    pub fn consume(&mut self) -> Result<(), InvalidDoorbell> {
        if self.is_parked() {
            return Ok(());
        }
        let head = self.doorbell.load();
        if head == self.head || self.stopped {
            return Ok(());
        }
        let consumed = (head.wrapping_add(self.entries)).wrapping_sub(self.head) % self.entries;
        if head >= self.entries || consumed > self.unconsumed {
            self.stopped = true;
            return Err(InvalidDoorbell(head));
        }
        self.head = head;
        self.unconsumed -= consumed;
        self.doorbell.seen(head);
        let position = self.head_position();
        self.block().head_position.store(position, Relaxed);
        Ok(())
    }

    /// Entries posted so far: only the durable state has this number.
    #[inline]
    pub fn tail_position(&self) -> u64 {
        self.block.tail_position.load(Relaxed)
    }

    /// Entries that the host has consumed, as far as was looked.
    #[inline]
    pub fn head_position(&self) -> u64 {
        self.tail_position() - u64::from(self.unconsumed)
    }

    /// True when the host has not consumed everything that was posted, as far as was looked.
    pub fn has_unconsumed(&self) -> bool {
        self.unconsumed != 0
    }

    /// Posts a completion: into `slot` with its position, then to the guest, all but the phase
    /// first. In a parked queue it stays in the slot; then `false`, and
    /// [`CompletionQueue::repost`] finishes it later.
    #[inline]
    pub fn post(&mut self, credit: CqSlot, slot: &Slot, cqe: &Cqe) -> bool {
        self.hand_back(credit);
        let words = cqe.with_phase(self.phase).to_words();
        let position = self.tail_position();
        slot.complete(words, position);
        let index = self.tail;
        self.unconsumed += 1;
        self.tail += 1;
        if self.tail == self.entries {
            self.tail = 0;
            self.phase = !self.phase;
        }
        let written = self.write(index, words);
        self.block().tail_position.store(position + 1, Relaxed);
        written
    }

    /// Writes the completion that a posting slot holds, once more or at last.
    pub fn repost(&mut self, slot: &Slot) -> bool {
        let (cqe, position) = slot.completion();
        let index = (position % u64::from(self.entries)) as u32;
        self.write(index, cqe.to_words())
    }

    /// Takes over the position of a posting slot whose process died before the tail moved.
    pub fn catch_up(&mut self, slot: &Slot) {
        let (_, position) = slot.completion();
        if position == self.tail_position() {
            let tail_position = position + 1;
            self.block().tail_position.store(tail_position, Relaxed);
            self.unconsumed += 1;
            self.tail = (tail_position % u64::from(self.entries)) as u32;
            self.phase = (tail_position / u64::from(self.entries)) % 2 == 0;
        }
    }

    #[inline]
    fn write(&self, index: u32, words: [u64; 2]) -> bool {
        let Some(ring) = &self.ring else { return false };
        ring.store(index, 0, words[0]);
        // Pairs with the host's load of the phase before it reads the rest of the entry.
        ring.store_release(index, 1, words[1]);
        true
    }

    #[inline]
    fn block(&self) -> &CqBlock {
        &self.block
    }

    /// Finds the ring and the shadow doorbell again after memory was mapped or unmapped.
    pub fn settle(&mut self, memory: &GuestMemory, shadow: Option<ShadowDoorbells>) {
        if self.ring.as_ref().is_none_or(GuestRing::retired) {
            self.ring = memory.ring(self.base, self.entries, Access::Write).ok();
        }
        if self.doorbell.shadow(memory, shadow).is_err() {
            self.ring = None;
        }
    }

    /// True while its memory is unmapped.
    pub fn is_parked(&self) -> bool {
        self.ring.is_none()
    }

    /// Forgets the queue in the durable state.
    pub fn remove(self) {
        self.block().entries.store(0, Relaxed);
    }
}

//! The slot of a command in flight.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, compiler_fence};

use zerocopy::{FromBytes, KnownLayout};

use super::DURABLE;
use crate::spec::{CommandId, Cqe, NvmOpcode, Sqe};

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SlotState {
    /// Nothing.
    Free = 0,
    /// A fetched command that was not completed.
    InFlight = 1,
    /// A completed command whose entry may or may not have reached the guest.
    Posting = 2,
}

/// One command in flight: the one copy of its entry, and its completion once there is one.
#[repr(C, align(128))]
#[derive(Debug, FromBytes, KnownLayout)]
pub struct Slot {
    sqe: [AtomicU64; 8],
    cqe: [AtomicU64; 2],
    sq_position: AtomicU64,
    cq_position: AtomicU64,
    state: AtomicU32,
    /// For an admin command that is not idempotent: the step that it has passed. 0 in a free slot.
    step: AtomicU32,
    reserved: [AtomicU64; 3],
}
const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    /// What the slot holds; an unknown value counts as free.
    pub fn state(&self) -> SlotState {
        match self.state.load(Relaxed) {
            1 => SlotState::InFlight,
            2 => SlotState::Posting,
            _ => SlotState::Free,
        }
    }

    #[inline]
    fn set_state(&self, state: SlotState) {
        if !DURABLE {
            return;
        }
        // Everything stored before belongs to the new state, nothing stored later does.
        compiler_fence(Release);
        self.state.store(state as u32, Relaxed);
        compiler_fence(Release);
    }

    /// Takes a command in: first half of a fetch, before the SQ head moves.
    #[inline]
    pub fn fetch(&self, sqe: &Sqe, sq_position: u64) {
        for (word, value) in self.sqe.iter().zip(sqe.to_words()) {
            word.store(value, Relaxed);
        }
        if DURABLE {
            self.sq_position.store(sq_position, Relaxed);
        }
        self.set_state(SlotState::InFlight);
    }

    /// The command, as it was copied when it was fetched.
    #[inline]
    pub fn sqe(&self) -> Sqe {
        Sqe::from_words(std::array::from_fn(|i| self.sqe[i].load(Relaxed)))
    }

    /// Command dword `n`, 0-15, of the command; 0 past the end.
    #[inline]
    pub fn dword(&self, n: usize) -> u32 {
        let word = self.sqe.get(n / 2).map_or(0, |word| word.load(Relaxed));
        (word >> (32 * (n % 2))) as u32
    }

    /// Opcode of the command, if it is of the NVM command set.
    #[inline]
    pub fn nvm_opcode(&self) -> NvmOpcode {
        NvmOpcode(self.dword(0) as u8)
    }

    /// Command identifier of the command: bits 31:16 of its first dword.
    #[inline]
    pub fn cid(&self) -> CommandId {
        CommandId((self.sqe[0].load(Relaxed) >> 16) as u16)
    }

    /// Position of the command in its submission queue.
    pub fn sq_position(&self) -> u64 {
        self.sq_position.load(Relaxed)
    }

    /// Notes that the command was judged and is about to be carried out, before anybody can see
    /// what it does.
    pub fn begin_effect(&self) {
        self.step.store(1, Relaxed);
        compiler_fence(Release);
    }

    /// Forgets [`begin_effect`](Self::begin_effect), before the slot is free for the next command.
    pub fn end_effect(&self) {
        self.step.store(0, Relaxed);
    }

    /// Whether the command was judged, in this life or an earlier one, and may be carried out.
    pub fn has_begun_effect(&self) -> bool {
        self.step.load(Relaxed) != 0
    }

    /// Notes the completion and where it goes, before the guest can see it.
    #[inline]
    pub fn complete(&self, cqe: [u64; 2], cq_position: u64) {
        if DURABLE {
            self.cqe[0].store(cqe[0], Relaxed);
            self.cqe[1].store(cqe[1], Relaxed);
            self.cq_position.store(cq_position, Relaxed);
        }
        self.set_state(SlotState::Posting);
    }

    /// The completion entry with its phase, and its position in the completion queue.
    pub fn completion(&self) -> (Cqe, u64) {
        let words = [self.cqe[0].load(Relaxed), self.cqe[1].load(Relaxed)];
        (Cqe::from_words(words), self.cq_position.load(Relaxed))
    }

    /// The guest has its completion; the slot is nobody's.
    pub fn release(&self) {
        self.set_state(SlotState::Free);
    }
}

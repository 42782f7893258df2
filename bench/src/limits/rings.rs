//! What client and server of the bare shape share: two rings and two doorbells, laid out as NVMe
//! has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bdev::memory::{PAGE_BYTES, Seal, SharedPages, SharedSlice};

use super::error::Error;

/// A command, the size of a submission queue entry.
type Entry = [AtomicU64; 8];
/// The answer, the size of a completion queue entry.
type Answer = [AtomicU64; 2];

/// The doorbells, apart from each other by more than the pair of lines that machines fetch.
const TAIL: usize = 0;
const HEAD: usize = 4;
/// The bit of an answer's last word that says that it is new.
const PHASE: u64 = 1 << 63;

/// What is in an entry: more than that would be protocol. The rest of it is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) slot: u16,
    /// A number that the answer repeats.
    pub(super) number: u64,
    /// Where on the disk.
    pub(super) offset: u64,
}

/// Positions count up without end; the rings have a power of two of places.
pub(super) struct Rings {
    doorbells: SharedSlice<Entry>,
    entries: SharedSlice<Entry>,
    answers: SharedSlice<Answer>,
    ended: AtomicBool,
}

impl Rings {
    /// Rings in which `depth` commands find a place.
    pub(super) fn new(depth: u16) -> Result<Rings, Error> {
        let count = usize::from(depth).next_power_of_two();
        let bytes = (count * size_of::<Entry>()).next_multiple_of(PAGE_BYTES);
        let pages = SharedPages::new("bellwire-bench", 2 * bytes + PAGE_BYTES, Seal::State)?;
        let lines = |at, count| pages.slice::<Entry>(at, count).ok_or(Error::Rings);
        Ok(Rings {
            doorbells: lines(0, HEAD + 1)?,
            entries: lines(PAGE_BYTES, count)?,
            answers: Arc::clone(&pages)
                .slice(PAGE_BYTES + bytes, count)
                .ok_or(Error::Rings)?,
            ended: AtomicBool::new(false),
        })
    }

    /// Writes a command. It is the server's with the next [`ring_tail`](Self::ring_tail).
    #[inline]
    pub(super) fn write(&self, at: u32, command: Command) {
        let entry = &self.entries[at as usize & (self.entries.len() - 1)];
        let Command {
            slot,
            number,
            offset,
        } = command;
        for (word, value) in entry
            .iter()
            .zip([slot.into(), number, offset, 0, 0, 0, 0, 0])
        {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Reads all of a command.
    #[inline]
    pub(super) fn read(&self, at: u32) -> Command {
        let entry = &self.entries[at as usize & (self.entries.len() - 1)];
        let [slot, number, offset, ..] = entry.each_ref().map(|word| word.load(Ordering::Relaxed));
        Command {
            slot: slot as u16,
            number,
            offset,
        }
    }

    /// Stores the doorbell of commands. Its partner is [`tail`](Self::tail).
    #[inline]
    pub(super) fn ring_tail(&self, tail: u32) {
        self.doorbells[TAIL][0].store(tail.into(), Ordering::Release);
    }

    /// The doorbell of commands: those before it can be read.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.doorbells[TAIL][0].load(Ordering::Acquire) as u32
    }

    /// Stores the doorbell of answers. Nothing looks at it: there are never more answers than
    /// places, and a target that knows this need not look either.
    #[inline]
    pub(super) fn ring_head(&self, head: u32) {
        self.doorbells[HEAD][0].store(head.into(), Ordering::Release);
    }

    /// Answers a command. The word with the phase comes last; its partner is
    /// [`answer`](Self::answer).
    #[inline]
    pub(super) fn complete(&self, at: u32, command: Command) {
        let [first, last] = &self.answers[at as usize & (self.answers.len() - 1)];
        first.store(command.number, Ordering::Relaxed);
        last.store(self.phase(at) | u64::from(command.slot), Ordering::Release);
    }

    /// The slot and the number of an answer, if it is there.
    #[inline]
    pub(super) fn answer(&self, at: u32) -> Option<(u16, u64)> {
        let [first, last] = &self.answers[at as usize & (self.answers.len() - 1)];
        let status = last.load(Ordering::Acquire);
        let new = status & PHASE == self.phase(at);
        new.then(|| (status as u16, first.load(Ordering::Relaxed)))
    }

    /// The phase of a position: set in the first round, as memory begins with zeroes.
    #[inline]
    fn phase(&self, at: u32) -> u64 {
        if at as usize & self.answers.len() == 0 {
            PHASE
        } else {
            0
        }
    }

    /// Whether client or server is gone.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Held by client and server: the first that is gone, in whatever way, ends the other.
pub(super) struct Ending<'a>(pub(super) &'a Rings);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_arrives_with_its_doorbell_and_its_answer_with_its_phase() {
        let rings = Rings::new(3).expect("rings");
        assert_eq!(rings.entries.len(), 4);
        for at in 0..20 {
            let command = Command {
                slot: at as u16 % 3,
                number: u64::from(at) + 1000,
                offset: u64::from(at) << 40,
            };
            rings.write(at, command);
            assert_eq!(rings.tail(), at);
            rings.ring_tail(at + 1);
            assert_eq!(rings.tail(), at + 1);
            assert_eq!(rings.read(at), command);
            assert_eq!(rings.answer(at), None);
            rings.complete(at, command);
            assert_eq!(rings.answer(at), Some((command.slot, command.number)));
            assert_eq!(rings.answer(at + 1), None);
            rings.ring_head(at + 1);
        }
    }

    #[test]
    fn positions_wrap_without_a_seam() {
        let rings = Rings::new(1024).expect("rings");
        let last = u32::MAX;
        assert_ne!(rings.phase(last), rings.phase(last.wrapping_add(1)));
        assert_eq!(rings.phase(0), PHASE);
    }

    #[test]
    fn who_ends_first_ends_both() {
        let rings = Rings::new(1).expect("rings");
        assert!(!rings.ended());
        drop(Ending(&rings));
        assert!(rings.ended());
    }
}

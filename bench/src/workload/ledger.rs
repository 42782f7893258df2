//! What a verifying job has written where, and what it is about.

use super::block::{Expected, Generation};
use super::extent::Chunk;

/// The most chunks of a run that verifies its own writes: 5 bytes are kept for each, 1.25 GiB then.
pub(crate) const CHUNKS_MAX: u64 = 1 << 28;

/// For each chunk of a job: how often it was written in this run, and whether a command is in
/// flight on it. All blocks of a chunk have the same generation.
#[derive(Debug)]
pub(crate) struct Ledger {
    writes: Vec<u32>,
    busy: Vec<bool>,
    base: Generation,
}

impl Ledger {
    /// A ledger of `chunks`, none of them written. Generations of this run come after `base`.
    pub(crate) fn new(chunks: u64, base: Generation) -> Ledger {
        Ledger {
            writes: vec![0; chunks as usize],
            busy: vec![false; chunks as usize],
            base,
        }
    }

    /// Takes `chunk`, or the next one after it on which nothing is in flight. None if all are
    /// taken.
    pub(crate) fn claim(&mut self, chunk: Chunk) -> Option<Chunk> {
        let (before, after) = self.busy.split_at(chunk.0 as usize);
        let found = match after.iter().position(|busy| !busy) {
            Some(further) => before.len() + further,
            None => before.iter().position(|busy| !busy)?,
        };
        self.busy[found] = true;
        Some(Chunk(found as u64))
    }

    /// Takes `chunk` and no other. False if something is in flight on it.
    pub(crate) fn claim_exactly(&mut self, chunk: Chunk) -> bool {
        !std::mem::replace(&mut self.busy[chunk.0 as usize], true)
    }

    /// Gives a chunk back.
    pub(crate) fn release(&mut self, chunk: Chunk) {
        self.busy[chunk.0 as usize] = false;
    }

    /// The generation of the next write.
    pub(crate) fn next(&self, chunk: Chunk) -> Generation {
        Generation(self.base.0 + u64::from(self.writes[chunk.0 as usize]) + 1)
    }

    /// A write was acknowledged.
    pub(crate) fn written(&mut self, chunk: Chunk) {
        let writes = &mut self.writes[chunk.0 as usize];
        *writes = writes.saturating_add(1);
    }

    /// What a read has to find.
    pub(crate) fn expected(&self, chunk: Chunk) -> Expected {
        match self.writes[chunk.0 as usize] {
            0 => Expected::Before(Generation(self.base.0 + 1)),
            writes => Expected::Exactly(Generation(self.base.0 + u64::from(writes))),
        }
    }

    /// The first chunk from `chunk` on that was written.
    pub(crate) fn next_written(&self, chunk: Chunk) -> Option<Chunk> {
        let writes = self.writes.get(chunk.0 as usize..)?;
        let further = writes.iter().position(|writes| *writes > 0)?;
        Some(Chunk(chunk.0 + further as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Generation = Generation(100);

    #[test]
    fn a_chunk_that_is_taken_is_not_replaced_by_another_if_no_other_will_do() {
        let mut ledger = Ledger::new(3, BASE);
        assert!(ledger.claim_exactly(Chunk(1)));
        assert!(!ledger.claim_exactly(Chunk(1)));
        ledger.release(Chunk(1));
        assert!(ledger.claim_exactly(Chunk(1)));
    }

    #[test]
    fn a_chunk_is_claimed_once_until_it_is_released() {
        let mut ledger = Ledger::new(3, BASE);
        assert_eq!(ledger.claim(Chunk(1)), Some(Chunk(1)));
        assert_eq!(ledger.claim(Chunk(1)), Some(Chunk(2)));
        assert_eq!(ledger.claim(Chunk(1)), Some(Chunk(0)));
        assert_eq!(ledger.claim(Chunk(1)), None);
        ledger.release(Chunk(2));
        assert_eq!(ledger.claim(Chunk(0)), Some(Chunk(2)));
    }

    #[test]
    fn each_acknowledged_write_is_a_generation() {
        let mut ledger = Ledger::new(2, BASE);
        assert_eq!(ledger.expected(Chunk(1)), Expected::Before(Generation(101)));
        assert_eq!(ledger.next(Chunk(1)), Generation(101));
        ledger.written(Chunk(1));
        assert_eq!(
            ledger.expected(Chunk(1)),
            Expected::Exactly(Generation(101))
        );
        assert_eq!(ledger.next(Chunk(1)), Generation(102));
        assert_eq!(ledger.next(Chunk(0)), Generation(101));
    }

    #[test]
    fn only_written_chunks_are_listed() {
        let mut ledger = Ledger::new(5, BASE);
        assert_eq!(ledger.next_written(Chunk(0)), None);
        ledger.written(Chunk(1));
        ledger.written(Chunk(4));
        assert_eq!(ledger.next_written(Chunk(0)), Some(Chunk(1)));
        assert_eq!(ledger.next_written(Chunk(2)), Some(Chunk(4)));
        assert_eq!(ledger.next_written(Chunk(5)), None);
    }
}

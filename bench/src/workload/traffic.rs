//! What a job's commands are, and what is done with their data.

use bdev::memory::{GuestMemory, Iova, MemoryError};

use super::Failure;
use super::block::{self, Expected, Generation, Stamp};
use super::extent::{Chunk, Extent, Lba};
use super::ledger::Ledger;
use super::pattern::{Action, Command, Pattern};

/// What memory holds before a read that is verified, so that a read which moves nothing is seen.
const POISON: u8 = 0x5a;

/// The commands of one phase of a job.
pub(crate) trait Traffic {
    /// The next command. None: not now, or never.
    fn next(&mut self) -> Option<Command>;

    /// Makes the memory of a command ready before it is submitted.
    fn prepare(&mut self, command: Command, data: Data<'_>) -> Result<(), MemoryError>;

    /// Looks at a command that has succeeded.
    fn finish(&mut self, command: Command, data: Data<'_>) -> Result<(), Failure>;
}

/// The memory of one command.
#[derive(Clone, Copy)]
pub(crate) struct Data<'a> {
    pub(crate) memory: &'a GuestMemory,
    pub(crate) address: Iova,
}

/// Commands whose data nobody looks at.
pub(crate) struct Unchecked(pub(crate) Pattern);

impl Traffic for Unchecked {
    #[inline(always)]
    fn next(&mut self) -> Option<Command> {
        self.0.next()
    }

    #[inline(always)]
    fn prepare(&mut self, _: Command, _: Data<'_>) -> Result<(), MemoryError> {
        Ok(())
    }

    #[inline(always)]
    fn finish(&mut self, _: Command, _: Data<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Writes and reads of this run, each checked against the last write of its chunk. No two commands
/// on one chunk are in flight together.
pub(crate) struct Checked<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) checker: &'a mut Checker,
    /// Whether a command waits for its chunk, and takes no other that is free: zones would be left.
    pub(crate) in_place: bool,
    /// A command whose chunk could not be had yet.
    pub(crate) waiting: Option<Command>,
}

impl Traffic for Checked<'_> {
    fn next(&mut self) -> Option<Command> {
        let Command { action, chunk } = self.waiting.take().or_else(|| self.pattern.next())?;
        let claimed = match self.in_place {
            true => self.ledger.claim_exactly(chunk).then_some(chunk),
            false => self.ledger.claim(chunk),
        };
        match claimed {
            Some(chunk) => Some(Command { action, chunk }),
            None => {
                self.waiting = Some(Command { action, chunk });
                None
            }
        }
    }

    fn prepare(&mut self, command: Command, data: Data<'_>) -> Result<(), MemoryError> {
        let Command { action, chunk } = command;
        match action {
            Action::Read => self.checker.poison(data),
            Action::Write => self.checker.fill(chunk, self.ledger.next(chunk), data),
        }
    }

    fn finish(&mut self, command: Command, data: Data<'_>) -> Result<(), Failure> {
        let Command { action, chunk } = command;
        self.ledger.release(chunk);
        match action {
            Action::Read => self.checker.check(chunk, self.ledger.expected(chunk), data),
            Action::Write => {
                self.ledger.written(chunk);
                Ok(())
            }
        }
    }
}

/// Reads everything that this run has written.
pub(crate) struct ReadBack<'a> {
    pub(crate) cursor: Chunk,
    pub(crate) ledger: &'a Ledger,
    pub(crate) checker: &'a mut Checker,
}

impl Traffic for ReadBack<'_> {
    fn next(&mut self) -> Option<Command> {
        let chunk = self.ledger.next_written(self.cursor)?;
        self.cursor = Chunk(chunk.0 + 1);
        let action = Action::Read;
        Some(Command { action, chunk })
    }

    fn prepare(&mut self, _: Command, data: Data<'_>) -> Result<(), MemoryError> {
        self.checker.poison(data)
    }

    fn finish(&mut self, command: Command, data: Data<'_>) -> Result<(), Failure> {
        let Command { chunk, .. } = command;
        self.checker.check(chunk, self.ledger.expected(chunk), data)
    }
}

/// Reads of what an earlier run has written.
pub(crate) struct SelfDescribed<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) checker: &'a mut Checker,
}

impl Traffic for SelfDescribed<'_> {
    fn next(&mut self) -> Option<Command> {
        self.pattern.next()
    }

    fn prepare(&mut self, _: Command, data: Data<'_>) -> Result<(), MemoryError> {
        self.checker.poison(data)
    }

    fn finish(&mut self, command: Command, data: Data<'_>) -> Result<(), Failure> {
        self.checker.check(command.chunk, Expected::Written, data)
    }
}

/// Makes and judges the data of whole chunks, in memory of our own.
pub(crate) struct Checker {
    extent: Extent,
    seed: u64,
    bytes: Vec<u8>,
    blocks: u64,
}

impl Checker {
    pub(crate) fn new(extent: Extent, seed: u64) -> Checker {
        Checker {
            extent,
            seed,
            bytes: vec![0; extent.chunk_bytes()],
            blocks: 0,
        }
    }

    /// How many blocks were found to hold what they had to.
    pub(crate) fn blocks_verified(&self) -> u64 {
        self.blocks
    }

    fn fill(
        &mut self,
        chunk: Chunk,
        generation: Generation,
        data: Data<'_>,
    ) -> Result<(), MemoryError> {
        let (seed, first) = (self.seed, self.extent.lba(chunk));
        let block_bytes = self.extent.block().bytes() as usize;
        for (lba, block) in (first.0..).zip(self.bytes.chunks_exact_mut(block_bytes)) {
            let stamp = Stamp {
                seed,
                lba: Lba(lba),
                generation,
            };
            block::encode(block, stamp);
        }
        data.memory.write(data.address, &self.bytes)
    }

    fn poison(&mut self, data: Data<'_>) -> Result<(), MemoryError> {
        self.bytes.fill(POISON);
        data.memory.write(data.address, &self.bytes)
    }

    fn check(&mut self, chunk: Chunk, expected: Expected, data: Data<'_>) -> Result<(), Failure> {
        data.memory.read(data.address, &mut self.bytes)?;
        let first = self.extent.lba(chunk);
        let block_bytes = self.extent.block().bytes() as usize;
        for (lba, block) in (first.0..).zip(self.bytes.chunks_exact(block_bytes)) {
            block::check(block, self.seed, Lba(lba), expected).map_err(Failure::Mismatch)?;
        }
        if !matches!(expected, Expected::Before(_)) {
            self.blocks += u64::from(self.extent.blocks_per_chunk());
        }
        Ok(())
    }
}

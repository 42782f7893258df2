//! A pair of queues of one size, seen from the host (NVMe over PCIe Transport 1.0, 3.2).

use bdev::memory::{Access, GuestMemory, GuestRing, Iova, MemoryRegion};
use nvme::spec::{Cqe, QueueId, Sqe};

use super::doorbell::{Doorbell, Doorbells, Side};
use super::{DriverError, HostMemory, PageSize};

/// Words of a submission queue entry.
const SQE_WORDS: usize = 8;
/// Words of a completion queue entry.
const CQE_WORDS: usize = 2;

/// The words of a submission queue entry that differ between commands of one workload.
mod word {
    /// Opcode, command identifier and namespace.
    pub(super) const HEAD: usize = 0;
    /// PRP entry 1.
    pub(super) const PRP1: usize = 3;
    /// PRP entry 2.
    pub(super) const PRP2: usize = 4;
    /// Command dwords 10 and 11: the starting LBA.
    pub(super) const SLBA: usize = 5;
}

/// A queue pair that is there, for the thread that shall drive it.
#[derive(Debug)]
pub(crate) struct QueueSeed {
    pub(super) id: QueueId,
    pub(super) entries: u32,
    pub(super) submission: Iova,
    pub(super) completion: Iova,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
    region: MemoryRegion,
}

/// What changes from command to command, prepared as far as it can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreparedCommand {
    head: u64,
    prps: [u64; 2],
}

impl PreparedCommand {
    /// The parts of `sqe` that [`QueuePair::push_prepared`] writes.
    pub(crate) fn of(sqe: &Sqe) -> PreparedCommand {
        PreparedCommand {
            head: sqe.to_words()[word::HEAD],
            prps: sqe.prps(),
        }
    }
}

/// A submission and a completion queue. Doorbells are written by [`ring`](Self::ring) only, so that
/// a burst costs one write of each.
///
/// The owner never has as many commands in flight as there are entries: neither queue can be full.
#[derive(Debug)]
pub(crate) struct QueuePair {
    id: QueueId,
    sq: GuestRing<SQE_WORDS>,
    cq: GuestRing<CQE_WORDS>,
    entries: u32,
    tail: u32,
    head: u32,
    phase: bool,
    rung_tail: u32,
    rung_head: u32,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
}

impl QueueSeed {
    pub(super) fn new(
        id: QueueId,
        entries: u32,
        memory: &mut HostMemory,
        doorbells: &Doorbells,
    ) -> Result<QueueSeed, DriverError> {
        let entries_long = u64::from(entries);
        let submission = memory.allocate(entries_long * SQE_WORDS as u64 * 8)?;
        let completion = memory.allocate(entries_long * CQE_WORDS as u64 * 8)?;
        Ok(QueueSeed {
            id,
            entries,
            submission,
            completion,
            sq_doorbell: doorbells.of(id, Side::SubmissionTail),
            cq_doorbell: doorbells.of(id, Side::CompletionHead),
            region: memory.region().clone(),
        })
    }

    /// How many bytes the two queues take, in whole pages.
    pub(crate) fn bytes(entries: u32, page: PageSize) -> u64 {
        let queue = |words: usize| (u64::from(entries) * words as u64 * 8).next_multiple_of(page.0);
        queue(SQE_WORDS) + queue(CQE_WORDS)
    }

    /// A table of the memory that the queues are in, for the thread that makes it.
    pub(crate) fn table(&self) -> Result<GuestMemory, DriverError> {
        HostMemory::table(&self.region)
    }

    /// The queue pair, for the thread that opens it.
    pub(crate) fn open(self, memory: &GuestMemory) -> Result<QueuePair, DriverError> {
        let sq = memory.ring(self.submission, self.entries, Access::Write)?;
        let cq = memory.ring(self.completion, self.entries, Access::Read)?;
        Ok(QueuePair {
            id: self.id,
            sq,
            cq,
            entries: self.entries,
            tail: 0,
            head: 0,
            phase: true,
            rung_tail: 0,
            rung_head: 0,
            sq_doorbell: self.sq_doorbell,
            cq_doorbell: self.cq_doorbell,
        })
    }
}

impl QueuePair {
    /// Fills every entry with `template`, of which [`push_prepared`](Self::push_prepared) changes
    /// what differs. Not with commands in flight.
    pub(crate) fn prepare(&mut self, template: &Sqe) {
        for index in 0..self.entries {
            self.write_entry(index, template);
        }
    }

    /// Appends a command like the template.
    #[inline]
    pub(crate) fn push_prepared(&mut self, command: &PreparedCommand, slba: u64) {
        self.sq.store(self.tail, word::HEAD, command.head);
        self.sq.store(self.tail, word::PRP1, command.prps[0]);
        self.sq.store(self.tail, word::PRP2, command.prps[1]);
        self.sq.store(self.tail, word::SLBA, slba);
        self.tail = self.after(self.tail);
    }

    /// Appends any command. The queue has to be [prepared](Self::prepare) again after it.
    pub(crate) fn push(&mut self, sqe: &Sqe) {
        self.write_entry(self.tail, sqe);
        self.tail = self.after(self.tail);
    }

    /// The next completion, if there is one.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Cqe> {
        // The phase is in the last word. Its partner is the controller's store of that word, after
        // the other.
        let last = self.cq.load_acquire(self.head, 1);
        if Cqe::from_words([0, last]).phase() != self.phase {
            return None;
        }
        let first = self.cq.load(self.head, 0);
        self.head = self.after(self.head);
        if self.head == 0 {
            self.phase = !self.phase;
        }
        Some(Cqe::from_words([first, last]))
    }

    /// Tells the controller what was taken and what was appended since the last time.
    #[inline]
    pub(crate) fn ring(&mut self) -> Result<(), DriverError> {
        if self.head != self.rung_head {
            self.rung_head = self.head;
            self.cq_doorbell.ring(self.head)?;
        }
        if self.tail != self.rung_tail {
            self.rung_tail = self.tail;
            self.sq_doorbell.ring(self.tail)?;
        }
        Ok(())
    }

    /// The identifier of both queues.
    #[inline]
    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    #[inline]
    fn after(&self, index: u32) -> u32 {
        if index + 1 == self.entries {
            0
        } else {
            index + 1
        }
    }

    fn write_entry(&self, index: u32, sqe: &Sqe) {
        for (word, value) in sqe.to_words().into_iter().enumerate() {
            self.sq.store(index, word, value);
        }
    }
}

//! The host: memory with one queue pair in it, and bursts of commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bdev::memory::{
    Access, Backing, GuestMemory, GuestRing, Iova, MemoryRegion, PAGE_BYTES, PageKind, Protection,
    Seal, SharedPages,
};
use nvme::pcie::doorbell::{DOORBELL_BASE, doorbell_file_bytes};
use nvme::pcie::message::{CqSpec, SqSpec};
use nvme::spec::{Cqe, NvmOpcode, QueueId, Status};

use super::MicroError;

/// Entries of a queue, and slots for its commands.
pub(super) const ENTRIES: u32 = 256;
/// Commands that are submitted together.
pub(super) const BURST: u32 = 32;
/// Bytes of the disk that commands are for.
pub(super) const DISK_BYTES: u64 = 256 << 20;
/// Bytes of the longest transfer, 32 pages and so a list of them.
pub(super) const LONG_BYTES: u64 = 128 << 10;

const PAGE: u64 = PAGE_BYTES as u64;
/// Where guest memory begins, for the controller.
const BASE: u64 = 1 << 32;
/// Where things are in it.
const SQ: u64 = BASE;
const CQ: u64 = BASE + 0x10_000;
const LISTS: u64 = BASE + 0x20_000;
const BUFFERS: u64 = BASE + (1 << 20);
/// Guest memory: queues, lists, and a buffer for each command of a burst.
const MEMORY_BYTES: u64 = 16 << 20;

const _: () = assert!(ENTRIES % BURST == 0 && (ENTRIES as u64) * 64 <= CQ - SQ);

/// What a host submits.
#[derive(Clone, Copy)]
pub(super) struct Traffic {
    pub(super) opcode: NvmOpcode,
    /// Bytes that each command moves.
    pub(super) bytes: u64,
}

/// A host with one queue pair.
pub(super) struct Host {
    pub(super) traffic: Traffic,
    pub(super) memory: GuestMemory,
    pub(super) doorbells: Arc<SharedPages>,
    region: MemoryRegion,
    sq: GuestRing<8>,
    cq: GuestRing<2>,
    tail: u32,
    head: u32,
    phase: bool,
    random: Random,
}

impl Host {
    /// A host of a controller with this many queue pairs, of which it uses the first.
    pub(super) fn new(traffic: Traffic, queues: u16) -> Result<Host, MicroError> {
        let (backing, _fd) = Backing::memfd("micro", MEMORY_BYTES, PageKind::Normal)?;
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(BASE), MEMORY_BYTES, protection)?;
        let mut memory = GuestMemory::new();
        memory.map(region.clone())?;
        let host = Host {
            traffic,
            doorbells: SharedPages::new("micro", doorbell_file_bytes(queues), Seal::Doorbells)?,
            region,
            sq: memory.ring(Iova(SQ), ENTRIES, Access::Write)?,
            cq: memory.ring(Iova(CQ), ENTRIES, Access::Read)?,
            memory,
            tail: 0,
            head: 0,
            phase: true,
            random: Random(0x9e37_79b9_7f4a_7c15),
        };
        host.write_lists()?;
        Ok(host)
    }

    /// For each command of a burst the addresses of its pages but the first.
    fn write_lists(&self) -> Result<(), MicroError> {
        for command in 0..u64::from(BURST) {
            let first = buffer_of(command).0;
            let pages = (1..LONG_BYTES / PAGE).flat_map(|n| (first + n * PAGE).to_le_bytes());
            let list = pages.collect::<Vec<_>>();
            self.memory.write(list_of(command), &list)?;
        }
        Ok(())
    }

    /// Its memory, for the controller.
    pub(super) fn region(&self) -> MemoryRegion {
        self.region.clone()
    }

    /// Fills a burst into the queue and rings the doorbell.
    pub(super) fn submit(&mut self) {
        for command in 0..u64::from(BURST) {
            for (word, value) in self.command(command).into_iter().enumerate() {
                self.sq.store(self.tail, word, value);
            }
            self.tail = (self.tail + 1) % ENTRIES;
        }
        let tail = DOORBELL_BASE as usize + 8;
        self.doorbells.store_u32(tail, self.tail, Ordering::Release);
    }

    fn command(&mut self, command: u64) -> [u64; 8] {
        let Traffic { opcode, bytes } = self.traffic;
        // Any block, so that a copy finds nothing near.
        let slots = DISK_BYTES / bytes.max(512);
        let slba = self.random.next() % slots * (bytes.max(512) / 512);
        [
            u64::from(opcode.0) | command << 16 | 1 << 32,
            0,
            0,
            buffer_of(command).0,
            list_of(command).0,
            if bytes == 0 { 0 } else { slba },
            (bytes / 512).saturating_sub(1),
            0,
        ]
    }

    /// Whether the last command of the burst has completed.
    pub(super) fn is_done(&self) -> bool {
        // Bursts divide the queue, so that it has the phase of the first.
        self.entry(self.head + BURST - 1).phase() == self.phase
    }

    /// An entry of its completion queue.
    pub(super) fn entry(&self, index: u32) -> Cqe {
        Cqe::from_words([self.cq.load(index, 0), self.cq.load_acquire(index, 1)])
    }

    /// Takes the completions of a burst.
    ///
    /// # Errors
    /// The first status that is not a success.
    pub(super) fn reap(&mut self) -> Result<(), Status> {
        for index in self.head..self.head + BURST {
            let status = self.entry(index).status();
            if status != Status::SUCCESS {
                return Err(status);
            }
        }
        self.head = (self.head + BURST) % ENTRIES;
        self.phase ^= self.head == 0;
        let head = DOORBELL_BASE as usize + 12;
        self.doorbells.store_u32(head, self.head, Ordering::Release);
        Ok(())
    }
}

/// The queue pair `id`, all of them in one place: one at most is used.
pub(super) fn queue_pair(id: QueueId) -> (CqSpec, SqSpec) {
    let cq = CqSpec {
        id,
        base: Iova(CQ),
        entries: ENTRIES,
        vector: None,
    };
    let sq = SqSpec {
        id,
        cqid: id,
        base: Iova(SQ),
        entries: ENTRIES,
    };
    (cq, sq)
}

/// The buffer of a command of a burst, and where the list of its further pages is.
fn buffer_of(command: u64) -> Iova {
    Iova(BUFFERS + command * LONG_BYTES)
}

fn list_of(command: u64) -> Iova {
    Iova(LISTS + command * PAGE)
}

/// xorshift64.
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::Case;
    use super::super::group::Group;
    use super::*;

    #[test]
    fn what_was_written_is_what_is_read() {
        let mut group = Group::new(Case::MallocWrite, 1).expect("a group");
        let data = [0x5a; PAGE_BYTES];
        for command in 0..u64::from(BURST) {
            let host = &group.host;
            host.memory.write(buffer_of(command), &data).expect("room");
        }
        let seed = group.host.random;
        for case in [Case::MallocWrite, Case::MallocRead] {
            (group.host.traffic, group.host.random) = (case.traffic(), seed);
            group.burst().expect("success");
            if case == Case::MallocWrite {
                let wiped = [0; PAGE_BYTES];
                let host = &group.host;
                host.memory.write(buffer_of(0), &wiped).expect("room");
            }
        }
        let mut found = [0; PAGE_BYTES];
        let memory = &group.host.memory;
        memory.read(buffer_of(0), &mut found).expect("memory");
        assert_eq!(found, data);
    }
}

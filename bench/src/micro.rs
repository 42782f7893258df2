//! What a command costs where no other core takes part: a host and a poll group take turns in one
//! thread. The host fills a burst into the queue, the group makes passes until all of it is done.
//!
//! Only [`pass`] is measured. Under callgrind with `--toggle-collect='*micro::pass*'` its
//! instructions are counted, which says the same on every machine, however busy.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bdev::memory::{
    Access, Backing, GuestMemory, GuestRing, Iova, MemoryRegion, PAGE_BYTES, PageKind, Protection,
    Seal, SharedPages,
};
use bdev::{Bdev, IoContext, IoLimits, Malloc, MallocConfig, Null, NullConfig};
use nvme::namespace::Namespace;
use nvme::pcie::doorbell::{DOORBELL_BASE, doorbell_file_bytes};
use nvme::pcie::message::{Coalescing, ControllerView, CqSpec, Envelope, GroupId, SqSpec, ToGroup};
use nvme::pcie::poll_group::{GroupSeed, PollGroup};
use nvme::pcie::state::ControllerState;
use nvme::spec::{Cqe, Nsid, NvmOpcode, QueueId, Status};

/// Entries of a queue, and slots for its commands.
const ENTRIES: u32 = 256;
/// Commands that are submitted together.
const BURST: u32 = 32;
/// Where guest memory begins, for the group.
const BASE: u64 = 1 << 32;
/// Controllers of the idle case, and queues of each.
const IDLE_CONTROLLERS: u32 = 64;
const IDLE_QUEUES: u16 = 16;
/// Bytes of the memory disk.
const DISK_BYTES: u64 = 256 << 20;
/// Bytes of the longest transfer, 32 pages and so a list of them.
const LONG_BYTES: u64 = 128 << 10;
/// Guest memory: queues, lists, and a buffer for each command of a burst.
const MEMORY_BYTES: u64 = 16 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// A look at a queue in which nothing is, of 64 controllers with 16 each
    Idle,
    /// A command without data or a device that does anything
    Flush,
    /// 4 KiB read from a null disk
    NullRead,
    /// 128 KiB read from a null disk, with a list of PRPs
    NullReadLong,
    /// 4 KiB read from a memory disk
    MallocRead,
    /// 4 KiB write to a memory disk
    MallocWrite,
}

const CASES: [Case; 6] = [
    Case::Idle,
    Case::Flush,
    Case::NullRead,
    Case::NullReadLong,
    Case::MallocRead,
    Case::MallocWrite,
];

impl Case {
    /// What one step is, for the report.
    fn step(self) -> &'static str {
        match self {
            Case::Idle => "look at one of 1024 idle queues",
            Case::Flush => "flush",
            Case::NullRead => "read of 4 KiB, null",
            Case::NullReadLong => "read of 128 KiB by a PRP list, null",
            Case::MallocRead => "read of 4 KiB, memory",
            Case::MallocWrite => "write of 4 KiB, memory",
        }
    }

    fn opcode(self) -> NvmOpcode {
        match self {
            Case::Idle | Case::Flush => NvmOpcode::FLUSH,
            Case::NullRead | Case::NullReadLong | Case::MallocRead => NvmOpcode::READ,
            Case::MallocWrite => NvmOpcode::WRITE,
        }
    }

    fn transfer_bytes(self) -> u64 {
        match self {
            Case::Idle | Case::Flush => 0,
            Case::NullReadLong => LONG_BYTES,
            Case::NullRead | Case::MallocRead | Case::MallocWrite => PAGE_BYTES as u64,
        }
    }

    fn disk(self) -> Result<Arc<dyn Bdev>, bdev::Error> {
        match self {
            Case::MallocRead | Case::MallocWrite => Ok(Malloc::new(MallocConfig {
                name: "micro".to_owned(),
                uuid: None,
                size: DISK_BYTES,
                block_size: 512,
            })?),
            _ => Ok(Null::new(NullConfig {
                name: "micro".to_owned(),
                uuid: None,
                blocks: DISK_BYTES / 512,
                block_size: 512,
            })?),
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MicroError {
    #[error(transparent)]
    Disk(#[from] bdev::Error),
    #[error("memory for the guest: {0}")]
    Map(#[from] bdev::memory::MapError),
    #[error("queues: {0:?}")]
    Memory(bdev::memory::MemoryError),
    #[error("the controller's state: {0}")]
    State(#[from] nvme::pcie::state::StateError),
    #[error("{case:?}: a command completed with {status:?}")]
    Failed { case: Case, status: Status },
}

impl From<bdev::memory::MemoryError> for MicroError {
    fn from(error: bdev::memory::MemoryError) -> MicroError {
        MicroError::Memory(error)
    }
}

/// Measures one case or all, this many commands each, and prints a line for each case.
pub(crate) fn run(wanted: Option<Case>, commands: u32) -> Result<(), MicroError> {
    for case in CASES {
        if wanted.is_some_and(|wanted| wanted != case) {
            continue;
        }
        let steps = commands.next_multiple_of(BURST);
        let ns = measure(case, steps)?;
        println!("{:<36} {:>8.1} ns  ({steps} times)", case.step(), ns);
    }
    Ok(())
}

/// Nanoseconds of a step in the poll group.
fn measure(case: Case, steps: u32) -> Result<f64, MicroError> {
    if case == Case::Idle {
        return measure_idle(steps);
    }
    let mut rig = Rig::new(case, 1)?;
    let mut total = 0;
    for _ in 0..steps / BURST {
        rig.submit();
        let begun = Instant::now();
        while !rig.is_done() {
            pass(&mut rig.group);
        }
        total += begun.elapsed().as_nanos();
        rig.reap()?;
    }
    Ok(total as f64 / f64::from(steps))
}

fn measure_idle(steps: u32) -> Result<f64, MicroError> {
    let rigs = (0..IDLE_CONTROLLERS).map(|_| Rig::new(Case::Idle, IDLE_QUEUES));
    let mut rigs = rigs.collect::<Result<Vec<_>, _>>()?;
    let rounds = steps.div_ceil(IDLE_CONTROLLERS * u32::from(IDLE_QUEUES));
    let begun = Instant::now();
    for _ in 0..rounds {
        rigs.iter_mut().for_each(|rig| pass(&mut rig.group));
    }
    let looks = rounds * IDLE_CONTROLLERS * u32::from(IDLE_QUEUES);
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(looks))
}

/// One pass: all that is measured.
#[inline(never)]
fn pass(group: &mut PollGroup) {
    group.poll(0);
}

/// A group with one queue pair, and its host.
struct Rig {
    case: Case,
    group: PollGroup,
    memory: GuestMemory,
    doorbells: Arc<SharedPages>,
    sq: GuestRing<8>,
    cq: GuestRing<2>,
    tail: u32,
    head: u32,
    phase: bool,
    random: u64,
}

/// Where things are in guest memory.
const SQ: u64 = BASE;
const CQ: u64 = BASE + 0x10_000;
const LISTS: u64 = BASE + 0x20_000;
const BUFFERS: u64 = BASE + (1 << 20);

impl Rig {
    /// A rig of this many queue pairs, of which the first is used.
    fn new(case: Case, queues: u16) -> Result<Rig, MicroError> {
        let state = ControllerState::new(queues, ENTRIES as u16)?;
        let doorbells = SharedPages::new("micro", doorbell_file_bytes(queues), Seal::Doorbells)?;
        let (backing, _fd) = Backing::memfd("micro", MEMORY_BYTES, PageKind::Normal)?;
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(BASE), MEMORY_BYTES, protection)?;
        let mut memory = GuestMemory::new();
        memory.map(region.clone())?;
        let mut group = group(case, &state, &doorbells)?;
        add_queues(&mut group, region, queues);
        let rig = Rig {
            case,
            group,
            doorbells,
            sq: memory.ring(Iova(SQ), ENTRIES, Access::Write)?,
            cq: memory.ring(Iova(CQ), ENTRIES, Access::Read)?,
            memory,
            tail: 0,
            head: 0,
            phase: true,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        rig.write_lists()?;
        Ok(rig)
    }

    /// For each command of a burst the addresses of its pages but the first.
    fn write_lists(&self) -> Result<(), MicroError> {
        let page = PAGE_BYTES as u64;
        for command in 0..u64::from(BURST) {
            let pages = (1..LONG_BYTES / page).flat_map(|n| {
                let address = BUFFERS + command * LONG_BYTES + n * page;
                address.to_le_bytes()
            });
            let list = pages.collect::<Vec<_>>();
            self.memory.write(Iova(LISTS + command * page), &list)?;
        }
        Ok(())
    }

    fn submit(&mut self) {
        let bytes = self.case.transfer_bytes();
        for command in 0..u64::from(BURST) {
            // xorshift64: any disk block, so that a copy finds nothing near.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let slots = DISK_BYTES / bytes.max(512);
            let slba = self.random % slots * (bytes.max(512) / 512);
            let words = [
                u64::from(self.case.opcode().0) | command << 16 | 1 << 32,
                0,
                0,
                BUFFERS + command * LONG_BYTES,
                LISTS + command * PAGE_BYTES as u64,
                if bytes == 0 { 0 } else { slba },
                (bytes / 512).saturating_sub(1),
                0,
            ];
            for (word, value) in words.into_iter().enumerate() {
                self.sq.store(self.tail, word, value);
            }
            self.tail = (self.tail + 1) % ENTRIES;
        }
        let tail = DOORBELL_BASE as usize + 8;
        self.doorbells.store_u32(tail, self.tail, Ordering::Release);
    }

    /// Whether the last command of the burst has completed.
    fn is_done(&self) -> bool {
        let last = (self.head + BURST - 1) % ENTRIES;
        // Bursts divide the queue, so that it has the phase of the first.
        Cqe::from_words([0, self.cq.load_acquire(last, 1)]).phase() == self.phase
    }

    fn reap(&mut self) -> Result<(), MicroError> {
        for index in self.head..self.head + BURST {
            let status = Cqe::from_words([0, self.cq.load(index, 1)]).status();
            if status != Status::SUCCESS {
                let case = self.case;
                return Err(MicroError::Failed { case, status });
            }
        }
        self.head = (self.head + BURST) % ENTRIES;
        self.phase ^= self.head == 0;
        let head = DOORBELL_BASE as usize + 12;
        self.doorbells.store_u32(head, self.head, Ordering::Release);
        Ok(())
    }
}

const _: () = assert!(ENTRIES % BURST == 0 && (ENTRIES as u64) * 64 <= CQ - SQ);

/// A poll group without memory or queues.
fn group(
    case: Case,
    state: &Arc<ControllerState>,
    doorbells: &Arc<SharedPages>,
) -> Result<PollGroup, MicroError> {
    let namespace = Namespace::new(Nsid(1), case.disk()?, false);
    let view = ControllerView {
        number: 1,
        namespaces: vec![Some(Arc::new(namespace))],
        vectors: Vec::new(),
        coalescing: Coalescing::default(),
        uncoalesced: Vec::new(),
        page_shift: 12,
        transfer_bytes_max: 1 << 20,
        write_cache: true,
        shadow: None,
    };
    let seed = GroupSeed {
        id: GroupId(0),
        state: Arc::clone(state),
        doorbells: Arc::clone(doorbells),
        view: Arc::new(view),
    };
    Ok(PollGroup::new(seed, IoContext::new(IoLimits::default())?))
}

/// Maps the memory and makes queue pairs from 1 on, all in one place: one at most is used.
fn add_queues(group: &mut PollGroup, region: MemoryRegion, queues: u16) {
    let pairs = (1..=queues).map(QueueId).flat_map(|id| {
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
        [ToGroup::CreateCq(cq), ToGroup::CreateSq(sq)]
    });
    let requests = std::iter::once(ToGroup::Map(region)).chain(pairs);
    for (sequence, body) in (1..).zip(requests) {
        group.receive(Envelope { sequence, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_completes_its_commands() {
        for case in CASES {
            // More than once around the queues.
            assert!(measure(case, 3 * ENTRIES).expect("a measurement") > 0.0);
        }
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let mut rig = Rig::new(Case::MallocWrite, 1).expect("a rig");
        let data = [0x5a; PAGE_BYTES];
        for command in 0..u64::from(BURST) {
            let at = Iova(BUFFERS + command * LONG_BYTES);
            rig.memory.write(at, &data).expect("guest memory");
        }
        let seed = rig.random;
        for case in [Case::MallocWrite, Case::MallocRead] {
            (rig.case, rig.random) = (case, seed);
            rig.submit();
            while !rig.is_done() {
                pass(&mut rig.group);
            }
            rig.reap().expect("success");
            if case == Case::MallocWrite {
                let wiped = [0; PAGE_BYTES];
                rig.memory.write(Iova(BUFFERS), &wiped).expect("memory");
            }
        }
        let mut found = [0; PAGE_BYTES];
        rig.memory.read(Iova(BUFFERS), &mut found).expect("memory");
        assert_eq!(found, data);
    }
}

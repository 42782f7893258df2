//! A host, its memory, and the controller with its poll groups that it drives.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bdev::memory::{
    Backing, GuestMemory, Iova, MemoryRegion, PageKind, Protection, Seal, SharedPages,
};
use bdev::{Bdev, IoContext, IoLimits, Malloc, MallocConfig, Null, NullConfig};

use crate::namespace::Namespace;
use crate::pcie::controller::{
    Controller, ControllerConfig, ControllerParts, DoorbellBuffer, TimedOut,
};
use crate::pcie::doorbell::doorbell_file_bytes;
use crate::pcie::message::{GroupId, Interrupt};
use crate::pcie::poll_group::PollGroup;
use crate::pcie::state::ControllerState;
use crate::pcie::tests::Counter;
use crate::pcie::tests::scripted::Scripted;
use crate::spec::registers::{Csts, offset};
use crate::spec::{AdminOpcode, CommandId, Cqe, Nsid, NvmOpcode, Sqe, Status};
use crate::subsystem::{Names, Subsystem};

pub(super) const PAGE: u64 = 4096;
pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const VECTORS: u16 = 4;
pub(super) const QUEUES: u16 = 4;
pub(super) const DEPTH: u16 = 32;
/// CC with entries of 64 and 16 bytes.
pub(super) const ENABLED: u32 = 0x0046_0001;
pub(super) const DISABLED: u32 = 0x0046_0000;
/// The admin rings, the I/O rings and the data, each memory of its own.
pub(super) const ADMIN: u64 = 0x10_0000;
pub(super) const IO: u64 = 0x100_0000;
pub(super) const DATA: u64 = 0x1000_0000;
const REGIONS: [(u64, u64); 3] = [(ADMIN, 0x8000), (IO, 0x1_0000), (DATA, 0x2_0000)];
/// Namespaces: one that waits for the test, one in memory, one of nothing.
pub(super) const HELD: Nsid = Nsid(1);
pub(super) const MEMORY: Nsid = Nsid(2);
pub(super) const NULL: Nsid = Nsid(3);

/// A pair of queues as the host sees it.
struct Pair {
    sq: u64,
    cq: u64,
    entries: u32,
    tail: u32,
    head: u32,
    phase: bool,
}

pub(super) struct Machine {
    parts: ControllerParts,
    pub(super) controller: Controller,
    groups: Vec<PollGroup>,
    pub(super) device: Arc<Scripted>,
    pub(super) memory: GuestMemory,
    regions: Vec<MemoryRegion>,
    mapped: Vec<u64>,
    pub(super) vectors: Vec<Arc<Counter>>,
    pub(super) pin: Arc<Counter>,
    bound: bool,
    pairs: BTreeMap<u16, Pair>,
    next_cid: u16,
    pub(super) now_ns: u64,
    early: VecDeque<Cqe>,
}

pub(super) fn config() -> ControllerConfig {
    ControllerConfig {
        cntlid: 1,
        queues: QUEUES,
        depth: DEPTH,
        vectors: VECTORS,
        intx: true,
        transfer_bytes_max: 1 << 16,
        doorbell_buffer: DoorbellBuffer::On,
        groups: 2,
    }
}

pub(super) fn malloc() -> Arc<dyn Bdev> {
    let config = MallocConfig {
        name: "memory".into(),
        uuid: None,
        size: 1 << 20,
        block_size: 512,
    };
    Malloc::new(config).unwrap()
}

fn null() -> Arc<dyn Bdev> {
    let config = NullConfig {
        name: "null".into(),
        uuid: None,
        blocks: 1 << 20,
        block_size: 512,
    };
    Null::new(config).unwrap()
}

/// What the controller gets of a memory, and what the host has: a page more on either side.
fn regions(iova: u64, len: u64) -> [MemoryRegion; 2] {
    let (backing, _fd) = Backing::memfd("guest", len + 2 * PAGE, PageKind::Normal).unwrap();
    let protection = Protection {
        read: true,
        write: true,
    };
    let region = |from: u64, iova: u64, len: u64| {
        let backing = Arc::clone(&backing);
        MemoryRegion::new(backing, from, Iova(iova), len, protection).unwrap()
    };
    [
        region(PAGE, iova, len),
        region(0, iova - PAGE, len + 2 * PAGE),
    ]
}

fn groups(parts: &ControllerParts) -> Vec<PollGroup> {
    let group = |id| {
        let context = IoContext::new(IoLimits::default()).unwrap();
        PollGroup::new(parts.seed(GroupId(id)), context)
    };
    (0..parts.config.groups).map(group).collect()
}

impl Machine {
    /// Memory mapped, MSI-X bound, enabled, with I/O queues 1 and 2 in different poll groups.
    pub(super) fn new() -> Machine {
        Machine::on(&malloc())
    }

    /// The same, with `memory` as the second namespace.
    pub(super) fn on(memory: &Arc<dyn Bdev>) -> Machine {
        let mut machine = Machine::with(config(), Arc::clone(memory));
        machine.bind_vectors();
        machine.enable(16);
        machine.create_pair(1);
        machine.create_pair(2);
        machine
    }

    /// After power-on, with its memory mapped, and `memory` as the second namespace.
    pub(super) fn with(config: ControllerConfig, memory: Arc<dyn Bdev>) -> Machine {
        let device = Scripted::new();
        let namespaces: [Arc<dyn Bdev>; 3] = [Arc::clone(&device) as _, memory, null()];
        let namespaces = (1..).zip(namespaces);
        let namespaces =
            namespaces.map(|(nsid, bdev)| Arc::new(Namespace::new(Nsid(nsid), bdev, true)));
        let names = Names {
            nqn: "nqn".into(),
            serial: "serial".into(),
            model: "model".into(),
        };
        let doorbells = doorbell_file_bytes(config.queues);
        let parts = ControllerParts {
            config,
            subsystem: Arc::new(Subsystem::new(names, 1, namespaces).unwrap()),
            state: ControllerState::new(config.queues, config.depth).unwrap(),
            doorbells: SharedPages::new("doorbells", doorbells, Seal::Doorbells).unwrap(),
        };
        let mut memory = GuestMemory::new();
        let mut shared = Vec::new();
        for (iova, len) in REGIONS {
            let [controllers, hosts] = regions(iova, len);
            shared.push(controllers);
            memory.map(hosts).unwrap();
        }
        let mut machine = Machine {
            controller: Controller::new(parts.clone()).unwrap(),
            groups: groups(&parts),
            parts,
            device,
            memory,
            regions: shared,
            mapped: Vec::new(),
            vectors: (0..VECTORS).map(|_| Arc::default()).collect(),
            pin: Arc::default(),
            bound: false,
            pairs: BTreeMap::new(),
            next_cid: 0,
            now_ns: SECOND,
            early: VecDeque::new(),
        };
        machine.map_all();
        machine
    }

    /// The process dies between two passes, and another goes on from the durable state.
    pub(super) fn rebuild(&mut self) {
        self.controller = Controller::new(self.parts.clone()).unwrap();
        self.groups = groups(&self.parts);
        for iova in std::mem::take(&mut self.mapped) {
            self.map(iova);
        }
        if self.bound {
            self.bind_vectors();
        }
    }

    /// Begins to map one of the regions.
    pub(super) fn map(&mut self, iova: u64) {
        let region = REGIONS.iter().position(|region| region.0 == iova).unwrap();
        self.controller.map(self.regions[region].clone()).unwrap();
        self.mapped.push(iova);
    }

    /// Maps all of it for a client that has mapped nothing yet.
    pub(super) fn map_all(&mut self) {
        self.mapped.clear();
        REGIONS.iter().for_each(|region| self.map(region.0));
    }

    /// Begins to unmap one of the regions.
    pub(super) fn unmap(&mut self, iova: u64) {
        let (_, len) = *REGIONS.iter().find(|region| region.0 == iova).unwrap();
        self.controller.unmap(Iova(iova), len).unwrap();
        self.mapped.retain(|mapped| *mapped != iova);
    }

    pub(super) fn bind_vectors(&mut self) {
        let bound = |counter: &Arc<Counter>| Some(Arc::clone(counter) as Arc<dyn Interrupt>);
        let bound = self.vectors.iter().map(bound).collect();
        self.controller.bind_vectors(0, bound);
        self.bound = true;
    }

    /// The bit in configuration space, with nothing bound yet.
    pub(super) fn enable_msix(&mut self) {
        self.controller.config_write(0x86, &0x8000u16.to_le_bytes());
    }

    pub(super) fn bind_pin(&mut self) {
        self.controller.bind_pin(Some(Arc::clone(&self.pin) as _));
    }

    pub(super) fn pass(&mut self) {
        self.now_ns += 1;
        self.controller.poll(self.now_ns);
        self.carry();
        for group in &mut self.groups {
            group.poll(self.now_ns);
        }
        self.carry();
    }

    /// A pass whose answers nobody hears any more: the process dies.
    pub(super) fn pass_and_die(&mut self) {
        self.now_ns += 1;
        self.controller.poll(self.now_ns);
        self.deliver();
        for group in &mut self.groups {
            group.poll(self.now_ns);
        }
        self.rebuild();
    }

    fn deliver(&mut self) {
        while let Some((GroupId(id), envelope)) = self.controller.take_message() {
            self.groups[usize::from(id)].receive(envelope);
        }
    }

    fn carry(&mut self) {
        self.deliver();
        for (id, group) in (0..).map(GroupId).zip(&mut self.groups) {
            while let Some(reply) = group.take_reply() {
                self.controller.receive(id, reply);
            }
        }
    }

    /// As many passes as anything takes that waits for no device.
    pub(super) fn settle(&mut self) {
        (0..8).for_each(|_| self.pass());
    }

    /// What the client asked for last: `None` while it is under way.
    pub(super) fn reply(&mut self) -> Option<Result<(), TimedOut>> {
        self.controller.pending()
    }

    pub(super) fn write(&mut self, at: u64, value: u32) {
        self.controller.bar_write(0, at, &value.to_le_bytes());
    }

    pub(super) fn read(&mut self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.controller.bar_read(0, at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn csts(&mut self) -> Csts {
        self.read(offset::CSTS).into()
    }

    /// Enables the controller with admin queues of so many entries.
    pub(super) fn enable(&mut self, entries: u32) {
        self.write(offset::AQA, (entries - 1) << 16 | (entries - 1));
        self.write(offset::ASQ, ADMIN as u32);
        self.write(offset::ACQ, (ADMIN + PAGE) as u32);
        self.pairs.clear();
        self.early.clear();
        self.add_pair(0, ADMIN, entries);
        self.write(offset::CC, ENABLED);
        self.settle();
        assert!(self.csts().rdy() && !self.csts().cfs());
    }

    fn add_pair(&mut self, id: u16, sq: u64, entries: u32) {
        let cq = sq + PAGE;
        self.put(cq, &[0; PAGE as usize]);
        let pair = Pair {
            sq,
            cq,
            entries,
            tail: 0,
            head: 0,
            phase: true,
        };
        self.pairs.insert(id, pair);
    }

    /// Creates I/O queues that interrupt by the vector of their number.
    pub(super) fn create_pair(&mut self, id: u16) {
        self.create_pair_of(id, 8, Some(id));
    }

    pub(super) fn create_pair_of(&mut self, id: u16, entries: u32, vector: Option<u16>) {
        let base = IO + u64::from(id - 1) * 2 * PAGE;
        let cq = create_cq(id, base + PAGE, entries - 1, vector);
        assert_eq!(self.admin(cq), Status::SUCCESS);
        let sq = create_sq(id, base, entries - 1, id);
        assert_eq!(self.admin(sq), Status::SUCCESS);
        self.add_pair(id, base, entries);
    }

    /// Puts a command into a queue, which has room, and rings.
    pub(super) fn submit(&mut self, id: u16, sqe: Sqe) -> CommandId {
        self.next_cid += 1;
        let cid = CommandId(self.next_cid);
        let pair = self.pairs.get_mut(&id).unwrap();
        let at = pair.sq + u64::from(pair.tail) * 64;
        pair.tail = (pair.tail + 1) % pair.entries;
        let tail = pair.tail;
        let words = sqe.with_cid(cid).to_words().map(u64::to_le_bytes);
        self.put(at, words.as_flattened());
        self.write(0x1000 + u64::from(id) * 8, tail);
        cid
    }

    /// Writes an entry of a queue as it is; does not ring.
    pub(super) fn put_entry(&self, id: u16, index: u32, words: [u64; 8]) {
        let pair = &self.pairs[&id];
        let at = pair.sq + u64::from(index % pair.entries) * 64;
        self.put(at, words.map(u64::to_le_bytes).as_flattened());
    }

    /// The next completion, without consuming it.
    pub(super) fn peek(&self, id: u16) -> Option<Cqe> {
        let pair = &self.pairs[&id];
        let mut bytes = [[0; 8]; 2];
        let at = Iova(pair.cq + u64::from(pair.head) * 16);
        self.memory.read(at, bytes.as_flattened_mut()).unwrap();
        let cqe = Cqe::from_words(bytes.map(u64::from_le_bytes));
        (cqe.phase() == pair.phase).then_some(cqe)
    }

    /// Consumes what is there.
    pub(super) fn reap(&mut self, id: u16) -> Vec<Cqe> {
        let mut cqes = Vec::new();
        while let Some(cqe) = self.peek(id) {
            assert_eq!(cqe.sqid().0, id);
            cqes.push(cqe);
            let pair = self.pairs.get_mut(&id).unwrap();
            pair.head = (pair.head + 1) % pair.entries;
            pair.phase ^= pair.head == 0;
        }
        let head = self.pairs[&id].head;
        if !cqes.is_empty() {
            self.write(0x1004 + u64::from(id) * 8, head);
        }
        cqes
    }

    /// Completions of admin commands that were not waited for, so far.
    pub(super) fn events(&mut self) -> Vec<(CommandId, u32)> {
        self.settle();
        let reaped = self.reap(0);
        self.early.extend(reaped);
        let pair = |cqe: Cqe| (cqe.cid(), cqe.dword0());
        self.early.drain(..).map(pair).collect()
    }

    pub(super) fn admin(&mut self, sqe: Sqe) -> Status {
        self.admin_dword0(sqe).0
    }

    pub(super) fn admin_dword0(&mut self, sqe: Sqe) -> (Status, u32) {
        let cid = self.submit(0, sqe);
        self.settle();
        let mut found = None;
        for cqe in self.reap(0) {
            match cqe.cid() == cid {
                true => found = Some((cqe.status(), cqe.dword0())),
                false => self.early.push_back(cqe),
            }
        }
        found.expect("a completion")
    }

    /// One I/O command that no device holds, start to end.
    pub(super) fn io(&mut self, id: u16, sqe: Sqe) -> Status {
        let cid = self.submit(id, sqe);
        self.settle();
        let cqes = self.reap(id);
        assert_eq!(cqes.len(), 1, "one completion for one command");
        assert_eq!(cqes[0].cid(), cid);
        cqes[0].status()
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write(Iova(at), bytes).unwrap();
    }

    pub(super) fn get(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.memory.read(Iova(at), &mut bytes).unwrap();
        bytes
    }

    /// The pages around what is mapped.
    pub(super) fn guards(&self) -> Vec<u8> {
        let around = REGIONS.map(|(iova, len)| [iova - PAGE, iova + len]);
        let guard = |at: &u64| self.get(*at, PAGE);
        around.as_flattened().iter().flat_map(guard).collect()
    }

    /// Everything that the host has in memory.
    pub(super) fn whole_memory(&self) -> Vec<u8> {
        let whole = REGIONS.map(|(iova, len)| self.get(iova, len));
        whole.concat()
    }

    /// A pattern written to a disk by one queue is read back.
    pub(super) fn assert_works(&mut self, id: u16, nsid: Nsid) {
        self.put(data(8), &pattern());
        let write = transfer(NvmOpcode::WRITE, nsid, data(8), 64, 8);
        assert_eq!(self.io(id, write), Status::SUCCESS);
        self.assert_holds(id, nsid);
    }

    /// The disk has what [`Machine::assert_works`] wrote.
    pub(super) fn assert_holds(&mut self, id: u16, nsid: Nsid) {
        self.put(data(9), &[0; PAGE as usize]);
        let read = transfer(NvmOpcode::READ, nsid, data(9), 64, 8);
        assert_eq!(self.io(id, read), Status::SUCCESS);
        assert_eq!(self.get(data(9), PAGE), pattern());
    }

    pub(super) fn held_writes(&mut self, id: u16, count: u64) {
        self.device.hold(true);
        for n in 0..count {
            self.submit(id, transfer(NvmOpcode::WRITE, HELD, data(n), n * 8, 8));
        }
        self.settle();
        assert_eq!(self.device.held() as u64, count);
    }
}

fn pattern() -> Vec<u8> {
    (0..PAGE).map(|n| (n * 31 >> 3) as u8).collect()
}

/// A page of the data memory.
pub(super) fn data(page: u64) -> u64 {
    DATA + page * PAGE
}

pub(super) fn transfer(opcode: NvmOpcode, nsid: Nsid, at: u64, lba: u64, blocks: u32) -> Sqe {
    let cdws = [lba as u32, (lba >> 32) as u32, blocks - 1, 0, 0, 0];
    Sqe::new(opcode.0, nsid, [at, 0], cdws)
}

pub(super) fn admin(opcode: AdminOpcode, at: u64, cdws: [u32; 2]) -> Sqe {
    let cdws = [cdws[0], cdws[1], 0, 0, 0, 0];
    Sqe::new(opcode.0, Nsid::NONE, [at, 0], cdws)
}

pub(super) fn create_cq(id: u16, at: u64, entries_z: u32, vector: Option<u16>) -> Sqe {
    let interrupt = vector.map_or(0, |vector| u32::from(vector) << 16 | 0b10);
    let cdws = [entries_z << 16 | u32::from(id), interrupt | 1];
    admin(AdminOpcode::CREATE_CQ, at, cdws)
}

pub(super) fn create_sq(id: u16, at: u64, entries_z: u32, cqid: u16) -> Sqe {
    let cdws = [entries_z << 16 | u32::from(id), u32::from(cqid) << 16 | 1];
    admin(AdminOpcode::CREATE_SQ, at, cdws)
}

pub(super) fn delete(opcode: AdminOpcode, id: u16) -> Sqe {
    admin(opcode, 0, [id.into(), 0])
}

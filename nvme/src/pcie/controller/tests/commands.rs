//! Admin commands through the admin queue of a controller, whose poll groups agree to everything.

use std::collections::VecDeque;
use std::sync::Arc;

use bdev::memory::{
    Backing, GuestMemory, Iova, MemoryRegion, PageKind, Protection, Seal, SharedPages,
};

use crate::namespace::Namespace;
use crate::namespace::tests::DISK;
use crate::pcie::controller::{Controller, ControllerConfig, ControllerParts, DoorbellBuffer};
use crate::pcie::doorbell::doorbell_file_bytes;
use crate::pcie::message::{FromGroup, GroupOutcome};
use crate::pcie::state::ControllerState;
use crate::spec::features::{Select, fid};
use crate::spec::log_page::lid;
use crate::spec::registers::offset;
use crate::spec::{AdminOpcode, CommandId, Cqe, Nsid, Sqe, Status};
use crate::subsystem::{Names, Subsystem};

/// A command that this controller does not have.
const FORMAT_NVM: AdminOpcode = AdminOpcode(0x80);
const SQ: u64 = 0x1000;
const CQ: u64 = 0x2000;
const DATA: u64 = 0x3000;
const ENTRIES: u32 = 16;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const COLD: u32 = 310;
const RETAIN: u32 = 1 << 15;

struct Host {
    parts: ControllerParts,
    controller: Controller,
    region: MemoryRegion,
    memory: GuestMemory,
    tail: u32,
    head: u32,
    phase: bool,
    next_cid: u16,
    now_ns: u64,
    /// Completions that came while another command was waited for.
    early: VecDeque<Cqe>,
}

impl Host {
    /// A host whose controller is enabled at `now_ns`.
    fn new(now_ns: u64) -> Host {
        let config = ControllerConfig {
            cntlid: 1,
            queues: 2,
            depth: 2,
            vectors: 2,
            intx: false,
            transfer_bytes_max: 1 << 16,
            doorbell_buffer: DoorbellBuffer::Off,
            groups: 1,
        };
        let names = Names {
            nqn: "nqn".into(),
            serial: "serial".into(),
            model: "model".into(),
        };
        let namespace = Arc::new(Namespace::new(Nsid(1), Arc::new(DISK), false));
        let doorbell_bytes = doorbell_file_bytes(config.queues);
        let parts = ControllerParts {
            config,
            subsystem: Arc::new(Subsystem::new(names, 1, [namespace]).unwrap()),
            state: ControllerState::new(config.queues, config.depth).unwrap(),
            doorbells: SharedPages::new("doorbells", doorbell_bytes, Seal::Doorbells).unwrap(),
        };
        let (backing, _fd) = Backing::memfd("guest", 1 << 16, PageKind::Normal).unwrap();
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(0), 1 << 16, protection).unwrap();
        let mut memory = GuestMemory::new();
        memory.map(region.clone()).unwrap();
        let mut host = Host {
            controller: Controller::new(parts.clone()).unwrap(),
            parts,
            region,
            memory,
            tail: 0,
            head: 0,
            phase: true,
            next_cid: 0,
            now_ns,
            early: VecDeque::new(),
        };
        host.controller.map(host.region.clone()).unwrap();
        host.pass();
        host.enable();
        host
    }

    fn enable(&mut self) {
        let queue_sizes = (ENTRIES - 1) << 16 | (ENTRIES - 1);
        self.write(offset::AQA, queue_sizes);
        self.write(offset::ASQ, SQ as u32);
        self.write(offset::ACQ, CQ as u32);
        self.memory.write(Iova(CQ), &[0; 256]).unwrap();
        self.write(offset::CC, 0x0046_0001);
        self.pass();
        assert!(self.controller.is_ready());
        (self.tail, self.head, self.phase) = (0, 0, true);
    }

    fn disable(&mut self) {
        self.write(offset::CC, 0x0046_0000);
        self.pass();
        assert!(!self.controller.is_ready());
    }

    /// Drops the controller and goes on from the durable state.
    fn rebuild(&mut self) {
        self.controller = Controller::new(self.parts.clone()).unwrap();
        self.controller.map(self.region.clone()).unwrap();
        self.pass();
    }

    fn write(&mut self, at: u64, value: u32) {
        self.controller.bar_write(0, at, &value.to_le_bytes());
    }

    fn pass(&mut self) {
        for _ in 0..4 {
            self.controller.poll(self.now_ns);
            while let Some((group, envelope)) = self.controller.take_message() {
                let (sequence, outcome) = (envelope.sequence, GroupOutcome::Ok);
                let done = FromGroup::Done { sequence, outcome };
                self.controller.receive(group, done);
            }
        }
    }

    fn submit(&mut self, sqe: Sqe) -> CommandId {
        self.next_cid += 1;
        let cid = CommandId(self.next_cid);
        let at = SQ + u64::from(self.tail) * 64;
        let words = sqe.with_cid(cid).to_words().map(u64::to_le_bytes);
        self.memory.write(Iova(at), words.as_flattened()).unwrap();
        self.tail = (self.tail + 1) % ENTRIES;
        self.write(0x1000, self.tail);
        self.pass();
        cid
    }

    fn reap(&mut self) -> Option<Cqe> {
        let mut bytes = [[0; 8]; 2];
        let at = CQ + u64::from(self.head) * 16;
        self.memory
            .read(Iova(at), bytes.as_flattened_mut())
            .unwrap();
        let cqe = Cqe::from_words(bytes.map(u64::from_le_bytes));
        if cqe.phase() != self.phase {
            return None;
        }
        self.head = (self.head + 1) % ENTRIES;
        self.phase ^= self.head == 0;
        self.write(0x1004, self.head);
        self.pass();
        Some(cqe)
    }

    /// One command, start to end: its status and completion dword 0.
    fn command(&mut self, opcode: AdminOpcode, nsid: Nsid, cdws: [u32; 6]) -> (Status, u32) {
        let cid = self.submit(Sqe::new(opcode.0, nsid, [DATA, 0], cdws));
        loop {
            let cqe = self.reap().expect("a completion");
            if cqe.cid() == cid {
                return (cqe.status(), cqe.dword0());
            }
            self.early.push_back(cqe);
        }
    }

    fn status(&mut self, opcode: AdminOpcode, nsid: Nsid, cdws: [u32; 6]) -> Status {
        self.command(opcode, nsid, cdws).0
    }

    fn data(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(Iova(DATA), &mut bytes).unwrap();
        bytes
    }

    fn set_feature(&mut self, fid: u8, value: u32) {
        let cdws = [fid.into(), value, 0, 0, 0, 0];
        let status = self.status(AdminOpcode::SET_FEATURES, Nsid::NONE, cdws);
        assert_eq!(status, Status::SUCCESS);
    }

    /// Dword 0 and the first 8 bytes of data.
    fn get_feature(&mut self, fid: u8, select: Select) -> (u32, [u8; 8]) {
        self.memory.write(Iova(DATA), &[0xff; 8]).unwrap();
        let cdws = [u32::from(fid) | u32::from(select.0) << 8, 0, 0, 0, 0, 0];
        let (status, dword0) = self.command(AdminOpcode::GET_FEATURES, Nsid::NONE, cdws);
        assert_eq!(status, Status::SUCCESS);
        (dword0, self.data(8).try_into().unwrap())
    }

    /// The first 512 bytes of a log page.
    fn log(&mut self, lid: u8, flags: u32) -> Vec<u8> {
        let cdws = [u32::from(lid) | flags | 127 << 16, 0, 0, 0, 0, 0];
        let status = self.status(AdminOpcode::GET_LOG_PAGE, Nsid::ALL, cdws);
        assert_eq!(status, Status::SUCCESS);
        self.data(512)
    }

    fn request_event(&mut self) -> CommandId {
        let opcode = AdminOpcode::ASYNC_EVENT_REQUEST.0;
        self.submit(Sqe::new(opcode, Nsid::NONE, [0, 0], [0; 6]))
    }

    fn event(&mut self) -> Option<(CommandId, u32)> {
        let cqe = self.early.pop_front().or_else(|| self.reap())?;
        assert_eq!(cqe.status(), Status::SUCCESS);
        Some((cqe.cid(), cqe.dword0()))
    }

    /// Lets the temperature reach the host's threshold, if it had not.
    fn overheat(&mut self) {
        self.set_feature(fid::TEMPERATURE_THRESHOLD, COLD + 1);
        self.set_feature(fid::TEMPERATURE_THRESHOLD, COLD);
    }
}

#[test]
fn identify_answers_in_the_data_buffer() {
    let mut host = Host::new(SECOND);
    let status = host.status(AdminOpcode::IDENTIFY, Nsid::NONE, [1, 0, 0, 0, 0, 0]);
    assert_eq!(status, Status::SUCCESS);
    assert_eq!(host.data(4096)[4..10], *b"serial");
    let status = host.status(AdminOpcode::IDENTIFY, Nsid(2), [0; 6]);
    assert_eq!(status, Status::INVALID_NAMESPACE);
}

#[test]
fn a_failed_command_is_in_the_error_log() {
    let mut host = Host::new(SECOND);
    let status = host.status(FORMAT_NVM, Nsid(1), [0; 6]);
    assert_eq!(status, Status::INVALID_OPCODE);
    let log = host.log(lid::ERROR, 0);
    assert_eq!(log[..8], 1u64.to_le_bytes());
    // Queue 0, the first command, its status, nowhere in particular.
    assert_eq!(log[8..16], [0, 0, 1, 0, 0x02, 0x80, 0xff, 0xff]);
    assert_eq!(log[24..28], 1u32.to_le_bytes());
}

#[test]
fn what_windows_asks_for_is_refused_cleanly() {
    let mut host = Host::new(SECOND);
    for fid in [0x0c, 0xd0] {
        let status = host.status(AdminOpcode::GET_FEATURES, Nsid::NONE, [fid, 0, 0, 0, 0, 0]);
        assert_eq!(status, Status::INVALID_FIELD);
    }
    let log = [0xc1 | 127 << 16, 0, 0, 0, 0, 0];
    let status = host.status(AdminOpcode::GET_LOG_PAGE, Nsid::ALL, log);
    assert_eq!(status, Status::INVALID_LOG_PAGE);
}

#[test]
fn what_is_not_of_one_namespace_or_command_set_is_not_given_for_one() {
    let mut host = Host::new(SECOND);
    let arbitration = [fid::ARBITRATION.into(), 0, 0, 0, 0, 0];
    let set = |host: &mut Host, nsid| host.status(AdminOpcode::SET_FEATURES, nsid, arbitration);
    assert_eq!(
        set(&mut host, Nsid(1)),
        Status::FEATURE_NOT_NAMESPACE_SPECIFIC
    );
    assert_eq!(set(&mut host, Nsid(2)), Status::INVALID_NAMESPACE);
    assert_eq!(set(&mut host, Nsid::ALL), Status::SUCCESS);
    let page = |lid: u8, csi: u32| [u32::from(lid) | 127 << 16, 0, 0, 0, csi << 24, 0];
    let get = AdminOpcode::GET_LOG_PAGE;
    let smart = host.status(get, Nsid(1), page(lid::SMART, 0));
    assert_eq!(smart, Status::INVALID_FIELD);
    let effects = host.status(get, Nsid::NONE, page(lid::EFFECTS, 2));
    assert_eq!(effects, Status::INVALID_FIELD);
    let effects = host.status(get, Nsid::NONE, page(lid::EFFECTS, 0));
    assert_eq!(effects, Status::SUCCESS);
}

#[test]
fn a_temperature_event_comes_once_until_the_log_was_read() {
    let mut host = Host::new(SECOND);
    let [first, second] = [host.request_event(), host.request_event()];
    host.overheat();
    assert_eq!(host.event(), None, "not wanted");
    host.set_feature(fid::ASYNC_EVENTS, 0b10);
    assert_eq!(host.event(), Some((first, 0x0002_0101)));
    host.overheat();
    assert_eq!(host.event(), None, "held back");
    assert_eq!(host.log(lid::SMART, RETAIN)[0], 0b10);
    assert_eq!(host.event(), None, "still held back");
    host.log(lid::ERROR, 0);
    assert_eq!(host.event(), None, "by another log page");
    host.log(lid::SMART, 0);
    assert_eq!(host.event(), Some((second, 0x0002_0101)));
    host.request_event();
    host.log(lid::SMART, 0);
    host.set_feature(fid::ARBITRATION, 1);
    assert_eq!(host.event(), None, "it has not cooled down since");
}

#[test]
fn a_doorbell_that_is_not_there_is_an_event() {
    let mut host = Host::new(SECOND);
    let cid = host.request_event();
    host.write(0x1000 + 8 * 2, 1);
    host.pass();
    assert_eq!(host.event(), Some((cid, 0x0001_0000)));
}

#[test]
fn one_event_request_too_many_is_refused() {
    let mut host = Host::new(SECOND);
    (0..4).for_each(|_| {
        host.request_event();
    });
    assert_eq!(host.reap().map(|cqe| cqe.status()), None);
    host.request_event();
    let refused = host.reap().map(|cqe| cqe.status());
    assert_eq!(refused, Some(Status::ASYNC_EVENT_LIMIT_EXCEEDED));
}

#[test]
fn events_outlive_the_process_and_not_a_reset() {
    let mut host = Host::new(SECOND);
    host.set_feature(fid::ASYNC_EVENTS, 0b10);
    let [first, second] = [host.request_event(), host.request_event()];
    host.overheat();
    host.rebuild();
    assert_eq!(host.event(), Some((first, 0x0002_0101)));
    host.overheat();
    host.rebuild();
    assert_eq!(
        host.event(),
        None,
        "held back by what the earlier life reported"
    );
    host.log(lid::SMART, 0);
    assert_eq!(host.event(), Some((second, 0x0002_0101)));

    host.overheat();
    host.disable();
    host.enable();
    host.request_event();
    host.log(lid::SMART, 0);
    assert_eq!(host.event(), None, "forgotten by the reset");
}

#[test]
fn features_outlive_the_process_and_not_a_reset() {
    let mut host = Host::new(SECOND);
    host.set_feature(fid::INTERRUPT_COALESCING, 0x0203);
    host.rebuild();
    let current = host.get_feature(fid::INTERRUPT_COALESCING, Select::CURRENT);
    assert_eq!(current.0, 0x0203);
    host.disable();
    host.enable();
    let current = host.get_feature(fid::INTERRUPT_COALESCING, Select::CURRENT);
    assert_eq!(current.0, 0);
}

#[test]
fn the_timestamp_counts_from_when_the_controller_was_enabled() {
    let mut host = Host::new(7 * HOUR);
    host.now_ns += 5_000_000;
    let (_, timestamp) = host.get_feature(fid::TIMESTAMP, Select::CURRENT);
    assert_eq!(timestamp, [5, 0, 0, 0, 0, 0, 0, 0]);
    host.memory
        .write(Iova(DATA), &[1, 1, 0, 0, 0, 0, 0, 0])
        .unwrap();
    host.set_feature(fid::TIMESTAMP, 0);
    host.rebuild();
    host.now_ns += 3_000_000;
    let (_, timestamp) = host.get_feature(fid::TIMESTAMP, Select::CURRENT);
    assert_eq!(timestamp, [4, 1, 0, 0, 0, 0, 0b010, 0]);
    host.disable();
    host.now_ns += HOUR;
    host.pass();
    host.enable();
    let (_, timestamp) = host.get_feature(fid::TIMESTAMP, Select::CURRENT);
    assert_eq!(timestamp, [0; 8]);
}

#[test]
fn power_on_hours_add_up_over_processes() {
    let mut host = Host::new(7 * HOUR);
    host.now_ns += HOUR;
    host.pass();
    host.rebuild();
    assert_eq!(host.log(lid::SMART, 0)[128], 1);
    host.now_ns += HOUR;
    assert_eq!(host.log(lid::SMART, 0)[128], 2);
}

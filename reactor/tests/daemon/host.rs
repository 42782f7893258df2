//! A small NVMe host over any vfio-user client: an admin queue, one I/O queue pair, and memory in
//! a file that is only ever read and written, never mapped, so that a test may shrink it.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bdev::memory::Iova;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvme::spec::admin::{CreateCq, CreateSq};
use nvme::spec::registers::{Aqa, Cc, Csts, offset};
use nvme::spec::{AdminOpcode, CommandId, Cqe, Nsid, NvmOpcode, QueueId, Sqe, Status};
use vfio_user::{DmaMap, region};
use zerocopy::FromBytes;

use crate::daemon::LIMIT;
use crate::process::wait_for;

/// Entries of each queue.
const ENTRIES: u32 = 64;
/// Commands of the I/O queue that can be in flight.
pub(crate) const IN_FLIGHT_MAX: u16 = ENTRIES as u16 - 1;
/// Bytes that one command moves.
pub(crate) const PAGE: usize = 4096;
/// Where the device sees the memory.
const BASE: Iova = Iova(1 << 32);
/// Where data of commands begins in the memory; before it are queues.
pub(crate) const DATA: u64 = 0x1_0000;
const ADMIN_DATA: u64 = 0x4000;
const MEMORY_BYTES: u64 = 1 << 20;
/// Where doorbells start in BAR0 (NVMe over PCIe Transport 1.0, 3.1.2).
const DOORBELLS: u64 = 0x1000;
/// Memory space and bus master (PCI Local Bus, 6.2.2).
const PCI_COMMAND: (u64, u16) = (4, 0x6);

/// What the host needs of a client.
pub(crate) trait Link {
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]);
    fn write(&mut self, region: u32, offset: u64, data: &[u8]);
    fn map(&mut self, iova: Iova, bytes: u64, memory: &File);
    /// The file of BAR0, if doorbells are to be written there and not by messages.
    fn doorbells(&mut self) -> Option<File>;
}

impl Link for vfio_user::Client {
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        self.region_read(region, offset, data).expect("a read");
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.region_write(region, offset, data).expect("a write");
    }

    fn map(&mut self, iova: Iova, bytes: u64, memory: &File) {
        let map = DmaMap {
            iova: iova.0,
            len: bytes,
            offset: 0,
            read: true,
            write: true,
        };
        self.dma_map(map, Some(memory.as_fd())).expect("a map");
    }

    fn doorbells(&mut self) -> Option<File> {
        let (_, fd) = self.region_info(region::BAR0).expect("BAR0");
        Some(File::from(fd.expect("a descriptor of the doorbells")))
    }
}

/// A queue pair; both queues have one identifier.
#[derive(Clone, Copy)]
struct Queue {
    id: QueueId,
    submission: u64,
    completion: u64,
    tail: u32,
    head: u32,
    phase: bool,
}

impl Queue {
    const fn new(id: QueueId, submission: u64) -> Queue {
        Queue {
            id,
            submission,
            completion: submission + 0x1000,
            tail: 0,
            head: 0,
            phase: true,
        }
    }
}

/// A host and the controller that it drives.
pub(crate) struct Host<L> {
    pub(crate) link: L,
    pub(crate) memory: File,
    doorbells: Option<File>,
    admin: Queue,
    io: Queue,
}

impl Host<vfio_user::Client> {
    /// Our client, on a socket, with the controller enabled and an I/O queue pair made.
    #[track_caller]
    pub(crate) fn connect(socket: &Path) -> Host<vfio_user::Client> {
        let mut client = vfio_user::Client::connect(socket).expect("a connection");
        client.set_timeout(LIMIT);
        Host::over(client)
    }
}

impl<L: Link> Host<L> {
    /// Brings up the controller behind a connection.
    #[track_caller]
    pub(crate) fn over(mut link: L) -> Host<L> {
        let memory = memfd_create("host", MFdFlags::MFD_CLOEXEC).expect("a memory file");
        let memory = File::from(memory);
        memory.set_len(MEMORY_BYTES).expect("room");
        link.map(BASE, MEMORY_BYTES, &memory);
        let mut host = Host {
            doorbells: link.doorbells(),
            link,
            memory,
            admin: Queue::new(QueueId::ADMIN, 0),
            io: Queue::new(QueueId(1), 0x2000),
        };
        host.bring_up();
        host
    }

    /// Enables the controller, as after power-on or a reset, and makes the I/O queue pair.
    #[track_caller]
    pub(crate) fn bring_up(&mut self) {
        let zeroes = vec![0; DATA as usize];
        self.memory.write_all_at(&zeroes, 0).expect("room");
        self.admin = Queue::new(QueueId::ADMIN, 0);
        self.io = Queue::new(QueueId(1), 0x2000);
        let (at, bits) = PCI_COMMAND;
        self.link.write(region::CONFIG, at, &bits.to_le_bytes());
        let size_z = (ENTRIES - 1) as u16;
        let aqa = Aqa::new().with_asqs_z(size_z).with_acqs_z(size_z);
        self.write32(offset::AQA, aqa.into());
        self.write64(offset::ASQ, BASE.0 + self.admin.submission);
        self.write64(offset::ACQ, BASE.0 + self.admin.completion);
        let configuration = Cc::new()
            .with_iosqes(Cc::IOSQES_64)
            .with_iocqes(Cc::IOCQES_16);
        self.write32(offset::CC, configuration.with_en(true).into());
        self.wait_for_status("ready", |status| status.rdy() && !status.cfs());
        self.create_queue();
    }

    fn create_queue(&mut self) {
        let Queue {
            id,
            submission,
            completion,
            ..
        } = self.io;
        let size_z = (ENTRIES - 1) as u16;
        let [cdw10, cdw11] = CreateCq::cdws(id, size_z, None);
        let command = (AdminOpcode::CREATE_CQ, BASE.0 + completion);
        self.admin(command, Nsid::NONE, [cdw10, cdw11]);
        let [cdw10, cdw11] = CreateSq::cdws(id, size_z, id);
        let command = (AdminOpcode::CREATE_SQ, BASE.0 + submission);
        self.admin(command, Nsid::NONE, [cdw10, cdw11]);
    }

    /// An admin command, with its PRP 1, that has to succeed.
    #[track_caller]
    fn admin(&mut self, (opcode, prp): (AdminOpcode, u64), nsid: Nsid, cdws: [u32; 2]) {
        let sqe = Sqe::new(opcode.0, nsid, [prp, 0], [cdws[0], cdws[1], 0, 0, 0, 0]);
        let mut queue = self.admin;
        self.push(&mut queue, &sqe);
        self.ring(&queue);
        let cqe = wait_for(LIMIT, || self.pop(&mut queue)).expect("an answer");
        self.admin = queue;
        assert_eq!(cqe.status(), Status::SUCCESS, "{opcode:?} {cdws:x?}");
    }

    /// A data structure of Identify.
    #[track_caller]
    pub(crate) fn identify<T: FromBytes>(&mut self, cns: u8, nsid: Nsid) -> T {
        let page = BASE.0 + ADMIN_DATA;
        self.admin((AdminOpcode::IDENTIFY, page), nsid, [cns.into(), 0]);
        let mut bytes = vec![0; PAGE];
        self.memory
            .read_exact_at(&mut bytes, ADMIN_DATA)
            .expect("data");
        T::read_from_bytes(&bytes).expect("a structure of a page")
    }

    /// Starts a command that moves page `page` of namespace 1 from or to the data of `slot`, which
    /// becomes its identifier.
    pub(crate) fn start(&mut self, opcode: NvmOpcode, slot: u16, page: u64) {
        let blocks = PAGE as u64 / 512;
        let lba = page * blocks;
        let cdws = [lba as u32, (lba >> 32) as u32, blocks as u32 - 1, 0, 0, 0];
        let sqe = Sqe::new(opcode.0, Nsid(1), [BASE.0 + data_of(slot), 0], cdws);
        let mut queue = self.io;
        self.push(&mut queue, &sqe.with_cid(CommandId(slot)));
        self.io = queue;
    }

    /// Tells the controller of everything started and taken.
    pub(crate) fn ring_io(&mut self) {
        let queue = self.io;
        self.ring(&queue);
    }

    /// The next completion of an I/O command.
    pub(crate) fn poll(&mut self) -> Option<Cqe> {
        let mut queue = self.io;
        let cqe = self.pop(&mut queue);
        self.io = queue;
        cqe
    }

    /// Waits for a completion.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Cqe {
        wait_for(LIMIT, || self.poll()).expect("a completion")
    }

    fn push(&mut self, queue: &mut Queue, sqe: &Sqe) {
        let bytes: Vec<u8> = sqe
            .to_words()
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let at = queue.submission + u64::from(queue.tail) * 64;
        self.memory.write_all_at(&bytes, at).expect("room");
        queue.tail = (queue.tail + 1) % ENTRIES;
    }

    fn pop(&mut self, queue: &mut Queue) -> Option<Cqe> {
        let at = queue.completion + u64::from(queue.head) * 16;
        if self.entry(at).phase() != queue.phase {
            return None;
        }
        // Again, now that all of it is known to be there.
        let cqe = self.entry(at);
        queue.head = (queue.head + 1) % ENTRIES;
        queue.phase ^= queue.head == 0;
        Some(cqe)
    }

    fn entry(&self, at: u64) -> Cqe {
        let mut words = [[0; 8]; 2];
        self.memory
            .read_exact_at(words.as_flattened_mut(), at)
            .expect("an entry");
        Cqe::from_words(words.map(u64::from_le_bytes))
    }

    fn ring(&mut self, queue: &Queue) {
        let at = DOORBELLS + u64::from(queue.id.0) * 8;
        for (at, value) in [(at + 4, queue.head), (at, queue.tail)] {
            let bytes = value.to_le_bytes();
            match &self.doorbells {
                Some(file) => file.write_all_at(&bytes, at).expect("a doorbell"),
                None => self.link.write(region::BAR0, at, &bytes),
            }
        }
    }

    /// CSTS.
    pub(crate) fn status(&mut self) -> Csts {
        let mut bytes = [0; 4];
        self.link.read(region::BAR0, offset::CSTS, &mut bytes);
        Csts::from(u32::from_le_bytes(bytes))
    }

    /// Waits for a state of the controller.
    #[track_caller]
    pub(crate) fn wait_for_status(&mut self, what: &str, reached: impl Fn(Csts) -> bool) {
        let found = wait_for(LIMIT, || reached(self.status()).then_some(()));
        assert!(found.is_some(), "not {what}: {:?}", self.status());
    }

    fn write32(&mut self, at: u64, value: u32) {
        self.link.write(region::BAR0, at, &value.to_le_bytes());
    }

    fn write64(&mut self, at: u64, value: u64) {
        self.write32(at, value as u32);
        self.write32(at + 4, (value >> 32) as u32);
    }

    /// Puts the data of one version of a page where a command of `slot` takes it.
    pub(crate) fn fill(&self, slot: u16, page: u64, version: u64) {
        let data = contents(page, version);
        self.memory
            .write_all_at(&data, data_of(slot))
            .expect("room");
    }

    /// What a command of `slot` has read.
    pub(crate) fn data(&self, slot: u16) -> Vec<u8> {
        let mut data = vec![0; PAGE];
        self.memory
            .read_exact_at(&mut data, data_of(slot))
            .expect("data");
        data
    }

    /// Writes one version of the first `pages` pages, many at a time; each has to succeed.
    #[track_caller]
    pub(crate) fn write_pages(&mut self, pages: u64, version: u64) {
        self.each(NvmOpcode::WRITE, pages, |host, slot, page| {
            host.fill(slot, page, version);
        });
    }

    /// Reads the first `pages` pages, which have to hold one version.
    #[track_caller]
    pub(crate) fn check_pages(&mut self, pages: u64, version: u64) {
        for first in (0..pages).step_by(IN_FLIGHT_MAX.into()) {
            let count = (pages - first).min(IN_FLIGHT_MAX.into()) as u16;
            for slot in 0..count {
                self.start(NvmOpcode::READ, slot, first + u64::from(slot));
            }
            self.finish(count);
            for slot in 0..count {
                let page = first + u64::from(slot);
                assert!(self.data(slot) == contents(page, version), "page {page}");
            }
        }
    }

    /// One command for each of the first `pages` pages, prepared by `prepare`.
    #[track_caller]
    fn each(&mut self, opcode: NvmOpcode, pages: u64, prepare: impl Fn(&Host<L>, u16, u64)) {
        for first in (0..pages).step_by(IN_FLIGHT_MAX.into()) {
            let count = (pages - first).min(IN_FLIGHT_MAX.into()) as u16;
            for slot in 0..count {
                prepare(self, slot, first + u64::from(slot));
                self.start(opcode, slot, first + u64::from(slot));
            }
            self.finish(count);
        }
    }

    /// Waits for `count` commands that were started; each has to succeed.
    #[track_caller]
    pub(crate) fn finish(&mut self, count: u16) {
        self.ring_io();
        for _ in 0..count {
            let cqe = self.wait();
            assert_eq!(cqe.status(), Status::SUCCESS, "command {:?}", cqe.cid());
        }
        self.ring_io();
    }
}

/// Where in the memory the data of a slot is.
fn data_of(slot: u16) -> u64 {
    DATA + u64::from(slot) * PAGE as u64
}

/// A page that holds nothing else than this version of this page would.
pub(crate) fn contents(page: u64, version: u64) -> Vec<u8> {
    let mut data = vec![0; PAGE];
    for (n, word) in (0u64..).zip(data.chunks_exact_mut(8)) {
        let value = (page << 40 ^ version << 16 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes());
    }
    data
}

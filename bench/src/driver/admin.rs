//! The admin queue: one command at a time, each within a time limit.

use std::time::{Duration, Instant};

use bdev::memory::{GuestMemory, Iova};
use nvme::spec::admin::{CreateCq, CreateSq};
use nvme::spec::features::{NumberOfQueues, fid};
use nvme::spec::identify::IDENTIFY_BYTES;
use nvme::spec::registers::Aqa;
use nvme::spec::{AdminOpcode, CommandId, Nsid, QueueId, Sqe, Status};
use zerocopy::{FromBytes, IntoBytes};

use super::doorbell::Doorbells;
use super::{DriverError, HostMemory, Link, QueuePair, QueueSeed};

/// Entries of each of the two queues.
const ENTRIES: u16 = 16;

/// How often a command that is not answered yet is looked at.
const LOOK_INTERVAL: Duration = Duration::from_micros(50);

/// The admin queue pair, and a page for the data of its commands.
pub(super) struct AdminQueue {
    queue: QueuePair,
    memory: GuestMemory,
    submission: Iova,
    completion: Iova,
    page: Iova,
    link: Link,
    next_cid: u16,
}

impl AdminQueue {
    pub(super) fn new(
        memory: &mut HostMemory,
        doorbells: &Doorbells,
        link: &Link,
    ) -> Result<AdminQueue, DriverError> {
        let page = memory.allocate(IDENTIFY_BYTES as u64)?;
        let seed = QueueSeed::new(QueueId::ADMIN, ENTRIES.into(), memory, doorbells)?;
        let memory = seed.table()?;
        Ok(AdminQueue {
            submission: seed.submission,
            completion: seed.completion,
            queue: seed.open(&memory)?,
            memory,
            page,
            link: link.clone(),
            next_cid: 0,
        })
    }

    /// Where the submission and the completion queue are.
    pub(super) fn bases(&self) -> (Iova, Iova) {
        (self.submission, self.completion)
    }

    /// The sizes of both.
    pub(super) fn attributes(&self) -> Aqa {
        Aqa::new().with_asqs_z(ENTRIES - 1).with_acqs_z(ENTRIES - 1)
    }

    /// Identify, of a structure of 4096 bytes.
    pub(super) fn identify<T: FromBytes + IntoBytes>(
        &mut self,
        cns: u8,
        nsid: Nsid,
    ) -> Result<T, DriverError> {
        const { assert!(size_of::<T>() == IDENTIFY_BYTES) };
        let sqe = Sqe::new(
            AdminOpcode::IDENTIFY.0,
            nsid,
            [self.page.0, 0],
            [cns.into(), 0, 0, 0, 0, 0],
        );
        self.execute("Identify", sqe)?;
        let mut data = T::new_zeroed();
        self.memory.read(self.page, data.as_mut_bytes())?;
        Ok(data)
    }

    /// Asks for so many I/O queue pairs, and returns how many there are.
    pub(super) fn set_number_of_queues(&mut self, count: u16) -> Result<u16, DriverError> {
        let count_z = count.saturating_sub(1);
        let wanted = NumberOfQueues::new()
            .with_sqs_z(count_z)
            .with_cqs_z(count_z);
        let cdws = [fid::NUMBER_OF_QUEUES.into(), wanted.into(), 0, 0, 0, 0];
        let sqe = Sqe::new(AdminOpcode::SET_FEATURES.0, Nsid::NONE, [0; 2], cdws);
        let granted = self.execute("Set Features (Number of Queues)", sqe)?;
        let granted = NumberOfQueues::from(granted);
        Ok(granted.sqs_z().min(granted.cqs_z()).saturating_add(1))
    }

    /// Creates the completion queue and then the submission queue of `seed`.
    pub(super) fn create_queue(&mut self, seed: &QueueSeed) -> Result<(), DriverError> {
        let qsize_z = (seed.entries - 1) as u16;
        let sqe = |opcode: AdminOpcode, base: Iova, [cdw10, cdw11]: [u32; 2]| {
            let cdws = [cdw10, cdw11, 0, 0, 0, 0];
            Sqe::new(opcode.0, Nsid::NONE, [base.0, 0], cdws)
        };
        let create_cq = CreateCq::cdws(seed.id, qsize_z, None);
        let create_sq = CreateSq::cdws(seed.id, qsize_z, seed.id);
        self.execute(
            "Create I/O Completion Queue",
            sqe(AdminOpcode::CREATE_CQ, seed.completion, create_cq),
        )?;
        self.execute(
            "Create I/O Submission Queue",
            sqe(AdminOpcode::CREATE_SQ, seed.submission, create_sq),
        )?;
        Ok(())
    }

    /// Submits a command and waits for it. Returns dword 0 of its completion.
    fn execute(&mut self, command: &'static str, sqe: Sqe) -> Result<u32, DriverError> {
        let cid = CommandId(self.next_cid);
        self.next_cid = self.next_cid.wrapping_add(1);
        self.queue.push(&sqe.with_cid(cid));
        self.queue.ring()?;
        let start = Instant::now();
        loop {
            if let Some(cqe) = self.queue.pop() {
                self.queue.ring()?;
                return match (cqe.cid() == cid, cqe.status()) {
                    (false, _) => Err(DriverError::WrongCommand { command }),
                    (true, Status::SUCCESS) => Ok(cqe.dword0()),
                    (true, status) => Err(DriverError::Admin { command, status }),
                };
            }
            let waited = start.elapsed();
            if waited >= self.link.timeout() {
                return Err(DriverError::Timeout { command, waited });
            }
            if !self.link.wait(Duration::ZERO) {
                return Err(DriverError::Closed { during: command });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

//! One queue, driven by one thread: the hot loop.
//!
//! Each pass takes completions that are there, submits a command for each, and then writes the
//! doorbells once. It allocates nothing, makes no system call unless it is to think, and reads the
//! clock only in a pass that has found something.
//!
//! It stores as little as it can: what a core stores waits in a buffer, in order, for lines that
//! the reactor has read, and the more there is of it for each command, the fewer commands are under
//! way between two cores that are far apart.

mod outcome;
mod pace;

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bdev::memory::{GuestMemory, Iova};
use nvme::spec::{CommandId, Cqe, Nsid, NvmOpcode, Sqe, Status};

pub(super) use self::outcome::JobOutcome;
use self::pace::{Pace, nanoseconds};
use super::block::Generation;
use super::extent::{Chunk, Extent};
use super::ledger::Ledger;
use super::pattern::{Action, Command, Pattern};
use super::rng::{Rng, mix};
use super::signals::Signals;
use super::tally::Tally;
use super::traffic::{Checked, Checker, Data, ReadBack, SelfDescribed, Traffic, Unchecked};
use super::{Distribution, Failure, Plan};
use crate::core_time::CoreTime;
use crate::driver::{self, PageSize, PreparedCommand, QueuePair, QueueSeed};

/// How many passes that find nothing are made before time is looked at and the core is offered to
/// others: some 50 us.
const IDLE_PASSES: u32 = 1 << 14;

/// Completions taken before the doorbells are written, so that the reactor has something to do.
const BATCH: usize = 16;

/// What a thread needs to become a job.
pub(super) struct JobSeed {
    pub(super) index: usize,
    pub(super) queue: QueueSeed,
    pub(super) extent: Extent,
    /// Memory for the data of each command in flight.
    pub(super) data: Vec<Iova>,
    /// Memory for the PRP list of each.
    pub(super) lists: Vec<Iova>,
    pub(super) page: PageSize,
    pub(super) nsid: Nsid,
    /// Whether writes need a flush to be safe.
    pub(super) flush: bool,
    pub(super) plan: Plan,
    pub(super) signals: Arc<Signals>,
}

/// A place for a command in flight; its number is the command's identifier.
struct Slot {
    read: PreparedCommand,
    write: PreparedCommand,
    data: Iova,
    command: Option<Command>,
    submitted_ns: u64,
}

/// A command that has succeeded.
struct Done {
    action: Action,
    latency_ns: u64,
}

/// A queue and the commands on it.
pub(super) struct Job {
    index: usize,
    queue: QueuePair,
    memory: GuestMemory,
    slots: Vec<Slot>,
    /// Slots without a command, in a phase that has not ended.
    free: Vec<u16>,
    in_flight: u32,
    tally: Tally,
    completed: u64,
    pace: Pace,
    /// When something completed last, or a thought ended.
    last_ns: u64,
    /// From when on commands count.
    begin_ns: u64,
    ramping: bool,
    /// What takes the place of `tally` when the ramp is over, made beforehand.
    spare_tally: Tally,
    idle_passes: u32,
    extent: Extent,
    nsid: Nsid,
    flush: bool,
    plan: Plan,
    signals: Arc<Signals>,
}

impl Job {
    /// Prepares the memory of all commands, on the thread that will run the job.
    pub(super) fn new(seed: JobSeed) -> Result<Job, Failure> {
        let memory = seed.queue.table()?;
        let mut slots = Vec::new();
        for (cid, (data, list)) in seed.data.iter().zip(&seed.lists).enumerate() {
            let bytes = seed.plan.command_bytes;
            let whole = driver::Data {
                address: *data,
                bytes,
            };
            let prps = driver::prps(&memory, whole, *list, seed.page)?;
            let prepared = |opcode| {
                let sqe = command(opcode, seed.nsid, prps, seed.extent.blocks_per_chunk());
                PreparedCommand::of(&sqe.with_cid(CommandId(cid as u16)))
            };
            slots.push(Slot {
                read: prepared(NvmOpcode::READ),
                write: prepared(NvmOpcode::WRITE),
                data: *data,
                command: None,
                submitted_ns: 0,
            });
        }
        let job = Job {
            index: seed.index,
            queue: seed.queue.open(&memory)?,
            memory,
            free: Vec::with_capacity(slots.len()),
            slots,
            in_flight: 0,
            tally: Tally::new(),
            completed: 0,
            pace: Pace::new(seed.plan.think_time),
            last_ns: 0,
            begin_ns: 0,
            ramping: false,
            spare_tally: Tally::new(),
            idle_passes: 0,
            extent: seed.extent,
            nsid: seed.nsid,
            flush: seed.flush,
            plan: seed.plan,
            signals: seed.signals,
        };
        job.fill_memory()?;
        Ok(job)
    }

    /// Does all that the plan says. A failure stops the other jobs as well.
    pub(super) fn run(mut self) -> JobOutcome {
        let mut checker = Checker::new(self.extent, self.plan.seed);
        let mut elapsed = Duration::ZERO;
        let before = CoreTime::of_this_thread();
        let failure = self.work(&mut checker, &mut elapsed).err();
        if failure.is_some() {
            self.signals.stop();
        }
        self.tally.settle();
        JobOutcome {
            tally: self.tally,
            elapsed,
            blocks_verified: checker.blocks_verified(),
            off_core: CoreTime::of_this_thread()
                .waited
                .saturating_sub(before.waited),
            failure,
        }
    }

    /// The phases. `elapsed` is that of the first, which is the one that is measured.
    fn work(&mut self, checker: &mut Checker, elapsed: &mut Duration) -> Result<(), Failure> {
        self.pace.begin();
        self.ramping = !self.plan.ramp_time.is_zero();
        self.begin_ns = nanoseconds(self.plan.ramp_time);
        let runtime = self.plan.whole_time();
        let seed = mix(self.plan.seed ^ self.index as u64);
        let shape = self.plan.shape;
        let pattern = Pattern::new(shape, self.extent.chunks(), self.plan.endless(), seed);
        let pattern = pattern.distributed(&self.plan.distribution);
        if !self.plan.verify {
            let done = self.phase(&mut Unchecked(pattern), runtime);
            *elapsed = self.busy_time();
            return done;
        }
        if !shape.writes() {
            let done = self.phase(&mut SelfDescribed { pattern, checker }, runtime);
            *elapsed = self.busy_time();
            return done;
        }
        let ledger = &mut Ledger::new(self.extent.chunks(), Generation::of_now());
        let mut traffic = Checked {
            pattern: pattern.covering_all(),
            ledger,
            checker,
            in_place: self.plan.distribution != Distribution::Random,
            waiting: None,
        };
        let done = self.phase(&mut traffic, runtime);
        *elapsed = self.busy_time();
        done?;
        if self.signals.stopped() {
            return Ok(());
        }
        self.flush()?;
        let tally = self.tally.clone();
        self.pace.think_no_more();
        let mut traffic = ReadBack {
            cursor: Chunk(0),
            ledger,
            checker,
        };
        let done = self.phase(&mut traffic, None);
        self.tally = tally;
        done
    }

    /// Keeps all slots busy, or fills them in bursts, until the traffic or the time comes to an
    /// end, and nothing is in flight any more.
    fn phase<T: Traffic>(
        &mut self,
        traffic: &mut T,
        runtime: Option<Duration>,
    ) -> Result<(), Failure> {
        let blocks = self.extent.blocks_per_chunk();
        self.queue
            .prepare(&command(NvmOpcode::READ, self.nsid, [0; 2], blocks));
        self.last_ns = self.pace.now_ns();
        self.pace.end_after(self.last_ns, runtime);
        self.free.clear();
        self.free.extend((0..self.slots.len() as u16).rev());
        self.refill(traffic, self.last_ns)?;
        self.queue.ring()?;
        while self.in_flight > 0 && !self.signals.stopped() {
            if !self.pass(traffic)? {
                self.rest()?;
            }
        }
        Ok(())
    }

    /// Takes some of what has completed, and submits as much. False if there was nothing.
    #[inline]
    fn pass<T: Traffic>(&mut self, traffic: &mut T) -> Result<bool, Failure> {
        let Some(first) = self.queue.pop() else {
            return Ok(false);
        };
        let now_ns = self.pace.now_ns();
        let first = self.complete(first, traffic, now_ns)?;
        let mut completed = 1;
        for _ in 1..self.slots.len().min(BATCH) {
            let Some(cqe) = self.queue.pop() else {
                break;
            };
            let done = self.complete(cqe, traffic, now_ns)?;
            self.record(done);
            completed += 1;
        }
        if !self.free.is_empty() && !self.pace.thinks() {
            self.refill(traffic, now_ns)?;
        }
        self.queue.ring()?;
        // Nothing waits for this any more: with one command in flight, the next would.
        self.record(first);
        self.idle_passes = 0;
        self.last_ns = now_ns;
        self.completed += completed;
        self.signals.publish(self.index, self.completed);
        if self.in_flight == 0 && self.pace.thinks() {
            self.next_burst(traffic)?;
        }
        if self.ramping && self.last_ns >= self.begin_ns {
            self.end_ramp(self.last_ns);
        }
        Ok(true)
    }

    #[inline(always)]
    fn complete<T: Traffic>(
        &mut self,
        cqe: Cqe,
        traffic: &mut T,
        now_ns: u64,
    ) -> Result<Done, Failure> {
        let cid = cqe.cid().0;
        let slot = self.slots.get(usize::from(cid));
        let command = slot.and_then(|slot| slot.command);
        let (Some(command), true) = (command, cqe.sqid() == self.queue.id()) else {
            return Err(self.not_in_flight(cqe));
        };
        if cqe.status() != Status::SUCCESS {
            return Err(self.command_failed(command, cqe.status()));
        }
        let slot = &self.slots[usize::from(cid)];
        let done = Done {
            action: command.action,
            latency_ns: now_ns.saturating_sub(slot.submitted_ns),
        };
        let data = Data {
            memory: &self.memory,
            address: slot.data,
        };
        traffic.finish(command, data)?;
        if self.pace.thinks() || !self.submit_next(cid, traffic, now_ns)? {
            self.slots[usize::from(cid)].command = None;
            self.free.push(cid);
            self.in_flight -= 1;
        }
        Ok(done)
    }

    #[inline(always)]
    fn record(&mut self, done: Done) {
        self.tally.record(done.action, done.latency_ns);
    }

    /// Thinks, and fills all slots, with nothing in flight: what completed meanwhile would seem
    /// late. The thought after a burst belongs to it, that after the last one, too.
    #[cold]
    fn next_burst<T: Traffic>(&mut self, traffic: &mut T) -> Result<(), Failure> {
        let signals = &self.signals;
        self.last_ns = self.pace.think(self.last_ns, || signals.stopped());
        if !self.signals.stopped() {
            self.refill(traffic, self.last_ns)?;
            self.queue.ring()?;
        }
        Ok(())
    }

    /// Submits commands in all free slots, as far as there are any.
    fn refill<T: Traffic>(&mut self, traffic: &mut T, now_ns: u64) -> Result<(), Failure> {
        while let Some(slot) = self.free.pop() {
            if !self.submit_next(slot, traffic, now_ns)? {
                self.free.push(slot);
                break;
            }
            self.in_flight += 1;
        }
        Ok(())
    }

    /// Submits the next command in a slot. False without one.
    #[inline(always)]
    fn submit_next<T: Traffic>(
        &mut self,
        cid: u16,
        traffic: &mut T,
        now_ns: u64,
    ) -> Result<bool, Failure> {
        let next = match self.pace.is_over(now_ns) {
            false => traffic.next(),
            true => None,
        };
        let Some(command) = next else {
            return Ok(false);
        };
        let slot = &mut self.slots[usize::from(cid)];
        let data = Data {
            memory: &self.memory,
            address: slot.data,
        };
        traffic.prepare(command, data)?;
        let prepared = match command.action {
            Action::Read => &slot.read,
            Action::Write => &slot.write,
        };
        self.queue
            .push_prepared(prepared, self.extent.lba(command.chunk).0);
        slot.command = Some(command);
        slot.submitted_ns = now_ns;
        Ok(true)
    }

    /// Puts aside what was recorded. Commands in flight count: they complete in the time that does.
    #[cold]
    fn end_ramp(&mut self, now_ns: u64) {
        mem::swap(&mut self.tally, &mut self.spare_tally);
        self.begin_ns = now_ns;
        self.ramping = false;
    }

    /// After a pass that has found nothing: looks at the time now and then.
    #[inline]
    fn rest(&mut self) -> Result<(), Failure> {
        self.idle_passes += 1;
        if self.idle_passes < IDLE_PASSES {
            return Ok(());
        }
        self.idle_passes = 0;
        self.check_stalled()?;
        thread::yield_now();
        Ok(())
    }

    fn check_stalled(&self) -> Result<(), Failure> {
        let waited = Duration::from_nanos(self.pace.now_ns().saturating_sub(self.last_ns));
        if waited < self.plan.timeout {
            return Ok(());
        }
        Err(Failure::Stalled {
            queue: self.queue.id(),
            in_flight: self.in_flight,
            waited,
        })
    }

    /// Has the controller make everything durable that was written, if it does not by itself.
    fn flush(&mut self) -> Result<(), Failure> {
        if !self.flush || self.signals.stopped() {
            return Ok(());
        }
        let flush = Sqe::new(NvmOpcode::FLUSH.0, self.nsid, [0; 2], [0; 6]);
        self.queue.push(&flush);
        self.queue.ring()?;
        self.in_flight = 1;
        self.last_ns = self.pace.now_ns();
        while !self.signals.stopped() {
            let Some(cqe) = self.queue.pop() else {
                self.rest()?;
                continue;
            };
            self.in_flight = 0;
            self.queue.ring()?;
            return match cqe.status() {
                Status::SUCCESS => Ok(()),
                status => Err(Failure::Flush(status)),
            };
        }
        Ok(())
    }

    /// Data for writes that nobody verifies: such that it cannot be compressed or joined.
    fn fill_memory(&self) -> Result<(), Failure> {
        if self.plan.verify || !self.plan.shape.writes() {
            return Ok(());
        }
        let mut rng = Rng::new(self.plan.seed ^ self.index as u64);
        let mut bytes = vec![0; self.extent.chunk_bytes()];
        for slot in &self.slots {
            for word in bytes.chunks_exact_mut(8) {
                word.copy_from_slice(&rng.next().to_le_bytes());
            }
            self.memory.write(slot.data, &bytes)?;
        }
        Ok(())
    }

    /// From the start of the job, or the end of its ramp, to the last completion or the end of the
    /// thought after it.
    fn busy_time(&mut self) -> Duration {
        if self.ramping {
            self.end_ramp(self.last_ns);
        }
        Duration::from_nanos(self.last_ns.saturating_sub(self.begin_ns))
    }

    #[cold]
    fn not_in_flight(&self, cqe: Cqe) -> Failure {
        Failure::NotInFlight {
            queue: cqe.sqid(),
            command: cqe.cid(),
        }
    }

    #[cold]
    fn command_failed(&self, command: Command, status: Status) -> Failure {
        Failure::Command {
            action: command.action,
            lba: self.extent.lba(command.chunk),
            nsid: self.nsid,
            status,
        }
    }
}

/// A read or write of so many blocks, whose address is still to come.
fn command(opcode: NvmOpcode, nsid: Nsid, prps: [u64; 2], blocks: u32) -> Sqe {
    let nlb_z = blocks - 1;
    Sqe::new(opcode.0, nsid, prps, [0, 0, nlb_z, 0, 0, 0])
}

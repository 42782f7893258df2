//! Workloads: what is asked of a target, by how many threads, and what came of it.
//!
//! Each job drives one queue from one thread, on a part of the namespace that no other job touches.
//! Offsets are multiples of the size of a command, counted in [`Chunk`](extent::Chunk)s from
//! the start of the job's part. This file places the jobs and watches over them; the loop itself is
//! in [`job`].

mod block;
mod error;
mod extent;
mod failure;
mod job;
mod ledger;
mod pattern;
mod permutation;
mod rng;
mod signals;
mod tally;
mod traffic;

use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bdev::memory::Iova;
use nvme::spec::identify::{IdentifyController, IdentifyNamespace, LbaFormat, Vwc};
use nvme::spec::{Nsid, QueueId};

use crate::cores::Cores;
use crate::driver::{self, Controller, DriverError, HostMemory, Link, QueueSeed};

pub(crate) use self::error::Error;
use self::extent::{BlockSize, Extent};
pub(crate) use self::failure::Failure;
use self::job::{Job, JobSeed};
#[cfg(test)]
pub(crate) use self::pattern::Action;
pub(crate) use self::pattern::{Mix, Order, Shape};
pub(crate) use self::rng::Rng;
use self::signals::Signals;
pub(crate) use self::tally::{Direction, Tally};
#[cfg(test)]
pub(crate) use self::tests::example;

/// How often the connection and the threads are looked after while the jobs run.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// What a command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) command_bytes: u64,
    pub(crate) depth: u16,
    pub(crate) queues: u16,
    /// None: each job covers its part once.
    pub(crate) runtime: Option<Duration>,
    /// Whether a job with a runtime begins again where it has covered its part, or ends.
    pub(crate) time_based: bool,
    /// How long the commands of a job go on before any of them counts, in front of `runtime`.
    pub(crate) ramp_time: Duration,
    /// Of the namespace, from its start; none: all of it.
    pub(crate) bytes: Option<u64>,
    pub(crate) nsid: Option<Nsid>,
    pub(crate) cores: Option<Cores>,
    pub(crate) verify: bool,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
}

impl Plan {
    /// How long a job goes on, with its ramp, if time ends it.
    pub(crate) fn whole_time(&self) -> Option<Duration> {
        let runtime = self.runtime?;
        Some(runtime.saturating_add(self.ramp_time))
    }

    /// Whether nothing but time ends a job.
    fn endless(&self) -> bool {
        self.time_based && self.runtime.is_some()
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// How long the longest job was busy, without the ramp and the time for reading back.
    pub(crate) elapsed: Duration,
    /// Logical blocks whose content was checked.
    pub(crate) blocks_verified: u64,
    /// What went wrong, if anything.
    pub(crate) failures: Vec<Failure>,
    /// How long a job waited for its core while other threads had it, the longest of all jobs.
    pub(crate) off_core: Duration,
    /// What the run was about, as found out from the target.
    pub(crate) setting: Setting,
}

/// The namespace that a workload runs on, and how it is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) nsid: Nsid,
    pub(crate) block: BlockSize,
    /// All that is used of it.
    pub(crate) extent: Extent,
    pub(crate) doorbells_mapped: bool,
    volatile_cache: bool,
}

/// Runs a workload; `show` is called now and then with how long it goes on and how many commands
/// are done. An error is one that kept it from beginning; what fails later is in the
/// outcome.
pub(crate) fn run(plan: &Plan, mut show: impl FnMut(Duration, u64)) -> Result<Outcome, Error> {
    let cores = match &plan.cores {
        Some(cores) => cores.clone(),
        None => Cores::inherited()?,
    };
    cores.check()?;
    let mut controller = Controller::connect(&plan.target, plan.timeout)?;
    let setting = examine(plan, &mut controller)?;
    let signals = Arc::new(Signals::new(plan.queues.into()));
    let seeds = seeds(plan, &setting, &mut controller, &signals)?;
    let started = Instant::now();
    let threads = spawn(seeds, &cores)?;
    let alive = watch(&threads, controller.link(), &signals, |done| {
        show(started.elapsed(), done);
    });
    let mut outcome = gather(threads, setting);
    if !alive {
        outcome.failures.insert(0, Failure::TargetGone);
    }
    // After a failure the end of the connection has to do: a target that has stalled would be
    // waited for once more.
    if outcome.failures.is_empty() {
        let shut_down = controller.shut_down().map_err(Failure::Driver);
        outcome.failures.extend(shut_down.err());
    }
    Ok(outcome)
}

/// Finds the namespace, and whether the plan can be carried out on it.
fn examine(plan: &Plan, controller: &mut Controller) -> Result<Setting, Error> {
    let identity = controller.identify()?;
    let namespaces = controller.namespaces()?;
    let nsid = match plan.nsid {
        None => namespaces.first().copied().ok_or(Error::NoNamespace)?,
        Some(nsid) if namespaces.contains(&nsid) => nsid,
        Some(nsid) => return Err(Error::UnknownNamespace { nsid, namespaces }),
    };
    let namespace = controller.identify_namespace(nsid)?;
    let block = block_size(&namespace)?;
    check_transfer(plan, controller, &identity)?;
    let extent = extent(plan, block, namespace.nsze.get())?;
    Ok(Setting {
        nsid,
        block,
        extent,
        doorbells_mapped: controller.doorbells_mapped(),
        volatile_cache: Vwc::from(identity.vwc).present(),
    })
}

fn block_size(namespace: &IdentifyNamespace) -> Result<BlockSize, Error> {
    let LbaFormat { ms, lbads, .. } = namespace.formatted();
    if ms.get() != 0 {
        return Err(Error::Metadata { bytes: ms.get() });
    }
    BlockSize::from_shift(lbads).ok_or(Error::BlockSize { shift: lbads })
}

/// Judges the size of a command and the depth by the controller's limits.
fn check_transfer(
    plan: &Plan,
    controller: &Controller,
    identity: &IdentifyController,
) -> Result<(), Error> {
    if let Some(limit) = controller.transfer_max(identity) {
        if plan.command_bytes > limit {
            let bytes = plan.command_bytes;
            return Err(Error::CommandTooLarge { bytes, limit });
        }
    }
    let limit = controller.depth_max();
    if u32::from(plan.depth) > limit {
        let depth = plan.depth;
        return Err(Error::TooDeep { depth, limit });
    }
    Ok(())
}

/// The part of the namespace to use: whole commands, one for each job at least.
fn extent(plan: &Plan, block: BlockSize, blocks: u64) -> Result<Extent, Error> {
    let available = blocks.saturating_mul(block.bytes());
    let bytes = plan.bytes.unwrap_or(available);
    if bytes > available {
        return Err(Error::BeyondNamespace { bytes, available });
    }
    let command = plan.command_bytes;
    let extent = Extent::new(block, command).ok_or(Error::CommandSize {
        bytes: command,
        block: block.bytes(),
    })?;
    let extent = extent.with_chunks(bytes / command);
    if extent.chunks() < u64::from(plan.queues) {
        return Err(Error::TooSmall { bytes, command });
    }
    if plan.verify && plan.shape.writes() && extent.chunks() > ledger::CHUNKS_MAX {
        let limit = command.saturating_mul(ledger::CHUNKS_MAX);
        return Err(Error::TooLargeToVerify { bytes, limit });
    }
    Ok(extent)
}

/// Makes the queues, and the memory for the data of their commands.
fn seeds(
    plan: &Plan,
    setting: &Setting,
    controller: &mut Controller,
    signals: &Arc<Signals>,
) -> Result<Vec<JobSeed>, Error> {
    controller.request_queues(plan.queues)?;
    // One entry of a ring stays free; whole powers of two are what targets are used to.
    let entries = (u32::from(plan.depth) + 1).next_power_of_two();
    let entries = entries.min(controller.entries_max());
    let page = controller.page();
    let list = driver::list_bytes(plan.command_bytes, page);
    let slot = plan.command_bytes.next_multiple_of(page.0) + list;
    let job_bytes = QueueSeed::bytes(entries, page) + slot * u64::from(plan.depth);
    let mut memory = controller.lend(job_bytes * u64::from(plan.queues))?;
    let parts = setting.extent.split(plan.queues);
    let mut seeds = Vec::new();
    for (index, extent) in parts.into_iter().enumerate() {
        let id = QueueId(index as u16 + 1);
        let queue = controller.create_queue(id, entries, &mut memory)?;
        let (data, lists) = buffers(plan, &mut memory, list)?;
        seeds.push(JobSeed {
            index,
            queue,
            extent,
            data,
            lists,
            page,
            nsid: setting.nsid,
            flush: setting.volatile_cache,
            plan: plan.clone(),
            signals: Arc::clone(signals),
        });
    }
    Ok(seeds)
}

/// Memory for the data and the PRP lists of all commands of one job.
fn buffers(
    plan: &Plan,
    memory: &mut HostMemory,
    list_bytes: u64,
) -> Result<(Vec<Iova>, Vec<Iova>), DriverError> {
    let mut allocate = |bytes| (0..plan.depth).map(|_| memory.allocate(bytes)).collect();
    let data: Result<Vec<Iova>, _> = allocate(plan.command_bytes);
    let lists: Result<Vec<Iova>, _> = allocate(list_bytes);
    Ok((data?, lists?))
}

type Thread = JoinHandle<job::JobOutcome>;

/// Starts the jobs, which begin together once each has prepared its memory.
fn spawn(seeds: Vec<JobSeed>, cores: &Cores) -> Result<Vec<Thread>, Error> {
    let start = Arc::new(Barrier::new(seeds.len()));
    let mut threads = Vec::new();
    for seed in seeds {
        let core = cores.of_job(seed.index);
        let start = Arc::clone(&start);
        let work = move || {
            let pinned = core.pin().map_err(|errno| Failure::Pin { core, errno });
            let job = pinned.and_then(|()| Job::new(seed));
            start.wait();
            match job {
                Ok(job) => job.run(),
                Err(failure) => job::JobOutcome::failed(failure),
            }
        };
        let thread = thread::Builder::new().name(format!("job on core {}", core.0));
        threads.push(thread.spawn(work).map_err(Error::Thread)?);
    }
    Ok(threads)
}

/// Waits until all jobs are done. False if the target has closed the connection; the jobs are told
/// to stop then.
fn watch(threads: &[Thread], link: &Link, signals: &Signals, mut show: impl FnMut(u64)) -> bool {
    let mut alive = true;
    while !threads.iter().all(JoinHandle::is_finished) {
        if alive {
            alive = link.wait(WATCH_INTERVAL);
        } else {
            signals.stop();
            thread::sleep(WATCH_INTERVAL);
        }
        show(signals.commands());
    }
    alive && link.wait(Duration::ZERO)
}

fn gather(threads: Vec<Thread>, setting: Setting) -> Outcome {
    let mut outcome = Outcome {
        tally: Tally::new(),
        elapsed: Duration::ZERO,
        blocks_verified: 0,
        failures: Vec::new(),
        off_core: Duration::ZERO,
        setting,
    };
    for thread in threads {
        let Ok(job) = thread.join() else {
            outcome.failures.push(Failure::Panicked);
            continue;
        };
        outcome.tally.add(&job.tally);
        outcome.elapsed = outcome.elapsed.max(job.elapsed);
        outcome.blocks_verified += job.blocks_verified;
        outcome.off_core = outcome.off_core.max(job.off_core);
        outcome.failures.extend(job.failure);
    }
    outcome
}

#[cfg(test)]
mod tests;

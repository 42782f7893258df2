//! Workloads: what is asked of a target, by how many threads, and what came of it.
//!
//! Each job drives one queue from one thread, on a part of the namespace that no other job touches.
//! Offsets are multiples of the size of a command, counted in [`Chunk`](extent::Chunk)s from
//! the start of the job's part. This file places the jobs and watches over them; the loop itself is
//! in [`job`].

mod block;
mod distribution;
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
mod target;
mod traffic;

use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use nvme::spec::{Nsid, QueueId};

use crate::core_time::{Lost, Reading};
use crate::cores::{Core, Cores, CoresError};
use crate::driver::Link;

pub(crate) use self::distribution::Distribution;
pub(crate) use self::error::Error;
pub(crate) use self::failure::Failure;
use self::job::{Job, JobSeed};
#[cfg(test)]
pub(crate) use self::pattern::Action;
pub(crate) use self::pattern::{Mix, Order, Shape};
pub(crate) use self::rng::Rng;
use self::signals::Signals;
pub(crate) use self::tally::{Direction, Tally};
pub(crate) use self::target::Setting;
use self::target::Target;
#[cfg(test)]
pub(crate) use self::tests::example;

/// How often the connection and the threads are looked after while the jobs run.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// What a command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What reports call it, if it has a name.
    pub(crate) name: Option<String>,
    /// One at least, and none twice.
    pub(crate) targets: Vec<PathBuf>,
    pub(crate) shape: Shape,
    pub(crate) distribution: Distribution,
    pub(crate) command_bytes: u64,
    pub(crate) depth: u16,
    /// Of each target.
    pub(crate) queues: u16,
    /// None: each job covers its part once.
    pub(crate) runtime: Option<Duration>,
    /// Whether a job with a runtime begins again where it has covered its part, or ends.
    pub(crate) time_based: bool,
    /// How long the commands of a job go on before any of them counts, in front of `runtime`.
    pub(crate) ramp_time: Duration,
    /// How long a job submits nothing after all its commands have completed.
    pub(crate) think_time: Duration,
    /// Of each namespace, from its start; none: all of it.
    pub(crate) bytes: Option<u64>,
    pub(crate) nsid: Option<Nsid>,
    /// None: those that this process may use.
    pub(crate) cores: Option<Cores>,
    pub(crate) verify: bool,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
}

impl Plan {
    /// Whether all of it has a meaning, as far as it can be said without having seen a target.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let writes_once = self.shape.mix == Mix::Writes && !self.endless();
        if !self.ramp_time.is_zero() && self.runtime.is_none() {
            return Err(Error::Options("--ramp-time goes with --runtime only"));
        }
        match self.distribution {
            Distribution::Random => Ok(()),
            Distribution::Zoned(_) if self.shape.order == Order::Sequential => Err(Error::Options(
                "zones go with random reads and writes only: sequential ones are everywhere",
            )),
            Distribution::Zoned(_) if self.verify && writes_once => Err(Error::Options(
                "zones do not go with random writes that are verified, unless a time ends them: \
                 such writes go to each block once",
            )),
            Distribution::Zoned(_) => Ok(()),
        }
    }

    /// The cores that jobs take turns on.
    pub(crate) fn cores(&self) -> Result<Cores, CoresError> {
        match &self.cores {
            Some(cores) => Ok(cores.clone()),
            None => Cores::inherited(),
        }
    }

    /// All targets, separated by commas.
    pub(crate) fn target_names(&self) -> String {
        let names = self.targets.iter().map(|path| path.display().to_string());
        names.collect::<Vec<_>>().join(",")
    }

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
    /// What was taken of the targets' threads, as far as they can be seen, and of all cores in use.
    pub(crate) lost: Lost,
    /// What the run was about, as found out from each target of the plan.
    pub(crate) settings: Vec<Setting>,
    /// Each queue, those of the first target in front.
    pub(crate) placements: Vec<Placement>,
}

/// Where a queue was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Which of the plan's targets it belongs to, from 0.
    pub(crate) target: usize,
    pub(crate) queue: QueueId,
    pub(crate) core: Core,
}

/// Runs a workload; `show` is called now and then with how long it goes on and how many commands
/// are done. An error is one that kept it from beginning; what fails later is in the
/// outcome.
pub(crate) fn run(plan: &Plan, mut show: impl FnMut(Duration, u64)) -> Result<Outcome, Error> {
    let cores = plan.cores()?;
    cores.check()?;
    let mut targets = target::connect(plan)?;
    let queues = targets.len() * usize::from(plan.queues);
    let signals = Arc::new(Signals::new(queues));
    let seeds = target::seeds(plan, &mut targets, &signals)?;
    let links: Vec<Link> = targets.iter().map(Target::link).collect();
    let mut outcome = Outcome::new(targets.iter().map(Target::setting).collect());
    outcome.placements = placements(plan, &cores);
    let processes: Vec<Pid> = links.iter().filter_map(Link::peer).collect();
    let before = Reading::of(&processes);
    let started = Instant::now();
    let threads = spawn(seeds, &outcome.placements)?;
    let gone = watch(&threads, &links, &signals, |done| {
        show(started.elapsed(), done);
    });
    let used: Vec<Core> = outcome.placements.iter().map(|place| place.core).collect();
    outcome.lost = Reading::of(&processes).lost_since(&before, &used);
    if let Some(target) = gone {
        outcome.fail(plan, target, Failure::TargetGone);
    }
    gather(threads, plan, &mut outcome);
    // After a failure the end of the connection has to do: a target that has stalled would be
    // waited for once more.
    if outcome.failures.is_empty() {
        for (index, target) in targets.into_iter().enumerate() {
            if let Err(failure) = target.shut_down() {
                outcome.fail(plan, index, failure);
            }
        }
    }
    Ok(outcome)
}

/// What is seen of a target before anything is asked of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probed {
    /// What is behind its socket, if that can be seen from here.
    pub(crate) process: Option<Pid>,
    /// How much of its namespace a plan uses.
    pub(crate) bytes: u64,
}

/// Whether a plan can be carried out, found out without a command to any namespace's blocks.
pub(crate) fn probe(plan: &Plan) -> Result<Vec<Probed>, Error> {
    plan.cores()?.check()?;
    let targets = target::connect(plan)?;
    let probed = |target: &Target| Probed {
        process: target.link().peer(),
        bytes: target.setting().extent.bytes(),
    };
    let probed = targets.iter().map(probed).collect();
    for target in targets {
        target.close()?;
    }
    Ok(probed)
}

/// Each queue at the next core, those of the first target in front.
fn placements(plan: &Plan, cores: &Cores) -> Vec<Placement> {
    let targets = 0..plan.targets.len();
    let queues = targets.flat_map(|target| (1..=plan.queues).map(move |id| (target, QueueId(id))));
    let place = |(job, (target, queue))| Placement {
        target,
        queue,
        core: cores.of_job(job),
    };
    queues.enumerate().map(place).collect()
}

type Thread = JoinHandle<job::JobOutcome>;

/// Starts the jobs, which begin together once each has prepared its memory.
fn spawn(seeds: Vec<JobSeed>, placements: &[Placement]) -> Result<Vec<Thread>, Error> {
    let start = Arc::new(Barrier::new(seeds.len()));
    let mut threads = Vec::new();
    for (seed, Placement { core, .. }) in seeds.into_iter().zip(placements.iter().copied()) {
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

/// Waits until all jobs are done. The target that has closed its connection, if one has; the jobs
/// are told to stop then.
fn watch(
    threads: &[Thread],
    links: &[Link],
    signals: &Signals,
    mut show: impl FnMut(u64),
) -> Option<usize> {
    let mut gone = None;
    while !threads.iter().all(JoinHandle::is_finished) {
        if gone.is_none() {
            gone = Link::wait_any(links, WATCH_INTERVAL);
        } else {
            signals.stop();
            thread::sleep(WATCH_INTERVAL);
        }
        show(signals.commands());
    }
    gone.or_else(|| Link::wait_any(links, Duration::ZERO))
}

fn gather(threads: Vec<Thread>, plan: &Plan, outcome: &mut Outcome) {
    for (job, thread) in threads.into_iter().enumerate() {
        let target = outcome.placements[job].target;
        let Ok(job) = thread.join() else {
            outcome.fail(plan, target, Failure::Panicked);
            continue;
        };
        outcome.tally.add(&job.tally);
        outcome.elapsed = outcome.elapsed.max(job.elapsed);
        outcome.blocks_verified += job.blocks_verified;
        outcome.off_core = outcome.off_core.max(job.off_core);
        if let Some(failure) = job.failure {
            outcome.fail(plan, target, failure);
        }
    }
}

impl Outcome {
    /// That of a run in which nothing has happened yet.
    fn new(settings: Vec<Setting>) -> Outcome {
        Outcome {
            tally: Tally::new(),
            elapsed: Duration::ZERO,
            blocks_verified: 0,
            failures: Vec::new(),
            off_core: Duration::ZERO,
            lost: Lost::default(),
            settings,
            placements: Vec::new(),
        }
    }

    /// Bytes that are used of all namespaces together.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = self.settings.iter().map(|setting| setting.extent.bytes());
        bytes.fold(0, u64::saturating_add)
    }

    /// Adds a failure, with the name of the target where there are several.
    fn fail(&mut self, plan: &Plan, target: usize, failure: Failure) {
        let failure = match plan.targets.len() {
            1 => failure,
            _ => Failure::At {
                target: plan.targets[target].clone(),
                failure: Box::new(failure),
            },
        };
        self.failures.push(failure);
    }
}

#[cfg(test)]
mod tests;

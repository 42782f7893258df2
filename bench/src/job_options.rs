//! The options of a job, from the command line or from a job file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cores::Cores;
use crate::workload::{Distribution, Error, Mix, Order, Plan, Shape};

/// The seed of a run that is not given one. It never changes: a later run has to know it to verify
/// what an earlier one wrote.
pub(crate) const SEED: u64 = 0x6265_6c6c_7769_7265;

/// What a job does, and on what. None: that was not said.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct JobOptions {
    /// A target's vfio-user socket, or a folder that holds it as `cntrl`; several run together
    #[arg(long = "target", value_name = "SOCKET")]
    pub(crate) targets: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) workload: WorkloadOptions,
    /// How long to go on [default: until --size has been covered once]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) runtime: Option<Duration>,
    /// Whether a job with a runtime goes on when --size has been covered, as with --runtime.
    #[arg(skip)]
    pub(crate) time_based: Option<bool>,
    /// How long the workload goes on before anything is recorded, in front of --runtime
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) ramp_time: Option<Duration>,
    /// Check what is read; after writes, read it back
    #[arg(long)]
    pub(crate) verify: bool,
    /// What the report calls the job [default: bellwire-bench, or its name in the job file]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// What is asked of a target, however long.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct WorkloadOptions {
    /// What to do
    #[arg(long, value_enum)]
    pub(crate) rw: Option<Mode>,
    /// How random offsets are spread, with fio's names: random, or zoned:60/10:40/90 for 60 % of
    /// the commands in the first 10 % of each queue's part, and 40 % in the other 90 % [default:
    /// random]
    #[arg(long, value_name = "DISTRIBUTION")]
    pub(crate) random_distribution: Option<Distribution>,
    /// Percentage of reads of randrw [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) rwmixread: Option<u8>,
    /// Bytes of one command [default: 4k]
    #[arg(long, value_name = "SIZE", value_parser = bdev::size::parse_size)]
    pub(crate) bs: Option<u64>,
    /// Commands in flight on each queue [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) iodepth: Option<u16>,
    /// How long at least a queue is given nothing when all its commands have completed: thinktime
    /// of fio with as many thinktime_blocks as --iodepth [default: not at all]
    #[arg(long, value_name = "MICROSECONDS", value_parser = microseconds)]
    pub(crate) thinktime: Option<Duration>,
    /// I/O queues of each target, each with a thread and an equal part of the namespace of its own
    /// [default: 1]
    #[arg(long, value_name = "QUEUES", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) numjobs: Option<u16>,
    /// Bytes of each namespace to use, from its start [default: all]
    #[arg(long, value_name = "SIZE", value_parser = bdev::size::parse_size)]
    pub(crate) size: Option<u64>,
    /// Namespace [default: the first]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) nsid: Option<u32>,
    /// Cores: the first queue of the first target is on the first one, and so on, in turns when
    /// they run out: 0x5, [0-3,8] or 3,0,0 [default: those allowed]
    #[arg(long, value_name = "MASK")]
    pub(crate) cores: Option<Cores>,
    /// Seed of offsets and of verified data [default: always the same]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How long the target may take for an answer [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// fio's names of the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Read,
    Write,
    #[value(name = "randread")]
    RandRead,
    #[value(name = "randwrite")]
    RandWrite,
    #[value(name = "randrw")]
    RandRw,
}

impl Mode {
    /// What it asks for; with so many reads in a hundred if it mixes.
    pub(crate) fn shape(self, read_percent: u8) -> Shape {
        let (order, mix) = match self {
            Mode::Read => (Order::Sequential, Mix::Reads),
            Mode::Write => (Order::Sequential, Mix::Writes),
            Mode::RandRead => (Order::Random, Mix::Reads),
            Mode::RandWrite => (Order::Random, Mix::Writes),
            Mode::RandRw => (Order::Random, Mix::Both { read_percent }),
        };
        Shape { order, mix }
    }
}

impl JobOptions {
    /// These options, and where they say nothing those of `other`.
    pub(crate) fn over(self, other: JobOptions) -> JobOptions {
        JobOptions {
            targets: match self.targets.is_empty() {
                true => other.targets,
                false => self.targets,
            },
            workload: self.workload.over(other.workload),
            time_based: match self.runtime {
                None => self.time_based.or(other.time_based),
                Some(_) => self.time_based,
            },
            runtime: self.runtime.or(other.runtime),
            ramp_time: self.ramp_time.or(other.ramp_time),
            verify: self.verify || other.verify,
            name: self.name.or(other.name),
        }
    }

    /// What is to be done, as far as it can be said without having seen the target.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        if self.targets.is_empty() {
            return Err(Error::Options(
                "--target is missing, the target's vfio-user socket",
            ));
        }
        if self.time_based == Some(true) && self.runtime.is_none() {
            return Err(Error::Options("time_based goes with a runtime only"));
        }
        let plan = Plan {
            name: self.name.clone(),
            runtime: self.runtime,
            time_based: self.time_based.unwrap_or(true),
            ramp_time: self.ramp_time.unwrap_or_default(),
            verify: self.verify,
            ..self.workload.plan(&self.targets)?
        };
        plan.check()?;
        Ok(plan)
    }
}

impl WorkloadOptions {
    /// These options, and where they say nothing those of `other`, as far as they go together with
    /// the mode: what fio's jobs inherit may well not.
    fn over(self, other: WorkloadOptions) -> WorkloadOptions {
        let rw = self.rw.or(other.rw);
        let random = !matches!(rw, Some(Mode::Read | Mode::Write));
        let distribution = other.random_distribution.filter(|_| random);
        let rwmixread = other.rwmixread.filter(|_| rw == Some(Mode::RandRw));
        WorkloadOptions {
            rw,
            random_distribution: self.random_distribution.or(distribution),
            rwmixread: self.rwmixread.or(rwmixread),
            bs: self.bs.or(other.bs),
            iodepth: self.iodepth.or(other.iodepth),
            thinktime: self.thinktime.or(other.thinktime),
            numjobs: self.numjobs.or(other.numjobs),
            size: self.size.or(other.size),
            nsid: self.nsid.or(other.nsid),
            cores: self.cores.or(other.cores),
            seed: self.seed.or(other.seed),
            timeout: self.timeout.or(other.timeout),
        }
    }

    /// A plan without an end in time.
    pub(crate) fn plan(&self, targets: &[PathBuf]) -> Result<Plan, Error> {
        let Some(rw) = self.rw else {
            return Err(Error::Options(
                "--rw is missing: one of read, write, randread, randwrite and randrw",
            ));
        };
        if self.rwmixread.is_some() && rw != Mode::RandRw {
            return Err(Error::Options("--rwmixread goes with --rw randrw only"));
        }
        Ok(Plan {
            name: None,
            targets: targets.to_vec(),
            shape: rw.shape(self.rwmixread.unwrap_or(50)),
            distribution: self.random_distribution.clone().unwrap_or_default(),
            command_bytes: self.bs.unwrap_or(4096),
            depth: self.iodepth.unwrap_or(1),
            queues: self.numjobs.unwrap_or(1),
            runtime: None,
            time_based: true,
            ramp_time: Duration::ZERO,
            think_time: self.thinktime.unwrap_or_default(),
            bytes: self.size,
            nsid: self.nsid.map(nvme::spec::Nsid),
            cores: self.cores.clone(),
            verify: false,
            seed: self.seed.unwrap_or(SEED),
            timeout: self.timeout.unwrap_or(Duration::from_secs(10)),
        })
    }
}

/// A number of microseconds.
fn microseconds(text: &str) -> Result<Duration, String> {
    let microseconds = text.parse().map_err(|_| "not a number of microseconds")?;
    Ok(Duration::from_micros(microseconds))
}

/// A time in seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let seconds: f64 = digits.parse().map_err(|_| "not a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) | Err(_) => Err("not a time that can be waited for".to_owned()),
    }
}

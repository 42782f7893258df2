//! The command line.

use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cores::{Core, Cores};
use crate::micro::Case;
use crate::workload::{Distribution, Error, Mix, Order, Plan, Shape};

/// The seed of a run that is not given one. It never changes: a later run has to know it to verify
/// what an earlier one wrote.
const SEED: u64 = 0x6265_6c6c_7769_7265;
/// The name of a run that is not given one.
const NAME: &str = "bellwire-bench";

/// A polled NVMe host for vfio-user targets: benchmarks them, and verifies what they store.
#[derive(Debug, Parser)]
#[command(name = "bellwire-bench", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare targets under one workload, in short windows that take turns
    Compare(CompareOptions),
    /// Give targets hosts with queues that do nothing, until interrupted: to measure beside
    Hold(HoldOptions),
    /// Show what a controller and its namespaces say of themselves
    Identify(IdentifyOptions),
    /// Measure what the machine allows for the job of a target, with no protocol around it
    #[command(after_help = LIMITS_HELP)]
    Limits(LimitsOptions),
    /// Measure what a command costs in a poll group of bellwire's, with no other core involved
    Micro(MicroOptions),
    /// Draw what `run`, `compare`, `limits` and fio wrote as JSON: a page and SVG files
    #[command(after_help = REPORT_HELP)]
    Report(ReportOptions),
    /// Run a workload on a namespace and report how fast it went
    #[command(after_help = RUN_HELP)]
    Run(RunOptions),
}

const RUN_HELP: &str = "\
Sizes are digits with an optional k, m, g or t and an optional iB, in powers of 1024: 4k, 512MiB.

With --verify each logical block carries its address, the seed and a generation. Writing modes read
back what they wrote when they are done, and so prove that the last write of each such block is
there. Without --runtime, write and randwrite write each block of --size once, as far as whole
commands fill it; randrw, and any mode with --runtime, write just the blocks that they come to.

`--rw read --verify` proves that each block holds, undamaged and in its place, what some earlier run
with the same seed has written; a block that no such run wrote fails. It cannot tell the last such
run from those before: to find stale data, give every writing run a --seed of its own.

Exit status: 0 if all went well, 1 if a command or the verification failed, 2 if the run could not
begin.";

#[derive(Debug, Args)]
pub(crate) struct HoldOptions {
    /// The targets' vfio-user sockets, or folders that hold them as `cntrl`
    #[arg(value_name = "SOCKET", required = true)]
    pub(crate) targets: Vec<PathBuf>,
    /// I/O queues of each
    #[arg(long, value_name = "QUEUES", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) numjobs: u16,
    /// Commands that a queue could hold
    #[arg(long, value_name = "N", default_value_t = 127,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) iodepth: u16,
    /// How long a target may take for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct IdentifyOptions {
    /// The target's vfio-user socket, or a folder that holds it as `cntrl`
    #[arg(value_name = "SOCKET")]
    pub(crate) target: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How long the target may take for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

const LIMITS_HELP: &str = "\
Between two threads that poll, each on a core of its own: the round trip of a cache line; commands
without a protocol (an entry of 64 bytes and a doorbell there, 16 bytes and a doorbell back) that do
nothing or copy 4 or 128 KiB from or to a random place of 256 MiB, in base and in huge pages, with
and without prefetch; on one core, the write of an eventfd and an io_uring no-op.

Medians over short windows, with the least and the greatest. A streaming write passes the caches.
Huge pages are those of the pool, if it has enough, else transparent ones: the report tells which.";

#[derive(Debug, Args)]
pub(crate) struct LimitsOptions {
    /// The client's core and the server's: 0x5 or 0,2 [default: the first two of those allowed]
    #[arg(long, value_name = "MASK")]
    pub(crate) cores: Option<Cores>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Take fewer and shorter windows: a second instead of ten
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MicroOptions {
    /// What to measure [default: everything]
    #[arg(long, value_enum)]
    pub(crate) case: Option<Case>,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) commands: u32,
}

const REPORT_HELP: &str = "\
Results with one name are one series. Which charts they are in follows from their job options: those
that differ in iodepth, bs, numjobs or targets only are a line over that. Several results of one
name and workload are rounds: their median is drawn, with the lowest and the highest.

The limits of `limits --json` are drawn as dashed lines: a series with null in its name or target is
held against the empty command, one with malloc against the fastest copy.

index.html needs nothing else, and each chart is a file of its own; both follow the reader's theme,
light or dark. For PNG files: rsvg-convert --zoom 2 CHART.svg > CHART.png";

#[derive(Debug, Args)]
pub(crate) struct ReportOptions {
    /// The folder to write into; it is made if need be, and files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// JSON of `run`, `compare`, `limits` or fio; series get their colours in this order
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// A target's vfio-user socket, or a folder that holds it as `cntrl`; several run together
    #[arg(long = "target", value_name = "SOCKET", required = true)]
    targets: Vec<PathBuf>,
    #[command(flatten)]
    workload: WorkloadOptions,
    /// How long to go on [default: until --size has been covered once]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    runtime: Option<Duration>,
    /// How long the workload goes on before anything is recorded, in front of --runtime
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "runtime")]
    ramp_time: Option<Duration>,
    /// Check what is read; after writes, read it back
    #[arg(long)]
    verify: bool,
    /// Measure the round trip of a cache line between the first queue's core and this one, that of
    /// the target's reactor, before and after the workload
    #[arg(long, value_name = "CORE")]
    reactor_core: Option<usize>,
    /// What the report calls the run
    #[arg(long, value_name = "NAME", default_value = NAME)]
    name: String,
    /// Print one JSON object, with fio's names
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    /// The targets' vfio-user sockets, or folders that hold them as `cntrl`; the first is the base
    #[arg(value_name = "SOCKET", required = true, num_args = 2..)]
    targets: Vec<PathBuf>,
    #[command(flatten)]
    workload: WorkloadOptions,
    /// How long a window is
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    window: Duration,
    /// How many windows each target gets
    #[arg(long, value_name = "N", default_value_t = 15,
          value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) windows: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is asked of a target, however long.
#[derive(Debug, Args)]
struct WorkloadOptions {
    /// What to do
    #[arg(long, value_enum)]
    rw: Mode,
    /// How random offsets are spread, with fio's names: random, or zoned:60/10:40/90 for 60 % of
    /// the commands in the first 10 % of each queue's part, and 40 % in the other 90 %
    #[arg(long, value_name = "DISTRIBUTION", default_value = "random")]
    random_distribution: Distribution,
    /// Percentage of reads of randrw [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    rwmixread: Option<u8>,
    /// Bytes of one command
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = bdev::size::parse_size)]
    bs: u64,
    /// Commands in flight on each queue
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    iodepth: u16,
    /// I/O queues of each target, each with a thread and an equal part of the namespace of its own
    #[arg(long, value_name = "QUEUES", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    numjobs: u16,
    /// Bytes of each namespace to use, from its start [default: all]
    #[arg(long, value_name = "SIZE", value_parser = bdev::size::parse_size)]
    size: Option<u64>,
    /// Namespace [default: the first]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nsid: Option<u32>,
    /// Cores that the queues are on, in order and then in turns: 0x5, [0-3,8] or 3,0,0 [default:
    /// those allowed]
    #[arg(long, value_name = "MASK")]
    cores: Option<Cores>,
    /// Seed of offsets and of verified data
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// How long the target may take for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
}

/// fio's names of the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Read,
    Write,
    #[value(name = "randread")]
    RandRead,
    #[value(name = "randwrite")]
    RandWrite,
    #[value(name = "randrw")]
    RandRw,
}

impl RunOptions {
    /// The core of the target's reactor, if it is told.
    pub(crate) fn reactor_core(&self) -> Option<Core> {
        self.reactor_core.map(Core)
    }

    /// What is to be done, as far as it can be said without having seen the target.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        let plan = Plan {
            name: self.name.clone(),
            runtime: self.runtime,
            ramp_time: self.ramp_time.unwrap_or_default(),
            verify: self.verify,
            ..self.workload.plan(&self.targets)?
        };
        plan.check()?;
        Ok(plan)
    }
}

impl CompareOptions {
    /// What is to be done in one window of each target.
    pub(crate) fn plans(&self) -> Result<Vec<Plan>, Error> {
        let plan = |target| {
            let plan = Plan {
                runtime: Some(self.window),
                ..self.workload.plan(slice::from_ref(target))?
            };
            plan.check()?;
            Ok(plan)
        };
        self.targets.iter().map(plan).collect()
    }
}

impl WorkloadOptions {
    fn plan(&self, targets: &[PathBuf]) -> Result<Plan, Error> {
        if self.rwmixread.is_some() && self.rw != Mode::RandRw {
            return Err(Error::Options("--rwmixread goes with --rw randrw only"));
        }
        let (order, mix) = match self.rw {
            Mode::Read => (Order::Sequential, Mix::Reads),
            Mode::Write => (Order::Sequential, Mix::Writes),
            Mode::RandRead => (Order::Random, Mix::Reads),
            Mode::RandWrite => (Order::Random, Mix::Writes),
            Mode::RandRw => {
                let read_percent = self.rwmixread.unwrap_or(50);
                (Order::Random, Mix::Both { read_percent })
            }
        };
        Ok(Plan {
            name: NAME.to_owned(),
            targets: targets.to_vec(),
            shape: Shape { order, mix },
            distribution: self.random_distribution.clone(),
            command_bytes: self.bs,
            depth: self.iodepth,
            queues: self.numjobs,
            runtime: None,
            time_based: true,
            ramp_time: Duration::ZERO,
            bytes: self.size,
            nsid: self.nsid.map(nvme::spec::Nsid),
            cores: self.cores.clone(),
            verify: false,
            seed: self.seed,
            timeout: self.timeout,
        })
    }
}

/// A time in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let seconds: f64 = digits.parse().map_err(|_| "not a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) | Err(_) => Err("not a time that can be waited for".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(arguments: &str) -> Result<Plan, String> {
        let words = format!("bellwire-bench run --target t.sock {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace()).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Run(options) => options.plan().map_err(|e| e.to_string()),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_fio() {
        let plan = plan("--rw randread").expect("a plan");
        assert_eq!(plan.command_bytes, 4096);
        assert_eq!((plan.depth, plan.queues), (1, 1));
        assert_eq!((plan.runtime, plan.bytes, plan.nsid), (None, None, None));
        assert_eq!((plan.verify, plan.seed), (false, SEED));
        assert_eq!(plan.timeout, Duration::from_secs(10));
    }

    #[test]
    fn every_option_arrives() {
        let plan = plan(
            "--rw randrw --rwmixread 70 --bs 128KiB --iodepth 64 --numjobs 3 --runtime 0.5 \
             --ramp-time 2 --size 1g --nsid 2 --cores [1] --verify --seed 9 --json --timeout 2s",
        )
        .expect("a plan");
        let mix = Mix::Both { read_percent: 70 };
        assert_eq!(
            plan.shape,
            Shape {
                order: Order::Random,
                mix
            }
        );
        assert_eq!(plan.command_bytes, 128 << 10);
        assert_eq!((plan.depth, plan.queues), (64, 3));
        assert_eq!(plan.runtime, Some(Duration::from_millis(500)));
        assert_eq!(plan.ramp_time, Duration::from_secs(2));
        assert_eq!(plan.bytes, Some(1 << 30));
        assert_eq!(plan.nsid, Some(nvme::spec::Nsid(2)));
        assert_eq!(
            plan.cores.map(|cores| cores.to_string()),
            Some("[1]".into())
        );
        assert_eq!((plan.verify, plan.seed), (true, 9));
        assert_eq!(plan.timeout, Duration::from_secs(2));
    }

    #[test]
    fn zones_go_with_all_that_is_random_and_can_be_verified() {
        for options in [
            "randread",
            "randrw --verify",
            "randwrite",
            "randwrite --verify --runtime 1",
        ] {
            let zoned = plan(&format!(
                "--random-distribution zoned:60/10:40/90 --rw {options}"
            ));
            let zoned = zoned.expect(options).distribution.to_string();
            assert_eq!(zoned, "zoned:60/10:40/90", "{options}");
        }
    }

    #[test]
    fn each_mode_has_its_shape() {
        let shape = |rw: &str| plan(&format!("--rw {rw}")).expect("a plan").shape;
        let of = |order, mix| Shape { order, mix };
        assert_eq!(shape("read"), of(Order::Sequential, Mix::Reads));
        assert_eq!(shape("write"), of(Order::Sequential, Mix::Writes));
        assert_eq!(shape("randread"), of(Order::Random, Mix::Reads));
        assert_eq!(shape("randwrite"), of(Order::Random, Mix::Writes));
        let both = Mix::Both { read_percent: 50 };
        assert_eq!(shape("randrw"), of(Order::Random, both));
    }

    #[test]
    fn nonsense_is_refused_with_the_option_named() {
        for (arguments, named) in [
            ("", "--rw"),
            ("--rw sideways", "--rw"),
            ("--rw read --iodepth 0", "--iodepth"),
            ("--rw read --numjobs 0", "--numjobs"),
            ("--rw read --bs 4q", "--bs"),
            ("--rw read --nsid 0", "--nsid"),
            ("--rw read --cores 8", "--cores"),
            ("--rw read --runtime 0", "--runtime"),
            ("--rw read --runtime=-1", "--runtime"),
            ("--rw read --runtime nan", "--runtime"),
            ("--rw read --ramp-time 1", "--runtime"),
            (
                "--rw randread --random-distribution zoned:50/50",
                "--random-distribution",
            ),
            (
                "--rw read --random-distribution zoned:100/100",
                "zones go with random",
            ),
            (
                "--rw randwrite --verify --random-distribution zoned:100",
                "zones do not go",
            ),
            ("--rw read --rwmixread 50", "--rwmixread"),
            ("--rw randrw --rwmixread 101", "--rwmixread"),
        ] {
            let refused = plan(arguments).expect_err(arguments);
            assert!(refused.contains(named), "{arguments}: {refused}");
        }
    }
}

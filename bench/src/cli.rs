//! The command line.

mod job;

use std::error::Error;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use self::job::WorkloadOptions;
pub(crate) use self::job::{JobOptions, Mode};
use crate::compare::Process;
use crate::cores::{Core, Cores};
use crate::job_file::JobFile;
use crate::limits::{Bare, Commands};
use crate::micro::Case;
use crate::workload::{self, Plan};

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
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareOptions),
    /// Continue processes when the standard input ends: started by `compare --pause`
    #[command(hide = true)]
    Continue {
        /// Their numbers, and when they were started
        #[arg(value_name = "PID:TICKS")]
        processes: Vec<Process>,
    },
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

const COMPARE_HELP: &str = "\
Each window connects anew, runs the workload for --ramp-time, then for --window, and disconnects.

Two targets that poll on one core take it away from each other even while only one is asked for
anything. With --pause they do not: while one is measured the processes of all others are stopped
(SIGSTOP). They go on when `compare` ends, in whatever way: a second process sees to it. Whoever
else has disks on these targets waits meanwhile. Targets of one process run together.

With --reactor-core the machine is a contender too, while all targets are stopped: what `limits`
measures, an entry of 64 bytes and a doorbell there, 16 bytes and a doorbell back, at the same
--iodepth. `--bare empty` does nothing else, as a null disk; `--bare copy` also copies --bs bytes in
the fastest of several ways, from or to as much memory as the smallest target has, 256 MiB at most.
Each row then tells how much it is of that, and the round trip of a cache line before its windows.";

const RUN_HELP: &str = "\
Sizes are digits with an optional k, m, g or t and an optional iB, in powers of 1024: 4k, 512MiB.

A JOBFILE is one of fio's. Its jobs run one after another, as with stonewall, and become one report
with a job for each. What is known of it: rw, rwmixread, rwmixwrite, bs, iodepth, numjobs, size,
thinktime (after as many commands as iodepth says), runtime, time_based, ramp_time, randseed,
random_distribution, cpus_allowed, filename (the target's socket; several are separated by `:`),
name and verify=meta, which is --verify.
Everything else is named on the standard error and ignored. Unlike --runtime, a runtime without
time_based ends when the size has been covered, if that is sooner.

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
and without prefetch; on one core, the write of an eventfd, an io_uring no-op, and the processor
time of a short sleep; and how long a thread that sleeps on an idle core takes to tell that an
eventfd has woken it.

With --rw only what belongs to one workload, in a second or two: its commands empty, and copying in
huge pages in every way.

Medians over short windows, with the least and the greatest. A streaming write passes the caches.
Huge pages are those of the pool, if it has enough, else transparent ones: the report tells which.";

#[derive(Debug, Args)]
pub(crate) struct LimitsOptions {
    /// The client's core and the server's: 0x5 or 0,2 [default: the first two of those allowed]
    #[arg(long, value_name = "MASK")]
    pub(crate) cores: Option<Cores>,
    /// Measure only what belongs to this workload
    #[arg(long, value_enum)]
    rw: Option<Mode>,
    /// Bytes of one command of that workload
    #[arg(long, value_name = "SIZE", default_value = "4k", requires = "rw",
          value_parser = bdev::size::parse_size)]
    bs: u64,
    /// Its commands in flight
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rw",
          value_parser = clap::value_parser!(u16).range(1..))]
    iodepth: u16,
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
    /// Print each case and the function that it measures, for callgrind, and measure nothing
    #[arg(long, conflicts_with_all = ["case", "commands"])]
    pub(crate) list: bool,
}

const REPORT_HELP: &str = "\
Results with one name are one series. Which charts they are in follows from their job options: those
that differ in iodepth, bs, numjobs or targets only are a line over that. Several results of one
name and workload are rounds: their median is drawn, with the lowest and the highest. Those with
another round_trip_ns than most of the series, by half as much again, are left out.

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
    /// fio job files: what they know of the options below; those that are given here count more
    #[arg(value_name = "JOBFILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    job: JobOptions,
    /// Measure the round trip of a cache line between the first queue's core and this one, that of
    /// the target's reactor, before and after the workload
    #[arg(long, value_name = "CORE")]
    reactor_core: Option<usize>,
    /// Print one JSON object, with fio's names
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    /// The targets' vfio-user sockets, or folders that hold them as `cntrl`; the first is the base
    #[arg(value_name = "SOCKET", required = true)]
    targets: Vec<PathBuf>,
    #[command(flatten)]
    workload: WorkloadOptions,
    /// How long a window is
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    window: Duration,
    /// How long the workload goes on in each window before anything is recorded [default: 0.1 with
    /// --pause, else none]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    ramp_time: Option<Duration>,
    /// Stop the processes of the other targets while one is measured
    #[arg(long)]
    pub(crate) pause: bool,
    /// Compare with what the machine allows between the first queue's core and this one, that of
    /// the targets' reactors: with bare commands, in windows of their own
    #[arg(long, value_name = "CORE", requires_all = ["pause", "bare"])]
    reactor_core: Option<usize>,
    /// What bare commands do
    #[arg(long, value_enum, requires = "reactor_core")]
    bare: Option<Bare>,
    /// How many windows each target gets
    #[arg(long, value_name = "N", default_value_t = 15,
          value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) windows: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl LimitsOptions {
    /// The commands of the only workload to measure, if it is named.
    pub(crate) fn commands(&self) -> Option<Commands> {
        let workload = self.rw?.shape(50);
        Some(Commands::of(workload, self.bs, self.iodepth))
    }
}

impl RunOptions {
    /// The core of the target's reactor, if it is told.
    pub(crate) fn reactor_core(&self) -> Option<Core> {
        self.reactor_core.map(Core)
    }

    /// What is to be done, one after another, as far as it can be said without having seen a
    /// target. `note` is told what a job file says in vain.
    pub(crate) fn plans(&self, mut note: impl FnMut(&str)) -> Result<Vec<Plan>, Box<dyn Error>> {
        if self.files.is_empty() {
            return Ok(vec![self.job.plan()?]);
        }
        let mut plans = Vec::new();
        for path in &self.files {
            let file = JobFile::read(path)?;
            file.notes.iter().for_each(|line| note(line));
            for (name, job) in file.jobs {
                let plan = self.job.clone().over(job).plan();
                plans.push(plan.map_err(|error| format!("{}: [{name}]: {error}", path.display()))?);
            }
        }
        Ok(plans)
    }
}

impl CompareOptions {
    /// The core of the targets' reactors, and what is exchanged with it, if that is asked for.
    pub(crate) fn bare(&self) -> Option<(Core, Bare)> {
        Some((Core(self.reactor_core?), self.bare?))
    }

    /// What is to be done in one window of each target.
    pub(crate) fn plans(&self) -> Result<Vec<Plan>, workload::Error> {
        if self.targets.len() < 2 && self.reactor_core.is_none() {
            return Err(workload::Error::Options(
                "one target is compared with nothing: name another one, or --reactor-core",
            ));
        }
        // Whoever was stopped comes back with cold caches.
        let settling = match self.pause {
            true => SETTLING_TIME,
            false => Duration::ZERO,
        };
        let plan = |target| {
            let plan = Plan {
                runtime: Some(self.window),
                ramp_time: self.ramp_time.unwrap_or(settling),
                ..self.workload.plan(slice::from_ref(target))?
            };
            plan.check()?;
            Ok(plan)
        };
        self.targets.iter().map(plan).collect()
    }
}

/// How long a target is not measured after it was continued, unless that is said.
const SETTLING_TIME: Duration = Duration::from_millis(100);

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
    use crate::workload::{Mix, Order, Shape};

    fn plans(arguments: &str) -> Result<Vec<Plan>, String> {
        let words = format!("bellwire-bench run {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace()).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Run(options) => options.plans(|_| ()).map_err(|e| e.to_string()),
            _ => Err("another command".to_owned()),
        }
    }

    fn plan(arguments: &str) -> Result<Plan, String> {
        let mut plans = plans(&format!("--target t.sock {arguments}"))?;
        plans.pop().ok_or_else(|| "no plan".to_owned())
    }

    /// The plans of a job file with such a content, and options.
    fn file_plans(content: &str, options: &str) -> Result<Vec<Plan>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jobs.fio");
        std::fs::write(&path, content).expect("a file");
        plans(&format!("{} {options}", path.display()))
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
        assert_eq!((plan.verify, plan.seed), (false, job::SEED));
        assert!(plan.name.is_none() && plan.time_based);
        assert_eq!(plan.timeout, Duration::from_secs(10));
    }

    #[test]
    fn every_option_arrives() {
        let plan = plan(
            "--rw randrw --rwmixread 70 --bs 128KiB --iodepth 64 --numjobs 3 --runtime 0.5 \
             --ramp-time 2 --thinktime 50 --size 1g --nsid 2 --cores [1] --verify --seed 9 --json \
             --timeout 2s",
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
        assert_eq!(plan.think_time, Duration::from_micros(50));
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
    fn a_job_file_makes_a_plan_of_each_job_with_fios_defaults() {
        let content = "[global]\nfilename=a.sock:b.sock\nrwmixread=70\n\
             random_distribution=zoned:60/10:40/90\nruntime=5\n\
             [one]\n[two]\nrw=randrw\ntime_based\nramp_time=1";
        let plans = file_plans(content, "").expect("plans");
        let names: Vec<_> = plans
            .iter()
            .filter_map(|plan| plan.name.as_deref())
            .collect();
        assert_eq!(names, ["one", "two"]);
        assert!(plans.iter().all(|plan| plan.targets.len() == 2));
        // What is inherited and does not go with a job's mode is as in fio: nothing.
        assert_eq!(plans[0].shape.name(), "read");
        assert_eq!(plans[0].distribution.to_string(), "random");
        assert_eq!(plans[1].shape.mix, Mix::Both { read_percent: 70 });
        assert_eq!(plans[1].distribution.to_string(), "zoned:60/10:40/90");
        assert_eq!((plans[0].time_based, plans[1].time_based), (false, true));
        assert!(
            plans
                .iter()
                .all(|plan| plan.runtime == Some(Duration::from_secs(5)))
        );
    }

    #[test]
    fn options_of_the_command_line_count_more_than_those_of_a_file() {
        let content = "[job]\nfilename=a.sock\nrw=randrw\nrwmixread=70\nbs=8k\nruntime=5\n\
             random_distribution=zoned:60/10:40/90\nthinktime=9\nnumjobs=3\nrandseed=1\n\
             cpus_allowed=0";
        let options = "--target t.sock --rw write --bs 16k --runtime 0.5 --numjobs 2 --seed 9 \
             --cores [1] --name mine --verify --iodepth 7 --size 1m --timeout 3 --ramp-time 2 \
             --thinktime 7";
        let plans = file_plans(content, options).expect("plans");
        let mut expected = plan(options).expect("a plan");
        expected.targets.truncate(1);
        assert_eq!(format!("{plans:?}"), format!("{:?}", [expected]));
        assert_eq!(
            file_plans(content, "").expect("plans")[0].command_bytes,
            8192
        );
    }

    #[test]
    fn what_a_job_cannot_do_is_refused_with_its_name() {
        for (content, named) in [
            ("[a]\nrw=read", "jobs.fio: [a]: --target"),
            (
                "[a]\nfilename=t\n[b]\nfilename=t\ntime_based",
                "jobs.fio: [b]: time_based",
            ),
            ("[a]\nfilename=t\nramp_time=1", "--ramp-time"),
            ("[a]\nbs=x", "jobs.fio:2: bs=x"),
            ("", "no job"),
        ] {
            let refused = file_plans(content, "").map(|_| ()).expect_err(content);
            assert!(refused.contains(named), "{content}: {refused}");
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

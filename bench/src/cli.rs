//! The command line.

use clap::{Parser, Subcommand};

use crate::compare::{self, CompareOptions, Process};
use crate::hold::HoldOptions;
use crate::identify::IdentifyOptions;
use crate::limits::{self, LimitsOptions};
use crate::micro::MicroOptions;
use crate::page::{self, ReportOptions};
use crate::run::{self, RunOptions};

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
    #[command(after_help = compare::HELP)]
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
    #[command(after_help = limits::HELP)]
    Limits(LimitsOptions),
    /// Measure what a command costs in a poll group of bellwire's, with no other core involved
    Micro(MicroOptions),
    /// Draw what `run`, `compare`, `limits` and fio wrote as JSON: a page and SVG files
    #[command(after_help = page::HELP)]
    Report(ReportOptions),
    /// Run a workload on a namespace and report how fast it went
    #[command(after_help = run::HELP)]
    Run(RunOptions),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;
    use crate::job_options;
    use crate::workload::{Mix, Order, Plan, Shape};

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
        assert_eq!((plan.verify, plan.seed), (false, job_options::SEED));
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

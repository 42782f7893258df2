//! What `compare` is asked for.

use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use clap::Args;

use crate::cores::Core;
use crate::job_options::{WorkloadOptions, seconds};
use crate::limits::Bare;
use crate::workload::{Error, Plan};

/// What is to be known beside the options.
pub(crate) const HELP: &str = "\
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

/// How long a target is not measured after it was continued, unless that is said.
const SETTLING_TIME: Duration = Duration::from_millis(100);

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

impl CompareOptions {
    /// The core of the targets' reactors, and what is exchanged with it, if that is asked for.
    pub(crate) fn bare(&self) -> Option<(Core, Bare)> {
        Some((Core(self.reactor_core?), self.bare?))
    }

    /// What is to be done in one window of each target.
    pub(crate) fn plans(&self) -> Result<Vec<Plan>, Error> {
        if self.targets.len() < 2 && self.reactor_core.is_none() {
            return Err(Error::Options(
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

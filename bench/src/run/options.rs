//! What `run` is asked for, by options and by job files.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use crate::cores::Core;
use crate::job_file::JobFile;
use crate::job_options::JobOptions;
use crate::workload::Plan;

/// What is to be known beside the options.
pub(crate) const HELP: &str = "\
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

//! `bellwire-bench run`: carries out one plan after another, and has it reported.

use std::error::Error;
use std::slice;

use crate::cli::RunOptions;
use crate::cores::Core;
use crate::limits::{self, Pair};
use crate::progress::Progress;
use crate::report;
use crate::workload::{self, Outcome, Plan};

/// A plan that was carried out, or begun at least.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) plan: Plan,
    pub(crate) outcome: Outcome,
    pub(crate) distance: Option<Distance>,
}

/// How far the first client's core and the reactor's were apart around a workload: the round trip
/// of a cache line. Virtual machines get their cores moved while they run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    pub(crate) client: Core,
    pub(crate) reactor: Core,
    pub(crate) before_ns: f64,
    pub(crate) after_ns: f64,
}

impl Distance {
    pub(crate) fn mean_ns(&self) -> f64 {
        (self.before_ns + self.after_ns) / 2.0
    }
}

/// Runs the workloads that are asked for and prints their report. False if something failed on the
/// way, or cannot be printed.
pub(crate) fn run(options: &RunOptions) -> Result<bool, Box<dyn Error>> {
    let plan = options.plan()?;
    let finished = finish(plan, options.reactor_core())?;
    for failure in &finished.outcome.failures {
        eprintln!("bellwire-bench: {failure}");
    }
    let printed = match options.json {
        true => report::print_json(slice::from_ref(&finished)),
        false => report::print_text(&finished),
    };
    Ok(finished.outcome.failures.is_empty() && printed)
}

/// Carries out a plan, and measures around it how far `reactor` is.
fn finish(plan: Plan, reactor: Option<Core>) -> Result<Finished, Box<dyn Error>> {
    let client = plan.cores()?.of_job(0);
    let pair = reactor
        .map(|reactor| Pair::of(client, reactor))
        .transpose()?;
    let before = pair.map(limits::round_trip).transpose()?;
    let mut progress = Progress::on_terminal();
    let outcome = workload::run(&plan, |elapsed, done| progress.show(&plan, elapsed, done));
    progress.clear();
    let outcome = outcome?;
    let after = pair.map(limits::round_trip).transpose()?;
    let distance = match (reactor, before, after) {
        (Some(reactor), Some(before_ns), Some(after_ns)) => Some(Distance {
            client,
            reactor,
            before_ns,
            after_ns,
        }),
        _ => None,
    };
    Ok(Finished {
        plan,
        outcome,
        distance,
    })
}

#[cfg(test)]
impl Finished {
    /// A plan that was begun, and nothing has happened.
    pub(crate) fn example() -> Finished {
        let (plan, outcome) = workload::example();
        Finished {
            plan,
            outcome,
            distance: None,
        }
    }
}

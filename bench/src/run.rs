//! `bellwire-bench run`: carries out one plan after another, and has it reported.

mod options;

use std::error::Error;
use std::fmt::Display;

pub(crate) use self::options::{HELP, RunOptions};
use crate::cores::Core;
use crate::limits::{self, Pair};
use crate::progress::Progress;
use crate::report::{self, Distance, Finished};
use crate::workload::{self, Plan};

/// Runs the workloads that are asked for, each after the one before it, and prints their report.
/// One that fails is the last: what it has come upon is not to be written over. False if one has
/// failed, or the report cannot be printed.
pub(crate) fn run(options: &RunOptions) -> Result<bool, Box<dyn Error>> {
    let plans = options.plans(|note| eprintln!("bellwire-bench: {note}"))?;
    let mut finished = Vec::new();
    let mut fine = true;
    let mut unusable = None;
    for plan in plans {
        let name = plan.name.clone();
        match finish(plan, options.reactor_core()) {
            Ok(job) => {
                fine &= tell(&job, options.json);
                finished.push(job);
            }
            Err(error) => unusable = Some(of(name.as_ref(), &error).into()),
        }
        if !fine || unusable.is_some() {
            break;
        }
    }
    if options.json && !finished.is_empty() {
        fine &= report::print_json(&finished);
    }
    unusable.map_or(Ok(fine), Err)
}

/// Tells of a job at once: its report, unless that is to be part of an object, and its failures.
/// False if there are failures, or it cannot be printed.
fn tell(job: &Finished, json: bool) -> bool {
    let printed = json || report::print_text(job);
    for failure in &job.outcome.failures {
        eprintln!("bellwire-bench: {}", of(job.plan.name.as_ref(), failure));
    }
    printed && job.outcome.failures.is_empty()
}

/// What is said of a job, with its name.
fn of(name: Option<&String>, said: &impl Display) -> String {
    match name {
        Some(name) => format!("{name}: {said}"),
        None => said.to_string(),
    }
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

//! Several targets under one workload, in short windows that take turns.
//!
//! Machines are faster in one minute than in the next, and cores are taken away for moments. So no
//! target is measured in one go: each round gives every target a window, in random order, and a
//! window in which a job or a busy thread of the target lost its core, to another thread or to a
//! hypervisor, is thrown away. The target's threads are looked at where they can be seen: not those
//! of another PID namespace.
//!
//! ```text
//! compare ──► pause ──► process: stops the targets that are not measured
//!    │          └─────► guard: has them go on whatever becomes of us
//!    └──────► statistics
//! ```

mod error;
pub(crate) mod guard;
mod pause;
mod process;
pub(crate) mod statistics;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use self::error::Error;
use self::guard::Guard;
use self::pause::{Pause, Peer};
pub(crate) use self::process::Process;
use self::statistics::{median, quantile, ratio_interval};
use crate::cli::CompareOptions;
use crate::report::Count;
use crate::workload::{self, Outcome, Plan, Rng};

/// Which share of a window a job, or a busy thread of the target, may wait for its core: threads of
/// the kernel run for a moment on any core.
const OFF_CORE_MAX: f64 = 0.02;

/// What came of one target's windows.
#[derive(Debug, Default)]
struct Target {
    iops: Vec<f64>,
    p50_ns: Vec<f64>,
    p99_ns: Vec<f64>,
    thrown_away: u32,
}

impl Target {
    fn add(&mut self, outcome: &Outcome) {
        let all = outcome.tally.all();
        let off_core = outcome.off_core.as_secs_f64() / outcome.elapsed.as_secs_f64();
        let lost = outcome.lost;
        if off_core.is_nan() || off_core.max(lost.waited) > OFF_CORE_MAX || lost.stolen {
            self.thrown_away += 1;
            return;
        }
        let quantile = |share| all.value_at_quantile(share) as f64;
        self.iops
            .push(all.len() as f64 / outcome.elapsed.as_secs_f64());
        self.p50_ns.push(quantile(0.5));
        self.p99_ns.push(quantile(0.99));
    }
}

/// What is said of one target. Of the ratios and their intervals the first target is the base.
#[derive(Debug, Serialize)]
struct Row<'a> {
    target: &'a str,
    windows: usize,
    thrown_away: u32,
    iops: f64,
    iops_min: f64,
    iops_max: f64,
    /// Between the first and the third quartile.
    iops_iqr: f64,
    p50_ns: f64,
    p99_ns: f64,
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
}

/// Gives each target its windows and prints what came of them. False if a command failed, or a
/// target has no window left.
pub(crate) fn run(options: &CompareOptions) -> Result<bool, Error> {
    let plans = options.plans()?;
    let pause = options.pause.then(|| pause(&plans)).transpose()?;
    let mut targets: Vec<Target> = plans.iter().map(|_| Target::default()).collect();
    let mut rng = Rng::new(plans.first().map_or(0, |plan| plan.seed));
    for _ in 0..options.windows {
        for index in shuffled(plans.len(), &mut rng) {
            // A process that has stopped takes connections and answers nothing.
            pause.iter().try_for_each(|pause| pause.all_but(index))?;
            let outcome = workload::run(&plans[index], |_, _| ())?;
            if let Some(failure) = outcome.failures.first() {
                let target = plans[index].target_names();
                let _ = writeln!(io::stderr(), "bellwire-bench: {target}: {failure}");
                return Ok(false);
            }
            targets[index].add(&outcome);
        }
    }
    drop(pause);
    let names: Vec<String> = plans.iter().map(Plan::target_names).collect();
    let rows = rows(&names, &targets);
    let text = match options.json {
        true => serde_json::json!({ "targets": rows }).to_string() + "\n",
        false => table(&rows),
    };
    let printed = io::stdout().lock().write_all(text.as_bytes()).is_ok();
    Ok(printed && rows.iter().all(|row| row.windows > 0))
}

/// What can stop the processes behind the targets of `plans`, each of which was tried beforehand.
fn pause(plans: &[Plan]) -> Result<Pause, Error> {
    let mut peers: Vec<Peer> = Vec::new();
    for plan in plans {
        let found = workload::probe(plan)?;
        peers.extend(plan.targets.iter().cloned().zip(found));
    }
    let guard = |processes: &[Process]| Guard::start(Guard::command(processes));
    Ok(Pause::new(peers, guard)?)
}

/// The numbers below `count` in random order.
fn shuffled(count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    order
}

fn rows<'a>(names: &'a [String], targets: &[Target]) -> Vec<Row<'a>> {
    let base = targets.first().map_or(&[][..], |first| &first.iops);
    let row = |(name, target): (&'a String, &Target)| {
        let iops = &target.iops;
        let comparable = !iops.is_empty() && !base.is_empty();
        let (ratio_low, ratio_high) = match comparable {
            true => ratio_interval(iops, base),
            false => (f64::NAN, f64::NAN),
        };
        Row {
            target: name,
            windows: iops.len(),
            thrown_away: target.thrown_away,
            iops: median(iops),
            iops_min: quantile(iops, 0.0),
            iops_max: quantile(iops, 1.0),
            iops_iqr: quantile(iops, 0.75) - quantile(iops, 0.25),
            p50_ns: median(&target.p50_ns),
            p99_ns: median(&target.p99_ns),
            ratio: median(iops) / median(base),
            ratio_low,
            ratio_high,
        }
    };
    names.iter().zip(targets).map(row).collect()
}

fn table(rows: &[Row<'_>]) -> String {
    let mut text = format!(
        "{:>9}   {:<18} {:>8}  {:>8}  {:<22}  {:<7}  target\n",
        "iops", "(low - high)", "p50 ns", "p99 ns", "ratio (95 %)", "windows"
    );
    for row in rows {
        let spread = format!("({} - {})", Count(row.iops_min), Count(row.iops_max));
        let ratio = format!(
            "{:.3} ({:.3} - {:.3})",
            row.ratio, row.ratio_low, row.ratio_high
        );
        let lost = match row.thrown_away {
            0 => String::new(),
            lost => format!(" -{lost}"),
        };
        let _ = writeln!(
            text,
            "{:>9}   {spread:<18} {:>8.0}  {:>8.0}  {ratio:<22}  {:<7}  {}",
            Count(row.iops).to_string(),
            row.p50_ns,
            row.p99_ns,
            format!("{}{lost}", row.windows),
            row.target,
        );
    }
    if rows.iter().any(|row| row.windows == 0) {
        text.push_str(
            "a target has no window in which its jobs and its threads kept their cores\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_time::Lost;

    #[test]
    fn every_order_has_each_target_once_and_orders_differ() {
        let mut rng = Rng::new(7);
        let orders: Vec<_> = (0..50).map(|_| shuffled(4, &mut rng)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
        assert!(orders.iter().any(|order| *order != orders[0]));
        assert!((0..4).all(|first| orders.iter().any(|order| order[0] == first)));
    }

    #[test]
    fn a_window_without_its_core_does_not_count() {
        let (_, mut outcome) = workload::example();
        outcome.elapsed = std::time::Duration::from_secs(2);
        for _ in 0..1000 {
            outcome.tally.record(workload::Action::Read, 100);
            outcome.tally.record(workload::Action::Write, 300);
        }
        outcome.tally.settle();
        let mut target = Target::default();
        target.add(&outcome);
        outcome.off_core = outcome.elapsed / 40;
        target.add(&outcome);
        outcome.off_core = outcome.elapsed / 100;
        target.add(&outcome);
        assert_eq!((target.iops.len(), target.thrown_away), (2, 1));
        for (waited, stolen) in [(0.03, false), (0.0, true)] {
            outcome.lost = Lost { waited, stolen };
            target.add(&outcome);
        }
        outcome.lost = Lost {
            waited: 0.01,
            stolen: false,
        };
        target.add(&outcome);
        assert_eq!((target.iops.len(), target.thrown_away), (3, 3));
        assert_eq!(target.iops[0], 1000.0);
        assert_eq!((target.p50_ns[0], target.p99_ns[0]), (100.0, 300.0));
    }

    #[test]
    fn the_first_target_is_the_base_of_the_ratios() {
        let target = |iops: f64| Target {
            iops: vec![iops; 5],
            p50_ns: vec![1.0; 5],
            p99_ns: vec![2.0; 5],
            thrown_away: 0,
        };
        let names = ["a", "b", "c"].map(str::to_owned);
        let targets = [target(1e6), target(2e6), Target::default()];
        let rows = rows(&names, &targets);
        assert_eq!((rows[0].ratio, rows[1].ratio), (1.0, 2.0));
        assert_eq!((rows[1].ratio_low, rows[1].ratio_high), (2.0, 2.0));
        let text = table(&rows);
        assert!(text.contains("2.000 (2.000 - 2.000)"), "{text}");
        assert!(text.contains("no window"), "{text}");
    }
}

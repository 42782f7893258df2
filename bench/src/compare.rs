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
//!    └──────► row ──► statistics: what is said of them
//! ```
//!
//! What the machine allows (`limits`) can be one more contender: bare commands between the core of
//! the job and that of the targets' reactors, which are all stopped meanwhile.

mod error;
pub(crate) mod guard;
mod pause;
mod process;
mod row;
pub(crate) mod statistics;

use std::io::{self, Write as _};

use self::error::Error;
use self::guard::Guard;
use self::pause::{Pause, Peer};
pub(crate) use self::process::Process;
use self::row::Comparison;
use crate::cli::CompareOptions;
use crate::limits::{self, Bare, Commands, Machine, Pair};
use crate::workload::{self, Distribution, Outcome, Plan, Rng};

/// Which share of a window a job, or a busy thread of the target, may wait for its core: threads of
/// the kernel run for a moment on any core.
const OFF_CORE_MAX: f64 = 0.02;

/// A target, or the machine, and what came of its windows.
#[derive(Debug)]
struct Contender {
    name: String,
    windows: Vec<Window>,
    thrown_away: u32,
}

/// A window that counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    iops: f64,
    p50_ns: Option<f64>,
    p99_ns: Option<f64>,
    /// Of a cache line, just before.
    round_trip_ns: Option<f64>,
}

/// What is compared.
struct Rounds {
    plans: Vec<Plan>,
    pause: Option<Pause>,
    machine: Option<Machine>,
    /// Those of the plans, then the machine.
    contenders: Vec<Contender>,
}

/// Gives each target its windows and prints what came of them. False if a command failed, or a
/// target has no window left.
pub(crate) fn run(options: &CompareOptions) -> Result<bool, Error> {
    let mut rounds = Rounds::prepare(options)?;
    let mut rng = Rng::new(rounds.plans.first().map_or(0, |plan| plan.seed));
    for _ in 0..options.windows {
        for index in shuffled(rounds.contenders.len(), &mut rng) {
            if !rounds.window(index)? {
                return Ok(false);
            }
        }
    }
    // The targets go on before anything else is done.
    drop(rounds.pause);
    let (targets, machine) = rounds.contenders.split_at(rounds.plans.len());
    let comparison = Comparison::of(targets, machine.first());
    let text = match options.json {
        true => serde_json::json!(comparison).to_string() + "\n",
        false => comparison.table(),
    };
    let printed = io::stdout().lock().write_all(text.as_bytes()).is_ok();
    Ok(printed && comparison.is_complete())
}

impl Rounds {
    /// Tries each target, and leaves all stopped if they are to be.
    fn prepare(options: &CompareOptions) -> Result<Rounds, Error> {
        let plans = options.plans()?;
        let mut contenders: Vec<Contender> = plans
            .iter()
            .map(|plan| Contender::new(plan.target_names()))
            .collect();
        let (mut peers, mut bytes): (Vec<Peer>, _) = (Vec::new(), u64::MAX);
        for plan in plans.iter().filter(|_| options.pause) {
            for (path, probed) in plan.targets.iter().zip(workload::probe(plan)?) {
                peers.push((path.clone(), probed.process));
                bytes = bytes.min(probed.bytes);
            }
        }
        let guard = |processes: &[Process]| Guard::start(Guard::command(processes));
        let pause = options.pause.then(|| Pause::new(peers, guard));
        let pause = pause.transpose()?;
        let machine = match (options.bare(), &pause, plans.first()) {
            (Some((reactor, bare)), Some(pause), Some(plan)) => {
                let pair = Pair::of(
                    plan.cores().map_err(workload::Error::Cores)?.of_job(0),
                    reactor,
                )?;
                pause.all()?;
                Some(machine(plan, pair, bare, bytes)?)
            }
            _ => None,
        };
        let name = |machine: &Machine| format!("the machine ({})", machine.commands());
        contenders.extend(machine.iter().map(name).map(Contender::new));
        Ok(Rounds {
            plans,
            pause,
            machine,
            contenders,
        })
    }

    /// Gives one contender a window. False if that fails.
    fn window(&mut self, index: usize) -> Result<bool, Error> {
        let round_trip_ns = match (&self.pause, &self.machine) {
            (Some(pause), Some(machine)) => {
                pause.all()?;
                Some(machine.round_trip()?)
            }
            _ => None,
        };
        let contender = &mut self.contenders[index];
        let Some(plan) = self.plans.get(index) else {
            let lengths = self
                .plans
                .first()
                .and_then(|plan| Some((plan.ramp_time, plan.runtime?)));
            if let (Some(machine), Some((ramp, length))) = (&self.machine, lengths) {
                contender.add_bare(machine.window(ramp, length)?, round_trip_ns);
            }
            return Ok(true);
        };
        // A process that has stopped takes connections and answers nothing.
        self.pause
            .iter()
            .try_for_each(|pause| pause.all_but(index))?;
        let outcome = workload::run(plan, |_, _| ())?;
        if let Some(failure) = outcome.failures.first() {
            let _ = writeln!(
                io::stderr(),
                "bellwire-bench: {}: {failure}",
                contender.name
            );
            return Ok(false);
        }
        contender.add(&outcome, round_trip_ns);
        Ok(true)
    }
}

/// What the machine does with commands like those of a plan.
fn machine(plan: &Plan, pair: Pair, bare: Bare, bytes: u64) -> Result<Machine, Error> {
    let refused = |why| Err(workload::Error::Options(why).into());
    if plan.queues != 1 {
        return refused("--reactor-core compares with one queue of the machine: --numjobs 1");
    }
    if bare == Bare::Copy && plan.distribution != Distribution::Random {
        return refused("--bare copy has no zones: its places are in order, or all as likely");
    }
    let commands = Commands::of(plan.shape, plan.command_bytes, plan.depth);
    Ok(Machine::new(pair, bare, commands, bytes)?)
}

impl Contender {
    fn new(name: String) -> Contender {
        Contender {
            name,
            windows: Vec::new(),
            thrown_away: 0,
        }
    }

    fn iops(&self) -> Vec<f64> {
        self.windows.iter().map(|window| window.iops).collect()
    }

    fn add(&mut self, outcome: &Outcome, round_trip_ns: Option<f64>) {
        let all = outcome.tally.all();
        let off_core = outcome.off_core.as_secs_f64() / outcome.elapsed.as_secs_f64();
        let lost = outcome.lost;
        if off_core.is_nan() || off_core.max(lost.waited) > OFF_CORE_MAX || lost.stolen {
            self.thrown_away += 1;
            return;
        }
        let quantile = |share| Some(all.value_at_quantile(share) as f64);
        self.windows.push(Window {
            iops: all.len() as f64 / outcome.elapsed.as_secs_f64(),
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            round_trip_ns,
        });
    }

    fn add_bare(&mut self, window: limits::Window, round_trip_ns: Option<f64>) {
        if window.lost.waited > OFF_CORE_MAX || window.lost.stolen {
            self.thrown_away += 1;
            return;
        }
        self.windows.push(Window {
            iops: window.rate,
            p50_ns: None,
            p99_ns: None,
            round_trip_ns,
        });
    }
}

/// The numbers below `count` in random order.
fn shuffled(count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_time::Lost;
    use crate::cores::Core;

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
        let mut target = Contender::new(String::new());
        target.add(&outcome, Some(9.0));
        outcome.off_core = outcome.elapsed / 40;
        target.add(&outcome, Some(9.0));
        outcome.off_core = outcome.elapsed / 100;
        target.add(&outcome, Some(9.0));
        assert_eq!((target.windows.len(), target.thrown_away), (2, 1));
        for (waited, stolen) in [(0.03, false), (0.0, true)] {
            outcome.lost = Lost { waited, stolen };
            target.add(&outcome, Some(9.0));
        }
        outcome.lost = Lost {
            waited: 0.01,
            stolen: false,
        };
        target.add(&outcome, Some(9.0));
        assert_eq!((target.windows.len(), target.thrown_away), (3, 3));
        assert_eq!(target.windows[0].iops, 1000.0);
        let Window { p50_ns, p99_ns, .. } = target.windows[0];
        assert_eq!((p50_ns, p99_ns), (Some(100.0), Some(300.0)));
        assert_eq!(target.windows[0].round_trip_ns, Some(9.0));
    }

    #[test]
    fn a_window_of_the_machine_without_its_cores_does_not_count() {
        let mut machine = Contender::new(String::new());
        for (waited, stolen) in [(0.03, false), (0.01, false), (0.0, true)] {
            let lost = Lost { waited, stolen };
            machine.add_bare(limits::Window { rate: 5.0, lost }, Some(9.0));
        }
        assert_eq!((machine.iops(), machine.thrown_away), (vec![5.0], 2));
        assert_eq!(machine.windows[0].round_trip_ns, Some(9.0));
    }

    #[test]
    fn a_workload_without_a_bare_shape_is_refused() {
        let pair = Pair::of(Core(0), Core(1)).expect("two cores");
        let plan = workload::example().0;
        let refused = |plan: &Plan| {
            let machine = machine(plan, pair, Bare::Copy, 1 << 20).map(|_| ());
            machine.expect_err("refused").to_string()
        };
        let two = Plan {
            queues: 2,
            ..plan.clone()
        };
        assert!(refused(&two).contains("--numjobs 1"));
        let zoned = Plan {
            distribution: "zoned:60/10:40/90".parse().expect("zones"),
            ..plan
        };
        assert!(refused(&zoned).contains("zones"));
    }
}

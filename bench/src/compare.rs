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
//!    ├──────► contender: which windows count ──► distance: how far apart the cores were
//!    └──────► row ──► statistics: what is said of them
//! ```
//!
//! What the machine allows (`limits`) can be one more contender: bare commands between the core of
//! the job and that of the targets' reactors, which are all stopped meanwhile. The round trip of a
//! cache line between these cores is then measured around each window: a hypervisor moves them,
//! and only windows with cores as far apart as in most are compared.

mod contender;
pub(crate) mod distance;
mod error;
pub(crate) mod guard;
mod options;
mod pause;
mod process;
mod row;
pub(crate) mod statistics;

use std::io::{self, Write as _};

use self::contender::Contender;
use self::distance::Distance;
use self::error::Error;
use self::guard::Guard;
pub(crate) use self::options::{CompareOptions, HELP};
use self::pause::{Pause, Peer};
pub(crate) use self::process::Process;
use self::row::Comparison;
use crate::limits::{Bare, Commands, Machine, Pair};
use crate::workload::{self, Distribution, Plan, Rng};

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
    contender::keep_those_of_one_distance(&mut rounds.contenders);
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
        let before = self.round_trip()?;
        let Some(plan) = self.plans.get(index) else {
            let lengths = self
                .plans
                .first()
                .and_then(|plan| Some((plan.ramp_time, plan.runtime?)));
            if let (Some(machine), Some((ramp, length))) = (&self.machine, lengths) {
                let window = machine.window(ramp, length)?;
                let distance = Distance::of(before, self.round_trip()?);
                self.contenders[index].add_bare(window, distance);
            }
            return Ok(true);
        };
        // A process that has stopped takes connections and answers nothing.
        self.pause
            .iter()
            .try_for_each(|pause| pause.all_but(index))?;
        let outcome = workload::run(plan, |_, _| ())?;
        let distance = Distance::of(before, self.round_trip()?);
        let contender = &mut self.contenders[index];
        if let Some(failure) = outcome.failures.first() {
            let _ = writeln!(
                io::stderr(),
                "bellwire-bench: {}: {failure}",
                contender.name
            );
            return Ok(false);
        }
        contender.add(&outcome, distance);
        Ok(true)
    }

    /// Of a cache line between the cores in use, if that is measured: all targets are stopped then.
    fn round_trip(&self) -> Result<Option<f64>, Error> {
        let (Some(pause), Some(machine)) = (&self.pause, &self.machine) else {
            return Ok(None);
        };
        pause.all()?;
        Ok(Some(machine.round_trip()?))
    }
}

/// What the machine does with commands like those of a plan.
fn machine(plan: &Plan, pair: Pair, bare: Bare, bytes: u64) -> Result<Machine, Error> {
    let refused = |why| Err(workload::Error::Options(why).into());
    if plan.queues != 1 {
        return refused("--reactor-core compares with one queue of the machine: --numjobs 1");
    }
    if !plan.think_time.is_zero() {
        return refused("the machine does not think: --bare goes without --thinktime");
    }
    if bare == Bare::Copy && plan.distribution != Distribution::Random {
        return refused("--bare copy has no zones: its places are in order, or all as likely");
    }
    let commands = Commands::of(plan.shape, plan.command_bytes, plan.depth);
    Ok(Machine::new(pair, bare, commands, bytes)?)
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
    use std::time::Duration;

    use super::*;
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
        let thinking = Plan {
            think_time: Duration::from_micros(1),
            ..plan.clone()
        };
        assert!(refused(&thinking).contains("--thinktime"));
        let zoned = Plan {
            distribution: "zoned:60/10:40/90".parse().expect("zones"),
            ..plan
        };
        assert!(refused(&zoned).contains("zones"));
    }
}

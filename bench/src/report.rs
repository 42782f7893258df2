//! What a run came to: as text for people, as JSON with fio's names for tools.

mod finished;
mod fio;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

pub(crate) use self::finished::{Distance, Finished};
use crate::workload::{Direction, Outcome, Plan, Setting};

/// The percentiles that fio reports unless told otherwise, and one more: fast targets complete
/// enough commands for it to have a meaning.
const PERCENTILES: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99, 99.999,
];

/// The percentiles of the text.
const TEXT_PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

/// A number with three digits and a letter, in powers of 1000.
pub(crate) struct Count(pub(crate) f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0;
        let mut letter = "";
        for larger in ["k", "M", "G", "T"] {
            if value < 999.5 {
                break;
            }
            value /= 1000.0;
            letter = larger;
        }
        let digits = match value {
            _ if letter.is_empty() || value >= 99.95 => 0,
            _ if value >= 9.995 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$}{letter}")
    }
}

/// Prints the JSON object. False if it cannot be printed.
pub(crate) fn print_json(jobs: &[Finished]) -> bool {
    let object = fio::Report::new(jobs);
    let mut out = io::stdout().lock();
    let written = serde_json::to_writer_pretty(&mut out, &object).map_err(io::Error::from);
    written.and_then(|()| writeln!(out)).is_ok()
}

/// Prints the text. False if it cannot be printed.
pub(crate) fn print_text(job: &Finished) -> bool {
    let text = text(job);
    io::stdout().lock().write_all(text.as_bytes()).is_ok()
}

fn text(job: &Finished) -> String {
    let (plan, outcome) = (&job.plan, &job.outcome);
    let mut lines = vec![format!(
        "{}{} of {} bytes, depth {}, {}{}{}, {:.2} s",
        plan.name
            .as_ref()
            .map_or(String::new(), |name| format!("{name}: ")),
        plan.shape.name(),
        plan.command_bytes,
        plan.depth,
        many(plan.queues.into(), "queue"),
        if plan.targets.len() == 1 {
            ""
        } else {
            " of each target"
        },
        if plan.think_time.is_zero() {
            String::new()
        } else {
            format!(", {} us to think", plan.think_time.as_micros())
        },
        outcome.elapsed.as_secs_f64(),
    )];
    for (target, setting) in outcome.settings.iter().enumerate() {
        lines.push(target_line(plan, outcome, target, setting));
    }
    lines.extend(job.distance.as_ref().map(distance_line));
    for (name, direction) in [
        ("read", &outcome.tally.read),
        ("write", &outcome.tally.write),
    ] {
        if direction.commands() > 0 {
            lines.extend(direction_lines(name, direction, plan, outcome.elapsed));
        }
    }
    if plan.verify {
        let blocks = outcome.blocks_verified;
        lines.push(format!("  verify: {blocks} blocks hold what they must"));
    }
    lines.join("\n") + "\n"
}

/// What is used of a target, and by what.
fn target_line(plan: &Plan, outcome: &Outcome, target: usize, setting: &Setting) -> String {
    let ours = outcome
        .placements
        .iter()
        .filter(|place| place.target == target);
    let cores: Vec<usize> = ours.map(|place| place.core.0).collect();
    let doorbells = match setting.doorbells_mapped {
        true => "",
        false => ", doorbells cannot be mapped: each is a message",
    };
    format!(
        "  {}: namespace {} ({}B in blocks of {}), {} on {} {}{doorbells}",
        plan.targets[target].display(),
        setting.nsid.0,
        Count(setting.extent.bytes() as f64),
        setting.block.bytes(),
        many(cores.len(), "queue"),
        if cores.len() == 1 { "core" } else { "cores" },
        join(cores.into_iter()),
    )
}

fn distance_line(distance: &Distance) -> String {
    format!(
        "  cache line from core {} to core {} and back: {:.0} ns before, {:.0} ns after",
        distance.client.0, distance.reactor.0, distance.before_ns, distance.after_ns
    )
}

/// One thing, or several.
fn many(count: usize, name: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {name}{plural}")
}

/// Numbers, separated by commas.
fn join<N: ToString>(numbers: impl Iterator<Item = N>) -> String {
    numbers
        .map(|number| number.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

fn direction_lines(
    name: &str,
    direction: &Direction,
    plan: &Plan,
    elapsed: Duration,
) -> [String; 3] {
    let rate = per_second(direction.commands(), elapsed);
    let latencies = direction.latencies();
    let percentiles = TEXT_PERCENTILES.map(|percent| {
        let latency = latencies.value_at_quantile(percent / 100.0);
        format!("{percent}%={latency}")
    });
    [
        format!(
            "  {name}: {} IOPS, {}B/s, {} commands",
            Count(rate),
            Count(rate * plan.command_bytes as f64),
            direction.commands()
        ),
        format!(
            "    latency (ns): min={} mean={:.0} stddev={:.0} max={}",
            latencies.min(),
            latencies.mean(),
            latencies.stdev(),
            latencies.max()
        ),
        format!("    percentiles (ns): {}", percentiles.join(" ")),
    ]
}

/// A rate; none in no time.
fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        0.0
    } else {
        count as f64 / elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::Core;
    use crate::workload::{Action, Placement};

    #[test]
    fn the_text_tells_rate_latency_and_what_was_verified() {
        let mut job = Finished::example();
        let outcome = &mut job.outcome;
        for _ in 0..3_620_000 {
            outcome.tally.record(Action::Read, 1000);
        }
        outcome.tally.settle();
        outcome.elapsed = Duration::from_secs(2);
        let told = text(&job);
        assert!(
            told.starts_with("randread of 4096 bytes, depth 4, 1 queue, 2.00 s\n"),
            "{told}"
        );
        assert!(
            told.contains("disk.sock: namespace 1 (4.19MB in blocks of 512), 1 queue on core 0\n"),
            "{told}"
        );
        assert!(
            told.contains("read: 1.81M IOPS, 7.41GB/s, 3620000 commands"),
            "{told}"
        );
        assert!(
            told.contains("min=1000 mean=1000 stddev=0 max=1000"),
            "{told}"
        );
        assert!(told.contains("99.999%=1000"), "{told}");
        assert!(
            !told.contains("write") && !told.contains("verify"),
            "{told}"
        );
        job.plan.think_time = Duration::from_micros(50);
        assert!(text(&job).contains("1 queue, 50 us to think, 2.00 s\n"));
        job.plan.verify = true;
        job.outcome.blocks_verified = 9;
        assert!(text(&job).contains("verify: 9 blocks"));
    }

    #[test]
    fn the_text_tells_how_far_the_cores_were_apart_and_where_several_targets_were() {
        let mut job = Finished::example();
        assert!(!text(&job).contains("cache line"));
        job.distance = Some(Distance {
            client: Core(3),
            reactor: Core(1),
            before_ns: 118.4,
            after_ns: 545.0,
        });
        let told = text(&job);
        let line = "cache line from core 3 to core 1 and back: 118 ns before, 545 ns after";
        assert!(told.contains(line), "{told}");
        job.plan.name = Some("far".to_owned());
        assert!(text(&job).starts_with("far: randread of 4096 bytes"));
        job.plan.targets.push("other.sock".into());
        let other = job.outcome.settings[0];
        job.outcome.settings.push(other);
        let place = job.outcome.placements[0];
        job.outcome.placements.extend([7, 2].map(|core| Placement {
            target: 1,
            core: Core(core),
            ..place
        }));
        let told = text(&job);
        assert!(told.contains("1 queue of each target"), "{told}");
        assert!(told.contains("  other.sock: namespace 1 ") && told.contains("on cores 7,2"));
    }

    #[test]
    fn counts_have_three_digits_at_any_size() {
        for (value, shown) in [
            (0.0, "0"),
            (7.0, "7"),
            (999.0, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (45_678.0, "45.7k"),
            (456_789.0, "457k"),
            (1_810_000.0, "1.81M"),
            (9_999_000.0, "10.0M"),
            (30e9, "30.0G"),
            (5e15, "5000T"),
        ] {
            assert_eq!(Count(value).to_string(), shown);
        }
    }

    #[test]
    fn no_time_makes_no_rate() {
        assert_eq!(per_second(5, Duration::ZERO), 0.0);
        assert_eq!(per_second(5, Duration::from_millis(500)), 10.0);
    }
}

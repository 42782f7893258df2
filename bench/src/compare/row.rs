//! What is said of the targets, as a table for people and as an object for tools.

use std::fmt::Write as _;

use serde::Serialize;

use super::contender::{Contender, ThrownAway, Window};
use super::statistics::{median, quantile, ratio_interval};
use crate::report::Count;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Comparison<'a> {
    targets: Vec<Row<'a>>,
    /// What the machine allows, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<Row<'a>>,
}

/// What is said of one target. Of the ratios and their intervals the first target is the base.
#[derive(Debug, Serialize)]
struct Row<'a> {
    target: &'a str,
    windows: usize,
    thrown_away: u32,
    #[serde(flatten)]
    why: ThrownAway,
    iops: f64,
    iops_min: f64,
    iops_max: f64,
    /// Between the first and the third quartile.
    iops_iqr: f64,
    /// Bare commands have no latencies.
    p50_ns: Option<f64>,
    p99_ns: Option<f64>,
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    beside: Option<Beside>,
}

/// What is said where the machine was measured as well.
#[derive(Debug, Serialize)]
struct Beside {
    /// How much this is of what the machine allows.
    machine_ratio: f64,
    machine_ratio_low: f64,
    machine_ratio_high: f64,
    /// The round trip of a cache line around the windows, their median.
    round_trip_ns: f64,
}

impl<'a> Comparison<'a> {
    pub(super) fn of(targets: &'a [Contender], machine: Option<&'a Contender>) -> Comparison<'a> {
        let base = targets.first().map_or(Vec::new(), Contender::iops);
        let bound = machine.map(Contender::iops);
        let row = |contender: &'a Contender| Row::of(contender, &base, bound.as_deref());
        Comparison {
            targets: targets.iter().map(row).collect(),
            machine: machine.map(row),
        }
    }

    /// Whether each has windows.
    pub(super) fn is_complete(&self) -> bool {
        self.rows().all(|row| row.windows > 0)
    }

    fn rows(&self) -> impl Iterator<Item = &Row<'a>> {
        self.targets.iter().chain(&self.machine)
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:>9}   {:<18} {:>8}  {:>8}  {:<22}  {:<7}  ",
            "iops", "(low - high)", "p50 ns", "p99 ns", "ratio (95 %)", "windows"
        );
        if self.machine.is_some() {
            let _ = write!(text, "{:<22}  {:>7}  ", "of the machine (95 %)", "line ns");
        }
        text.push_str("target\n");
        for row in self.rows() {
            row.write(&mut text);
        }
        let sum = |of: fn(ThrownAway) -> u32| self.rows().map(|row| of(row.why)).sum::<u32>();
        for (windows, why) in [
            (sum(|why| why.waited), "a thread waited for its core"),
            (sum(|why| why.stolen), "a hypervisor took a core"),
            (
                sum(|why| why.moved),
                "the cores were not as far apart as in most",
            ),
        ] {
            if windows > 0 {
                let _ = writeln!(text, "{windows} thrown away: {why}");
            }
        }
        if !self.is_complete() {
            text.push_str("a target has no window that counts\n");
        }
        text
    }
}

impl<'a> Row<'a> {
    fn of(contender: &'a Contender, base: &[f64], bound: Option<&[f64]>) -> Row<'a> {
        let iops = contender.iops();
        let of = |value: fn(&Window) -> Option<f64>| {
            let values: Vec<f64> = contender.windows.iter().filter_map(value).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let [ratio, ratio_low, ratio_high] = ratio(&iops, base);
        let beside = bound.map(|bound| {
            let [machine_ratio, machine_ratio_low, machine_ratio_high] = self::ratio(&iops, bound);
            Beside {
                machine_ratio,
                machine_ratio_low,
                machine_ratio_high,
                round_trip_ns: of(|window| window.round_trip_ns).unwrap_or(f64::NAN),
            }
        });
        Row {
            target: &contender.name,
            windows: iops.len(),
            thrown_away: contender.thrown_away.all(),
            why: contender.thrown_away,
            iops: median(&iops),
            iops_min: quantile(&iops, 0.0),
            iops_max: quantile(&iops, 1.0),
            iops_iqr: quantile(&iops, 0.75) - quantile(&iops, 0.25),
            p50_ns: of(|window| window.p50_ns),
            p99_ns: of(|window| window.p99_ns),
            ratio,
            ratio_low,
            ratio_high,
            beside,
        }
    }

    fn write(&self, text: &mut String) {
        let spread = format!("({} - {})", Count(self.iops_min), Count(self.iops_max));
        let nanoseconds = |ns: Option<f64>| ns.map_or(String::new(), |ns| format!("{ns:.0}"));
        let lost = match self.thrown_away {
            0 => String::new(),
            lost => format!(" -{lost}"),
        };
        let _ = write!(
            text,
            "{:>9}   {spread:<18} {:>8}  {:>8}  {:<22}  {:<7}  ",
            Count(self.iops).to_string(),
            nanoseconds(self.p50_ns),
            nanoseconds(self.p99_ns),
            interval([self.ratio, self.ratio_low, self.ratio_high]),
            format!("{}{lost}", self.windows),
        );
        if let Some(beside) = &self.beside {
            let ratio = [
                beside.machine_ratio,
                beside.machine_ratio_low,
                beside.machine_ratio_high,
            ];
            let line = beside.round_trip_ns;
            let _ = write!(text, "{:<22}  {line:>7.0}  ", interval(ratio));
        }
        let _ = writeln!(text, "{}", self.target);
    }
}

/// The ratio of the medians, and its bounds.
fn ratio(ours: &[f64], theirs: &[f64]) -> [f64; 3] {
    if ours.is_empty() || theirs.is_empty() {
        return [f64::NAN; 3];
    }
    let (low, high) = ratio_interval(ours, theirs);
    [median(ours) / median(theirs), low, high]
}

fn interval([ratio, low, high]: [f64; 3]) -> String {
    format!("{ratio:.3} ({low:.3} - {high:.3})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(name: &str, iops: f64) -> Contender {
        let window = Window {
            iops,
            p50_ns: Some(1.0),
            p99_ns: Some(2.0),
            round_trip_ns: Some(iops / 1e4),
        };
        Contender {
            windows: vec![window; 5],
            ..Contender::new(name.to_owned())
        }
    }

    #[test]
    fn the_first_target_is_the_base_of_the_ratios() {
        let nothing = Contender::new("c".to_owned());
        let targets = [contender("a", 1e6), contender("b", 2e6), nothing];
        let comparison = Comparison::of(&targets, None);
        let rows = &comparison.targets;
        assert_eq!((rows[0].ratio, rows[1].ratio), (1.0, 2.0));
        assert_eq!((rows[1].ratio_low, rows[1].ratio_high), (2.0, 2.0));
        assert!(rows[2].ratio.is_nan() && !comparison.is_complete());
        let text = comparison.table();
        assert!(text.contains("2.000 (2.000 - 2.000)"), "{text}");
        assert!(text.contains("no window"), "{text}");
        assert!(!text.contains("of the machine"), "{text}");
        let object = serde_json::to_value(&comparison).expect("an object");
        assert_eq!(object.as_object().map(serde_json::Map::len), Some(1));
        assert_eq!(object["targets"][1]["p99_ns"], 2.0);
        assert!(object["targets"][1].get("machine_ratio").is_none());
    }

    #[test]
    fn every_row_says_how_much_it_is_of_the_machine() {
        let targets = [contender("a", 1e6), contender("b", 2e6)];
        let mut machine = contender("the machine", 4e6);
        for window in &mut machine.windows {
            (window.p50_ns, window.p99_ns) = (None, None);
        }
        let comparison = Comparison::of(&targets, Some(&machine));
        assert!(comparison.is_complete());
        let object = serde_json::to_value(&comparison).expect("an object");
        let (second, machine) = (&object["targets"][1], &object["machine"]);
        for key in ["machine_ratio", "machine_ratio_low", "machine_ratio_high"] {
            assert_eq!((&second[key], &machine[key]), (&0.5.into(), &1.0.into()));
        }
        assert_eq!(second["round_trip_ns"], 200.0);
        assert_eq!(
            (&machine["ratio"], &machine["p50_ns"]),
            (&4.0.into(), &().into())
        );
        let text = comparison.table();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[2].ends_with("0.500 (0.500 - 0.500)       200  b"),
            "{text}"
        );
        assert!(lines[3].ends_with("400  the machine"), "{text}");
        let column = lines[0].find("target").expect("a column");
        assert_eq!(lines[3].find("the machine"), Some(column), "{text}");
    }

    #[test]
    fn it_is_said_why_windows_were_thrown_away() {
        let mut targets = [contender("a", 1e6), contender("b", 1e6)];
        let thrown_away = |waited, moved| ThrownAway {
            waited,
            stolen: 0,
            moved,
        };
        targets[0].thrown_away = thrown_away(2, 1);
        targets[1].thrown_away = thrown_away(1, 0);
        let comparison = Comparison::of(&targets, None);
        let text = comparison.table();
        let why = text.lines().filter(|line| line.contains("thrown away"));
        let numbers: Vec<_> = why.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(numbers, ["3", "1"], "{text}");
        assert!(text.contains(" 5 -3 ") && text.contains(" 5 -1 "), "{text}");
        let object = serde_json::to_value(&comparison).expect("an object");
        let keys = ["thrown_away", "waited", "stolen", "moved"];
        let first = keys.map(|key| object["targets"][0][key].as_u64());
        assert_eq!(first, [3, 2, 0, 1].map(Some));
    }

    #[test]
    fn without_a_window_of_the_machine_nothing_is_complete() {
        let targets = [contender("a", 1e6)];
        let machine = Contender::new("the machine".to_owned());
        let comparison = Comparison::of(&targets, Some(&machine));
        assert!(!comparison.is_complete());
        assert!(serde_json::to_string(&comparison).is_ok());
    }
}

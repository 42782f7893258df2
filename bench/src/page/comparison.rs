//! What `bellwire-bench compare` found.

use serde::Deserialize;
use serde_json::Value;

use crate::chart::{Bar, Bars, Unit};

/// One file.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Of the file.
    pub(super) name: String,
    rows: Vec<Row>,
    /// How many of them, at the end, are no targets.
    machines: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Output {
    targets: Vec<Value>,
    machine: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Row {
    target: String,
    iops: f64,
    /// None of bare commands.
    p50_ns: Option<f64>,
    p99_ns: Option<f64>,
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
    machine_ratio: Option<f64>,
}

impl Comparison {
    pub(super) fn new(name: String, output: Output) -> Result<Comparison, String> {
        if output.targets.is_empty() {
            return Err("compares nothing".to_owned());
        }
        let machines = usize::from(output.machine.is_some());
        let rows = output.targets.into_iter().chain(output.machine);
        let rows = rows.map(Row::new).collect::<Result<_, _>>()?;
        Ok(Comparison {
            name,
            rows,
            machines,
        })
    }

    pub(super) fn bars(&self) -> Bars {
        let (targets, _) = self.rows.split_at(self.rows.len() - self.machines);
        let names: Vec<&str> = targets.iter().map(|row| row.target.as_str()).collect();
        let shared = shared_folders(&names);
        let bar = |(slot, row): (usize, &Row)| Bar {
            name: match slot < names.len() {
                true => row.target[shared..].to_owned(),
                false => row.target.clone(),
            },
            slot,
            value: row.ratio,
            low: row.ratio_low,
            high: row.ratio_high,
            note: row.note(),
        };
        Bars {
            title: format!("Targets in turns: {}", self.name),
            subtitle: "Medians of short windows; whiskers: 95 % confidence of the ratio".to_owned(),
            axis: format!(
                "IOPS relative to {}",
                names.first().map_or("", |name| &name[shared..])
            ),
            unit: Unit::Ratio,
            rows: self.rows.iter().enumerate().map(bar).collect(),
        }
    }
}

impl Row {
    fn note(&self) -> String {
        let mut note = format!(
            "{} ({} to {}) · {} IOPS",
            Unit::Ratio.show(self.ratio),
            Unit::Number.show(self.ratio_low),
            Unit::Number.show(self.ratio_high),
            Unit::Count.show(self.iops),
        );
        if let (Some(p50), Some(p99)) = (self.p50_ns, self.p99_ns) {
            let (p50, p99) = (Unit::Time.show(p50), Unit::Time.show(p99));
            note += &format!(" · median {p50} · p99 {p99}");
            if let Some(ratio) = self.machine_ratio {
                note += &format!(" · {:.0} % of the machine", ratio * 100.0);
            }
        }
        note
    }

    /// A target without a window has no figures, and leaves none to compare with.
    fn new(target: Value) -> Result<Row, String> {
        if target["windows"] == 0 {
            return Err(format!(
                "target {} has no window that counts",
                target["target"]
            ));
        }
        serde_json::from_value(target).map_err(|error| error.to_string())
    }
}

/// How much of each path is the same folders.
fn shared_folders(paths: &[&str]) -> usize {
    let first = paths.first().copied().unwrap_or("");
    let shared = |path: &&str| {
        first
            .bytes()
            .zip(path.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let shared = paths.iter().map(shared).min().unwrap_or(0);
    // A slash is never a part of another character.
    first.as_bytes()[..shared]
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn comparison(rows: Value) -> Result<Comparison, String> {
        let output = serde_json::from_value(json!({ "targets": rows })).expect("an output");
        Comparison::new("c".to_owned(), output)
    }

    #[test]
    fn targets_are_named_without_the_folders_that_they_share() {
        assert_eq!(shared_folders(&["/a/b/x.sock", "/a/b/y.sock"]), 5);
        assert_eq!(shared_folders(&["/a/bb/x", "/a/bc/x"]), 3);
        assert_eq!(shared_folders(&["x", "y"]), 0);
        assert_eq!(shared_folders(&[]), 0);
    }

    #[test]
    fn bars_are_the_ratios_and_their_bounds() {
        let row = |target: &str, ratio: f64| {
            json!({ "target": target, "windows": 15, "iops": 1e6 * ratio, "p50_ns": 900.0,
                    "p99_ns": 1200.0, "ratio": ratio, "ratio_low": ratio * 0.9,
                    "ratio_high": ratio * 1.1 })
        };
        let bars = comparison(json!([row("/s/a", 1.0), row("/s/b", 2.0)]))
            .expect("rows")
            .bars();
        assert_eq!(bars.axis, "IOPS relative to a");
        let second = &bars.rows[1];
        assert_eq!((second.name.as_str(), second.value), ("b", 2.0));
        assert_eq!((second.low, second.high), (1.8, 2.2));
        assert!(
            second
                .note
                .contains("2 M IOPS · median 900 ns · p99 1.2 µs"),
            "{}",
            second.note
        );
    }

    #[test]
    fn the_machine_is_a_row_behind_the_targets_and_shares_no_folder() {
        let row = |target: &str| {
            json!({ "target": target, "windows": 15, "iops": 1e6, "p50_ns": 900.0,
                    "p99_ns": 1200.0, "ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1,
                    "machine_ratio": 0.745, "round_trip_ns": 99.0 })
        };
        let mut machine = row("the machine (empty command)");
        machine["p50_ns"] = Value::Null;
        machine["p99_ns"] = Value::Null;
        let output = json!({ "targets": [row("/s/a"), row("/s/b")], "machine": machine });
        let output = serde_json::from_value(output).expect("an output");
        let bars = Comparison::new("c".to_owned(), output)
            .expect("rows")
            .bars();
        let names: Vec<&str> = bars.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "the machine (empty command)"]);
        let notes = [0, 2].map(|row: usize| bars.rows[row].note.as_str());
        assert!(
            notes[0].ends_with("p99 1.2 µs · 74 % of the machine"),
            "{}",
            notes[0]
        );
        assert!(notes[1].ends_with("1 M IOPS"), "{}", notes[1]);
    }

    #[test]
    fn a_target_without_windows_is_refused() {
        let lost = json!([{ "target": "t", "windows": 0, "iops": null, "ratio": null }]);
        assert!(
            comparison(lost)
                .expect_err("no windows")
                .contains("\"t\" has no window")
        );
        assert!(comparison(json!([])).is_err());
    }
}

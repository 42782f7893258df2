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
}

#[derive(Debug, Deserialize)]
pub(super) struct Output {
    targets: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Row {
    target: String,
    iops: f64,
    p50_ns: f64,
    p99_ns: f64,
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
}

impl Comparison {
    pub(super) fn new(name: String, output: Output) -> Result<Comparison, String> {
        if output.targets.is_empty() {
            return Err("compares nothing".to_owned());
        }
        let rows = output
            .targets
            .into_iter()
            .map(Row::new)
            .collect::<Result<_, _>>()?;
        Ok(Comparison { name, rows })
    }

    pub(super) fn bars(&self) -> Bars {
        let names: Vec<&str> = self.rows.iter().map(|row| row.target.as_str()).collect();
        let shared = shared_folders(&names);
        let bar = |(slot, row): (usize, &Row)| Bar {
            name: row.target[shared..].to_owned(),
            slot,
            value: row.ratio,
            low: row.ratio_low,
            high: row.ratio_high,
            note: format!(
                "{} ({} to {}) · {} IOPS · median {} · p99 {}",
                Unit::Ratio.show(row.ratio),
                Unit::Number.show(row.ratio_low),
                Unit::Number.show(row.ratio_high),
                Unit::Count.show(row.iops),
                Unit::Time.show(row.p50_ns),
                Unit::Time.show(row.p99_ns),
            ),
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

//! What the machine allows, by `bellwire-bench limits`.

use serde::Deserialize;

use super::results::Measurement;
use crate::compare::statistics::median;

/// Large commands, and how many are in flight.
const LARGE: (u64, u64) = (128 << 10, 8);
const SMALL_BYTES: u64 = 4 << 10;

/// The figures of every file.
#[derive(Debug, Default)]
pub(super) struct Bounds(Vec<Limits>);

/// A file.
#[derive(Debug, Deserialize)]
pub(super) struct Limits {
    pub(super) cores: Option<[usize; 2]>,
    figures: Vec<Figure>,
}

#[derive(Debug, Deserialize)]
struct Figure {
    what: String,
    depth: Option<u64>,
    median: f64,
    each_ns: f64,
}

/// The bare work that a result cannot be faster than.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// A command that does nothing.
    Empty,
    /// A copy out of the disk.
    Read,
    /// A copy onto the disk.
    Write,
}

impl Bound {
    /// What bounds a measurement: that is told by a name, of the series or of its target. None of
    /// disks that are more than memory, of reads among writes, and of hosts that think.
    pub(super) fn of(measurement: &Measurement<'_>) -> Option<Bound> {
        let names = [measurement.name, &measurement.rounds[0].target];
        let named = |word| {
            names
                .iter()
                .any(|name| name.to_ascii_lowercase().contains(word))
        };
        let workload = measurement.workload;
        // The bare copies are random ones; only those of large commands are as fast in order.
        let random = workload.mode.starts_with("rand") && workload.distribution.is_none();
        let alike = random || workload.block_bytes >= LARGE.0;
        match workload.mode.as_str() {
            _ if workload.think_time.is_some() => None,
            _ if named("null") => Some(Bound::Empty),
            "read" | "randread" if alike && named("malloc") => Some(Bound::Read),
            "write" | "randwrite" if alike && named("malloc") => Some(Bound::Write),
            _ => None,
        }
    }

    /// As the end of a line.
    pub(super) fn label(self) -> &'static str {
        match self {
            Bound::Empty => "bare command",
            Bound::Read => "bare copy",
            Bound::Write => "bare write",
        }
    }
}

impl Bounds {
    pub(super) fn add(&mut self, limits: Limits) {
        self.0.push(limits);
    }

    pub(super) fn files(&self) -> &[Limits] {
        &self.0
    }

    /// Commands per second, by depth: of all ways to do the work the fastest, of all files the
    /// median. Whatever a null disk is asked for is an empty command.
    pub(super) fn rates(&self, bound: Bound, block_bytes: u64) -> Vec<(u64, f64)> {
        let what = match (bound, block_bytes) {
            (Bound::Empty, _) => "empty command",
            (Bound::Read, SMALL_BYTES) => "4 KiB read",
            (Bound::Read, bytes) if bytes == LARGE.0 => "128 KiB read",
            (Bound::Write, SMALL_BYTES) => "4 KiB write",
            (Bound::Read | Bound::Write, _) => return Vec::new(),
        };
        let rows = self.0.iter().flat_map(|limits| &limits.figures);
        let rows = rows.filter(|row| row.what == what);
        let mut depths: Vec<u64> = rows.filter_map(|row| row.depth).collect();
        depths.sort_unstable();
        depths.dedup();
        let rate = |depth: u64| {
            let fastest = |limits: &Limits| {
                let same = limits.figures.iter();
                let same = same.filter(|row| row.what == what && row.depth == Some(depth));
                same.map(|row| 1e9 / row.each_ns).reduce(f64::max)
            };
            let rates: Vec<f64> = self.0.iter().filter_map(fastest).collect();
            (depth, median(&rates))
        };
        depths.into_iter().map(rate).collect()
    }

    /// Commands per second at one depth.
    pub(super) fn rate(&self, bound: Bound, block_bytes: u64, depth: u64) -> Option<f64> {
        let rates = self.rates(bound, block_bytes);
        rates
            .into_iter()
            .find(|(at, _)| *at == depth)
            .map(|(_, rate)| rate)
    }

    /// Bytes per second that large copies come to.
    pub(super) fn bandwidth(&self, bound: Bound) -> Option<f64> {
        let (bytes, depth) = LARGE;
        let copies = bound == Bound::Read;
        copies
            .then(|| self.rate(bound, bytes, depth))?
            .map(|rate| rate * bytes as f64)
    }

    /// The round trips of a cache line in nanoseconds, of each file and moment.
    pub(super) fn round_trips_ns(&self) -> Vec<f64> {
        let rows = self.0.iter().flat_map(|limits| &limits.figures);
        rows.filter(|row| row.what == "cache line round trip")
            .map(|row| row.median)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bounds(files: &[f64]) -> Bounds {
        let mut bounds = Bounds::default();
        for each_ns in files {
            let row = |what: &str, depth: Option<u64>, how: &str, each_ns: f64| {
                json!({ "what": what, "depth": depth, "how": how, "median": each_ns,
                        "each_ns": each_ns, "min": 0.0, "max": 0.0, "unit": "?" })
            };
            let rows = [
                row("cache line round trip", None, "before the others", *each_ns),
                row("empty command", Some(32), "", *each_ns),
                row("empty command", Some(1), "", *each_ns * 10.0),
                row("4 KiB read", Some(32), "plain", *each_ns * 4.0),
                row("4 KiB read", Some(32), "plain, prefetch", *each_ns * 2.0),
                row("128 KiB read", Some(8), "plain", 4000.0),
            ];
            let file = json!({ "cores": [0, 1], "figures": rows });
            bounds.add(serde_json::from_value(file).expect("limits"));
        }
        bounds
    }

    #[test]
    fn the_fastest_way_counts_and_the_median_of_files() {
        let bounds = bounds(&[10.0, 20.0, 50.0]);
        assert_eq!(bounds.rates(Bound::Empty, 65_536), [(1, 5e6), (32, 5e7)]);
        assert_eq!(bounds.rate(Bound::Read, 4096, 32), Some(2.5e7));
        assert_eq!(bounds.rate(Bound::Read, 4096, 16), None);
        assert_eq!(bounds.rate(Bound::Read, 65_536, 32), None);
        assert_eq!(bounds.rates(Bound::Write, 4096), []);
        assert_eq!(bounds.bandwidth(Bound::Read), Some(32.768e9));
        assert_eq!(bounds.bandwidth(Bound::Write), None);
        assert_eq!(bounds.round_trips_ns(), [10.0, 20.0, 50.0]);
    }
}

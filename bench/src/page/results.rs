//! Results of one series and one workload, put together.

use std::collections::BTreeMap;

use super::fio::{Curve, Job};
use super::workload::Workload;
use crate::compare::distance::UsualDistance;
use crate::compare::statistics::median;

/// What several rounds came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Every job, by series and workload.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Their names, in the order of their first results. A series is known by its place here.
    pub(super) series: Vec<String>,
    /// How many of each series do not count.
    pub(super) left_out: Vec<usize>,
    jobs: BTreeMap<(usize, Workload), Vec<Job>>,
}

/// The rounds of one series and one workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurement<'a> {
    pub(super) series: usize,
    pub(super) name: &'a str,
    pub(super) workload: &'a Workload,
    /// One at least.
    pub(super) rounds: &'a [Job],
}

impl Spread {
    fn of(values: &[f64]) -> Spread {
        Spread {
            median: median(values),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl Results {
    pub(super) fn add(&mut self, job: Job) {
        let known = self.series.iter().position(|name| *name == job.series);
        let series = known.unwrap_or_else(|| {
            self.series.push(job.series.clone());
            self.left_out.push(0);
            self.series.len() - 1
        });
        self.jobs
            .entry((series, job.workload.clone()))
            .or_default()
            .push(job);
    }

    /// Leaves out what was measured while the cores were not as far apart as in most of its series.
    pub(super) fn keep_usual_distances(&mut self) {
        let mut round_trips = vec![Vec::new(); self.series.len()];
        for ((series, _), jobs) in &self.jobs {
            round_trips[*series].extend(jobs.iter().filter_map(|job| job.round_trip_ns));
        }
        let usual: Vec<_> = round_trips.iter().map(|ns| UsualDistance::of(ns)).collect();
        for ((series, _), jobs) in &mut self.jobs {
            self.left_out[*series] += usual[*series].keep(jobs, |job| job.round_trip_ns);
        }
        self.jobs.retain(|_, jobs| !jobs.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// By series, then by workload.
    pub(super) fn all(&self) -> impl Iterator<Item = Measurement<'_>> {
        self.jobs
            .iter()
            .map(|((series, workload), rounds)| Measurement {
                series: *series,
                name: &self.series[*series],
                workload,
                rounds,
            })
    }
}

impl Measurement<'_> {
    pub(super) fn iops(&self) -> Spread {
        self.spread(|job| job.iops)
    }

    /// Bytes per second.
    pub(super) fn bytes(&self) -> Spread {
        self.spread(|job| job.bytes)
    }

    fn spread(&self, value: impl Fn(&Job) -> f64) -> Spread {
        Spread::of(&self.rounds.iter().map(value).collect::<Vec<f64>>())
    }

    /// The medians of each percentile that any round tells, by direction.
    pub(super) fn curves(&self) -> Vec<Curve> {
        let all = || self.rounds.iter().flat_map(|job| &job.curves);
        let of = |direction: &'static str| {
            let mut latencies: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            let same = all().filter(|curve| curve.direction == direction);
            for (percent, latency) in same.flat_map(|curve| &curve.percentiles) {
                latencies.entry(*percent).or_default().push(*latency);
            }
            let medians = latencies
                .into_iter()
                .map(|(percent, all)| (percent, median(&all)));
            Curve {
                direction,
                percentiles: medians.collect(),
            }
        };
        let curves = ["read", "write"].map(of).into_iter();
        curves
            .filter(|curve| !curve.percentiles.is_empty())
            .collect()
    }
}

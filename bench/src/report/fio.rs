//! The JSON object: the part of fio's that has a meaning here, in fio's units.
//!
//! `bw` is KiB/s, `bw_bytes` bytes/s, `runtime` milliseconds, latencies nanoseconds. All queues of
//! all targets are one job, as with fio's `group_reporting`, and its `size` is that of all targets
//! together. `clat_ns` is the latency of a command as the host sees it; `lat_ns` is the same, since
//! submitting takes no time of its own. `queues`, `round_trip_ns` and `verify` are not fio's.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize as DeriveSerialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Finished, PERCENTILES, join, per_second};
use crate::workload::{Direction, Mix, Outcome, Placement, Plan};

/// The name of a job that has none.
const NAME: &str = "bellwire-bench";

#[derive(Debug, DeriveSerialize)]
pub(super) struct Report {
    #[serde(rename = "bellwire-bench version")]
    version: &'static str,
    timestamp: u64,
    jobs: Vec<Job>,
}

#[derive(Debug, DeriveSerialize)]
struct Job {
    jobname: String,
    groupid: u32,
    error: i32,
    job_runtime: u64,
    #[serde(rename = "job options")]
    options: Options,
    read: Measured,
    write: Measured,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ns: Option<f64>,
    /// Before the workload, and after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trips_ns: Option<[f64; 2]>,
    queues: Vec<Queue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<Verify>,
    failures: Vec<String>,
}

/// fio has strings for all of them.
#[derive(Debug, DeriveSerialize)]
struct Options {
    rw: &'static str,
    bs: String,
    iodepth: String,
    numjobs: String,
    size: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_based: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramp_time: Option<String>,
    /// In microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinktime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinktime_blocks: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rwmixread: Option<String>,
    random_distribution: String,
    randseed: String,
    /// All of them, separated by commas.
    target: String,
    targets: String,
    nsid: String,
}

/// A queue, and the core that its thread was on.
#[derive(Debug, DeriveSerialize)]
struct Queue {
    target: String,
    qid: u16,
    core: usize,
}

#[derive(Debug, DeriveSerialize)]
struct Measured {
    io_bytes: u64,
    io_kbytes: u64,
    bw_bytes: u64,
    bw: u64,
    iops: f64,
    runtime: u64,
    total_ios: u64,
    short_ios: u64,
    drop_ios: u64,
    clat_ns: Latencies,
    lat_ns: Latencies,
}

#[derive(Clone, Debug, DeriveSerialize)]
struct Latencies {
    min: u64,
    max: u64,
    mean: f64,
    stddev: f64,
    #[serde(rename = "N")]
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<Percentiles>,
}

/// Names with six decimals, in ascending order.
#[derive(Clone, Debug)]
struct Percentiles(Vec<(f64, u64)>);

#[derive(Debug, DeriveSerialize)]
struct Verify {
    blocks: u64,
}

impl Report {
    pub(super) fn new(jobs: &[Finished]) -> Report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Report {
            version: env!("CARGO_PKG_VERSION"),
            timestamp: now.map_or(0, |now| now.as_secs()),
            jobs: jobs.iter().map(Job::new).collect(),
        }
    }
}

impl Job {
    fn new(job: &Finished) -> Job {
        let (plan, outcome) = (&job.plan, &job.outcome);
        let first = outcome.failures.first();
        Job {
            jobname: plan.name.clone().unwrap_or_else(|| NAME.to_owned()),
            groupid: 0,
            error: first.map_or(0, |failure| failure.errno() as i32),
            job_runtime: millis(outcome),
            options: Options::new(plan, outcome),
            read: Measured::new(&outcome.tally.read, plan, outcome),
            write: Measured::new(&outcome.tally.write, plan, outcome),
            round_trip_ns: job.distance.map(|distance| distance.mean_ns()),
            round_trips_ns: job.distance.map(|at| [at.before_ns, at.after_ns]),
            queues: outcome
                .placements
                .iter()
                .map(|at| Queue::new(plan, at))
                .collect(),
            verify: plan.verify.then_some(Verify {
                blocks: outcome.blocks_verified,
            }),
            failures: outcome.failures.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Options {
    fn new(plan: &Plan, outcome: &Outcome) -> Options {
        let seconds = |runtime: std::time::Duration| runtime.as_secs_f64().to_string();
        let thinks = !plan.think_time.is_zero();
        Options {
            rw: plan.shape.name(),
            bs: plan.command_bytes.to_string(),
            iodepth: plan.depth.to_string(),
            numjobs: plan.queues.to_string(),
            size: outcome.bytes().to_string(),
            runtime: plan.runtime.map(seconds),
            time_based: plan
                .runtime
                .map(|_| if plan.time_based { "1" } else { "0" }),
            ramp_time: (!plan.ramp_time.is_zero()).then(|| seconds(plan.ramp_time)),
            thinktime: thinks.then(|| plan.think_time.as_micros().to_string()),
            thinktime_blocks: thinks.then(|| plan.depth.to_string()),
            rwmixread: match plan.shape.mix {
                Mix::Both { read_percent } => Some(read_percent.to_string()),
                Mix::Reads | Mix::Writes => None,
            },
            random_distribution: plan.distribution.to_string(),
            randseed: plan.seed.to_string(),
            target: plan.target_names(),
            targets: plan.targets.len().to_string(),
            nsid: join(outcome.settings.iter().map(|setting| setting.nsid.0)),
        }
    }
}

impl Queue {
    fn new(plan: &Plan, place: &Placement) -> Queue {
        Queue {
            target: plan.targets[place.target].display().to_string(),
            qid: place.queue.0,
            core: place.core.0,
        }
    }
}

impl Measured {
    fn new(direction: &Direction, plan: &Plan, outcome: &Outcome) -> Measured {
        let total_ios = direction.commands();
        let io_bytes = total_ios * plan.command_bytes;
        let iops = per_second(total_ios, outcome.elapsed);
        let bw_bytes = (iops * plan.command_bytes as f64) as u64;
        let latencies = Latencies::of(direction);
        Measured {
            io_bytes,
            io_kbytes: io_bytes / 1024,
            bw_bytes,
            bw: bw_bytes / 1024,
            iops,
            runtime: if total_ios == 0 { 0 } else { millis(outcome) },
            total_ios,
            short_ios: 0,
            drop_ios: 0,
            lat_ns: Latencies {
                percentile: None,
                ..latencies.clone()
            },
            clat_ns: latencies,
        }
    }
}

impl Latencies {
    fn of(direction: &Direction) -> Latencies {
        let latencies = direction.latencies();
        let percentile = |percent: f64| (percent, latencies.value_at_quantile(percent / 100.0));
        let count = direction.commands();
        let percentiles = PERCENTILES.into_iter().map(percentile).collect();
        Latencies {
            // An empty histogram has a minimum that is no latency.
            min: if count == 0 { 0 } else { latencies.min() },
            max: latencies.max(),
            mean: latencies.mean(),
            stddev: latencies.stdev(),
            count,
            percentile: (count > 0).then_some(Percentiles(percentiles)),
        }
    }
}

impl Serialize for Percentiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (percent, latency) in &self.0 {
            map.serialize_entry(&format!("{percent:.6}"), latency)?;
        }
        map.end()
    }
}

fn millis(outcome: &Outcome) -> u64 {
    outcome.elapsed.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;
    use serde_json::Value;

    use super::*;
    use crate::cores::Core;
    use crate::report::Distance;
    use crate::workload::{self, Failure};

    /// The object, as a tool reads it.
    fn parsed(job: Finished) -> Value {
        let text = serde_json::to_string(&Report::new(&[job])).expect("JSON");
        serde_json::from_str(&text).expect("an object")
    }

    fn measured() -> Finished {
        let mut job = Finished::example();
        let outcome = &mut job.outcome;
        for latency in 1..=2000 {
            outcome.tally.record(workload::Action::Read, latency);
        }
        outcome.tally.settle();
        outcome.elapsed = Duration::from_millis(500);
        job
    }

    #[test]
    fn the_object_has_fios_names_and_units() {
        let report = parsed(measured());
        let job = &report["jobs"][0];
        assert_eq!(job["error"], 0);
        assert_eq!(job["job_runtime"], 500);
        assert_eq!(job["job options"]["rw"], "randread");
        assert_eq!(job["job options"]["iodepth"], "4");
        let read = &job["read"];
        assert_eq!(read["total_ios"], 2000);
        assert_eq!(read["io_bytes"], 2000 * 4096);
        assert_eq!(read["iops"], 4000.0);
        assert_eq!(read["bw_bytes"], 4000 * 4096);
        assert_eq!(read["bw"], 16_000);
        assert_eq!(read["runtime"], 500);
        let latencies = &read["clat_ns"];
        assert_eq!(
            (&latencies["min"], &latencies["N"]),
            (&1.into(), &2000.into())
        );
        assert_eq!(latencies["percentile"]["50.000000"], 1000);
        assert_eq!(latencies["percentile"]["99.990000"], 2000);
        assert_eq!(latencies["percentile"]["99.999000"], 2000);
        let mean = latencies["mean"].as_f64().expect("a mean");
        assert!((mean - 1000.5).abs() < 1.0, "{mean}");
        assert!(report.get("verify").is_none() && job.get("verify").is_none());
    }

    #[test]
    fn what_was_not_asked_for_is_not_told() {
        let mut thinking = measured();
        thinking.plan.think_time = Duration::from_micros(20);
        let options = |job| parsed(job)["jobs"][0]["job options"].clone();
        let (without, with) = (options(measured()), options(thinking));
        assert_eq!(with["thinktime"], "20");
        assert_eq!(with["thinktime_blocks"], "4");
        for key in ["thinktime", "thinktime_blocks", "runtime", "ramp_time"] {
            assert!(without.get(key).is_none(), "{key}");
        }
    }

    #[test]
    fn a_direction_without_commands_is_zero_throughout() {
        let report = parsed(measured());
        let write = &report["jobs"][0]["write"];
        assert_eq!(
            (&write["total_ios"], &write["iops"]),
            (&0.into(), &0.0.into())
        );
        assert_eq!(
            (&write["clat_ns"]["min"], &write["clat_ns"]["max"]),
            (&0.into(), &0.into())
        );
        assert!(write["clat_ns"].get("percentile").is_none());
    }

    #[test]
    fn percentiles_are_in_ascending_order() {
        let text = serde_json::to_string(&Report::new(&[measured()])).expect("JSON");
        let place = |name| text.find(name).expect(name);
        assert!(place("\"1.000000\"") < place("\"5.000000\""));
        assert!(place("\"5.000000\"") < place("\"10.000000\""));
    }

    #[test]
    fn a_failure_is_told_by_errno_and_sentence() {
        let mut job = measured();
        job.outcome.failures.push(Failure::TargetGone);
        let report = parsed(job);
        let job = &report["jobs"][0];
        assert_eq!(job["error"], Errno::ENOTCONN as i32);
        assert_eq!(job["failures"][0], "the target closed the connection");
    }

    #[test]
    fn a_verified_run_tells_how_many_blocks() {
        let mut job = measured();
        job.plan.verify = true;
        job.outcome.blocks_verified = 77;
        let report = parsed(job);
        assert_eq!(report["jobs"][0]["verify"]["blocks"], 77);
    }

    #[test]
    fn the_round_trip_of_a_job_is_the_mean_of_before_and_after() {
        let report = parsed(measured());
        assert!(report["jobs"][0].get("round_trip_ns").is_none());
        let mut job = measured();
        job.distance = Some(Distance {
            client: Core(0),
            reactor: Core(1),
            before_ns: 100.0,
            after_ns: 140.0,
        });
        let report = parsed(job);
        assert_eq!(report["jobs"][0]["round_trip_ns"], 120.0);
        assert_eq!(report["jobs"][0]["round_trips_ns"][1], 140.0);
    }

    #[test]
    fn each_job_is_told_by_its_name_and_each_queue_by_its_core() {
        let mut second = measured();
        second.plan.name = Some("second".to_owned());
        let report = Report::new(&[measured(), second]);
        let report = serde_json::to_value(&report).expect("JSON");
        let names = report["jobs"].as_array().expect("jobs").iter();
        assert!(
            names
                .map(|job| &job["jobname"])
                .eq(["bellwire-bench", "second"])
        );
        let queue = &report["jobs"][1]["queues"][0];
        assert_eq!(queue["target"], "disk.sock");
        assert_eq!((&queue["qid"], &queue["core"]), (&1.into(), &0.into()));
    }
}

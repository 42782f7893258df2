//! fio's JSON, and ours of the same shape.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::workload::Workload;
use crate::job_file::microseconds;

/// A file.
#[derive(Debug, Deserialize)]
pub(super) struct Output {
    #[serde(rename = "bellwire-bench version")]
    bench_version: Option<String>,
    #[serde(rename = "fio version")]
    fio_version: Option<String>,
    timestamp: Option<u64>,
    #[serde(rename = "global options", default)]
    options: Options,
    jobs: Vec<RawJob>,
}

type Options = BTreeMap<String, Value>;

#[derive(Debug, Deserialize)]
struct RawJob {
    jobname: String,
    #[serde(default)]
    groupid: u64,
    #[serde(default)]
    error: i64,
    #[serde(rename = "job options", default)]
    options: Options,
    round_trip_ns: Option<f64>,
    read: Option<Measured>,
    write: Option<Measured>,
}

/// What came of the commands of one direction.
#[derive(Debug, Deserialize)]
struct Measured {
    iops: f64,
    bw_bytes: Option<f64>,
    total_ios: Option<u64>,
    #[serde(default)]
    clat_ns: Latencies,
    #[serde(default)]
    lat_ns: Latencies,
}

#[derive(Debug, Default, Deserialize)]
struct Latencies {
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

/// What is drawn of a job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) series: String,
    pub(super) version: String,
    /// When it was made: seconds since 1970.
    pub(super) timestamp: Option<u64>,
    pub(super) round_trip_ns: Option<f64>,
    /// Socket or file.
    pub(super) target: String,
    pub(super) workload: Workload,
    /// Per second, of both directions.
    pub(super) iops: f64,
    pub(super) bytes: f64,
    pub(super) curves: Vec<Curve>,
}

/// The latencies of one direction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curve {
    /// `read` or `write`.
    pub(super) direction: &'static str,
    /// Percentages in millionths, and nanoseconds.
    pub(super) percentiles: Vec<(u64, f64)>,
}

/// The jobs of a file. Those that fio makes of one with `numjobs` if there is no `group_reporting`
/// are one again: their rates are added; of their latencies nothing can be said.
pub(super) fn jobs(output: Output) -> Result<Vec<Job>, String> {
    let mut jobs: Vec<(u64, Job)> = Vec::new();
    for raw in &output.jobs {
        let told = |why: String| format!("job {:?}: {why}", raw.jobname);
        let job = job(&output, raw).map_err(told)?;
        let same = |(group, other): &&mut (u64, Job)| {
            // Ours are never taken apart.
            output.bench_version.is_none()
                && job.workload.queues > 1
                && *group == raw.groupid
                && (&other.series, &other.workload) == (&job.series, &job.workload)
        };
        match jobs.iter_mut().find(same) {
            Some((_, other)) => {
                other.iops += job.iops;
                other.bytes += job.bytes;
                other.curves.clear();
            }
            None => jobs.push((raw.groupid, job)),
        }
    }
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

fn job(output: &Output, raw: &RawJob) -> Result<Job, String> {
    if raw.error != 0 {
        return Err(format!(
            "failed with error {}, so its figures mean nothing",
            raw.error
        ));
    }
    let mut options = output.options.clone();
    options.extend(raw.options.clone());
    let workload = workload(&options)?;
    let both = [("read", &raw.read), ("write", &raw.write)];
    let measured: Vec<(&'static str, &Measured)> = both
        .into_iter()
        .filter_map(|(direction, side)| Some((direction, side.as_ref()?)))
        .filter(|(_, side)| side.total_ios != Some(0) && side.iops > 0.0)
        .collect();
    if measured.is_empty() {
        return Err("has neither reads nor writes".to_owned());
    }
    let block = workload.block_bytes as f64;
    let version = output
        .bench_version
        .as_ref()
        .map(|version| format!("bellwire-bench {version}"));
    Ok(Job {
        series: raw.jobname.clone(),
        version: version
            .or_else(|| output.fio_version.clone())
            .unwrap_or_default(),
        timestamp: output.timestamp,
        round_trip_ns: raw.round_trip_ns,
        target: option(&options, "target")
            .or(option(&options, "filename"))
            .unwrap_or_default(),
        iops: measured.iter().map(|(_, side)| side.iops).sum(),
        bytes: measured
            .iter()
            .map(|(_, side)| side.bw_bytes.unwrap_or(side.iops * block))
            .sum(),
        curves: measured
            .iter()
            .filter_map(|(direction, side)| side.curve(direction))
            .collect(),
        workload,
    })
}

impl Measured {
    /// None without percentiles.
    fn curve(&self, direction: &'static str) -> Option<Curve> {
        // fio tells percentiles of either, as asked.
        let told = [&self.clat_ns.percentile, &self.lat_ns.percentile];
        let told = told
            .into_iter()
            .find(|percentiles| !percentiles.is_empty())?;
        let percentile = |(percent, latency): (&String, &f64)| {
            let percent: f64 = percent.parse().ok()?;
            let below_all = (0.0..100.0).contains(&percent);
            below_all.then(|| ((percent * 1e6).round() as u64, *latency))
        };
        let mut percentiles: Vec<(u64, f64)> = told.iter().filter_map(percentile).collect();
        percentiles.sort_unstable_by_key(|(percent, _)| *percent);
        (!percentiles.is_empty()).then_some(Curve {
            direction,
            percentiles,
        })
    }
}

/// What was asked, with fio's defaults.
fn workload(options: &Options) -> Result<Workload, String> {
    if let Some(mixed) = ["bsrange", "bssplit"]
        .into_iter()
        .find(|key| options.contains_key(*key))
    {
        return Err(format!(
            "{mixed} is not supported: a point has one block size"
        ));
    }
    let mode = option(options, "rw").unwrap_or_else(|| "read".to_owned());
    let mode = mode.split(':').next().unwrap_or_default().to_owned();
    let mixed = matches!(mode.as_str(), "rw" | "readwrite" | "randrw");
    let sizes = option(options, "bs").unwrap_or_else(|| "4k".to_owned());
    let mut sizes = sizes.split(',').filter(|size| !size.is_empty());
    let first = sizes.next().unwrap_or_default();
    let block_bytes = bdev::size::parse_size(first).map_err(|error| format!("bs: {error}"))?;
    if let Some(other) = sizes.find(|size| *size != first) {
        return Err(format!(
            "bs: {first} and {other}: a point has one block size"
        ));
    }
    if block_bytes == 0 {
        return Err("bs is zero".to_owned());
    }
    let depth = number(options, "iodepth", 1)?;
    Ok(Workload {
        mode,
        reads: match mixed {
            true => Some(reads_percent(options)?),
            false => None,
        },
        distribution: option(options, "random_distribution").filter(|name| name != "random"),
        think_time: think_time(options, depth)?,
        block_bytes,
        depth,
        queues: number(options, "numjobs", 1)?,
        controllers: number(options, "targets", 1)?,
    })
}

/// How long nothing is asked for, and after how many commands if not after all in flight.
fn think_time(options: &Options, depth: u64) -> Result<Option<String>, String> {
    let text = option(options, "thinktime").unwrap_or_else(|| "0".to_owned());
    let time = microseconds(&text).map_err(|error| format!("thinktime: {error}"))?;
    let blocks = number(options, "thinktime_blocks", 1)?;
    Ok((!time.is_zero()).then(|| match blocks == depth {
        true => format!("{} us", time.as_micros()),
        false => format!("{} us after {blocks}", time.as_micros()),
    }))
}

/// Either share may be given.
fn reads_percent(options: &Options) -> Result<u8, String> {
    let writes = number(options, "rwmixwrite", 50)?.min(100);
    Ok(number(options, "rwmixread", 100 - writes)?.min(100) as u8)
}

fn option(options: &Options, key: &str) -> Option<String> {
    match options.get(key)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A count of one at least; a percentage may be zero.
fn number(options: &Options, key: &str, default: u64) -> Result<u64, String> {
    let Some(text) = option(options, key) else {
        return Ok(default);
    };
    match text.parse() {
        Ok(0) if !key.starts_with("rwmix") => Err(format!("{key} is zero")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("{key}: {text:?} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(object: Value) -> Result<Vec<Job>, String> {
        jobs(serde_json::from_value(object).map_err(|error| error.to_string())?)
    }

    fn one(options: Value) -> Result<Job, String> {
        let job = json!({ "jobname": "a", "job options": options, "read": { "iops": 5.0 } });
        read(json!({ "jobs": [job] })).map(|mut jobs| jobs.remove(0))
    }

    #[test]
    fn options_are_those_of_the_job_then_the_global_ones_then_fios_defaults() {
        let read = read(json!({
            "fio version": "fio-3.33",
            "timestamp": 7,
            "global options": { "bs": "16k", "iodepth": "4", "ioengine": "io_uring" },
            "jobs": [{
                "jobname": "a",
                "job options": { "iodepth": "8", "rw": "randrw", "rwmixread": "70" },
                "read": { "iops": 10.0, "bw_bytes": 163_840, "clat_ns": {
                    "min": 1, "percentile": { "99.000000": 9, "1.000000": 3, "100.000000": 5 }
                } },
                "write": { "iops": 5.0, "lat_ns": { "percentile": { "50.000000": 4 } } },
                "trim": { "iops": 0 },
                "usr_cpu": 1.5
            }],
            "disk_util": []
        }));
        let job = read.expect("jobs").remove(0);
        assert_eq!((job.version.as_str(), job.timestamp), ("fio-3.33", Some(7)));
        assert_eq!(job.workload.slug(), "randrw-r70-16k-d8-q1");
        assert_eq!((job.iops, job.bytes), (15.0, 163_840.0 + 5.0 * 16_384.0));
        let percentiles: Vec<_> = job
            .curves
            .iter()
            .map(|curve| &curve.percentiles[..])
            .collect();
        // That of all commands has no place on an axis of nines.
        assert_eq!(
            percentiles,
            [
                &[(1_000_000, 3.0), (99_000_000, 9.0)][..],
                &[(50_000_000, 4.0)]
            ]
        );
        assert_eq!(
            one(json!({})).expect("a job").workload.slug(),
            "read-4k-d1-q1"
        );
        let mixed = one(json!({ "rw": "randrw", "rwmixwrite": "0" })).expect("a job");
        assert_eq!(mixed.workload.slug(), "randrw-r100-4k-d1-q1");
        let targets = one(json!({ "targets": 4 }))
            .expect("a job")
            .workload
            .controllers;
        assert_eq!(targets, 4);
    }

    #[test]
    fn the_jobs_of_one_numjobs_are_one() {
        let job = |name: &str, group: u64| {
            json!({ "jobname": name, "groupid": group, "job options": { "numjobs": "2" },
                    "read": { "iops": 10.0, "clat_ns": { "percentile": { "50.0": 4 } } } })
        };
        let jobs = read(json!({ "jobs": [job("a", 0), job("a", 0), job("a", 1), job("b", 1)] }));
        let jobs = jobs.expect("jobs");
        let rates: Vec<f64> = jobs.iter().map(|job| job.iops).collect();
        assert_eq!(rates, [20.0, 10.0, 10.0]);
        // Of ours, each is a round.
        let ours = json!({ "bellwire-bench version": "1", "jobs": [job("a", 0), job("a", 0)] });
        assert_eq!(read(ours).expect("jobs").len(), 2);
        let curves: Vec<usize> = jobs.iter().map(|job| job.curves.len()).collect();
        assert_eq!(curves, [0, 1, 1]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_with_the_job_and_the_reason() {
        for (options, why) in [
            (json!({ "bs": "4q" }), "bs: \"4q\" is not a size"),
            (json!({ "bs": "4k,8k" }), "bs: 4k and 8k"),
            (json!({ "bs": "0" }), "bs is zero"),
            (json!({ "bsrange": "4k-8k" }), "bsrange is not supported"),
            (
                json!({ "iodepth": "deep" }),
                "iodepth: \"deep\" is not a number",
            ),
            (json!({ "numjobs": 0 }), "numjobs is zero"),
        ] {
            let refused = one(options).expect_err(why);
            assert!(
                refused.starts_with("job \"a\": ") && refused.contains(why),
                "{refused}"
            );
        }
        assert_eq!(
            one(json!({ "bs": "4k,4k,4k" }))
                .expect("a job")
                .workload
                .block_bytes,
            4096
        );
        let failed = json!({ "jobname": "a", "error": 5, "read": { "iops": 1.0 } });
        let failed = read(json!({ "jobs": [failed] })).expect_err("it failed");
        assert!(failed.contains("failed with error 5"), "{failed}");
        let idle = read(json!({ "jobs": [{ "jobname": "a", "read": { "iops": 0.0 } }] }));
        assert!(
            idle.expect_err("nothing done")
                .contains("neither reads nor writes")
        );
    }
}

//! Files, and the jobs that they come to.

use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<JobFile, String> {
    let parsed = JobFile::parse(Path::new("t.fio"), text, |name| {
        (name == "RUN").then(|| "/run".to_owned())
    });
    parsed.map_err(|error| error.to_string())
}

fn jobs(text: &str) -> Vec<JobOptions> {
    let file = parse(text).expect("jobs");
    assert_eq!(file.notes, [""; 0], "{text}");
    file.jobs.into_iter().map(|(_, job)| job).collect()
}

#[test]
fn every_option_that_is_known_arrives() {
    let text = "
        ; a comment
        [all]
        rw = randrw
        rwmixread=70
        bs=8k   # another
        iodepth=32
        numjobs=2
        size=1g
        runtime=30s
        time_based
        ramp_time=500ms
        thinktime=20
        randseed=7
        cpus_allowed=1,0
        cpus_allowed_policy=split
        random_distribution=zoned:60/10:40/90
        filename=${RUN}/a.sock:/run/b.sock
        verify=meta
        group_reporting=1
        stonewall";
    let [job] = &jobs(text)[..] else { panic!() };
    let workload = &job.workload;
    assert_eq!(
        (workload.rw, workload.rwmixread),
        (Some(Mode::RandRw), Some(70))
    );
    assert_eq!((workload.bs, workload.size), (Some(8192), Some(1 << 30)));
    assert_eq!((workload.iodepth, workload.numjobs), (Some(32), Some(2)));
    assert_eq!(job.runtime, Some(Duration::from_secs(30)));
    assert_eq!(job.time_based, Some(true));
    assert_eq!(job.ramp_time, Some(Duration::from_millis(500)));
    assert_eq!(workload.thinktime, Some(Duration::from_micros(20)));
    assert_eq!(workload.seed, Some(7));
    assert_eq!(
        workload.cores.as_ref().map(ToString::to_string),
        Some("[1,0]".into())
    );
    let distribution = workload
        .random_distribution
        .as_ref()
        .map(ToString::to_string);
    assert_eq!(distribution.as_deref(), Some("zoned:60/10:40/90"));
    assert_eq!(
        job.targets,
        [Path::new("/run/a.sock"), Path::new("/run/b.sock")]
    );
    assert!(job.verify);
    assert_eq!(job.name.as_deref(), Some("all"));
}

#[test]
fn jobs_begin_with_what_is_global_above_them() {
    let text = "
        [global]
        bs=4k
        iodepth=4
        [one]
        iodepth=8
        [global]
        bs=16k
        [two]
        stonewall
        readwrite=write
        blocksize=1m
        rwmixwrite=30
        name=second
        [three]
        stonewall=1
        cpus_allowed=8";
    let jobs = jobs(text);
    let told = jobs.iter().map(|job| {
        let workload = &job.workload;
        (
            job.name.as_deref().unwrap_or(""),
            workload.rw,
            workload.bs,
            workload.iodepth,
        )
    });
    assert!(told.eq([
        ("one", Some(Mode::Read), Some(4096), Some(8)),
        ("second", Some(Mode::Write), Some(1 << 20), Some(4)),
        ("three", Some(Mode::Read), Some(16384), Some(4)),
    ]));
    assert_eq!(jobs[1].workload.rwmixread, Some(70));
    assert_eq!(
        jobs[2].workload.cores.as_ref().map(ToString::to_string),
        Some("[8]".into())
    );
    assert!(
        jobs.iter()
            .all(|job| job.time_based == Some(false) && !job.verify)
    );
}

#[test]
fn what_has_no_meaning_is_named_once_with_its_first_line() {
    let text = "[global]
ioengine=libaio
direct=1
thread
cpus_allowed_policy=shared
[one]
rw=randread
direct=0
[two]
ioengine=io_uring
nrfiles=2
thinktime_blocks=1
[three]";
    let file = parse(text).expect("jobs");
    assert_eq!(file.jobs.len(), 3);
    assert_eq!(
        file.notes,
        [
            "t.fio:2: `ioengine` has no meaning here and is ignored",
            "t.fio:3: `direct` has no meaning here and is ignored",
            "t.fio:4: `thread` has no meaning here and is ignored",
            "t.fio:5: `cpus_allowed_policy` is `split` always: each queue has one core",
            "t.fio:11: `nrfiles` has no meaning here and is ignored",
            "t.fio:12: `thinktime_blocks` is `iodepth` always: a burst fills the queue",
            "t.fio:9: [two] begins when the job before it has ended, as with `stonewall`",
        ]
    );
}

#[test]
fn what_is_malformed_is_refused_with_its_line_and_reason() {
    for (text, line, named) in [
        ("bs=4k", 1, "in no section"),
        ("[a", 1, "not a section"),
        ("[]", 1, "not a section"),
        ("[a]\n\nbs=4q", 3, "bs=4q: it is not a size"),
        ("[a]\nbs", 2, "bs: a value is missing"),
        ("[a]\nbs=", 2, "a value is missing"),
        ("[a]\nbs=4k,8k", 2, "bs=4k,8k"),
        ("[a]\nrw=trim", 2, "rw=trim"),
        ("[a]\nrw=randread:8", 2, "rw=randread:8"),
        ("[a]\nrwmixread=101", 2, "more than 100"),
        ("[a]\niodepth=0", 2, "1 at least"),
        ("[a]\nnumjobs=70000", 2, "too large"),
        ("[a]\nsize=50%", 2, "size=50%"),
        ("[a]\nruntime=soon", 2, "not a time"),
        ("[a]\ntime_based=maybe", 2, "neither 0 nor 1"),
        ("[a]\nstonewall=maybe", 2, "neither 0 nor 1"),
        ("[a]\nrandseed=-1", 2, "not a number"),
        ("[a]\ncpus_allowed=0x3", 2, "cpus_allowed=0x3"),
        (
            "[a]\ncpus_allowed_policy=some",
            2,
            "neither `split` nor `shared`",
        ),
        ("[a]\nrandom_distribution=zipf:1.2", 2, "zoned:ACCESS/SIZE"),
        ("[a]\nverify=md5", 2, "only `meta`"),
        ("[a]\nfilename=${NONE}", 2, "no variable `NONE`"),
        ("[a]\ninclude b.fio", 2, "not supported"),
    ] {
        let refused = parse(text).expect_err(text);
        assert!(
            refused.starts_with(&format!("t.fio:{line}: ")),
            "{text}: {refused}"
        );
        assert!(refused.contains(named), "{text}: {refused}");
    }
}

#[test]
fn a_file_without_a_job_is_refused() {
    for text in ["", "; nothing", "[global]\nbs=4k"] {
        let refused = parse(text).expect_err(text);
        assert!(refused.contains("t.fio: there is no job"), "{refused}");
    }
    let refused = JobFile::read(Path::new("/nowhere.fio")).expect_err("no file");
    assert!(refused.to_string().contains("/nowhere.fio"), "{refused}");
}

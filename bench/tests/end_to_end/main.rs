//! `bellwire-bench` and the real daemon, as processes over a real socket.

mod daemon;
mod pause;

use std::fs::{self, DirEntry, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use self::daemon::{Daemon, bench, ends_with};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn malloc(folder: &Path) -> Daemon {
    Daemon::serve(folder, &["malloc:m0,size=4m".to_owned()])
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON object")
}

#[test]
fn identify_shows_the_controller_and_each_namespace() {
    let folder = folder();
    let bdevs = ["malloc:m0,size=4m", "null:n0,size=1g,block=4096"].map(str::to_owned);
    let daemon = Daemon::serve(folder.path(), &bdevs);
    let (text, _) = ends_with(&mut daemon.identify(""), 0);
    assert!(text.contains("bellwire"), "{text}");
    assert!(text.contains("8192 blocks of 512"), "{text}");
    assert!(text.contains("262144 blocks of 4096"), "{text}");
    let (text, _) = ends_with(&mut daemon.identify("--json"), 0);
    let identity = json(&text);
    let namespaces = identity["namespaces"].as_array().expect("a list");
    let sizes: Vec<_> = namespaces
        .iter()
        .map(|namespace| (&namespace["nsid"], &namespace["block_size"]))
        .collect();
    assert_eq!(sizes, [(&1.into(), &512.into()), (&2.into(), &4096.into())]);
    assert!(
        namespaces
            .iter()
            .all(|namespace| namespace["uuid"].is_string())
    );
    daemon.stop();
}

#[test]
fn held_queues_do_nothing_until_their_target_goes() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let mut held = bench("hold --numjobs 16 --iodepth 127");
    held.arg(daemon.socket());
    held.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut held = held.spawn().expect("bellwire-bench");
    let mut line = String::new();
    let out = held.stdout.take().expect("a pipe");
    BufReader::new(out)
        .read_line(&mut line)
        .expect("its output");
    assert_eq!(line, "holding 16 queues of 1 controllers\n");
    // The socket has its one client.
    let (_, told) = ends_with(&mut daemon.identify("--timeout 1"), 2);
    assert!(told.contains("bellwire-bench: "), "{told}");
    daemon.stop();
    let ended = held.wait_with_output().expect("a child");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("closed the connection"), "{told}");
}

#[test]
fn what_one_process_writes_another_one_verifies() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let (text, _) = ends_with(
        &mut daemon.run("--rw write --verify --bs 64k --iodepth 4"),
        0,
    );
    assert!(text.contains("verify: 8192 blocks"), "{text}");
    for options in [
        "--rw read --verify",
        "--rw read --verify --bs 1m --iodepth 3",
        "--rw randread --verify --bs 512 --iodepth 64 --numjobs 2 --size 64k",
    ] {
        ends_with(&mut daemon.run(options), 0);
    }
    let (_, told) = ends_with(&mut daemon.run("--rw read --verify --seed 1"), 1);
    assert!(
        told.contains("LBA 0") && told.contains("another seed"),
        "{told}"
    );
    daemon.stop();
}

#[test]
fn a_random_run_writes_each_block_once_for_a_later_one_to_verify() {
    let folder = folder();
    let daemon = malloc(folder.path());
    // Sizes of commands that divide the disk and one that does not, on an empty disk and over the
    // data of another seed: what a run leaves out shows as unwritten, or as that.
    for (seed, options, blocks) in [
        (1, "--bs 4k --iodepth 16", 8192),
        (2, "--bs 4k --iodepth 64 --numjobs 3", 8192),
        (3, "--bs 12k --iodepth 5 --numjobs 2 --size 4092k", 8184),
        (4, "--bs 512 --iodepth 32", 8192),
    ] {
        let write = format!("--rw randwrite --verify --seed {seed} {options}");
        let (text, _) = ends_with(&mut daemon.run(&write), 0);
        assert!(text.contains(&format!("verify: {blocks} blocks")), "{text}");
        let read = format!("--rw read --verify --bs 1k --size {}k --seed", blocks / 2);
        ends_with(&mut daemon.run(&format!("{read} {seed}")), 0);
        let (_, told) = ends_with(&mut daemon.run(&format!("{read} {}", seed - 1)), 1);
        assert!(told.contains("another seed"), "{told}");
    }
    daemon.stop();
}

#[test]
fn a_mixed_run_of_two_queues_verifies_and_reports_both_directions() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let options = "--rw randrw --rwmixread 30 --verify --numjobs 2 --iodepth 16 --json";
    let (text, _) = ends_with(&mut daemon.run(options), 0);
    let report = json(&text);
    let job = &report["jobs"][0];
    let count = |direction: &str| job[direction]["total_ios"].as_u64().expect("a count");
    assert_eq!(count("read") + count("write"), 1024);
    assert!(count("read") > 100 && count("write") > 500, "{job}");
    assert!(job["write"]["clat_ns"]["percentile"]["99.000000"].is_u64());
    assert_eq!(job["job options"]["numjobs"], "2");
    assert_eq!(job["error"], 0);
    daemon.stop();
}

#[test]
fn several_controllers_run_together_and_keep_what_each_was_given() {
    let folder = folder();
    let bdevs = [
        "malloc:m0,size=4m",
        "malloc:m1,size=4m",
        "malloc:m2,size=4m",
    ]
    .map(str::to_owned);
    let namespaces = [",ns=m0", ",ns=m1", ",ns=m2"].map(str::to_owned);
    let daemon = Daemon::serve_each(folder.path(), &bdevs, &namespaces);
    let options = "--rw randwrite --verify --numjobs 2 --iodepth 16 --cores [0] --json";
    let (text, _) = ends_with(&mut daemon.run(options), 0);
    let report = json(&text);
    assert_eq!(report["jobs"].as_array().map(Vec::len), Some(1));
    let job = &report["jobs"][0];
    assert_eq!(job["write"]["total_ios"], 3 * 1024);
    assert_eq!(job["verify"]["blocks"], 3 * 8192);
    assert_eq!(job["job options"]["targets"], "3");
    let names: Vec<&str> = daemon
        .sockets()
        .iter()
        .filter_map(|path| path.to_str())
        .collect();
    assert_eq!(job["job options"]["target"], names.join(","));
    let queues = job["queues"].as_array().expect("a list");
    assert_eq!(queues.len(), 6);
    for (index, queue) in queues.iter().enumerate() {
        assert_eq!(queue["target"], names[index / 2]);
        assert_eq!(queue["qid"], index % 2 + 1);
        assert_eq!(queue["core"], 0);
    }
    // Each of them alone has all that it was given.
    for name in names {
        let mut read = bench("run --rw read --bs 64k --verify --target");
        let (text, _) = ends_with(read.arg(name), 0);
        assert!(text.contains("verify: 8192 blocks"), "{text}");
    }
    daemon.stop();
}

#[test]
fn one_disk_behind_two_controllers_is_not_verified_through_both() {
    let folder = folder();
    let namespaces = [",ns=m0,shared=on"; 2].map(str::to_owned);
    let disk = ["malloc:m0,size=4m".to_owned()];
    let daemon = Daemon::serve_each(folder.path(), &disk, &namespaces);
    let (_, told) = ends_with(&mut daemon.run("--rw randwrite --verify"), 2);
    assert!(told.contains("are one namespace"), "{told}");
    ends_with(&mut daemon.run("--rw randwrite"), 0);
    let mut write = bench("run --rw write --verify --target");
    ends_with(write.arg(daemon.socket()), 0);
    let (text, _) = ends_with(&mut daemon.run("--rw randread --verify"), 0);
    assert!(text.contains("verify: 16384 blocks"), "{text}");
    daemon.stop();
}

#[test]
fn a_flipped_byte_in_the_image_is_found_and_named() {
    let folder = folder();
    let image = folder.path().join("disk.img");
    let bdev = [format!("file:f0,path={},size=4m", image.display())];
    let daemon = Daemon::serve(folder.path(), &bdev);
    ends_with(&mut daemon.run("--rw write --verify --iodepth 8"), 0);
    daemon.stop();
    flip(&image, 512 * 1234 + 77);
    let daemon = Daemon::serve(folder.path(), &bdev);
    let (text, told) = ends_with(&mut daemon.run("--rw read --verify --json"), 1);
    assert!(
        told.contains("LBA 1234") && told.contains("byte 77"),
        "{told}"
    );
    let report = json(&text);
    assert_eq!(report["jobs"][0]["error"], nix::errno::Errno::EILSEQ as i32);
    daemon.stop();
    flip(&image, 512 * 1234 + 77);
    let daemon = Daemon::serve(folder.path(), &bdev);
    ends_with(&mut daemon.run("--rw read --verify --bs 128k"), 0);
    daemon.stop();
}

fn flip(image: &Path, at: u64) {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .expect("an image");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.read_exact(&mut byte).expect("a byte");
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(&byte).expect("a byte");
}

#[test]
fn a_run_for_a_time_without_verification_ends_in_time() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let options = "--rw randread --iodepth 32 --runtime 0.5 --json";
    let (text, told) = ends_with(&mut daemon.run(options), 0);
    let report = json(&text);
    let read = &report["jobs"][0]["read"];
    assert!(read["total_ios"].as_u64() > Some(0), "{report}");
    assert!(read["runtime"].as_u64() >= Some(500), "{report}");
    assert!(told.is_empty(), "no progress without a terminal: {told}");
    daemon.stop();
}

/// Starts a run, and waits until its job has begun: a thread that is called so.
fn under_way(run: &mut Command) -> Child {
    let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut run = run.expect("a process");
    let tasks = format!("/proc/{}/task", run.id());
    let begun = || {
        let mut tasks = fs::read_dir(&tasks).expect("its threads").flatten();
        let name = |task: DirEntry| fs::read_to_string(task.path().join("comm"));
        tasks.any(|task| name(task).is_ok_and(|name| name.starts_with("job")))
    };
    while !begun() {
        assert_eq!(run.try_wait().expect("a child"), None, "it ended");
        thread::sleep(Duration::from_millis(5));
    }
    run
}

#[test]
fn a_daemon_that_is_killed_ends_the_run_at_once() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let run = under_way(&mut daemon.run("--rw randread --iodepth 4 --runtime 600 --timeout 300"));
    daemon.signal(Signal::SIGKILL);
    let killed = Instant::now();
    let ended = run.wait_with_output().expect("an end");
    let told = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("closed the connection"), "{told}");
    // Neither the runtime nor the timeout was waited for.
    assert!(killed.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_daemon_that_stops_answering_is_given_up() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let run = under_way(&mut daemon.run("--rw randread --iodepth 4 --runtime 600 --timeout 5"));
    daemon.signal(Signal::SIGSTOP);
    let ended = run.wait_with_output().expect("an end");
    let told = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("completes nothing"), "{told}");
}

/// `bellwire-bench run` of a job file with such a content.
fn run_file(file: &Path, content: &str, options: &str) -> Command {
    fs::write(file, content).expect("a file");
    let mut run = bench("run");
    run.arg(file).args(options.split_whitespace());
    run
}

#[test]
fn a_job_file_is_one_report_with_a_job_for_each_section() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let file = folder.path().join("jobs.fio");
    let content = format!(
        "[global]\nfilename={}\nioengine=libaio\ndirect=1\nbs=4k\nverify=meta\n\
         [fill]\nrw=randwrite\niodepth=16\n\
         [check]\nstonewall\nrw=read\nbs=64k\nnumjobs=2\n\
         [hot]\nstonewall\nrw=randread\nverify=0\nruntime=200ms\ntime_based=1\nramp_time=100ms\n\
         random_distribution=zoned:90/10:10/\n",
        daemon.socket().display()
    );
    let (text, told) = ends_with(&mut run_file(&file, &content, "--json"), 0);
    let name = file.display();
    let notes = [
        format!("bellwire-bench: {name}:3: `ioengine` has no meaning here and is ignored"),
        format!("bellwire-bench: {name}:4: `direct` has no meaning here and is ignored"),
    ];
    assert!(told.lines().eq(notes), "{told}");
    let report = json(&text);
    let jobs = report["jobs"].as_array().expect("a list");
    let names: Vec<_> = jobs.iter().map(|job| &job["jobname"]).collect();
    assert_eq!(names, ["fill", "check", "hot"]);
    assert_eq!(jobs[0]["write"]["total_ios"], 1024);
    assert_eq!(jobs[1]["verify"]["blocks"], 8192);
    assert_eq!(jobs[1]["job options"]["numjobs"], "2");
    assert!(jobs[2].get("verify").is_none());
    let distribution = &jobs[2]["job options"]["random_distribution"];
    assert_eq!(distribution, "zoned:90/10:10/90");
    assert!(jobs[2]["read"]["total_ios"].as_u64() > Some(0));
    assert!(jobs[2]["read"]["clat_ns"]["percentile"]["99.999000"].is_u64());
    daemon.stop();
}

#[test]
fn the_first_job_of_a_file_that_fails_is_the_last_and_what_came_before_is_told() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let file = folder.path().join("jobs.fio");
    let socket = daemon.socket().display();
    let two = format!("[global]\nfilename={socket}\nrw=write\n[one]\n[two]\nstonewall\n");
    // Nothing was written with this seed, and the command line makes the jobs read.
    let options = "--rw read --verify --seed 9";
    let (text, told) = ends_with(&mut run_file(&file, &two, options), 1);
    assert!(told.contains("one: verification failed"), "{told}");
    assert!(
        text.contains("one: read of 4096") && !text.contains("two: "),
        "{text}"
    );
    let beyond = format!("{two}size=5m\n[three]\nstonewall\n");
    let (text, told) = ends_with(&mut run_file(&file, &beyond, "--json"), 2);
    let jobs = &json(&text)["jobs"];
    assert_eq!(jobs.as_array().map(Vec::len), Some(1));
    assert_eq!(jobs[0]["jobname"], "one");
    assert!(told.contains("two: --size 5242880"), "{told}");
    let (text, told) = ends_with(&mut run_file(&file, "[a]\nbs=4q\n", ""), 2);
    let place = format!("{}:2: bs=4q", file.display());
    assert!(text.is_empty() && told.contains(&place), "{told}");
    daemon.stop();
}

/// The cores that this process may use.
fn allowed_cores() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("cores");
    let allowed = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false));
    allowed.collect()
}

#[test]
fn a_result_carries_the_round_trip_to_the_core_that_is_named() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let cores = allowed_cores();
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    let options = |cores: &str, reactor| {
        format!("--rw randread --name near --cores {cores} --reactor-core {reactor} --json")
    };
    let cores = format!("[{first}]");
    let (_, told) = ends_with(&mut daemon.run(&options(&cores, first)), 2);
    assert!(told.contains(&format!("core {first} is")), "{told}");
    let (_, told) = ends_with(&mut daemon.run(&options(&cores, 1023)), 2);
    assert!(told.contains("core 1023"), "{told}");
    if first != last {
        let (text, _) = ends_with(&mut daemon.run(&options(&cores, last)), 0);
        let job = &json(&text)["jobs"][0];
        assert_eq!(job["jobname"], "near");
        let trips = job["round_trips_ns"].as_array().expect("two");
        let trips: Vec<f64> = trips.iter().filter_map(Value::as_f64).collect();
        let [before, after] = trips[..] else {
            panic!("{trips:?}")
        };
        let mean = job["round_trip_ns"].as_f64().expect("a mean");
        assert!(before > 0.0 && after > 0.0 && (mean - (before + after) / 2.0).abs() < 1e-6);
    }
    daemon.stop();
}

#[test]
fn what_cannot_begin_ends_with_2_and_a_sentence() {
    let folder = folder();
    let nobody = folder.path().join("nobody.sock");
    let mut identify = bench("identify");
    let (_, told) = ends_with(identify.arg(&nobody), 2);
    assert!(
        told.contains("nobody.sock") && told.lines().count() == 1,
        "{told}"
    );
    let (_, told) = ends_with(&mut bench("run --rw read"), 2);
    assert!(told.contains("--target"), "{told}");
    let daemon = malloc(folder.path());
    for (options, named) in [
        ("--rw read --nsid 3", "no namespace 3"),
        ("--rw read --size 5m", "--size"),
        ("--rw read --bs 2m", "--bs"),
        ("--rw read --iodepth 5000", "--iodepth"),
    ] {
        let (text, told) = ends_with(&mut daemon.run(options), 2);
        assert!(told.contains(named) && text.is_empty(), "{options}: {told}");
    }
    daemon.stop();
}

#[test]
fn targets_are_compared_in_turns() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let compare = |other: &Path, options: &str| {
        let mut compare = bench("compare --rw randread --windows 3 --window 0.05 --json");
        compare
            .args([daemon.socket(), other])
            .args(options.split_whitespace());
        compare
    };
    // Where other work keeps all windows from counting it ends with 1.
    let output = compare(daemon.socket(), "--iodepth 4").output();
    let text = String::from_utf8(output.expect("a process").stdout).expect("text");
    let targets = json(&text)["targets"].as_array().expect("a list").clone();
    assert_eq!(targets.len(), 2);
    for target in &targets {
        let number = |key: &str| target[key].as_f64().expect("a number");
        assert_eq!(number("windows") + number("thrown_away"), 3.0);
        assert_eq!(target["target"], daemon.socket().to_str().expect("a path"));
    }
    let missing = folder.path().join("missing");
    let (_, text) = ends_with(&mut compare(&missing, ""), 2);
    assert!(text.contains("missing"), "{text}");
    daemon.stop();
}

#[test]
fn limits_are_told_of_one_workload() {
    if allowed_cores().len() < 2 {
        return;
    }
    let options = "limits --quick --json --rw randwrite --bs 16k --iodepth 7";
    let (text, _) = ends_with(&mut bench(options), 0);
    let told = json(&text);
    let rows = told["figures"].as_array().expect("a list");
    let depths = rows.iter().filter_map(|row| row["depth"].as_u64());
    assert!(
        depths.clone().count() >= 3 && depths.max() == Some(7),
        "{text}"
    );
    assert!(
        rows.iter().any(|row| row["what"] == "16 KiB write"),
        "{text}"
    );
    let (_, refused) = ends_with(&mut bench("limits --rw randrw"), 2);
    assert!(refused.contains("mixed"), "{refused}");
    ends_with(&mut bench("limits --bs 8k"), 2);
}

#[test]
fn what_run_prints_is_drawn() {
    let folder = folder();
    let daemon = malloc(folder.path());
    let mut report = bench("report --output");
    let output = folder.path().join("out");
    report.arg(&output);
    for depth in [1, 4] {
        let options = format!("--rw randread --bs 4k --runtime 0.1 --json --iodepth {depth}");
        let (printed, _) = ends_with(&mut daemon.run(&options), 0);
        let path = folder.path().join(format!("{depth}.json"));
        fs::write(&path, printed).expect("a file");
        report.arg(path);
    }
    daemon.stop();
    let (told, _) = ends_with(&mut report, 0);
    assert!(told.contains("index.html and 2 SVG files"), "{told}");
    for name in ["depth-randread-4k-q1.svg", "latency-randread-4k-q1.svg"] {
        let chart = fs::read_to_string(output.join(name)).expect("a chart");
        assert!(chart.ends_with("</svg>\n"), "{chart}");
    }
    let missing = folder.path().join("missing");
    let (_, told) = ends_with(bench("report --output o").arg(missing), 2);
    assert!(told.contains("missing: cannot be read"), "{told}");
}

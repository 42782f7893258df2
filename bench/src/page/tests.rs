use std::fs;

use roxmltree::Document;
use serde_json::{Value, json};

use super::*;

/// A result as `run --json` prints it.
fn result(name: &str, options: &Value, iops: f64) -> Value {
    let measured = json!({
        "iops": iops, "bw_bytes": iops * 4096.0, "total_ios": 1000,
        "clat_ns": { "percentile": { "50.000000": 1e9 / iops, "99.999000": 9e9 / iops } },
    });
    let idle = json!({ "iops": 0.0, "bw_bytes": 0, "total_ios": 0, "clat_ns": { "min": 0 } });
    json!({
        "bellwire-bench version": "1.2.3",
        "timestamp": 1_700_000_000,
        "jobs": [{ "jobname": name, "groupid": 0, "error": 0, "job options": options,
                   "round_trip_ns": 123.0, "read": measured, "write": idle }],
    })
}

fn at_depth(name: &str, depth: u32, iops: f64) -> Value {
    let options = json!({ "rw": "randread", "bs": "4096", "iodepth": depth.to_string() });
    result(name, &options, iops)
}

fn limits() -> Value {
    let row = |depth: u32, rate: f64| {
        json!({ "what": "empty command", "depth": depth, "how": "", "unit": "M/s",
                "median": rate / 1e6, "each_ns": 1e9 / rate })
    };
    json!({ "cores": [0, 1], "figures": [row(1, 8e6), row(32, 4e7)] })
}

/// The report of such files, or what is said instead of one.
fn report(files: &[Value]) -> Result<Vec<(String, String)>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |(number, object): (usize, &Value)| {
        let path = folder.path().join(format!("{number}.json"));
        fs::write(&path, object.to_string()).expect("written");
        path
    };
    let paths: Vec<PathBuf> = files.iter().enumerate().map(write).collect();
    render(&paths).map_err(|error| error.to_string())
}

fn names(files: &[(String, String)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

/// What is in one of the files.
fn file<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
    let found = files.iter().find(|(found, _)| found == name);
    &found
        .unwrap_or_else(|| panic!("no {name} in {:?}", names(files)))
        .1
}

/// Every file has to be well-formed; the page's doctype is HTML's.
fn assert_well_formed(files: &[(String, String)]) {
    for (name, text) in files {
        let text = text.strip_prefix("<!DOCTYPE html>\n").unwrap_or(text);
        if let Err(error) = Document::parse(text) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn a_sweep_over_depth_is_one_chart_with_all_series_and_the_limit() {
    let files = [
        at_depth("null", 1, 2e6),
        at_depth("null", 32, 2e7),
        at_depth("other", 1, 1e6),
        at_depth("other", 32, 9e6),
        limits(),
    ];
    let files = report(&files).expect("a report");
    assert_well_formed(&files);
    assert_eq!(
        names(&files),
        [
            "depth-randread-4k-q1.svg",
            "latency-randread-4k-q1.svg",
            "index.html"
        ]
    );
    let depth = file(&files, "depth-randread-4k-q1.svg");
    for told in ["null\nqueue depth 32: 20 M", "other\nqueue depth 1: 1 M"] {
        assert!(depth.contains(told), "{depth}");
    }
    assert!(depth.contains(">bare command 40 M<"), "{depth}");
    assert!(
        depth.contains("bare command\nqueue depth 32: 40 M"),
        "{depth}"
    );
    let latency = file(&files, "latency-randread-4k-q1.svg");
    assert!(
        latency.contains(">depth 1<") && latency.contains(">depth 32<"),
        "{latency}"
    );
    assert!(latency.contains(">99.999<"), "{latency}");
}

#[test]
fn a_disk_is_held_against_the_work_that_its_name_tells() {
    let row = |what: &str, depth: u32, each_ns: f64| {
        json!({ "what": what, "depth": depth, "how": "", "unit": "M/s", "median": 1.0,
                "each_ns": each_ns })
    };
    let limits = json!({ "cores": [0, 1], "figures": [
        row("empty command", 1, 100.0), row("4 KiB read", 1, 400.0), row("4 KiB write", 1, 300.0),
    ] });
    let thinking = |mode: &str, target: &str, depth: &str, microseconds: &str| {
        let options = json!({ "rw": mode, "iodepth": depth, "target": target,
                              "thinktime": microseconds });
        result("s", &options, 1e6)
    };
    let run = |mode: &str, target: &str, depth: &str| thinking(mode, target, depth, "0");
    for (mode, target, name, rate) in [
        ("randwrite", "/a/null.sock", "bare command", "10 M"),
        ("randread", "/a/Malloc0.sock", "bare copy", "2.5 M"),
        ("randwrite", "/a/malloc.sock", "bare write", "3.33 M"),
    ] {
        let files = report(&[
            run(mode, target, "1"),
            run(mode, target, "4"),
            limits.clone(),
        ]);
        let files = files.expect("a report");
        let depth = file(&files, &format!("depth-{mode}-4k-q1.svg"));
        assert!(
            depth.contains(&format!("{name}\nqueue depth 1: {rate}")),
            "{depth}"
        );
        let latency = file(&files, &format!("latency-{mode}-4k-q1.svg"));
        assert_eq!(
            latency.matches(&format!(">{name}<")).count(),
            1,
            "{latency}"
        );
    }
    for (mode, target, think_time) in [
        ("randread", "/a/file.sock", "0"),
        ("randrw", "/a/malloc.sock", "0"),
        ("read", "/a/malloc.sock", "0"),
        ("randread", "/a/null.sock", "50"),
    ] {
        let files = report(&[
            thinking(mode, target, "1", think_time),
            thinking(mode, target, "4", think_time),
            limits.clone(),
        ]);
        let files = files.expect("a report");
        assert!(
            files.iter().all(|(_, text)| !text.contains(">bare")),
            "{mode} {target}"
        );
    }
}

#[test]
fn what_a_null_disk_did_not_move_is_no_bandwidth_to_boast_of() {
    let files = report(&[at_depth("null", 1, 9e6), at_depth("malloc", 1, 1e6)]);
    let files = files.expect("a report");
    let page = file(&files, PAGE);
    assert!(
        page.contains("<b>9 M</b>") && page.contains("<b>4.1 GB/s</b>"),
        "{page}"
    );
}

#[test]
fn one_value_of_an_axis_makes_no_chart_over_it() {
    let files = [at_depth("a", 1, 1e6), at_depth("b", 32, 1e6)];
    let files = report(&files).expect("a report");
    assert_eq!(names(&files), ["latency-randread-4k-q1.svg", "index.html"]);
}

#[test]
fn every_dimension_has_its_chart() {
    for (option, values, name) in [
        ("iodepth", ["1", "32"], "depth-randread-4k-q1.svg"),
        ("numjobs", ["1", "2"], "queues-randread-4k-d1.svg"),
        ("targets", ["1", "4"], "controllers-randread-4k-d1-q1.svg"),
        ("bs", ["4k", "128k"], "blocksize-randread-d1-q1.svg"),
    ] {
        let one = |value: &str| {
            let mut options = json!({ "rw": "randread" });
            options[option] = value.into();
            result("a", &options, 1e6)
        };
        let files = report(&values.map(one)).expect("a report");
        assert_well_formed(&files);
        let over: Vec<&str> = names(&files)
            .into_iter()
            .filter(|name| !name.starts_with("latency"))
            .collect();
        assert_eq!(over, [name, "index.html"]);
    }
}

#[test]
fn rounds_become_a_median_with_its_range() {
    let mut files: Vec<Value> = [3e6, 1e6, 2e6].map(|iops| at_depth("a", 1, iops)).into();
    files.push(at_depth("a", 4, 5e6));
    let files = report(&files).expect("a report");
    let depth = file(&files, "depth-randread-4k-q1.svg");
    assert!(depth.contains("queue depth 1: 2 M (1 M to 3 M)"), "{depth}");
    assert!(
        depth.contains("medians of 3 rounds with their range"),
        "{depth}"
    );
    assert_eq!(depth.matches("class=\"whisker").count(), 1, "{depth}");
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let files = [
        at_depth("b", 1, 1e6),
        at_depth("a", 4, 2e6),
        at_depth("a", 1, 1e6),
        limits(),
    ];
    let first = report(&files).expect("a report");
    assert_eq!(first, report(&files).expect("a report"));
}

#[test]
fn what_was_measured_while_the_cores_were_elsewhere_does_not_count() {
    let moved = |mut result: Value, ns: f64| {
        result["jobs"][0]["round_trip_ns"] = ns.into();
        result
    };
    let near = |depth| at_depth("a", depth, 1e6);
    let far = |depth| moved(at_depth("a", depth, 1.5e6), 330.0);
    // Another series may be farther apart, and one that does not tell is believed.
    let other = [1, 4].map(|depth| moved(at_depth("b", depth, 5e5), 330.0));
    let usual = [&[near(1), near(4)], &other[..]].concat();
    let page = |files: &[Value]| file(&report(files).expect("a report"), PAGE).to_owned();
    let cells = |number: u32| format!("<td class=\"\">123 ns</td><td class=\"\">{number}</td>");
    let clean = page(&usual);
    assert!(clean.contains(&cells(0)), "{clean}");
    let mixed = page(&[&usual, &[far(1), far(16)][..]].concat());
    assert!(mixed.contains(&cells(2)), "{mixed}");
    assert_eq!(mixed.replace(&cells(2), &cells(0)), clean);
}

#[test]
fn the_page_tells_version_day_and_round_trip_and_needs_nothing_else() {
    let files = [at_depth("a", 1, 1e6), at_depth("a", 4, 2e6)];
    let files = report(&files).expect("a report");
    let page = file(&files, PAGE);
    for told in [
        "bellwire-bench 1.2.3",
        "2023-11-14",
        "123 ns",
        "4 KiB random reads · depth 4",
    ] {
        assert!(page.contains(told), "{told} is missing: {page}");
    }
    for elsewhere in ["<script", "<link", "<img", "src=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    let mut silent = at_depth("a", 1, 1e6);
    silent["jobs"][0]
        .as_object_mut()
        .expect("a job")
        .remove("round_trip_ns");
    let without = report(&[silent]).expect("a report");
    assert!(page.contains("round trip") && !file(&without, PAGE).contains("round trip"));
    let document = page.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    let document = Document::parse(document).expect("well-formed");
    let drawn = document
        .descendants()
        .filter(|node| node.has_tag_name("figure"))
        .count();
    assert_eq!(drawn, files.len() - 1);
    let links: Vec<_> = document
        .descendants()
        .filter_map(|node| node.attribute("href"))
        .collect();
    assert_eq!(links, names(&files)[..files.len() - 1]);
}

#[test]
fn a_name_with_markup_stays_text() {
    let name = "<script>alert(1)<script>";
    let comparison = json!({ "targets": [{ "target": name, "windows": 9, "iops": 1e6,
                                           "p50_ns": 9.0, "p99_ns": 9.0, "ratio": 1.0,
                                           "ratio_low": 0.9, "ratio_high": 1.1 }] });
    let files = report(&[at_depth(name, 1, 1e6), at_depth(name, 4, 2e6), comparison]);
    let files = files.expect("a report");
    assert_well_formed(&files);
    assert_eq!(names(&files)[2], "compare-2.svg");
    for (file, text) in &files {
        assert!(!text.contains("<script"), "{file}: {text}");
        assert!(text.contains("&lt;script&gt;"), "{file}: {text}");
    }
}

#[test]
fn workloads_whose_names_are_alike_get_files_of_their_own() {
    let mode = |mode: &str| result("a", &json!({ "rw": mode }), 1e6);
    let files = report(&[mode("a b"), mode("a/b"), mode("a.b")]).expect("a report");
    let wanted = ["latency-a-b-4k-d1-q1.svg", "latency-a-b-4k-d1-q1-2.svg"];
    assert_eq!(names(&files)[..2], wanted);
    assert_eq!(files.len(), 4);
}

#[test]
fn reads_and_writes_have_curves_of_their_own() {
    let mut mixed = result("a", &json!({ "rw": "randrw", "rwmixread": "70" }), 1e6);
    mixed["jobs"][0]["write"] = mixed["jobs"][0]["read"].clone();
    let files = report(&[mixed]).expect("a report");
    let latency = file(&files, "latency-randrw-r70-4k-d1-q1.svg");
    assert!(
        latency.contains(">a, reads") && latency.contains(">a, writes"),
        "{latency}"
    );
    // One of a million each.
    assert!(file(&files, PAGE).contains(">2 M<"));
}

#[test]
fn a_file_that_cannot_be_drawn_is_refused_by_name_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("good.json"), at_depth("a", 1, 1e6).to_string()).expect("written");
    fs::write(path("text.json"), "fio: no such job").expect("written");
    fs::write(path("half.json"), "{\"jobs\": [").expect("written");
    fs::write(path("shape.json"), "{\"result\": 5}").expect("written");
    fs::write(path("list.json"), "[1, 2]").expect("written");
    fs::write(path("job.json"), "{\"jobs\": [{\"jobname\": 5}]}").expect("written");
    for (bad, why) in [
        ("text.json", "is not JSON: "),
        ("half.json", "is not JSON: "),
        ("shape.json", "has no list \"jobs\""),
        ("list.json", "has no list \"jobs\""),
        ("job.json", "invalid type"),
        ("missing.json", "cannot be read: "),
    ] {
        let files = vec![path("good.json"), path(bad)];
        let error = run(&ReportOptions {
            output: output.clone(),
            files,
        })
        .expect_err(bad);
        let told = error.to_string();
        assert!(told.contains(&path(bad).display().to_string()), "{told}");
        assert!(told.contains(why), "{told}");
        assert!(!output.exists(), "{bad}");
    }
    assert!(
        report(&[limits()])
            .expect_err("nothing")
            .starts_with("nothing to draw")
    );
}

#[test]
fn the_report_is_written_into_a_new_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("r.json");
    fs::write(&input, at_depth("a", 1, 1e6).to_string()).expect("written");
    let output = folder.path().join("new/out");
    run(&ReportOptions {
        output: output.clone(),
        files: vec![input],
    })
    .expect("a report");
    assert!(output.join(PAGE).exists() && output.join("latency-randread-4k-d1-q1.svg").exists());
    assert_eq!(fs::read_dir(&output).expect("a folder").count(), 2);
}

#[test]
fn another_distribution_or_think_time_is_another_workload() {
    let run = |distribution: &str, think_time: &str, depth: &str| {
        let blocks = if think_time == "50us" { "1" } else { depth };
        let options = json!({ "rw": "randread", "iodepth": depth, "target": "malloc",
                              "random_distribution": distribution,
                              "thinktime": think_time, "thinktime_blocks": blocks });
        result("a", &options, 1e6)
    };
    let files = [
        run("random", "0", "2"),
        run("random", "0us", "4"),
        run("random", "50", "2"),
        run("random", "50", "4"),
        run("random", "50us", "2"),
        run("random", "50us", "4"),
        run("zipf:1.2", "0", "1"),
        run("zipf:1.2", "0", "4"),
    ];
    let files = report(&files).expect("a report");
    let names = names(&files);
    assert_eq!(
        names[..4],
        [
            "depth-randread-4k-q1.svg",
            "depth-randread-think-50-us-4k-q1.svg",
            "depth-randread-think-50-us-after-1-4k-q1.svg",
            "depth-randread-zipf-1-2-4k-q1.svg"
        ]
    );
    assert!(file(&files, names[1]).contains("4 KiB random reads, thinktime 50 us: IOPS over"));
    assert!(file(&files, names[3]).contains("4 KiB random reads, zipf:1.2: IOPS over"));
}

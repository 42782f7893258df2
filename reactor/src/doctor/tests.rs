//! Every check against made-up hosts.

use std::fs;

use super::{Finding, Host, Level, examine, table};
use crate::cpu::CoreMask;

const CPU: &str = "sys/devices/system/cpu";

/// Examines a host that has only these files, for cores 2 and 3.
fn look(files: &[(&str, &str)]) -> Vec<Finding> {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path.replace("CPU", CPU));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    examine(&Host::new(root.path()), &mask())
}

fn mask() -> CoreMask {
    "[2,3]".parse().unwrap()
}

/// Level of one check on a host of some files.
#[track_caller]
fn expect(what: &str, level: Level, files: &[(&str, &str)]) {
    let findings = look(files);
    let finding = findings.iter().find(|finding| finding.what == what);
    let finding = finding.unwrap();
    assert_eq!(finding.level, level, "{finding:?}");
    let mends = matches!(level, Level::Better | Level::Bad);
    assert_eq!(mends, !finding.mend.is_empty(), "{finding:?}");
}

#[test]
fn a_host_that_tells_nothing_is_unknown_and_not_an_error() {
    let findings = look(&[]);
    assert_eq!(findings.len(), 20);
    for finding in findings {
        assert_eq!(finding.level, Level::Unknown, "{finding:?}");
    }
}

#[test]
fn every_single_file_has_its_level() {
    let cases: &[(&str, Level, &str, &str)] = &[
        ("isolcpus", Level::Ok, "CPU/isolated", "1-3\n"),
        ("isolcpus", Level::Better, "CPU/isolated", "2"),
        ("isolcpus", Level::Better, "CPU/isolated", "\n"),
        ("nohz_full", Level::Ok, "CPU/nohz_full", "2-3"),
        ("nohz_full", Level::Better, "CPU/nohz_full", "(null)"),
        ("rcu_nocbs", Level::Ok, "CPU/nohz_full", "2-3"),
        (
            "rcu_nocbs",
            Level::Ok,
            "proc/cmdline",
            "quiet rcu_nocbs=2,3",
        ),
        ("rcu_nocbs", Level::Better, "proc/cmdline", "quiet"),
        (
            "idle states",
            Level::Ok,
            "CPU/cpu2/cpuidle/state1/latency",
            "50",
        ),
        (
            "idle states",
            Level::Better,
            "CPU/cpu2/cpuidle/state1/latency",
            "51",
        ),
        (
            "cpuset",
            Level::Ok,
            "proc/self/status",
            "Name:\tx\nCpus_allowed_list:\t0-3\n",
        ),
        (
            "cpuset",
            Level::Bad,
            "proc/self/status",
            "Cpus_allowed_list:\t0-2\n",
        ),
        ("huge pages", Level::Ok, "proc/sys/vm/nr_hugepages", "8"),
        ("huge pages", Level::Better, "proc/sys/vm/nr_hugepages", "0"),
        (
            "memlock",
            Level::Ok,
            "proc/self/limits",
            "Max locked memory  unlimited x bytes",
        ),
        (
            "memlock",
            Level::Better,
            "proc/self/limits",
            "Max locked memory  65536 x bytes",
        ),
        (
            "open files",
            Level::Ok,
            "proc/self/limits",
            "Max open files  4096 x files",
        ),
        (
            "open files",
            Level::Better,
            "proc/self/limits",
            "Max open files  1024 x files",
        ),
        (
            "kernel",
            Level::Ok,
            "proc/sys/kernel/osrelease",
            "6.1.0-13-amd64",
        ),
        ("kernel", Level::Ok, "proc/sys/kernel/osrelease", "5.19.0"),
        (
            "kernel",
            Level::Better,
            "proc/sys/kernel/osrelease",
            "5.11-rc1",
        ),
        ("kernel", Level::Bad, "proc/sys/kernel/osrelease", "5.10.9"),
        (
            "io_uring",
            Level::Ok,
            "proc/sys/kernel/io_uring_disabled",
            "0",
        ),
        (
            "io_uring",
            Level::Better,
            "proc/sys/kernel/io_uring_disabled",
            "1",
        ),
        (
            "io_uring",
            Level::Bad,
            "proc/sys/kernel/io_uring_disabled",
            "2",
        ),
        (
            "mitigations",
            Level::Ok,
            "CPU/vulnerabilities/mds",
            "Vulnerable",
        ),
        (
            "RT throttling",
            Level::Ok,
            "proc/sys/kernel/sched_rt_runtime_us",
            "950000",
        ),
        ("KVM", Level::Ok, "dev/kvm", ""),
    ];
    for &(what, level, path, text) in cases {
        expect(what, level, &[(path, text)]);
    }
}

#[test]
fn files_in_deep_folders_have_their_level() {
    let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    expect("clock source", Level::Ok, &[(clock, "tsc\n")]);
    expect("clock source", Level::Better, &[(clock, "kvm-clock")]);
    expect("clock source", Level::Bad, &[(clock, "hpet")]);
    let thp = "sys/kernel/mm/transparent_hugepage/enabled";
    expect("THP", Level::Ok, &[(thp, "always [madvise] never")]);
    expect("THP", Level::Better, &[(thp, "always madvise [never]")]);
    let shmem = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
    expect(
        "THP of shmem",
        Level::Ok,
        &[(shmem, "always [advise] never")],
    );
    expect("THP of shmem", Level::Better, &[(shmem, "never [deny]")]);
}

/// The same file of cores 2 and 3.
#[track_caller]
fn expect_cores(what: &str, level: Level, name: &str, texts: [&str; 2]) {
    let paths = [2, 3].map(|core| format!("CPU/cpu{core}/{name}"));
    expect(what, level, &[(&paths[0], texts[0]), (&paths[1], texts[1])]);
}

#[test]
fn every_core_of_the_mask_counts() {
    let file = "cpufreq/scaling_governor";
    expect_cores("governor", Level::Ok, file, ["performance"; 2]);
    expect_cores("governor", Level::Better, file, ["performance", "ondemand"]);
    expect_cores("governor", Level::Bad, file, ["performance", "powersave"]);
    let file = "topology/thread_siblings_list";
    expect_cores("hyperthreads", Level::Ok, file, ["2", "3"]);
    expect_cores("hyperthreads", Level::Better, file, ["0,2", "1,3"]);
    expect_cores("hyperthreads", Level::Bad, file, ["2-3", "2-3"]);
    let one = [("CPU/cpu2/node0/x", ""), ("CPU/cpu3/node0/x", "")];
    expect("NUMA nodes", Level::Ok, &one);
    let two = [("CPU/cpu2/node0/x", ""), ("CPU/cpu3/node1/x", "")];
    expect("NUMA nodes", Level::Better, &two);
}

#[test]
fn huge_pages_are_to_be_on_every_node_of_the_mask() {
    let pages = |node: u32, pages| {
        let folder = format!("sys/devices/system/node/node{node}/hugepages");
        (format!("{folder}/hugepages-2048kB/nr_hugepages"), pages)
    };
    let nodes = [pages(0, "0"), pages(1, "8"), pages(2, "4")];
    let mut files: Vec<(&str, &str)> = nodes.iter().map(|(path, n)| (&path[..], *n)).collect();
    files.extend([("CPU/cpu2/node1/x", ""), ("proc/sys/vm/nr_hugepages", "9")]);
    // Where the other core is, nobody knows.
    expect("huge pages", Level::Ok, &files);
    let near = [&files[..], &[("CPU/cpu3/node1/x", "")]].concat();
    expect("huge pages", Level::Ok, &near);
    let far = [&files[..], &[("CPU/cpu3/node0/x", "")]].concat();
    expect("huge pages", Level::Better, &far);
    let text = table(&look(&far), &mask());
    assert!(text.contains("0 reserved on node 0 "), "{text}");
    assert!(text.contains("numactl -m 0 sysctl"), "{text}");
}

#[test]
fn a_quota_is_found_in_any_group_up_to_the_root() {
    let own = ("proc/self/cgroup", "0::/a/b\n");
    let free = ("sys/fs/cgroup/a/b/cpu.max", "max 100000");
    let quota = ("sys/fs/cgroup/a/cpu.max", "50000 100000");
    expect("cgroup quota", Level::Ok, &[own, free]);
    expect("cgroup quota", Level::Bad, &[own, free, quota]);
    let own = ("proc/self/cgroup", "3:cpu,cpuacct:/c\n0::/\n");
    let free = ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "-1");
    let quota = ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "20000");
    expect("cgroup quota", Level::Ok, &[own, free]);
    expect("cgroup quota", Level::Bad, &[own, free, quota]);
}

#[test]
fn the_table_is_aligned_and_names_the_command() {
    let text = table(
        &look(&[("proc/sys/kernel/io_uring_disabled", "2")]),
        &mask(),
    );
    let line = "bad      io_uring         disabled                             allowed\n";
    let mend = format!("{:26}-> sysctl kernel.io_uring_disabled=0\n", "");
    assert!(text.contains(&format!("{line}{mend}")), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}

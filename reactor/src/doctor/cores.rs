//! The cores of the mask: frequency, isolation, siblings, idle states, nodes.

use std::collections::BTreeSet;

use super::{Finding, Level};
use crate::cpu::CoreMask;
use crate::host::Host;
use crate::numa;

const CPU: &str = "sys/devices/system/cpu";
/// An idle state that takes longer to leave than this delays a guest's vCPU.
const IDLE_EXIT_US_MAX: i64 = 50;

pub fn findings(host: &Host, mask: &CoreMask) -> Vec<Finding> {
    let mut findings = vec![governor(host, mask)];
    findings.extend(isolation(host, mask));
    findings.extend([siblings(host, mask), nodes(host, mask), idle(host, mask)]);
    findings
}

fn governor(host: &Host, mask: &CoreMask) -> Finding {
    let read = |name: &str| -> Option<BTreeSet<String>> {
        mask.cores()
            .map(|core| host.text(&format!("{CPU}/cpu{core}/cpufreq/{name}")))
            .collect()
    };
    let Some(governors) = read("scaling_governor") else {
        return Finding::unknown("governor");
    };
    // The drivers whose `powersave` still follows the load.
    let follows = read("scaling_driver").is_some_and(|drivers| {
        let following = |name: &String| name == "intel_pstate" || name == "amd-pstate-epp";
        drivers.iter().all(following)
    });
    let level = match () {
        () if governors.iter().all(|name| name == "performance") => Level::Ok,
        () if governors.contains("powersave") && !follows => Level::Bad,
        () => Level::Better,
    };
    let is: Vec<String> = governors.into_iter().collect();
    let cores = list(mask);
    Finding::new(level, "governor", is.join(", ")).should(
        "performance",
        format!("cpupower -c {cores} frequency-set -g performance"),
    )
}

fn isolation(host: &Host, mask: &CoreMask) -> [Finding; 3] {
    let boot = |name: &str| format!("boot with {name}={}", list(mask));
    let covered = |what: &'static str, cores: Option<Option<CoreMask>>| {
        let Some(cores) = cores else {
            return Finding::unknown(what);
        };
        let covers = cores
            .as_ref()
            .is_some_and(|cores| mask.outside(cores).next().is_none());
        let level = if covers { Level::Ok } else { Level::Better };
        let is = cores.map_or("no core".to_owned(), |cores| cores.to_string());
        Finding::new(level, what, is).should("all cores of the mask", boot(what))
    };
    let isolated = covered("isolcpus", host.list(&format!("{CPU}/isolated")));
    let ticks = covered("nohz_full", host.list(&format!("{CPU}/nohz_full")));
    // Of rcu_nocbs only the kernel's command line tells; nohz_full implies it.
    let callbacks = match host.text("proc/cmdline") {
        _ if ticks.level == Level::Ok => Finding::new(Level::Ok, "rcu_nocbs", "by nohz_full"),
        None => Finding::unknown("rcu_nocbs"),
        Some(line) => covered("rcu_nocbs", parameter(&line, "rcu_nocbs=")),
    };
    [isolated, ticks, callbacks]
}

/// A list of cores on the kernel's command line; empty if the parameter is not there.
fn parameter(line: &str, name: &str) -> Option<Option<CoreMask>> {
    let value = line.split_whitespace().find_map(|w| w.strip_prefix(name));
    match value {
        None => Some(None),
        Some(value) => format!("[{value}]").parse().ok().map(Some),
    }
}

fn siblings(host: &Host, mask: &CoreMask) -> Finding {
    let mut inside = BTreeSet::new();
    let mut beside = BTreeSet::new();
    for core in mask.cores() {
        let path = format!("{CPU}/cpu{core}/topology/thread_siblings_list");
        let Some(Some(threads)) = host.list(&path) else {
            return Finding::unknown("hyperthreads");
        };
        for thread in threads.cores().filter(|&thread| thread != core) {
            let polls = mask.cores().any(|core| core == thread);
            if polls { &mut inside } else { &mut beside }.insert(thread);
        }
    }
    let off: Vec<String> = inside
        .iter()
        .chain(&beside)
        .map(ToString::to_string)
        .collect();
    let first = off.first().cloned().unwrap_or_default();
    let (level, is) = match (inside.is_empty(), beside.is_empty()) {
        (true, true) => (Level::Ok, "none".to_owned()),
        (true, false) => (Level::Better, format!("beside the mask: {}", off.join(","))),
        (false, _) => (Level::Bad, "two threads of one core in the mask".to_owned()),
    };
    let mend = match level {
        Level::Bad => "choose -m with one thread of each core".to_owned(),
        _ => format!(
            "echo 0 > /{CPU}/cpu{first}/online (each of {})",
            off.join(",")
        ),
    };
    Finding::new(level, "hyperthreads", is).should("siblings idle or offline", mend)
}

fn nodes(host: &Host, mask: &CoreMask) -> Finding {
    let Some(nodes) = numa::of_cores(host, mask) else {
        return Finding::unknown("NUMA nodes");
    };
    let level = if nodes.len() > 1 {
        Level::Better
    } else {
        Level::Ok
    };
    Finding::new(level, "NUMA nodes", nodes.to_string()).should(
        "one, or one for each controller",
        "choose -m, or cores= of each --controller, on one node",
    )
}

/// Reactors never idle; the vCPUs that wait for them do.
fn idle(host: &Host, mask: &CoreMask) -> Finding {
    let mut longest = None;
    for core in mask.cores() {
        let folder = format!("{CPU}/cpu{core}/cpuidle");
        for state in host.names(&folder) {
            let off = host.number(&format!("{folder}/{state}/disable")) == Some(1);
            if let Some(us) = host.number(&format!("{folder}/{state}/latency")) {
                longest = longest.max(Some(if off { 0 } else { us }));
            }
        }
    }
    let Some(us) = longest else {
        return Finding::unknown("idle states");
    };
    let level = if us > IDLE_EXIT_US_MAX {
        Level::Better
    } else {
        Level::Ok
    };
    Finding::new(
        level,
        "idle states",
        format!("{us} us to wake (guests only)"),
    )
    .should(
        "50 us or less",
        format!("cpupower idle-set -D {IDLE_EXIT_US_MAX}"),
    )
}

/// The cores as kernel parameters and tools take them.
fn list(mask: &CoreMask) -> String {
    mask.to_string().trim_matches(['[', ']']).to_owned()
}

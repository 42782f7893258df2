//! The kernel: version, clock, what it allows, what it adds.

use super::{Finding, Level};
use crate::host::Host;

pub fn findings(host: &Host) -> Vec<Finding> {
    vec![
        version(host),
        clock(host),
        io_uring(host),
        mitigations(host),
        throttling(host),
        kvm(host),
    ]
}

fn version(host: &Host) -> Finding {
    let release = host.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::unknown("kernel");
    };
    let level = match (major, minor) {
        (5, 19..) | (6.., _) => Level::Ok,
        (5, 11..) => Level::Better,
        _ => Level::Bad,
    };
    Finding::new(level, "kernel", release).should("5.19 (5.11 at least)", "install a newer kernel")
}

fn clock(host: &Host) -> Finding {
    let folder = "sys/devices/system/clocksource/clocksource0";
    let Some(clock) = host.text(&format!("{folder}/current_clocksource")) else {
        return Finding::unknown("clock source");
    };
    // kvm-clock and its like are read without a system call too.
    let level = match clock.as_str() {
        "tsc" | "arch_sys_counter" => Level::Ok,
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" => Level::Bad,
        _ => Level::Better,
    };
    Finding::new(level, "clock source", clock)
        .should("tsc", format!("echo tsc > /{folder}/current_clocksource"))
}

fn io_uring(host: &Host) -> Finding {
    let (level, is) = match host.number("proc/sys/kernel/io_uring_disabled") {
        None => return Finding::unknown("io_uring"),
        Some(0) => (Level::Ok, "allowed"),
        Some(1) => (Level::Better, "for privileged users and one group"),
        Some(_) => (Level::Bad, "disabled"),
    };
    Finding::new(level, "io_uring", is).should("allowed", "sysctl kernel.io_uring_disabled=0")
}

/// For information: whether to trade safety for speed is not for a program to say.
fn mitigations(host: &Host) -> Finding {
    let folder = "sys/devices/system/cpu/vulnerabilities";
    let texts = host.names(folder).into_iter();
    let texts: Vec<String> = texts
        .filter_map(|name| host.text(&format!("{folder}/{name}")))
        .collect();
    if texts.is_empty() {
        return Finding::unknown("mitigations");
    }
    let count = |start: &str| texts.iter().filter(|text| text.starts_with(start)).count();
    let (active, open) = (count("Mitigation"), count("Vulnerable"));
    Finding::new(
        Level::Ok,
        "mitigations",
        format!("{active} active, {open} vulnerable"),
    )
}

/// For information: reactors run under the normal scheduler unless someone changes that.
fn throttling(host: &Host) -> Finding {
    let is = match host.number("proc/sys/kernel/sched_rt_runtime_us") {
        None => return Finding::unknown("RT throttling"),
        Some(-1) => "off".to_owned(),
        Some(us) => format!("{us} us (SCHED_FIFO only)"),
    };
    Finding::new(Level::Ok, "RT throttling", is)
}

fn kvm(host: &Host) -> Finding {
    match host.exists("dev/kvm") {
        true => Finding::new(Level::Ok, "KVM", "/dev/kvm"),
        false => Finding::unknown("KVM"),
    }
}

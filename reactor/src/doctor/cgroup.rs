//! What control groups leave to this process: quota of CPU time, and cores.

use std::path::{Component, Path};

use super::{Finding, Level};
use crate::cpu::CoreMask;
use crate::host::Host;

pub fn findings(host: &Host, mask: &CoreMask) -> Vec<Finding> {
    vec![quota(host), cpuset(host, mask)]
}

/// Any quota stops a polling thread for the rest of each period, once it is used up.
fn quota(host: &Host) -> Finding {
    let Some(groups) = host.text("proc/self/cgroup") else {
        return Finding::unknown("cgroup quota");
    };
    let mut seen = false;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        for folder in folders(controllers, path) {
            let Some((file, quota)) = limit(host, &folder) else {
                continue;
            };
            seen = true;
            if let Some(quota) = quota {
                let none = if file.ends_with("cpu.max") {
                    "max"
                } else {
                    "-1"
                };
                return Finding::new(Level::Bad, "cgroup quota", quota)
                    .should("none", format!("echo {none} > /{file}"));
            }
        }
    }
    // The root group of a host has no file for a quota, and none.
    let level = if seen { Level::Ok } else { Level::Unknown };
    Finding::new(
        level,
        "cgroup quota",
        if seen { "none" } else { "not told" },
    )
}

/// Folders in which a group's CPU limits may be, from its own up to the root.
fn folders(controllers: &str, path: &str) -> Vec<String> {
    let mounts = match controllers {
        "" => vec![
            "sys/fs/cgroup".to_owned(),
            "sys/fs/cgroup/unified".to_owned(),
        ],
        names if names.split(',').any(|name| name == "cpu") => {
            vec![
                "sys/fs/cgroup/cpu".to_owned(),
                format!("sys/fs/cgroup/{names}"),
            ]
        }
        _ => return Vec::new(),
    };
    let parts: Vec<&str> = Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let below = |mount: &String| {
        let mount = mount.clone();
        let up = (0..=parts.len()).rev();
        up.map(|depth| [&[mount.as_str()], &parts[..depth]].concat().join("/"))
            .collect::<Vec<_>>()
    };
    mounts.iter().flat_map(below).collect()
}

/// The file that holds the quota of a group, and the quota, if it has one.
fn limit(host: &Host, folder: &str) -> Option<(String, Option<String>)> {
    let max = format!("{folder}/cpu.max");
    if let Some(text) = host.text(&max) {
        let quota = (!text.starts_with("max")).then(|| format!("{text} us"));
        return Some((max, quota));
    }
    let quota = format!("{folder}/cpu.cfs_quota_us");
    let us = host.number(&quota)?;
    let period = host.number(&format!("{folder}/cpu.cfs_period_us"));
    let text = format!("{us} {} us", period.unwrap_or(100_000));
    Some((quota, (us >= 0).then_some(text)))
}

fn cpuset(host: &Host, mask: &CoreMask) -> Finding {
    let status = host.text("proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = line.and_then(|list| format!("[{}]", list.trim()).parse::<CoreMask>().ok());
    let Some(allowed) = allowed else {
        return Finding::unknown("cpuset");
    };
    let covers = mask.outside(&allowed).next().is_none();
    let level = if covers { Level::Ok } else { Level::Bad };
    Finding::new(level, "cpuset", allowed.to_string()).should(
        "all cores of the mask",
        "another -m, or a wider cpuset.cpus",
    )
}

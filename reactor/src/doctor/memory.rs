//! Huge pages and limits of the process.

use super::{Finding, Level};
use crate::cpu::CoreMask;
use crate::host::Host;
use crate::numa;

const MEMLOCK_BYTES_MIN: u64 = 64 << 20;
const FILES_MIN: u64 = 4096;

pub fn findings(host: &Host, mask: &CoreMask) -> Vec<Finding> {
    vec![
        reserved(host, mask),
        transparent(host, "THP", "enabled", "madvise"),
        transparent(host, "THP of shmem", "shmem_enabled", "advise"),
        limit(host, "memlock", "Max locked memory", MEMLOCK_BYTES_MIN)
            .should("64 MiB, before Linux 5.12", "ulimit -l unlimited"),
        limit(host, "open files", "Max open files", FILES_MIN)
            .should("4096 or more", "ulimit -n 65536"),
    ]
}

/// Disks take them from the node of their reactors, where there are several.
fn reserved(host: &Host, mask: &CoreMask) -> Finding {
    let several = numa::has_several(host).then(|| numa::of_cores(host, mask));
    let Some(nodes) = several.flatten() else {
        let pages = host.number("proc/sys/vm/nr_hugepages");
        return reserved_pages(pages, "reserved", "sysctl vm.nr_hugepages=1024");
    };
    let on_node = |node| {
        let size = "hugepages/hugepages-2048kB/nr_hugepages";
        host.number(&format!("sys/devices/system/node/node{node}/{size}"))
    };
    let fewest = nodes.iter().map(|node| (on_node(node), node)).min();
    let (pages, node) = fewest.unwrap_or_default();
    let mend = format!("numactl -m {node} sysctl vm.nr_hugepages_mempolicy=1024");
    reserved_pages(pages, &format!("reserved on node {node}"), &mend)
}

fn reserved_pages(pages: Option<i64>, place: &str, mend: &str) -> Finding {
    let Some(pages) = pages else {
        return Finding::unknown("huge pages");
    };
    let level = if pages > 0 { Level::Ok } else { Level::Better };
    Finding::new(level, "huge pages", format!("{pages} {place}"))
        .should("enough for malloc disks", mend)
}

fn transparent(host: &Host, what: &'static str, file: &str, mode: &'static str) -> Finding {
    let path = format!("sys/kernel/mm/transparent_hugepage/{file}");
    let text = host.text(&path).unwrap_or_default();
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let Some((chosen, _)) = chosen else {
        return Finding::unknown(what);
    };
    let off = matches!(chosen, "never" | "deny");
    let level = if off { Level::Better } else { Level::Ok };
    Finding::new(level, what, chosen).should(mode, format!("echo {mode} > /{path}"))
}

fn limit(host: &Host, what: &'static str, name: &str, min: u64) -> Finding {
    let limits = host.text("proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft.map(|soft| (soft, soft.parse::<u64>())) {
        Some(("unlimited", _)) => Finding::new(Level::Ok, what, "unlimited"),
        Some((text, Ok(soft))) if soft >= min => Finding::new(Level::Ok, what, text),
        Some((text, Ok(_))) => Finding::new(Level::Better, what, text),
        _ => Finding::unknown(what),
    }
}

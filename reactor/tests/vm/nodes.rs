//! The daemon in a machine with two nodes (NUMA), one core each: memory is where the reactors are,
//! and guest memory that is not is noticed. The guest is the host here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::archive::image_with_programs;
use crate::machine::Machine;
use crate::stage::Stage;
use crate::vm::Vm;

/// Each disk has a size of its own, by which its memory is told from others.
const PAGES_PER_MIB: usize = 256;

/// Starts a daemon as the guest's process `$pid`, and waits until it is ready.
fn serve(vm: &mut Vm, arguments: &str) {
    let controllers = arguments.matches("--controller").count();
    vm.run(&format!(
        "bellwire serve --disable-cpumask-locks {arguments} >/tmp/ready 2>/tmp/log &\n\
         echo \"pid=$!\" >/tmp/pid\n\
         until [ \"$(grep -c ^ready /tmp/ready)\" = {controllers} ]; do\n\
         kill -0 $! || {{ cat /tmp/log; exit 1; }}; sleep 0.1; done"
    ));
}

/// Stops it; returns its log.
fn stop(vm: &mut Vm) -> String {
    vm.run(
        ". /tmp/pid; kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done; cat /tmp/log",
    )
}

/// A mapping of the daemon's, as `numa_maps` tells of it.
struct Mapping {
    line: String,
    /// How many of its pages are on which node.
    pages: BTreeMap<usize, usize>,
}

fn mappings(vm: &mut Vm) -> Vec<Mapping> {
    let text = vm.run(". /tmp/pid; cat /proc/$pid/numa_maps");
    let mapping = |line: &str| {
        let pages = line.split(' ').filter_map(|word| {
            let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
            Some((node.parse().ok()?, pages.parse().ok()?))
        });
        Mapping {
            line: line.to_owned(),
            pages: pages.collect(),
        }
    };
    text.lines().map(mapping).collect()
}

/// Where the memory of a disk of `mib` MiB is.
#[track_caller]
fn disk(mappings: &[Mapping], mib: usize) -> &BTreeMap<usize, usize> {
    let all = mib * PAGES_PER_MIB;
    let found = mappings
        .iter()
        .find(|mapping| mapping.pages.values().sum::<usize>() == all);
    &found
        .unwrap_or_else(|| panic!("no mapping has {all} pages"))
        .pages
}

/// Files of this name have pages, and all of them on node 1. Those without a wish for a node are
/// moved by the kernel (NUMA balancing) some time, so this is to be asked early.
#[track_caller]
fn is_near(mappings: &[Mapping], name: &str) {
    let named = mappings
        .iter()
        .filter(|mapping| mapping.line.contains(name));
    let nodes: BTreeSet<usize> = named.flat_map(|file| file.pages.keys().copied()).collect();
    assert_eq!(nodes, BTreeSet::from([1]), "{name}");
}

/// The benchmark is a client with memory of its own.
fn programs() -> [PathBuf; 2] {
    let daemon = Path::new(env!("CARGO_BIN_EXE_bellwire"));
    let bench = daemon.with_file_name("bellwire-bench");
    assert!(
        bench.exists(),
        "{} is not there: run cargo build --workspace",
        bench.display()
    );
    [daemon.to_owned(), bench]
}

#[test]
fn memory_is_on_the_node_of_the_reactors_that_use_it() {
    let stage = Stage::new();
    let image = stage.dir().join("image.cpio");
    image_with_programs(&stage.testbed("initramfs.cpio"), &programs(), &image)
        .expect("an image with the programs");
    let mut vm = Vm::boot(&stage, &Machine::new().image(image).two_nodes());
    one_node(&mut vm);
    both_nodes(&mut vm);
    a_full_node(&mut vm);
    vm.power_off();
}

/// A reactor on node 1: the control thread, which makes the disk, is on node 0.
fn one_node(vm: &mut Vm) {
    serve(
        vm,
        "-m [1] --bdev malloc:disk,size=96m --controller socket=/tmp/disk.sock,ns=disk",
    );
    let control = vm.run(". /tmp/pid; grep Cpus_allowed_list /proc/$pid/status");
    assert_eq!(control.split_whitespace().last(), Some("0"));
    let found = mappings(vm);
    assert_eq!(*disk(&found, 96), BTreeMap::from([(1, 96 * PAGES_PER_MIB)]));
    is_near(&found, "bellwire-state");

    // A client on node 0, which is the first to touch the doorbells and its memory, until that was
    // noticed. The kernel would move the pages that the reactor uses to the reactor's node.
    vm.run("echo 0 >/proc/sys/kernel/numa_balancing");
    vm.run(
        "taskset -c 0 bellwire-bench run --target /tmp/disk.sock --rw randread --iodepth 32 \
         --runtime 60 --cores [0] >/tmp/bench 2>&1 & \
         for tenth in $(seq 200); do grep -q WARN /tmp/log && break; sleep 0.1; done; \
         kill $!; wait $! || true",
    );
    let found = mappings(vm);
    is_near(&found, "bellwire-doorbells");
    let log = stop(vm);
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for part in [
        "guest memory is on another node",
        "/tmp/disk.sock",
        "memory=0",
        "cores=\"1\"",
    ] {
        assert!(warnings[0].contains(part), "{log}");
    }
}

/// A reactor on each node, and disks that one of them or both use.
fn both_nodes(vm: &mut Vm) {
    serve(
        vm,
        "-m [0,1] --idle sleep=100 --bdev malloc:zero,size=32m --bdev malloc:one,size=48m \
         --bdev malloc:both,size=64m --controller socket=/tmp/zero.sock,ns=zero,cores=[0] \
         --controller socket=/tmp/one.sock,ns=one,cores=[1] \
         --controller socket=/tmp/both.sock,ns=both",
    );
    let found = mappings(vm);
    assert_eq!(*disk(&found, 32), BTreeMap::from([(0, 32 * PAGES_PER_MIB)]));
    assert_eq!(*disk(&found, 48), BTreeMap::from([(1, 48 * PAGES_PER_MIB)]));
    let half = 32 * PAGES_PER_MIB;
    assert_eq!(*disk(&found, 64), BTreeMap::from([(0, half), (1, half)]));
    let log = stop(vm);
    let warned = |part: &str| {
        log.lines()
            .any(|line| line.contains("WARN") && line.contains(part))
    };
    assert!(
        warned("controller /tmp/both.sock: its reactors are on nodes 0,1"),
        "{log}"
    );
    assert!(
        warned("disk both: its memory is spread over nodes 0,1"),
        "{log}"
    );
    assert_eq!(log.matches("WARN").count(), 2, "{log}");
}

/// A disk larger than the node of its reactor.
fn a_full_node(vm: &mut Vm) {
    serve(
        vm,
        "-m [1] --bdev malloc:disk,size=272m --controller socket=/tmp/disk.sock,ns=disk",
    );
    let found = mappings(vm);
    let pages = disk(&found, 272);
    let (far, near) = (pages[&0], pages[&1]);
    let log = stop(vm);
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let percent = 100 * far / (far + near);
    let said = (percent.saturating_sub(1)..=percent + 1).any(|percent| {
        warnings[0].contains(&format!(
            "disk disk: {percent} % of its memory is on other nodes"
        ))
    });
    assert!(said, "{percent} %: {log}");
}

//! Resets of every kind with commands in flight: what was acknowledged before is there after, and
//! nothing of what was in flight touches memory once the reset is answered.

use std::os::unix::fs::FileExt;

use nvme::spec::NvmOpcode;
use nvme::spec::registers::offset;
use vfio_user::region;

use crate::daemon::Daemon;
use crate::host::{DATA, Host, IN_FLIGHT_MAX, Link, PAGE, contents};
use crate::stage::Stage;

/// Pages that are written once; those after them are written while resets come.
const KEPT: u64 = 128;
const ROUNDS: u64 = 8;
/// PCI Express capability, its Device Control and the bit for a reset (PCI Express Base, 7.5.3.4).
const EXPRESS: u8 = 0x10;
const DEVICE_CONTROL: u64 = 8;
const INITIATE_FLR: u16 = 1 << 15;

type OurHost = Host<vfio_user::Client>;

/// Where the PCI Express capability is.
fn express(host: &mut OurHost) -> u64 {
    let mut next = [0x34];
    loop {
        let at = u64::from(next[0]);
        host.link.read(region::CONFIG, at, &mut next);
        let at = u64::from(next[0]);
        assert_ne!(at, 0, "there is no PCI Express capability");
        let mut head = [0; 2];
        host.link.read(region::CONFIG, at, &mut head);
        if head[0] == EXPRESS {
            return at;
        }
        next[0] = next[0].wrapping_add(1);
    }
}

fn function_level_reset(host: &mut OurHost) {
    let at = express(host) + DEVICE_CONTROL;
    let mut control = [0; 2];
    host.link.read(region::CONFIG, at, &mut control);
    let control = u16::from_le_bytes(control) | INITIATE_FLR;
    host.link.write(region::CONFIG, at, &control.to_le_bytes());
}

fn device_reset(host: &mut OurHost) {
    host.link.reset().expect("a reset");
}

fn controller_reset(host: &mut OurHost) {
    host.link.write(region::BAR0, offset::CC, &[0; 4]);
    host.wait_for_status("disabled", |status| !status.rdy());
}

/// Resets with as many commands in flight as there can be, over and over.
fn reset_under_load(disk: &str, reset: impl Fn(&mut OurHost)) {
    let stage = Stage::new();
    let controller = "--controller socket=DIR/a.sock,ns=a";
    let daemon = Daemon::serve(&stage, &format!("--bdev {disk} {controller}"));
    let mut host = Host::connect(&stage.path("a.sock"));
    host.write_pages(KEPT, 1);
    for version in 1..=ROUNDS {
        for slot in 0..IN_FLIGHT_MAX {
            let page = KEPT + u64::from(slot);
            let (opcode, page) = match slot % 3 {
                0 => (NvmOpcode::READ, u64::from(slot)),
                _ => (NvmOpcode::WRITE, page),
            };
            host.fill(slot, page, version);
            host.start(opcode, slot, page);
        }
        host.ring_io();
        reset(&mut host);
        check_silence(&mut host);
        host.bring_up();
        host.check_pages(KEPT, 1);
        check_blocks(&mut host, version);
    }
    host.write_pages(KEPT, 2);
    host.check_pages(KEPT, 2);
    daemon.stop();
}

/// After the answer to a reset nothing is written to memory any more.
fn check_silence(host: &mut OurHost) {
    assert!(!host.status().rdy(), "reset");
    let marks = vec![0xa5; usize::from(IN_FLIGHT_MAX) * PAGE];
    host.memory.write_all_at(&marks, DATA).expect("room");
    let queues = |host: &OurHost| {
        let mut bytes = vec![0; DATA as usize];
        host.memory.read_exact_at(&mut bytes, 0).expect("queues");
        bytes
    };
    let before = queues(host);
    for _ in 0..50 {
        assert!(!host.status().rdy());
    }
    let mut data = vec![0; marks.len()];
    host.memory.read_exact_at(&mut data, DATA).expect("data");
    assert!(data == marks, "data came after the reset");
    assert!(queues(host) == before, "a completion came after the reset");
}

/// Blocks whose write was in flight are as before or as after, each as a whole.
fn check_blocks(host: &mut OurHost, newest: u64) {
    for slot in 0..IN_FLIGHT_MAX {
        host.start(NvmOpcode::READ, slot, KEPT + u64::from(slot));
    }
    host.finish(IN_FLIGHT_MAX);
    for slot in 0..IN_FLIGHT_MAX {
        let page = KEPT + u64::from(slot);
        let mut versions = vec![vec![0; PAGE]];
        versions.extend((1..=newest).map(|version| contents(page, version)));
        for (n, block) in host.data(slot).chunks(512).enumerate() {
            let known = |version: &Vec<u8>| version[n * 512..][..512] == *block;
            assert!(versions.iter().any(known), "block {n} of page {page}");
        }
    }
}

const MALLOC: &str = "malloc:a,size=1m";
const FILE: &str = "file:a,path=DIR/image,size=1m";

#[test]
fn a_function_level_reset_of_a_memory_disk_loses_nothing() {
    reset_under_load(MALLOC, function_level_reset);
}

#[test]
fn a_function_level_reset_of_a_file_disk_loses_nothing() {
    reset_under_load(FILE, function_level_reset);
}

#[test]
fn a_device_reset_of_a_memory_disk_loses_nothing() {
    reset_under_load(MALLOC, device_reset);
}

#[test]
fn a_device_reset_of_a_file_disk_loses_nothing() {
    reset_under_load(FILE, device_reset);
}

#[test]
fn a_controller_reset_of_a_file_disk_loses_nothing() {
    reset_under_load(FILE, controller_reset);
}

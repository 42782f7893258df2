//! Coming to rest, in every way there is, while a device holds commands.

use super::machine::{DISABLED, ENABLED, HELD, MEMORY, Machine, SECOND, delete};
use crate::spec::registers::{ShutdownStatus, offset};
use crate::spec::{AdminOpcode, Status};

const NORMAL: u32 = ENABLED | 1 << 14;
const ABRUPT: u32 = ENABLED | 2 << 14;
const DEVICE_CONTROL: u64 = 0x50;
const SUBSYSTEM_RESET: u32 = 0x4e56_4d65;

/// A way to ask for a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reset {
    Disable,
    Subsystem,
    Function,
    Device,
}

const RESETS: [Reset; 4] = [
    Reset::Disable,
    Reset::Subsystem,
    Reset::Function,
    Reset::Device,
];

fn ask(machine: &mut Machine, reset: Reset) {
    match reset {
        Reset::Disable => machine.write(offset::CC, DISABLED),
        Reset::Subsystem => machine.write(offset::NSSR, SUBSYSTEM_RESET),
        Reset::Function => machine
            .controller
            .config_write(DEVICE_CONTROL, &0x8000u16.to_le_bytes()),
        Reset::Device => machine.controller.device_reset(),
    }
}

fn enable_again(machine: &mut Machine) {
    machine.enable(16);
    machine.create_pair(1);
    machine.create_pair(2);
    machine.assert_works(1, HELD);
    machine.assert_works(2, MEMORY);
}

#[test]
fn a_reset_is_done_when_the_device_has_given_everything_back() {
    for reset in RESETS {
        let mut machine = Machine::new();
        machine.held_writes(1, 3);
        ask(&mut machine, reset);
        machine.settle();
        assert!(machine.csts().rdy(), "{reset:?} did not wait");
        let by_client = matches!(reset, Reset::Function | Reset::Device);
        assert_eq!(machine.reply().is_none(), by_client, "{reset:?}");
        let before = machine.whole_memory();
        machine.device.hold(false);
        machine.settle();
        assert_eq!(machine.reply(), Some(Ok(())), "{reset:?}");
        assert!(!machine.csts().rdy(), "{reset:?}");
        assert_eq!(machine.csts().nssro(), reset == Reset::Subsystem);
        assert!(machine.whole_memory() == before, "{reset:?} completed");
        enable_again(&mut machine);
    }
}

#[test]
fn a_reset_takes_the_queues_away() {
    for reset in RESETS {
        let mut machine = Machine::new();
        ask(&mut machine, reset);
        machine.settle();
        let before = machine.whole_memory();
        // The doorbells of an admin and an I/O queue that are gone: nothing comes of them.
        for doorbell in [0x1000, 0x1008] {
            machine.write(doorbell, 1);
        }
        machine.settle();
        assert!(machine.whole_memory() == before, "{reset:?}");
        machine.enable(16);
        for opcode in [AdminOpcode::DELETE_SQ, AdminOpcode::DELETE_CQ] {
            let status = machine.admin(delete(opcode, 1));
            assert_eq!(status, Status::INVALID_QUEUE_ID, "{reset:?}");
        }
    }
}

#[test]
fn what_a_reset_forgets_depends_on_its_kind() {
    for reset in RESETS {
        let mut machine = Machine::new();
        ask(&mut machine, reset);
        machine.settle();
        let kept = reset == Reset::Disable;
        assert_eq!(machine.read(offset::AQA) != 0, kept, "{reset:?}");
        assert_eq!(machine.read(offset::ASQ) != 0, kept, "{reset:?}");
    }
}

#[test]
fn a_shutdown_is_complete_when_the_device_has_given_everything_back() {
    for shutdown in [NORMAL, ABRUPT] {
        let mut machine = Machine::new();
        machine.held_writes(1, 3);
        let submitted = machine.device.submitted();
        machine.write(offset::CC, shutdown);
        machine.settle();
        assert_eq!(machine.csts().shst(), ShutdownStatus::Occurring);
        machine.device.hold(false);
        machine.settle();
        assert_eq!(machine.csts().shst(), ShutdownStatus::Complete);
        assert!(machine.csts().rdy(), "still enabled");
        // Each of two groups has the device open; one flush covers both.
        assert_eq!(machine.device.submitted(), submitted + 1, "no flush");
        machine.write(offset::CC, DISABLED);
        machine.settle();
        assert_eq!(machine.csts().shst(), ShutdownStatus::Normal);
        enable_again(&mut machine);
    }
}

#[test]
fn a_shutdown_waits_for_its_flush() {
    let mut machine = Machine::new();
    machine.device.hold(true);
    machine.write(offset::CC, NORMAL);
    machine.settle();
    assert_eq!(machine.csts().shst(), ShutdownStatus::Occurring);
    machine.device.hold(false);
    machine.settle();
    assert_eq!(machine.csts().shst(), ShutdownStatus::Complete);
}

#[test]
fn a_host_that_enables_during_the_reset_finds_the_controller_enabled() {
    let mut machine = Machine::new();
    machine.held_writes(1, 1);
    machine.write(offset::CC, DISABLED);
    machine.settle();
    machine.write(offset::CC, ENABLED);
    machine.settle();
    machine.device.hold(false);
    machine.settle();
    assert!(machine.csts().rdy());
    machine.write(offset::CC, DISABLED);
    machine.settle();
    enable_again(&mut machine);
}

#[test]
fn io_that_never_comes_back_is_fatal_after_four_seconds() {
    for reset in [Reset::Function, Reset::Device] {
        let mut machine = Machine::new();
        machine.held_writes(1, 2);
        ask(&mut machine, reset);
        let before = machine.whole_memory();
        machine.now_ns += 4 * SECOND - 100;
        machine.settle();
        assert_eq!(machine.reply(), None, "{reset:?} in time");
        machine.now_ns += 100;
        machine.pass();
        let reply = machine.reply();
        assert!(matches!(reply, Some(Err(_))), "{reset:?}: {reply:?}");
        assert!(machine.csts().cfs(), "{reset:?}");
        machine.settle();
        assert_eq!(machine.reply(), Some(Ok(())), "{reset:?} is told once");
        machine.device.hold(false);
        machine.settle();
        assert!(machine.whole_memory() == before, "of the old life");
        // What was asked for happened in the end.
        assert!(!machine.csts().rdy() && !machine.csts().cfs());
        enable_again(&mut machine);
    }
}

#[test]
fn a_reset_outlives_the_process() {
    for held in [false, true] {
        let mut machine = Machine::new();
        machine.held_writes(1, 2);
        machine.device.hold(held);
        machine.write(offset::CC, DISABLED);
        machine.rebuild();
        machine.device.hold(false);
        machine.settle();
        assert!(!machine.csts().rdy());
        enable_again(&mut machine);
    }
}

#[test]
fn a_client_that_leaves_takes_its_memory_and_interrupts_along() {
    let mut machine = Machine::new();
    machine.held_writes(1, 2);
    machine.controller.disconnect();
    machine.now_ns += 10 * SECOND;
    machine.settle();
    assert_eq!(machine.reply(), None, "there is nobody to lose patience");
    machine.device.hold(false);
    machine.settle();
    assert_eq!(machine.reply(), Some(Ok(())));
    assert!(!machine.csts().rdy() && !machine.csts().cfs());
    let before: Vec<_> = machine.vectors.iter().map(|v| v.count()).collect();
    machine.map_all();
    machine.enable_msix();
    enable_again(&mut machine);
    let after: Vec<_> = machine.vectors.iter().map(|v| v.count()).collect();
    assert_eq!(after, before, "interrupts of the old client");
}

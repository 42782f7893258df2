//! Guest memory that comes and goes while commands run.

use super::machine::*;
use crate::spec::log_page::lid;
use crate::spec::{AdminOpcode, Cqe, NvmOpcode, Status};

fn statuses(machine: &mut Machine, id: u16) -> Vec<Status> {
    let cqes = machine.reap(id);
    cqes.iter().map(Cqe::status).collect()
}

#[test]
fn data_is_let_go_when_the_device_has_given_it_back() {
    let mut machine = Machine::new();
    machine.held_writes(1, 3);
    machine.unmap(DATA);
    machine.settle();
    assert_eq!(machine.reply(), None);
    machine.device.hold(false);
    machine.settle();
    assert_eq!(machine.reply(), Some(Ok(())));
    assert_eq!(statuses(&mut machine, 1), [Status::SUCCESS; 3]);
    machine.map(DATA);
    machine.settle();
    machine.assert_works(1, HELD);
}

#[test]
fn data_that_the_device_never_gives_back_is_fatal_after_four_seconds() {
    let mut machine = Machine::new();
    machine.held_writes(1, 1);
    machine.unmap(DATA);
    let before = machine.whole_memory();
    machine.now_ns += 4 * SECOND;
    machine.pass();
    let reply = machine.reply();
    assert!(matches!(reply, Some(Err(_))), "{reply:?}");
    assert!(machine.csts().cfs());
    machine.device.hold(false);
    machine.settle();
    assert!(machine.whole_memory() == before, "it went on");
}

#[test]
fn commands_wait_a_moment_for_data_that_was_unmapped() {
    let read = transfer(NvmOpcode::READ, NULL, data(1), 0, 8);
    let mut machine = Machine::new();
    machine.unmap(DATA);
    machine.settle();
    machine.submit(1, read);
    machine.settle();
    assert_eq!(statuses(&mut machine, 1), [], "too early");
    machine.map(DATA);
    machine.settle();
    assert_eq!(statuses(&mut machine, 1), [Status::SUCCESS]);

    machine.unmap(DATA);
    machine.settle();
    machine.submit(1, read);
    machine.now_ns += SECOND;
    machine.settle();
    assert_eq!(statuses(&mut machine, 1), [Status::DATA_TRANSFER_ERROR]);
}

#[test]
fn completions_wait_for_the_memory_of_their_queue() {
    let mut machine = Machine::new();
    // Around the ring once, so that neither the place nor the phase is the first.
    for _ in 0..9 {
        machine.assert_works(1, HELD);
    }
    machine.held_writes(1, 3);
    machine.unmap(IO);
    machine.settle();
    assert_eq!(machine.reply(), Some(Ok(())), "the device has no ring");
    let before = machine.get(IO, 4 * PAGE);
    machine.device.hold(false);
    machine.submit(2, transfer(NvmOpcode::READ, NULL, data(1), 0, 8));
    machine.settle();
    assert_eq!(machine.reap(1).len() + machine.reap(2).len(), 0);
    // The host put one entry there; the controller wrote nothing.
    assert_eq!(machine.get(IO, 2 * PAGE), before[..2 * PAGE as usize]);
    machine.map(IO);
    machine.settle();
    assert_eq!(statuses(&mut machine, 1), [Status::SUCCESS; 3]);
    assert_eq!(statuses(&mut machine, 2), [Status::SUCCESS]);
}

#[test]
fn admin_commands_wait_for_the_memory_of_their_queue() {
    let mut machine = Machine::new();
    machine.unmap(ADMIN);
    machine.settle();
    assert_eq!(machine.reply(), Some(Ok(())));
    let page = admin(
        AdminOpcode::GET_LOG_PAGE,
        DATA,
        [u32::from(lid::SMART) | 127 << 16, 0],
    );
    machine.submit(0, page);
    machine.settle();
    assert_eq!(statuses(&mut machine, 0), []);
    machine.assert_works(1, HELD);
    machine.map(ADMIN);
    machine.settle();
    assert_eq!(statuses(&mut machine, 0), [Status::SUCCESS]);
}

#[test]
fn completions_that_wait_for_memory_outlive_the_process() {
    for dies in [false, true] {
        delete_while_memory_is_away(dies);
    }
}

fn delete_while_memory_is_away(dies: bool) {
    let mut machine = Machine::new();
    machine.held_writes(1, 2);
    machine.submit(0, delete(AdminOpcode::DELETE_SQ, 1));
    machine.settle();
    machine.unmap(ADMIN);
    machine.unmap(IO);
    machine.device.hold(false);
    machine.settle();
    assert_eq!(statuses(&mut machine, 0), []);
    if dies {
        machine.rebuild();
        machine.settle();
    }
    machine.map(ADMIN);
    machine.map(IO);
    machine.settle();
    assert_eq!(statuses(&mut machine, 1), [Status::SUCCESS; 2]);
    assert_eq!(statuses(&mut machine, 0), [Status::SUCCESS]);
}

#[test]
fn memory_goes_and_comes_under_load() {
    let mut machine = Machine::new();
    for round in 0..30 {
        machine.device.hold(true);
        for lba in 0..4 {
            machine.submit(1, transfer(NvmOpcode::WRITE, HELD, data(lba), lba * 8, 8));
        }
        if round % 2 == 0 {
            machine.settle();
        }
        for iova in [ADMIN, IO, DATA] {
            machine.unmap(iova);
        }
        machine.pass();
        machine.device.hold(false);
        machine.settle();
        assert_eq!(machine.reply(), Some(Ok(())), "round {round}");
        machine.map_all();
        machine.settle();
        assert_eq!(statuses(&mut machine, 1), [Status::SUCCESS; 4], "{round}");
    }
}

//! Asynchronous events, Abort, and what else an admin queue does with commands that take long.

use super::machine::*;
use crate::spec::log_page::lid;
use crate::spec::registers::offset;
use crate::spec::{AdminOpcode, CommandId, Cqe, NvmOpcode, Status};

/// Type 0 (error), information 1 (invalid doorbell write value), the error log.
const INVALID_DOORBELL: u32 = 0x0001_0100;
const LIMIT: usize = 4;
const KEEP_ALIVE_TIMER: u32 = 0x0f;

fn request(machine: &mut Machine) -> CommandId {
    let cid = machine.submit(0, admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0, [0; 2]));
    machine.settle();
    cid
}

fn read_log(machine: &mut Machine, flags: u32) {
    let cdws = [u32::from(lid::ERROR) | flags | 15 << 16, 0];
    let status = machine.admin(admin(AdminOpcode::GET_LOG_PAGE, DATA, cdws));
    assert_eq!(status, Status::SUCCESS);
}

/// Rings past the end of an I/O queue, which stops it.
fn ring_past_the_end(machine: &mut Machine, id: u16) {
    machine.write(0x1000 + u64::from(id) * 8, 8);
    machine.settle();
}

fn abort(machine: &mut Machine, sqid: u16, cid: CommandId) -> (Status, u32) {
    let cdw10 = u32::from(cid.0) << 16 | u32::from(sqid);
    machine.admin_dword0(admin(AdminOpcode::ABORT, 0, [cdw10, 0]))
}

#[test]
fn event_requests_leave_room_in_an_admin_queue_of_two_entries() {
    let mut machine = Machine::with(config(), malloc());
    machine.bind_vectors();
    machine.enable(2);
    let requests: Vec<CommandId> = (0..LIMIT).map(|_| request(&mut machine)).collect();
    assert_eq!(machine.events(), []);
    let one_more = admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0, [0; 2]);
    assert_eq!(machine.admin(one_more), Status::ASYNC_EVENT_LIMIT_EXCEEDED);
    machine.create_pair(1);
    machine.assert_works(1, HELD);
    // The only place is taken by a completion; the event waits until it is consumed.
    let busy = machine.submit(0, admin(AdminOpcode::KEEP_ALIVE, 0, [0; 2]));
    machine.settle();
    ring_past_the_end(&mut machine, 1);
    let cids: Vec<CommandId> = machine.reap(0).iter().map(Cqe::cid).collect();
    assert_eq!(cids, [busy]);
    assert_eq!(machine.events(), [(requests[0], INVALID_DOORBELL)]);
}

#[test]
fn an_event_is_told_once_until_its_log_page_was_read() {
    let mut machine = Machine::new();
    let [first, second] = [request(&mut machine), request(&mut machine)];
    ring_past_the_end(&mut machine, 1);
    assert_eq!(machine.events(), [(first, INVALID_DOORBELL)]);
    ring_past_the_end(&mut machine, 2);
    assert_eq!(machine.events(), []);
    read_log(&mut machine, 1 << 15);
    assert_eq!(machine.events(), [], "the event was retained");
    read_log(&mut machine, 0);
    assert_eq!(machine.events(), [(second, INVALID_DOORBELL)]);
}

#[test]
fn event_requests_are_silently_gone_after_a_reset() {
    let mut machine = Machine::new();
    (0..LIMIT).for_each(|_| {
        request(&mut machine);
    });
    let before = machine.whole_memory();
    machine.write(offset::CC, DISABLED);
    machine.settle();
    assert!(machine.whole_memory() == before, "they were answered");
    machine.enable(16);
    machine.create_pair(1);
    ring_past_the_end(&mut machine, 1);
    assert_eq!(machine.events(), []);
    let after: Vec<CommandId> = (0..LIMIT).map(|_| request(&mut machine)).collect();
    assert_eq!(machine.events(), [(after[0], INVALID_DOORBELL)]);
}

#[test]
fn event_requests_outlive_the_process() {
    let mut machine = Machine::new();
    let first = request(&mut machine);
    machine.rebuild();
    machine.settle();
    assert_eq!(machine.events(), []);
    ring_past_the_end(&mut machine, 1);
    machine.rebuild();
    let events = machine.events();
    assert!(events.contains(&(first, INVALID_DOORBELL)), "{events:?}");
    machine.assert_works(2, HELD);
}

#[test]
fn a_command_at_its_device_is_not_aborted_and_completes_once() {
    let mut machine = Machine::new();
    machine.device.hold(true);
    let write = transfer(NvmOpcode::WRITE, HELD, data(1), 0, 8);
    let cid = machine.submit(1, write);
    machine.settle();
    assert_eq!(abort(&mut machine, 1, cid), (Status::SUCCESS, 1));
    assert_eq!(machine.reap(1).len(), 0);
    machine.device.hold(false);
    machine.settle();
    let cids: Vec<_> = machine.reap(1).iter().map(Cqe::cid).collect();
    assert_eq!(cids, [cid]);
}

#[test]
fn a_command_that_waits_for_its_device_is_aborted() {
    let mut machine = Machine::new();
    machine.device.limit(0);
    let cid = machine.submit(1, transfer(NvmOpcode::WRITE, HELD, data(1), 0, 8));
    machine.settle();
    assert_eq!(abort(&mut machine, 1, cid), (Status::SUCCESS, 0));
    let cqes = machine.reap(1);
    assert_eq!(cqes.len(), 1);
    assert_eq!(cqes[0].status(), Status::COMMAND_ABORT_REQUESTED);
    machine.device.limit(8);
    machine.assert_works(1, HELD);
}

#[test]
fn what_is_not_there_is_not_aborted() {
    let mut machine = Machine::new();
    let unknown = CommandId(0xfffe);
    for sqid in [0, 1] {
        assert_eq!(abort(&mut machine, sqid, unknown), (Status::SUCCESS, 1));
    }
    for sqid in [3, QUEUES + 1, u16::MAX] {
        assert_eq!(abort(&mut machine, sqid, unknown).0, Status::INVALID_FIELD);
    }
}

#[test]
fn an_event_request_is_aborted_before_the_host_is_told_so() {
    let mut machine = Machine::new();
    let cid = request(&mut machine);
    let abort = machine.submit(0, admin(AdminOpcode::ABORT, 0, [u32::from(cid.0) << 16, 0]));
    machine.settle();
    let told = machine.reap(0);
    let told: Vec<_> = told.iter().map(|cqe| (cqe.cid(), cqe.status())).collect();
    let requested = Status::COMMAND_ABORT_REQUESTED;
    assert_eq!(told, [(cid, requested), (abort, Status::SUCCESS)]);
}

#[test]
fn an_event_request_is_aborted_when_there_is_room_for_that() {
    let mut machine = Machine::with(config(), malloc());
    machine.enable(2);
    let cid = request(&mut machine);
    assert_eq!(abort(&mut machine, 0, cid), (Status::SUCCESS, 0));
    machine.settle();
    let told = machine.reap(0);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].cid(), told[0].status()),
        (cid, Status::COMMAND_ABORT_REQUESTED)
    );
}

#[test]
fn a_host_that_falls_silent_is_given_up() {
    let mut machine = Machine::new();
    let timer = admin(AdminOpcode::SET_FEATURES, 0, [KEEP_ALIVE_TIMER, 1000]);
    assert_eq!(machine.admin(timer), Status::SUCCESS);
    for _ in 0..5 {
        machine.now_ns += SECOND * 9 / 10;
        let alive = admin(AdminOpcode::KEEP_ALIVE, 0, [0; 2]);
        assert_eq!(machine.admin(alive), Status::SUCCESS);
    }
    machine.now_ns += SECOND * 9 / 10;
    machine.settle();
    assert!(!machine.csts().cfs(), "too early");
    machine.now_ns += SECOND * 2 / 10;
    machine.settle();
    assert!(machine.csts().cfs());
    machine.write(offset::CC, DISABLED);
    machine.settle();
    assert!(!machine.csts().cfs() && !machine.csts().rdy());
    machine.enable(16);
    // Of no command: Keep Alive Timeout Expired, and no retry.
    read_log(&mut machine, 0);
    let newest = machine.get(DATA, 16);
    assert_eq!(newest[..8], 1u64.to_le_bytes());
    assert_eq!(
        newest[8..16],
        [0xff, 0xff, 0xff, 0xff, 0x28, 0x80, 0xff, 0xff]
    );
}

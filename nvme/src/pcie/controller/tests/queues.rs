//! Creating and deleting I/O queues: every way to do it wrong (NVMe Base 2.0, 5.4 to 5.7).

use super::machine::*;
use crate::spec::{AdminOpcode, Cqe, Sqe, Status};

const LAST: u32 = DEPTH as u32 - 1;

fn assert_statuses(machine: &mut Machine, table: &[(&str, Sqe, Status)]) {
    for (what, sqe, status) in table {
        assert_eq!(machine.admin(*sqe), *status, "{what}");
    }
}

/// Clears the bit that says that the queue is contiguous.
fn scattered(sqe: Sqe) -> Sqe {
    let mut words = sqe.to_words();
    words[5] &= !(1 << 32);
    Sqe::from_words(words)
}

#[test]
fn a_completion_queue_that_cannot_be_is_refused_with_its_status() {
    let at = IO + 4 * PAGE;
    let table = [
        (
            "the admin queue",
            create_cq(0, at, 7, None),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "too high",
            create_cq(QUEUES + 1, at, 7, None),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "highest",
            create_cq(u16::MAX, at, 7, None),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "in use",
            create_cq(1, at, 7, None),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "one entry",
            create_cq(3, at, 0, None),
            Status::INVALID_QUEUE_SIZE,
        ),
        (
            "too large",
            create_cq(3, at, LAST + 1, None),
            Status::INVALID_QUEUE_SIZE,
        ),
        (
            "far too large",
            create_cq(3, at, 0xffff, None),
            Status::INVALID_QUEUE_SIZE,
        ),
        (
            "an offset",
            create_cq(3, at + 16, 7, None),
            Status::PRP_OFFSET_INVALID,
        ),
        (
            "not contiguous",
            scattered(create_cq(3, at, 7, None)),
            Status::INVALID_FIELD,
        ),
        (
            "no vector",
            create_cq(3, at, 7, Some(VECTORS)),
            Status::INVALID_INTERRUPT_VECTOR,
        ),
        (
            "no memory",
            create_cq(3, 1 << 40, 7, None),
            Status::DATA_TRANSFER_ERROR,
        ),
        (
            "after all that",
            create_cq(3, at, LAST, Some(VECTORS - 1)),
            Status::SUCCESS,
        ),
    ];
    assert_statuses(&mut Machine::new(), &table);
}

#[test]
fn a_submission_queue_that_cannot_be_is_refused_with_its_status() {
    let at = IO + 4 * PAGE;
    let table = [
        (
            "the admin queue",
            create_sq(0, at, 7, 1),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "too high",
            create_sq(QUEUES + 1, at, 7, 1),
            Status::INVALID_QUEUE_ID,
        ),
        ("in use", create_sq(1, at, 7, 1), Status::INVALID_QUEUE_ID),
        (
            "to the admin queue",
            create_sq(3, at, 7, 0),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "to none that can be",
            create_sq(3, at, 7, QUEUES + 1),
            Status::INVALID_QUEUE_ID,
        ),
        (
            "to none that is",
            create_sq(3, at, 7, 3),
            Status::COMPLETION_QUEUE_INVALID,
        ),
        (
            "one entry",
            create_sq(3, at, 0, 1),
            Status::INVALID_QUEUE_SIZE,
        ),
        (
            "too large",
            create_sq(3, at, LAST + 1, 1),
            Status::INVALID_QUEUE_SIZE,
        ),
        (
            "an offset",
            create_sq(3, at + 64, 7, 1),
            Status::PRP_OFFSET_INVALID,
        ),
        (
            "not contiguous",
            scattered(create_sq(3, at, 7, 1)),
            Status::INVALID_FIELD,
        ),
        (
            "no memory",
            create_sq(3, 1 << 40, 7, 1),
            Status::DATA_TRANSFER_ERROR,
        ),
        ("after all that", create_sq(3, at, LAST, 1), Status::SUCCESS),
    ];
    assert_statuses(&mut Machine::new(), &table);
}

#[test]
fn queues_are_deleted_in_their_order_or_not_at_all() {
    let mut machine = Machine::new();
    assert_eq!(
        machine.admin(create_sq(3, IO + 4 * PAGE, 7, 1)),
        Status::SUCCESS
    );
    let (sq, cq) = (AdminOpcode::DELETE_SQ, AdminOpcode::DELETE_CQ);
    let table = [
        ("admin", delete(sq, 0), Status::INVALID_QUEUE_ID),
        ("admin", delete(cq, 0), Status::INVALID_QUEUE_ID),
        ("none", delete(sq, 4), Status::INVALID_QUEUE_ID),
        ("none", delete(cq, 3), Status::INVALID_QUEUE_ID),
        ("too high", delete(sq, QUEUES + 1), Status::INVALID_QUEUE_ID),
        ("too high", delete(cq, u16::MAX), Status::INVALID_QUEUE_ID),
        ("used by two", delete(cq, 1), Status::INVALID_QUEUE_DELETION),
        ("one of two", delete(sq, 1), Status::SUCCESS),
        ("used by one", delete(cq, 1), Status::INVALID_QUEUE_DELETION),
        ("the other", delete(sq, 3), Status::SUCCESS),
        ("used by none", delete(cq, 1), Status::SUCCESS),
        ("twice", delete(sq, 1), Status::INVALID_QUEUE_ID),
        ("twice", delete(cq, 1), Status::INVALID_QUEUE_ID),
    ];
    assert_statuses(&mut machine, &table);
    machine.create_pair(1);
    machine.assert_works(1, HELD);
    machine.assert_works(2, HELD);
}

#[test]
fn a_deletion_waits_for_the_commands_of_its_queue() {
    let mut machine = Machine::new();
    machine.held_writes(1, 3);
    machine.submit(0, delete(AdminOpcode::DELETE_SQ, 1));
    machine.settle();
    assert!(machine.reap(0).is_empty());
    machine.device.hold(false);
    machine.settle();
    assert_eq!(machine.reap(1).len(), 3);
    let deleted = machine.reap(0);
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0].status(), Status::SUCCESS);
}

/// What comes of commands that are all in the queue before the first is looked at.
fn at_once<const N: usize>(machine: &mut Machine, sqes: [Sqe; N]) -> Vec<Status> {
    let cids = sqes.map(|sqe| machine.submit(0, sqe));
    machine.settle();
    let cqes = machine.reap(0);
    let status = |cid| cqes.iter().find(|cqe| cqe.cid() == cid).map(Cqe::status);
    cids.into_iter().filter_map(status).collect()
}

#[test]
fn a_queue_that_is_being_deleted_is_there_for_nobody_else() {
    let mut machine = Machine::new();
    let sq = delete(AdminOpcode::DELETE_SQ, 1);
    assert_eq!(
        at_once(&mut machine, [sq, sq, create_sq(1, IO, 7, 1)]),
        [
            Status::SUCCESS,
            Status::INVALID_QUEUE_ID,
            Status::INVALID_QUEUE_ID
        ]
    );
    let cq = delete(AdminOpcode::DELETE_CQ, 1);
    assert_eq!(
        at_once(&mut machine, [cq, cq, create_sq(1, IO, 7, 1)]),
        [
            Status::SUCCESS,
            Status::INVALID_QUEUE_ID,
            Status::COMPLETION_QUEUE_INVALID
        ]
    );
    machine.create_pair(1);
    machine.assert_works(1, HELD);
}

#[test]
fn a_submission_queue_whose_completion_queue_could_not_be_made_is_refused() {
    let mut machine = Machine::new();
    let nowhere = create_cq(3, 1 << 40, 7, None);
    assert_eq!(
        at_once(&mut machine, [nowhere, create_sq(3, IO + 4 * PAGE, 7, 3)]),
        [
            Status::DATA_TRANSFER_ERROR,
            Status::COMPLETION_QUEUE_INVALID
        ]
    );
    machine.create_pair(3);
    machine.assert_works(3, HELD);
}

#[test]
fn only_vector_0_is_there_when_the_pin_interrupts() {
    let mut machine = Machine::with(config(), malloc());
    machine.bind_pin();
    machine.enable(16);
    let at = IO + PAGE;
    let table = [
        (
            "not there",
            create_cq(1, at, 7, Some(1)),
            Status::INVALID_INTERRUPT_VECTOR,
        ),
        ("the pin", create_cq(1, at, 7, Some(0)), Status::SUCCESS),
        ("no interrupts", create_cq(2, at, 7, None), Status::SUCCESS),
    ];
    assert_statuses(&mut machine, &table);
}

#[test]
fn any_vector_may_be_named_once_msi_x_is_enabled() {
    let mut machine = Machine::with(config(), malloc());
    machine.enable_msix();
    machine.enable(16);
    assert_eq!(machine.admin(create_cq(1, IO, 7, Some(1))), Status::SUCCESS);
}

//! When a group may be left out of passes, and what ends that.

use std::slice;

use super::host::{self, Host};
use super::{FLUSH, Rest};
use crate::pcie::message::ToGroup;
use crate::spec::{CommandId, QueueId, Status};

fn rest(host: &mut Host) -> Option<Rest> {
    host.pass();
    host.group().rest()
}

fn is_rung(rest: &Rest) -> bool {
    Rest::first_rung(slice::from_ref(rest)).is_some()
}

fn rests(host: &mut Host) -> bool {
    rest(host).is_some_and(|rest| !is_rung(&rest))
}

/// A host with queues 1 to 3, idle.
fn idle() -> Host {
    let mut host = Host::new();
    for id in [2, 1, 3] {
        host.create_pair(id, 16);
    }
    assert!(rests(&mut host));
    host
}

#[test]
fn each_doorbell_that_is_rung_ends_the_rest() {
    for id in 1..=3 {
        let mut host = idle();
        let rest = rest(&mut host).unwrap();
        host.submit(id, host::sqe(FLUSH, 1, [0, 0], 0, 0));
        assert!(!is_rung(&rest), "queue {id}");
        host.ring(id);
        assert!(is_rung(&rest), "queue {id}");
        assert_eq!(host.reap_until(id, 1)[0].1, Status::SUCCESS);
        assert!(rests(&mut host));
    }
}

#[test]
fn a_queue_of_another_group_wakes_nobody() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.create_pair(3, 16);
    let rest = rest(&mut host).unwrap();
    host.ring_value(2, 7);
    assert!(!is_rung(&rest));
    host.submit(3, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(3);
    assert!(is_rung(&rest));
}

#[test]
fn a_completion_that_was_consumed_wakes_nobody() {
    let mut host = idle();
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    let rest = rest(&mut host).unwrap();
    assert_eq!(host.reap(1).len(), 1);
    assert!(!is_rung(&rest));
}

#[test]
fn a_group_with_as_many_queues_as_are_looked_at_together_or_one_more_rests() {
    for count in [16, 17] {
        let mut host = Host::new();
        for id in 1..=count {
            host.create_pair(id, 4);
        }
        let rest = rest(&mut host).unwrap();
        assert!(!is_rung(&rest));
        host.submit(count, host::sqe(FLUSH, 1, [0, 0], 0, 0));
        host.ring(count);
        assert!(is_rung(&rest), "queue {count}");
    }
}

#[test]
fn a_group_without_queues_rests() {
    let mut host = Host::new();
    assert!(rests(&mut host));
}

#[test]
fn whatever_changes_without_a_doorbell_keeps_a_group_awake() {
    // A command at the device.
    let mut host = idle();
    host.device().hold(true);
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    assert!(!rests(&mut host));
    host.device().hold(false);
    host.pass();
    assert!(rests(&mut host));
    // An interrupt that nothing is bound for.
    let mut host = idle();
    host.bind(false);
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    assert!(!rests(&mut host));
    host.bind(true);
    assert!(rests(&mut host));
    // Commands for which the completion queue has no room yet.
    let mut host = Host::new();
    host.create_queues(1, 16, 4);
    for _ in 0..5 {
        host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    }
    host.ring(1);
    for _ in 0..3 {
        assert!(!rests(&mut host));
    }
    assert_eq!(host.reap_until(1, 5).len(), 5);
    assert!(rests(&mut host));
    // Doorbells in the guest's memory.
    let mut host = idle();
    host.use_shadow_doorbells();
    assert!(!rests(&mut host));
}

#[test]
fn after_a_request_of_the_controller_every_queue_is_looked_at_again() {
    let mut host = idle();
    host.ask(ToGroup::Abort {
        sqid: QueueId(1),
        cid: CommandId(1),
    });
    assert!(host.group().rest().is_none());
    assert!(rests(&mut host));
}

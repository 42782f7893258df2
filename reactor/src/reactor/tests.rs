//! A reactor whose passes are made by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nvme::pcie::message::ToGroup;
use tempfile::TempDir;
use vfio_user::client::Client;
use vfio_user::region;

use super::*;
use crate::endpoint::tests::Seeds;
use crate::message::{Inbox, Place};

/// Guards against hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes passes until the thread has ended.
fn poll<T>(reactor: &mut Reactor, until: JoinHandle<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while !until.is_finished() {
        assert!(Instant::now() < deadline, "the client is never answered");
        reactor.pass();
    }
    until.join().unwrap()
}

/// A reactor with one endpoint and one group without queues; its socket, and the folder of that.
fn reactor() -> (Reactor, PathBuf, TempDir) {
    let seeds = Seeds::new();
    let reactor = reactor_of(vec![seeds.endpoint], seeds.group, seeds.post);
    let socket = seeds.folder.path().join("socket");
    (reactor, socket, seeds.folder)
}

fn reactor_of(endpoints: Vec<EndpointSeed>, group: GroupSeed, post: Post) -> Reactor {
    let reactor = Reactor::new(ReactorSeed {
        id: ReactorId(0),
        core: cpu::allowed().unwrap().cores().last().unwrap(),
        endpoints,
        groups: vec![(ControllerId(0), group)],
        limits: IoLimits::default(),
        worker_cores: Vec::new(),
        idle: Idle::Spin,
        post,
    });
    reactor.unwrap()
}

/// Endpoints that sleep here are not looked at after a time, which would hide that nobody tells.
#[test]
fn what_arrives_at_a_silent_socket_is_heard() {
    let (mut reactor, socket, _folder) = reactor();
    reactor.pass();
    reactor.endpoints[0].sleep();
    let client = thread::spawn(move || Client::connect(&socket).unwrap());
    let mut client = poll(&mut reactor, client);
    reactor.endpoints[0].sleep();
    let read = thread::spawn(move || {
        let mut version = [0; 4];
        client.region_read(region::BAR0, 8, &mut version).unwrap();
        version
    });
    assert_ne!(poll(&mut reactor, read), [0; 4]);
}

/// Makes passes for a while in which nothing happens.
fn rest(reactor: &mut Reactor) {
    let quiet = thread::spawn(|| thread::sleep(Duration::from_millis(5)));
    poll(reactor, quiet);
    assert_eq!(reactor.busy_ns, 0);
}

/// Or each message of a guest that boots would wait for a sleep that grows.
#[test]
fn a_reactor_whose_client_says_something_is_not_idle() {
    let (mut reactor, socket, _folder) = reactor();
    rest(&mut reactor);
    let client = thread::spawn(move || Client::connect(&socket).unwrap());
    let _client = poll(&mut reactor, client);
    let busy_ns = reactor.busy_ns;
    assert_ne!(busy_ns, 0);
    // What it said counts once, though it is likely to go on.
    let silent = thread::spawn(|| thread::sleep(Duration::from_millis(5)));
    poll(&mut reactor, silent);
    assert_eq!(reactor.busy_ns, busy_ns);
    assert!(reactor.now_ns > busy_ns);
}

/// The client talks with another reactor.
#[test]
fn a_reactor_that_has_a_poll_group_only_is_not_idle_when_that_is_told_something() {
    let seeds = Seeds::new();
    let place = Place {
        home: ReactorId(1),
        groups: vec![ReactorId(0)],
    };
    let post = Post {
        reactors: vec![Inbox::new(), Inbox::new()],
        places: Arc::new(vec![place]),
        ..seeds.post
    };
    let mut reactor = reactor_of(Vec::new(), seeds.group, post.clone());
    rest(&mut reactor);
    let envelope = Envelope {
        sequence: 7,
        body: ToGroup::UnmapAll,
    };
    let message = ToReactor::ToGroup(ControllerId(0), GroupId(0), envelope);
    assert!(post.to_reactor(ReactorId(0), message).is_ok());
    for _ in 0..=CONTROL_PASSES {
        reactor.pass();
    }
    let told = post.reactors[1].receive();
    assert!(matches!(told, Some(ToReactor::FromGroup(..))), "{told:?}");
    assert_ne!(reactor.busy_ns, 0);
}

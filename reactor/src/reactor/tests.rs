//! A reactor whose passes are made by hand.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use tempfile::TempDir;
use vfio_user::client::Client;
use vfio_user::region;

use super::*;
use crate::endpoint::tests::Seeds;

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
    let reactor = Reactor::new(ReactorSeed {
        id: ReactorId(0),
        core: cpu::allowed().unwrap().cores().last().unwrap(),
        endpoints: vec![seeds.endpoint],
        groups: vec![(ControllerId(0), seeds.group)],
        limits: IoLimits::default(),
        worker_cores: Vec::new(),
        idle: Idle::Spin,
        post: seeds.post,
    });
    let socket = seeds.folder.path().join("socket");
    (reactor.unwrap(), socket, seeds.folder)
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

/// Or each message of a guest that boots would wait for a sleep.
#[test]
fn a_reactor_whose_client_talks_is_not_idle() {
    let (mut reactor, socket, _folder) = reactor();
    let quiet = thread::spawn(|| thread::sleep(Duration::from_millis(5)));
    poll(&mut reactor, quiet);
    assert_eq!(reactor.busy_ns, 0);
    let client = thread::spawn(move || Client::connect(&socket).unwrap());
    poll(&mut reactor, client);
    assert_ne!(reactor.busy_ns, 0);
}

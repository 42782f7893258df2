//! A reactor whose passes are made by hand.

use std::thread::{self, JoinHandle};

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

/// Endpoints that sleep here are not looked at after a time, which would hide that nobody tells.
#[test]
fn what_arrives_at_a_silent_socket_is_heard() {
    let seeds = Seeds::new();
    let socket = seeds.folder.path().join("socket");
    let mut reactor = Reactor::new(ReactorSeed {
        id: ReactorId(0),
        core: cpu::allowed().unwrap().cores().last().unwrap(),
        endpoints: vec![seeds.endpoint],
        groups: vec![(ControllerId(0), seeds.group)],
        limits: IoLimits::default(),
        worker_cores: Vec::new(),
        idle: Idle::Spin,
        post: seeds.post,
    })
    .unwrap();
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

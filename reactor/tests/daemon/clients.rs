//! Clients that take turns, and clients that behave badly: nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nvme::spec::NvmOpcode;
use vfio_user::protocol::{Command, RegionAccess};
use vfio_user::{Client, region};
use zerocopy::IntoBytes;

use crate::daemon::Daemon;
use crate::host::{Host, IN_FLIGHT_MAX};
use crate::stage::Stage;

const TWO: &str = "--bdev malloc:a,size=1m --bdev file:b,path=DIR/image,size=1m \
                   --controller socket=DIR/a.sock,ns=a --controller socket=DIR/b.sock,ns=b";

#[test]
fn a_client_is_served_when_the_one_before_it_has_left() {
    let stage = Stage::new();
    let daemon = Daemon::serve(&stage, TWO);
    let mut first = Host::connect(&stage.path("a.sock"));
    let second = UnixStream::connect(stage.path("a.sock")).expect("a place in the queue");
    let mut second = Client::unversioned(second);
    let version = b"\0\0\x01\0{}\0";
    let asked = second.send_command(Command::VERSION, version, &[]);
    let asked = asked.expect("a request");
    for round in 0..20 {
        first.write_pages(64, round);
        first.check_pages(64, round);
        second.stream().set_nonblocking(true).expect("a socket");
        let heard = second.stream().read(&mut [0]);
        let heard = heard.expect_err("no answer yet");
        assert_eq!(heard.kind(), ErrorKind::WouldBlock, "{heard}");
    }
    drop(first);
    let reply = second.recv_raw().expect("an answer");
    assert_eq!(reply.header.message_id, asked);
    assert!(!reply.header.flags.is_error());
    let mut second = Host::over(second);
    second.check_pages(64, 19);
    daemon.stop();
}

/// Lets a client of one disk do as `misbehave` says, again and again, while the client of another
/// moves verified data; then the next client of the first disk finds it as it was.
fn beside(misbehave: impl Fn(&Stage) + Sync) {
    let stage = Stage::new();
    let daemon = Daemon::serve(&stage, TWO);
    Host::connect(&stage.path("a.sock")).write_pages(64, 7);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever becomes of it, the other one ends too.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (0..3).for_each(|_| misbehave(&stage));
            }));
            ended.store(true, Ordering::Relaxed);
            outcome.expect("it misbehaves as planned");
        });
        let mut other = Host::connect(&stage.path("b.sock"));
        let mut version = 0;
        while version < 3 || !ended.load(Ordering::Relaxed) {
            version += 1;
            other.write_pages(200, version);
            other.check_pages(200, version);
        }
    });
    let mut next = Host::connect(&stage.path("a.sock"));
    next.check_pages(64, 7);
    daemon.stop();
}

/// A host with as many commands in flight as there can be; they touch pages after the first 64.
fn loaded(stage: &Stage) -> Host<Client> {
    let mut host = Host::connect(&stage.path("a.sock"));
    for slot in 0..IN_FLIGHT_MAX {
        let opcode = [NvmOpcode::READ, NvmOpcode::WRITE][usize::from(slot % 2)];
        host.start(opcode, slot, 100 + u64::from(slot));
    }
    host.ring_io();
    host
}

#[test]
fn a_client_that_dies_with_commands_in_flight_is_not_missed() {
    beside(|stage| drop(loaded(stage)));
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_message_is_not_missed() {
    beside(|stage| {
        let whole = [7, 0, 9, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
        for bytes in [1, 15, 16, 19] {
            let mut host = loaded(stage);
            host.link.send_raw(&whole[..bytes], &[]).expect("room");
        }
    });
}

#[test]
fn a_silent_client_holds_up_nobody() {
    beside(|stage| {
        let silent = UnixStream::connect(stage.path("a.sock")).expect("a connection");
        thread::sleep(Duration::from_millis(50));
        drop(silent);
    });
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    beside(|stage| {
        let mut deaf = loaded(stage).link;
        deaf.set_timeout(Duration::from_millis(100));
        let access = RegionAccess {
            offset: 0,
            region: region::CONFIG,
            count: 4096,
        };
        let full = (0..1 << 20).find_map(|_| {
            let sent = deaf.send_command(Command::REGION_READ, access.as_bytes(), &[]);
            sent.err()
        });
        full.expect("at some point there is no more room");
    });
}

#[test]
fn a_client_that_sends_byte_by_byte_holds_up_nobody() {
    beside(|stage| {
        let slow = UnixStream::connect(stage.path("a.sock")).expect("a connection");
        let message = b"\x05\0\x01\0\x17\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0{}\0";
        for byte in message {
            (&slow).write_all(&[*byte]).expect("room");
            thread::sleep(Duration::from_millis(1));
        }
        let mut reply = [0; 16];
        (&slow).read_exact(&mut reply).expect("an answer");
        assert_eq!(reply[..4], [5, 0, 1, 0]);
        assert_eq!(reply[8] & 0x20, 0, "not an error");
    });
}

#[test]
fn a_client_that_sends_nonsense_holds_up_nobody() {
    beside(|stage| {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut stream = UnixStream::connect(stage.path("a.sock")).expect("a connection");
            // The server may hang up before it has all.
            let _ = stream.write_all(&[byte; 4096]);
            let mut host = loaded_when_free(stage, stream);
            let _ = host.link.send_raw(&[byte; 4096], &[]);
        }
    });
}

/// As [`loaded`], once the connection before it is over.
fn loaded_when_free(stage: &Stage, before: UnixStream) -> Host<Client> {
    drop(before);
    loaded(stage)
}

#[test]
fn clients_that_come_and_go_hold_up_nobody() {
    beside(|stage| {
        for _ in 0..100 {
            drop(UnixStream::connect(stage.path("a.sock")).expect("a connection"));
        }
    });
}

#[test]
fn passes_are_short_while_more_than_one_controller_has_queues() {
    let stage = Stage::new();
    let two = "--log debug --bdev malloc:a,size=1m --controller socket=DIR/a.sock,ns=a \
               --bdev malloc:b,size=1m --controller socket=DIR/b.sock,ns=b";
    let daemon = Daemon::serve(&stage, two);
    let first = Host::connect(&stage.path("a.sock"));
    for _ in 0..2 {
        drop(Host::connect(&stage.path("b.sock")));
        // Its answer comes when nothing of the one before is left.
        Client::connect(&stage.path("b.sock")).expect("a connection");
    }
    drop(first);
    daemon.signal("TERM");
    let logs = daemon.wait().stderr;
    let told = logs.lines().filter(|line| line.contains("in one pass"));
    let bytes = told.filter_map(|line| Some(line.split_once("bytes=")?.1));
    let [short, long] = ["53248", "262144"];
    assert_eq!(bytes.collect::<Vec<_>>(), [short, long, short, long]);
}

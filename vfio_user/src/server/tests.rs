use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::IntoBytes;

use super::*;
use crate::client::{Client, RawMessage};
use crate::device::DmaMap;
use crate::frame::{FDS_PER_MESSAGE, OUTBOX_BYTES, OUTBOX_FDS};
use crate::protocol::{
    self, Command, DeviceInfoPayload, DmaMapPayload, HEADER_SIZE, Header, HeaderFlags,
    RegionAccess, RegionInfoPayload,
};
use crate::scripted::{Call, Scripted};

/// A server that is polled by hand, so that nothing depends on time.
struct Rig {
    server: Server,
    device: Scripted,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = Server::new(listener.into(), ServerLimits::default());
        Rig {
            server,
            device: Scripted::new(),
            path,
            _folder: folder,
        }
    }

    /// Passes until one has nothing to do.
    fn settle(&mut self) {
        while self.server.poll(&mut self.device) {}
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.path).expect("a connection");
        let mut client = Client::unversioned(stream);
        client.set_timeout(Duration::ZERO);
        client
    }

    fn connect_and_negotiate(&mut self) -> Client {
        let mut client = self.connect();
        let reply = self.ask(&mut client, Command::VERSION, &[0; 4], &[]);
        assert_eq!(reply.header.flags, HeaderFlags::REPLY);
        self.device.take_calls();
        client
    }

    fn ask(
        &mut self,
        client: &mut Client,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> RawMessage {
        client.send_command(command, payload, fds).expect("room");
        self.settle();
        client.recv_raw().expect("a reply")
    }

    fn disconnect_reason(&mut self) -> String {
        loop {
            if let SessionEvent::Disconnected { reason } =
                self.server.take_event().expect("a disconnect")
            {
                return reason;
            }
        }
    }

    fn connection(&self) -> &Connection {
        match &self.server.state {
            State::Serving(connection) => connection,
            other => panic!("{other:?}"),
        }
    }
}

fn error(message: &RawMessage) -> Errno {
    assert_eq!(message.header.flags, HeaderFlags::ERROR_REPLY);
    assert_eq!(message.header.size as usize, HEADER_SIZE);
    Errno::from_raw(message.header.error as i32)
}

fn null() -> File {
    File::open("/dev/null").expect("/dev/null")
}

const INFO: DeviceInfoPayload = DeviceInfoPayload {
    argsz: 16,
    flags: 0,
    num_regions: 0,
    num_irqs: 0,
};

fn map(page: u64) -> DmaMapPayload {
    DmaMapPayload {
        argsz: 32,
        flags: 3,
        offset: 0,
        address: page << 12,
        size: 0x1000,
    }
}

/// The bytes of a whole command.
fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let size = (HEADER_SIZE + payload.len()) as u32;
    [
        Header {
            command,
            size,
            ..Header::default()
        }
        .as_bytes(),
        payload,
    ]
    .concat()
}

#[test]
fn an_idle_pass_does_nothing() {
    let mut rig = Rig::new();
    assert!(!rig.server.poll(&mut rig.device));
    let _client = rig.connect_and_negotiate();
    assert!(!rig.server.poll(&mut rig.device));
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn a_client_is_announced_with_its_process_and_user() {
    let mut rig = Rig::new();
    let client = rig.connect();
    rig.settle();
    let peer = Peer {
        pid: std::process::id() as i32,
        uid: nix::unistd::getuid().as_raw(),
    };
    assert_eq!(
        rig.server.take_event(),
        Some(SessionEvent::Connected { peer: Some(peer) })
    );
    drop(client);
    rig.settle();
    assert_eq!(rig.disconnect_reason(), "the client closed the connection");
    assert_eq!(rig.server.take_event(), None);
    assert_eq!(
        rig.device.take_calls(),
        [Call::Connected, Call::Disconnected]
    );
}

#[test]
fn the_next_client_is_served_when_the_one_before_has_left_and_the_device_rests() {
    let mut rig = Rig::new();
    let first = rig.connect_and_negotiate();
    let mut second = rig.connect();
    second
        .send_command(Command::VERSION, &[0; 4], &[])
        .expect("room");
    rig.settle();
    assert_eq!(rig.device.take_calls(), []);

    drop(first);
    rig.device.replies.push_back(Ok(Outcome::Pending));
    rig.settle();
    assert_eq!(rig.device.take_calls(), [Call::Disconnected]);
    assert!(rig.server.is_serving() && rig.server.is_waiting());
    assert!(rig.server.connection().is_none());
    for _ in 0..3 {
        assert!(!rig.server.poll(&mut rig.device));
        assert!(second.recv_raw().is_err());
    }
    rig.device.pending.push_back(Ok(Outcome::Done));
    rig.settle();
    assert_eq!(rig.device.take_calls(), [Call::Connected]);
    assert_eq!(
        second.recv_raw().expect("a reply").header.command,
        Command::VERSION
    );
}

#[test]
fn a_device_that_cannot_rest_is_reported_and_the_next_client_is_served() {
    let mut rig = Rig::new();
    drop(rig.connect_and_negotiate());
    rig.device.replies.push_back(Ok(Outcome::Pending));
    rig.device.pending.push_back(Err(Errno::ETIMEDOUT));
    rig.settle();
    rig.disconnect_reason();
    let unsettled = SessionEvent::Unsettled {
        errno: Errno::ETIMEDOUT,
    };
    assert_eq!(rig.server.take_event(), Some(unsettled));
    rig.connect_and_negotiate();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let bytes = message(Command::DMA_MAP, map(1).as_bytes());
    for len in 1..bytes.len() {
        let mut client = rig.connect_and_negotiate();
        client
            .send_raw(&bytes[..len], &[null().as_fd(), null().as_fd()])
            .expect("room");
        rig.settle();
        drop(client);
        rig.settle();
        assert!(
            rig.disconnect_reason()
                .ends_with("in the middle of a message")
        );
        assert_eq!(rig.device.take_calls(), [Call::Disconnected]);
        assert_eq!(
            mem::take(&mut rig.device.discarded),
            2 + 1,
            "and the connection"
        );
    }
}

#[test]
fn a_client_that_leaves_while_an_operation_is_pending_is_missed_once_it_is_over() {
    let mut rig = Rig::new();
    for outcome in [Ok(Outcome::Done), Err(Errno::ETIMEDOUT)] {
        let mut client = rig.connect_and_negotiate();
        rig.device.replies.push_back(Ok(Outcome::Pending));
        client
            .send_command(Command::DEVICE_RESET, &[], &[])
            .expect("room");
        rig.settle();
        drop(client);
        rig.settle();
        assert_eq!(rig.device.take_calls(), [Call::Reset]);
        rig.device.pending.push_back(outcome);
        rig.settle();
        assert_eq!(rig.device.take_calls(), [Call::Disconnected]);
        assert!(!rig.server.is_serving());
    }
}

#[test]
fn nothing_is_read_while_an_operation_is_pending() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    rig.device.replies.push_back(Ok(Outcome::Pending));
    client
        .send_command(Command::DEVICE_RESET, &[], &[])
        .expect("room");
    client
        .send_command(Command::DEVICE_RESET, &[], &[])
        .expect("room");
    assert!(!rig.server.is_waiting());
    rig.settle();
    assert_eq!(rig.device.take_calls(), [Call::Reset]);
    assert!(client.recv_raw().is_err());
    assert!(rig.server.is_waiting());
    rig.device.pending.push_back(Ok(Outcome::Done));
    rig.settle();
    assert!(!rig.server.is_waiting());
    assert_eq!(rig.device.take_calls(), [Call::Reset]);
    let ids = [(); 2].map(|()| client.recv_raw().expect("a reply").header.message_id);
    assert_eq!(ids, [1, 2]);
}

#[test]
fn what_can_be_read_tells_when_a_pass_is_due() {
    let readable = |socket: Option<BorrowedFd<'_>>| {
        let mut sockets = [PollFd::new(socket.expect("a socket"), PollFlags::POLLIN)];
        poll(&mut sockets, PollTimeout::ZERO) == Ok(1)
    };
    let mut rig = Rig::new();
    assert!(!readable(Some(rig.server.listener())) && rig.server.connection().is_none());
    let mut client = rig.connect();
    assert!(readable(Some(rig.server.listener())));
    rig.settle();
    assert!(!readable(Some(rig.server.listener())) && !readable(rig.server.connection()));
    client
        .send_command(Command::VERSION, &[0; 4], &[])
        .expect("room");
    assert!(readable(rig.server.connection()));
    rig.settle();
    assert!(!readable(rig.server.connection()));
    drop(client);
    assert!(readable(rig.server.connection()));
}

#[test]
fn a_pass_carries_out_a_bounded_number_of_messages() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    for _ in 0..3 * MESSAGES_PER_POLL {
        client
            .send_command(Command::DEVICE_RESET, &[], &[])
            .expect("room");
    }
    for _ in 0..3 {
        assert!(rig.server.poll(&mut rig.device));
        assert_eq!(rig.device.take_calls().len(), MESSAGES_PER_POLL);
    }
    assert!(!rig.server.poll(&mut rig.device));
}

#[test]
fn a_pass_makes_a_bounded_number_of_reads() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    let bytes = message(Command::DMA_MAP, map(1).as_bytes());
    let file = null();
    // A read ends with the byte that a descriptor came with.
    for byte in &bytes {
        client.send_raw(&[*byte], &[file.as_fd()]).expect("room");
    }
    assert!(rig.server.poll(&mut rig.device));
    assert_eq!(rig.connection().assembler.received(), READS_PER_POLL);
    rig.settle();
    assert_eq!(error(&client.recv_raw().expect("a reply")), Errno::E2BIG);
}

#[test]
fn a_client_that_sends_byte_by_byte_is_understood() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    for byte in message(Command::DEVICE_GET_INFO, INFO.as_bytes()) {
        assert!(client.recv_raw().is_err());
        client.send_raw(&[byte], &[]).expect("room");
        rig.settle();
    }
    let reply = client.recv_raw().expect("a reply");
    let info: DeviceInfoPayload = protocol::take_all(&reply.body).expect("device info");
    assert_eq!(info.num_regions, 9);
}

#[test]
fn a_burst_of_maps_keeps_each_descriptor_with_its_map() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    let with_fd = |page: u64| ![2, 3, 7].contains(&page);
    let file = null();
    for page in 1..=9 {
        let fds = if with_fd(page) {
            &[file.as_fd()][..]
        } else {
            &[]
        };
        client
            .send_command(Command::DMA_MAP, map(page).as_bytes(), fds)
            .expect("room");
    }
    rig.settle();
    let expected: Vec<Call> = (1..=9)
        .map(|page| {
            let iova = page << 12;
            let map = DmaMap {
                iova,
                len: 0x1000,
                offset: 0,
                read: true,
                write: true,
            };
            Call::Map(map, with_fd(page))
        })
        .collect();
    assert_eq!(rig.device.take_calls(), expected);
    for id in 1..=9 {
        let reply = client.recv_raw().expect("a reply");
        assert_eq!(
            (reply.header.message_id, reply.header.flags),
            (id, HeaderFlags::REPLY)
        );
    }
}

/// Sends `bytes` over and over until there is room for no more, and the server reads no more.
fn overfill(rig: &mut Rig, client: &Client, bytes: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        match socket::send(client.stream().as_fd(), bytes, &[]) {
            // A short message is taken whole or not at all.
            Ok(taken) => sent += usize::from(taken == bytes.len()),
            Err(Errno::EAGAIN) => {
                if !rig.server.poll(&mut rig.device) {
                    return sent;
                }
            }
            Err(errno) => panic!("{errno}"),
        }
    }
}

#[test]
fn a_client_that_reads_no_replies_is_heard_no_more_until_it_does() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    let read = RegionAccess {
        offset: 0,
        region: 7,
        count: 4096,
    };
    let sent = overfill(
        &mut rig,
        &client,
        &message(Command::REGION_READ, read.as_bytes()),
    );
    assert!(sent > 100);
    let connection = rig.connection();
    assert!(connection.outbox.is_full());
    assert!(connection.outbox.unsent() < OUTBOX_BYTES + 2 * 4096);
    assert!(!rig.server.poll(&mut rig.device));
    assert!(rig.server.is_waiting());

    let mut replies = 0;
    while replies < sent {
        while let Ok(reply) = client.recv_raw() {
            assert_eq!(reply.body.len(), 16 + 4096);
            replies += 1;
        }
        rig.server.poll(&mut rig.device);
    }
    assert_eq!(rig.device.take_calls().len(), sent);
    assert!(rig.connection().outbox.is_empty());
    assert!(!rig.server.is_waiting());
}

#[test]
fn descriptors_for_a_client_that_does_not_read_are_few() {
    let mut rig = Rig::new();
    let client = rig.connect_and_negotiate();
    let request = RegionInfoPayload {
        argsz: 64,
        ..Default::default()
    };
    let bytes = message(Command::DEVICE_GET_REGION_INFO, request.as_bytes());
    overfill(&mut rig, &client, &bytes);
    assert_eq!(rig.connection().outbox.descriptors(), OUTBOX_FDS);
    let mut fds = Vec::new();
    while socket::receive(client.stream().as_fd(), &mut [0; 80], &mut fds).is_ok() {}
    assert!(fds.len() < 100, "{} descriptors were in flight", fds.len());
}

#[test]
fn a_message_of_an_impossible_size_ends_the_session_with_an_error() {
    let mut rig = Rig::new();
    for size in [0, 15, (1 << 20) + (1 << 16), u32::MAX] {
        let mut client = rig.connect_and_negotiate();
        let header = Header {
            message_id: 9,
            command: Command::DMA_MAP,
            size,
            ..Header::default()
        };
        client
            .send_raw(header.as_bytes(), &[null().as_fd()])
            .expect("room");
        rig.settle();
        let reply = client.recv_raw().expect("an error");
        assert_eq!((reply.header.message_id, error(&reply)), (9, Errno::EINVAL));
        assert!(
            client
                .recv_raw()
                .is_err_and(|error| error.to_string().contains("closed"))
        );
        assert!(
            rig.disconnect_reason()
                .ends_with(&format!("a message of {size} bytes"))
        );
        assert_eq!(rig.device.take_calls(), [Call::Disconnected]);
        assert_eq!(
            mem::take(&mut rig.device.discarded),
            1 + 1,
            "and the connection"
        );
    }
}

#[test]
fn a_client_that_speaks_before_its_version_is_told_so_and_dropped() {
    let mut rig = Rig::new();
    let mut client = rig.connect();
    let reply = rig.ask(&mut client, Command::DEVICE_GET_INFO, INFO.as_bytes(), &[]);
    assert_eq!(error(&reply), Errno::EINVAL);
    assert!(!rig.server.is_serving());
    assert_eq!(
        rig.device.take_calls(),
        [Call::Connected, Call::Disconnected]
    );
    assert_eq!(rig.disconnect_reason(), "no version could be agreed on");
}

#[test]
fn too_many_descriptors_cost_their_message_and_nothing_else() {
    let mut rig = Rig::new();
    let mut client = rig.connect_and_negotiate();
    let file = null();
    for count in [FDS_PER_MESSAGE + 1, 253] {
        let fds = vec![file.as_fd(); count];
        let reply = rig.ask(&mut client, Command::DMA_MAP, map(1).as_bytes(), &fds);
        assert_eq!(error(&reply), Errno::E2BIG);
        assert_eq!(mem::take(&mut rig.device.discarded), count);
    }
    // Sixteen with each byte of one message.
    let fds = vec![file.as_fd(); FDS_PER_MESSAGE];
    let bytes = message(Command::DMA_MAP, map(1).as_bytes());
    for byte in &bytes {
        client.send_raw(&[*byte], &fds).expect("room");
        rig.settle();
    }
    assert_eq!(error(&client.recv_raw().expect("a reply")), Errno::E2BIG);
    assert_eq!(rig.device.discarded, FDS_PER_MESSAGE * bytes.len());
    assert_eq!(rig.device.take_calls(), []);

    let reply = rig.ask(&mut client, Command::DMA_MAP, map(1).as_bytes(), &fds[..1]);
    assert_eq!(reply.header.flags, HeaderFlags::REPLY);
}

#[test]
fn events_that_nobody_takes_do_not_pile_up() {
    let mut rig = Rig::new();
    for _ in 0..2 * EVENTS {
        drop(rig.connect());
        rig.settle();
    }
    let events = std::iter::from_fn(|| rig.server.take_event()).count();
    assert_eq!(events, EVENTS);
}

#[test]
fn a_client_sees_the_end_before_its_connection_is_closed() {
    let mut rig = Rig::new();
    rig.device.hoard = Some(Vec::new());
    let mut client = rig.connect_and_negotiate();
    client.send_raw(&[0; 32], &[]).expect("room");
    rig.settle();
    assert_eq!(error(&client.recv_raw().expect("an error")), Errno::EINVAL);
    assert!(
        client
            .recv_raw()
            .is_err_and(|error| error.to_string().contains("closed"))
    );
    assert_eq!(rig.device.hoard.map(|fds| fds.len()), Some(1));
}

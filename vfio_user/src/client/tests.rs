use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::stat::fstat;

use super::*;
use crate::device::{IrqAction, Selection, SparseArea};
use crate::scripted::{Call, Scripted};
use crate::server::Server;
use crate::{irq, region};

/// A server that a thread polls until it is stopped, which gives the device back.
struct Serving {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Scripted>,
    folder: tempfile::TempDir,
}

impl Serving {
    fn new(mut device: Scripted) -> Serving {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let mut server = Server::new(listener.into(), ServerLimits::default());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) || server.is_serving() {
                if !server.poll(&mut device) {
                    thread::yield_now();
                }
            }
            device
        });
        Serving {
            stop,
            thread,
            folder,
        }
    }

    fn client(&self) -> Client {
        Client::connect(&self.folder.path().join("socket")).expect("a client")
    }

    /// To be called when the client has left.
    fn stop(self) -> Scripted {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

#[test]
fn a_client_and_a_server_understand_each_other() {
    let serving = Serving::new(Scripted::new());
    let mut client = serving.client();
    let version = ServerVersion {
        major: 0,
        minor: 1,
        max_msg_fds: 16,
        max_data_xfer_size: 1 << 20,
    };
    assert_eq!(client.version(), version);
    assert_eq!(client.device_info().expect("info"), DeviceInfo::PCI);

    let (info, fd) = client.region_info(region::BAR0).expect("region info");
    let areas = [SparseArea {
        offset: 0x1000,
        size: 0x1000,
    }];
    assert_eq!(
        (info.size, &info.mmap[..]),
        (Scripted::BAR0_SIZE, &areas[..])
    );
    assert!(fd.is_some_and(|fd| fstat(fd).is_ok()));
    let (info, fd) = client.region_info(region::CONFIG).expect("region info");
    assert_eq!((info, fd.is_none()), (RegionInfo::plain(0x1000), true));
    let error = client.region_info(9).expect_err("there is no such region");
    assert_eq!(error.errno(), Some(Errno::EINVAL));

    let info = client.irq_info(irq::MSIX).expect("irq info");
    assert_eq!(
        info,
        IrqInfo {
            flags: irq::EVENTFD,
            count: 64
        }
    );

    let mut data = [0; 4];
    client
        .region_read(region::CONFIG, 0x20, &mut data)
        .expect("a read");
    assert_eq!(data, [0x20, 0x21, 0x22, 0x23]);
    client.region_write(4, 0x30, &[9; 8]).expect("a write");
    client.region_read(4, 0x30, &mut data).expect("a read");
    assert_eq!(data, [9; 4]);

    drop(client);
    let device = serving.stop();
    assert_eq!(device.calls.last(), Some(&Call::Disconnected));
}

#[test]
fn memory_and_a_reset_reach_the_device() {
    let serving = Serving::new(Scripted::new());
    let mut client = serving.client();
    let map = DmaMap {
        iova: 0x4000,
        len: 0x1000,
        offset: 0,
        read: true,
        write: false,
    };
    let private = DmaMap {
        iova: 0,
        write: true,
        ..map
    };
    let exact = DmaRange::Exact {
        iova: 0x4000,
        len: 0x1000,
    };
    let file = File::open("/dev/null").expect("/dev/null");
    client.dma_map(map, Some(file.as_fd())).expect("a map");
    client.dma_map(private, None).expect("a map");
    client.dma_unmap(exact).expect("an unmap");
    client.dma_unmap(DmaRange::All).expect("an unmap");
    client.reset().expect("a reset");
    drop(client);
    let expected = [
        Call::Connected,
        Call::Map(map, true),
        Call::Map(private, false),
        Call::Unmap(exact),
        Call::Unmap(DmaRange::All),
        Call::Reset,
        Call::Disconnected,
    ];
    assert_eq!(serving.stop().calls, expected);
}

#[test]
fn every_form_of_set_irqs_reaches_the_device() {
    let serving = Serving::new(Scripted::new());
    let mut client = serving.client();
    let file = File::open("/dev/null").expect("/dev/null");
    let fds = || vec![Some(file.as_fd()); 2];
    let fd = "Some(OwnedFd { fd:  })";
    let actions = [
        (
            IrqAction::Eventfds(fds()),
            format!("Eventfds([{fd}, {fd}])"),
        ),
        (
            IrqAction::Eventfds(vec![None, None]),
            "Eventfds([None, None])".into(),
        ),
        (
            IrqAction::MaskEventfds(fds()),
            format!("MaskEventfds([{fd}, {fd}])"),
        ),
        (
            IrqAction::UnmaskEventfds(fds()),
            format!("UnmaskEventfds([{fd}, {fd}])"),
        ),
        (IrqAction::Trigger(Selection::All), "Trigger(All)".into()),
        (
            IrqAction::Mask(Selection::Each(vec![true, false])),
            "Mask(Each([true, false]))".into(),
        ),
        (
            IrqAction::Unmask(Selection::Each(vec![true; 2])),
            "Unmask(Each([true, true]))".into(),
        ),
        (IrqAction::Disable, "Disable".into()),
    ];
    let mut expected = Vec::new();
    for (action, name) in actions {
        let (start, count) = if name == "Disable" { (0, 0) } else { (3, 2) };
        let irqs = SetIrqs {
            index: irq::MSIX,
            start,
            count,
            action,
        };
        client.set_irqs(&irqs).expect("interrupts");
        expected.push(name);
    }
    let action = IrqAction::Eventfds(vec![Some(file.as_fd()), None]);
    let mixed = SetIrqs {
        index: irq::MSIX,
        start: 0,
        count: 2,
        action,
    };
    assert!(matches!(
        client.set_irqs(&mixed),
        Err(ClientError::BadRequest { .. })
    ));
    drop(client);
    let names: Vec<String> = serving
        .stop()
        .irqs
        .iter()
        .map(|irqs| format!("{:?}", irqs.action).replace(|c: char| c.is_ascii_digit(), ""))
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn a_long_transfer_goes_through_small_buffers() {
    let serving = Serving::new(Scripted::new());
    let mut client = serving.client();
    let written: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte / 255) as u8).collect();
    client
        .region_write(Scripted::LONG, 0, &written)
        .expect("a write");
    let mut read = vec![0; 1 << 20];
    client
        .region_read(Scripted::LONG, 0, &mut read)
        .expect("a read");
    assert!(read == written);
    drop(client);
    serving.stop();
}

/// A client whose server is this test, which has sent `replies` beforehand.
fn client_of(replies: &[&[u8]]) -> (Client, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a pair");
    for reply in replies {
        socket_send(&far, reply);
    }
    let mut client = Client::unversioned(near);
    client.set_timeout(Duration::ZERO);
    (client, far)
}

fn socket_send(stream: &UnixStream, bytes: &[u8]) {
    assert_eq!(
        crate::socket::send(stream.as_fd(), bytes, &[]),
        Ok(bytes.len())
    );
}

fn reply(message_id: u16, command: Command, body: &[u8]) -> Vec<u8> {
    let size = (HEADER_SIZE + body.len()) as u32;
    let header = Header {
        message_id,
        command,
        size,
        flags: HeaderFlags::REPLY,
        error: 0,
    };
    [header.as_bytes(), body].concat()
}

#[test]
fn replies_to_something_else_are_passed_over() {
    let info = DeviceInfoPayload {
        argsz: 16,
        flags: 2,
        num_regions: 3,
        num_irqs: 4,
    };
    let mut command = reply(0, Command::DEVICE_GET_INFO, info.as_bytes());
    command[8] = 0;
    let (mut client, _far) = client_of(&[
        &reply(1, Command::DEVICE_GET_INFO, &[0; 16]),
        &reply(0, Command::DEVICE_RESET, &[]),
        &command,
        &reply(0, Command::DEVICE_GET_INFO, info.as_bytes()),
    ]);
    let expected = DeviceInfo {
        flags: 2,
        regions: 3,
        irqs: 4,
    };
    assert_eq!(client.device_info().expect("info"), expected);
}

#[test]
fn nonsense_from_a_server_is_an_error() {
    let region = RegionInfoPayload {
        argsz: 33,
        ..Default::default()
    };
    let access = RegionAccess {
        offset: 0,
        region: 0,
        count: 4,
    };
    let bad = |client: &mut Client, what: &str| {
        let result = match what {
            "info" => client.device_info().map(|_| ()),
            "region" => client.region_info(0).map(|_| ()),
            "read" => client.region_read(0, 0, &mut [0; 4]),
            "write" => client.region_write(0, 0, &[0; 4]),
            _ => client.reset(),
        };
        matches!(result, Err(ClientError::BadReply { .. }))
    };
    for (what, replies) in [
        ("info", vec![reply(0, Command::DEVICE_GET_INFO, &[0; 15])]),
        (
            "region",
            vec![reply(0, Command::DEVICE_GET_REGION_INFO, &[0; 31])],
        ),
        (
            "region",
            vec![
                reply(0, Command::DEVICE_GET_REGION_INFO, region.as_bytes()),
                reply(
                    1,
                    Command::DEVICE_GET_REGION_INFO,
                    RegionInfoPayload {
                        argsz: 34,
                        ..region
                    }
                    .as_bytes(),
                ),
            ],
        ),
        (
            "read",
            vec![reply(0, Command::REGION_READ, access.as_bytes())],
        ),
        ("read", vec![reply(0, Command::REGION_READ, &[0; 20])]),
        ("write", vec![reply(0, Command::REGION_WRITE, &[0; 16])]),
        ("reset", vec![reply(0, Command::DEVICE_RESET, &[1])]),
        ("reset", vec![vec![0; 16]]),
    ] {
        let replies: Vec<&[u8]> = replies.iter().map(Vec::as_slice).collect();
        let (mut client, _far) = client_of(&replies);
        assert!(bad(&mut client, what), "{what} {replies:?}");
    }
}

#[test]
fn silence_is_a_timeout_and_a_closed_connection_says_so() {
    let (mut client, far) = client_of(&[]);
    assert!(matches!(client.reset(), Err(ClientError::Timeout { .. })));
    drop(far);
    assert!(matches!(client.reset(), Err(ClientError::Closed { .. })));
}

#[test]
fn a_server_that_does_not_answer_is_given_up_after_the_timeout_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let _silent = UnixListener::bind(&socket).expect("a socket");
    let timeout = Duration::from_millis(20);
    match Client::connect_with_timeout(&socket, timeout) {
        Err(ClientError::Timeout { waited, .. }) => assert_eq!(waited, timeout),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_name_the_command_and_the_reason() {
    let serving = Serving::new(Scripted::new());
    let mut client = serving.client();
    let error = client
        .region_write(region::ROM, 0, &[0])
        .expect_err("it is read-only");
    assert_eq!(
        error.to_string(),
        "REGION_WRITE: the server answered EINVAL: Invalid argument"
    );
    drop(client);
    serving.stop();
    let error = Client::connect(Path::new("/nonexistent/socket")).expect_err("no socket");
    assert!(
        error
            .to_string()
            .starts_with("VERSION: the connection failed: ")
    );
}

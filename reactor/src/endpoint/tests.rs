//! An endpoint whose poll group answers when it is told to, with a client on its socket.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bdev::memory::{Iova, MemoryRegion, PageKind, Protection, Seal, SharedPages};
use bdev::{IoContext, IoLimits, Null, NullConfig};
use nix::errno::Errno;
use nvme::namespace::Namespace;
use nvme::pcie::controller::{ControllerConfig, DoorbellBuffer};
use nvme::pcie::doorbell::doorbell_file_bytes;
use nvme::pcie::poll_group::{GroupSeed, PollGroup};
use nvme::pcie::state::ControllerState;
use nvme::spec::Nsid;
use nvme::subsystem::{Names, Subsystem};
use tempfile::TempDir;
use vfio_user::client::{Client, ClientError};
use vfio_user::device::{Device, IrqAction, Outcome, SetIrqs};

use super::device::UNCLOSED_MAX;
use super::*;
use crate::message::{Inbox, Place, ReactorId};

/// Between two passes: sockets are looked at less often.
const PASS_NS: u64 = 10_000;
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an endpoint and its one poll group are made from, and the folder of its `socket`.
pub(crate) struct Seeds {
    pub(crate) endpoint: EndpointSeed,
    pub(crate) group: GroupSeed,
    pub(crate) post: Post,
    pub(crate) folder: TempDir,
}

struct Rig {
    endpoint: Endpoint,
    group: PollGroup,
    post: Post,
    folder: TempDir,
    now_ns: u64,
}

fn parts() -> ControllerParts {
    let config = ControllerConfig {
        cntlid: 1,
        queues: 2,
        depth: 16,
        vectors: 2,
        intx: false,
        transfer_bytes_max: 1 << 20,
        doorbell_buffer: DoorbellBuffer::Off,
        groups: 1,
    };
    let null = NullConfig {
        name: "null0".to_owned(),
        uuid: None,
        blocks: 1024,
        block_size: 512,
    };
    let namespace = Namespace::new(Nsid(1), Null::new(null).unwrap(), false);
    let names = Names {
        nqn: "nqn.2014-08.org.example:endpoint".to_owned(),
        serial: "1".to_owned(),
        model: "test".to_owned(),
    };
    let bytes = doorbell_file_bytes(config.queues);
    ControllerParts {
        config,
        subsystem: Arc::new(Subsystem::new(names, 1, vec![Arc::new(namespace)]).unwrap()),
        state: ControllerState::new(config.queues, config.depth).unwrap(),
        doorbells: SharedPages::new("test", bytes, Seal::Doorbells).unwrap(),
    }
}

impl Seeds {
    pub(crate) fn new() -> Seeds {
        let place = Place {
            home: ReactorId(0),
            groups: vec![ReactorId(0)],
        };
        let post = Post {
            reactors: vec![Inbox::new()],
            control: Inbox::new(),
            control_thread: std::thread::current(),
            places: Arc::new(vec![place]),
        };
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let parts = parts();
        Seeds {
            group: parts.seed(GroupId(0)),
            endpoint: EndpointSeed {
                id: ControllerId(0),
                name: "socket".to_owned(),
                parts,
                listener: listener.into(),
            },
            post,
            folder,
        }
    }
}

impl Rig {
    fn new() -> Rig {
        let Seeds {
            endpoint,
            group,
            post,
            folder,
        } = Seeds::new();
        let context = IoContext::new(IoLimits::default()).unwrap();
        Rig {
            endpoint: Endpoint::new(endpoint, post.clone()).unwrap(),
            group: PollGroup::new(group, context),
            post,
            folder,
            now_ns: 0,
        }
    }

    /// A client that resets the device.
    fn reset(&self) -> JoinHandle<Result<(), ClientError>> {
        let socket = self.folder.path().join("socket");
        std::thread::spawn(move || Client::connect(&socket)?.reset())
    }

    fn pass(&mut self) {
        self.now_ns += PASS_NS;
        self.endpoint.poll(self.now_ns);
    }

    /// A pass in which the poll group is heard and answers.
    fn pass_with_group(&mut self) {
        self.pass();
        while let Some((_, envelope)) = self.endpoint.take_message() {
            self.group.receive(envelope);
        }
        self.group.poll(self.now_ns);
        while let Some(reply) = self.group.take_reply() {
            self.endpoint.receive(GroupId(0), reply);
        }
    }

    fn finish<T>(&mut self, client: JoinHandle<T>, pass: fn(&mut Rig)) -> T {
        let deadline = Instant::now() + PATIENCE;
        while !client.is_finished() {
            assert!(Instant::now() < deadline, "the client is never answered");
            pass(self);
        }
        client.join().unwrap()
    }

    fn is_told_stopped(&self) -> bool {
        matches!(self.post.control.receive(), Some(ToControl::Stopped))
    }
}

#[test]
fn a_reset_that_ends_is_answered_and_one_that_does_not_is_an_error() {
    let mut rig = Rig::new();
    let client = rig.reset();
    rig.finish(client, Rig::pass_with_group).unwrap();

    let mut rig = Rig::new();
    let client = rig.reset();
    let error = rig.finish(client, Rig::pass).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT));
    assert!(rig.endpoint.device.controller.is_fatal());
}

#[test]
fn a_client_that_was_heard_of_is_likely_to_go_on_for_a_while() {
    let mut rig = Rig::new();
    rig.pass();
    assert!(!rig.endpoint.is_talking(rig.now_ns));
    let client = rig.reset();
    rig.finish(client, Rig::pass_with_group).unwrap();
    // Its end is noticed, if it is not yet, and may be the last that was heard.
    rig.now_ns += BUSY_INTERVAL_NS;
    rig.pass();
    let heard_ns = rig.endpoint.heard_ns.unwrap();
    assert!(rig.endpoint.is_talking(heard_ns + BUSY_FOR_NS - 1));
    assert!(!rig.endpoint.is_talking(heard_ns + BUSY_FOR_NS));
}

/// The doorbells of a guest are no messages.
#[test]
fn an_admin_command_is_work_though_its_client_says_nothing() {
    let mut rig = Rig::new();
    let (backing, _fd) = Backing::memfd("guest", 0x2000, PageKind::Normal).unwrap();
    let protection = Protection {
        read: true,
        write: true,
    };
    let region = MemoryRegion::new(backing, 0, Iova(0), 0x2000, protection).unwrap();
    let controller = &mut rig.endpoint.device.controller;
    controller.map(region).unwrap();
    // Both admin queues have 16 entries; the controller is enabled.
    controller.bar_write(0, 0x24, &0x000f_000f_u32.to_le_bytes());
    controller.bar_write(0, 0x30, &0x1000_u64.to_le_bytes());
    controller.bar_write(0, 0x14, &0x0046_0001_u32.to_le_bytes());
    for _ in 0..10 {
        rig.pass_with_group();
    }
    assert!(rig.endpoint.device.controller.is_ready());
    assert!(!rig.endpoint.poll(rig.now_ns));
    rig.endpoint
        .device
        .controller
        .bar_write(0, 0x1000, &1_u32.to_le_bytes());
    assert!(rig.endpoint.poll(rig.now_ns));
    assert!(!rig.endpoint.poll(rig.now_ns));
}

#[test]
fn a_silent_socket_is_looked_at_when_it_can_be_read() {
    let mut rig = Rig::new();
    rig.pass();
    let socket = rig.folder.path().join("socket");
    let client = UnixStream::connect(socket).unwrap();
    rig.pass();
    assert!(rig.endpoint.take_new().is_none());
    rig.endpoint.readable();
    rig.pass();
    assert!(rig.endpoint.take_new().is_some());
    assert!(rig.endpoint.take_new().is_none());
    // Even if nobody says so, in the end.
    rig.now_ns += BUSY_FOR_NS;
    rig.pass();
    let looked_ns = rig.now_ns;
    drop(client);
    rig.endpoint.poll(looked_ns + IDLE_INTERVAL_NS - 1);
    assert!(rig.endpoint.server.connection().is_some());
    rig.endpoint.poll(looked_ns + IDLE_INTERVAL_NS);
    assert!(rig.endpoint.server.connection().is_none());
}

#[test]
fn an_endpoint_that_waits_for_something_else_is_looked_at_more_often() {
    let interval_ns = |rig: &mut Rig| {
        rig.pass();
        rig.endpoint.next_look_ns - rig.now_ns
    };
    assert_eq!(interval_ns(&mut Rig::new()), IDLE_INTERVAL_NS);
    let stopped = |rig: &mut Rig| rig.endpoint.stop();
    let clogged = |rig: &mut Rig| {
        for _ in 0..=UNCLOSED_MAX {
            rig.endpoint.device.discard(nix::unistd::pipe().unwrap().0);
        }
    };
    let unheard = |rig: &mut Rig| {
        while rig.post.to_control(ToControl::Stopped).is_ok() {}
        rig.endpoint.device.discard(nix::unistd::pipe().unwrap().0);
    };
    let unwatched = |rig: &mut Rig| rig.endpoint.unwatched();
    for wait in [stopped, clogged, unheard, unwatched] as [fn(&mut Rig); 4] {
        let mut rig = Rig::new();
        wait(&mut rig);
        assert_eq!(interval_ns(&mut rig), WAITING_INTERVAL_NS);
    }
}

#[test]
fn a_stop_is_told_when_the_controller_is_at_rest_and_not_before() {
    let mut rig = Rig::new();
    rig.endpoint.stop();
    for _ in 0..100 {
        // In all far longer than a client is let wait.
        rig.now_ns += 100_000_000;
        rig.pass();
    }
    assert!(!rig.is_told_stopped());
    rig.pass_with_group();
    rig.now_ns += 100_000_000;
    rig.pass();
    assert!(rig.is_told_stopped());
    assert!(!rig.is_told_stopped());
}

#[test]
fn a_descriptor_that_is_no_eventfd_is_refused_and_closed_elsewhere() {
    let mut rig = Rig::new();
    for index in [0, 2] {
        let eventfd = nix::sys::eventfd::EventFd::new().unwrap();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        let number = pipe.as_raw_fd();
        let irqs = SetIrqs {
            index,
            start: 0,
            count: 2,
            action: IrqAction::Eventfds(vec![Some(pipe), Some(eventfd.into())]),
        };
        assert_eq!(rig.endpoint.device.set_irqs(irqs), Err(Errno::EINVAL));
        match rig.post.control.receive() {
            Some(ToControl::Close(_, unwanted)) => {
                assert_eq!(unwanted.fd().as_raw_fd(), number);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn vectors_are_bound_one_after_the_other_with_none_taken_away_between() {
    const MSIX: u32 = 2;
    const NORESIZE: u32 = 1 << 3;
    let mut rig = Rig::new();
    let device = &mut rig.endpoint.device;
    assert_eq!(device.irq_flags(MSIX) & NORESIZE, 0);
    let eventfds = [0, 1].map(|_| nix::sys::eventfd::EventFd::new().unwrap());
    for (start, eventfd) in (0..).zip(&eventfds) {
        let ours = eventfd.as_fd().try_clone_to_owned().unwrap();
        let action = IrqAction::Eventfds(vec![Some(ours)]);
        let (index, count) = (MSIX, 1);
        let irqs = SetIrqs {
            index,
            start,
            count,
            action,
        };
        assert_eq!(device.set_irqs(irqs), Ok(Outcome::Done));
    }
    for (vector, eventfd) in (0..).zip(&eventfds) {
        device.controller.trigger_vector(vector);
        assert_eq!(eventfd.read().unwrap(), 1);
    }
}

#[test]
fn a_client_whose_descriptors_do_not_close_is_not_listened_to_until_they_do() {
    let mut rig = Rig::new();
    for _ in 0..=UNCLOSED_MAX {
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        rig.endpoint.device.discard(pipe);
    }
    let client = rig.reset();
    for _ in 0..1000 {
        rig.pass_with_group();
    }
    assert!(!client.is_finished());
    // One is closed, and that is enough.
    drop(rig.post.control.receive());
    rig.finish(client, Rig::pass_with_group).unwrap();
}

//! A process that has no descriptor numbers left. Alone in its file, because the limit is that of
//! the whole process.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::resource::{Resource, setrlimit};
use vfio_user::protocol::{Command, HeaderFlags};
use vfio_user::{
    Client, Device, DmaMap, DmaRange, Errno, Outcome, RegionInfo, Reply, Server, ServerLimits,
    SessionEvent, SetIrqs,
};

/// Takes what it is given, and drops it.
struct Sink;

impl Device for Sink {
    fn region_info(&self, _: u32) -> RegionInfo {
        RegionInfo::absent()
    }

    fn region_fd(&self, _: u32) -> Option<BorrowedFd<'_>> {
        None
    }

    fn irq_count(&self, _: u32) -> u32 {
        16
    }

    fn irq_flags(&self, _: u32) -> u32 {
        0
    }

    fn region_read(&mut self, _: u32, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        Ok(())
    }

    fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> Reply {
        Ok(Outcome::Done)
    }

    fn dma_map(&mut self, _: DmaMap, _: Option<OwnedFd>) -> Reply {
        Ok(Outcome::Done)
    }

    fn dma_unmap(&mut self, _: DmaRange) -> Reply {
        Ok(Outcome::Done)
    }

    fn set_irqs(&mut self, _: SetIrqs) -> Reply {
        Ok(Outcome::Done)
    }

    fn reset(&mut self) -> Reply {
        Ok(Outcome::Done)
    }

    fn poll_pending(&mut self) -> Reply {
        Ok(Outcome::Done)
    }

    fn connected(&mut self) {}

    fn disconnected(&mut self) -> Outcome {
        Outcome::Done
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

#[test]
fn descriptors_that_cannot_be_taken_are_an_error_and_none_leaks() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut server = Server::new(listener.into(), ServerLimits::default());
    let mut client = Client::unversioned(UnixStream::connect(&path).expect("a stream"));
    let mut ask = |client: &mut Client, command, payload: &[u8], fds: &[BorrowedFd<'_>]| {
        client.send_command(command, payload, fds).expect("room");
        while server.poll(&mut Sink) {}
        client.recv_raw().expect("a reply").header
    };
    assert_eq!(
        ask(&mut client, Command::VERSION, &[0; 4], &[]).flags,
        HeaderFlags::REPLY
    );

    let file = File::open("/dev/null").expect("/dev/null");
    let set_irqs: Vec<u8> = [20_u32, 0x24, 2, 0, 16]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let fds = [file.as_fd(); 16];
    let open = open_descriptors();
    // Room for some of the sixteen, not for all.
    let highest = open as u64 + 5;
    setrlimit(Resource::RLIMIT_NOFILE, highest, highest).expect("a limit");
    for _ in 0..20 {
        let reply = ask(&mut client, Command::DEVICE_SET_IRQS, &set_irqs, &fds);
        assert_eq!(reply.flags, HeaderFlags::ERROR_REPLY);
        assert_eq!(Errno::from_raw(reply.error as i32), Errno::EMFILE);
        assert_eq!(open_descriptors(), open);
    }
    let reply = ask(&mut client, Command::DEVICE_RESET, &[], &[]);
    assert_eq!(reply.flags, HeaderFlags::REPLY);

    // The next client cannot even be accepted: that is said once, and it is tried again.
    drop(client);
    while server.poll(&mut Sink) {}
    for _ in 0..2 {
        while server.take_event().is_some() {}
        let next = UnixStream::connect(&path).expect("a stream");
        let filler: Vec<File> = std::iter::from_fn(|| file.try_clone().ok()).collect();
        for _ in 0..5 {
            server.poll(&mut Sink);
        }
        let events: Vec<SessionEvent> = std::iter::from_fn(|| server.take_event()).collect();
        assert!(
            matches!(events[..], [SessionEvent::Refused { .. }]),
            "{events:?}"
        );
        drop(filler);
        assert!(server.poll(&mut Sink));
        drop(next);
        while server.poll(&mut Sink) {}
    }
}

//! What a client lends us and may take back, or never had: memory files and eventfds.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvme::spec::{NvmOpcode, Status};
use vfio_user::irq::{self, IrqAction, Selection, SetIrqs};
use vfio_user::{Client, DmaMap, Errno};

use crate::daemon::{Daemon, LIMIT};
use crate::host::{DATA, Host, IN_FLIGHT_MAX};
use crate::process::wait_for;
use crate::stage::Stage;

const TWO: &str = "--bdev malloc:b,size=1m --controller socket=DIR/a.sock,ns=a \
                   --controller socket=DIR/b.sock,ns=b";

/// Cuts off the memory of a client that has as many commands in flight as there can be, and
/// expects that nobody else notices: not the next client of the same disk either.
fn cut_off(disk: &str) {
    let stage = Stage::new();
    let daemon = Daemon::serve(&stage, &format!("--bdev {disk} {TWO}"));
    let mut other = Host::connect(&stage.path("b.sock"));
    for (version, left) in [(1, DATA), (2, 0), (3, DATA + 0x8000), (4, 0x2000)] {
        let mut victim = Host::connect(&stage.path("a.sock"));
        victim.write_pages(64, version);
        for slot in 0..IN_FLIGHT_MAX {
            let opcode = [NvmOpcode::READ, NvmOpcode::WRITE][usize::from(slot % 2)];
            victim.start(opcode, slot, 100 + u64::from(slot));
        }
        victim.ring_io();
        victim.memory.set_len(left).expect("it shrinks");
        other.write_pages(64, version);
        other.check_pages(64, version);
        drop(victim);
        let mut next = Host::connect(&stage.path("a.sock"));
        next.check_pages(64, version);
    }
    other.check_pages(64, 4);
    daemon.stop();
}

#[test]
fn memory_that_is_cut_off_under_a_memory_disk_hurts_only_its_owner() {
    cut_off("malloc:a,size=1m");
}

#[test]
fn memory_that_is_cut_off_under_a_file_disk_hurts_only_its_owner() {
    cut_off("file:a,path=DIR/image,size=1m");
}

#[test]
fn memory_that_is_cut_off_under_a_cached_file_hurts_only_its_owner() {
    cut_off("file:a,path=DIR/image,size=1m,direct=off");
}

/// Commands whose data is gone fail, or the controller says that it has.
fn gone(disk: &str) {
    let stage = Stage::new();
    let daemon = Daemon::serve(&stage, &format!("--bdev {disk} {TWO}"));
    for opcode in [NvmOpcode::READ, NvmOpcode::WRITE] {
        let mut victim = Host::connect(&stage.path("a.sock"));
        victim.write_pages(64, 1);
        victim.memory.set_len(DATA).expect("it shrinks");
        victim.start(opcode, 0, 100);
        victim.ring_io();
        let outcome = wait_for(LIMIT, || {
            let answered = victim.poll().map(|cqe| cqe.status());
            answered.or_else(|| victim.status().cfs().then_some(Status::INTERNAL_ERROR))
        });
        let status = outcome.expect("an error of one kind or the other");
        assert_ne!(status, Status::SUCCESS, "{opcode:?}");
    }
    let mut next = Host::connect(&stage.path("a.sock"));
    next.check_pages(64, 1);
    daemon.stop();
}

#[test]
fn a_command_whose_data_is_gone_fails_on_a_memory_disk() {
    gone("malloc:a,size=1m");
}

#[test]
fn a_command_whose_data_is_gone_fails_on_a_file_disk() {
    gone("file:a,path=DIR/image,size=1m");
}

fn bind(client: &mut Client, fd: BorrowedFd<'_>) -> Option<Errno> {
    let irqs = SetIrqs {
        index: irq::MSIX,
        start: 0,
        count: 1,
        action: IrqAction::Eventfds(vec![Some(fd)]),
    };
    client.set_irqs(&irqs).err().map(|error| {
        let errno = error.errno();
        errno.expect("an answer of the server")
    })
}

fn trigger(client: &mut Client) {
    let irqs: SetIrqs<BorrowedFd<'_>> = SetIrqs {
        index: irq::MSIX,
        start: 0,
        count: 1,
        action: IrqAction::Trigger(Selection::All),
    };
    client.set_irqs(&irqs).expect("a trigger");
}

#[test]
fn only_eventfds_are_bound_and_a_full_one_holds_nothing_up() {
    let stage = Stage::new();
    let disk = "--bdev malloc:a,size=1m --controller socket=DIR/a.sock,ns=a";
    let daemon = Daemon::serve(&stage, disk);
    let mut host = Host::connect(&stage.path("a.sock"));
    let eventfd = EventFd::from_flags(EfdFlags::empty()).expect("an eventfd");
    assert_eq!(bind(&mut host.link, eventfd.as_fd()), None);

    let (socket, _peer) = UnixStream::pair().expect("sockets");
    let (_out, pipe) = nix::unistd::pipe().expect("a pipe");
    let memory = memfd_create("irq", MFdFlags::empty()).expect("a memory file");
    let null = File::options().write(true).open("/dev/null");
    let null = null.expect("a device");
    let plain = File::create(stage.path("plain")).expect("a file");
    let others = [
        socket.as_fd(),
        pipe.as_fd(),
        memory.as_fd(),
        null.as_fd(),
        plain.as_fd(),
    ];
    for other in others {
        assert_eq!(bind(&mut host.link, other), Some(Errno::EINVAL));
    }
    // Completions of before were owed an interrupt.
    eventfd.write(1).expect("room");
    eventfd.read().expect("what there is");
    trigger(&mut host.link);
    assert_eq!(eventfd.read(), Ok(1), "what was bound before still is");
    assert_eq!(plain.metadata().expect("a file").len(), 0);

    eventfd.write(u64::MAX - 1).expect("room");
    trigger(&mut host.link);
    host.write_pages(64, 1);
    host.check_pages(64, 1);
    daemon.stop();
}

#[test]
fn memory_that_is_not_what_its_map_says_is_refused() {
    let stage = Stage::new();
    let disk = "--bdev malloc:a,size=1m --controller socket=DIR/a.sock,ns=a";
    let daemon = Daemon::serve(&stage, disk);
    let mut host = Host::connect(&stage.path("a.sock"));
    let small = File::from(memfd_create("small", MFdFlags::empty()).expect("a memory file"));
    small.set_len(0x1000).expect("room");
    let folder = File::open(stage.dir()).expect("a folder");
    let null = File::open("/dev/null").expect("a device");
    let (pipe, _end) = nix::unistd::pipe().expect("a pipe");
    let (socket, _peer) = UnixStream::pair().expect("sockets");
    let unwritable = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&small));
    let unwritable = File::open(unwritable).expect("the same memory for reading");
    let cases = [
        (small.as_fd(), 0, 0x2000),
        (small.as_fd(), 0x1000, 0x1000),
        (small.as_fd(), u64::MAX - 0xfff, 0x1000),
        (small.as_fd(), 1, 0x1000),
        (small.as_fd(), 0, 0x800),
        (small.as_fd(), 0, 0),
        (unwritable.as_fd(), 0, 0x1000),
        (folder.as_fd(), 0, 0x1000),
        (null.as_fd(), 0, 0x1000),
        (pipe.as_fd(), 0, 0x1000),
        (socket.as_fd(), 0, 0x1000),
    ];
    for (n, (fd, offset, len)) in cases.into_iter().enumerate() {
        let map = DmaMap {
            iova: 1 << 40,
            len,
            offset,
            read: true,
            write: true,
        };
        let error = host.link.dma_map(map, Some(fd)).expect_err("no memory");
        assert!(error.errno().is_some(), "case {n}: {error}");
    }
    host.write_pages(64, 1);
    host.check_pages(64, 1);
    daemon.stop();
}

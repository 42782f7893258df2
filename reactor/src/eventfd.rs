//! Interrupts that a client gave as eventfds.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nvme::pcie::message::Interrupt;

/// An eventfd that a client waits on. Writing to one that is full is as good as writing to any:
/// the client has not looked yet.
#[derive(Debug)]
pub struct Eventfd(OwnedFd);

impl Eventfd {
    /// Takes a client's descriptor. It is made non-blocking, as VMMs make theirs, since a reactor
    /// must not wait for whoever has to empty it.
    ///
    /// # Errors
    /// Anything but an eventfd comes back: writing to another kind of file could block or do harm,
    /// and so could closing it.
    pub fn new(fd: OwnedFd) -> Result<Eventfd, OwnedFd> {
        match is_eventfd(&fd) && make_nonblocking(&fd).is_ok() {
            true => Ok(Eventfd(fd)),
            false => Err(fd),
        }
    }
}

/// By name: asking the file itself could block on a stranger's file system.
fn is_eventfd(fd: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|name| name.as_os_str() == "anon_inode:[eventfd]")
}

fn make_nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

impl Interrupt for Eventfd {
    fn signal(&self) {
        let _ = nix::unistd::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

    #[test]
    fn a_signal_is_counted_and_a_full_one_does_not_block() {
        let eventfd = EventFd::from_flags(EfdFlags::empty()).unwrap();
        let ours = Eventfd::new(eventfd.as_fd().try_clone_to_owned().unwrap()).unwrap();
        ours.signal();
        ours.signal();
        assert_eq!(eventfd.read().unwrap(), 2);
        eventfd.write(u64::MAX - 1).unwrap();
        ours.signal();
        assert_eq!(eventfd.read().unwrap(), u64::MAX - 1);
    }

    #[test]
    fn anything_but_an_eventfd_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Eventfd::new(file.into()).is_err());
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(Eventfd::new(pipe).is_err());
    }
}

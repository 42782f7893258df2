//! The sockets of all endpoints of a reactor, looked at by one system call.
//!
//! Most clients are silent once their guest runs, and there can be many. A call for each of them
//! would take time from the guests at work, and more from their caches.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How often they are looked at.
const INTERVAL_NS: u64 = 2_000_000;

/// Sockets, each by the number of its endpoint.
#[derive(Debug)]
pub struct Sockets {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    next_look_ns: u64,
}

impl Sockets {
    /// None yet, of so many endpoints.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(endpoints: usize) -> Result<Sockets, Errno> {
        Ok(Sockets {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            // A listening socket and a connection; what finds no room is told the next time.
            events: vec![EpollEvent::empty(); 2 * endpoints],
            next_look_ns: 0,
        })
    }

    /// One more, until it is closed: whoever still has it then may keep it for as long as it likes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&self, socket: BorrowedFd<'_>, endpoint: usize) -> Result<(), Errno> {
        // On edges: one that is not read, for whatever reason, takes nobody's turn.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll
            .add(socket, EpollEvent::new(flags, endpoint as u64))
    }

    /// The endpoints of those at which something has arrived, when it is time to look. It is told
    /// once: what is left of it then is for the endpoint to remember.
    pub fn readable(&mut self, now_ns: u64) -> impl Iterator<Item = usize> {
        let mut count = 0;
        if now_ns >= self.next_look_ns && !self.events.is_empty() {
            self.next_look_ns = now_ns + INTERVAL_NS;
            // What fails now, for a signal, is told the next time.
            count = self
                .epoll
                .wait(&mut self.events, EpollTimeout::ZERO)
                .unwrap_or(0);
        }
        self.events[..count]
            .iter()
            .map(|event| event.data() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn readable(sockets: &mut Sockets, now_ns: u64) -> Vec<usize> {
        let mut readable: Vec<_> = sockets.readable(now_ns).collect();
        readable.sort_unstable();
        readable
    }

    #[test]
    fn what_arrives_is_told_once_and_not_at_any_time() {
        let mut sockets = Sockets::new(3).unwrap();
        let mut pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
        pairs[1].1.write_all(&[1]).unwrap();
        for (endpoint, (ours, _)) in pairs.iter().enumerate() {
            sockets.add(ours.as_fd(), endpoint).unwrap();
        }
        assert_eq!(readable(&mut sockets, 0), [1]);
        for endpoint in [0, 2] {
            pairs[endpoint].1.write_all(&[1]).unwrap();
        }
        assert!(readable(&mut sockets, INTERVAL_NS - 1).is_empty());
        assert_eq!(readable(&mut sockets, INTERVAL_NS), [0, 2]);
        assert!(readable(&mut sockets, 2 * INTERVAL_NS).is_empty());
        pairs[2].1.write_all(&[1]).unwrap();
        assert_eq!(readable(&mut sockets, 3 * INTERVAL_NS), [2]);
    }

    #[test]
    fn one_that_is_never_closed_takes_nobodys_turn() {
        let mut sockets = Sockets::new(1).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        sockets.add(ours.as_fd(), 0).unwrap();
        drop(theirs);
        assert_eq!(readable(&mut sockets, 0), [0]);
        ours.shutdown(Shutdown::Both).unwrap();
        assert!(readable(&mut sockets, INTERVAL_NS).len() <= 1);
        assert!(readable(&mut sockets, 2 * INTERVAL_NS).is_empty());
    }

    #[test]
    fn a_reactor_without_endpoints_has_nothing_to_look_at() {
        assert!(readable(&mut Sockets::new(0).unwrap(), 0).is_empty());
    }
}

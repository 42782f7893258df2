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

    /// One more, until it is closed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&self, socket: BorrowedFd<'_>, endpoint: usize) -> Result<(), Errno> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, endpoint as u64);
        self.epoll.add(socket, event)
    }

    /// The endpoints of those that can be read, when it is time to look. It is told again and again
    /// until they are read.
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
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn readable(sockets: &mut Sockets, now_ns: u64) -> Vec<usize> {
        let mut readable: Vec<_> = sockets.readable(now_ns).collect();
        readable.sort_unstable();
        readable
    }

    #[test]
    fn those_that_can_be_read_are_told_until_they_are_but_not_at_any_time() {
        let mut sockets = Sockets::new(3).unwrap();
        let mut pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
        for (endpoint, (ours, _)) in pairs.iter().enumerate() {
            sockets.add(ours.as_fd(), endpoint).unwrap();
        }
        assert!(readable(&mut sockets, 0).is_empty());
        for endpoint in [0, 2] {
            pairs[endpoint].1.write_all(&[1]).unwrap();
        }
        assert!(readable(&mut sockets, INTERVAL_NS - 1).is_empty());
        assert_eq!(readable(&mut sockets, INTERVAL_NS), [0, 2]);
        assert_eq!(readable(&mut sockets, 2 * INTERVAL_NS), [0, 2]);
        pairs[0].0.read_exact(&mut [0]).unwrap();
        assert_eq!(readable(&mut sockets, 3 * INTERVAL_NS), [2]);
    }

    #[test]
    fn one_whose_peer_is_gone_can_be_read_until_it_is_closed() {
        let mut sockets = Sockets::new(1).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        sockets.add(ours.as_fd(), 0).unwrap();
        drop(theirs);
        assert_eq!(readable(&mut sockets, 0), [0]);
        drop(ours);
        assert!(readable(&mut sockets, INTERVAL_NS).is_empty());
    }

    #[test]
    fn a_reactor_without_endpoints_has_nothing_to_look_at() {
        assert!(readable(&mut Sockets::new(0).unwrap(), 0).is_empty());
    }
}

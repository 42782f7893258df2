//! The connection to a target, shared by those who send messages on it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use vfio_user::Client;

use super::DriverError;

/// A connection. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    client: Arc<Mutex<Client>>,
    /// The same socket again, to be watched while another thread waits for a reply.
    watched: Arc<UnixStream>,
    timeout: Duration,
}

impl Link {
    pub(super) fn connect(socket: &Path, timeout: Duration) -> Result<Link, DriverError> {
        let failed = |source| DriverError::Connect {
            socket: socket.to_path_buf(),
            source,
        };
        let client = Client::connect_with_timeout(socket, timeout).map_err(failed)?;
        let watched = client.stream().try_clone();
        let watched = watched.map_err(|source| {
            failed(vfio_user::ClientError::Socket {
                command: vfio_user::protocol::Command::VERSION,
                source,
            })
        })?;
        Ok(Link {
            client: Arc::new(Mutex::new(client)),
            watched: Arc::new(watched),
            timeout,
        })
    }

    /// The client, for one request after another of one thread.
    pub(super) fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The process that listens at the socket, if it can be seen from here.
    pub(crate) fn peer(&self) -> Option<Pid> {
        let peer = getsockopt(&self.watched, PeerCredentials).ok()?;
        // The kernel calls processes of other PID namespaces 0.
        Some(Pid::from_raw(peer.pid())).filter(|pid| pid.as_raw() != 0)
    }

    /// Sleeps for `duration`, or until the target closes the connection: false then.
    pub(crate) fn wait(&self, duration: Duration) -> bool {
        Link::wait_any(slice::from_ref(self), duration).is_none()
    }

    /// Sleeps for `duration`, or until a target closes its connection: tells which one then.
    pub(crate) fn wait_any(links: &[Link], duration: Duration) -> Option<usize> {
        let timeout = PollTimeout::try_from(duration).unwrap_or(PollTimeout::MAX);
        // Nothing is asked for: a hang-up is told all the same, replies to others are not.
        let mut fds: Vec<PollFd<'_>> = links
            .iter()
            .map(|link| PollFd::new(link.watched.as_fd(), PollFlags::empty()))
            .collect();
        poll(&mut fds, timeout).ok()?;
        fds.iter().position(|fd| fd.any().unwrap_or(true))
    }
}

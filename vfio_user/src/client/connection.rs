//! Whole messages over a blocking connection, within a time limit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ClientError;
use crate::frame::Assembler;
use crate::protocol::{Command, Header};
use crate::session::ServerLimits;
use crate::socket;

/// A message as it came.
#[derive(Debug)]
pub struct RawMessage {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// A stream, and what has come of the message that is not yet whole. Errors name the command that
/// the caller is about.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) timeout: Duration,
    assembler: Assembler,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, timeout: Duration) -> Connection {
        let assembler = Assembler::new(ServerLimits::default().message_max());
        Connection {
            stream,
            timeout,
            assembler,
        }
    }

    /// Sends all of `bytes`, with `fds` going along with the first.
    pub(super) fn send(
        &self,
        command: Command,
        mut bytes: &[u8],
        mut fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let started = Instant::now();
        while !bytes.is_empty() {
            match socket::send(self.stream.as_fd(), bytes, fds) {
                Ok(sent) => {
                    bytes = bytes.get(sent..).unwrap_or_default();
                    fds = &[];
                }
                Err(Errno::EAGAIN) => self.wait(command, PollFlags::POLLOUT, started)?,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE) => return Err(ClientError::Closed { command }),
                Err(errno) => return Err(failed(command, errno)),
            }
        }
        Ok(())
    }

    /// The next message, which is waited for since `started`.
    pub(super) fn receive(
        &mut self,
        command: Command,
        started: Instant,
    ) -> Result<RawMessage, ClientError> {
        let mut fds = Vec::new();
        loop {
            let space = self.assembler.space();
            let received = match socket::receive(self.stream.as_fd(), space, &mut fds) {
                Ok(received) if received.bytes > 0 => received,
                Ok(_) | Err(Errno::ECONNRESET) => return Err(ClientError::Closed { command }),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    self.wait(command, PollFlags::POLLIN, started)?;
                    continue;
                }
                Err(errno) => return Err(failed(command, errno)),
            };
            match self.assembler.advance(received, &mut fds) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let body = message.body.to_vec();
                    return Ok(RawMessage {
                        header: message.header,
                        body,
                        fds: message.fds,
                    });
                }
                Err(_) => return Err(ClientError::BadReply { command }),
            }
        }
    }

    fn wait(
        &self,
        command: Command,
        readiness: PollFlags,
        started: Instant,
    ) -> Result<(), ClientError> {
        let left = self.timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(ClientError::Timeout {
                command,
                waited: self.timeout,
            });
        }
        // A part of a millisecond counts as one, so that the last wait is not a busy one.
        let millis = left.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.stream.as_fd(), readiness)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(failed(command, errno)),
        }
    }
}

fn failed(command: Command, errno: Errno) -> ClientError {
    ClientError::Socket {
        command,
        source: errno.into(),
    }
}

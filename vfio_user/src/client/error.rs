//! What can go wrong for a client.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::protocol::Command;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket could not be connected to, read or written.
    #[error("{command}: the connection failed: {source}")]
    Socket {
        /// What was asked.
        command: Command,
        /// What the system said.
        source: io::Error,
    },
    /// The server has closed the connection.
    #[error("{command}: the server closed the connection")]
    Closed {
        /// What was asked.
        command: Command,
    },
    /// No reply came in time.
    #[error("{command}: no reply after {} ms", .waited.as_millis())]
    Timeout {
        /// What was asked.
        command: Command,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server answered with an error.
    #[error("{command}: the server answered {errno}")]
    Server {
        /// What was asked.
        command: Command,
        /// What it answered; `UnknownErrno` for one that this system does not know.
        errno: Errno,
    },
    /// The server answered something that is no answer to the request.
    #[error("{command}: the server's reply makes no sense")]
    BadReply {
        /// What was asked.
        command: Command,
    },
    /// The request cannot be expressed as a message.
    #[error("{command}: the request cannot be sent: {reason}")]
    BadRequest {
        /// What was asked.
        command: Command,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ClientError {
    /// The error of the server, if that is what it is.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            ClientError::Server { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

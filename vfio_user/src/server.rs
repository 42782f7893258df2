//! The server of one socket, polled by whoever owns it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use crate::device::Device;

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id when it connected.
    pub pid: i32,
    /// User id when it connected.
    pub uid: u32,
}

/// Something worth a line in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A client has connected.
    Connected {
        /// Who it is; None where the kernel does not say.
        peer: Option<Peer>,
    },
    /// The client is gone.
    Disconnected {
        /// Why, as a phrase: "the client closed the connection".
        reason: String,
    },
    /// A client could not be accepted.
    Refused {
        /// Why, as a phrase.
        reason: String,
    },
}

/// What one server may use.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Largest `count` of one data transfer, in bytes.
    pub data_transfer_max: u32,
    /// DMA ranges that the device can hold at once, as told to clients.
    pub dma_maps_max: u32,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            data_transfer_max: 1 << 20,
            dma_maps_max: 65535,
        }
    }
}

/// One listening socket and at most one session on it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    limits: ServerLimits,
}

impl Server {
    /// Serves `listener`, a UNIX stream socket that is bound and listening.
    pub fn new(listener: OwnedFd, limits: ServerLimits) -> Server {
        Server {
            listener: UnixListener::from(listener),
            limits,
        }
    }

    /// One bounded, non-blocking pass. True if something was done.
    pub fn poll(&mut self, device: &mut dyn Device) -> bool {
        let _ = (&self.listener, self.limits, device);
        false
    }

    /// The oldest event not yet taken.
    pub fn take_event(&mut self) -> Option<SessionEvent> {
        None
    }
}

//! What can go wrong between the driver and a controller.

use std::path::PathBuf;
use std::time::Duration;

use bdev::memory::{MapError, MemoryError};
use nvme::spec::Status;
use vfio_user::ClientError;

/// Why the driver cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    #[error("cannot reach a vfio-user server at {}: {source}", .socket.display())]
    Connect {
        socket: PathBuf,
        source: ClientError,
    },
    #[error("the target failed: {0}")]
    Client(#[from] ClientError),
    #[error("the target closed the connection during {during}")]
    Closed { during: &'static str },
    #[error("no memory for the device: {0}")]
    Memory(#[from] MapError),
    #[error("memory of {bytes} bytes for data is more than the limit of {limit}")]
    MemoryLimit { bytes: u64, limit: u64 },
    #[error("an address of the driver's own is wrong: {0:?}")]
    Address(MemoryError),
    #[error(
        "the target is not an NVMe controller with a usable command set (CAP {capabilities:#x})"
    )]
    NotNvme { capabilities: u64 },
    #[error("{command} was not answered within {} ms", .waited.as_millis())]
    Timeout {
        command: &'static str,
        waited: Duration,
    },
    #[error(
        "the controller did not become {state} within {} ms (CSTS {status:#x})",
        .waited.as_millis()
    )]
    NotReady {
        state: &'static str,
        status: u32,
        waited: Duration,
    },
    #[error("the controller reports a fatal error while becoming {state} (CSTS {status:#x})")]
    Fatal { state: &'static str, status: u32 },
    #[error("{command} failed: {status}")]
    Admin {
        command: &'static str,
        status: Status,
    },
    #[error("the controller answered {command} with the identifier of another command")]
    WrongCommand { command: &'static str },
    #[error("{wanted} I/O queues were asked for, and the controller grants {granted}")]
    TooFewQueues { wanted: u16, granted: u16 },
}

impl From<MemoryError> for DriverError {
    fn from(error: MemoryError) -> DriverError {
        DriverError::Address(error)
    }
}

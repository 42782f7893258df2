//! What can go wrong while a workload runs.

use std::path::PathBuf;
use std::time::Duration;

use bdev::memory::MemoryError;
use nix::errno::Errno;
use nvme::spec::{CommandId, Nsid, QueueId, Status};

use super::block::Mismatch;
use super::extent::Lba;
use super::pattern::Action;
use crate::cores::Core;
use crate::driver::DriverError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{action} of LBA {} on namespace {} failed: {status}", .lba.0, .nsid.0)]
    Command {
        action: Action,
        lba: Lba,
        nsid: Nsid,
        status: Status,
    },
    #[error("Flush failed: {0}")]
    Flush(Status),
    #[error("verification failed at {0}")]
    Mismatch(Mismatch),
    #[error(
        "queue {} completes nothing: {in_flight} commands are in flight for {} ms",
        .queue.0, .waited.as_millis()
    )]
    Stalled {
        queue: QueueId,
        in_flight: u32,
        waited: Duration,
    },
    #[error("queue {} completed command {}, which is not in flight", .queue.0, .command.0)]
    NotInFlight { queue: QueueId, command: CommandId },
    #[error("the target closed the connection")]
    TargetGone,
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("cannot run on core {}: {errno}", .core.0)]
    Pin { core: Core, errno: Errno },
    #[error("{}: {failure}", .target.display())]
    At {
        target: PathBuf,
        failure: Box<Failure>,
    },
    #[error("a thread ended before its work was done")]
    Panicked,
}

impl Failure {
    /// What fio reports as the error of a job.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Failure::Mismatch(_) => Errno::EILSEQ,
            Failure::Stalled { .. } => Errno::ETIMEDOUT,
            Failure::TargetGone => Errno::ENOTCONN,
            Failure::Pin { errno, .. } => *errno,
            Failure::At { failure, .. } => failure.errno(),
            Failure::Command { .. }
            | Failure::Flush(_)
            | Failure::NotInFlight { .. }
            | Failure::Driver(_)
            | Failure::Panicked => Errno::EIO,
        }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Failure {
        Failure::Driver(error.into())
    }
}

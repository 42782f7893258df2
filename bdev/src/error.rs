//! What can go wrong on the control path.

use std::io;
use std::path::PathBuf;

use crate::memory::MapError;

/// Why a device, channel or context could not be made. Each message is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself or asks for what no device can be.
    #[error("disk {name}: {reason}")]
    Config {
        /// The device's name.
        name: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The memory cannot be had.
    #[error("disk {name}: cannot get {bytes} bytes of memory: {reason}")]
    Memory {
        /// The device's name.
        name: String,
        /// How much was asked for.
        bytes: u64,
        /// Why not.
        reason: String,
    },
    /// The kernel refused what a channel needs.
    #[error("disk {name}: cannot open a channel: {source}")]
    Channel {
        /// The device's name.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A mapping for the reactor's pools was refused.
    #[error("cannot get memory for I/O buffers: {0}")]
    Pool(#[from] MapError),
    /// The file or device behind the disk refused an operation.
    #[error("disk {name}: cannot {action} {}: {source}", path.display())]
    File {
        /// The device's name.
        name: String,
        /// What was tried: a verb, as in "open" or "lock".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no io_uring, or no room on it; with what the operator can do about it.
    #[error("cannot use io_uring: {0}")]
    Ring(String),
}

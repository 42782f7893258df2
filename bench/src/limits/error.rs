//! Why limits cannot be measured.

use bdev::memory::{MapError, MemoryError};

use crate::cores::CoresError;

/// Why there are no limits to be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("limits are of two cores, and this process may use {0} only")]
    OneCoreAllowed(String),
    #[error("limits are of two cores: --cores {0} does not name two")]
    NotTwo(String),
    #[error("core {0} is the client's and the reactor's: there is no way between the two")]
    OneCore(usize),
    #[error(transparent)]
    Cores(#[from] CoresError),
    #[error("cannot have the memory to copy: {0}")]
    Map(#[from] MapError),
    #[error("cannot use the memory to copy: {0:?}")]
    Memory(MemoryError),
    #[error("cannot share rings between the threads")]
    Rings,
    #[error("a bare copy is of reads or of writes: not of reads and writes mixed")]
    Mixed,
    #[error(
        "commands of {bytes} bytes, {depth} at a time, cannot be copied: a disk of 256 MiB, or \
         that of the target if it is smaller, has to hold one, and 4 GiB all of them"
    )]
    CommandBytes { bytes: u64, depth: u16 },
    #[error("a measurement ended early")]
    Ended,
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Error {
        Error::Memory(error)
    }
}

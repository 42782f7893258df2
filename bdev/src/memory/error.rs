//! Errors of the memory module: a word for the data path, a sentence for the control path.

use nix::errno::Errno;

use super::Iova;

/// Why guest memory cannot be used as a command asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryError {
    /// No region has these addresses.
    NotMapped,
    /// The region does not allow this access.
    Protection,
    /// The request is in too many pieces: see [`SEGMENTS_MAX`](super::SEGMENTS_MAX).
    TooManySegments,
    /// No list for a long request is free now: a normal answer, to be tried again.
    PoolEmpty,
    /// A ring does not start where one of its entries could.
    Misaligned,
}

/// Why memory was not mapped or unmapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The range is empty or wraps around the address space.
    #[error("the range of {len:#x} bytes at {iova} is empty or too long")]
    Range {
        /// Where it starts.
        iova: Iova,
        /// Its length in bytes.
        len: u64,
    },
    /// An address, offset or length is not a multiple of 4 KiB.
    #[error("address {iova}, offset {offset:#x} and length {len:#x} must be multiples of 4 KiB")]
    Misaligned {
        /// The address.
        iova: Iova,
        /// The offset in the file.
        offset: u64,
        /// The length.
        len: u64,
    },
    /// Some of the range is mapped already, as something else.
    #[error("the range of {len:#x} bytes at {iova} overlaps one that is mapped")]
    Overlap {
        /// Where it starts.
        iova: Iova,
        /// Its length in bytes.
        len: u64,
    },
    /// The range to unmap would cut a mapped region in two.
    #[error("the range of {len:#x} bytes at {iova} covers only a part of a mapped one")]
    Partial {
        /// Where it starts.
        iova: Iova,
        /// Its length in bytes.
        len: u64,
    },
    /// Nothing is mapped in the range to unmap.
    #[error("nothing is mapped in the range of {len:#x} bytes at {iova}")]
    NotMapped {
        /// Where it starts.
        iova: Iova,
        /// Its length in bytes.
        len: u64,
    },
    /// The file is shorter than what is to be mapped of it.
    #[error("the file has {size:#x} bytes, the mapping needs {needed:#x}")]
    TooSmall {
        /// The file's size.
        size: u64,
        /// The end of the mapping in the file.
        needed: u64,
    },
    /// The mapping is longer than we ever map.
    #[error("a mapping of {needed:#x} bytes is longer than the limit of {limit:#x}")]
    TooLarge {
        /// The end of the mapping in the file.
        needed: u64,
        /// What the limit is.
        limit: u64,
    },
    /// The machine does not have the memory.
    #[error("{needed} bytes are needed, and {available} are available")]
    NoMemory {
        /// How many bytes were asked for.
        needed: u64,
        /// How many there are.
        available: u64,
    },
    /// The descriptor is not a file whose pages are sure to come.
    #[error("the descriptor is neither a memfd nor a file on tmpfs or hugetlbfs")]
    FileKind,
    /// The descriptor is not a regular file.
    #[error("the descriptor is not a regular file")]
    NotAFile,
    /// The descriptor was not opened for this access.
    #[error("the descriptor was not opened for {}", if *writable {"writing too"} else {"reading"})]
    AccessMode {
        /// Writing was asked for.
        writable: bool,
    },
    /// A limit on the number of mappings is reached.
    #[error("there are {limit} mappings already, and no more are allowed")]
    TooMany {
        /// What the limit is.
        limit: usize,
    },
    /// The kernel refused.
    #[error("cannot {action}: {errno}")]
    Os {
        /// What was tried: a verb.
        action: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl MapError {
    /// For `map_err`: the kernel refused to do `action`.
    pub(super) fn os(action: &'static str) -> impl Fn(Errno) -> MapError {
        move |errno| MapError::Os { action, errno }
    }
}

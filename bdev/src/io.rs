//! The words of block I/O: what is asked of a channel, and what it answers.

use crate::Error;
use crate::memory::IoVecs;

/// The smallest logical block: what every system knows.
pub const BLOCK_BYTES_MIN: u32 = 512;

/// The largest logical block: a page, beyond which few systems go.
pub const BLOCK_BYTES_MAX: u32 = 4096;

/// The largest device in bytes: offsets of files end there.
pub const DEVICE_BYTES_MAX: u64 = i64::MAX as u64;

/// Names a request among those its submitter has in flight on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u32);

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Blocks into memory. Segments that discard ([`IoVecs::push_discard`]) are skipped.
    Read,
    /// Memory into blocks.
    Write,
    /// Everything that was acknowledged before goes where the backend promises it to be.
    Flush,
    /// The blocks are no longer needed; they read as zeroes afterwards.
    Unmap,
    /// The blocks read as zeroes afterwards.
    WriteZeroes {
        /// They may be deallocated for it.
        unmap: bool,
    },
    /// Memory against blocks: [`Status::CompareFailure`] when any byte differs.
    Compare,
}

/// One request.
#[derive(Debug)]
pub struct Io {
    /// What to do.
    pub op: Op,
    /// Force unit access: what is written is where a flush would bring it, before it completes.
    pub fua: bool,
    /// The first logical block; 0 for a flush.
    pub lba: u64,
    /// How many logical blocks; 0 for a flush.
    pub blocks: u32,
    /// The submitter's name for it.
    pub tag: Tag,
    /// The memory: `blocks * block_size` bytes for read, write and compare, else empty.
    pub iovecs: IoVecs,
}

// A request is moved by value at each step of its way.
const _: () = assert!(size_of::<Io>() <= 96);

impl Io {
    /// How the request ends before it begins, if it does: by what every backend answers alike.
    #[inline]
    pub(crate) fn verdict(&self, geometry: &Geometry, features: Features) -> Option<Status> {
        let (supported, writes, bytes) = match self.op {
            Op::Read => (true, false, geometry.bytes(self.blocks)),
            Op::Write => (features.fua || !self.fua, true, geometry.bytes(self.blocks)),
            Op::Flush => (features.flush, false, 0),
            Op::Unmap => (features.unmap, true, 0),
            Op::WriteZeroes { .. } => (
                features.write_zeroes && (features.fua || !self.fua),
                true,
                0,
            ),
            Op::Compare => (features.compare, false, geometry.bytes(self.blocks)),
        };
        if !supported || (writes && geometry.read_only) {
            Some(Status::NotSupported)
        } else if !geometry.contains(self.lba, self.blocks) {
            Some(Status::LbaOutOfRange)
        } else if self.iovecs.bytes() != bytes {
            Some(Status::InternalError)
        } else if self.blocks == 0 && self.op != Op::Flush {
            Some(Status::Success)
        } else {
            None
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    Success,
    /// Some of its blocks lie past the end.
    LbaOutOfRange,
    /// The medium could not be read.
    ReadError,
    /// The medium could not be written.
    WriteError,
    /// A compare found a difference.
    CompareFailure,
    /// The backend has no space left for what was written.
    CapacityExceeded,
    /// The device cannot do this: see [`Features`], or it is read-only.
    NotSupported,
    /// It was cancelled; what it had done until then stays done.
    Aborted,
    /// The guest's memory could not be accessed.
    MemoryError,
    /// The request contradicts itself, or the backend broke.
    InternalError,
}

/// The one answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The request's tag.
    pub tag: Tag,
    /// How it ended.
    pub status: Status,
}

/// The shape of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per logical block: a power of two, 512 at least.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// What aligned size is fast, in bytes: a multiple of the block size.
    pub optimal_io_bytes: u32,
    /// Writes are refused with [`Status::NotSupported`].
    pub read_only: bool,
    /// An acknowledged write may be lost with the power until a flush.
    pub volatile_cache: bool,
}

impl Geometry {
    /// A device of `bytes` bytes, writable, without a volatile cache, fast from 4 KiB on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the block size is not a power of two from [`BLOCK_BYTES_MIN`] to
    /// [`BLOCK_BYTES_MAX`], or the size is none, not a multiple of it, or above
    /// [`DEVICE_BYTES_MAX`].
    pub fn for_size(name: &str, bytes: u64, block_size: u32) -> Result<Geometry, Error> {
        let refused = |reason| {
            Err(Error::Config {
                name: name.to_owned(),
                reason,
            })
        };
        let allowed = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
        if !block_size.is_power_of_two() || !allowed.contains(&block_size) {
            return refused(format!(
                "a block of {block_size} bytes is not possible: it must be a power of two from \
                 {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}"
            ));
        }
        if bytes == 0 || bytes > DEVICE_BYTES_MAX || bytes % u64::from(block_size) != 0 {
            return refused(format!(
                "a size of {bytes} bytes is not possible: it must be a positive multiple of the \
                 block size of {block_size} bytes, and at most {DEVICE_BYTES_MAX}"
            ));
        }
        Ok(Geometry {
            block_size,
            blocks: bytes / u64::from(block_size),
            optimal_io_bytes: BLOCK_BYTES_MAX,
            read_only: false,
            volatile_cache: false,
        })
    }

    /// Whether the device has all `blocks` blocks from `lba` on.
    #[must_use]
    pub fn contains(&self, lba: u64, blocks: u32) -> bool {
        lba.checked_add(u64::from(blocks))
            .is_some_and(|end| end <= self.blocks)
    }

    /// How many bytes `blocks` blocks are.
    #[must_use]
    pub fn bytes(&self, blocks: u32) -> u64 {
        u64::from(blocks) * u64::from(self.block_size)
    }
}

/// What a device can do. Each true thing is told to guests, so each must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// [`Op::Flush`].
    pub flush: bool,
    /// [`Io::fua`].
    pub fua: bool,
    /// [`Op::Unmap`].
    pub unmap: bool,
    /// [`Op::WriteZeroes`].
    pub write_zeroes: bool,
    /// [`Op::Compare`].
    pub compare: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::IoVecPool;

    const ALL: Features = Features {
        flush: true,
        fua: true,
        unmap: true,
        write_zeroes: true,
        compare: true,
    };
    const NONE: Features = Features {
        flush: false,
        fua: false,
        unmap: false,
        write_zeroes: false,
        compare: false,
    };

    const OPS: [Op; 6] = [
        Op::Read,
        Op::Write,
        Op::Flush,
        Op::Unmap,
        Op::WriteZeroes { unmap: false },
        Op::Compare,
    ];

    fn device() -> Geometry {
        Geometry::for_size("d", 100 * 512, 512).unwrap()
    }

    fn io(op: Op, lba: u64, blocks: u32, bytes: u64) -> Io {
        let mut iovecs = IoVecs::new();
        iovecs.push_discard(&IoVecPool::new(0), bytes).unwrap();
        Io {
            op,
            fua: false,
            lba,
            blocks,
            tag: Tag(0),
            iovecs,
        }
    }

    /// A request of two blocks at 50 with all that it needs.
    fn good(op: Op) -> Io {
        match op {
            Op::Read | Op::Write | Op::Compare => io(op, 50, 2, 1024),
            Op::Unmap | Op::WriteZeroes { .. } => io(op, 50, 2, 0),
            Op::Flush => io(op, 0, 0, 0),
        }
    }

    #[test]
    fn a_good_request_may_begin() {
        for op in OPS {
            assert_eq!(good(op).verdict(&device(), ALL), None, "{op:?}");
        }
    }

    #[test]
    fn what_the_features_lack_is_not_supported() {
        for op in OPS {
            let lacks = !matches!(op, Op::Read | Op::Write);
            let expected = lacks.then_some(Status::NotSupported);
            assert_eq!(good(op).verdict(&device(), NONE), expected, "{op:?}");
        }
        let write_zeroes = Features {
            write_zeroes: true,
            ..NONE
        };
        for op in [Op::Write, Op::WriteZeroes { unmap: true }] {
            let forced = Io {
                fua: true,
                ..good(op)
            };
            assert_eq!(
                forced.verdict(&device(), write_zeroes),
                Some(Status::NotSupported)
            );
            assert_eq!(forced.verdict(&device(), ALL), None);
        }
    }

    #[test]
    fn a_read_only_device_refuses_what_changes_it() {
        let device = Geometry {
            read_only: true,
            ..device()
        };
        for op in OPS {
            let changes = matches!(op, Op::Write | Op::Unmap | Op::WriteZeroes { .. });
            let expected = changes.then_some(Status::NotSupported);
            assert_eq!(good(op).verdict(&device, ALL), expected, "{op:?}");
        }
    }

    #[test]
    fn the_range_is_judged_before_the_memory_and_the_memory_before_nothing() {
        let verdict = |io: Io| io.verdict(&device(), ALL);
        assert_eq!(verdict(io(Op::Read, 99, 2, 0)), Some(Status::LbaOutOfRange));
        assert_eq!(
            verdict(io(Op::Read, u64::MAX, 1, 512)),
            Some(Status::LbaOutOfRange)
        );
        assert_eq!(
            verdict(io(Op::Read, 98, 2, 1023)),
            Some(Status::InternalError)
        );
        assert_eq!(
            verdict(io(Op::Unmap, 98, 2, 1024)),
            Some(Status::InternalError)
        );
        assert_eq!(
            verdict(io(Op::Read, 100, 0, 512)),
            Some(Status::InternalError)
        );
        assert_eq!(verdict(io(Op::Read, 100, 0, 0)), Some(Status::Success));
        assert_eq!(
            verdict(io(Op::Unmap, 101, 0, 0)),
            Some(Status::LbaOutOfRange)
        );
    }
}

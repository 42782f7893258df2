//! A system call as a ring carries it.

use io_uring::{opcode, squeue, types};

use crate::memory::{Buffer, IoVec};

/// A system call on the lane's file. Offsets are in bytes.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    /// Data from the file.
    Read { offset: u64, memory: Memory<'a> },
    /// Data to the file; `durable` as if fdatasync followed.
    Write {
        offset: u64,
        memory: Memory<'a>,
        durable: bool,
    },
    /// fdatasync.
    Sync,
    /// fallocate with these mode flags.
    Allocate { offset: u64, len: u64, mode: i32 },
}

/// The memory of a call: never empty.
#[derive(Debug)]
pub(crate) enum Memory<'a> {
    /// These segments, none of which discards, without the first `skip` bytes of the first one. If
    /// `skip` is not 0, the call ends with the first segment.
    Segments { segments: &'a [IoVec], skip: usize },
    /// The first `len` bytes of a buffer.
    Buffer { buffer: &'a Buffer, len: usize },
}

/// The submission entry of a call.
pub(super) fn entry(call: &Call<'_>, file: types::Fd) -> squeue::Entry {
    match *call {
        Call::Read { offset, ref memory } => match memory.place() {
            Place::Bytes(address, len) => {
                opcode::Read::new(file, address, len).offset(offset).build()
            }
            Place::List(list, count) => {
                opcode::Readv::new(file, list, count).offset(offset).build()
            }
        },
        Call::Write {
            offset,
            ref memory,
            durable,
        } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            match memory.place() {
                Place::Bytes(address, len) => opcode::Write::new(file, address, len)
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
                Place::List(list, count) => opcode::Writev::new(file, list, count)
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
            }
        }
        Call::Sync => opcode::Fsync::new(file)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Call::Allocate { offset, len, mode } => opcode::Fallocate::new(file, len)
            .offset(offset)
            .mode(mode)
            .build(),
    }
}

/// Memory as the kernel takes it.
enum Place {
    Bytes(*mut u8, u32),
    List(*const libc::iovec, u32),
}

impl Memory<'_> {
    fn place(&self) -> Place {
        match *self {
            Memory::Buffer { buffer, len } => {
                Place::Bytes(buffer.as_raw().as_ptr(), length(len.min(buffer.len())))
            }
            Memory::Segments {
                segments: [segment, rest @ ..],
                skip,
            } if skip > 0 || rest.is_empty() => {
                let skip = skip.min(segment.len());
                Place::Bytes(
                    segment.as_ptr().wrapping_add(skip),
                    length(segment.len() - skip),
                )
            }
            // An IoVec is an iovec and nothing else.
            Memory::Segments { segments, .. } => {
                Place::List(segments.as_ptr().cast(), length(segments.len()))
            }
        }
    }
}

/// A length for one call; the kernel moves no more than 2 GiB at once, so a longer one is cut.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(1 << 30)
}

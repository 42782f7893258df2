//! What can be measured, and the traffic and the disk that belong to it.

use std::sync::Arc;

use bdev::memory::PAGE_BYTES;
use bdev::{Bdev, Malloc, MallocConfig, Null, NullConfig};
use nvme::spec::NvmOpcode;

use super::host::{DISK_BYTES, LONG_BYTES, Traffic};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// A look at a queue in which nothing is, of 64 controllers with 16 each
    Idle,
    /// A command without data or a device that does anything
    Flush,
    /// 4 KiB read from a null disk
    NullRead,
    /// 128 KiB read from a null disk, with a list of PRPs
    NullReadLong,
    /// 4 KiB read from a memory disk
    MallocRead,
    /// 4 KiB write to a memory disk
    MallocWrite,
}

impl Case {
    /// What one step is, for the report.
    pub(super) fn step(self) -> &'static str {
        match self {
            Case::Idle => "look at one of 1024 idle queues",
            Case::Flush => "flush",
            Case::NullRead => "read of 4 KiB, null",
            Case::NullReadLong => "read of 128 KiB by a PRP list, null",
            Case::MallocRead => "read of 4 KiB, memory",
            Case::MallocWrite => "write of 4 KiB, memory",
        }
    }

    /// What its host submits.
    pub(super) fn traffic(self) -> Traffic {
        let (opcode, bytes) = match self {
            Case::Idle | Case::Flush => (NvmOpcode::FLUSH, 0),
            Case::NullReadLong => (NvmOpcode::READ, LONG_BYTES),
            Case::NullRead | Case::MallocRead => (NvmOpcode::READ, PAGE_BYTES as u64),
            Case::MallocWrite => (NvmOpcode::WRITE, PAGE_BYTES as u64),
        };
        Traffic { opcode, bytes }
    }

    /// The disk that its commands are for.
    pub(super) fn disk(self) -> Result<Arc<dyn Bdev>, bdev::Error> {
        match self {
            Case::MallocRead | Case::MallocWrite => Ok(Malloc::new(MallocConfig {
                name: "micro".to_owned(),
                uuid: None,
                size: DISK_BYTES,
                block_size: 512,
            })?),
            _ => Ok(Null::new(NullConfig {
                name: "micro".to_owned(),
                uuid: None,
                blocks: DISK_BYTES / 512,
                block_size: 512,
            })?),
        }
    }
}

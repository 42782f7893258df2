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
    #[value(alias = "idle")]
    Scan,
    /// From the doorbell of a queue with commands to the slots
    Fetch,
    /// What a command asks for
    Parse,
    /// Where the data of a command is, 4 KiB in one page
    Gather,
    /// Where the data of a command is, 128 KiB in a list of PRPs
    GatherList,
    /// A request to a null disk
    Submit,
    /// From the answer of a null disk to the completion queue and a free slot
    Complete,
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

/// A part of a command's way through a poll group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Fetch,
    Parse,
    Gather,
    Submit,
    Complete,
}

impl Case {
    /// The stage that it measures alone.
    pub(super) fn stage(self) -> Option<Stage> {
        match self {
            Case::Fetch => Some(Stage::Fetch),
            Case::Parse => Some(Stage::Parse),
            Case::Gather | Case::GatherList => Some(Stage::Gather),
            Case::Submit => Some(Stage::Submit),
            Case::Complete => Some(Stage::Complete),
            Case::Scan
            | Case::Flush
            | Case::NullRead
            | Case::NullReadLong
            | Case::MallocRead
            | Case::MallocWrite => None,
        }
    }

    /// The function that it measures.
    pub(super) fn function(self) -> &'static str {
        match self.stage() {
            None => "micro::pass",
            Some(Stage::Fetch) => "micro::stage::fetch",
            Some(Stage::Parse) => "micro::stage::parse",
            Some(Stage::Gather) => "micro::stage::gather",
            Some(Stage::Submit) => "micro::stage::submit",
            Some(Stage::Complete) => "micro::stage::complete",
        }
    }

    /// What one step is, for the report.
    pub(super) fn step(self) -> &'static str {
        match self {
            Case::Scan => "look at one of 1024 idle queues",
            Case::Fetch => "fetch of a command",
            Case::Parse => "parse of a 4 KiB read",
            Case::Gather => "gather of 4 KiB in one page",
            Case::GatherList => "gather of 128 KiB by a PRP list",
            Case::Submit => "submission of 4 KiB to null",
            Case::Complete => "completion of a command, null",
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
            Case::Scan | Case::Flush => (NvmOpcode::FLUSH, 0),
            Case::NullReadLong | Case::GatherList => (NvmOpcode::READ, LONG_BYTES),
            Case::MallocWrite => (NvmOpcode::WRITE, PAGE_BYTES as u64),
            Case::Fetch
            | Case::Parse
            | Case::Gather
            | Case::Submit
            | Case::Complete
            | Case::NullRead
            | Case::MallocRead => (NvmOpcode::READ, PAGE_BYTES as u64),
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

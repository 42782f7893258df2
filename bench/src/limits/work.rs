//! The commands whose rate is measured.

use clap::ValueEnum;

use super::error::Error;
use crate::workload::{self, Mix, Order};

/// A small command.
pub(super) const BLOCK_BYTES: u64 = 4 << 10;
/// A large command.
pub(super) const LARGE_BYTES: u64 = 128 << 10;
/// How many large commands are in flight.
pub(super) const LARGE_DEPTH: u16 = 8;
/// How many small commands are in flight.
pub(super) const DEPTHS: [u16; 4] = [1, 32, 128, 1024];
/// Commands at a time: what the server takes before it answers, and what the client takes before it
/// rings.
pub(super) const BURST: u32 = 32;

/// The buffers of all slots together, at most.
const SLOTS_BYTES_MAX: u64 = 4 << 30;

/// What a target has to do for a command, as far as no protocol asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bare {
    /// Nothing: as a null disk
    Empty,
    /// Copy what is read or written: as a disk in memory
    Copy,
}

/// The commands of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commands {
    workload: workload::Shape,
    bytes: u64,
    depth: u16,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing.
    Empty,
    /// A copy from the disk into the slot's buffer.
    Read,
    /// A copy from the slot's buffer onto the disk.
    Write,
    /// The same past the caches, with a fence for each burst.
    WriteStreaming,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) work: Work,
    pub(super) depth: u16,
    /// Whether the memory of a command is called for a few commands ahead.
    pub(super) ahead: bool,
    /// What each command copies.
    pub(super) bytes: u64,
    /// Whether from or to one place after the other, or random ones.
    pub(super) in_order: bool,
}

impl Commands {
    pub(crate) fn of(workload: workload::Shape, bytes: u64, depth: u16) -> Commands {
        Commands {
            workload,
            bytes,
            depth,
        }
    }

    /// Every way to do them, on a disk of so many bytes.
    pub(super) fn shapes(self, bare: Bare, disk_bytes: u64) -> Result<Vec<Shape>, Error> {
        let Commands {
            workload,
            bytes,
            depth,
        } = self;
        let works = match (bare, workload.mix) {
            (Bare::Empty, _) => return Ok(vec![Shape::empty(depth)]),
            (Bare::Copy, Mix::Reads) => vec![Work::Read],
            (Bare::Copy, Mix::Writes) => vec![Work::Write, Work::WriteStreaming],
            (Bare::Copy, Mix::Both { .. }) => return Err(Error::Mixed),
        };
        let slots = bytes.saturating_mul(depth.into());
        if bytes == 0 || bytes > disk_bytes || slots > SLOTS_BYTES_MAX {
            return Err(Error::CommandBytes { bytes, depth });
        }
        let shape = |work| {
            [false, true].map(|ahead| Shape {
                work,
                depth,
                ahead,
                bytes,
                in_order: workload.order == Order::Sequential,
            })
        };
        let works = works.into_iter().filter(Work::is_another);
        Ok(works.flat_map(shape).collect())
    }
}

impl Work {
    /// Streaming falls back to a plain copy elsewhere: that would be the same figure twice.
    fn is_another(&self) -> bool {
        cfg!(target_arch = "x86_64") || *self != Work::WriteStreaming
    }
}

impl Shape {
    pub(super) fn empty(depth: u16) -> Shape {
        Shape {
            work: Work::Empty,
            depth,
            ahead: false,
            bytes: 0,
            in_order: false,
        }
    }

    /// What a command is, in words.
    pub(super) fn what(self) -> String {
        let work = match self.work {
            Work::Empty => return "empty command".to_owned(),
            Work::Read => "read",
            Work::Write | Work::WriteStreaming => "write",
        };
        let (number, unit) = match self.bytes {
            bytes if bytes % (1 << 20) == 0 => (bytes >> 20, "MiB"),
            bytes if bytes % (1 << 10) == 0 => (bytes >> 10, "KiB"),
            bytes => (bytes, "B"),
        };
        let order = if self.in_order { " in order" } else { "" };
        format!("{number} {unit} {work}{order}")
    }

    /// In which way it is done.
    pub(super) fn how(self) -> &'static str {
        match (self.work, self.ahead) {
            (Work::Empty, _) => "",
            (Work::Read | Work::Write, false) => "plain",
            (Work::Read | Work::Write, true) => "plain, prefetch",
            (Work::WriteStreaming, false) => "streaming",
            (Work::WriteStreaming, true) => "streaming, prefetch",
        }
    }
}

/// The commands that copy.
pub(super) fn copies() -> impl Iterator<Item = Shape> {
    let works = [Work::Read, Work::Write, Work::WriteStreaming];
    let works = works.into_iter().filter(Work::is_another);
    let small = works.flat_map(|work| {
        DEPTHS.into_iter().flat_map(move |depth| {
            [false, true].map(|ahead| Shape {
                work,
                depth,
                ahead,
                bytes: BLOCK_BYTES,
                in_order: false,
            })
        })
    });
    small.chain([Shape {
        work: Work::Read,
        depth: LARGE_DEPTH,
        ahead: false,
        bytes: LARGE_BYTES,
        in_order: false,
    }])
}

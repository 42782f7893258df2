//! The commands whose rate is measured.

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
}

impl Shape {
    pub(super) fn empty(depth: u16) -> Shape {
        Shape {
            work: Work::Empty,
            depth,
            ahead: false,
            bytes: 0,
        }
    }
}

/// The commands that copy.
pub(super) fn copies() -> impl Iterator<Item = Shape> {
    let works = [Work::Read, Work::Write, Work::WriteStreaming];
    // Streaming falls back to a plain copy elsewhere: that would be the same figure twice.
    let works = works
        .into_iter()
        .filter(|work| cfg!(target_arch = "x86_64") || *work != Work::WriteStreaming);
    let small = works.flat_map(|work| {
        DEPTHS.into_iter().flat_map(move |depth| {
            [false, true].map(|ahead| Shape {
                work,
                depth,
                ahead,
                bytes: BLOCK_BYTES,
            })
        })
    });
    small.chain([Shape {
        work: Work::Read,
        depth: LARGE_DEPTH,
        ahead: false,
        bytes: LARGE_BYTES,
    }])
}

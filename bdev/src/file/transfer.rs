//! One request on its way through the kernel: which system call comes next, and what its answer
//! means. Knows no ring and makes no call itself.

use crate::memory::{Buffer, copy};
use crate::uring::{Call, DirectAlignment, Memory, Request};
use crate::{Io, Op, Status};

use super::held::Held;

/// How often in a row a call may be interrupted, or bring nothing, before the request fails.
const RETRIES_MAX: u32 = 16;
/// fallocate: free the space. A block device writes zeroes itself, and frees what it can.
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// fallocate: keep the space, as zeroes.
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// What requests need to know of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) block_size: u32,
    /// What O_DIRECT needs, if it is used: no more than whole blocks.
    pub(super) direct: Option<DirectAlignment>,
    /// Whether requests may go through the page cache: without O_DIRECT they do, and with it where
    /// the file system only puts up with the flag.
    pub(super) cached: bool,
    /// Whether blocks can be deallocated and then read as zeroes.
    pub(super) punches: bool,
}

impl Layout {
    /// Whether a request may see half of another on one block. The device below keeps its own
    /// blocks whole, the page cache keeps nothing whole.
    pub(super) fn tears(&self) -> bool {
        let whole = |direct: DirectAlignment| direct.offset >= self.block_size;
        self.cached || !self.direct.is_some_and(whole)
    }
}

/// A request, and how far it has come.
#[derive(Debug)]
pub(crate) struct Transfer {
    io: Io,
    stage: Stage,
    /// Where in the file its first byte is.
    start: u64,
    /// How many bytes it covers.
    len: u64,
    /// How many of them are done.
    done: u64,
    /// It goes on at multiples of this only.
    granule: u64,
    cached: bool,
    retries: u32,
    /// Given back when the kernel no longer touches the blocks, whoever drops the request.
    _held: Held,
}

/// The kind of system call that a request is at.
#[derive(Debug)]
enum Stage {
    /// Data between the file and the request's own memory.
    Segments,
    /// Data between the file and a buffer, as much at a time as the buffer holds.
    Bounced(Buffer),
    /// fallocate with this mode.
    Allocate(i32),
    /// fdatasync.
    Sync,
}

/// What has to happen after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Make [`Request::call`].
    Call,
    /// [`Transfer::bounce`] first; without a free buffer the same call can be made again instead.
    Bounce,
    /// The request is over.
    Done(Status),
    /// The request is over, by this error at this offset in the file.
    Failed {
        status: Status,
        errno: i32,
        offset: u64,
    },
}

impl Transfer {
    /// A request for blocks that the file has, with memory for all of them.
    pub(super) fn new(io: Io, layout: &Layout, held: Held) -> Transfer {
        let stage = match io.op {
            Op::Flush => Stage::Sync,
            Op::Unmap => Stage::Allocate(PUNCH),
            Op::WriteZeroes { unmap } if unmap && layout.punches => Stage::Allocate(PUNCH),
            // The space stays the guest's: a later write finds it.
            Op::WriteZeroes { .. } => Stage::Allocate(ZERO),
            Op::Read | Op::Write | Op::Compare => Stage::Segments,
        };
        let block_size = u64::from(layout.block_size);
        Transfer {
            stage,
            start: io.lba * block_size,
            len: u64::from(io.blocks) * block_size,
            done: 0,
            granule: layout.direct.map_or(1, |direct| u64::from(direct.offset)),
            cached: layout.cached,
            retries: 0,
            _held: held,
            io,
        }
    }

    /// Whether it can only start with a buffer: a compare, or memory the kernel cannot take.
    pub(super) fn needs_buffer(io: &Io, layout: &Layout) -> bool {
        match io.op {
            Op::Compare => true,
            Op::Read | Op::Write => io.iovecs.segments().iter().any(|segment| {
                let aligned = layout.direct.is_none_or(|direct| {
                    segment.as_ptr().addr() % direct.memory as usize == 0
                        && segment.len() % direct.offset as usize == 0
                });
                segment.is_discard() || !aligned
            }),
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => false,
        }
    }

    /// Goes through this buffer from now on.
    pub(super) fn bounce(&mut self, buffer: Buffer) {
        self.stage = Stage::Bounced(buffer);
        let part = self.part();
        if let (Stage::Bounced(buffer), Op::Unmap | Op::WriteZeroes { .. }) =
            (&mut self.stage, self.io.op)
        {
            // Once is enough: the kernel only reads it, and later parts are not longer.
            buffer[..part].fill(0);
        }
        self.fill();
    }

    /// The request.
    pub(super) fn io(&self) -> &Io {
        &self.io
    }

    /// The request back, for one that was never started.
    pub(super) fn into_io(self) -> Io {
        self.io
    }

    /// Whether it is at a call that answers for what others have written, too.
    pub(super) fn is_at_sync(&self) -> bool {
        matches!(self.stage, Stage::Sync)
    }

    /// Whether it is at a call that promises durability.
    fn is_durable(&self) -> bool {
        match self.call() {
            Call::Sync => true,
            Call::Write { durable, .. } => durable,
            Call::Read { .. } | Call::Allocate { .. } => false,
        }
    }

    /// Takes the answer to [`Request::call`].
    pub(super) fn advance(&mut self, result: i32) -> Next {
        match (u64::try_from(result), &self.stage) {
            (Err(_), _) => self.refused(result.wrapping_neg()),
            (Ok(_), Stage::Sync) => Next::Done(Status::Success),
            (Ok(_), Stage::Allocate(_)) => self.complete(),
            (Ok(bytes), Stage::Segments | Stage::Bounced(_)) => self.moved(bytes),
        }
    }

    fn refused(&mut self, errno: i32) -> Next {
        match (errno, &self.stage) {
            (libc::EINTR, _) => self.again(errno),
            // Whatever it is, the kernel tells it once: the next sync would succeed.
            (libc::EAGAIN | libc::ENOMEM, Stage::Sync) => self.failed(errno),
            (libc::EAGAIN | libc::ENOMEM, _) => self.again(errno),
            (libc::ECANCELED, _) => Next::Done(Status::Aborted),
            // The file system has no such fallocate, or the block device needs larger units.
            (libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL, Stage::Allocate(_)) => Next::Bounce,
            // O_DIRECT asks for more than could be learned about it.
            (libc::EINVAL, Stage::Segments) if self.granule > 1 => Next::Bounce,
            _ => self.failed(errno),
        }
    }

    /// Data has moved: `bytes` of it. Fewer than asked for is a normal answer.
    fn moved(&mut self, bytes: u64) -> Next {
        let bytes = bytes.min(self.len - self.done);
        if bytes == 0 {
            // Reads find the end of a file that was cut behind our back.
            return self.failed(libc::ENODATA);
        }
        if let Stage::Bounced(buffer) = &self.stage {
            let data = &buffer[..buffer.len().min(bytes as usize)];
            match self.io.op {
                Op::Read => {
                    copy::to_iovecs(data, &self.io.iovecs, self.done);
                }
                Op::Compare if !copy::equal(&self.io.iovecs, self.done, data) => {
                    return Next::Done(Status::CompareFailure);
                }
                _ => {}
            }
        }
        let reached = self.done + bytes;
        if reached == self.len {
            return self.complete();
        }
        let resume = reached - reached % self.granule;
        if resume == self.done {
            return self.again(libc::EIO);
        }
        self.done = resume;
        self.retries = 0;
        self.fill();
        Next::Call
    }

    /// All of it is done, but for what force unit access asks of more than a write: also what is
    /// read with it comes from where a flush would bring it.
    fn complete(&mut self) -> Next {
        if self.io.fua && !self.is_durable() {
            self.stage = Stage::Sync;
            return Next::Call;
        }
        Next::Done(Status::Success)
    }

    /// Puts what is to be written next into the buffer, if there is one.
    fn fill(&mut self) {
        let part = self.part();
        if let (Stage::Bounced(buffer), Op::Write) = (&mut self.stage, self.io.op) {
            copy::from_iovecs(&self.io.iovecs, self.done, &mut buffer[..part]);
        }
    }

    /// How much the next bounced call moves.
    fn part(&self) -> usize {
        let left = usize::try_from(self.len - self.done).unwrap_or(usize::MAX);
        match &self.stage {
            Stage::Bounced(buffer) => left.min(buffer.len()),
            Stage::Segments | Stage::Allocate(_) | Stage::Sync => left,
        }
    }

    fn again(&mut self, errno: i32) -> Next {
        self.retries += 1;
        if self.retries > RETRIES_MAX {
            return self.failed(errno);
        }
        Next::Call
    }

    fn failed(&self, errno: i32) -> Next {
        Next::Failed {
            status: status_of(errno, self.io.op),
            errno,
            offset: self.start + self.done,
        }
    }

    /// The request's own memory from `done` on: to its end, or to the end of one segment if `done`
    /// lies within that.
    fn rest(&self) -> Memory<'_> {
        let mut segments = self.io.iovecs.segments();
        let mut skip = self.done;
        while let [segment, rest @ ..] = segments {
            if skip < segment.len() as u64 {
                break;
            }
            skip -= segment.len() as u64;
            segments = rest;
        }
        let skip = skip as usize;
        Memory::Segments { segments, skip }
    }
}

impl Request for Transfer {
    fn call(&self) -> Call<'_> {
        let offset = self.start + self.done;
        let memory = match &self.stage {
            Stage::Sync => return Call::Sync,
            &Stage::Allocate(mode) => {
                let len = self.len;
                return Call::Allocate { offset, len, mode };
            }
            Stage::Segments => self.rest(),
            Stage::Bounced(buffer) => {
                let len = self.part();
                Memory::Buffer { buffer, len }
            }
        };
        match self.io.op {
            Op::Read | Op::Compare => Call::Read { offset, memory },
            Op::Write | Op::Unmap | Op::WriteZeroes { .. } | Op::Flush => {
                // Through the page cache a durable write could fail for what another has written,
                // and nobody could tell: there the write comes first, and then a sync.
                let durable = self.io.fua && !self.cached;
                Call::Write {
                    offset,
                    memory,
                    durable,
                }
            }
        }
    }
}

/// What a system error means to the guest.
fn status_of(errno: i32, op: Op) -> Status {
    match (errno, op) {
        (libc::ENOSPC | libc::EDQUOT | libc::EFBIG, _) => Status::CapacityExceeded,
        // The guest's memory file ends before the segment does.
        (libc::EFAULT, _) => Status::MemoryError,
        (_, Op::Read | Op::Compare) => Status::ReadError,
        (_, Op::Write | Op::Flush | Op::Unmap | Op::WriteZeroes { .. }) => Status::WriteError,
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::single_range_in_vec_init,
        reason = "a list of one piece of memory is meant"
    )]

    use std::ops::Range;

    use proptest::prelude::*;

    use super::super::tests::{Guest, io};
    use super::*;

    const CACHED: Layout = Layout {
        block_size: 512,
        direct: None,
        cached: true,
        punches: true,
    };
    const DIRECT: Layout = Layout {
        direct: Some(DirectAlignment {
            memory: 4,
            offset: 512,
        }),
        cached: false,
        ..CACHED
    };
    const BUFFER_BYTES: u64 = 16384;

    fn transfer(guest: &Guest, op: Op, memory: &[Range<u64>], layout: &Layout) -> Transfer {
        let iovecs = guest.gather(memory);
        let blocks = (iovecs.bytes() / 512).max(8) as u32;
        Transfer::new(
            Io {
                iovecs,
                ..io(op, 10, blocks)
            },
            layout,
            Held::NOTHING,
        )
    }

    fn bounced(guest: &Guest, op: Op, memory: &[Range<u64>], layout: &Layout) -> Transfer {
        let mut transfer = transfer(guest, op, memory, layout);
        transfer.bounce(guest.context.buffer_pool().take().unwrap());
        transfer
    }

    fn failed(status: Status, errno: i32, offset: u64) -> Next {
        Next::Failed {
            status,
            errno,
            offset,
        }
    }

    /// A data call as (offset, lengths of its pieces).
    fn shape(transfer: &Transfer) -> (u64, Vec<usize>) {
        match transfer.call() {
            Call::Read { offset, memory } | Call::Write { offset, memory, .. } => match memory {
                Memory::Buffer { len, .. } => (offset, vec![len]),
                Memory::Segments {
                    segments: [first, ..],
                    skip,
                } if skip > 0 => (offset, vec![first.len() - skip]),
                Memory::Segments { segments, .. } => (
                    offset,
                    segments.iter().map(crate::memory::IoVec::len).collect(),
                ),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_error_of_the_system_has_its_status() {
        let guest = Guest::new();
        let cases = [
            (Op::Read, libc::EIO, Status::ReadError),
            (Op::Write, libc::EIO, Status::WriteError),
            (Op::Flush, libc::EIO, Status::WriteError),
            (Op::Unmap, libc::EIO, Status::WriteError),
            (
                Op::WriteZeroes { unmap: false },
                libc::ENOSPC,
                Status::CapacityExceeded,
            ),
            (Op::Write, libc::ENOSPC, Status::CapacityExceeded),
            (Op::Write, libc::EDQUOT, Status::CapacityExceeded),
            (Op::Write, libc::EFBIG, Status::CapacityExceeded),
            (Op::Read, libc::EFAULT, Status::MemoryError),
            (Op::Write, libc::EFAULT, Status::MemoryError),
            (Op::Write, libc::EINVAL, Status::WriteError),
            (Op::Read, libc::EBADF, Status::ReadError),
        ];
        for (op, errno, status) in cases {
            let mut transfer = transfer(&guest, op, &[0..4096], &CACHED);
            assert_eq!(
                transfer.advance(-errno),
                failed(status, errno, 5120),
                "{op:?} {errno}"
            );
        }
        let mut compare = bounced(&guest, Op::Compare, &[0..4096], &CACHED);
        assert_eq!(
            compare.advance(-libc::EIO),
            failed(Status::ReadError, libc::EIO, 5120)
        );
        let mut read = transfer(&guest, Op::Read, &[0..4096], &CACHED);
        assert_eq!(read.advance(-libc::ECANCELED), Next::Done(Status::Aborted));
        assert!(matches!(read.advance(i32::MIN), Next::Failed { .. }));
    }

    #[test]
    fn an_interrupted_call_is_made_again_up_to_the_limit() {
        let guest = Guest::new();
        let mut flush = transfer(&guest, Op::Flush, &[], &CACHED);
        assert_eq!(flush.advance(-libc::EINTR), Next::Call);
        assert!(matches!(flush.advance(-libc::ENOMEM), Next::Failed { .. }));
        for errno in [libc::EINTR, libc::EAGAIN, libc::ENOMEM] {
            let mut read = transfer(&guest, Op::Read, &[0..4096], &CACHED);
            for _ in 0..RETRIES_MAX {
                assert_eq!(read.advance(-errno), Next::Call);
            }
            assert_eq!(
                read.advance(512),
                Next::Call,
                "some progress gives new patience"
            );
            for _ in 0..RETRIES_MAX {
                assert_eq!(read.advance(-errno), Next::Call);
            }
            assert_eq!(read.advance(-errno), failed(Status::ReadError, errno, 5632));
        }
    }

    #[test]
    fn a_short_read_goes_on_within_a_segment_and_then_behind_it() {
        let guest = Guest::new();
        let memory = [0..1000, 2000..4000, 5000..6096];
        let mut read = transfer(&guest, Op::Read, &memory, &CACHED);
        assert_eq!(shape(&read), (5120, vec![1000, 2000, 1096]));
        assert_eq!(read.advance(1001), Next::Call);
        assert_eq!(
            shape(&read),
            (6121, vec![1999]),
            "to the end of the segment only"
        );
        assert_eq!(read.advance(1999), Next::Call);
        assert_eq!(shape(&read), (8120, vec![1096]));
        assert_eq!(read.advance(1), Next::Call);
        assert_eq!(shape(&read), (8121, vec![1095]));
        assert_eq!(read.advance(1095), Next::Done(Status::Success));
    }

    #[test]
    fn a_direct_request_goes_on_at_whole_units_only() {
        let guest = Guest::new();
        let mut read = transfer(&guest, Op::Read, &[0..4096], &DIRECT);
        assert_eq!(read.advance(1100), Next::Call);
        assert_eq!(shape(&read), (6144, vec![3072]));
        for _ in 0..RETRIES_MAX {
            assert_eq!(read.advance(100), Next::Call, "less than a unit is nothing");
        }
        assert_eq!(
            read.advance(100),
            failed(Status::ReadError, libc::EIO, 6144)
        );
    }

    #[test]
    fn the_end_of_the_file_is_an_error() {
        let guest = Guest::new();
        let mut read = transfer(&guest, Op::Read, &[0..4096], &CACHED);
        assert_eq!(read.advance(4000), Next::Call);
        assert_eq!(
            read.advance(0),
            failed(Status::ReadError, libc::ENODATA, 9120)
        );
    }

    #[test]
    fn a_direct_request_that_the_kernel_finds_misaligned_is_bounced() {
        let guest = Guest::new();
        let mut read = transfer(&guest, Op::Read, &[0..4096], &DIRECT);
        assert_eq!(read.advance(-libc::EINVAL), Next::Bounce);
        read.bounce(guest.context.buffer_pool().take().unwrap());
        assert_eq!(shape(&read), (5120, vec![4096]));
        let refused = failed(Status::ReadError, libc::EINVAL, 5120);
        assert_eq!(read.advance(-libc::EINVAL), refused, "but once only");
    }

    #[test]
    fn what_needs_a_buffer_is_what_the_kernel_cannot_take() {
        let guest = Guest::new();
        let needs = |op, memory: &[Range<u64>], layout| {
            let iovecs = guest.gather(memory);
            Transfer::needs_buffer(
                &Io {
                    iovecs,
                    ..io(op, 0, 8)
                },
                layout,
            )
        };
        let ragged = [1..1001, 2000..5096];
        assert!(!needs(Op::Read, &ragged, &CACHED));
        assert!(needs(Op::Compare, &[0..4096], &CACHED));
        assert!(!needs(Op::Write, &[4..4100], &DIRECT));
        assert!(needs(Op::Write, &[2..4098], &DIRECT), "address");
        assert!(needs(Op::Read, &[0..1000, 2000..5096], &DIRECT), "length");
        assert!(!needs(Op::WriteZeroes { unmap: true }, &[], &DIRECT));
    }

    #[test]
    fn zeroes_are_written_where_the_file_system_has_no_way_to_allocate_them() {
        let guest = Guest::new();
        let modes = [
            (Op::Unmap, true, PUNCH),
            (Op::WriteZeroes { unmap: true }, true, PUNCH),
            (Op::WriteZeroes { unmap: true }, false, ZERO),
            (Op::WriteZeroes { unmap: false }, true, ZERO),
        ];
        for (op, punches, expected) in modes {
            let layout = Layout { punches, ..CACHED };
            let mut zeroes = Transfer::new(io(op, 10, 40), &layout, Held::NOTHING);
            let Call::Allocate { offset, len, mode } = zeroes.call() else {
                panic!("{zeroes:?}");
            };
            assert_eq!((offset, len, mode), (5120, 20480, expected));
            assert_eq!(zeroes.advance(-libc::EOPNOTSUPP), Next::Bounce);
            let mut buffer = guest.context.buffer_pool().take().unwrap();
            buffer.fill(0xff);
            zeroes.bounce(buffer);
            assert_eq!(shape(&zeroes), (5120, vec![BUFFER_BYTES as usize]));
            let Stage::Bounced(buffer) = &zeroes.stage else {
                panic!("{zeroes:?}");
            };
            assert!(buffer.iter().all(|byte| *byte == 0));
            assert_eq!(zeroes.advance(BUFFER_BYTES as i32), Next::Call);
            assert_eq!(shape(&zeroes), (5120 + BUFFER_BYTES, vec![4096]));
            assert_eq!(zeroes.advance(4096), Next::Done(Status::Success));
        }
    }

    #[test]
    fn force_unit_access_is_part_of_a_direct_write_and_follows_anything_else() {
        let guest = Guest::new();
        let fua = |op, layout| {
            let iovecs = match op {
                Op::Read | Op::Write => guest.gather(&[0..4096]),
                _ => guest.gather(&[]),
            };
            Transfer::new(
                Io {
                    fua: true,
                    iovecs,
                    ..io(op, 0, 8)
                },
                layout,
                Held::NOTHING,
            )
        };
        let mut write = fua(Op::Write, &DIRECT);
        assert!(matches!(write.call(), Call::Write { durable: true, .. }));
        assert!(write.is_durable());
        assert_eq!(write.advance(4096), Next::Done(Status::Success));
        let zeroes = Op::WriteZeroes { unmap: false };
        for (op, layout, result) in [
            (Op::Write, &CACHED, 4096),
            (Op::Read, &DIRECT, 4096),
            (zeroes, &DIRECT, 0),
        ] {
            let mut transfer = fua(op, layout);
            assert!(!transfer.is_durable());
            assert_eq!(transfer.advance(result), Next::Call);
            assert!(matches!(transfer.call(), Call::Sync));
            assert!(transfer.is_durable());
            assert_eq!(transfer.advance(0), Next::Done(Status::Success));
        }
    }

    /// What a kernel does that moves as little and fails as often as `mood` says, on `file`.
    fn kernel(transfer: &Transfer, file: &mut [u8], mood: u8) -> i32 {
        if mood % 5 == 0 {
            return -libc::EINTR;
        }
        let (offset, pieces) = shape(transfer);
        let limit = match mood % 3 {
            0 => usize::MAX,
            _ => 512 * usize::from(mood),
        };
        let len = pieces.iter().sum::<usize>().min(limit);
        let file = &mut file[offset as usize..][..len];
        match (transfer.call(), &transfer.stage) {
            (Call::Read { .. }, Stage::Segments) => {
                copy::to_iovecs(file, &transfer.io.iovecs, transfer.done);
            }
            (Call::Write { .. }, Stage::Segments) => {
                copy::from_iovecs(&transfer.io.iovecs, transfer.done, file);
            }
            (Call::Write { .. }, Stage::Bounced(buffer)) => file.copy_from_slice(&buffer[..len]),
            other => panic!("{other:?}"),
        }
        len as i32
    }

    proptest! {
        #[test]
        fn a_moody_kernel_moves_every_byte_to_its_place(
            cuts in prop::collection::vec(1..40_000u64, 0..6),
            moods in prop::collection::vec(any::<u8>(), 1..20),
            op in prop::sample::select(vec![Op::Read, Op::Write]),
            bounce in any::<bool>(),
        ) {
            let guest = Guest::new();
            let len = 40_960;
            // Pieces in reverse order, each with a gap, that add up to the whole.
            let mut cuts: Vec<u64> = cuts.into_iter().chain([0, len]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let at = |cut: u64| (1 << 21) - 2 * cut;
            let memory: Vec<_> = cuts
                .windows(2)
                .map(|cut| at(cut[1])..at(cut[1]) + cut[1] - cut[0])
                .collect();
            let data: Vec<u8> = (0..len).map(|at| ((at * 31) >> 5) as u8).collect();
            let mut file = vec![0; 5120 + data.len()];
            match op {
                Op::Read => file[5120..].copy_from_slice(&data),
                _ => memory.iter().zip(cuts.windows(2)).for_each(|(piece, cut)| {
                    guest.write(piece.start, &data[cut[0] as usize..cut[1] as usize]);
                }),
            }
            // Reads through a buffer need a kernel that writes to it: the real one does that.
            let mut request = match bounce && op == Op::Write {
                true => bounced(&guest, op, &memory, &CACHED),
                false => transfer(&guest, op, &memory, &CACHED),
            };
            // An odd mood out of each three makes progress, so that patience never runs out.
            let mut moods = moods.iter().cycle().flat_map(|mood| [*mood, 1]);
            let status = loop {
                let result = kernel(&request, &mut file, moods.next().unwrap());
                match request.advance(result) {
                    Next::Call => {}
                    Next::Done(status) => break status,
                    other => panic!("{other:?}"),
                }
            };
            prop_assert_eq!(status, Status::Success);
            prop_assert_eq!(&file[5120..], &data);
            let read: Vec<u8> = memory.iter().flat_map(|piece| guest.read(piece.clone())).collect();
            prop_assert_eq!(read, data);
        }
    }
}

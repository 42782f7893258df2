//! What was written is read, there and nowhere else.

use super::Subject;
use super::rig::{GUEST_BYTES, Layout, Request, Rig, TRANSFER_BYTES_MAX, pattern};
use crate::memory::{Access, PAGE_BYTES, SEGMENTS_MAX};
use crate::{Op, Status, Tag};

/// Every check of this file, for a device that can be written.
pub(super) const CHECKS: &[fn(&Subject<'_>)] = &[
    what_was_written_is_read,
    memory_may_start_anywhere,
    memory_may_be_in_many_pieces,
    discarded_bytes_are_skipped,
    refused_writes_change_nothing,
    zeroed_blocks_read_zero,
    compare_finds_any_difference,
    a_forced_write_is_there,
    data_is_there_for_the_next_channel,
    requests_in_any_mixture_do_what_they_say,
    a_channel_may_be_dropped_with_requests_in_flight,
];

/// How much of a device the suite follows byte by byte.
const WINDOW_BYTES: u64 = 2 << 20;

/// A rig, and what a range of its blocks must hold.
struct Window {
    rig: Rig,
    lba: u64,
    bytes: Vec<u8>,
    seed: u64,
}

impl Window {
    /// The first blocks of a new device, or its last ones, filled.
    fn new(subject: &Subject<'_>, at_the_end: bool) -> Window {
        let rig = subject.rig();
        let blocks = WINDOW_BYTES / rig.block_bytes();
        let lba = if at_the_end {
            rig.geometry().blocks - blocks
        } else {
            0
        };
        let mut window = Window {
            rig,
            lba,
            bytes: vec![0; WINDOW_BYTES as usize],
            seed: 0,
        };
        let half = (blocks / 2) as u32;
        for at in [0, u64::from(half)] {
            window.write(at, half, &Layout::at(0, TRANSFER_BYTES_MAX));
        }
        window
    }

    fn blocks(&self) -> u64 {
        WINDOW_BYTES / self.rig.block_bytes()
    }

    /// The window's bytes for a range of its blocks.
    fn part(&mut self, at: u64, blocks: u32) -> &mut [u8] {
        let block = self.rig.block_bytes();
        let (start, len) = ((at * block) as usize, (u64::from(blocks) * block) as usize);
        &mut self.bytes[start..start + len]
    }

    fn request(&self, op: Op, at: u64, blocks: u32) -> Request {
        Request::bare(op, self.lba + at, blocks)
    }

    /// A write of fresh data, which is in guest memory and in the books from now on.
    fn prepare_write(&mut self, at: u64, blocks: u32, layout: &Layout) -> Request {
        self.seed += 1;
        let data = pattern(self.seed, u64::from(blocks) * self.rig.block_bytes());
        self.rig.fill(layout, &data);
        self.part(at, blocks).copy_from_slice(&data);
        let iovecs = self.rig.gather(layout, Access::Read);
        Request {
            iovecs,
            ..self.request(Op::Write, at, blocks)
        }
    }

    fn write(&mut self, at: u64, blocks: u32, layout: &Layout) {
        let request = self.prepare_write(at, blocks, layout);
        assert_eq!(
            self.rig.run(request),
            Status::Success,
            "a write within the device succeeds"
        );
    }

    /// Reads through these places and compares with the books.
    fn read(&mut self, at: u64, blocks: u32, layout: &Layout) {
        self.rig.fill(layout, &vec![0xee; layout.bytes() as usize]);
        let iovecs = self.rig.gather(layout, Access::Write);
        let request = Request {
            iovecs,
            ..self.request(Op::Read, at, blocks)
        };
        assert_eq!(
            self.rig.run(request),
            Status::Success,
            "a read within the device succeeds"
        );
        let data = self.rig.dump(layout);
        assert!(
            data == self.part(at, blocks),
            "blocks hold what was last written to them"
        );
    }

    /// Reads all of the window.
    fn verify(&mut self) {
        let blocks = (TRANSFER_BYTES_MAX / self.rig.block_bytes()) as u32;
        for at in (0..self.blocks()).step_by(blocks as usize) {
            self.read(at, blocks, &Layout::at(0, TRANSFER_BYTES_MAX));
        }
    }

    fn compare(&mut self, at: u64, blocks: u32, data: &[u8]) -> Status {
        let layout = Layout::split(data.len() as u64, 3);
        self.rig.fill(&layout, data);
        let iovecs = self.rig.gather(&layout, Access::Read);
        let request = Request {
            iovecs,
            ..self.request(Op::Compare, at, blocks)
        };
        self.rig.run(request)
    }
}

fn what_was_written_is_read(subject: &Subject<'_>) {
    for at_the_end in [false, true] {
        let mut window = Window::new(subject, at_the_end);
        window.verify();
        let (block, last) = (window.rig.block_bytes(), window.blocks());
        let longest = (TRANSFER_BYTES_MAX / block) as u32;
        for (at, blocks) in [
            (0, 1),
            (1, 1),
            (3, 5),
            (7, 2),
            (8, 8),
            (13, 64),
            (1, longest),
            (last - 1, 1),
        ] {
            let layout = Layout::at(PAGE_BYTES as u64, u64::from(blocks) * block);
            window.write(at, blocks, &layout);
            window.read(at, blocks, &layout);
        }
        window.verify();
    }
}

fn memory_may_start_anywhere(subject: &Subject<'_>) {
    let mut window = Window::new(subject, true);
    let block = window.rig.block_bytes();
    let middle = GUEST_BYTES / 2;
    for offset in [
        1,
        2,
        3,
        4,
        7,
        511,
        512,
        513,
        2048,
        4095,
        middle - 1,
        middle - block - 5,
    ] {
        for blocks in [1, 3, 17] {
            let layout = Layout::at(offset, u64::from(blocks) * block);
            window.write(5, blocks, &layout);
            window.read(5, blocks, &layout);
        }
    }
    window.verify();
}

fn memory_may_be_in_many_pieces(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    let block = window.rig.block_bytes();
    for (blocks, pieces) in [(1, 2), (1, 3), (1, 100), (2, 3), (8, 5), (9, 264), (64, 33)] {
        let layout = Layout::split(blocks * block, pieces);
        window.write(3, blocks as u32, &layout);
        window.read(3, blocks as u32, &layout);
    }
    let most = Layout::split(TRANSFER_BYTES_MAX, SEGMENTS_MAX as u64);
    let blocks = (TRANSFER_BYTES_MAX / block) as u32;
    window.write(1, blocks, &most);
    window.read(1, blocks, &most);
    // In pages, and against the order of memory: what a page list looks like.
    let page = PAGE_BYTES as u64;
    let pages = (0..16)
        .rev()
        .map(|index| (index * 2 * page, page))
        .collect();
    window.write(8, (16 * page / block) as u32, &Layout(pages));
    window.verify();
}

fn discarded_bytes_are_skipped(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    let block = window.rig.block_bytes();
    let len = 4 * block;
    for (before, after) in [
        (0, len),
        (len, 0),
        (7, 9),
        (block, 2 * block),
        (block - 1, 1),
        (0, 0),
    ] {
        let around = Layout(vec![(0, before), (64 * block + 1, after)]);
        window
            .rig
            .fill(&around, &vec![0xee; (before + after) as usize]);
        let pool = window.rig.context.iovec_pool().clone();
        let mut iovecs = window.rig.gather(&Layout::at(0, before), Access::Write);
        let gap = len - before - after;
        iovecs.push_discard(&pool, gap).expect("the pool has lists");
        let place = Layout::at(64 * block + 1, after);
        window.rig.gather_into(&place, Access::Write, &mut iovecs);
        let read = Request {
            iovecs,
            ..window.request(Op::Read, 2, 4)
        };
        assert_eq!(
            window.rig.run(read),
            Status::Success,
            "a read may discard some bytes"
        );
        let mut expected = window.part(2, 4).to_vec();
        expected.drain(before as usize..(before + gap) as usize);
        assert!(
            window.rig.dump(&around) == expected,
            "bytes around the discarded ones are read"
        );
    }
    window.verify();
}

fn refused_writes_change_nothing(subject: &Subject<'_>) {
    let mut window = Window::new(subject, true);
    let block = window.rig.block_bytes();
    let last = window.blocks() - 1;
    window
        .rig
        .fill(&Layout::at(0, 8 * block), &vec![0x55; 8 * block as usize]);
    for (at, blocks, bytes) in [
        (last, 2, 2 * block),
        (0, 4, 4 * block - 1),
        (0, 4, 5 * block),
    ] {
        let iovecs = window.rig.gather(&Layout::at(0, bytes), Access::Read);
        let write = Request {
            iovecs,
            ..window.request(Op::Write, at, blocks)
        };
        assert_ne!(
            window.rig.run(write),
            Status::Success,
            "a wrong write is refused"
        );
    }
    for op in [Op::Unmap, Op::WriteZeroes { unmap: true }] {
        let request = window.request(op, last, 2);
        assert_ne!(
            window.rig.run(request),
            Status::Success,
            "a wrong unmap is refused"
        );
    }
    window.verify();
}

fn zeroed_blocks_read_zero(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    let features = window.rig.bdev.features();
    let ops = [
        (features.unmap, Op::Unmap),
        (features.write_zeroes, Op::WriteZeroes { unmap: false }),
        (features.write_zeroes, Op::WriteZeroes { unmap: true }),
    ];
    for (_, op) in ops.into_iter().filter(|(granted, _)| *granted) {
        let all = window.blocks() as u32;
        for (at, blocks) in [(0, 1), (5, 3), (17, 100), (8, 256), (1, all - 2), (0, all)] {
            let request = window.request(op, at, blocks);
            assert_eq!(
                window.rig.run(request),
                Status::Success,
                "{op:?} within the device"
            );
            window.part(at, blocks).fill(0);
            window.verify();
            let some = u64::from(blocks).min(TRANSFER_BYTES_MAX / window.rig.block_bytes());
            window.write(
                at,
                some as u32,
                &Layout::at(0, some * window.rig.block_bytes()),
            );
            window.verify();
        }
    }
}

fn compare_finds_any_difference(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    if !window.rig.bdev.features().compare {
        return;
    }
    for blocks in [1, 2, 9, 40] {
        let data = window.part(6, blocks).to_vec();
        assert_eq!(
            window.compare(6, blocks, &data),
            Status::Success,
            "equal data compares equal"
        );
        for at in [0, 1, data.len() / 2, data.len() - 1] {
            let mut changed = data.clone();
            changed[at] ^= 0x10;
            let status = window.compare(6, blocks, &changed);
            assert_eq!(
                status,
                Status::CompareFailure,
                "byte {at} of {blocks} blocks differs"
            );
        }
    }
    window.verify();
}

fn a_forced_write_is_there(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    let block = window.rig.block_bytes();
    for blocks in [1, 7, 32] {
        let layout = Layout::at(3, u64::from(blocks) * block);
        let request = window.prepare_write(9, blocks, &layout);
        let fua = window.rig.bdev.features().fua;
        assert_eq!(
            window.rig.run(Request { fua, ..request }),
            Status::Success,
            "a forced write"
        );
        window.read(9, blocks, &layout);
    }
    window.verify();
}

fn data_is_there_for_the_next_channel(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    if window.rig.bdev.features().flush {
        assert_eq!(
            window.rig.run(Request::bare(Op::Flush, 0, 0)),
            Status::Success,
            "a flush"
        );
    }
    assert!(
        window.rig.bdev.sync().is_ok(),
        "a device that is idle can be synchronised"
    );
    window.rig.open();
    window.verify();
}

/// Batches of requests that do not overlap, all in flight together.
fn requests_in_any_mixture_do_what_they_say(subject: &Subject<'_>) {
    let mut window = Window::new(subject, true);
    let features = window.rig.bdev.features();
    let block = window.rig.block_bytes();
    let mut random = pattern(99, 1 << 16).into_iter();
    for _ in 0..40 {
        let mut writes: Vec<Tag> = Vec::new();
        let lane = window.blocks() / 16;
        for index in 0..16 {
            let mut byte = || u64::from(random.next().expect("enough bytes"));
            let blocks = 1 + (byte() % lane.min(24)) as u32;
            let at = index * lane + byte() % (lane - u64::from(blocks) + 1);
            let bytes = u64::from(blocks) * block;
            // Each lane has a place in memory of its own.
            let place = index * (GUEST_BYTES / 16) + byte() * 5;
            let kind = byte() % 8;
            let request = match kind {
                0 if features.unmap => window.request(Op::Unmap, at, blocks),
                1 if features.write_zeroes => window.request(
                    Op::WriteZeroes {
                        unmap: kind == byte(),
                    },
                    at,
                    blocks,
                ),
                _ => window.prepare_write(at, blocks, &Layout::at(place, bytes)),
            };
            if request.op != Op::Write {
                window.part(at, blocks).fill(0);
            }
            writes.push(window.rig.submit(request));
        }
        let finished = window.rig.settle();
        let fine = |tag| finished.get(tag) == Some(&Status::Success);
        assert!(
            writes.iter().all(fine),
            "requests in flight together all succeed"
        );
        window.verify();
    }
}

fn a_channel_may_be_dropped_with_requests_in_flight(subject: &Subject<'_>) {
    let mut window = Window::new(subject, false);
    let block = window.rig.block_bytes();
    let before = window.bytes.clone();
    for index in 0..32 {
        let at = index * 8;
        let write = window.prepare_write(at, 8, &Layout::at(at * block + 1, 8 * block));
        window.rig.submit(write);
    }
    window.rig.context.flush();
    window.rig.open();
    // What the first channel has in flight may still land, at any moment.
    let layout = Layout::at(GUEST_BYTES / 2, TRANSFER_BYTES_MAX);
    let iovecs = window.rig.gather(&layout, Access::Write);
    let blocks = (TRANSFER_BYTES_MAX / block) as u32;
    let read = Request {
        iovecs,
        ..window.request(Op::Read, 0, blocks)
    };
    assert_eq!(
        window.rig.run(read),
        Status::Success,
        "the next channel works"
    );
    let found = window.rig.dump(&layout);
    for at in (0..found.len()).step_by(block as usize) {
        let block = at..at + block as usize;
        let (now, old, new) = (
            &found[block.clone()],
            &before[block.clone()],
            &window.bytes[block],
        );
        assert!(
            now == old || now == new,
            "a block is as it was or as it was written"
        );
    }
}

/// The one check of data for a device that cannot be written.
pub(super) fn what_is_read_stays_the_same(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    let blocks = (TRANSFER_BYTES_MAX / rig.block_bytes()) as u32;
    let mut read = |layout: &Layout| {
        let iovecs = rig.gather(layout, Access::Write);
        let status = rig.run(Request {
            iovecs,
            ..Request::bare(Op::Read, 0, blocks)
        });
        assert_eq!(status, Status::Success, "a read within the device succeeds");
        rig.dump(layout)
    };
    let whole = read(&Layout::at(0, TRANSFER_BYTES_MAX));
    let pieces = read(&Layout::split(TRANSFER_BYTES_MAX, SEGMENTS_MAX as u64));
    assert!(
        whole == pieces,
        "what is read does not depend on where it goes"
    );
}

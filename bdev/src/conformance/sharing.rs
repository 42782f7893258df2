//! Several channels of one device.

use std::sync::Arc;
use std::thread;

use super::Subject;
use super::rig::{Layout, Request, Rig};
use crate::memory::Access;
use crate::{Op, Status};

/// Every check of this file, for a device that can be written.
pub(super) const CHECKS: &[fn(&Subject<'_>)] = &[
    channels_see_the_same_data,
    blocks_are_atomic_between_channels,
];

/// How many blocks a request of the race has, and how many places it can start at: any two requests
/// overlap, and few cover the same.
const RACE_BLOCKS: u64 = 8;
const RACE_STARTS: u64 = 5;

/// How many batches each thread of the race submits, of [`RACE_BATCH`] requests in flight together.
const RACE_ROUNDS: u64 = 1500;
const RACE_BATCH: u64 = 4;

fn channels_see_the_same_data(subject: &Subject<'_>) {
    let mut writer = subject.rig();
    let mut reader = Rig::new(Arc::clone(&writer.bdev), subject.patience);
    let block = writer.block_bytes();
    let layout = Layout::at(0, block);
    for (lba, value) in (0..16).zip(0x40..) {
        writer.fill(&layout, &vec![value; block as usize]);
        let iovecs = writer.gather(&layout, Access::Read);
        let write = Request {
            iovecs,
            ..Request::bare(Op::Write, lba, 1)
        };
        // The other channel has work on the same block, and goes on with it meanwhile, as a
        // reactor's does: a block may be claimed until then.
        let iovecs = reader.gather(&layout, Access::Write);
        let tag = reader.submit(Request {
            iovecs,
            ..Request::bare(Op::Read, lba, 1)
        });
        let written = writer.submit(write);
        assert_eq!(
            writer.wait_beside(written, &mut reader),
            Status::Success,
            "a write beside another channel"
        );
        assert_eq!(
            reader.wait(tag),
            Status::Success,
            "a read beside another channel"
        );
        if reader.bdev.features().flush {
            let flush = Request::bare(Op::Flush, 0, 0);
            assert_eq!(
                reader.run(flush),
                Status::Success,
                "a flush of another's writes"
            );
        }
        let iovecs = reader.gather(&layout, Access::Write);
        let read = Request {
            iovecs,
            ..Request::bare(Op::Read, lba, 1)
        };
        assert_eq!(
            reader.run(read),
            Status::Success,
            "a read beside another channel"
        );
        let data = reader.dump(&layout);
        assert!(
            data.iter().all(|&byte| byte == value),
            "a channel reads what another wrote"
        );
    }
}

/// Threads write blocks full of one value over each other, and each block must be full of one value
/// whenever it is read.
fn blocks_are_atomic_between_channels(subject: &Subject<'_>) {
    let bdev = (subject.make)();
    let patience = subject.patience;
    let mut rig = Rig::new(Arc::clone(&bdev), patience);
    write(&mut rig, 0, 0);
    write(&mut rig, RACE_STARTS, 0);
    thread::scope(|scope| {
        let threads = [1, 101].map(|first_value| {
            let bdev = Arc::clone(&bdev);
            scope.spawn(move || race(&mut Rig::new(bdev, patience), first_value))
        });
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn write(rig: &mut Rig, lba: u64, value: u8) {
    let request = filled(rig, Op::Write, lba, (0, value));
    assert_eq!(rig.run(request), Status::Success, "a write in a race");
}

fn race(rig: &mut Rig, first_value: u8) {
    for round in 0..RACE_ROUNDS {
        let start = |index| (round * 3 + index * 2 + u64::from(first_value)) % RACE_STARTS;
        let value = first_value + (round % 100) as u8;
        for index in 0..RACE_BATCH {
            let op = if index % 2 == 0 { Op::Write } else { Op::Read };
            let request = filled(rig, op, start(index), (index, value));
            rig.submit(request);
        }
        let finished = rig.settle_quickly();
        let fine = |status: &Status| *status == Status::Success;
        assert!(finished.values().all(fine), "requests in a race succeed");
        let read = (0..RACE_BATCH).filter(|index| index % 2 == 1);
        for index in read {
            let data = rig.dump(&place(rig, index));
            for block in data.chunks(rig.block_bytes() as usize) {
                let (all_but_first, all_but_last) = (&block[1..], &block[..block.len() - 1]);
                assert!(all_but_first == all_but_last, "a block was torn");
            }
        }
    }
}

/// The memory of the request with this index in its batch.
fn place(rig: &Rig, index: u64) -> Layout {
    let len = RACE_BLOCKS * rig.block_bytes();
    Layout::at(index * 2 * len, len)
}

fn filled(rig: &Rig, op: Op, lba: u64, (index, value): (u64, u8)) -> Request {
    let layout = place(rig, index);
    rig.fill(&layout, &vec![value; layout.bytes() as usize]);
    let access = if op == Op::Read {
        Access::Write
    } else {
        Access::Read
    };
    let iovecs = rig.gather(&layout, access);
    Request {
        iovecs,
        ..Request::bare(op, lba, RACE_BLOCKS as u32)
    }
}

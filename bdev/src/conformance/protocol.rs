//! What holds whether or not a device keeps data: geometry, refusals, the books of requests.

use super::Subject;
use super::rig::{Layout, Request, Rig};
use crate::memory::{Access, IoVecs};
use crate::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Op, Status, Tag};

/// Every check of this file.
pub(super) const CHECKS: &[fn(&Subject<'_>)] = &[
    identity_and_geometry_are_honest,
    blocks_past_the_end_are_refused,
    what_the_features_deny_is_refused,
    what_the_features_grant_succeeds,
    no_blocks_are_a_success,
    memory_of_another_length_is_refused,
    a_full_channel_hands_back_and_goes_on,
    a_cancelled_request_completes_once,
    a_tag_can_be_used_again_at_once,
];

/// More than any channel accepts at once: each limit is below.
const REQUESTS_MAX: u32 = 1 << 17;

const OPS: [Op; 7] = [
    Op::Read,
    Op::Write,
    Op::Flush,
    Op::Unmap,
    Op::WriteZeroes { unmap: false },
    Op::WriteZeroes { unmap: true },
    Op::Compare,
];

impl Rig {
    /// Whether the device says that it can do this.
    fn grants(&self, op: Op) -> bool {
        let (features, writable) = (self.bdev.features(), !self.geometry().read_only);
        match op {
            Op::Read => true,
            Op::Write => writable,
            Op::Flush => features.flush,
            Op::Unmap => features.unmap && writable,
            Op::WriteZeroes { .. } => features.write_zeroes && writable,
            Op::Compare => features.compare,
        }
    }

    /// A request with the memory that it needs, one piece, the same for each.
    fn request(&self, op: Op, lba: u64, blocks: u32) -> Request {
        let bytes = u64::from(blocks) * self.block_bytes();
        let iovecs = match op {
            Op::Read => self.gather(&Layout::at(0, bytes), Access::Write),
            Op::Write | Op::Compare => self.gather(&Layout::at(0, bytes), Access::Read),
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => IoVecs::new(),
        };
        Request {
            iovecs,
            ..Request::bare(op, lba, blocks)
        }
    }
}

fn identity_and_geometry_are_honest(subject: &Subject<'_>) {
    let first = (subject.make)();
    let (name, uuid, geometry) = (first.name().to_owned(), first.uuid(), first.geometry());
    drop(first);
    let mut rig = subject.rig();
    assert!(!name.is_empty(), "a device has a name");
    let again = (rig.bdev.name(), rig.bdev.uuid(), rig.geometry());
    assert_eq!(
        again,
        (&*name, uuid, geometry),
        "a device made again is the same"
    );
    let block = geometry.block_size;
    let allowed = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
    assert!(
        block.is_power_of_two() && allowed.contains(&block),
        "the block size is possible"
    );
    let optimal = geometry.optimal_io_bytes;
    assert!(
        optimal >= block && optimal % block == 0,
        "what is fast is whole blocks"
    );
    for lba in [0, geometry.blocks - 1] {
        let read = rig.request(Op::Read, lba, 1);
        assert_eq!(
            rig.run(read),
            Status::Success,
            "the first and the last block are there"
        );
    }
    assert!(
        rig.bdev.sync().is_ok(),
        "a device that is idle can be synchronised"
    );
}

fn blocks_past_the_end_are_refused(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    let blocks = rig.geometry().blocks;
    let ranges = [
        (blocks, 1),
        (blocks - 1, 2),
        (blocks - 7, 8),
        (blocks + 1, 0),
        (u64::MAX - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 7, 64),
    ];
    for op in OPS.into_iter().filter(|&op| op != Op::Flush) {
        for (lba, blocks) in ranges
            .into_iter()
            .filter(|_| rig.grants(op))
            .collect::<Vec<_>>()
        {
            let request = rig.request(op, lba, blocks);
            let status = rig.run(request);
            assert_eq!(
                status,
                Status::LbaOutOfRange,
                "{op:?} of {blocks} blocks at {lba}"
            );
        }
    }
}

fn what_the_features_deny_is_refused(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    for op in OPS {
        if !rig.grants(op) {
            let request = rig.request(op, 0, u32::from(op != Op::Flush));
            assert_eq!(
                rig.run(request),
                Status::NotSupported,
                "{op:?} is denied by the features"
            );
        }
    }
    let forced = if rig.bdev.features().fua {
        Status::Success
    } else {
        Status::NotSupported
    };
    for op in [Op::Write, Op::WriteZeroes { unmap: false }] {
        if rig.grants(op) {
            let request = Request {
                fua: true,
                ..rig.request(op, 0, 1)
            };
            assert_eq!(rig.run(request), forced, "{op:?} with force unit access");
        }
    }
}

fn what_the_features_grant_succeeds(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    for op in OPS {
        if rig.grants(op) {
            // What a compare is compared with.
            let read = rig.request(Op::Read, 0, 4);
            assert_eq!(
                rig.run(read),
                Status::Success,
                "a read within the device succeeds"
            );
            let request = rig.request(op, 0, 4 * u32::from(op != Op::Flush));
            assert_eq!(
                rig.run(request),
                Status::Success,
                "{op:?} is granted by the features"
            );
        }
    }
}

fn no_blocks_are_a_success(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    for op in OPS.into_iter().filter(|&op| op != Op::Flush) {
        for lba in [0, rig.geometry().blocks] {
            if rig.grants(op) {
                let request = rig.request(op, lba, 0);
                assert_eq!(
                    rig.run(request),
                    Status::Success,
                    "{op:?} of no blocks at {lba}"
                );
            }
        }
    }
}

fn memory_of_another_length_is_refused(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    let bytes = 4 * rig.block_bytes();
    for op in [Op::Read, Op::Write, Op::Compare] {
        for len in [0, 1, bytes - 1, bytes + 1, 2 * bytes] {
            if rig.grants(op) {
                let iovecs = rig.gather(&Layout::at(0, len), Access::Write);
                let status = rig.run(Request {
                    iovecs,
                    ..Request::bare(op, 0, 4)
                });
                assert_eq!(
                    status,
                    Status::InternalError,
                    "{op:?} with {len} bytes for {bytes}"
                );
            }
        }
    }
}

fn a_full_channel_hands_back_and_goes_on(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    let mut accepted = 0;
    let back = loop {
        assert!(accepted < REQUESTS_MAX, "a channel has a limit");
        let read = rig.request(Op::Read, 0, 1);
        match rig.try_submit(read) {
            Ok(_) => accepted += 1,
            Err(back) => break back,
        }
    };
    let tag = rig.submit(back);
    assert_eq!(
        rig.wait(tag),
        Status::Success,
        "what was handed back can be submitted again"
    );
    let finished = rig.settle();
    assert!(
        finished.values().all(|&status| status == Status::Success),
        "every read succeeds"
    );
    let read = rig.request(Op::Read, 0, 1);
    assert_eq!(
        rig.run(read),
        Status::Success,
        "a channel that was full is free again"
    );
}

fn a_cancelled_request_completes_once(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    rig.cancel(Tag(12345));
    let blocks = (1 << 20) / rig.geometry().block_size;
    let long = |rig: &Rig| match rig.grants(Op::WriteZeroes { unmap: false }) {
        true => Request::bare(Op::WriteZeroes { unmap: false }, 0, blocks),
        false => rig.request(Op::Read, 0, blocks),
    };
    let mut tags = Vec::new();
    for _ in 0..8 {
        let (long, short) = (long(&rig), rig.request(Op::Read, 0, 1));
        tags.extend([long, short].map(|request| rig.submit(request)));
    }
    for &tag in tags.iter().chain(&tags) {
        rig.cancel(tag);
    }
    let finished = rig.settle();
    assert!(
        tags.iter().all(|tag| finished.contains_key(tag)),
        "cancelled requests complete"
    );
    let ended = |status: &Status| [Status::Success, Status::Aborted].contains(status);
    assert!(
        finished.values().all(ended),
        "a cancelled request is done or aborted"
    );
    let read = rig.request(Op::Read, 0, 1);
    assert_eq!(
        rig.run(read),
        Status::Success,
        "a channel goes on after a cancel"
    );
}

fn a_tag_can_be_used_again_at_once(subject: &Subject<'_>) {
    let mut rig = subject.rig();
    for _ in 0..64 {
        let read = rig.request(Op::Read, 0, 1);
        rig.rewind_tags();
        assert_eq!(
            rig.run(read),
            Status::Success,
            "a tag that completed is free"
        );
    }
}

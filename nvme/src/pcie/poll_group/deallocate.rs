//! Dataset Management with Deallocate: one command, up to 256 Ios (NVM Command Set 1.0, 3.2.3).
//!
//! A group works on one such command at a time; the queues of others wait. Its ranges are copied
//! from the guest once, all are judged before the first takes effect, and an Io that the channel
//! hands back is tried again in the next pass.

use bdev::memory::IoVecs;
use bdev::{Io, Op, Tag};
use zerocopy::{FromZeros, IntoBytes};

use super::start::device_of;
use super::{PollGroup, SlotIndex, Start};
use crate::nvm::{self, check_range};
use crate::pcie::prp::{self, DataError};
use crate::pcie::sgl::{self, Piece};
use crate::spec::nvm::DsmRange;
use crate::spec::{Nsid, QueueId, Sqe, Status};

/// Most ranges of one command; NR is an 8-bit zero-based field.
const RANGES_MAX: usize = 256;
/// Tags from here on belong to ranges; queue identifiers never reach this bit.
const TAG_BASE: u32 = 1 << 31;

/// The Dataset Management command in progress, if any.
pub(super) struct Deallocate {
    owner: Option<Owner>,
    ranges: Box<[DsmRange; RANGES_MAX]>,
    count: usize,
    next: usize,
    outstanding: usize,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    queue: QueueId,
    slot: SlotIndex,
    nsid: Nsid,
}

impl Deallocate {
    pub(super) fn new() -> Deallocate {
        Deallocate {
            owner: None,
            ranges: Box::new([DsmRange::new_zeroed(); RANGES_MAX]),
            count: 0,
            next: 0,
            outstanding: 0,
            status: Status::SUCCESS,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.owner.is_some()
    }

    #[inline]
    pub(super) fn owns(&self, tag: Tag) -> bool {
        tag.0 >= TAG_BASE
    }

    /// A range is done. The first failure is the command's.
    pub(super) fn completed(&mut self, status: Status) {
        self.outstanding -= 1;
        if self.status == Status::SUCCESS {
            self.status = status;
        }
    }

    /// Starts no more ranges; those at the device are waited for.
    pub(super) fn stop(&mut self) {
        self.next = self.count;
    }
}

impl PollGroup {
    /// Starts a Deallocate of `count` ranges.
    #[cold]
    pub(super) fn deallocate(
        &mut self,
        index: usize,
        slot: SlotIndex,
        sqe: &Sqe,
        count: u16,
    ) -> Start {
        if self.deallocate.is_active() {
            return Start::Stalled;
        }
        let count = usize::from(count).min(RANGES_MAX);
        if let Err(error) = self.read_ranges(sqe, count) {
            return self.without_data(index, slot, error);
        }
        if self.memory.any_bad() {
            // Entry and ranges may be half the host's and half zeroes.
            return self.fail(index, slot, Status::DATA_TRANSFER_ERROR);
        }
        let ranges = &self.deallocate.ranges[..count];
        let judged = device_of(&mut self.devices, sqe.nsid()).and_then(|device| {
            ranges.iter().try_for_each(|range| {
                check_range(&device.namespace, range.slba.get(), range.nlb.get())
            })
        });
        if let Err(status) = judged {
            return self.fail(index, slot, status);
        }
        let queue = &self.lanes[index].queue;
        queue.note_head();
        let queue = queue.id();
        self.deallocate.owner = Some(Owner {
            queue,
            slot,
            nsid: sqe.nsid(),
        });
        self.deallocate.count = count;
        self.deallocate.next = 0;
        self.deallocate.status = Status::SUCCESS;
        self.advance_deallocate();
        Start::Accepted
    }

    fn read_ranges(&mut self, sqe: &Sqe, count: usize) -> Result<(), DataError> {
        let bytes = self.deallocate.ranges[..count].as_mut_bytes();
        let (memory, len) = (&self.memory, bytes.len() as u64);
        let mut done = 0;
        let mut copy = |iova, len: u64| {
            let end = done + len as usize;
            memory.read(iova, &mut bytes[done..end])?;
            done = end;
            Ok(())
        };
        if !nvm::data_pointer_is_sgl(sqe)? {
            return prp::walk(memory, sqe.prps(), len, self.view.page_shift, copy);
        }
        sgl::walk(memory, sqe.sgl(), len, false, &mut |piece| match piece {
            Piece::Memory(iova, len) => copy(iova, len),
            Piece::Discard(_) => Ok(()),
        })
    }

    /// Submits ranges until all are or the channel is full; completes the command after the last.
    pub(super) fn advance_deallocate(&mut self) {
        let Some(owner) = self.deallocate.owner else {
            return;
        };
        let state = &mut self.deallocate;
        while state.next < state.count && state.status == Status::SUCCESS {
            let range = state.ranges[state.next];
            if range.nlb.get() != 0 {
                let tag = Tag(TAG_BASE | state.next as u32);
                match submit(&mut self.devices, owner.nsid, &range, tag) {
                    Ok(true) => state.outstanding += 1,
                    Ok(false) => return,
                    Err(status) => state.status = status,
                }
            }
            state.next += 1;
        }
        if state.outstanding == 0 {
            let status = state.status;
            state.owner = None;
            let index = usize::from(self.lane_of[usize::from(owner.queue.0)]);
            self.complete(index, owner.slot, status);
        }
    }
}

/// Hands one range to its device: false if the channel is full.
fn submit(
    devices: &mut [Option<super::Device>],
    nsid: Nsid,
    range: &DsmRange,
    tag: Tag,
) -> Result<bool, Status> {
    let device = device_of(devices, nsid)?;
    let channel = device.channel.as_mut().ok_or(Status::INTERNAL_ERROR)?;
    let (lba, blocks) = (range.slba.get(), range.nlb.get());
    let io = Io {
        op: Op::Unmap,
        fua: false,
        lba,
        blocks,
        tag,
        iovecs: IoVecs::new(),
    };
    let accepted = channel.submit(io).is_ok();
    device.in_flight += usize::from(accepted);
    Ok(accepted)
}

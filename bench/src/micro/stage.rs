//! The stages of a command, a function each, so that each can be found and counted. What they do is
//! `nvme`'s and `bdev`'s code, called as a poll group calls it.
//!
//! A stage takes what the one before left in memory, and leaves what the next one takes: nothing of
//! it can be left out or done beforehand. A poll group keeps more of it in registers, and moves a
//! request once less, so the stages are no parts of the sum that a whole command is.

use bdev::{Channel, Completion, Io, Tag};
use nvme::namespace::Namespace;
use nvme::nvm::{self, Command};
use nvme::pcie::message::ControllerView;
use nvme::pcie::poll_group::Data;
use nvme::pcie::queue::{CompletionQueue, CqSlots, SlotIndex, SubmissionQueue};
use nvme::spec::{Cqe, Sqe, Status};

/// A command on its way.
pub(super) struct Taken {
    pub(super) slot: SlotIndex,
    pub(super) sqe: Sqe,
    pub(super) parsed: Result<Command, Status>,
}

/// Looks at the doorbell and takes the commands that are there into slots, as far as there are
/// places for them. How many that were.
#[inline(never)]
pub(super) fn fetch(
    sq: &mut SubmissionQueue,
    room: &mut CqSlots,
    places: &mut [Taken],
) -> Option<usize> {
    let ahead = sq.look().ok()?;
    let mut count = 0;
    for place in places.iter_mut().take(ahead as usize) {
        (place.slot, place.sqe) = sq.pop(room.take()?).ok()?;
        count += 1;
    }
    sq.note_head();
    Some(count)
}

/// Judges the commands.
#[inline(never)]
pub(super) fn parse(namespace: &Namespace, view: &ControllerView, commands: &mut [Taken]) {
    for command in commands {
        command.parsed = Command::parse(&command.sqe, namespace, view);
    }
}

/// Finds the guest memory of the commands, for one request each. How many bytes that is.
#[inline(never)]
pub(super) fn gather(data: &Data<'_>, commands: &[Taken], ios: &mut [Io]) -> Option<u64> {
    let mut bytes = 0;
    for (command, io) in commands.iter().zip(ios) {
        let Ok(Command::Block(block)) = &command.parsed else {
            return None;
        };
        data.gather(&command.sqe, block, &mut io.iovecs).ok()?;
        bytes += io.iovecs.bytes();
    }
    Some(bytes)
}

/// Gives the requests to their device. How many it accepted.
#[inline(never)]
pub(super) fn submit(channel: &mut dyn Channel, ios: &mut Vec<Io>) -> usize {
    let accepted = ios
        .drain(..)
        .map(|io| usize::from(channel.submit(io).is_ok()));
    accepted.sum()
}

/// The queue pair of a host.
pub(super) struct Pair {
    pub(super) sq: SubmissionQueue,
    pub(super) cq: CompletionQueue,
}

/// Takes what the device has completed, posts it, frees the slots, and makes room for as many
/// commands again.
#[inline(never)]
pub(super) fn complete(
    Pair { sq, cq }: &mut Pair,
    channel: &mut dyn Channel,
    block_shift: u8,
    completed: &mut Vec<Completion>,
) -> Option<CqSlots> {
    channel.poll(completed);
    let count = completed.len() as u32;
    for completion in completed.drain(..) {
        let status = nvm::status_of(completion.status);
        let slot = slot_of(completion.tag);
        nvm::count(sq.block(), sq.slot(slot), block_shift);
        let credit = sq.credit();
        let held = sq.slot(slot);
        let cqe = Cqe::new(0, sq.head(), sq.id(), held.cid(), status);
        if cq.post(credit, held, &cqe) {
            held.release();
            sq.take_back(slot);
        }
    }
    cq.reserve(count).ok()
}

pub(super) fn tag_of(SlotIndex(slot): SlotIndex) -> Tag {
    Tag(slot.into())
}

fn slot_of(Tag(tag): Tag) -> SlotIndex {
    SlotIndex(tag as u16)
}

//! The I/O queues of one controller on one reactor: the hot loop.
//!
//! A pass fetches a burst of commands from every submission queue that may have some (`watch.rs`),
//! starts each on its block device, then takes what the devices have completed and posts it, and at
//! last interrupts the hosts that are owed it. Nothing here allocates, locks, logs, blocks or reads
//! a clock; the time is given to each pass.
//!
//! How one command is started is in `start.rs`, control messages are in `control.rs`, Dataset
//! Management, the one command that becomes many Ios, is in `deallocate.rs`.

mod control;
mod data;
mod deallocate;
mod lane;
mod start;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use bdev::memory::{GuestMemory, SharedPages};
use bdev::{Channel, Completion, IoContext, Tag};

use self::control::Waiting;
pub use self::data::Data;
use self::deallocate::Deallocate;
use self::lane::{CompletionLane, Lane};
use self::start::{Starter, Verdict};
pub use self::watch::Rest;
use self::watch::Watches;
use super::message::{CommandError, ControllerView, FromGroup, GroupEvent, GroupId};
pub use super::prp::DataError;
use super::queue::{CqSlots, InvalidDoorbell, SlotIndex, SubmissionQueue};
use super::state::{ControllerState, QUEUES_MAX};
use crate::namespace::Namespace;
use crate::nvm;
use crate::spec::{QueueId, Status};

/// Most commands fetched from one queue in one pass, so that a busy queue cannot starve others.
const BURST_MAX: u32 = 32;
/// Half of what the host keeps in flight is fetched in one pass, so that it has completions to look
/// at while the other half is executed, but not less than this.
const BURST_MIN: u32 = 4;
/// Most completions taken from one channel in one pass.
const COMPLETIONS_MAX: usize = 256;
/// Most events that wait for the controller; more are dropped.
const EVENTS_MAX: usize = 64;
/// After an unmap, how long data that is not mapped may take to come back. VMMs replace a large
/// region by its parts, one message each, while the guest runs.
const REMAP_GRACE_NS: u64 = 100_000_000;
/// Passes between two looks at the health of guest memory; a power of two.
const HEALTH_PASSES: u64 = 4096;

/// What a poll group is made from, on its reactor.
#[derive(Debug)]
pub struct GroupSeed {
    /// Its number.
    pub id: GroupId,
    /// The durable state of the controller.
    pub state: Arc<ControllerState>,
    /// The doorbell page of the controller.
    pub doorbells: Arc<SharedPages>,
    /// The controller as it is now.
    pub view: Arc<ControllerView>,
}

/// The I/O queues of one controller on one reactor.
pub struct PollGroup {
    id: GroupId,
    state: Arc<ControllerState>,
    doorbells: Arc<SharedPages>,
    context: IoContext,
    view: Arc<ControllerView>,
    memory: GuestMemory,
    devices: Vec<Option<Device>>,
    lanes: Vec<Lane>,
    watches: Watches,
    completions: Vec<CompletionLane>,
    /// Index into `lanes` for each queue identifier, or [`NO_LANE`].
    lane_of: [u16; QUEUES_MAX as usize + 1],
    deallocate: Deallocate,
    completed: Vec<Completion>,
    /// Completion queues that owe an interrupt.
    owing: usize,
    waiting: Vec<Waiting>,
    quiescing: bool,
    unmapped_at_ns: Option<u64>,
    memory_bad: bool,
    pass: u64,
    now_ns: u64,
    outbox: VecDeque<FromGroup>,
}

const NO_LANE: u16 = u16::MAX;
/// The flush at the end of a quiesce, which belongs to no command.
const FLUSH_TAG: Tag = Tag(u32::MAX);

/// A namespace and the channel to its block device.
struct Device {
    namespace: Arc<Namespace>,
    /// `None` when no channel could be opened: every command fails.
    channel: Option<Box<dyn Channel>>,
    in_flight: usize,
}

/// What became of a command that was to be started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The device has it, or it has completed.
    Accepted,
    /// Something it needs is in use: again in the next pass, and nothing of this queue before.
    Stalled,
}

impl PollGroup {
    /// A group without queues or memory.
    pub fn new(seed: GroupSeed, context: IoContext) -> PollGroup {
        let mut group = PollGroup {
            id: seed.id,
            state: seed.state,
            doorbells: seed.doorbells,
            context,
            view: Arc::clone(&seed.view),
            memory: GuestMemory::new(),
            devices: Vec::new(),
            lanes: Vec::with_capacity(usize::from(QUEUES_MAX)),
            watches: Watches::with_capacity(usize::from(QUEUES_MAX)),
            completions: Vec::with_capacity(usize::from(QUEUES_MAX)),
            lane_of: [NO_LANE; QUEUES_MAX as usize + 1],
            deallocate: Deallocate::new(),
            completed: Vec::with_capacity(COMPLETIONS_MAX),
            owing: 0,
            waiting: Vec::new(),
            quiescing: false,
            unmapped_at_ns: None,
            memory_bad: false,
            pass: 0,
            now_ns: 0,
            outbox: VecDeque::with_capacity(2 * EVENTS_MAX),
        };
        group.attach(seed.view);
        group
    }

    /// Its number.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// One pass at the monotonic time `now_ns`: true if there was anything to do, or is under way.
    #[inline]
    pub fn poll(&mut self, now_ns: u64) -> bool {
        self.now_ns = now_ns;
        self.pass += 1;
        let mut busy = self.fetch_all();
        busy |= self.complete_all();
        if self.owing != 0 {
            self.interrupt();
        }
        if !self.waiting.is_empty() {
            self.finish_waiting();
        }
        if self.pass % HEALTH_PASSES == 0 {
            self.check_memory();
        }
        busy
    }

    /// Whether it has submission queues, and so doorbells that somebody may ring.
    pub fn has_queues(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Whether only a doorbell or the controller can give it something to do.
    pub fn is_idle(&self) -> bool {
        let mut devices = self.devices.iter().flatten();
        devices.all(|device| device.in_flight == 0)
            && self.lanes.iter().all(|lane| lane.retry.is_empty())
            && !self.deallocate.is_active()
            && self.waiting.is_empty()
            && self.outbox.is_empty()
    }

    /// Whether the host is owed an interrupt that can be delivered: soon, if not yet.
    pub fn owes_interrupt(&self) -> bool {
        let deliverable =
            |vector: u16| matches!(self.view.vectors.get(usize::from(vector)), Some(Some(_)));
        let owes = |lane: &CompletionLane| {
            lane.owed.is_owed() && lane.queue.vector().is_some_and(deliverable)
        };
        self.owing != 0 && self.completions.iter().any(owes)
    }

    /// The next thing to tell the controller.
    #[inline]
    pub fn take_reply(&mut self) -> Option<FromGroup> {
        self.outbox.pop_front()
    }

    fn fetch(&mut self, index: usize) -> bool {
        let lane = &mut self.lanes[index];
        if !lane.retry.is_empty() && self.retry(index) == Start::Stalled {
            return true;
        }
        let mut room = match self.admit(index) {
            Ok(room) => room,
            Err((queue, InvalidDoorbell(value))) => {
                self.event(GroupEvent::InvalidDoorbell { queue, value });
                return true;
            }
        };
        let before = self.lanes[index].queue.head();
        self.lanes[index].queue.call_for(room.count());
        while let Some((slot, verdict)) = self.start_burst(index, &mut room) {
            if self.settle(index, slot, verdict) == Start::Stalled {
                self.lanes[index].retry.push(slot);
                break;
            }
        }
        let lane = &self.lanes[index];
        lane.queue.note_head();
        self.completions[lane.cq].queue.hand_back_rest(room);
        lane.queue.head() != before
    }

    /// Room for the completions of the commands that are there to fetch, as far as there is.
    #[inline]
    fn admit(&mut self, index: usize) -> Result<CqSlots, (QueueId, InvalidDoorbell)> {
        let lane = &mut self.lanes[index];
        let ahead = lane.queue.look().map_err(|bad| (lane.queue.id(), bad))?;
        let cq = &mut self.completions[lane.cq].queue;
        cq.reserve_half(ahead, BURST_MIN..=BURST_MAX)
            .map_err(|bad| (cq.id(), bad))
    }

    /// Fetches commands, as many as there is room for, and starts each on its device. Ends early
    /// with one that needs something else.
    #[inline]
    fn start_burst(&mut self, index: usize, room: &mut CqSlots) -> Option<(SlotIndex, Verdict)> {
        let (queue, mut starter) = self.starter(index);
        while let Some(credit) = room.take() {
            match queue.pop(credit) {
                Ok((slot, sqe)) => match starter.start(slot, &sqe) {
                    Verdict::Accepted => {}
                    verdict => return Some((slot, verdict)),
                },
                Err(credit) => {
                    room.put_back(credit);
                    return None;
                }
            }
        }
        None
    }

    /// A queue, and what starts its commands.
    #[inline]
    fn starter(&mut self, index: usize) -> (&mut SubmissionQueue, Starter<'_>) {
        let queue = &mut self.lanes[index].queue;
        let starter = Starter {
            queue: queue.id(),
            devices: &mut self.devices,
            memory: &self.memory,
            pool: self.context.iovec_pool(),
            view: &self.view,
        };
        (queue, starter)
    }

    /// Starts what could not be started before, the oldest first.
    #[cold]
    fn retry(&mut self, index: usize) -> Start {
        while let Some(slot) = self.lanes[index].retry.pop() {
            let (queue, mut starter) = self.starter(index);
            let verdict = match queue.is_parked() {
                true => Verdict::Full,
                false => starter.start(slot, &queue.slot(slot).sqe()),
            };
            if self.settle(index, slot, verdict) == Start::Stalled {
                self.lanes[index].retry.push(slot);
                return Start::Stalled;
            }
        }
        Start::Accepted
    }

    /// Goes on with a command that its device has not accepted.
    #[cold]
    fn settle(&mut self, index: usize, slot: SlotIndex, verdict: Verdict) -> Start {
        match verdict {
            Verdict::Accepted => Start::Accepted,
            Verdict::Full => Start::Stalled,
            Verdict::Completed(status) => self.fail(index, slot, status),
            Verdict::WithoutData(error) => self.without_data(index, slot, error),
            Verdict::Deallocate { ranges } => {
                let sqe = self.lanes[index].queue.slot(slot).sqe();
                self.deallocate(index, slot, &sqe, ranges)
            }
        }
    }

    /// Completes a command that never reached its device.
    fn fail(&mut self, index: usize, slot: SlotIndex, status: Status) -> Start {
        self.lanes[index].queue.note_head();
        self.complete(index, slot, status);
        Start::Accepted
    }

    /// The data pointer led nowhere: fails the command, or lets it wait for what will come.
    #[cold]
    fn without_data(&mut self, index: usize, slot: SlotIndex, error: DataError) -> Start {
        match error {
            DataError::Busy => Start::Stalled,
            DataError::NotMapped if self.may_be_remapped() => Start::Stalled,
            DataError::NotMapped => self.fail(index, slot, Status::DATA_TRANSFER_ERROR),
            DataError::Status(status) => self.fail(index, slot, status),
        }
    }

    fn may_be_remapped(&self) -> bool {
        self.unmapped_at_ns
            .is_some_and(|then| self.now_ns.saturating_sub(then) < REMAP_GRACE_NS)
    }

    #[inline]
    fn complete_all(&mut self) -> bool {
        let mut busy = false;
        for index in 0..self.devices.len() {
            let Some(device) = &mut self.devices[index] else {
                continue;
            };
            if device.in_flight == 0 {
                continue;
            }
            let Some(channel) = &mut device.channel else {
                continue;
            };
            busy = true;
            channel.poll(&mut self.completed);
            device.in_flight -= self.completed.len();
            let mut completed = std::mem::take(&mut self.completed);
            let mut rest = completed.drain(..);
            while let Some(completion) = self.post_burst(index, &mut rest) {
                self.completed_otherwise(index, completion);
            }
            drop(rest);
            self.completed = completed;
        }
        if self.deallocate.is_active() {
            self.advance_deallocate();
        }
        busy
    }

    /// Posts the completions of commands that a device has carried out. Ends early with one that
    /// is not as simple as that.
    #[inline]
    fn post_burst(
        &mut self,
        device: usize,
        completed: &mut vec::Drain<'_, Completion>,
    ) -> Option<Completion> {
        let device = self.devices.get(device)?.as_ref()?;
        let shift = device.namespace.block_shift();
        for completion in completed {
            let simple = completion.status == bdev::Status::Success && !self.quiescing;
            if !simple || self.deallocate.owns(completion.tag) {
                return Some(completion);
            }
            let (queue, slot) = queue_and_slot(completion.tag);
            let lane = &mut self.lanes[usize::from(self.lane_of[usize::from(queue.0)])];
            nvm::count(lane.queue.block(), lane.queue.slot(slot), shift);
            let completions = &mut self.completions[lane.cq];
            lane.post(completions, slot, Status::SUCCESS);
            self.owing += usize::from(completions.owe(self.now_ns));
        }
        None
    }

    /// What failed, belongs to no command or to a part of one, or is not wanted any more.
    #[cold]
    fn completed_otherwise(&mut self, device: usize, completion: Completion) {
        let status = nvm::status_of(completion.status);
        if completion.tag == FLUSH_TAG {
            return self.flushed(device, status);
        }
        if self.deallocate.owns(completion.tag) {
            return self.deallocate.completed(status);
        }
        let (queue, slot) = queue_and_slot(completion.tag);
        let index = usize::from(self.lane_of[usize::from(queue.0)]);
        let lane = &self.lanes[index];
        match (status, self.devices.get(device)) {
            (Status::UNRECOVERED_READ_ERROR | Status::WRITE_FAULT, _) => {
                lane.queue.block().count_media_error();
            }
            (Status::SUCCESS, Some(Some(device))) => {
                let shift = device.namespace.block_shift();
                nvm::count(lane.queue.block(), lane.queue.slot(slot), shift);
            }
            _ => {}
        }
        self.complete(index, slot, status);
    }

    #[cold]
    fn flushed(&self, device: usize, status: Status) {
        if status != Status::SUCCESS {
            let nsid = device + 1;
            tracing::error!(
                nsid,
                ?status,
                "data may be lost: the disk could not be flushed"
            );
        }
    }

    /// Posts a completion, or, while quiescing, forgets the command.
    fn complete(&mut self, index: usize, slot: SlotIndex, status: Status) {
        if status != Status::SUCCESS && !self.quiescing {
            self.report(index, slot, status);
        }
        let lane = &mut self.lanes[index];
        let completions = &mut self.completions[lane.cq];
        if self.quiescing {
            completions.queue.hand_back(lane.queue.credit());
            lane.queue.release(slot);
            return;
        }
        lane.post(completions, slot, status);
        self.owing += usize::from(completions.owe(self.now_ns));
    }

    #[cold]
    fn report(&mut self, index: usize, slot: SlotIndex, status: Status) {
        let queue = &self.lanes[index].queue;
        let (sqid, sqe) = (queue.id(), queue.slot(slot).sqe());
        let (cid, nsid, lba) = (sqe.cid(), sqe.nsid(), nvm::first_lba(&sqe));
        self.event(GroupEvent::CommandError(CommandError {
            sqid,
            cid,
            status,
            nsid,
            lba,
        }));
    }

    fn interrupt(&mut self) {
        for index in 0..self.completions.len() {
            let lane = &mut self.completions[index];
            match lane.settle(&self.view, self.now_ns) {
                Ok(settled) => self.owing -= usize::from(settled),
                Err(InvalidDoorbell(value)) => {
                    let queue = lane.queue.id();
                    self.event(GroupEvent::InvalidDoorbell { queue, value });
                }
            }
        }
    }

    #[cold]
    fn event(&mut self, event: GroupEvent) {
        if self.outbox.len() < EVENTS_MAX {
            self.outbox.push_back(FromGroup::Event(event));
        }
    }

    #[cold]
    fn check_memory(&mut self) {
        // This event must not be dropped: it is told once.
        let room = self.outbox.len() < EVENTS_MAX;
        if room && !self.memory_bad && self.memory.any_bad() {
            self.memory_bad = true;
            self.event(GroupEvent::MemoryBad);
        }
    }
}

fn tag_of(queue: QueueId, slot: SlotIndex) -> Tag {
    Tag(u32::from(queue.0) << 16 | u32::from(slot.0))
}

fn queue_and_slot(tag: Tag) -> (QueueId, SlotIndex) {
    (QueueId((tag.0 >> 16) as u16), SlotIndex(tag.0 as u16))
}

//! What the controller asks of a poll group: queues, memory, views, and coming to rest.
//!
//! Each request is idempotent where it can be, and each is answered once. Requests that have to
//! wait for Ios are kept in `waiting` and looked at once per pass.

use std::sync::Arc;

use bdev::memory::{IoVecs, Iova, MemoryError};
use bdev::{Io, Op};

use super::lane::{CompletionLane, Lane};
use super::{Device, FLUSH_TAG, NO_LANE, PollGroup, SlotIndex, tag_of};
use crate::namespace::Namespace;
use crate::pcie::message::{
    ControllerView, CqSpec, Envelope, FromGroup, GroupEvent, GroupOutcome, SqSpec, ToGroup,
};
use crate::pcie::queue::{CompletionQueue, InvalidDoorbell, SubmissionQueue};
use crate::pcie::state::SlotState;
use crate::spec::{CommandId, QueueId, Status};

/// A request that is done when its Ios are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    sequence: u64,
    until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    /// No Io touches memory that was unmapped.
    MemoryIsQuiet,
    /// All commands of the queue have completed.
    QueueIsDrained(QueueId),
    /// All Ios are back.
    AllIsQuiet {
        /// Then every block device is to be flushed.
        flush: bool,
    },
}

impl PollGroup {
    /// Takes a request of the controller.
    pub fn receive(&mut self, envelope: Envelope) {
        let Envelope { sequence, body } = envelope;
        self.watches.clear();
        let outcome = match body {
            ToGroup::View(view) => {
                let before = Arc::clone(&self.view);
                self.attach(view);
                self.settle_queues();
                self.owe_to_opened(&before);
                GroupOutcome::Ok
            }
            ToGroup::Map(region) => {
                let outcome = self.memory.map(region);
                self.settle_queues();
                outcome.map_or(GroupOutcome::Refused, |()| GroupOutcome::Ok)
            }
            ToGroup::Unmap { iova, len } => return self.unmap(sequence, Some((iova, len))),
            ToGroup::UnmapAll => return self.unmap(sequence, None),
            ToGroup::CreateCq(spec) => self.create_cq(&spec),
            ToGroup::DeleteCq(id) => self.delete_cq(id),
            ToGroup::CreateSq(spec) => self.create_sq(&spec),
            ToGroup::DeleteSq(id) => return self.delete_sq(sequence, id),
            ToGroup::ResumeCq(id) => self.resume_cq(id),
            ToGroup::ResumeSq(id) => self.resume_sq(id),
            ToGroup::Abort { sqid, cid } => GroupOutcome::Aborted(self.abort(sqid, cid)),
            ToGroup::Quiesce { flush } => return self.quiesce(sequence, flush),
        };
        self.done(sequence, outcome);
    }

    fn done(&mut self, sequence: u64, outcome: GroupOutcome) {
        self.outbox.push_back(FromGroup::Done { sequence, outcome });
    }

    fn wait(&mut self, sequence: u64, until: Until) {
        self.waiting.push(Waiting { sequence, until });
        self.finish_waiting();
    }

    /// Answers the requests whose Ios are back.
    pub(super) fn finish_waiting(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() {
            let Waiting { sequence, until } = self.waiting[index];
            if !self.is_reached(until) {
                index += 1;
            } else if until == (Until::AllIsQuiet { flush: true }) && !self.memory_bad {
                self.waiting[index].until = Until::AllIsQuiet { flush: false };
                self.flush_all();
            } else {
                self.waiting.swap_remove(index);
                self.reached(until);
                self.done(sequence, GroupOutcome::Ok);
            }
        }
    }

    fn is_reached(&mut self, until: Until) -> bool {
        match until {
            Until::MemoryIsQuiet => !self.memory.retired_busy(),
            Until::QueueIsDrained(id) => self
                .lane(id)
                .is_none_or(|index| self.lanes[index].queue.is_drained()),
            Until::AllIsQuiet { .. } => {
                !self.deallocate.is_active()
                    && self
                        .devices
                        .iter()
                        .flatten()
                        .all(|device| device.in_flight == 0)
            }
        }
    }

    fn reached(&mut self, until: Until) {
        match until {
            Until::MemoryIsQuiet => {}
            Until::QueueIsDrained(id) => self.remove_sq(id),
            Until::AllIsQuiet { .. } => self.remove_all(),
        }
    }

    fn lane(&self, id: QueueId) -> Option<usize> {
        let index = self.lane_of.get(usize::from(id.0)).copied()?;
        (index != NO_LANE).then_some(usize::from(index))
    }

    fn completion_lane(&self, id: QueueId) -> Option<usize> {
        self.completions
            .iter()
            .position(|lane| lane.queue.id() == id)
    }

    /// Looks at the controller by `view` from now on; opens channels to namespaces that are new.
    pub(super) fn attach(&mut self, view: Arc<ControllerView>) {
        self.devices.truncate(view.namespaces.len());
        self.devices.resize_with(view.namespaces.len(), || None);
        for (device, namespace) in self.devices.iter_mut().zip(&view.namespaces) {
            let same = match (&device, namespace) {
                (Some(device), Some(namespace)) => Arc::ptr_eq(&device.namespace, namespace),
                (None, None) => true,
                _ => false,
            };
            if !same {
                *device = namespace
                    .as_ref()
                    .map(|namespace| Device::open(namespace, &self.context));
            }
        }
        self.view = view;
    }

    /// Finds or loses the memory of every queue after a change of memory or view.
    fn settle_queues(&mut self) {
        let shadow = self.view.shadow;
        for lane in &mut self.completions {
            lane.queue.settle(&self.memory, shadow);
        }
        for index in 0..self.lanes.len() {
            self.lanes[index].queue.settle(&self.memory, shadow);
            self.repost(index);
        }
    }

    /// Writes the completions that waited in their slots for the memory of their queue.
    fn repost(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let completions = &mut self.completions[lane.cq];
        if completions.queue.is_parked() {
            return;
        }
        let posting = |slot: &SlotIndex| lane.queue.slot(*slot).state() == SlotState::Posting;
        let posting: Vec<SlotIndex> = lane.queue.occupied().filter(posting).collect();
        if !posting.is_empty() {
            completions.tell_again();
        }
        for slot in posting {
            if completions.queue.repost(lane.queue.slot(slot)) {
                lane.queue.release(slot);
                if completions.queue.vector().is_some() {
                    self.owing += usize::from(!completions.owed.is_owed());
                    completions.owed.add(self.now_ns);
                }
            }
        }
    }

    fn unmap(&mut self, sequence: u64, range: Option<(Iova, u64)>) {
        let outcome = match range {
            Some((iova, len)) => self.memory.unmap(iova, len),
            None => {
                self.memory.unmap_all();
                Ok(())
            }
        };
        self.unmapped_at_ns = Some(self.now_ns);
        // What the next client maps can fail anew.
        self.memory_bad &= self.memory.any_bad();
        self.settle_queues();
        match outcome {
            Ok(()) => self.wait(sequence, Until::MemoryIsQuiet),
            Err(_) => self.done(sequence, GroupOutcome::Refused),
        }
    }

    fn create_cq(&mut self, spec: &CqSpec) -> GroupOutcome {
        if self.completion_lane(spec.id).is_some() {
            return GroupOutcome::Refused;
        }
        let queue = CompletionQueue::new(&self.state, &self.doorbells, &self.memory, spec);
        self.add_cq(queue)
    }

    fn resume_cq(&mut self, id: QueueId) -> GroupOutcome {
        if self.completion_lane(id).is_some() {
            return GroupOutcome::Refused;
        }
        self.add_cq(CompletionQueue::resume(&self.state, &self.doorbells, id))
    }

    fn add_cq(&mut self, queue: Result<CompletionQueue, MemoryError>) -> GroupOutcome {
        match queue {
            Ok(mut queue) => {
                queue.settle(&self.memory, self.view.shadow);
                self.completions.push(CompletionLane::new(queue));
                GroupOutcome::Ok
            }
            Err(error) => GroupOutcome::MemoryError(error),
        }
    }

    fn delete_cq(&mut self, id: QueueId) -> GroupOutcome {
        let Some(index) = self.completion_lane(id) else {
            return GroupOutcome::Refused;
        };
        if self.lanes.iter().any(|lane| lane.cq == index) {
            return GroupOutcome::Refused;
        }
        let last = self.completions.len() - 1;
        for lane in &mut self.lanes {
            if lane.cq == last {
                lane.cq = index;
            }
        }
        let lane = self.completions.swap_remove(index);
        self.owing -= usize::from(lane.owed.is_owed());
        lane.queue.remove();
        GroupOutcome::Ok
    }

    fn create_sq(&mut self, spec: &SqSpec) -> GroupOutcome {
        let Some(cq) = self.completion_lane(spec.cqid) else {
            return GroupOutcome::Refused;
        };
        if self.lane(spec.id).is_some() {
            return GroupOutcome::Refused;
        }
        match SubmissionQueue::new(&self.state, &self.doorbells, &self.memory, spec) {
            Ok(queue) => {
                self.add_sq(queue, cq);
                GroupOutcome::Ok
            }
            Err(error) => GroupOutcome::MemoryError(error),
        }
    }

    fn add_sq(&mut self, mut queue: SubmissionQueue, cq: usize) {
        queue.settle(&self.memory, self.view.shadow);
        self.lane_of[usize::from(queue.id().0)] = self.lanes.len() as u16;
        self.lanes.push(Lane {
            queue,
            cq,
            retry: Vec::new(),
        });
    }

    /// Goes on with a queue of an earlier life: its posting slots are written again, its
    /// commands in flight are executed again in the order of their positions.
    fn resume_sq(&mut self, id: QueueId) -> GroupOutcome {
        let queue = match SubmissionQueue::resume(&self.state, &self.doorbells, id) {
            Ok(queue) => queue,
            Err(error) => return GroupOutcome::MemoryError(error),
        };
        let Some(cq) = self.completion_lane(queue.cqid()) else {
            return GroupOutcome::Refused;
        };
        if self.lane(id).is_some() {
            return GroupOutcome::Refused;
        }
        self.add_sq(queue, cq);
        let index = self.lanes.len() - 1;
        let lane = &mut self.lanes[index];
        let completions = &mut self.completions[cq];
        let mut retry: Vec<SlotIndex> = Vec::new();
        for slot in lane.queue.occupied().collect::<Vec<_>>() {
            if lane.queue.slot(slot).state() == SlotState::Posting {
                completions.queue.catch_up(lane.queue.slot(slot));
            } else {
                let credit = completions.queue.readmit();
                lane.queue.keep(credit);
                retry.push(slot);
            }
        }
        retry.sort_by_key(|&slot| std::cmp::Reverse(lane.queue.slot(slot).sq_position()));
        lane.retry = retry;
        self.repost(index);
        self.owe_unconsumed(cq);
        GroupOutcome::Ok
    }

    /// Where an interrupt can be delivered that could not be before, the host hears of all that it
    /// has not consumed: a pin that is opened shows its level, and what was told to a vector that
    /// was taken away may have been told to nobody.
    fn owe_to_opened(&mut self, before: &ControllerView) {
        for index in 0..self.completions.len() {
            let queue = &mut self.completions[index].queue;
            let opened = queue.vector().is_some_and(|v| self.view.opens(before, v));
            if !opened {
                continue;
            }
            if let Err(InvalidDoorbell(value)) = queue.consume() {
                let queue = queue.id();
                self.event(GroupEvent::InvalidDoorbell { queue, value });
            }
            self.completions[index].tell_again();
            self.owe_unconsumed(index);
        }
    }

    /// An interrupt may have been lost with the earlier life; one too many is harmless.
    fn owe_unconsumed(&mut self, cq: usize) {
        let lane = &mut self.completions[cq];
        if lane.queue.vector().is_some() && lane.queue.has_unconsumed() && !lane.owed.is_owed() {
            self.owing += 1;
            lane.owed.add(self.now_ns);
        }
    }

    fn delete_sq(&mut self, sequence: u64, id: QueueId) {
        let Some(index) = self.lane(id) else {
            return self.done(sequence, GroupOutcome::Refused);
        };
        self.lanes[index].queue.stop();
        while let Some(slot) = self.lanes[index].retry.pop() {
            self.complete(index, slot, Status::ABORTED_SQ_DELETION);
        }
        self.wait(sequence, Until::QueueIsDrained(id));
    }

    fn remove_sq(&mut self, id: QueueId) {
        let Some(index) = self.lane(id) else { return };
        let lane = self.lanes.swap_remove(index);
        self.watches.clear();
        self.lane_of[usize::from(id.0)] = NO_LANE;
        if let Some(moved) = self.lanes.get(index) {
            self.lane_of[usize::from(moved.queue.id().0)] = index as u16;
        }
        lane.queue.remove();
    }

    fn abort(&mut self, sqid: QueueId, cid: CommandId) -> bool {
        let Some(index) = self.lane(sqid) else {
            return false;
        };
        let lane = &mut self.lanes[index];
        let is_named = |slot: &SlotIndex| lane.queue.slot(*slot).cid() == cid;
        if let Some(position) = lane.retry.iter().position(is_named) {
            let slot = lane.retry.remove(position);
            self.complete(index, slot, Status::COMMAND_ABORT_REQUESTED);
            return true;
        }
        if let Some(slot) = lane.queue.occupied().find(is_named) {
            let tag = tag_of(sqid, slot);
            let channels = self
                .devices
                .iter_mut()
                .flatten()
                .filter_map(|d| d.channel.as_mut());
            channels.for_each(|channel| channel.cancel(tag));
        }
        // Whether it will be cancelled is not known yet; it completes either way.
        false
    }

    /// Comes to rest: nothing more is fetched or posted, and what the devices have is cancelled
    /// as far as they can.
    fn quiesce(&mut self, sequence: u64, flush: bool) {
        self.quiescing = true;
        self.deallocate.stop();
        for index in 0..self.lanes.len() {
            self.lanes[index].queue.stop();
            while let Some(slot) = self.lanes[index].retry.pop() {
                self.complete(index, slot, Status::COMMAND_ABORT_REQUESTED);
            }
            let id = self.lanes[index].queue.id();
            for slot in self.lanes[index].queue.occupied() {
                let channels = self
                    .devices
                    .iter_mut()
                    .flatten()
                    .filter_map(|d| d.channel.as_mut());
                channels.for_each(|channel| channel.cancel(tag_of(id, slot)));
            }
        }
        self.advance_deallocate();
        self.wait(sequence, Until::AllIsQuiet { flush });
    }

    /// Flushes every block device that can be written.
    fn flush_all(&mut self) {
        for device in self.devices.iter_mut().flatten() {
            let Some(channel) = &mut device.channel else {
                continue;
            };
            let (op, tag, iovecs) = (Op::Flush, FLUSH_TAG, IoVecs::new());
            let io = Io {
                op,
                fua: false,
                lba: 0,
                blocks: 0,
                tag,
                iovecs,
            };
            // The channel is empty: if it is full all the same, it can do nothing.
            device.in_flight += usize::from(channel.submit(io).is_ok());
        }
    }

    fn remove_all(&mut self) {
        self.watches.clear();
        for lane in self.lanes.drain(..) {
            self.lane_of[usize::from(lane.queue.id().0)] = NO_LANE;
            lane.queue.remove();
        }
        for lane in self.completions.drain(..) {
            lane.queue.remove();
        }
        self.owing = 0;
        self.quiescing = false;
        // Requests that waited for a queue have what they waited for.
    }
}

impl Device {
    fn open(namespace: &Arc<Namespace>, context: &bdev::IoContext) -> Device {
        let channel = Arc::clone(namespace.bdev()).open_channel(context);
        let channel = channel.map_err(|error| {
            tracing::error!(namespace = namespace.nsid().0, %error, "no channel to the disk");
        });
        Device {
            namespace: Arc::clone(namespace),
            channel: channel.ok(),
            in_flight: 0,
        }
    }
}

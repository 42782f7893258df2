//! Which I/O queues exist and where: completion queues are spread over the poll groups, a
//! submission queue lives where its completion queue does.

use std::sync::atomic::Ordering::Relaxed;

use super::{AdminRequest, Controller, Purpose};
use crate::pcie::doorbell::{Doorbell, Side};
use crate::pcie::message::{CqSpec, GroupId, GroupOutcome, ShadowDoorbells, SqSpec, ToGroup};
use crate::pcie::queue::SlotIndex;
use crate::spec::{CommandId, QueueId, Status};

/// A completion queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CqPlace {
    pub(super) group: GroupId,
    pub(super) vector: Option<u16>,
}

/// A submission queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SqPlace {
    pub(super) cqid: QueueId,
}

/// The I/O queues of a controller, those that are being created included.
#[derive(Debug)]
pub(super) struct QueueTable {
    cqs: Vec<Option<CqPlace>>,
    sqs: Vec<Option<SqPlace>>,
    /// Deletions under way: until they are done the queues are there, for nobody else.
    leaving: Vec<AdminRequest>,
}

impl QueueTable {
    pub(super) fn new(queues: u16) -> QueueTable {
        let places = usize::from(queues) + 1;
        QueueTable {
            cqs: vec![None; places],
            sqs: vec![None; places],
            leaving: Vec::new(),
        }
    }

    pub(super) fn cq(&self, id: QueueId) -> Option<CqPlace> {
        *self.cqs.get(usize::from(id.0))?
    }

    pub(super) fn sq(&self, id: QueueId) -> Option<SqPlace> {
        *self.sqs.get(usize::from(id.0))?
    }

    /// Whether a submission queue posts to this completion queue.
    pub(super) fn uses(&self, cqid: QueueId) -> bool {
        self.sqs.iter().flatten().any(|sq| sq.cqid == cqid)
    }

    /// Whether this deletion, of a queue that is still there, is under way.
    pub(super) fn is_leaving(&self, deletion: AdminRequest) -> bool {
        self.leaving.contains(&deletion)
    }

    pub(super) fn any(&self) -> bool {
        self.cqs.iter().any(Option::is_some)
    }

    pub(super) fn cqs_of_vector(&self, vector: u16) -> impl Iterator<Item = QueueId> + '_ {
        let of_vector = move |cq: &CqPlace| cq.vector == Some(vector);
        (0..)
            .zip(&self.cqs)
            .filter(move |(_, cq)| cq.is_some_and(|cq| of_vector(&cq)))
            .map(|(id, _)| QueueId(id))
    }

    pub(super) fn put_cq(&mut self, id: QueueId, place: Option<CqPlace>) {
        if let Some(entry) = self.cqs.get_mut(usize::from(id.0)) {
            *entry = place;
        }
    }

    pub(super) fn put_sq(&mut self, id: QueueId, place: Option<SqPlace>) {
        if let Some(entry) = self.sqs.get_mut(usize::from(id.0)) {
            *entry = place;
        }
    }

    pub(super) fn clear(&mut self) {
        self.cqs.fill(None);
        self.sqs.fill(None);
        self.leaving.clear();
    }

    /// The group with the fewest completion queues, the lowest of several.
    pub(super) fn least_loaded(&self, groups: u16) -> GroupId {
        let load = |group: &u16| {
            self.cqs
                .iter()
                .flatten()
                .filter(|cq| cq.group == GroupId(*group))
                .count()
        };
        GroupId((0..groups).min_by_key(load).unwrap_or(0))
    }
}

impl Controller {
    /// Whether there can be an I/O queue of this number.
    pub(super) fn is_io_queue(&self, id: QueueId) -> bool {
        id != QueueId::ADMIN && id.0 <= self.config.queues
    }

    pub(super) fn create_cq(&mut self, slot: SlotIndex, spec: CqSpec) {
        let group = self.queues.least_loaded(self.groups.count());
        self.queues.put_cq(
            spec.id,
            Some(CqPlace {
                group,
                vector: spec.vector,
            }),
        );
        let purpose = Purpose::Admin(slot, AdminRequest::CreateCq(spec.id));
        self.begin_effect(slot);
        self.groups.send(group, ToGroup::CreateCq(spec), purpose);
    }

    pub(super) fn create_sq(&mut self, slot: SlotIndex, spec: SqSpec) {
        let Some(cq) = self.queues.cq(spec.cqid) else {
            return;
        };
        self.queues
            .put_sq(spec.id, Some(SqPlace { cqid: spec.cqid }));
        let purpose = Purpose::Admin(slot, AdminRequest::CreateSq(spec.id));
        self.begin_effect(slot);
        self.groups.send(cq.group, ToGroup::CreateSq(spec), purpose);
    }

    /// Deletes a queue that exists: [`AdminRequest::DeleteCq`] or [`AdminRequest::DeleteSq`].
    pub(super) fn delete_queue(&mut self, slot: SlotIndex, request: AdminRequest) {
        let (group, body) = match request {
            AdminRequest::DeleteCq(id) => (self.group_of_cq(id), ToGroup::DeleteCq(id)),
            AdminRequest::DeleteSq(id) => (self.group_of_sq(id), ToGroup::DeleteSq(id)),
            _ => return,
        };
        self.queues.leaving.push(request);
        self.begin_effect(slot);
        self.groups.send(group, body, Purpose::Admin(slot, request));
    }

    pub(super) fn abort(&mut self, slot: SlotIndex, sqid: QueueId, cid: CommandId) {
        let purpose = Purpose::Admin(slot, AdminRequest::Abort);
        self.groups.send(
            self.group_of_sq(sqid),
            ToGroup::Abort { sqid, cid },
            purpose,
        );
    }

    fn group_of_cq(&self, id: QueueId) -> GroupId {
        self.queues.cq(id).map_or(GroupId(0), |cq| cq.group)
    }

    fn group_of_sq(&self, id: QueueId) -> GroupId {
        self.queues
            .sq(id)
            .map_or(GroupId(0), |sq| self.group_of_cq(sq.cqid))
    }

    /// A poll group has done, or refused, what an admin command asked for.
    pub(super) fn group_answered(
        &mut self,
        slot: SlotIndex,
        request: AdminRequest,
        outcome: GroupOutcome,
    ) {
        let ok = outcome == GroupOutcome::Ok;
        self.queues.leaving.retain(|leaving| *leaving != request);
        match request {
            AdminRequest::CreateCq(id) if !ok => self.queues.put_cq(id, None),
            AdminRequest::CreateSq(id) if !ok => self.queues.put_sq(id, None),
            AdminRequest::DeleteCq(id) if ok => self.queues.put_cq(id, None),
            AdminRequest::DeleteSq(id) if ok => self.queues.put_sq(id, None),
            _ => {}
        }
        let (status, dword0) = match outcome {
            GroupOutcome::Ok => (Status::SUCCESS, 0),
            GroupOutcome::Aborted(aborted) => (Status::SUCCESS, u32::from(!aborted)),
            GroupOutcome::MemoryError(_) => (Status::DATA_TRANSFER_ERROR, 0),
            // The command that was to create its completion queue just before has failed.
            GroupOutcome::Refused if matches!(request, AdminRequest::CreateSq(_)) => {
                (Status::COMPLETION_QUEUE_INVALID, 0)
            }
            GroupOutcome::Refused => (Status::INTERNAL_ERROR, 0),
        };
        self.complete_admin(slot, status, dword0);
    }

    /// Puts the doorbells of I/O queues into guest memory from now on.
    pub(super) fn set_shadow(&mut self, shadow: ShadowDoorbells) -> Result<(), Status> {
        let page = 1u64 << self.page_shift();
        let buffers = [shadow.doorbells, shadow.event_indices];
        if buffers.iter().any(|buffer| buffer.0 % page != 0) {
            return Err(Status::INVALID_FIELD);
        }
        // As poll groups will: a queue whose doorbells cannot be used comes to a halt.
        let mut doorbell = Doorbell::new(&self.doorbells, QueueId::ADMIN, Side::Submission);
        if doorbell.shadow(&self.memory, Some(shadow)).is_err() {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        self.save_shadow(Some(shadow));
        self.publish();
        Ok(())
    }

    pub(super) fn save_shadow(&mut self, shadow: Option<ShadowDoorbells>) {
        self.shadow = shadow;
        let block = self.state.controller();
        block
            .shadow_doorbells
            .store(shadow.map_or(0, |shadow| shadow.doorbells.0), Relaxed);
        block
            .event_indices
            .store(shadow.map_or(0, |shadow| shadow.event_indices.0), Relaxed);
    }
}

//! Requests under way to poll groups: what was sent, who has not answered yet, and what is to be
//! done when all have.

use std::collections::VecDeque;

use crate::pcie::message::{Envelope, GroupId, GroupOutcome, ToGroup};
use crate::pcie::queue::SlotIndex;
use crate::spec::QueueId;

/// What a request to poll groups was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The controller as the groups see it; the view has this number.
    View(u64),
    /// An operation of the client: mapping or unmapping memory.
    Memory,
    /// Coming to rest.
    Quiesce,
    /// An admin command, in this slot of the admin queue.
    Admin(SlotIndex, AdminRequest),
    /// Going on with queues of an earlier life.
    Resume,
}

/// What an admin command asked a poll group for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AdminRequest {
    CreateCq(QueueId),
    CreateSq(QueueId),
    DeleteCq(QueueId),
    DeleteSq(QueueId),
    Abort,
}

/// A request that all its groups have answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Finished {
    pub(super) purpose: Purpose,
    /// The first answer that was not [`GroupOutcome::Ok`], else that.
    pub(super) outcome: GroupOutcome,
}

#[derive(Debug)]
struct Operation {
    sequence: u64,
    unanswered: u16,
    finished: Finished,
}

/// The poll groups of a controller, as far as it talks to them.
#[derive(Debug)]
pub(super) struct Groups {
    count: u16,
    sequence: u64,
    outbox: VecDeque<(GroupId, Envelope)>,
    operations: Vec<Operation>,
}

impl Groups {
    pub(super) fn new(count: u16) -> Groups {
        Groups {
            count,
            sequence: 0,
            outbox: VecDeque::new(),
            operations: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Asks one group.
    pub(super) fn send(&mut self, group: GroupId, body: ToGroup, purpose: Purpose) {
        let sequence = self.begin(1, purpose);
        self.outbox.push_back((group, Envelope { sequence, body }));
    }

    /// Asks every group the same.
    pub(super) fn broadcast(&mut self, purpose: Purpose, body: impl Fn(GroupId) -> ToGroup) {
        let sequence = self.begin(self.count, purpose);
        for group in (0..self.count).map(GroupId) {
            self.outbox.push_back((
                group,
                Envelope {
                    sequence,
                    body: body(group),
                },
            ));
        }
    }

    fn begin(&mut self, unanswered: u16, purpose: Purpose) -> u64 {
        self.sequence += 1;
        let finished = Finished {
            purpose,
            outcome: GroupOutcome::Ok,
        };
        self.operations.push(Operation {
            sequence: self.sequence,
            unanswered,
            finished,
        });
        self.sequence
    }

    /// A group has answered: the request, if that was the last answer.
    pub(super) fn answered(&mut self, sequence: u64, outcome: GroupOutcome) -> Option<Finished> {
        let index = self
            .operations
            .iter()
            .position(|op| op.sequence == sequence)?;
        let operation = &mut self.operations[index];
        operation.unanswered -= 1;
        if operation.finished.outcome == GroupOutcome::Ok {
            operation.finished.outcome = outcome;
        }
        let done = operation.unanswered == 0;
        done.then(|| self.operations.swap_remove(index).finished)
    }

    /// Nobody waits for the answers to admin commands any more.
    pub(super) fn forget_admin(&mut self) {
        self.operations
            .retain(|op| !matches!(op.finished.purpose, Purpose::Admin(..)));
    }

    /// True while a request for this is not answered by all.
    pub(super) fn is_waiting_for(&self, of: impl Fn(&Purpose) -> bool) -> bool {
        self.operations
            .iter()
            .any(|operation| of(&operation.finished.purpose))
    }

    /// The next message to carry to a group.
    pub(super) fn take(&mut self) -> Option<(GroupId, Envelope)> {
        self.outbox.pop_front()
    }

    /// Takes a message back that could not be carried; it comes first again.
    pub(super) fn put_back(&mut self, group: GroupId, envelope: Envelope) {
        self.outbox.push_front((group, envelope));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_finished_by_the_last_answer_and_keeps_the_first_failure() {
        let mut groups = Groups::new(3);
        groups.broadcast(Purpose::Quiesce, |_| ToGroup::UnmapAll);
        let sequence = groups.take().unwrap().1.sequence;
        assert_eq!(groups.answered(sequence, GroupOutcome::Ok), None);
        assert_eq!(groups.answered(sequence, GroupOutcome::Refused), None);
        assert!(groups.is_waiting_for(|purpose| *purpose == Purpose::Quiesce));
        let finished = groups.answered(sequence, GroupOutcome::Ok).unwrap();
        assert_eq!(finished.outcome, GroupOutcome::Refused);
        assert_eq!(
            groups.answered(sequence, GroupOutcome::Ok),
            None,
            "answered twice"
        );
    }

    #[test]
    fn messages_to_a_group_keep_their_order_when_one_is_put_back() {
        let mut groups = Groups::new(1);
        groups.send(GroupId(0), ToGroup::UnmapAll, Purpose::Memory);
        groups.send(
            GroupId(0),
            ToGroup::Quiesce { flush: false },
            Purpose::Quiesce,
        );
        let (group, first) = groups.take().unwrap();
        let sequence = first.sequence;
        groups.put_back(group, first);
        assert_eq!(groups.take().unwrap().1.sequence, sequence);
        assert_eq!(groups.take().unwrap().1.sequence, sequence + 1);
    }
}

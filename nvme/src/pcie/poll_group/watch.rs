//! Which queues have something: idle ones cost a comparison.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use bdev::memory::Glance;

use super::PollGroup;
use crate::pcie::doorbell::{FIRST_IO_PAIR, PAIR_BYTES, doorbell_file_bytes};
use crate::pcie::state::QUEUES_MAX;
use crate::spec::QueueId;

const _: () = assert!(
    (FIRST_IO_PAIR + (QUEUES_MAX as usize).next_multiple_of(Glance::PAIRS_MULTIPLE)) * PAIR_BYTES
        <= doorbell_file_bytes(1),
    "a group of any queue can rest"
);

/// What was seen of the submission queues' doorbells, by queue identifier from 1 on. Compared with
/// the doorbell page as it lies there: a pass over idle queues is a walk through two arrays.
#[derive(Default)]
pub(super) struct Watches {
    /// Up to the last queue of the group.
    list: Vec<Watch>,
    /// Whether every queue of the group is in the list.
    complete: bool,
}

#[derive(Clone, Copy, Default)]
struct Watch {
    seen: u32,
    /// All ones; 0 for a queue that is not of this group.
    mask: u32,
    /// Not 0: has to be looked at, whatever the doorbell.
    due: u32,
}

impl Watch {
    /// Not 0 if the queue may have something.
    #[inline]
    fn due(&self, doorbell: &AtomicU32) -> u32 {
        // Relaxed: what follows looks again.
        (doorbell.load(Relaxed) ^ self.seen) & self.mask | self.due
    }
}

impl Watches {
    pub(super) fn with_capacity(queues: usize) -> Watches {
        Watches {
            list: Vec::with_capacity(queues),
            complete: false,
        }
    }

    /// Nothing is known of any queue.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.complete = false;
    }

    /// The first queue from index `from` on that may have something, as an index.
    #[inline]
    fn next_due(&self, doorbells: &[[AtomicU32; 2]], from: usize) -> Option<usize> {
        let list = self.list.get(from..)?;
        let doorbells = doorbells.get(from..self.list.len())?;
        let mut due = doorbells
            .iter()
            .zip(list)
            .map(|([tail, _], watch)| watch.due(tail));
        // Nearly always there is none, which is found out soonest without looking for it.
        if due.clone().fold(0, |any, due| any | due) == 0 {
            return None;
        }
        let at = due.position(|due| due != 0)?;
        Some(from + at)
    }
}

/// The doorbells of a group that rests, as it has seen them: all that there is to look at, close
/// together.
pub struct Rest(Glance);

impl Rest {
    /// The place of the first of these groups of which a doorbell was rung since.
    #[inline]
    pub fn first_rung(rests: &[Rest]) -> Option<usize> {
        // A pass looks again.
        Glance::first_that_differs(rests.iter().map(|Rest(glance)| glance))
    }
}

impl PollGroup {
    /// Fetches from every queue that may have something. Of the others nothing is touched but the
    /// doorbell.
    #[inline]
    pub(super) fn fetch_all(&mut self) -> bool {
        if !self.watches.complete {
            return self.fetch_and_watch_all();
        }
        let (mut busy, mut from) = (false, 0);
        while let Some(at) = self.next_due(from) {
            let lane = usize::from(self.lane_of[at + 1]);
            busy |= self.fetch(lane);
            self.watch(lane);
            from = at + 1;
        }
        busy
    }

    /// Lets passes be left out until a doorbell [is rung](Rest::first_rung) or the controller asks
    /// for something. None if there can be something to do without either.
    pub fn rest(&self) -> Option<Rest> {
        let Watches { list, complete } = &self.watches;
        let waits = *complete && list.iter().all(|watch| watch.due == 0);
        if !waits || self.owing != 0 || !self.is_idle() {
            return None;
        }
        let seen: Vec<_> = list.iter().map(|watch| (watch.seen, watch.mask)).collect();
        let pairs = seen.len().next_multiple_of(Glance::PAIRS_MULTIPLE);
        let doorbells = self.doorbells.some_pairs(FIRST_IO_PAIR, pairs)?;
        Glance::new(doorbells, &seen).map(Rest)
    }

    #[inline]
    fn next_due(&self, from: usize) -> Option<usize> {
        let doorbells = self.doorbells.pairs().get(FIRST_IO_PAIR..)?;
        self.watches.next_due(doorbells, from)
    }

    /// Notes how far a queue was looked at.
    #[inline]
    fn watch(&mut self, lane: usize) {
        let lane = &self.lanes[lane];
        let QueueId(id) = lane.queue.id();
        if let Some(watch) = self.watches.list.get_mut(usize::from(id) - 1) {
            let waits = lane.queue.waits_for_doorbell() && lane.retry.is_empty();
            (watch.seen, watch.due) = (lane.queue.tail(), u32::from(!waits));
        }
    }

    #[cold]
    fn fetch_and_watch_all(&mut self) -> bool {
        let mut busy = false;
        self.watches.complete = true;
        for index in 0..self.lanes.len() {
            busy |= self.fetch(index);
            let count = usize::from(self.lanes[index].queue.id().0);
            if self.watches.list.len() < count {
                self.watches.list.resize(count, Watch::default());
            }
            self.watches.list[count - 1].mask = u32::MAX;
            self.watch(index);
        }
        busy
    }
}

//! Beginning, from nothing or from the durable state of an earlier life.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bdev::memory::Iova;

use super::queues::{CqPlace, SqPlace};
use super::{AdminQueue, AsyncEvents, Controller, Features, Purpose, feature_limits};
use crate::pcie::message::{ShadowDoorbells, ToGroup};
use crate::pcie::queue::{CompletionQueue, SubmissionQueue};
use crate::spec::QueueId;

impl Controller {
    pub(super) fn begin(&mut self) {
        let state = Arc::clone(&self.state);
        let block = state.controller();
        if block.power_cycles.load(Relaxed) == 0 {
            block.power_cycles.store(1, Relaxed);
            self.registers.save(block);
            self.space.save(&block.config);
            self.save_features();
            return;
        }
        self.resume();
    }

    /// Goes on where the state says that an earlier life stopped. The client's memory and
    /// interrupts come again from outside; until then every queue is parked.
    fn resume(&mut self) {
        let state = Arc::clone(&self.state);
        let block = state.controller();
        self.registers.restore(block);
        self.space.restore(&block.config);
        let mut words = [0; crate::admin::features::FEATURE_WORDS];
        for (word, saved) in words.iter_mut().zip(&block.features) {
            *word = saved.load(Relaxed);
        }
        let limits = feature_limits(&self.config, &self.subsystem);
        self.features = Features::from_words(limits, &words);
        let words = std::array::from_fn(|at| block.async_events[at].load(Relaxed));
        self.async_events = AsyncEvents::from_words(&words);
        let doorbells = Iova(block.shadow_doorbells.load(Relaxed));
        let event_indices = Iova(block.event_indices.load(Relaxed));
        let shadow = ShadowDoorbells {
            doorbells,
            event_indices,
        };
        self.shadow = (doorbells.0 != 0).then_some(shadow);
        self.publish();
        self.publish_view();
        self.resume_queues();
        self.admin = self.resume_admin();
        self.resume_rest();
    }

    fn resume_admin(&self) -> Option<AdminQueue> {
        let id = QueueId::ADMIN;
        let cq = CompletionQueue::resume(&self.state, &self.doorbells, id).ok()?;
        let sq = SubmissionQueue::resume(&self.state, &self.doorbells, id).ok()?;
        Some(AdminQueue::resume(sq, cq))
    }

    fn resume_queues(&mut self) {
        let state = Arc::clone(&self.state);
        for id in (1..=self.config.queues).map(QueueId) {
            let Some(block) = state.cq(id) else { continue };
            if block.entries.load(Relaxed) == 0 {
                continue;
            }
            let group = self.queues.least_loaded(self.groups.count());
            let vector = block.vector();
            self.queues.put_cq(id, Some(CqPlace { group, vector }));
            self.groups
                .send(group, ToGroup::ResumeCq(id), Purpose::Resume);
        }
        for id in (1..=self.config.queues).map(QueueId) {
            let Some(block) = state.sq(id) else { continue };
            let cqid = QueueId(block.cqid.load(Relaxed) as u16);
            let Some(cq) = self.queues.cq(cqid) else {
                continue;
            };
            if block.entries.load(Relaxed) != 0 {
                self.queues.put_sq(id, Some(SqPlace { cqid }));
                self.groups
                    .send(cq.group, ToGroup::ResumeSq(id), Purpose::Resume);
            }
        }
    }

    /// A disable or shutdown that the earlier life did not finish is taken up again.
    fn resume_rest(&mut self) {
        if self.registers.is_shutting_down() {
            self.shut_down();
        }
        if self.registers.is_ready() && !self.registers.wants_enable() {
            self.disable();
        }
        if self.registers.wants_enable() && !self.registers.is_ready() {
            self.disable();
        }
    }
}

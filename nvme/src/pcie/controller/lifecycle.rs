//! Enable, disable, shutdown and every kind of reset as one state machine: the controller comes
//! to rest, and then what was asked for happens.
//!
//! While a rest is under way further reasons join it; the strongest reset wins.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::memory::Wait;
use super::{AdminQueue, Controller, Features, Purpose, feature_limits};
use crate::admin::async_event::AsyncEvents;
use crate::pcie::message::{CqSpec, GroupId, SqSpec, ToGroup};
use crate::pcie::queue::{CompletionQueue, SubmissionQueue};
use crate::spec::QueueId;
use crate::spec::registers::ShutdownStatus;

/// Why the controller comes to rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rest {
    reset: Option<Reset>,
    shutdown: bool,
    forget_client: bool,
}

/// How much a reset resets; the later the more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reset {
    /// CC.EN went to 0.
    Controller,
    /// NSSR: everything, and CSTS.NSSRO says so afterwards.
    Subsystem,
    /// Function-level reset, DEVICE_RESET, a new client: everything.
    Function,
}

impl Controller {
    pub(super) fn enable(&mut self) {
        // While a rest is under way its end looks at CC.EN again.
        if self.rest.is_some() || self.registers.is_fatal() {
            return;
        }
        match self.make_admin_queue() {
            Some(admin) => {
                self.admin = Some(admin);
                self.alive_ns = self.now_ns;
                self.features.start_clock(self.now_ns);
                self.save_features();
                self.registers.set_ready(true);
                self.publish();
                tracing::debug!("controller enabled");
            }
            None => {
                tracing::warn!("controller cannot be enabled: its admin queues are not usable");
                self.registers.set_fatal();
            }
        }
        self.registers.save(self.state.controller());
    }

    fn make_admin_queue(&self) -> Option<AdminQueue> {
        let (sq, cq) = self.registers.admin_queues()?;
        let (id, vector) = (QueueId::ADMIN, Some(0));
        let cq = CqSpec {
            id,
            base: cq.base,
            entries: cq.entries,
            vector,
        };
        let sq = SqSpec {
            id,
            cqid: id,
            base: sq.base,
            entries: sq.entries,
        };
        let cq = CompletionQueue::new(&self.state, &self.doorbells, &self.memory, &cq).ok()?;
        let sq = SubmissionQueue::new(&self.state, &self.doorbells, &self.memory, &sq).ok()?;
        Some(AdminQueue::new(sq, cq))
    }

    pub(super) fn disable(&mut self) {
        self.rest(Rest {
            reset: Some(Reset::Controller),
            ..Rest::default()
        });
    }

    pub(super) fn shut_down(&mut self) {
        self.registers.set_shutdown(ShutdownStatus::Occurring);
        self.rest(Rest {
            shutdown: true,
            ..Rest::default()
        });
    }

    pub(super) fn subsystem_reset(&mut self) {
        self.rest(Rest {
            reset: Some(Reset::Subsystem),
            ..Rest::default()
        });
    }

    pub(super) fn function_reset(&mut self) {
        self.rest(Rest {
            reset: Some(Reset::Function),
            ..Rest::default()
        });
        self.wait_for(Wait::Rest);
    }

    /// DEVICE_RESET: a function-level reset. Done when [`Controller::pending`] says so.
    pub fn device_reset(&mut self) {
        self.function_reset();
    }

    /// The client has gone: everything it gave is forgotten, and the next one finds a fresh
    /// device. Done when [`Controller::pending`] says so; that may take as long as the kernel
    /// holds on to I/O.
    pub fn disconnect(&mut self) {
        let reset = Some(Reset::Function);
        self.rest(Rest {
            reset,
            forget_client: true,
            ..Rest::default()
        });
        self.wait_patiently_for(Wait::Rest);
    }

    /// The daemon stops: the guest sees a quiet device, what it was promised is flushed. Done when
    /// [`Controller::is_at_rest`] says so.
    pub fn stop(&mut self) {
        self.rest(Rest {
            shutdown: true,
            ..Rest::default()
        });
    }

    /// Whether nothing keeps it from being at rest.
    pub fn is_at_rest(&self) -> bool {
        self.rest.is_none()
    }

    /// Gives up: CSTS.CFS, and rest. Only a reset helps.
    pub(super) fn fail(&mut self, why: &str) {
        tracing::warn!(why, "controller failed");
        self.registers.set_fatal();
        self.registers.save(self.state.controller());
        self.rest(Rest::default());
    }

    fn rest(&mut self, why: Rest) {
        if let Some(admin) = self.admin.take() {
            admin.remove();
        }
        let first = self.rest.is_none();
        let rest = self.rest.get_or_insert_default();
        rest.reset = rest.reset.max(why.reset);
        rest.forget_client |= why.forget_client;
        let flush = why.shutdown && !rest.shutdown;
        rest.shutdown |= why.shutdown;
        if first {
            self.groups.forget_admin();
        }
        if first || flush {
            // One group is enough: a flush covers what was acknowledged on any channel.
            let quiesce = |group| ToGroup::Quiesce {
                flush: flush && group == GroupId(0),
            };
            self.groups.broadcast(Purpose::Quiesce, quiesce);
        }
    }

    /// Ends the rest when every poll group has come to rest.
    pub(super) fn finish_rest(&mut self) {
        let quiescing = |purpose: &Purpose| *purpose == Purpose::Quiesce;
        let Some(rest) = self.rest.filter(|_| !self.groups.is_waiting_for(quiescing)) else {
            return;
        };
        self.rest = None;
        self.queues.clear();
        if rest.shutdown {
            self.registers.set_shutdown(ShutdownStatus::Complete);
        }
        if let Some(reset) = rest.reset {
            self.reset(reset, rest.shutdown);
        }
        if rest.forget_client {
            self.forget_client();
        }
        self.registers.save(self.state.controller());
        self.publish();
        if self.registers.wants_enable() && !self.registers.is_ready() {
            self.enable();
        }
    }

    fn reset(&mut self, reset: Reset, announced: bool) {
        let block = self.state.controller();
        let was_shut_down =
            announced || !self.registers.is_ready() || self.registers.is_shut_down();
        if reset != Reset::Controller && !was_shut_down {
            block
                .unsafe_shutdowns
                .store(block.unsafe_shutdowns.load(Relaxed) + 1, Relaxed);
        }
        match reset {
            Reset::Controller => self.registers.controller_reset(),
            Reset::Subsystem | Reset::Function => {
                self.registers.reset();
                self.space.reset();
                self.space.save(&block.config);
                self.vectors.reset();
            }
        }
        if reset == Reset::Subsystem {
            self.registers.set_subsystem_reset_occurred();
        }
        self.features = Features::new(feature_limits(&self.config, &self.subsystem));
        self.save_features();
        self.async_events = AsyncEvents::default();
        self.save_async_events();
        self.save_shadow(None);
        self.clear_doorbells();
        tracing::debug!(?reset, "controller reset");
    }

    fn clear_doorbells(&self) {
        for word in self.doorbells.words() {
            word.store(0, Release);
        }
    }

    fn forget_client(&mut self) {
        self.vectors.unbind_all();
        self.vectors.bind_pin(None);
        self.vectors.unmask_all();
        self.doorbells_mapped = false;
        self.unmap_all();
        self.wait_patiently_for(Wait::Memory);
    }
}

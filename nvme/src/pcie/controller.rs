//! The control plane of a controller: registers and configuration space, the admin queue, resets,
//! and the poll groups that do its I/O. One owner, who gives it the time and carries its messages.
//!
//! What the client asks for (mapping and unmapping memory, resets) may have to wait for poll groups
//! and for I/O: it is done when [`Controller::pending`] says so. Everything a host can read is also
//! in the durable state, from which [`Controller::new`] goes on after the death of the process.

mod admin_queue;
mod commands;
mod execution;
mod groups;
mod interrupts;
mod lifecycle;
mod memory;
mod parts;
mod queue_commands;
mod queues;
mod resume;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bdev::memory::{GuestMemory, SharedPages};

use self::admin_queue::AdminQueue;
use self::groups::{AdminRequest, Groups, Purpose};
use self::lifecycle::Rest;
use self::memory::ClientWait;
pub use self::memory::TimedOut;
pub use self::parts::{
    ControllerConfig, ControllerError, ControllerParts, DoorbellBuffer, VECTORS_MAX,
};
use self::parts::{bar0_bytes, feature_limits, view_at_rest};
use self::queues::QueueTable;
use super::config::{ConfigEffect, ConfigSpace, MSIX_BAR, MSIX_BAR_BYTES, VENDOR};
use super::doorbell::{DOORBELL_BASE, doorbell_file_bytes};
use super::message::{
    CommandError, ControllerView, Envelope, FromGroup, GroupEvent, GroupId, ShadowDoorbells,
};
use super::registers::{RegisterEffects, RegisterLimits, Registers};
use super::state::ControllerState;
use super::vectors::Vectors;
use crate::admin::async_event::AsyncEvents;
use crate::admin::features::{Features, SetFeature};
use crate::admin::identify::IdentifyInput;
use crate::admin::log_page::{LogInput, Supports, note_error};
use crate::spec::admin::AsyncEvent;
use crate::spec::log_page::ErrorEntry;
use crate::spec::{CommandId, Nsid, QueueId, Status};
use crate::subsystem::Subsystem;

/// A controller. See the [module](self).
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    subsystem: Arc<Subsystem>,
    state: Arc<ControllerState>,
    doorbells: Arc<SharedPages>,
    doorbells_mapped: bool,
    space: ConfigSpace,
    registers: Registers,
    vectors: Vectors,
    memory: GuestMemory,
    features: Features,
    async_events: AsyncEvents,
    admin: Option<AdminQueue>,
    queues: QueueTable,
    shadow: Option<ShadowDoorbells>,
    groups: Groups,
    view: Arc<ControllerView>,
    view_dirty: bool,
    rest: Option<Rest>,
    client: Option<ClientWait>,
    /// When the controller was made, as if it had lived without a break since, and when the host
    /// last showed that it lives.
    born_ns: Option<u64>,
    alive_ns: u64,
    now_ns: u64,
}

impl Controller {
    /// A controller after power-on, or, with a state that was used before, one that goes on.
    ///
    /// # Errors
    /// [`ControllerError`] for numbers out of range, and parts that do not fit together.
    pub fn new(parts: ControllerParts) -> Result<Controller, ControllerError> {
        let ControllerParts {
            config,
            subsystem,
            state,
            doorbells,
        } = parts;
        config.check()?;
        if (state.queues(), state.depth()) != (config.queues, config.depth) {
            let (queues, depth) = (state.queues(), state.depth());
            return Err(ControllerError::State { queues, depth });
        }
        let needed = doorbell_file_bytes(config.queues);
        if doorbells.len() < needed {
            return Err(ControllerError::Doorbells {
                found: doorbells.len(),
                needed,
            });
        }
        let registers = Registers::new(RegisterLimits {
            depth: config.depth,
            subsystem_reset: subsystem.controllers() == 1,
        });
        let features = Features::new(feature_limits(&config, &subsystem));
        let view = Arc::new(view_at_rest(&config, &subsystem));
        let mut controller = Controller {
            space: ConfigSpace::new(bar0_bytes(config.queues), config.vectors, config.intx),
            vectors: Vectors::new(config.vectors),
            queues: QueueTable::new(config.queues),
            groups: Groups::new(config.groups),
            config,
            subsystem,
            state,
            doorbells,
            doorbells_mapped: false,
            registers,
            memory: GuestMemory::new(),
            features,
            async_events: AsyncEvents::default(),
            admin: None,
            shadow: None,
            view,
            view_dirty: false,
            rest: None,
            client: None,
            born_ns: None,
            alive_ns: 0,
            now_ns: 0,
        };
        controller.begin();
        Ok(controller)
    }

    /// The doorbell file, which the client may map as BAR0 from 1000h on.
    pub fn doorbells(&self) -> &Arc<SharedPages> {
        &self.doorbells
    }

    /// The client has, or has not, been given the doorbell pages.
    pub fn set_doorbells_mapped(&mut self, mapped: bool) {
        self.doorbells_mapped = mapped;
    }

    /// The durable state.
    pub fn state(&self) -> &Arc<ControllerState> {
        &self.state
    }

    /// The subsystem it belongs to.
    pub fn subsystem(&self) -> &Arc<Subsystem> {
        &self.subsystem
    }

    /// Bytes of a BAR; 0 = there is none.
    pub fn bar_bytes(&self, bar: u8) -> u64 {
        match bar {
            0 => bar0_bytes(self.config.queues),
            MSIX_BAR => MSIX_BAR_BYTES,
            _ => 0,
        }
    }

    /// Number of MSI-X vectors.
    pub fn vector_count(&self) -> u16 {
        self.vectors.count()
    }

    /// Whether there is an interrupt pin.
    pub fn has_pin(&self) -> bool {
        self.space.has_pin()
    }

    /// Whether the host has enabled the controller and it is ready.
    pub fn is_ready(&self) -> bool {
        self.registers.is_ready()
    }

    /// Whether the controller has given up (CSTS.CFS).
    pub fn is_fatal(&self) -> bool {
        self.registers.is_fatal()
    }

    /// Reads configuration space.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.space.read(offset, data, self.pin_is_asserted());
    }

    /// Writes configuration space. A function-level reset is done when [`Controller::pending`]
    /// says so.
    pub fn config_write(&mut self, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.space.write(offset, data) {
            ConfigEffect::None => {}
            ConfigEffect::Interrupts => self.publish(),
            ConfigEffect::FunctionLevelReset => self.function_reset(),
        }
        self.space.save(&self.state.controller().config);
    }

    /// Reads a BAR; what is not there reads as 0.
    pub fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match bar {
            0 if offset < DOORBELL_BASE => self.registers.read(offset, data),
            MSIX_BAR => self.msix_read(offset, data),
            _ => {}
        }
    }

    /// Writes a BAR; what is not there takes no notice.
    pub fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        match bar {
            0 if offset < DOORBELL_BASE => {
                let effects = self.registers.write(offset, data);
                self.act(effects);
                self.registers.save(self.state.controller());
            }
            0 => self.write_doorbells(offset, data),
            MSIX_BAR => self.msix_write(offset, data),
            _ => {}
        }
    }

    fn act(&mut self, effects: RegisterEffects) {
        if effects.interrupt_mask {
            self.publish();
        }
        if effects.subsystem_reset {
            self.subsystem_reset();
        }
        if effects.disable {
            self.disable();
        }
        if effects.enable {
            self.enable();
        }
        if effects.shutdown {
            self.shut_down();
        }
    }

    /// Doorbells that arrive as messages, because the client has not mapped them, go where the
    /// mapped ones go, and are seen there.
    fn write_doorbells(&mut self, offset: u64, data: &[u8]) {
        if offset % 4 != 0 || data.len() % 4 != 0 {
            return;
        }
        for (bytes, at) in data.chunks_exact(4).zip((offset..).step_by(4)) {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if self.has_doorbell(at) {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                self.doorbells
                    .store_u32(at, value, std::sync::atomic::Ordering::Release);
            } else if self.registers.is_ready() {
                self.report(AsyncEvent::INVALID_DOORBELL_REGISTER);
            }
        }
    }

    fn has_doorbell(&self, offset: u64) -> bool {
        let Ok(id) = u16::try_from((offset - DOORBELL_BASE) / 8) else {
            return false;
        };
        match offset % 8 {
            _ if id == 0 => self.admin.is_some(),
            0 => self.queues.sq(QueueId(id)).is_some(),
            _ => self.queues.cq(QueueId(id)).is_some(),
        }
    }

    /// One pass at the monotonic time `now_ns`: true if there was anything to do.
    pub fn poll(&mut self, now_ns: u64) -> bool {
        self.now_ns = now_ns;
        let powered = &self.state.controller().powered_ns;
        let born_ns = match self.born_ns {
            Some(born_ns) => born_ns,
            None => {
                self.alive_ns = now_ns;
                now_ns.saturating_sub(powered.load(Relaxed))
            }
        };
        self.born_ns = Some(born_ns);
        powered.store(now_ns.saturating_sub(born_ns), Relaxed);
        let busy = self.poll_admin();
        self.check_keep_alive();
        self.publish_view();
        self.finish_rest();
        busy
    }

    /// The next message to carry to a poll group.
    pub fn take_message(&mut self) -> Option<(GroupId, Envelope)> {
        self.groups.take()
    }

    /// Takes a message back that could not be carried now.
    pub fn put_back(&mut self, group: GroupId, envelope: Envelope) {
        self.groups.put_back(group, envelope);
    }

    /// Takes what a poll group says.
    pub fn receive(&mut self, _group: GroupId, message: FromGroup) {
        match message {
            FromGroup::Done { sequence, outcome } => {
                let Some(finished) = self.groups.answered(sequence, outcome) else {
                    return;
                };
                match finished.purpose {
                    Purpose::View(number) => self.view_is_seen(number),
                    Purpose::Admin(slot, request) => {
                        self.group_answered(slot, request, finished.outcome);
                    }
                    // Whoever waits for these asks whether one is still on its way.
                    Purpose::Memory | Purpose::Quiesce | Purpose::Resume => {}
                }
            }
            FromGroup::Event(GroupEvent::InvalidDoorbell { queue, value }) => {
                tracing::debug!(queue = queue.0, value, "doorbell outside its queue");
                self.report(AsyncEvent::INVALID_DOORBELL_VALUE);
            }
            FromGroup::Event(GroupEvent::CommandError(error)) => {
                note_error(self.state.controller(), &error);
            }
            FromGroup::Event(GroupEvent::MemoryBad) => self.fail("guest memory was shrunk"),
        }
    }

    fn identify_input(&self) -> IdentifyInput<'_> {
        IdentifyInput {
            subsystem: &self.subsystem,
            cntlid: self.config.cntlid,
            transfer_bytes_max: self.config.transfer_bytes_max,
            supports: self.supports(),
            vendor: VENDOR,
        }
    }

    fn log_input(&self) -> LogInput<'_> {
        LogInput {
            state: &self.state,
            features: &self.features,
            supports: self.supports(),
        }
    }

    /// Optional commands: those that every namespace supports. One that is read only takes nothing
    /// from the others: commands that change it fail for being that.
    fn supports(&self) -> Supports {
        let every = |changes: bool, feature: fn(&bdev::Features) -> bool| {
            self.subsystem.active().all(|namespace| {
                changes && namespace.read_only() || feature(&namespace.bdev().features())
            })
        };
        Supports {
            compare: every(false, |features| features.compare),
            write_zeroes: every(true, |features| features.write_zeroes),
            dataset_management: every(true, |features| features.unmap),
            doorbell_buffer: match self.config.doorbell_buffer {
                DoorbellBuffer::On => true,
                DoorbellBuffer::Off => false,
                DoorbellBuffer::Auto => !self.doorbells_mapped,
            },
        }
    }

    fn set_feature(&mut self, ask: SetFeature<'_>) -> Result<u32, Status> {
        let reported = self.features.reports_temperature();
        let dword0 = self.features.set(ask, self.queues.any(), self.now_ns)?;
        self.save_features();
        if self.features.reports_temperature() && !reported {
            self.report(AsyncEvent::TEMPERATURE);
        }
        self.restart_keep_alive();
        self.publish();
        Ok(dword0)
    }

    fn save_features(&self) {
        for (word, value) in self
            .state
            .controller()
            .features
            .iter()
            .zip(self.features.to_words())
        {
            word.store(value, Relaxed);
        }
    }

    fn restart_keep_alive(&mut self) {
        self.alive_ns = self.now_ns;
    }

    fn check_keep_alive(&mut self) {
        let timeout_ns = u64::from(self.features.keep_alive_ms()) * 1_000_000;
        let silent_ns = self.now_ns.saturating_sub(self.alive_ns);
        if timeout_ns != 0 && silent_ns > timeout_ns && self.admin.is_some() {
            // NVMe Base 2.0, 3.9: the log says why the controller is fatal.
            let error = CommandError {
                sqid: QueueId(ErrorEntry::NONE),
                cid: CommandId(ErrorEntry::NONE),
                status: Status::KEEP_ALIVE_TIMEOUT_EXPIRED,
                nsid: Nsid::NONE,
                lba: 0,
            };
            note_error(self.state.controller(), &error);
            self.fail("the keep alive timer expired");
        }
    }

    fn page_shift(&self) -> u8 {
        self.registers.page_shift()
    }
}

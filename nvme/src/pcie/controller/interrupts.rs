//! Interrupts of a controller: what is bound, masked and asserted, and the view that tells the
//! poll groups.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use bdev::memory::Iova;

use super::admin_queue::ADMIN_VECTOR;
use super::{Controller, Purpose};
use crate::pcie::config::PBA_OFFSET;
use crate::pcie::doorbell::DOORBELL_BASE;
use crate::pcie::message::{Coalescing, ControllerView, Interrupt, ToGroup};
use crate::pcie::vectors::Delivery;
use crate::spec::QueueId;

impl Controller {
    /// Binds MSI-X vectors from `start` on.
    pub fn bind_vectors(&mut self, start: u16, bound: Vec<Option<Arc<dyn Interrupt>>>) {
        self.vectors.bind(start, bound);
        self.publish();
    }

    /// Binds nothing to any MSI-X vector.
    pub fn unbind_vectors(&mut self) {
        self.vectors.unbind_all();
        self.publish();
    }

    /// Masks or unmasks MSI-X vectors for the client.
    pub fn mask_vectors(&mut self, start: u16, count: u16, masked: bool) {
        self.vectors.mask(start, count, masked);
        self.publish();
    }

    /// Raises an MSI-X vector for the client.
    pub fn trigger_vector(&self, vector: u16) {
        self.vectors.trigger(vector);
    }

    /// Binds the interrupt pin, or nothing.
    pub fn bind_pin(&mut self, pin: Option<Arc<dyn Interrupt>>) {
        self.vectors.bind_pin(pin);
        self.publish();
    }

    /// Masks or unmasks the pin for the client. A pin that is still asserted is raised again, as
    /// a level is.
    pub fn mask_pin(&mut self, masked: bool) {
        self.vectors.mask_pin(masked);
        self.publish();
        if !masked {
            self.raise_asserted_pin();
        }
    }

    /// Raises the pin for the client.
    pub fn trigger_pin(&self) {
        self.vectors.trigger_pin();
    }

    fn raise_asserted_pin(&self) {
        let open = self
            .vectors
            .effective(self.pin_is_open(), self.registers.interrupt_mask());
        if let Some(Some(pin)) = open.first() {
            if self.vectors.delivery() == Delivery::Pin && self.pin_is_asserted() {
                pin.signal();
            }
        }
    }

    fn pin_is_open(&self) -> bool {
        self.space.has_pin() && !self.space.intx_disabled()
    }

    /// The level of the pin: some completion queue with interrupts has entries that the host has
    /// not consumed, and interrupts do not go by MSI-X.
    pub(super) fn pin_is_asserted(&self) -> bool {
        self.uses_pin() && self.vector_is_pending(0)
    }

    fn uses_pin(&self) -> bool {
        self.space.has_pin()
            && !self.space.msix_enabled()
            && self.vectors.delivery() == Delivery::Pin
    }

    /// Whether a completion queue may interrupt by this vector. By the pin there is only 0 (NVMe
    /// Base 2.0, 5.4).
    pub(super) fn is_vector(&self, vector: u16) -> bool {
        vector < self.vectors.count() && (vector == 0 || !self.uses_pin())
    }

    /// Whether a completion queue of this vector has entries that the host has not consumed.
    fn vector_is_pending(&self, vector: u16) -> bool {
        let admin = vector == 0 && self.admin.is_some() && self.has_unconsumed(QueueId::ADMIN);
        admin
            || self
                .queues
                .cqs_of_vector(vector)
                .any(|id| self.has_unconsumed(id))
    }

    fn has_unconsumed(&self, id: QueueId) -> bool {
        let Some(block) = self.state.cq(id) else {
            return false;
        };
        let entries = u64::from(block.entries.load(Relaxed));
        if entries == 0 {
            return false;
        }
        let tail = block.tail_position.load(Relaxed) % entries;
        tail != u64::from(self.head_doorbell(id))
    }

    fn head_doorbell(&self, id: QueueId) -> u32 {
        let offset = usize::from(id.0) * 8 + 4;
        let Some(shadow) = self.shadow.filter(|_| id != QueueId::ADMIN) else {
            return self
                .doorbells
                .load_u32(DOORBELL_BASE as usize + offset, Acquire);
        };
        let mut head = [0; 4];
        let at = Iova(shadow.doorbells.0 + offset as u64);
        let read = self.memory.read(at, &mut head);
        read.map_or(0, |()| u32::from_le_bytes(head))
    }

    pub(super) fn msix_read(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            let dword = usize::try_from(at / 4).unwrap_or(usize::MAX);
            let value = match at.checked_sub(PBA_OFFSET) {
                None => self.vectors.table_read(dword),
                Some(at) => self.pending_bits(at / 4),
            };
            *byte = value.to_le_bytes()[(at % 4) as usize];
        }
    }

    /// A dword of the pending bit array: vectors that a mask keeps from interrupting.
    fn pending_bits(&self, dword: u64) -> u32 {
        let first = dword.saturating_mul(32);
        (0..32u64).fold(0, |bits, n| {
            let vector = u16::try_from(first.saturating_add(n)).unwrap_or(u16::MAX);
            let pending = self.vectors.is_masked(vector) && self.vector_is_pending(vector);
            bits | u32::from(pending) << n
        })
    }

    pub(super) fn msix_write(&mut self, offset: u64, data: &[u8]) {
        if offset % 4 != 0 || data.len() % 4 != 0 {
            return;
        }
        let mut changed = false;
        for (bytes, at) in data.chunks_exact(4).zip((offset..PBA_OFFSET).step_by(4)) {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            changed |= self.vectors.table_write((at / 4) as usize, value);
        }
        if changed {
            self.publish();
        }
    }

    /// Something that poll groups see has changed: they get a new view at the next pass, or when
    /// they have taken the one that is under way.
    pub(super) fn publish(&mut self) {
        self.view_dirty = true;
    }

    /// Number of the view that has what was [published](Controller::publish).
    pub(super) fn next_view(&self) -> u64 {
        self.view.number + 1
    }

    pub(super) fn publish_view(&mut self) {
        let under_way = |purpose: &Purpose| matches!(purpose, Purpose::View(_));
        if !self.view_dirty || self.groups.is_waiting_for(under_way) {
            return;
        }
        self.view_dirty = false;
        let view = Arc::new(self.make_view());
        let before = std::mem::replace(&mut self.view, Arc::clone(&view));
        if view.opens(&before, ADMIN_VECTOR) {
            self.owe_unconsumed_admin();
        }
        let purpose = Purpose::View(view.number);
        self.groups
            .broadcast(purpose, |_| ToGroup::View(Arc::clone(&view)));
    }

    fn make_view(&self) -> ControllerView {
        let coalescing = self.features.coalescing();
        let pin = self.vectors.delivery() == Delivery::Pin;
        ControllerView {
            number: self.next_view(),
            namespaces: self.view.namespaces.clone(),
            vectors: self
                .vectors
                .effective(self.pin_is_open(), self.registers.interrupt_mask()),
            coalescing: Coalescing {
                completions: u16::from(coalescing.threshold_z()) + 1,
                delay_ns: u64::from(coalescing.time_100us()) * 100_000,
            },
            uncoalesced: match pin {
                true => Vec::new(),
                false => self.features.uncoalesced().to_vec(),
            },
            page_shift: self.registers.page_shift(),
            transfer_bytes_max: self.config.transfer_bytes_max,
            write_cache: self.features.write_cache(),
            shadow: self.shadow,
        }
    }
}

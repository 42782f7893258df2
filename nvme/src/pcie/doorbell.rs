//! Doorbells: one 32-bit word per queue that the host stores and the controller only ever loads.
//!
//! The words are in the doorbell page (BAR0 from offset 1000h, mapped by the client) or, for I/O
//! queues and once the host has asked for it, in the shadow doorbell buffer in its own memory
//! (NVMe Base 2.0, 5.8 Doorbell Buffer Config). Either way a value is guest input: the queue that
//! it belongs to judges it.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use bdev::memory::{Access, GuestMemory, GuestRing, MemoryError, SharedPages};

use super::message::ShadowDoorbells;
use super::state::QUEUES_MAX;
use crate::spec::QueueId;

/// CAP.DSTRD: doorbells are 4 << DSTRD bytes apart.
pub const DOORBELL_STRIDE: u32 = 0;
/// Offset of the first doorbell in BAR0 (NVMe over PCIe Transport 1.0, 3.1.2).
pub const DOORBELL_BASE: u64 = 0x1000;

const STRIDE_BYTES: usize = 4 << DOORBELL_STRIDE;
/// A submission tail and a completion head, side by side.
pub const PAIR_BYTES: usize = 2 * STRIDE_BYTES;
const _: () = assert!(PAIR_BYTES == 8, "a pair is one word of the shadow buffers");

/// Place of the doorbells of I/O queue 1 among the pairs of words of that file; the others follow.
pub const FIRST_IO_PAIR: usize = DOORBELL_BASE as usize / PAIR_BYTES + 1;

/// Bytes of the file that holds the doorbells of the admin queue and `queues` I/O queue pairs, in
/// whole pages. It is laid out as BAR0, the page of the registers stays empty, so that a client
/// finds the doorbells at the same offset in both.
pub const fn doorbell_file_bytes(queues: u16) -> usize {
    DOORBELL_BASE as usize + ((queues as usize + 1) * PAIR_BYTES).next_multiple_of(4096)
}

/// Which of a queue identifier's two doorbells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Tail of the submission queue.
    Submission,
    /// Head of the completion queue.
    Completion,
}

impl Side {
    fn offset(self, id: QueueId) -> usize {
        let side = match self {
            Side::Submission => 0,
            Side::Completion => STRIDE_BYTES,
        };
        usize::from(id.0) * PAIR_BYTES + side
    }
}

/// One doorbell, wherever the host writes it.
#[derive(Debug)]
pub struct Doorbell {
    pages: Arc<SharedPages>,
    offset: usize,
    shadow: Option<Shadow>,
}

/// The doorbell's words in the host's shadow and event index buffers.
#[derive(Debug)]
struct Shadow {
    value: GuestRing<1>,
    event_index: GuestRing<1>,
    /// The pair of the queue identifier, one 64-bit word.
    pair: u32,
    /// Position of the doorbell in that word.
    shift: u32,
}

impl Doorbell {
    /// The doorbell of queue `id` in the doorbell page.
    pub fn new(pages: &Arc<SharedPages>, id: QueueId, side: Side) -> Doorbell {
        Doorbell {
            pages: Arc::clone(pages),
            offset: DOORBELL_BASE as usize + side.offset(id),
            shadow: None,
        }
    }

    /// The value the host stored last. Acquire: pairs with the host's barrier between its queue
    /// entries and its doorbell, so entries up to the value can be read.
    #[inline]
    pub fn load(&self) -> u32 {
        match &self.shadow {
            None => self.pages.load_u32(self.offset, Acquire),
            Some(shadow) => (shadow.value.load_acquire(shadow.pair, 0) >> shadow.shift) as u32,
        }
    }

    /// Whether it is in the host's shadow buffer.
    #[inline]
    pub fn is_shadowed(&self) -> bool {
        self.shadow.is_some()
    }

    /// Puts the doorbell page's value to 0, for a queue that begins.
    pub fn clear(&self) {
        self.pages.store_u32(self.offset, 0, Relaxed);
    }

    /// Looks at the shadow buffers from now on, or at the doorbell page again.
    ///
    /// # Errors
    /// When the buffers are not mapped; the doorbell page stays in use.
    pub fn shadow(
        &mut self,
        memory: &GuestMemory,
        buffers: Option<ShadowDoorbells>,
    ) -> Result<(), MemoryError> {
        self.shadow = None;
        let Some(buffers) = buffers else {
            return Ok(());
        };
        let pairs = u32::from(QUEUES_MAX) + 1;
        let page = |iova, access| memory.ring(iova, pairs, access);
        self.shadow = Some(Shadow {
            value: page(buffers.doorbells, Access::Read)?,
            event_index: page(buffers.event_indices, Access::Write)?,
            pair: ((self.offset - DOORBELL_BASE as usize) / PAIR_BYTES) as u32,
            shift: (self.offset % PAIR_BYTES) as u32 * 8,
        });
        Ok(())
    }

    /// True while the words of the shadow buffers are in memory that was unmapped.
    pub fn retired(&self) -> bool {
        self.shadow
            .as_ref()
            .is_some_and(|shadow| shadow.value.retired())
            || self
                .shadow
                .as_ref()
                .is_some_and(|shadow| shadow.event_index.retired())
    }

    /// Tells the host that `value` was seen. A polling controller never needs the doorbell
    /// register to be written: an event index that lags behind the value says so.
    #[inline]
    pub fn seen(&self, value: u32) {
        if let Some(shadow) = &self.shadow {
            let lagging = u64::from(value.wrapping_sub(1) & 0xffff) << shadow.shift;
            let other = shadow.event_index.load(shadow.pair, 0) & !(0xffff_ffff << shadow.shift);
            // The other half may be another reactor's and this may undo its store: it lags more.
            shadow.event_index.store(shadow.pair, 0, other | lagging);
        }
    }
}

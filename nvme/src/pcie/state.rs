//! Durable state: everything that a controller needs to go on after its process died, as plain
//! data in one memfd that never leaves our own processes.
//!
//! ```text
//! Header | ControllerBlock | SqBlock, CqBlock x (queues + 1) | Slot x slots x (queues + 1)
//! ```
//!
//! Index 0 of each table belongs to the admin queue. A queue's block and slots are written by the
//! owner of that queue alone. What counts after the death of a process is program order, so the
//! stores are relaxed atomics with compiler fences between the steps:
//!
//! * *fetch*: the command goes into its slot, the slot becomes [`SlotState::InFlight`], then the SQ
//!   head moves, for a burst of commands at once and before the slot of any is free again;
//! * *complete*: the completion and its CQ position go into the slot, the slot becomes
//!   [`SlotState::Posting`], the entry goes to the guest, the CQ tail moves, the slot is free.
//!
//! Recovery writes the same 16 bytes of every posting slot again and executes every in-flight slot
//! again; it never reads guest memory to decide.

mod slot;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bdev::memory::{SharedPages, SharedSlice, SharedValue};
use zerocopy::{FromBytes, KnownLayout};

pub use self::slot::{Slot, SlotState};
use crate::spec::QueueId;

/// "bellwire", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"bellwire");
/// Changes whenever the meaning of any byte below changes.
const VERSION: u32 = 1;

/// Most I/O queue pairs of one controller.
pub const QUEUES_MAX: u16 = 128;
/// Most entries of one I/O queue, and so most commands of one queue in flight.
pub const DEPTH_MAX: u16 = 4096;
/// Fewest slots of a queue, whatever the depth: on the admin queue event requests that wait for
/// ever leave room for other commands.
const SLOTS_MIN: usize = 32;

/// Whether anything is noted for a later process, as it has to be. A build that does not is there
/// to be measured beside one that does.
const DURABLE: bool = !cfg!(feature = "volatile-state");

/// First bytes of the state: what it is, and the sizes that the rest of the layout follows from.
#[repr(C, align(64))]
#[derive(Debug, FromBytes, KnownLayout)]
struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    queues: AtomicU32,
    depth: AtomicU32,
    reserved: [AtomicU32; 11],
}
const _: () = assert!(size_of::<Header>() == 64);

/// Registers, configuration space, features and logs of the controller, written by its owner.
#[repr(C, align(64))]
#[derive(Debug, FromBytes, KnownLayout)]
pub struct ControllerBlock {
    /// Controller configuration as the host wrote it.
    pub cc: AtomicU32,
    /// Controller status.
    pub csts: AtomicU32,
    /// Admin queue attributes.
    pub aqa: AtomicU32,
    /// Interrupt mask of the pin-based interrupt (INTMS / INTMC).
    pub interrupt_mask: AtomicU32,
    /// Admin submission queue base address.
    pub asq: AtomicU64,
    /// Admin completion queue base address.
    pub acq: AtomicU64,
    /// Shadow doorbell buffer, or 0.
    pub shadow_doorbells: AtomicU64,
    /// Event index buffer, or 0.
    pub event_indices: AtomicU64,
    /// Errors since the controller was made: the error count of the newest log entry.
    pub error_count: AtomicU64,
    /// Power cycles: how often the controller was made anew.
    pub power_cycles: AtomicU64,
    /// Shutdowns that the host did not announce.
    pub unsafe_shutdowns: AtomicU64,
    /// Nanoseconds the controller has existed, without breaks between processes.
    pub powered_ns: AtomicU64,
    /// Asynchronous events that wait, and those that are held back.
    pub async_events: [AtomicU32; 16],
    /// Room for later words of the controller.
    pub reserved: [AtomicU64; 12],
    /// First 256 bytes of configuration space.
    pub config: [AtomicU32; 64],
    /// Values of the features, as the feature table lays them out.
    pub features: [AtomicU32; 256],
    /// The newest error log entries, a ring.
    pub error_log: [[AtomicU64; 8]; 64],
}
const _: () = assert!(size_of::<ControllerBlock>() % 64 == 0);

/// A submission queue: what it is and how far it was fetched. One owner.
#[repr(C, align(128))]
#[derive(Debug, FromBytes, KnownLayout)]
pub struct SqBlock {
    /// Guest address of entry 0.
    pub base: AtomicU64,
    /// Number of entries; 0 = the queue does not exist.
    pub entries: AtomicU32,
    /// The completion queue it posts to.
    pub cqid: AtomicU32,
    /// Commands fetched so far; the head is this number modulo `entries`.
    pub head_position: AtomicU64,
    /// Commands and 512-byte units moved, for the SMART log: reads, writes, units read, units
    /// written.
    pub statistics: [AtomicU64; 4],
    /// Commands that failed for the medium.
    pub media_errors: AtomicU64,
    reserved: [AtomicU64; 8],
}
const _: () = assert!(size_of::<SqBlock>() == 128);

/// A completion queue: what it is and how far it was posted. One owner.
#[repr(C, align(128))]
#[derive(Debug, FromBytes, KnownLayout)]
pub struct CqBlock {
    /// Guest address of entry 0.
    pub base: AtomicU64,
    /// Number of entries; 0 = the queue does not exist.
    pub entries: AtomicU32,
    /// Interrupt vector in bits 15:0, interrupts enabled in bit 16.
    interrupt: AtomicU32,
    /// Entries posted so far; tail and phase follow from it.
    pub tail_position: AtomicU64,
    /// Entries that the host has consumed, as far as the owner has looked.
    pub head_position: AtomicU64,
    reserved: [AtomicU64; 12],
}
const _: () = assert!(size_of::<CqBlock>() == 128);

impl SqBlock {
    /// Notes how many commands were fetched.
    #[inline]
    pub fn set_head_position(&self, position: u64) {
        if DURABLE {
            self.head_position.store(position, Relaxed);
        }
    }

    /// A command failed for the medium.
    pub fn count_media_error(&self) {
        let errors = self.media_errors.load(Relaxed);
        self.media_errors.store(errors + 1, Relaxed);
    }
}

/// [`CqBlock::interrupt`]: interrupts are enabled.
const INTERRUPTS_ENABLED: u32 = 1 << 16;

impl CqBlock {
    /// Its interrupt vector, if interrupts are enabled for it.
    pub fn vector(&self) -> Option<u16> {
        let interrupt = self.interrupt.load(Relaxed);
        (interrupt & INTERRUPTS_ENABLED != 0).then_some(interrupt as u16)
    }

    /// Sets [`CqBlock::vector`].
    pub fn set_vector(&self, vector: Option<u16>) {
        let interrupt = vector.map_or(0, |vector| u32::from(vector) | INTERRUPTS_ENABLED);
        self.interrupt.store(interrupt, Relaxed);
    }
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Out of the limits of this version.
    #[error("durable state for {queues} queues of {depth} entries cannot be (1-128, 2-4096)")]
    Limits {
        /// I/O queue pairs asked for.
        queues: u16,
        /// Entries asked for.
        depth: u16,
    },
    /// The memory for it cannot be had.
    #[error("durable state of {bytes} bytes: {source}")]
    Memory {
        /// Size asked for.
        bytes: usize,
        /// The reason.
        source: bdev::memory::MapError,
    },
    /// The bytes are not a state of this version and shape.
    #[error("durable state is not usable: {what} is {found}, expected {expected}")]
    Foreign {
        /// The header field that differs.
        what: &'static str,
        /// What it holds.
        found: u64,
        /// What it should hold.
        expected: u64,
    },
}

/// The state of one controller, shared between the controller and its poll groups.
#[derive(Debug)]
pub struct ControllerState {
    header: SharedSlice<Header>,
    controller: SharedSlice<ControllerBlock>,
    sqs: SharedSlice<SqBlock>,
    cqs: SharedSlice<CqBlock>,
    slots: Vec<SharedSlice<Slot>>,
}

impl ControllerState {
    /// A fresh state for `queues` I/O queue pairs of at most `depth` entries.
    pub fn new(queues: u16, depth: u16) -> Result<Arc<ControllerState>, StateError> {
        if !(1..=QUEUES_MAX).contains(&queues) || !(2..=DEPTH_MAX).contains(&depth) {
            return Err(StateError::Limits { queues, depth });
        }
        let bytes = Layout::of(queues, depth).bytes;
        let pages = SharedPages::new("bellwire-state", bytes, bdev::memory::Seal::State)
            .map_err(|source| StateError::Memory { bytes, source })?;
        let state = ControllerState::lay_out(&pages, queues, depth)?;
        state.header[0].queues.store(u32::from(queues), Relaxed);
        state.header[0].depth.store(u32::from(depth), Relaxed);
        state.header[0].version.store(VERSION, Relaxed);
        state.header[0].magic.store(MAGIC, Relaxed);
        Ok(Arc::new(state))
    }

    /// The state that an earlier owner left in `pages`.
    pub fn adopt(
        pages: &Arc<SharedPages>,
        queues: u16,
        depth: u16,
    ) -> Result<Arc<ControllerState>, StateError> {
        let state = ControllerState::lay_out(pages, queues, depth)?;
        let header = &state.header[0];
        let fields = [
            ("magic", header.magic.load(Relaxed), MAGIC),
            (
                "version",
                header.version.load(Relaxed).into(),
                VERSION.into(),
            ),
            ("queues", header.queues.load(Relaxed).into(), queues.into()),
            ("depth", header.depth.load(Relaxed).into(), depth.into()),
        ];
        for (what, found, expected) in fields {
            if found != expected {
                return Err(StateError::Foreign {
                    what,
                    found,
                    expected,
                });
            }
        }
        Ok(Arc::new(state))
    }

    fn lay_out(pages: &Arc<SharedPages>, queues: u16, depth: u16) -> Result<Self, StateError> {
        let layout = Layout::of(queues, depth);
        let short = StateError::Foreign {
            what: "size",
            found: pages.len() as u64,
            expected: layout.bytes as u64,
        };
        let tables = (|| {
            let count = layout.tables;
            Some(ControllerState {
                header: pages.slice(0, 1)?,
                controller: pages.slice(layout.controller, 1)?,
                sqs: pages.slice(layout.sqs, count)?,
                cqs: pages.slice(layout.cqs, count)?,
                slots: (0..count)
                    .map(|queue| pages.slice(layout.slots_of(queue), layout.slots_each))
                    .collect::<Option<Vec<_>>>()?,
            })
        })();
        tables.ok_or(short)
    }

    /// The pages that it is in.
    pub fn pages(&self) -> &Arc<SharedPages> {
        self.header.pages()
    }

    /// Most entries of an I/O queue.
    pub fn depth(&self) -> u16 {
        self.header[0].depth.load(Relaxed) as u16
    }

    /// Most I/O queue pairs.
    pub fn queues(&self) -> u16 {
        self.header[0].queues.load(Relaxed) as u16
    }

    /// The controller's own words.
    pub fn controller(&self) -> &ControllerBlock {
        &self.controller[0]
    }

    /// Block of a submission queue; `None` if there can be no such queue.
    pub fn sq(&self, id: QueueId) -> Option<&SqBlock> {
        self.sqs.get(usize::from(id.0))
    }

    /// Block of a completion queue; `None` if there can be no such queue.
    pub fn cq(&self, id: QueueId) -> Option<&CqBlock> {
        self.cqs.get(usize::from(id.0))
    }

    /// The in-flight slots of a submission queue: its depth of them, and a few at least.
    pub fn slots(&self, id: QueueId) -> Option<&[Slot]> {
        self.slots.get(usize::from(id.0)).map(|slots| &slots[..])
    }

    /// [`ControllerState::slots`] for an owner that looks often.
    pub fn slots_of(&self, id: QueueId) -> Option<SharedSlice<Slot>> {
        let slots = self.slots.get(usize::from(id.0))?;
        slots.part(0, slots.len())
    }

    /// [`ControllerState::sq`] for an owner that looks often.
    pub fn sq_block(&self, id: QueueId) -> Option<SharedValue<SqBlock>> {
        self.sqs.one(id.0.into())
    }

    /// [`ControllerState::cq`] for an owner that looks often.
    pub fn cq_block(&self, id: QueueId) -> Option<SharedValue<CqBlock>> {
        self.cqs.one(id.0.into())
    }
}

/// Byte offsets of the tables.
struct Layout {
    controller: usize,
    sqs: usize,
    cqs: usize,
    slots: usize,
    tables: usize,
    slots_each: usize,
    bytes: usize,
}

impl Layout {
    fn of(queues: u16, depth: u16) -> Layout {
        let (tables, slots_each) = (usize::from(queues) + 1, usize::from(depth).max(SLOTS_MIN));
        let controller = size_of::<Header>();
        let sqs = (controller + size_of::<ControllerBlock>()).next_multiple_of(128);
        let cqs = sqs + tables * size_of::<SqBlock>();
        let slots = (cqs + tables * size_of::<CqBlock>()).next_multiple_of(4096);
        let bytes = (slots + tables * slots_each * size_of::<Slot>()).next_multiple_of(4096);
        Layout {
            controller,
            sqs,
            cqs,
            slots,
            tables,
            slots_each,
            bytes,
        }
    }

    fn slots_of(&self, queue: usize) -> usize {
        self.slots + queue * self.slots_each * size_of::<Slot>()
    }
}

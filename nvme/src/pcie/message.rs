//! What a controller and its poll groups say to each other, as values: how they travel (a ring
//! between two threads, a queue in one) is the business of whoever owns both.
//!
//! Every [`Envelope`] is answered by exactly one [`FromGroup::Done`] with its sequence number,
//! possibly much later: an unmap, a queue deletion and a quiesce wait for the Ios they concern.

use std::fmt;
use std::sync::Arc;

use bdev::memory::{Iova, MemoryError, MemoryRegion};

use crate::namespace::Namespace;
use crate::spec::{CommandId, Nsid, QueueId, Status};

/// Number of a poll group within its controller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u16);

/// A request to a poll group.
#[derive(Debug)]
pub struct Envelope {
    /// Comes back in [`FromGroup::Done`].
    pub sequence: u64,
    /// What is asked.
    pub body: ToGroup,
}

/// What a controller asks of a poll group.
#[derive(Debug)]
pub enum ToGroup {
    /// See the controller like this from now on.
    View(Arc<ControllerView>),
    /// This guest memory may be used.
    Map(MemoryRegion),
    /// This range may not be used any more; done when no Io touches it.
    Unmap {
        /// First byte.
        iova: Iova,
        /// Number of bytes.
        len: u64,
    },
    /// No guest memory may be used any more; done when no Io touches any.
    UnmapAll,
    /// Make a completion queue; [`GroupOutcome::MemoryError`] if its memory is not mapped.
    CreateCq(CqSpec),
    /// Forget a completion queue; no submission queue uses it.
    DeleteCq(QueueId),
    /// Make a submission queue; [`GroupOutcome::MemoryError`] if its memory is not mapped.
    CreateSq(SqSpec),
    /// Fetch nothing more from a submission queue; done when its commands have completed.
    DeleteSq(QueueId),
    /// Go on with a completion queue that the durable state describes.
    ResumeCq(QueueId),
    /// Go on with a submission queue that the durable state describes, and with the commands in
    /// its slots; its completion queue is of the same group and was resumed before.
    ResumeSq(QueueId),
    /// Abort one command if that is still possible.
    Abort {
        /// Where it was submitted.
        sqid: QueueId,
        /// Its command identifier.
        cid: CommandId,
    },
    /// Fetch and post nothing more; done when all Ios are back and all queues are gone.
    Quiesce {
        /// Flush every block device afterwards, before it is done.
        flush: bool,
    },
}

/// A completion queue to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CqSpec {
    /// Its number.
    pub id: QueueId,
    /// Guest address of entry 0.
    pub base: Iova,
    /// Number of entries, 2 or more.
    pub entries: u32,
    /// Its interrupt vector, if interrupts are enabled for it.
    pub vector: Option<u16>,
}

/// A submission queue to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SqSpec {
    /// Its number.
    pub id: QueueId,
    /// The completion queue it posts to, of the same group.
    pub cqid: QueueId,
    /// Guest address of entry 0.
    pub base: Iova,
    /// Number of entries, 2 or more.
    pub entries: u32,
}

/// What a poll group says to its controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FromGroup {
    /// The one answer to an envelope.
    Done {
        /// Sequence number of the envelope.
        sequence: u64,
        /// How it went.
        outcome: GroupOutcome,
    },
    /// Something happened that the controller reports to the host.
    Event(GroupEvent),
}

/// How a request went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupOutcome {
    /// As asked.
    Ok,
    /// Whether the command was aborted.
    Aborted(bool),
    /// Guest memory that the request needs is not there.
    MemoryError(MemoryError),
    /// No such queue, or one that is there already; the controller and the group disagree.
    Refused,
}

/// What a poll group noticed. Events beyond a small bound are dropped and counted: a guest must
/// not be able to fill anybody's memory by its mistakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupEvent {
    /// A doorbell was rung with a value outside its queue; the queue is stopped.
    InvalidDoorbell {
        /// The queue.
        queue: QueueId,
        /// The value.
        value: u32,
    },
    /// A command completed with an error that belongs into the error log.
    CommandError(CommandError),
    /// Guest memory failed under us (its file was shrunk): the controller cannot go on.
    MemoryBad,
}

/// A failed command, for the error log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// Where it was submitted.
    pub sqid: QueueId,
    /// Its command identifier.
    pub cid: CommandId,
    /// The status it completed with.
    pub status: Status,
    /// Its namespace.
    pub nsid: Nsid,
    /// First logical block concerned.
    pub lba: u64,
}

/// Tells the host that something is to be looked at. Must not block; telling twice is harmless.
pub trait Interrupt: Send + Sync {
    /// Raises the interrupt.
    fn signal(&self);
}

/// What poll groups need to know of their controller, immutable; a change is a new view.
#[derive(Clone)]
pub struct ControllerView {
    /// Rises with each view.
    pub number: u64,
    /// Attached namespaces; namespace n at index n - 1.
    pub namespaces: Vec<Option<Arc<Namespace>>>,
    /// What to signal for each vector; `None` while nothing is bound or the vector is masked, and
    /// then the interrupt stays owed. With pin-based interrupts every vector is the pin.
    pub vectors: Vec<Option<Arc<dyn Interrupt>>>,
    /// Completions to gather before an interrupt, for vectors that coalesce.
    pub coalescing: Coalescing,
    /// Vectors whose coalescing the host disabled (or all, with pin-based interrupts).
    pub uncoalesced: Vec<bool>,
    /// Memory page size (CC.MPS) as a power of two: 12 for 4 KiB.
    pub page_shift: u8,
    /// Most bytes that one command may transfer (MDTS).
    pub transfer_bytes_max: u32,
    /// False when the host switched the volatile write cache off: every write is then FUA.
    pub write_cache: bool,
    /// Where doorbells are looked at, if not in the doorbell page.
    pub shadow: Option<ShadowDoorbells>,
}

impl ControllerView {
    /// Whether a vector can be delivered, and could not be, or to somebody else, as the controller
    /// was seen `before`.
    pub(crate) fn opens(&self, before: &ControllerView, vector: u16) -> bool {
        let vector = usize::from(vector);
        match (self.vectors.get(vector), before.vectors.get(vector)) {
            (Some(Some(now)), Some(Some(before))) => !Arc::ptr_eq(now, before),
            (Some(Some(_)), _) => true,
            _ => false,
        }
    }
}

/// Interrupt coalescing (Set Features 08h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coalescing {
    /// Completions before an interrupt is due, 1 or more; 0 = no coalescing.
    pub completions: u16,
    /// Time after the first unannounced completion at which one is due in any case.
    pub delay_ns: u64,
}

/// Guest memory that takes the place of the doorbell registers of I/O queues (Doorbell Buffer
/// Config).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShadowDoorbells {
    /// The doorbell values, written by the host.
    pub doorbells: Iova,
    /// The event indices, written by us.
    pub event_indices: Iova,
}

impl fmt::Debug for ControllerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerView")
            .field("number", &self.number)
            .field("namespaces", &self.namespaces.iter().flatten().count())
            .field("vectors", &self.vectors.iter().flatten().count())
            .field("coalescing", &self.coalescing)
            .field("page_shift", &self.page_shift)
            .field("transfer_bytes_max", &self.transfer_bytes_max)
            .field("write_cache", &self.write_cache)
            .field("shadow", &self.shadow)
            .finish_non_exhaustive()
    }
}

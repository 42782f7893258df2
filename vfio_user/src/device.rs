//! What a PCI device must answer: the trait that a server calls, and the types it speaks in.
//!
//! A session validates everything a client sends before it calls the device: an access lies inside
//! a region, a range does not wrap, descriptors match their count. What it cannot know is left to
//! the device, which answers with an errno, and the client gets that errno.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;

pub use crate::irq::{IrqAction, Selection, SetIrqs};
pub use crate::region::{RegionInfo, SparseArea};

/// Whether an operation is over, or has to be asked for again with [`Device::poll_pending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is over: the client gets its reply.
    Done,
    /// It goes on: the client waits, and no other message of it is looked at meanwhile.
    Pending,
}

/// What an operation came to. An error is sent to the client as the errno of a bare header.
pub type Reply = Result<Outcome, Errno>;

/// The answer to `VFIO_USER_DEVICE_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// [`DeviceInfo::RESET`] and [`DeviceInfo::PCI`].
    pub flags: u32,
    /// Number of regions, absent ones included.
    pub regions: u32,
    /// Number of interrupt kinds, absent ones included.
    pub irqs: u32,
}

impl DeviceInfo {
    /// `VFIO_DEVICE_FLAGS_RESET`: `VFIO_USER_DEVICE_RESET` is understood.
    pub const RESET: u32 = 1 << 0;
    /// `VFIO_DEVICE_FLAGS_PCI`: regions and interrupts follow the PCI indices.
    pub const PCI_DEVICE: u32 = 1 << 1;
    /// A PCI device that can be reset, with the 9 regions and 5 interrupt kinds of VFIO.
    pub const PCI: DeviceInfo = DeviceInfo {
        flags: DeviceInfo::RESET | DeviceInfo::PCI_DEVICE,
        regions: 9,
        irqs: 5,
    };
}

/// A piece of client memory that the device may use from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMap {
    /// First address, as the device sees it.
    pub iova: u64,
    /// Bytes; not 0, and `iova + len - 1` does not wrap.
    pub len: u64,
    /// Where it begins in the file that came with it; `offset + len` does not wrap.
    pub offset: u64,
    /// The device may read it.
    pub read: bool,
    /// The device may write it.
    pub write: bool,
}

/// What a client takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaRange {
    /// One range, which should be one that was mapped.
    Exact {
        /// First address, as the device sees it.
        iova: u64,
        /// Bytes; not 0, and `iova + len - 1` does not wrap.
        len: u64,
    },
    /// Everything (`VFIO_DMA_UNMAP_FLAG_ALL`).
    All,
}

/// A PCI device behind a vfio-user socket. Every call comes from the thread that polls the
/// [`Server`](crate::Server) and must not block it.
///
/// Where a call returns [`Outcome::Pending`], the session calls
/// [`poll_pending`](Self::poll_pending) on each later pass until it answers otherwise, and calls
/// nothing else but [`disconnected`](Self::disconnected) meanwhile. A time limit is the device's
/// business.
pub trait Device {
    /// Flags, number of regions, number of interrupt kinds.
    fn info(&self) -> DeviceInfo {
        DeviceInfo::PCI
    }

    /// What `region` (below [`DeviceInfo::regions`]) is like; size 0 where there is none.
    fn region_info(&self, region: u32) -> RegionInfo;

    /// The file behind the mappable areas of `region`; without one they are not announced.
    fn region_fd(&self, region: u32) -> Option<BorrowedFd<'_>>;

    /// How many interrupts of kind `index` (below [`DeviceInfo::irqs`]) there are.
    fn irq_count(&self, index: u32) -> u32;

    /// `VFIO_IRQ_INFO_` flags of that kind, see [`irq`](crate::irq).
    fn irq_flags(&self, index: u32) -> u32;

    /// Fills `data`, which is not empty, from `offset`; the range lies inside the region.
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Takes `data`, which is not empty, at `offset`; the range lies inside the region.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Reply;

    /// Adds memory. Without `fd` the client keeps it to itself: accept it and never use it.
    /// A range over an existing one is answered with EEXIST (spec, VFIO_USER_DMA_MAP).
    fn dma_map(&mut self, map: DmaMap, fd: Option<OwnedFd>) -> Reply;

    /// Takes memory away: when this is done no access to it is in flight.
    fn dma_unmap(&mut self, range: DmaRange) -> Reply;

    /// Binds, unbinds, masks or fires interrupts.
    fn set_irqs(&mut self, irqs: SetIrqs) -> Reply;

    /// Resets the device: when this is done no access to client memory is in flight.
    fn reset(&mut self) -> Reply;

    /// What came of the operation that was last answered with [`Outcome::Pending`].
    fn poll_pending(&mut self) -> Reply;

    /// A client has connected.
    fn connected(&mut self);

    /// The client is gone (end of stream, error or garbage): stop, forget its memory and eventfds,
    /// become a fresh device. Called once for each [`connected`](Self::connected). An operation
    /// that was pending is abandoned: after `Pending`, [`poll_pending`](Self::poll_pending) asks
    /// about the disconnect, and the next client is accepted when it returns `Done` or an error.
    fn disconnected(&mut self) -> Outcome;

    /// Closes a descriptor that came with a message nobody can use, or the connection of a client
    /// that is gone, in which such descriptors may wait. Closing a stranger's file can block (a
    /// FUSE file is flushed, a TCP socket lingers): a device on a polled thread has another thread
    /// do it, and does the same with those it was given and needs no more.
    fn discard(&mut self, fd: OwnedFd) {
        drop(fd);
    }
}

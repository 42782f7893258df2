//! The memory of commands that copy.

use bdev::memory::{
    Access, Arena, Backing, GuestMemory, IoVecPool, IoVecs, Iova, MemoryRegion, PageKind,
    Protection, copy,
};

use super::error::Error;
use super::work::{BLOCK_BYTES, DEPTHS, LARGE_BYTES, LARGE_DEPTH, Shape};

/// The buffers of all slots, of the shape that needs most.
pub(super) const SLOTS_BYTES: u64 = {
    let small = DEPTHS[DEPTHS.len() - 1] as u64 * BLOCK_BYTES;
    let large = LARGE_DEPTH as u64 * LARGE_BYTES;
    if small > large { small } else { large }
};

/// Whole huge pages.
const SLOTS_ALIGN: u64 = 2 << 20;

/// The memory that commands copy: a disk, and buffers that a client shares.
pub(super) struct Memory<'a> {
    pub(super) disk: &'a Arena,
    pub(super) slots: MemoryRegion,
}

impl<'a> Memory<'a> {
    /// With buffers for every shape that `limits` measures by itself.
    pub(super) fn new(disk: &'a Arena) -> Result<Memory<'a>, Error> {
        Memory::with(disk, SLOTS_BYTES)
    }

    /// With buffers for one shape.
    pub(super) fn of(disk: &'a Arena, shape: Shape) -> Result<Memory<'a>, Error> {
        let bytes = (u64::from(shape.depth) * shape.bytes).max(1);
        Memory::with(disk, bytes.next_multiple_of(SLOTS_ALIGN))
    }

    fn with(disk: &'a Arena, slots_bytes: u64) -> Result<Memory<'a>, Error> {
        // A kernel without transparent huge pages refuses to be advised.
        let name = "bellwire-bench";
        let (backing, _) = Backing::memfd(name, slots_bytes, PageKind::Transparent)
            .or_else(|_| Backing::memfd(name, slots_bytes, PageKind::Normal))?;
        let protection = Protection {
            read: true,
            write: true,
        };
        let slots = MemoryRegion::new(backing, 0, Iova(0), slots_bytes, protection)?;
        Ok(Memory { disk, slots })
    }

    /// The buffers of a shape, all there and empty, for the thread that calls.
    pub(super) fn buffers(&self, shape: Shape) -> Result<Vec<IoVecs>, Error> {
        let mut table = GuestMemory::new();
        table.map(self.slots.clone())?;
        // A buffer lies in one region, in one piece: no lists.
        let pool = IoVecPool::new(0);
        let buffer = |slot: u16| {
            let mut iovecs = IoVecs::new();
            let at = Iova(u64::from(slot) * shape.bytes);
            table.gather(&pool, at, shape.bytes, Access::Write, &mut iovecs)?;
            copy::zero(&iovecs);
            Ok(iovecs)
        };
        (0..shape.depth).map(buffer).collect()
    }
}

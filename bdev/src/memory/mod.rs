//! Every mapping in the process, and every access to memory that a guest can change.
//!
//! | here                       | is                                                              |
//! |                            | --------------------------------------------------------------- |
//! | [`Backing`], [`Backings`]  | one `mmap` of one file that a client has sent                   |
//! | [`MemoryRegion`]           | a piece of a backing at an address that the guest's devices use |
//! | [`GuestMemory`]            | the table of regions of one poll group: address to [`IoVecs`]   |
//! | [`GuestRing`]              | a queue in guest memory, accessed in words of 8 bytes           |
//! | [`IoVecs`], [`IoVecPool`]  | the memory of one request                                       |
//! | [`Buffer`], [`BufferPool`] | aligned memory of ours, for requests that need it               |
//! | [`Arena`]                  | the blocks of a memory disk                                     |
//! | [`SharedPages`]            | memory shared by descriptor: doorbells, durable state           |
//! | [`Glance`]                 | whether any of many words of it has changed                     |
//! | [`Nodes`], [`PagesByNode`] | where in the machine (NUMA) memory is to be, and is             |
//! | [`copy`]                   | bytes between requests and memory of ours                       |
//! | [`install_sigbus_handler`] | what keeps a file that shrinks from killing the process         |
//!
//! # What it promises
//!
//! *Bounds and protection.* Every address is judged against the table once, when it becomes a
//! segment or a ring. Safe code outside cannot make a segment, or make one point elsewhere.
//!
//! *No references.* No Rust reference is ever made to bytes that a guest can write, except to
//! atomics; bytes are moved by raw pointer, and each copy ends in a compiler fence, so that what is
//! judged after it is the copy. A guest that changes memory while it is copied gets a mixture of
//! its own old and new bytes.
//!
//! *Nothing unmapped in use.* Segments and rings hold a lease: a count on the region's entry in the
//! table, which counts on the backing. A region that was removed stays mapped until the last lease
//! is gone; [`GuestMemory::retired_busy`] tells whether there is one. Leases are not atomic: they,
//! the table and all that holds one stay on one thread. Only the [`Backings`] unmap, on the control
//! thread.
//!
//! *A shrinking file hurts its owner only.* The first access past its new end turns the backing
//! into zeroes and marks it [`Backing::bad`]; see [`install_sigbus_handler`].

mod arena;
mod available;
mod backing;
mod barrier;
mod buffer;
pub mod copy;
mod error;
mod glance;
mod guest;
mod iovec;
mod map;
mod numa;
mod prefetch;
mod region;
mod ring;
mod shared;
mod sigbus;

pub use arena::Arena;
pub use backing::{BACKINGS_BYTES_MAX, BACKINGS_MAX, Backing, Backings, MemoryPolicy};
pub(crate) use barrier::ProcessBarrier;
pub use buffer::{Buffer, BufferPool};
pub use error::{MapError, MemoryError};
pub use glance::Glance;
pub use guest::{GuestMemory, REGIONS_MAX};
pub use iovec::{IoVec, IoVecPool, IoVecs, SEGMENTS_MAX};
pub use map::PageKind;
pub use numa::{NODES_MAX, Nodes, PagesByNode, Placement, is_chosen_by_starter};
pub use region::{MemoryRegion, Protection};
pub use ring::GuestRing;
pub use shared::{Seal, SharedPages, SharedSlice, SharedValue};
pub use sigbus::{MAPPINGS_MAX, install_sigbus_handler};

/// The unit of mapping and of guest addresses: 4 KiB on every machine we run on.
pub const PAGE_BYTES: usize = 4096;

// Lengths of guests are u64, those of the machine usize: here they are the same.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// An address as the guest's devices see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

impl Iova {
    /// The address `bytes` further on, if there is one.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Iova> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Iova(address)),
            None => None,
        }
    }
}

impl std::fmt::Display for Iova {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What the device does with guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Guest memory is a source: the data of a write command, a submission queue.
    Read,
    /// Guest memory is changed: the data of a read command, a completion queue.
    Write,
}

#[cfg(test)]
mod tests;

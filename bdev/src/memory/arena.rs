//! The blocks of a memory disk: private memory of ours that several reactors access.
#![allow(unsafe_code)] // Raw copies into the mapping.

use std::ptr;

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use super::map::{HUGE_PAGE_BYTES, Map};
use super::{
    IoVecs, MapError, Nodes, PAGE_BYTES, PageKind, Placement, available, copy, numa, prefetch,
};

/// The longest arena: far more than machines have, and far less than addresses.
const ARENA_BYTES_MAX: u64 = 16 << 40;

/// A range of zeroed memory, all of it there from the start, never lent by reference. `Send` and
/// `Sync`: two threads that write the same bytes at one time leave a mixture, so the users of an
/// arena exclude each other where that matters ([`crate::claims`]).
#[derive(Debug)]
pub struct Arena {
    map: Map,
    len: usize,
    page_kind: PageKind,
    placement: Placement,
    /// How much of a range is called for at most.
    prefetch_bytes: usize,
}

impl Arena {
    /// `len` bytes of zeroes: from the pool of huge pages, else in pages that the kernel may join.
    /// Touches all of it, so that nothing of it can be missing later. Blocks: for the control
    /// thread.
    ///
    /// # Errors
    ///
    /// [`MapError::NoMemory`] when the machine or a limit on the process does not have as much to
    /// give, [`MapError::Os`] when the kernel refuses.
    pub fn new(len: u64) -> Result<Arena, MapError> {
        Arena::on_nodes(len, &Nodes::default())
    }

    /// As [`new`](Self::new), on these nodes as far as they have room: in turns if there are
    /// several, on any if there are none. What came of it is its [`placement`](Self::placement).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn on_nodes(len: u64, nodes: &Nodes) -> Result<Arena, MapError> {
        if len > ARENA_BYTES_MAX {
            return Err(too_large(len));
        }
        let len = len as usize;
        let size = len.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let (populated, page_kind) = match populated(size, PageKind::Huge, nodes) {
            Ok(populated) => (populated, PageKind::Huge),
            Err(_) => ordinary(size, nodes)?,
        };
        let (map, placement) = populated;
        Ok(Arena::of(map, len, page_kind, placement))
    }

    /// As [`new`](Self::new), in base pages that the kernel does not join: to tell what huge ones
    /// are worth.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn in_base_pages(len: u64) -> Result<Arena, MapError> {
        if len > ARENA_BYTES_MAX {
            return Err(too_large(len));
        }
        let len = len as usize;
        let size = len.max(1).next_multiple_of(PAGE_BYTES);
        enough(size)?;
        let (map, placement) = populated(size, PageKind::Normal, &Nodes::default())?;
        Ok(Arena::of(map, len, PageKind::Normal, placement))
    }

    fn of(map: Map, len: usize, page_kind: PageKind, placement: Placement) -> Arena {
        Arena {
            map,
            len,
            page_kind,
            placement,
            prefetch_bytes: prefetch::bytes_of_a_copy(),
        }
    }

    /// How many bytes it has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody makes an empty disk")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// What its pages are.
    #[must_use]
    pub fn page_kind(&self) -> PageKind {
        self.page_kind
    }

    /// Whether it is on the nodes that were asked for.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Copies from `offset` on into the request's memory. False, with nothing done, if the arena
    /// does not have all of these bytes.
    #[must_use]
    #[inline]
    pub fn read(&self, offset: u64, iovecs: &IoVecs) -> bool {
        let Some((data, len)) = self.range(offset, iovecs.bytes()) else {
            return false;
        };
        // SAFETY: the range lies within the mapping, which is ours and not guest memory.
        unsafe { copy::raw_to_iovecs(data, len, iovecs, 0) };
        true
    }

    /// Copies the request's memory to `offset` on. False as in [`read`](Self::read). Another thread
    /// that learns of it must not do so before [`settle`](Self::settle).
    #[must_use]
    #[inline]
    pub fn write(&self, offset: u64, iovecs: &IoVecs) -> bool {
        let Some((data, len)) = self.range(offset, iovecs.bytes()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { copy::raw_from_iovecs_past_caches(iovecs, data, len) };
        true
    }

    /// As [`write`](Self::write), through the caches: to tell what it is worth to go past them.
    #[must_use]
    pub fn write_through_caches(&self, offset: u64, iovecs: &IoVecs) -> bool {
        let Some((data, len)) = self.range(offset, iovecs.bytes()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { copy::raw_from_iovecs(iovecs, 0, data, len) };
        true
    }

    /// Ends all writes: whatever is stored after it is seen after them.
    #[inline]
    pub fn settle(&self) {
        copy::drain();
    }

    /// Compares the request's memory with what is from `offset` on. False as in
    /// [`read`](Self::read), and when any byte differs.
    #[must_use]
    pub fn equals(&self, offset: u64, iovecs: &IoVecs) -> bool {
        let Some((data, len)) = self.range(offset, iovecs.bytes()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { copy::raw_equal(iovecs, 0, data, len) }
    }

    /// Fills `len` bytes from `offset` on with zeroes. False as in [`read`](Self::read).
    #[must_use]
    pub fn zero(&self, offset: u64, len: u64) -> bool {
        let Some((data, len)) = self.range(offset, len) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { ptr::write_bytes(data, 0, len) };
        true
    }

    /// Brings `len` bytes from `offset` on nearer: the first of them, and with them the rest. Any
    /// range is fine.
    #[inline]
    pub fn prefetch(&self, offset: u64, len: u64) {
        let data = self.map.address().as_ptr().wrapping_add(offset as usize);
        let len = self.prefetch_bytes.min(len as usize);
        for at in (0..len).step_by(prefetch::LINE_BYTES) {
            prefetch::line_to_second_level(data.wrapping_add(at));
        }
    }

    fn range(&self, offset: u64, len: u64) -> Option<(*mut u8, usize)> {
        let end = offset.checked_add(len)?;
        let data = self.map.address().as_ptr().wrapping_add(offset as usize);
        (end <= self.len()).then_some((data, len as usize))
    }
}

fn too_large(needed: u64) -> MapError {
    MapError::TooLarge {
        needed,
        limit: ARENA_BYTES_MAX,
    }
}

/// Whether there is as much to be had. Asked before it is taken, since the kernel's answer to a
/// page too many is to kill somebody.
fn enough(size: usize) -> Result<(), MapError> {
    let needed = size as u64;
    match available::bytes().filter(|&available| available < needed) {
        Some(available) => Err(MapError::NoMemory { needed, available }),
        None => Ok(()),
    }
}

/// Memory outside the pool of huge pages.
fn ordinary(size: usize, nodes: &Nodes) -> Result<((Map, Placement), PageKind), MapError> {
    enough(size)?;
    match populated(size, PageKind::Transparent, nodes) {
        Ok(populated) => Ok((populated, PageKind::Transparent)),
        // A kernel without transparent huge pages refuses the advice.
        Err(_) => Ok((populated(size, PageKind::Normal, nodes)?, PageKind::Normal)),
    }
}

/// A mapping with every page there, and where they are. A kernel before 5.14 cannot do that at
/// once; there the first touch does it page by page.
fn populated(
    size: usize,
    page_kind: PageKind,
    nodes: &Nodes,
) -> Result<(Map, Placement), MapError> {
    let map = Map::anonymous(size, page_kind)?;
    if page_kind == PageKind::Normal {
        // A kernel that refuses does not join pages.
        let _ = map.advise(MmapAdvise::MADV_NOHUGEPAGE);
    }
    // Before there are pages, which would have to move.
    let asked = numa::prefer(&map, nodes);
    match map.advise(MmapAdvise::MADV_POPULATE_WRITE) {
        Err(MapError::Os {
            errno: Errno::EINVAL,
            ..
        })
        | Ok(()) => {
            let placement = Placement::of(&map, nodes, asked);
            Ok((map, placement))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::NODES_MAX;

    #[test]
    fn an_arena_larger_than_the_machine_is_refused_and_not_tried() {
        assert!(matches!(
            Arena::new(ARENA_BYTES_MAX),
            Err(MapError::NoMemory { .. })
        ));
        assert!(matches!(
            Arena::new(ARENA_BYTES_MAX + 1),
            Err(MapError::TooLarge { .. })
        ));
    }

    #[test]
    fn base_pages_are_what_was_asked_for() {
        let arena = Arena::in_base_pages(4 << 20).unwrap();
        assert_eq!(
            (arena.len(), arena.page_kind()),
            (4 << 20, PageKind::Normal)
        );
        for too_much in [ARENA_BYTES_MAX, ARENA_BYTES_MAX + 1] {
            assert!(Arena::in_base_pages(too_much).is_err());
        }
    }

    #[test]
    fn a_node_that_is_not_there_is_said_and_does_not_keep_memory_from_coming() {
        let on = |nodes: &[u32]| {
            let arena = Arena::on_nodes(4 << 20, &nodes.iter().copied().collect()).unwrap();
            assert!(arena.zero(0, 4 << 20));
            arena.placement()
        };
        assert_eq!(on(&[]), Placement::Anywhere);
        assert_eq!(on(&[NODES_MAX - 1, NODES_MAX - 2]), on(&[NODES_MAX - 1]));
        assert!(matches!(on(&[NODES_MAX - 1]), Placement::Refused(_)));
        // On a machine with several nodes it may be full.
        assert!(matches!(
            on(&[0]),
            Placement::AsAsked | Placement::Elsewhere { .. }
        ));
    }

    #[test]
    fn what_lies_past_the_end_is_not_touched() {
        let arena = Arena::new(1000).unwrap();
        assert_eq!(arena.len(), 1000);
        assert!(arena.zero(0, 1000) && arena.zero(1000, 0));
        for (offset, len) in [(0, 1001), (1000, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(!arena.zero(offset, len));
        }
    }
}

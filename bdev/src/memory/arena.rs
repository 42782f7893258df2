//! The blocks of a memory disk: private memory of ours that several reactors access.
#![allow(unsafe_code)] // Raw copies into the mapping.

use std::ptr;

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use super::map::{HUGE_PAGE_BYTES, Map};
use super::{IoVecs, MapError, PageKind, copy};

/// A range of zeroed memory, all of it there from the start, never lent by reference. `Send` and
/// `Sync`: two threads that write the same bytes at one time leave a mixture, so the users of an
/// arena exclude each other where that matters (see the claims of this crate).
#[derive(Debug)]
pub struct Arena {
    map: Map,
    len: usize,
    page_kind: PageKind,
}

impl Arena {
    /// `len` bytes of zeroes: from the pool of huge pages, else in pages that the kernel may join,
    /// else as they come. Touches all of it, so that it cannot be missing later. Blocks: for the
    /// control thread.
    ///
    /// # Errors
    ///
    /// Fails when the memory cannot be had.
    pub fn new(len: u64) -> Result<Arena, MapError> {
        let too_large = MapError::TooLarge {
            needed: len,
            limit: isize::MAX as u64,
        };
        if len > isize::MAX as u64 - HUGE_PAGE_BYTES as u64 {
            return Err(too_large);
        }
        let len = len as usize;
        let size = len.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let kinds = [PageKind::Huge, PageKind::Transparent, PageKind::Normal];
        let mut refused = too_large;
        for page_kind in kinds {
            match Map::anonymous(size, page_kind) {
                Ok(map) => {
                    populate(&map)?;
                    return Ok(Arena {
                        map,
                        len,
                        page_kind,
                    });
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
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

    /// Copies from `offset` on into the request's memory. False, with nothing done, if the arena
    /// does not have all of these bytes.
    #[must_use]
    pub fn read(&self, offset: u64, iovecs: &IoVecs) -> bool {
        let Some((data, len)) = self.range(offset, iovecs.bytes()) else {
            return false;
        };
        // SAFETY: the range lies within the mapping, which is ours and not guest memory.
        unsafe { copy::raw_to_iovecs(data, len, iovecs, 0) };
        true
    }

    /// Copies the request's memory to `offset` on. False as in [`read`](Self::read).
    #[must_use]
    pub fn write(&self, offset: u64, iovecs: &IoVecs) -> bool {
        let Some((data, len)) = self.range(offset, iovecs.bytes()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { copy::raw_from_iovecs(iovecs, 0, data, len) };
        true
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

    fn range(&self, offset: u64, len: u64) -> Option<(*mut u8, usize)> {
        let end = offset.checked_add(len)?;
        let data = self.map.address().as_ptr().wrapping_add(offset as usize);
        (end <= self.len()).then_some((data, len as usize))
    }
}

/// Makes every page be there. A kernel before 5.14 does not know how; there the first touch does
/// it.
fn populate(map: &Map) -> Result<(), MapError> {
    match map.advise(MmapAdvise::MADV_POPULATE_WRITE) {
        Err(MapError::Os {
            errno: Errno::EINVAL,
            ..
        }) => Ok(()),
        result => result,
    }
}

//! A piece of a file at an address that the guest's devices use.

use std::sync::Arc;

use super::{Backing, Iova, MapError, PAGE_BYTES};

/// What a device may do with a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// It may be a source.
    pub read: bool,
    /// It may be changed.
    pub write: bool,
}

/// A piece of a [`Backing`] and the address where the guest's devices see it. Plain and `Send`: it
/// is made by the control thread and handed to each table that shall have it.
#[derive(Debug, Clone)]
pub struct MemoryRegion {
    /// Where it starts, a multiple of 4 KiB.
    pub iova: Iova,
    /// How many bytes it has, a multiple of 4 KiB.
    pub len: u64,
    /// What a device may do with it.
    pub protection: Protection,
    backing: Arc<Backing>,
    offset: u64,
}

impl MemoryRegion {
    /// `len` bytes of `backing` from `offset` on, seen at `iova`.
    ///
    /// # Errors
    ///
    /// Fails on an empty or wrapping range, one that is not made of whole pages of 4 KiB, one past
    /// the end of the backing, and on write protection that a read-only backing cannot grant.
    pub fn new(
        backing: Arc<Backing>,
        offset: u64,
        iova: Iova,
        len: u64,
        protection: Protection,
    ) -> Result<Self, MapError> {
        let region = MemoryRegion {
            iova,
            len,
            protection,
            backing,
            offset,
        };
        region.check()?;
        Ok(region)
    }

    /// The file it is a piece of.
    #[must_use]
    pub fn backing(&self) -> &Arc<Backing> {
        &self.backing
    }

    /// Where in the file it starts.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether two describe the same bytes of the same mapping at the same address.
    pub(super) fn same(&self, other: &MemoryRegion) -> bool {
        (self.iova, self.len, self.protection, self.offset)
            == (other.iova, other.len, other.protection, other.offset)
            && Arc::ptr_eq(&self.backing, &other.backing)
    }

    /// Judges all fields together. Called again where the region is put to use, since the public
    /// ones can have been changed.
    pub(super) fn check(&self) -> Result<(), MapError> {
        let MemoryRegion {
            iova, len, offset, ..
        } = *self;
        let page = PAGE_BYTES as u64;
        if len == 0 || iova.checked_add(len).is_none() {
            return Err(MapError::Range { iova, len });
        }
        if [iova.0, len, offset].iter().any(|value| value % page != 0) {
            return Err(MapError::Misaligned { iova, offset, len });
        }
        let size = self.backing.len();
        let end = offset
            .checked_add(len)
            .ok_or(MapError::Range { iova, len })?;
        if end > size {
            return Err(MapError::TooSmall { size, needed: end });
        }
        if self.protection.write && !self.backing.writable() {
            return Err(MapError::AccessMode { writable: true });
        }
        Ok(())
    }
}

//! Memory of ours that a device can reach.

use std::os::fd::OwnedFd;

use bdev::memory::{Backing, GuestMemory, Iova, MemoryRegion, PAGE_BYTES, PageKind, Protection};

use super::{DriverError, PageSize};

/// The most memory that is lent at one time.
const MEMORY_MAX_BYTES: u64 = 64 << 30;

/// What sizes are rounded up to: some targets take memory only in whole huge pages.
const GRAIN_BYTES: u64 = 2 << 20;

/// A memory file, all zeroes and present, of which whole pages are given out from the start. A
/// thread that works in it makes a [table](Self::table) for itself.
#[derive(Debug)]
pub(crate) struct HostMemory {
    region: MemoryRegion,
    page: PageSize,
    next: u64,
}

impl HostMemory {
    /// Makes `bytes`, a multiple of 2 MiB, that a device shall see at `iova`. Returns the
    /// descriptor to send to it.
    pub(super) fn new(
        iova: Iova,
        bytes: u64,
        page: PageSize,
    ) -> Result<(HostMemory, OwnedFd), DriverError> {
        if bytes > MEMORY_MAX_BYTES {
            return Err(DriverError::MemoryLimit {
                bytes,
                limit: MEMORY_MAX_BYTES,
            });
        }
        // A kernel without transparent huge pages refuses to be advised.
        let name = "bellwire-bench";
        let (backing, fd) = Backing::memfd(name, bytes, PageKind::Transparent)
            .or_else(|_| Backing::memfd(name, bytes, PageKind::Normal))?;
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, iova, bytes, protection)?;
        let memory = HostMemory {
            region,
            page,
            next: 0,
        };
        memory.make_present()?;
        Ok((memory, fd))
    }

    /// `bytes` from the start of a page on.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Result<Iova, DriverError> {
        let exhausted = DriverError::MemoryLimit {
            bytes,
            limit: self.region.len,
        };
        let start = self.next.next_multiple_of(self.page.0);
        let end = start.checked_add(bytes);
        match end.filter(|end| *end <= self.region.len) {
            Some(end) => self.next = end,
            None => return Err(exhausted),
        }
        self.region.iova.checked_add(start).ok_or(exhausted)
    }

    /// What a thread needs to make a table of its own.
    pub(crate) fn region(&self) -> &MemoryRegion {
        &self.region
    }

    /// A table of the region, for the thread that makes it.
    pub(crate) fn table(region: &MemoryRegion) -> Result<GuestMemory, DriverError> {
        let mut table = GuestMemory::new();
        table.map(region.clone())?;
        Ok(table)
    }

    /// Touches each page, so that none is made while commands are measured.
    fn make_present(&self) -> Result<(), DriverError> {
        let table = HostMemory::table(&self.region)?;
        let zeroes = [0; PAGE_BYTES];
        for offset in (0..self.region.len).step_by(PAGE_BYTES) {
            table.write(Iova(self.region.iova.0 + offset), &zeroes)?;
        }
        Ok(())
    }
}

/// A size that can be lent.
pub(super) fn rounded(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(GRAIN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageSize = PageSize(4096);

    #[test]
    fn pieces_are_aligned_do_not_overlap_and_come_to_an_end() {
        let (mut memory, _fd) = HostMemory::new(Iova(1 << 32), GRAIN_BYTES, PAGE).expect("memory");
        assert_eq!(memory.allocate(10).expect("first"), Iova(1 << 32));
        let second = memory.allocate(4096).expect("second");
        assert_eq!(second, Iova((1 << 32) + 4096));
        assert!(memory.allocate(GRAIN_BYTES - 8191).is_err());
        assert!(memory.allocate(GRAIN_BYTES - 8192).is_ok());
        assert!(memory.allocate(1).is_err());
    }

    #[test]
    fn a_size_beyond_the_limit_is_refused() {
        let refused = HostMemory::new(Iova(0), MEMORY_MAX_BYTES + GRAIN_BYTES, PAGE);
        assert!(matches!(refused, Err(DriverError::MemoryLimit { .. })));
    }
}

//! One poll group's view of guest memory: a table of regions, and what to do with an address.
#![allow(unsafe_code)] // Copies between guest memory and ours.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{
    Access, GuestRing, IoVecPool, IoVecs, Iova, MapError, MemoryError, MemoryRegion, copy, sigbus,
};

/// How many regions a table can have: what QEMU offers as `max_dma_maps`, and one.
pub const REGIONS_MAX: usize = 65536;

/// A region in use. Its count is the number of leases, and one for the table that holds it.
#[derive(Debug)]
pub(super) struct Mapping {
    iova: u64,
    len: u64,
    address: *mut u8,
    readable: bool,
    writable: bool,
    retired: Cell<bool>,
    region: MemoryRegion,
}

impl Mapping {
    fn new(region: MemoryRegion) -> Result<Rc<Mapping>, MapError> {
        region.check()?;
        Ok(Rc::new(Mapping {
            iova: region.iova.0,
            len: region.len,
            address: region.backing().address(region.offset()),
            readable: region.protection.read,
            writable: region.protection.write,
            retired: Cell::new(false),
            region,
        }))
    }

    /// Whether it was taken out of its table.
    pub(super) fn retired(&self) -> bool {
        self.retired.get()
    }

    fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.iova) < self.len
    }

    /// One past its last address.
    fn end(&self) -> u64 {
        self.iova + self.len
    }

    fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => self.readable,
            Access::Write => self.writable,
        }
    }
}

/// A piece of guest memory within one region: checked, and good as long as the mapping is held.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) mapping: &'a Rc<Mapping>,
    pub(super) address: *mut u8,
    pub(super) len: usize,
}

/// The guest memory that one poll group, or a controller's admin side, sees. Not `Send`.
#[derive(Debug, Default)]
pub struct GuestMemory {
    /// By address, without overlaps.
    mappings: Vec<Rc<Mapping>>,
    /// Where the last address was found: nearly always where the next one is.
    last: Cell<usize>,
    /// Removed, but perhaps still leased.
    retired: RefCell<Vec<Rc<Mapping>>>,
    generation: u64,
}

impl GuestMemory {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        GuestMemory::default()
    }

    /// Adds a region. One that is there already, equal in all, is accepted again.
    ///
    /// # Errors
    ///
    /// [`MapError::Overlap`], [`MapError::TooMany`], and what [`MemoryRegion::new`] says of a
    /// region that was changed after it.
    pub fn map(&mut self, region: MemoryRegion) -> Result<(), MapError> {
        let mapping = Mapping::new(region)?;
        let at = self
            .mappings
            .partition_point(|other| other.end() <= mapping.iova);
        if let Some(next) = self.mappings.get(at) {
            if next.region.same(&mapping.region) {
                return Ok(());
            }
            if next.iova < mapping.end() {
                let MemoryRegion { iova, len, .. } = mapping.region;
                return Err(MapError::Overlap { iova, len });
            }
        }
        if self.mappings.len() >= REGIONS_MAX {
            return Err(MapError::TooMany { limit: REGIONS_MAX });
        }
        self.mappings.insert(at, mapping);
        self.generation += 1;
        Ok(())
    }

    /// Removes every region that lies in the range. Their memory stays mapped as long as a request
    /// or a ring holds it: see [`retired_busy`](Self::retired_busy).
    ///
    /// # Errors
    ///
    /// With nothing removed: [`MapError::Partial`] when the range would cut a region,
    /// [`MapError::NotMapped`] when there is none in it.
    pub fn unmap(&mut self, iova: Iova, len: u64) -> Result<(), MapError> {
        let end = iova
            .checked_add(len)
            .ok_or(MapError::Range { iova, len })?
            .0;
        let first = self
            .mappings
            .partition_point(|mapping| mapping.end() <= iova.0);
        let last = self.mappings.partition_point(|mapping| mapping.iova < end);
        let Some(inside) = self
            .mappings
            .get(first..last)
            .filter(|inside| !inside.is_empty())
        else {
            return Err(MapError::NotMapped { iova, len });
        };
        if inside
            .iter()
            .any(|mapping| mapping.iova < iova.0 || mapping.end() > end)
        {
            return Err(MapError::Partial { iova, len });
        }
        self.retire(first, last);
        Ok(())
    }

    /// Removes every region.
    pub fn unmap_all(&mut self) {
        self.retire(0, self.mappings.len());
    }

    fn retire(&mut self, first: usize, last: usize) {
        let retired = self.retired.get_mut();
        for mapping in self.mappings.drain(first..last) {
            mapping.retired.set(true);
            retired.push(mapping);
        }
        self.generation += 1;
    }

    /// Whether a region that was removed is still held by a request or a ring. Forgets those that
    /// are not.
    #[must_use]
    pub fn retired_busy(&self) -> bool {
        let mut retired = self.retired.borrow_mut();
        retired.retain(|mapping| Rc::strong_count(mapping) > 1);
        !retired.is_empty()
    }

    /// Changes whenever the table does.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether all of the range is mapped, in whatever regions.
    #[must_use]
    pub fn contains(&self, iova: Iova, len: u64) -> bool {
        self.spans(iova, len, None).all(|span| span.is_ok())
    }

    /// Whether a file behind some region has shrunk under us. If it has not, what was read before
    /// was the guest's, and no zero of ours.
    #[must_use]
    #[inline]
    pub fn any_bad(&self) -> bool {
        sigbus::any_fault()
            && self
                .mappings
                .iter()
                .any(|mapping| mapping.region.backing().bad())
    }

    /// Appends the memory of a range to `out`, neighbouring segments joined.
    ///
    /// # Errors
    ///
    /// On any error a part may have been appended: [`IoVecs::clear`] it.
    #[inline]
    #[expect(
        clippy::too_many_arguments,
        reason = "one table, one pool, one range, one destination"
    )]
    pub fn gather(
        &self,
        pool: &IoVecPool,
        iova: Iova,
        len: u64,
        access: Access,
        out: &mut IoVecs,
    ) -> Result<(), MemoryError> {
        // Nearly always all of it is where the last one was.
        if let Some(mapping) = self.mappings.get(self.last.get()) {
            let offset = iova.0.wrapping_sub(mapping.iova);
            if offset < mapping.len && len <= mapping.len - offset && mapping.allows(access) {
                let address = mapping.address.wrapping_add(offset as usize);
                return out.push_mapped(pool, mapping, address, len as usize);
            }
        }
        self.gather_in_parts(pool, iova, len, access, out)
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "as `gather`")]
    fn gather_in_parts(
        &self,
        pool: &IoVecPool,
        iova: Iova,
        len: u64,
        access: Access,
        out: &mut IoVecs,
    ) -> Result<(), MemoryError> {
        for span in self.spans(iova, len, Some(access)) {
            let Span {
                mapping,
                address,
                len,
            } = span?;
            out.push_mapped(pool, mapping, address, len)?;
        }
        Ok(())
    }

    /// Copies guest memory into `out`, once. What is judged afterwards is the copy.
    ///
    /// # Errors
    ///
    /// On any error `out` may have been changed in part.
    pub fn read(&self, iova: Iova, out: &mut [u8]) -> Result<(), MemoryError> {
        let mut rest = out;
        for span in self.spans(iova, rest.len() as u64, Some(Access::Read)) {
            let Span { address, len, .. } = span?;
            let (part, after) = rest.split_at_mut(len);
            // SAFETY: the span is mapped and readable for `len` bytes while its mapping is in our
            // table; `part` has as many, and is memory of ours, so the two do not overlap.
            unsafe { copy::bytes(address, part.as_mut_ptr(), len) };
            rest = after;
        }
        Ok(())
    }

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    ///
    /// On any error a part may have been written.
    pub fn write(&self, iova: Iova, data: &[u8]) -> Result<(), MemoryError> {
        let mut rest = data;
        for span in self.spans(iova, data.len() as u64, Some(Access::Write)) {
            let Span { address, len, .. } = span?;
            let (part, after) = rest.split_at(len);
            // SAFETY: as in `read`; the span is writable.
            unsafe { copy::bytes(part.as_ptr(), address, len) };
            rest = after;
        }
        Ok(())
    }

    /// A queue of `entries` entries of `WORDS` words of 8 bytes. It may cross regions, and keeps
    /// them mapped.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Misaligned`] when `iova` is not a multiple of an entry's size, or the count
    /// is 0.
    pub fn ring<const WORDS: usize>(
        &self,
        iova: Iova,
        entries: u32,
        access: Access,
    ) -> Result<GuestRing<WORDS>, MemoryError> {
        let size = GuestRing::<WORDS>::ENTRY_BYTES as u64;
        if iova.0 % size != 0 || entries == 0 {
            return Err(MemoryError::Misaligned);
        }
        let spans = self.spans(iova, size * u64::from(entries), Some(access));
        GuestRing::new(spans, entries, access)
    }

    /// The range, region by region. Ends after the first error.
    #[inline]
    fn spans(&self, iova: Iova, len: u64, access: Option<Access>) -> Spans<'_> {
        Spans {
            memory: self,
            at: Some(iova.0),
            left: len,
            access,
        }
    }

    /// The mapping that holds an address.
    #[inline]
    fn find(&self, address: u64) -> Option<&Rc<Mapping>> {
        match self.mappings.get(self.last.get()) {
            Some(mapping) if mapping.holds(address) => Some(mapping),
            _ => self.search(address),
        }
    }

    fn search(&self, address: u64) -> Option<&Rc<Mapping>> {
        let at = self
            .mappings
            .partition_point(|mapping| mapping.end() <= address);
        let mapping = self
            .mappings
            .get(at)
            .filter(|mapping| mapping.holds(address))?;
        self.last.set(at);
        Some(mapping)
    }
}

/// A range of guest memory, region by region.
pub(super) struct Spans<'a> {
    memory: &'a GuestMemory,
    /// Where the next span starts; none past the end of the address space.
    at: Option<u64>,
    left: u64,
    access: Option<Access>,
}

impl<'a> Spans<'a> {
    #[inline]
    fn span(&mut self) -> Result<Span<'a>, MemoryError> {
        let at = self.at.ok_or(MemoryError::NotMapped)?;
        let mapping = self.memory.find(at).ok_or(MemoryError::NotMapped)?;
        if self.access.is_some_and(|access| !mapping.allows(access)) {
            return Err(MemoryError::Protection);
        }
        let offset = at - mapping.iova;
        let len = self.left.min(mapping.len - offset);
        self.at = at.checked_add(len);
        self.left -= len;
        let address = mapping.address.wrapping_add(offset as usize);
        Ok(Span {
            mapping,
            address,
            len: len as usize,
        })
    }
}

impl<'a> Iterator for Spans<'a> {
    type Item = Result<Span<'a>, MemoryError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let span = self.span();
        if span.is_err() {
            self.left = 0;
        }
        Some(span)
    }
}

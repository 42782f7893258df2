//! One `mmap`, owned.
#![allow(unsafe_code)] // mmap and munmap themselves.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};

use super::{MapError, PAGE_BYTES};

/// The size of a huge page that a long mapping is aligned to, so that the kernel can use them.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What kind of pages memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// The machine's base pages.
    Normal,
    /// Base pages that the kernel joins into huge ones where it can.
    Transparent,
    /// Huge pages of 2 MiB from the reserved pool.
    Huge,
}

/// A mapped range of addresses, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Map {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: a Map is an address range that stays mapped as long as the value lives, on whatever
// thread; whoever accesses the bytes answers for races.
unsafe impl Send for Map {}
// SAFETY: as above: a shared Map only gives its address and length away.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of a file, shared, from `offset` on, at an address that is a multiple of
    /// `align` (a power of two). `len` and `offset` are multiples of the file's page size.
    pub(super) fn file(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        writable: bool,
        align: usize,
    ) -> Result<Map, MapError> {
        let place = Map::reserve(len, align)?;
        let protection = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // Without MAP_NORESERVE a mapping on hugetlbfs would take huge pages from the pool beyond
        // those that the file's owner has.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
        let offset = i64::try_from(offset).map_err(|_| MapError::Os {
            action: "map the file",
            errno: nix::errno::Errno::EOVERFLOW,
        })?;
        let size = place.size();
        // SAFETY: the range was reserved just now and belongs to `place`: replacing it takes
        // nothing from anybody. When this fails, `place` still unmaps the range.
        unsafe {
            mman::mmap(
                Some(place.address.addr()),
                size,
                protection,
                flags,
                fd,
                offset,
            )
        }
        .map_err(MapError::os("map the file"))?;
        place.exclude_from_children()?;
        Ok(place)
    }

    /// Maps `len` bytes of private zeroes. With `PageKind::Huge` it fails if the pool cannot give
    /// them; `len` must then be a multiple of [`HUGE_PAGE_BYTES`].
    pub(super) fn anonymous(len: usize, pages: PageKind) -> Result<Map, MapError> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let mut flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
        let align = match pages {
            PageKind::Normal => PAGE_BYTES,
            PageKind::Transparent | PageKind::Huge => HUGE_PAGE_BYTES,
        };
        if pages == PageKind::Huge {
            flags |= MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
        }
        let map = Map::reserve(len, align)?;
        // SAFETY: the range was reserved just now and belongs to `map`, as in `file`.
        unsafe { mman::mmap_anonymous(Some(map.address.addr()), map.size(), protection, flags) }
            .map_err(MapError::os("map memory"))?;
        if pages == PageKind::Transparent {
            map.advise(MmapAdvise::MADV_HUGEPAGE)?;
        }
        map.exclude_from_children()?;
        Ok(map)
    }

    /// Takes addresses without memory: `len` bytes at a multiple of `align`.
    fn reserve(len: usize, align: usize) -> Result<Map, MapError> {
        debug_assert!(align.is_power_of_two() && align >= PAGE_BYTES);
        let refused = MapError::Os {
            action: "reserve addresses",
            errno: nix::errno::Errno::ENOMEM,
        };
        let slack = align - PAGE_BYTES;
        let size = len
            .checked_add(slack)
            .and_then(NonZeroUsize::new)
            .ok_or(refused)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let address = unsafe { mman::mmap_anonymous(None, size, ProtFlags::PROT_NONE, flags) }
            .map_err(MapError::os("reserve addresses"))?
            .cast::<u8>();
        let skip = address.as_ptr().align_offset(align);
        // SAFETY: `skip` is at most `slack`, so the aligned range lies within what was mapped.
        let aligned = unsafe { address.add(skip) };
        // SAFETY: what comes before and after the aligned range is the slack, which nobody has
        // seen.
        unsafe {
            unmap(address, skip);
            unmap(aligned.add(len), slack - skip);
        }
        Ok(Map {
            address: aligned,
            len,
        })
    }

    pub(super) fn address(&self) -> NonNull<u8> {
        self.address
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Tells the kernel how the range will be used.
    pub(super) fn advise(&self, advice: MmapAdvise) -> Result<(), MapError> {
        // SAFETY: the range is ours, and none of the advice in use changes what is in it.
        unsafe { mman::madvise(self.address.cast(), self.len, advice) }
            .map_err(MapError::os("advise the kernel about a mapping"))
    }

    /// A child process has no business in it, and a core dump would hold a guest's secrets.
    fn exclude_from_children(&self) -> Result<(), MapError> {
        self.advise(MmapAdvise::MADV_DONTFORK)?;
        self.advise(MmapAdvise::MADV_DONTDUMP)
    }

    fn size(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.len).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever has a pointer into it holds this value too.
        unsafe { unmap(self.address, self.len) };
    }
}

/// Unmaps a range. A refusal can only mean that the kernel has no memory to split a mapping: the
/// addresses are lost then, and nothing else.
///
/// # Safety
///
/// The range belongs to the caller, and nobody keeps a pointer into it.
unsafe fn unmap(address: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: promised by the caller.
        let _ = unsafe { mman::munmap(address.cast(), len) };
    }
}

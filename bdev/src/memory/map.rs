//! One `mmap`, owned.
#![allow(unsafe_code)] // mmap and munmap themselves.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};

use super::{MapError, PAGE_BYTES};

/// The size of a huge page that a long mapping is aligned to, so that the kernel can use them.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// At exactly the address that is asked for, and only if nothing is mapped there.
const FREE_PLACE: MapFlags = MapFlags::MAP_FIXED_NOREPLACE;
/// How often another place is looked for. Whoever takes one needs to do so within a few
/// instructions, and is none of ours: they wait for [`PLACING`].
const PLACES_MAX: usize = 64;

/// Held from finding a free place until it is taken. The kernel gives everyone who asks the same
/// place, so that threads that map at one time would take each other's over and over.
static PLACING: Mutex<()> = Mutex::new(());

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
        let protection = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // Without MAP_NORESERVE a mapping on hugetlbfs would take huge pages from the pool beyond
        // those that the file's owner has.
        let flags = MapFlags::MAP_SHARED | FREE_PLACE | MapFlags::MAP_NORESERVE;
        let offset = i64::try_from(offset).map_err(|_| MapError::Os {
            action: "map the file",
            errno: Errno::EOVERFLOW,
        })?;
        let map = Map::place(len, align, |at, size| {
            // SAFETY: nothing is replaced, see `FREE_PLACE`.
            unsafe { mman::mmap(Some(at), size, protection, flags, fd, offset) }
        });
        let map = map.map_err(MapError::os("map the file"))?;
        map.exclude_from_children()?;
        Ok(map)
    }

    /// Maps `len` bytes of private zeroes. With `PageKind::Huge` it fails if the pool cannot give
    /// them; `len` must then be a multiple of [`HUGE_PAGE_BYTES`].
    pub(super) fn anonymous(len: usize, pages: PageKind) -> Result<Map, MapError> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let mut flags = MapFlags::MAP_PRIVATE | FREE_PLACE;
        let align = match pages {
            PageKind::Normal => PAGE_BYTES,
            PageKind::Transparent | PageKind::Huge => HUGE_PAGE_BYTES,
        };
        if pages == PageKind::Huge {
            flags |= MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
        }
        let map = Map::place(len, align, |at, size| {
            // SAFETY: nothing is replaced, see `FREE_PLACE`.
            unsafe { mman::mmap_anonymous(Some(at), size, protection, flags) }
        });
        let map = map.map_err(MapError::os("map memory"))?;
        if pages == PageKind::Transparent {
            map.advise(MmapAdvise::MADV_HUGEPAGE)?;
        }
        map.exclude_from_children()?;
        Ok(map)
    }

    /// Has `map_at` map `len` bytes at an address that is a multiple of `align` (a power of two)
    /// and free. Should somebody be faster there, with EEXIST, it is asked for another.
    ///
    /// Nothing is kept at that address meanwhile: a call that replaces such a reservation and
    /// fails may have given it up, and whoever unmapped it then would unmap what another thread
    /// has mapped there since.
    fn place(
        len: usize,
        align: usize,
        mut map_at: impl FnMut(NonZeroUsize, NonZeroUsize) -> nix::Result<NonNull<c_void>>,
    ) -> nix::Result<Map> {
        let size = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let _placing = PLACING.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..PLACES_MAX {
            let at = free_address(len, align)?;
            match map_at(at, size) {
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
                Ok(address) => {
                    let address = address.cast();
                    return Ok(Map { address, len });
                }
            }
        }
        Err(Errno::EEXIST)
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
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever has a pointer into it holds this value too.
        unsafe { unmap(self.address, self.len) };
    }
}

/// A multiple of `align` from which on `len` bytes of addresses were free just now.
fn free_address(len: usize, align: usize) -> nix::Result<NonZeroUsize> {
    debug_assert!(align.is_power_of_two() && align >= PAGE_BYTES);
    let size = len.checked_add(align - PAGE_BYTES);
    let size = size.and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let address = unsafe { mman::mmap_anonymous(None, size, ProtFlags::PROT_NONE, flags) }?;
    // SAFETY: it was made just now, is all ours, and nobody has seen it.
    unsafe { unmap(address.cast(), size.get()) };
    let aligned = address.addr().get().next_multiple_of(align);
    NonZeroUsize::new(aligned).ok_or(Errno::ENOMEM)
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

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = HUGE_PAGE_BYTES;

    /// Memory of another thread at this place, unless a third one was faster.
    fn take(at: NonZeroUsize, len: NonZeroUsize) -> nix::Result<NonNull<c_void>> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | FREE_PLACE;
        // SAFETY: nothing is replaced.
        unsafe { mman::mmap_anonymous(Some(at), len, protection, flags) }
    }

    fn is_mapped(address: NonNull<c_void>, len: usize) -> bool {
        // SAFETY: advice that changes nothing.
        unsafe { mman::madvise(address, len, MmapAdvise::MADV_NORMAL) }.is_ok()
    }

    #[test]
    fn a_place_that_another_takes_while_mapping_fails_stays_the_other_s() {
        let mut others = None;
        let refused = Map::place(LEN, HUGE_PAGE_BYTES, |at, len| {
            others = Some(take(at, len)?);
            Err(Errno::ENOMEM)
        });
        assert_eq!(refused.err(), Some(Errno::ENOMEM));
        let others = others.unwrap();
        assert!(is_mapped(others, LEN));
        // SAFETY: it is this test's, and nobody has a pointer into it.
        unsafe { unmap(others.cast(), LEN) };
        assert!(!is_mapped(others, LEN));
    }

    #[test]
    fn threads_that_map_at_one_time_all_find_a_place() {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let map = Map::anonymous(64 * PAGE_BYTES, PageKind::Normal).unwrap();
                        // Whoever brings pages in makes the others wait, all at the same step.
                        map.advise(MmapAdvise::MADV_POPULATE_WRITE).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn another_place_is_found_when_somebody_is_faster() {
        let mut others = None;
        let map = Map::place(LEN, HUGE_PAGE_BYTES, |at, len| {
            if others.is_none() {
                others = Some(take(at, len)?);
                return Err(Errno::EEXIST);
            }
            take(at, len)
        });
        let (map, others) = (map.unwrap(), others.unwrap());
        assert_ne!(map.address().cast(), others);
        assert_eq!(map.address().as_ptr().align_offset(HUGE_PAGE_BYTES), 0);
        drop(map);
        assert!(is_mapped(others, LEN));
        // SAFETY: as above.
        unsafe { unmap(others.cast(), LEN) };
        let never = Map::place(LEN, PAGE_BYTES, |_, _| Err(Errno::EEXIST));
        assert_eq!(never.err(), Some(Errno::EEXIST));
    }
}

//! Memory that is shared by descriptor: doorbells that a client writes, state that outlives us.
#![allow(unsafe_code)] // Views of mapped bytes as atomics.

use std::any::TypeId;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{self, FcntlArg, SealFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat;
use nix::unistd;
use zerocopy::{FromBytes, KnownLayout};

use super::map::Map;
use super::{Iova, MapError, Nodes, PAGE_BYTES, numa, sigbus};

/// What becomes of new pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// They are given to a client: the file can never be resized.
    Doorbells,
    /// They never leave our processes.
    State,
}

/// Pages of a memory file. They are used either as words of 32 bits or as typed slices, whichever
/// comes first: the other finds nothing, so that safe code never sees one memory as two types.
#[derive(Debug)]
pub struct SharedPages {
    // Declared before the map: it has to go first.
    _guard: sigbus::Guard,
    map: Map,
    fd: OwnedFd,
    len: usize,
    usage: AtomicU8,
    slices: Mutex<Vec<(Range<usize>, TypeId)>>,
}

/// Nobody has looked at the pages yet.
const UNUSED: u8 = 0;
/// They are words.
const WORDS: u8 = 1;
/// They are slices.
const SLICES: u8 = 2;

impl SharedPages {
    /// New pages of zeroes, `len` bytes rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses.
    pub fn new(name: &str, len: usize, seal: Seal) -> Result<Arc<Self>, MapError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(name, flags).map_err(MapError::os("create a memfd"))?;
        let too_large = MapError::TooLarge {
            needed: len as u64,
            limit: isize::MAX as u64,
        };
        let size = len.checked_next_multiple_of(PAGE_BYTES).ok_or(too_large)?;
        let size = i64::try_from(size).map_err(|_| too_large)?;
        unistd::ftruncate(&fd, size).map_err(MapError::os("size a memfd"))?;
        if seal == Seal::Doorbells {
            let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl::fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))
                .map_err(MapError::os("seal a memfd"))?;
        }
        Self::from_fd(fd, 0, len)
    }

    /// The pages of a file that is there: a device's doorbells, for its client, or state to
    /// recover.
    ///
    /// # Errors
    ///
    /// Fails when the file is too small or the offset not a multiple of 4 KiB, and when the kernel
    /// refuses.
    pub fn from_fd(fd: OwnedFd, offset: u64, len: usize) -> Result<Arc<Self>, MapError> {
        let stat = stat::fstat(&fd).map_err(MapError::os("examine the descriptor"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let empty = MapError::Range {
            iova: Iova(offset),
            len: len as u64,
        };
        let needed = offset
            .checked_add(len as u64)
            .filter(|_| len > 0)
            .ok_or(empty)?;
        if needed > size {
            return Err(MapError::TooSmall { size, needed });
        }
        if offset % PAGE_BYTES as u64 != 0 {
            return Err(MapError::Misaligned {
                iova: Iova(0),
                offset,
                len: len as u64,
            });
        }
        let mapped = len.next_multiple_of(PAGE_BYTES);
        let map = Map::file(fd.as_fd(), offset, mapped, true, PAGE_BYTES)?;
        let guard = sigbus::Guard::new(map.address(), map.len())?;
        let (usage, slices) = (AtomicU8::new(UNUSED), Mutex::default());
        Ok(Arc::new(SharedPages {
            _guard: guard,
            map,
            fd,
            len,
            usage,
            slices,
        }))
    }

    /// The file.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Has the pages come from these nodes, and move there, as far as they have room. The file
    /// remembers it for whoever touches them first.
    ///
    /// # Errors
    ///
    /// [`MapError::Os`] when the kernel has no such node for us; all else stays as it is.
    pub fn prefer(&self, nodes: &Nodes) -> Result<(), MapError> {
        numa::prefer(&self.map, nodes)
    }

    /// How many bytes there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "empty pages are never made")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The word at `byte_offset`; 0 where there is none: past the end, between two words, or in
    /// pages used as slices.
    #[must_use]
    #[inline]
    pub fn load_u32(&self, byte_offset: usize, order: Ordering) -> u32 {
        self.word(byte_offset).map_or(0, |word| word.load(order))
    }

    /// Stores the word at `byte_offset`; nothing where there is none.
    #[inline]
    pub fn store_u32(&self, byte_offset: usize, value: u32, order: Ordering) {
        if let Some(word) = self.word(byte_offset) {
            word.store(value, order);
        }
    }

    /// All of it as words; none in pages used as slices.
    #[must_use]
    #[inline]
    pub fn words(&self) -> &[AtomicU32] {
        if !self.claim_usage(WORDS) {
            return &[];
        }
        // SAFETY: the mapping lives as long as `self`, is aligned to pages, and has `len` bytes. It
        // is only ever accessed as these atomics: slices are refused from now on.
        unsafe { slice::from_raw_parts(self.map.address().as_ptr().cast(), self.len / 4) }
    }

    /// All of it as pairs of words; none in pages used as slices.
    #[must_use]
    #[inline]
    pub fn pairs(&self) -> &[[AtomicU32; 2]] {
        let words = self.words();
        // SAFETY: the same words, as many as there are pairs of; an array has the alignment of its
        // elements.
        unsafe { slice::from_raw_parts(words.as_ptr().cast(), words.len() / 2) }
    }

    /// `count` of its [pairs](Self::pairs) from `first` on, which keep the pages alive. None past
    /// the end, and in pages used as slices.
    #[must_use]
    pub fn some_pairs(
        self: &Arc<Self>,
        first: usize,
        count: usize,
    ) -> Option<SharedSlice<[AtomicU32; 2]>> {
        let pairs = self.pairs().get(first..first.checked_add(count)?)?;
        Some(SharedSlice {
            start: pairs.as_ptr(),
            count,
            pages: Arc::clone(self),
        })
    }

    /// `count` values from `byte_offset` on, which keep the pages alive. None past the end,
    /// misaligned, in pages used as words, and where a slice of another type was taken. Only for
    /// pages that are never given away; `T` consists of plain atomics, since the bytes are shared.
    #[must_use]
    pub fn slice<T>(self: &Arc<Self>, byte_offset: usize, count: usize) -> Option<SharedSlice<T>>
    where
        T: FromBytes + KnownLayout + Sync + 'static,
    {
        let end = size_of::<T>()
            .checked_mul(count)?
            .checked_add(byte_offset)?;
        let aligned = byte_offset % align_of::<T>() == 0 && align_of::<T>() <= PAGE_BYTES;
        if size_of::<T>() == 0 || end > self.len || !aligned || !self.claim_usage(SLICES) {
            return None;
        }
        self.claim_range::<T>(byte_offset..end)
            .then(|| SharedSlice {
                start: self.map.address().as_ptr().wrapping_add(byte_offset).cast(),
                count,
                pages: Arc::clone(self),
            })
    }

    #[inline]
    fn word(&self, byte_offset: usize) -> Option<&AtomicU32> {
        if byte_offset % 4 != 0 {
            None
        } else {
            self.words().get(byte_offset / 4)
        }
    }

    /// Decides on first use what the pages are. Relaxed: the value guards no other memory.
    #[inline]
    fn claim_usage(&self, usage: u8) -> bool {
        let now = self.usage.load(Ordering::Relaxed);
        now == usage || (now == UNUSED && self.decide_usage(usage))
    }

    #[cold]
    fn decide_usage(&self, usage: u8) -> bool {
        let decided =
            self.usage
                .compare_exchange(UNUSED, usage, Ordering::Relaxed, Ordering::Relaxed);
        decided.is_ok() || decided == Err(usage)
    }

    /// Whether these bytes are free to be values of type `T`: none of them is in a slice of another
    /// type, or in one whose values start elsewhere.
    fn claim_range<T: 'static>(&self, range: Range<usize>) -> bool {
        let kind = TypeId::of::<T>();
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let agrees = |(other, other_kind): &(Range<usize>, TypeId)| {
            let apart = other.end <= range.start || range.end <= other.start;
            let shift = range.start.abs_diff(other.start);
            apart || (*other_kind == kind && shift % size_of::<T>() == 0)
        };
        if !slices.iter().all(agrees) {
            return false;
        }
        if !slices.iter().any(|(other, _)| *other == range) {
            slices.push((range, kind));
        }
        true
    }
}

/// Values in shared pages, which it keeps alive.
#[derive(Debug)]
pub struct SharedSlice<T> {
    start: *const T,
    count: usize,
    pages: Arc<SharedPages>,
}

// SAFETY: it is a counted reference to a `[T]`, and `T` is `Sync` (a bound of the only
// constructor).
unsafe impl<T: Sync> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for SharedSlice<T> {}

impl<T> SharedSlice<T> {
    /// What it is a slice of.
    #[must_use]
    pub fn pages(&self) -> &Arc<SharedPages> {
        &self.pages
    }

    /// The same pages, and of the values those from `first` on, `count` of them. None past the
    /// end.
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> Option<SharedSlice<T>> {
        let end = first.checked_add(count)?;
        (end <= self.count).then(|| SharedSlice {
            start: self.start.wrapping_add(first),
            count,
            pages: Arc::clone(&self.pages),
        })
    }
}

impl<T> SharedSlice<T> {
    /// One of the values, for who looks at no other; none past the end.
    #[must_use]
    pub fn one(&self, index: usize) -> Option<SharedValue<T>> {
        self.part(index, 1).map(SharedValue)
    }
}

/// A value in shared pages, which it keeps alive.
#[derive(Debug)]
pub struct SharedValue<T>(SharedSlice<T>);

impl<T> Deref for SharedValue<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as for the slice, which has this one value.
        unsafe { &*self.0.start }
    }
}

impl<T> Deref for SharedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the range was checked for bounds and alignment, `T` has no invalid bytes
        // (FromBytes), the pages live as long as we do, and are seen as this type only.
        unsafe { slice::from_raw_parts(self.start, self.count) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn pages(seal: Seal) -> Arc<SharedPages> {
        SharedPages::new("test", 8192, seal).unwrap()
    }

    #[test]
    fn two_mappings_of_one_file_see_the_same_words() {
        let server = pages(Seal::Doorbells);
        let fd = server.fd().try_clone_to_owned().unwrap();
        let client = SharedPages::from_fd(fd, 4096, 4096).unwrap();
        client.store_u32(8, 77, Ordering::Release);
        assert_eq!(server.load_u32(4104, Ordering::Acquire), 77);
        assert_eq!(server.words()[1026].load(Ordering::Relaxed), 77);
        assert_eq!(server.pairs()[513][0].load(Ordering::Relaxed), 77);
        assert_eq!(server.pairs().len(), 1024);
        let some = server.some_pairs(512, 2).unwrap();
        assert_eq!((some.len(), some[1][0].load(Ordering::Relaxed)), (2, 77));
        assert!(server.some_pairs(1023, 2).is_none());
        assert!(server.some_pairs(usize::MAX, 1).is_none());
    }

    #[test]
    fn a_word_that_is_not_there_reads_zero_and_is_not_written() {
        let pages = pages(Seal::State);
        for offset in [2, 8192, 8190, usize::MAX] {
            pages.store_u32(offset, 5, Ordering::Relaxed);
            assert_eq!(pages.load_u32(offset, Ordering::Relaxed), 0);
        }
        assert!(
            pages
                .words()
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn a_file_remembers_its_node_for_every_process() {
        let first = pages(Seal::State);
        first.store_u32(0, 7, Ordering::Relaxed);
        first.prefer(&[0].into_iter().collect()).unwrap();
        let fd = first.fd().try_clone_to_owned().unwrap();
        let second = SharedPages::from_fd(fd, 0, 8192).unwrap();
        let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
        for map in [&first.map, &second.map] {
            let start = format!("{:x} prefer:0 ", map.address().as_ptr().addr());
            assert!(maps.lines().any(|line| line.starts_with(&start)), "{maps}");
        }
        assert!(first.prefer(&[1000].into_iter().collect()).is_err());
        assert_eq!(second.load_u32(0, Ordering::Relaxed), 7);
    }

    #[test]
    fn doorbells_cannot_be_resized_and_state_can() {
        let doorbells = pages(Seal::Doorbells);
        assert!(unistd::ftruncate(doorbells.fd(), 4096).is_err());
        assert!(unistd::ftruncate(doorbells.fd(), 16384).is_err());
        let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
        assert!(
            fcntl::fcntl(doorbells.fd(), seal).is_err(),
            "no further seals"
        );
        assert!(unistd::ftruncate(pages(Seal::State).fd(), 16384).is_ok());
    }

    #[test]
    fn slices_keep_their_place_and_outlive_the_pages() {
        let pages = pages(Seal::State);
        let slice = pages.slice::<AtomicU64>(64, 4).unwrap();
        let part = slice.part(3, 1).unwrap();
        slice[3].store(8, Ordering::Relaxed);
        assert_eq!((part.len(), part[0].load(Ordering::Relaxed)), (1, 8));
        assert_eq!(
            slice.one(3).map(|value| value.load(Ordering::Relaxed)),
            Some(8)
        );
        assert!(slice.one(4).is_none() && part.one(1).is_none());
        assert!(slice.part(3, 2).is_none() && slice.part(usize::MAX, 2).is_none());
        let inner = pages.slice::<AtomicU64>(72, 1).unwrap();
        drop(pages);
        slice[1].store(9, Ordering::Relaxed);
        assert_eq!(inner[0].load(Ordering::Relaxed), 9);
    }

    #[test]
    fn slices_are_refused_past_the_end_misaligned_and_as_another_type() {
        let pages = pages(Seal::State);
        assert!(pages.slice::<AtomicU64>(8192 - 8, 1).is_some());
        assert!(pages.slice::<AtomicU64>(8192 - 8, 2).is_none());
        assert!(pages.slice::<AtomicU64>(0, usize::MAX).is_none());
        assert!(pages.slice::<AtomicU64>(4, 1).is_none());
        assert!(
            pages.slice::<AtomicU32>(8192 - 4, 1).is_none(),
            "the bytes are another type"
        );
        assert!(pages.slice::<[AtomicU64; 2]>(8192 - 16, 1).is_none());
        assert!(pages.slice::<[AtomicU64; 2]>(0, 2).is_some());
        assert!(
            pages.slice::<[AtomicU64; 2]>(8, 1).is_none(),
            "values that start elsewhere"
        );
        assert!(pages.slice::<[AtomicU64; 2]>(16, 2).is_some());
    }

    #[test]
    fn pages_are_words_or_slices_and_never_both() {
        let words = pages(Seal::State);
        words.store_u32(0, 3, Ordering::Relaxed);
        assert!(words.slice::<AtomicU64>(0, 1).is_none());
        let slices = pages(Seal::State);
        let slice = slices.slice::<AtomicU64>(0, 1).unwrap();
        slice[0].store(3, Ordering::Relaxed);
        assert!(slices.words().is_empty());
        assert_eq!(slices.load_u32(0, Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_shorter_than_its_pages_is_refused() {
        let fd = || pages(Seal::State).fd().try_clone_to_owned().unwrap();
        let open = |offset, len| SharedPages::from_fd(fd(), offset, len).err();
        assert_eq!(open(4096, 4096), None);
        assert_eq!(
            open(4096, 4097),
            Some(MapError::TooSmall {
                size: 8192,
                needed: 8193
            })
        );
        assert!(matches!(open(0, 0), Some(MapError::Range { .. })));
        assert!(matches!(open(u64::MAX, 1), Some(MapError::Range { .. })));
        assert!(matches!(open(512, 1), Some(MapError::Misaligned { .. })));
    }
}

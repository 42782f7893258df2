//! One `mmap` per file that clients send, and the registry that makes and unmakes them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{self, FcntlArg, OFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{self, SFlag};
use nix::sys::statfs;
use nix::unistd;

use super::map::{HUGE_PAGE_BYTES, Map};
use super::{MapError, PAGE_BYTES, PageKind, PagesByNode, sigbus};

/// How many files one registry maps at one time. QEMU uses one, a machine with NUMA nodes or
/// hot-plugged memory a few more.
pub const BACKINGS_MAX: usize = 64;

/// How much one registry maps altogether, so that no client can take the address space of others.
pub const BACKINGS_BYTES_MAX: u64 = 16 << 40;

/// Which files may hold guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryPolicy {
    /// memfd, tmpfs and hugetlbfs: a page of these is there or is made at once.
    #[default]
    SharedOnly,
    /// Any regular file. A page that has to come from a dead disk or server never comes, and stops
    /// the reactor that waits for it.
    AnyFile,
}

/// One mapping of one file.
#[derive(Debug)]
pub struct Backing {
    // Declared before the map: it has to go first.
    guard: sigbus::Guard,
    map: Map,
    writable: bool,
}

impl Backing {
    /// Makes a new memory file of `size` bytes and maps it, as a guest's VMM would: for the
    /// benchmark's host side and for tests. Returns the descriptor to send.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses; with [`PageKind::Huge`] also when the pool has too few pages.
    pub fn memfd(
        name: &str,
        size: u64,
        pages: PageKind,
    ) -> Result<(Arc<Backing>, OwnedFd), MapError> {
        let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        if pages == PageKind::Huge {
            flags |= MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
        }
        let fd = memfd_create(name, flags).map_err(MapError::os("create a memfd"))?;
        let size = i64::try_from(size).map_err(|_| MapError::TooLarge {
            needed: size,
            limit: BACKINGS_BYTES_MAX,
        })?;
        unistd::ftruncate(&fd, size).map_err(MapError::os("size a memfd"))?;
        let file = File::inspect(fd.as_fd())?;
        let backing = file.map(fd.as_fd(), file.size, true)?;
        if pages == PageKind::Transparent {
            backing
                .map
                .advise(nix::sys::mman::MmapAdvise::MADV_HUGEPAGE)?;
        }
        Ok((Arc::new(backing), fd))
    }

    /// Whether its file has shrunk under us: it holds zeroes of ours now, and its guest's device
    /// has to be given up. Never becomes false again.
    #[must_use]
    pub fn bad(&self) -> bool {
        self.guard.bad()
    }

    /// How many bytes are mapped: whole pages, at least what was needed.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty backing is never made"
    )]
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    /// The address of a byte. Past the end it is not to be used.
    pub(super) fn address(&self, offset: u64) -> *mut u8 {
        self.map.address().as_ptr().wrapping_add(offset as usize)
    }
}

/// The mappings made for one client, owned by the control thread. It holds each of them, so that
/// the last count is dropped, and memory unmapped, here and not on a reactor.
///
/// A file is known by its device and inode, and the inode numbers of memfds are few enough to come
/// again: clients that do not trust each other need a registry each.
#[derive(Debug)]
pub struct Backings {
    policy: MemoryPolicy,
    open: Vec<(File, Arc<Backing>)>,
}

impl Backings {
    /// A registry without mappings.
    #[must_use]
    pub fn new(policy: MemoryPolicy) -> Self {
        Backings {
            policy,
            open: Vec::new(),
        }
    }

    /// The mapping of a file up to `needed_end` bytes at least: the one there is, if it is long
    /// enough, else a new one of the whole file. Blocks: for the control thread.
    ///
    /// # Errors
    ///
    /// Fails when the policy, the file's size or the descriptor's access mode do not allow it, at
    /// one of the limits, and when the kernel refuses.
    pub fn open(
        &mut self,
        fd: impl AsFd,
        needed_end: u64,
        writable: bool,
    ) -> Result<Arc<Backing>, MapError> {
        if self.policy == MemoryPolicy::SharedOnly && !is_shared_memory(fd.as_fd()) {
            return Err(MapError::FileKind);
        }
        let file = File::inspect(fd.as_fd())?;
        check_access_mode(fd.as_fd(), writable)?;
        if needed_end > file.size {
            return Err(MapError::TooSmall {
                size: file.size,
                needed: needed_end,
            });
        }
        let fits = |(known, backing): &&(File, Arc<Backing>)| {
            known.same(&file)
                && backing.writable == writable
                && backing.len() >= needed_end
                && !backing.bad()
        };
        if let Some((_, backing)) = self.open.iter().find(fits) {
            return Ok(Arc::clone(backing));
        }
        self.collect();
        let len = self.new_len(&file, needed_end)?;
        let backing = Arc::new(file.map(fd.as_fd(), len, writable)?);
        self.open.push((file, Arc::clone(&backing)));
        Ok(backing)
    }

    /// Unmaps what nobody uses any more. Blocks: for the control thread.
    pub fn collect(&mut self) {
        // A count of one is ours alone, and nobody else can raise it.
        self.open
            .retain(|(_, backing)| Arc::strong_count(backing) > 1);
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// On which nodes the pages are that requests have used up to now, in a sample. One that only
    /// its guest has touched is not known here: asking for it would be a touch.
    #[must_use]
    pub fn pages_by_node(&self) -> PagesByNode {
        let good = self.open.iter().filter(|(_, backing)| !backing.bad());
        let maps: Vec<&Map> = good.map(|(_, backing)| &backing.map).collect();
        PagesByNode::sample(&maps)
    }

    /// How much of a file to map: all of it, since clients map memory piece by piece, or what is
    /// needed when all would be too much.
    fn new_len(&self, file: &File, needed_end: u64) -> Result<u64, MapError> {
        if self.open.len() >= BACKINGS_MAX {
            return Err(MapError::TooMany {
                limit: BACKINGS_MAX,
            });
        }
        let used: u64 = self.open.iter().map(|(_, backing)| backing.len()).sum();
        let free = BACKINGS_BYTES_MAX.saturating_sub(used);
        match (file.size <= free, needed_end <= free) {
            (true, _) => Ok(file.size),
            (false, true) => Ok(needed_end),
            (false, false) => Err(MapError::TooLarge {
                needed: needed_end,
                limit: free,
            }),
        }
    }
}

/// What `fstat` and `fstatfs` say of a descriptor.
#[derive(Debug, Clone, Copy)]
struct File {
    device: u64,
    inode: u64,
    size: u64,
    page_bytes: usize,
}

impl File {
    fn inspect(fd: BorrowedFd<'_>) -> Result<File, MapError> {
        let stat = stat::fstat(fd).map_err(MapError::os("examine the descriptor"))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(MapError::NotAFile);
        }
        let fs = statfs::fstatfs(fd).map_err(MapError::os("examine the descriptor"))?;
        let hugetlbfs = fs.filesystem_type() == statfs::HUGETLBFS_MAGIC;
        // On hugetlbfs the block size is the size of its pages.
        let block = usize::try_from(fs.block_size()).unwrap_or(PAGE_BYTES);
        let page_bytes = if hugetlbfs && block.is_power_of_two() {
            block
        } else {
            PAGE_BYTES
        };
        Ok(File {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            page_bytes,
        })
    }

    fn same(&self, other: &File) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Maps the first `len` bytes, rounded up to whole pages. What a last page has past the end of
    /// the file reads zero; past that page the kernel raises SIGBUS.
    fn map(&self, fd: BorrowedFd<'_>, len: u64, writable: bool) -> Result<Backing, MapError> {
        let too_large = MapError::TooLarge {
            needed: len,
            limit: BACKINGS_BYTES_MAX,
        };
        if len > BACKINGS_BYTES_MAX {
            return Err(too_large);
        }
        let len = (len as usize)
            .checked_next_multiple_of(self.page_bytes)
            .ok_or(too_large)?;
        let align = if len >= HUGE_PAGE_BYTES {
            HUGE_PAGE_BYTES
        } else {
            PAGE_BYTES
        };
        let map = Map::file(fd, 0, len, writable, align.max(self.page_bytes))?;
        let guard = sigbus::Guard::new(map.address(), map.len())?;
        Ok(Backing {
            guard,
            map,
            writable,
        })
    }
}

/// Whether the descriptor is of a memfd, or of a file on tmpfs or hugetlbfs: only those have seals.
/// The kernel knows that by itself. Any other question could be one for a file system of the
/// client's own, which need not answer.
fn is_shared_memory(fd: BorrowedFd<'_>) -> bool {
    fcntl::fcntl(fd, FcntlArg::F_GET_SEALS).is_ok()
}

/// Whether the descriptor was opened for what the mapping is to do.
fn check_access_mode(fd: BorrowedFd<'_>, writable: bool) -> Result<(), MapError> {
    let flags =
        fcntl::fcntl(fd, FcntlArg::F_GETFL).map_err(MapError::os("examine the descriptor"))?;
    let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
    let allowed = mode == OFlag::O_RDWR || (mode == OFlag::O_RDONLY && !writable);
    if allowed {
        Ok(())
    } else {
        Err(MapError::AccessMode { writable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    /// A memory file of `pages` pages, not mapped.
    fn file(pages: u64) -> OwnedFd {
        let fd = memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap();
        unistd::ftruncate(&fd, (pages * PAGE) as i64).unwrap();
        fd
    }

    /// The file opened again, for another access.
    fn reopen(fd: &OwnedFd, flags: OFlag) -> OwnedFd {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        fcntl::open(path.as_str(), flags, stat::Mode::empty()).unwrap()
    }

    fn backings() -> Backings {
        Backings::new(MemoryPolicy::SharedOnly)
    }

    #[test]
    fn the_same_file_is_mapped_once_for_each_access() {
        let (fd, mut backings) = (file(4), backings());
        let again = reopen(&fd, OFlag::O_RDWR);
        let first = backings.open(fd.try_clone().unwrap(), PAGE, true).unwrap();
        assert_eq!(
            first.len(),
            4 * PAGE,
            "all of the file, not only what was needed"
        );
        let second = backings.open(again, 4 * PAGE, true).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let third = backings.open(fd, PAGE, false).unwrap();
        assert!(!Arc::ptr_eq(&first, &third) && !third.writable());
    }

    #[test]
    fn a_file_that_has_grown_is_mapped_anew_when_more_is_needed() {
        let (fd, mut backings) = (file(1), backings());
        let short = backings.open(fd.try_clone().unwrap(), PAGE, true).unwrap();
        unistd::ftruncate(&fd, 3 * PAGE as i64).unwrap();
        let same = backings.open(fd.try_clone().unwrap(), PAGE, true).unwrap();
        assert!(Arc::ptr_eq(&short, &same));
        let long = backings.open(fd, 2 * PAGE, true).unwrap();
        assert_eq!((short.len(), long.len()), (PAGE, 3 * PAGE));
    }

    #[test]
    fn a_file_too_small_for_its_map_is_refused() {
        let error = backings().open(file(2), 2 * PAGE + 1, true).unwrap_err();
        assert_eq!(
            error,
            MapError::TooSmall {
                size: 2 * PAGE,
                needed: 2 * PAGE + 1
            }
        );
    }

    #[test]
    fn a_descriptor_without_the_access_is_refused() {
        let fd = file(1);
        let open = |flags, writable| {
            backings()
                .open(reopen(&fd, flags), PAGE, writable)
                .map(|backing| backing.writable())
        };
        assert_eq!(open(OFlag::O_RDONLY, false), Ok(false));
        assert_eq!(
            open(OFlag::O_RDONLY, true),
            Err(MapError::AccessMode { writable: true })
        );
        assert_eq!(
            open(OFlag::O_WRONLY, true),
            Err(MapError::AccessMode { writable: true })
        );
        assert_eq!(
            open(OFlag::O_WRONLY, false),
            Err(MapError::AccessMode { writable: false })
        );
    }

    #[test]
    fn what_is_no_file_in_memory_is_refused() {
        let on_disk = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let folder = std::fs::File::open("/dev/shm").unwrap();
        let pipe = unistd::pipe().unwrap().0;
        for stranger in [on_disk.into(), folder.into(), pipe] {
            let refused = backings().open(stranger, 0, false).unwrap_err();
            assert_eq!(refused, MapError::FileKind);
        }
        let in_memory = tempfile::tempfile_in("/dev/shm").unwrap();
        in_memory.set_len(PAGE).unwrap();
        assert!(backings().open(in_memory, PAGE, true).is_ok());
    }

    #[test]
    fn any_file_is_taken_where_the_operator_allows_it() {
        let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut backings = Backings::new(MemoryPolicy::AnyFile);
        assert!(backings.open(program, PAGE, false).is_ok());
        let pipe = unistd::pipe().unwrap().0;
        let refused = backings.open(pipe, 0, false).unwrap_err();
        assert_eq!(refused, MapError::NotAFile);
    }

    #[test]
    fn a_mapping_is_collected_when_only_the_registry_has_it() {
        let (fd, mut backings) = (file(1), backings());
        let backing = backings.open(fd, PAGE, true).unwrap();
        backings.collect();
        assert_eq!(backings.open.len(), 1);
        drop(backing);
        backings.collect();
        assert_eq!(backings.open.len(), 0);
    }

    #[test]
    fn pages_that_nobody_here_has_used_are_on_no_node() {
        const PAGES: u64 = 64;
        let (fd, mut backings) = (file(PAGES), backings());
        assert!(backings.is_empty());
        // The guest's own use of them.
        let pages = vec![1; (PAGES * PAGE) as usize];
        nix::sys::uio::pwrite(&fd, &pages, 0).unwrap();
        let backing = backings.open(fd, PAGES * PAGE, true).unwrap();
        assert!(!backings.is_empty());
        assert_eq!(backings.pages_by_node().count(), 0);
        let advice = nix::sys::mman::MmapAdvise::MADV_POPULATE_WRITE;
        backing.map.advise(advice).unwrap();
        assert_eq!(backings.pages_by_node().count() as u64, PAGES);
    }

    #[test]
    fn files_end_at_their_limit_and_unused_ones_make_room() {
        let mut backings = backings();
        let mut used: Vec<_> = (0..BACKINGS_MAX)
            .map(|_| backings.open(file(1), PAGE, true).unwrap())
            .collect();
        let limit = MapError::TooMany {
            limit: BACKINGS_MAX,
        };
        assert_eq!(backings.open(file(1), PAGE, true).unwrap_err(), limit);
        used.pop();
        assert!(backings.open(file(1), PAGE, true).is_ok());
    }

    #[test]
    fn a_file_of_monstrous_size_is_mapped_as_far_as_needed() {
        let fd = file(0);
        unistd::ftruncate(&fd, 1 << 60).unwrap();
        let mut backings = backings();
        let backing = backings
            .open(fd.try_clone().unwrap(), 3 * PAGE, true)
            .unwrap();
        assert_eq!(backing.len(), 3 * PAGE);
        let limit = BACKINGS_BYTES_MAX - 3 * PAGE;
        let refused = MapError::TooLarge {
            needed: 1 << 50,
            limit,
        };
        assert_eq!(backings.open(fd, 1 << 50, true).unwrap_err(), refused);
    }

    #[test]
    fn a_long_mapping_is_aligned_for_huge_pages() {
        for _ in 0..4 {
            let (backing, _) = Backing::memfd("test", 6 << 20, PageKind::Normal).unwrap();
            assert_eq!(backing.address(0) as usize % HUGE_PAGE_BYTES, 0);
        }
    }
}

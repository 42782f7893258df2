//! What keeps a file that shrinks from killing the process.
//!
//! A client can truncate the file that its guest's memory is in. The next access of ours past the
//! new end raises SIGBUS. The handler finds the mapping by the address, replaces *all* of it with
//! private zeroes and marks it bad: the access goes on and reads zero, and the owner of the mapping
//! sees the mark and gives the guest's device up. Every other mapping stays as it is.
#![allow(unsafe_code)] // Signal handling: sigaction, and mmap from within the handler.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::{mem, ptr};

use super::MapError;

/// How many mappings of files the process can have at one time. The handler can neither allocate
/// nor lock, so its table is a fixed array.
pub const MAPPINGS_MAX: usize = 4096;

/// One mapping, as the handler looks it up. `start` is 0 when free, [`TAKEN`] while it is filled.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    bad: AtomicBool,
}

/// No mapping starts at this address.
const TAKEN: usize = 1;

static SLOTS: [Slot; MAPPINGS_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        bad: AtomicBool::new(false),
    }
}; MAPPINGS_MAX];

/// How many faults were turned into zeroes since the start: nearly always 0, so that nobody has to
/// look at each mapping to know that none is bad.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

/// A mapping's entry in the handler's table, freed when dropped. It must be dropped before the
/// range is unmapped.
#[derive(Debug)]
pub(super) struct Guard {
    slot: usize,
}

impl Guard {
    /// Enters a mapped range.
    pub(super) fn new(start: NonNull<u8>, len: usize) -> Result<Guard, MapError> {
        let free = |slot: &Slot| {
            slot.start
                .compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        let slot = SLOTS.iter().position(free).ok_or(MapError::TooMany {
            limit: MAPPINGS_MAX,
        })?;
        SLOTS[slot].bad.store(false, Ordering::Relaxed);
        SLOTS[slot].len.store(len, Ordering::Relaxed);
        // Release: the handler that sees the start (Acquire in `Slot::range`) sees the length too.
        SLOTS[slot]
            .start
            .store(start.as_ptr() as usize, Ordering::Release);
        Ok(Guard { slot })
    }

    /// Whether an access has failed: the range holds zeroes of ours now, no longer the file.
    pub(super) fn bad(&self) -> bool {
        SLOTS[self.slot].bad.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SLOTS[self.slot].start.store(0, Ordering::Release);
    }
}

/// Whether any access has failed since the process began. Whoever has read zeroes of a failed
/// access before sees it here.
#[inline]
pub(super) fn any_fault() -> bool {
    // What was read from the mapping before comes first. The partner is the handler, which counts
    // and marks before it replaces.
    fence(Ordering::Acquire);
    FAULTS.load(Ordering::Acquire) != 0
}

impl Slot {
    /// The range, if there is one and nobody changed it while it was looked at.
    fn range(&self) -> Option<(usize, usize)> {
        let start = self.start.load(Ordering::Acquire);
        let len = self.len.load(Ordering::Relaxed);
        // Acquire fence: a length stored for another start comes with a start that differs below.
        fence(Ordering::Acquire);
        let unchanged = self.start.load(Ordering::Relaxed) == start;
        (start > TAKEN && unchanged).then_some((start, len))
    }
}

/// Makes SIGBUS in a mapped file harmless, once for the process and before any client is served.
/// A SIGBUS anywhere else still ends the process.
pub fn install_sigbus_handler() {
    // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is complete, and the handler does only what is async-signal-safe. The call
    // cannot fail for this signal.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
}

extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, and for SIGBUS it has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    // SAFETY: errno is a plain word of this thread; what we interrupted may be about to read it.
    let errno = unsafe { *libc::__errno_location() };
    if !replace_with_zeroes(address) {
        // Not ours. With the default action restored, the access faults again and ends the process.
        // SAFETY: an all-zero sigaction is SIG_DFL; sigaction is async-signal-safe.
        unsafe {
            let action: libc::sigaction = mem::zeroed();
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Replaces the mapping that holds `address`. False when there is none, or the kernel refuses. Only
/// atomics and mmap: this runs in a signal handler.
fn replace_with_zeroes(address: usize) -> bool {
    let mut found = false;
    for slot in &SLOTS {
        let Some((start, len)) = slot.range() else {
            continue;
        };
        if address.wrapping_sub(start) >= len {
            continue;
        }
        // Release, and before the zeroes are there: whoever has read one of them and then looks for
        // the mark (Acquire in `any_fault` and `bad`) finds it.
        slot.bad.store(true, Ordering::Release);
        FAULTS.fetch_add(1, Ordering::Release);
        // SAFETY: the range is a live mapping: the access that faulted is made under a lease on it.
        // Its bytes belong to a guest, who made them fail; nothing of ours is kept there.
        let mapped = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        found = true;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nix::unistd;

    use crate::memory::{
        Backing, GuestMemory, Iova, MemoryRegion, PageKind, Protection, install_sigbus_handler,
    };

    const SIZE: u64 = 1 << 20;

    fn map(memory: &mut GuestMemory, backing: &Arc<Backing>, at: u64) {
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(Arc::clone(backing), 0, Iova(at), SIZE, protection);
        memory.map(region.unwrap()).unwrap();
        memory.write(Iova(at), &[7; SIZE as usize]).unwrap();
    }

    #[test]
    fn a_file_that_shrinks_reads_zero_is_bad_and_leaves_others_alone() {
        install_sigbus_handler();
        let (shrinks, fd) = Backing::memfd("shrinks", SIZE, PageKind::Normal).unwrap();
        let (stays, _) = Backing::memfd("stays", SIZE, PageKind::Normal).unwrap();
        let (mut memory, mut other) = (GuestMemory::new(), GuestMemory::new());
        map(&mut memory, &shrinks, 0);
        map(&mut other, &stays, 0);
        assert!(!shrinks.bad() && !memory.any_bad());
        unistd::ftruncate(&fd, 4096).unwrap();
        assert!(!shrinks.bad(), "nobody has looked yet");

        let mut byte = [1];
        memory.read(Iova(SIZE - 1), &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert!(shrinks.bad() && memory.any_bad());
        memory.read(Iova(0), &mut byte).unwrap();
        assert_eq!(byte, [0], "all of it is zeroes now, not a part");
        memory.write(Iova(SIZE - 4), &[1; 4]).unwrap();
        assert!(!stays.bad() && !other.any_bad());
        other.read(Iova(SIZE - 1), &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }
}

//! Calling for memory before it is needed.
#![allow(unsafe_code)] // The instructions for it.

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// Brings the cache line of an address near. Any address is fine.
#[inline]
pub(super) fn line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and changes nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// As [`line()`], not nearer than the cache of the second level, which has room for more.
#[inline]
pub(super) fn line_to_second_level(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `line`.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `line`.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// How many bytes of what will be copied are worth calling for. AMD's cores (measured: Zen 4) take
/// a page at once into the second level; others (a Xeon) do better with what shows them the
/// direction.
pub(super) fn bytes_of_a_copy() -> usize {
    if is_amd() {
        64 * LINE_BYTES
    } else {
        4 * LINE_BYTES
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "newer compilers know that it is safe")]
fn is_amd() -> bool {
    // SAFETY: every x86_64 has it.
    let vendor = unsafe { std::arch::x86_64::__cpuid(0) };
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes) == [*b"Auth", *b"enti", *b"cAMD"]
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}

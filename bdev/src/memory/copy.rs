//! Bytes between the memory of a request and memory of ours.
//!
//! All of it is by raw pointer, in the order of the segments, and never more than the shorter side
//! has. Segments that discard take their share of the length and are skipped.
#![allow(unsafe_code)] // Raw copies: this is the file for them.

use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

use super::{IoVecs, prefetch};

/// What a compare copies at a time: guest memory can change, so it is copied before it is judged.
const COMPARE_BYTES: usize = 4096;

/// Copies `data` into the request's memory, starting `offset` bytes into it. Returns how many bytes
/// were copied or discarded.
pub fn to_iovecs(data: &[u8], iovecs: &IoVecs, offset: u64) -> usize {
    // SAFETY: `data` is valid for its length.
    unsafe { raw_to_iovecs(data.as_ptr(), data.len(), iovecs, offset) }
}

/// Copies the request's memory into `data`, starting `offset` bytes into it. Where a segment
/// discards `data` is left as it is. Returns how many bytes were copied or skipped.
pub fn from_iovecs(iovecs: &IoVecs, offset: u64, data: &mut [u8]) -> usize {
    // SAFETY: `data` is valid for its length, and ours alone.
    unsafe { raw_from_iovecs(iovecs, offset, data.as_mut_ptr(), data.len()) }
}

/// Whether the request's memory, from `offset` bytes into it, holds exactly `data`. Where a segment
/// discards, nothing is equal.
#[must_use]
pub fn equal(iovecs: &IoVecs, offset: u64, data: &[u8]) -> bool {
    // SAFETY: `data` is valid for its length.
    unsafe { raw_equal(iovecs, offset, data.as_ptr(), data.len()) }
}

/// Fills the request's memory with zeroes.
pub fn zero(iovecs: &IoVecs) {
    for segment in iovecs
        .segments()
        .iter()
        .filter(|segment| !segment.is_discard())
    {
        // SAFETY: the segment is mapped and was checked for the access; nobody has a reference to
        // it.
        unsafe { ptr::write_bytes(segment.as_ptr(), 0, segment.len()) };
    }
}

/// Brings the first line of each segment near, of the first few.
pub fn prefetch(iovecs: &IoVecs) {
    for segment in iovecs.segments().iter().take(4) {
        prefetch::line(segment.as_ptr());
    }
}

/// As [`to_iovecs`], from memory that is not borrowed.
///
/// # Safety
///
/// `data` is readable for `len` bytes, and is no guest memory.
#[inline]
pub(super) unsafe fn raw_to_iovecs(
    data: *const u8,
    len: usize,
    iovecs: &IoVecs,
    offset: u64,
) -> usize {
    for_each_piece(iovecs, offset, len, |segment, at, len| {
        if !segment.is_null() {
            // SAFETY: the piece lies in a segment, which is mapped and was checked for the access,
            // and `at + len` is at most the length of `data`. One is guest memory and the other is
            // not.
            unsafe { bytes(data.add(at), segment, len) };
        }
        true
    })
}

/// As [`from_iovecs`], into memory that is not borrowed.
///
/// # Safety
///
/// `data` is writable for `len` bytes, and is no guest memory.
pub(super) unsafe fn raw_from_iovecs(
    iovecs: &IoVecs,
    offset: u64,
    data: *mut u8,
    len: usize,
) -> usize {
    for_each_piece(iovecs, offset, len, |segment, at, len| {
        if !segment.is_null() {
            // SAFETY: as in `raw_to_iovecs`.
            unsafe { bytes(segment, data.add(at), len) };
        }
        true
    })
}

/// As [`raw_from_iovecs`], past the caches: the lines of `data` are not read before they are
/// overwritten, and nothing else loses its place to them. What was written is in no order with
/// later stores until [`drain`].
///
/// # Safety
///
/// As for [`raw_from_iovecs`].
#[inline]
pub(super) unsafe fn raw_from_iovecs_past_caches(
    iovecs: &IoVecs,
    data: *mut u8,
    len: usize,
) -> usize {
    for_each_piece(iovecs, 0, len, |segment, at, len| {
        if !segment.is_null() {
            // SAFETY: as in `raw_to_iovecs`.
            unsafe { bytes_past_caches(segment, data.add(at), len) };
        }
        true
    })
}

/// Orders what was written past the caches before whatever is stored next.
#[inline]
pub(super) fn drain() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 has it, and it does nothing but wait.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// As [`equal`], with memory that is not borrowed.
///
/// # Safety
///
/// `data` is readable for `len` bytes, and is no guest memory.
pub(super) unsafe fn raw_equal(iovecs: &IoVecs, offset: u64, data: *const u8, len: usize) -> bool {
    let compared = for_each_piece(iovecs, offset, len, |segment, at, len| {
        // SAFETY: as in `raw_to_iovecs`.
        !segment.is_null() && unsafe { piece_equal(segment, data.add(at), len) }
    });
    compared == len
}

/// # Safety
///
/// Both are readable for `len` bytes.
unsafe fn piece_equal(guest: *const u8, data: *const u8, len: usize) -> bool {
    let mut ours = [0; COMPARE_BYTES];
    let mut theirs = [0; COMPARE_BYTES];
    (0..len).step_by(COMPARE_BYTES).all(|at| {
        let part = COMPARE_BYTES.min(len - at);
        // SAFETY: `at + part` is at most `len`, and both arrays have `part` bytes.
        unsafe {
            bytes(guest.add(at), theirs.as_mut_ptr(), part);
            bytes(data.add(at), ours.as_mut_ptr(), part);
        }
        ours[..part] == theirs[..part]
    })
}

/// Calls `each(address in the segment, position in the data, length)` for the pieces of `len` bytes
/// that start `offset` bytes into the request, until it returns false. Returns the length of those
/// for which it returned true.
#[inline]
fn for_each_piece(
    iovecs: &IoVecs,
    offset: u64,
    len: usize,
    mut each: impl FnMut(*mut u8, usize, usize) -> bool,
) -> usize {
    let mut skip = offset;
    let mut done = 0;
    for segment in iovecs.segments() {
        if done == len {
            break;
        }
        let size = segment.len();
        if skip >= size as u64 {
            skip -= size as u64;
            continue;
        }
        let start = skip as usize;
        skip = 0;
        let part = (size - start).min(len - done);
        let address = segment.as_ptr();
        let address = if segment.is_discard() {
            address
        } else {
            address.wrapping_add(start)
        };
        if !each(address, done, part) {
            break;
        }
        done += part;
    }
    done
}

/// Copies `len` bytes, of which one side may be changed by a guest meanwhile. The fence keeps the
/// compiler from going back to the source for what it finds in the copy.
///
/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes, they do not overlap, and nobody has a
/// reference to either.
#[inline]
pub(super) unsafe fn bytes(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: promised by the caller.
    unsafe { ptr::copy_nonoverlapping(from, to, len) };
    compiler_fence(Ordering::SeqCst);
}

/// As [`bytes`], past the caches where that is quicker: whole lines of the destination.
///
/// # Safety
///
/// As for [`bytes`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn bytes_past_caches(from: *const u8, to: *mut u8, len: usize) {
    use super::prefetch::LINE_BYTES;
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    if len % LINE_BYTES != 0 || to.addr() % LINE_BYTES != 0 {
        // SAFETY: promised by the caller.
        return unsafe { bytes(from, to, len) };
    }
    for line in (0..len).step_by(LINE_BYTES) {
        // SAFETY: the line lies within both, and `to` is aligned to lines.
        unsafe {
            let from = from.add(line).cast::<__m128i>();
            let to = to.add(line).cast::<__m128i>();
            let words: [__m128i; 4] = std::array::from_fn(|n| _mm_loadu_si128(from.add(n)));
            for (n, word) in words.into_iter().enumerate() {
                _mm_stream_si128(to.add(n), word);
            }
        }
    }
    compiler_fence(Ordering::SeqCst);
}

/// Other machines copy as always.
///
/// # Safety
///
/// As for [`bytes`].
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn bytes_past_caches(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: promised by the caller.
    unsafe { bytes(from, to, len) };
}

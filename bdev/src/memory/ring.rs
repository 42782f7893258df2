//! A queue in guest memory.
#![allow(unsafe_code)] // Atomic words in guest memory.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::guest::{Mapping, Span, Spans};
use super::{Access, MemoryError, prefetch};

/// Entries of a queue in guest memory, read and written in words of 8 bytes, each of them whole. An
/// entry has `WORDS` words, a power of two. It holds a lease: its memory stays mapped as long as it
/// lives, even if its region was removed. An index past the end wraps, a word past the end of an
/// entry wraps within it. Not `Send`.
#[derive(Debug)]
pub struct GuestRing<const WORDS: usize> {
    first: Piece,
    /// What lies in other regions, or elsewhere in the same file.
    more: Vec<Piece>,
    entries: u32,
    writable: bool,
}

/// Entries that follow one another in our address space.
#[derive(Debug)]
struct Piece {
    address: *mut u8,
    entries: u32,
    mapping: Rc<Mapping>,
}

impl Piece {
    #[inline]
    fn entry<const WORDS: usize>(&self, index: u32) -> *mut u8 {
        let offset = index as usize * GuestRing::<WORDS>::ENTRY_BYTES;
        self.address.wrapping_add(offset)
    }
}

impl<const WORDS: usize> GuestRing<WORDS> {
    /// Bytes of an entry.
    pub(super) const ENTRY_BYTES: usize = {
        assert!(WORDS.is_power_of_two());
        8 * WORDS
    };

    /// The spans start at a multiple of an entry's size and have `entries` entries together.
    /// Regions consist of whole pages, so no entry, and no word, is cut between two of them.
    pub(super) fn new(
        spans: Spans<'_>,
        entries: u32,
        access: Access,
    ) -> Result<GuestRing<WORDS>, MemoryError> {
        let mut pieces = Vec::new();
        for span in spans {
            let Span {
                mapping,
                address,
                len,
            } = span?;
            let entries = (len / Self::ENTRY_BYTES) as u32;
            pieces.push(Piece {
                address,
                entries,
                mapping: Rc::clone(mapping),
            });
        }
        if pieces.is_empty() {
            return Err(MemoryError::Misaligned);
        }
        let first = pieces.remove(0);
        Ok(GuestRing {
            first,
            more: pieces,
            entries,
            writable: access == Access::Write,
        })
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Reads a word of an entry, in no order with anything else.
    #[must_use]
    #[inline]
    pub fn load(&self, index: u32, word: usize) -> u64 {
        self.word(index, word).load(Ordering::Relaxed)
    }

    /// Reads an entry, each word once and in no order with anything else.
    #[must_use]
    #[inline]
    pub fn load_entry(&self, index: u32) -> [u64; WORDS] {
        let entry = self.entry(index).cast::<u64>();
        std::array::from_fn(|word| {
            // SAFETY: as in `word`.
            unsafe { AtomicU64::from_ptr(entry.wrapping_add(word)) }.load(Ordering::Relaxed)
        })
    }

    /// Reads a word of an entry before anything that follows in program order. Its partner is the
    /// guest's store of that word, after the others.
    #[must_use]
    #[inline]
    pub fn load_acquire(&self, index: u32, word: usize) -> u64 {
        self.word(index, word).load(Ordering::Acquire)
    }

    /// Writes a word of an entry, in no order with anything else. A ring made for
    /// [`Access::Read`] is left as it is.
    #[inline]
    pub fn store(&self, index: u32, word: usize, value: u64) {
        if self.writable {
            self.word(index, word).store(value, Ordering::Relaxed);
        }
    }

    /// Writes a word of an entry after everything before it in program order. Its partner is the
    /// guest's load of that word, before the others. As [`store`](Self::store) otherwise.
    #[inline]
    pub fn store_release(&self, index: u32, word: usize, value: u64) {
        if self.writable {
            self.word(index, word).store(value, Ordering::Release);
        }
    }

    /// Brings an entry near.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        prefetch::line(self.entry(index));
    }

    /// Whether a region of it was removed: the queue has to be parked and the ring dropped.
    #[must_use]
    #[inline]
    pub fn retired(&self) -> bool {
        self.first.mapping.retired() || self.more.iter().any(|piece| piece.mapping.retired())
    }

    #[inline]
    fn word(&self, index: u32, word: usize) -> &AtomicU64 {
        let address = self.entry(index).wrapping_add(word % WORDS * 8);
        // SAFETY: the word lies within an entry, which lies within a piece; the piece is mapped
        // while we hold its lease, and is aligned to the entry's size of 8 bytes at least. Whoever
        // else accesses it, in this process, does so as an atomic or by raw copy.
        unsafe { AtomicU64::from_ptr(address.cast()) }
    }

    #[inline]
    fn entry(&self, index: u32) -> *mut u8 {
        if index < self.first.entries {
            return self.first.entry::<WORDS>(index);
        }
        self.entry_elsewhere(index)
    }

    #[cold]
    fn entry_elsewhere(&self, index: u32) -> *mut u8 {
        let mut index = index % self.entries;
        for piece in std::iter::once(&self.first).chain(&self.more) {
            if index < piece.entries {
                return piece.entry::<WORDS>(index);
            }
            index -= piece.entries;
        }
        // Not reached: the pieces have `entries` entries together. The first entry is in bounds.
        self.first.address
    }
}

//! Looking at many shared words at one time.
#![allow(unsafe_code)] // Loads of several words by one instruction.

use std::sync::atomic::AtomicU32;

use super::SharedSlice;

/// How many pairs are looked at together: their first words fill a cache line.
const TOGETHER: usize = 16;

/// The first words of some pairs as they were seen, to be compared with what they are now.
#[derive(Debug)]
pub struct Glance {
    pairs: SharedSlice<[AtomicU32; 2]>,
    seen: Box<[Seen]>,
}

/// What was seen of pairs that are looked at together, and which bits of it count: none of pairs
/// that nobody asked about.
#[derive(Debug, Default)]
struct Seen {
    words: Words,
    masks: Words,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Words([u32; TOGETHER]);

impl Glance {
    /// See [`new`](Self::new).
    pub const PAIRS_MULTIPLE: usize = TOGETHER;

    /// What was `seen` of the first pairs, each with a mask of the bits that count. There have to
    /// be pairs up to a multiple of [`PAIRS_MULTIPLE`](Self::PAIRS_MULTIPLE); None otherwise.
    #[must_use]
    pub fn new(pairs: SharedSlice<[AtomicU32; 2]>, seen: &[(u32, u32)]) -> Option<Glance> {
        let seen: Box<[Seen]> = seen.chunks(TOGETHER).map(Seen::of).collect();
        (seen.len() * TOGETHER <= pairs.len()).then_some(Glance { pairs, seen })
    }

    /// Whether a word differs from what was seen of it, in the bits that count. One that is stored
    /// meanwhile is what it was or what it will be.
    #[must_use]
    #[inline]
    pub fn differs(&self) -> bool {
        let pairs = self.pairs.chunks_exact(TOGETHER).zip(&self.seen);
        bits::is_any(pairs.map(|(pairs, seen)| bits::differing(pairs, seen)))
    }
}

impl Seen {
    fn of(some: &[(u32, u32)]) -> Seen {
        let mut seen = Seen::default();
        for (at, &(word, mask)) in some.iter().enumerate() {
            (seen.words.0[at], seen.masks.0[at]) = (word, mask);
        }
        seen
    }
}

/// Four words at a time.
#[cfg(target_arch = "x86_64")]
mod bits {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_or_si128,
        _mm_setzero_si128, _mm_xor_si128,
    };
    use std::sync::atomic::AtomicU32;

    use super::{Seen, TOGETHER, Words};

    const FOUR: usize = 4;

    /// The bits of some first word that differ.
    #[inline]
    pub(super) fn differing(pairs: &[[AtomicU32; 2]], seen: &Seen) -> __m128i {
        let fours = pairs.chunks_exact(FOUR).zip(0..TOGETHER / FOUR);
        let differing = fours.map(|(pairs, at)| {
            let (words, masks) = (four(&seen.words, at), four(&seen.masks, at));
            // SAFETY: `pairs` are four; every x86_64 has the instructions.
            unsafe { _mm_and_si128(_mm_xor_si128(first_words(pairs.as_ptr()), words), masks) }
        });
        differing.fold(none(), or)
    }

    #[inline]
    pub(super) fn is_any(bits: impl Iterator<Item = __m128i>) -> bool {
        let any = bits.fold(none(), or);
        // SAFETY: as above.
        unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(any, none())) != 0xffff }
    }

    #[inline]
    fn none() -> __m128i {
        // SAFETY: as above.
        unsafe { _mm_setzero_si128() }
    }

    #[inline]
    fn or(one: __m128i, other: __m128i) -> __m128i {
        // SAFETY: as above.
        unsafe { _mm_or_si128(one, other) }
    }

    #[inline]
    fn four(words: &Words, at: usize) -> __m128i {
        let four = words.0[FOUR * at..][..FOUR].as_ptr();
        // SAFETY: there are four, and four are aligned, as all of them are.
        unsafe { _mm_load_si128(four.cast()) }
    }

    /// The first words of four pairs. Loaded by assembly, since others store them: no order is
    /// asked for, and each word is aligned, so that it is never seen in halves.
    ///
    /// # Safety
    ///
    /// There are four pairs.
    #[inline]
    unsafe fn first_words(pairs: *const [AtomicU32; 2]) -> __m128i {
        let words;
        // SAFETY: reads the four pairs and touches nothing else.
        unsafe {
            asm!(
                "movups {words}, [{pairs}]",
                "movups {more}, [{pairs} + 16]",
                "shufps {words}, {more}, 0x88",
                pairs = in(reg) pairs,
                words = out(xmm_reg) words,
                more = out(xmm_reg) _,
                options(nostack, readonly, preserves_flags),
            );
        }
        words
    }
}

/// A word at a time.
#[cfg(not(target_arch = "x86_64"))]
mod bits {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use super::Seen;

    /// The bits of some first word that differ.
    #[inline]
    pub(super) fn differing(pairs: &[[AtomicU32; 2]], seen: &Seen) -> u32 {
        let words = seen.words.0.iter().zip(&seen.masks.0);
        let differing = pairs
            .iter()
            .zip(words)
            .map(|([now, _], (word, mask))| (now.load(Relaxed) ^ word) & mask);
        differing.fold(0, |any, bits| any | bits)
    }

    #[inline]
    pub(super) fn is_any(bits: impl Iterator<Item = u32>) -> bool {
        bits.fold(0, |any, bits| any | bits) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::memory::{Seal, SharedPages};

    #[test]
    fn each_word_is_seen_in_the_bits_that_count_and_no_other_is() {
        let pages = SharedPages::new("test", 4096, Seal::Doorbells).unwrap();
        let pairs = || pages.some_pairs(1, 64).unwrap();
        for (count, mask) in (0..=48).flat_map(|n| [(n, u32::MAX), (n, 0xffff)]) {
            let mask = |n: u32| if n % 3 == 2 { mask } else { u32::MAX };
            let seen: Vec<_> = (0..count).map(|n| (100 + n, mask(n))).collect();
            for (pair, (word, _)) in pairs().iter().zip(&seen) {
                pair[0].store(*word, Relaxed);
            }
            let glance = Glance::new(pairs(), &seen).unwrap();
            assert!(!glance.differs());
            for (at, pair) in pairs().iter().enumerate() {
                let seen = seen.get(at);
                let differs = |bit: u32| {
                    let was = pair[0].fetch_xor(bit, Relaxed);
                    let differs = glance.differs();
                    pair[0].store(was, Relaxed);
                    differs
                };
                assert_eq!(differs(1), seen.is_some(), "{at} of {count}");
                assert_eq!(
                    differs(1 << 31),
                    seen.is_some_and(|(_, mask)| *mask == u32::MAX)
                );
                pair[1].fetch_add(1, Relaxed);
                assert!(!glance.differs());
            }
        }
    }

    #[test]
    fn pairs_that_are_not_there_are_not_looked_at() {
        let pages = SharedPages::new("test", 4096, Seal::Doorbells).unwrap();
        let glance = |pairs, seen: &[(u32, u32)]| {
            Glance::new(Arc::clone(&pages).some_pairs(0, pairs).unwrap(), seen).is_some()
        };
        assert!(glance(0, &[]) && glance(16, &[(0, 0)]) && glance(16, &[(0, 0); 16]));
        assert!(!glance(15, &[(0, 0)]) && !glance(16, &[(0, 0); 17]));
    }
}

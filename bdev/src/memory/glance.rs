//! Looking at many shared words at one time.
#![allow(unsafe_code)] // Loads of several words by one instruction.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

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

    /// The place of the first of these of which a word differs from what was seen of it, in the
    /// bits that count. One that is stored meanwhile is what it was or what it will be.
    #[must_use]
    #[inline]
    pub fn first_that_differs<'a>(mut glances: impl Iterator<Item = &'a Glance>) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { avx2::first_that_differs(glances) };
        }
        glances.position(Glance::differs)
    }

    /// A word at a time.
    #[inline]
    fn differs(&self) -> bool {
        let differing = self.parts().flat_map(|(pairs, seen)| {
            pairs.iter().enumerate().map(|(pair, [now, _])| {
                let place = place_of(pair);
                (now.load(Relaxed) ^ seen.words.0[place]) & seen.masks.0[place]
            })
        });
        differing.fold(0, |any, bits| any | bits) != 0
    }

    /// The pairs, and what was seen of them.
    #[inline]
    fn parts(&self) -> impl Iterator<Item = (&[[AtomicU32; 2]], &Seen)> {
        self.pairs.chunks_exact(TOGETHER).zip(&self.seen)
    }
}

impl Seen {
    fn of(some: &[(u32, u32)]) -> Seen {
        let mut seen = Seen::default();
        for (at, &(word, mask)) in some.iter().enumerate() {
            let place = place_of(at);
            (seen.words.0[place], seen.masks.0[place]) = (word, mask);
        }
        seen
    }
}

/// Where the word of a pair is among those that are looked at together: of eight in a row in the
/// order 0 1 4 5 2 3 6 7, as two loads of four pairs and one shuffle deliver them.
const fn place_of(pair: usize) -> usize {
    pair & !6 | (pair & 2) << 1 | (pair & 4) >> 1
}

/// Eight words at a time.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_load_si256, _mm256_or_si256, _mm256_setzero_si256,
        _mm256_testz_si256, _mm256_xor_si256,
    };
    use std::sync::atomic::AtomicU32;

    use super::{Glance, TOGETHER};

    const EIGHT: usize = 8;

    /// # Safety
    ///
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn first_that_differs<'a>(
        glances: impl Iterator<Item = &'a Glance>,
    ) -> Option<usize> {
        for (at, glance) in glances.enumerate() {
            // SAFETY: as for this function.
            if unsafe { differs(glance) } {
                return Some(at);
            }
        }
        None
    }

    /// # Safety
    ///
    /// The processor has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn differs(glance: &Glance) -> bool {
        // SAFETY: the processor has AVX2; from `first` on there are eight pairs, words and masks,
        // and eight words are aligned, as all of them are.
        unsafe {
            let mut differing = _mm256_setzero_si256();
            for (pairs, seen) in glance.parts() {
                for first in (0..TOGETHER).step_by(EIGHT) {
                    let now = first_words(pairs[first..][..EIGHT].as_ptr());
                    let words = _mm256_load_si256(seen.words.0[first..][..EIGHT].as_ptr().cast());
                    let masks = _mm256_load_si256(seen.masks.0[first..][..EIGHT].as_ptr().cast());
                    let bits = _mm256_and_si256(_mm256_xor_si256(now, words), masks);
                    differing = _mm256_or_si256(differing, bits);
                }
            }
            _mm256_testz_si256(differing, differing) == 0
        }
    }

    /// The first words of eight pairs, in the order of [`place_of`](super::place_of). Loaded by
    /// assembly, since others store them: no order is asked for, and each word is aligned, so that
    /// it is never seen in halves.
    ///
    /// # Safety
    ///
    /// There are eight pairs, and the processor has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn first_words(pairs: *const [AtomicU32; 2]) -> __m256i {
        let words;
        // SAFETY: reads the eight pairs and touches nothing else.
        unsafe {
            asm!(
                "vmovups {words}, [{pairs}]",
                "vshufps {words}, {words}, [{pairs} + 32], 0x88",
                pairs = in(reg) pairs,
                words = out(ymm_reg) words,
                options(nostack, readonly, preserves_flags),
            );
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::{Seal, SharedPages};

    /// In every way that there is on this processor.
    fn differs(glance: &Glance) -> bool {
        let differs = Glance::first_that_differs([glance].into_iter()).is_some();
        assert_eq!(glance.differs(), differs);
        differs
    }

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
            assert!(!differs(&glance));
            for (at, pair) in pairs().iter().enumerate() {
                let seen = seen.get(at);
                let differs_by = |bit: u32| {
                    let was = pair[0].fetch_xor(bit, Relaxed);
                    let differs = differs(&glance);
                    pair[0].store(was, Relaxed);
                    differs
                };
                assert_eq!(differs_by(1), seen.is_some(), "{at} of {count}");
                assert_eq!(
                    differs_by(1 << 31),
                    seen.is_some_and(|(_, mask)| *mask == u32::MAX)
                );
                pair[1].fetch_add(1, Relaxed);
                assert!(!differs(&glance));
            }
        }
    }

    #[test]
    fn the_first_of_several_is_told() {
        let pages = SharedPages::new("test", 4096, Seal::Doorbells).unwrap();
        let all = [0, 16, 48].map(|first| {
            let pairs = Arc::clone(&pages).some_pairs(first, 16).unwrap();
            Glance::new(pairs, &[(0, u32::MAX); 16]).unwrap()
        });
        let first = || Glance::first_that_differs(all.iter());
        assert_eq!(first(), None);
        pages.pairs()[40][0].store(1, Relaxed);
        assert_eq!(first(), None);
        pages.pairs()[63][0].store(1, Relaxed);
        assert_eq!(first(), Some(2));
        pages.pairs()[16][0].store(1, Relaxed);
        assert_eq!(first(), Some(1));
        assert_eq!(Glance::first_that_differs([].iter()), None);
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

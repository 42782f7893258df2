//! A random order of numbers that needs no table: a small Feistel network, walked along until it
//! comes back below the bound (Black and Rogaway, "Ciphers with Arbitrary Finite Domains").

use super::rng::{Rng, mix};

/// Four rounds of a good function look random (Luby and Rackoff).
const ROUNDS: usize = 4;

/// A one-to-one function from the numbers below a bound to the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Permutation {
    bound: u64,
    /// Bits of each half of a number; together the halves hold less than four times the bound.
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of this seed.
    pub(crate) fn new(bound: u64, seed: u64) -> Permutation {
        let bits = u64::BITS - bound.saturating_sub(1).leading_zeros();
        let mut rng = Rng::new(seed);
        Permutation {
            bound,
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| rng.next()),
        }
    }

    /// What comes at `position`, which has to be below the bound: otherwise this may not end.
    #[inline]
    pub(crate) fn at(&self, position: u64) -> u64 {
        debug_assert!(position < self.bound);
        let mut number = self.encipher(position);
        // The cycle that a number is on leads back to itself, and so below the bound.
        while number >= self.bound {
            number = self.encipher(number);
        }
        number
    }

    #[inline]
    fn encipher(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bound: u64, seed: u64) -> Vec<u64> {
        let permutation = Permutation::new(bound, seed);
        (0..bound)
            .map(|position| permutation.at(position))
            .collect()
    }

    #[test]
    fn the_cipher_is_one_to_one() {
        for bound in [1, 5, 1000, 70_000] {
            let permutation = Permutation::new(bound, 3);
            let domain = 1 << (2 * permutation.half_bits);
            assert!(
                (bound..=bound * 4).contains(&domain),
                "{domain} for {bound}"
            );
            let mut numbers: Vec<u64> = (0..domain).map(|n| permutation.encipher(n)).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..domain), "{bound}");
        }
    }

    #[test]
    fn every_number_below_the_bound_comes_once() {
        for bound in (1..70).chain([255, 256, 257, 1000, 4096, 65_535, 65_537]) {
            for seed in [0, 1, u64::MAX] {
                let mut numbers = all(bound, seed);
                numbers.sort_unstable();
                assert!(numbers.into_iter().eq(0..bound), "{bound} by {seed}");
            }
        }
    }

    #[test]
    fn the_order_looks_random_and_follows_from_the_seed() {
        let numbers = all(10_000, 1);
        assert_eq!(numbers, all(10_000, 1));
        assert_ne!(numbers, all(10_000, 2));
        // Half of all pairs of neighbours ascend, and one number in all stays where it was.
        let ascending = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4700..5300).contains(&ascending), "{ascending}");
        let fixed = numbers
            .iter()
            .zip(0..)
            .filter(|(number, at)| **number == *at);
        assert!(fixed.count() < 10);
        // A tenth of the way has come to a tenth of each tenth.
        let mut tenths = [0; 10];
        for number in &numbers[..1000] {
            tenths[(number / 1000) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (60..140).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn the_largest_bounds_work() {
        for bound in [u64::MAX, 1 << 63, (1 << 62) + 1] {
            let permutation = Permutation::new(bound, 7);
            let ends = [0, 1, bound / 2, bound - 1].map(|position| permutation.at(position));
            assert!(ends.iter().all(|number| *number < bound), "{ends:?}");
            assert_ne!(ends[0], ends[1]);
        }
    }
}

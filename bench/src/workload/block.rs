//! Self-describing blocks: what is written to be verified, and what can be told of what is read.
//!
//! A block consists of lines of 64 bytes. The first begins with a header: magic, seed, LBA,
//! generation, and a checksum of all other words of the block. Each line ends with its generation,
//! enciphered with seed, LBA and position; the rest is pseudo-random and follows from seed, LBA and
//! generation. So a block that is whole says which write it is of, and in one that is not whole
//! each line says so for itself.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::extent::Lba;
use super::rng::{Rng, mix};

/// Bytes of a line.
const LINE_BYTES: usize = 64;
/// Bytes of a word: everything is little endian.
const WORD_BYTES: usize = 8;
/// "bellwire" in ASCII.
const MAGIC: u64 = u64::from_le_bytes(*b"bellwire");
/// Where in the header the checksum is, behind magic, seed, LBA and generation.
const CHECKSUM_AT: usize = 4 * WORD_BYTES;
/// How many generations are told apart in a damaged block: what has more of them is garbage.
const GENERATIONS_MAX: usize = 8;

/// Counts the writes to a block, over all runs: never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) u64);

impl Generation {
    /// One later than any of an earlier run, unless it wrote to one block more than once in a
    /// microsecond on average.
    pub(super) fn of_now() -> Generation {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Generation(since.map_or(0, |since| since.as_micros() as u64))
    }
}

/// Which write a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) seed: u64,
    pub(crate) lba: Lba,
    pub(crate) generation: Generation,
}

/// What a block has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This write.
    Exactly(Generation),
    /// Some write.
    Written,
    /// Anything but a write of this generation or a later one: nothing was written here since.
    Before(Generation),
}

/// How a block is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All zeroes: never written, or the write was lost.
    Unwritten,
    /// The data of an earlier write: the last one was lost, or the read came before it.
    Stale { found: Generation },
    /// The data of a write that was not the last one here, and no earlier one either.
    Unexpected { found: Generation },
    /// The data of a write to another block.
    Misplaced { found: Lba },
    /// Data of a run with another seed.
    OtherSeed { found: u64 },
    /// The data of one write up to byte `at`, then that of another one, or none.
    Torn {
        at: usize,
        first: Generation,
        then: Option<Generation>,
    },
    /// Not what was written: byte `at` is the first that is wrong.
    Corrupt { at: usize, expected: u8, found: u8 },
}

/// What was read where, and should not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) lba: Lba,
    pub(crate) expected: Expected,
    pub(crate) kind: Kind,
}

/// Fills `block`, whole lines of it, with the data of a write.
pub(crate) fn encode(block: &mut [u8], stamp: Stamp) {
    let Stamp {
        seed,
        lba,
        generation,
    } = stamp;
    let mut filler = Rng::new(mix(seed ^ mix(lba.0 ^ mix(generation.0))));
    for (index, line) in block.chunks_exact_mut(LINE_BYTES).enumerate() {
        for word in line.chunks_exact_mut(WORD_BYTES) {
            word.copy_from_slice(&filler.next().to_le_bytes());
        }
        let mark = generation.0 ^ line_key(seed, lba, index);
        line[LINE_BYTES - WORD_BYTES..].copy_from_slice(&mark.to_le_bytes());
    }
    let header = [MAGIC, seed, lba.0, generation.0];
    for (place, word) in block.chunks_exact_mut(WORD_BYTES).zip(header) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let checksum = checksum(block).to_le_bytes();
    block[CHECKSUM_AT..CHECKSUM_AT + WORD_BYTES].copy_from_slice(&checksum);
}

/// Judges a block that was read from `lba`.
pub(crate) fn check(block: &[u8], seed: u64, lba: Lba, expected: Expected) -> Result<(), Mismatch> {
    let kind = match (Stamp::of(block), expected) {
        (Some(found), _) => judge(found, seed, lba, expected),
        (None, Expected::Before(_)) => None,
        (None, _) => Some(damage(block, seed, lba, expected)),
    };
    match kind {
        None => Ok(()),
        Some(kind) => Err(Mismatch {
            lba,
            expected,
            kind,
        }),
    }
}

impl Stamp {
    /// Which write a block is of, if it is whole.
    fn of(block: &[u8]) -> Option<Stamp> {
        let word = |n: usize| word(block, n * WORD_BYTES);
        let whole = word(0) == MAGIC && word(4) == checksum(block);
        whole.then(|| Stamp {
            seed: word(1),
            lba: Lba(word(2)),
            generation: Generation(word(3)),
        })
    }
}

/// Whether a whole block is the right one.
fn judge(stamp: Stamp, seed: u64, lba: Lba, expected: Expected) -> Option<Kind> {
    let found = stamp.generation;
    if let Expected::Before(limit) = expected {
        if stamp.seed != seed || found < limit {
            return None;
        }
    }
    if stamp.seed != seed {
        return Some(Kind::OtherSeed { found: stamp.seed });
    }
    if stamp.lba != lba {
        return Some(Kind::Misplaced { found: stamp.lba });
    }
    match expected {
        Expected::Exactly(generation) if found == generation => None,
        Expected::Exactly(generation) if found < generation => Some(Kind::Stale { found }),
        Expected::Written if found != Generation(0) => None,
        _ => Some(Kind::Unexpected { found }),
    }
}

/// What happened to a block that is not whole.
fn damage(block: &[u8], seed: u64, lba: Lba, expected: Expected) -> Kind {
    if is_zero(block) {
        return Kind::Unwritten;
    }
    let lines = Lines::examine(block, seed, lba);
    if let Some(torn) = lines.torn(block) {
        return torn;
    }
    let reference = match (lines.first_whole(), expected) {
        (Some(generation), _) | (None, Expected::Exactly(generation)) => generation,
        (None, _) => Generation(word(block, 3 * WORD_BYTES)),
    };
    let mut should = vec![0; block.len()];
    let stamp = Stamp {
        seed,
        lba,
        generation: reference,
    };
    encode(&mut should, stamp);
    let at = (0..block.len()).find(|at| block[*at] != should[*at]);
    let at = at.unwrap_or(0);
    Kind::Corrupt {
        at,
        expected: should[at],
        found: block[at],
    }
}

/// Of which generation each line of a block is; none for one that is damaged itself.
struct Lines(Vec<Option<Generation>>);

impl Lines {
    fn examine(block: &[u8], seed: u64, lba: Lba) -> Lines {
        let mut known: Vec<(Generation, Vec<u8>)> = Vec::new();
        let mut generation_of = |index: usize, line: &[u8]| {
            let mark = word(line, LINE_BYTES - WORD_BYTES);
            let generation = Generation(mark ^ line_key(seed, lba, index));
            if !known.iter().any(|(other, _)| *other == generation) {
                if known.len() == GENERATIONS_MAX {
                    return None;
                }
                let mut should = vec![0; block.len()];
                let stamp = Stamp {
                    seed,
                    lba,
                    generation,
                };
                encode(&mut should, stamp);
                known.push((generation, should));
            }
            let (_, should) = known.iter().find(|(other, _)| *other == generation)?;
            let start = index * LINE_BYTES;
            (should[start..start + LINE_BYTES] == *line).then_some(generation)
        };
        let lines = block.chunks_exact(LINE_BYTES).enumerate();
        Lines(lines.map(|(n, line)| generation_of(n, line)).collect())
    }

    fn first_whole(&self) -> Option<Generation> {
        self.0.iter().copied().flatten().next()
    }

    /// Whole lines of one write, then only whole lines, or only zeroes.
    fn torn(&self, block: &[u8]) -> Option<Kind> {
        let first = (*self.0.first()?)?;
        let line = self.0.iter().position(|line| *line != Some(first))?;
        let (at, then) = (line * LINE_BYTES, self.0[line]);
        let whole = self.0.iter().all(Option::is_some);
        (whole || is_zero(&block[at..])).then_some(Kind::Torn { at, first, then })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// What the generation at the end of a line is combined with.
fn line_key(seed: u64, lba: Lba, index: usize) -> u64 {
    mix(seed ^ mix(lba.0 ^ mix(!(index as u64))))
}

/// The word at a multiple of eight bytes.
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; WORD_BYTES];
    word.copy_from_slice(&bytes[at..at + WORD_BYTES]);
    u64::from_le_bytes(word)
}

/// A checksum of all words of a block but the checksum itself.
fn checksum(block: &[u8]) -> u64 {
    let (first, rest) = block.split_at(LINE_BYTES);
    let mut header = [0; LINE_BYTES];
    header.copy_from_slice(first);
    header[CHECKSUM_AT..CHECKSUM_AT + WORD_BYTES].fill(0);
    let lanes = absorb(absorb([1, 2, 3, 4], &header), rest);
    lanes.into_iter().fold(0, |sum, lane| mix(sum ^ lane))
}

/// Four lanes, so that one multiplication need not wait for the last. Each step is one-to-one in
/// the word: a change of one word always changes its lane.
fn absorb(mut lanes: [u64; 4], bytes: &[u8]) -> [u64; 4] {
    for words in bytes.chunks_exact(4 * WORD_BYTES) {
        for (lane, place) in lanes.iter_mut().zip(words.chunks_exact(WORD_BYTES)) {
            let mixed = (*lane ^ word(place, 0)).wrapping_mul(0x9fb2_1c65_1e98_df25);
            *lane = mixed.rotate_left(29);
        }
    }
    lanes
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.0)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Exactly(generation) => generation.fmt(f),
            Expected::Written => f.write_str("a write of an earlier run"),
            Expected::Before(_) => f.write_str("nothing of this run"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Unwritten => f.write_str("unwritten: all zeroes"),
            Kind::Stale { found } => write!(f, "stale: {found}"),
            Kind::Unexpected { found } => write!(f, "unexpected: {found}"),
            Kind::Misplaced { found } => write!(f, "misplaced: the data of LBA {}", found.0),
            Kind::OtherSeed { found } => write!(f, "of a run with another seed: {found}"),
            Kind::Torn { at, first, then } => {
                write!(f, "torn: {first} up to byte {at}, then ")?;
                match then {
                    Some(then) => then.fmt(f),
                    None => f.write_str("zeroes"),
                }
            }
            Kind::Corrupt {
                at,
                expected,
                found,
            } => write!(f, "corrupt: byte {at} is {found:#04x}, not {expected:#04x}"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            lba,
            expected,
            kind,
        } = self;
        write!(f, "LBA {}: expected {expected}, found {kind}", lba.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 77;
    const LBA: Lba = Lba(1234);
    const NOW: Generation = Generation(1000);

    fn block(seed: u64, lba: Lba, generation: u64) -> Vec<u8> {
        let mut block = vec![0; 4096];
        let generation = Generation(generation);
        let stamp = Stamp {
            seed,
            lba,
            generation,
        };
        encode(&mut block, stamp);
        block
    }

    fn written() -> Vec<u8> {
        block(SEED, LBA, NOW.0)
    }

    fn kind(block: &[u8], expected: Expected) -> Option<Kind> {
        check(block, SEED, LBA, expected).err().map(|mismatch| {
            assert_eq!((mismatch.lba, mismatch.expected), (LBA, expected));
            mismatch.kind
        })
    }

    #[test]
    fn a_block_that_is_whole_passes_in_every_size() {
        for size in [512, 1024, 4096, 65536] {
            let mut block = vec![0xff; size];
            let stamp = Stamp {
                seed: SEED,
                lba: LBA,
                generation: NOW,
            };
            encode(&mut block, stamp);
            assert_eq!(kind(&block, Expected::Exactly(NOW)), None);
            assert_eq!(kind(&block, Expected::Written), None);
        }
    }

    #[test]
    fn every_flipped_bit_is_seen_and_its_byte_named() {
        let good = written();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let corrupt = Kind::Corrupt {
                at,
                expected: good[at],
                found: bad[at],
            };
            for expected in [Expected::Exactly(NOW), Expected::Written] {
                assert_eq!(kind(&bad, expected), Some(corrupt), "byte {at}");
            }
        }
    }

    #[test]
    fn a_lost_write_shows_as_what_was_there_before() {
        let found = Generation(NOW.0 - 1);
        let stale = block(SEED, LBA, found.0);
        let expected = Expected::Exactly(NOW);
        assert_eq!(kind(&stale, expected), Some(Kind::Stale { found }));
        assert_eq!(kind(&[0; 512], expected), Some(Kind::Unwritten));
        assert_eq!(kind(&[0; 512], Expected::Written), Some(Kind::Unwritten));
    }

    #[test]
    fn a_write_that_should_not_be_there_yet_is_unexpected() {
        let found = Generation(NOW.0 + 1);
        let early = block(SEED, LBA, found.0);
        let unexpected = Some(Kind::Unexpected { found });
        assert_eq!(kind(&early, Expected::Exactly(NOW)), unexpected);
        let zero = block(SEED, LBA, 0);
        let found = Generation(0);
        let unexpected = Some(Kind::Unexpected { found });
        assert_eq!(kind(&zero, Expected::Written), unexpected);
    }

    #[test]
    fn data_of_another_block_or_another_run_is_told_as_such() {
        let found = Lba(99);
        let misplaced = block(SEED, found, NOW.0);
        for expected in [
            Expected::Exactly(NOW),
            Expected::Written,
            Expected::Before(NOW),
        ] {
            assert_eq!(kind(&misplaced, expected), Some(Kind::Misplaced { found }));
        }
        let other = block(SEED + 1, LBA, NOW.0);
        let other_seed = Some(Kind::OtherSeed { found: SEED + 1 });
        assert_eq!(kind(&other, Expected::Written), other_seed);
    }

    #[test]
    fn a_write_that_went_half_way_is_torn_at_the_line() {
        let (old, new) = (block(SEED, LBA, NOW.0 - 3), written());
        for at in [64, 512, 2048, 4032] {
            let torn = [&new[..at], &old[at..]].concat();
            let expected = Kind::Torn {
                at,
                first: NOW,
                then: Some(Generation(NOW.0 - 3)),
            };
            assert_eq!(kind(&torn, Expected::Exactly(NOW)), Some(expected));
            assert_eq!(kind(&torn, Expected::Written), Some(expected));
            let half = [&new[..at], &vec![0; 4096 - at]].concat();
            let expected = Kind::Torn {
                at,
                first: NOW,
                then: None,
            };
            assert_eq!(kind(&half, Expected::Exactly(NOW)), Some(expected));
        }
    }

    #[test]
    fn garbage_is_corrupt_from_its_first_byte() {
        let mut rng = Rng::new(1);
        let garbage: Vec<u8> = (0..4096).map(|_| rng.next() as u8 | 1).collect();
        for expected in [Expected::Exactly(NOW), Expected::Written] {
            let found = kind(&garbage, expected);
            assert!(
                matches!(found, Some(Kind::Corrupt { at: 0, .. })),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_block_not_written_in_this_run_may_hold_anything_that_is_older() {
        let start = Expected::Before(NOW);
        for older in [block(SEED, LBA, NOW.0 - 1), block(SEED + 1, LBA, NOW.0 + 5)] {
            assert_eq!(kind(&older, start), None);
        }
        assert_eq!(kind(&[0; 512], start), None);
        assert_eq!(kind(&[0x5a; 512], start), None);
        let unexpected = Some(Kind::Unexpected { found: NOW });
        assert_eq!(kind(&written(), start), unexpected);
    }

    #[test]
    fn a_mismatch_is_told_in_one_line() {
        let stale = block(SEED, LBA, NOW.0 - 1);
        let mismatch = check(&stale, SEED, LBA, Expected::Exactly(NOW)).expect_err("stale");
        let told = "LBA 1234: expected generation 1000, found stale: generation 999";
        assert_eq!(mismatch.to_string(), told);
    }
}

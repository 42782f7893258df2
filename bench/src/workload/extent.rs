//! Parts of a namespace, in pieces of one command each.

/// A logical block address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lba(pub(crate) u64);

/// The number of a command-sized piece of an [`Extent`], from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk(pub(crate) u64);

/// The size of a logical block: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockSize(u32);

/// The most blocks of one command: its zero-based count has 16 bits.
const COMMAND_BLOCKS_MAX: u64 = 1 << 16;

impl BlockSize {
    /// 2^`shift` bytes, from 512 bytes to 1 MiB.
    pub(crate) fn from_shift(shift: u8) -> Option<BlockSize> {
        (9..=20).contains(&shift).then(|| BlockSize(1 << shift))
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0.into()
    }
}

/// Consecutive chunks of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    first: Lba,
    chunks: u64,
    blocks_per_chunk: u32,
    block: BlockSize,
}

impl Extent {
    /// No chunks, of `chunk_bytes`, at the start of a namespace. None if that is not the size of a
    /// command.
    pub(crate) fn new(block: BlockSize, chunk_bytes: u64) -> Option<Extent> {
        let blocks = chunk_bytes / block.bytes();
        let whole = chunk_bytes % block.bytes() == 0;
        (whole && (1..=COMMAND_BLOCKS_MAX).contains(&blocks)).then_some(Extent {
            first: Lba(0),
            chunks: 0,
            blocks_per_chunk: blocks as u32,
            block,
        })
    }

    pub(crate) fn with_chunks(self, chunks: u64) -> Extent {
        Extent { chunks, ..self }
    }

    /// Parts that cover all chunks, and differ by one chunk at most.
    pub(crate) fn split(self, parts: u16) -> Vec<Extent> {
        let total = u128::from(self.chunks);
        let start = |part: u16| (total * u128::from(part) / u128::from(parts)) as u64;
        let part = |n| Extent {
            first: self.lba(Chunk(start(n))),
            ..self.with_chunks(start(n + 1) - start(n))
        };
        (0..parts).map(part).collect()
    }

    /// How many chunks.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The first block of a chunk.
    #[inline]
    pub(crate) fn lba(&self, chunk: Chunk) -> Lba {
        Lba(self.first.0 + chunk.0 * u64::from(self.blocks_per_chunk))
    }

    pub(crate) fn blocks_per_chunk(&self) -> u32 {
        self.blocks_per_chunk
    }

    pub(crate) fn block(&self) -> BlockSize {
        self.block
    }

    pub(crate) fn chunk_bytes(&self) -> usize {
        self.blocks_per_chunk as usize * self.block.0 as usize
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks * self.chunk_bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_one_another_and_cover_everything() {
        let block = BlockSize::from_shift(9).expect("a block size");
        let whole = Extent::new(block, 4096).expect("an extent");
        for (chunks, parts) in [(1, 1), (7, 2), (100, 3), (64, 64), (u64::MAX >> 12, 5)] {
            let split = whole.with_chunks(chunks).split(parts);
            let mut next = Lba(0);
            for part in &split {
                assert_eq!(part.lba(Chunk(0)), next);
                assert!(part.chunks() >= chunks / u64::from(parts));
                next = part.lba(Chunk(part.chunks()));
            }
            assert_eq!(next, Lba(chunks * 8), "{chunks} in {parts}");
        }
    }

    #[test]
    fn a_command_is_a_multiple_of_the_block_and_no_longer_than_its_count_can_say() {
        let block = BlockSize::from_shift(12).expect("a block size");
        assert!(Extent::new(block, 4096).is_some());
        assert!(Extent::new(block, 4096 << 16).is_some());
        for bytes in [0, 512, 4097, (4096 << 16) + 4096] {
            assert_eq!(Extent::new(block, bytes), None, "{bytes}");
        }
    }

    #[test]
    fn block_sizes_are_those_of_real_namespaces() {
        assert_eq!(BlockSize::from_shift(8), None);
        assert_eq!(BlockSize::from_shift(21), None);
        assert_eq!(BlockSize::from_shift(9).map(BlockSize::bytes), Some(512));
    }
}

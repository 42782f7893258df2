//! Scatter gather lists: the segment-wise data pointer (NVMe Base 2.0, 4.1.2).
//!
//! Data blocks, bit buckets, segments and last segments at any byte alignment. Descriptors are
//! copied once, a chunk at a time, and counted: a chain cannot go on for ever.

use bdev::memory::{GuestMemory, Iova};
use zerocopy::FromBytes;

use super::prp::DataError;
use crate::spec::{SglDescriptor, SglType, Status};

/// Most descriptors of one command, over all its segments.
pub const DESCRIPTORS_MAX: u32 = 4096;
const CHUNK: usize = 64;
/// Segments begin at a qword, unlike data (SGLS bits 1:0).
const SEGMENT_ALIGNMENT: u64 = 8;
const DESCRIPTOR_BYTES: usize = size_of::<SglDescriptor>();

/// A piece of the data that an SGL names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Guest memory: its address and length.
    Memory(Iova, u64),
    /// Bytes of a read that nobody wants: a bit bucket.
    Discard(u64),
}

/// Calls `piece` with each piece that the SGL beginning with `first` (the data pointer of the
/// command) names, until `len` bytes are covered. A list may cover more than that (SGLS bit 18).
///
/// # Errors
/// The SGL statuses of the specification, Data Transfer Error where a segment is not in mapped
/// memory, and whatever `piece` reports.
pub fn walk(
    memory: &GuestMemory,
    first: SglDescriptor,
    len: u64,
    to_host: bool,
    piece: &mut impl FnMut(Piece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut walk = Walk {
        memory,
        rest: len,
        to_host,
        budget: DESCRIPTORS_MAX,
    };
    let mut next = walk.descriptor(first, true, piece)?;
    while let Some(segment) = next {
        next = walk.segment(segment, piece)?;
    }
    if walk.rest != 0 {
        return Err(Status::DATA_SGL_LENGTH_INVALID.into());
    }
    Ok(())
}

/// A segment of descriptors in guest memory.
#[derive(Clone, Copy)]
struct Segment {
    at: Iova,
    bytes: u32,
    last: bool,
}

struct Walk<'a> {
    memory: &'a GuestMemory,
    rest: u64,
    to_host: bool,
    budget: u32,
}

impl Walk<'_> {
    /// Goes through one segment; the next one, if its last descriptor names it.
    fn segment(
        &mut self,
        segment: Segment,
        piece: &mut impl FnMut(Piece) -> Result<(), DataError>,
    ) -> Result<Option<Segment>, DataError> {
        let count = segment.bytes as usize / DESCRIPTOR_BYTES;
        let mut chunk = [0u8; CHUNK * DESCRIPTOR_BYTES];
        let mut done = 0;
        while done < count && self.rest > 0 {
            let now = (count - done).min(CHUNK);
            let bytes = &mut chunk[..now * DESCRIPTOR_BYTES];
            let offset = (done * DESCRIPTOR_BYTES) as u64;
            let at = segment.at.checked_add(offset).ok_or(DataError::NotMapped)?;
            self.memory.read(at, bytes)?;
            for (index, bytes) in bytes.chunks_exact(DESCRIPTOR_BYTES).enumerate() {
                let descriptor = SglDescriptor::read_from_bytes(bytes)
                    .map_err(|_| Status::INVALID_SGL_SEGMENT_DESCRIPTOR)?;
                // Only the last descriptor of a segment that is not the last may go on.
                let may_chain = !segment.last && done + index + 1 == count;
                if let Some(next) = self.descriptor(descriptor, may_chain, piece)? {
                    return Ok(Some(next));
                }
                if self.rest == 0 {
                    return Ok(None);
                }
            }
            done += now;
        }
        Ok(None)
    }

    fn descriptor(
        &mut self,
        descriptor: SglDescriptor,
        may_chain: bool,
        piece: &mut impl FnMut(Piece) -> Result<(), DataError>,
    ) -> Result<Option<Segment>, DataError> {
        if self.budget == 0 {
            return Err(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS.into());
        }
        self.budget -= 1;
        if descriptor.subtype() != 0 {
            return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.into());
        }
        let len = u64::from(descriptor.length()).min(self.rest);
        let at = Iova(descriptor.address());
        match descriptor.kind() {
            SglType::DATA_BLOCK if len == 0 => Ok(None),
            SglType::DATA_BLOCK => {
                at.checked_add(descriptor.length().into())
                    .ok_or(DataError::NotMapped)?;
                self.rest -= len;
                piece(Piece::Memory(at, len)).map(|()| None)
            }
            // A write takes nothing from a bit bucket (4.1.2.1).
            SglType::BIT_BUCKET if len == 0 || !self.to_host => Ok(None),
            SglType::BIT_BUCKET => {
                self.rest -= len;
                piece(Piece::Discard(len)).map(|()| None)
            }
            SglType::SEGMENT | SglType::LAST_SEGMENT => {
                let bytes = descriptor.length();
                let whole = bytes != 0 && bytes as usize % DESCRIPTOR_BYTES == 0;
                if !may_chain || !whole || at.0 % SEGMENT_ALIGNMENT != 0 {
                    return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR.into());
                }
                let last = descriptor.kind() == SglType::LAST_SEGMENT;
                Ok(Some(Segment { at, bytes, last }))
            }
            _ => Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bdev::memory::{Backing, MemoryRegion, PageKind, Protection};
    use proptest::prelude::*;

    use super::*;

    const DATA: u8 = 0x00;
    const BUCKET: u8 = 0x10;
    const SEGMENT: u8 = 0x20;
    const LAST: u8 = 0x30;
    const LIST: u64 = 0x1000;

    fn memory() -> GuestMemory {
        let (backing, _fd) = Backing::memfd("guest", 1 << 20, PageKind::Normal).unwrap();
        let protection = Protection {
            read: true,
            write: true,
        };
        let mut memory = GuestMemory::new();
        let region = MemoryRegion::new(backing, 0, Iova(0), 1 << 20, protection).unwrap();
        memory.map(region).unwrap();
        memory
    }

    fn encode(at: u64, length: u32, kind: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[15] = kind;
        bytes
    }

    fn descriptor(at: u64, length: u32, kind: u8) -> SglDescriptor {
        SglDescriptor::read_from_bytes(&encode(at, length, kind)).unwrap()
    }

    fn put(memory: &GuestMemory, at: u64, descriptors: &[[u8; 16]]) {
        memory.write(Iova(at), descriptors.as_flattened()).unwrap();
    }

    fn pieces(
        memory: &GuestMemory,
        first: SglDescriptor,
        len: u64,
        to_host: bool,
    ) -> Result<Vec<Piece>, DataError> {
        let mut pieces = Vec::new();
        walk(memory, first, len, to_host, &mut |piece| {
            pieces.push(piece);
            Ok(())
        })?;
        Ok(pieces)
    }

    fn fails_with(memory: &GuestMemory, first: SglDescriptor, status: Status) {
        assert_eq!(
            pieces(memory, first, 512, true),
            Err(status.into()),
            "{first:?}"
        );
    }

    #[test]
    fn one_data_block_in_the_command_is_enough() {
        let found = pieces(&memory(), descriptor(0x123, 512, DATA), 512, true);
        assert_eq!(found, Ok(vec![Piece::Memory(Iova(0x123), 512)]));
    }

    #[test]
    fn a_list_may_cover_more_than_the_transfer() {
        let found = pieces(&memory(), descriptor(0x123, 4096, DATA), 512, true);
        assert_eq!(found, Ok(vec![Piece::Memory(Iova(0x123), 512)]));
    }

    #[test]
    fn segments_are_followed_in_order() {
        let memory = memory();
        put(
            &memory,
            LIST,
            &[encode(1, 100, DATA), encode(LIST + 0x800, 32, LAST)],
        );
        put(
            &memory,
            LIST + 0x800,
            &[encode(2, 0, DATA), encode(3, 412, DATA)],
        );
        let found = pieces(&memory, descriptor(LIST, 32, SEGMENT), 512, true);
        let expected = [Piece::Memory(Iova(1), 100), Piece::Memory(Iova(3), 412)];
        assert_eq!(found, Ok(expected.to_vec()));
    }

    #[test]
    fn a_bit_bucket_takes_read_data_and_gives_none_to_a_write() {
        let memory = memory();
        let list = [
            encode(0, 100, BUCKET),
            encode(3, 412, DATA),
            encode(900, 100, DATA),
        ];
        put(&memory, LIST, &list);
        let first = descriptor(LIST, 48, LAST);
        let expected = [Piece::Discard(100), Piece::Memory(Iova(3), 412)];
        assert_eq!(pieces(&memory, first, 512, true), Ok(expected.to_vec()));
        let expected = [Piece::Memory(Iova(3), 412), Piece::Memory(Iova(900), 100)];
        assert_eq!(pieces(&memory, first, 512, false), Ok(expected.to_vec()));
    }

    #[test]
    fn wrong_lists_get_the_status_of_the_specification() {
        let memory = memory();
        let too_short = Status::DATA_SGL_LENGTH_INVALID;
        fails_with(&memory, descriptor(0, 511, DATA), too_short);
        let bad_segment = Status::INVALID_SGL_SEGMENT_DESCRIPTOR;
        fails_with(&memory, descriptor(LIST, 0, LAST), bad_segment);
        fails_with(&memory, descriptor(LIST, 24, LAST), bad_segment);
        put(&memory, LIST + 4, &[encode(0, 512, DATA)]);
        fails_with(&memory, descriptor(LIST + 4, 16, LAST), bad_segment);
        put(&memory, LIST, &[encode(LIST + 20, 16, SEGMENT)]);
        put(&memory, LIST + 20, &[encode(0, 512, DATA)]);
        fails_with(&memory, descriptor(LIST, 16, SEGMENT), bad_segment);
        let bad_type = Status::SGL_DESCRIPTOR_TYPE_INVALID;
        fails_with(&memory, descriptor(LIST, 512, 0x40), bad_type);
        fails_with(&memory, descriptor(LIST, 512, DATA | 1), bad_type);
        // A chain goes on only from the end of a segment, and never from the last one.
        put(
            &memory,
            LIST,
            &[encode(LIST, 16, LAST), encode(0, 512, DATA)],
        );
        fails_with(&memory, descriptor(LIST, 32, SEGMENT), bad_segment);
        put(&memory, LIST, &[encode(LIST, 16, LAST)]);
        fails_with(&memory, descriptor(LIST, 16, LAST), bad_segment);
        let unmapped = pieces(&memory, descriptor(1 << 40, 32, LAST), 512, true);
        assert_eq!(unmapped, Err(DataError::NotMapped));
        let wraps = pieces(&memory, descriptor(u64::MAX - 8, 512, DATA), 512, true);
        assert_eq!(wraps, Err(DataError::NotMapped));
    }

    #[test]
    fn a_segment_that_chains_to_itself_ends() {
        let memory = memory();
        put(&memory, LIST, &[encode(LIST, 16, SEGMENT)]);
        let too_many = Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS;
        fails_with(&memory, descriptor(LIST, 16, SEGMENT), too_many);
    }

    proptest! {
        /// Any bytes as a list: an answer after a bounded number of steps, and pieces that add up
        /// to the transfer when it is success.
        #[test]
        fn any_list_ends(
            lists in proptest::collection::vec((0u64..0x8000, 0u32..0x200, 0u8..5), 1..200),
            len in 1u64..100_000,
            to_host: bool,
        ) {
            let memory = memory();
            let all: Vec<_> = lists.iter().map(|&(at, n, kind)| encode(at, n, kind << 4)).collect();
            put(&memory, LIST, &all);
            let first = descriptor(LIST, 16 * lists.len() as u32, SEGMENT);
            if let Ok(pieces) = pieces(&memory, first, len, to_host) {
                let total: u64 = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Memory(_, len) | Piece::Discard(len) => len,
                    })
                    .sum();
                prop_assert_eq!(total, len);
            }
        }
    }
}

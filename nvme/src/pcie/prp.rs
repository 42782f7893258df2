//! Physical region pages: the page-wise data pointer (NVMe Base 2.0, 4.1.1).
//!
//! A list is read in pieces, each piece once, and judged on the copy. The number of entries
//! follows from the length of the transfer, and every list page but the last gives at least one
//! entry besides its chain pointer, so a hostile chain ends after a bounded number of reads.

use bdev::memory::{GuestMemory, Iova, MemoryError};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use crate::spec::Status;

/// Most entries of a list that are copied at a time: those of 256 KiB in pages of 4 KiB.
const CHUNK_ENTRIES: usize = 64;
const ENTRY_BYTES: u64 = 8;

/// The one address of a transfer that ends in the page where it begins, as nearly all short ones
/// do, if its offset is allowed: the short form of [`walk`].
#[inline]
pub fn in_one_page(prps: [u64; 2], len: u64, page_shift: u8) -> Option<Iova> {
    let page = 1u64 << page_shift;
    let inside = prps[0] % 4 == 0 && len <= page - prps[0] % page;
    inside.then_some(Iova(prps[0]))
}

/// Calls `range` with each piece of guest memory that `prp1` and `prp2` name for a transfer of
/// `len` bytes with memory pages of `1 << page_shift` bytes, in order.
///
/// # Errors
/// PRP Offset Invalid where an offset is not allowed, Data Transfer Error where a list is not in
/// mapped memory, and whatever `range` reports.
#[inline]
pub fn walk(
    memory: &GuestMemory,
    prps: [u64; 2],
    len: u64,
    page_shift: u8,
    mut range: impl FnMut(Iova, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let page = 1u64 << page_shift;
    if prps[0] % 4 != 0 {
        return Err(Status::PRP_OFFSET_INVALID.into());
    }
    let first = len.min(page - prps[0] % page);
    range(Iova(prps[0]), first)?;
    let rest = len - first;
    if rest == 0 {
        return Ok(());
    }
    if rest <= page {
        return range(page_aligned(prps[1], page)?, rest);
    }
    List {
        memory,
        page_shift,
        at: prps[1],
    }
    .walk(rest, &mut range)
}

/// Why data could not be found: a status for the host, or a shortage that passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataError {
    /// The command fails with this.
    Status(Status),
    /// The memory is not mapped (it may come back in a moment).
    NotMapped,
    /// All iovec lists are in use: try again later.
    Busy,
}

impl From<Status> for DataError {
    fn from(status: Status) -> DataError {
        DataError::Status(status)
    }
}

impl From<MemoryError> for DataError {
    fn from(error: MemoryError) -> DataError {
        match error {
            MemoryError::NotMapped => DataError::NotMapped,
            MemoryError::PoolEmpty => DataError::Busy,
            MemoryError::Protection | MemoryError::Misaligned => {
                DataError::Status(Status::DATA_TRANSFER_ERROR)
            }
            MemoryError::TooManySegments => {
                DataError::Status(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS)
            }
        }
    }
}

fn page_aligned(entry: u64, page: u64) -> Result<Iova, DataError> {
    if entry % page != 0 {
        return Err(Status::PRP_OFFSET_INVALID.into());
    }
    Ok(Iova(entry))
}

/// A chain of list pages.
struct List<'a> {
    memory: &'a GuestMemory,
    page_shift: u8,
    at: u64,
}

impl List<'_> {
    fn walk(
        mut self,
        len: u64,
        range: &mut impl FnMut(Iova, u64) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if self.at % ENTRY_BYTES != 0 {
            return Err(Status::PRP_OFFSET_INVALID.into());
        }
        let page = 1u64 << self.page_shift;
        let mut chunk = [U64::ZERO; CHUNK_ENTRIES];
        let mut run = Run { start: 0, end: 0 };
        // Bytes without an entry yet, and bytes not told of yet.
        let (mut ahead, mut untold) = (len, len);
        while ahead > 0 {
            let wanted = ahead.div_ceil(page);
            let in_page = (page - self.at % page) / ENTRY_BYTES;
            // The last entry of a full page points to the next page, if more than it is wanted.
            let chained = wanted > in_page;
            let entries = if chained { in_page - 1 } else { wanted };
            let count = entries.min(CHUNK_ENTRIES as u64);
            if count == 0 {
                self.follow(page)?;
                continue;
            }
            let entries = &mut chunk[..count as usize];
            self.memory.read(Iova(self.at), entries.as_mut_bytes())?;
            for entry in entries {
                let start = entry.get();
                if run.extend(start, page) {
                    continue;
                }
                // What follows a page is as aligned as that.
                page_aligned(start, page)?;
                if run.len() != 0 {
                    range(Iova(run.start), run.len())?;
                    untold -= run.len();
                }
                run = Run::of(start, page);
            }
            self.at += count * ENTRY_BYTES;
            ahead = ahead.saturating_sub(count * page);
        }
        // The last page may be wanted in part.
        range(Iova(run.start), untold)
    }

    /// Goes to the list page that the entry at `at` points to; it begins at a page boundary.
    fn follow(&mut self, page: u64) -> Result<(), DataError> {
        let mut entry = U64::ZERO;
        self.memory.read(Iova(self.at), entry.as_mut_bytes())?;
        self.at = page_aligned(entry.get(), page)?.0;
        Ok(())
    }
}

/// Pages that follow one another, as they often do: found together.
struct Run {
    start: u64,
    /// The address after them; 0 for none, and after the last page of all.
    end: u64,
}

impl Run {
    fn of(start: u64, page: u64) -> Run {
        Run {
            start,
            end: start.wrapping_add(page),
        }
    }

    /// Takes a page in. False if it does not follow.
    #[inline]
    fn extend(&mut self, start: u64, page: u64) -> bool {
        let follows = start == self.end && start != 0;
        if follows {
            self.end = start.wrapping_add(page);
        }
        follows
    }

    /// How many bytes.
    fn len(&self) -> u64 {
        self.end.wrapping_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use bdev::memory::{Backing, MemoryRegion, PageKind, Protection};

    use super::*;

    const PAGE: u64 = 4096;

    /// Guest memory of 64 pages from address 0 on, with a list in its first page.
    fn memory_with_list(entries: &[u64]) -> GuestMemory {
        let (backing, _fd) = Backing::memfd("prp", 64 * PAGE, PageKind::Normal).unwrap();
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(0), 64 * PAGE, protection).unwrap();
        let mut memory = GuestMemory::new();
        memory.map(region).unwrap();
        let list: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        memory.write(Iova(0), &list).unwrap();
        memory
    }

    /// The pieces of a transfer that begins at page 100 and goes on with a list of these pages.
    fn pieces(pages: &[u64], len: u64) -> Vec<(u64, u64)> {
        let entries: Vec<u64> = pages.iter().map(|page| page * PAGE).collect();
        let memory = memory_with_list(&entries);
        let mut pieces = Vec::new();
        let range = |iova: Iova, len| {
            pieces.push((iova.0, len));
            Ok(())
        };
        walk(&memory, [100 * PAGE, 0], len, 12, range).unwrap();
        pieces
    }

    #[test]
    fn pages_of_a_list_that_follow_one_another_are_one_piece() {
        assert_eq!(
            pieces(&[7, 8, 9], 4 * PAGE),
            [(100 * PAGE, PAGE), (7 * PAGE, 3 * PAGE)]
        );
        assert_eq!(
            pieces(&[7, 9, 8, 0, 1], 6 * PAGE - 512),
            [
                (100 * PAGE, PAGE),
                (7 * PAGE, PAGE),
                (9 * PAGE, PAGE),
                (8 * PAGE, PAGE),
                (0, 2 * PAGE - 512)
            ]
        );
    }

    #[test]
    fn pieces_are_joined_over_the_borders_of_what_is_read_of_a_list_at_a_time() {
        let pages: Vec<u64> = (200..200 + CHUNK_ENTRIES as u64 + 5).collect();
        let len = (pages.len() as u64 + 1) * PAGE;
        assert_eq!(
            pieces(&pages, len),
            [(100 * PAGE, PAGE), (200 * PAGE, len - PAGE)]
        );
    }

    #[test]
    fn the_last_page_of_the_address_space_does_not_go_on_at_its_beginning() {
        let last = u64::MAX / PAGE;
        assert_eq!(
            pieces(&[last, 0], 3 * PAGE),
            [(100 * PAGE, PAGE), (last * PAGE, PAGE), (0, PAGE)]
        );
    }

    #[test]
    fn a_transfer_is_in_one_page_if_it_ends_there() {
        assert_eq!(
            in_one_page([PAGE + 512, 0], PAGE - 512, 12),
            Some(Iova(PAGE + 512))
        );
        assert_eq!(in_one_page([PAGE + 512, 0], PAGE - 511, 12), None);
        assert_eq!(in_one_page([PAGE + 2, 0], 512, 12), None);
    }
}

//! Physical region pages: the page-wise data pointer (NVMe Base 2.0, 4.1.1).
//!
//! A list is read in pieces, each piece once, and judged on the copy. The number of entries
//! follows from the length of the transfer, and every list page but the last gives at least one
//! entry besides its chain pointer, so a hostile chain ends after a bounded number of reads.

use bdev::memory::{GuestMemory, Iova, MemoryError};

use crate::spec::Status;

/// Most entries of a list that are copied at a time.
const CHUNK_ENTRIES: usize = 512;
const ENTRY_BYTES: u64 = 8;

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
        page,
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
    page: u64,
    at: u64,
}

impl List<'_> {
    fn walk(
        mut self,
        mut rest: u64,
        range: &mut impl FnMut(Iova, u64) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if self.at % ENTRY_BYTES != 0 {
            return Err(Status::PRP_OFFSET_INVALID.into());
        }
        let mut chunk = [0u8; CHUNK_ENTRIES * ENTRY_BYTES as usize];
        while rest > 0 {
            let wanted = rest.div_ceil(self.page);
            let in_page = (self.page - self.at % self.page) / ENTRY_BYTES;
            // The last entry of a full page points to the next page, if more than it is wanted.
            let chained = wanted > in_page;
            let entries = if chained { in_page - 1 } else { wanted };
            let count = entries.min(CHUNK_ENTRIES as u64);
            if count == 0 {
                self.follow()?;
                continue;
            }
            let bytes = &mut chunk[..(count * ENTRY_BYTES) as usize];
            self.memory.read(Iova(self.at), bytes)?;
            for entry in bytes.chunks_exact(ENTRY_BYTES as usize) {
                let len = rest.min(self.page);
                range(page_aligned(entry_of(entry), self.page)?, len)?;
                rest -= len;
            }
            self.at += count * ENTRY_BYTES;
        }
        Ok(())
    }

    /// Goes to the list page that the entry at `at` points to; it begins at a page boundary.
    fn follow(&mut self) -> Result<(), DataError> {
        let mut entry = [0u8; ENTRY_BYTES as usize];
        self.memory.read(Iova(self.at), &mut entry)?;
        self.at = page_aligned(u64::from_le_bytes(entry), self.page)?.0;
        Ok(())
    }
}

fn entry_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

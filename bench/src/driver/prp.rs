//! PRP entries and lists for data that is contiguous for the device (NVMe Base 2.0, 4.1.1).

use bdev::memory::{GuestMemory, Iova, MemoryError};

/// Bytes of a PRP entry.
const ENTRY_BYTES: u64 = 8;

/// A memory page of the controller, in bytes: a power of two, 4 KiB at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSize(pub(crate) u64);

impl PageSize {
    fn pages(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.0)
    }

    fn entries(self) -> u64 {
        self.0 / ENTRY_BYTES
    }
}

/// Data of a command: `bytes` at `address`, a multiple of the page size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data {
    pub(crate) address: Iova,
    pub(crate) bytes: u64,
}

/// How many bytes of whole pages the PRP list of so much data takes, chained if one page is not
/// enough; 0 if it takes none.
pub(crate) fn list_bytes(data_bytes: u64, page: PageSize) -> u64 {
    let pages = page.pages(data_bytes);
    if pages <= 2 {
        return 0;
    }
    let per_page = page.entries();
    let mut left = pages - 1;
    let mut lists = 1;
    while left > per_page {
        left -= per_page - 1;
        lists += 1;
    }
    lists * page.0
}

/// Writes the PRP list at `list`, which has [`list_bytes`], and returns the two PRP entries of a
/// command.
pub(crate) fn prps(
    memory: &GuestMemory,
    data: Data,
    list: Iova,
    page: PageSize,
) -> Result<[u64; 2], MemoryError> {
    let pages = page.pages(data.bytes);
    let address = |n: u64| data.address.0 + n * page.0;
    match pages {
        0 | 1 => return Ok([address(0), 0]),
        2 => return Ok([address(0), address(1)]),
        _ => {}
    }
    let per_page = page.entries();
    let mut at = list.0;
    for n in 1..pages {
        let last_in_page = (at - list.0) / ENTRY_BYTES % per_page == per_page - 1;
        if last_in_page && n < pages - 1 {
            memory.write(Iova(at), &(at + ENTRY_BYTES).to_le_bytes())?;
            at += ENTRY_BYTES;
        }
        memory.write(Iova(at), &address(n).to_le_bytes())?;
        at += ENTRY_BYTES;
    }
    Ok([address(0), list.0])
}

#[cfg(test)]
mod tests {
    use bdev::memory::{Backing, MemoryRegion, PageKind, Protection};

    use super::*;

    const LIST: Iova = Iova(0x10_0000);
    const PAGE: PageSize = PageSize(4096);
    const DATA: u64 = 0x1_0000_0000;

    fn memory() -> GuestMemory {
        let (backing, _fd) = Backing::memfd("prp", 1 << 20, PageKind::Normal).expect("memory");
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, LIST, 1 << 20, protection).expect("a region");
        let mut memory = GuestMemory::new();
        memory.map(region).expect("a table");
        memory
    }

    /// The pages of a command as a controller finds them, and the pages that its lists take.
    fn walk(memory: &GuestMemory, prps: [u64; 2], pages: u64) -> (Vec<u64>, u64) {
        let (mut found, mut lists) = (vec![prps[0]], 0);
        match pages {
            1 => {}
            2 => found.push(prps[1]),
            _ => {
                let mut at = prps[1];
                assert_eq!(at % 4096, 0, "a list starts a page");
                lists = 1;
                while (found.len() as u64) < pages {
                    let mut entry = [0; 8];
                    memory.read(Iova(at), &mut entry).expect("an entry");
                    let entry = u64::from_le_bytes(entry);
                    let left = pages - found.len() as u64;
                    if at % 4096 == 4088 && left > 1 {
                        assert_eq!(entry % 4096, 0, "a chained list starts a page");
                        lists += 1;
                        at = entry;
                    } else {
                        found.push(entry);
                        at += 8;
                    }
                }
            }
        }
        (found, lists)
    }

    #[test]
    fn a_controller_finds_each_page_of_any_length() {
        let memory = memory();
        for pages in [1, 2, 3, 256, 512, 513, 514, 1023, 1024, 1025, 4096] {
            let bytes = pages * 4096 - 512;
            let data = Data {
                address: Iova(DATA),
                bytes,
            };
            let prps = prps(&memory, data, LIST, PAGE).expect("entries");
            let (found, lists) = walk(&memory, prps, pages);
            let expected: Vec<u64> = (0..pages).map(|n| DATA + n * 4096).collect();
            assert_eq!(found, expected, "{pages} pages");
            assert_eq!(list_bytes(bytes, PAGE), lists * 4096, "{pages} pages");
        }
    }

    #[test]
    fn a_command_of_one_page_has_no_second_entry() {
        let data = Data {
            address: Iova(DATA),
            bytes: 512,
        };
        assert_eq!(prps(&memory(), data, LIST, PAGE), Ok([DATA, 0]));
    }
}

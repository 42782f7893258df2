//! Regions of a PCI device: their indices, and what a client is told about one.

/// First base address register; the others follow.
pub const BAR0: u32 = 0;
/// Last base address register.
pub const BAR5: u32 = 5;
/// Expansion ROM.
pub const ROM: u32 = 6;
/// PCI configuration space.
pub const CONFIG: u32 = 7;
/// Legacy VGA ranges.
pub const VGA: u32 = 8;

/// A part of a region that a client may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseArea {
    /// First byte, from the start of the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// What a region is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// Bytes; 0 where the device has no such region.
    pub size: u64,
    /// It can be read, by message and where mapped.
    pub readable: bool,
    /// It can be written, by message and where mapped.
    pub writable: bool,
    /// The areas that a client may map; none means access by message alone.
    pub mmap: Vec<SparseArea>,
    /// Where the region's first byte lies in the file: an area is mapped from
    /// `fd_offset + area.offset`.
    pub fd_offset: u64,
}

impl RegionInfo {
    /// A region that can be read and written by message only.
    pub const fn plain(size: u64) -> RegionInfo {
        RegionInfo {
            size,
            readable: true,
            writable: true,
            mmap: Vec::new(),
            fd_offset: 0,
        }
    }

    /// No such region.
    pub const fn absent() -> RegionInfo {
        RegionInfo {
            size: 0,
            readable: false,
            writable: false,
            mmap: Vec::new(),
            fd_offset: 0,
        }
    }
}

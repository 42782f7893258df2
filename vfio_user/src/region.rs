//! Regions of a PCI device: their indices, and what a client is told about one.

use nix::errno::Errno;
use zerocopy::IntoBytes;

use crate::protocol::{
    self, CapabilityHeader, RegionInfoPayload, SparseMmapArea, SparseMmapPayload, region_flags,
};

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

    /// The payload of a reply: the structure, and the sparse mmap capability if an area can be
    /// mapped.
    pub(crate) fn encode(&self, index: u32) -> Vec<u8> {
        let mut payload = self.encode_without_capabilities(index);
        if self.mmap.is_empty() {
            return payload.as_bytes().to_vec();
        }
        payload.flags |= region_flags::CAPS;
        payload.cap_offset = size_of::<RegionInfoPayload>() as u32;
        let header = CapabilityHeader {
            id: region_flags::CAP_SPARSE_MMAP,
            version: region_flags::CAP_SPARSE_MMAP_VERSION,
            next: 0,
        };
        let sparse = SparseMmapPayload {
            nr_areas: self.mmap.len() as u32,
            reserved: 0,
        };
        let mut bytes = [payload.as_bytes(), header.as_bytes(), sparse.as_bytes()].concat();
        for area in &self.mmap {
            let area = SparseMmapArea {
                offset: area.offset,
                size: area.size,
            };
            bytes.extend_from_slice(area.as_bytes());
        }
        bytes
    }

    /// The structure alone, whose `argsz` tells how much room all of it takes. CAPS is not set, as
    /// none follow: QEMU refuses the flag without an offset.
    pub(crate) fn encode_without_capabilities(&self, index: u32) -> RegionInfoPayload {
        let capability = match self.mmap.len() {
            0 => 0,
            areas => SPARSE_MMAP_SIZE + areas * size_of::<SparseMmapArea>(),
        };
        let mut flags = 0;
        for (set, flag) in [
            (self.readable, region_flags::READ),
            (self.writable, region_flags::WRITE),
            (!self.mmap.is_empty(), region_flags::MMAP),
        ] {
            flags |= if set { flag } else { 0 };
        }
        RegionInfoPayload {
            argsz: (size_of::<RegionInfoPayload>() + capability) as u32,
            flags,
            index,
            cap_offset: 0,
            size: self.size,
            offset: self.fd_offset,
        }
    }

    /// What the payload of a whole reply says. A region that can be mapped, with no capability that
    /// says where, is one area.
    pub(crate) fn decode(payload: &[u8]) -> Result<RegionInfo, Errno> {
        let (info, _) = protocol::take::<RegionInfoPayload>(payload)?;
        let mut mmap = Vec::new();
        if info.flags & region_flags::MMAP != 0 {
            mmap = match info.flags & region_flags::CAPS {
                0 => None,
                _ => sparse_areas(payload, info.cap_offset)?,
            }
            .unwrap_or_else(|| {
                vec![SparseArea {
                    offset: 0,
                    size: info.size,
                }]
            });
        }
        Ok(RegionInfo {
            size: info.size,
            readable: info.flags & region_flags::READ != 0,
            writable: info.flags & region_flags::WRITE != 0,
            mmap,
            fd_offset: info.offset,
        })
    }
}

/// Bytes of a sparse mmap capability before its areas.
const SPARSE_MMAP_SIZE: usize = size_of::<CapabilityHeader>() + size_of::<SparseMmapPayload>();

/// Follows the list of capabilities, which has to go forwards, to the sparse mmap one.
fn sparse_areas(payload: &[u8], first: u32) -> Result<Option<Vec<SparseArea>>, Errno> {
    let mut offset = first;
    while offset != 0 {
        let bytes = payload.get(offset as usize..).ok_or(Errno::EINVAL)?;
        let (header, bytes) = protocol::take::<CapabilityHeader>(bytes)?;
        if header.id == region_flags::CAP_SPARSE_MMAP {
            let (sparse, mut bytes) = protocol::take::<SparseMmapPayload>(bytes)?;
            let mut areas = Vec::new();
            for _ in 0..sparse.nr_areas {
                let (area, rest) = protocol::take::<SparseMmapArea>(bytes)?;
                areas.push(SparseArea {
                    offset: area.offset,
                    size: area.size,
                });
                bytes = rest;
            }
            return Ok(Some(areas));
        }
        if header.next != 0 && header.next <= offset {
            return Err(Errno::EINVAL);
        }
        offset = header.next;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doorbells() -> RegionInfo {
        RegionInfo {
            mmap: vec![SparseArea {
                offset: 0x1000,
                size: 0x1000,
            }],
            ..plain()
        }
    }

    fn plain() -> RegionInfo {
        RegionInfo {
            fd_offset: 0x5000,
            ..RegionInfo::plain(0x4000)
        }
    }

    #[test]
    fn a_region_with_areas_is_encoded_as_captured_from_a_peer() {
        let info = doorbells();
        let short = info.encode_without_capabilities(0);
        assert_eq!((short.argsz, short.flags, short.cap_offset), (64, 7, 0));
        let whole = info.encode(0);
        assert_eq!(whole.len(), 64);
        let (head, _) = protocol::take::<RegionInfoPayload>(&whole).expect("a head");
        assert_eq!((head.argsz, head.flags, head.cap_offset), (64, 0xf, 32));
        assert_eq!((head.size, head.offset), (0x4000, 0x5000));
        let words: Vec<u32> = whole[32..]
            .chunks(4)
            .map(|w| protocol::take_all(w).expect("a word"))
            .collect();
        assert_eq!(words, [1 | 1 << 16, 0, 1, 0, 0x1000, 0, 0x1000, 0]);
    }

    #[test]
    fn what_is_encoded_is_decoded_alike() {
        let several = RegionInfo {
            mmap: (1..4)
                .map(|n| SparseArea {
                    offset: n << 12,
                    size: 4096,
                })
                .collect(),
            ..plain()
        };
        let read_only = RegionInfo {
            writable: false,
            ..plain()
        };
        for info in [
            plain(),
            doorbells(),
            several,
            read_only,
            RegionInfo::absent(),
        ] {
            let payload = info.encode(3);
            assert_eq!(
                payload.len(),
                info.encode_without_capabilities(3).argsz as usize
            );
            assert_eq!(RegionInfo::decode(&payload), Ok(info));
        }
    }

    #[test]
    fn a_mappable_region_without_the_capability_is_one_area() {
        let mut info = doorbells().encode_without_capabilities(0);
        let areas = |payload: &[u8]| RegionInfo::decode(payload).map(|info| info.mmap);
        assert_eq!(
            areas(info.as_bytes()),
            Ok(vec![SparseArea {
                offset: 0,
                size: 0x4000
            }])
        );
        info.flags |= region_flags::CAPS;
        info.cap_offset = 32;
        let other = CapabilityHeader {
            id: 9,
            version: 1,
            next: 0,
        };
        let bytes = [info.as_bytes(), other.as_bytes()].concat();
        assert_eq!(
            areas(&bytes),
            Ok(vec![SparseArea {
                offset: 0,
                size: 0x4000
            }])
        );
    }

    #[test]
    fn a_list_of_capabilities_that_loops_or_is_cut_is_refused() {
        let mut info = doorbells().encode_without_capabilities(0);
        info.flags |= region_flags::CAPS;
        for (cap_offset, id, next) in [(32, 9, 32), (32, 9, 8), (32, 9, 1000), (33, 9, 0)] {
            info.cap_offset = cap_offset;
            let header = CapabilityHeader {
                id,
                version: 1,
                next,
            };
            let bytes = [info.as_bytes(), header.as_bytes()].concat();
            assert_eq!(
                RegionInfo::decode(&bytes),
                Err(Errno::EINVAL),
                "{cap_offset} {next}"
            );
        }
        let mut bytes = doorbells().encode(0);
        bytes.pop();
        assert_eq!(RegionInfo::decode(&bytes), Err(Errno::EINVAL));
    }
}

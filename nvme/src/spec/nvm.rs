//! Commands of the NVM command set (NVM Command Set 1.0, 3.2).

use bitfield_struct::bitfield;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Sqe;

/// Command dword 12 of Read, Write and Compare.
#[bitfield(u32)]
struct ReadWriteCdw12 {
    nlb_z: u16,
    #[bits(8)]
    reserved: u8,
    storage_tag_check: bool,
    deac: bool,
    #[bits(4)]
    prinfo: u8,
    fua: bool,
    limited_retry: bool,
}
const _: () = assert!(size_of::<ReadWriteCdw12>() == 4);

/// Read, Write and Compare.
#[derive(Clone, Copy, Debug)]
pub struct ReadWrite {
    slba: u64,
    cdw12: ReadWriteCdw12,
}

impl ReadWrite {
    /// The fields of an entry.
    #[inline]
    pub fn of(sqe: &Sqe) -> ReadWrite {
        ReadWrite {
            slba: sqe.cdw10_11(),
            cdw12: sqe.dword(12).into(),
        }
    }

    /// Starting LBA.
    #[inline]
    pub fn slba(&self) -> u64 {
        self.slba
    }

    /// Number of Logical Blocks, zero-based.
    #[inline]
    pub fn nlb_z(&self) -> u16 {
        self.cdw12.nlb_z()
    }

    /// Number of logical blocks that a command dword 12 names, 1-65536.
    #[inline]
    pub fn blocks_of(cdw12: u32) -> u32 {
        u32::from(ReadWriteCdw12::from(cdw12).nlb_z()) + 1
    }

    /// Force Unit Access.
    #[inline]
    pub fn fua(&self) -> bool {
        self.cdw12.fua()
    }
}

/// Write Zeroes.
#[derive(Clone, Copy, Debug)]
pub struct WriteZeroes(ReadWrite);

impl WriteZeroes {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> WriteZeroes {
        WriteZeroes(ReadWrite::of(sqe))
    }

    /// Starting LBA.
    pub fn slba(&self) -> u64 {
        self.0.slba
    }

    /// Number of Logical Blocks, zero-based.
    pub fn nlb_z(&self) -> u16 {
        self.0.nlb_z()
    }

    /// Deallocate: the host would like the blocks deallocated.
    pub fn deac(&self) -> bool {
        self.0.cdw12.deac()
    }

    /// Force Unit Access.
    pub fn fua(&self) -> bool {
        self.0.fua()
    }
}

#[bitfield(u32)]
struct DsmCdw10 {
    nr_z: u8,
    #[bits(24)]
    reserved: u32,
}
const _: () = assert!(size_of::<DsmCdw10>() == 4);

#[bitfield(u32)]
struct DsmCdw11 {
    integral_for_read: bool,
    integral_for_write: bool,
    deallocate: bool,
    #[bits(29)]
    reserved: u32,
}
const _: () = assert!(size_of::<DsmCdw11>() == 4);

/// Dataset Management.
#[derive(Clone, Copy, Debug)]
pub struct DatasetManagement {
    cdw10: DsmCdw10,
    cdw11: DsmCdw11,
}

impl DatasetManagement {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> DatasetManagement {
        DatasetManagement {
            cdw10: sqe.dword(10).into(),
            cdw11: sqe.dword(11).into(),
        }
    }

    /// Number of Ranges, zero-based.
    pub fn nr_z(&self) -> u8 {
        self.cdw10.nr_z()
    }

    /// Attribute: Deallocate.
    pub fn deallocate(&self) -> bool {
        self.cdw11.deallocate()
    }
}

/// A range of Dataset Management.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DsmRange {
    /// Context attributes: hints.
    pub attributes: U32,
    /// Length in logical blocks, not zero-based.
    pub nlb: U32,
    /// Starting LBA.
    pub slba: U64,
}
const _: () = assert!(size_of::<DsmRange>() == 16);

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::spec::{Nsid, NvmOpcode};

    fn sqe(cdws: [u32; 6]) -> Sqe {
        Sqe::new(NvmOpcode::WRITE.0, Nsid(1), [0, 0], cdws)
    }

    #[test]
    fn a_write_is_read_from_its_dwords() {
        let fields = ReadWrite::of(&sqe([0x5566_7788, 0x1122_3344, 0x4000_ffff, 0, 0, 0]));
        assert_eq!(fields.slba(), 0x1122_3344_5566_7788);
        assert_eq!((fields.nlb_z(), fields.fua()), (0xffff, true));
        // Every other bit of dword 12: limited retry, protection information, checks.
        let others = ReadWrite::of(&sqe([0, 0, 0xbfff_0000, 0, 0, 0]));
        assert_eq!((others.nlb_z(), others.fua()), (0, false));
    }

    #[test]
    fn a_write_zeroes_is_read_from_its_dwords() {
        let fields = WriteZeroes::of(&sqe([9, 0, 0x0200_0007, 0, 0, 0]));
        assert_eq!((fields.slba(), fields.nlb_z()), (9, 7));
        assert_eq!((fields.deac(), fields.fua()), (true, false));
        let fields = WriteZeroes::of(&sqe([9, 0, 0x4000_0000, 0, 0, 0]));
        assert_eq!((fields.deac(), fields.fua()), (false, true));
    }

    #[test]
    fn a_dataset_management_is_read_from_its_dwords_and_ranges() {
        let fields = DatasetManagement::of(&sqe([0xff, 4, 0, 0, 0, 0]));
        assert_eq!((fields.nr_z(), fields.deallocate()), (255, true));
        let hints = DatasetManagement::of(&sqe([0, 3, 0, 0, 0, 0]));
        assert!(!hints.deallocate());
        let range = DsmRange {
            attributes: 1.into(),
            nlb: 2.into(),
            slba: 3.into(),
        };
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(range.as_bytes(), bytes);
    }
}

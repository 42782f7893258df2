//! Submission queue entries (NVMe Base 2.0, 3.3.3.1) and their data pointers (4.1).

use bitfield_struct::bitfield;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{CommandId, Nsid};

/// A submission queue entry: 64 bytes as eight little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sqe([u64; 8]);

/// Command dword 0.
#[bitfield(u32)]
struct Cdw0 {
    opcode: u8,
    #[bits(2)]
    fuse: u8,
    #[bits(4)]
    reserved: u8,
    #[bits(2)]
    psdt: u8,
    cid: u16,
}
const _: () = assert!(size_of::<Cdw0>() == 4);

impl Sqe {
    /// Takes the words in the order of memory.
    #[inline]
    pub const fn from_words(words: [u64; 8]) -> Sqe {
        Sqe(words)
    }

    /// The words in the order of memory.
    #[inline]
    pub const fn to_words(self) -> [u64; 8] {
        self.0
    }

    /// An entry for a driver: opcode, namespace, PRPs and command dwords 10 to 15.
    pub fn new(opcode: u8, nsid: Nsid, prps: [u64; 2], cdw10: [u32; 6]) -> Sqe {
        let dwords = |n: usize| u64::from(cdw10[n]) | u64::from(cdw10[n + 1]) << 32;
        let first = u64::from(u32::from(Cdw0::new().with_opcode(opcode)));
        let head = first | u64::from(nsid.0) << 32;
        Sqe([
            head,
            0,
            0,
            prps[0],
            prps[1],
            dwords(0),
            dwords(2),
            dwords(4),
        ])
    }

    /// The same entry with a command identifier.
    #[must_use]
    pub fn with_cid(mut self, cid: CommandId) -> Sqe {
        let cdw0 = self.cdw0().with_cid(cid.0);
        self.0[0] = self.0[0] & !0xffff_ffff | u64::from(u32::from(cdw0));
        self
    }

    /// The same entry with another use of the data pointer.
    #[must_use]
    pub fn with_psdt(mut self, psdt: Psdt) -> Sqe {
        let cdw0 = self.cdw0().with_psdt(psdt.0);
        self.0[0] = self.0[0] & !0xffff_ffff | u64::from(u32::from(cdw0));
        self
    }

    #[inline]
    fn cdw0(&self) -> Cdw0 {
        Cdw0::from(self.dword(0))
    }

    /// Command dword `n`, 0-15; 0 past the end.
    #[inline]
    pub const fn dword(&self, n: usize) -> u32 {
        if n >= 16 {
            0
        } else {
            (self.0[n / 2] >> (32 * (n % 2))) as u32
        }
    }

    /// Command dwords 10 and 11 as one value: a starting LBA.
    #[inline]
    pub const fn cdw10_11(&self) -> u64 {
        self.0[5]
    }

    /// Opcode.
    #[inline]
    pub fn opcode(&self) -> u8 {
        self.cdw0().opcode()
    }

    /// Opcode of the NVM command set.
    #[inline]
    pub fn nvm_opcode(&self) -> NvmOpcode {
        NvmOpcode(self.opcode())
    }

    /// Opcode of an admin command.
    pub fn admin_opcode(&self) -> AdminOpcode {
        AdminOpcode(self.opcode())
    }

    /// Fused operation.
    #[inline]
    pub fn fuse(&self) -> Fuse {
        Fuse(self.cdw0().fuse())
    }

    /// What the data pointer holds.
    #[inline]
    pub fn psdt(&self) -> Psdt {
        Psdt(self.cdw0().psdt())
    }

    /// Command identifier.
    #[inline]
    pub fn cid(&self) -> CommandId {
        CommandId(self.cdw0().cid())
    }

    /// Namespace.
    #[inline]
    pub const fn nsid(&self) -> Nsid {
        Nsid(self.dword(1))
    }

    /// PRP entry 1 and 2.
    #[inline]
    pub const fn prps(&self) -> [u64; 2] {
        [self.0[3], self.0[4]]
    }

    /// SGL entry 1.
    #[inline]
    pub const fn sgl(&self) -> SglDescriptor {
        SglDescriptor {
            address: U64::new(self.0[3]),
            length: U32::new(self.0[4] as u32),
            reserved: [0; 3],
            identifier: (self.0[4] >> 56) as u8,
        }
    }
}

/// CDW0.FUSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fuse(pub u8);

impl Fuse {
    /// Not fused.
    pub const NORMAL: Fuse = Fuse(0);
}

/// CDW0.PSDT: PRPs or SGLs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Psdt(pub u8);

impl Psdt {
    /// PRPs.
    pub const PRP: Psdt = Psdt(0b00);
    /// SGLs for data; the metadata pointer is the address of one buffer.
    pub const SGL: Psdt = Psdt(0b01);
    /// SGLs for data; the metadata pointer is the address of an SGL segment.
    pub const SGL_METADATA_SEGMENT: Psdt = Psdt(0b10);
}

/// An SGL descriptor (4.1.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SglDescriptor {
    address: U64,
    length: U32,
    reserved: [u8; 3],
    identifier: u8,
}
const _: () = assert!(size_of::<SglDescriptor>() == 16);

#[bitfield(u8)]
struct SglIdentifier {
    #[bits(4)]
    subtype: u8,
    #[bits(4)]
    kind: u8,
}
const _: () = assert!(size_of::<SglIdentifier>() == 1);

impl SglDescriptor {
    /// Address of a data block or segment.
    pub fn address(&self) -> u64 {
        self.address.get()
    }

    /// Length in bytes.
    pub fn length(&self) -> u32 {
        self.length.get()
    }

    /// What the descriptor is.
    pub fn kind(&self) -> SglType {
        SglType(SglIdentifier::from(self.identifier).kind())
    }

    /// What the address is; 0 = an address.
    pub fn subtype(&self) -> u8 {
        SglIdentifier::from(self.identifier).subtype()
    }
}

/// SGL descriptor type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SglType(pub u8);

impl SglType {
    /// Data.
    pub const DATA_BLOCK: SglType = SglType(0);
    /// Data that the host does not want.
    pub const BIT_BUCKET: SglType = SglType(1);
    /// Descriptors, more of which follow.
    pub const SEGMENT: SglType = SglType(2);
    /// Descriptors, the last ones.
    pub const LAST_SEGMENT: SglType = SglType(3);
}

/// Opcode of the NVM command set (NVM Command Set 1.0, 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NvmOpcode(pub u8);

impl NvmOpcode {
    /// Flush.
    pub const FLUSH: NvmOpcode = NvmOpcode(0x00);
    /// Write.
    pub const WRITE: NvmOpcode = NvmOpcode(0x01);
    /// Read.
    pub const READ: NvmOpcode = NvmOpcode(0x02);
    /// Compare.
    pub const COMPARE: NvmOpcode = NvmOpcode(0x05);
    /// Write Zeroes.
    pub const WRITE_ZEROES: NvmOpcode = NvmOpcode(0x08);
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: NvmOpcode = NvmOpcode(0x09);
}

/// Opcode of an admin command (NVMe Base 2.0, 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdminOpcode(pub u8);

impl AdminOpcode {
    /// Delete I/O Submission Queue.
    pub const DELETE_SQ: AdminOpcode = AdminOpcode(0x00);
    /// Create I/O Submission Queue.
    pub const CREATE_SQ: AdminOpcode = AdminOpcode(0x01);
    /// Get Log Page.
    pub const GET_LOG_PAGE: AdminOpcode = AdminOpcode(0x02);
    /// Delete I/O Completion Queue.
    pub const DELETE_CQ: AdminOpcode = AdminOpcode(0x04);
    /// Create I/O Completion Queue.
    pub const CREATE_CQ: AdminOpcode = AdminOpcode(0x05);
    /// Identify.
    pub const IDENTIFY: AdminOpcode = AdminOpcode(0x06);
    /// Abort.
    pub const ABORT: AdminOpcode = AdminOpcode(0x08);
    /// Set Features.
    pub const SET_FEATURES: AdminOpcode = AdminOpcode(0x09);
    /// Get Features.
    pub const GET_FEATURES: AdminOpcode = AdminOpcode(0x0a);
    /// Asynchronous Event Request.
    pub const ASYNC_EVENT_REQUEST: AdminOpcode = AdminOpcode(0x0c);
    /// Keep Alive.
    pub const KEEP_ALIVE: AdminOpcode = AdminOpcode(0x18);
    /// Doorbell Buffer Config.
    pub const DOORBELL_BUFFER_CONFIG: AdminOpcode = AdminOpcode(0x7c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let mut bytes = [0u8; 64];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let word = |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap());
        let sqe = Sqe::from_words(std::array::from_fn(word));
        assert_eq!(sqe.opcode(), 0x00);
        assert_eq!((sqe.fuse(), sqe.psdt()), (Fuse(0b01), Psdt(0)));
        assert_eq!(sqe.cid(), CommandId(0x0302));
        assert_eq!(sqe.nsid(), Nsid(0x0706_0504));
        assert_eq!(sqe.prps(), [0x1f1e_1d1c_1b1a_1918, 0x2726_2524_2322_2120]);
        assert_eq!(sqe.dword(10), 0x2b2a_2928);
        assert_eq!(sqe.dword(15), 0x3f3e_3d3c);
        assert_eq!(sqe.cdw10_11(), 0x2f2e_2d2c_2b2a_2928);
        let sgl = sqe.sgl();
        assert_eq!(
            (sgl.address(), sgl.length()),
            (0x1f1e_1d1c_1b1a_1918, 0x2322_2120)
        );
        assert_eq!((sgl.kind(), sgl.subtype()), (SglType(2), 7));
        assert_eq!(sqe.dword(16), 0);
    }

    #[test]
    fn an_entry_is_built_as_it_is_read() {
        let cdw = [10, 11, 12, 13, 14, 15];
        let sqe = Sqe::new(0x02, Nsid(7), [1, 2], cdw).with_cid(CommandId(9));
        let sqe = sqe.with_psdt(Psdt::SGL);
        assert_eq!(
            (sqe.nvm_opcode(), sqe.nsid(), sqe.cid()),
            (NvmOpcode::READ, Nsid(7), CommandId(9))
        );
        assert_eq!((sqe.psdt(), sqe.prps()), (Psdt::SGL, [1, 2]));
        assert_eq!([10, 11, 12, 13, 14, 15].map(|n| sqe.dword(n)), cdw);
    }
}

//! Identify data structures (NVMe Base 2.0, 5.17.2; NVM Command Set 1.0, 4.1.5): 4096 bytes each.

use bitfield_struct::bitfield;
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Controller or Namespace Structure.
pub mod cns {
    /// Namespace, NVM command set.
    pub const NAMESPACE: u8 = 0x00;
    /// Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespace identifiers.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace identification descriptors.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// Namespace, specific to a command set.
    pub const CSI_NAMESPACE: u8 = 0x05;
    /// Controller, specific to a command set.
    pub const CSI_CONTROLLER: u8 = 0x06;
    /// Active namespace identifiers of a command set.
    pub const CSI_ACTIVE_NAMESPACES: u8 = 0x07;
    /// Namespace, independent of command sets.
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// I/O command set combinations.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// Bytes of every identify data structure.
pub const IDENTIFY_BYTES: usize = 4096;
/// Command Set Identifier of the NVM command set.
pub const CSI_NVM: u8 = 0;

/// Identify Controller (CNS 01h).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub struct IdentifyController {
    pub vid: U16,
    pub ssvid: U16,
    pub sn: [u8; 20],
    pub mn: [u8; 40],
    pub fr: [u8; 8],
    pub rab: u8,
    pub ieee: [u8; 3],
    pub cmic: u8,
    pub mdts: u8,
    pub cntlid: U16,
    pub ver: U32,
    pub rtd3r: U32,
    pub rtd3e: U32,
    pub oaes: U32,
    pub ctratt: U32,
    pub rrls: U16,
    reserved_102: [u8; 9],
    pub cntrltype: u8,
    pub fguid: [u8; 16],
    pub crdt: [U16; 3],
    reserved_134: [u8; 119],
    pub nvmsr: u8,
    pub vwci: u8,
    pub mec: u8,
    pub oacs: U16,
    pub acl: u8,
    pub aerl: u8,
    pub frmw: u8,
    pub lpa: u8,
    pub elpe: u8,
    pub npss: u8,
    pub avscc: u8,
    pub apsta: u8,
    pub wctemp: U16,
    pub cctemp: U16,
    pub mtfa: U16,
    pub hmpre: U32,
    pub hmmin: U32,
    pub tnvmcap: U128,
    pub unvmcap: U128,
    pub rpmbs: U32,
    pub edstt: U16,
    pub dsto: u8,
    pub fwug: u8,
    pub kas: U16,
    pub hctma: U16,
    pub mntmt: U16,
    pub mxtmt: U16,
    pub sanicap: U32,
    pub hmminds: U32,
    pub hmmaxd: U16,
    pub nsetidmax: U16,
    pub endgidmax: U16,
    pub anatt: u8,
    pub anacap: u8,
    pub anagrpmax: U32,
    pub nanagrpid: U32,
    pub pels: U32,
    pub domain: U16,
    reserved_358: [u8; 10],
    pub megcap: U128,
    reserved_384: [u8; 128],
    pub sqes: u8,
    pub cqes: u8,
    pub maxcmd: U16,
    pub nn: U32,
    pub oncs: U16,
    pub fuses: U16,
    pub fna: u8,
    pub vwc: u8,
    pub awun: U16,
    pub awupf: U16,
    pub icsvscc: u8,
    pub nwpc: u8,
    pub acwu: U16,
    pub cdfs: U16,
    pub sgls: U32,
    pub mnan: U32,
    pub maxdna: U128,
    pub maxcna: U32,
    reserved_564: [u8; 204],
    pub subnqn: [u8; 256],
    reserved_1024: [u8; 1024],
    pub power_states: [[u8; 32]; 32],
    vendor: [u8; 1024],
}
const _: () = assert!(size_of::<IdentifyController>() == IDENTIFY_BYTES);

/// Controller Attributes.
#[bitfield(u32)]
pub struct Ctratt {
    /// The host identifier may have 128 bits.
    pub host_identifier_128: bool,
    #[bits(31)]
    reserved: u32,
}
const _: () = assert!(size_of::<Ctratt>() == 4);

/// Size of queue entries as powers of two.
#[bitfield(u8)]
pub struct EntrySize {
    /// Required.
    #[bits(4)]
    pub required: u8,
    /// Largest.
    #[bits(4)]
    pub largest: u8,
}
const _: () = assert!(size_of::<EntrySize>() == 1);

impl IdentifyController {
    /// Controller Type: I/O controller.
    pub const IO_CONTROLLER: u8 = 1;
}

/// Optional Admin Command Support.
#[bitfield(u16)]
pub struct Oacs {
    #[bits(8)]
    reserved_1: u8,
    /// Doorbell Buffer Config.
    pub doorbell_buffer: bool,
    #[bits(7)]
    reserved_2: u8,
}
const _: () = assert!(size_of::<Oacs>() == 2);

/// Optional NVM Command Support.
#[bitfield(u16)]
pub struct Oncs {
    /// Compare.
    pub compare: bool,
    /// Write Uncorrectable.
    pub write_uncorrectable: bool,
    /// Dataset Management.
    pub dataset_management: bool,
    /// Write Zeroes.
    pub write_zeroes: bool,
    /// Save field of Set Features and Select field of Get Features.
    pub save_and_select: bool,
    /// Reservations.
    pub reservations: bool,
    /// Timestamp feature.
    pub timestamp: bool,
    /// Verify.
    pub verify: bool,
    /// Copy.
    pub copy: bool,
    #[bits(7)]
    reserved: u8,
}
const _: () = assert!(size_of::<Oncs>() == 2);

/// Volatile Write Cache.
#[bitfield(u8)]
pub struct Vwc {
    /// Present.
    pub present: bool,
    /// What a Flush of all namespaces does: 2 = it fails, 3 = it works.
    #[bits(2)]
    pub flush_all: u8,
    #[bits(5)]
    reserved: u8,
}
const _: () = assert!(size_of::<Vwc>() == 1);

impl Vwc {
    /// Flush of namespace FFFFFFFFh fails with Invalid Namespace or Format.
    pub const FLUSH_ALL_FAILS: u8 = 2;
}

/// SGL Support.
#[bitfield(u32)]
pub struct Sgls {
    /// 1 = supported at any alignment.
    #[bits(2)]
    pub supported: u8,
    #[bits(14)]
    reserved_1: u16,
    /// Bit bucket descriptors.
    pub bit_bucket: bool,
    /// Contiguous metadata pointer.
    pub metadata_contiguous: bool,
    /// An SGL may be longer than the transfer.
    pub longer: bool,
    #[bits(13)]
    reserved_2: u16,
}
const _: () = assert!(size_of::<Sgls>() == 4);

impl Sgls {
    /// SGLs are supported; data blocks have any alignment and length.
    pub const ANY_ALIGNMENT: u8 = 1;
}

/// Controller Multi-Path I/O and Namespace Sharing Capabilities.
#[bitfield(u8)]
pub struct Cmic {
    /// More than one port.
    pub ports: bool,
    /// More than one controller.
    pub controllers: bool,
    #[bits(6)]
    reserved: u8,
}
const _: () = assert!(size_of::<Cmic>() == 1);

/// Firmware Updates.
#[bitfield(u8)]
pub struct Frmw {
    /// Slot 1 is read only.
    pub slot_1_read_only: bool,
    /// Number of slots.
    #[bits(3)]
    pub slots: u8,
    #[bits(4)]
    reserved: u8,
}
const _: () = assert!(size_of::<Frmw>() == 1);

/// Log Page Attributes.
#[bitfield(u8)]
pub struct Lpa {
    /// SMART per namespace.
    pub smart_per_namespace: bool,
    /// Commands Supported and Effects log page.
    pub effects: bool,
    /// Offsets and more than 4 KiB in Get Log Page.
    pub extended_data: bool,
    /// Telemetry.
    pub telemetry: bool,
    /// Persistent Event log page.
    pub persistent_events: bool,
    /// Supported Log Pages, Feature Identifiers Supported and Effects, NVMe-MI Commands Supported
    /// and Effects, and what commands act on in Commands Supported and Effects.
    pub supported_pages: bool,
    #[bits(2)]
    reserved: u8,
}
const _: () = assert!(size_of::<Lpa>() == 1);

/// Identify Namespace of the NVM command set (CNS 00h).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub struct IdentifyNamespace {
    pub nsze: U64,
    pub ncap: U64,
    pub nuse: U64,
    pub nsfeat: u8,
    pub nlbaf_z: u8,
    pub flbas: u8,
    pub mc: u8,
    pub dpc: u8,
    pub dps: u8,
    pub nmic: u8,
    pub rescap: u8,
    pub fpi: u8,
    pub dlfeat: u8,
    pub nawun: U16,
    pub nawupf: U16,
    pub nacwu: U16,
    pub nabsn: U16,
    pub nabo: U16,
    pub nabspf: U16,
    pub noiob: U16,
    pub nvmcap: U128,
    pub npwg_z: U16,
    pub npwa_z: U16,
    pub npdg_z: U16,
    pub npda_z: U16,
    pub nows_z: U16,
    pub mssrl: U16,
    pub mcl: U32,
    pub msrc: u8,
    reserved_81: [u8; 11],
    pub anagrpid: U32,
    reserved_96: [u8; 3],
    pub nsattr: u8,
    pub nvmsetid: U16,
    pub endgid: U16,
    pub nguid: [u8; 16],
    pub eui64: [u8; 8],
    pub lbaf: [LbaFormat; 64],
    vendor: [u8; 3712],
}
const _: () = assert!(size_of::<IdentifyNamespace>() == IDENTIFY_BYTES);

/// An LBA format.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LbaFormat {
    /// Metadata bytes.
    pub ms: U16,
    /// Block size as a power of two.
    pub lbads: u8,
    /// Relative performance.
    pub rp: u8,
}
const _: () = assert!(size_of::<LbaFormat>() == 4);

/// Formatted LBA Size.
#[bitfield(u8)]
pub struct Flbas {
    /// Bits 3:0 of the format's index.
    #[bits(4)]
    pub index_low: u8,
    /// Metadata follows the data of each block.
    pub extended: bool,
    /// Bits 5:4 of the format's index.
    #[bits(2)]
    pub index_high: u8,
    #[bits(1)]
    reserved: u8,
}

impl IdentifyNamespace {
    /// The LBA format in use, for a host.
    pub fn formatted(&self) -> LbaFormat {
        let flbas = Flbas::from(self.flbas);
        self.lbaf[usize::from(flbas.index_high()) * 16 + usize::from(flbas.index_low())]
    }
}

/// Namespace Features.
#[bitfield(u8)]
pub struct Nsfeat {
    /// Thin provisioning.
    pub thin: bool,
    /// Namespace atomicity fields are valid.
    pub atomicity: bool,
    /// Deallocated or Unwritten Logical Block error.
    pub deallocated_error: bool,
    /// NGUID and EUI64 are never reused.
    pub uid_reuse: bool,
    /// NPWG, NPWA, NPDG, NPDA and NOWS are valid.
    pub optimal: bool,
    #[bits(3)]
    reserved: u8,
}
const _: () = assert!(size_of::<Nsfeat>() == 1);

/// Deallocate Logical Block Features.
#[bitfield(u8)]
pub struct Dlfeat {
    /// What a deallocated block reads as: 0 = not told, 1 = zeroes.
    #[bits(3)]
    pub reads: u8,
    /// Deallocate bit of Write Zeroes.
    pub write_zeroes: bool,
    #[bits(4)]
    reserved: u8,
}
const _: () = assert!(size_of::<Dlfeat>() == 1);

impl Dlfeat {
    /// Deallocated blocks read as zeroes.
    pub const ZEROES: u8 = 1;
}

/// Namespace Multi-path I/O and Namespace Sharing Capabilities.
#[bitfield(u8)]
pub struct Nmic {
    /// May be attached to more than one controller.
    pub shared: bool,
    #[bits(7)]
    reserved: u8,
}
const _: () = assert!(size_of::<Nmic>() == 1);

/// Namespace Attributes.
#[bitfield(u8)]
pub struct Nsattr {
    /// Currently Write Protected.
    pub write_protected: bool,
    #[bits(7)]
    reserved: u8,
}
const _: () = assert!(size_of::<Nsattr>() == 1);

/// Identify Namespace independent of command sets (CNS 08h).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub struct IndependentNamespace {
    pub nsfeat: u8,
    pub nmic: u8,
    pub rescap: u8,
    pub fpi: u8,
    pub anagrpid: U32,
    pub nsattr: u8,
    reserved_9: u8,
    pub nvmsetid: U16,
    pub endgid: U16,
    pub nstat: u8,
    reserved_15: [u8; 4081],
}
const _: () = assert!(size_of::<IndependentNamespace>() == IDENTIFY_BYTES);

impl IndependentNamespace {
    /// NSTAT: the namespace is ready.
    pub const READY: u8 = 1;
}

/// Header of a Namespace Identification Descriptor (CNS 03h).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DescriptorHeader {
    /// Type.
    pub nidt: u8,
    /// Length of what follows the header.
    pub nidl: u8,
    /// Zero.
    pub reserved: U16,
}
const _: () = assert!(size_of::<DescriptorHeader>() == 4);

impl DescriptorHeader {
    /// Type: Namespace Globally Unique Identifier.
    pub const NGUID: u8 = 2;
    /// Type: UUID.
    pub const UUID: u8 = 3;
    /// Type: Command Set Identifier.
    pub const CSI: u8 = 4;
}

/// The first I/O command set combination (CNS 1Ch): the NVM command set alone.
pub const NVM_COMBINATION: u64 = 1 << CSI_NVM;

/// An empty structure.
pub fn zeroed<T: FromZeros>() -> T {
    T::new_zeroed()
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// Asserts the byte offset of each field, as the figures of the specification give it.
    macro_rules! assert_offsets {
        ($type:ty: $($field:ident $offset:literal,)*) => {
            $(assert_eq!(offset_of!($type, $field), $offset, stringify!($field));)*
        };
    }

    #[test]
    fn controller_fields_are_where_the_specification_has_them() {
        assert_offsets!(IdentifyController:
            vid 0, ssvid 2, sn 4, mn 24, fr 64, rab 72, ieee 73, cmic 76, mdts 77, cntlid 78,
            ver 80, rtd3r 84, rtd3e 88, oaes 92, ctratt 96, rrls 100, cntrltype 111, fguid 112,
            crdt 128, nvmsr 253, vwci 254, mec 255, oacs 256, acl 258, aerl 259, frmw 260, lpa 261,
            elpe 262, npss 263, avscc 264, apsta 265, wctemp 266, cctemp 268, mtfa 270, hmpre 272,
            hmmin 276, tnvmcap 280, unvmcap 296, rpmbs 312, edstt 316, dsto 318, fwug 319, kas 320,
            hctma 322, mntmt 324, mxtmt 326, sanicap 328, hmminds 332, hmmaxd 336, nsetidmax 338,
            endgidmax 340, anatt 342, anacap 343, anagrpmax 344, nanagrpid 348, pels 352,
            domain 356, megcap 368, sqes 512, cqes 513, maxcmd 514, nn 516, oncs 520, fuses 522,
            fna 524, vwc 525, awun 526, awupf 528, icsvscc 530, nwpc 531, acwu 532, cdfs 534,
            sgls 536, mnan 540, maxdna 544, maxcna 560, subnqn 768, power_states 2048,
        );
    }

    #[test]
    fn namespace_fields_are_where_the_specification_has_them() {
        assert_offsets!(IdentifyNamespace:
            nsze 0, ncap 8, nuse 16, nsfeat 24, nlbaf_z 25, flbas 26, mc 27, dpc 28, dps 29,
            nmic 30, rescap 31, fpi 32, dlfeat 33, nawun 34, nawupf 36, nacwu 38, nabsn 40,
            nabo 42, nabspf 44, noiob 46, nvmcap 48, npwg_z 64, npwa_z 66, npdg_z 68, npda_z 70,
            nows_z 72, mssrl 74, mcl 76, msrc 80, anagrpid 92, nsattr 99, nvmsetid 100, endgid 102,
            nguid 104, eui64 120, lbaf 128,
        );
        assert_offsets!(LbaFormat: ms 0, lbads 2, rp 3,);
        assert_offsets!(IndependentNamespace:
            nsfeat 0, nmic 1, rescap 2, fpi 3, anagrpid 4, nsattr 8, nvmsetid 10, endgid 12,
            nstat 14,
        );
        assert_offsets!(DescriptorHeader: nidt 0, nidl 1,);
    }

    #[test]
    fn bits_are_where_the_specification_has_them() {
        assert_eq!(u32::from(Ctratt::new().with_host_identifier_128(true)), 1);
        assert_eq!(u8::from(Cmic::new().with_controllers(true)), 1 << 1);
        assert_eq!(u16::from(Oacs::new().with_doorbell_buffer(true)), 1 << 8);
        let frmw = Frmw::new().with_slot_1_read_only(true).with_slots(1);
        assert_eq!(u8::from(frmw), 0b11);
        assert_eq!(u8::from(Lpa::new().with_effects(true)), 1 << 1);
        assert_eq!(u8::from(Lpa::new().with_extended_data(true)), 1 << 2);
        assert_eq!(u8::from(Lpa::new().with_supported_pages(true)), 1 << 5);
        let size = EntrySize::new().with_required(6).with_largest(7);
        assert_eq!(u8::from(size), 0x76);
        assert_eq!(u16::from(Oncs::new().with_compare(true)), 1);
        assert_eq!(u16::from(Oncs::new().with_dataset_management(true)), 1 << 2);
        assert_eq!(u16::from(Oncs::new().with_write_zeroes(true)), 1 << 3);
        assert_eq!(u16::from(Oncs::new().with_save_and_select(true)), 1 << 4);
        assert_eq!(u16::from(Oncs::new().with_timestamp(true)), 1 << 6);
        let vwc = Vwc::new().with_present(true);
        assert_eq!(u8::from(vwc.with_flush_all(Vwc::FLUSH_ALL_FAILS)), 0b101);
        let sgls = Sgls::new().with_supported(Sgls::ANY_ALIGNMENT);
        assert_eq!(u32::from(sgls.with_bit_bucket(true)), 0x1_0001);
        assert_eq!(u32::from(Sgls::new().with_longer(true)), 1 << 18);
        assert_eq!(u8::from(Nsfeat::new().with_optimal(true)), 1 << 4);
        let dlfeat = Dlfeat::new().with_reads(Dlfeat::ZEROES);
        assert_eq!(u8::from(dlfeat.with_write_zeroes(true)), 0b1001);
        assert_eq!(u8::from(Nmic::new().with_shared(true)), 1);
        assert_eq!(u8::from(Nsattr::new().with_write_protected(true)), 1);
        assert_eq!(IndependentNamespace::READY, 1);
    }
}

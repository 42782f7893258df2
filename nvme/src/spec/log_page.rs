//! Log pages (NVMe Base 2.0, 5.16.1).

use bitfield_struct::bitfield;
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Log page identifiers.
pub mod lid {
    /// Error Information.
    pub const ERROR: u8 = 0x01;
    /// SMART / Health Information.
    pub const SMART: u8 = 0x02;
    /// Firmware Slot Information.
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// Changed Namespace List.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects.
    pub const EFFECTS: u8 = 0x05;
}

/// An entry of the Error Information log page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorEntry {
    /// Errors up to and including this one; 0 = the entry is empty.
    pub error_count: U64,
    /// Submission queue.
    pub sqid: U16,
    /// Command identifier.
    pub cid: U16,
    /// Status with the phase tag in bit 0.
    pub status: U16,
    /// Byte and bit of the command that is wrong; FFFFh = none in particular.
    pub parameter_location: U16,
    /// First logical block concerned.
    pub lba: U64,
    /// Namespace.
    pub nsid: U32,
    /// Vendor specific log page with more.
    pub vendor: u8,
    /// Transport; 0 = not told.
    pub trtype: u8,
    reserved_30: [u8; 2],
    /// Command specific information.
    pub command_specific: U64,
    /// Transport specific information.
    pub transport_specific: U16,
    reserved_42: [u8; 22],
}
const _: () = assert!(size_of::<ErrorEntry>() == 64);

/// SMART / Health Information.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct Smart {
    /// Critical warnings, one bit each.
    pub critical_warning: u8,
    /// Kelvin.
    pub composite_temperature: U16,
    /// Percent.
    pub available_spare: u8,
    /// Percent.
    pub available_spare_threshold: u8,
    /// Percent; may exceed 100.
    pub percentage_used: u8,
    /// Endurance group critical warnings.
    pub endurance_group: u8,
    reserved_7: [u8; 25],
    /// In units of 1000 times 512 bytes, rounded up.
    pub data_units_read: U128,
    /// In units of 1000 times 512 bytes, rounded up.
    pub data_units_written: U128,
    /// Read and Compare commands.
    pub host_reads: U128,
    /// Write commands.
    pub host_writes: U128,
    /// Minutes.
    pub busy_minutes: U128,
    /// Power cycles.
    pub power_cycles: U128,
    /// Hours.
    pub power_on_hours: U128,
    /// Shutdowns without notice.
    pub unsafe_shutdowns: U128,
    /// Media and data integrity errors.
    pub media_errors: U128,
    /// Error log entries over the life of the controller.
    pub error_entries: U128,
    /// Minutes.
    pub warning_temperature_time: U32,
    /// Minutes.
    pub critical_temperature_time: U32,
    /// Kelvin; 0 = no such sensor.
    pub sensors: [U16; 8],
    reserved_216: [u8; 296],
}
const _: () = assert!(size_of::<Smart>() == 512);

/// Firmware Slot Information.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FirmwareSlots {
    /// Active Firmware Info: the slot in use in bits 2:0.
    pub afi: u8,
    reserved_1: [u8; 7],
    /// Firmware revision of slots 1 to 7.
    pub revisions: [[u8; 8]; 7],
    reserved_64: [u8; 448],
}
const _: () = assert!(size_of::<FirmwareSlots>() == 512);

/// What a command does, in the Commands Supported and Effects log page.
#[bitfield(u32)]
pub struct Effect {
    /// The command is supported.
    pub supported: bool,
    /// It may change data.
    pub changes_data: bool,
    /// It may change capabilities of a namespace.
    pub changes_namespace: bool,
    /// It may change the inventory of namespaces.
    pub changes_inventory: bool,
    /// It may change capabilities of the controller.
    pub changes_controller: bool,
    #[bits(27)]
    reserved: u32,
}

/// Commands Supported and Effects.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CommandEffects {
    /// Admin commands by opcode.
    pub admin: [U32; 256],
    /// I/O commands by opcode.
    pub io: [U32; 256],
    reserved_2048: [u8; 2048],
}
const _: () = assert!(size_of::<CommandEffects>() == 4096);

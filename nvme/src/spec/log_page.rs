//! Log pages (NVMe Base 2.0, 5.16.1).

use bitfield_struct::bitfield;
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Log page identifiers.
pub mod lid {
    /// Supported Log Pages.
    pub const SUPPORTED_PAGES: u8 = 0x00;
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
    /// Feature Identifiers Supported and Effects.
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// NVMe-MI Commands Supported and Effects.
    pub const MI_EFFECTS: u8 = 0x13;
}

/// Whether a log page is supported.
#[bitfield(u32)]
pub struct PageSupport {
    /// Log Page Identifier Supported.
    pub supported: bool,
    /// Index Offset Supported.
    pub index_offset: bool,
    #[bits(14)]
    reserved: u16,
    /// Specific to the page.
    pub specific: u16,
}
const _: () = assert!(size_of::<PageSupport>() == 4);

/// Supported Log Pages: a [`PageSupport`] per identifier.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SupportedPages {
    /// By identifier.
    pub pages: [U32; 256],
}
const _: () = assert!(size_of::<SupportedPages>() == 1024);

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
    /// [`ErrorStatus`].
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

impl ErrorEntry {
    /// `sqid` and `cid` of an error that is not of one command, `parameter_location` of an error
    /// that is nowhere in particular.
    pub const NONE: u16 = 0xffff;
}

/// Status Field of an error entry.
#[bitfield(u16)]
pub struct ErrorStatus {
    /// Phase tag; may be left clear.
    pub phase: bool,
    /// Bits of a [`Status`](super::Status).
    #[bits(15)]
    pub status: u16,
}
const _: () = assert!(size_of::<ErrorStatus>() == 2);

/// Critical warnings of SMART / Health Information.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct CriticalWarning {
    /// The available spare is below its threshold.
    pub spare: bool,
    /// A temperature has reached one of its thresholds.
    pub temperature: bool,
    /// The subsystem became less reliable.
    pub reliability: bool,
    /// All media became read only.
    pub read_only: bool,
    /// The backup of volatile memory failed.
    pub backup: bool,
    /// The persistent memory region became read only or less reliable.
    pub pmr: bool,
    #[bits(2)]
    reserved: u8,
}
const _: () = assert!(size_of::<CriticalWarning>() == 1);

/// SMART / Health Information.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct Smart {
    /// [`CriticalWarning`].
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
    /// [`ActiveFirmware`].
    pub afi: u8,
    reserved_1: [u8; 7],
    /// Firmware revision of slots 1 to 7.
    pub revisions: [[u8; 8]; 7],
    reserved_64: [u8; 448],
}
const _: () = assert!(size_of::<FirmwareSlots>() == 512);

/// Active Firmware Info.
#[bitfield(u8)]
pub struct ActiveFirmware {
    /// The slot in use.
    #[bits(3)]
    pub slot: u8,
    #[bits(1)]
    reserved_1: u8,
    /// The slot in use after the next reset; 0 = not told.
    #[bits(3)]
    pub next_slot: u8,
    #[bits(1)]
    reserved_2: u8,
}
const _: () = assert!(size_of::<ActiveFirmware>() == 1);

/// What a command or a feature does beyond its result.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Effect {
    /// It is supported.
    pub supported: bool,
    /// It may change data.
    pub changes_data: bool,
    /// It may change capabilities of a namespace.
    pub changes_namespace: bool,
    /// It may change the inventory of namespaces.
    pub changes_inventory: bool,
    /// It may change capabilities of the controller.
    pub changes_controller: bool,
    #[bits(11)]
    reserved_1: u16,
    /// What must not be under way meanwhile: 0 = anything may, 1 = other commands to the
    /// namespace, 2 = to any namespace. Not of a feature.
    #[bits(3)]
    pub exclusive: u8,
    /// Takes a UUID index.
    pub uuid: bool,
    /// Acts on a namespace.
    pub on_namespace: bool,
    /// Acts on the controller.
    pub on_controller: bool,
    /// Acts on an NVM set.
    pub on_nvm_set: bool,
    /// Acts on an endurance group.
    pub on_endurance_group: bool,
    /// Acts on a domain.
    pub on_domain: bool,
    /// Acts on the NVM subsystem.
    pub on_subsystem: bool,
    #[bits(6)]
    reserved_2: u8,
}
const _: () = assert!(size_of::<Effect>() == 4);

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

/// Feature Identifiers Supported and Effects.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeatureEffects {
    /// An [`Effect`] by feature identifier.
    pub features: [U32; 256],
}
const _: () = assert!(size_of::<FeatureEffects>() == 1024);

/// Bytes of NVMe-MI Commands Supported and Effects: an [`Effect`] per opcode, and reserved bytes.
pub const MI_EFFECTS_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::spec::Status;

    #[test]
    fn an_error_entry_is_laid_out_as_the_specification_has_it() {
        let offsets = [
            (offset_of!(ErrorEntry, error_count), 0),
            (offset_of!(ErrorEntry, sqid), 8),
            (offset_of!(ErrorEntry, cid), 10),
            (offset_of!(ErrorEntry, status), 12),
            (offset_of!(ErrorEntry, parameter_location), 14),
            (offset_of!(ErrorEntry, lba), 16),
            (offset_of!(ErrorEntry, nsid), 24),
            (offset_of!(ErrorEntry, vendor), 28),
            (offset_of!(ErrorEntry, trtype), 29),
            (offset_of!(ErrorEntry, command_specific), 32),
            (offset_of!(ErrorEntry, transport_specific), 40),
        ];
        for (found, expected) in offsets {
            assert_eq!(found, expected);
        }
        let status = ErrorStatus::new().with_status(Status::INVALID_QUEUE_SIZE.bits());
        assert_eq!(u16::from(status), 0x8204);
    }

    #[test]
    fn the_health_log_is_laid_out_as_the_specification_has_it() {
        let offsets = [
            (offset_of!(Smart, critical_warning), 0),
            (offset_of!(Smart, composite_temperature), 1),
            (offset_of!(Smart, available_spare), 3),
            (offset_of!(Smart, available_spare_threshold), 4),
            (offset_of!(Smart, percentage_used), 5),
            (offset_of!(Smart, endurance_group), 6),
            (offset_of!(Smart, data_units_read), 32),
            (offset_of!(Smart, data_units_written), 48),
            (offset_of!(Smart, host_reads), 64),
            (offset_of!(Smart, host_writes), 80),
            (offset_of!(Smart, busy_minutes), 96),
            (offset_of!(Smart, power_cycles), 112),
            (offset_of!(Smart, power_on_hours), 128),
            (offset_of!(Smart, unsafe_shutdowns), 144),
            (offset_of!(Smart, media_errors), 160),
            (offset_of!(Smart, error_entries), 176),
            (offset_of!(Smart, warning_temperature_time), 192),
            (offset_of!(Smart, critical_temperature_time), 196),
            (offset_of!(Smart, sensors), 200),
        ];
        for (found, expected) in offsets {
            assert_eq!(found, expected);
        }
        let warning = CriticalWarning::new().with_temperature(true);
        assert_eq!(u8::from(warning.with_read_only(true)), 0b1010);
    }

    #[test]
    fn the_other_pages_are_laid_out_as_the_specification_has_them() {
        assert_eq!(offset_of!(FirmwareSlots, revisions), 8);
        let firmware = ActiveFirmware::new().with_slot(1).with_next_slot(2);
        assert_eq!(u8::from(firmware), 0x21);
        assert_eq!(offset_of!(CommandEffects, io), 1024);
        let effect = Effect::new().with_supported(true).with_changes_data(true);
        assert_eq!(u32::from(effect), 0b11);
        assert_eq!(
            u32::from(Effect::new().with_changes_controller(true)),
            1 << 4
        );
        assert_eq!(u32::from(Effect::new().with_exclusive(2)), 2 << 16);
        assert_eq!(u32::from(Effect::new().with_uuid(true)), 1 << 19);
        assert_eq!(u32::from(Effect::new().with_on_namespace(true)), 1 << 20);
        assert_eq!(u32::from(Effect::new().with_on_controller(true)), 1 << 21);
        assert_eq!(u32::from(Effect::new().with_on_subsystem(true)), 1 << 25);
        let support = PageSupport::new().with_supported(true).with_specific(1);
        assert_eq!(u32::from(support), 0x0001_0001);
    }
}

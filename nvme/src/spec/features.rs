//! Features (NVMe Base 2.0, 5.27.1; NVM Command Set 1.0, 4.1.3): identifiers and the values in
//! command dword 11 or in the data buffer.

use bitfield_struct::bitfield;

/// Feature identifiers.
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power Management.
    pub const POWER_MANAGEMENT: u8 = 0x02;
    /// Temperature Threshold.
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    /// Error Recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile Write Cache.
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    /// Number of Queues.
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    /// Interrupt Coalescing.
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    /// Interrupt Vector Configuration.
    pub const INTERRUPT_VECTOR: u8 = 0x09;
    /// Write Atomicity Normal.
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    /// Asynchronous Event Configuration.
    pub const ASYNC_EVENTS: u8 = 0x0b;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 0x0e;
    /// Keep Alive Timer.
    pub const KEEP_ALIVE: u8 = 0x0f;
    /// I/O Command Set Profile.
    pub const COMMAND_SET_PROFILE: u8 = 0x19;
    /// Host Identifier.
    pub const HOST_IDENTIFIER: u8 = 0x81;
}

/// Power Management.
#[bitfield(u32)]
pub struct PowerManagement {
    /// Power State.
    #[bits(5)]
    pub state: u8,
    /// Workload Hint.
    #[bits(3)]
    pub workload: u8,
    #[bits(24)]
    reserved: u32,
}
const _: () = assert!(size_of::<PowerManagement>() == 4);

/// Temperature Threshold.
#[bitfield(u32)]
pub struct TemperatureThreshold {
    /// Kelvin.
    pub threshold: u16,
    /// Which temperature: the composite one, 1-8 = a sensor, or all to set.
    #[bits(4)]
    pub sensor: u8,
    /// Which threshold of it: over or under.
    #[bits(2)]
    pub kind: u8,
    #[bits(10)]
    reserved: u16,
}
const _: () = assert!(size_of::<TemperatureThreshold>() == 4);

impl TemperatureThreshold {
    /// Sensor: the composite temperature.
    pub const COMPOSITE: u8 = 0;
    /// Sensor, only to set: every temperature there is.
    pub const ALL: u8 = 0xf;
    /// Kind: the temperature is not to reach it from below.
    pub const OVER: u8 = 0;
    /// Kind: the temperature is not to reach it from above.
    pub const UNDER: u8 = 1;
}

/// Error Recovery.
#[bitfield(u32)]
pub struct ErrorRecovery {
    /// Time Limited Error Recovery in units of 100 ms; 0 = no limit.
    pub tler: u16,
    /// Deallocated or Unwritten Logical Block Error Enable.
    pub dulbe: bool,
    #[bits(15)]
    reserved: u16,
}
const _: () = assert!(size_of::<ErrorRecovery>() == 4);

/// Volatile Write Cache.
#[bitfield(u32)]
pub struct WriteCache {
    /// Volatile Write Cache Enable.
    pub enable: bool,
    #[bits(31)]
    reserved: u32,
}
const _: () = assert!(size_of::<WriteCache>() == 4);

/// Number of Queues: zero-based, as asked for and as granted.
#[bitfield(u32)]
pub struct NumberOfQueues {
    /// I/O submission queues.
    pub sqs_z: u16,
    /// I/O completion queues.
    pub cqs_z: u16,
}
const _: () = assert!(size_of::<NumberOfQueues>() == 4);

/// Interrupt Coalescing.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptCoalescing {
    /// Completions to gather, zero-based.
    pub threshold_z: u8,
    /// Time to gather them in units of 100 us; 0 = no delay.
    pub time_100us: u8,
    reserved: u16,
}
const _: () = assert!(size_of::<InterruptCoalescing>() == 4);

/// Interrupt Vector Configuration.
#[bitfield(u32)]
pub struct InterruptVectorConfig {
    /// The vector.
    pub vector: u16,
    /// Coalescing Disable.
    pub disabled: bool,
    #[bits(15)]
    reserved: u16,
}
const _: () = assert!(size_of::<InterruptVectorConfig>() == 4);

/// Write Atomicity Normal.
#[bitfield(u32)]
pub struct WriteAtomicity {
    /// Disable Normal: the unit that survives a power failure is enough.
    pub disable: bool,
    #[bits(31)]
    reserved: u32,
}
const _: () = assert!(size_of::<WriteAtomicity>() == 4);

/// Asynchronous Event Configuration: which events may be reported.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEventConfig {
    /// SMART / Health Critical Warnings, the bits of
    /// [`CriticalWarning`](super::log_page::CriticalWarning).
    pub smart: u8,
    /// Namespace Attribute Notices.
    pub namespace_attributes: bool,
    /// Firmware Activation Notices.
    pub firmware_activation: bool,
    #[bits(22)]
    reserved: u32,
}
const _: () = assert!(size_of::<AsyncEventConfig>() == 4);

/// The data of Timestamp.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Timestamp {
    /// Milliseconds.
    #[bits(48)]
    pub ms: u64,
    /// The controller may have stopped counting meanwhile.
    pub synch: bool,
    /// Since when: 0 = a reset, or what the host had set.
    #[bits(3)]
    pub origin: u8,
    #[bits(12)]
    reserved: u16,
}
const _: () = assert!(size_of::<Timestamp>() == 8);

impl Timestamp {
    /// Origin: counted from 0 at a reset.
    pub const ORIGIN_RESET: u8 = 0;
    /// Origin: counted from what the host set.
    pub const ORIGIN_HOST: u8 = 1;
}

/// I/O Command Set Profile.
#[bitfield(u32)]
pub struct CommandSetProfile {
    /// I/O Command Set Combination Index.
    #[bits(9)]
    pub index: u16,
    #[bits(23)]
    reserved: u32,
}
const _: () = assert!(size_of::<CommandSetProfile>() == 4);

/// Command dword 11 of Host Identifier.
#[bitfield(u32)]
pub struct HostIdentifier {
    /// Enable Extended Host Identifier: 128 bits instead of 64.
    pub extended: bool,
    #[bits(31)]
    reserved: u32,
}
const _: () = assert!(size_of::<HostIdentifier>() == 4);

/// What Get Features answers for [`Select::CAPABILITIES`]: the capabilities of a feature.
#[bitfield(u32)]
pub struct FeatureCapabilities {
    /// Can be saved.
    pub saveable: bool,
    /// Belongs to a namespace.
    pub namespace_specific: bool,
    /// Can be changed.
    pub changeable: bool,
    #[bits(29)]
    reserved: u32,
}
const _: () = assert!(size_of::<FeatureCapabilities>() == 4);

/// Select of Get Features: which value is asked for (5.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Select(pub u8);

impl Select {
    /// The value in effect.
    pub const CURRENT: Select = Select(0);
    /// The value after a reset, if none was saved.
    pub const DEFAULT: Select = Select(1);
    /// The value that was saved; if it cannot be, the default.
    pub const SAVED: Select = Select(2);
    /// [`FeatureCapabilities`].
    pub const CAPABILITIES: Select = Select(3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_where_the_specification_has_them() {
        let power = PowerManagement::from(0x45);
        assert_eq!((power.state(), power.workload()), (5, 2));
        let threshold = TemperatureThreshold::from(0x001f_0157);
        assert_eq!(threshold.threshold(), 343);
        assert_eq!((threshold.sensor(), threshold.kind()), (0xf, 1));
        let recovery = ErrorRecovery::from(0x0001_0007);
        assert_eq!((recovery.tler(), recovery.dulbe()), (7, true));
        assert!(WriteCache::from(1).enable() && WriteAtomicity::from(1).disable());
        let queues = NumberOfQueues::from(0x0003_0007);
        assert_eq!((queues.sqs_z(), queues.cqs_z()), (7, 3));
        let coalescing = InterruptCoalescing::from(0x0a07);
        assert_eq!((coalescing.threshold_z(), coalescing.time_100us()), (7, 10));
        let vector = InterruptVectorConfig::from(0x0001_0003);
        assert_eq!((vector.vector(), vector.disabled()), (3, true));
        let events = AsyncEventConfig::from(0x021f);
        assert_eq!(
            (events.smart(), events.namespace_attributes()),
            (0x1f, false)
        );
        assert!(events.firmware_activation());
        assert!(AsyncEventConfig::from(0x0100).namespace_attributes());
        assert_eq!(CommandSetProfile::from(0x3ff).index(), 0x1ff);
        assert!(HostIdentifier::from(1).extended());
        let all = FeatureCapabilities::new()
            .with_saveable(true)
            .with_namespace_specific(true)
            .with_changeable(true);
        assert_eq!(u32::from(all), 0b111);
    }

    #[test]
    fn a_timestamp_is_six_bytes_and_how_they_came_about() {
        let timestamp = Timestamp::new()
            .with_ms(0x0605_0403_0201)
            .with_synch(true)
            .with_origin(Timestamp::ORIGIN_HOST);
        let bytes = u64::from(timestamp).to_le_bytes();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 0b011, 0]);
    }
}

//! Features (NVMe Base 2.0, 5.27.1): identifiers and the values in command dword 11.

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

/// Number of Queues: zero-based, as asked for and as granted.
#[bitfield(u32)]
pub struct NumberOfQueues {
    /// I/O submission queues.
    pub sqs_z: u16,
    /// I/O completion queues.
    pub cqs_z: u16,
}

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

/// Temperature Threshold.
#[bitfield(u32)]
pub struct TemperatureThreshold {
    /// Kelvin.
    pub threshold: u16,
    /// 0 = composite, 1-8 = a sensor, 15 = all.
    #[bits(4)]
    pub sensor: u8,
    /// 0 = over, 1 = under.
    #[bits(2)]
    pub kind: u8,
    #[bits(10)]
    reserved: u16,
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

/// What Get Features with Select = 3 answers: the capabilities of a feature.
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

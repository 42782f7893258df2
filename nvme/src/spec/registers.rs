//! Controller registers in BAR0 (NVMe Base 2.0, 3.1.3).

use bitfield_struct::bitfield;

/// Offsets of the registers.
pub mod offset {
    /// Controller Capabilities, 8 bytes.
    pub const CAP: u64 = 0x00;
    /// Version.
    pub const VS: u64 = 0x08;
    /// Interrupt Mask Set.
    pub const INTMS: u64 = 0x0c;
    /// Interrupt Mask Clear.
    pub const INTMC: u64 = 0x10;
    /// Controller Configuration.
    pub const CC: u64 = 0x14;
    /// Controller Status.
    pub const CSTS: u64 = 0x1c;
    /// NVM Subsystem Reset.
    pub const NSSR: u64 = 0x20;
    /// Admin Queue Attributes.
    pub const AQA: u64 = 0x24;
    /// Admin Submission Queue Base Address, 8 bytes.
    pub const ASQ: u64 = 0x28;
    /// Admin Completion Queue Base Address, 8 bytes.
    pub const ACQ: u64 = 0x30;
    /// Controller Memory Buffer Location: the first register after ACQ.
    pub const CMBLOC: u64 = 0x38;
    /// Controller Ready Timeouts.
    pub const CRTO: u64 = 0x68;
}

/// Controller Capabilities.
#[bitfield(u64)]
pub struct Cap {
    /// Maximum Queue Entries Supported, zero-based.
    pub mqes: u16,
    /// Contiguous Queues Required.
    pub cqr: bool,
    /// Arbitration Mechanism Supported.
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    reserved_1: u8,
    /// Timeout in units of 500 ms.
    pub to: u8,
    /// Doorbell Stride.
    #[bits(4)]
    pub dstrd: u8,
    /// NVM Subsystem Reset Supported.
    pub nssrs: bool,
    /// Command Sets Supported: NVM.
    pub css_nvm: bool,
    #[bits(5)]
    reserved_2: u8,
    /// Command Sets Supported: one or more I/O command sets (CC.CSS 110b).
    pub css_io_command_sets: bool,
    /// Command Sets Supported: no I/O command set.
    pub css_admin_only: bool,
    /// Boot Partition Support.
    pub bps: bool,
    /// Controller Power Scope.
    #[bits(2)]
    pub cps: u8,
    /// Memory Page Size Minimum: 4 KiB << this.
    #[bits(4)]
    pub mpsmin: u8,
    /// Memory Page Size Maximum: 4 KiB << this.
    #[bits(4)]
    pub mpsmax: u8,
    /// Persistent Memory Region Supported.
    pub pmrs: bool,
    /// Controller Memory Buffer Supported.
    pub cmbs: bool,
    /// NVM Subsystem Shutdown Supported.
    pub nsss: bool,
    /// Controller Ready With Media Supported.
    pub crms_ready_with_media: bool,
    /// Controller Ready Independent of Media Supported.
    pub crms_ready_independent: bool,
    #[bits(3)]
    reserved_3: u8,
}
const _: () = assert!(size_of::<Cap>() == 8);

/// Version.
#[bitfield(u32)]
pub struct Vs {
    /// Tertiary.
    pub tertiary: u8,
    /// Minor.
    pub minor: u8,
    /// Major.
    pub major: u16,
}
const _: () = assert!(size_of::<Vs>() == 4);

impl Vs {
    /// NVMe 2.0.
    pub const V2_0: Vs = Vs::new().with_major(2);
}

/// Controller Configuration.
#[bitfield(u32)]
pub struct Cc {
    /// Enable.
    pub en: bool,
    #[bits(3)]
    reserved_1: u8,
    /// I/O Command Set Selected.
    #[bits(3)]
    pub css: u8,
    /// Memory Page Size: 4 KiB << this.
    #[bits(4)]
    pub mps: u8,
    /// Arbitration Mechanism Selected.
    #[bits(3)]
    pub ams: u8,
    /// Shutdown Notification.
    #[bits(2)]
    pub shn: u8,
    /// I/O Submission Queue Entry Size as a power of two.
    #[bits(4)]
    pub iosqes: u8,
    /// I/O Completion Queue Entry Size as a power of two.
    #[bits(4)]
    pub iocqes: u8,
    /// Controller Ready Independent of Media Enable.
    pub crime: bool,
    #[bits(7)]
    reserved_2: u8,
}
const _: () = assert!(size_of::<Cc>() == 4);

impl Cc {
    /// NVM command set.
    pub const CSS_NVM: u8 = 0b000;
    /// All supported I/O command sets.
    pub const CSS_ALL_IO: u8 = 0b110;
    /// I/O submission queue entries of 64 bytes.
    pub const IOSQES_64: u8 = 6;
    /// I/O completion queue entries of 16 bytes.
    pub const IOCQES_16: u8 = 4;
}

/// Controller Status.
#[bitfield(u32)]
pub struct Csts {
    /// Ready.
    pub rdy: bool,
    /// Controller Fatal Status.
    pub cfs: bool,
    /// Shutdown Status.
    #[bits(2)]
    pub shst: ShutdownStatus,
    /// NVM Subsystem Reset Occurred.
    pub nssro: bool,
    /// Processing Paused.
    pub pp: bool,
    /// Shutdown Type.
    pub st: bool,
    #[bits(25)]
    reserved: u32,
}
const _: () = assert!(size_of::<Csts>() == 4);

/// CSTS.SHST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShutdownStatus {
    /// No shutdown was asked for.
    Normal,
    /// A shutdown is under way.
    Occurring,
    /// The shutdown is done.
    Complete,
}

impl ShutdownStatus {
    const fn into_bits(self) -> u8 {
        self as u8
    }

    const fn from_bits(bits: u8) -> ShutdownStatus {
        match bits {
            0 => ShutdownStatus::Normal,
            1 => ShutdownStatus::Occurring,
            _ => ShutdownStatus::Complete,
        }
    }
}

/// Admin Queue Attributes.
#[bitfield(u32)]
pub struct Aqa {
    /// Admin Submission Queue Size, zero-based.
    #[bits(12)]
    pub asqs_z: u16,
    #[bits(4)]
    reserved_1: u8,
    /// Admin Completion Queue Size, zero-based.
    #[bits(12)]
    pub acqs_z: u16,
    #[bits(4)]
    reserved_2: u8,
}
const _: () = assert!(size_of::<Aqa>() == 4);

/// Controller Ready Timeouts.
#[bitfield(u32)]
pub struct Crto {
    /// Controller Ready With Media Timeout in units of 500 ms.
    pub crwmt: u16,
    /// Controller Ready Independent of Media Timeout in units of 500 ms.
    pub crimt: u16,
}
const _: () = assert!(size_of::<Crto>() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_specification_has_them() {
        let cap = u64::from(Cap::new().with_mqes(0x3ff).with_cqr(true).with_to(20));
        assert_eq!(cap, 0x1401_03ff);
        assert_eq!(u64::from(Cap::new().with_nssrs(true)), 1 << 36);
        assert_eq!(u64::from(Cap::new().with_css_nvm(true)), 1 << 37);
        assert_eq!(
            u64::from(Cap::new().with_css_io_command_sets(true)),
            1 << 43
        );
        assert_eq!(u64::from(Cap::new().with_mpsmax(4)), 4 << 52);
        assert_eq!(
            u64::from(Cap::new().with_crms_ready_with_media(true)),
            1 << 59
        );
        assert_eq!(u32::from(Vs::V2_0), 0x0002_0000);
        let cc = Cc::from(0x0046_4001);
        assert_eq!(
            (cc.en(), cc.shn(), cc.iosqes(), cc.iocqes()),
            (true, 1, 6, 4)
        );
        assert_eq!(Cc::from(0x0046_0061).css(), Cc::CSS_ALL_IO);
        assert_eq!(Csts::from(9).shst(), ShutdownStatus::Complete);
        assert_eq!(
            (
                Aqa::from(0x00ff_003f).acqs_z(),
                Aqa::from(0x00ff_003f).asqs_z()
            ),
            (255, 63)
        );
    }
}

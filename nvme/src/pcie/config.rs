//! PCI configuration space: a PCI Express endpoint of class NVM Express with one register BAR, one
//! BAR for the MSI-X table, and function-level reset.
//!
//! Two byte maps say everything: what is read, and which bits the host may change. The rest is
//! what writes mean. Bus Master Enable and the power state are kept for the host, but a
//! controller is brought to rest by CC.EN and by resets, not by them.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of configuration space.
pub const CONFIG_BYTES: usize = 4096;
/// BAR that holds the MSI-X table and its pending bits; BAR0 holds registers and doorbells.
pub const MSIX_BAR: u8 = 4;
/// Offset of the pending bits in [`MSIX_BAR`].
pub const PBA_OFFSET: u64 = 0x1000;
/// Bytes of [`MSIX_BAR`].
pub const MSIX_BAR_BYTES: u64 = 0x2000;

/// Vendor. No driver looks at it (all bind to the class); the number is assigned to nobody, so
/// that no quirk meant for another device applies to this one.
pub const VENDOR: u16 = 0xbe11;
const DEVICE: u16 = 0x0001;
/// Mass storage, non-volatile memory, NVM Express I/O controller.
const CLASS: [u8; 3] = [0x02, 0x08, 0x01];

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const BAR4: usize = 0x20;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const PM: usize = 0x40;
const POWER_STATE: usize = PM + 4;
const EXPRESS: usize = 0x48;
const DEVICE_CONTROL: usize = EXPRESS + 8;
const MSIX: usize = 0x84;
const MSIX_CONTROL: usize = MSIX + 2;

/// Memory space, bus master, parity, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = 0x0546;
const INTX_DISABLE: u16 = 1 << 10;
const STATUS_INTERRUPT: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;
const INITIATE_FLR: u16 = 1 << 15;
const POWER_STATE_MASK: u8 = 0b11;
const D0: u8 = 0;
const D3_HOT: u8 = 3;

/// What a write to configuration space asks for beyond changing bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigEffect {
    /// Nothing.
    None,
    /// Interrupt delivery may have changed.
    Interrupts,
    /// A function-level reset.
    FunctionLevelReset,
}

/// The configuration space of one controller.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Box<[u8; CONFIG_BYTES]>,
    writable: Box<[u8; CONFIG_BYTES]>,
    initial: Box<[u8; CONFIG_BYTES]>,
}

impl ConfigSpace {
    /// The space after power-on: a BAR0 of `bar0_bytes` (a power of two), `vectors` MSI-X vectors,
    /// and an interrupt pin only if `intx`.
    pub fn new(bar0_bytes: u64, vectors: u16, intx: bool) -> ConfigSpace {
        let mut space = ConfigSpace {
            bytes: Box::new([0; CONFIG_BYTES]),
            writable: Box::new([0; CONFIG_BYTES]),
            initial: Box::new([0; CONFIG_BYTES]),
        };
        space.header(bar0_bytes, intx);
        space.power_management();
        space.express();
        space.msix(vectors);
        space.initial = space.bytes.clone();
        space
    }

    fn header(&mut self, bar0_bytes: u64, intx: bool) {
        self.put(0x00, &VENDOR.to_le_bytes(), &[]);
        self.put(0x02, &DEVICE.to_le_bytes(), &[]);
        self.put(COMMAND, &[0; 2], &COMMAND_WRITABLE.to_le_bytes());
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes(), &[]);
        self.put(0x09, &CLASS, &[]);
        self.put(0x0c, &[0], &[0xff]);
        self.bar(BAR0, bar0_bytes);
        self.bar(BAR4, MSIX_BAR_BYTES);
        self.put(0x2c, &VENDOR.to_le_bytes(), &[]);
        self.put(0x2e, &DEVICE.to_le_bytes(), &[]);
        self.put(0x34, &[PM as u8], &[]);
        self.put(INTERRUPT_LINE, &[0], &[0xff]);
        self.put(INTERRUPT_PIN, &[u8::from(intx)], &[]);
    }

    /// A 64-bit, not prefetchable memory BAR: the bits below its size read as zero.
    fn bar(&mut self, at: usize, bytes: u64) {
        const MEMORY_64: u64 = 0b100;
        self.put(at, &MEMORY_64.to_le_bytes(), &(!(bytes - 1)).to_le_bytes());
    }

    /// PCI Power Management 1.2: D0 and D3hot, no soft reset on the way back.
    fn power_management(&mut self) {
        self.put(PM, &[0x01, EXPRESS as u8, 0x03, 0x00], &[]);
        self.put(POWER_STATE, &[0x08, 0x00], &[POWER_STATE_MASK, 0x00]);
    }

    /// PCI Express Base, 7.5.3: an endpoint that can do function-level resets, on a link of four
    /// lanes at 8 GT/s.
    fn express(&mut self) {
        const ROLE_BASED_ERRORS_AND_FLR: u32 = 1 << 15 | 1 << 28;
        const LINK: u32 = 3 | 4 << 4;
        self.put(EXPRESS, &[0x10, MSIX as u8, 0x02, 0x00], &[]);
        self.put(EXPRESS + 4, &ROLE_BASED_ERRORS_AND_FLR.to_le_bytes(), &[]);
        self.put(
            DEVICE_CONTROL,
            &0x2810u16.to_le_bytes(),
            &0x78ffu16.to_le_bytes(),
        );
        self.put(EXPRESS + 0x0c, &LINK.to_le_bytes(), &[]);
        self.put(EXPRESS + 0x10, &[0; 2], &0x00c8u16.to_le_bytes());
        self.put(EXPRESS + 0x12, &(LINK as u16).to_le_bytes(), &[]);
        self.put(EXPRESS + 0x2c, &0x0000_000eu32.to_le_bytes(), &[]);
        self.put(EXPRESS + 0x30, &3u16.to_le_bytes(), &[]);
    }

    fn msix(&mut self, vectors: u16) {
        let control = (vectors - 1).to_le_bytes();
        let writable = (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes();
        self.put(MSIX, &[0x11, 0x00], &[]);
        self.put(MSIX_CONTROL, &control, &writable);
        self.put(MSIX + 4, &u32::from(MSIX_BAR).to_le_bytes(), &[]);
        self.put(
            MSIX + 8,
            &(PBA_OFFSET as u32 | u32::from(MSIX_BAR)).to_le_bytes(),
            &[],
        );
    }

    fn put(&mut self, at: usize, bytes: &[u8], writable: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
    }

    /// Reads `data.len()` bytes from `offset`; what is past the end reads as ones. `asserted` is
    /// the level of the interrupt pin.
    pub fn read(&self, offset: usize, data: &mut [u8], asserted: bool) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
            if at == STATUS && asserted {
                *byte |= STATUS_INTERRUPT as u8;
            }
        }
    }

    /// Writes `data` at `offset`, as far as bits there are writable.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> ConfigEffect {
        let interrupts = self.interrupt_bits();
        let power = self.bytes[POWER_STATE];
        for (&byte, at) in data.iter().zip(offset..) {
            let (Some(old), Some(&mask)) = (self.bytes.get_mut(at), self.writable.get(at)) else {
                break;
            };
            *old = *old & !mask | byte & mask;
        }
        // A state that the device does not have is not entered (PCI Express Base, 7.5.2.2).
        if !matches!(self.bytes[POWER_STATE] & POWER_STATE_MASK, D0 | D3_HOT) {
            self.bytes[POWER_STATE] = power;
        }
        let flr = data
            .iter()
            .zip(offset..)
            .any(|(&byte, at)| at == DEVICE_CONTROL + 1 && byte & (INITIATE_FLR >> 8) as u8 != 0);
        match flr {
            true => ConfigEffect::FunctionLevelReset,
            false if self.interrupt_bits() != interrupts => ConfigEffect::Interrupts,
            false => ConfigEffect::None,
        }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn interrupt_bits(&self) -> (bool, u16) {
        (self.intx_disabled(), self.word(MSIX_CONTROL))
    }

    /// Whether the device has an interrupt pin.
    pub fn has_pin(&self) -> bool {
        self.bytes[INTERRUPT_PIN] != 0
    }

    /// Whether the host disabled the interrupt pin.
    pub fn intx_disabled(&self) -> bool {
        self.word(COMMAND) & INTX_DISABLE != 0
    }

    /// Whether the host enabled MSI-X.
    pub fn msix_enabled(&self) -> bool {
        self.word(MSIX_CONTROL) & MSIX_ENABLE != 0
    }

    /// Everything as after power-on.
    pub fn reset(&mut self) {
        self.bytes = self.initial.clone();
    }

    /// Notes what the host wrote in the durable state.
    pub fn save(&self, words: &[AtomicU32]) {
        for (word, bytes) in words.iter().zip(self.bytes.chunks_exact(4)) {
            word.store(
                u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                Relaxed,
            );
        }
    }

    /// Takes the writable bits back from the durable state; the others are what they are.
    pub fn restore(&mut self, words: &[AtomicU32]) {
        for (at, word) in (0..).step_by(4).zip(words) {
            self.write(at, &word.load(Relaxed).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(0x4000, 64, true)
    }

    fn dword(space: &ConfigSpace, at: usize) -> u32 {
        let mut bytes = [0; 4];
        space.read(at, &mut bytes, false);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn the_class_is_nvm_express() {
        assert_eq!(dword(&space(), 0x08) >> 8, 0x01_08_02);
    }

    #[test]
    fn bars_answer_sizing_with_their_size_and_type() {
        let mut space = space();
        for (at, size) in [(BAR0, 0x4000u32), (BAR4, 0x2000)] {
            space.write(at, &[0xff; 8]);
            assert_eq!(dword(&space, at), !(size - 1) | 0b100);
            assert_eq!(dword(&space, at + 4), u32::MAX);
        }
        // BAR2, BAR3 and the ROM do not exist.
        for at in [0x18, 0x1c, 0x30] {
            space.write(at, &[0xff; 4]);
            assert_eq!(dword(&space, at), 0);
        }
    }

    #[test]
    fn capabilities_are_a_list_of_three() {
        let space = space();
        let mut found = Vec::new();
        let mut at = dword(&space, 0x34) as usize & 0xff;
        while at != 0 {
            let header = dword(&space, at);
            found.push(header & 0xff);
            at = (header >> 8 & 0xff) as usize;
        }
        assert_eq!(found, [0x01, 0x10, 0x11]);
    }

    #[test]
    fn the_msix_capability_names_its_vectors_and_a_bar_of_its_own() {
        let space = space();
        assert_eq!(dword(&space, MSIX) >> 16 & 0x7ff, 63);
        assert_eq!(dword(&space, MSIX + 4) & 7, 4);
        assert_eq!(dword(&space, MSIX + 8), 0x1004);
    }

    #[test]
    fn initiating_a_reset_is_an_effect_and_never_a_bit() {
        let mut space = space();
        let effect = space.write(DEVICE_CONTROL, &0x8000u16.to_le_bytes());
        assert_eq!(effect, ConfigEffect::FunctionLevelReset);
        assert_eq!(dword(&space, DEVICE_CONTROL) & 0x8000, 0);
        assert_eq!(dword(&space, EXPRESS + 4) >> 28 & 1, 1, "FLR is announced");
        assert_eq!(space.write(DEVICE_CONTROL, &[0x10]), ConfigEffect::None);
    }

    #[test]
    fn a_power_state_that_is_not_there_is_not_entered() {
        let mut space = space();
        let state = |space: &ConfigSpace| dword(space, POWER_STATE) & 3;
        for (asked, entered) in [(1, 0), (2, 0), (3, 3), (1, 3), (2, 3), (0, 0)] {
            space.write(POWER_STATE, &[asked, 0]);
            assert_eq!(state(&space), entered, "D{asked}");
        }
    }

    #[test]
    fn interrupt_bits_are_noticed() {
        let mut space = space();
        assert_eq!(
            space.write(MSIX_CONTROL, &0x8000u16.to_le_bytes()),
            ConfigEffect::Interrupts
        );
        assert!(space.msix_enabled());
        assert_eq!(
            space.write(COMMAND, &0x0406u16.to_le_bytes()),
            ConfigEffect::Interrupts
        );
        assert!(space.intx_disabled());
        assert_eq!(
            space.write(COMMAND, &0x0406u16.to_le_bytes()),
            ConfigEffect::None
        );
        space.reset();
        assert!(!space.msix_enabled());
    }

    #[test]
    fn the_status_bit_shows_the_level_of_the_pin() {
        let mut status = [0; 2];
        space().read(STATUS, &mut status, true);
        assert_eq!(status[0], 0x18);
    }

    #[test]
    fn the_durable_copy_brings_the_host_s_bits_back() {
        let words = [const { AtomicU32::new(0) }; 64];
        let mut before = space();
        before.write(BAR0, &0xfebf_8000u32.to_le_bytes());
        before.write(COMMAND, &0x0406u16.to_le_bytes());
        before.save(&words);
        let mut after = space();
        after.restore(&words);
        assert_eq!(after.bytes, before.bytes);
    }

    proptest! {
        #[test]
        fn no_access_changes_a_read_only_bit(
            accesses in proptest::collection::vec(
                (0usize..5000, proptest::collection::vec(any::<u8>(), 0..9)), 0..50),
        ) {
            let fresh = space();
            let mut space = space();
            for (offset, data) in accesses {
                space.write(offset, &data);
                let mut read = data.clone();
                space.read(offset, &mut read, false);
            }
            for at in 0..CONFIG_BYTES {
                prop_assert_eq!((space.bytes[at] ^ fresh.bytes[at]) & !space.writable[at], 0);
            }
        }
    }
}

//! Controller registers (NVMe Base 2.0, 3.1.3): what the host reads, and what its writes ask for.
//!
//! The registers know no queue and no reset; they say what changed and the controller acts.

use std::sync::atomic::Ordering::Relaxed;

use bdev::memory::Iova;

use super::doorbell::DOORBELL_STRIDE;
use super::state::ControllerBlock;
use crate::spec::registers::{Aqa, Cap, Cc, Crto, Csts, ShutdownStatus, Vs, offset};

/// How long the host has to wait for CSTS.RDY at most, in units of 500 ms: longer than a quiesce
/// waits for the kernel.
const READY_TIMEOUT_500MS: u8 = 20;
/// Largest memory page size: 4 KiB << this.
const PAGE_SIZE_MAX: u8 = 4;
/// "NVMe", written to NSSR.
const SUBSYSTEM_RESET: u32 = 0x4e56_4d65;

/// What a register write asks of the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegisterEffects {
    /// CC.EN went from 0 to 1.
    pub enable: bool,
    /// CC.EN went from 1 to 0.
    pub disable: bool,
    /// CC.SHN asks for a shutdown.
    pub shutdown: bool,
    /// The mask of the interrupt pin changed.
    pub interrupt_mask: bool,
    /// NSSR asks for a reset of the NVM subsystem.
    pub subsystem_reset: bool,
}

/// What differs between controllers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterLimits {
    /// Most entries of an I/O queue.
    pub depth: u16,
    /// Whether NSSR may reset the subsystem: only if that is this controller alone, since a host
    /// must not be able to reset another host's controller.
    pub subsystem_reset: bool,
}

/// The registers of one controller.
#[derive(Clone, Debug)]
pub struct Registers {
    cap: Cap,
    cc: Cc,
    csts: Csts,
    aqa: Aqa,
    asq: u64,
    acq: u64,
    interrupt_mask: u32,
}

/// An admin queue as the registers describe it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdminQueueSpec {
    /// Guest address of entry 0.
    pub base: Iova,
    /// Number of entries.
    pub entries: u32,
}

impl Registers {
    /// The registers after power-on.
    pub fn new(limits: RegisterLimits) -> Registers {
        let cap = Cap::new()
            .with_mqes(limits.depth - 1)
            .with_cqr(true)
            .with_to(READY_TIMEOUT_500MS)
            .with_dstrd(DOORBELL_STRIDE as u8)
            .with_nssrs(limits.subsystem_reset)
            .with_css_nvm(true)
            .with_css_io_command_sets(true)
            .with_mpsmax(PAGE_SIZE_MAX)
            .with_crms_ready_with_media(true);
        Registers {
            cap,
            cc: Cc::new(),
            csts: Csts::new(),
            aqa: Aqa::new(),
            asq: 0,
            acq: 0,
            interrupt_mask: 0,
        }
    }

    /// Reads from `at`; a register that does not exist reads as 0.
    pub fn read(&self, at: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(at..) {
            let dword = self.dword(at & !3).to_le_bytes();
            *byte = dword[(at % 4) as usize];
        }
    }

    fn dword(&self, at: u64) -> u32 {
        let half = |value: u64, register: u64| (value >> (8 * (at - register))) as u32;
        match at {
            offset::CAP..offset::VS => half(self.cap.into(), offset::CAP),
            offset::VS => Vs::V2_0.into(),
            offset::INTMS | offset::INTMC => self.interrupt_mask,
            offset::CC => self.cc.into(),
            offset::CSTS => self.csts.into(),
            offset::AQA => self.aqa.into(),
            offset::ASQ..offset::ACQ => half(self.asq, offset::ASQ),
            offset::ACQ..offset::CMBLOC => half(self.acq, offset::ACQ),
            offset::CRTO => Crto::new().with_crwmt(READY_TIMEOUT_500MS.into()).into(),
            _ => 0,
        }
    }

    /// Writes 4 or 8 bytes at `at`; anything narrower, misaligned or not writable changes nothing.
    pub fn write(&mut self, at: u64, data: &[u8]) -> RegisterEffects {
        let mut effects = RegisterEffects::default();
        if at % 4 != 0 || data.len() % 4 != 0 {
            return effects;
        }
        for (bytes, at) in data.chunks_exact(4).zip((at..).step_by(4)) {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            self.write_dword(at, value, &mut effects);
        }
        effects
    }

    fn write_dword(&mut self, at: u64, value: u32, effects: &mut RegisterEffects) {
        match at {
            offset::INTMS => self.mask(self.interrupt_mask | value, effects),
            offset::INTMC => self.mask(self.interrupt_mask & !value, effects),
            offset::CC => self.write_cc(value.into(), effects),
            // NSSRO, write 1 to clear.
            offset::CSTS if Csts::from(value).nssro() => self.csts.set_nssro(false),
            offset::NSSR if value == SUBSYSTEM_RESET => {
                effects.subsystem_reset = self.cap.nssrs();
            }
            offset::AQA => self.aqa = Aqa::from(value),
            offset::ASQ => self.asq = self.asq & !0xffff_ffff | u64::from(value & !0xfff),
            HIGH_ASQ => self.asq = self.asq & 0xffff_ffff | u64::from(value) << 32,
            offset::ACQ => self.acq = self.acq & !0xffff_ffff | u64::from(value & !0xfff),
            HIGH_ACQ => self.acq = self.acq & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    fn mask(&mut self, mask: u32, effects: &mut RegisterEffects) {
        effects.interrupt_mask |= mask != self.interrupt_mask;
        self.interrupt_mask = mask;
    }

    fn write_cc(&mut self, cc: Cc, effects: &mut RegisterEffects) {
        let before = std::mem::replace(&mut self.cc, cc);
        effects.enable |= cc.en() && !before.en();
        effects.disable |= !cc.en() && before.en();
        effects.shutdown |= cc.shn() != 0 && before.shn() == 0;
    }

    /// What the host wants: CC.EN.
    pub fn wants_enable(&self) -> bool {
        self.cc.en()
    }

    /// CSTS.RDY.
    pub fn is_ready(&self) -> bool {
        self.csts.rdy()
    }

    /// CSTS.CFS.
    pub fn is_fatal(&self) -> bool {
        self.csts.cfs()
    }

    /// Whether a shutdown has been finished.
    pub fn is_shut_down(&self) -> bool {
        self.csts.shst() == ShutdownStatus::Complete
    }

    /// Whether a shutdown is under way.
    pub fn is_shutting_down(&self) -> bool {
        self.csts.shst() == ShutdownStatus::Occurring
    }

    /// The mask of the interrupt pin.
    pub fn interrupt_mask(&self) -> u32 {
        self.interrupt_mask
    }

    /// The memory page size as a power of two, for a controller that is enabled.
    pub fn page_shift(&self) -> u8 {
        12 + self.cc.mps().min(PAGE_SIZE_MAX)
    }

    /// The configuration as written.
    pub fn cc(&self) -> Cc {
        self.cc
    }

    /// The admin submission and completion queue, if the host configured something that a
    /// controller can be enabled with.
    pub fn admin_queues(&self) -> Option<(AdminQueueSpec, AdminQueueSpec)> {
        let page = 1u64 << self.page_shift();
        let supported = self.cc.mps() <= PAGE_SIZE_MAX
            && matches!(self.cc.css(), Cc::CSS_NVM | Cc::CSS_ALL_IO)
            && self.cc.ams() == 0
            && self.asq % page == 0
            && self.acq % page == 0
            && self.aqa.asqs_z() >= 1
            && self.aqa.acqs_z() >= 1;
        let spec = |base, entries_z: u16| AdminQueueSpec {
            base: Iova(base),
            entries: u32::from(entries_z) + 1,
        };
        supported.then(|| {
            (
                spec(self.asq, self.aqa.asqs_z()),
                spec(self.acq, self.aqa.acqs_z()),
            )
        })
    }

    /// Sets CSTS.RDY.
    pub fn set_ready(&mut self, ready: bool) {
        self.csts.set_rdy(ready);
    }

    /// Sets CSTS.CFS: nothing but a reset helps.
    pub fn set_fatal(&mut self) {
        self.csts.set_cfs(true);
    }

    /// Sets CSTS.SHST.
    pub fn set_shutdown(&mut self, status: ShutdownStatus) {
        self.csts.set_shst(status);
    }

    /// Sets CSTS.NSSRO.
    pub fn set_subsystem_reset_occurred(&mut self) {
        self.csts.set_nssro(true);
    }

    /// A controller reset: everything but the admin queue registers, and CC as the host wrote it
    /// meanwhile (NVMe Base 2.0, 3.7.2).
    pub fn controller_reset(&mut self) {
        self.csts = Csts::new().with_nssro(self.csts.nssro());
        self.interrupt_mask = 0;
        self.cc.set_shn(0);
    }

    /// Everything as after power-on.
    pub fn reset(&mut self) {
        let cap = self.cap;
        *self = Registers {
            cap,
            cc: Cc::new(),
            csts: Csts::new(),
            aqa: Aqa::new(),
            asq: 0,
            acq: 0,
            interrupt_mask: 0,
        };
    }

    /// Notes the registers in the durable state.
    pub fn save(&self, block: &ControllerBlock) {
        block.cc.store(self.cc.into(), Relaxed);
        block.csts.store(self.csts.into(), Relaxed);
        block.aqa.store(self.aqa.into(), Relaxed);
        block.asq.store(self.asq, Relaxed);
        block.acq.store(self.acq, Relaxed);
        block.interrupt_mask.store(self.interrupt_mask, Relaxed);
    }

    /// Takes the registers back from the durable state.
    pub fn restore(&mut self, block: &ControllerBlock) {
        self.cc = block.cc.load(Relaxed).into();
        self.csts = block.csts.load(Relaxed).into();
        self.aqa = block.aqa.load(Relaxed).into();
        self.asq = block.asq.load(Relaxed);
        self.acq = block.acq.load(Relaxed);
        self.interrupt_mask = block.interrupt_mask.load(Relaxed);
    }
}

const HIGH_ASQ: u64 = offset::ASQ + 4;
const HIGH_ACQ: u64 = offset::ACQ + 4;

//! The controller's registers, by messages (NVMe Base 2.0, 3.1.3 and 3.5).

use std::time::{Duration, Instant};

use nvme::spec::registers::{Cap, Cc, Csts, ShutdownStatus, Vs, offset};
use vfio_user::region;

use super::admin::AdminQueue;
use super::{DriverError, Link};

/// Configuration space: the command register and its bits (PCI Local Bus, 6.2.2).
mod command {
    pub(super) const OFFSET: u64 = 4;
    pub(super) const MEMORY_SPACE: u16 = 1 << 1;
    pub(super) const BUS_MASTER: u16 = 1 << 2;
    pub(super) const INTX_DISABLE: u16 = 1 << 10;
}

/// How often a state that is waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How long the target may take at least, whatever it promises.
const READY_WAIT_MIN: Duration = Duration::from_secs(1);

/// Normal shutdown (CC.SHN).
const SHUTDOWN_NORMAL: u8 = 1;

/// BAR0, and the little of configuration space that a driver needs.
pub(super) struct Registers {
    link: Link,
}

impl Registers {
    pub(super) fn new(link: Link) -> Registers {
        Registers { link }
    }

    /// Lets the device reach memory, and keeps it from raising its interrupt pin.
    pub(super) fn enable_bus_master(&self) -> Result<(), DriverError> {
        let bits = command::MEMORY_SPACE | command::BUS_MASTER | command::INTX_DISABLE;
        let mut client = self.link.client();
        Ok(client.region_write(region::CONFIG, command::OFFSET, &bits.to_le_bytes())?)
    }

    /// CAP, if it is that of a controller that we can drive.
    pub(super) fn capabilities(&self) -> Result<Cap, DriverError> {
        let capabilities = Cap::from(self.read64(offset::CAP)?);
        let usable = capabilities.css_nvm() || capabilities.css_io_command_sets();
        if usable && capabilities.mqes() > 0 {
            Ok(capabilities)
        } else {
            Err(DriverError::NotNvme {
                capabilities: capabilities.into(),
            })
        }
    }

    pub(super) fn version(&self) -> Result<Vs, DriverError> {
        Ok(Vs::from(self.read32(offset::VS)?))
    }

    /// Resets the controller, if a previous user left it enabled.
    pub(super) fn disable(&self, capabilities: Cap) -> Result<(), DriverError> {
        let configuration = Cc::from(self.read32(offset::CC)?);
        if configuration.en() {
            self.write32(offset::CC, configuration.with_en(false).into())?;
        }
        self.wait_for("disabled", capabilities, |status| !status.rdy())
    }

    /// Enables the controller with its admin queue and our entry sizes.
    pub(super) fn enable(&self, capabilities: Cap, admin: &AdminQueue) -> Result<(), DriverError> {
        let (submission, completion) = admin.bases();
        self.write32(offset::AQA, admin.attributes().into())?;
        self.write64(offset::ASQ, submission.0)?;
        self.write64(offset::ACQ, completion.0)?;
        let command_set = if capabilities.css_nvm() {
            Cc::CSS_NVM
        } else {
            Cc::CSS_ALL_IO
        };
        let configuration = Cc::new()
            .with_mps(capabilities.mpsmin())
            .with_css(command_set)
            .with_iosqes(Cc::IOSQES_64)
            .with_iocqes(Cc::IOCQES_16)
            .with_en(true);
        self.write32(offset::CC, configuration.into())?;
        self.wait_for("ready", capabilities, |status| {
            status.rdy() && !status.cfs()
        })
    }

    /// A normal shutdown (NVMe Base 2.0, 3.6.1).
    pub(super) fn shut_down(&self, capabilities: Cap) -> Result<(), DriverError> {
        let configuration = Cc::from(self.read32(offset::CC)?).with_shn(SHUTDOWN_NORMAL);
        self.write32(offset::CC, configuration.into())?;
        self.wait_for("shut down", capabilities, |status| {
            status.shst() == ShutdownStatus::Complete
        })
    }

    /// Waits for a state, as long as CAP.TO says, and the limit of a command at least.
    fn wait_for(
        &self,
        state: &'static str,
        capabilities: Cap,
        reached: impl Fn(Csts) -> bool,
    ) -> Result<(), DriverError> {
        let promised = Duration::from_millis(500) * u32::from(capabilities.to());
        let limit = promised.max(READY_WAIT_MIN);
        let start = Instant::now();
        loop {
            let bits = self.read32(offset::CSTS)?;
            let status = Csts::from(bits);
            if reached(status) {
                return Ok(());
            }
            let waited = start.elapsed();
            if status.cfs() && state == "ready" {
                return Err(DriverError::Fatal {
                    state,
                    status: bits,
                });
            }
            if waited >= limit {
                return Err(DriverError::NotReady {
                    state,
                    status: bits,
                    waited,
                });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn read32(&self, offset: u64) -> Result<u32, DriverError> {
        let mut bytes = [0; 4];
        let mut client = self.link.client();
        client.region_read(region::BAR0, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn write32(&self, offset: u64, value: u32) -> Result<(), DriverError> {
        let mut client = self.link.client();
        Ok(client.region_write(region::BAR0, offset, &value.to_le_bytes())?)
    }

    /// Lower half first, as the Linux driver does: not every device takes eight bytes at once.
    fn read64(&self, offset: u64) -> Result<u64, DriverError> {
        let low = self.read32(offset)?;
        let high = self.read32(offset + 4)?;
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    fn write64(&self, offset: u64, value: u64) -> Result<(), DriverError> {
        self.write32(offset, value as u32)?;
        self.write32(offset + 4, (value >> 32) as u32)
    }
}

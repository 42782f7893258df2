//! The controller as a vfio-user device.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use bdev::memory::{Iova, MemoryRegion, Protection};
use nvme::spec::registers::Cc;
use vfio_user::{Device, DmaMap, DmaRange, Errno, Outcome, RegionInfo, Reply, SetIrqs, SparseArea};

use super::PAGE;
use super::controller::Controller;

impl Device for Controller {
    fn region_info(&self, region: u32) -> RegionInfo {
        match region {
            vfio_user::region::BAR0 => RegionInfo {
                mmap: match self.model.doorbells_mapped {
                    true => vec![SparseArea {
                        offset: PAGE,
                        size: PAGE,
                    }],
                    false => Vec::new(),
                },
                ..RegionInfo::plain(0x4000)
            },
            vfio_user::region::CONFIG => RegionInfo::plain(0x1000),
            _ => RegionInfo::absent(),
        }
    }

    fn region_fd(&self, _: u32) -> Option<BorrowedFd<'_>> {
        self.model.doorbells_mapped.then(|| self.doorbells.fd())
    }

    fn irq_count(&self, _: u32) -> u32 {
        0
    }

    fn irq_flags(&self, _: u32) -> u32 {
        0
    }

    fn region_read(&mut self, region: u32, at: u64, data: &mut [u8]) -> Result<(), Errno> {
        let value = if region == vfio_user::region::BAR0 {
            self.register(at)
        } else {
            0
        };
        let bytes = value.to_le_bytes();
        data.copy_from_slice(bytes.get(..data.len()).ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn region_write(&mut self, region: u32, at: u64, data: &[u8]) -> Reply {
        if region == vfio_user::region::BAR0 {
            let value = u32::from_le_bytes(data.try_into().map_err(|_| Errno::EINVAL)?);
            if at < PAGE {
                self.set_register(at, value);
            } else {
                let order = Ordering::Relaxed;
                self.doorbells.store_u32(at as usize, value, order);
            }
        }
        Ok(Outcome::Done)
    }

    fn dma_map(&mut self, map: DmaMap, fd: Option<OwnedFd>) -> Reply {
        let fd = fd.ok_or(Errno::EINVAL)?;
        let backing = self.backings.open(fd, map.offset + map.len, true);
        let backing = backing.map_err(|_| Errno::EINVAL)?;
        let protection = Protection {
            read: map.read,
            write: map.write,
        };
        MemoryRegion::new(backing, map.offset, Iova(map.iova), map.len, protection)
            .and_then(|region| self.memory.map(region))
            .map_err(|_| Errno::EINVAL)?;
        Ok(Outcome::Done)
    }

    fn dma_unmap(&mut self, _: DmaRange) -> Reply {
        Ok(Outcome::Done)
    }

    fn set_irqs(&mut self, _: SetIrqs) -> Reply {
        Ok(Outcome::Done)
    }

    fn reset(&mut self) -> Reply {
        self.stop();
        Ok(Outcome::Done)
    }

    fn poll_pending(&mut self) -> Reply {
        Ok(Outcome::Done)
    }

    fn connected(&mut self) {}

    fn disconnected(&mut self) -> Outcome {
        self.cc = Cc::new();
        self.stop();
        self.memory.unmap_all();
        Outcome::Done
    }
}

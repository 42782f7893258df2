//! Questions about the device: DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_GET_REGION_IO_FDS,
//! DEVICE_GET_IRQ_INFO, DEVICE_FEATURE; and DEVICE_SET_IRQS, which is judged by the answers.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::Session;
use crate::device::{Device, Reply, SetIrqs};
use crate::frame::Draft;
use crate::protocol::{
    self, DeviceFeaturePayload, DeviceInfoPayload, IrqInfoPayload, RegionInfoPayload,
    RegionIoFdsPayload, SetIrqsPayload, feature_flags,
};
use crate::version::Terms;

impl Session {
    pub(super) fn device_info(&self, body: &[u8], draft: &mut Draft<'_>) -> Result<(), Errno> {
        let (request, _) = protocol::take::<DeviceInfoPayload>(body)?;
        fits::<DeviceInfoPayload>(request.argsz)?;
        let reply = DeviceInfoPayload {
            argsz: size_of::<DeviceInfoPayload>() as u32,
            flags: self.device.flags,
            num_regions: self.device.regions,
            num_irqs: self.device.irqs,
        };
        draft.put(reply.as_bytes());
        Ok(())
    }

    /// A client that has no room for the capabilities learns from `argsz` how much it needs, and
    /// asks again: only then it gets them, and the descriptor.
    pub(super) fn region_info(
        &self,
        body: &[u8],
        terms: Terms,
        device: &dyn Device,
        draft: &mut Draft<'_>,
    ) -> Result<(), Errno> {
        let (request, _) = protocol::take::<RegionInfoPayload>(body)?;
        fits::<RegionInfoPayload>(request.argsz)?;
        below(request.index, self.device.regions)?;
        let mut info = device.region_info(request.index);
        let fd = device
            .region_fd(request.index)
            .filter(|_| terms.fds_max > 0);
        if fd.is_none() {
            info.mmap.clear();
        }
        let reply = info.encode(request.index);
        if reply.len() <= request.argsz as usize {
            draft.put(&reply);
            if let Some(fd) = fd.filter(|_| !info.mmap.is_empty()) {
                draft.attach(fd.try_clone_to_owned().map_err(|_| Errno::EMFILE)?);
            }
        } else {
            draft.put(info.encode_without_capabilities(request.index).as_bytes());
        }
        Ok(())
    }

    /// There are none: the registers are not worth a descriptor, and doorbells are mapped.
    pub(super) fn region_io_fds(&self, body: &[u8], draft: &mut Draft<'_>) -> Result<(), Errno> {
        let (request, _) = protocol::take::<RegionIoFdsPayload>(body)?;
        fits::<RegionIoFdsPayload>(request.argsz)?;
        below(request.index, self.device.regions)?;
        if request.flags != 0 || request.count != 0 {
            return Err(Errno::EINVAL);
        }
        let argsz = size_of::<RegionIoFdsPayload>() as u32;
        draft.put(RegionIoFdsPayload { argsz, ..request }.as_bytes());
        Ok(())
    }

    pub(super) fn irq_info(
        &self,
        body: &[u8],
        device: &dyn Device,
        draft: &mut Draft<'_>,
    ) -> Result<(), Errno> {
        let (request, _) = protocol::take::<IrqInfoPayload>(body)?;
        fits::<IrqInfoPayload>(request.argsz)?;
        below(request.index, self.device.irqs)?;
        let reply = IrqInfoPayload {
            argsz: size_of::<IrqInfoPayload>() as u32,
            flags: device.irq_flags(request.index),
            index: request.index,
            count: device.irq_count(request.index),
        };
        draft.put(reply.as_bytes());
        Ok(())
    }

    pub(super) fn set_irqs(
        &self,
        body: &[u8],
        fds: &mut Vec<OwnedFd>,
        device: &mut dyn Device,
    ) -> Reply {
        let (request, data) = protocol::take::<SetIrqsPayload>(body)?;
        fits::<SetIrqsPayload>(request.argsz)?;
        below(request.index, self.device.irqs)?;
        let irqs = SetIrqs::decode(request, data, fds, device.irq_count(request.index))?;
        device.set_irqs(irqs)
    }
}

/// No feature of the specification is supported, as all are about migration: ENOTTY, which is what
/// Linux answers (`VFIO_DEVICE_FEATURE`), once the request makes sense.
pub(super) fn device_feature(body: &[u8]) -> Reply {
    let (request, _) = protocol::take::<DeviceFeaturePayload>(body)?;
    fits::<DeviceFeaturePayload>(request.argsz)?;
    let methods = request.flags & feature_flags::METHODS;
    let unknown = request.flags & !(feature_flags::METHODS | feature_flags::INDEX);
    let both = feature_flags::GET | feature_flags::SET;
    if methods == 0 || methods == both || unknown != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENOTTY)
}

/// `argsz` has to hold at least the fixed part of the reply.
fn fits<T: FromBytes>(argsz: u32) -> Result<(), Errno> {
    if (argsz as usize) < size_of::<T>() {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

fn below(index: u32, count: u32) -> Result<(), Errno> {
    if index < count {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

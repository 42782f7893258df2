//! From a submission queue entry to an Io that a block device has accepted.

use bdev::Io;
use bdev::memory::{GuestMemory, IoVecPool, IoVecs};

use super::data::Data;
use super::{Device, SlotIndex, tag_of};
use crate::nvm::Command;
use crate::pcie::message::ControllerView;
use crate::pcie::prp::DataError;
use crate::spec::{Nsid, QueueId, Sqe, Status};

/// What it takes to start the commands of one queue.
pub(super) struct Starter<'a> {
    pub(super) queue: QueueId,
    pub(super) devices: &'a mut [Option<Device>],
    pub(super) memory: &'a GuestMemory,
    pub(super) pool: &'a IoVecPool,
    pub(super) view: &'a ControllerView,
}

/// What is to become of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The device has it.
    Accepted,
    /// The device is full.
    Full,
    /// It completes with this status, without its device.
    Completed(Status),
    /// Its data could not be found.
    WithoutData(DataError),
    /// It becomes several Ios.
    Deallocate {
        /// How many ranges it has.
        ranges: u16,
    },
}

impl Starter<'_> {
    /// Judges a command and gives it to its device.
    #[inline(always)]
    pub(super) fn start(&mut self, slot: SlotIndex, sqe: &Sqe) -> Verdict {
        let device = match device_of(self.devices, sqe.nsid()) {
            Ok(device) => device,
            Err(status) => return Verdict::Completed(status),
        };
        let block = match Command::parse(sqe, &device.namespace, self.view) {
            Ok(Command::Block(block)) => block,
            Ok(Command::Nothing) => return Verdict::Completed(Status::SUCCESS),
            Ok(Command::Deallocate { ranges }) => return Verdict::Deallocate { ranges },
            Err(status) => return Verdict::Completed(status),
        };
        let Some(channel) = &mut device.channel else {
            return Verdict::Completed(Status::INTERNAL_ERROR);
        };
        // Gathered where it stays: a request is too large to be moved about.
        let mut io = Io {
            op: block.op,
            fua: block.fua,
            lba: block.lba,
            blocks: block.blocks,
            tag: tag_of(self.queue, slot),
            iovecs: IoVecs::new(),
        };
        if block.transfer_bytes != 0 {
            let data = Data {
                memory: self.memory,
                pool: self.pool,
                page_shift: self.view.page_shift,
            };
            if let Err(error) = data.gather(sqe, &block, &mut io.iovecs) {
                return Verdict::WithoutData(error);
            }
        }
        if self.memory.any_bad() {
            // The entry, or a list of its data, may be half the host's and half zeroes.
            return Verdict::Completed(Status::DATA_TRANSFER_ERROR);
        }
        match channel.submit(io) {
            Ok(()) => {
                device.in_flight += 1;
                Verdict::Accepted
            }
            Err(_full) => Verdict::Full,
        }
    }
}

/// The namespace that a command names.
#[inline]
pub(super) fn device_of(devices: &mut [Option<Device>], nsid: Nsid) -> Result<&mut Device, Status> {
    match devices.get_mut((nsid.0 as usize).wrapping_sub(1)) {
        Some(Some(device)) => Ok(device),
        // An identifier that exists but has nothing attached (NVMe Base 2.0, 3.2.1.5).
        Some(None) => Err(Status::INVALID_FIELD),
        None => Err(Status::INVALID_NAMESPACE),
    }
}

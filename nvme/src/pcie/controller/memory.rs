//! Guest memory of a controller, and the one operation of its client that may be under way.

use bdev::memory::{Iova, MapError, MemoryRegion};

use super::{Controller, Purpose};
use crate::pcie::message::ToGroup;
use crate::pcie::prp::{self, DataError};
use crate::spec::{Sqe, Status};

/// How long the client waits for an operation at most: QEMU gives a device up after 5 s.
pub const CLIENT_TIMEOUT_NS: u64 = 4_000_000_000;

/// What the client waits for, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClientWait {
    /// `None` = there is no client that could lose its patience.
    since_ns: Option<u64>,
    what: Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// Every poll group has the memory as it is now, and no Io touches what was unmapped.
    Memory,
    /// The controller is at rest.
    Rest,
}

/// The client has waited long enough. What it asked for goes on; no memory is let go before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("I/O that cannot be revoked did not end in time")]
pub struct TimedOut;

impl Controller {
    /// Guest memory that may be used from now on.
    ///
    /// # Errors
    /// The region overlaps another, or there are too many.
    pub fn map(&mut self, region: MemoryRegion) -> Result<(), MapError> {
        self.memory.map(region.clone())?;
        self.settle_admin();
        self.groups
            .broadcast(Purpose::Memory, |_| ToGroup::Map(region.clone()));
        self.wait_for(Wait::Memory);
        Ok(())
    }

    /// Guest memory that may not be used any more, exactly as it was mapped or several regions at
    /// once. Done when no Io touches it.
    ///
    /// # Errors
    /// Nothing is mapped there, or a region would be cut.
    pub fn unmap(&mut self, iova: Iova, len: u64) -> Result<(), MapError> {
        self.memory.unmap(iova, len)?;
        self.settle_admin();
        self.groups
            .broadcast(Purpose::Memory, |_| ToGroup::Unmap { iova, len });
        self.wait_for(Wait::Memory);
        Ok(())
    }

    /// No guest memory may be used any more.
    pub fn unmap_all(&mut self) {
        self.memory.unmap_all();
        self.settle_admin();
        self.groups
            .broadcast(Purpose::Memory, |_| ToGroup::UnmapAll);
        self.wait_for(Wait::Memory);
    }

    pub(super) fn wait_for(&mut self, what: Wait) {
        let since_ns = Some(self.now_ns);
        self.client = Some(ClientWait { since_ns, what });
    }

    /// Waits as long as it takes.
    pub(super) fn wait_patiently_for(&mut self, what: Wait) {
        self.client = Some(ClientWait {
            since_ns: None,
            what,
        });
    }

    /// Whether there is an operation that [`Controller::pending`] has yet to call ended.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.client.is_some()
    }

    /// Whether the operation that the client asked for last is done: `None` while it is under way.
    ///
    /// # Errors
    /// [`TimedOut`] after 4 s, once; the controller is fatal then (CSTS.CFS).
    pub fn pending(&mut self) -> Option<Result<(), TimedOut>> {
        let Some(wait) = self.client else {
            return Some(Ok(()));
        };
        if self.is_reached(wait.what) {
            self.client = None;
            return Some(Ok(()));
        }
        let since_ns = wait.since_ns?;
        if self.now_ns.saturating_sub(since_ns) < CLIENT_TIMEOUT_NS {
            return None;
        }
        self.client = None;
        self.fail("I/O did not end in time");
        Some(Err(TimedOut))
    }

    fn is_reached(&mut self, wait: Wait) -> bool {
        match wait {
            Wait::Memory => {
                !self
                    .groups
                    .is_waiting_for(|purpose| *purpose == Purpose::Memory)
                    && !self.memory.retired_busy()
            }
            Wait::Rest => self.is_at_rest(),
        }
    }

    /// Copies the data of an admin command to the host.
    pub(super) fn copy_to_host(&self, sqe: &Sqe, data: &[u8]) -> Result<(), Status> {
        let mut rest = data;
        let walked = self.walk(sqe, data.len(), |iova, len| {
            let (now, later) = rest.split_at(len);
            rest = later;
            Ok(self.memory.write(iova, now)?)
        });
        walked.map_err(status_of)
    }

    /// Copies the data of an admin command from the host.
    pub(super) fn copy_from_host(&self, sqe: &Sqe, data: &mut [u8]) -> Result<(), Status> {
        let mut done = 0;
        let walked = self.walk(sqe, data.len(), |iova, len| {
            let read = self.memory.read(iova, &mut data[done..done + len]);
            done += len;
            Ok(read?)
        });
        walked.map_err(status_of)
    }

    fn walk(
        &self,
        sqe: &Sqe,
        len: usize,
        mut piece: impl FnMut(Iova, usize) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let shift = self.page_shift();
        prp::walk(&self.memory, sqe.prps(), len as u64, shift, |iova, len| {
            piece(iova, len as usize)
        })
    }
}

/// What an admin command does while its memory is away is not worth waiting for.
fn status_of(error: DataError) -> Status {
    match error {
        DataError::Status(status) => status,
        DataError::NotMapped => Status::DATA_TRANSFER_ERROR,
        DataError::Busy => Status::INTERNAL_ERROR,
    }
}

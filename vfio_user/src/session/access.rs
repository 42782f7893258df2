//! REGION_READ, REGION_WRITE and REGION_WRITE_MULTI. They reach every region, mappable or not.

use nix::errno::Errno;
use zerocopy::IntoBytes;

use super::{Bounds, Session, done};
use crate::device::{Device, Outcome, Reply};
use crate::frame::Draft;
use crate::protocol::{self, RegionAccess, SingleWrite, WriteMultiPayload};
use crate::version::Terms;

/// Writes that one REGION_WRITE_MULTI may hold; QEMU sends up to 200. It bounds how long a message
/// keeps the thread.
pub const WRITES_PER_MESSAGE: usize = 256;
/// Bytes of its longest payload.
pub(super) const WRITE_MULTI_MAX: usize =
    size_of::<WriteMultiPayload>() + WRITES_PER_MESSAGE * size_of::<SingleWrite>();

impl Session {
    pub(super) fn region_read(
        &self,
        body: &[u8],
        terms: Terms,
        device: &mut dyn Device,
        draft: &mut Draft<'_>,
    ) -> Result<(), Errno> {
        let access = protocol::take_all::<RegionAccess>(body)?;
        let bounds = self.check(access)?;
        let count_max = terms.data_max.min(self.limits.data_transfer_max);
        if !bounds.readable || access.count > count_max {
            return Err(Errno::EINVAL);
        }
        draft.put(access.as_bytes());
        if access.count == 0 {
            return Ok(());
        }
        let data = draft.room(access.count as usize);
        device.region_read(access.region, access.offset, data)
    }

    pub(super) fn region_write(
        &self,
        body: &[u8],
        device: &mut dyn Device,
        draft: &mut Draft<'_>,
    ) -> Reply {
        let (access, data) = protocol::take::<RegionAccess>(body)?;
        draft.put(access.as_bytes());
        if access.count > self.limits.data_transfer_max || data.len() != access.count as usize {
            return Err(Errno::EINVAL);
        }
        self.write(access, data, device)
    }

    /// Writes one after the other; the first that fails ends it, and is all the client hears of.
    pub(super) fn region_write_multi(
        &mut self,
        body: &[u8],
        device: &mut dyn Device,
        draft: &mut Draft<'_>,
    ) -> Reply {
        let (request, writes) = protocol::take::<WriteMultiPayload>(body)?;
        let announced = usize::try_from(request.wr_cnt).map_err(|_| Errno::EINVAL)?;
        if announced > WRITES_PER_MESSAGE || writes.len() != announced * size_of::<SingleWrite>() {
            return Err(Errno::EINVAL);
        }
        draft.put(request.as_bytes());
        let (reply, rest) = self.write_each(writes, device);
        if reply == Ok(Outcome::Pending) {
            self.writes.extend_from_slice(rest);
        }
        reply
    }

    /// Goes on with the writes that were waiting for one that was pending.
    pub(super) fn resume_writes(&mut self, device: &mut dyn Device) -> Reply {
        let (reply, rest) = self.write_each(&self.writes, device);
        let finished = self.writes.len() - rest.len();
        self.writes.drain(..finished);
        reply
    }

    fn write_each<'a>(&self, mut writes: &'a [u8], device: &mut dyn Device) -> (Reply, &'a [u8]) {
        while !writes.is_empty() {
            let reply = protocol::take::<SingleWrite>(writes).and_then(|(write, rest)| {
                writes = rest;
                let data = write
                    .data
                    .get(..write.access.count as usize)
                    .ok_or(Errno::EINVAL)?;
                self.write(write.access, data, device)
            });
            if reply != Ok(Outcome::Done) {
                return (reply, writes);
            }
        }
        (Ok(Outcome::Done), writes)
    }

    fn write(&self, access: RegionAccess, data: &[u8], device: &mut dyn Device) -> Reply {
        let bounds = self.check(access)?;
        if !bounds.writable {
            return Err(Errno::EINVAL);
        }
        if data.is_empty() {
            return done(Ok(()));
        }
        device.region_write(access.region, access.offset, data)
    }

    /// An access has to lie inside a region that exists.
    fn check(&self, access: RegionAccess) -> Result<Bounds, Errno> {
        let bounds = self
            .bounds
            .get(access.region as usize)
            .ok_or(Errno::EINVAL)?;
        let end = access
            .offset
            .checked_add(u64::from(access.count))
            .ok_or(Errno::EINVAL)?;
        if end > bounds.size {
            Err(Errno::EINVAL)
        } else {
            Ok(*bounds)
        }
    }
}

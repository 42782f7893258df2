//! DMA_MAP and DMA_UNMAP: what the device may reach of the client's memory.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use zerocopy::IntoBytes;

use crate::device::{Device, DmaMap, DmaRange, Reply};
use crate::frame::Draft;
use crate::protocol::{self, DmaMapPayload, DmaUnmapPayload, map_flags, unmap_flags};

pub(super) fn map(body: &[u8], fds: &mut Vec<OwnedFd>, device: &mut dyn Device) -> Reply {
    let (request, _) = protocol::take::<DmaMapPayload>(body)?;
    check(DmaRange::Exact {
        iova: request.address,
        len: request.size,
    })?;
    let known = request.flags & !map_flags::ALL == 0 && request.flags != 0;
    let in_file = request.offset.checked_add(request.size).is_some();
    let whole = request.argsz as usize >= size_of::<DmaMapPayload>();
    if !known || !in_file || !whole || fds.len() > 1 {
        return Err(Errno::EINVAL);
    }
    let map = DmaMap {
        iova: request.address,
        len: request.size,
        offset: request.offset,
        read: request.flags & map_flags::READ != 0,
        write: request.flags & map_flags::WRITE != 0,
    };
    device.dma_map(map, fds.pop())
}

/// The reply is the request again.
pub(super) fn unmap(body: &[u8], device: &mut dyn Device, draft: &mut Draft<'_>) -> Reply {
    let (request, _) = protocol::take::<DmaUnmapPayload>(body)?;
    if (request.argsz as usize) < size_of::<DmaUnmapPayload>() {
        return Err(Errno::EINVAL);
    }
    let range = match request.flags {
        0 => DmaRange::Exact {
            iova: request.address,
            len: request.size,
        },
        unmap_flags::ALL if request.address == 0 && request.size == 0 => DmaRange::All,
        // Which pages were written is not tracked.
        flags if flags & unmap_flags::GET_DIRTY_BITMAP != 0 => return Err(Errno::ENOTSUP),
        _ => return Err(Errno::EINVAL),
    };
    check(range)?;
    draft.put(request.as_bytes());
    device.dma_unmap(range)
}

/// A range is not empty, and its last byte has an address.
fn check(range: DmaRange) -> Result<(), Errno> {
    match range {
        DmaRange::All => Ok(()),
        DmaRange::Exact { iova, len } => {
            let last = len.checked_sub(1).and_then(|last| iova.checked_add(last));
            last.map(|_| ()).ok_or(Errno::EINVAL)
        }
    }
}

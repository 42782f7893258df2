//! Doorbells: written in pages that the target lends us, or else in messages.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bdev::memory::SharedPages;
use nvme::spec::QueueId;
use nvme::spec::registers::Cap;
use vfio_user::{RegionInfo, region};

use super::{DriverError, Link};

/// Where doorbells start in BAR0 (NVMe over PCIe Transport 1.0, 3.1.2).
const DOORBELLS_OFFSET: u64 = 0x1000;

/// Which of the two doorbells of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    SubmissionTail,
    CompletionHead,
}

/// All doorbells of a controller.
#[derive(Clone, Debug)]
pub(super) struct Doorbells {
    link: Link,
    stride_bytes: u64,
    /// Pages, and where in BAR0 they start.
    pages: Option<(Arc<SharedPages>, u64)>,
}

/// One doorbell.
#[derive(Debug)]
pub(super) enum Doorbell {
    Mapped {
        pages: Arc<SharedPages>,
        offset: usize,
    },
    Message {
        link: Link,
        offset: u64,
    },
}

impl Doorbells {
    /// Asks the target what can be mapped, and maps it.
    pub(super) fn open(link: &Link, capabilities: Cap) -> Result<Doorbells, DriverError> {
        let (info, fd) = link.client().region_info(region::BAR0)?;
        let pages = match (mappable_area(&info), fd) {
            (Some(area), Some(fd)) => Some(map(&info, area, fd)?),
            (None, _) | (_, None) => None,
        };
        Ok(Doorbells {
            link: link.clone(),
            stride_bytes: 4 << capabilities.dstrd(),
            pages,
        })
    }

    pub(super) fn mapped(&self) -> bool {
        self.pages.is_some()
    }

    /// One doorbell; in a message where it lies outside the pages.
    pub(super) fn of(&self, queue: QueueId, side: Side) -> Doorbell {
        let index = u64::from(queue.0) * 2 + u64::from(side == Side::CompletionHead);
        let offset = DOORBELLS_OFFSET + index * self.stride_bytes;
        if let Some((pages, start)) = &self.pages {
            let in_pages = (offset - start) as usize;
            if in_pages + 4 <= pages.len() {
                return Doorbell::Mapped {
                    pages: Arc::clone(pages),
                    offset: in_pages,
                };
            }
        }
        Doorbell::Message {
            link: self.link.clone(),
            offset,
        }
    }
}

impl Doorbell {
    /// Writes the doorbell after everything before it. The partner is the target's load of it.
    #[inline]
    pub(super) fn ring(&self, value: u32) -> Result<(), DriverError> {
        match self {
            Doorbell::Mapped { pages, offset } => {
                pages.store_u32(*offset, value, Ordering::Release);
                Ok(())
            }
            Doorbell::Message { link, offset } => send(link, *offset, value),
        }
    }
}

#[cold]
fn send(link: &Link, offset: u64, value: u32) -> Result<(), DriverError> {
    let mut client = link.client();
    Ok(client.region_write(region::BAR0, offset, &value.to_le_bytes())?)
}

/// The part of BAR0 that can be mapped and holds the first doorbell: offset and size.
fn mappable_area(info: &RegionInfo) -> Option<(u64, u64)> {
    let holds_first = |area: &&vfio_user::SparseArea| {
        let end = area.offset.saturating_add(area.size);
        (area.offset..end).contains(&DOORBELLS_OFFSET)
    };
    let area = info.mmap.iter().find(holds_first)?;
    Some((area.offset, area.size))
}

fn map(
    info: &RegionInfo,
    (offset, size): (u64, u64),
    fd: OwnedFd,
) -> Result<(Arc<SharedPages>, u64), DriverError> {
    let in_file = info.fd_offset.saturating_add(offset);
    let pages = SharedPages::from_fd(fd, in_file, size as usize)?;
    Ok((pages, offset))
}

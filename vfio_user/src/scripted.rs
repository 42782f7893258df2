//! A device for tests: it answers as it is told, remembers what it was asked, and asserts that a
//! session keeps its promises.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::device::{
    Device, DmaMap, DmaRange, IrqAction, Outcome, RegionInfo, Reply, Selection, SetIrqs, SparseArea,
};
use crate::{irq, region};

/// A call that a [`Scripted`] device has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read(u32, u64, usize),
    Write(u32, u64, Vec<u8>),
    /// The map, and whether a descriptor came with it.
    Map(DmaMap, bool),
    Unmap(DmaRange),
    Irqs,
    Reset,
    Connected,
    Disconnected,
}

/// BAR0 with a page of doorbells, BAR4, a read-only ROM, and configuration space.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) calls: Vec<Call>,
    /// What the next operations come to; `Done` when nothing is left.
    pub(crate) replies: VecDeque<Reply>,
    /// What `poll_pending` says next; `Pending` when nothing is left.
    pub(crate) pending: VecDeque<Reply>,
    /// The error of every read, if any.
    pub(crate) read_error: Option<Errno>,
    pub(crate) irqs: Vec<SetIrqs>,
    pub(crate) mapped: Vec<OwnedFd>,
    pub(crate) discarded: usize,
    /// Where discarded descriptors are kept open, if they are.
    pub(crate) hoard: Option<Vec<OwnedFd>>,
    pub(crate) memory: Vec<u8>,
    doorbells: File,
    is_pending: bool,
    is_connected: bool,
}

impl Scripted {
    pub(crate) const BAR0_SIZE: u64 = 0x4000;
    /// A region that cannot be read.
    pub(crate) const WRITE_ONLY: u32 = 5;
    /// A region of a mebibyte.
    pub(crate) const LONG: u32 = 2;

    pub(crate) fn new() -> Scripted {
        Scripted {
            calls: Vec::new(),
            replies: VecDeque::new(),
            pending: VecDeque::new(),
            read_error: None,
            irqs: Vec::new(),
            mapped: Vec::new(),
            discarded: 0,
            hoard: None,
            memory: (0..=255).collect::<Vec<u8>>().repeat(4096),
            doorbells: tempfile::tempfile().expect("a file"),
            is_pending: false,
            is_connected: false,
        }
    }

    /// Calls since the last time.
    pub(crate) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    fn reply(&mut self, call: Call) -> Reply {
        assert!(!self.is_pending, "{call:?} while an operation is pending");
        self.calls.push(call);
        let reply = self.replies.pop_front().unwrap_or(Ok(Outcome::Done));
        self.is_pending = reply == Ok(Outcome::Pending);
        reply
    }

    fn assert_inside(&self, region: u32, offset: u64, len: usize) {
        assert!(len > 0 && offset + len as u64 <= self.region_info(region).size);
    }
}

impl Device for Scripted {
    fn region_info(&self, region: u32) -> RegionInfo {
        assert!(region < 9);
        match region {
            region::BAR0 => RegionInfo {
                mmap: vec![SparseArea {
                    offset: 0x1000,
                    size: 0x1000,
                }],
                ..RegionInfo::plain(Scripted::BAR0_SIZE)
            },
            Scripted::LONG => RegionInfo::plain(1 << 20),
            4 => RegionInfo::plain(0x2000),
            Scripted::WRITE_ONLY => RegionInfo {
                readable: false,
                ..RegionInfo::plain(0x100)
            },
            region::ROM => RegionInfo {
                writable: false,
                ..RegionInfo::plain(0x800)
            },
            region::CONFIG => RegionInfo::plain(0x1000),
            _ => RegionInfo::absent(),
        }
    }

    fn region_fd(&self, region: u32) -> Option<BorrowedFd<'_>> {
        (region == region::BAR0).then(|| self.doorbells.as_fd())
    }

    fn irq_count(&self, index: u32) -> u32 {
        [1, 0, 64, 1, 0][index as usize]
    }

    fn irq_flags(&self, index: u32) -> u32 {
        match index {
            irq::INTX => irq::EVENTFD | irq::MASKABLE | irq::AUTOMASKED,
            _ => irq::EVENTFD,
        }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.assert_inside(region, offset, data.len());
        self.reply(Call::Read(region, offset, data.len()))?;
        data.copy_from_slice(&self.memory[offset as usize..][..data.len()]);
        self.read_error.map_or(Ok(()), Err)
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Reply {
        self.assert_inside(region, offset, data.len());
        self.memory[offset as usize..][..data.len()].copy_from_slice(data);
        self.reply(Call::Write(region, offset, data.to_vec()))
    }

    fn dma_map(&mut self, map: DmaMap, fd: Option<OwnedFd>) -> Reply {
        assert!(map.len > 0 && (map.read || map.write));
        assert!(map.iova.checked_add(map.len - 1).is_some());
        assert!(map.offset.checked_add(map.len).is_some());
        let call = Call::Map(map, fd.is_some());
        self.mapped.extend(fd);
        self.reply(call)
    }

    fn dma_unmap(&mut self, range: DmaRange) -> Reply {
        if let DmaRange::Exact { iova, len } = range {
            assert!(len > 0 && iova.checked_add(len - 1).is_some());
        }
        self.reply(Call::Unmap(range))
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Reply {
        let SetIrqs {
            index,
            start,
            count,
            ref action,
        } = irqs;
        let listed = match action {
            IrqAction::Disable => 0,
            IrqAction::Eventfds(fds)
            | IrqAction::MaskEventfds(fds)
            | IrqAction::UnmaskEventfds(fds) => fds.len(),
            IrqAction::Trigger(Selection::Each(chosen))
            | IrqAction::Mask(Selection::Each(chosen))
            | IrqAction::Unmask(Selection::Each(chosen)) => chosen.len(),
            IrqAction::Trigger(_) | IrqAction::Mask(_) | IrqAction::Unmask(_) => count as usize,
        };
        assert_eq!(listed, count as usize);
        assert!(start + count <= self.irq_count(index));
        self.irqs.push(irqs);
        self.reply(Call::Irqs)
    }

    fn reset(&mut self) -> Reply {
        self.reply(Call::Reset)
    }

    fn poll_pending(&mut self) -> Reply {
        assert!(self.is_pending, "nothing is pending");
        let reply = self.pending.pop_front().unwrap_or(Ok(Outcome::Pending));
        self.is_pending = reply == Ok(Outcome::Pending);
        reply
    }

    fn connected(&mut self) {
        assert!(!self.is_connected);
        self.is_connected = true;
        self.calls.push(Call::Connected);
    }

    fn disconnected(&mut self) -> Outcome {
        assert!(self.is_connected);
        self.is_connected = false;
        self.is_pending = false;
        match self.reply(Call::Disconnected) {
            Ok(outcome) => outcome,
            Err(errno) => panic!("the script says {errno} for a disconnect"),
        }
    }

    fn discard(&mut self, fd: OwnedFd) {
        self.discarded += 1;
        if let Some(hoard) = &mut self.hoard {
            hoard.push(fd);
        }
    }
}

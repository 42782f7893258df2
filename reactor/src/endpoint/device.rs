//! `vfio_user::Device` over the plain methods of a controller.

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bdev::memory::{Backing, Iova, MapError, MemoryRegion, Protection};
use nix::errno::Errno;
use nvme::pcie::controller::Controller;
use nvme::pcie::doorbell::DOORBELL_BASE;
use nvme::pcie::message::Interrupt;
use vfio_user::device::{
    Device, DmaMap, DmaRange, IrqAction, Outcome, RegionInfo, Reply, Selection, SetIrqs, SparseArea,
};

use crate::eventfd::Eventfd;
use crate::message::{ControllerId, OpenMemory, Post, ToControl};
use crate::unclosed::Unclosed;

/// VFIO region of configuration space; 0 to 5 are the BARs.
const CONFIG_REGION: u32 = 7;
const CONFIG_BYTES: u64 = 4096;

/// VFIO interrupt kinds.
const INTX: u32 = 0;
const MSIX: u32 = 2;
const ERR: u32 = 3;
const REQ: u32 = 4;

/// VFIO_IRQ_INFO flags.
const EVENTFD: u32 = 1;
const MASKABLE: u32 = 2;
const AUTOMASKED: u32 = 4;

/// Most ranges without a file that a client may map: ROMs, and the device's own doorbells.
const UNBACKED_MAX: usize = 4096;

/// Most descriptors of a client that wait to be closed before it is listened to again. Those that
/// VMMs send close at once.
pub(super) const UNCLOSED_MAX: usize = 256;

/// The device that a client sees.
pub(super) struct EndpointDevice {
    pub(super) id: ControllerId,
    pub(super) controller: Controller,
    pub(super) post: Post,
    /// Ranges that the client keeps to itself.
    unbacked: Vec<(u64, u64)>,
    request: u64,
    opening: Opening,
    /// Messages to the control thread that found its inbox full.
    unsent: VecDeque<ToControl>,
    doorbells_given: Cell<bool>,
    unclosed: Unclosed,
}

/// Guest memory that the client waits for.
enum Opening {
    No,
    /// The control thread has been asked.
    Asked(DmaMap),
    /// It could not be had.
    Failed(Errno),
}

impl EndpointDevice {
    pub(super) fn new(id: ControllerId, controller: Controller, post: Post) -> EndpointDevice {
        EndpointDevice {
            id,
            controller,
            post,
            unbacked: Vec::new(),
            request: 0,
            opening: Opening::No,
            unsent: VecDeque::new(),
            doorbells_given: Cell::new(false),
            unclosed: Unclosed::default(),
        }
    }

    /// Whether the client waits for something.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.controller.is_awaited() || !matches!(self.opening, Opening::No)
    }

    /// Whether so much that the client sent is not closed yet that it is to send no more.
    pub(super) fn is_clogged(&self) -> bool {
        self.unclosed.waiting() > UNCLOSED_MAX
    }

    /// Whether something is to be sent again.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends again what found the inbox of the control thread full.
    pub(super) fn flush(&mut self) {
        self.controller
            .set_doorbells_mapped(self.doorbells_given.get());
        while let Some(message) = self.unsent.pop_front() {
            if let Err(message) = self.post.to_control(message) {
                self.unsent.push_front(message);
                return;
            }
        }
    }

    fn send(&mut self, message: ToControl) {
        if let Err(message) = self.post.to_control(message) {
            self.unsent.push_back(message);
        }
    }

    /// The answer of the control thread; one to a client that has gone is dropped.
    pub(super) fn opened(
        &mut self,
        request: u64,
        result: Result<Arc<Backing>, MapError>,
        socket: &str,
    ) {
        let Opening::Asked(map) = self.opening else {
            return;
        };
        if request != self.request {
            return;
        }
        let protection = Protection {
            read: map.read,
            write: map.write,
        };
        let mapped = result
            .and_then(|backing| {
                MemoryRegion::new(backing, map.offset, Iova(map.iova), map.len, protection)
            })
            .and_then(|region| self.controller.map(region));
        self.opening = match mapped {
            Ok(()) => Opening::No,
            Err(error) => {
                let (iova, len) = (map.iova, map.len);
                tracing::warn!(socket, iova, len, %error, "guest memory refused");
                Opening::Failed(errno_of(&error))
            }
        };
    }

    fn outcome(&mut self) -> Reply {
        match self.controller.pending() {
            None => Ok(Outcome::Pending),
            Some(Ok(())) => Ok(Outcome::Done),
            Some(Err(_timed_out)) => Err(Errno::ETIMEDOUT),
        }
    }

    /// Forgets ranges without a file that lie in this one; true if there were any.
    fn forget_unbacked(&mut self, iova: u64, len: u64) -> bool {
        let before = self.unbacked.len();
        let last = iova + (len - 1);
        self.unbacked
            .retain(|&(at, bytes)| at < iova || at + (bytes - 1) > last);
        self.unbacked.len() != before
    }

    /// What the client's eventfds are to us. If any descriptor is something else, EINVAL.
    fn interrupts(
        &mut self,
        fds: Vec<Option<OwnedFd>>,
    ) -> Result<Vec<Option<Arc<dyn Interrupt>>>, Errno> {
        let mut interrupts: Vec<Option<Arc<dyn Interrupt>>> = Vec::new();
        let mut refused = false;
        for fd in fds {
            match fd.map(Eventfd::new).transpose() {
                Ok(eventfd) => interrupts.push(eventfd.map(|eventfd| Arc::new(eventfd) as _)),
                Err(stranger) => {
                    refused = true;
                    self.discard(stranger);
                }
            }
        }
        match refused {
            true => Err(Errno::EINVAL),
            false => Ok(interrupts),
        }
    }

    fn set_msix(&mut self, irqs: SetIrqs) -> Result<(), Errno> {
        let (start, count) = (irqs.start as u16, irqs.count as u16);
        match irqs.action {
            IrqAction::Disable => self.controller.unbind_vectors(),
            IrqAction::Eventfds(fds) => {
                let bound = self.interrupts(fds)?;
                self.controller.bind_vectors(start, bound);
            }
            IrqAction::Trigger(selection) => {
                let chosen = (0..count).filter(|&n| is_selected(&selection, n));
                chosen.for_each(|n| self.controller.trigger_vector(start + n));
            }
            IrqAction::Mask(selection) | IrqAction::Unmask(selection) if count == 0 => {
                let _nothing_is_chosen = selection;
            }
            IrqAction::Mask(selection) => {
                let chosen = (0..count).filter(|&n| is_selected(&selection, n));
                chosen.for_each(|n| self.controller.mask_vectors(start + n, 1, true));
            }
            IrqAction::Unmask(selection) => {
                let chosen = (0..count).filter(|&n| is_selected(&selection, n));
                chosen.for_each(|n| self.controller.mask_vectors(start + n, 1, false));
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn set_intx(&mut self, irqs: SetIrqs) -> Result<(), Errno> {
        match irqs.action {
            IrqAction::Disable => self.controller.bind_pin(None),
            IrqAction::Eventfds(fds) => {
                let pin = self.interrupts(fds)?.into_iter().next().flatten();
                self.controller.bind_pin(pin);
            }
            IrqAction::Trigger(selection) if is_selected(&selection, 0) => {
                self.controller.trigger_pin();
            }
            IrqAction::Mask(selection) if is_selected(&selection, 0) => {
                self.controller.mask_pin(true);
            }
            IrqAction::Unmask(selection) if is_selected(&selection, 0) => {
                self.controller.mask_pin(false);
            }
            IrqAction::Trigger(_) | IrqAction::Mask(_) | IrqAction::Unmask(_) => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

fn is_selected(selection: &Selection, n: u16) -> bool {
    match selection {
        Selection::All => true,
        Selection::Each(chosen) => chosen.get(usize::from(n)).copied().unwrap_or(false),
    }
}

/// What a client is told about memory that cannot be used.
fn errno_of(error: &MapError) -> Errno {
    match error {
        MapError::Overlap { .. } => Errno::EEXIST,
        MapError::NotMapped { .. } => Errno::ENOENT,
        MapError::TooMany { .. } => Errno::ENOSPC,
        MapError::NoMemory { .. } => Errno::ENOMEM,
        MapError::Os { errno, .. } => *errno,
        _ => Errno::EINVAL,
    }
}

impl Device for EndpointDevice {
    fn region_info(&self, region: u32) -> RegionInfo {
        let bar = u8::try_from(region).unwrap_or(u8::MAX);
        let size = match region {
            CONFIG_REGION => CONFIG_BYTES,
            _ => self.controller.bar_bytes(bar),
        };
        let doorbells = SparseArea {
            offset: DOORBELL_BASE,
            size: self.controller.doorbells().len() as u64 - DOORBELL_BASE,
        };
        RegionInfo {
            size,
            readable: size != 0,
            writable: size != 0,
            mmap: if region == 0 {
                vec![doorbells]
            } else {
                Vec::new()
            },
            // The doorbell file is laid out as the BAR.
            fd_offset: 0,
        }
    }

    fn region_fd(&self, region: u32) -> Option<BorrowedFd<'_>> {
        (region == 0).then(|| {
            self.doorbells_given.set(true);
            self.controller.doorbells().fd()
        })
    }

    fn irq_count(&self, index: u32) -> u32 {
        match index {
            INTX => u32::from(self.controller.has_pin()),
            MSIX => self.controller.vector_count().into(),
            ERR | REQ => 1,
            _ => 0,
        }
    }

    fn irq_flags(&self, index: u32) -> u32 {
        match index {
            INTX => EVENTFD | MASKABLE | AUTOMASKED,
            _ => EVENTFD,
        }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        match region {
            CONFIG_REGION => self.controller.config_read(offset, data),
            _ => self.controller.bar_read(region as u8, offset, data),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Reply {
        match region {
            CONFIG_REGION => self.controller.config_write(offset, data),
            _ => self.controller.bar_write(region as u8, offset, data),
        }
        self.outcome()
    }

    fn dma_map(&mut self, map: DmaMap, fd: Option<OwnedFd>) -> Reply {
        let Some(fd) = fd else {
            if self.unbacked.len() == UNBACKED_MAX {
                return Err(Errno::ENOSPC);
            }
            self.unbacked.push((map.iova, map.len));
            return Ok(Outcome::Done);
        };
        self.request += 1;
        self.opening = Opening::Asked(map);
        self.send(ToControl::Open(OpenMemory {
            controller: self.id,
            request: self.request,
            file: self.unclosed.count(fd),
            needed_end: map.offset + map.len,
            writable: map.write,
        }));
        Ok(Outcome::Pending)
    }

    fn dma_unmap(&mut self, range: DmaRange) -> Reply {
        match range {
            DmaRange::All => {
                self.unbacked.clear();
                self.controller.unmap_all();
            }
            DmaRange::Exact { iova, len } => {
                let unbacked = self.forget_unbacked(iova, len);
                match self.controller.unmap(Iova(iova), len) {
                    Ok(()) => {}
                    Err(MapError::NotMapped { .. }) if unbacked => {}
                    Err(error) => return Err(errno_of(&error)),
                }
            }
        }
        self.outcome()
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Reply {
        match irqs.index {
            INTX => self.set_intx(irqs)?,
            MSIX => self.set_msix(irqs)?,
            // Nothing is ever signalled there; what is bound is closed.
            ERR | REQ => {
                if let IrqAction::Eventfds(fds) = irqs.action {
                    fds.into_iter().flatten().for_each(|fd| self.discard(fd));
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(Outcome::Done)
    }

    fn reset(&mut self) -> Reply {
        self.controller.device_reset();
        self.outcome()
    }

    fn poll_pending(&mut self) -> Reply {
        match self.opening {
            Opening::No => self.outcome(),
            Opening::Asked(_) => Ok(Outcome::Pending),
            Opening::Failed(errno) => {
                self.opening = Opening::No;
                Err(errno)
            }
        }
    }

    fn connected(&mut self) {}

    fn disconnected(&mut self) -> Outcome {
        self.opening = Opening::No;
        self.unbacked.clear();
        self.doorbells_given.set(false);
        self.controller.disconnect();
        Outcome::Pending
    }

    fn discard(&mut self, fd: OwnedFd) {
        self.send(ToControl::Close(self.id, self.unclosed.count(fd)));
    }
}

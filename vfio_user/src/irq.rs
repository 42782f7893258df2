//! Interrupts of a PCI device: their indices and flags, and what a client asks of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::protocol::{SetIrqsPayload, set_irqs_flags};

/// The interrupt pin.
pub const INTX: u32 = 0;
/// Message signalled interrupts.
pub const MSI: u32 = 1;
/// Extended message signalled interrupts.
pub const MSIX: u32 = 2;
/// The device reports an error to the client.
pub const ERR: u32 = 3;
/// The device asks the client to let go of it.
pub const REQ: u32 = 4;

/// `VFIO_IRQ_INFO_EVENTFD`: an eventfd can be bound.
pub const EVENTFD: u32 = 1 << 0;
/// `VFIO_IRQ_INFO_MASKABLE`: mask and unmask are understood.
pub const MASKABLE: u32 = 1 << 1;
/// `VFIO_IRQ_INFO_AUTOMASKED`: masked after each interrupt until the client unmasks it.
pub const AUTOMASKED: u32 = 1 << 2;
/// `VFIO_IRQ_INFO_NORESIZE`: the set cannot grow without being disabled first.
pub const NORESIZE: u32 = 1 << 3;

/// Which interrupts of a range an action is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those whose entry, counted from the start of the range, is true.
    Each(Vec<bool>),
}

impl Selection {
    /// Whether the interrupt at `position` in the range is meant.
    pub fn contains(&self, position: u32) -> bool {
        match self {
            Selection::All => true,
            Selection::Each(chosen) => chosen.get(position as usize).copied().unwrap_or(false),
        }
    }
}

/// What a client wants done. `F` is how a descriptor is held: owned by a server, borrowed by a
/// client. A list of descriptors has one entry for each interrupt of the range; `None` unbinds.
#[derive(Debug)]
pub enum IrqAction<F = OwnedFd> {
    /// Unbind every interrupt of the index.
    Disable,
    /// Signal these eventfds when the device interrupts.
    Eventfds(Vec<Option<F>>),
    /// Act as if the device had interrupted.
    Trigger(Selection),
    /// Mask.
    Mask(Selection),
    /// Unmask.
    Unmask(Selection),
    /// Eventfds that go with masking.
    MaskEventfds(Vec<Option<F>>),
    /// Eventfds that go with unmasking.
    UnmaskEventfds(Vec<Option<F>>),
}

/// `VFIO_USER_DEVICE_SET_IRQS`. What a server hands to a device has been checked: the range lies
/// inside the index, and lists are `count` long.
#[derive(Debug)]
pub struct SetIrqs<F = OwnedFd> {
    /// Kind of interrupt, [`INTX`] to [`REQ`].
    pub index: u32,
    /// First interrupt of the range.
    pub start: u32,
    /// Number of interrupts; 0 for [`IrqAction::Disable`].
    pub count: u32,
    /// What to do with them.
    pub action: IrqAction<F>,
}

impl SetIrqs {
    /// What a request means for an index of `available` interrupts. `fds` are taken only where
    /// the request makes sense (spec, VFIO_USER_DEVICE_SET_IRQS).
    pub(crate) fn decode(
        request: SetIrqsPayload,
        data: &[u8],
        fds: &mut Vec<OwnedFd>,
        available: u32,
    ) -> Result<SetIrqs, Errno> {
        let SetIrqsPayload {
            flags,
            index,
            start,
            count,
            ..
        } = request;
        let (data_kind, action) = (flags & set_irqs_flags::DATA, flags & set_irqs_flags::ACTION);
        if flags != data_kind | action {
            return Err(Errno::EINVAL);
        }
        let disable = set_irqs_flags::DATA_NONE | set_irqs_flags::ACTION_TRIGGER;
        if count == 0 && start == 0 && flags == disable && fds.is_empty() {
            return Ok(SetIrqs {
                index,
                start,
                count,
                action: IrqAction::Disable,
            });
        }
        let (bind, act): (Bind, Act) = match action {
            set_irqs_flags::ACTION_TRIGGER => (IrqAction::Eventfds, IrqAction::Trigger),
            set_irqs_flags::ACTION_MASK => (IrqAction::MaskEventfds, IrqAction::Mask),
            set_irqs_flags::ACTION_UNMASK => (IrqAction::UnmaskEventfds, IrqAction::Unmask),
            _ => return Err(Errno::EINVAL),
        };
        let end = start.checked_add(count).ok_or(Errno::EINVAL)?;
        if count == 0 || end > available {
            return Err(Errno::EINVAL);
        }
        let action = match data_kind {
            set_irqs_flags::DATA_EVENTFD => bind(take_eventfds(fds, count)?),
            _ if !fds.is_empty() => return Err(Errno::EINVAL),
            set_irqs_flags::DATA_NONE => act(Selection::All),
            set_irqs_flags::DATA_BOOL => act(chosen(data, count)?),
            _ => return Err(Errno::EINVAL),
        };
        Ok(SetIrqs {
            index,
            start,
            count,
            action,
        })
    }
}

impl<F: AsFd> SetIrqs<F> {
    /// The request that means this: structure, booleans, descriptors. EINVAL for a list in which
    /// some descriptors are missing, which one message cannot say.
    pub(crate) fn encode(&self) -> Result<(SetIrqsPayload, Vec<u8>, Vec<BorrowedFd<'_>>), Errno> {
        use set_irqs_flags::{ACTION_MASK, ACTION_TRIGGER, ACTION_UNMASK};
        let (action, (data_kind, data, fds)) = match &self.action {
            IrqAction::Disable => (ACTION_TRIGGER, selected(&Selection::All)),
            IrqAction::Trigger(selection) => (ACTION_TRIGGER, selected(selection)),
            IrqAction::Mask(selection) => (ACTION_MASK, selected(selection)),
            IrqAction::Unmask(selection) => (ACTION_UNMASK, selected(selection)),
            IrqAction::Eventfds(fds) => (ACTION_TRIGGER, eventfds(fds)?),
            IrqAction::MaskEventfds(fds) => (ACTION_MASK, eventfds(fds)?),
            IrqAction::UnmaskEventfds(fds) => (ACTION_UNMASK, eventfds(fds)?),
        };
        let request = SetIrqsPayload {
            argsz: (size_of::<SetIrqsPayload>() + data.len()) as u32,
            flags: data_kind | action,
            index: self.index,
            start: self.start,
            count: self.count,
        };
        Ok((request, data, fds))
    }
}

/// The action of a list of eventfds, and that of a selection.
type Bind = fn(Vec<Option<OwnedFd>>) -> IrqAction;
type Act = fn(Selection) -> IrqAction;

/// All of them or none: a message cannot say which one is missing.
fn take_eventfds(fds: &mut Vec<OwnedFd>, count: u32) -> Result<Vec<Option<OwnedFd>>, Errno> {
    if fds.is_empty() {
        return Ok((0..count).map(|_| None).collect());
    }
    if fds.len() != count as usize {
        return Err(Errno::EINVAL);
    }
    Ok(fds.drain(..).map(Some).collect())
}

fn chosen(data: &[u8], count: u32) -> Result<Selection, Errno> {
    let data = data.get(..count as usize).ok_or(Errno::EINVAL)?;
    Ok(Selection::Each(
        data.iter().map(|byte| *byte != 0).collect(),
    ))
}

/// Kind of data, data, descriptors.
type Encoded<'a> = (u32, Vec<u8>, Vec<BorrowedFd<'a>>);

fn selected<'a>(selection: &Selection) -> Encoded<'a> {
    match selection {
        Selection::All => (set_irqs_flags::DATA_NONE, Vec::new(), Vec::new()),
        Selection::Each(chosen) => {
            let data = chosen.iter().map(|chosen| u8::from(*chosen)).collect();
            (set_irqs_flags::DATA_BOOL, data, Vec::new())
        }
    }
}

fn eventfds<F: AsFd>(fds: &[Option<F>]) -> Result<Encoded<'_>, Errno> {
    let bound: Vec<_> = fds.iter().flatten().map(AsFd::as_fd).collect();
    if !bound.is_empty() && bound.len() != fds.len() {
        return Err(Errno::EINVAL);
    }
    Ok((set_irqs_flags::DATA_EVENTFD, Vec::new(), bound))
}

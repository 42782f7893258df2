//! Interrupts of a PCI device: their indices and flags, and what a client asks of them.

use std::os::fd::OwnedFd;

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
#[derive(Debug, PartialEq, Eq)]
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
#[derive(Debug, PartialEq, Eq)]
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

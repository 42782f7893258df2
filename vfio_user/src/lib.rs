//! The vfio-user protocol: a PCI device over a UNIX socket, server and client.

pub mod client;
pub mod device;
pub mod frame;
pub mod irq;
pub mod protocol;
pub mod region;
#[cfg(test)]
mod scripted;
pub mod server;
pub mod session;
pub mod socket;
pub mod version;

pub use client::{Client, ClientError, IrqInfo, ServerVersion};
pub use device::{
    Device, DeviceInfo, DmaMap, DmaRange, IrqAction, Outcome, RegionInfo, Reply, Selection,
    SetIrqs, SparseArea,
};
pub use nix::errno::Errno;
pub use server::{Peer, Server, ServerLimits, SessionEvent};

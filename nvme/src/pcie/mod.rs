//! The memory-mapped front of a controller: NVMe over PCIe.

pub mod doorbell;
mod interrupt;
pub mod message;
pub mod poll_group;
mod prp;
pub(crate) mod queue;
mod sgl;
pub mod state;

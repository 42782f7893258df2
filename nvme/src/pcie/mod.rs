//! The memory-mapped front of a controller: NVMe over PCIe.

pub mod config;
pub mod controller;
pub mod doorbell;
mod interrupt;
pub mod message;
pub mod poll_group;
mod prp;
pub mod queue;
mod registers;
mod sgl;
pub mod state;
#[cfg(test)]
mod tests;
mod vectors;

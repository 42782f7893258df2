//! An NVMe controller, independent of how a host reaches it.
//!
//! [`spec`] holds the bit layouts of the NVMe specifications. A [`subsystem::Subsystem`] with its
//! [`namespace::Namespace`]s is what exists; [`pcie`] is the memory-mapped front that a host
//! drives: configuration space, registers, doorbells and queues.
//! [`pcie::controller::Controller`] is its control plane, a [`pcie::poll_group::PollGroup`] the I/O
//! queues of one controller on one reactor.
//!
//! The crate knows no socket, file, thread or clock. Memory comes mapped ([`bdev::memory`]),
//! interrupts go to a [`pcie::message::Interrupt`], time is a number that the caller gives, and a
//! controller and its poll groups exchange [`pcie::message`]s that the caller carries.
//!
//! # What it does not do
//!
//! No namespace management, firmware update, formatting, reservations, metadata or end-to-end
//! protection, no controller memory buffer, no weighted arbitration. Bus Master Enable and power
//! states are kept for the host but do not stop the controller: CC.EN and resets do.
//!
//! # Limits
//!
//! 64 namespaces of a subsystem, 128 I/O queue pairs of 4096 entries, 128 interrupt vectors, 264
//! pieces of guest memory in one command, 4096 SGL descriptors, 4 parked asynchronous event
//! requests, 64 error log entries.
#![forbid(unsafe_code)]

mod admin;
pub mod namespace;
pub mod nvm;
pub mod pcie;
pub mod spec;
pub mod subsystem;

//! The vfio-user protocol: a PCI device over a UNIX socket, server and client.
//!
//! A virtual machine monitor (QEMU's `vfio-user-pci`, Cloud Hypervisor's `--user-device`) is the
//! client. It asks what the device is, forwards the guest's accesses to configuration space and
//! registers, lends guest memory as file descriptors, and takes interrupts through eventfds. Pages
//! that the device lends it, such as doorbells, are mapped into the guest and need no message.
//! The protocol is specified in QEMU, `docs/interop/vfio-user.rst`, and borrows its structures from
//! `linux/vfio.h`.
//!
//! # How it fits together
//!
//! ```text
//! Server ── socket: non-blocking reads and writes with descriptors
//!    ├───── frame:  Assembler, bytes to messages; Outbox, replies to bytes
//!    ├───── session: judges a message, calls the device, writes the reply; knows no socket
//!    └────► Device: what a PCI device answers, implemented by the user of this crate
//! Client ── the same frames and structures, from the other side, blocking
//! ```
//!
//! A [`Server`] owns a listening socket and at most one connection, and is polled: one call does a
//! bounded amount of work, never waits, and costs one system call when there is nothing to do. A
//! device that needs time answers [`Outcome::Pending`] and is asked again on later passes; nothing
//! else of that client is looked at meanwhile, as the protocol has commands carried out in order.
//! Many servers live in one thread, and no client can hold up another one's.
//!
//! ```no_run
//! use std::os::unix::net::UnixListener;
//! use vfio_user::{Device, Server, ServerLimits};
//!
//! fn serve(device: &mut dyn Device) -> std::io::Result<()> {
//!     let listener = UnixListener::bind("/run/disk.sock")?;
//!     let mut server = Server::new(listener.into(), ServerLimits::default());
//!     loop {
//!         server.poll(device);
//!         while let Some(event) = server.take_event() {
//!             eprintln!("{event:?}");
//!         }
//!     }
//! }
//! ```
//!
//! # What bounds it
//!
//! | limit | value | why |
//! |---|---|---|
//! | [`frame::FDS_PER_MESSAGE`] | 16 | QEMU accepts no server that takes more |
//! | [`ServerLimits::data_transfer_max`] | 1 MiB | the protocol's default |
//! | [`session::WRITES_PER_MESSAGE`] | 256 | QEMU sends up to 200 in one REGION_WRITE_MULTI |
//! | [`server::MESSAGES_PER_POLL`], [`server::READS_PER_POLL`] | 8, 32 | other clients' turns |
//! | [`frame::READ_MAX`] | 16 KiB | memory a message gets before its bytes have come |
//! | [`frame::OUTBOX_BYTES`], [`frame::OUTBOX_FDS`] | 64 KiB, 8 | for a client that does not read |
//! | [`version::JSON_MAX`] | 4 KiB | version data is a few hundred bytes |
//!
//! # What it does not do
//!
//! * The server sends no commands: no DMA_READ or DMA_WRITE, hence no twin socket. Memory that
//!   comes without a descriptor cannot be reached.
//! * No migration and no dirty page tracking: MIG_DATA_READ, MIG_DATA_WRITE and the dirty bitmap of
//!   DMA_UNMAP are answered with ENOTSUP, DEVICE_FEATURE with ENOTTY.
//! * No ioeventfds or ioregionfds: DEVICE_GET_REGION_IO_FDS gives an empty list.
//! * One client at a time. The next one waits in the socket's backlog.

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

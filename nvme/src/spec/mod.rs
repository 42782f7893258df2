//! The only bit layouts of this crate: NVMe Base 2.0, NVM Command Set 1.0 and NVMe over PCIe
//! Transport 1.0, as bit structs, byte layouts with their size asserted, and open enums.

pub mod admin;
mod command;
mod completion;
pub mod features;
pub mod identify;
pub mod log_page;
pub mod nvm;
pub mod registers;
mod status;
pub mod text;

pub use command::{AdminOpcode, Fuse, NvmOpcode, Psdt, SglDescriptor, SglType, Sqe};
pub use completion::Cqe;
pub use status::Status;

/// Number of a queue; 0 is the admin queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u16);

impl QueueId {
    /// The admin submission and completion queue.
    pub const ADMIN: QueueId = QueueId(0);
}

/// Number of a namespace, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Nsid(pub u32);

impl Nsid {
    /// No namespace.
    pub const NONE: Nsid = Nsid(0);
    /// All namespaces.
    pub const ALL: Nsid = Nsid(0xffff_ffff);
}

/// Identifier that the host gave a command, unique within its submission queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u16);

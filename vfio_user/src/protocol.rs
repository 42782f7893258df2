//! The messages as they lie on the wire (vfio-user specification, "Protocol Specification").
//!
//! Every number is in the byte order of the host, as the specification says; client and server
//! run on the same one. Structures are copied out of and into byte buffers, never overlaid.

use std::fmt;

use nix::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares wire structures: C layout, any bit pattern valid, size asserted.
macro_rules! wire {
    ($($(#[$meta:meta])* $name:ident = $size:literal {
        $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)?
    })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

/// What a message asks for.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Command(pub u16);

/// Declares the known commands, and their names in the specification without `VFIO_USER_`.
macro_rules! commands {
    ($($(#[$meta:meta])* $name:ident = $value:literal,)*) => {
        impl Command {
            $($(#[$meta])* pub const $name: Command = Command($value);)*

            fn name(self) -> Option<&'static str> {
                match self {
                    $(Command::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Propose a version and capabilities: the first message.
    VERSION = 1,
    /// Make client memory known.
    DMA_MAP = 2,
    /// Take client memory away.
    DMA_UNMAP = 3,
    /// Ask what the device is.
    DEVICE_GET_INFO = 4,
    /// Ask what a region is.
    DEVICE_GET_REGION_INFO = 5,
    /// Ask for ioeventfds and ioregionfds.
    DEVICE_GET_REGION_IO_FDS = 6,
    /// Ask what an interrupt kind is.
    DEVICE_GET_IRQ_INFO = 7,
    /// Bind, mask or fire interrupts.
    DEVICE_SET_IRQS = 8,
    /// Read from a region.
    REGION_READ = 9,
    /// Write to a region.
    REGION_WRITE = 10,
    /// Read client memory; from server to client only.
    DMA_READ = 11,
    /// Write client memory; from server to client only.
    DMA_WRITE = 12,
    /// Reset the device.
    DEVICE_RESET = 13,
    /// Dirty page tracking of older versions of the protocol.
    DIRTY_PAGES = 14,
    /// Several small region writes in one message.
    REGION_WRITE_MULTI = 15,
    /// Probe, get or set a feature.
    DEVICE_FEATURE = 16,
    /// Read migration data.
    MIG_DATA_READ = 17,
    /// Write migration data.
    MIG_DATA_WRITE = 18,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Attributes of a message: bits 0-3 its type, bit 4 No_reply, bit 5 Error.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct HeaderFlags(pub u32);

impl HeaderFlags {
    /// A command.
    pub const COMMAND: HeaderFlags = HeaderFlags(0);
    /// The reply to a command.
    pub const REPLY: HeaderFlags = HeaderFlags(1);
    /// A command that wants no reply, not even an error.
    pub const NO_REPLY: HeaderFlags = HeaderFlags(1 << 4);
    /// The reply to a command that failed.
    pub const ERROR_REPLY: HeaderFlags = HeaderFlags(1 | 1 << 5);

    /// Whether this is a command.
    pub fn is_command(self) -> bool {
        self.0 & 0xf == 0
    }

    /// Whether this is a reply.
    pub fn is_reply(self) -> bool {
        self.0 & 0xf == 1
    }

    /// Whether no reply is wanted.
    pub fn no_reply(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Whether the command failed.
    pub fn is_error(self) -> bool {
        self.0 & (1 << 5) != 0
    }
}

wire! {
    /// The header of every message.
    Header = 16 {
        /// Chosen by the sender of a command, echoed in its reply.
        message_id: u16,
        /// The command, also in its reply.
        command: Command,
        /// Bytes of the whole message, this header included.
        size: u32,
        /// What kind of message it is.
        flags: HeaderFlags,
        /// The errno of a failed command.
        error: u32,
    }
    /// VERSION, both ways; JSON that ends in NUL follows.
    VersionPayload = 4 {
        /// Changes when older peers cannot follow.
        major: u16,
        /// Changes when something is added.
        minor: u16,
    }
    /// DMA_MAP; the reply has no payload.
    DmaMapPayload = 32 {
        /// Bytes of this structure.
        argsz: u32,
        /// What the device may do with the memory.
        flags: u32,
        /// Where the range begins in its file.
        offset: u64,
        /// First address of the range.
        address: u64,
        /// Bytes of the range.
        size: u64,
    }
    /// DMA_UNMAP, both ways.
    DmaUnmapPayload = 24 {
        /// Largest reply payload the client takes.
        argsz: u32,
        /// [`unmap_flags`].
        flags: u32,
        /// First address of the range.
        address: u64,
        /// Bytes of the range.
        size: u64,
    }
    /// DEVICE_GET_INFO, both ways.
    DeviceInfoPayload = 16 {
        /// Largest reply payload the client takes; in the reply, what it needs.
        argsz: u32,
        /// Flags of [`DeviceInfo`](crate::DeviceInfo).
        flags: u32,
        /// Number of regions.
        num_regions: u32,
        /// Number of interrupt kinds.
        num_irqs: u32,
    }
    /// DEVICE_GET_REGION_INFO, both ways; in the reply capabilities may follow.
    RegionInfoPayload = 32 {
        /// Largest reply payload the client takes; in the reply, what it needs.
        argsz: u32,
        /// [`region_flags`].
        flags: u32,
        /// Which region.
        index: u32,
        /// Where the capabilities begin, from the start of this structure.
        cap_offset: u32,
        /// Bytes of the region.
        size: u64,
        /// Where the region begins in its file.
        offset: u64,
    }
    /// `struct vfio_info_cap_header`.
    CapabilityHeader = 8 {
        /// Which capability.
        id: u16,
        /// Which version of it.
        version: u16,
        /// Where the next one begins, from the start of the region info; 0 ends the list.
        next: u32,
    }
    /// The head of a sparse mmap capability after its header; areas follow.
    SparseMmapPayload = 8 {
        /// Number of areas.
        nr_areas: u32,
        /// Zero.
        reserved: u32,
    }
    /// One area of a sparse mmap capability.
    SparseMmapArea = 16 {
        /// First byte, from the start of the region.
        offset: u64,
        /// Bytes.
        size: u64,
    }
    /// DEVICE_GET_REGION_IO_FDS, both ways; in the reply sub-regions may follow.
    RegionIoFdsPayload = 16 {
        /// Largest reply payload the client takes; in the reply, what it needs.
        argsz: u32,
        /// Zero.
        flags: u32,
        /// Which region.
        index: u32,
        /// Number of sub-regions; zero in the request.
        count: u32,
    }
    /// DEVICE_GET_IRQ_INFO, both ways.
    IrqInfoPayload = 16 {
        /// Largest reply payload the client takes; in the reply, what it needs.
        argsz: u32,
        /// Flags of [`irq`](crate::irq).
        flags: u32,
        /// Which interrupt kind.
        index: u32,
        /// Number of interrupts of that kind.
        count: u32,
    }
    /// DEVICE_SET_IRQS; booleans may follow. The reply has no payload.
    SetIrqsPayload = 20 {
        /// Bytes of this structure with what follows it.
        argsz: u32,
        /// [`set_irqs_flags`].
        flags: u32,
        /// Which interrupt kind.
        index: u32,
        /// First interrupt.
        start: u32,
        /// Number of interrupts.
        count: u32,
    }
    /// REGION_READ and REGION_WRITE, both ways; data may follow.
    RegionAccess = 16 {
        /// First byte, from the start of the region.
        offset: u64,
        /// Which region.
        region: u32,
        /// Bytes.
        count: u32,
    }
    /// REGION_WRITE_MULTI, both ways; in the request writes follow.
    WriteMultiPayload = 8 {
        /// Number of writes.
        wr_cnt: u64,
    }
    /// One write of REGION_WRITE_MULTI.
    SingleWrite = 24 {
        /// Where it goes; count is 8 or less.
        access: RegionAccess,
        /// What is written, from the first byte on.
        data: [u8; 8],
    }
    /// DEVICE_FEATURE; data may follow.
    DeviceFeaturePayload = 8 {
        /// Largest reply payload the client takes.
        argsz: u32,
        /// [`feature_flags`] and the index of the feature.
        flags: u32,
    }
}

/// Bytes of a header.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// Flags of DMA_MAP.
pub mod map_flags {
    /// The device may read.
    pub const READ: u32 = 1 << 0;
    /// The device may write.
    pub const WRITE: u32 = 1 << 1;
    /// All that are known.
    pub const ALL: u32 = READ | WRITE;
}

/// Flags of DMA_UNMAP (`VFIO_DMA_UNMAP_FLAG_`).
pub mod unmap_flags {
    /// Return which pages were written.
    pub const GET_DIRTY_BITMAP: u32 = 1 << 0;
    /// Unmap everything.
    pub const ALL: u32 = 1 << 1;
}

/// Flags of DEVICE_GET_REGION_INFO (`VFIO_REGION_INFO_FLAG_`).
pub mod region_flags {
    /// The region can be read.
    pub const READ: u32 = 1 << 0;
    /// The region can be written.
    pub const WRITE: u32 = 1 << 1;
    /// The region, or areas of it, can be mapped.
    pub const MMAP: u32 = 1 << 2;
    /// Capabilities follow.
    pub const CAPS: u32 = 1 << 3;
    /// `VFIO_REGION_INFO_CAP_SPARSE_MMAP`, the id of a capability.
    pub const CAP_SPARSE_MMAP: u16 = 1;
    /// The version of that capability.
    pub const CAP_SPARSE_MMAP_VERSION: u16 = 1;
}

/// Flags of DEVICE_SET_IRQS (`VFIO_IRQ_SET_`): one kind of data and one action.
pub mod set_irqs_flags {
    /// No data: the action is for all interrupts of the range.
    pub const DATA_NONE: u32 = 1 << 0;
    /// One byte for each interrupt: not 0 where the action is meant.
    pub const DATA_BOOL: u32 = 1 << 1;
    /// One eventfd for each interrupt comes with the message, or none at all.
    pub const DATA_EVENTFD: u32 = 1 << 2;
    /// All kinds of data.
    pub const DATA: u32 = DATA_NONE | DATA_BOOL | DATA_EVENTFD;
    /// Mask.
    pub const ACTION_MASK: u32 = 1 << 3;
    /// Unmask.
    pub const ACTION_UNMASK: u32 = 1 << 4;
    /// Fire.
    pub const ACTION_TRIGGER: u32 = 1 << 5;
    /// All actions.
    pub const ACTION: u32 = ACTION_MASK | ACTION_UNMASK | ACTION_TRIGGER;
}

/// Flags of DEVICE_FEATURE (`VFIO_DEVICE_FEATURE_`).
pub mod feature_flags {
    /// Get the data.
    pub const GET: u32 = 1 << 16;
    /// Set the data.
    pub const SET: u32 = 1 << 17;
    /// Ask whether it can be got or set.
    pub const PROBE: u32 = 1 << 18;
    /// All methods.
    pub const METHODS: u32 = GET | SET | PROBE;
    /// The index of the feature.
    pub const INDEX: u32 = 0xffff;
}

/// Copies a structure off the front of `bytes`; EINVAL if they are too few.
pub fn take<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)
}

/// Copies a structure that is all of `bytes`; EINVAL if they are too few or too many.
pub fn take_all<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(bytes).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_lies_as_the_specification_draws_it() {
        let header = Header {
            message_id: 0x1122,
            command: Command::REGION_WRITE,
            size: 0x3344_5566,
            flags: HeaderFlags::ERROR_REPLY,
            error: 22,
        };
        let mut expected = Vec::new();
        expected.extend(0x1122_u16.to_ne_bytes());
        expected.extend(10_u16.to_ne_bytes());
        expected.extend(0x3344_5566_u32.to_ne_bytes());
        expected.extend(0x21_u32.to_ne_bytes());
        expected.extend(22_u32.to_ne_bytes());
        assert_eq!(header.as_bytes(), expected);
        assert_eq!(take_all::<Header>(&expected), Ok(header));
    }

    #[test]
    fn a_structure_that_is_cut_or_too_long_is_refused() {
        assert_eq!(take::<RegionAccess>(&[0; 15]).err(), Some(Errno::EINVAL));
        assert_eq!(take_all::<RegionAccess>(&[0; 17]), Err(Errno::EINVAL));
        assert!(take::<RegionAccess>(&[0; 17]).is_ok_and(|(_, rest)| rest.len() == 1));
    }

    #[test]
    fn commands_are_called_by_their_names() {
        assert_eq!(Command::DEVICE_SET_IRQS.to_string(), "DEVICE_SET_IRQS");
        assert_eq!(Command(77).to_string(), "command 77");
    }
}

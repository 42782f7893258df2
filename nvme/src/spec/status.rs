//! Status of a completion (NVMe Base 2.0, 3.3.3.2.1): code, code type, retry bits.

use std::fmt;

use bitfield_struct::bitfield;

/// The status field without the phase tag: 15 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

#[bitfield(u16)]
struct Fields {
    code: u8,
    #[bits(3)]
    kind: u8,
    #[bits(2)]
    retry_delay: u8,
    more: bool,
    do_not_retry: bool,
    #[bits(1)]
    reserved: u8,
}
const _: () = assert!(size_of::<Fields>() == 2);

const GENERIC: u8 = 0;
const COMMAND_SPECIFIC: u8 = 1;
const MEDIA: u8 = 2;

/// An error that the same command would meet again.
const fn permanent(kind: u8, code: u8) -> Status {
    let fields = Fields::new()
        .with_code(code)
        .with_kind(kind)
        .with_do_not_retry(true);
    Status(fields.into_bits())
}

/// An error that may be gone when the host tries again.
const fn passing(kind: u8, code: u8) -> Status {
    Status(Fields::new().with_code(code).with_kind(kind).into_bits())
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $make:ident($kind:expr, $code:expr);)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Status = $make($kind, $code);)*

            fn name(self) -> Option<&'static str> {
                match self {
                    $(Status::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// Successful Completion.
    SUCCESS = passing(GENERIC, 0x00);
    /// Invalid Command Opcode.
    INVALID_OPCODE = permanent(GENERIC, 0x01);
    /// Invalid Field in Command.
    INVALID_FIELD = permanent(GENERIC, 0x02);
    /// Data Transfer Error.
    DATA_TRANSFER_ERROR = permanent(GENERIC, 0x04);
    /// Internal Error.
    INTERNAL_ERROR = passing(GENERIC, 0x06);
    /// Command Abort Requested.
    COMMAND_ABORT_REQUESTED = passing(GENERIC, 0x07);
    /// Command Aborted due to SQ Deletion.
    ABORTED_SQ_DELETION = passing(GENERIC, 0x08);
    /// Invalid Namespace or Format.
    INVALID_NAMESPACE = permanent(GENERIC, 0x0b);
    /// Command Sequence Error.
    COMMAND_SEQUENCE_ERROR = permanent(GENERIC, 0x0c);
    /// Invalid SGL Segment Descriptor.
    INVALID_SGL_SEGMENT_DESCRIPTOR = permanent(GENERIC, 0x0d);
    /// Invalid Number of SGL Descriptors.
    INVALID_NUMBER_OF_SGL_DESCRIPTORS = permanent(GENERIC, 0x0e);
    /// Data SGL Length Invalid.
    DATA_SGL_LENGTH_INVALID = permanent(GENERIC, 0x0f);
    /// SGL Descriptor Type Invalid.
    SGL_DESCRIPTOR_TYPE_INVALID = permanent(GENERIC, 0x11);
    /// PRP Offset Invalid.
    PRP_OFFSET_INVALID = permanent(GENERIC, 0x13);
    /// Keep Alive Timeout Expired; only in the error log.
    KEEP_ALIVE_TIMEOUT_EXPIRED = permanent(GENERIC, 0x14);
    /// Namespace is Write Protected.
    NAMESPACE_WRITE_PROTECTED = permanent(GENERIC, 0x20);
    /// LBA Out of Range.
    LBA_OUT_OF_RANGE = permanent(GENERIC, 0x80);
    /// Capacity Exceeded.
    CAPACITY_EXCEEDED = permanent(GENERIC, 0x81);
    /// Completion Queue Invalid.
    COMPLETION_QUEUE_INVALID = permanent(COMMAND_SPECIFIC, 0x00);
    /// Invalid Queue Identifier.
    INVALID_QUEUE_ID = permanent(COMMAND_SPECIFIC, 0x01);
    /// Invalid Queue Size.
    INVALID_QUEUE_SIZE = permanent(COMMAND_SPECIFIC, 0x02);
    /// Abort Command Limit Exceeded.
    ABORT_LIMIT_EXCEEDED = passing(COMMAND_SPECIFIC, 0x03);
    /// Asynchronous Event Request Limit Exceeded.
    ASYNC_EVENT_LIMIT_EXCEEDED = permanent(COMMAND_SPECIFIC, 0x05);
    /// Invalid Interrupt Vector.
    INVALID_INTERRUPT_VECTOR = permanent(COMMAND_SPECIFIC, 0x08);
    /// Invalid Log Page.
    INVALID_LOG_PAGE = permanent(COMMAND_SPECIFIC, 0x09);
    /// Invalid Queue Deletion.
    INVALID_QUEUE_DELETION = permanent(COMMAND_SPECIFIC, 0x0c);
    /// Feature Identifier Not Saveable.
    FEATURE_NOT_SAVEABLE = permanent(COMMAND_SPECIFIC, 0x0d);
    /// Feature Not Changeable.
    FEATURE_NOT_CHANGEABLE = permanent(COMMAND_SPECIFIC, 0x0e);
    /// Feature Not Namespace Specific.
    FEATURE_NOT_NAMESPACE_SPECIFIC = permanent(COMMAND_SPECIFIC, 0x0f);
    /// I/O Command Set Combination Rejected.
    IO_COMMAND_SET_COMBINATION_REJECTED = permanent(COMMAND_SPECIFIC, 0x2b);
    /// I/O Command Set Not Supported (identify data of a command set that is not there).
    IO_COMMAND_SET_NOT_SUPPORTED = permanent(COMMAND_SPECIFIC, 0x29);
    /// Write Fault.
    WRITE_FAULT = passing(MEDIA, 0x80);
    /// Unrecovered Read Error.
    UNRECOVERED_READ_ERROR = passing(MEDIA, 0x81);
    /// Compare Failure.
    COMPARE_FAILURE = permanent(MEDIA, 0x85);
}

impl Status {
    /// The 15 bits of the field, at bit 0.
    #[inline]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Takes the 15 bits of the field, at bit 0.
    #[inline]
    pub const fn from_bits(bits: u16) -> Status {
        Status(bits & 0x7fff)
    }

    /// Status code type (SCT).
    pub fn code_type(self) -> u8 {
        Fields::from(self.0).kind()
    }

    /// Status code (SC).
    pub fn code(self) -> u8 {
        Fields::from(self.0).code()
    }

    /// Do Not Retry (DNR).
    pub fn do_not_retry(self) -> bool {
        Fields::from(self.0).do_not_retry()
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(
                f,
                "Status(sct {:#x} sc {:#04x})",
                self.code_type(),
                self.code()
            ),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_specification_has_them() {
        // Phase excluded: code in bits 7:0, type in 10:8, More in 13, Do Not Retry in 14.
        let known = [
            (Status::SUCCESS, 0x0000),
            (Status::INVALID_OPCODE, 0x4001),
            (Status::INVALID_FIELD, 0x4002),
            (Status::DATA_TRANSFER_ERROR, 0x4004),
            (Status::INTERNAL_ERROR, 0x0006),
            (Status::INVALID_NAMESPACE, 0x400b),
            (Status::COMMAND_SEQUENCE_ERROR, 0x400c),
            (Status::INVALID_SGL_SEGMENT_DESCRIPTOR, 0x400d),
            (Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS, 0x400e),
            (Status::DATA_SGL_LENGTH_INVALID, 0x400f),
            (Status::SGL_DESCRIPTOR_TYPE_INVALID, 0x4011),
            (Status::PRP_OFFSET_INVALID, 0x4013),
            (Status::KEEP_ALIVE_TIMEOUT_EXPIRED, 0x4014),
            (Status::NAMESPACE_WRITE_PROTECTED, 0x4020),
            (Status::LBA_OUT_OF_RANGE, 0x4080),
            (Status::CAPACITY_EXCEEDED, 0x4081),
            (Status::COMPLETION_QUEUE_INVALID, 0x4100),
            (Status::INVALID_QUEUE_ID, 0x4101),
            (Status::INVALID_QUEUE_SIZE, 0x4102),
            (Status::ASYNC_EVENT_LIMIT_EXCEEDED, 0x4105),
            (Status::INVALID_INTERRUPT_VECTOR, 0x4108),
            (Status::INVALID_LOG_PAGE, 0x4109),
            (Status::INVALID_QUEUE_DELETION, 0x410c),
            (Status::FEATURE_NOT_SAVEABLE, 0x410d),
            (Status::FEATURE_NOT_CHANGEABLE, 0x410e),
            (Status::FEATURE_NOT_NAMESPACE_SPECIFIC, 0x410f),
            (Status::IO_COMMAND_SET_COMBINATION_REJECTED, 0x412b),
            (Status::WRITE_FAULT, 0x0280),
            (Status::UNRECOVERED_READ_ERROR, 0x0281),
            (Status::COMPARE_FAILURE, 0x4285),
        ];
        for (status, bits) in known {
            assert_eq!(status.bits(), bits, "{status}");
        }
    }

    #[test]
    fn an_aborted_command_may_be_tried_again() {
        // A host that aborts what takes too long repeats it, unless it is told not to.
        let aborted = [
            (Status::COMMAND_ABORT_REQUESTED, 0x0007),
            (Status::ABORTED_SQ_DELETION, 0x0008),
            (Status::ABORT_LIMIT_EXCEEDED, 0x0103),
        ];
        for (status, bits) in aborted {
            assert!(!status.do_not_retry(), "{status}");
            assert_eq!(status.bits(), bits, "{status}");
        }
    }

    #[test]
    fn a_status_says_its_name() {
        assert_eq!(Status::INVALID_LOG_PAGE.to_string(), "INVALID_LOG_PAGE");
        assert_eq!(
            Status::from_bits(0x7ff).to_string(),
            "Status(sct 0x7 sc 0xff)"
        );
    }
}

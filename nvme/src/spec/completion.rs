//! Completion queue entries (NVMe Base 2.0, 3.3.3.2).

use bitfield_struct::bitfield;

use super::{CommandId, QueueId, Status};

/// A completion queue entry: 16 bytes as two little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cqe([u64; 2]);

/// Dwords 2 and 3.
#[bitfield(u64)]
struct Tail {
    sqhd: u16,
    sqid: u16,
    cid: u16,
    phase: bool,
    #[bits(15)]
    status: u16,
}
const _: () = assert!(size_of::<Tail>() == 8);

impl Cqe {
    /// A completion with a clear phase: command specific dword 0, head and number of the
    /// submission queue, command and status.
    #[inline]
    pub fn new(dword0: u32, sqhd: u16, sqid: QueueId, cid: CommandId, status: Status) -> Cqe {
        let tail = Tail::new()
            .with_sqhd(sqhd)
            .with_sqid(sqid.0)
            .with_cid(cid.0)
            .with_status(status.bits());
        Cqe([dword0.into(), tail.into()])
    }

    /// The same entry with the phase tag.
    #[inline]
    #[must_use]
    pub fn with_phase(self, phase: bool) -> Cqe {
        Cqe([self.0[0], Tail::from(self.0[1]).with_phase(phase).into()])
    }

    /// Takes the words in the order of memory.
    #[inline]
    pub const fn from_words(words: [u64; 2]) -> Cqe {
        Cqe(words)
    }

    /// The words in the order of memory.
    #[inline]
    pub const fn to_words(self) -> [u64; 2] {
        self.0
    }

    /// Command specific dword 0.
    pub const fn dword0(&self) -> u32 {
        self.0[0] as u32
    }

    /// Head of the submission queue.
    #[inline]
    pub fn sqhd(&self) -> u16 {
        Tail::from(self.0[1]).sqhd()
    }

    /// Submission queue.
    #[inline]
    pub fn sqid(&self) -> QueueId {
        QueueId(Tail::from(self.0[1]).sqid())
    }

    /// Command identifier.
    #[inline]
    pub fn cid(&self) -> CommandId {
        CommandId(Tail::from(self.0[1]).cid())
    }

    /// Phase tag.
    #[inline]
    pub fn phase(&self) -> bool {
        Tail::from(self.0[1]).phase()
    }

    /// Status.
    #[inline]
    pub fn status(&self) -> Status {
        Status::from_bits(Tail::from(self.0[1]).status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let status = Status::from_bits(0x0281);
        let cqe = Cqe::new(
            0x0403_0201,
            0x0605,
            QueueId(0x0807),
            CommandId(0x0a09),
            status,
        );
        let bytes: Vec<u8> = cqe
            .with_phase(true)
            .to_words()
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(
            bytes,
            [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 9, 10, 0x03, 0x05]
        );
        let read = Cqe::from_words(cqe.with_phase(true).to_words());
        assert_eq!(
            (read.dword0(), read.sqhd(), read.sqid()),
            (0x0403_0201, 0x0605, QueueId(0x0807))
        );
        assert_eq!(
            (read.cid(), read.status(), read.phase()),
            (CommandId(0x0a09), status, true)
        );
        assert!(!read.with_phase(false).phase());
    }
}

//! The NVM command set: what a submission queue entry asks of a block device, and what the answer
//! of the device means to the host (NVM Command Set 1.0, 3.2).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bdev::{Op, Status as BdevStatus};

use crate::namespace::Namespace;
use crate::pcie::message::ControllerView;
use crate::pcie::state::{Slot, SqBlock};
use crate::spec::nvm::{DatasetManagement, ReadWrite, WriteZeroes};
use crate::spec::{Fuse, NvmOpcode, Psdt, Sqe, Status};

/// A command of the NVM command set that passed every check which needs no guest memory.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// One Io of the block device.
    Block(Block),
    /// Dataset Management with Deallocate: a table of this many ranges is in guest memory.
    Deallocate {
        /// Number of ranges, 1-256.
        ranges: u16,
    },
    /// Nothing to do: completes with success (Dataset Management that only gives hints).
    Nothing,
}

/// One Io of the block device, without its data pointer.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// What to do.
    pub op: Op,
    /// Durable before it completes.
    pub fua: bool,
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks.
    pub blocks: u32,
    /// Bytes between host and device; 0 = none.
    pub transfer_bytes: u64,
}

impl Command {
    /// Judges a command against its namespace.
    ///
    /// # Errors
    /// The status that the command completes with.
    #[inline(always)]
    pub fn parse(
        sqe: &Sqe,
        namespace: &Namespace,
        view: &ControllerView,
    ) -> Result<Command, Status> {
        if sqe.fuse() != Fuse::NORMAL {
            return Err(Status::INVALID_FIELD);
        }
        match sqe.nvm_opcode() {
            NvmOpcode::READ => Block::read_or_compare(Op::Read, sqe, namespace, view),
            NvmOpcode::WRITE => Block::write(sqe, namespace, view),
            NvmOpcode::FLUSH => Ok(Command::Block(Block::flush())),
            NvmOpcode::WRITE_ZEROES => Block::write_zeroes(sqe, namespace, view),
            NvmOpcode::COMPARE => {
                supported(namespace.bdev().features().compare)?;
                Block::read_or_compare(Op::Compare, sqe, namespace, view)
            }
            NvmOpcode::DATASET_MANAGEMENT => dataset_management(sqe, namespace),
            _ => Err(Status::INVALID_OPCODE),
        }
    }
}

/// Checks that need no namespace: how the data pointer is to be read.
pub fn data_pointer_is_sgl(sqe: &Sqe) -> Result<bool, Status> {
    match sqe.psdt() {
        Psdt::PRP => Ok(false),
        Psdt::SGL | Psdt::SGL_METADATA_SEGMENT => Ok(true),
        _ => Err(Status::INVALID_FIELD),
    }
}

impl Block {
    fn flush() -> Block {
        Block {
            op: Op::Flush,
            fua: false,
            lba: 0,
            blocks: 0,
            transfer_bytes: 0,
        }
    }

    #[inline]
    fn transfer(
        op: Op,
        sqe: &Sqe,
        namespace: &Namespace,
        view: &ControllerView,
    ) -> Result<Block, Status> {
        let fields = ReadWrite::of(sqe);
        let blocks = u32::from(fields.nlb_z()) + 1;
        let transfer_bytes = u64::from(blocks) << namespace.block_shift();
        if transfer_bytes > u64::from(view.transfer_bytes_max) {
            return Err(Status::INVALID_FIELD);
        }
        check_range(namespace, fields.slba(), blocks)?;
        Ok(Block {
            op,
            fua: fields.fua(),
            lba: fields.slba(),
            blocks,
            transfer_bytes,
        })
    }

    #[inline]
    fn read_or_compare(
        op: Op,
        sqe: &Sqe,
        namespace: &Namespace,
        view: &ControllerView,
    ) -> Result<Command, Status> {
        Block::transfer(op, sqe, namespace, view).map(Command::Block)
    }

    #[inline]
    fn write(sqe: &Sqe, namespace: &Namespace, view: &ControllerView) -> Result<Command, Status> {
        let mut block = Block::transfer(Op::Write, sqe, namespace, view)?;
        check_writable(namespace)?;
        block.fua |= !view.write_cache;
        Ok(Command::Block(block))
    }

    fn write_zeroes(
        sqe: &Sqe,
        namespace: &Namespace,
        view: &ControllerView,
    ) -> Result<Command, Status> {
        check_writable(namespace)?;
        supported(namespace.bdev().features().write_zeroes)?;
        let fields = WriteZeroes::of(sqe);
        let blocks = u32::from(fields.nlb_z()) + 1;
        check_range(namespace, fields.slba(), blocks)?;
        Ok(Command::Block(Block {
            op: Op::WriteZeroes {
                unmap: fields.deac(),
            },
            fua: fields.fua() || !view.write_cache,
            lba: fields.slba(),
            blocks,
            transfer_bytes: 0,
        }))
    }
}

fn dataset_management(sqe: &Sqe, namespace: &Namespace) -> Result<Command, Status> {
    let fields = DatasetManagement::of(sqe);
    if !fields.deallocate() {
        return Ok(Command::Nothing);
    }
    check_writable(namespace)?;
    supported(namespace.bdev().features().unmap)?;
    Ok(Command::Deallocate {
        ranges: u16::from(fields.nr_z()) + 1,
    })
}

fn supported(feature: bool) -> Result<(), Status> {
    if feature {
        Ok(())
    } else {
        Err(Status::INVALID_OPCODE)
    }
}

/// LBA Out of Range unless all blocks exist.
#[inline]
pub fn check_range(namespace: &Namespace, lba: u64, blocks: u32) -> Result<(), Status> {
    match lba.checked_add(blocks.into()) {
        Some(end) if end <= namespace.blocks() => Ok(()),
        _ => Err(Status::LBA_OUT_OF_RANGE),
    }
}

#[inline]
fn check_writable(namespace: &Namespace) -> Result<(), Status> {
    if namespace.read_only() {
        Err(Status::NAMESPACE_WRITE_PROTECTED)
    } else {
        Ok(())
    }
}

/// What the host is told of the device's answer.
#[inline]
pub fn status_of(status: BdevStatus) -> Status {
    match status {
        BdevStatus::Success => Status::SUCCESS,
        BdevStatus::LbaOutOfRange => Status::LBA_OUT_OF_RANGE,
        BdevStatus::ReadError => Status::UNRECOVERED_READ_ERROR,
        BdevStatus::WriteError => Status::WRITE_FAULT,
        BdevStatus::CompareFailure => Status::COMPARE_FAILURE,
        BdevStatus::CapacityExceeded => Status::CAPACITY_EXCEEDED,
        BdevStatus::NotSupported => Status::INVALID_OPCODE,
        BdevStatus::Aborted => Status::COMMAND_ABORT_REQUESTED,
        BdevStatus::MemoryError => Status::DATA_TRANSFER_ERROR,
        BdevStatus::InternalError => Status::INTERNAL_ERROR,
    }
}

/// First logical block of a command that names one, for the error log; else 0.
pub fn first_lba(sqe: &Sqe) -> u64 {
    match sqe.nvm_opcode() {
        NvmOpcode::READ | NvmOpcode::WRITE | NvmOpcode::COMPARE | NvmOpcode::WRITE_ZEROES => {
            ReadWrite::of(sqe).slba()
        }
        _ => 0,
    }
}

/// Adds the command in a slot, which its device has carried out, to the statistics of its queue.
/// The block has one writer, so loads and stores are enough.
#[inline]
pub fn count(block: &SqBlock, slot: &Slot, block_shift: u8) {
    // A Compare reads the medium, and counts as a read (NVMe Base 2.0, figure 207).
    let direction = match slot.nvm_opcode() {
        NvmOpcode::READ | NvmOpcode::COMPARE => 0,
        NvmOpcode::WRITE => 1,
        _ => return,
    };
    let blocks = ReadWrite::blocks_of(slot.dword(12));
    let add = |counter: &AtomicU64, n: u64| counter.store(counter.load(Relaxed) + n, Relaxed);
    add(&block.statistics[direction], 1);
    add(
        &block.statistics[2 + direction],
        u64::from(blocks) << (block_shift - 9),
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bdev::{Features, Geometry};

    use super::*;
    use crate::namespace::tests::{DISK, Disk, FEATURES, GEOMETRY};
    use crate::pcie::message::Coalescing;
    use crate::spec::Nsid;

    const BLOCKS: u64 = GEOMETRY.blocks;
    const FUA: u32 = 1 << 30;
    const DEAC: u32 = 1 << 25;

    fn view(write_cache: bool) -> ControllerView {
        ControllerView {
            number: 1,
            namespaces: Vec::new(),
            vectors: Vec::new(),
            coalescing: Coalescing::default(),
            uncoalesced: Vec::new(),
            page_shift: 12,
            transfer_bytes_max: 4096,
            write_cache,
            shadow: None,
        }
    }

    fn sqe(opcode: NvmOpcode, lba: u64, cdw12: u32) -> Sqe {
        let cdws = [lba as u32, (lba >> 32) as u32, cdw12, 0, 0, 0];
        Sqe::new(opcode.0, Nsid(1), [0, 0], cdws)
    }

    fn parse_on(disk: Disk, write_cache: bool, sqe: &Sqe) -> Result<Command, Status> {
        let namespace = Namespace::new(Nsid(1), Arc::new(disk), false);
        Command::parse(sqe, &namespace, &view(write_cache))
    }

    fn parse(opcode: NvmOpcode, lba: u64, cdw12: u32) -> Result<Command, Status> {
        parse_on(DISK, true, &sqe(opcode, lba, cdw12))
    }

    /// What is asked of the disk: operation, FUA, first block, number of blocks, bytes moved.
    fn block(command: Result<Command, Status>) -> (Op, bool, u64, u32, u64) {
        match command {
            Ok(Command::Block(Block {
                op,
                fua,
                lba,
                blocks,
                transfer_bytes,
            })) => (op, fua, lba, blocks, transfer_bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_become_what_they_ask_of_the_disk() {
        let zero = |unmap| Op::WriteZeroes { unmap };
        let cases = [
            (NvmOpcode::READ, 7, 7, (Op::Read, false, 7, 8, 4096)),
            (NvmOpcode::READ, 7, FUA, (Op::Read, true, 7, 1, 512)),
            (
                NvmOpcode::WRITE,
                BLOCKS - 1,
                0,
                (Op::Write, false, BLOCKS - 1, 1, 512),
            ),
            (NvmOpcode::WRITE, 0, FUA, (Op::Write, true, 0, 1, 512)),
            (NvmOpcode::COMPARE, 3, 1, (Op::Compare, false, 3, 2, 1024)),
            (NvmOpcode::FLUSH, 9, 9, (Op::Flush, false, 0, 0, 0)),
            // No data, so no limit but the field.
            (
                NvmOpcode::WRITE_ZEROES,
                1,
                0xffff,
                (zero(false), false, 1, 0x1_0000, 0),
            ),
            (
                NvmOpcode::WRITE_ZEROES,
                1,
                FUA | DEAC,
                (zero(true), true, 1, 1, 0),
            ),
        ];
        for (opcode, lba, cdw12, expected) in cases {
            assert_eq!(block(parse(opcode, lba, cdw12)), expected, "{opcode:?}");
        }
    }

    #[test]
    fn a_range_past_the_end_is_refused_however_it_is_written() {
        let opcodes = [
            NvmOpcode::READ,
            NvmOpcode::WRITE,
            NvmOpcode::COMPARE,
            NvmOpcode::WRITE_ZEROES,
        ];
        for opcode in opcodes {
            for (lba, nlb_z) in [(BLOCKS, 0), (BLOCKS - 1, 1), (u64::MAX, 0), (u64::MAX, 7)] {
                let error = parse(opcode, lba, nlb_z).unwrap_err();
                assert_eq!(error, Status::LBA_OUT_OF_RANGE, "{opcode:?} {lba:#x}");
            }
        }
    }

    #[test]
    fn a_transfer_longer_than_announced_is_an_invalid_field() {
        for opcode in [NvmOpcode::READ, NvmOpcode::WRITE, NvmOpcode::COMPARE] {
            assert!(parse(opcode, 0, 7).is_ok(), "{opcode:?}");
            for nlb_z in [8, 0xffff] {
                let error = parse(opcode, 0, nlb_z).unwrap_err();
                assert_eq!(error, Status::INVALID_FIELD, "{opcode:?}");
            }
        }
    }

    #[test]
    fn without_a_write_cache_every_write_is_durable() {
        for (opcode, durable) in [
            (NvmOpcode::WRITE, true),
            (NvmOpcode::WRITE_ZEROES, true),
            (NvmOpcode::READ, false),
        ] {
            let command = parse_on(DISK, false, &sqe(opcode, 0, 0));
            assert_eq!(block(command).1, durable, "{opcode:?}");
        }
    }

    #[test]
    fn dataset_management_deallocates_or_does_nothing() {
        let dsm = |nr_z, attributes| {
            let cdws = [nr_z, attributes, 0, 0, 0, 0];
            let opcode = NvmOpcode::DATASET_MANAGEMENT.0;
            parse_on(DISK, true, &Sqe::new(opcode, Nsid(1), [0, 0], cdws))
        };
        assert!(matches!(dsm(0, 4), Ok(Command::Deallocate { ranges: 1 })));
        assert!(matches!(
            dsm(255, 7),
            Ok(Command::Deallocate { ranges: 256 })
        ));
        assert!(matches!(dsm(255, 3), Ok(Command::Nothing)));
    }

    #[test]
    fn a_read_only_disk_says_so_whatever_would_change_it() {
        let read_only = Disk {
            geometry: Geometry {
                read_only: true,
                ..GEOMETRY
            },
            features: Features {
                unmap: false,
                write_zeroes: false,
                ..FEATURES
            },
            ..DISK
        };
        let status = |opcode, cdws| {
            let sqe = Sqe::new(opcode, Nsid(1), [0, 0], cdws);
            parse_on(read_only, true, &sqe).err()
        };
        let protected = Some(Status::NAMESPACE_WRITE_PROTECTED);
        assert_eq!(status(NvmOpcode::WRITE.0, [0; 6]), protected);
        assert_eq!(status(NvmOpcode::WRITE_ZEROES.0, [0; 6]), protected);
        let deallocate = [0, 4, 0, 0, 0, 0];
        assert_eq!(
            status(NvmOpcode::DATASET_MANAGEMENT.0, deallocate),
            protected
        );
        for opcode in [NvmOpcode::READ, NvmOpcode::COMPARE, NvmOpcode::FLUSH] {
            assert_eq!(status(opcode.0, [0; 6]), None, "{opcode:?}");
        }
    }

    #[test]
    fn what_the_disk_cannot_do_is_an_invalid_opcode() {
        let plain = Disk {
            features: Features {
                unmap: false,
                write_zeroes: false,
                compare: false,
                ..FEATURES
            },
            ..DISK
        };
        let cdws = [0, 4, 0, 0, 0, 0];
        for opcode in [
            NvmOpcode::COMPARE,
            NvmOpcode::WRITE_ZEROES,
            NvmOpcode::DATASET_MANAGEMENT,
        ] {
            let sqe = Sqe::new(opcode.0, Nsid(1), [0, 0], cdws);
            let error = parse_on(plain, true, &sqe).unwrap_err();
            assert_eq!(error, Status::INVALID_OPCODE, "{opcode:?}");
        }
        let known = [0x00, 0x01, 0x02, 0x05, 0x08, 0x09];
        for opcode in (0..=u8::MAX).filter(|opcode| !known.contains(opcode)) {
            let error = parse(NvmOpcode(opcode), 0, 0).unwrap_err();
            assert_eq!(error, Status::INVALID_OPCODE, "{opcode:#x}");
        }
    }

    #[test]
    fn fused_commands_are_an_invalid_field() {
        for fuse in 1..=3u64 {
            let mut words = sqe(NvmOpcode::READ, 0, 0).to_words();
            words[0] |= fuse << 8;
            let error = parse_on(DISK, true, &Sqe::from_words(words)).unwrap_err();
            assert_eq!(error, Status::INVALID_FIELD);
        }
    }
}

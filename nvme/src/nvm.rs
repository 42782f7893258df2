//! The NVM command set: what a submission queue entry asks of a block device, and what the answer
//! of the device means to the host (NVM Command Set 1.0, 3.2).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bdev::{Op, Status as BdevStatus};

use crate::namespace::Namespace;
use crate::pcie::message::ControllerView;
use crate::pcie::state::SqBlock;
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
    #[inline]
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
        supported(namespace.bdev().features().write_zeroes)?;
        let fields = WriteZeroes::of(sqe);
        let blocks = u32::from(fields.nlb_z()) + 1;
        check_range(namespace, fields.slba(), blocks)?;
        check_writable(namespace)?;
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
    supported(namespace.bdev().features().unmap)?;
    let fields = DatasetManagement::of(sqe);
    if !fields.deallocate() {
        return Ok(Command::Nothing);
    }
    check_writable(namespace)?;
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

/// Adds a command that its device completed to the statistics of its queue. The block has one
/// writer, so loads and stores are enough.
#[inline]
pub fn count(block: &SqBlock, sqe: &Sqe, block_shift: u8, status: Status) {
    let add = |counter: &AtomicU64, n: u64| counter.store(counter.load(Relaxed) + n, Relaxed);
    if status != Status::SUCCESS {
        if matches!(status, Status::UNRECOVERED_READ_ERROR | Status::WRITE_FAULT) {
            add(&block.media_errors, 1);
        }
        return;
    }
    let units = (u64::from(ReadWrite::of(sqe).nlb_z()) + 1) << (block_shift - 9);
    // A Compare reads the medium, and counts as a read (NVMe Base 2.0, figure 207).
    match sqe.nvm_opcode() {
        NvmOpcode::READ | NvmOpcode::COMPARE => {
            add(&block.statistics[0], 1);
            add(&block.statistics[2], units);
        }
        NvmOpcode::WRITE => {
            add(&block.statistics[1], 1);
            add(&block.statistics[3], units);
        }
        _ => {}
    }
}

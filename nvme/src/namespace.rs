//! Namespaces: a block device as a host sees it.

use std::sync::Arc;

use bdev::Bdev;
use uuid::Uuid;

use crate::spec::Nsid;

/// A namespace: an identifier and the block device behind it. What every command needs of the
/// device is kept beside it.
#[derive(Debug)]
pub struct Namespace {
    nsid: Nsid,
    bdev: Arc<dyn Bdev>,
    shared: bool,
    blocks: u64,
    block_shift: u8,
    read_only: bool,
}

impl Namespace {
    /// Presents `bdev` as `nsid`; `shared` if other controllers do so too. The block size of a
    /// block device is a power of two, 512 bytes or more.
    pub fn new(nsid: Nsid, bdev: Arc<dyn Bdev>, shared: bool) -> Namespace {
        let geometry = bdev.geometry();
        assert!(geometry.block_size.is_power_of_two() && geometry.block_size >= 512);
        Namespace {
            nsid,
            shared,
            blocks: geometry.blocks,
            block_shift: geometry.block_size.trailing_zeros() as u8,
            read_only: geometry.read_only,
            bdev,
        }
    }

    /// Its identifier.
    pub fn nsid(&self) -> Nsid {
        self.nsid
    }

    /// The block device behind it.
    pub fn bdev(&self) -> &Arc<dyn Bdev> {
        &self.bdev
    }

    /// Whether it may be attached to more than one controller.
    pub fn shared(&self) -> bool {
        self.shared
    }

    /// Its size in logical blocks.
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The size of a logical block as a power of two.
    #[inline]
    pub fn block_shift(&self) -> u8 {
        self.block_shift
    }

    /// Whether writes are refused.
    #[inline]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Its identity: stable over restarts, reported as UUID and NGUID.
    pub fn uuid(&self) -> Uuid {
        self.bdev.uuid()
    }
}

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

#[cfg(test)]
pub(crate) mod tests {
    use bdev::{Channel, Features, Geometry, IoContext};

    use super::*;

    pub(crate) const FEATURES: Features = Features {
        flush: true,
        fua: true,
        unmap: true,
        write_zeroes: true,
        compare: true,
    };
    pub(crate) const GEOMETRY: Geometry = Geometry {
        block_size: 512,
        blocks: 0x0011_2233_4455,
        optimal_io_bytes: 4096,
        read_only: false,
        volatile_cache: true,
    };
    pub(crate) const DISK: Disk = Disk {
        uuid: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        geometry: GEOMETRY,
        features: FEATURES,
    };

    /// A disk that is only looked at.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Disk {
        pub(crate) uuid: u128,
        pub(crate) geometry: Geometry,
        pub(crate) features: Features,
    }

    impl Bdev for Disk {
        fn name(&self) -> &str {
            "disk"
        }

        fn uuid(&self) -> Uuid {
            Uuid::from_u128(self.uuid)
        }

        fn geometry(&self) -> Geometry {
            self.geometry
        }

        fn features(&self) -> Features {
            self.features
        }

        fn open_channel(self: Arc<Self>, _: &IoContext) -> Result<Box<dyn Channel>, bdev::Error> {
            unreachable!("nobody reads or writes it")
        }

        fn sync(&self) -> Result<(), bdev::Error> {
            Ok(())
        }
    }

    #[test]
    fn a_namespace_has_the_shape_and_identity_of_its_disk() {
        for (block_size, shift) in [(512, 9), (4096, 12), (65536, 16)] {
            let geometry = Geometry {
                block_size,
                read_only: true,
                ..GEOMETRY
            };
            let disk = Disk { geometry, ..DISK };
            let namespace = Namespace::new(Nsid(7), Arc::new(disk), true);
            assert_eq!(namespace.nsid(), Nsid(7));
            assert_eq!(namespace.blocks(), GEOMETRY.blocks);
            assert_eq!(namespace.block_shift(), shift);
            assert!(namespace.read_only() && namespace.shared());
            assert_eq!(namespace.uuid().as_u128(), DISK.uuid);
        }
    }
}

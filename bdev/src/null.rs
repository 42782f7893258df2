//! A disk that keeps nothing: what is left of a request's cost when there is no disk.
//!
//! Every request within its range succeeds at once and moves no data: a write is dropped, and a
//! read leaves the guest's buffer as it is, so it tells the guest nothing that it did not know. For
//! measuring; a file system on it would not survive its own creation.

use std::sync::Arc;

use uuid::Uuid;

use crate::completions::CompletionQueue;
use crate::{
    Bdev, Channel, Completion, Error, Features, Geometry, Io, IoContext, Status, Tag, derived_uuid,
};

/// How many requests of one channel can wait for their poll.
const DEPTH: usize = 1024;

const FEATURES: Features = Features {
    flush: true,
    fua: true,
    unmap: true,
    write_zeroes: true,
    compare: false,
};

/// What a null disk is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NullConfig {
    /// Its name.
    pub name: String,
    /// Its identity; derived from the name when not given.
    pub uuid: Option<Uuid>,
    /// How many blocks it pretends to have.
    pub blocks: u64,
    /// Bytes per block.
    pub block_size: u32,
}

/// The disk that keeps nothing.
#[derive(Debug)]
pub struct Null {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
}

impl Null {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a block size or number of blocks that no disk has.
    pub fn new(config: NullConfig) -> Result<Arc<Null>, Error> {
        let NullConfig {
            name,
            uuid,
            blocks,
            block_size,
        } = config;
        let bytes = blocks.saturating_mul(u64::from(block_size));
        let geometry = Geometry::for_size(&name, bytes, block_size)?;
        let uuid = uuid.unwrap_or_else(|| derived_uuid("null", &name, None));
        Ok(Arc::new(Null {
            name,
            uuid,
            geometry,
        }))
    }
}

impl Bdev for Null {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn open_channel(self: Arc<Self>, _context: &IoContext) -> Result<Box<dyn Channel>, Error> {
        let completions = CompletionQueue::new(DEPTH);
        Ok(Box::new(NullChannel {
            geometry: self.geometry,
            completions,
        }))
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[derive(Debug)]
struct NullChannel {
    geometry: Geometry,
    completions: CompletionQueue,
}

impl Channel for NullChannel {
    fn submit(&mut self, io: Io) -> Result<(), Io> {
        if self.completions.is_full() {
            return Err(io);
        }
        let status = io
            .verdict(&self.geometry, FEATURES)
            .unwrap_or(Status::Success);
        self.completions.push(io.tag, status);
        Ok(())
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        self.completions.drain_into(completed);
    }

    /// Nothing is ever under way.
    fn cancel(&mut self, _tag: Tag) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IoLimits, Op, conformance, memory};

    fn config(blocks: u64, block_size: u32) -> NullConfig {
        NullConfig {
            name: "null0".to_owned(),
            uuid: None,
            blocks,
            block_size,
        }
    }

    #[test]
    fn a_null_disk_keeps_the_contract_of_every_block_size() {
        for block_size in [512, 4096] {
            conformance::check_without_data(&|| Null::new(config(1 << 20, block_size)).unwrap());
        }
    }

    #[test]
    fn a_read_leaves_memory_as_it_is() {
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = Null::new(config(8, 512))
            .unwrap()
            .open_channel(&context)
            .unwrap();
        let page = memory::PAGE_BYTES as u64;
        let (backing, _) = memory::Backing::memfd("test", page, memory::PageKind::Normal).unwrap();
        let protection = memory::Protection {
            read: true,
            write: true,
        };
        let mut guest = memory::GuestMemory::new();
        let start = memory::Iova(0);
        guest
            .map(memory::MemoryRegion::new(backing, 0, start, page, protection).unwrap())
            .unwrap();
        guest.write(start, &[3; 512]).unwrap();
        let mut iovecs = memory::IoVecs::new();
        guest
            .gather(
                context.iovec_pool(),
                start,
                512,
                memory::Access::Write,
                &mut iovecs,
            )
            .unwrap();
        let io = Io {
            op: Op::Read,
            fua: false,
            lba: 0,
            blocks: 1,
            tag: Tag(1),
            iovecs,
        };
        assert!(channel.submit(io).is_ok());
        let mut completed = Vec::with_capacity(1);
        channel.poll(&mut completed);
        assert_eq!(
            completed,
            [Completion {
                tag: Tag(1),
                status: Status::Success
            }]
        );
        let mut data = [0; 512];
        guest.read(start, &mut data).unwrap();
        assert_eq!(data, [3; 512]);
    }

    #[test]
    fn a_size_that_no_disk_has_is_refused() {
        for (blocks, block_size) in [
            (0, 512),
            (1, 0),
            (1, 513),
            (1, 256),
            (1, 8192),
            (1 << 60, 512),
        ] {
            let refused = Null::new(config(blocks, block_size));
            assert!(
                matches!(refused, Err(Error::Config { .. })),
                "{blocks} of {block_size}"
            );
        }
        assert!(Null::new(config((1 << 54) - 1, 512)).is_ok());
    }

    #[test]
    fn identity_comes_from_the_name_or_from_the_operator() {
        let derived = Null::new(config(8, 512)).unwrap().uuid();
        assert_eq!(derived, derived_uuid("null", "null0", None));
        let given = Uuid::from_u128(7);
        let disk = Null::new(NullConfig {
            uuid: Some(given),
            ..config(8, 512)
        })
        .unwrap();
        assert_eq!(disk.uuid(), given);
    }
}

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

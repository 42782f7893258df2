//! A disk in a regular file or on a block device, through the reactor's io_uring.
//!
//! | room        | has                                                                        |
//! |-------------|----------------------------------------------------------------------------|
//! | `open`      | finding, creating, locking and measuring the file; the choice of O_DIRECT  |
//! | `channel`   | one reactor's way to it                                                    |
//! | `transfer`  | one request: which system call comes next, what its answer means           |
//! | `held`      | the hold of a request on its blocks, which goes where the request goes     |
//! | `error_log` | the bounded log of I/O errors                                              |
//!
//! # What reaches the file how
//!
//! With O_DIRECT requests go between guest memory and the device; where memory is not aligned as
//! the device needs it, through a bounce buffer. O_DIRECT is used only if it works on whole logical
//! blocks, so no request ever has to read, change and write back what surrounds its blocks.
//! Otherwise requests go through the page cache, which takes any alignment.
//!
//! A file system that tells nothing of O_DIRECT may take the flag and use the page cache all the
//! same, as tmpfs does: its files are treated like those without it.
//!
//! A logical block is atomic: with O_DIRECT on a device with blocks like ours by the device,
//! otherwise by [`claims`](crate::claims), also between the requests of one channel.
//!
//! In both cases an acknowledged write may be lost with the power until a flush: a device has a
//! cache too. A flush is fdatasync, which covers what was written through every channel; force unit
//! access is a write with RWF_DSYNC, or through the page cache a write and then fdatasync.
//!
//! A page cache that could not be written back forgets what it held, and the kernel tells so once
//! only. So after one failed flush, all later ones fail too until the file is opened again: what an
//! earlier write promised cannot be made good.

mod channel;
mod error_log;
mod held;
mod open;
mod transfer;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use crate::claims::Claims;
use crate::uring;
use crate::{Bdev, Channel, Error, Features, Geometry, IoContext, derived_uuid};

use channel::FileChannel;
use error_log::ErrorLog;
use transfer::Layout;

pub(crate) use transfer::Transfer;

/// What a file disk is made from.
#[derive(Debug, Clone)]
pub struct FileConfig {
    /// Its name.
    pub name: String,
    /// Its identity; derived from the name and the canonical path if not given.
    pub uuid: Option<Uuid>,
    /// A regular file or a block device.
    pub path: PathBuf,
    /// The size in bytes. A file that does not exist is created with it, sparse; one that does must
    /// have it.
    pub size: Option<u64>,
    /// Bytes per logical block.
    pub block_size: u32,
    /// Opened for reading only, and locked such that others can read too.
    pub read_only: bool,
    /// O_DIRECT: must be had, must not be used, or (None) is used if it can be had.
    pub direct: Option<bool>,
}

/// A disk in a file.
#[derive(Debug)]
pub struct File {
    name: String,
    uuid: Uuid,
    path: PathBuf,
    file: Arc<fs::File>,
    geometry: Geometry,
    features: Features,
    layout: Layout,
    /// Whether it was not there before.
    created: bool,
    /// Where the kernel does not keep blocks whole.
    claims: Option<Arc<Claims>>,
    /// A flush has failed, so data in the page cache may be gone: see the head of this module.
    cache_lost: AtomicBool,
    errors: ErrorLog,
}

impl File {
    /// Opens, or creates, and locks the file. Blocks: for the control thread.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for what does not fit together, [`Error::File`] with what the system
    /// refused, [`Error::Ring`] if there is no io_uring. A file that was created is removed again.
    pub fn open(config: FileConfig) -> Result<Arc<File>, Error> {
        uring::check()?;
        let opened = open::open(&config)?;
        let FileConfig {
            name,
            uuid,
            block_size,
            ..
        } = config;
        let layout = Layout {
            block_size,
            direct: opened.direct,
            cached: opened.cached,
            punches: opened.punches,
        };
        let writable = !opened.geometry.read_only;
        Ok(Arc::new(File {
            uuid: uuid.unwrap_or_else(|| derived_uuid("file", &name, Some(&opened.path))),
            name,
            path: opened.path,
            created: opened.created,
            file: Arc::new(opened.file),
            geometry: opened.geometry,
            features: Features {
                flush: true,
                fua: true,
                unmap: writable && opened.punches,
                write_zeroes: writable,
                compare: true,
            },
            layout,
            claims: layout.tears().then(|| Claims::among_requests(block_size)),
            cache_lost: AtomicBool::new(false),
            errors: ErrorLog::new(),
        }))
    }

    /// Removes the file if [`open`](Self::open) has made it, for one who could not go on. What
    /// the path leads to by now stays if it is another file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] with what the system refused.
    pub fn remove_if_created(&self) -> Result<(), Error> {
        if !self.created {
            return Ok(());
        }
        open::remove(&self.file, &self.path).map_err(|source| Error::File {
            name: self.name.clone(),
            action: "remove",
            path: self.path.clone(),
            source,
        })
    }

    /// Whether requests bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.layout.direct.is_some()
    }

    /// Notes that data which was promised to be durable is not.
    fn lose_cache(&self) {
        // Relaxed, as the load in `cache_is_lost`: the flag stands for itself. A flush that must
        // see it follows the failed one's completion, which came from another core by way of the
        // guest.
        if self.layout.cached {
            self.cache_lost.store(true, Ordering::Relaxed);
        }
    }

    fn cache_is_lost(&self) -> bool {
        self.cache_lost.load(Ordering::Relaxed)
    }
}

impl Bdev for File {
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
        self.features
    }

    fn open_channel(self: Arc<Self>, context: &IoContext) -> Result<Box<dyn Channel>, Error> {
        let refused = |source| Error::Channel {
            name: self.name.clone(),
            source,
        };
        let claimant = self
            .claims
            .as_ref()
            .map(Claims::claimant)
            .transpose()
            .map_err(refused)?;
        let lane = context.ring()?.attach(Arc::clone(&self.file))?;
        let buffers = context.buffer_pool().clone();
        Ok(Box::new(FileChannel::new(self, lane, buffers, claimant)))
    }

    fn sync(&self) -> Result<(), Error> {
        let failed = |source| Error::File {
            name: self.name.clone(),
            action: "flush",
            path: self.path.clone(),
            source,
        };
        if self.cache_is_lost() {
            return Err(failed(nix::errno::Errno::EIO.into()));
        }
        self.file.sync_data().map_err(|source| {
            self.lose_cache();
            failed(source)
        })
    }
}

#[cfg(test)]
mod tests;

//! What all channels of one reactor share.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use crate::Error;
use crate::file::Transfer;
use crate::memory::{BufferPool, IoVecPool, PAGE_BYTES};
use crate::uring::Ring;

/// What [`IoContext::pass_bytes`] is at first: a burst of short requests fits.
pub const PASS_BYTES: u64 = 256 << 10;

/// How much a reactor sets aside at its start; nothing is allocated later. Running out of any of it
/// makes a request wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimits {
    /// Requests that the reactor's io_uring holds at a time, for all file disks together.
    pub ring_entries: u32,
    /// Lists for requests with more segments than [`IoVecs`](crate::memory::IoVecs) hold inline;
    /// each takes about 6 KiB.
    pub iovec_lists: usize,
    /// Buffers for requests whose memory a backend cannot use as it is.
    pub bounce_buffers: usize,
    /// The size of each in bytes, rounded up to pages.
    pub bounce_bytes: usize,
}

impl Default for IoLimits {
    fn default() -> Self {
        IoLimits {
            ring_entries: 1024,
            iovec_lists: 1024,
            bounce_buffers: 32,
            // The largest transfer a guest may ask for by default, and a page for each ragged end.
            bounce_bytes: (1 << 20) + 2 * PAGE_BYTES,
        }
    }
}

/// One reactor's share of what I/O needs. A clone is the same context. Not `Send`: it stays on its
/// reactor's thread, with all channels that were opened on it.
#[derive(Debug, Clone)]
pub struct IoContext {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: IoLimits,
    pass_bytes: Cell<u64>,
    worker_cores: RefCell<Vec<usize>>,
    iovec_pool: IoVecPool,
    buffer_pool: BufferPool,
    /// Made for the first channel that needs it.
    ring: OnceCell<Ring<Transfer>>,
}

impl IoContext {
    /// Sets everything in `limits` aside.
    ///
    /// # Errors
    ///
    /// [`Error::Pool`] when the memory cannot be had.
    pub fn new(limits: IoLimits) -> Result<IoContext, Error> {
        let iovec_pool = IoVecPool::new(limits.iovec_lists);
        let buffer_pool = BufferPool::new(limits.bounce_buffers, limits.bounce_bytes)?;
        Ok(IoContext {
            inner: Rc::new(Inner {
                limits,
                pass_bytes: Cell::new(PASS_BYTES),
                worker_cores: RefCell::default(),
                iovec_pool,
                buffer_pool,
                ring: OnceCell::new(),
            }),
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn limits(&self) -> IoLimits {
        self.inner.limits
    }

    /// After how many bytes a poll of a channel copies no more, or zeroes no more, so that the
    /// reactor has time for others. One request at least is carried out, and what is written at
    /// submission is not bound by it.
    #[must_use]
    #[inline]
    pub fn pass_bytes(&self) -> u64 {
        self.inner.pass_bytes.get()
    }

    /// Changes [`pass_bytes`](Self::pass_bytes) for all channels, from their next poll on.
    pub fn set_pass_bytes(&self, bytes: u64) {
        self.inner.pass_bytes.set(bytes);
    }

    /// Has the kernel's threads do on these cores what cannot be done without waiting: flushes,
    /// and all I/O of some file systems. Without any they run where this thread may run, and take
    /// its time. For what has no ring yet: before the first channel of a file is opened.
    pub fn set_worker_cores(&self, cores: Vec<usize>) {
        self.inner.worker_cores.replace(cores);
    }

    /// The lists for long requests.
    #[must_use]
    pub fn iovec_pool(&self) -> &IoVecPool {
        &self.inner.iovec_pool
    }

    /// The bounce buffers.
    #[must_use]
    pub fn buffer_pool(&self) -> &BufferPool {
        &self.inner.buffer_pool
    }

    /// Hands the kernel some of what the channels have queued, all of it if that is little, with
    /// one system call at most for all of them together, and collects what it has finished. Due in
    /// every pass; without anything queued or in flight it does nothing.
    #[inline]
    pub fn flush(&self) {
        if let Some(ring) = self.inner.ring.get() {
            ring.flush();
        }
    }

    /// How often [`flush`](Self::flush) has entered the kernel.
    #[must_use]
    pub fn kernel_entries(&self) -> u64 {
        self.inner.ring.get().map_or(0, Ring::enters)
    }

    /// The ring of all channels that need the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Ring`] when there is none yet and the kernel refuses one.
    pub(crate) fn ring(&self) -> Result<&Ring<Transfer>, Error> {
        if let Some(ring) = self.inner.ring.get() {
            return Ok(ring);
        }
        let ring = Ring::new(self.inner.limits.ring_entries)?;
        ring.keep_workers_on(&self.inner.worker_cores.borrow());
        Ok(self.inner.ring.get_or_init(|| ring))
    }
}

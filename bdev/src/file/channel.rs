//! One reactor's way to a file disk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::claims::{Claimant, Mode};
use crate::completions::CompletionQueue;
use crate::memory::BufferPool;
use crate::uring::{Finished, Lane};
use crate::{Channel, Completion, Io, Op, Status, Tag};

use super::File;
use super::held::Held;
use super::transfer::{Next, Transfer};

/// Requests that are not with the kernel: they were answered at once, or wait for blocks that
/// others have claimed. More are handed back.
const DEPTH: usize = 128;

/// Waiting requests that are tried again in one pass.
const RETRIES_PER_PASS: usize = 16;

/// How often a request is tried before it insists on its blocks.
const TRIES_MAX: u32 = 256;

pub(super) struct FileChannel {
    disk: Arc<File>,
    lane: Lane<Transfer>,
    buffers: BufferPool,
    /// None where the kernel keeps blocks whole.
    claimant: Option<Rc<RefCell<Claimant>>>,
    /// Requests that met a claim.
    waiting: VecDeque<Waiting>,
    completions: CompletionQueue,
}

/// A request that met a claim, and how often.
struct Waiting {
    io: Io,
    tries: u32,
}

impl FileChannel {
    pub(super) fn new(
        disk: Arc<File>,
        lane: Lane<Transfer>,
        buffers: BufferPool,
        claimant: Option<Claimant>,
    ) -> Self {
        FileChannel {
            disk,
            lane,
            buffers,
            claimant: claimant.map(|claimant| Rc::new(RefCell::new(claimant))),
            waiting: VecDeque::with_capacity(DEPTH),
            completions: CompletionQueue::new(DEPTH),
        }
    }

    /// How the request ends without the file, if it does.
    fn verdict(&self, io: &Io) -> Option<Status> {
        let verdict = io.verdict(&self.disk.geometry, self.disk.features);
        verdict.or_else(|| match io.op {
            Op::Flush if self.disk.cache_is_lost() => Some(Status::WriteError),
            // There is nothing to write in what discards.
            Op::Write if io.iovecs.has_discard() => Some(Status::InternalError),
            _ => None,
        })
    }

    /// The request's blocks. None if others have some of them, after so many tries before.
    fn hold(&self, io: &Io, tries: u32) -> Option<Held> {
        let mode = match io.op {
            Op::Read | Op::Compare => Mode::Shared,
            Op::Write | Op::Unmap | Op::WriteZeroes { .. } => Mode::Exclusive,
            Op::Flush => return Some(Held::NOTHING),
        };
        let Some(claimant) = &self.claimant else {
            return Some(Held::NOTHING);
        };
        let blocks = io.lba..io.lba + u64::from(io.blocks);
        let claim = match tries < TRIES_MAX {
            true => claimant.borrow_mut().try_claim(blocks, mode)?,
            false => claimant.borrow_mut().insist(blocks, mode)?,
        };
        Some(Held::new(claimant, claim))
    }

    /// Queues the request for the kernel, or hands it back for want of a buffer.
    fn start(&self, io: Io, held: Held) -> Result<(), Io> {
        let layout = &self.disk.layout;
        let buffer = match Transfer::needs_buffer(&io, layout) {
            true => match self.buffers.take() {
                None => return Err(io),
                buffer => buffer,
            },
            false => None,
        };
        let mut transfer = Transfer::new(io, layout, held);
        if let Some(buffer) = buffer {
            transfer.bounce(buffer);
        }
        self.lane.start(transfer).map_err(Transfer::into_io)
    }

    /// Lets others go on; a request that still has to insist does so again.
    fn relent(&self) {
        if let Some(claimant) = &self.claimant {
            claimant.borrow_mut().relent();
        }
    }

    /// Tries some of the waiting requests again, the longest waiting first.
    fn retry(&mut self) {
        for _ in 0..self.waiting.len().min(RETRIES_PER_PASS) {
            if !self.lane.has_room() {
                return;
            }
            let Some(Waiting { io, tries }) = self.waiting.pop_front() else {
                return;
            };
            let started = match self.hold(&io, tries) {
                Some(held) => self.start(io, held),
                None => Err(io),
            };
            if let Err(io) = started {
                let tries = tries.saturating_add(1);
                self.waiting.push_back(Waiting { io, tries });
            }
        }
    }

    /// Goes on with a request that the kernel has answered, or completes it.
    fn proceed(&self, finished: Finished<Transfer>) -> Option<Completion> {
        let Finished {
            mut request,
            result,
            cancelled,
        } = finished;
        let at_sync = request.is_at_sync();
        let Io { tag, op, .. } = *request.io();
        let status = match request.advance(result) {
            Next::Done(status) => status,
            Next::Failed {
                status,
                errno,
                offset,
            } => {
                if at_sync {
                    self.disk.lose_cache();
                }
                // A guest that takes its memory away is told, but is no fault of the disk.
                if status != Status::MemoryError {
                    let lba = offset / u64::from(self.disk.geometry.block_size);
                    self.disk.errors.report(&self.disk.name, op, lba, errno);
                }
                status
            }
            Next::Call | Next::Bounce if cancelled => Status::Aborted,
            next @ (Next::Call | Next::Bounce) => {
                if let (Next::Bounce, Some(buffer)) = (next, self.buffers.take()) {
                    request.bounce(buffer);
                }
                // Its slot was just given back, so there is one.
                match self.lane.start(request) {
                    Ok(()) => return None,
                    Err(_) => Status::InternalError,
                }
            }
        };
        Some(Completion { tag, status })
    }
}

impl Channel for FileChannel {
    fn submit(&mut self, io: Io) -> Result<(), Io> {
        let aside = self.completions.len() + self.waiting.len();
        if aside >= DEPTH || !self.lane.has_room() {
            return Err(io);
        }
        if let Some(status) = self.verdict(&io) {
            self.completions.push(io.tag, status);
            return Ok(());
        }
        match self.hold(&io, 0) {
            Some(held) => self.start(io, held),
            None => {
                self.waiting.push_back(Waiting { io, tries: 1 });
                Ok(())
            }
        }
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        self.completions.drain_into(completed);
        // What goes on is queued behind what was finished before, so that this ends.
        while completed.len() < completed.capacity() {
            let Some(finished) = self.lane.take_finished() else {
                break;
            };
            completed.extend(self.proceed(finished));
        }
        if !self.waiting.is_empty() {
            self.retry();
        }
    }

    fn cancel(&mut self, tag: Tag) {
        let waiting = |waiting: &Waiting| waiting.io.tag == tag;
        if let Some(at) = self.waiting.iter().position(waiting) {
            self.waiting.remove(at);
            self.relent();
            self.completions.push(tag, Status::Aborted);
        }
        self.lane.cancel(|transfer| transfer.io().tag == tag);
    }
}

impl Drop for FileChannel {
    /// What the kernel still has keeps the claimant, but nobody insists any more.
    fn drop(&mut self) {
        self.relent();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Guest, config, io, on_disk, open};
    use super::super::{File, FileConfig};
    use super::*;
    use crate::Bdev;

    /// What a fresh channel makes of the kernel's answer to a request, and whether a flush still
    /// succeeds then.
    fn outcome(direct: bool, io: Io, result: i32, cancelled: bool) -> (Option<Status>, bool) {
        let folder = on_disk();
        let config = config(&folder.path().join("disk"), 4096);
        let direct = Some(direct);
        let disk: Arc<File> = open(FileConfig { direct, ..config });
        let guest = Guest::new();
        let lane = guest
            .context
            .ring()
            .unwrap()
            .attach(Arc::clone(&disk.file))
            .unwrap();
        let buffers = guest.context.buffer_pool().clone();
        let channel = FileChannel::new(Arc::clone(&disk), lane, buffers, None);
        let request = Transfer::new(io, &disk.layout, Held::NOTHING);
        let finished = Finished {
            request,
            result,
            cancelled,
        };
        let status = channel
            .proceed(finished)
            .map(|completion| completion.status);
        (status, disk.sync().is_ok())
    }

    fn fua(op: Op) -> Io {
        Io {
            fua: true,
            ..io(op, 0, 1)
        }
    }

    #[test]
    fn only_a_sync_of_the_page_cache_that_fails_ends_all_flushes() {
        let (flush, write) = (|| io(Op::Flush, 0, 0), || io(Op::Write, 0, 1));
        let cases = [
            (flush(), libc::EIO, Status::WriteError, false),
            (flush(), libc::ENOSPC, Status::CapacityExceeded, false),
            (flush(), libc::EDQUOT, Status::CapacityExceeded, false),
            (fua(Op::Write), libc::EIO, Status::WriteError, true),
            (fua(Op::Write), libc::ENOSPC, Status::CapacityExceeded, true),
            (fua(Op::Read), libc::EIO, Status::ReadError, true),
            (write(), libc::EIO, Status::WriteError, true),
            (flush(), libc::ECANCELED, Status::Aborted, true),
        ];
        for (io, errno, status, flushes) in cases {
            let what = format!("{io:?} {errno}");
            assert_eq!(
                outcome(false, io, -errno, false),
                (Some(status), flushes),
                "{what}"
            );
        }
        assert_eq!(
            outcome(true, flush(), -libc::EIO, false),
            (Some(Status::WriteError), true)
        );
    }

    #[test]
    fn a_cancelled_request_ends_where_it_would_go_on() {
        let again = || io(Op::Read, 0, 1);
        assert_eq!(outcome(false, again(), -libc::EINTR, false).0, None);
        assert_eq!(
            outcome(false, again(), -libc::EINTR, true).0,
            Some(Status::Aborted)
        );
        assert_eq!(outcome(false, again(), 512, true).0, Some(Status::Aborted));
        assert_eq!(outcome(false, again(), 4096, true).0, Some(Status::Success));
    }
}

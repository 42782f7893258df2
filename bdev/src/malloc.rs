//! A disk in memory: fast, and gone with the process.
//!
//! A write is done when it is submitted: it goes past the caches, and what its reactor does before
//! the next one takes no time that memory would not take anyway. Other requests are put into a
//! queue, and done when the channel is polled: the copies of a burst one after the other, with the
//! memory of each called for early, take a quarter less time than copies among other work. A poll
//! does as many as it can report. Two kinds take several passes: one whose blocks another channel
//! has claimed at that moment, and a long unmap or write zeroes, which advances by
//! [`ZERO_BYTES_PER_PASS`] at a time so that no guest can make a reactor stand still. A poll also
//! ends when it has copied as much as the reactor allows.
//!
//! Memory is never given back to the system: what is unmapped is zeroed and stays, since a disk
//! that had to ask for memory while it is written could be refused.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use uuid::Uuid;

use crate::claims::{Claimant, Claims, Mode};
use crate::completions::CompletionQueue;
use crate::memory::{Arena, IoVecs, Nodes, PageKind, Placement};
use crate::{
    Bdev, Channel, Completion, Error, Features, Geometry, Io, IoContext, Op, Status, Tag,
    derived_uuid,
};

/// How many requests of one channel can be under way.
const DEPTH: usize = 1024;

/// How many requests before its turn the memory of a request is called for.
const AHEAD: usize = 2;

/// How much one channel zeroes in one pass, unless the reactor allows less: about 10 microseconds.
pub const ZERO_BYTES_PER_PASS: u64 = 128 << 10;

/// After how much one channel writes no more at submission before it is polled. A burst of short
/// writes fits: what is left for the poll waits longer than what comes after it.
const WRITE_BYTES_PER_PASS: u64 = 256 << 10;

const FEATURES: Features = Features {
    flush: true,
    fua: true,
    unmap: true,
    write_zeroes: true,
    compare: true,
};

/// What a memory disk is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MallocConfig {
    /// Its name.
    pub name: String,
    /// Its identity; derived from the name when not given.
    pub uuid: Option<Uuid>,
    /// Its size in bytes, a multiple of the block size.
    pub size: u64,
    /// Bytes per block.
    pub block_size: u32,
}

/// The disk in memory.
#[derive(Debug)]
pub struct Malloc {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    arena: Arena,
    claims: Arc<Claims>,
}

impl Malloc {
    /// Makes one, full of zeroes. Blocks while all of the memory is brought in: for the control
    /// thread.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a size or block size that no disk has, [`Error::Memory`] when there is
    /// not that much memory.
    pub fn new(config: MallocConfig) -> Result<Arc<Malloc>, Error> {
        Malloc::on_nodes(config, &Nodes::default())
    }

    /// As [`new`](Self::new), with its memory on the nodes of the reactors that will use it; none
    /// where it does not matter. A node without room is no error, and is said in the log.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn on_nodes(config: MallocConfig, nodes: &Nodes) -> Result<Arc<Malloc>, Error> {
        let MallocConfig {
            name,
            uuid,
            size,
            block_size,
        } = config;
        let geometry = Geometry::for_size(&name, size, block_size)?;
        let arena = Arena::on_nodes(size, nodes).map_err(|error| Error::Memory {
            name: name.clone(),
            bytes: size,
            reason: error.to_string(),
        })?;
        let pages = match arena.page_kind() {
            PageKind::Huge => "huge pages from the reserved pool",
            PageKind::Transparent => "transparent huge pages as the kernel has them",
            PageKind::Normal => "normal pages",
        };
        tracing::info!("disk {name}: {size} bytes of memory in {pages}");
        log_placement(&name, arena.placement(), nodes);
        let uuid = uuid.unwrap_or_else(|| derived_uuid("malloc", &name, None));
        Ok(Arc::new(Malloc {
            name,
            uuid,
            geometry,
            arena,
            claims: Claims::new(block_size),
        }))
    }

    /// What its memory is made of.
    #[must_use]
    pub fn page_kind(&self) -> PageKind {
        self.arena.page_kind()
    }

    /// A position in bytes. Nothing overflows: requests that are not within the disk end before.
    fn offset(&self, lba: u64) -> u64 {
        lba * u64::from(self.geometry.block_size)
    }
}

fn log_placement(name: &str, placement: Placement, nodes: &Nodes) {
    match placement {
        Placement::Anywhere => {}
        Placement::AsAsked => tracing::info!("disk {name}: its memory is on node {nodes}"),
        Placement::Elsewhere { percent } => tracing::warn!(
            "disk {name}: {percent} % of its memory is on other nodes than {nodes}, where its \
             reactors are: there is no room, or not enough of its huge pages are reserved there"
        ),
        Placement::Refused(error) => {
            tracing::warn!("disk {name}: its memory is not on node {nodes}: {error}");
        }
    }
}

impl Bdev for Malloc {
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

    fn open_channel(self: Arc<Self>, context: &IoContext) -> Result<Box<dyn Channel>, Error> {
        let refused = |source| Error::Channel {
            name: self.name.clone(),
            source,
        };
        let claimant = self.claims.claimant().map_err(refused)?;
        Ok(Box::new(MallocChannel {
            disk: self,
            context: context.clone(),
            claimant,
            fresh: VecDeque::with_capacity(DEPTH),
            waiting: VecDeque::with_capacity(DEPTH),
            ended: CompletionQueue::new(DEPTH),
            copied: 0,
        }))
    }

    /// There is no better place than memory.
    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[derive(Debug)]
struct MallocChannel {
    disk: Arc<Malloc>,
    context: IoContext,
    claimant: Claimant,
    /// Requests that nobody has looked at since they came.
    fresh: VecDeque<Task>,
    /// Requests that met a claim or are long, in the order in which they came.
    waiting: VecDeque<Task>,
    /// Requests that need no poll to end: writes, and those that are wrong or cancelled.
    ended: CompletionQueue,
    /// Bytes copied since the last poll.
    copied: u64,
}

/// A request under way.
#[derive(Debug)]
struct Task {
    io: Io,
    /// How many of its blocks are zeroed already.
    zeroed: u32,
}

impl Channel for MallocChannel {
    fn submit(&mut self, io: Io) -> Result<(), Io> {
        if self.fresh.len() + self.waiting.len() + self.ended.len() >= DEPTH {
            return Err(io);
        }
        match io.verdict(&self.disk.geometry, FEATURES) {
            Some(status) => self.ended.push(io.tag, status),
            None if io.op == Op::Write && self.copied < WRITE_BYTES_PER_PASS => self.write(io),
            None => {
                self.fresh.push_back(Task { io, zeroed: 0 });
                // Of one that stays alone the copy comes at once.
                if self.fresh.len() == AHEAD {
                    self.fresh
                        .iter()
                        .for_each(|task| self.call_for_memory_of(&task.io));
                }
            }
        }
        Ok(())
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        self.ended.drain_into(completed);
        let block_size = u64::from(self.disk.geometry.block_size);
        let pass_bytes = self.context.pass_bytes().max(block_size);
        let mut budget = ZERO_BYTES_PER_PASS.min(pass_bytes);
        let mut copied = mem::take(&mut self.copied);
        let mut wrote = !self.waiting.is_empty() || copied > 0;
        // One at least of either kind, or writes could keep the others from their turn.
        let limit_after = |copied: u64| copied.max(pass_bytes - 1);
        if !self.waiting.is_empty() {
            let limit = limit_after(copied);
            self.advance_waiting(completed, &mut budget, &mut copied, limit);
        }
        let limit = limit_after(copied);
        while completed.len() < completed.capacity() && copied <= limit {
            if let Some(task) = self.fresh.get(AHEAD) {
                self.call_for_memory_of(&task.io);
            }
            let Some(task) = self.fresh.front_mut() else {
                break;
            };
            wrote |= task.io.op == Op::Write;
            copied += task.io.iovecs.bytes();
            match task.advance(&self.disk, &mut self.claimant, &mut budget) {
                Some(status) => {
                    let tag = task.io.tag;
                    completed.push(Completion { tag, status });
                    self.fresh.pop_front();
                }
                None => self.waiting.extend(self.fresh.pop_front()),
            }
        }
        if wrote {
            // Before anybody is told.
            self.disk.arena.settle();
        }
    }

    fn cancel(&mut self, tag: Tag) {
        for queue in [&mut self.fresh, &mut self.waiting] {
            if let Some(at) = queue.iter().position(|task| task.io.tag == tag) {
                queue.remove(at);
                self.ended.push(tag, Status::Aborted);
            }
        }
    }
}

impl MallocChannel {
    /// Writes, unless another channel has the blocks. The poll tells of it.
    fn write(&mut self, io: Io) {
        let tag = io.tag;
        self.copied += io.iovecs.bytes();
        let mut task = Task { io, zeroed: 0 };
        match task.advance(&self.disk, &mut self.claimant, &mut 0) {
            Some(status) => self.ended.push(tag, status),
            None => self.waiting.push_back(task),
        }
    }

    /// Of what is only written nothing is called for: it goes past the caches.
    #[inline]
    fn call_for_memory_of(&self, io: &Io) {
        if io.op != Op::Write {
            let offset = self.disk.offset(io.lba);
            self.disk.arena.prefetch(offset, io.iovecs.bytes());
        }
    }

    /// Tries each waiting request once, as long as there is room to report it and not too much is
    /// copied, the oldest in any case. Those that zero share one budget, the oldest first.
    fn advance_waiting(
        &mut self,
        completed: &mut Vec<Completion>,
        budget: &mut u64,
        copied: &mut u64,
        limit: u64,
    ) {
        let MallocChannel {
            disk,
            claimant,
            waiting,
            ..
        } = self;
        waiting.retain_mut(|task| {
            if completed.len() == completed.capacity() || *copied > limit {
                return true;
            }
            let status = task.advance(disk, claimant, budget);
            if status.is_some() {
                *copied += task.io.iovecs.bytes();
            }
            completed.extend(status.map(|status| Completion {
                tag: task.io.tag,
                status,
            }));
            status.is_none()
        });
    }
}

impl Task {
    /// Does what can be done now. None when some of it is left, or another channel has the blocks.
    #[inline(always)]
    fn advance(
        &mut self,
        disk: &Malloc,
        claimant: &mut Claimant,
        budget: &mut u64,
    ) -> Option<Status> {
        let otherwise = |status| move |done| if done { Status::Success } else { status };
        match self.io.op {
            Op::Read => self
                .transfer(disk, claimant, Mode::Shared, Arena::read)
                .map(otherwise(Status::InternalError)),
            Op::Write => self
                .transfer(disk, claimant, Mode::Exclusive, Arena::write)
                .map(otherwise(Status::InternalError)),
            Op::Compare => self
                .transfer(disk, claimant, Mode::Shared, Arena::equals)
                .map(otherwise(Status::CompareFailure)),
            Op::Unmap | Op::WriteZeroes { .. } => self.zero(disk, claimant, budget),
            Op::Flush => Some(Status::Success),
        }
    }

    /// None when another channel has the blocks, else what the arena said.
    #[inline(always)]
    fn transfer(
        &self,
        disk: &Malloc,
        claimant: &mut Claimant,
        mode: Mode,
        transfer: fn(&Arena, u64, &IoVecs) -> bool,
    ) -> Option<bool> {
        let Io {
            lba,
            blocks,
            ref iovecs,
            ..
        } = self.io;
        let claim = claimant.try_claim(lba..lba + u64::from(blocks), mode)?;
        let done = transfer(&disk.arena, disk.offset(lba), iovecs);
        if mode == Mode::Exclusive && claimant.has_company() {
            disk.arena.settle();
        }
        claimant.release(claim);
        Some(done)
    }

    fn zero(&mut self, disk: &Malloc, claimant: &mut Claimant, budget: &mut u64) -> Option<Status> {
        let block_size = u64::from(disk.geometry.block_size);
        let lba = self.io.lba + u64::from(self.zeroed);
        let left = self.io.blocks - self.zeroed;
        let now = u64::from(left).min(*budget / block_size);
        if now == 0 {
            return None;
        }
        let claim = claimant.try_claim(lba..lba + now, Mode::Exclusive)?;
        let done = disk.arena.zero(disk.offset(lba), now * block_size);
        claimant.release(claim);
        *budget -= now * block_size;
        self.zeroed += now as u32;
        match (done, self.zeroed == self.io.blocks) {
            (false, _) => Some(Status::InternalError),
            (true, true) => Some(Status::Success),
            (true, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IoLimits;
    use crate::conformance;

    fn malloc(size: u64, block_size: u32) -> Result<Arc<Malloc>, Error> {
        Malloc::new(MallocConfig {
            name: "malloc0".to_owned(),
            uuid: None,
            size,
            block_size,
        })
    }

    fn bare(op: Op, lba: u64, blocks: u32, tag: u32) -> Io {
        Io {
            op,
            fua: false,
            lba,
            blocks,
            tag: Tag(tag),
            iovecs: IoVecs::new(),
        }
    }

    fn poll(channel: &mut dyn Channel) -> Vec<Completion> {
        let mut completed = Vec::with_capacity(8);
        channel.poll(&mut completed);
        completed
    }

    #[test]
    fn a_memory_disk_keeps_the_contract_of_every_block_size() {
        for block_size in [512, 4096] {
            conformance::check(&|| malloc(16 << 20, block_size).unwrap());
        }
    }

    #[test]
    fn memory_that_cannot_be_had_is_refused_with_a_sentence() {
        let refused = malloc(1 << 43, 512).unwrap_err();
        assert!(matches!(refused, Error::Memory { .. }));
        let sentence = refused.to_string();
        assert!(sentence.starts_with("disk malloc0: cannot get 8796093022208 bytes of memory: "));
        assert!(sentence.ends_with(" are available"), "{sentence}");
    }

    #[test]
    fn a_size_that_is_not_whole_blocks_is_refused() {
        for (size, block_size) in [(0, 512), (1000, 512), (2048, 4096), (4096, 1000)] {
            assert!(matches!(
                malloc(size, block_size),
                Err(Error::Config { .. })
            ));
        }
    }

    #[test]
    fn a_long_unmap_takes_many_passes_and_lets_others_through() {
        let disk = malloc(64 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        assert!(channel.submit(bare(Op::Unmap, 0, 64 << 11, 1)).is_ok());
        let mut passes = 0;
        loop {
            assert!(channel.submit(bare(Op::Flush, 0, 0, 2)).is_ok());
            let completed = poll(&mut *channel);
            assert!(completed.contains(&Completion {
                tag: Tag(2),
                status: Status::Success
            }));
            if completed.len() == 2 {
                break;
            }
            passes += 1;
        }
        // One slice at each pass, the last one within the loop's last pass.
        assert_eq!(passes, (64 << 20) / ZERO_BYTES_PER_PASS - 1);
    }

    #[test]
    fn long_reads_take_turns_with_the_rest_of_the_reactor() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        let mut reads = |bytes: u64| {
            for tag in 0..8 {
                let blocks = (bytes / 512) as u32;
                let mut io = bare(Op::Read, 0, blocks, tag);
                io.iovecs.push_discard(context.iovec_pool(), bytes).unwrap();
                assert!(channel.submit(io).is_ok());
            }
            let polls = (0..8).map(|_| poll(&mut *channel).len());
            polls.take_while(|done| *done > 0).collect::<Vec<_>>()
        };
        assert_eq!(reads(4096), [8]);
        assert_eq!(reads(128 << 10), [2; 4]);
        assert_eq!(reads(1 << 20), [1; 8]);
    }

    #[test]
    fn a_reactor_can_ask_for_shorter_passes_and_not_for_ones_in_which_nothing_happens() {
        let disk = malloc(16 << 20, 512).unwrap();
        for (pass_bytes, each) in [(0, 1), (8192, 2), (12 << 10, 3)] {
            let context = IoContext::new(IoLimits::default()).unwrap();
            let mut channel = Arc::clone(&disk).open_channel(&context).unwrap();
            context.set_pass_bytes(pass_bytes);
            for tag in 0..6 {
                let mut io = bare(Op::Read, 0, 8, tag);
                io.iovecs.push_discard(context.iovec_pool(), 4096).unwrap();
                assert!(channel.submit(io).is_ok());
            }
            let polls: Vec<_> = (0..6 / each).map(|_| poll(&mut *channel).len()).collect();
            assert_eq!(polls, vec![each; 6 / each]);
            assert!(channel.submit(bare(Op::Unmap, 0, 24, 1)).is_ok());
            let blocks = pass_bytes.max(512) / 512;
            let passes = 1
                + (0..24)
                    .take_while(|_| poll(&mut *channel).is_empty())
                    .count();
            assert_eq!(passes as u64, 24_u64.div_ceil(blocks));
        }
    }

    #[test]
    fn what_was_written_before_a_poll_counts_for_its_pass_and_starves_nobody() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        let mut submit = |op, bytes: u64, tag| {
            let mut io = bare(op, 0, (bytes / 512) as u32, tag);
            io.iovecs.push_discard(context.iovec_pool(), bytes).unwrap();
            assert!(channel.submit(io).is_ok());
        };
        for tag in 0..3 {
            submit(Op::Read, 4096, tag);
        }
        for tag in 3..6 {
            submit(Op::Write, WRITE_BYTES_PER_PASS / 2, tag);
        }
        // The third write is one too many for the first pass, and has its turn after the reads.
        let tags =
            |completed: Vec<Completion>| completed.iter().map(|c| c.tag.0).collect::<Vec<_>>();
        assert_eq!(tags(poll(&mut *channel)), [3, 4, 0]);
        assert_eq!(tags(poll(&mut *channel)), [1, 2, 5]);
    }

    #[test]
    fn long_unmaps_share_the_budget_of_a_pass() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        let blocks = (ZERO_BYTES_PER_PASS / 512) as u32;
        for tag in 0..4 {
            assert!(channel.submit(bare(Op::Unmap, 0, blocks, tag)).is_ok());
        }
        for tag in 0..4 {
            let done = Completion {
                tag: Tag(tag),
                status: Status::Success,
            };
            assert_eq!(poll(&mut *channel), [done]);
        }
    }

    #[test]
    fn a_poll_does_no_more_than_it_can_report() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        for tag in 0..20 {
            assert!(channel.submit(bare(Op::Flush, 0, 0, tag)).is_ok());
        }
        let reported: Vec<_> = (0..4).map(|_| poll(&mut *channel).len()).collect();
        assert_eq!(reported, [8, 8, 4, 0]);
    }

    #[test]
    fn requests_that_waited_are_reported_as_there_is_room() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = Arc::clone(&disk).open_channel(&context).unwrap();
        let mut other = disk.claims.claimant().unwrap();
        let claim = other.try_claim(0..1, Mode::Exclusive).unwrap();
        for tag in 0..12 {
            assert!(channel.submit(bare(Op::Unmap, 0, 1, tag)).is_ok());
        }
        assert_eq!(poll(&mut *channel), []);
        other.release(claim);
        let reported: Vec<_> = (0..3).map(|_| poll(&mut *channel).len()).collect();
        assert_eq!(reported, [8, 4, 0]);
    }

    #[test]
    fn a_request_that_nobody_looked_at_can_be_cancelled() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        assert!(channel.submit(bare(Op::Unmap, 0, 1, 1)).is_ok());
        channel.cancel(Tag(1));
        assert_eq!(
            poll(&mut *channel),
            [Completion {
                tag: Tag(1),
                status: Status::Aborted
            }]
        );
    }

    #[test]
    fn a_cancelled_unmap_is_aborted_at_once() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = disk.open_channel(&context).unwrap();
        assert!(channel.submit(bare(Op::Unmap, 0, 16 << 11, 1)).is_ok());
        assert_eq!(poll(&mut *channel), []);
        channel.cancel(Tag(1));
        channel.cancel(Tag(1));
        assert_eq!(
            poll(&mut *channel),
            [Completion {
                tag: Tag(1),
                status: Status::Aborted
            }]
        );
        assert_eq!(poll(&mut *channel), []);
    }

    #[test]
    fn a_request_waits_for_blocks_that_another_channel_has_and_others_pass() {
        let disk = malloc(16 << 20, 512).unwrap();
        let context = IoContext::new(IoLimits::default()).unwrap();
        let mut channel = Arc::clone(&disk).open_channel(&context).unwrap();
        let mut other = disk.claims.claimant().unwrap();
        let claim = other.try_claim(8..16, Mode::Shared).unwrap();
        assert!(
            channel
                .submit(bare(Op::WriteZeroes { unmap: false }, 0, 16, 1))
                .is_ok()
        );
        assert!(
            channel
                .submit(bare(Op::WriteZeroes { unmap: false }, 16, 16, 2))
                .is_ok()
        );
        let done = |tag| {
            [Completion {
                tag: Tag(tag),
                status: Status::Success,
            }]
        };
        assert_eq!(poll(&mut *channel), done(2));
        assert_eq!(poll(&mut *channel), []);
        other.release(claim);
        assert_eq!(poll(&mut *channel), done(1));
    }
}

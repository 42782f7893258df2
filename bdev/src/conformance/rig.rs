//! A device, a channel on it, guest memory, and the books of what is in flight.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use super::{DEVICE_BYTES_MIN, Subject};
use crate::memory::{
    Access, Backing, GuestMemory, IoVecs, Iova, MemoryRegion, PageKind, Protection,
};
use crate::{Bdev, Channel, Completion, Geometry, Io, IoContext, IoLimits, Op, Status, Tag};

/// How much guest memory there is: two regions whose order in the file is not the guest's.
pub(super) const GUEST_BYTES: u64 = 4 << 20;

/// The longest transfer of the suite: what guests are told is the longest.
pub(super) const TRANSFER_BYTES_MAX: u64 = 1 << 20;

/// Where guest memory begins.
const BASE: u64 = 1 << 20;

/// How many completions are taken at once: few, so that a backend has to keep some back.
const BURST: usize = 3;

/// How often a quiet channel is polled to see that nothing more comes.
const QUIET_POLLS: usize = 16;

/// A request without its tag.
pub(super) struct Request {
    pub(super) op: Op,
    pub(super) fua: bool,
    pub(super) lba: u64,
    pub(super) blocks: u32,
    pub(super) iovecs: IoVecs,
}

impl Request {
    /// A request that has no data.
    pub(super) fn bare(op: Op, lba: u64, blocks: u32) -> Request {
        Request {
            op,
            fua: false,
            lba,
            blocks,
            iovecs: IoVecs::new(),
        }
    }
}

/// One reactor's side of the suite: everything that a poll group would have.
pub(super) struct Rig {
    pub(super) bdev: Arc<dyn Bdev>,
    pub(super) context: IoContext,
    pub(super) memory: GuestMemory,
    channel: Option<Box<dyn Channel>>,
    in_flight: HashSet<Tag>,
    finished: HashMap<Tag, Status>,
    next_tag: u32,
    patience: Duration,
}

impl Subject<'_> {
    /// A rig on a new device.
    pub(super) fn rig(&self) -> Rig {
        Rig::new((self.make)(), self.patience)
    }
}

impl Rig {
    pub(super) fn new(bdev: Arc<dyn Bdev>, patience: Duration) -> Rig {
        let context = IoContext::new(IoLimits::default()).expect("a context can be made");
        let mut rig = Rig {
            bdev,
            context,
            memory: guest_memory(),
            channel: None,
            in_flight: HashSet::new(),
            finished: HashMap::new(),
            next_tag: 0,
            patience,
        };
        let geometry = rig.geometry();
        let bytes = geometry
            .blocks
            .saturating_mul(u64::from(geometry.block_size));
        assert!(
            bytes >= DEVICE_BYTES_MIN,
            "the suite needs a device of {DEVICE_BYTES_MIN} bytes"
        );
        rig.open();
        rig
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.bdev.geometry()
    }

    pub(super) fn block_bytes(&self) -> u64 {
        u64::from(self.geometry().block_size)
    }

    /// Opens a channel where there was none, or drops the one there is with all that it has in
    /// flight.
    pub(super) fn open(&mut self) {
        self.channel = None;
        self.in_flight.clear();
        self.finished.clear();
        let channel = Arc::clone(&self.bdev).open_channel(&self.context);
        self.channel = Some(channel.expect("a channel can be opened"));
    }

    /// Submits a request once. False if it was handed back.
    pub(super) fn try_submit(&mut self, request: Request) -> Result<Tag, Request> {
        let Request {
            op,
            fua,
            lba,
            blocks,
            iovecs,
        } = request;
        let tag = Tag(self.next_tag);
        let bytes = iovecs.bytes();
        let io = Io {
            op,
            fua,
            lba,
            blocks,
            tag,
            iovecs,
        };
        match self.channel().submit(io) {
            Ok(()) => {
                self.next_tag = self.next_tag.wrapping_add(1);
                self.in_flight.insert(tag);
                Ok(tag)
            }
            Err(Io {
                op: op2,
                fua: fua2,
                lba: lba2,
                blocks: blocks2,
                tag: tag2,
                iovecs,
            }) => {
                let same = (op2, fua2, lba2, blocks2, tag2, iovecs.bytes());
                let sent = (op, fua, lba, blocks, tag, bytes);
                assert_eq!(same, sent, "a full channel hands back what it was given");
                Err(Request {
                    op,
                    fua,
                    lba,
                    blocks,
                    iovecs,
                })
            }
        }
    }

    /// Submits a request, however often it is handed back.
    pub(super) fn submit(&mut self, mut request: Request) -> Tag {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.try_submit(request) {
                Ok(tag) => return tag,
                Err(back) => request = back,
            }
            assert!(
                Instant::now() < deadline,
                "a full channel never became free"
            );
            self.poll();
        }
    }

    /// One pass of a reactor.
    pub(super) fn poll(&mut self) {
        let mut completed = Vec::with_capacity(BURST);
        let capacity = completed.capacity();
        self.context.flush();
        self.channel().poll(&mut completed);
        assert_eq!(
            completed.capacity(),
            capacity,
            "poll pushed more than the burst of its caller"
        );
        for Completion { tag, status } in completed {
            assert!(
                self.in_flight.remove(&tag),
                "a request completed twice, or never was"
            );
            self.finished.insert(tag, status);
        }
        thread::yield_now();
    }

    /// Waits for a request, and takes its status out of the books.
    pub(super) fn wait(&mut self, tag: Tag) -> Status {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(status) = self.finished.remove(&tag) {
                return status;
            }
            assert!(Instant::now() < deadline, "a request was never completed");
            self.poll();
        }
    }

    /// Waits for a request while another channel goes on with its own.
    pub(super) fn wait_beside(&mut self, tag: Tag, other: &mut Rig) -> Status {
        let deadline = Instant::now() + self.patience;
        while !self.finished.contains_key(&tag) && Instant::now() < deadline {
            self.poll();
            other.poll();
        }
        self.wait(tag)
    }

    /// Submits, waits, and sees that nothing more comes.
    pub(super) fn run(&mut self, request: Request) -> Status {
        let tag = self.submit(request);
        let status = self.wait(tag);
        self.settle();
        status
    }

    /// Waits for everything in flight, and polls on to see that nothing completes twice.
    pub(super) fn settle(&mut self) -> HashMap<Tag, Status> {
        let finished = self.settle_quickly();
        (0..QUIET_POLLS).for_each(|_| self.poll());
        finished
    }

    /// Waits for everything in flight.
    pub(super) fn settle_quickly(&mut self) -> HashMap<Tag, Status> {
        let deadline = Instant::now() + self.patience;
        while !self.in_flight.is_empty() {
            assert!(Instant::now() < deadline, "a request was never completed");
            self.poll();
        }
        std::mem::take(&mut self.finished)
    }

    /// Makes the next request have the tag of the last one.
    pub(super) fn rewind_tags(&mut self) {
        self.next_tag = self.next_tag.saturating_sub(1);
    }

    pub(super) fn cancel(&mut self, tag: Tag) {
        self.channel().cancel(tag);
    }

    fn channel(&mut self) -> &mut dyn Channel {
        self.channel.as_deref_mut().expect("a channel is open")
    }

    /// The memory at these places, as segments in their order.
    pub(super) fn gather(&self, layout: &Layout, access: Access) -> IoVecs {
        let mut iovecs = IoVecs::new();
        self.gather_into(layout, access, &mut iovecs);
        iovecs
    }

    /// Appends the memory at these places.
    pub(super) fn gather_into(&self, layout: &Layout, access: Access, iovecs: &mut IoVecs) {
        let pool = self.context.iovec_pool();
        for &(at, len) in &layout.0 {
            let gathered = self
                .memory
                .gather(pool, Iova(BASE + at), len, access, iovecs);
            gathered.expect("guest memory is mapped");
        }
    }

    /// Writes `data` to these places.
    pub(super) fn fill(&self, layout: &Layout, data: &[u8]) {
        let mut rest = data;
        for &(at, len) in &layout.0 {
            let (part, after) = rest.split_at(len as usize);
            self.memory
                .write(Iova(BASE + at), part)
                .expect("guest memory is mapped");
            rest = after;
        }
    }

    /// Reads what is at these places.
    pub(super) fn dump(&self, layout: &Layout) -> Vec<u8> {
        let mut data = vec![0; layout.bytes() as usize];
        let mut rest = &mut data[..];
        for &(at, len) in &layout.0 {
            let (part, after) = rest.split_at_mut(len as usize);
            self.memory
                .read(Iova(BASE + at), part)
                .expect("guest memory is mapped");
            rest = after;
        }
        data
    }
}

/// Places in guest memory: offsets and lengths, in the order of the data.
#[derive(Debug, Clone)]
pub(super) struct Layout(pub(super) Vec<(u64, u64)>);

impl Layout {
    /// One piece.
    pub(super) fn at(offset: u64, len: u64) -> Layout {
        Layout(vec![(offset, len)])
    }

    /// `pieces` pieces of about the same length, some odd, with gaps between them.
    pub(super) fn split(len: u64, pieces: u64) -> Layout {
        let ends = (0..=pieces)
            .map(|piece| len * piece / pieces)
            .collect::<Vec<_>>();
        let piece = |(index, ends): (usize, &[u64])| (ends[0] + index as u64, ends[1] - ends[0]);
        Layout(ends.windows(2).enumerate().map(piece).collect())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }
}

fn guest_memory() -> GuestMemory {
    let half = GUEST_BYTES / 2;
    let backing = Backing::memfd("conformance", GUEST_BYTES, PageKind::Normal);
    let (backing, _) = backing.expect("guest memory can be made");
    let mut memory = GuestMemory::new();
    let protection = Protection {
        read: true,
        write: true,
    };
    for (offset, at) in [(half, BASE), (0, BASE + half)] {
        let region = MemoryRegion::new(Arc::clone(&backing), offset, Iova(at), half, protection);
        memory
            .map(region.expect("the region is in the file"))
            .expect("nothing is mapped there");
    }
    memory
}

/// How long a stretch of a pattern is: no part of a block or page, so that stretches drift against
/// both.
const STRETCH: usize = 509;

/// `len` bytes that look random and depend on the seed alone: no two stretches of any two patterns
/// are alike. Cut from one random page, since the suite is to be fast in an unoptimised build too.
pub(super) fn pattern(seed: u64, len: u64) -> Vec<u8> {
    static PAGE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..512).flat_map(|word| mix(word).to_le_bytes()).collect());
    let mut data = Vec::with_capacity(len as usize + STRETCH);
    for stretch in 0..len.div_ceil(STRETCH as u64) {
        let mark = mix((seed << 32) + stretch);
        let rest = STRETCH - size_of_val(&mark);
        let cut = mark as usize % (PAGE.len() - rest);
        data.extend_from_slice(&mark.to_le_bytes());
        data.extend_from_slice(&PAGE[cut..cut + rest]);
    }
    data.truncate(len as usize);
    data
}

/// The mixing step of splitmix64, a bijection.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

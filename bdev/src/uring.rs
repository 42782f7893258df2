//! The one io_uring of a reactor, shared by all channels that need the kernel.
//!
//! A channel has a [`Lane`] on the [`Ring`]. What it starts there, a [`Request`], moves into a slot
//! and stays in it, unmoved and untouched, until the kernel has answered: whatever happens to the
//! channel, memory that the kernel may still use is never freed. [`Ring::flush`] hands what is
//! queued to the kernel with at most one system call per pass, and sorts answers into the lanes.
#![allow(unsafe_code)] // Submission entries hold raw pointers; statx, sets of cores: C structures.

mod call;
mod setup;

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{EnterFlags, IoUring, opcode, types};

use crate::Error;

pub(crate) use call::{Call, Memory};
pub(crate) use setup::check;

/// Lanes on one ring: channels of file disks on one reactor.
pub(crate) const LANES_MAX: usize = 1024;
/// Requests in flight on one ring. The submission queue has twice that, and the kernel's limit for
/// it is 32768.
pub(crate) const SLOTS_MAX: u32 = 16384;
/// How long a ring that is dropped waits for what the kernel still holds, before it leaks that.
const DRAIN: Duration = Duration::from_secs(2);
/// The slot number in the user data of an entry that belongs to no slot.
const NO_SLOT: u32 = u32::MAX;

/// What a ring carries. It owns all memory that its calls name.
pub(crate) trait Request {
    /// The system call to make next. What it borrows stays where it is until that call has ended.
    fn call(&self) -> Call<'_>;
}

/// A request that the kernel has answered.
#[derive(Debug)]
pub(crate) struct Finished<R> {
    pub(crate) request: R,
    /// What the system call returned: a count, or a negated errno.
    pub(crate) result: i32,
    /// Whether [`Lane::cancel`] was asked to end it.
    pub(crate) cancelled: bool,
}

/// A reactor's ring. A clone is the same ring.
pub(crate) struct Ring<R: Request> {
    core: Rc<RefCell<Core<R>>>,
}

/// One channel's share of a ring. Dropped with requests in flight, it cancels them; they keep their
/// memory until the kernel has let go of it, and their answers go nowhere.
pub(crate) struct Lane<R: Request> {
    core: Rc<RefCell<Core<R>>>,
    id: usize,
}

struct Core<R: Request> {
    uring: ManuallyDrop<IoUring>,
    /// Boxed, so that what the kernel has pointers into never moves.
    slots: ManuallyDrop<Box<[Slot<R>]>>,
    free: Vec<u32>,
    lanes: Vec<LaneState>,
    /// Slots whose system call has not ended.
    in_flight: u32,
    /// Cancellations in the submission queue, at most.
    cancels: usize,
    /// How often the kernel was entered.
    enters: u64,
}

struct Slot<R> {
    request: Option<R>,
    /// Counts the system calls made from here, so that no answer is taken for another's.
    generation: u32,
    lane: usize,
    result: i32,
    cancelled: bool,
    in_flight: bool,
    /// The next in the lane's list of answered slots.
    next: u32,
}

struct LaneState {
    /// Keeps the descriptor open while the kernel may still use it. None: the lane is free.
    file: Option<Arc<fs::File>>,
    abandoned: bool,
    in_flight: u32,
    /// Answered slots, oldest first: the ends of a list through [`Slot::next`].
    first: u32,
    last: u32,
}

impl<R: Request> Ring<R> {
    /// A ring for `requests` requests at a time, rounded up to a power of two.
    ///
    /// # Errors
    ///
    /// [`Error::Ring`], with what the operator can do about it.
    pub(crate) fn new(requests: u32) -> Result<Ring<R>, Error> {
        let requests = requests.clamp(1, SLOTS_MAX).next_power_of_two();
        let uring = setup::build(requests * 2)?;
        let slots = (0..requests).map(|_| Slot::new()).collect();
        let core = Core {
            uring: ManuallyDrop::new(uring),
            slots: ManuallyDrop::new(slots),
            free: (0..requests).rev().collect(),
            lanes: Vec::new(),
            in_flight: 0,
            cancels: 0,
            enters: 0,
        };
        Ok(Ring {
            core: Rc::new(RefCell::new(core)),
        })
    }

    /// Has the kernel's threads work on these cores, if there are any, and where this thread may
    /// run otherwise. A kernel that does not know how (before Linux 5.14) is no error, and is said
    /// in the log.
    pub(crate) fn keep_workers_on(&self, cores: &[usize]) {
        if cores.is_empty() {
            return;
        }
        // SAFETY: all zeroes is a valid set, which has integers only.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        let known = |core: &&usize| **core < libc::CPU_SETSIZE as usize;
        for &core in cores.iter().filter(known) {
            // SAFETY: the set is ours, and has this core.
            unsafe { libc::CPU_SET(core, &mut set) };
        }
        let core = self.core.borrow();
        if let Err(error) = core.uring.submitter().register_iowq_aff(&set) {
            tracing::warn!(
                "threads of the kernel take time of a reactor, Linux 5.14 could prevent it: {error}"
            );
        }
    }

    /// A lane for a channel on this file.
    ///
    /// # Errors
    ///
    /// [`Error::Ring`] when there are [`LANES_MAX`] already.
    pub(crate) fn attach(&self, file: Arc<fs::File>) -> Result<Lane<R>, Error> {
        let mut core = self.core.borrow_mut();
        let id = match core.lanes.iter().position(|lane| lane.file.is_none()) {
            Some(free) => free,
            None if core.lanes.len() < LANES_MAX => {
                core.lanes.push(LaneState::new());
                core.lanes.len() - 1
            }
            None => {
                let reason = format!("{LANES_MAX} channels share this reactor's ring already");
                return Err(Error::Ring(reason));
            }
        };
        core.lanes[id] = LaneState {
            file: Some(file),
            ..LaneState::new()
        };
        Ok(Lane {
            core: Rc::clone(&self.core),
            id,
        })
    }

    /// Hands what is queued to the kernel, the first part of it if that is much, and takes its
    /// answers. Enters the kernel at most once, and not at all if nothing is queued and the kernel
    /// does not ask for it.
    #[inline]
    pub(crate) fn flush(&self) {
        let mut core = self.core.borrow_mut();
        if core.in_flight > 0 {
            core.enter();
            core.reap();
        }
    }

    /// How often the kernel was entered so far.
    pub(crate) fn enters(&self) -> u64 {
        self.core.borrow().enters
    }
}

impl<R: Request> Clone for Ring<R> {
    fn clone(&self) -> Self {
        Ring {
            core: Rc::clone(&self.core),
        }
    }
}

impl<R: Request> fmt::Debug for Ring<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core.borrow();
        let slots = core.slots.len();
        write!(
            f,
            "Ring {{ slots: {slots}, in_flight: {} }}",
            core.in_flight
        )
    }
}

impl<R: Request> Lane<R> {
    /// Queues the request's call for the next [`Ring::flush`].
    ///
    /// # Errors
    ///
    /// Full: the request comes back.
    pub(crate) fn start(&self, request: R) -> Result<(), R> {
        self.core.borrow_mut().start(self.id, request)
    }

    /// Whether [`start`](Self::start) has a slot free.
    pub(crate) fn has_room(&self) -> bool {
        !self.core.borrow().free.is_empty()
    }

    /// The oldest answered request, if there is one. Its slot is free again.
    pub(crate) fn take_finished(&self) -> Option<Finished<R>> {
        self.core.borrow_mut().take_finished(self.id)
    }

    /// Asks the kernel to end each request of this lane for which `wanted` holds: best effort.
    pub(crate) fn cancel(&self, wanted: impl Fn(&R) -> bool) {
        self.core.borrow_mut().cancel(self.id, wanted);
    }
}

impl<R: Request> Drop for Lane<R> {
    fn drop(&mut self) {
        self.core.borrow_mut().detach(self.id);
    }
}

impl<R: Request> Core<R> {
    fn start(&mut self, lane: usize, request: R) -> Result<(), R> {
        let Some(index) = self.free.pop() else {
            return Err(request);
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.lane = lane;
        slot.cancelled = false;
        let request = slot.request.insert(request);
        let state = &mut self.lanes[lane];
        let descriptor = types::Fd(state.file.as_ref().map_or(-1, AsRawFd::as_raw_fd));
        let entry =
            call::entry(&request.call(), descriptor).user_data(user_data(index, slot.generation));
        // SAFETY: what the entry points to is owned by the request or is memory that the request's
        // leases keep mapped. The request stays in its slot, without a mutable borrow, until
        // `reap` has seen the answer; slots are boxed and leaked if answers do not come.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        if pushed.is_err() {
            self.free.push(index);
            return slot.request.take().map_or(Ok(()), Err);
        }
        slot.in_flight = true;
        state.in_flight += 1;
        self.in_flight += 1;
        Ok(())
    }

    /// One system call if anything is queued, or if the kernel has work that only an entry
    /// finishes.
    fn enter(&mut self) {
        let (submitter, mut queue, _) = self.uring.split();
        queue.sync();
        let is_asked_for = queue.taskrun() || queue.cq_overflow();
        if queue.is_empty() && !is_asked_for {
            return;
        }
        self.enters += 1;
        let count = match self.cancels {
            0 => part_of(queue.len()),
            _ => queue.len(),
        };
        let flags = match is_asked_for {
            true => EnterFlags::GETEVENTS,
            false => EnterFlags::empty(),
        };
        // An error leaves the entries queued, and the next pass tries again: EINTR, EAGAIN and
        // ENOMEM are short of resources, EBUSY wants answers to be taken first. Others do not
        // happen to a ring that was made by `build`.
        // SAFETY: without an argument there is no pointer.
        let _ = unsafe { submitter.enter::<()>(count as u32, 0, flags.bits(), None) };
        queue.sync();
        if queue.is_empty() {
            self.cancels = 0;
        }
    }

    fn reap(&mut self) {
        let mut queue = self.uring.completion();
        for answer in &mut queue {
            let (index, generation) = slot_of(answer.user_data());
            let Some(slot) = self.slots.get_mut(index as usize) else {
                continue;
            };
            if !slot.in_flight || slot.generation != generation {
                continue;
            }
            slot.in_flight = false;
            slot.result = answer.result();
            self.in_flight -= 1;
            let lane = &mut self.lanes[slot.lane];
            lane.in_flight -= 1;
            if lane.abandoned {
                slot.request = None;
                self.free.push(index);
                lane.release_if_idle();
                continue;
            }
            slot.next = NO_SLOT;
            match lane.last {
                NO_SLOT => lane.first = index,
                last => self.slots[last as usize].next = index,
            }
            lane.last = index;
        }
    }

    fn take_finished(&mut self, lane: usize) -> Option<Finished<R>> {
        let lane = &mut self.lanes[lane];
        let index = lane.first;
        let slot = self.slots.get_mut(index as usize)?;
        lane.first = slot.next;
        if lane.first == NO_SLOT {
            lane.last = NO_SLOT;
        }
        self.free.push(index);
        let Slot {
            result, cancelled, ..
        } = *slot;
        slot.request.take().map(|request| Finished {
            request,
            result,
            cancelled,
        })
    }

    fn cancel(&mut self, lane: usize, wanted: impl Fn(&R) -> bool) {
        let mut queue = self.uring.submission();
        // Each slot has one entry queued at most, and a place in the queue for it, so that a start
        // never fails for want of one. The other places are for cancellations.
        let places = queue.capacity() - self.slots.len();
        for (index, slot) in (0..).zip(self.slots.iter_mut()) {
            let wanted = slot.lane == lane && slot.request.as_ref().is_some_and(&wanted);
            if !wanted {
                continue;
            }
            slot.cancelled = true;
            if slot.in_flight && self.cancels < places {
                self.cancels += 1;
                let entry = opcode::AsyncCancel::new(user_data(index, slot.generation)).build();
                // SAFETY: the entry holds no pointer.
                let _ = unsafe { queue.push(&entry.user_data(user_data(NO_SLOT, 0))) };
            }
        }
    }

    fn detach(&mut self, lane: usize) {
        self.cancel(lane, |_| true);
        while self.take_finished(lane).is_some() {}
        let lane = &mut self.lanes[lane];
        lane.abandoned = true;
        lane.release_if_idle();
    }

    /// Cancels everything, and waits for it at most [`DRAIN`].
    fn drain(&mut self) {
        let step = types::Timespec::from(DRAIN / 20);
        let deadline = Instant::now() + DRAIN;
        while self.in_flight > 0 && Instant::now() < deadline {
            for lane in 0..self.lanes.len() {
                self.cancel(lane, |_| true);
            }
            let arguments = types::SubmitArgs::new().timespec(&step);
            // Whatever it returns, the answers tell whether to go on.
            let _ = self.uring.submitter().submit_with_args(1, &arguments);
            self.cancels = self.uring.submission().len();
            self.reap();
        }
    }
}

impl<R: Request> Drop for Core<R> {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            self.drain();
        }
        if self.in_flight > 0 {
            let held = self.in_flight;
            tracing::warn!("the kernel still holds {held} requests: their memory is leaked");
            return;
        }
        // SAFETY: the kernel holds nothing any more, and neither is used after this.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            ManuallyDrop::drop(&mut self.slots);
        }
    }
}

impl<R> Slot<R> {
    fn new() -> Self {
        Slot {
            request: None,
            generation: 0,
            lane: 0,
            result: 0,
            cancelled: false,
            in_flight: false,
            next: NO_SLOT,
        }
    }
}

impl LaneState {
    fn new() -> Self {
        LaneState {
            file: None,
            abandoned: false,
            in_flight: 0,
            first: NO_SLOT,
            last: NO_SLOT,
        }
    }

    fn release_if_idle(&mut self) {
        if self.abandoned && self.in_flight == 0 {
            self.file = None;
        }
    }
}

/// How many of so many entries are handed over together. The kernel prepares all of them before a
/// device has the first, which would rest meanwhile; and an entry into the kernel has its price.
fn part_of(entries: usize) -> usize {
    (entries / 4).max(4).min(entries)
}

fn user_data(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn slot_of(user_data: u64) -> (u32, u32) {
    (user_data as u32, (user_data >> 32) as u32)
}

/// What O_DIRECT asks of requests, in bytes: powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectAlignment {
    /// Of each segment's address.
    pub(crate) memory: u32,
    /// Of offsets in the file, and of each segment's length.
    pub(crate) offset: u32,
}

/// What O_DIRECT on this file asks of requests: `Some(None)` if the file cannot do it, and None
/// where the kernel does not tell (before Linux 6.1, or the file system is silent).
pub(crate) fn direct_alignment(file: BorrowedFd<'_>) -> Option<Option<DirectAlignment>> {
    // SAFETY: all zeroes is a valid statx, which has integers only.
    let mut statx: libc::statx = unsafe { mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the path is an empty C string and `statx` is ours; both outlive the call.
    let answer = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            flags,
            libc::STATX_DIOALIGN,
            &raw mut statx,
        )
    };
    if answer != 0 || statx.stx_mask & libc::STATX_DIOALIGN == 0 {
        return None;
    }
    let (memory, offset) = (statx.stx_dio_mem_align, statx.stx_dio_offset_align);
    let possible = memory.is_power_of_two() && offset.is_power_of_two();
    Some(possible.then_some(DirectAlignment { memory, offset }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;
    use crate::memory::{Buffer, BufferPool};

    /// Reads one byte.
    struct Byte {
        number: u32,
        buffer: Buffer,
    }

    impl Request for Byte {
        fn call(&self) -> Call<'_> {
            let memory = Memory::Buffer {
                buffer: &self.buffer,
                len: 1,
            };
            Call::Read { offset: 0, memory }
        }
    }

    impl Ring<Byte> {
        fn queued(&self) -> usize {
            self.core.borrow_mut().uring.submission().len()
        }
    }

    fn byte(number: u32, pool: &BufferPool) -> Byte {
        let buffer = pool.take().unwrap();
        Byte { number, buffer }
    }

    /// A lane that reads what is written to the stream.
    fn stream(ring: &Ring<Byte>) -> (Lane<Byte>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = fs::File::from(OwnedFd::from(ours));
        (ring.attach(Arc::new(file)).unwrap(), theirs)
    }

    fn next(ring: &Ring<Byte>, lane: &Lane<Byte>) -> Finished<Byte> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            ring.flush();
            if let Some(finished) = lane.take_finished() {
                return finished;
            }
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn each_answer_goes_to_its_request_and_lane_whatever_the_order() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(4).unwrap();
        let ((left, mut to_left), (right, mut to_right)) = (stream(&ring), stream(&ring));
        for round in 0..20u8 {
            let number = u32::from(round);
            assert!(left.start(byte(number, &pool)).is_ok());
            assert!(right.start(byte(number + 100, &pool)).is_ok());
            ring.flush();
            to_right.write_all(&[round + 50]).unwrap();
            let finished = next(&ring, &right);
            assert_eq!(
                (finished.request.number, finished.result),
                (number + 100, 1)
            );
            assert_eq!(finished.request.buffer[0], round + 50);
            assert!(left.take_finished().is_none());
            to_left.write_all(&[round]).unwrap();
            let finished = next(&ring, &left);
            assert_eq!((finished.request.number, finished.result), (number, 1));
            assert_eq!(finished.request.buffer[0], round);
        }
        assert_eq!(pool.free(), 8);
    }

    #[test]
    fn one_system_call_serves_all_lanes() {
        let pool = BufferPool::new(4, 1).unwrap();
        let ring = Ring::new(4).unwrap();
        let lanes: [_; 4] = std::array::from_fn(|_| stream(&ring));
        for (lane, _) in &lanes {
            assert!(lane.start(byte(0, &pool)).is_ok());
        }
        ring.flush();
        assert_eq!((ring.enters(), ring.queued()), (1, 0));
    }

    #[test]
    fn much_is_handed_over_in_parts_and_what_is_cancelled_at_once() {
        let pool = BufferPool::new(32, 1).unwrap();
        let ring = Ring::new(32).unwrap();
        let (lane, _peer) = stream(&ring);
        let start = |count| {
            for number in 0..count {
                assert!(lane.start(byte(number, &pool)).is_ok());
            }
        };
        let flush = || {
            ring.flush();
            ring.queued()
        };
        start(32);
        assert_eq!(std::array::from_fn(|_| flush()), [24, 18, 14, 10, 6, 2, 0]);
        assert_eq!(ring.enters(), 7);
        lane.cancel(|_| true);
        assert_eq!(ring.queued(), 32);
        assert_eq!(flush(), 0);
        for _ in 0..32 {
            next(&ring, &lane);
        }
        // What is queued before a cancellation goes with it, and what comes later in parts again.
        start(32);
        assert_eq!(flush(), 24);
        lane.cancel(|_| true);
        assert_eq!(ring.queued(), 24 + 32);
        assert_eq!(flush(), 0);
        for _ in 0..32 {
            next(&ring, &lane);
        }
        start(32);
        assert_eq!(flush(), 24);
    }

    #[test]
    fn a_full_ring_hands_the_request_back() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(2).unwrap();
        let (lane, mut peer) = stream(&ring);
        assert!(lane.start(byte(0, &pool)).is_ok() && lane.has_room());
        assert!(lane.start(byte(1, &pool)).is_ok() && !lane.has_room());
        let refused = lane.start(byte(2, &pool)).err().unwrap();
        assert_eq!(refused.number, 2);
        ring.flush();
        peer.write_all(&[1]).unwrap();
        next(&ring, &lane);
        assert!(lane.start(refused).is_ok());
    }

    #[test]
    fn what_is_cancelled_ends_and_only_that() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(4).unwrap();
        let (lane, mut peer) = stream(&ring);
        for number in 0..3 {
            assert!(lane.start(byte(number, &pool)).is_ok());
        }
        ring.flush();
        lane.cancel(|request| request.number == 1);
        let finished = next(&ring, &lane);
        assert_eq!(
            (finished.request.number, finished.result),
            (1, -libc::ECANCELED)
        );
        assert!(finished.cancelled);
        peer.write_all(&[0, 0]).unwrap();
        for _ in 0..2 {
            assert!(!next(&ring, &lane).cancelled);
        }
    }

    #[test]
    fn cancellations_never_take_the_place_of_a_start() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(2).unwrap();
        let (lane, _peer) = stream(&ring);
        for _ in 0..3 {
            assert!(lane.start(byte(0, &pool)).is_ok());
            for _ in 0..5 {
                lane.cancel(|_| true);
            }
            assert!(lane.start(byte(1, &pool)).is_ok());
            lane.cancel(|_| true);
            ring.flush();
            lane.cancel(|_| true);
            let results = [next(&ring, &lane).result, next(&ring, &lane).result];
            assert_eq!(results, [-libc::ECANCELED; 2]);
        }
    }

    #[test]
    fn the_requests_of_a_dropped_lane_keep_their_memory_until_they_have_ended() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(4).unwrap();
        let (lane, peer) = stream(&ring);
        for number in 0..3 {
            assert!(lane.start(byte(number, &pool)).is_ok());
        }
        ring.flush();
        drop(lane);
        assert_eq!(pool.free(), 5);
        let deadline = Instant::now() + Duration::from_secs(20);
        while pool.free() < 8 {
            assert!(Instant::now() < deadline);
            ring.flush();
        }
        // The descriptor was kept until now.
        assert_eq!((&peer).read(&mut [0]).unwrap(), 0);
        assert_eq!(ring.core.borrow().lanes.len(), 1);
        let again = stream(&ring);
        assert_eq!(
            ring.core.borrow().lanes.len(),
            1,
            "its place is taken again"
        );
        drop(again);
    }

    #[test]
    fn a_dropped_ring_cancels_what_would_never_end() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(4).unwrap();
        let (lane, _peer) = stream(&ring);
        assert!(lane.start(byte(0, &pool)).is_ok());
        ring.flush();
        assert!(lane.start(byte(1, &pool)).is_ok());
        drop((ring, lane));
        assert_eq!(pool.free(), 8);
    }

    #[test]
    fn an_answer_to_an_earlier_call_is_not_taken_for_a_later_one() {
        let pool = BufferPool::new(8, 1).unwrap();
        let ring = Ring::new(1).unwrap();
        let (lane, mut peer) = stream(&ring);
        assert!(lane.start(byte(0, &pool)).is_ok());
        let mut core = ring.core.borrow_mut();
        for strange in [user_data(0, 0), user_data(0, 2), user_data(7, 1)] {
            let entry = opcode::Nop::new().build().user_data(strange);
            // SAFETY: the entry holds no pointer.
            unsafe { core.uring.submission().push(&entry) }.unwrap();
            core.enter();
            core.reap();
        }
        drop(core);
        assert!(lane.take_finished().is_none());
        peer.write_all(&[1]).unwrap();
        assert_eq!(next(&ring, &lane).result, 1);
    }

    /// A peer on another core makes the kernel raise the flag; sooner or later the ring sees it
    /// before anything else has brought this thread into the kernel.
    #[test]
    fn the_kernel_is_entered_when_it_asks_for_it() {
        let pool = BufferPool::new(1, 1).unwrap();
        let ring = Ring::new(1).unwrap();
        let (lane, mut peer) = stream(&ring);
        let turn = Arc::new(AtomicU32::new(0));
        let peer_turn = Arc::clone(&turn);
        let writer = thread::spawn(move || {
            let mut written = 0;
            loop {
                match peer_turn.load(Ordering::Acquire) {
                    u32::MAX => return,
                    turn if turn != written => {
                        written = turn;
                        peer.write_all(&[1]).unwrap();
                    }
                    _ => thread::yield_now(),
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut rounds = 0;
        while ring.enters() == u64::from(rounds) {
            assert!(Instant::now() < deadline);
            rounds += 1;
            assert!(lane.start(byte(rounds, &pool)).is_ok());
            ring.flush();
            turn.store(rounds, Ordering::Release);
            next(&ring, &lane);
        }
        turn.store(u32::MAX, Ordering::Release);
        writer.join().unwrap();
    }
}

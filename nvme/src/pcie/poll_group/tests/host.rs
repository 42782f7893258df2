//! The other side: guest memory, queues in it, doorbells and interrupts.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use bdev::memory::{
    Backing, GuestMemory, Iova, MemoryRegion, PageKind, Protection, Seal, SharedPages,
};
use bdev::{IoContext, IoLimits};

use crate::namespace::Namespace;
use crate::pcie::doorbell::doorbell_file_bytes;
use crate::pcie::message::{
    Coalescing, ControllerView, CqSpec, Envelope, FromGroup, GroupId, GroupOutcome, Interrupt,
    ShadowDoorbells, SqSpec, ToGroup,
};
use crate::pcie::poll_group::{GroupSeed, PollGroup};
use crate::pcie::state::ControllerState;
use crate::pcie::tests::Counter;
use crate::pcie::tests::scripted::Scripted;
use crate::spec::{CommandId, Cqe, Nsid, QueueId, Status};

pub(super) const PAGE: u64 = 4096;
const MEMORY_BYTES: u64 = 16 << 20;
const QUEUES: u16 = 17;
const DEPTH: u16 = 64;

struct Sq {
    base: u64,
    entries: u32,
    tail: u32,
}

struct Cq {
    base: u64,
    entries: u32,
    head: u32,
    phase: bool,
}

pub(super) struct Host {
    pub(super) state: Arc<ControllerState>,
    doorbells: Arc<SharedPages>,
    device: Arc<Scripted>,
    view: ControllerView,
    counter: Arc<Counter>,
    group: Option<PollGroup>,
    regions: Vec<MemoryRegion>,
    memory: GuestMemory,
    file: File,
    next_free: u64,
    sqs: HashMap<u16, Sq>,
    cqs: HashMap<u16, Cq>,
    next_cid: u16,
    now_ns: u64,
    sequence: u64,
    replies: Vec<FromGroup>,
    shadow: Option<ShadowDoorbells>,
    seed: u64,
}

/// An entry: opcode, namespace, PRPs, starting LBA and a zero-based count.
pub(super) fn sqe(opcode: u8, nsid: u32, prps: [u64; 2], lba: u64, nlb_z: u16) -> [u64; 8] {
    let dword_0_and_1 = u64::from(opcode) | u64::from(nsid) << 32;
    [
        dword_0_and_1,
        0,
        0,
        prps[0],
        prps[1],
        lba,
        u64::from(nlb_z),
        0,
    ]
}

/// Sets bit 30 of dword 12.
pub(super) fn with_fua(mut sqe: [u64; 8]) -> [u64; 8] {
    sqe[6] |= 1 << 30;
    sqe
}

/// Dataset Management with Deallocate of `ranges` ranges.
pub(super) fn dsm(nsid: u32, prps: [u64; 2], ranges: u64) -> [u64; 8] {
    let dword_0_and_1 = 0x09 | u64::from(nsid) << 32;
    [
        dword_0_and_1,
        0,
        0,
        prps[0],
        prps[1],
        (ranges - 1) | 4 << 32,
        0,
        0,
    ]
}

impl Host {
    pub(super) fn new() -> Host {
        let state = ControllerState::new(QUEUES, DEPTH).unwrap();
        let doorbells =
            SharedPages::new("test", doorbell_file_bytes(QUEUES), Seal::Doorbells).unwrap();
        let (backing, file) = Backing::memfd("guest", MEMORY_BYTES, PageKind::Normal).unwrap();
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(0), MEMORY_BYTES, protection).unwrap();
        let device = Scripted::new();
        let counter = Arc::new(Counter::default());
        let interrupt: Arc<dyn Interrupt> = Arc::clone(&counter) as _;
        let namespace = Arc::new(Namespace::new(Nsid(1), Arc::clone(&device) as _, false));
        let view = ControllerView {
            number: 1,
            namespaces: vec![Some(namespace), None],
            vectors: vec![None, Some(interrupt)],
            coalescing: Coalescing::default(),
            uncoalesced: Vec::new(),
            page_shift: 12,
            transfer_bytes_max: 1 << 20,
            write_cache: true,
            shadow: None,
        };
        let mut memory = GuestMemory::new();
        memory.map(region.clone()).unwrap();
        let mut host = Host {
            state,
            doorbells,
            device,
            view,
            counter,
            group: None,
            regions: Vec::new(),
            memory,
            file: file.into(),
            next_free: PAGE,
            sqs: HashMap::new(),
            cqs: HashMap::new(),
            next_cid: 0,
            now_ns: 0,
            sequence: 0,
            replies: Vec::new(),
            shadow: None,
            seed: 1,
        };
        host.make_group();
        host.map(region);
        host
    }

    fn make_group(&mut self) {
        let seed = GroupSeed {
            id: GroupId(0),
            state: Arc::clone(&self.state),
            doorbells: Arc::clone(&self.doorbells),
            view: Arc::new(self.view.clone()),
        };
        let context = IoContext::new(IoLimits::default()).unwrap();
        self.group = Some(PollGroup::new(seed, context));
    }

    /// Drops the group between two passes and makes it anew from the durable state, the memory
    /// and the view.
    pub(super) fn rebuild(&mut self) {
        self.group = None;
        self.make_group();
        for region in self.regions.clone() {
            self.ask(ToGroup::Map(region));
        }
        let ids = (1..=QUEUES).map(QueueId);
        let exists = |entries: u32| entries != 0;
        for id in ids.clone() {
            if self
                .state
                .cq(id)
                .is_some_and(|cq| exists(cq.entries.load(Relaxed)))
            {
                let resume = self.ask(ToGroup::ResumeCq(id));
                assert_eq!(self.answer(resume), Some(GroupOutcome::Ok));
            }
        }
        for id in ids {
            if self
                .state
                .sq(id)
                .is_some_and(|sq| exists(sq.entries.load(Relaxed)))
            {
                let resume = self.ask(ToGroup::ResumeSq(id));
                assert_eq!(self.answer(resume), Some(GroupOutcome::Ok));
            }
        }
    }

    pub(super) fn group(&mut self) -> &mut PollGroup {
        self.group.as_mut().unwrap()
    }

    pub(super) fn device(&self) -> &Scripted {
        &self.device
    }

    pub(super) fn pass(&mut self) {
        self.now_ns += 1;
        self.poll();
    }

    /// A pass after which the controller takes no message.
    pub(super) fn pass_unheard(&mut self) {
        self.now_ns += 1;
        let now_ns = self.now_ns;
        self.group().poll(now_ns);
    }

    /// Lets time go by, then makes a pass at exactly that time.
    pub(super) fn advance(&mut self, ns: u64) {
        self.now_ns += ns - 1;
    }

    fn poll(&mut self) {
        let now_ns = self.now_ns;
        self.group().poll(now_ns);
        while let Some(reply) = self.group().take_reply() {
            self.replies.push(reply);
        }
    }

    /// Asks the group for something; the sequence number to find the answer by.
    pub(super) fn ask(&mut self, body: ToGroup) -> u64 {
        self.sequence += 1;
        let sequence = self.sequence;
        self.group().receive(Envelope { sequence, body });
        while let Some(reply) = self.group().take_reply() {
            self.replies.push(reply);
        }
        sequence
    }

    pub(super) fn answer(&self, sequence: u64) -> Option<GroupOutcome> {
        self.replies.iter().find_map(|reply| match reply {
            FromGroup::Done {
                sequence: done,
                outcome,
            } if *done == sequence => Some(*outcome),
            _ => None,
        })
    }

    /// What the group told besides answers.
    pub(super) fn replies(&self) -> Vec<FromGroup> {
        let events = self
            .replies
            .iter()
            .filter(|reply| matches!(reply, FromGroup::Event(_)));
        events.copied().collect()
    }

    fn map(&mut self, region: MemoryRegion) {
        self.regions.push(region.clone());
        let map = self.ask(ToGroup::Map(region));
        assert_eq!(self.answer(map), Some(GroupOutcome::Ok));
    }

    pub(super) fn map_extra(&mut self, iova: u64, len: u64) {
        let (backing, _fd) = Backing::memfd("extra", len, PageKind::Normal).unwrap();
        let protection = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(iova), len, protection).unwrap();
        self.map(region);
    }

    pub(super) fn unmap_all(&mut self) -> u64 {
        self.ask(ToGroup::UnmapAll)
    }

    /// Takes all of the memory away, and touches it: from then on both sides see zeroes, and what
    /// they write in their place.
    pub(super) fn shrink(&self) {
        bdev::memory::install_sigbus_handler();
        self.file.set_len(0).unwrap();
        self.read(0, &mut [0]);
    }

    pub(super) fn map_again(&mut self) {
        for region in std::mem::take(&mut self.regions) {
            self.map(region);
        }
    }

    pub(super) fn change_view(&mut self, change: impl FnOnce(&mut ControllerView)) {
        change(&mut self.view);
        self.view.number += 1;
        let view = Arc::new(self.view.clone());
        self.ask(ToGroup::View(view));
    }

    pub(super) fn bind(&mut self, bound: bool) {
        let interrupt: Arc<dyn Interrupt> = Arc::clone(&self.counter) as _;
        self.change_view(|view| view.vectors[1] = bound.then_some(interrupt));
    }

    pub(super) fn interrupts(&self) -> usize {
        self.counter.count()
    }

    pub(super) fn use_shadow_doorbells(&mut self) {
        let shadow = ShadowDoorbells {
            doorbells: Iova(self.alloc(PAGE)),
            event_indices: Iova(self.alloc(PAGE)),
        };
        self.shadow = Some(shadow);
        self.change_view(|view| view.shadow = Some(shadow));
    }

    pub(super) fn alloc(&mut self, len: u64) -> u64 {
        let at = self.next_free;
        self.next_free += len.next_multiple_of(PAGE);
        assert!(self.next_free <= MEMORY_BYTES);
        at
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(Iova(at), bytes).unwrap();
    }

    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) {
        self.memory.read(Iova(at), bytes).unwrap();
    }

    fn read_word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(super) fn create_pair(&mut self, id: u16, entries: u32) {
        self.create_queues(id, entries, entries);
    }

    pub(super) fn create_queues(&mut self, id: u16, sq_entries: u32, cq_entries: u32) {
        self.create_cq(id, cq_entries);
        self.create_sq(id, id, sq_entries);
    }

    pub(super) fn create_cq(&mut self, id: u16, entries: u32) {
        let base = self.alloc(u64::from(entries) * 16);
        self.write(base, &vec![0; entries as usize * 16]);
        let spec = CqSpec {
            id: QueueId(id),
            base: Iova(base),
            entries,
            vector: Some(1),
        };
        let create = self.ask(ToGroup::CreateCq(spec));
        assert_eq!(self.answer(create), Some(GroupOutcome::Ok));
        self.cqs.insert(
            id,
            Cq {
                base,
                entries,
                head: 0,
                phase: true,
            },
        );
    }

    pub(super) fn create_sq(&mut self, id: u16, cqid: u16, entries: u32) {
        let base = self.alloc(u64::from(entries) * 64);
        let (id_, cqid) = (QueueId(id), QueueId(cqid));
        let create = ToGroup::CreateSq(SqSpec {
            id: id_,
            cqid,
            base: Iova(base),
            entries,
        });
        let create = self.ask(create);
        assert_eq!(self.answer(create), Some(GroupOutcome::Ok));
        self.sqs.insert(
            id,
            Sq {
                base,
                entries,
                tail: 0,
            },
        );
    }

    /// Puts an entry into the queue with a fresh command identifier; does not ring.
    pub(super) fn submit(&mut self, id: u16, mut sqe: [u64; 8]) -> CommandId {
        self.next_cid += 1;
        sqe[0] |= u64::from(self.next_cid) << 16;
        self.submit_raw(id, sqe);
        CommandId(self.next_cid)
    }

    pub(super) fn submit_raw(&mut self, id: u16, sqe: [u64; 8]) {
        let sq = self.sqs.get_mut(&id).unwrap();
        let at = sq.base + u64::from(sq.tail) * 64;
        sq.tail = (sq.tail + 1) % sq.entries;
        let bytes: Vec<u8> = sqe.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(at, &bytes);
    }

    pub(super) fn ring(&self, id: u16) {
        self.ring_value(id, self.sqs[&id].tail);
    }

    pub(super) fn ring_value(&self, id: u16, value: u32) {
        self.store_doorbell(usize::from(id) * 8, value);
    }

    fn ring_head_value(&self, id: u16, value: u32) {
        self.store_doorbell(usize::from(id) * 8 + 4, value);
    }

    /// Claims to have consumed up to `value`.
    pub(super) fn claim_head(&self, id: u16, value: u32) {
        self.ring_head_value(id, value);
    }

    fn store_doorbell(&self, offset: usize, value: u32) {
        match self.shadow {
            Some(shadow) => self.write(shadow.doorbells.0 + offset as u64, &value.to_le_bytes()),
            None => self.doorbells.store_u32(0x1000 + offset, value, Release),
        }
    }

    /// What a Linux host decides after storing a new tail one behind the current one.
    pub(super) fn doorbell_write_wanted(&self, id: u16) -> bool {
        let Some(shadow) = self.shadow else {
            return true;
        };
        let mut bytes = [0; 4];
        self.read(shadow.event_indices.0 + u64::from(id) * 8, &mut bytes);
        let event = u32::from_le_bytes(bytes) as u16;
        let old = self.sqs[&id].tail as u16;
        let new = ((u32::from(old) + 1) % self.sqs[&id].entries) as u16;
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    fn completion(&self, id: u16, ahead: u32) -> Option<Cqe> {
        let cq = &self.cqs[&id];
        let index = cq.head + ahead;
        let phase = cq.phase ^ (index >= cq.entries);
        let at = cq.base + u64::from(index % cq.entries) * 16;
        let words = [self.read_word(at), self.read_word(at + 8)];
        (words[1] >> 48 & 1 == u64::from(phase)).then(|| Cqe::from_words(words))
    }

    /// Completions that the host has not consumed yet.
    pub(super) fn peek_completions(&self, id: u16) -> usize {
        (0..self.cqs[&id].entries - 1)
            .take_while(|&n| self.completion(id, n).is_some())
            .count()
    }

    /// Consumes what is there: submission queue, status and command identifier of each.
    pub(super) fn reap(&mut self, id: u16) -> Vec<(u16, Status, CommandId)> {
        let mut entries = Vec::new();
        while let Some(cqe) = self.completion(id, 0) {
            entries.push((cqe.sqid().0, cqe.status(), cqe.cid()));
            let cq = self.cqs.get_mut(&id).unwrap();
            cq.head = (cq.head + 1) % cq.entries;
            cq.phase ^= cq.head == 0;
        }
        self.ring_head_value(id, self.cqs[&id].head);
        entries
    }

    /// Makes passes until `count` completions came, and consumes them.
    pub(super) fn reap_until(&mut self, id: u16, count: usize) -> Vec<(u16, Status, CommandId)> {
        let mut entries = self.reap(id);
        for _ in 0..10 {
            if entries.len() >= count {
                break;
            }
            self.pass();
            entries.extend(self.reap(id));
        }
        self.pass();
        entries.extend(self.reap(id));
        entries
    }

    /// One command, start to end.
    pub(super) fn command(&mut self, id: u16, sqe: [u64; 8]) -> Status {
        let cid = self.submit(id, sqe);
        self.ring(id);
        self.pass();
        if self.peek_completions(id) == 0 {
            self.advance(1 << 30);
            self.pass();
        }
        let entries = self.reap(id);
        assert_eq!(entries.len(), 1, "one completion for one command");
        assert_eq!(entries[0].2, cid);
        entries[0].1
    }

    /// A command that moves `len` bytes from LBA `lba` on queue 1.
    pub(super) fn io(&mut self, opcode: u8, lba: u64, len: usize, prps: [u64; 2]) -> Status {
        self.command(1, sqe(opcode, 1, prps, lba, (len / 512 - 1) as u16))
    }

    /// Bytes that repeat at no page distance.
    pub(super) fn pattern(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        let mut x = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let byte = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        std::iter::repeat_with(byte).take(len).collect()
    }

    /// Guest pages in no order holding `data`, beginning at `offset` in the first: their PRPs.
    pub(super) fn scattered(&mut self, data: &[u8], offset: u64) -> [u64; 2] {
        self.scatter(data, offset, 0)
    }

    /// The same, with a list that begins `entries` entries before the end of its page.
    pub(super) fn scattered_near_page_end(&mut self, data: &[u8], entries: u64) -> [u64; 2] {
        self.scatter(data, 0, entries)
    }

    fn scatter(&mut self, data: &[u8], offset: u64, from_end: u64) -> [u64; 2] {
        let pages = (offset as usize + data.len()).div_ceil(PAGE as usize) as u64;
        let base = self.alloc(2 * pages * PAGE);
        // Every other page, from the last to the first.
        let page = |n: u64| base + 2 * (pages - 1 - n) * PAGE;
        let mut done = 0;
        for n in 0..pages {
            let skip = if n == 0 { offset } else { 0 };
            let len = (data.len() - done).min((PAGE - skip) as usize);
            self.write(page(n) + skip, &data[done..done + len]);
            done += len;
        }
        let second = match pages {
            1 => 0,
            2 => page(1),
            _ => {
                let entries: Vec<u64> = (1..pages).map(page).collect();
                self.list(&entries, from_end)
            }
        };
        [page(0) + offset, second]
    }

    fn list(&mut self, entries: &[u64], from_end: u64) -> u64 {
        let list = self.alloc(PAGE);
        let start = if from_end == 0 {
            list
        } else {
            list + PAGE - from_end * 8
        };
        let room = ((list + PAGE - start) / 8) as usize;
        let bytes = |words: &[u64]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        if entries.len() <= room {
            self.write(start, &bytes(entries));
        } else {
            let (here, rest) = entries.split_at(room - 1);
            let next = self.list(rest, 0);
            self.write(start, &bytes(here));
            self.write(list + PAGE - 8, &next.to_le_bytes());
        }
        start
    }

    /// Reads `len` bytes back through PRPs made by `scattered`.
    pub(super) fn collect(&self, prps: [u64; 2], len: usize, offset: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        let mut at = prps[0];
        while done < len {
            let now = (len - done).min((PAGE - at % PAGE) as usize);
            self.read(at, &mut bytes[done..done + now]);
            done += now;
            at = (at - at % PAGE).wrapping_sub(2 * PAGE);
        }
        assert_eq!(prps[0] % PAGE, offset);
        bytes
    }

    /// A table of deallocate ranges: first block and count each.
    pub(super) fn dsm_ranges(&mut self, ranges: &[(u64, u32)]) -> u64 {
        let at = self.alloc(PAGE);
        for (n, (lba, blocks)) in (0u64..).zip(ranges) {
            self.write(at + n * 16, &(u64::from(*blocks) << 32).to_le_bytes());
            self.write(at + n * 16 + 8, &lba.to_le_bytes());
        }
        at
    }
}

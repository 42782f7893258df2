//! Registers and queues.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bdev::memory::{
    Access, Backings, GuestMemory, GuestRing, Iova, MemoryPolicy, Seal, SharedPages,
};
use nvme::spec::registers::{Aqa, Cap, Cc, Csts, ShutdownStatus, Vs, offset};
use nvme::spec::{CommandId, Cqe, QueueId, Sqe, Status};

use super::{Effect, Fault, Model, PAGE};

struct SubmissionQueue {
    ring: GuestRing<8>,
    head: u32,
    cq: u16,
}

struct CompletionQueue {
    ring: GuestRing<2>,
    tail: u32,
    phase: bool,
}

pub(super) struct Controller {
    pub(super) model: Model,
    pub(super) disk: Arc<Mutex<Vec<u8>>>,
    pub(super) fault: Fault,
    pub(super) seen: u64,
    pub(super) hung: bool,
    pub(super) cc: Cc,
    csts: Csts,
    aqa: Aqa,
    bases: [u32; 4],
    pub(super) doorbells: Arc<SharedPages>,
    pub(super) memory: GuestMemory,
    pub(super) backings: Backings,
    sqs: BTreeMap<u16, SubmissionQueue>,
    cqs: BTreeMap<u16, CompletionQueue>,
}

impl Controller {
    pub(super) fn new(model: Model, disk: Arc<Mutex<Vec<u8>>>, fault: Fault) -> Controller {
        Controller {
            model,
            disk,
            fault,
            seen: 0,
            hung: false,
            cc: Cc::new(),
            csts: Csts::new(),
            aqa: Aqa::new(),
            bases: [0; 4],
            doorbells: SharedPages::new("doorbells", 2 * PAGE as usize, Seal::Doorbells)
                .expect("pages"),
            memory: GuestMemory::new(),
            backings: Backings::new(MemoryPolicy::SharedOnly),
            sqs: BTreeMap::new(),
            cqs: BTreeMap::new(),
        }
    }

    fn capabilities(&self) -> Cap {
        Cap::new()
            .with_mqes(self.model.entries - 1)
            .with_cqr(true)
            .with_dstrd(self.model.dstrd)
            .with_css_nvm(true)
    }

    /// Where a doorbell is, in BAR0 and in the file.
    fn doorbell(&self, index: u32) -> usize {
        PAGE as usize + index as usize * (4 << self.model.dstrd)
    }

    pub(super) fn register(&self, at: u64) -> u32 {
        let capabilities = u64::from(self.capabilities());
        match at {
            offset::CAP => capabilities as u32,
            0x04 => (capabilities >> 32) as u32,
            offset::VS => Vs::V2_0.into(),
            offset::CC => self.cc.into(),
            offset::CSTS => self.csts.into(),
            _ => 0,
        }
    }

    pub(super) fn set_register(&mut self, at: u64, value: u32) {
        match at {
            offset::CC => self.configure(value.into()),
            offset::AQA => self.aqa = value.into(),
            offset::ASQ..offset::CMBLOC => self.bases[(at - offset::ASQ) as usize / 4] = value,
            _ => {}
        }
    }

    fn configure(&mut self, cc: Cc) {
        let was_enabled = self.cc.en();
        self.cc = cc;
        if cc.en() && !was_enabled {
            assert_eq!((cc.iosqes(), cc.iocqes()), (Cc::IOSQES_64, Cc::IOCQES_16));
            let base =
                |n: usize| Iova(u64::from(self.bases[n]) | u64::from(self.bases[n + 1]) << 32);
            let (asq, acq) = (base(0), base(2));
            self.add_cq(0, acq, self.aqa.acqs_z());
            self.add_sq(0, asq, self.aqa.asqs_z(), 0);
            self.csts = Csts::new().with_rdy(self.model.ready);
        }
        if !cc.en() {
            self.stop();
        }
        if cc.shn() != 0 {
            self.csts = self.csts.with_shst(ShutdownStatus::Complete);
        }
    }

    pub(super) fn stop(&mut self) {
        self.sqs.clear();
        self.cqs.clear();
        self.csts = Csts::new();
        for word in self.doorbells.words() {
            word.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn add_sq(&mut self, id: u16, base: Iova, qsize_z: u16, cq: u16) {
        let ring = self.memory.ring(base, u32::from(qsize_z) + 1, Access::Read);
        let ring = ring.expect("memory of a submission queue");
        self.sqs.insert(id, SubmissionQueue { ring, head: 0, cq });
    }

    pub(super) fn add_cq(&mut self, id: u16, base: Iova, qsize_z: u16) {
        let ring = self
            .memory
            .ring(base, u32::from(qsize_z) + 1, Access::Write);
        let ring = ring.expect("memory of a completion queue");
        let queue = CompletionQueue {
            ring,
            tail: 0,
            phase: true,
        };
        self.cqs.insert(id, queue);
    }

    pub(super) fn poll(&mut self) -> bool {
        let ids: Vec<u16> = self.sqs.keys().copied().collect();
        let mut busy = false;
        for id in ids {
            let burst = self.fetch(id);
            busy |= !burst.is_empty();
            let mut done: Vec<(Cqe, u16)> = burst
                .iter()
                .filter_map(|sqe| self.execute(id, sqe))
                .collect();
            if self.model.reversed {
                done.reverse();
            }
            for (cqe, cq) in done {
                self.post(cqe, cq);
            }
        }
        busy
    }

    fn fetch(&mut self, id: u16) -> Vec<Sqe> {
        let at = self.doorbell(u32::from(id) * 2);
        let tail = self.doorbells.load_u32(at, Ordering::Acquire);
        let Some(sq) = self.sqs.get_mut(&id) else {
            return Vec::new();
        };
        assert!(tail < sq.ring.entries(), "doorbell {tail} of queue {id}");
        let mut burst = Vec::new();
        while sq.head != tail {
            let word = |n| sq.ring.load(sq.head, n);
            burst.push(Sqe::from_words(std::array::from_fn(word)));
            sq.head = (sq.head + 1) % sq.ring.entries();
        }
        burst
    }

    fn post(&mut self, cqe: Cqe, cq: u16) {
        let head = self
            .doorbells
            .load_u32(self.doorbell(u32::from(cq) * 2 + 1), Ordering::Acquire);
        let Some(queue) = self.cqs.get_mut(&cq) else {
            return;
        };
        let entries = queue.ring.entries();
        assert_ne!((queue.tail + 1) % entries, head, "queue {cq} is full");
        let [first, last] = cqe.with_phase(queue.phase).to_words();
        queue.ring.store(queue.tail, 0, first);
        queue.ring.store_release(queue.tail, 1, last);
        queue.tail = (queue.tail + 1) % entries;
        queue.phase ^= queue.tail == 0;
    }

    /// A completion, and the queue it goes to.
    fn execute(&mut self, id: u16, sqe: &Sqe) -> Option<(Cqe, u16)> {
        let (mut cid, mut dword0) = (sqe.cid(), 0);
        let status = if id == 0 {
            self.admin(sqe, &mut dword0)
        } else {
            match self.io(sqe) {
                Effect::Fail(status) => status,
                Effect::Forget => return None,
                Effect::Hang => {
                    self.hung = true;
                    return None;
                }
                Effect::As(other) => {
                    cid = CommandId(other);
                    Status::SUCCESS
                }
                _ => Status::SUCCESS,
            }
        };
        let sq = self.sqs.get(&id)?;
        let cqe = Cqe::new(dword0, sq.head as u16, QueueId(id), cid, status);
        Some((cqe, sq.cq))
    }
}

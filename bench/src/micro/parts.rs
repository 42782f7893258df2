//! The parts of a poll group, apart: a burst of commands goes through one stage after another, and
//! each stage is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bdev::memory::IoVecs;
use bdev::{Channel, Completion, Io, IoContext, IoLimits};
use nvme::namespace::Namespace;
use nvme::nvm::Command;
use nvme::pcie::message::ControllerView;
use nvme::pcie::poll_group::Data;
use nvme::pcie::queue::{CompletionQueue, CqSlots, SlotIndex, SubmissionQueue};
use nvme::pcie::state::ControllerState;
use nvme::spec::{Nsid, QueueId, Sqe, Status};

use super::MicroError;
use super::case::{Case, Stage};
use super::group::{namespace, view};
use super::host::{BURST, ENTRIES, Host, queue_pair};
use super::stage::{self, Pair, Taken};

/// A queue pair, what its commands need, and the commands that are on their way.
pub(super) struct Parts {
    host: Host,
    context: IoContext,
    view: ControllerView,
    namespace: Arc<Namespace>,
    channel: Box<dyn Channel>,
    pair: Pair,
    /// Room for the completions of the next burst.
    room: CqSlots,
    commands: Vec<Taken>,
    ios: Vec<Io>,
    completed: Vec<Completion>,
}

impl Parts {
    /// The parts that the stages of a case need.
    pub(super) fn new(case: Case) -> Result<Parts, MicroError> {
        let host = Host::new(case.traffic(), 1)?;
        let (state, doorbells) = (ControllerState::new(1, ENTRIES as u16)?, &host.doorbells);
        let (cq, sq) = queue_pair(QueueId(1));
        let mut cq = CompletionQueue::new(&state, doorbells, &host.memory, &cq)?;
        let sq = SubmissionQueue::new(&state, doorbells, &host.memory, &sq)?;
        let context = IoContext::new(IoLimits::default())?;
        let namespace = namespace(case.disk()?);
        let nothing = || Taken {
            slot: SlotIndex(0),
            sqe: Sqe::new(0, Nsid(0), [0; 2], [0; 6]),
            parsed: Ok(Command::Nothing),
        };
        Ok(Parts {
            channel: Arc::clone(namespace.bdev()).open_channel(&context)?,
            view: view(&namespace),
            namespace,
            context,
            room: reserve(&mut cq),
            pair: Pair { sq, cq },
            commands: (0..BURST).map(|_| nothing()).collect(),
            ios: Vec::with_capacity(BURST as usize),
            completed: Vec::with_capacity(BURST as usize),
            host,
        })
    }

    /// A burst from its submission to its last completion: the time in one stage.
    ///
    /// # Errors
    /// The first status that is not a success.
    pub(super) fn burst(&mut self, stage: Stage) -> Result<Duration, Status> {
        self.host.submit();
        let fetch = self.fetch();
        let parse = self.parse();
        let gather = self.gather();
        let submit = self.submit();
        let complete = self.complete();
        self.host.reap()?;
        Ok(match stage {
            Stage::Fetch => fetch,
            Stage::Parse => parse,
            Stage::Gather => gather,
            Stage::Submit => submit,
            Stage::Complete => complete,
        })
    }

    fn fetch(&mut self) -> Duration {
        let (sq, commands) = (&mut self.pair.sq, &mut self.commands);
        let (count, time) = timed(|| stage::fetch(sq, &mut self.room, commands));
        assert_eq!(count, Some(BURST as usize), "the host submitted a burst");
        time
    }

    fn parse(&mut self) -> Duration {
        let ((), time) = timed(|| stage::parse(&self.namespace, &self.view, &mut self.commands));
        time
    }

    fn gather(&mut self) -> Duration {
        self.ios.extend(self.commands.iter().filter_map(request));
        let data = Data {
            memory: &self.host.memory,
            pool: self.context.iovec_pool(),
            page_shift: self.view.page_shift,
        };
        let (bytes, time) = timed(|| stage::gather(&data, &self.commands, &mut self.ios));
        let expected = u64::from(BURST) * self.host.traffic.bytes;
        assert_eq!(bytes, Some(expected), "the host's memory is mapped");
        time
    }

    fn submit(&mut self) -> Duration {
        let channel = &mut *self.channel;
        let (accepted, time) = timed(|| stage::submit(channel, &mut self.ios));
        assert_eq!(accepted, BURST as usize, "the device has room for a burst");
        time
    }

    fn complete(&mut self) -> Duration {
        let shift = self.namespace.block_shift();
        let (channel, completed) = (&mut *self.channel, &mut self.completed);
        let (room, time) = timed(|| stage::complete(&mut self.pair, channel, shift, completed));
        self.room = room.expect("the host rings its doorbell as it should");
        time
    }
}

/// Room for a burst in a queue that is empty.
fn reserve(cq: &mut CompletionQueue) -> CqSlots {
    cq.reserve(BURST).expect("nobody has rung its doorbell")
}

/// The request that a command becomes, without its memory.
fn request(command: &Taken) -> Option<Io> {
    let Ok(Command::Block(block)) = &command.parsed else {
        return None;
    };
    Some(Io {
        op: block.op,
        fua: block.fua,
        lba: block.lba,
        blocks: block.blocks,
        tag: stage::tag_of(command.slot),
        iovecs: IoVecs::new(),
    })
}

fn timed<T>(stage: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = stage();
    (done, begun.elapsed())
}

#[cfg(test)]
mod tests {
    use bdev::Op;
    use nvme::spec::CommandId;

    use super::*;

    fn parts(case: Case) -> Parts {
        let mut parts = Parts::new(case).expect("parts");
        parts.host.submit();
        parts
    }

    #[test]
    fn fetch_takes_the_burst_into_slots() {
        let mut parts = parts(Case::Fetch);
        let slots = parts.pair.sq.occupied().count();
        assert_eq!((parts.pair.sq.head(), slots), (0, 0));
        parts.fetch();
        let sq = &parts.pair.sq;
        assert_eq!(u32::from(sq.head()), BURST);
        assert!(!sq.is_drained() && parts.room.take().is_none());
        for (n, command) in (0..).zip(&parts.commands) {
            let held = sq.slot(command.slot);
            assert_eq!(
                (command.sqe.cid(), held.cid()),
                (CommandId(n), CommandId(n))
            );
            assert_eq!(command.sqe, held.sqe());
        }
    }

    #[test]
    fn parse_finds_what_each_command_asks_for() {
        let mut parts = parts(Case::Parse);
        parts.fetch();
        parts.parse();
        for command in &parts.commands {
            let Ok(Command::Block(block)) = command.parsed else {
                panic!("{:?}", command.parsed);
            };
            let lba = command.sqe.cdw10_11();
            assert_eq!((block.op, block.lba), (Op::Read, lba));
            assert_eq!((block.blocks, block.transfer_bytes), (8, 4096));
        }
    }

    #[test]
    fn gather_finds_the_memory_of_each_command() {
        for case in [Case::Gather, Case::GatherList] {
            let mut parts = parts(case);
            parts.fetch();
            parts.parse();
            parts.gather();
            assert_eq!(parts.ios.len(), BURST as usize);
            for (n, io) in (0..).zip(&parts.ios) {
                let lens = io
                    .iovecs
                    .segments()
                    .iter()
                    .map(|segment| segment.len() as u64);
                assert_eq!(lens.sum::<u64>(), case.traffic().bytes, "{case:?} {n}");
            }
            let mut places = parts.ios.iter().map(|io| io.iovecs.segments()[0].as_ptr());
            let first = places.next().expect("a burst");
            assert!(places.all(|place| place != first), "each has its own");
        }
    }

    #[test]
    fn submit_gives_each_command_to_the_device() {
        let mut parts = parts(Case::Submit);
        parts.fetch();
        parts.parse();
        parts.gather();
        parts.submit();
        parts.channel.poll(&mut parts.completed);
        let done = parts.completed.iter().map(|done| (done.tag, done.status));
        let expected = parts
            .commands
            .iter()
            .map(|command| stage::tag_of(command.slot));
        let expected = expected.map(|tag| (tag, bdev::Status::Success));
        assert_eq!(done.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn complete_posts_each_command_with_the_phase_of_its_round() {
        let mut parts = Parts::new(Case::Complete).expect("parts");
        let bursts = ENTRIES / BURST;
        for burst in 0..2 * bursts {
            parts.burst(Stage::Complete).expect("success");
            let (first, round) = (burst % bursts * BURST, burst < bursts);
            for index in 0..ENTRIES {
                let posted = parts.host.entry(index);
                let phase = round == (index < first + BURST);
                assert_eq!(posted.phase(), phase, "entry {index} after burst {burst}");
                let here = (first..first + BURST).contains(&index);
                let cid = CommandId((index % BURST) as u16);
                assert!(!here || posted.cid() == cid, "entry {index}: {posted:?}");
            }
            assert!(parts.pair.sq.is_drained());
        }
    }
}

//! A process that dies between any two passes: no host can tell.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::machine::*;
use crate::spec::{AdminOpcode, CommandId, Cqe, NvmOpcode, Sqe, Status};

/// Commands of one queue at a time at most: one entry of its ring stays free.
const IN_FLIGHT_MAX: usize = 7;
const QUEUE_BLOCKS: u64 = 8;

/// What happens between two passes.
#[derive(Clone, Copy, Debug)]
enum Step {
    Command { queue: u16, op: u8, block: u64 },
    Identify,
    Reap { queue: u16 },
    Hold(bool),
    Limit(usize),
    Die,
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let command = (1u16..3, 0u8..4, 0..QUEUE_BLOCKS);
    prop_oneof![
        6 => command.prop_map(|(queue, op, block)| Step::Command { queue, op, block }),
        1 => Just(Step::Identify),
        3 => (0u16..3).prop_map(|queue| Step::Reap { queue }),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => (1usize..4).prop_map(Step::Limit),
        3 => Just(Step::Die),
        6 => Just(Step::Pass),
    ]
}

/// A command that is under way, and what is to come of it.
struct Expected {
    block: u64,
    status: Status,
    /// For a read: where, and the byte that every byte there is to be.
    data: Option<(u64, u8)>,
}

/// Each queue has its blocks of the disk, each block one command at a time.
struct Run {
    machine: Machine,
    under_way: [BTreeMap<CommandId, Expected>; 3],
    disk: [[u8; QUEUE_BLOCKS as usize]; 3],
    written: u8,
}

impl Run {
    fn new() -> Run {
        Run {
            machine: Machine::new(),
            under_way: Default::default(),
            disk: [[0; QUEUE_BLOCKS as usize]; 3],
            written: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Command { queue, op, block } => self.command(queue, op, block),
            Step::Identify => self.identify(),
            Step::Reap { queue } => self.reap(queue),
            Step::Hold(hold) => self.machine.device.hold(hold),
            Step::Limit(limit) => self.machine.device.limit(limit),
            Step::Die => self.machine.rebuild(),
            Step::Pass => self.machine.pass(),
        }
    }

    fn command(&mut self, queue: u16, op: u8, block: u64) {
        let at = usize::from(queue);
        let under_way = &self.under_way[at];
        let busy = under_way.values().any(|other| other.block == block);
        if busy || under_way.len() == IN_FLIGHT_MAX {
            return;
        }
        let lba = u64::from(queue) * QUEUE_BLOCKS + block;
        let buffer = data(lba);
        let there = self.disk[at][block as usize];
        self.written = self.written.wrapping_add(1).max(1);
        let (opcode, fill, status) = match op {
            0 => (NvmOpcode::READ, !there, Status::SUCCESS),
            1 => (NvmOpcode::COMPARE, there, Status::SUCCESS),
            2 => (NvmOpcode::COMPARE, !there, Status::COMPARE_FAILURE),
            _ => (NvmOpcode::WRITE, self.written, Status::SUCCESS),
        };
        self.machine.put(buffer, &[fill; 512]);
        if opcode == NvmOpcode::WRITE {
            self.disk[at][block as usize] = fill;
        }
        let cid = self
            .machine
            .submit(queue, transfer(opcode, HELD, buffer, lba, 1));
        let data = (opcode == NvmOpcode::READ).then_some((buffer, there));
        let expected = Expected {
            block,
            status,
            data,
        };
        self.under_way[at].insert(cid, expected);
    }

    fn identify(&mut self) {
        let block = self.under_way[0].len() as u64;
        if self.under_way[0].len() == IN_FLIGHT_MAX {
            return;
        }
        let sqe = admin(AdminOpcode::IDENTIFY, data(30), [1, 0]);
        let cid = self.machine.submit(0, sqe);
        let expected = Expected {
            block,
            status: Status::SUCCESS,
            data: None,
        };
        self.under_way[0].insert(cid, expected);
    }

    /// The place and phase in the ring are checked by how completions are found.
    fn reap(&mut self, queue: u16) {
        for cqe in self.machine.reap(queue) {
            let expected = self.under_way[usize::from(queue)].remove(&cqe.cid());
            let expected = expected.expect("a command that is under way, once");
            assert_eq!(cqe.status(), expected.status);
            if let Some((at, byte)) = expected.data {
                assert!(self.machine.get(at, 512).iter().all(|found| *found == byte));
            }
        }
    }

    fn finish(mut self) {
        self.machine.device.hold(false);
        self.machine.device.limit(usize::MAX);
        for _ in 0..4 {
            self.machine.settle();
            (0..3).for_each(|queue| self.reap(queue));
        }
        assert!(self.under_way.iter().all(BTreeMap::is_empty), "some never");
        for queue in [1, 2] {
            for block in 0..QUEUE_BLOCKS {
                self.command(queue, 1, block);
                self.machine.settle();
                self.reap(queue);
            }
        }
        assert!(self.under_way.iter().all(BTreeMap::is_empty));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_host_does_not_see_the_process_die(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut run = Run::new();
        for step in steps {
            run.take(step);
        }
        run.finish();
    }
}

#[test]
fn commands_at_the_device_are_executed_again_in_their_order() {
    let mut machine = Machine::new();
    machine.held_writes(1, 7);
    let sent = machine.device.submitted();
    machine.rebuild();
    machine.settle();
    assert_eq!(machine.device.submitted(), sent + 7);
    machine.device.hold(false);
    machine.settle();
    let cids: Vec<u16> = machine.reap(1).iter().map(|cqe| cqe.cid().0).collect();
    assert_eq!(cids.len(), 7);
    assert!(cids.is_sorted(), "{cids:?}");
}

#[test]
fn queue_commands_outlive_the_process() {
    let mut machine = Machine::new();
    for passes in 0..4 {
        machine.submit(0, delete(AdminOpcode::DELETE_SQ, 1));
        (0..passes).for_each(|_| machine.pass());
        machine.rebuild();
        machine.settle();
        let statuses: Vec<Status> = machine.reap(0).iter().map(Cqe::status).collect();
        assert_eq!(statuses, [Status::SUCCESS], "after {passes} passes");
        let again: Sqe = create_sq(1, IO, 7, 1);
        machine.submit(0, again);
        (0..passes).for_each(|_| machine.pass());
        machine.rebuild();
        machine.settle();
        let statuses: Vec<Status> = machine.reap(0).iter().map(Cqe::status).collect();
        assert_eq!(statuses, [Status::SUCCESS], "after {passes} passes");
    }
}

#[test]
fn queue_commands_that_were_done_but_not_answered_outlive_the_process() {
    let mut machine = Machine::new();
    let commands = [
        delete(AdminOpcode::DELETE_SQ, 1),
        delete(AdminOpcode::DELETE_CQ, 1),
        create_cq(1, IO + PAGE, 7, Some(1)),
        create_sq(1, IO, 7, 1),
    ];
    for (n, command) in commands.into_iter().enumerate() {
        machine.submit(0, command);
        machine.pass_and_die();
        machine.settle();
        let statuses: Vec<Status> = machine.reap(0).iter().map(Cqe::status).collect();
        assert_eq!(statuses, [Status::SUCCESS], "command {n}");
    }
    // What was refused is refused, however often it is executed.
    machine.submit(0, create_sq(1, IO, 7, 1));
    machine.pass_and_die();
    machine.settle();
    let statuses: Vec<Status> = machine.reap(0).iter().map(Cqe::status).collect();
    assert_eq!(statuses, [Status::INVALID_QUEUE_ID]);
}

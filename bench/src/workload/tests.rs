//! Workloads against a controller that is right, and against one that is wrong in one way.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nvme::spec::{CommandId, NvmOpcode, Status};

use super::block::{Kind, Mismatch};
use super::extent::{BlockSize, Lba};
use super::*;
use crate::emulated::{BLOCK, Effect, Model, Seen, Target};

fn plan(target: &Target, order: Order, mix: Mix) -> Plan {
    Plan {
        targets: vec![target.socket()],
        shape: Shape { order, mix },
        depth: 8,
        verify: true,
        seed: 5,
        timeout: Duration::from_secs(20),
        ..example().0
    }
}

/// A plan, and the outcome of a run of it in which nothing happened: for tests of reports.
pub(crate) fn example() -> (Plan, Outcome) {
    let plan = Plan {
        name: None,
        targets: vec!["disk.sock".into()],
        shape: Shape {
            order: Order::Random,
            mix: Mix::Reads,
        },
        distribution: Distribution::Random,
        command_bytes: 4096,
        depth: 4,
        queues: 1,
        runtime: None,
        time_based: true,
        ramp_time: Duration::ZERO,
        think_time: Duration::ZERO,
        bytes: None,
        nsid: None,
        cores: None,
        verify: false,
        seed: 1,
        timeout: Duration::from_secs(1),
    };
    let block = BlockSize::from_shift(9).expect("a size");
    let setting = Setting {
        nsid: Nsid(1),
        nguid: [1; 16],
        block,
        extent: target::extent(&plan, block, 8192).expect("an extent"),
        doorbells_mapped: true,
        volatile_cache: false,
    };
    let mut outcome = Outcome::new(vec![setting]);
    let cores = "[0]".parse().expect("a core");
    outcome.placements = placements(&plan, &cores);
    (plan, outcome)
}

fn outcome(plan: &Plan) -> Outcome {
    run(plan, |_, _| ()).expect("a run that begins")
}

fn succeeds(plan: &Plan) -> Outcome {
    let outcome = outcome(plan);
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    outcome
}

/// The mismatch that a run is expected to end with.
fn mismatch(plan: &Plan) -> Mismatch {
    let failures = outcome(plan).failures;
    match failures.first() {
        Some(Failure::Mismatch(mismatch)) => *mismatch,
        _ => panic!("no mismatch: {failures:?}"),
    }
}

fn is_write_of(seen: Seen, lba: u64) -> bool {
    seen.opcode == NvmOpcode::WRITE && seen.lba == lba
}

#[test]
fn what_is_written_is_read_back_by_the_same_and_by_a_later_run() {
    let target = Target::new(Model::PLAIN);
    let write = plan(&target, Order::Sequential, Mix::Writes);
    let written = succeeds(&write);
    assert_eq!(written.blocks_verified, 8192);
    assert_eq!(written.tally.write.commands(), 1024);
    assert_eq!(written.tally.read.commands(), 0);
    for (order, queues, command_bytes) in [
        (Order::Sequential, 1, 4096),
        (Order::Sequential, 3, 512),
        (Order::Random, 2, 65536),
    ] {
        let read = Plan {
            queues,
            command_bytes,
            ..plan(&target, order, Mix::Reads)
        };
        let checked = succeeds(&read);
        assert_eq!(checked.blocks_verified, 8192);
        assert_eq!(checked.tally.read.commands(), 8192 * BLOCK / command_bytes);
    }
}

#[test]
fn every_size_and_depth_moves_the_right_data() {
    let largest = 4096 << Model::PLAIN.mdts;
    for (command_bytes, depth, queues) in [
        (512, 63, 1),
        (4096, 1, 2),
        (8192, 7, 1),
        (12288, 63, 3),
        (largest, 5, 8),
    ] {
        for model in [
            Model::PLAIN,
            Model {
                reversed: true,
                dstrd: 2,
                volatile_cache: false,
                ..Model::PLAIN
            },
        ] {
            let target = Target::new(model);
            let plan = Plan {
                command_bytes,
                depth,
                queues,
                ..plan(&target, Order::Random, Mix::Both { read_percent: 40 })
            };
            let mixed = succeeds(&plan);
            assert!(mixed.blocks_verified > 0 && mixed.tally.read.commands() > 0);
        }
    }
}

#[test]
fn several_targets_are_one_run_with_queues_of_their_own() {
    let [one, other] = [Target::new(Model::PLAIN), Target::new(Model::PLAIN)];
    let plan = Plan {
        targets: vec![one.socket(), other.socket()],
        queues: 3,
        ..plan(&one, Order::Random, Mix::Writes)
    };
    let written = succeeds(&plan);
    assert_eq!(written.tally.write.commands(), 2 * 1024);
    assert_eq!(written.blocks_verified, 2 * 8192);
    assert_eq!(written.bytes(), 2 * 8192 * BLOCK);
    let queues = written.placements.iter().map(|at| (at.target, at.queue.0));
    assert!(queues.eq([(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]));
    for target in &plan.targets {
        let read = Plan {
            targets: vec![target.clone()],
            queues: 1,
            ..self::plan(&one, Order::Sequential, Mix::Reads)
        };
        assert_eq!(succeeds(&read).blocks_verified, 8192);
    }
}

#[test]
fn queue_after_queue_is_on_the_next_core_of_the_list() {
    let plan = Plan {
        targets: vec!["a".into(), "b".into()],
        queues: 2,
        ..example().0
    };
    let cores = "4,1,4".parse().expect("cores");
    let placed = placements(&plan, &cores);
    let cores = placed.iter().map(|at| (at.target, at.queue.0, at.core.0));
    assert!(cores.eq([(0, 1, 4), (0, 2, 1), (1, 1, 4), (1, 2, 4)]));
}

#[test]
fn of_several_targets_the_one_that_fails_is_named() {
    let lose = |seen| match is_write_of(seen, 800) {
        true => Effect::Lose,
        false => Effect::Right,
    };
    let right = Target::new(Model::PLAIN);
    let wrong = Target::with_fault(Model::PLAIN, lose);
    let several = Plan {
        targets: vec![right.socket(), wrong.socket()],
        ..plan(&right, Order::Sequential, Mix::Writes)
    };
    let failures = outcome(&several).failures;
    let name = wrong.socket().display().to_string();
    let told = failures.first().expect("a failure");
    assert!(told.to_string().starts_with(&name), "{told}");
    assert!(matches!(told, Failure::At { failure, .. }
        if matches!(**failure, Failure::Mismatch(_))));
    let beyond = Plan {
        targets: vec![right.socket(), "/nowhere.sock".into()],
        ..several.clone()
    };
    let refused = run(&beyond, |_, _| ()).expect_err("no target");
    assert!(
        refused.to_string().starts_with("/nowhere.sock: "),
        "{refused}"
    );
    let twice = Plan {
        targets: vec![right.socket(), right.socket()],
        ..several
    };
    let refused = run(&twice, |_, _| ()).expect_err("one target");
    assert!(refused.to_string().contains("twice"), "{refused}");
}

#[test]
fn doorbells_that_cannot_be_mapped_go_by_message() {
    let target = Target::new(Model {
        doorbells_mapped: false,
        ..Model::PLAIN
    });
    let plan = Plan {
        queues: 2,
        ..plan(&target, Order::Random, Mix::Both { read_percent: 50 })
    };
    let outcome = succeeds(&plan);
    assert!(!outcome.settings[0].doorbells_mapped);
}

#[test]
fn a_run_without_verification_counts_every_command() {
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        verify: false,
        queues: 2,
        ..plan(&target, Order::Random, Mix::Reads)
    };
    let outcome = succeeds(&plan);
    assert_eq!(outcome.tally.read.commands(), 1024);
    assert_eq!(outcome.blocks_verified, 0);
    assert!(outcome.elapsed > Duration::ZERO);
}

#[test]
fn a_run_with_a_time_goes_on_past_the_end_and_ends() {
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        runtime: Some(Duration::from_millis(300)),
        bytes: Some(64 << 10),
        ..plan(&target, Order::Sequential, Mix::Writes)
    };
    let outcome = succeeds(&plan);
    assert!(outcome.elapsed >= Duration::from_millis(300));
    assert!(outcome.tally.write.commands() > 16);
    assert_eq!(outcome.blocks_verified, 128);
}

#[test]
fn a_ramp_is_traffic_that_does_not_count() {
    let reads = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&reads);
    let count = move |command: Seen| {
        seen.fetch_add(
            u64::from(command.opcode == NvmOpcode::READ),
            Ordering::Relaxed,
        );
        Effect::Right
    };
    let target = Target::with_fault(Model::PLAIN, count);
    let plan = Plan {
        runtime: Some(Duration::from_secs(1)),
        ramp_time: Duration::from_millis(300),
        verify: false,
        ..plan(&target, Order::Random, Mix::Reads)
    };
    let started = Instant::now();
    let outcome = succeeds(&plan);
    let whole = started.elapsed();
    let recorded = outcome.tally.read.commands();
    assert!(
        (1..reads.load(Ordering::Relaxed)).contains(&recorded),
        "{recorded}"
    );
    assert!(outcome.elapsed > Duration::ZERO && outcome.elapsed + plan.ramp_time <= whole);
}

#[test]
fn a_job_that_thinks_submits_bursts_and_ends_in_time() {
    let target = Target::new(Model::PLAIN);
    let think_time = Duration::from_secs(1);
    let plan = Plan {
        think_time,
        bytes: Some(4 * 4096),
        command_bytes: 4096,
        depth: 2,
        verify: false,
        ..plan(&target, Order::Random, Mix::Reads)
    };
    let outcome = succeeds(&plan);
    let reads = outcome.tally.read;
    assert_eq!(reads.commands(), 4);
    // Two bursts, each with its thought, which is no part of a latency.
    assert!(outcome.elapsed >= 2 * think_time, "{:?}", outcome.elapsed);
    assert!(reads.latencies().value_at_quantile(0.5) < 1_000_000_000);
    let runtime = Duration::from_millis(100);
    let plan = Plan {
        think_time: Duration::from_secs(600),
        runtime: Some(runtime),
        ..plan
    };
    let started = Instant::now();
    let outcome = succeeds(&plan);
    assert_eq!(outcome.tally.read.commands(), 2);
    assert!(outcome.elapsed >= runtime, "{:?}", outcome.elapsed);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_thought_is_no_time_that_the_target_takes() {
    let slow = |_: Seen| {
        thread::sleep(Duration::from_millis(30));
        Effect::Right
    };
    let target = Target::with_fault(Model::PLAIN, slow);
    let plan = Plan {
        think_time: Duration::from_millis(2500),
        timeout: Duration::from_secs(2),
        bytes: Some(2 * 4096),
        command_bytes: 4096,
        depth: 1,
        verify: false,
        ..plan(&target, Order::Random, Mix::Reads)
    };
    assert_eq!(succeeds(&plan).tally.read.commands(), 2);
}

#[test]
fn a_thought_ends_when_another_queue_fails_and_nothing_comes_after_it() {
    let commands = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&commands);
    let fail = move |command: Seen| {
        seen.fetch_add(1, Ordering::Relaxed);
        match command.before == 5 {
            true => Effect::Fail(Status::WRITE_FAULT),
            false => Effect::Right,
        }
    };
    let target = Target::with_fault(Model::PLAIN, fail);
    let plan = Plan {
        think_time: Duration::from_secs(600),
        depth: 4,
        queues: 2,
        ..plan(&target, Order::Sequential, Mix::Writes)
    };
    let started = Instant::now();
    let failures = outcome(&plan).failures;
    assert!(
        matches!(failures[..], [Failure::Command { .. }]),
        "{failures:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(60));
    drop(target);
    assert!(commands.load(Ordering::Relaxed) <= 2 * 4);
}

#[test]
fn what_a_thoughtful_job_wrote_is_read_back_without_a_thought() {
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        think_time: Duration::from_secs(600),
        runtime: Some(Duration::from_millis(50)),
        ..plan(&target, Order::Random, Mix::Writes)
    };
    assert!(succeeds(&plan).blocks_verified > 0);
}

#[test]
fn nothing_counts_if_the_work_is_done_within_the_ramp() {
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        time_based: false,
        runtime: Some(Duration::from_secs(600)),
        ramp_time: Duration::from_secs(600),
        ..plan(&target, Order::Random, Mix::Writes)
    };
    let outcome = succeeds(&plan);
    assert_eq!(outcome.tally.write.commands(), 0);
    assert_eq!(outcome.elapsed, Duration::ZERO);
    assert_eq!(outcome.blocks_verified, 8192);
}

#[test]
fn zoned_writes_are_verified_and_stay_in_their_zones() {
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        distribution: "zoned:0/25:100/25:0/".parse().expect("zones"),
        runtime: Some(Duration::from_millis(200)),
        queues: 2,
        ..plan(&target, Order::Random, Mix::Writes)
    };
    let outcome = succeeds(&plan);
    let blocks = outcome.blocks_verified;
    assert!((8..=2048).contains(&blocks), "{blocks}");
    let read = self::plan(&target, Order::Sequential, Mix::Reads);
    let first = mismatch(&read);
    assert_eq!((first.lba, first.kind), (Lba(0), Kind::Unwritten));
    // A zone of fewer chunks than the depth is not left either.
    let narrow = Plan {
        distribution: "zoned:100/1:0/99".parse().expect("zones"),
        ..plan.clone()
    };
    assert_eq!(succeeds(&narrow).blocks_verified, 2 * 5 * 8);
    let tiny = Plan {
        bytes: Some(2 * 4096),
        ..plan
    };
    let refused = run(&tiny, |_, _| ()).expect_err("no zones");
    assert!(
        refused.to_string().contains("each zone has to hold 4096"),
        "{refused}"
    );
}

#[test]
fn fewer_chunks_than_the_depth_never_overlap() {
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        bytes: Some(3 * 4096),
        depth: 32,
        runtime: Some(Duration::from_millis(200)),
        ..plan(&target, Order::Random, Mix::Both { read_percent: 50 })
    };
    succeeds(&plan);
}

#[test]
fn a_lost_first_write_is_unwritten() {
    let lose = |seen| match is_write_of(seen, 800) {
        true => Effect::Lose,
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, lose);
    let found = mismatch(&plan(&target, Order::Sequential, Mix::Writes));
    assert_eq!((found.lba, found.kind), (Lba(800), Kind::Unwritten));
}

#[test]
fn a_lost_later_write_is_stale() {
    let mut writes = 0;
    let lose = move |seen| {
        writes += u32::from(is_write_of(seen, 16));
        match is_write_of(seen, 16) && writes > 1 {
            true => Effect::Lose,
            false => Effect::Right,
        }
    };
    let target = Target::with_fault(Model::PLAIN, lose);
    let plan = Plan {
        bytes: Some(16 * 4096),
        runtime: Some(Duration::from_millis(200)),
        ..plan(&target, Order::Random, Mix::Writes)
    };
    let found = mismatch(&plan);
    assert_eq!(found.lba, Lba(16));
    assert!(matches!(found.kind, Kind::Stale { .. }), "{found}");
}

#[test]
fn a_write_lost_in_a_later_run_is_stale_too() {
    let lose = |seen: Seen| match is_write_of(seen, 16) && seen.before > 2000 {
        true => Effect::Lose,
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, lose);
    let write = plan(&target, Order::Sequential, Mix::Writes);
    succeeds(&write);
    let found = mismatch(&write);
    assert_eq!(found.lba, Lba(16));
    assert!(matches!(found.kind, Kind::Stale { .. }), "{found}");
}

#[test]
fn a_misplaced_write_shows_where_it_went_or_where_it_is_missing() {
    let misplace = |seen| match is_write_of(seen, 4000) {
        true => Effect::At(80),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, misplace);
    let found = mismatch(&plan(&target, Order::Sequential, Mix::Writes));
    let misplaced = Kind::Misplaced { found: Lba(4000) };
    assert_eq!((found.lba, found.kind), (Lba(80), misplaced));
}

#[test]
fn a_read_from_the_wrong_place_is_misplaced() {
    let misread = |seen: Seen| match seen.opcode == NvmOpcode::READ && seen.lba == 80 {
        true => Effect::At(8),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, misread);
    let found = mismatch(&plan(&target, Order::Sequential, Mix::Writes));
    let misplaced = Kind::Misplaced { found: Lba(8) };
    assert_eq!((found.lba, found.kind), (Lba(80), misplaced));
}

#[test]
fn a_torn_write_shows_the_byte_where_it_stops() {
    let cut = |seen: Seen| match is_write_of(seen, 80) && seen.before > 1024 {
        true => Effect::Cut(512 * 3 + 128),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, cut);
    let write = plan(&target, Order::Sequential, Mix::Writes);
    succeeds(&write);
    let found = mismatch(&write);
    assert_eq!(found.lba, Lba(83));
    assert!(matches!(found.kind, Kind::Torn { at: 128, .. }), "{found}");
}

#[test]
fn a_flipped_bit_shows_its_byte() {
    let flip = |seen: Seen| match seen.opcode == NvmOpcode::READ && seen.lba == 80 {
        true => Effect::Flip(512 * 7 + 13),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, flip);
    let found = mismatch(&plan(&target, Order::Sequential, Mix::Writes));
    assert_eq!(found.lba, Lba(87));
    assert!(
        matches!(found.kind, Kind::Corrupt { at: 13, .. }),
        "{found}"
    );
}

#[test]
fn a_read_that_moves_nothing_does_not_pass_for_what_was_there() {
    let lose = |seen: Seen| match seen.opcode == NvmOpcode::READ && seen.lba == 80 {
        true => Effect::Lose,
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, lose);
    let plan = Plan {
        depth: 1,
        ..plan(&target, Order::Sequential, Mix::Writes)
    };
    let found = mismatch(&plan);
    assert_eq!(found.lba, Lba(80));
    assert!(matches!(found.kind, Kind::Corrupt { at: 0, .. }), "{found}");
}

#[test]
fn a_write_that_lands_on_an_unwritten_block_is_seen_by_a_mixed_run() {
    // Everything goes to one place: reads find there what was written for another.
    let misplace = |seen: Seen| match seen.opcode == NvmOpcode::WRITE {
        true => Effect::At(8),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, misplace);
    let plan = Plan {
        bytes: Some(4 * 4096),
        depth: 1,
        runtime: Some(Duration::from_secs(10)),
        ..plan(&target, Order::Random, Mix::Both { read_percent: 50 })
    };
    mismatch(&plan);
}

#[test]
fn a_disk_that_was_never_written_does_not_verify() {
    let target = Target::new(Model::PLAIN);
    let found = mismatch(&plan(&target, Order::Sequential, Mix::Reads));
    assert_eq!((found.lba, found.kind), (Lba(0), Kind::Unwritten));
}

#[test]
fn a_disk_of_another_seed_does_not_verify() {
    let target = Target::new(Model::PLAIN);
    succeeds(&plan(&target, Order::Sequential, Mix::Writes));
    let read = Plan {
        seed: 6,
        ..plan(&target, Order::Sequential, Mix::Reads)
    };
    assert_eq!(mismatch(&read).kind, Kind::OtherSeed { found: 5 });
}

#[test]
fn a_failed_command_is_told_with_its_address_and_status() {
    for opcode in [NvmOpcode::READ, NvmOpcode::WRITE] {
        let fail = move |seen: Seen| match seen.opcode == opcode && seen.lba == 80 {
            true => Effect::Fail(Status::WRITE_FAULT),
            false => Effect::Right,
        };
        let target = Target::with_fault(Model::PLAIN, fail);
        let failures = outcome(&plan(&target, Order::Sequential, Mix::Writes)).failures;
        let told = failures.first().expect("a failure").to_string();
        assert!(
            told.contains("LBA 80") && told.contains("WRITE_FAULT"),
            "{told}"
        );
    }
}

#[test]
fn a_failed_flush_is_a_failure() {
    let fail = |seen: Seen| match seen.opcode == NvmOpcode::FLUSH {
        true => Effect::Fail(Status::WRITE_FAULT),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, fail);
    let failures = outcome(&plan(&target, Order::Sequential, Mix::Writes)).failures;
    assert!(
        matches!(failures[..], [Failure::Flush(Status::WRITE_FAULT)]),
        "{failures:?}"
    );
}

#[test]
fn a_completion_of_a_command_that_is_not_in_flight_is_a_failure() {
    for cid in [8, u16::MAX] {
        let answer = move |seen: Seen| match seen.before == 100 {
            true => Effect::As(cid),
            false => Effect::Right,
        };
        let target = Target::with_fault(Model::PLAIN, answer);
        let failures = outcome(&plan(&target, Order::Random, Mix::Reads)).failures;
        let unverified = matches!(failures[..], [Failure::Mismatch(_)]);
        assert!(
            unverified,
            "an unwritten disk is found out first: {failures:?}"
        );
        let unchecked = Plan {
            verify: false,
            ..plan(&target, Order::Random, Mix::Reads)
        };
        let failures = outcome(&unchecked).failures;
        assert!(
            matches!(failures[..], [Failure::NotInFlight { .. }]),
            "{failures:?}"
        );
    }
}

#[test]
fn a_second_completion_of_a_command_is_a_failure() {
    let twice = |seen: Seen| match seen.before == 1 {
        true => Effect::As(0),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, twice);
    // All commands are submitted at once, and none follows: command 0 is not in flight again.
    let plan = Plan {
        verify: false,
        bytes: Some(8 * 4096),
        ..plan(&target, Order::Sequential, Mix::Reads)
    };
    let failures = outcome(&plan).failures;
    let found = matches!(
        failures[..],
        [Failure::NotInFlight {
            command: CommandId(0),
            ..
        }]
    );
    assert!(found, "{failures:?}");
}

#[test]
fn a_failure_of_one_job_stops_the_others() {
    let fail = |seen: Seen| match seen.lba == 80 {
        true => Effect::Fail(Status::WRITE_FAULT),
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, fail);
    let runtime = Duration::from_secs(60);
    let plan = Plan {
        queues: 3,
        runtime: Some(runtime),
        ..plan(&target, Order::Sequential, Mix::Writes)
    };
    let outcome = outcome(&plan);
    assert!(matches!(outcome.failures[..], [Failure::Command { .. }]));
    assert!(outcome.elapsed < runtime);
}

#[test]
fn a_target_that_stops_answering_is_given_up_after_the_timeout() {
    let forget = |seen: Seen| match seen.before >= 500 {
        true => Effect::Forget,
        false => Effect::Right,
    };
    let target = Target::with_fault(Model::PLAIN, forget);
    let plan = Plan {
        verify: false,
        queues: 2,
        timeout: Duration::from_millis(500),
        ..plan(&target, Order::Random, Mix::Reads)
    };
    let failures = outcome(&plan).failures;
    let stalled = matches!(failures[0], Failure::Stalled { in_flight: 8, .. });
    assert!(stalled, "{failures:?}");
}

#[test]
fn what_is_taken_of_the_targets_threads_is_told() {
    // The target is in this process: so are two threads that have one core.
    let core = Cores::inherited().expect("cores").of_job(0);
    let done = AtomicBool::new(false);
    let spin = || {
        core.pin().expect("pinned");
        while !done.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    };
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        verify: false,
        runtime: Some(Duration::from_millis(300)),
        ..plan(&target, Order::Random, Mix::Reads)
    };
    let outcome = thread::scope(|scope| {
        scope.spawn(spin);
        scope.spawn(spin);
        thread::sleep(Duration::from_millis(100));
        let outcome = run(&plan, |_, _| ());
        done.store(true, Ordering::Relaxed);
        outcome.expect("a run that begins")
    });
    assert!(outcome.lost.waited > 0.1, "{:?}", outcome.lost);
}

#[test]
fn a_target_that_goes_away_ends_the_run() {
    let hang = |seen: Seen| match seen.before == 500 {
        true => Effect::Hang,
        false => Effect::Right,
    };
    for doorbells_mapped in [true, false] {
        let model = Model {
            doorbells_mapped,
            ..Model::PLAIN
        };
        let target = Target::with_fault(model, hang);
        let plan = Plan {
            verify: false,
            queues: 2,
            ..plan(&target, Order::Random, Mix::Reads)
        };
        let failures = outcome(&plan).failures;
        assert!(matches!(failures[0], Failure::TargetGone), "{failures:?}");
        let stalled = |failure| matches!(failure, &Failure::Stalled { .. });
        assert!(!failures.iter().any(stalled), "{failures:?}");
    }
}

#[test]
fn one_of_several_targets_that_goes_away_ends_the_run_and_is_named() {
    let hang = |seen: Seen| match seen.before == 500 {
        true => Effect::Hang,
        false => Effect::Right,
    };
    let stays = Target::new(Model::PLAIN);
    let goes = Target::with_fault(Model::PLAIN, hang);
    let plan = Plan {
        targets: vec![stays.socket(), goes.socket()],
        verify: false,
        runtime: Some(Duration::from_secs(600)),
        ..plan(&stays, Order::Random, Mix::Reads)
    };
    let failures = outcome(&plan).failures;
    let Some(Failure::At { target, failure }) = failures.first() else {
        panic!("{failures:?}")
    };
    assert_eq!(*target, goes.socket());
    assert!(matches!(**failure, Failure::TargetGone), "{failures:?}");
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_written() {
    let target = Target::new(Model::PLAIN);
    let good = plan(&target, Order::Sequential, Mix::Writes);
    let namespace_bytes = 8192 * BLOCK;
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        run(&plan, |_, _| ()).expect_err("a refusal").to_string()
    };
    for (told, named) in [
        (with(&|plan| plan.command_bytes = 1000), "--bs 1000"),
        (with(&|plan| plan.command_bytes = 0), "--bs 0"),
        (with(&|plan| plan.command_bytes = 256 << 10), "131072"),
        (with(&|plan| plan.depth = 64), "63"),
        (with(&|plan| plan.queues = 9), "grants 8"),
        (
            with(&|plan| plan.bytes = Some(namespace_bytes + 1)),
            "--size",
        ),
        (with(&|plan| plan.bytes = Some(4095)), "too few"),
        (
            with(&|plan| plan.nsid = Some(Nsid(2))),
            "no namespace 2: it has 1",
        ),
        (
            with(&|plan| plan.cores = "[1023]".parse().ok()),
            "core 1023",
        ),
        (
            with(&|plan| plan.targets = vec!["/nowhere.sock".into()]),
            "/nowhere.sock",
        ),
    ] {
        assert!(told.contains(named), "{named}: {told}");
    }
    let disk = target.disk.lock().expect("the disk");
    assert!(disk.iter().all(|byte| *byte == 0));
}

#[test]
fn a_namespace_too_large_for_the_ledger_is_refused_with_the_limit() {
    let target = Target::new(Model::PLAIN);
    let plan = plan(&target, Order::Random, Mix::Writes);
    let block = BlockSize::from_shift(9).expect("a size");
    let refused = target::extent(&plan, block, u64::MAX >> 9).expect_err("a refusal");
    assert!(matches!(refused, Error::TooLargeToVerify { limit, .. } if limit == 1 << 40));
    let unverified = Plan {
        verify: false,
        ..plan
    };
    assert!(target::extent(&unverified, block, u64::MAX >> 9).is_ok());
}

#[test]
fn a_connection_that_is_refused_names_no_other_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gone.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let target = Target::new(Model::PLAIN);
    let plan = Plan {
        targets: vec![socket],
        ..plan(&target, Order::Sequential, Mix::Reads)
    };
    let told = run(&plan, |_, _| ()).expect_err("nobody").to_string();
    assert!(told.contains("refused"), "{told}");
}

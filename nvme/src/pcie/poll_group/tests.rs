//! A poll group driven through plain memory by a host that plays by the rules, or does not, with
//! a block device that completes when it is told to.

mod host;
mod rest;

use std::sync::atomic::Ordering::Relaxed;

use bdev::memory::Iova;
use proptest::prelude::*;

use self::host::{Host, PAGE};
use super::lane::HOST_BUSY_NS_MAX;
use super::*;
use crate::pcie::message::{Coalescing, GroupOutcome, Interrupt, ToGroup};
use crate::pcie::tests::Counter;

const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const FLUSH: u8 = 0x00;
const WRITE_ZEROES: u8 = 0x08;
const COMPARE: u8 = 0x05;

#[test]
fn what_was_written_is_read_back_through_prps_of_every_shape() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    // Whole pages, an offset in the first page, two pages, a list, and a list over two pages.
    for (len, offset) in [
        (4096, 0),
        (512, 0xe00),
        (4096, 0x800),
        (8192, 0),
        (65536, 0x200),
    ] {
        let data = host.pattern(len);
        let from = host.scattered(&data, offset);
        assert_eq!(
            host.io(WRITE, 7, len, from),
            Status::SUCCESS,
            "{len} at {offset:#x}"
        );
        let to = host.scattered(&vec![0; len], offset);
        assert_eq!(host.io(READ, 7, len, to), Status::SUCCESS);
        assert_eq!(host.collect(to, len, offset), data, "{len} at {offset:#x}");
    }
}

#[test]
fn half_of_what_the_host_keeps_in_flight_is_fetched_in_a_pass() {
    let submit = |host: &mut Host, count| {
        for _ in 0..count {
            host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
        }
        host.ring(1);
        let before = host.peek_completions(1);
        host.pass();
        host.peek_completions(1) - before
    };
    let counts = [
        (1, 1),
        (4, 4),
        (5, 4),
        (8, 4),
        (16, 8),
        (41, 20),
        (64, 32),
        (100, 32),
    ];
    for (waiting, fetched) in counts {
        let mut host = Host::new();
        host.create_pair(1, 128);
        assert_eq!(submit(&mut host, waiting), fetched, "of {waiting}");
    }
    // What the host has not consumed is in flight too.
    let mut host = Host::new();
    host.create_pair(1, 128);
    assert_eq!(submit(&mut host, 8), 4);
    assert_eq!(submit(&mut host, 0), 4);
    assert_eq!(submit(&mut host, 8), 8);
    assert_eq!(host.reap(1).len(), 16);
    assert_eq!(submit(&mut host, 8), 4);
    // And a small completion queue has room for as many as it has room for.
    let mut host = Host::new();
    host.create_queues(1, 128, 4);
    assert_eq!(submit(&mut host, 8), 3);
    assert_eq!(submit(&mut host, 0), 0);
}

#[test]
fn a_list_goes_on_in_the_next_page() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let data = host.pattern(1 << 20);
    let from = host.scattered_near_page_end(&data, 5);
    assert_eq!(host.io(WRITE, 0, data.len(), from), Status::SUCCESS);
    let to = host.scattered_near_page_end(&vec![0; data.len()], 3);
    assert_eq!(host.io(READ, 0, data.len(), to), Status::SUCCESS);
    assert_eq!(host.collect(to, data.len(), 0), data);
}

#[test]
fn misaligned_prps_are_refused_with_the_status_of_the_specification() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    for prps in [[2, 0], [PAGE, PAGE + 8], [PAGE + 1, 0]] {
        assert_eq!(
            host.io(READ, 0, 8192, prps),
            Status::PRP_OFFSET_INVALID,
            "{prps:x?}"
        );
    }
    let list = host.alloc(PAGE);
    assert_eq!(
        host.io(READ, 0, 65536, [PAGE, list + 4]),
        Status::PRP_OFFSET_INVALID
    );
    host.write(list, &(PAGE * 3 + 16).to_le_bytes());
    assert_eq!(
        host.io(READ, 0, 65536, [PAGE, list]),
        Status::PRP_OFFSET_INVALID
    );
}

#[test]
fn a_list_that_points_at_its_own_last_entry_ends() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let list = host.alloc(PAGE);
    host.write(list + PAGE - 8, &(list + PAGE - 8).to_le_bytes());
    let prps = [PAGE, list + PAGE - 8];
    assert_eq!(host.io(READ, 0, 65536, prps), Status::PRP_OFFSET_INVALID);
}

#[test]
fn no_command_reaches_the_disk_once_memory_has_shrunk_and_each_time_it_is_told() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let prps = [host.alloc(PAGE), 0];
    host.shrink();
    let ranges = host.dsm_ranges(&[(0, 8)]);
    for times in 1..=3 {
        // Either may have been read half before, with zeroes at its end.
        host.submit(1, host::sqe(WRITE, 1, prps, 0, 0));
        host.submit(1, host::dsm(1, [ranges, 0], 1));
        host.ring(1);
        (0..=HEALTH_PASSES).for_each(|_| host.pass());
        let told = |reply: &FromGroup| *reply == FromGroup::Event(GroupEvent::MemoryBad);
        assert_eq!(host.replies().into_iter().filter(told).count(), times);
        assert_eq!(host.device().submitted(), 0);
        host.unmap_all();
        host.map_again();
    }
}

#[test]
fn memory_that_shrinks_is_told_however_many_errors_were_before() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    for _ in 0..EVENTS_MAX {
        host.submit(1, host::sqe(0xff, 1, [0, 0], 0, 0));
        host.ring(1);
        host.pass_unheard();
        assert_eq!(host.reap(1).len(), 1);
    }
    host.shrink();
    (0..=HEALTH_PASSES).for_each(|_| host.pass_unheard());
    (0..=HEALTH_PASSES).for_each(|_| host.pass());
    let told = |reply: &FromGroup| *reply == FromGroup::Event(GroupEvent::MemoryBad);
    let replies = host.replies();
    assert_eq!(replies.len(), EVENTS_MAX + 1);
    assert_eq!(replies.into_iter().filter(told).count(), 1);
}

#[test]
fn memory_that_is_not_mapped_is_a_data_transfer_error() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    assert_eq!(
        host.io(READ, 0, 4096, [1 << 40, 0]),
        Status::DATA_TRANSFER_ERROR
    );
    assert_eq!(
        host.io(READ, 0, 65536, [PAGE, 1 << 40]),
        Status::DATA_TRANSFER_ERROR
    );
    assert_eq!(
        host.io(READ, 0, 4096, [!0xfff, 0]),
        Status::DATA_TRANSFER_ERROR
    );
}

#[test]
fn wrong_commands_get_their_status_and_reach_no_device() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let blocks = host.device().blocks();
    let prps = [host.alloc(PAGE), 0];
    let before = host.device().submitted();
    let cases: [(u8, u32, u64, u16, Status); 7] = [
        (READ, 0, 0, 0, Status::INVALID_NAMESPACE),
        (READ, 9, 0, 0, Status::INVALID_NAMESPACE),
        (READ, 2, 0, 0, Status::INVALID_FIELD),
        (READ, 1, blocks, 0, Status::LBA_OUT_OF_RANGE),
        (WRITE, 1, u64::MAX, 7, Status::LBA_OUT_OF_RANGE),
        (READ, 1, 0, 0xffff, Status::INVALID_FIELD),
        (0x7f, 1, 0, 0, Status::INVALID_OPCODE),
    ];
    for (opcode, nsid, lba, nlb, status) in cases {
        let sqe = host::sqe(opcode, nsid, prps, lba, nlb);
        assert_eq!(
            host.command(1, sqe),
            status,
            "{opcode:#x} {nsid} {lba} {nlb}"
        );
    }
    assert_eq!(host.device().submitted(), before);
}

#[test]
fn a_full_completion_queue_stops_fetching_until_the_host_consumes() {
    let mut host = Host::new();
    host.create_queues(1, 64, 4);
    for _ in 0..10 {
        host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    }
    host.ring(1);
    host.pass();
    assert_eq!(host.peek_completions(1), 3, "one entry of four stays empty");
    let mut seen = 0;
    for _ in 0..10 {
        seen += host.reap(1).len();
        host.pass();
    }
    assert_eq!(seen, 10);
}

#[test]
fn a_doorbell_outside_the_queue_stops_it_and_is_reported_once() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.create_pair(2, 16);
    host.ring_value(1, 16);
    host.pass();
    host.pass();
    let queue = QueueId(1);
    let event = FromGroup::Event(GroupEvent::InvalidDoorbell { queue, value: 16 });
    assert_eq!(host.replies(), [event]);
    // The other queue goes on.
    assert_eq!(
        host.command(2, host::sqe(FLUSH, 1, [0, 0], 0, 0)),
        Status::SUCCESS
    );
    host.ring_value(1, 3);
    host.pass();
    assert_eq!(host.peek_completions(1), 0);
}

#[test]
fn consuming_what_was_never_posted_stops_the_completion_queue() {
    let mut host = Host::new();
    host.create_queues(1, 16, 4);
    let flush = host::sqe(FLUSH, 1, [0, 0], 0, 0);
    for _ in 0..4 {
        host.submit(1, flush);
    }
    host.ring(1);
    host.pass();
    assert_eq!(host.peek_completions(1), 3);
    host.claim_head(1, 5);
    host.pass();
    let (queue, value) = (QueueId(1), 5);
    let event = FromGroup::Event(GroupEvent::InvalidDoorbell { queue, value });
    assert_eq!(host.replies(), [event]);
    host.pass();
    assert_eq!(host.replies().len(), 1);
}

#[test]
fn an_unmap_waits_for_the_io_that_touches_it_and_for_nothing_else() {
    let mut host = Host::new();
    host.map_extra(1 << 30, 1 << 20);
    host.create_pair(1, 16);
    host.device().hold(true);
    host.submit(1, host::sqe(READ, 1, [1 << 30, 0], 0, 7));
    host.ring(1);
    host.pass();
    let unmap = host.ask(ToGroup::Unmap {
        iova: Iova(1 << 30),
        len: 1 << 20,
    });
    for _ in 0..3 {
        host.pass();
        assert_eq!(
            host.answer(unmap),
            None,
            "success while the device writes there"
        );
    }
    host.device().hold(false);
    host.pass();
    assert_eq!(host.answer(unmap), Some(GroupOutcome::Ok));
    assert_eq!(host.reap(1).len(), 1);
}

#[test]
fn a_queue_whose_memory_went_is_parked_and_goes_on_when_it_is_back() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.device().hold(true);
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    host.pass();
    let unmap = host.unmap_all();
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    host.device().hold(false);
    host.pass();
    assert_eq!(host.answer(unmap), Some(GroupOutcome::Ok));
    assert_eq!(
        host.peek_completions(1),
        0,
        "posted into memory that is not mapped"
    );
    host.map_again();
    host.pass();
    assert_eq!(host.reap(1).len(), 2);
}

#[test]
fn data_may_come_back_a_moment_after_its_queue() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.map_extra(1 << 30, 1 << 20);
    host.ask(ToGroup::Unmap {
        iova: Iova(1 << 30),
        len: 1 << 20,
    });
    host.submit(1, host::sqe(READ, 1, [1 << 30, 0], 0, 0));
    host.ring(1);
    host.pass();
    assert_eq!(
        host.peek_completions(1),
        0,
        "failed before the memory could come back"
    );
    host.map_extra(1 << 30, 1 << 20);
    host.pass();
    assert_eq!(host.reap(1)[0].1, Status::SUCCESS);
    // Memory that stays away is an error after all.
    host.ask(ToGroup::Unmap {
        iova: Iova(1 << 30),
        len: 1 << 20,
    });
    host.submit(1, host::sqe(READ, 1, [1 << 30, 0], 0, 0));
    host.ring(1);
    host.pass();
    host.advance(REMAP_GRACE_NS);
    host.pass();
    assert_eq!(host.reap(1)[0].1, Status::DATA_TRANSFER_ERROR);
}

#[test]
fn a_quiesce_waits_for_the_device_and_posts_nothing() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.device().hold(true);
    let buffer = host.alloc(PAGE);
    for _ in 0..5 {
        host.submit(1, host::sqe(READ, 1, [buffer, 0], 0, 7));
    }
    host.ring(1);
    host.pass();
    let quiesce = host.ask(ToGroup::Quiesce { flush: false });
    host.pass();
    assert_eq!(host.answer(quiesce), None);
    host.device().hold(false);
    host.pass();
    assert_eq!(host.answer(quiesce), Some(GroupOutcome::Ok));
    assert_eq!(host.peek_completions(1), 0);
    assert_eq!(
        host.state.sq(QueueId(1)).map(|sq| sq.entries.load(Relaxed)),
        Some(0)
    );
    // All over again.
    host.create_pair(1, 16);
    assert_eq!(
        host.command(1, host::sqe(FLUSH, 1, [0, 0], 0, 0)),
        Status::SUCCESS
    );
}

#[test]
fn a_quiesce_with_flush_flushes_after_the_last_write() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let before = host.device().submitted();
    let quiesce = host.ask(ToGroup::Quiesce { flush: true });
    host.pass();
    assert_eq!(host.answer(quiesce), Some(GroupOutcome::Ok));
    assert_eq!(host.device().submitted(), before + 1);
}

#[test]
fn deleting_a_queue_completes_its_commands_first() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.device().hold(true);
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    host.pass();
    let delete = host.ask(ToGroup::DeleteSq(QueueId(1)));
    host.pass();
    assert_eq!(host.answer(delete), None);
    host.device().hold(false);
    host.pass();
    assert_eq!(host.answer(delete), Some(GroupOutcome::Ok));
    assert_eq!(host.reap(1).len(), 1);
    let delete = host.ask(ToGroup::DeleteCq(QueueId(1)));
    assert_eq!(host.answer(delete), Some(GroupOutcome::Ok));
}

#[test]
fn a_completion_queue_in_use_is_not_deleted() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let delete = host.ask(ToGroup::DeleteCq(QueueId(1)));
    assert_eq!(host.answer(delete), Some(GroupOutcome::Refused));
}

#[test]
fn several_submission_queues_share_a_completion_queue() {
    let mut host = Host::new();
    host.create_cq(3, 8);
    for id in [1, 2, 5] {
        host.create_sq(id, 3, 8);
        host.submit(id, host::sqe(FLUSH, 1, [0, 0], 0, 0));
        host.ring(id);
    }
    host.pass();
    let mut from: Vec<u16> = host.reap(3).iter().map(|entry| entry.0).collect();
    from.sort_unstable();
    assert_eq!(from, [1, 2, 5]);
}

#[test]
fn a_channel_that_is_full_delays_commands_and_loses_none() {
    let mut host = Host::new();
    host.create_pair(1, 64);
    host.device().limit(3);
    host.device().hold(true);
    for _ in 0..20 {
        host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    }
    host.ring(1);
    host.pass();
    assert_eq!(host.device().held(), 3);
    host.device().hold(false);
    for _ in 0..20 {
        host.pass();
    }
    assert_eq!(host.reap(1).len(), 20);
}

#[test]
fn deallocate_judges_every_range_before_the_first_takes_effect() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let blocks = host.device().blocks();
    let ranges = host.dsm_ranges(&[(0, 8), (blocks - 4, 5)]);
    let sqe = host::dsm(1, [ranges, 0], 2);
    assert_eq!(host.command(1, sqe), Status::LBA_OUT_OF_RANGE);
    assert_eq!(host.device().unmapped(), []);
    let ranges = host.dsm_ranges(&[(0, 8), (16, 0), (blocks - 4, 4)]);
    assert_eq!(
        host.command(1, host::dsm(1, [ranges, 0], 3)),
        Status::SUCCESS
    );
    assert_eq!(host.device().unmapped(), [(0, 8), (blocks - 4, 4)]);
}

#[test]
fn two_deallocates_at_once_both_complete() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.create_pair(2, 16);
    host.device().hold(true);
    let ranges = host.dsm_ranges(&[(0, 8), (16, 8)]);
    for id in [1, 2] {
        host.submit(id, host::dsm(1, [ranges, 0], 2));
        host.ring(id);
    }
    host.pass();
    host.device().hold(false);
    for _ in 0..4 {
        host.pass();
    }
    assert_eq!((host.reap(1).len(), host.reap(2).len()), (1, 1));
}

#[test]
fn a_failed_range_fails_the_deallocate() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.device().fail_next(bdev::Status::WriteError);
    let ranges = host.dsm_ranges(&[(0, 8), (16, 8)]);
    assert_eq!(
        host.command(1, host::dsm(1, [ranges, 0], 2)),
        Status::WRITE_FAULT
    );
}

#[test]
fn device_errors_reach_the_host_and_the_error_log() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let buffer = host.alloc(PAGE);
    host.device().fail_next(bdev::Status::ReadError);
    let sqe = host::sqe(READ, 1, [buffer, 0], 42, 0);
    assert_eq!(host.command(1, sqe), Status::UNRECOVERED_READ_ERROR);
    let logged = |reply: &FromGroup| {
        matches!(reply, FromGroup::Event(GroupEvent::CommandError(error))
            if error.lba == 42 && error.sqid == QueueId(1))
    };
    assert!(host.replies().iter().any(logged));
    let errors = host
        .state
        .sq(QueueId(1))
        .map(|sq| sq.media_errors.load(Relaxed));
    assert_eq!(errors, Some(1));
}

#[test]
fn writes_are_fua_when_the_host_says_so_or_has_no_write_cache() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let buffer = host.alloc(PAGE);
    let plain = host::sqe(WRITE, 1, [buffer, 0], 0, 0);
    host.command(1, plain);
    assert_eq!(host.device().last_fua(), Some(false));
    host.command(1, host::with_fua(plain));
    assert_eq!(host.device().last_fua(), Some(true));
    host.change_view(|view| view.write_cache = false);
    host.command(1, plain);
    assert_eq!(host.device().last_fua(), Some(true));
    host.command(1, host::sqe(WRITE_ZEROES, 1, [0, 0], 0, 0));
    assert_eq!(host.device().last_fua(), Some(true));
}

#[test]
fn compare_tells_equal_from_different() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    let data = host.pattern(4096);
    let from = host.scattered(&data, 0);
    host.io(WRITE, 0, 4096, from);
    assert_eq!(host.io(COMPARE, 0, 4096, from), Status::SUCCESS);
    host.write(from[0] + 100, &[!data[100]]);
    assert_eq!(host.io(COMPARE, 0, 4096, from), Status::COMPARE_FAILURE);
}

#[test]
fn a_burst_interrupts_once_and_an_unbound_vector_stays_owed() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    for _ in 0..5 {
        host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    }
    host.ring(1);
    host.pass();
    assert_eq!(host.interrupts(), 1);
    host.bind(false);
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    host.pass();
    assert_eq!(host.interrupts(), 1);
    host.bind(true);
    host.pass();
    assert_eq!(
        host.interrupts(),
        2,
        "the interrupt was lost while nothing was bound"
    );
}

/// A host that was interrupted for one completion, and has not consumed it when there is another.
fn host_that_is_at_it() -> Host {
    let mut host = Host::new();
    host.create_pair(1, 16);
    for _ in 0..2 {
        host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
        host.ring(1);
        host.pass();
        assert_eq!(host.interrupts(), 1);
    }
    assert!(host.group().rest().is_none(), "an interrupt is owed");
    host
}

#[test]
fn a_host_that_leaves_some_is_interrupted_when_it_rings_its_doorbell() {
    let mut host = host_that_is_at_it();
    host.claim_head(1, 1);
    host.pass();
    assert_eq!(host.interrupts(), 2);
    host.pass();
    assert_eq!(host.interrupts(), 2);
}

#[test]
fn a_host_that_has_seen_all_for_itself_is_not_interrupted_for_it() {
    let mut host = host_that_is_at_it();
    host.claim_head(1, 2);
    host.pass();
    host.pass();
    assert_eq!(host.interrupts(), 1);
    assert!(host.group().rest().is_some(), "nothing is owed");
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    host.pass();
    assert_eq!(host.interrupts(), 2);
}

#[test]
fn a_host_that_does_not_ring_its_doorbell_is_interrupted_in_the_end() {
    let mut host = host_that_is_at_it();
    host.advance(HOST_BUSY_NS_MAX - 1);
    host.pass();
    assert_eq!(host.interrupts(), 1);
    host.advance(1);
    host.pass();
    assert_eq!(host.interrupts(), 2);
}

#[test]
fn a_vector_that_is_bound_to_another_is_told_what_nobody_has_consumed() {
    let mut host = host_that_is_at_it();
    let other = Arc::new(Counter::default());
    let bound: Arc<dyn Interrupt> = Arc::clone(&other) as _;
    host.change_view(|view| view.vectors[1] = Some(bound));
    host.pass();
    assert_eq!((host.interrupts(), other.count()), (1, 1));
    host.change_view(|_| ());
    host.pass();
    assert_eq!(other.count(), 1, "it is bound as before");
}

#[test]
fn a_parked_queue_does_not_look_where_the_host_does_not_ring() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.use_shadow_doorbells();
    let flush = host::sqe(FLUSH, 1, [0, 0], 0, 0);
    assert_eq!(host.command(1, flush), Status::SUCCESS);
    host.submit(1, flush);
    host.ring(1);
    host.pass();
    host.device().hold(true);
    host.submit(1, flush);
    host.ring(1);
    host.pass();
    // The doorbell page, which nobody has rung, says that all was taken back.
    host.unmap_all();
    host.device().hold(false);
    host.pass();
    host.map_again();
    host.pass();
    assert_eq!(host.reap(1).len(), 2);
    assert_eq!(host.command(1, flush), Status::SUCCESS);
    assert!(
        host.replies()
            .iter()
            .all(|reply| !matches!(reply, FromGroup::Event(_)))
    );
}

#[test]
fn coalescing_waits_for_the_count_or_the_time_and_loses_nothing() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.change_view(|view| {
        view.coalescing = Coalescing {
            completions: 3,
            delay_ns: 1000,
        };
        view.uncoalesced = vec![false; 2];
    });
    let flush = host::sqe(FLUSH, 1, [0, 0], 0, 0);
    for expected in [0, 0, 1] {
        host.submit(1, flush);
        host.ring(1);
        host.pass();
        assert_eq!(host.interrupts(), expected);
    }
    host.reap(1);
    host.submit(1, flush);
    host.ring(1);
    host.pass();
    host.advance(999);
    host.pass();
    assert_eq!(host.interrupts(), 1);
    host.advance(1);
    host.pass();
    assert_eq!(host.interrupts(), 2);
}

#[test]
fn shadow_doorbells_take_the_place_of_the_doorbell_page() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.use_shadow_doorbells();
    for _ in 0..40 {
        assert_eq!(
            host.command(1, host::sqe(FLUSH, 1, [0, 0], 0, 0)),
            Status::SUCCESS
        );
        assert!(
            !host.doorbell_write_wanted(1),
            "a polling controller needs no doorbell writes"
        );
    }
}

#[test]
fn a_command_whose_channel_is_full_can_be_aborted() {
    let mut host = Host::new();
    host.create_pair(1, 16);
    host.device().limit(1);
    host.device().hold(true);
    host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    let waiting = host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0));
    host.ring(1);
    host.pass();
    let abort = host.ask(ToGroup::Abort {
        sqid: QueueId(1),
        cid: waiting,
    });
    assert_eq!(host.answer(abort), Some(GroupOutcome::Aborted(true)));
    assert_eq!(host.reap(1)[0].1, Status::COMMAND_ABORT_REQUESTED);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The group is dropped and made anew from the durable state between any two passes; every
    /// command still completes exactly once, in its place, and the data is right.
    #[test]
    fn a_host_does_not_see_its_group_die(
        steps in proptest::collection::vec((0u8..5, 0u64..64, any::<u8>()), 1..120),
    ) {
        let mut host = Host::new();
        host.create_pair(1, 8);
        let mut model = [0u8; 64];
        let buffer = host.alloc(PAGE);
        for (step, lba, byte) in steps {
            match step {
                0 | 1 => {
                    host.write(buffer, &[byte; 512]);
                    let cid = host.submit(1, host::sqe(WRITE, 1, [buffer, 0], lba, 0));
                    host.ring(1);
                    if step == 1 {
                        host.rebuild();
                    }
                    host.pass();
                    host.rebuild();
                    let entries = host.reap_until(1, 1);
                    prop_assert_eq!(entries, vec![(1, Status::SUCCESS, cid)]);
                    model[lba as usize] = byte;
                }
                2 => {
                    prop_assert_eq!(host.io(READ, lba, 512, [buffer, 0]), Status::SUCCESS);
                    let mut read = [0; 512];
                    host.read(buffer, &mut read);
                    prop_assert_eq!(read, [model[lba as usize]; 512]);
                }
                3 => host.rebuild(),
                _ => {
                    // Several at once, dropped with commands at the device.
                    host.device().hold(true);
                    let cids: Vec<_> = (0..3)
                        .map(|_| host.submit(1, host::sqe(FLUSH, 1, [0, 0], 0, 0)))
                        .collect();
                    host.ring(1);
                    host.pass();
                    host.rebuild();
                    host.device().hold(false);
                    let entries = host.reap_until(1, 3);
                    let mut seen: Vec<_> = entries.iter().map(|entry| entry.2).collect();
                    seen.sort_unstable();
                    prop_assert_eq!(seen, cids);
                }
            }
        }
    }

    /// Any entry and any doorbell: nothing panics, and another queue still works.
    #[test]
    fn no_entry_and_no_doorbell_hurts_another_queue(
        entries in proptest::collection::vec(any::<[u64; 8]>(), 1..20),
        doorbells in proptest::collection::vec(any::<u32>(), 0..4),
    ) {
        let mut host = Host::new();
        host.create_pair(1, 32);
        host.create_pair(2, 8);
        for entry in &entries {
            host.submit_raw(1, *entry);
        }
        host.ring(1);
        host.pass();
        host.advance(2 * REMAP_GRACE_NS);
        host.pass();
        for value in doorbells {
            host.ring_value(1, value);
            host.claim_head(1, value ^ 0x55);
            host.pass();
        }
        prop_assert_eq!(host.command(2, host::sqe(FLUSH, 1, [0, 0], 0, 0)), Status::SUCCESS);
    }
}

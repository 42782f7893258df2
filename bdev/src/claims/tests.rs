//! Claims on one thread by the book, and on several by force.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use super::*;

const SHARED: Mode = Mode::Shared;
const EXCLUSIVE: Mode = Mode::Exclusive;

fn untouched(claims: &Claims) -> bool {
    claims
        .stripes
        .iter()
        .all(|stripe| stripe.load(Ordering::Relaxed) == 0)
}

#[test]
fn a_channel_alone_touches_no_stripe_and_meets_nothing() {
    let claims = Claims::new(512);
    let mut only = claims.claimant().unwrap();
    let one = only.try_claim(0..100, EXCLUSIVE).unwrap();
    let two = only.try_claim(50..60, EXCLUSIVE).unwrap();
    assert!(untouched(&claims));
    only.release(one);
    only.release(two);
    assert_eq!(only.member.unclaimed.load(Ordering::Relaxed), 0);
}

#[test]
fn the_second_channel_begins_when_requests_without_a_claim_are_over() {
    let claims = Claims::new(512);
    let mut first = claims.claimant().unwrap();
    let unclaimed = first.try_claim(0..8, EXCLUSIVE).unwrap();
    let mut second = claims.claimant().unwrap();
    assert_eq!(second.try_claim(1000..1001, SHARED), None);
    let claimed = first.try_claim(0..8, EXCLUSIVE).unwrap();
    assert!(!untouched(&claims));
    first.release(unclaimed);
    let other = second.try_claim(1000..1001, SHARED).unwrap();
    first.release(claimed);
    second.release(other);
    assert!(untouched(&claims));
}

#[test]
fn the_last_channel_left_is_alone_again() {
    let claims = Claims::new(512);
    let mut first = claims.claimant().unwrap();
    drop(claims.claimant().unwrap());
    let claim = first.try_claim(0..8, EXCLUSIVE).unwrap();
    assert!(untouched(&claims));
    first.release(claim);
    drop(first);
    assert_eq!(claims.claimants.load(Ordering::Relaxed), 0);
}

#[test]
fn readers_share_and_writers_do_not() {
    let claims = Claims::new(4096);
    let (mut one, mut two) = (claims.claimant().unwrap(), claims.claimant().unwrap());
    let reading = one.try_claim(10..20, SHARED).unwrap();
    let reading_too = two.try_claim(15..25, SHARED).unwrap();
    assert_eq!(two.try_claim(19..30, EXCLUSIVE), None);
    one.release(reading);
    assert_eq!(one.try_claim(19..30, EXCLUSIVE), None);
    two.release(reading_too);
    let writing = one.try_claim(19..30, EXCLUSIVE).unwrap();
    assert_eq!(two.try_claim(29..30, SHARED), None);
    assert_eq!(two.try_claim(0..20, EXCLUSIVE), None);
    let beside = two.try_claim(30..31, EXCLUSIVE).unwrap();
    one.release(writing);
    two.release(beside);
    assert!(
        untouched(&claims),
        "a claim that failed half-way has given everything back"
    );
}

#[test]
fn nobody_is_granted_a_claim_while_one_insists() {
    let claims = Claims::among_requests(4096);
    let (mut one, mut two) = (claims.claimant().unwrap(), claims.claimant().unwrap());
    let held = one.try_claim(3..4, EXCLUSIVE).unwrap();
    assert_eq!(two.insist(0..100, EXCLUSIVE), None);
    assert_eq!(one.try_claim(200..201, SHARED), None);
    assert_eq!(one.insist(200..201, SHARED), None, "one at a time");
    one.relent();
    assert_eq!(one.try_claim(200..201, SHARED), None, "another's stays");
    one.release(held);
    let granted = two.insist(0..100, EXCLUSIVE).unwrap();
    let beside = one.try_claim(200..201, SHARED).unwrap();
    assert_eq!(two.insist(200..201, EXCLUSIVE), None);
    drop(two);
    let other = one.try_claim(300..301, SHARED).unwrap();
    one.release(other);
    one.release(beside);
    one.release(granted);
    assert!(untouched(&claims));
}

#[test]
fn blocks_smaller_than_a_stripe_share_it() {
    let claims = Claims::new(512);
    let (mut one, mut two) = (claims.claimant().unwrap(), claims.claimant().unwrap());
    let claim = one.try_claim(8..9, EXCLUSIVE).unwrap();
    assert_eq!(two.try_claim(15..16, SHARED), None);
    let next = two.try_claim(16..17, SHARED).unwrap();
    one.release(claim);
    two.release(next);
}

#[test]
fn ranges_wrap_over_the_table_and_cover_all_of_it_at_most() {
    let claims = Claims::new(4096);
    let (mut one, mut two) = (claims.claimant().unwrap(), claims.claimant().unwrap());
    let stripes = STRIPES as u64;
    let wrapping = one.try_claim(stripes - 2..stripes + 3, EXCLUSIVE).unwrap();
    assert_eq!(
        wrapping.indexes().collect::<Vec<_>>(),
        [0, 1, 2, STRIPES - 2, STRIPES - 1]
    );
    for block in [0, 2, stripes - 1, 5 * stripes + 1] {
        assert_eq!(two.try_claim(block..block + 1, SHARED), None);
    }
    one.release(wrapping);
    for blocks in [0..u64::MAX, 7..7 + 9 * stripes, u64::MAX - 1..u64::MAX] {
        let claim = two.try_claim(blocks, EXCLUSIVE).unwrap();
        assert!(claim.count <= STRIPES);
        two.release(claim);
    }
    assert!(untouched(&claims));
}

#[test]
fn no_blocks_can_be_claimed_too() {
    let claims = Claims::new(512);
    let (mut one, _two) = (claims.claimant().unwrap(), claims.claimant().unwrap());
    for block in [0, u64::MAX] {
        let claim = one.try_claim(block..block, SHARED).unwrap();
        one.release(claim);
    }
    assert!(untouched(&claims));
}

/// Two words that a writer changes one after the other, and that nobody may see apart.
#[derive(Default)]
struct Pair {
    one: AtomicU64,
    two: AtomicU64,
}

impl Pair {
    fn change(&self) {
        let value = self.one.load(Ordering::Relaxed) + 1;
        self.one.store(value, Ordering::Relaxed);
        std::hint::black_box(self);
        self.two.store(value, Ordering::Relaxed);
    }

    fn torn(&self) -> bool {
        self.one.load(Ordering::Relaxed) != self.two.load(Ordering::Relaxed)
    }
}

/// Claims `rounds` times, and returns how many changes were made; panics at a torn pair.
fn hammer(claimant: &mut Claimant, pair: &Pair, rounds: u32) -> u64 {
    let mut changes = 0;
    for round in 0..rounds {
        let mode = if round % 3 == 0 { SHARED } else { EXCLUSIVE };
        let Some(claim) = claimant.try_claim(3..5, mode) else {
            thread::yield_now();
            continue;
        };
        match mode {
            SHARED => assert!(!pair.torn(), "a reader saw half a change"),
            EXCLUSIVE => {
                pair.change();
                changes += 1;
            }
        }
        claimant.release(claim);
    }
    changes
}

#[test]
fn what_is_claimed_is_never_seen_half_changed_while_channels_come_and_go() {
    let claims = Claims::new(512);
    let pair = Pair::default();
    let over = AtomicBool::new(false);
    let changes = thread::scope(|scope| {
        // One that stays: alone, among others, and alone again, over and over.
        let stays = scope.spawn(|| {
            let mut claimant = claims.claimant().unwrap();
            let mut changes = 0;
            while !over.load(Ordering::Relaxed) {
                changes += hammer(&mut claimant, &pair, 100);
            }
            changes
        });
        let come_and_go = || {
            (0..300)
                .map(|_| hammer(&mut claims.claimant().unwrap(), &pair, 60))
                .sum::<u64>()
        };
        let guests = [scope.spawn(come_and_go), scope.spawn(come_and_go)];
        let changes = guests
            .map(|guest| guest.join().unwrap())
            .iter()
            .sum::<u64>();
        over.store(true, Ordering::Relaxed);
        changes + stays.join().unwrap()
    });
    assert!(!pair.torn() && untouched(&claims));
    assert_eq!(
        pair.one.load(Ordering::Relaxed),
        changes,
        "no change was lost"
    );
}

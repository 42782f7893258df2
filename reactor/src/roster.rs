//! Which poll groups are polled in every pass, and which are only looked at in turns.
//!
//! A reactor can have far more groups than guests at work. A group that has had nothing to do for a
//! while rests: it is not polled, but its doorbells are looked at in turns, so many after each pass
//! that all have their turn in a few microseconds, as far as [`LOOKS_MAX`] suffices for it. As soon
//! as one is rung the group is active again, and the first in the next pass.

/// Passes without anything to do after which a group may rest: many times what a guest takes that
/// has one command in flight at a time.
const QUIET_PASSES_MAX: u32 = 4096;

/// In what time every resting group is to be looked at, as a power of two: 4 us.
const ROUND_NS_LOG2: u32 = 12;

/// Most resting groups that are looked at after one pass: as much as a few commands take.
const LOOKS_MAX: usize = 64;

/// Groups by their place in the reactor, and of those that rest what is to be looked at.
#[derive(Debug)]
pub struct Roster<R> {
    active: Vec<usize>,
    resting: Vec<usize>,
    /// What is to be looked at of each of them.
    rests: Vec<R>,
    /// Where among the resting ones to look next.
    next: usize,
    /// How long passes take, those without and those with work.
    pass_ns: [u64; 2],
    /// For how many passes each group has had nothing to do.
    quiet_passes: Vec<u32>,
}

impl<R> Roster<R> {
    /// `groups` groups, all active.
    pub fn new(groups: usize) -> Roster<R> {
        Roster {
            active: (0..groups).collect(),
            resting: Vec::with_capacity(groups),
            rests: Vec::with_capacity(groups),
            next: 0,
            pass_ns: [1 << ROUND_NS_LOG2; 2],
            quiet_passes: vec![0; groups],
        }
    }

    /// The active group at place `at` of their list, in which a pass goes from 0 on.
    #[inline]
    pub fn active(&self, at: usize) -> Option<usize> {
        self.active.get(at).copied()
    }

    /// Notes what a pass over the active group at place `at` was like: true if it has been without
    /// work for so long that it may [rest](Self::rest).
    #[inline]
    pub fn polled(&mut self, at: usize, busy: bool) -> bool {
        let passes = &mut self.quiet_passes[self.active[at]];
        *passes = if busy { 0 } else { passes.saturating_add(1) };
        *passes > QUIET_PASSES_MAX
    }

    /// The active group at place `at` rests; another one takes the place.
    pub fn rest(&mut self, at: usize, rest: R) {
        let group = self.active.swap_remove(at);
        self.resting.push(group);
        self.rests.push(rest);
    }

    /// A resting group is active again, and the first of them. Not during a pass.
    pub fn wake(&mut self, group: usize) {
        if let Some(at) = self.resting.iter().position(|resting| *resting == group) {
            self.resting.swap_remove(at);
            self.rests.swap_remove(at);
            self.quiet_passes[group] = 0;
            self.active.insert(0, group);
        }
    }

    /// Passes, those with work or those without, take so long.
    pub fn pace(&mut self, busy: bool, pass_ns: u64) {
        self.pass_ns[usize::from(busy)] = pass_ns.min(1 << ROUND_NS_LOG2);
    }

    /// Looks at the next of the resting groups, after a pass with or without work, and wakes those
    /// that are rung: `first_rung` tells the place of the first of some. True if there was one.
    #[inline]
    pub fn look(&mut self, busy: bool, first_rung: impl Fn(&[R]) -> Option<usize>) -> bool {
        let resting = self.resting.len();
        let looks = match self.active.is_empty() {
            true => resting,
            false => {
                let share = resting as u64 * self.pass_ns[usize::from(busy)] >> ROUND_NS_LOG2;
                (share as usize + 1).min(LOOKS_MAX)
            }
        };
        let mut woken = false;
        let mut left = looks.min(resting);
        while left > 0 && !self.rests.is_empty() {
            if self.next >= self.rests.len() {
                self.next = 0;
            }
            let to_the_end = &self.rests[self.next..];
            let some = &to_the_end[..left.min(to_the_end.len())];
            let rung = first_rung(some);
            self.next += rung.unwrap_or(some.len());
            left -= rung.map_or(some.len(), |at| at + 1);
            if rung.is_some() {
                self.wake(self.resting[self.next]);
                woken = true;
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets every group rest.
    fn resting(groups: usize) -> Roster<usize> {
        let mut roster = Roster::new(groups);
        for _ in 0..groups {
            roster.rest(0, roster.active[0]);
        }
        roster
    }

    /// Groups that are rung.
    fn rung(is_rung: impl Fn(usize) -> bool) -> impl Fn(&[usize]) -> Option<usize> {
        move |groups| groups.iter().position(|group| is_rung(*group))
    }

    fn active(roster: &Roster<usize>) -> Vec<usize> {
        let mut active = roster.active.clone();
        active.sort_unstable();
        active
    }

    #[test]
    fn a_group_may_rest_only_after_many_passes_without_work_on_end() {
        let mut roster = Roster::<()>::new(1);
        for _ in 0..2 {
            for _ in 0..QUIET_PASSES_MAX {
                assert!(!roster.polled(0, false));
            }
            assert!(!roster.polled(0, true));
        }
        assert!((0..=QUIET_PASSES_MAX).any(|_| roster.polled(0, false)));
    }

    #[test]
    fn a_look_sees_as_many_groups_as_it_may_and_the_next_goes_on_from_there() {
        for groups in [2, 3, LOOKS_MAX, LOOKS_MAX + 1, LOOKS_MAX + 2, 3 * LOOKS_MAX] {
            for which in 1..groups {
                let mut roster = resting(groups);
                roster.wake(0);
                let looks = (groups - 1).div_ceil(LOOKS_MAX);
                let woke = (0..looks).any(|_| roster.look(true, rung(|group| group == which)));
                assert!(woke);
                assert_eq!(active(&roster), [0, which], "{which} of {groups}");
                assert_eq!(roster.active(0), Some(which), "it is the first");
            }
        }
    }

    #[test]
    fn the_longer_a_pass_the_more_groups_are_looked_at_after_it() {
        let paces = [
            (0, 40),
            (1, 40),
            (100, 40),
            (1024, 4),
            (2048, 2),
            (4095, 1),
            (u64::MAX, 1),
        ];
        for (pass_ns, passes) in paces {
            for busy in [false, true] {
                let mut roster = resting(41);
                roster.wake(0);
                roster.pace(busy, pass_ns);
                roster.pace(!busy, 1);
                let last = roster.resting[39];
                for _ in 1..passes {
                    assert!(
                        !roster.look(busy, rung(|group| group == last)),
                        "{pass_ns} ns"
                    );
                }
                assert!(
                    roster.look(busy, rung(|group| group == last)),
                    "{pass_ns} ns"
                );
            }
        }
    }

    #[test]
    fn the_first_passes_with_work_after_a_long_rest_look_at_every_group() {
        let mut roster = resting(41);
        roster.wake(0);
        roster.pace(false, 5);
        let last = roster.resting[39];
        assert!(!roster.look(false, rung(|group| group == last)));
        assert!(roster.look(true, rung(|group| group == last)));
    }

    #[test]
    fn if_all_rest_one_look_sees_every_group_and_wakes_those_that_are_rung() {
        let mut roster = resting(3 * LOOKS_MAX);
        roster.pace(false, 5);
        assert!(!roster.look(false, rung(|_| false)));
        assert!(roster.look(false, rung(|group| group % 2 == 0)));
        assert_eq!(active(&roster).len(), 3 * LOOKS_MAX / 2);
        assert!(active(&roster).iter().all(|group| group % 2 == 0));
    }

    #[test]
    fn waking_an_active_group_changes_nothing() {
        let mut roster = Roster::new(2);
        roster.wake(1);
        assert_eq!(active(&roster), [0, 1]);
        assert!(roster.resting.is_empty());
    }

    #[test]
    fn a_group_that_woke_is_quiet_for_as_long_again_before_it_rests() {
        let mut roster = Roster::new(1);
        while !roster.polled(0, false) {}
        roster.rest(0, 0);
        roster.wake(0);
        assert!(!roster.polled(0, false));
    }
}

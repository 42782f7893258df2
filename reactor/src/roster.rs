//! Which poll groups are polled in every pass, and which are only looked at in turns.
//!
//! A reactor can have far more groups than guests at work. A group that has had nothing to do for a
//! while rests: it is not polled, but its doorbells are looked at in turns, so many after each pass
//! that all have their turn in a few microseconds, and as soon as one is rung the group is active
//! again.

/// Passes without anything to do after which a group may rest: many times what a guest takes that
/// has one command in flight at a time.
const QUIET_PASSES_MAX: u32 = 4096;

/// In what time every resting group is to be looked at; with the pass that follows, the doorbell of
/// an idle queue is seen within 5 us.
const ROUND_NS: u64 = 4_500;

/// Most resting groups that are looked at after one pass: as much as a few commands take.
const LOOKS_MAX: usize = 64;

/// Groups by their place in the reactor, and of those that rest what is to be looked at.
#[derive(Debug)]
pub struct Roster<R> {
    active: Vec<usize>,
    resting: Vec<(usize, R)>,
    /// Where among the resting ones to look next.
    next: usize,
    /// How many of them to look at after a pass.
    looks: usize,
    /// For how many passes each group has had nothing to do.
    quiet_passes: Vec<u32>,
}

impl<R> Roster<R> {
    /// `groups` groups, all active.
    pub fn new(groups: usize) -> Roster<R> {
        Roster {
            active: (0..groups).collect(),
            resting: Vec::with_capacity(groups),
            next: 0,
            looks: LOOKS_MAX,
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
        self.resting.push((group, rest));
    }

    /// A resting group is active again.
    pub fn wake(&mut self, group: usize) {
        if let Some(at) = self
            .resting
            .iter()
            .position(|(resting, _)| *resting == group)
        {
            self.resting.swap_remove(at);
            self.quiet_passes[group] = 0;
            self.active.push(group);
        }
    }

    /// Passes take so long on average.
    pub fn pace(&mut self, pass_ns: u64) {
        let pass_ns = pass_ns.clamp(1, ROUND_NS);
        let looks = (self.resting.len() as u64 * pass_ns).div_ceil(ROUND_NS);
        self.looks = (looks as usize).min(LOOKS_MAX);
    }

    /// Looks at the next of the resting groups, and wakes those that are rung.
    #[inline]
    pub fn look(&mut self, is_rung: impl Fn(&R) -> bool) {
        for _ in 0..self.looks.min(self.resting.len()) {
            if self.next >= self.resting.len() {
                self.next = 0;
            }
            let Some((group, rest)) = self.resting.get(self.next) else {
                return;
            };
            if is_rung(rest) {
                self.wake(*group);
            } else {
                self.next += 1;
            }
        }
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
            for rung in 1..groups {
                let mut roster = resting(groups);
                roster.wake(0);
                for _ in 0..(groups - 1).div_ceil(LOOKS_MAX) {
                    assert_eq!(active(&roster), [0]);
                    roster.look(|group| *group == rung);
                    if roster.resting.len() < groups - 1 {
                        break;
                    }
                }
                assert_eq!(active(&roster), [0, rung], "{rung} of {groups}");
            }
        }
    }

    #[test]
    fn the_longer_a_pass_the_more_groups_are_looked_at_after_it() {
        let paces = [(0, 40), (1, 40), (100, 40), (1125, 4), (1126, 4), (4499, 1)];
        for (pass_ns, passes) in paces {
            let mut roster = resting(40);
            roster.pace(pass_ns);
            let (last, _) = roster.resting[39];
            for _ in 1..passes {
                roster.look(|group| *group == last);
                assert!(roster.active.is_empty(), "{pass_ns} ns");
            }
            roster.look(|group| *group == last);
            assert_eq!(active(&roster), [last], "{pass_ns} ns");
        }
    }

    #[test]
    fn a_group_that_rests_later_is_looked_at_too() {
        let mut roster = Roster::new(1);
        roster.pace(5);
        roster.rest(0, 0);
        roster.pace(5);
        roster.look(|_| true);
        assert_eq!(active(&roster), [0]);
    }

    #[test]
    fn one_look_wakes_every_group_that_is_rung() {
        let mut roster = resting(5);
        roster.look(|group| group % 2 == 0);
        assert_eq!(active(&roster), [0, 2, 4]);
        assert_eq!(roster.resting.len(), 2);
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

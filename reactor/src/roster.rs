//! Which poll groups are polled in every pass, and which are only looked at in turns.
//!
//! A reactor can have far more groups than guests at work. A group that has had nothing to do for a
//! while rests: it is not polled, but its doorbells are looked at, those of half of all resting
//! groups after each pass, and as soon as one is rung the group is active again.

/// Passes without anything to do after which a group may rest: many times what a guest takes that
/// has one command in flight at a time.
const QUIET_PASSES_MAX: u32 = 4096;

/// Groups by their place in the reactor, and of those that rest what is to be looked at.
#[derive(Debug)]
pub struct Roster<R> {
    active: Vec<usize>,
    resting: Vec<(usize, R)>,
    /// Where among the resting ones to look next.
    next: usize,
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

    /// Looks at half of the resting groups, or at all of them if none is active, and wakes those
    /// that are rung.
    #[inline]
    pub fn look(&mut self, is_rung: impl Fn(&R) -> bool) {
        let share = if self.active.is_empty() { 1 } else { 2 };
        for _ in 0..self.resting.len().div_ceil(share) {
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
    fn two_looks_see_every_resting_group_beside_an_active_one() {
        for groups in [2, 3, 8, 65] {
            for rung in 1..groups {
                let mut roster = resting(groups);
                roster.wake(0);
                for _ in 0..2 {
                    roster.look(|group| *group == rung);
                }
                assert_eq!(active(&roster), [0, rung], "{rung} of {groups}");
            }
        }
    }

    #[test]
    fn one_look_sees_every_group_if_all_rest() {
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

//! Whose turn it is: of all in a round, and of those that talk between them.
//!
//! A reactor has time for few of its endpoints in a pass. Most have nothing to say for hours; one
//! whose guest starts says hundreds of things one after the other, and would wait for a round of
//! all others with each.

use std::collections::VecDeque;

/// The turns of some members, by their number.
#[derive(Debug)]
pub struct Turns {
    members: usize,
    next: usize,
    /// Those that talk, the one that has waited longest first.
    talking: VecDeque<usize>,
}

impl Turns {
    /// The turns of so many members, none of which talks.
    pub fn new(members: usize) -> Turns {
        Turns {
            members,
            next: 0,
            talking: VecDeque::with_capacity(members),
        }
    }

    /// The next one of all, if there are any.
    pub fn next_of_all(&mut self) -> Option<usize> {
        let next = (self.next < self.members).then_some(self.next)?;
        self.next = (next + 1) % self.members;
        Some(next)
    }

    /// The next one of those that talk. It is none of them any more unless it
    /// [goes on](Self::heard).
    pub fn next_of_talking(&mut self) -> Option<usize> {
        self.talking.pop_front()
    }

    /// A member talks.
    pub fn heard(&mut self, member: usize) {
        if !self.talking.contains(&member) {
            self.talking.push_back(member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose turns come in so many rounds of one of all and one of those that talk.
    fn turns(turns: &mut Turns, rounds: usize, talks: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut had = Vec::new();
        for _ in 0..rounds {
            for next in [Turns::next_of_all, Turns::next_of_talking] {
                if let Some(member) = next(turns) {
                    had.push(member);
                    if talks(member) {
                        turns.heard(member);
                    }
                }
            }
        }
        had
    }

    #[test]
    fn all_have_their_turn_and_who_talks_has_one_between_any_two() {
        let mut four = Turns::new(4);
        assert_eq!(turns(&mut four, 5, |_| false), [0, 1, 2, 3, 0]);
        let talks = |member| member == 2;
        assert_eq!(turns(&mut four, 4, talks), [1, 2, 2, 3, 2, 0, 2]);
        assert_eq!(turns(&mut four, 3, |_| false), [1, 2, 2, 3]);
    }

    #[test]
    fn those_that_talk_take_turns_and_leave_the_others_theirs() {
        let mut four = Turns::new(4);
        let talks = |member| member == 1 || member == 3;
        turns(&mut four, 4, talks);
        for _ in 0..100 {
            assert_eq!(turns(&mut four, 4, talks), [0, 3, 1, 1, 2, 3, 3, 1]);
        }
        assert_eq!(four.talking.len(), 2);
    }

    #[test]
    fn where_nobody_is_there_is_no_turn() {
        assert!(turns(&mut Turns::new(0), 2, |_| true).is_empty());
    }
}

//! How far apart two cores were while something was measured: the round trip of a cache line.

/// By what factor round trips may differ where the cores are as far apart.
const SAME_DISTANCE: f64 = 1.5;

/// How far apart the cores were, before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Distance {
    /// Nobody looked.
    Unknown,
    /// The round trip in nanoseconds.
    Steady(f64),
    Changed,
}

/// The round trip in nanoseconds that most others are like, and of two as frequent ones the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsualDistance(Option<f64>);

impl Distance {
    pub(super) fn of(before: Option<f64>, after: Option<f64>) -> Distance {
        match (before, after) {
            (Some(before), Some(after)) if is_same(before, after) => {
                Distance::Steady(f64::midpoint(before, after))
            }
            (Some(_), Some(_)) => Distance::Changed,
            _ => Distance::Unknown,
        }
    }
}

impl UsualDistance {
    pub(crate) fn of(round_trips: &[f64]) -> UsualDistance {
        let alike = |&&one: &&f64| {
            round_trips
                .iter()
                .filter(|&&other| is_same(one, other))
                .count()
        };
        // Of equals the last is taken: in reverse the first.
        UsualDistance(round_trips.iter().rev().max_by_key(alike).copied())
    }

    /// Keeps what was measured at this distance, or does not tell at which, and says how many of
    /// them were not.
    pub(crate) fn keep<T>(
        self,
        measured: &mut Vec<T>,
        round_trip: impl Fn(&T) -> Option<f64>,
    ) -> usize {
        let before = measured.len();
        if let UsualDistance(Some(usual)) = self {
            measured.retain(|one| round_trip(one).is_none_or(|ns| is_same(ns, usual)));
        }
        before - measured.len()
    }
}

fn is_same(one: f64, other: f64) -> bool {
    one.max(other) <= one.min(other) * SAME_DISTANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_have_moved_if_a_line_takes_half_as_long_again() {
        let distance = |before, after| Distance::of(Some(before), Some(after));
        assert_eq!(distance(80.0, 120.0), Distance::Steady(100.0));
        assert_eq!(distance(80.0, 121.0), Distance::Changed);
        assert_eq!(distance(121.0, 80.0), Distance::Changed);
        assert_eq!(Distance::of(Some(80.0), None), Distance::Unknown);
    }

    #[test]
    fn what_most_are_like_is_kept_and_what_does_not_tell() {
        let kept = |round_trips: &[Option<f64>]| {
            let known: Vec<f64> = round_trips.iter().copied().flatten().collect();
            let mut all = round_trips.to_vec();
            let dropped = UsualDistance::of(&known).keep(&mut all, |one| *one);
            assert_eq!(all.len() + dropped, round_trips.len());
            all
        };
        let [near, far] = [Some(80.0), Some(330.0)];
        assert_eq!(
            kept(&[far, near, Some(90.0), None]),
            [near, Some(90.0), None]
        );
        assert_eq!(kept(&[near, far, far, near]), [near, near]);
        assert_eq!(kept(&[None, None]), [None, None]);
    }
}

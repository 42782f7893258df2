//! A measured value, from several short windows.

use std::time::{Duration, Instant};

use serde::Serialize;

/// What the windows came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figure {
    /// None of nothing.
    fn of(mut values: Vec<f64>) -> Option<Figure> {
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len() % 2 == 0 {
            values[middle - 1]
        } else {
            upper
        };
        Some(Figure {
            median: (lower + upper) / 2.0,
            min: *values.first()?,
            max: *values.last()?,
        })
    }

    /// Each of its values through a function that never falls.
    pub(super) fn map(self, change: impl Fn(f64) -> f64) -> Figure {
        Figure {
            median: change(self.median),
            min: change(self.min),
            max: change(self.max),
        }
    }
}

/// How often, and for how long each time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) count: usize,
    pub(super) length: Duration,
}

impl Windows {
    pub(super) fn new(count: usize, length: Duration) -> Windows {
        Windows { count, length }
    }

    /// Measures one window more than it keeps: the first warms up. None as soon as one of them is.
    pub(super) fn figure(self, mut window: impl FnMut(Duration) -> Option<f64>) -> Option<Figure> {
        window(self.length)?;
        let values: Option<Vec<f64>> = (0..self.count).map(|_| window(self.length)).collect();
        Figure::of(values?)
    }
}

/// Calls `round`, which tells how many things it has done, until `length` is over, and returns how
/// many nanoseconds one of the things took. None as soon as it is.
pub(super) fn nanoseconds_each(
    length: Duration,
    mut round: impl FnMut() -> Option<u64>,
) -> Option<f64> {
    let begin = Instant::now();
    let mut done = 0;
    loop {
        done += round()?;
        let elapsed = begin.elapsed();
        if elapsed >= length && done > 0 {
            return Some(elapsed.as_nanos() as f64 / done as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_even_and_odd_numbers_of_windows() {
        let figure = |values: &[f64]| Figure::of(values.to_vec()).map(|f| (f.median, f.min, f.max));
        assert_eq!(figure(&[]), None);
        assert_eq!(figure(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(figure(&[9.0, 1.0, 2.0]), Some((2.0, 1.0, 9.0)));
        assert_eq!(figure(&[4.0, 9.0, 1.0, 2.0]), Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn the_first_window_does_not_count() {
        let mut values = [100.0, 1.0, 2.0, 3.0].into_iter();
        let windows = Windows::new(3, Duration::ZERO);
        let figure = windows.figure(|_| values.next()).expect("a figure");
        assert_eq!((figure.median, figure.max), (2.0, 3.0));
        assert_eq!(windows.figure(|_| None), None);
    }

    #[test]
    fn a_round_that_ends_ends_the_window() {
        let mut rounds = 0;
        let each = nanoseconds_each(Duration::MAX, || {
            rounds += 1;
            (rounds < 5).then_some(1)
        });
        assert_eq!((each, rounds), (None, 5));
        assert!(nanoseconds_each(Duration::ZERO, || Some(7)).is_some());
    }
}

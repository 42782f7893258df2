//! One cache line, there and back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::error::Error;
use super::figure::{Figure, Windows, nanoseconds_each};
use super::pair::{Looks, Pair};

/// Round trips between two looks at the clock.
const ROUND: u64 = 256;
/// Said by the client when it is done.
const DONE: u64 = u64::MAX;

/// The line, and its neighbour that machines fetch with it. The client says an odd number, the
/// server the even one after it.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// How many nanoseconds a cache line takes from one core to the other and back, at this moment. It
/// takes some ten milliseconds to tell: many short bursts, of which a reactor that shares its core
/// with the measurement spoils less than half.
pub(crate) fn round_trip(pair: Pair) -> Result<f64, Error> {
    let windows = Windows::new(51, Duration::from_micros(20));
    measure(pair, windows).map(|figure| figure.median)
}

/// The round trip in nanoseconds.
pub(super) fn measure(pair: Pair, windows: Windows) -> Result<Figure, Error> {
    let line = Line::default();
    let client = || {
        let mut last = 0;
        let figure = windows.figure(|length| {
            nanoseconds_each(length, || {
                for _ in 0..ROUND {
                    last = line.say(last + 1);
                }
                Some(ROUND)
            })
        });
        line.0.store(DONE, Ordering::Relaxed);
        figure
    };
    pair.run(client, || line.answer())?.0.ok_or(Error::Ended)
}

impl Line {
    /// Says a number and waits for the answer.
    fn say(&self, number: u64) -> u64 {
        self.0.store(number, Ordering::Release);
        self.other_than(number)
    }

    /// Answers until the client is done. Returns the last answer.
    fn answer(&self) -> u64 {
        let mut last = 0;
        loop {
            let said = self.other_than(last);
            if said == DONE {
                return last;
            }
            last = said + 1;
            self.0.store(last, Ordering::Release);
        }
    }

    fn other_than(&self, known: u64) -> u64 {
        let mut looks = Looks::default();
        loop {
            let now = self.0.load(Ordering::Acquire);
            if now != known {
                return now;
            }
            looks.vain();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_answered_by_the_next() {
        let line = Line::default();
        let client = || {
            let answers: Vec<u64> = (0..100).map(|round| line.say(2 * round + 1)).collect();
            line.0.store(DONE, Ordering::Relaxed);
            answers
        };
        let (answers, last) = Pair::anywhere()
            .run(client, || line.answer())
            .expect("both");
        assert_eq!(answers, (1..=100).map(|n| 2 * n).collect::<Vec<u64>>());
        assert_eq!(last, 200);
    }

    #[test]
    fn a_round_trip_takes_time() {
        assert!(round_trip(Pair::anywhere()).expect("a time") > 0.0);
    }
}

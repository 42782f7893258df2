//! How many commands, and how long each took.

use hdrhistogram::Histogram;

use super::pattern::Action;

/// Latencies are kept to three digits.
const DIGITS: u8 = 3;
/// The longest latency that is told apart, in nanoseconds: an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// The commands of one direction.
#[derive(Clone, Debug)]
pub(crate) struct Direction {
    histogram: Histogram<u64>,
    /// Commands that are not in the histogram yet, all of one latency: those of a burst often are.
    pending_ns: u64,
    pending: u64,
}

/// Reads and writes.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) read: Direction,
    pub(crate) write: Direction,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            read: Direction::new(),
            write: Direction::new(),
        }
    }

    #[inline]
    pub(crate) fn record(&mut self, action: Action, latency_ns: u64) {
        match action {
            Action::Read => self.read.record(latency_ns),
            Action::Write => self.write.record(latency_ns),
        }
    }

    /// Puts everything recorded into the histograms, for it to be read.
    pub(crate) fn settle(&mut self) {
        self.read.settle();
        self.write.settle();
    }

    /// The latencies of all commands, if it is settled.
    pub(crate) fn all(&self) -> Histogram<u64> {
        let mut all = self.read.histogram.clone();
        // Both have the same bounds.
        let _ = all.add(&self.write.histogram);
        all
    }

    /// Adds a tally that is settled.
    pub(crate) fn add(&mut self, other: &Tally) {
        for (ours, theirs) in [
            (&mut self.read, &other.read),
            (&mut self.write, &other.write),
        ] {
            // All histograms have the same bounds: there is nothing that could not be added.
            let _ = ours.histogram.add(&theirs.histogram);
        }
    }
}

impl Direction {
    fn new() -> Direction {
        #[expect(clippy::expect_used, reason = "the bounds are constants")]
        let histogram =
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).expect("bounds of a histogram");
        Direction {
            histogram,
            pending_ns: 0,
            pending: 0,
        }
    }

    #[inline]
    fn record(&mut self, latency_ns: u64) {
        if latency_ns != self.pending_ns {
            self.settle();
            self.pending_ns = latency_ns;
        }
        self.pending += 1;
    }

    #[inline]
    fn settle(&mut self) {
        if self.pending > 0 {
            self.histogram
                .saturating_record_n(self.pending_ns, self.pending);
            self.pending = 0;
        }
    }

    /// How many commands completed.
    pub(crate) fn commands(&self) -> u64 {
        self.histogram.len()
    }

    /// The latencies in nanoseconds.
    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_counted_with_its_latency() {
        let mut tally = Tally::new();
        for latency in [100, 100, 100, 5_000, 100, 7] {
            tally.record(Action::Read, latency);
        }
        tally.record(Action::Write, 9);
        tally.settle();
        assert_eq!((tally.read.commands(), tally.write.commands()), (6, 1));
        let latencies = tally.read.latencies();
        assert_eq!(latencies.count_at(100), 4);
        assert_eq!((latencies.min(), latencies.count_at(5_000)), (7, 1));
        assert_eq!(latencies.value_at_quantile(0.5), 100);
    }

    #[test]
    fn tallies_of_several_jobs_add_up() {
        let mut sum = Tally::new();
        for latency in [10, 20] {
            let mut job = Tally::new();
            job.record(Action::Write, latency);
            job.settle();
            sum.add(&job);
        }
        assert_eq!(sum.write.commands(), 2);
        assert_eq!(sum.write.latencies().max(), 20);
    }

    #[test]
    fn a_latency_beyond_the_range_is_counted_at_its_end() {
        let mut tally = Tally::new();
        tally.record(Action::Read, u64::MAX);
        tally.settle();
        assert_eq!(tally.read.commands(), 1);
        assert!(tally.read.latencies().max() >= LATENCY_MAX_NS);
    }
}

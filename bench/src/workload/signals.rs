//! What jobs and the thread that watches them tell one another while they run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A counter that shares no cache line, nor the next one that is fetched along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// Whether to stop, and how far each job is. Nothing else is ordered by any of it: Relaxed.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: AtomicBool,
    commands: Vec<Counter>,
}

impl Signals {
    pub(crate) fn new(jobs: usize) -> Signals {
        Signals {
            stop: AtomicBool::new(false),
            commands: (0..jobs).map(|_| Counter::default()).collect(),
        }
    }

    /// Asks every job to stop, whatever is in flight.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A job has completed so many commands so far.
    #[inline]
    pub(crate) fn publish(&self, job: usize, commands: u64) {
        if let Some(counter) = self.commands.get(job) {
            counter.0.store(commands, Ordering::Relaxed);
        }
    }

    /// How many commands all jobs have completed.
    pub(crate) fn commands(&self) -> u64 {
        let counts = self.commands.iter();
        counts
            .map(|counter| counter.0.load(Ordering::Relaxed))
            .sum()
    }
}

//! When a job does what: its clock, in nanoseconds since it began, and the times of its plan.

use std::thread;
use std::time::Duration;

use nix::sys::prctl;
use quanta::Clock;

/// How long a job thinks without a look at whether it is to stop.
const THOUGHT: Duration = Duration::from_millis(50);

/// The times of a job.
pub(super) struct Pace {
    clock: Clock,
    /// What the clock said when time began.
    origin: u64,
    end_ns: u64,
    /// How long nothing is submitted after all has completed.
    think_time: Duration,
}

impl Pace {
    /// Without an end; time has yet to begin.
    pub(super) fn new(think_time: Duration) -> Pace {
        Pace {
            clock: Clock::new(),
            origin: 0,
            end_ns: u64::MAX,
            think_time,
        }
    }

    /// Time begins now, for the thread that calls.
    pub(super) fn begin(&mut self) {
        if self.thinks() {
            // Or each thought would be 50 us longer. If it is, that is no harm.
            let _ = prctl::set_timerslack(1);
        }
        self.origin = self.clock.raw();
    }

    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.delta_as_nanos(self.origin, self.clock.raw())
    }

    /// The end is so long after now.
    pub(super) fn end_after(&mut self, now_ns: u64, runtime: Option<Duration>) {
        let runtime_ns = runtime.map_or(u64::MAX, nanoseconds);
        self.end_ns = now_ns.saturating_add(runtime_ns);
    }

    #[inline]
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.end_ns
    }

    /// Whether commands come in bursts, with a time to think between them.
    #[inline]
    pub(super) fn thinks(&self) -> bool {
        !self.think_time.is_zero()
    }

    /// Thinks, until the end or until it is stopped at most, and tells the time then.
    #[cold]
    pub(super) fn think(&self, now_ns: u64, stopped: impl Fn() -> bool) -> u64 {
        let until_ns = now_ns.saturating_add(nanoseconds(self.think_time));
        let until_ns = until_ns.min(self.end_ns);
        let mut now_ns = now_ns;
        while now_ns < until_ns && !stopped() {
            thread::sleep(Duration::from_nanos(until_ns - now_ns).min(THOUGHT));
            now_ns = self.now_ns();
        }
        now_ns
    }

    /// From now on there is nothing to think about.
    pub(super) fn think_no_more(&mut self) {
        self.think_time = Duration::ZERO;
    }
}

/// A time that the clock of a job never comes to, if it is too long to be counted.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

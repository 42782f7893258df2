//! The log lines of one disk's I/O errors, at a bounded rate.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::Op;

/// The lines that one disk may log per second, on all reactors together.
const LINES_PER_SECOND: u64 = 1;

/// Counts a disk's I/O errors and logs some of them. Touched only when there is one.
#[derive(Debug)]
pub(super) struct ErrorLog {
    born: Instant,
    /// The last tick since `born` that had its line: there are [`LINES_PER_SECOND`] ticks per
    /// second.
    spoken: AtomicU64,
    /// Errors since the last line.
    silent: AtomicU64,
}

impl ErrorLog {
    pub(super) fn new() -> Self {
        ErrorLog {
            born: Instant::now(),
            spoken: AtomicU64::new(0),
            silent: AtomicU64::new(0),
        }
    }

    /// An error of `disk` in an operation that had come to `lba`.
    #[cold]
    pub(super) fn report(&self, disk: &str, op: Op, lba: u64, errno: i32) {
        let tick = self.born.elapsed().as_millis() as u64 * LINES_PER_SECOND / 1000 + 1;
        if let Some(silent) = self.admit(tick) {
            let error = io::Error::from_raw_os_error(errno);
            tracing::error!(
                "disk {disk}: {op:?} failed at LBA {lba}: {error} ({silent} errors before it were \
                 not logged)"
            );
        }
    }

    /// Whether this tick still has its line, with the errors that had none before it.
    fn admit(&self, tick: u64) -> Option<u64> {
        // Relaxed: only counts, which order nothing else.
        if self.spoken.fetch_max(tick, Ordering::Relaxed) >= tick {
            self.silent.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.silent.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_has_one_line_that_counts_the_errors_without_one() {
        let log = ErrorLog::new();
        assert_eq!(log.admit(1), Some(0));
        assert_eq!(log.admit(1), None);
        assert_eq!(log.admit(1), None);
        assert_eq!(log.admit(2), Some(2));
        assert_eq!(log.admit(2), None);
        assert_eq!(log.admit(1), None, "a clock that another core read earlier");
        assert_eq!(log.admit(9), Some(2));
    }
}

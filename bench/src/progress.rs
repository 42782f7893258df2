//! One line on a terminal that tells how far a run is.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::report::Count;
use crate::workload::Plan;

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(500);

/// The line, if there is a terminal to show it on.
pub(crate) struct Progress {
    terminal: bool,
    shown_at: Duration,
    shown_commands: u64,
}

impl Progress {
    /// On the standard error, if that is a terminal.
    pub(crate) fn on_terminal() -> Progress {
        Progress {
            terminal: io::stderr().is_terminal(),
            shown_at: Duration::ZERO,
            shown_commands: 0,
        }
    }

    /// Shows that so many commands are done after `elapsed`, if it is time to.
    pub(crate) fn show(&mut self, plan: &Plan, elapsed: Duration, commands: u64) {
        let interval = elapsed.saturating_sub(self.shown_at);
        if !self.terminal || interval < INTERVAL {
            return;
        }
        let rate = (commands - self.shown_commands) as f64 / interval.as_secs_f64();
        let line = line(plan, elapsed, rate);
        (self.shown_at, self.shown_commands) = (elapsed, commands);
        self.write(&line);
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.terminal {
            self.write("");
        }
    }

    /// A terminal that cannot be written to is not worth an error.
    fn write(&mut self, line: &str) {
        let mut terminal = io::stderr();
        let _ = write!(terminal, "\r{line}\x1b[K");
        let _ = terminal.flush();
    }
}

fn line(plan: &Plan, elapsed: Duration, rate: f64) -> String {
    let total = match plan.whole_time() {
        Some(time) => format!(" of {:.0}", time.as_secs_f64()),
        None => String::new(),
    };
    let name = plan.shape.name();
    let bandwidth = rate * plan.command_bytes as f64;
    let seconds = elapsed.as_secs_f64();
    format!(
        "{name}: {seconds:.0}{total} s, {} IOPS, {}B/s",
        Count(rate),
        Count(bandwidth)
    )
}

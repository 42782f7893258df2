//! The process behind a target, as /proc tells of it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a process is asked whether it has stopped, and how long is waited in between: threads
/// stop when they are next in the kernel, which is at once unless a device holds them there.
const STOP_LOOKS_MAX: u32 = 2000;
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A process that lives. Numbers are given again, so it is known by the time of its start as well,
/// in ticks since the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: Pid,
    started: u64,
}

/// Why a process is not stopped or continued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("/proc does not tell of process {pid}: {source}")]
    Unseen { pid: Pid, source: io::Error },
    #[error("process {0} has ended")]
    Ended(Pid),
    #[error("process {pid} may not be stopped by this one: {errno}")]
    Forbidden { pid: Pid, errno: Errno },
    #[error("process {0} was told to stop and goes on")]
    GoesOn(Pid),
}

impl Process {
    /// The process that has a number at this time.
    pub(super) fn of(pid: Pid) -> Result<Process, ProcessError> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| ProcessError::Unseen { pid, source })?;
        let started = Stat::of(&text).and_then(|stat| stat.started());
        let started = started.ok_or(ProcessError::Ended(pid))?;
        Ok(Process { pid, started })
    }

    /// Whether it may be stopped: nothing is sent.
    pub(super) fn check(self) -> Result<(), ProcessError> {
        self.send(None)
    }

    /// Stops it, and waits until none of its threads runs.
    pub(super) fn stop(self) -> Result<(), ProcessError> {
        self.send(Signal::SIGSTOP)?;
        for _ in 0..STOP_LOOKS_MAX {
            if self.rests() {
                return Ok(());
            }
            thread::sleep(STOP_LOOK_INTERVAL);
        }
        Err(ProcessError::GoesOn(self.pid))
    }

    /// Lets it go on.
    pub(super) fn resume(self) -> Result<(), ProcessError> {
        self.send(Signal::SIGCONT)
    }

    fn send(self, signal: impl Into<Option<Signal>>) -> Result<(), ProcessError> {
        let pid = self.pid;
        match Process::of(pid) {
            Ok(now) if now == self => {}
            Ok(_) | Err(_) => return Err(ProcessError::Ended(pid)),
        }
        kill(pid, signal).map_err(|errno| ProcessError::Forbidden { pid, errno })
    }

    /// Whether all its threads have stopped, or ended.
    fn rests(self) -> bool {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return true;
        };
        tasks.flatten().all(|task| state_rests(&task.path()))
    }
}

fn state_rests(task: &Path) -> bool {
    let text = fs::read_to_string(task.join("stat")).unwrap_or_default();
    let state = Stat::of(&text).map(|stat| stat.state());
    matches!(state, None | Some("T" | "t" | "Z" | "X"))
}

/// What stands in the arguments of the process that continues it.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.started)
    }
}

impl FromStr for Process {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Process, &'static str> {
        let parts = text.split_once(':');
        let process = parts.and_then(|(pid, started)| {
            let (pid, started) = (Pid::from_raw(pid.parse().ok()?), started.parse().ok()?);
            Some(Process { pid, started })
        });
        process.ok_or("not the number of a process and when it was started")
    }
}

/// The fields of a stat file behind the name, which may hold anything.
struct Stat<'a>(Vec<&'a str>);

impl<'a> Stat<'a> {
    fn of(text: &'a str) -> Option<Stat<'a>> {
        let (_, fields) = text.rsplit_once(") ")?;
        Some(Stat(fields.split_whitespace().collect()))
    }

    /// Field 3 of proc_pid_stat(5).
    fn state(&self) -> &'a str {
        self.0.first().unwrap_or(&"")
    }

    /// Field 22.
    fn started(&self) -> Option<u64> {
        self.0.get(22 - 3)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_that_looks_like_fields() {
        let text = "7 (a) S 1) T 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 3 0 4242 5 6";
        let stat = Stat::of(text).expect("fields");
        assert_eq!((stat.state(), stat.started()), ("T", Some(4242)));
        assert!(Stat::of("").is_none());
    }

    #[test]
    fn a_process_is_known_again_by_what_is_written_of_it() {
        let process = Process::of(Pid::this()).expect("this one");
        assert_eq!(process.to_string().parse(), Ok(process));
        assert!("12".parse::<Process>().is_err() && ":".parse::<Process>().is_err());
    }

    #[test]
    fn another_process_of_the_same_number_is_left_alone() {
        let this = Process::of(Pid::this()).expect("this one");
        assert!(this.check().is_ok());
        let earlier = Process {
            started: this.started - 1,
            ..this
        };
        assert!(matches!(earlier.check(), Err(ProcessError::Ended(pid)) if pid == this.pid));
    }
}

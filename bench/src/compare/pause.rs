//! Stops the processes of all targets but one.

use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

use super::guard::Guard;
use super::process::{Process, ProcessError};

/// The targets' processes. Dropped, all of them go on.
#[derive(Debug)]
pub(super) struct Pause {
    /// Each once.
    processes: Vec<Process>,
    /// By target, its place in the list.
    of_target: Vec<usize>,
    /// Dropped behind all else.
    _guard: Guard,
}

/// Why targets cannot be stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PauseError {
    #[error(
        "{}: --pause stops the process behind a socket, and the kernel does not tell this one's: \
         it is in another PID namespace", .0.display()
    )]
    Unknown(PathBuf),
    #[error(
        "{}: process {pid} is behind this socket, which must not be stopped", .target.display()
    )]
    Vital { target: PathBuf, pid: Pid },
    #[error("{}: --pause: {error}", .target.display())]
    Refused {
        target: PathBuf,
        error: ProcessError,
    },
    #[error("--pause: {0}")]
    Process(#[from] ProcessError),
    #[error("--pause: cannot start what continues the targets if this process is killed: {0}")]
    Guard(io::Error),
}

/// A target's socket, and the process behind it if the kernel tells.
pub(super) type Peer = (PathBuf, Option<Pid>);

impl Pause {
    /// Stops nothing yet; refuses whatever could not be stopped, or not be continued.
    pub(super) fn new(
        peers: Vec<Peer>,
        guard: impl FnOnce(&[Process]) -> io::Result<Guard>,
    ) -> Result<Pause, PauseError> {
        let (mut processes, mut of_target) = (Vec::new(), Vec::new());
        for peer in peers {
            let process = stoppable(peer)?;
            let known = processes.iter().position(|known| *known == process);
            of_target.push(known.unwrap_or(processes.len()));
            if known.is_none() {
                processes.push(process);
            }
        }
        let guard = guard(&processes).map_err(PauseError::Guard)?;
        Ok(Pause {
            processes,
            of_target,
            _guard: guard,
        })
    }

    /// Lets the process of one target run, and no other one.
    pub(super) fn all_but(&self, target: usize) -> Result<(), PauseError> {
        let place = self.of_target[target];
        for (other, process) in self.processes.iter().enumerate() {
            if other != place {
                process.stop()?;
            }
        }
        Ok(self.processes[place].resume()?)
    }

    /// Lets none of them run.
    pub(super) fn all(&self) -> Result<(), PauseError> {
        Ok(self
            .processes
            .iter()
            .try_for_each(|process| process.stop())?)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        for process in &self.processes {
            // One that has ended needs nothing.
            let _ = process.resume();
        }
    }
}

fn stoppable((target, pid): Peer) -> Result<Process, PauseError> {
    let pid = match pid {
        None => return Err(PauseError::Unknown(target)),
        Some(pid) if pid.as_raw() <= 1 || pid == Pid::this() => {
            return Err(PauseError::Vital { target, pid });
        }
        Some(pid) => pid,
    };
    let process = Process::of(pid).and_then(|process| process.check().map(|()| process));
    process.map_err(|error| PauseError::Refused { target, error })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A process that sleeps until it is dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Sleeper {
            Sleeper(Command::new("sleep").arg("600").spawn().expect("sleep"))
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(self.0.id() as i32)
        }

        fn stopped(&self) -> bool {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
            stat.expect("a living process").contains(") T ")
        }

        /// What a signal does is seen a moment later.
        fn goes_on(&self) -> bool {
            (0..1000).any(|_| {
                thread::sleep(Duration::from_millis(1));
                !self.stopped()
            })
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn peer(pid: Option<Pid>) -> Peer {
        (PathBuf::from("t.sock"), pid)
    }

    /// One that watches over nothing.
    fn no_guard(_: &[Process]) -> io::Result<Guard> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo watching; cat >/dev/null"]);
        Guard::start(command)
    }

    #[test]
    fn all_but_one_process_stop_and_go_on_with_the_end() {
        let sleepers = [(); 3].map(|()| Sleeper::new());
        let [a, b, c] = [0, 1, 2].map(|sleeper: usize| peer(Some(sleepers[sleeper].pid())));
        let pause = Pause::new(vec![a.clone(), b, a, c], no_guard).expect("a pause");
        assert_eq!(pause.processes.len(), 3);
        for (target, running) in [(0, 0), (1, 1), (2, 0), (3, 2), (0, 0)] {
            pause.all_but(target).expect("stopped");
            for (sleeper, process) in sleepers.iter().enumerate() {
                match sleeper == running {
                    true => assert!(process.goes_on(), "{target}: {sleeper}"),
                    false => assert!(process.stopped(), "{target}: {sleeper}"),
                }
            }
        }
        pause.all().expect("stopped");
        assert!(sleepers.iter().all(Sleeper::stopped));
        drop(pause);
        assert!(sleepers.iter().all(Sleeper::goes_on));
    }

    #[test]
    fn what_must_not_be_stopped_is_refused_with_its_socket() {
        let init = Pid::from_raw(1);
        let ended = {
            let sleeper = Sleeper::new();
            sleeper.pid()
        };
        for (pid, told) in [
            (None, "another PID namespace"),
            (Some(Pid::from_raw(0)), "process 0 is behind"),
            (Some(init), "process 1 is behind"),
            (Some(Pid::this()), "must not be stopped"),
            (Some(ended), "does not tell of process"),
        ] {
            let refused = Pause::new(vec![peer(pid)], no_guard).expect_err(told);
            let refused = refused.to_string();
            let named = refused.starts_with("t.sock: ");
            assert!(named && refused.contains(told), "{refused}");
        }
    }

    #[test]
    fn without_a_guard_nothing_is_stopped() {
        let sleeper = Sleeper::new();
        let silent = |_: &[Process]| Guard::start(Command::new("true"));
        let refused = Pause::new(vec![peer(Some(sleeper.pid()))], silent);
        let refused = refused.expect_err("no guard").to_string();
        assert!(refused.contains("did not begin"), "{refused}");
        assert!(!sleeper.stopped());
    }
}

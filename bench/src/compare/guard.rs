//! A process of ours that continues the targets when this one ends, in whatever way.
//!
//! A target that stays stopped stops the machines that have their disks there. A signal that this
//! process cannot see, an abort or a lack of memory ends it without another step of its own; that a
//! pipe has lost its writer is then seen by whoever reads it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::SigSet;

use super::process::Process;

/// What the guard says when nothing but its own death can keep it from its work any more.
const READY: &str = "watching";

/// The guard. Dropped, it continues the processes and ends.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// This program once more, to watch over `processes`.
    pub(super) fn command(processes: &[Process]) -> Command {
        // Found even where the file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("continue")
            .args(processes.iter().map(Process::to_string));
        command
    }

    /// Starts it, and waits until it watches.
    pub(super) fn start(mut command: Command) -> io::Result<Guard> {
        // A terminal's signals go to a whole group of processes: it has one of its own.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = Guard(command.spawn()?);
        let mut line = String::new();
        if let Some(out) = guard.0.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        match line.trim_end() == READY {
            true => Ok(guard),
            false => Err(io::Error::other("it did not begin")),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// `bellwire-bench continue`: waits for the end of the standard input, and continues the processes.
pub(crate) fn run(processes: &[Process]) -> io::Result<()> {
    SigSet::all().thread_block()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    // Whatever ends it: the other end is not there any more.
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
    for process in processes {
        // One that has ended needs nothing, and there is nobody to be told of others.
        let _ = process.resume();
    }
    Ok(())
}

//! A child process that cannot outlive its test, whatever becomes of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often something that cannot be waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Calls `look` until it finds something; `None` after `limit`.
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A running program. It is killed when this is dropped, and by the kernel when the test dies.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `program`; what it prints goes to files in `dir`.
    pub(crate) fn start(
        name: &'static str,
        dir: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Process {
        let output = |kind| {
            let path = unused_path(dir, name, kind);
            let file = File::create(&path).expect("a log file in the test's folder");
            (path, file)
        };
        let (stdout, stdout_file) = output("out");
        let (stderr, stderr_file) = output("err");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout_file)
            .stderr(stderr_file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Process {
            name,
            child,
            stdout,
            stderr,
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written to its standard output.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// All that it has written to its standard error.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child that is ours")
    }

    /// Waits for its end; panics when that takes longer than `limit`.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for(limit, || self.status())
            .unwrap_or_else(|| panic!("{} still runs after {limit:?}", self.name))
    }

    /// Sends it a signal by name, as `kill` knows it.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.id().to_string()])
            .status()
            .expect("the program kill");
        assert!(sent.success(), "cannot send SIG{signal} to {}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, tail(&self.stderr()));
        }
    }
}

/// The end of a text, as much as is useful to read after a failure.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn unused_path(dir: &Path, name: &str, kind: &str) -> PathBuf {
    (0..)
        .map(|number| dir.join(format!("{name}-{number}.{kind}")))
        .find(|path| !path.exists())
        .expect("numbers do not run out")
}

//! The daemon and the benchmark as processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One daemon at a time: each has a core to itself, and there may be two.
static TURN: Mutex<()> = Mutex::new(());

/// A `bellwire` that serves controllers until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    sockets: Vec<PathBuf>,
    turn: Option<MutexGuard<'static, ()>>,
}

impl Daemon {
    /// Serves the disks `bdevs`, as namespaces 1, 2, .. of a controller with a socket in `folder`.
    pub(crate) fn serve(folder: &Path, bdevs: &[String]) -> Daemon {
        let names = bdevs.iter().map(|bdev| {
            let name = bdev.split([':', ',']).nth(1).expect("KIND:NAME");
            format!(",ns={name}")
        });
        Daemon::serve_each(folder, bdevs, &[names.collect()])
    }

    /// Serves a controller for each list of the disks in it, like `,ns=m0,ns=m1`.
    pub(crate) fn serve_each(folder: &Path, bdevs: &[String], controllers: &[String]) -> Daemon {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut daemon = Daemon::serve_out_of_turn(folder, bdevs, controllers);
        daemon.turn = Some(turn);
        daemon
    }

    /// Serves a disk on the same cores as `self`, in another folder.
    pub(crate) fn serve_beside(&self, folder: &Path, bdev: &str) -> Daemon {
        let name = bdev.split([':', ',']).nth(1).expect("KIND:NAME");
        Daemon::serve_out_of_turn(folder, &[bdev.to_owned()], &[format!(",ns={name}")])
    }

    fn serve_out_of_turn(folder: &Path, bdevs: &[String], controllers: &[String]) -> Daemon {
        let mut command = Command::new(beside_us("bellwire"));
        command.args(["serve", "--disable-cpumask-locks", "--log", "error"]);
        for bdev in bdevs {
            command.args(["--bdev", bdev]);
        }
        let mut sockets = Vec::new();
        for (index, namespaces) in controllers.iter().enumerate() {
            let socket = folder.join(format!("disk{index}.sock"));
            let controller = format!("socket={}{namespaces}", socket.display());
            command.args(["--controller", &controller]);
            sockets.push(socket);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("bellwire");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        for _ in &sockets {
            let mut line = String::new();
            out.read_line(&mut line).expect("its output");
            assert!(line.starts_with("ready "), "not ready: {line:?}");
        }
        Daemon {
            child,
            sockets,
            turn: None,
        }
    }

    /// The socket of the only controller, or the first.
    pub(crate) fn socket(&self) -> &Path {
        &self.sockets[0]
    }

    pub(crate) fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Whether it is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.expect("a living daemon").contains(") T ")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a living daemon");
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}");
    }

    /// `bellwire-bench run` on all controllers of this daemon.
    pub(crate) fn run(&self, options: &str) -> Command {
        let mut command = bench("run");
        for socket in &self.sockets {
            command.arg("--target").arg(socket);
        }
        command.args(options.split_whitespace());
        command
    }

    /// `bellwire-bench identify` of this daemon.
    pub(crate) fn identify(&self, options: &str) -> Command {
        let mut command = bench("identify");
        command.arg(self.socket()).args(options.split_whitespace());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `bellwire-bench` with `arguments`.
pub(crate) fn bench(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwire-bench"));
    command.args(arguments.split_whitespace());
    command
}

/// Runs `command`, which has to end with `code`.
pub(crate) fn ends_with(command: &mut Command, code: i32) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("a process");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert_eq!(status.code(), Some(code), "{command:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// A program of this workspace, which has to be built before these tests run.
fn beside_us(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_bellwire-bench")).with_file_name(name);
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p reactor` in the same profile",
        program.display()
    );
    program
}

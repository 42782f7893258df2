//! The bellwire process under test.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::process::{Process, wait_for};
use crate::stage::Stage;

/// Guards against hangs; nothing is expected to come near it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// What env(1) does about SIGHUP.
const HANGUP_ENDS: &str = "--default-signal=HUP";
const HANGUP_IS_IGNORED: &str = "--ignore-signal=HUP";

/// A running `bellwire serve`, ready.
pub(crate) struct Daemon {
    process: Process,
}

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Daemon {
    /// Starts `bellwire serve` with these arguments, on whichever core others poll too, and waits
    /// until every controller is ready. `DIR` stands for the test's folder.
    #[track_caller]
    pub(crate) fn serve(stage: &Stage, arguments: &str) -> Daemon {
        Daemon::start(stage, &format!("--disable-cpumask-locks {arguments}"))
    }

    /// The same, with nothing added to the arguments.
    #[track_caller]
    pub(crate) fn start(stage: &Stage, arguments: &str) -> Daemon {
        Daemon::start_with(stage, HANGUP_ENDS, arguments)
    }

    /// The same, with SIGHUP ignored as `nohup` does.
    #[track_caller]
    pub(crate) fn start_without_hangup(stage: &Stage, arguments: &str) -> Daemon {
        Daemon::start_with(stage, HANGUP_IS_IGNORED, arguments)
    }

    #[track_caller]
    fn start_with(stage: &Stage, hangup: &str, arguments: &str) -> Daemon {
        let words = stage.words(&format!("serve {arguments}"));
        let mut process = start(stage, hangup, &words);
        let controllers = arguments.matches("--controller").count();
        let ready = wait_for(LIMIT, || {
            let ended = process.status();
            assert!(ended.is_none(), "bellwire ended: {ended:?}");
            let said = process.stdout();
            let ready = said.lines().filter(|line| line.starts_with("ready "));
            (ready.count() == controllers).then_some(())
        });
        assert!(ready.is_some(), "bellwire is not ready after {LIMIT:?}");
        Daemon { process }
    }

    /// What it has said on stdout.
    pub(crate) fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// On which cores its threads may run whose names begin so: a list for each.
    pub(crate) fn cores_of(&self, thread: &str) -> Vec<String> {
        let tasks = format!("/proc/{}/task", self.process.id());
        let tasks = fs::read_dir(tasks).expect("its threads");
        let statuses = tasks.filter_map(|task| {
            let path = task.expect("a thread").path().join("status");
            // A thread may end meanwhile.
            fs::read_to_string(path).ok()
        });
        let cores = statuses.filter_map(|status| {
            let value = |key| status.lines().find_map(|line| line.strip_prefix(key));
            let is_it = value("Name:\t")?.starts_with(thread);
            is_it.then(|| value("Cpus_allowed_list:\t").map(str::to_owned))?
        });
        cores.collect()
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(self) -> Ended {
        ended(self.process)
    }

    /// Stops it as an operator would, and expects it to call that a clean stop.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let Ended { code, stderr, .. } = self.wait();
        assert_eq!(code, Some(0), "{stderr}");
    }
}

/// Runs `bellwire` with these words until it ends by itself.
#[track_caller]
pub(crate) fn run(stage: &Stage, words: &[String]) -> Ended {
    ended(start(stage, HANGUP_ENDS, words))
}

/// Starts it with SIGHUP as env(1) is told, whatever the tests were started with.
fn start(stage: &Stage, hangup: &str, words: &[String]) -> Process {
    let program = crate::program();
    let program = program.to_str().expect("a program with a plain name");
    let program = [hangup, program].map(str::to_owned);
    let words = [&program, words].concat();
    Process::start("bellwire", stage.logs(), Path::new("env"), &words)
}

#[track_caller]
fn ended(mut process: Process) -> Ended {
    let code = process.wait(LIMIT).code();
    Ended {
        code,
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

//! The bellwire process under test.

use std::path::Path;
use std::time::Duration;

use crate::process::{Process, wait_for};
use crate::stage::Stage;

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running `bellwire serve`.
pub(crate) struct Target {
    process: Process,
}

impl Target {
    /// Starts `bellwire serve` with these arguments, as on a command line, and waits until every
    /// controller is ready. `DIR` stands for the test's folder.
    pub(crate) fn serve(stage: &Stage, arguments: &str) -> Target {
        let mut command = vec!["serve".to_owned(), "--disable-cpumask-locks".to_owned()];
        let dir = stage.dir().to_str().expect("a folder with a plain name");
        command.extend(
            arguments
                .split_whitespace()
                .map(|word| word.replace("DIR", dir)),
        );

        let controllers = arguments.matches("--controller").count();
        let program = Path::new(env!("CARGO_BIN_EXE_bellwire"));
        let mut process = Process::start("bellwire", stage.dir(), program, command);
        let ready = wait_for(START_LIMIT, || {
            let ended = process.status();
            assert!(ended.is_none(), "bellwire ended: {ended:?}");
            let said = process.stdout();
            let ready = said
                .lines()
                .filter(|line| line.starts_with("ready socket="))
                .count();
            (ready == controllers).then_some(())
        });
        assert!(
            ready.is_some(),
            "bellwire is not ready after {START_LIMIT:?}"
        );
        Target { process }
    }

    /// Stops it as an operator would, and expects it to call that a clean stop.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(STOP_LIMIT);
        assert!(status.success(), "bellwire stopped with {status}");
    }
}

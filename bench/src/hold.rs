//! `bellwire-bench hold`: hosts that have queues and ring no doorbell, to measure beside.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nvme::spec::QueueId;

use crate::driver::{Controller, HostMemory, QueueSeed};
use crate::job_options::seconds;
use crate::workload::{Error, Failure};

/// How often the connections are looked after.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct HoldOptions {
    /// The targets' vfio-user sockets, or folders that hold them as `cntrl`
    #[arg(value_name = "SOCKET", required = true)]
    pub(crate) targets: Vec<PathBuf>,
    /// I/O queues of each
    #[arg(long, value_name = "QUEUES", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) numjobs: u16,
    /// Commands that a queue could hold
    #[arg(long, value_name = "N", default_value_t = 127,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) iodepth: u16,
    /// How long a target may take for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// An enabled controller with its queues.
struct Held {
    controller: Controller,
    _memory: HostMemory,
    _queues: Vec<QueueSeed>,
}

/// Connects to every target and makes its queues, says so in a line, and then does nothing for as
/// long as all targets are there. False when one has gone.
pub(crate) fn run(options: &HoldOptions) -> Result<bool, Error> {
    let held = options
        .targets
        .iter()
        .map(|target| Held::open(target, options))
        .collect::<Result<Vec<_>, _>>()?;
    let (queues, controllers) = (usize::from(options.numjobs) * held.len(), held.len());
    writeln!(
        io::stdout(),
        "holding {queues} queues of {controllers} controllers"
    )?;
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        let gone = held
            .iter()
            .zip(&options.targets)
            .find(|(held, _)| !held.controller.link().wait(Duration::ZERO));
        if let Some((_, target)) = gone {
            let (target, failure) = (target.display(), Failure::TargetGone);
            let _ = writeln!(io::stderr(), "bellwire-bench: {target}: {failure}");
            return Ok(false);
        }
    }
}

impl Held {
    fn open(target: &Path, options: &HoldOptions) -> Result<Held, Error> {
        let mut controller = Controller::connect(target, options.timeout)?;
        let entries = (u32::from(options.iodepth) + 1).max(2);
        if entries > controller.entries_max() {
            return Err(Error::TooDeep {
                depth: options.iodepth,
                limit: controller.depth_max(),
            });
        }
        controller.request_queues(options.numjobs)?;
        let bytes = QueueSeed::bytes(entries, controller.page());
        let mut memory = controller.lend(bytes * u64::from(options.numjobs))?;
        let queues = (1..=options.numjobs)
            .map(|id| controller.create_queue(QueueId(id), entries, &mut memory))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Held {
            controller,
            _memory: memory,
            _queues: queues,
        })
    }
}

//! What a command costs where no other core takes part: a host and a poll group take turns in one
//! thread. The host fills a burst into the queue, the group makes passes until all of it is done.
//!
//! Of whole commands only [`pass`] is measured. The stages that a command goes through there are
//! measured one by one as well, each in its function of [`stage`]. Under callgrind with
//! `--toggle-collect='*micro::pass*'`, or another of these functions, its instructions are counted,
//! which says the same however busy the machine is: `scripts/instructions` does that.

mod case;
mod group;
mod host;
mod parts;
mod stage;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum as _};
use nvme::pcie::poll_group::PollGroup;
use nvme::spec::Status;

pub(crate) use self::case::Case;
use self::group::Group;
use self::host::BURST;
use self::parts::Parts;

/// Controllers of the scan, and queues of each.
const SCAN_CONTROLLERS: u32 = 64;
const SCAN_QUEUES: u16 = 16;

#[derive(Debug, Args)]
pub(crate) struct MicroOptions {
    /// What to measure [default: everything]
    #[arg(long, value_enum)]
    pub(crate) case: Option<Case>,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) commands: u32,
    /// Print each case and the function that it measures, for callgrind, and measure nothing
    #[arg(long, conflicts_with_all = ["case", "commands"])]
    pub(crate) list: bool,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MicroError {
    #[error(transparent)]
    Disk(#[from] bdev::Error),
    #[error("memory for the guest: {0}")]
    Map(#[from] bdev::memory::MapError),
    #[error("queues: {0:?}")]
    Memory(bdev::memory::MemoryError),
    #[error("the controller's state: {0}")]
    State(#[from] nvme::pcie::state::StateError),
    #[error("{case:?}: a command completed with {status:?}")]
    Failed { case: Case, status: Status },
}

impl From<bdev::memory::MemoryError> for MicroError {
    fn from(error: bdev::memory::MemoryError) -> MicroError {
        MicroError::Memory(error)
    }
}

/// Measures one case or all, this many commands each, and prints a line for each case.
pub(crate) fn run(wanted: Option<Case>, commands: u32) -> Result<(), MicroError> {
    for &case in Case::value_variants() {
        if wanted.is_some_and(|wanted| wanted != case) {
            continue;
        }
        let Cost { steps, ns } = measure(case, commands)?;
        println!("{:<36} {ns:>8.1} ns  ({steps} times)", case.step());
    }
    Ok(())
}

/// Prints the name of each case and the function that it measures.
pub(crate) fn list() {
    for case in Case::value_variants() {
        if let Some(value) = case.to_possible_value() {
            println!("{} {}", value.get_name(), case.function());
        }
    }
}

/// What a case costs.
struct Cost {
    /// How often it was done.
    steps: u32,
    /// Nanoseconds of one step.
    ns: f64,
}

/// Does a case for this many commands, or a few more.
fn measure(case: Case, commands: u32) -> Result<Cost, MicroError> {
    if case == Case::Scan {
        return scan(commands);
    }
    if let Some(stage) = case.stage() {
        let mut parts = Parts::new(case)?;
        return bursts(case, commands, || parts.burst(stage));
    }
    let mut group = Group::new(case, 1)?;
    bursts(case, commands, || group.burst())
}

/// Does a burst as often as it takes.
fn bursts(
    case: Case,
    commands: u32,
    mut burst: impl FnMut() -> Result<Duration, Status>,
) -> Result<Cost, MicroError> {
    let bursts = commands.div_ceil(BURST);
    let mut total = 0;
    for _ in 0..bursts {
        let time = burst().map_err(|status| MicroError::Failed { case, status })?;
        total += time.as_nanos();
    }
    let steps = bursts * BURST;
    let ns = total as f64 / f64::from(steps);
    Ok(Cost { steps, ns })
}

fn scan(looks: u32) -> Result<Cost, MicroError> {
    let groups = (0..SCAN_CONTROLLERS).map(|_| Group::new(Case::Scan, SCAN_QUEUES));
    let mut groups = groups.collect::<Result<Vec<_>, _>>()?;
    let queues = SCAN_CONTROLLERS * u32::from(SCAN_QUEUES);
    let rounds = looks.div_ceil(queues);
    let begun = Instant::now();
    for _ in 0..rounds {
        groups.iter_mut().for_each(|group| pass(&mut group.group));
    }
    let time = begun.elapsed().as_nanos();
    let steps = rounds * queues;
    let ns = time as f64 / f64::from(steps);
    Ok(Cost { steps, ns })
}

/// One pass: all that is measured of whole commands.
#[inline(never)]
fn pass(group: &mut PollGroup) {
    group.poll(0);
}

#[cfg(test)]
mod tests {
    use super::host::ENTRIES;
    use super::*;

    #[test]
    fn every_case_does_its_steps_and_takes_time() {
        // More than once around the queues.
        let commands = 3 * ENTRIES + 1;
        for &case in Case::value_variants() {
            let Cost { steps, ns } = measure(case, commands).expect("a measurement");
            assert!(steps >= commands && ns > 0.0, "{case:?}: {steps}, {ns}");
        }
    }
}

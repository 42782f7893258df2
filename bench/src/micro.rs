//! What a command costs where no other core takes part: a host and a poll group take turns in one
//! thread. The host fills a burst into the queue, the group makes passes until all of it is done.
//!
//! Only [`pass`] is measured. Under callgrind with `--toggle-collect='*micro::pass*'` its
//! instructions are counted, which says the same on every machine, however busy.

mod case;
mod group;
mod host;

use std::time::Instant;

use clap::ValueEnum as _;
use nvme::pcie::poll_group::PollGroup;
use nvme::spec::Status;

pub(crate) use self::case::Case;
use self::group::Group;
use self::host::BURST;

/// Controllers of the idle case, and queues of each.
const IDLE_CONTROLLERS: u32 = 64;
const IDLE_QUEUES: u16 = 16;

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

/// What a case costs.
struct Cost {
    /// How often it was done.
    steps: u32,
    /// Nanoseconds of one step.
    ns: f64,
}

/// Does a case for this many commands, or a few more.
fn measure(case: Case, commands: u32) -> Result<Cost, MicroError> {
    if case == Case::Idle {
        return measure_idle(commands);
    }
    let mut group = Group::new(case, 1)?;
    let bursts = commands.div_ceil(BURST);
    let mut total = 0;
    for _ in 0..bursts {
        let time = group.burst();
        let time = time.map_err(|status| MicroError::Failed { case, status })?;
        total += time.as_nanos();
    }
    let steps = bursts * BURST;
    let ns = total as f64 / f64::from(steps);
    Ok(Cost { steps, ns })
}

fn measure_idle(looks: u32) -> Result<Cost, MicroError> {
    let groups = (0..IDLE_CONTROLLERS).map(|_| Group::new(Case::Idle, IDLE_QUEUES));
    let mut groups = groups.collect::<Result<Vec<_>, _>>()?;
    let queues = IDLE_CONTROLLERS * u32::from(IDLE_QUEUES);
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

/// One pass: all that is measured.
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

//! One target of a workload: its namespace, and the queues to it.

use std::path::Path;
use std::sync::Arc;

use bdev::memory::Iova;
use nvme::spec::identify::{IdentifyController, IdentifyNamespace, LbaFormat, Vwc};
use nvme::spec::{Nsid, QueueId};

use super::error::Error;
use super::extent::{BlockSize, Extent};
use super::job::JobSeed;
use super::ledger;
use super::signals::Signals;
use super::{Failure, Plan};
use crate::driver::{self, Controller, DriverError, HostMemory, Link, QueueSeed};

/// The namespace that a workload runs on, and how it is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) nsid: Nsid,
    /// What tells the namespace from all others; zeroes if nothing does.
    pub(super) nguid: [u8; 16],
    pub(crate) block: BlockSize,
    /// All that is used of it.
    pub(crate) extent: Extent,
    pub(crate) doorbells_mapped: bool,
    pub(super) volatile_cache: bool,
}

/// A target that is connected.
pub(super) struct Target {
    controller: Controller,
    setting: Setting,
}

/// Connects to all targets of a plan, and finds out whether it can be carried out on them.
pub(super) fn connect(plan: &Plan) -> Result<Vec<Target>, Error> {
    let mut targets: Vec<Target> = Vec::new();
    for (index, path) in plan.targets.iter().enumerate() {
        if plan.targets[..index].contains(path) {
            return Err(Error::TargetTwice(path.clone()));
        }
        let connected = Target::connect(plan, path);
        targets.push(connected.map_err(|error| at(plan, path, error))?);
    }
    check_apart(plan, &targets)?;
    Ok(targets)
}

/// An error that says at which of several targets it is.
fn at(plan: &Plan, target: &Path, error: Error) -> Error {
    match plan.targets.len() {
        1 => error,
        _ => Error::At {
            target: target.to_owned(),
            error: Box::new(error),
        },
    }
}

/// Refuses a namespace that is reached twice, if what is written one way is expected to be found
/// by the other.
fn check_apart(plan: &Plan, targets: &[Target]) -> Result<(), Error> {
    if !plan.verify || !plan.shape.writes() {
        return Ok(());
    }
    for (index, target) in targets.iter().enumerate() {
        let nguid = target.setting.nguid;
        let before = &targets[..index];
        let same = before.iter().position(|other| other.setting.nguid == nguid);
        if let (Some(other), false) = (same, nguid == [0; 16]) {
            let [one, other] = [other, index].map(|index| plan.targets[index].clone());
            return Err(Error::OneNamespace { one, other });
        }
    }
    Ok(())
}

/// The queues of all targets, those of the first in front.
pub(super) fn seeds(
    plan: &Plan,
    targets: &mut [Target],
    signals: &Arc<Signals>,
) -> Result<Vec<JobSeed>, Error> {
    let mut seeds = Vec::new();
    for (target, path) in targets.iter_mut().zip(&plan.targets) {
        let added = target.seeds(plan, signals, &mut seeds);
        added.map_err(|error| at(plan, path, error))?;
    }
    Ok(seeds)
}

impl Target {
    fn connect(plan: &Plan, path: &Path) -> Result<Target, Error> {
        let mut controller = Controller::connect(path, plan.timeout)?;
        let setting = examine(plan, &mut controller)?;
        Ok(Target {
            controller,
            setting,
        })
    }

    pub(super) fn setting(&self) -> Setting {
        self.setting
    }

    pub(super) fn link(&self) -> Link {
        self.controller.link().clone()
    }

    pub(super) fn shut_down(self) -> Result<(), Failure> {
        self.close().map_err(Failure::Driver)
    }

    /// As [`shut_down`](Self::shut_down), of a target that was given no work.
    pub(super) fn close(self) -> Result<(), DriverError> {
        self.controller.shut_down()
    }

    /// Makes the queues, and the memory for the data of their commands.
    fn seeds(
        &mut self,
        plan: &Plan,
        signals: &Arc<Signals>,
        seeds: &mut Vec<JobSeed>,
    ) -> Result<(), Error> {
        let (controller, setting) = (&mut self.controller, self.setting);
        controller.request_queues(plan.queues)?;
        // One entry of a ring stays free; whole powers of two are what targets are used to.
        let entries = (u32::from(plan.depth) + 1).next_power_of_two();
        let entries = entries.min(controller.entries_max());
        let page = controller.page();
        let list = driver::list_bytes(plan.command_bytes, page);
        let slot = plan.command_bytes.next_multiple_of(page.0) + list;
        let job_bytes = QueueSeed::bytes(entries, page) + slot * u64::from(plan.depth);
        let mut memory = controller.lend(job_bytes * u64::from(plan.queues))?;
        for (id, extent) in (1..=u16::MAX)
            .map(QueueId)
            .zip(setting.extent.split(plan.queues))
        {
            let queue = controller.create_queue(id, entries, &mut memory)?;
            let (data, lists) = buffers(plan, &mut memory, list)?;
            seeds.push(JobSeed {
                index: seeds.len(),
                queue,
                extent,
                data,
                lists,
                page,
                nsid: setting.nsid,
                flush: setting.volatile_cache,
                plan: plan.clone(),
                signals: Arc::clone(signals),
            });
        }
        Ok(())
    }
}

/// Finds the namespace, and whether the plan can be carried out on it.
fn examine(plan: &Plan, controller: &mut Controller) -> Result<Setting, Error> {
    let identity = controller.identify()?;
    let namespaces = controller.namespaces()?;
    let nsid = match plan.nsid {
        None => namespaces.first().copied().ok_or(Error::NoNamespace)?,
        Some(nsid) if namespaces.contains(&nsid) => nsid,
        Some(nsid) => return Err(Error::UnknownNamespace { nsid, namespaces }),
    };
    let namespace = controller.identify_namespace(nsid)?;
    let block = block_size(&namespace)?;
    check_transfer(plan, controller, &identity)?;
    let extent = extent(plan, block, namespace.nsze.get())?;
    Ok(Setting {
        nsid,
        nguid: namespace.nguid,
        block,
        extent,
        doorbells_mapped: controller.doorbells_mapped(),
        volatile_cache: Vwc::from(identity.vwc).present(),
    })
}

fn block_size(namespace: &IdentifyNamespace) -> Result<BlockSize, Error> {
    let LbaFormat { ms, lbads, .. } = namespace.formatted();
    if ms.get() != 0 {
        return Err(Error::Metadata { bytes: ms.get() });
    }
    BlockSize::from_shift(lbads).ok_or(Error::BlockSize { shift: lbads })
}

/// Judges the size of a command and the depth by the controller's limits.
fn check_transfer(
    plan: &Plan,
    controller: &Controller,
    identity: &IdentifyController,
) -> Result<(), Error> {
    if let Some(limit) = controller.transfer_max(identity) {
        if plan.command_bytes > limit {
            let bytes = plan.command_bytes;
            return Err(Error::CommandTooLarge { bytes, limit });
        }
    }
    let limit = controller.depth_max();
    if u32::from(plan.depth) > limit {
        let depth = plan.depth;
        return Err(Error::TooDeep { depth, limit });
    }
    Ok(())
}

/// The part of the namespace to use: whole commands, one for each job at least.
pub(super) fn extent(plan: &Plan, block: BlockSize, blocks: u64) -> Result<Extent, Error> {
    let available = blocks.saturating_mul(block.bytes());
    let bytes = plan.bytes.unwrap_or(available);
    if bytes > available {
        return Err(Error::BeyondNamespace { bytes, available });
    }
    let command = plan.command_bytes;
    let extent = Extent::new(block, command).ok_or(Error::CommandSize {
        bytes: command,
        block: block.bytes(),
    })?;
    let extent = extent.with_chunks(bytes / command);
    if extent.chunks() < u64::from(plan.queues) {
        return Err(Error::TooSmall { bytes, command });
    }
    let mut parts = extent.split(plan.queues).into_iter();
    if !parts.all(|part| plan.distribution.over(part.chunks()).is_some()) {
        return Err(Error::ZoneTooSmall { bytes, command });
    }
    if plan.verify && plan.shape.writes() && extent.chunks() > ledger::CHUNKS_MAX {
        let limit = command.saturating_mul(ledger::CHUNKS_MAX);
        return Err(Error::TooLargeToVerify { bytes, limit });
    }
    Ok(extent)
}

/// Memory for the data and the PRP lists of all commands of one job.
fn buffers(
    plan: &Plan,
    memory: &mut HostMemory,
    list_bytes: u64,
) -> Result<(Vec<Iova>, Vec<Iova>), DriverError> {
    let mut allocate = |bytes| (0..plan.depth).map(|_| memory.allocate(bytes)).collect();
    let data: Result<Vec<Iova>, _> = allocate(plan.command_bytes);
    let lists: Result<Vec<Iova>, _> = allocate(list_bytes);
    Ok((data?, lists?))
}

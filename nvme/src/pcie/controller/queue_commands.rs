//! Creating and deleting I/O queues, and Abort (NVMe Base 2.0, 5.1 and 5.4 to 5.7).
//!
//! A process may die when a queue is made or gone and nobody was told yet. The command is then
//! executed again, and succeeds by what it finds.

use bdev::memory::Iova;

use super::execution::Execution;
use super::{AdminRequest, Controller};
use crate::pcie::message::{CqSpec, SqSpec};
use crate::pcie::queue::SlotIndex;
use crate::spec::admin::{CreateCq, CreateSq, abort_target, delete_queue_id};
use crate::spec::registers::Cc;
use crate::spec::{QueueId, Sqe, Status};

/// Completion dword 0 of an Abort that aborted nothing.
const NOT_ABORTED: u32 = 1;

pub(super) fn create_cq(
    controller: &mut Controller,
    slot: SlotIndex,
    sqe: &Sqe,
) -> Result<Execution, Status> {
    let command = CreateCq::of(sqe);
    let id = command.id();
    let exists = controller.queues.cq(id).is_some();
    if exists && controller.has_begun_effect(slot) {
        return Ok(Execution::Done(0));
    }
    if !controller.is_io_queue(id) || exists {
        return Err(Status::INVALID_QUEUE_ID);
    }
    let entries = entries(controller, command.qsize_z())?;
    if controller.registers.cc().iocqes() != Cc::IOCQES_16 {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    let base = base(controller, sqe, command.contiguous())?;
    if command
        .vector()
        .is_some_and(|vector| !controller.is_vector(vector))
    {
        return Err(Status::INVALID_INTERRUPT_VECTOR);
    }
    controller.create_cq(
        slot,
        CqSpec {
            id,
            base,
            entries,
            vector: command.vector(),
        },
    );
    Ok(Execution::Pending)
}

pub(super) fn create_sq(
    controller: &mut Controller,
    slot: SlotIndex,
    sqe: &Sqe,
) -> Result<Execution, Status> {
    let command = CreateSq::of(sqe);
    let (id, cqid) = (command.id(), command.cqid());
    let exists = controller.queues.sq(id).is_some();
    if exists && controller.has_begun_effect(slot) {
        return Ok(Execution::Done(0));
    }
    if cqid == QueueId::ADMIN || !controller.is_io_queue(cqid) {
        return Err(Status::INVALID_QUEUE_ID);
    }
    let leaving = AdminRequest::DeleteCq(cqid);
    if controller.queues.cq(cqid).is_none() || controller.queues.is_leaving(leaving) {
        return Err(Status::COMPLETION_QUEUE_INVALID);
    }
    if !controller.is_io_queue(id) || exists {
        return Err(Status::INVALID_QUEUE_ID);
    }
    let entries = entries(controller, command.qsize_z())?;
    if controller.registers.cc().iosqes() != Cc::IOSQES_64 {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    let base = base(controller, sqe, command.contiguous())?;
    controller.create_sq(
        slot,
        SqSpec {
            id,
            cqid,
            base,
            entries,
        },
    );
    Ok(Execution::Pending)
}

/// Two entries at least, CAP.MQES at most.
fn entries(controller: &Controller, qsize_z: u16) -> Result<u32, Status> {
    if qsize_z == 0 || qsize_z >= controller.config.depth {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    Ok(u32::from(qsize_z) + 1)
}

/// Queues are contiguous (CAP.CQR), and begin at a memory page.
fn base(controller: &Controller, sqe: &Sqe, contiguous: bool) -> Result<Iova, Status> {
    if !contiguous {
        return Err(Status::INVALID_FIELD);
    }
    let base = sqe.prps()[0];
    if base % (1 << controller.page_shift()) != 0 {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    Ok(Iova(base))
}

pub(super) fn delete_cq(
    controller: &mut Controller,
    slot: SlotIndex,
    sqe: &Sqe,
) -> Result<Execution, Status> {
    let id = delete_queue_id(sqe);
    let (request, queues) = (AdminRequest::DeleteCq(id), &controller.queues);
    let exists = queues.cq(id).is_some();
    if !exists && controller.has_begun_effect(slot) {
        return Ok(Execution::Done(0));
    }
    if id == QueueId::ADMIN || !exists || queues.is_leaving(request) {
        return Err(Status::INVALID_QUEUE_ID);
    }
    if queues.uses(id) {
        return Err(Status::INVALID_QUEUE_DELETION);
    }
    controller.delete_queue(slot, request);
    Ok(Execution::Pending)
}

pub(super) fn delete_sq(
    controller: &mut Controller,
    slot: SlotIndex,
    sqe: &Sqe,
) -> Result<Execution, Status> {
    let id = delete_queue_id(sqe);
    let (request, queues) = (AdminRequest::DeleteSq(id), &controller.queues);
    let exists = queues.sq(id).is_some();
    if !exists && controller.has_begun_effect(slot) {
        return Ok(Execution::Done(0));
    }
    if id == QueueId::ADMIN || !exists || queues.is_leaving(request) {
        return Err(Status::INVALID_QUEUE_ID);
    }
    controller.delete_queue(slot, request);
    Ok(Execution::Pending)
}

/// Best effort: an asynchronous event request is always aborted, a command at its device may be.
pub(super) fn abort(
    controller: &mut Controller,
    slot: SlotIndex,
    sqe: &Sqe,
) -> Result<Execution, Status> {
    let (sqid, cid) = abort_target(sqe);
    if sqid == QueueId::ADMIN {
        let aborted = controller.abort_async_event(cid);
        return Ok(Execution::Done(if aborted { 0 } else { NOT_ABORTED }));
    }
    if controller.queues.sq(sqid).is_none() {
        return Err(Status::INVALID_FIELD);
    }
    controller.abort(slot, sqid, cid);
    Ok(Execution::Pending)
}

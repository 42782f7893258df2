//! Admin commands, carried out: the dispatch, and the commands that give and take data. Those
//! about queues are in `queue_commands.rs`.

use zerocopy::IntoBytes;

use super::execution::Execution;
use super::{Controller, queue_commands};
use crate::admin::features::{Features, SetFeature};
use crate::admin::identify::{self, Ask};
use crate::admin::log_page;
use crate::pcie::message::ShadowDoorbells;
use crate::pcie::queue::SlotIndex;
use crate::spec::admin::{FeaturesCommand, GetLogPage, IdentifyCommand};
use crate::spec::identify::CSI_NVM;
use crate::spec::log_page::lid;
use crate::spec::{AdminOpcode, Fuse, Nsid, Psdt, Sqe, Status};

/// Executes an admin command.
///
/// # Errors
/// The status that it completes with.
pub(super) fn execute(
    controller: &mut Controller,
    slot: SlotIndex,
    sqe: &Sqe,
) -> Result<Execution, Status> {
    // Admin commands are not fused, and use PRPs over PCIe (NVMe Base 2.0, 4.1).
    if sqe.fuse() != Fuse::NORMAL || sqe.psdt() != Psdt::PRP {
        return Err(Status::INVALID_FIELD);
    }
    match sqe.admin_opcode() {
        AdminOpcode::IDENTIFY => identify_command(controller, sqe),
        AdminOpcode::GET_LOG_PAGE => get_log_page(controller, sqe),
        AdminOpcode::GET_FEATURES => get_features(controller, sqe),
        AdminOpcode::SET_FEATURES => set_features(controller, sqe),
        AdminOpcode::CREATE_CQ => queue_commands::create_cq(controller, slot, sqe),
        AdminOpcode::CREATE_SQ => queue_commands::create_sq(controller, slot, sqe),
        AdminOpcode::DELETE_CQ => queue_commands::delete_cq(controller, slot, sqe),
        AdminOpcode::DELETE_SQ => queue_commands::delete_sq(controller, slot, sqe),
        AdminOpcode::ABORT => queue_commands::abort(controller, slot, sqe),
        AdminOpcode::ASYNC_EVENT_REQUEST => controller
            .async_events
            .park(slot)
            .map(|()| Execution::Parked),
        AdminOpcode::KEEP_ALIVE => {
            controller.restart_keep_alive();
            Ok(Execution::Done(0))
        }
        AdminOpcode::DOORBELL_BUFFER_CONFIG => doorbell_buffer_config(controller, sqe),
        _ => Err(Status::INVALID_OPCODE),
    }
}

fn identify_command(controller: &Controller, sqe: &Sqe) -> Result<Execution, Status> {
    let command = IdentifyCommand::of(sqe);
    let ask = Ask {
        cns: command.cns(),
        nsid: sqe.nsid(),
        csi: command.csi(),
    };
    let page = identify::identify(&controller.identify_input(), ask)?;
    controller.copy_to_host(sqe, page.as_bytes())?;
    Ok(Execution::Done(0))
}

fn get_log_page(controller: &mut Controller, sqe: &Sqe) -> Result<Execution, Status> {
    let command = GetLogPage::of(sqe);
    let lid = command.lid();
    let page = log_page::log_page(lid, &controller.log_input())?;
    // SMART is kept for the controller, not for each namespace (LPA bit 0).
    let whole = matches!(sqe.nsid(), Nsid::NONE | Nsid::ALL);
    // Effects differ by command set, and there is one.
    let other_set = lid == lid::EFFECTS && command.csi() != CSI_NVM;
    if other_set || lid == lid::SMART && !whole {
        return Err(Status::INVALID_FIELD);
    }
    let data = log_page::part(&page, &command, controller.config.transfer_bytes_max)?;
    controller.copy_to_host(sqe, &data)?;
    if !command.retain_event() {
        controller.clear_events(lid);
    }
    Ok(Execution::Done(0))
}

fn get_features(controller: &Controller, sqe: &Sqe) -> Result<Execution, Status> {
    let command = FeaturesCommand::of(sqe);
    let (fid, select) = (command.fid(), command.select());
    let now_ns = controller.now_ns;
    let value = controller
        .features
        .get(fid, select, command.value(), now_ns)?;
    if !value.data.is_empty() {
        controller.copy_to_host(sqe, &value.data)?;
    }
    Ok(Execution::Done(value.dword0))
}

fn set_features(controller: &mut Controller, sqe: &Sqe) -> Result<Execution, Status> {
    let command = FeaturesCommand::of(sqe);
    let (fid, value) = (command.fid(), command.value());
    let mut data = [0; 16];
    let data = &mut data[..Features::data_bytes(fid, value)];
    if !data.is_empty() {
        controller.copy_from_host(sqe, data)?;
    }
    let ask = SetFeature {
        fid,
        nsid: sqe.nsid(),
        save: command.save(),
        value,
        data,
    };
    controller.set_feature(ask).map(Execution::WithView)
}

/// NVMe Base 2.0, 5.8: both buffers are pages of their own.
fn doorbell_buffer_config(controller: &mut Controller, sqe: &Sqe) -> Result<Execution, Status> {
    if !controller.supports().doorbell_buffer {
        return Err(Status::INVALID_OPCODE);
    }
    let [doorbells, event_indices] = sqe.prps().map(bdev::memory::Iova);
    controller.set_shadow(ShadowDoorbells {
        doorbells,
        event_indices,
    })?;
    Ok(Execution::WithView(0))
}

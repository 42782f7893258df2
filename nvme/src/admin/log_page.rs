//! Log pages (NVMe Base 2.0, 5.16): the error log, and pages that are computed when asked for.

use std::sync::atomic::Ordering::Relaxed;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::pcie::message::CommandError;
use crate::pcie::state::{ControllerBlock, ControllerState};
use crate::spec::log_page::{CommandEffects, Effect, ErrorEntry, FirmwareSlots, Smart, lid};
use crate::spec::{AdminOpcode, NvmOpcode, QueueId, Status};
use crate::subsystem::FIRMWARE;

/// Entries of the error log.
pub const ERROR_ENTRIES: usize = 64;
/// Kelvin. There is no sensor; a temperature at which nobody worries.
const TEMPERATURE: u16 = 310;
const NS_PER_HOUR: u64 = 3_600_000_000_000;

/// A log page as it is now, whole.
///
/// # Errors
/// Invalid Log Page for a page that does not exist.
pub fn log_page(lid: u8, input: &LogInput<'_>) -> Result<Vec<u8>, Status> {
    match lid {
        lid::ERROR => Ok(error_log(input.state.controller())),
        lid::SMART => Ok(smart(input).as_bytes().to_vec()),
        lid::FIRMWARE_SLOT => Ok(firmware_slots().as_bytes().to_vec()),
        // Namespaces do not change while a controller lives.
        lid::CHANGED_NAMESPACES => Ok(vec![0; 4096]),
        lid::EFFECTS => Ok(effects(input).as_bytes().to_vec()),
        _ => Err(Status::INVALID_LOG_PAGE),
    }
}

/// What log pages are made from.
#[derive(Clone, Copy, Debug)]
pub struct LogInput<'a> {
    /// Counters and the error log.
    pub state: &'a ControllerState,
    /// How long the controller has existed in this process.
    pub powered_ns: u64,
    /// Optional commands.
    pub supports: Supports,
}

/// Optional commands that a controller may support.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Supports {
    /// Compare.
    pub compare: bool,
    /// Write Zeroes.
    pub write_zeroes: bool,
    /// Dataset Management.
    pub dataset_management: bool,
    /// Doorbell Buffer Config.
    pub doorbell_buffer: bool,
}

/// Notes a failed command in the error log: in the ring of entries, then in the count.
pub fn note_error(block: &ControllerBlock, error: &CommandError) {
    let count = block.error_count.load(Relaxed) + 1;
    let mut entry = ErrorEntry::new_zeroed();
    entry.error_count.set(count);
    entry.sqid.set(error.sqid.0);
    entry.cid.set(error.cid.0);
    entry.status.set(error.status.bits() << 1);
    entry.parameter_location.set(u16::MAX);
    entry.lba.set(error.lba);
    entry.nsid.set(error.nsid.0);
    let words = &block.error_log[(count - 1) as usize % ERROR_ENTRIES];
    for (word, bytes) in words.iter().zip(entry.as_bytes().chunks_exact(8)) {
        word.store(u64::read_from_bytes(bytes).unwrap_or(0), Relaxed);
    }
    block.error_count.store(count, Relaxed);
}

/// The newest entry first; empty ones have a count of 0.
fn error_log(block: &ControllerBlock) -> Vec<u8> {
    let count = block.error_count.load(Relaxed) as usize;
    let newest_first = (0..ERROR_ENTRIES.min(count)).map(|back| (count - 1 - back) % ERROR_ENTRIES);
    let mut log: Vec<u8> = newest_first
        .flat_map(|index| &block.error_log[index])
        .flat_map(|word| word.load(Relaxed).to_ne_bytes())
        .collect();
    log.resize(ERROR_ENTRIES * size_of::<ErrorEntry>(), 0);
    log
}

fn smart(input: &LogInput<'_>) -> Smart {
    let block = input.state.controller();
    let ids = (0..=input.state.queues()).map(QueueId);
    let (mut totals, mut media_errors) = ([0u64; 4], 0u64);
    for sq in ids.filter_map(|id| input.state.sq(id)) {
        for (total, counter) in totals.iter_mut().zip(&sq.statistics) {
            *total += counter.load(Relaxed);
        }
        media_errors += sq.media_errors.load(Relaxed);
    }
    let powered_ns = block.powered_ns.load(Relaxed) + input.powered_ns;
    let [reads, writes, units_read, units_written] = totals;
    let mut smart = Smart::new_zeroed();
    smart.composite_temperature = TEMPERATURE.into();
    smart.available_spare = 100;
    smart.available_spare_threshold = 10;
    smart.data_units_read = u128::from(units_read.div_ceil(1000)).into();
    smart.data_units_written = u128::from(units_written.div_ceil(1000)).into();
    smart.host_reads = u128::from(reads).into();
    smart.host_writes = u128::from(writes).into();
    smart.power_cycles = u128::from(block.power_cycles.load(Relaxed)).into();
    smart.power_on_hours = u128::from(powered_ns / NS_PER_HOUR).into();
    smart.unsafe_shutdowns = u128::from(block.unsafe_shutdowns.load(Relaxed)).into();
    smart.media_errors = u128::from(media_errors).into();
    smart.error_entries = u128::from(block.error_count.load(Relaxed)).into();
    smart
}

fn firmware_slots() -> FirmwareSlots {
    let mut slots = FirmwareSlots::new_zeroed();
    slots.afi = 1;
    super::identify::pad(&mut slots.revisions[0], FIRMWARE);
    slots
}

fn effects(input: &LogInput<'_>) -> CommandEffects {
    let mut effects = CommandEffects::new_zeroed();
    let harmless = U32::from(u32::from(Effect::new().with_supported(true)));
    let changes = U32::from(u32::from(
        Effect::new().with_supported(true).with_changes_data(true),
    ));
    let admin = [
        AdminOpcode::DELETE_SQ,
        AdminOpcode::CREATE_SQ,
        AdminOpcode::GET_LOG_PAGE,
        AdminOpcode::DELETE_CQ,
        AdminOpcode::CREATE_CQ,
        AdminOpcode::IDENTIFY,
        AdminOpcode::ABORT,
        AdminOpcode::SET_FEATURES,
        AdminOpcode::GET_FEATURES,
        AdminOpcode::ASYNC_EVENT_REQUEST,
        AdminOpcode::KEEP_ALIVE,
    ];
    for opcode in admin {
        effects.admin[usize::from(opcode.0)] = harmless;
    }
    if input.supports.doorbell_buffer {
        effects.admin[usize::from(AdminOpcode::DOORBELL_BUFFER_CONFIG.0)] = harmless;
    }
    let io = [
        (NvmOpcode::FLUSH, true, harmless),
        (NvmOpcode::WRITE, true, changes),
        (NvmOpcode::READ, true, harmless),
        (NvmOpcode::COMPARE, input.supports.compare, harmless),
        (
            NvmOpcode::WRITE_ZEROES,
            input.supports.write_zeroes,
            changes,
        ),
        (
            NvmOpcode::DATASET_MANAGEMENT,
            input.supports.dataset_management,
            changes,
        ),
    ];
    for (opcode, supported, effect) in io {
        if supported {
            effects.io[usize::from(opcode.0)] = effect;
        }
    }
    effects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CommandId, Nsid};

    fn page(lid: u8, state: &ControllerState) -> Result<Vec<u8>, Status> {
        let supports = Supports {
            compare: true,
            ..Supports::default()
        };
        log_page(
            lid,
            &LogInput {
                state,
                powered_ns: 3 * NS_PER_HOUR,
                supports,
            },
        )
    }

    fn error(cid: u16) -> CommandError {
        let (sqid, status, nsid) = (QueueId(3), Status::LBA_OUT_OF_RANGE, Nsid(1));
        CommandError {
            sqid,
            cid: CommandId(cid),
            status,
            nsid,
            lba: 99,
        }
    }

    #[test]
    fn pages_that_do_not_exist_are_refused() {
        let state = ControllerState::new(2, 4).unwrap();
        for lid in [0x00, 0x06, 0x7f, 0xc0, 0xc1] {
            assert_eq!(page(lid, &state), Err(Status::INVALID_LOG_PAGE), "{lid:#x}");
        }
    }

    #[test]
    fn the_error_log_has_the_newest_entry_first_and_forgets_the_oldest() {
        let state = ControllerState::new(2, 4).unwrap();
        assert!(
            page(lid::ERROR, &state)
                .unwrap()
                .iter()
                .all(|&byte| byte == 0)
        );
        for cid in 0..70 {
            note_error(state.controller(), &error(cid));
        }
        let log = page(lid::ERROR, &state).unwrap();
        let entries: Vec<ErrorEntry> = log
            .chunks_exact(64)
            .map(|bytes| ErrorEntry::read_from_bytes(bytes).unwrap())
            .collect();
        assert_eq!(entries.len(), 64);
        assert_eq!(
            (entries[0].error_count.get(), entries[0].cid.get()),
            (70, 69)
        );
        assert_eq!(
            (entries[63].error_count.get(), entries[63].cid.get()),
            (7, 6)
        );
        let status = Status::LBA_OUT_OF_RANGE.bits() << 1;
        assert_eq!(
            (entries[0].status.get(), entries[0].lba.get()),
            (status, 99)
        );
    }

    #[test]
    fn smart_adds_up_all_queues() {
        let state = ControllerState::new(2, 4).unwrap();
        for (id, reads) in [(1, 10), (2, 5)] {
            let sq = state.sq(QueueId(id)).unwrap();
            sq.statistics[0].store(reads, Relaxed);
            sq.statistics[2].store(reads * 200, Relaxed);
        }
        note_error(state.controller(), &error(1));
        let page = page(lid::SMART, &state).unwrap();
        assert_eq!(page.len(), 512);
        let smart = Smart::read_from_bytes(&page).unwrap();
        assert_eq!({ smart.host_reads }.get(), 15);
        assert_eq!({ smart.data_units_read }.get(), 3);
        assert_eq!({ smart.power_on_hours }.get(), 3);
        assert_eq!({ smart.error_entries }.get(), 1);
        // Offsets that tools read by hand.
        assert_eq!((page[3], page[64], page[128]), (100, 15, 3));
    }

    #[test]
    fn effects_name_what_is_supported_and_nothing_else() {
        let state = ControllerState::new(2, 4).unwrap();
        let page = page(lid::EFFECTS, &state).unwrap();
        let effects = CommandEffects::read_from_bytes(&page).unwrap();
        let supported: Vec<usize> = (0..256)
            .filter(|&opcode| effects.io[opcode].get() & 1 != 0)
            .collect();
        assert_eq!(supported, [0x00, 0x01, 0x02, 0x05]);
        assert_eq!(effects.io[1].get(), 3);
        assert_eq!(effects.admin[0x7c].get(), 0);
    }
}

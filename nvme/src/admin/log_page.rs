//! Log pages (NVMe Base 2.0, 5.16): the error log, and pages that are computed when asked for.

use std::sync::atomic::Ordering::Relaxed;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::features::{Features, TEMPERATURE};
use crate::pcie::message::CommandError;
use crate::pcie::state::{ControllerBlock, ControllerState};
use crate::spec::admin::GetLogPage;
use crate::spec::log_page::{
    ActiveFirmware, CommandEffects, Effect, ErrorEntry, ErrorStatus, FeatureEffects, FirmwareSlots,
    MI_EFFECTS_BYTES, PageSupport, Smart, SupportedPages, lid,
};
use crate::spec::text::pad;
use crate::spec::{AdminOpcode, NvmOpcode, QueueId, Status};
use crate::subsystem::FIRMWARE;

/// Entries of the error log.
pub const ERROR_ENTRIES: usize = 64;
const NS_PER_HOUR: u64 = 3_600_000_000_000;

/// A log page as it is now, whole.
///
/// # Errors
/// Invalid Log Page for a page that does not exist.
pub fn log_page(lid: u8, input: &LogInput<'_>) -> Result<Vec<u8>, Status> {
    match lid {
        lid::SUPPORTED_PAGES => Ok(supported_pages().as_bytes().to_vec()),
        lid::ERROR => Ok(error_log(input.state.controller())),
        lid::SMART => Ok(smart(input).as_bytes().to_vec()),
        lid::FIRMWARE_SLOT => Ok(firmware_slots().as_bytes().to_vec()),
        // Namespaces do not change while a controller lives.
        lid::CHANGED_NAMESPACES => Ok(vec![0; 4096]),
        lid::EFFECTS => Ok(effects(input).as_bytes().to_vec()),
        lid::FEATURE_EFFECTS => Ok(feature_effects(input.features).as_bytes().to_vec()),
        // No NVMe-MI command is supported.
        lid::MI_EFFECTS => Ok(vec![0; MI_EFFECTS_BYTES]),
        _ => Err(Status::INVALID_LOG_PAGE),
    }
}

/// The part of a page that a command asks for; what it asks for past the end reads as zeroes.
///
/// # Errors
/// Invalid Field in Command for an offset that is past the end, not of whole dwords or counted in
/// anything but bytes, and for more than one transfer may have.
pub fn part(page: &[u8], command: &GetLogPage, bytes_max: u32) -> Result<Vec<u8>, Status> {
    if command.bytes() > bytes_max.into() || command.offset_is_index() {
        return Err(Status::INVALID_FIELD);
    }
    let start = usize::try_from(command.offset()).unwrap_or(usize::MAX);
    let rest = page.get(start..).filter(|_| start % 4 == 0);
    let mut data = rest.ok_or(Status::INVALID_FIELD)?.to_vec();
    data.resize(command.bytes() as usize, 0);
    Ok(data)
}

/// What log pages are made from.
#[derive(Clone, Copy, Debug)]
pub struct LogInput<'a> {
    /// Counters and the error log.
    pub state: &'a ControllerState,
    /// Which features there are, and the thresholds of the host.
    pub features: &'a Features,
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
    let status = ErrorStatus::new().with_status(error.status.bits());
    entry.status.set(status.into());
    entry.parameter_location.set(ErrorEntry::NONE);
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
    let powered_ns = block.powered_ns.load(Relaxed);
    let [reads, writes, units_read, units_written] = totals;
    let mut smart = Smart::new_zeroed();
    smart.critical_warning = input.features.critical_warning().into();
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
    slots.afi = ActiveFirmware::new().with_slot(1).into();
    pad(&mut slots.revisions[0], FIRMWARE);
    slots
}

/// Pages that [`log_page`] knows.
const PAGES: [u8; 8] = [
    lid::SUPPORTED_PAGES,
    lid::ERROR,
    lid::SMART,
    lid::FIRMWARE_SLOT,
    lid::CHANGED_NAMESPACES,
    lid::EFFECTS,
    lid::FEATURE_EFFECTS,
    lid::MI_EFFECTS,
];

fn supported_pages() -> SupportedPages {
    let mut supported = SupportedPages::new_zeroed();
    for lid in PAGES {
        let support = PageSupport::new().with_supported(true);
        supported.pages[usize::from(lid)] = u32::from(support).into();
    }
    supported
}

fn effects(input: &LogInput<'_>) -> CommandEffects {
    let Supports {
        compare,
        write_zeroes,
        dataset_management,
        doorbell_buffer,
    } = input.supports;
    let admin = [
        (AdminOpcode::DELETE_SQ, true),
        (AdminOpcode::CREATE_SQ, true),
        (AdminOpcode::GET_LOG_PAGE, true),
        (AdminOpcode::DELETE_CQ, true),
        (AdminOpcode::CREATE_CQ, true),
        (AdminOpcode::IDENTIFY, true),
        (AdminOpcode::ABORT, true),
        (AdminOpcode::SET_FEATURES, true),
        (AdminOpcode::GET_FEATURES, true),
        (AdminOpcode::ASYNC_EVENT_REQUEST, true),
        (AdminOpcode::KEEP_ALIVE, true),
        (AdminOpcode::DOORBELL_BUFFER_CONFIG, doorbell_buffer),
    ];
    let looks = Effect::new().with_supported(true).with_on_namespace(true);
    let changes = looks.with_changes_data(true);
    let io = [
        (NvmOpcode::FLUSH, true, looks),
        (NvmOpcode::WRITE, true, changes),
        (NvmOpcode::READ, true, looks),
        (NvmOpcode::COMPARE, compare, looks),
        (NvmOpcode::WRITE_ZEROES, write_zeroes, changes),
        (NvmOpcode::DATASET_MANAGEMENT, dataset_management, changes),
    ];
    let mut effects = CommandEffects::new_zeroed();
    for (opcode, _) in admin.iter().filter(|(_, supported)| *supported) {
        effects.admin[usize::from(opcode.0)] = on_controller();
    }
    for (opcode, _, effect) in io.iter().filter(|(_, supported, _)| *supported) {
        effects.io[usize::from(opcode.0)] = u32::from(*effect).into();
    }
    effects
}

/// Supported, with no effect beyond the controller.
fn on_controller() -> U32 {
    let effect = Effect::new().with_supported(true).with_on_controller(true);
    u32::from(effect).into()
}

fn feature_effects(features: &Features) -> FeatureEffects {
    let mut effects = FeatureEffects::new_zeroed();
    for fid in (0..=u8::MAX).filter(|&fid| features.supports(fid)) {
        effects.features[usize::from(fid)] = on_controller();
    }
    effects
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::features::{FeatureLimits, SetFeature};
    use crate::spec::features::fid;
    use crate::spec::{CommandId, Nsid, Sqe};

    fn features() -> Features {
        Features::new(FeatureLimits {
            queues: 2,
            vectors: 2,
            namespaces: 1,
            write_cache: false,
        })
    }

    fn page_with(lid: u8, state: &ControllerState, features: &Features) -> Vec<u8> {
        let supports = Supports {
            compare: true,
            ..Supports::default()
        };
        let input = LogInput {
            state,
            features,
            supports,
        };
        log_page(lid, &input).unwrap_or_default()
    }

    fn page(lid: u8, state: &ControllerState) -> Vec<u8> {
        page_with(lid, state, &features())
    }

    fn error(cid: u16) -> CommandError {
        CommandError {
            sqid: QueueId(3),
            cid: CommandId(cid),
            status: Status::LBA_OUT_OF_RANGE,
            nsid: Nsid(1),
            lba: 99,
        }
    }

    fn dword(page: &[u8], index: usize) -> u32 {
        u32::read_from_bytes(&page[4 * index..4 * index + 4]).unwrap()
    }

    #[test]
    fn the_pages_there_are_are_those_that_are_listed() {
        let state = ControllerState::new(2, 4).unwrap();
        let list = page(lid::SUPPORTED_PAGES, &state);
        assert_eq!(list.len(), 1024);
        for lid in 0..=u8::MAX {
            let found = !page(lid, &state).is_empty();
            assert_eq!(dword(&list, usize::from(lid)), u32::from(found), "{lid:#x}");
        }
        // Windows asks for this one and wants a clean refusal.
        let input = LogInput {
            state: &state,
            features: &features(),
            supports: Supports::default(),
        };
        assert_eq!(log_page(0xc1, &input), Err(Status::INVALID_LOG_PAGE));
    }

    #[test]
    fn pages_have_the_length_of_the_specification() {
        let state = ControllerState::new(2, 4).unwrap();
        let lengths = [
            (lid::ERROR, 64 * 64),
            (lid::SMART, 512),
            (lid::FIRMWARE_SLOT, 512),
            (lid::CHANGED_NAMESPACES, 4096),
            (lid::EFFECTS, 4096),
            (lid::FEATURE_EFFECTS, 1024),
            (lid::MI_EFFECTS, 4096),
        ];
        for (lid, length) in lengths {
            assert_eq!(page(lid, &state).len(), length, "{lid:#x}");
        }
    }

    /// A command for `dwords` dwords from `offset` on.
    fn command(dwords: u32, offset: u64) -> GetLogPage {
        let dwords_z = dwords - 1;
        let cdws = [
            dwords_z << 16,
            dwords_z >> 16,
            offset as u32,
            (offset >> 32) as u32,
            0,
            0,
        ];
        GetLogPage::of(&Sqe::new(0x02, Nsid::ALL, [0, 0], cdws))
    }

    #[test]
    fn an_offset_is_in_bytes_and_within_the_page() {
        let page: Vec<u8> = (0..64).collect();
        let first = part(&page, &command(2, 4), 4096);
        assert_eq!(first, Ok(vec![4, 5, 6, 7, 8, 9, 10, 11]));
        assert_eq!(part(&page, &command(1, 64), 4096), Ok(vec![0; 4]));
        for offset in [2, 65, 68, 1 << 32, u64::MAX - 3] {
            let beyond = part(&page, &command(1, offset), 4096);
            assert_eq!(beyond, Err(Status::INVALID_FIELD), "{offset:#x}");
        }
        let index = GetLogPage::of(&Sqe::new(2, Nsid(0), [0, 0], [0, 0, 0, 0, 1 << 23, 0]));
        assert_eq!(part(&page, &index, 4096), Err(Status::INVALID_FIELD));
        assert_eq!(part(&page, &command(1024, 0), 4096).unwrap().len(), 4096);
        let too_long = part(&page, &command(1025, 0), 4096);
        assert_eq!(too_long, Err(Status::INVALID_FIELD));
        let far_too_long = part(&page, &command(u32::MAX, 0), 1 << 20);
        assert_eq!(far_too_long, Err(Status::INVALID_FIELD));
    }

    proptest! {
        /// However a page is read in parts, the parts are the page.
        #[test]
        fn parts_add_up_to_the_page(
            page in proptest::collection::vec(any::<u8>(), 1..5000),
            lengths in proptest::collection::vec(1u32..300, 1..100),
        ) {
            let mut read = Vec::new();
            for dwords in lengths {
                let found = part(&page, &command(dwords, read.len() as u64), 4096);
                if read.len() > page.len() {
                    prop_assert_eq!(found, Err(Status::INVALID_FIELD));
                    break;
                }
                let found = found.unwrap();
                prop_assert_eq!(found.len(), 4 * dwords as usize);
                read.extend(found);
            }
            let length = read.len().max(page.len());
            let mut padded = page;
            padded.resize(length, 0);
            prop_assert_eq!(&read[..], &padded[..read.len()]);
        }
    }

    #[test]
    fn an_error_entry_reads_as_hosts_decode_it() {
        let state = ControllerState::new(2, 4).unwrap();
        assert!(page(lid::ERROR, &state).iter().all(|&byte| byte == 0));
        note_error(state.controller(), &error(0x1234));
        let log = page(lid::ERROR, &state);
        assert_eq!(log[..8], 1u64.to_le_bytes());
        assert_eq!(log[8..16], [3, 0, 0x34, 0x12, 0x00, 0x81, 0xff, 0xff]);
        assert_eq!(log[16..24], 99u64.to_le_bytes());
        assert_eq!(log[24..28], 1u32.to_le_bytes());
        assert!(log[28..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_error_log_has_the_newest_entry_first_and_forgets_the_oldest() {
        for errors in [1u16, 63, 64, 65, 127, 128, 200] {
            let state = ControllerState::new(2, 4).unwrap();
            (1..=errors).for_each(|cid| note_error(state.controller(), &error(cid)));
            let log = page(lid::ERROR, &state);
            let entries: Vec<ErrorEntry> = log
                .chunks_exact(64)
                .map(|bytes| ErrorEntry::read_from_bytes(bytes).unwrap())
                .collect();
            let kept = (0..ERROR_ENTRIES as u16).map(|back| errors.saturating_sub(back));
            let found = entries.iter().map(|entry| entry.cid.get());
            assert!(found.eq(kept.clone()), "{errors}");
            let counts = entries.iter().map(|entry| entry.error_count.get());
            assert!(counts.eq(kept.map(u64::from)), "{errors}");
        }
    }

    #[test]
    fn smart_adds_up_all_queues_and_rounds_units_up() {
        let state = ControllerState::new(2, 4).unwrap();
        for (id, reads) in [(0, 1), (1, 10), (2, 5)] {
            let sq = state.sq(QueueId(id)).unwrap();
            sq.statistics[0].store(reads, Relaxed);
            sq.statistics[1].store(10 * reads, Relaxed);
            sq.statistics[2].store(reads * 125, Relaxed);
            sq.statistics[3].store(reads * 126, Relaxed);
            sq.media_errors.store(reads, Relaxed);
        }
        let powered = &state.controller().powered_ns;
        powered.store(3 * NS_PER_HOUR - 1, Relaxed);
        note_error(state.controller(), &error(1));
        let smart = page(lid::SMART, &state);
        // Composite temperature, spare, its threshold, used, as tools read them by hand.
        assert_eq!(smart[..7], [0, 0x36, 0x01, 100, 10, 0, 0]);
        let counters = [
            ("units read", 32, 2),
            ("units written", 48, 3),
            ("reads", 64, 16),
            ("writes", 80, 160),
            ("busy time", 96, 0),
            ("power cycles", 112, 0),
            ("power-on hours", 128, 2),
            ("unsafe shutdowns", 144, 0),
            ("media errors", 160, 16),
            ("error log entries", 176, 1),
        ];
        for (name, at, expected) in counters {
            let counter = u128::read_from_bytes(&smart[at..at + 16]).unwrap();
            assert_eq!(counter, expected, "{name}");
        }
    }

    #[test]
    fn smart_warns_of_a_temperature_at_the_threshold_of_the_host() {
        let state = ControllerState::new(2, 4).unwrap();
        let mut features = features();
        let threshold = SetFeature {
            fid: fid::TEMPERATURE_THRESHOLD,
            nsid: Nsid::NONE,
            save: false,
            value: u32::from(TEMPERATURE),
            data: &[],
        };
        features.set(threshold, false, 0).unwrap();
        assert_eq!(page_with(lid::SMART, &state, &features)[0], 0b10);
    }

    #[test]
    fn the_firmware_is_in_slot_1() {
        let state = ControllerState::new(2, 4).unwrap();
        let slots = page(lid::FIRMWARE_SLOT, &state);
        assert_eq!(slots[0], 1);
        assert_eq!(slots[8..16], *format!("{FIRMWARE:<8}").as_bytes());
        assert!(slots[16..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn effects_name_what_is_supported_and_nothing_else() {
        let state = ControllerState::new(2, 4).unwrap();
        let page = page(lid::EFFECTS, &state);
        let named = |table: usize| -> Vec<(usize, u32)> {
            (0..256)
                .map(|opcode| (opcode, dword(&page, 256 * table + opcode)))
                .filter(|(_, effect)| *effect != 0)
                .collect()
        };
        let (controller, namespace) = (1 << 21 | 1, 1 << 20 | 1);
        let opcodes = [
            0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18,
        ];
        assert_eq!(named(0), opcodes.map(|opcode| (opcode, controller)));
        let io = [
            (0x00, namespace),
            (0x01, namespace | 2),
            (0x02, namespace),
            (0x05, namespace),
        ];
        assert_eq!(named(1), io);
    }

    #[test]
    fn optional_commands_are_named_when_they_are_supported() {
        let state = ControllerState::new(2, 4).unwrap();
        let input = LogInput {
            state: &state,
            features: &features(),
            supports: Supports {
                compare: false,
                write_zeroes: true,
                dataset_management: true,
                doorbell_buffer: true,
            },
        };
        let page = log_page(lid::EFFECTS, &input).unwrap();
        assert_eq!(dword(&page, 0x7c) & 1, 1);
        assert_eq!(dword(&page, 256 + 0x05), 0);
        assert_eq!(dword(&page, 256 + 0x08) & 0b11, 0b11);
        assert_eq!(dword(&page, 256 + 0x09) & 0b11, 0b11);
    }

    #[test]
    fn feature_effects_name_the_features_there_are() {
        let state = ControllerState::new(2, 4).unwrap();
        let features = features();
        let page = page_with(lid::FEATURE_EFFECTS, &state, &features);
        for fid in 0..=u8::MAX {
            let effect = dword(&page, usize::from(fid));
            assert_eq!(effect & 1 == 1, features.supports(fid), "{fid:#x}");
        }
        assert_eq!(dword(&page, usize::from(fid::VOLATILE_WRITE_CACHE)), 0);
    }
}

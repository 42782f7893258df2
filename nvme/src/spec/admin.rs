//! Admin commands (NVMe Base 2.0, 5): their command dwords.

use bitfield_struct::bitfield;

use super::features::Select;
use super::log_page::lid;
use super::{CommandId, QueueId, Sqe};

/// Command dword 10 of the queue commands.
#[bitfield(u32)]
struct QueueCdw10 {
    qid: u16,
    qsize_z: u16,
}
const _: () = assert!(size_of::<QueueCdw10>() == 4);

#[bitfield(u32)]
struct CreateCqCdw11 {
    contiguous: bool,
    interrupts: bool,
    #[bits(14)]
    reserved: u16,
    vector: u16,
}
const _: () = assert!(size_of::<CreateCqCdw11>() == 4);

#[bitfield(u32)]
struct CreateSqCdw11 {
    contiguous: bool,
    #[bits(2)]
    priority: u8,
    #[bits(13)]
    reserved: u16,
    cqid: u16,
}
const _: () = assert!(size_of::<CreateSqCdw11>() == 4);

/// Create I/O Completion Queue (5.4).
#[derive(Clone, Copy, Debug)]
pub struct CreateCq {
    cdw10: QueueCdw10,
    cdw11: CreateCqCdw11,
}

impl CreateCq {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> CreateCq {
        CreateCq {
            cdw10: sqe.dword(10).into(),
            cdw11: sqe.dword(11).into(),
        }
    }

    /// Command dwords 10 and 11 for a driver.
    pub fn cdws(id: QueueId, qsize_z: u16, vector: Option<u16>) -> [u32; 2] {
        let cdw10 = QueueCdw10::new().with_qid(id.0).with_qsize_z(qsize_z);
        let cdw11 = CreateCqCdw11::new()
            .with_contiguous(true)
            .with_interrupts(vector.is_some())
            .with_vector(vector.unwrap_or(0));
        [cdw10.into(), cdw11.into()]
    }

    /// Queue Identifier.
    pub fn id(&self) -> QueueId {
        QueueId(self.cdw10.qid())
    }

    /// Queue Size, zero-based.
    pub fn qsize_z(&self) -> u16 {
        self.cdw10.qsize_z()
    }

    /// Physically Contiguous.
    pub fn contiguous(&self) -> bool {
        self.cdw11.contiguous()
    }

    /// Interrupt Vector, if interrupts are enabled.
    pub fn vector(&self) -> Option<u16> {
        self.cdw11.interrupts().then_some(self.cdw11.vector())
    }
}

/// Create I/O Submission Queue (5.5).
#[derive(Clone, Copy, Debug)]
pub struct CreateSq {
    cdw10: QueueCdw10,
    cdw11: CreateSqCdw11,
}

impl CreateSq {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> CreateSq {
        CreateSq {
            cdw10: sqe.dword(10).into(),
            cdw11: sqe.dword(11).into(),
        }
    }

    /// Command dwords 10 and 11 for a driver.
    pub fn cdws(id: QueueId, qsize_z: u16, cqid: QueueId) -> [u32; 2] {
        let cdw10 = QueueCdw10::new().with_qid(id.0).with_qsize_z(qsize_z);
        let cdw11 = CreateSqCdw11::new().with_contiguous(true).with_cqid(cqid.0);
        [cdw10.into(), cdw11.into()]
    }

    /// Queue Identifier.
    pub fn id(&self) -> QueueId {
        QueueId(self.cdw10.qid())
    }

    /// Queue Size, zero-based.
    pub fn qsize_z(&self) -> u16 {
        self.cdw10.qsize_z()
    }

    /// Physically Contiguous.
    pub fn contiguous(&self) -> bool {
        self.cdw11.contiguous()
    }

    /// Completion Queue Identifier.
    pub fn cqid(&self) -> QueueId {
        QueueId(self.cdw11.cqid())
    }
}

/// Queue Identifier of Delete I/O Submission Queue and Delete I/O Completion Queue (5.6, 5.7).
pub fn delete_queue_id(sqe: &Sqe) -> QueueId {
    QueueId(QueueCdw10::from(sqe.dword(10)).qid())
}

/// Abort (5.1): where the command was submitted, and its identifier.
pub fn abort_target(sqe: &Sqe) -> (QueueId, CommandId) {
    let cdw10 = QueueCdw10::from(sqe.dword(10));
    (QueueId(cdw10.qid()), CommandId(cdw10.qsize_z()))
}

#[bitfield(u32)]
struct IdentifyCdw10 {
    cns: u8,
    reserved: u8,
    cntid: u16,
}
const _: () = assert!(size_of::<IdentifyCdw10>() == 4);

#[bitfield(u32)]
struct IdentifyCdw11 {
    cns_specific: u16,
    reserved: u8,
    csi: u8,
}
const _: () = assert!(size_of::<IdentifyCdw11>() == 4);

/// Identify (5.17).
#[derive(Clone, Copy, Debug)]
pub struct IdentifyCommand {
    cdw10: IdentifyCdw10,
    cdw11: IdentifyCdw11,
}

impl IdentifyCommand {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> IdentifyCommand {
        IdentifyCommand {
            cdw10: sqe.dword(10).into(),
            cdw11: sqe.dword(11).into(),
        }
    }

    /// Controller or Namespace Structure.
    pub fn cns(&self) -> u8 {
        self.cdw10.cns()
    }

    /// Controller Identifier.
    pub fn cntid(&self) -> u16 {
        self.cdw10.cntid()
    }

    /// Command Set Identifier.
    pub fn csi(&self) -> u8 {
        self.cdw11.csi()
    }

    /// Command dwords 10 and 11 for a driver.
    pub fn cdws(cns: u8, csi: u8) -> [u32; 2] {
        let cdw10 = IdentifyCdw10::new().with_cns(cns);
        let cdw11 = IdentifyCdw11::new().with_csi(csi);
        [cdw10.into(), cdw11.into()]
    }
}

#[bitfield(u32)]
struct LogCdw10 {
    lid: u8,
    #[bits(7)]
    lsp: u8,
    rae: bool,
    numdl: u16,
}
const _: () = assert!(size_of::<LogCdw10>() == 4);

#[bitfield(u32)]
struct LogCdw14 {
    #[bits(7)]
    uuid_index: u8,
    #[bits(16)]
    reserved: u16,
    offset_type: bool,
    csi: u8,
}
const _: () = assert!(size_of::<LogCdw14>() == 4);

/// Get Log Page (5.16).
#[derive(Clone, Copy, Debug)]
pub struct GetLogPage {
    cdw10: LogCdw10,
    numdu: u16,
    offset: u64,
    cdw14: LogCdw14,
}

impl GetLogPage {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> GetLogPage {
        GetLogPage {
            cdw10: sqe.dword(10).into(),
            numdu: sqe.dword(11) as u16,
            offset: u64::from(sqe.dword(12)) | u64::from(sqe.dword(13)) << 32,
            cdw14: sqe.dword(14).into(),
        }
    }

    /// Log Page Identifier.
    pub fn lid(&self) -> u8 {
        self.cdw10.lid()
    }

    /// Retain Asynchronous Event.
    pub fn retain_event(&self) -> bool {
        self.cdw10.rae()
    }

    /// Bytes asked for: the zero-based number of dwords, in bytes.
    pub fn bytes(&self) -> u64 {
        let dwords_z = u64::from(self.cdw10.numdl()) | u64::from(self.numdu) << 16;
        (dwords_z + 1) * 4
    }

    /// Log Page Offset in bytes; bits 1:0 are part of it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True if the offset is an index of data structures.
    pub fn offset_is_index(&self) -> bool {
        self.cdw14.offset_type()
    }

    /// Command Set Identifier.
    pub fn csi(&self) -> u8 {
        self.cdw14.csi()
    }
}

#[bitfield(u32)]
struct FeaturesCdw10 {
    fid: u8,
    #[bits(3)]
    select: u8,
    #[bits(20)]
    reserved: u32,
    save: bool,
}
const _: () = assert!(size_of::<FeaturesCdw10>() == 4);

/// Get Features and Set Features (5.15, 5.27).
#[derive(Clone, Copy, Debug)]
pub struct FeaturesCommand {
    cdw10: FeaturesCdw10,
    value: u32,
}

impl FeaturesCommand {
    /// The fields of an entry.
    pub fn of(sqe: &Sqe) -> FeaturesCommand {
        FeaturesCommand {
            cdw10: sqe.dword(10).into(),
            value: sqe.dword(11),
        }
    }

    /// Feature Identifier.
    pub fn fid(&self) -> u8 {
        self.cdw10.fid()
    }

    /// Select of Get Features.
    pub fn select(&self) -> Select {
        Select(self.cdw10.select())
    }

    /// Save.
    pub fn save(&self) -> bool {
        self.cdw10.save()
    }

    /// Command dword 11.
    pub fn value(&self) -> u32 {
        self.value
    }
}

/// What an asynchronous event is about (5.2.1): dword 0 of its completion.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEvent {
    /// Event type: one of the constants.
    #[bits(3)]
    pub kind: u8,
    #[bits(5)]
    reserved_1: u8,
    /// Event information: which event of its type.
    pub information: u8,
    /// Log page that says more, and whose reading clears the event.
    pub log_page: u8,
    reserved_2: u8,
}
const _: () = assert!(size_of::<AsyncEvent>() == 4);

impl AsyncEvent {
    /// Type: error status.
    pub const ERROR: u8 = 0;
    /// Type: SMART / Health status.
    pub const SMART: u8 = 1;
    /// Type: notice.
    pub const NOTICE: u8 = 2;

    /// A doorbell of a queue that does not exist was written.
    pub const INVALID_DOORBELL_REGISTER: AsyncEvent = AsyncEvent::error(0);
    /// A doorbell was written with a value outside its queue.
    pub const INVALID_DOORBELL_VALUE: AsyncEvent = AsyncEvent::error(1);
    /// A temperature has reached a threshold.
    pub const TEMPERATURE: AsyncEvent = AsyncEvent::new()
        .with_kind(AsyncEvent::SMART)
        .with_information(1)
        .with_log_page(lid::SMART);

    const fn error(information: u8) -> AsyncEvent {
        AsyncEvent::new()
            .with_kind(AsyncEvent::ERROR)
            .with_information(information)
            .with_log_page(lid::ERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Nsid;

    fn sqe(cdws: [u32; 6]) -> Sqe {
        Sqe::new(0, Nsid(0), [0, 0], cdws)
    }

    #[test]
    fn queue_commands_read_what_a_driver_writes() {
        let [cdw10, cdw11] = CreateCq::cdws(QueueId(3), 1023, Some(5));
        assert_eq!((cdw10, cdw11), (0x03ff_0003, 0x0005_0003));
        let create = CreateCq::of(&sqe([cdw10, cdw11, 0, 0, 0, 0]));
        assert_eq!((create.id(), create.qsize_z()), (QueueId(3), 1023));
        assert_eq!((create.contiguous(), create.vector()), (true, Some(5)));
        let [cdw10, cdw11] = CreateSq::cdws(QueueId(4), 7, QueueId(3));
        assert_eq!((cdw10, cdw11), (0x0007_0004, 0x0003_0001));
        let create = CreateSq::of(&sqe([cdw10, cdw11, 0, 0, 0, 0]));
        assert_eq!(
            (create.id(), create.cqid(), create.qsize_z()),
            (QueueId(4), QueueId(3), 7)
        );
    }

    #[test]
    fn a_log_page_is_asked_for_in_dwords_from_an_offset() {
        let log = GetLogPage::of(&sqe([0x007f_8002, 1, 0x10, 2, 0x0080_0000, 0]));
        assert_eq!((log.lid(), log.retain_event()), (2, true));
        assert_eq!(log.bytes(), (0x1_007f + 1) * 4);
        assert_eq!((log.offset(), log.offset_is_index()), (0x2_0000_0010, true));
    }

    #[test]
    fn features_and_abort_and_identify_fields() {
        let feature = FeaturesCommand::of(&sqe([0x8000_0307, 0x55, 0, 0, 0, 0]));
        assert_eq!(
            (feature.fid(), feature.select(), feature.save()),
            (7, Select::CAPABILITIES, true)
        );
        let abort = abort_target(&sqe([0x1234_0005, 0, 0, 0, 0, 0]));
        assert_eq!(abort, (QueueId(5), CommandId(0x1234)));
        let identify = IdentifyCommand::of(&sqe([0x0009_0006, 0x0200_0000, 0, 0, 0, 0]));
        assert_eq!(
            (identify.cns(), identify.cntid(), identify.csi()),
            (6, 9, 2)
        );
        assert_eq!(IdentifyCommand::cdws(6, 2), [6, 0x0200_0000]);
    }

    #[test]
    fn events_are_the_values_that_hosts_know() {
        let register = AsyncEvent::INVALID_DOORBELL_REGISTER;
        assert_eq!(u32::from(register), 0x0001_0000);
        assert_eq!(u32::from(AsyncEvent::INVALID_DOORBELL_VALUE), 0x0001_0100);
        assert_eq!(u32::from(AsyncEvent::TEMPERATURE), 0x0002_0101);
    }
}

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::device::{DmaMap, DmaRange, IrqAction, Selection, SetIrqs};
use crate::frame::FDS_PER_MESSAGE;
use crate::protocol::{
    self, CapabilityHeader, DeviceFeaturePayload, DeviceInfoPayload, DmaMapPayload,
    DmaUnmapPayload, HeaderFlags, IrqInfoPayload, RegionInfoPayload, RegionIoFdsPayload,
    SetIrqsPayload, SingleWrite, VersionPayload, WriteMultiPayload,
};
use crate::scripted::{Call, Scripted};
use crate::{irq, region};

/// A session, its device, and what it has sent.
struct Rig {
    session: Session,
    device: Scripted,
    outbox: Outbox,
    message_id: u16,
}

/// A reply, taken apart.
#[derive(Debug)]
struct Answer {
    header: Header,
    body: Vec<u8>,
    has_fd: bool,
}

impl Answer {
    fn errno(&self) -> Errno {
        assert_eq!(self.header.flags, HeaderFlags::ERROR_REPLY);
        assert_eq!(self.body.len(), 0);
        Errno::from_raw(self.header.error as i32)
    }

    fn body<T: FromBytes>(&self) -> T {
        assert_eq!(self.header.flags, HeaderFlags::REPLY, "{self:?}");
        protocol::take_all(&self.body).expect("the right size")
    }

    fn is_empty_success(&self) -> bool {
        self.header.flags == HeaderFlags::REPLY && self.body.is_empty() && !self.has_fd
    }
}

impl Rig {
    fn silent() -> Rig {
        let device = Scripted::new();
        let session = Session::new(ServerLimits::default(), &device);
        Rig {
            session,
            device,
            outbox: Outbox::default(),
            message_id: 7,
        }
    }

    fn new() -> Rig {
        Rig::with_capabilities("{\"capabilities\":{\"max_msg_fds\":8}}\0")
    }

    fn with_capabilities(json: &str) -> Rig {
        let mut rig = Rig::silent();
        let body = [&[0; 4], json.as_bytes()].concat();
        assert_eq!(
            rig.ask(Command::VERSION, &body).header.flags,
            HeaderFlags::REPLY
        );
        rig
    }

    /// Hands over a message and takes the replies out.
    fn tell(&mut self, header: Header, body: &[u8], fds: usize) -> (Flow, Vec<Answer>) {
        let size = (HEADER_SIZE + body.len()) as u32;
        let header = Header { size, ..header };
        let message = Message {
            header,
            body,
            fds: some_fds(fds),
            fds_lost: None,
        };
        let flow = self
            .session
            .handle(message, &mut self.device, &mut self.outbox);
        (flow, self.answers())
    }

    fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while !self.outbox.is_empty() {
            let (bytes, fd) = self.outbox.front();
            let has_fd = fd.is_some();
            let (header, rest) = protocol::take::<Header>(bytes).expect("a header");
            let body = rest[..header.size as usize - HEADER_SIZE].to_vec();
            answers.push(Answer {
                header,
                body,
                has_fd,
            });
            self.outbox.advance(header.size as usize);
        }
        answers
    }

    fn ask_with_fds(&mut self, command: Command, body: &[u8], fds: usize) -> Answer {
        self.message_id += 1;
        let message_id = self.message_id;
        let header = Header {
            message_id,
            command,
            ..Header::default()
        };
        let (_, mut answers) = self.tell(header, body, fds);
        assert_eq!(answers.len(), 1);
        let answer = answers.remove(0);
        assert_eq!(
            (answer.header.message_id, answer.header.command),
            (message_id, command)
        );
        answer
    }

    fn ask(&mut self, command: Command, body: &[u8]) -> Answer {
        self.ask_with_fds(command, body, 0)
    }

    fn read(&mut self, region: u32, offset: u64, count: u32) -> Answer {
        let access = RegionAccess {
            offset,
            region,
            count,
        };
        self.ask(Command::REGION_READ, access.as_bytes())
    }

    fn write(&mut self, access: RegionAccess, data: &[u8]) -> Answer {
        self.ask(Command::REGION_WRITE, &[access.as_bytes(), data].concat())
    }

    fn set_irqs(&mut self, request: SetIrqsPayload, data: &[u8], fds: usize) -> Answer {
        let body = [request.as_bytes(), data].concat();
        self.ask_with_fds(Command::DEVICE_SET_IRQS, &body, fds)
    }
}

fn some_fds(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|_| File::open("/dev/null").expect("/dev/null").into())
        .collect()
}

fn command(command: Command) -> Header {
    Header {
        message_id: 99,
        command,
        ..Header::default()
    }
}

const MAP: DmaMapPayload = DmaMapPayload {
    argsz: 32,
    flags: 3,
    offset: 0x1000,
    address: 0x10_0000,
    size: 0x2000,
};
const UNMAP: DmaUnmapPayload = DmaUnmapPayload {
    argsz: 24,
    flags: 0,
    address: 0x10_0000,
    size: 0x2000,
};

#[test]
fn anything_before_a_version_is_refused_and_ends_the_session() {
    for number in 0..20 {
        let mut rig = Rig::silent();
        let (flow, answers) = rig.tell(command(Command(number)), &[0; 64], 0);
        assert!(matches!(flow, Flow::Close(_)), "{number}");
        assert_eq!(answers[0].errno(), Errno::EINVAL);
        assert_eq!(rig.device.take_calls(), []);
    }
}

#[test]
fn a_version_that_nobody_speaks_ends_the_session() {
    let mut rig = Rig::silent();
    let body = VersionPayload { major: 1, minor: 0 };
    let (flow, answers) = rig.tell(command(Command::VERSION), body.as_bytes(), 0);
    assert!(matches!(flow, Flow::Close(_)));
    assert_eq!(answers[0].errno(), Errno::EINVAL);
}

#[test]
fn a_version_that_wants_no_reply_ends_the_session() {
    let mut rig = Rig::silent();
    let header = Header {
        flags: HeaderFlags::NO_REPLY,
        ..command(Command::VERSION)
    };
    let (flow, answers) = rig.tell(header, &[0; 4], 0);
    assert!(matches!(flow, Flow::Close(_)) && answers.is_empty());
}

#[test]
fn a_second_version_is_refused_and_the_session_goes_on() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask(Command::VERSION, &[0; 4]).errno(), Errno::EINVAL);
    assert!(rig.ask(Command::DEVICE_RESET, &[]).is_empty_success());
}

#[test]
fn commands_that_are_unknown_or_not_for_a_server_are_refused() {
    let mut rig = Rig::new();
    for (number, errno) in [
        (0, Errno::ENOSYS),
        (11, Errno::EINVAL),
        (12, Errno::EINVAL),
        (14, Errno::ENOTSUP),
        (17, Errno::ENOTSUP),
        (18, Errno::ENOTSUP),
        (19, Errno::ENOSYS),
        (0xffff, Errno::ENOSYS),
    ] {
        assert_eq!(
            rig.ask(Command(number), &[0; 64]).errno(),
            errno,
            "{number}"
        );
    }
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn a_reply_from_a_client_is_passed_over() {
    let mut rig = Rig::new();
    for flags in [HeaderFlags::REPLY, HeaderFlags::ERROR_REPLY] {
        let header = Header {
            flags,
            ..command(Command::DEVICE_RESET)
        };
        let (flow, answers) = rig.tell(header, &[], 2);
        assert!(flow == Flow::Continue && answers.is_empty());
    }
    assert_eq!(rig.device.take_calls(), []);
    assert_eq!(rig.device.discarded, 4);
}

#[test]
fn a_message_of_no_known_type_is_refused() {
    let mut rig = Rig::new();
    let header = Header {
        flags: HeaderFlags(2),
        ..command(Command::DEVICE_RESET)
    };
    let (_, answers) = rig.tell(header, &[], 0);
    assert_eq!(answers[0].errno(), Errno::EINVAL);
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn a_command_that_wants_no_reply_gets_none_not_even_an_error() {
    let mut rig = Rig::new();
    let quiet = |number| Header {
        flags: HeaderFlags::NO_REPLY,
        ..command(number)
    };
    assert_eq!(rig.tell(quiet(Command::DEVICE_RESET), &[], 0).1.len(), 0);
    assert_eq!(rig.device.take_calls(), [Call::Reset]);
    assert_eq!(rig.tell(quiet(Command(77)), &[], 0).1.len(), 0);
    rig.device.replies.push_back(Ok(Outcome::Pending));
    rig.device
        .pending
        .extend([Ok(Outcome::Pending), Err(Errno::EIO)]);
    assert_eq!(
        rig.tell(quiet(Command::DEVICE_RESET), &[], 0).0,
        Flow::Pending
    );
    for expected in [Flow::Pending, Flow::Continue] {
        assert_eq!(
            rig.session.poll_pending(&mut rig.device, &mut rig.outbox),
            expected
        );
        assert!(rig.outbox.is_empty());
    }
    let info = RegionInfoPayload {
        argsz: 64,
        ..Default::default()
    };
    let (_, answers) = rig.tell(quiet(Command::DEVICE_GET_REGION_INFO), info.as_bytes(), 0);
    assert_eq!(answers.len(), 0);
    assert!(rig.ask(Command::DEVICE_RESET, &[]).is_empty_success());
}

#[test]
fn descriptors_are_refused_where_none_belong_and_all_are_discarded() {
    let mut rig = Rig::new();
    for number in (1..19).filter(|number| ![2, 8].contains(number)) {
        assert!(
            rig.ask_with_fds(Command(number), &[0; 24], 2)
                .header
                .flags
                .is_error()
        );
    }
    assert_eq!(
        rig.ask_with_fds(Command::DEVICE_RESET, &[], 1).errno(),
        Errno::EINVAL
    );
    assert_eq!(
        rig.ask_with_fds(Command::DMA_UNMAP, UNMAP.as_bytes(), 1)
            .errno(),
        Errno::EINVAL
    );
    assert_eq!(rig.device.discarded, 2 * 16 + 2);
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn lost_descriptors_are_the_error_of_their_message() {
    let mut rig = Rig::new();
    let header = Header {
        size: 48,
        ..command(Command::DMA_MAP)
    };
    let fds_lost = Some(Errno::EMFILE);
    let message = Message {
        header,
        body: MAP.as_bytes(),
        fds: some_fds(1),
        fds_lost,
    };
    rig.session
        .handle(message, &mut rig.device, &mut rig.outbox);
    assert_eq!(rig.answers()[0].errno(), Errno::EMFILE);
    assert_eq!(
        (rig.device.discarded, rig.device.take_calls().len()),
        (1, 0)
    );
}

#[test]
fn device_info_is_given_for_either_reading_of_argsz() {
    let mut rig = Rig::new();
    for argsz in [16, 32] {
        let request = DeviceInfoPayload {
            argsz,
            ..Default::default()
        };
        let info: DeviceInfoPayload = rig.ask(Command::DEVICE_GET_INFO, request.as_bytes()).body();
        let expected = DeviceInfoPayload {
            argsz: 16,
            flags: 3,
            num_regions: 9,
            num_irqs: 5,
        };
        assert_eq!(info, expected);
    }
    let short = DeviceInfoPayload {
        argsz: 15,
        ..Default::default()
    };
    assert_eq!(
        rig.ask(Command::DEVICE_GET_INFO, short.as_bytes()).errno(),
        Errno::EINVAL
    );
    assert_eq!(
        rig.ask(Command::DEVICE_GET_INFO, &[32; 15]).errno(),
        Errno::EINVAL
    );
}

#[test]
fn region_info_comes_in_two_steps_as_clients_ask_for_it() {
    let mut rig = Rig::new();
    let request = RegionInfoPayload {
        argsz: 32,
        index: region::BAR0,
        ..Default::default()
    };
    let short = rig.ask(Command::DEVICE_GET_REGION_INFO, request.as_bytes());
    assert!(!short.has_fd);
    let info: RegionInfoPayload = short.body();
    assert_eq!(
        (info.argsz, info.flags, info.cap_offset, info.size),
        (64, 7, 0, 0x4000)
    );

    let request = RegionInfoPayload {
        argsz: info.argsz,
        ..request
    };
    let whole = rig.ask(Command::DEVICE_GET_REGION_INFO, request.as_bytes());
    assert!(whole.has_fd);
    assert_eq!(whole.header.size, 80);
    let (info, rest) = protocol::take::<RegionInfoPayload>(&whole.body).expect("region info");
    assert_eq!(
        (info.argsz, info.flags, info.cap_offset, info.size),
        (64, 0xf, 32, 0x4000)
    );
    let (capability, _) = protocol::take::<CapabilityHeader>(rest).expect("a capability");
    assert_eq!(
        capability,
        CapabilityHeader {
            id: 1,
            version: 1,
            next: 0
        }
    );
}

#[test]
fn regions_that_cannot_be_mapped_take_one_step() {
    let mut rig = Rig::new();
    for (index, size, flags) in [
        (1, 0, 0),
        (4, 0x2000, 3),
        (region::ROM, 0x800, 1),
        (region::CONFIG, 0x1000, 3),
    ] {
        let request = RegionInfoPayload {
            argsz: 32,
            index,
            ..Default::default()
        };
        let answer = rig.ask(Command::DEVICE_GET_REGION_INFO, request.as_bytes());
        assert!(!answer.has_fd);
        let expected = RegionInfoPayload {
            argsz: 32,
            flags,
            index,
            size,
            ..Default::default()
        };
        assert_eq!(answer.body::<RegionInfoPayload>(), expected);
    }
}

#[test]
fn a_client_that_takes_no_descriptors_is_told_of_no_mapping() {
    let mut rig = Rig::with_capabilities("{\"capabilities\":{\"max_msg_fds\":0}}\0");
    let request = RegionInfoPayload {
        argsz: 64,
        ..Default::default()
    };
    let answer = rig.ask(Command::DEVICE_GET_REGION_INFO, request.as_bytes());
    let info: RegionInfoPayload = answer.body();
    assert_eq!((info.argsz, info.flags, answer.has_fd), (32, 3, false));
}

#[test]
fn questions_about_what_is_not_there_are_refused() {
    let mut rig = Rig::new();
    let region = RegionInfoPayload {
        argsz: 32,
        index: 9,
        ..Default::default()
    };
    let region_short = RegionInfoPayload {
        argsz: 31,
        index: 0,
        ..Default::default()
    };
    let irq = IrqInfoPayload {
        argsz: 16,
        index: 5,
        ..Default::default()
    };
    let irq_short = IrqInfoPayload {
        argsz: 15,
        index: 0,
        ..Default::default()
    };
    let fds = RegionIoFdsPayload {
        argsz: 16,
        index: 9,
        ..Default::default()
    };
    let fds_flags = RegionIoFdsPayload {
        argsz: 16,
        flags: 1,
        ..Default::default()
    };
    let fds_short = RegionIoFdsPayload {
        argsz: 15,
        ..Default::default()
    };
    for (number, body) in [
        (Command::DEVICE_GET_REGION_INFO, region.as_bytes()),
        (Command::DEVICE_GET_REGION_INFO, region_short.as_bytes()),
        (Command::DEVICE_GET_REGION_INFO, &region.as_bytes()[..31]),
        (Command::DEVICE_GET_IRQ_INFO, irq.as_bytes()),
        (Command::DEVICE_GET_IRQ_INFO, irq_short.as_bytes()),
        (Command::DEVICE_GET_REGION_IO_FDS, fds.as_bytes()),
        (Command::DEVICE_GET_REGION_IO_FDS, fds_flags.as_bytes()),
        (Command::DEVICE_GET_REGION_IO_FDS, fds_short.as_bytes()),
    ] {
        assert_eq!(rig.ask(number, body).errno(), Errno::EINVAL, "{number}");
    }
}

#[test]
fn irq_info_and_region_io_fds_are_answered() {
    let mut rig = Rig::new();
    let request = IrqInfoPayload {
        argsz: 16,
        index: irq::MSIX,
        ..Default::default()
    };
    let info: IrqInfoPayload = rig
        .ask(Command::DEVICE_GET_IRQ_INFO, request.as_bytes())
        .body();
    assert_eq!(
        info,
        IrqInfoPayload {
            argsz: 16,
            flags: 1,
            index: 2,
            count: 64
        }
    );
    let request = RegionIoFdsPayload {
        argsz: 4096,
        ..Default::default()
    };
    let none: RegionIoFdsPayload = rig
        .ask(Command::DEVICE_GET_REGION_IO_FDS, request.as_bytes())
        .body();
    assert_eq!(
        none,
        RegionIoFdsPayload {
            argsz: 16,
            flags: 0,
            index: 0,
            count: 0
        }
    );
}

#[test]
fn no_device_feature_is_known() {
    let mut rig = Rig::new();
    for (argsz, flags, errno) in [
        (8, 1 << 16 | 1, Errno::ENOTTY),
        (8, 1 << 17 | 2, Errno::ENOTTY),
        (8, 7 << 16 | 6, Errno::ENOTTY),
        (8, 3 << 16 | 6, Errno::EINVAL),
        (8, 1, Errno::EINVAL),
        (8, 1 << 19 | 1 << 16, Errno::EINVAL),
        (7, 1 << 16 | 1, Errno::EINVAL),
    ] {
        let request = DeviceFeaturePayload { argsz, flags };
        let answer = rig.ask(Command::DEVICE_FEATURE, request.as_bytes());
        assert_eq!(answer.errno(), errno, "{flags:x}");
    }
}

#[test]
fn a_read_echoes_the_request_before_the_data() {
    let mut rig = Rig::new();
    let answer = rig.read(region::CONFIG, 0x10, 4);
    let echo = RegionAccess {
        offset: 0x10,
        region: region::CONFIG,
        count: 4,
    };
    assert_eq!(answer.header.flags, HeaderFlags::REPLY);
    assert_eq!(
        answer.body,
        [echo.as_bytes(), &[0x10, 0x11, 0x12, 0x13]].concat()
    );
    assert_eq!(rig.read(region::CONFIG, 0, 4096).body.len(), 16 + 4096);
    assert_eq!(rig.read(region::BAR0, 0x1000, 8).body.len(), 16 + 8);
    rig.device.take_calls();
    assert_eq!(rig.read(region::CONFIG, 0x1000, 0).body.len(), 16);
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn an_access_that_leaves_its_region_is_refused() {
    let mut rig = Rig::new();
    for (region, offset, count) in [
        (region::CONFIG, 0xffd, 4),
        (region::CONFIG, 0x1000, 1),
        (region::CONFIG, u64::MAX, 1),
        (region::CONFIG, u64::MAX - 3, 4),
        (region::CONFIG, 0, u32::MAX),
        (1, 0, 4),
        (1, 0, 0),
        (9, 0, 4),
        (u32::MAX, 0, 4),
    ] {
        assert_eq!(rig.read(region, offset, count).errno(), Errno::EINVAL);
        let access = RegionAccess {
            offset,
            region,
            count,
        };
        let data = vec![0; count.min(8) as usize];
        assert_eq!(rig.write(access, &data).errno(), Errno::EINVAL);
    }
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn counts_are_held_to_the_limits_of_both_sides() {
    let mut rig = Rig::with_capabilities("{\"capabilities\":{\"max_data_xfer_size\":64}}\0");
    assert_eq!(rig.read(region::BAR0, 0, 64).body.len(), 16 + 64);
    assert_eq!(rig.read(region::BAR0, 0, 65).errno(), Errno::EINVAL);
    let access = RegionAccess {
        offset: 0,
        region: region::BAR0,
        count: 65,
    };
    assert_eq!(rig.write(access, &[0; 65]).body::<RegionAccess>(), access);

    rig.session.limits.data_transfer_max = 32;
    assert_eq!(rig.write(access, &[0; 65]).errno(), Errno::EINVAL);
    assert_eq!(rig.read(region::BAR0, 0, 33).errno(), Errno::EINVAL);
}

#[test]
fn a_write_echoes_the_request_without_data() {
    let mut rig = Rig::new();
    let access = RegionAccess {
        offset: 0x14,
        region: region::BAR0,
        count: 4,
    };
    let answer = rig.write(access, &[1, 2, 3, 4]);
    assert_eq!(answer.header.size, 32);
    assert_eq!(answer.body::<RegionAccess>(), access);
    assert_eq!(
        rig.device.take_calls(),
        [Call::Write(0, 0x14, vec![1, 2, 3, 4])]
    );
    for data in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[]] {
        assert_eq!(rig.write(access, data).errno(), Errno::EINVAL);
    }
    let rom = RegionAccess {
        region: region::ROM,
        ..access
    };
    assert_eq!(rig.write(rom, &[0; 4]).errno(), Errno::EINVAL);
    assert_eq!(rig.read(Scripted::WRITE_ONLY, 0, 4).errno(), Errno::EINVAL);
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn errors_of_the_device_reach_the_client() {
    let mut rig = Rig::new();
    rig.device.read_error = Some(Errno::EIO);
    assert_eq!(rig.read(region::CONFIG, 0, 4).errno(), Errno::EIO);
    rig.device.replies.extend([
        Err(Errno::EEXIST),
        Err(Errno::ENOENT),
        Err(Errno::ETIMEDOUT),
    ]);
    assert_eq!(
        rig.ask_with_fds(Command::DMA_MAP, MAP.as_bytes(), 1)
            .errno(),
        Errno::EEXIST
    );
    assert_eq!(
        rig.ask(Command::DMA_UNMAP, UNMAP.as_bytes()).errno(),
        Errno::ENOENT
    );
    assert_eq!(
        rig.ask(Command::DEVICE_RESET, &[]).errno(),
        Errno::ETIMEDOUT
    );
}

fn writes(list: &[(u32, u64, &[u8])]) -> Vec<u8> {
    let mut body = WriteMultiPayload {
        wr_cnt: list.len() as u64,
    }
    .as_bytes()
    .to_vec();
    for (region, offset, data) in list {
        let access = RegionAccess {
            offset: *offset,
            region: *region,
            count: data.len() as u32,
        };
        let mut write = SingleWrite {
            access,
            data: [0xee; 8],
        };
        write.data[..data.len()].copy_from_slice(data);
        body.extend_from_slice(write.as_bytes());
    }
    body
}

#[test]
fn several_writes_are_carried_out_in_order() {
    let mut rig = Rig::new();
    let body = writes(&[(0, 0x1000, &[1; 4]), (7, 4, &[2; 2]), (0, 8, &[3; 8])]);
    let answer = rig.ask(Command::REGION_WRITE_MULTI, &body);
    assert_eq!(answer.body::<WriteMultiPayload>().wr_cnt, 3);
    let expected = [
        Call::Write(0, 0x1000, vec![1; 4]),
        Call::Write(7, 4, vec![2; 2]),
        Call::Write(0, 8, vec![3; 8]),
    ];
    assert_eq!(rig.device.take_calls(), expected);
}

#[test]
fn several_writes_wait_for_one_that_is_pending_and_end_at_one_that_fails() {
    let mut rig = Rig::new();
    let body = writes(&[(7, 0, &[1]), (7, 1, &[2]), (7, 2, &[3]), (7, 3, &[4])]);
    rig.device.replies.extend([
        Ok(Outcome::Done),
        Ok(Outcome::Pending),
        Ok(Outcome::Pending),
    ]);
    rig.device
        .pending
        .extend([Ok(Outcome::Pending), Ok(Outcome::Done), Ok(Outcome::Done)]);
    let (flow, answers) = rig.tell(command(Command::REGION_WRITE_MULTI), &body, 0);
    assert!(flow == Flow::Pending && answers.is_empty());
    assert_eq!(rig.device.take_calls().len(), 2);
    for (calls, expected) in [(0, Flow::Pending), (1, Flow::Pending), (1, Flow::Continue)] {
        assert!(rig.answers().is_empty());
        assert_eq!(
            rig.session.poll_pending(&mut rig.device, &mut rig.outbox),
            expected
        );
        assert_eq!(rig.device.take_calls().len(), calls);
    }
    let answers = rig.answers();
    assert_eq!(answers[0].header.message_id, 99);
    assert_eq!(answers[0].body::<WriteMultiPayload>().wr_cnt, 4);

    rig.device
        .replies
        .extend([Ok(Outcome::Pending), Err(Errno::EIO)]);
    rig.device.pending.push_back(Ok(Outcome::Done));
    rig.tell(command(Command::REGION_WRITE_MULTI), &body, 0);
    let flow = rig.session.poll_pending(&mut rig.device, &mut rig.outbox);
    assert_eq!(flow, Flow::Continue);
    assert_eq!(rig.answers()[0].errno(), Errno::EIO);
    assert_eq!(rig.device.take_calls().len(), 2);

    rig.device.replies.push_back(Ok(Outcome::Pending));
    rig.device.pending.push_back(Ok(Outcome::Done));
    let access = RegionAccess {
        offset: 0,
        region: 7,
        count: 1,
    };
    let body = [access.as_bytes(), &[1]].concat();
    rig.tell(command(Command::REGION_WRITE), &body, 0);
    assert_eq!(
        rig.session.poll_pending(&mut rig.device, &mut rig.outbox),
        Flow::Continue
    );
    assert_eq!(
        rig.device.take_calls().len(),
        1,
        "writes of a failed message were carried out"
    );
}

#[test]
fn several_writes_of_the_wrong_shape_are_refused() {
    let mut rig = Rig::new();
    let mut short = writes(&[(7, 0, &[1])]);
    short.pop();
    let mut wide = writes(&[(7, 0, &[1])]);
    wide[8 + 12] = 9;
    let mut more = writes(&[(7, 0, &[1])]);
    more[0] = 2;
    let mut huge = writes(&[(7, 0, &[1])]);
    huge[7] = 0x80;
    let many: Vec<(u32, u64, &[u8])> = vec![(7, 0, &[1]); WRITES_PER_MESSAGE + 1];
    for body in [&short, &wide, &more, &huge, &writes(&many), &vec![0; 7]] {
        assert_eq!(
            rig.ask(Command::REGION_WRITE_MULTI, body).errno(),
            Errno::EINVAL
        );
    }
    assert_eq!(rig.device.take_calls(), []);
    let none = rig.ask(Command::REGION_WRITE_MULTI, &writes(&[]));
    assert_eq!(none.body::<WriteMultiPayload>().wr_cnt, 0);
}

#[test]
fn memory_is_mapped_with_and_without_a_descriptor() {
    let mut rig = Rig::new();
    let map = DmaMap {
        iova: 0x10_0000,
        len: 0x2000,
        offset: 0x1000,
        read: true,
        write: true,
    };
    assert!(
        rig.ask_with_fds(Command::DMA_MAP, MAP.as_bytes(), 1)
            .is_empty_success()
    );
    let read_only = DmaMapPayload {
        flags: 1,
        offset: 0,
        ..MAP
    };
    assert!(
        rig.ask(Command::DMA_MAP, read_only.as_bytes())
            .is_empty_success()
    );
    let expected = [
        Call::Map(map, true),
        Call::Map(
            DmaMap {
                write: false,
                offset: 0,
                ..map
            },
            false,
        ),
    ];
    assert_eq!(rig.device.take_calls(), expected);
    let last = DmaMapPayload {
        address: u64::MAX - 0xfff,
        size: 0x1000,
        ..MAP
    };
    assert!(
        rig.ask_with_fds(Command::DMA_MAP, last.as_bytes(), 1)
            .is_empty_success()
    );
}

#[test]
fn a_map_that_makes_no_sense_is_refused() {
    let mut rig = Rig::new();
    for request in [
        DmaMapPayload { argsz: 31, ..MAP },
        DmaMapPayload { flags: 0, ..MAP },
        DmaMapPayload { flags: 7, ..MAP },
        DmaMapPayload { size: 0, ..MAP },
        DmaMapPayload {
            address: u64::MAX - 0xfff,
            size: 0x1001,
            ..MAP
        },
        DmaMapPayload {
            offset: u64::MAX - 0xfff,
            size: 0x1000,
            ..MAP
        },
    ] {
        let answer = rig.ask_with_fds(Command::DMA_MAP, request.as_bytes(), 1);
        assert_eq!(answer.errno(), Errno::EINVAL, "{request:?}");
    }
    assert_eq!(
        rig.ask_with_fds(Command::DMA_MAP, MAP.as_bytes(), 2)
            .errno(),
        Errno::EINVAL
    );
    assert_eq!(
        rig.ask(Command::DMA_MAP, &MAP.as_bytes()[..31]).errno(),
        Errno::EINVAL
    );
    assert_eq!(rig.device.discarded, 6 + 2);
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn memory_is_unmapped_exactly_or_all_at_once() {
    let mut rig = Rig::new();
    let all = DmaUnmapPayload {
        argsz: 24,
        flags: 2,
        address: 0,
        size: 0,
    };
    for request in [UNMAP, all] {
        let echo: DmaUnmapPayload = rig.ask(Command::DMA_UNMAP, request.as_bytes()).body();
        assert_eq!(echo, request);
    }
    let exact = DmaRange::Exact {
        iova: 0x10_0000,
        len: 0x2000,
    };
    assert_eq!(
        rig.device.take_calls(),
        [Call::Unmap(exact), Call::Unmap(DmaRange::All)]
    );
}

#[test]
fn an_unmap_that_makes_no_sense_is_refused() {
    let mut rig = Rig::new();
    for (request, errno) in [
        (DmaUnmapPayload { argsz: 23, ..UNMAP }, Errno::EINVAL),
        (DmaUnmapPayload { size: 0, ..UNMAP }, Errno::EINVAL),
        (
            DmaUnmapPayload {
                address: u64::MAX,
                ..UNMAP
            },
            Errno::EINVAL,
        ),
        (DmaUnmapPayload { flags: 2, ..UNMAP }, Errno::EINVAL),
        (
            DmaUnmapPayload {
                flags: 2,
                size: 0,
                ..UNMAP
            },
            Errno::EINVAL,
        ),
        (DmaUnmapPayload { flags: 4, ..UNMAP }, Errno::EINVAL),
        (DmaUnmapPayload { flags: 1, ..UNMAP }, Errno::ENOTSUP),
    ] {
        let answer = rig.ask(Command::DMA_UNMAP, request.as_bytes());
        assert_eq!(answer.errno(), errno, "{request:?}");
    }
    assert_eq!(rig.device.take_calls(), []);
}

#[test]
fn a_pending_operation_is_answered_when_it_is_over() {
    let mut rig = Rig::new();
    rig.device.replies.push_back(Ok(Outcome::Pending));
    rig.device
        .pending
        .extend([Ok(Outcome::Pending), Ok(Outcome::Done)]);
    let (flow, answers) = rig.tell(command(Command::DMA_UNMAP), UNMAP.as_bytes(), 0);
    assert!(flow == Flow::Pending && answers.is_empty() && rig.session.is_pending());
    assert_eq!(
        rig.session.poll_pending(&mut rig.device, &mut rig.outbox),
        Flow::Pending
    );
    assert!(rig.answers().is_empty());
    assert_eq!(
        rig.session.poll_pending(&mut rig.device, &mut rig.outbox),
        Flow::Continue
    );
    let answers = rig.answers();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].header.message_id, 99);
    assert_eq!(answers[0].body::<DmaUnmapPayload>(), UNMAP);
    assert!(!rig.session.is_pending());
}

#[test]
fn a_pending_operation_that_fails_is_answered_with_its_errno() {
    let mut rig = Rig::new();
    rig.device.replies.push_back(Ok(Outcome::Pending));
    rig.device.pending.push_back(Err(Errno::ETIMEDOUT));
    rig.tell(command(Command::DEVICE_RESET), &[], 0);
    assert_eq!(
        rig.session.poll_pending(&mut rig.device, &mut rig.outbox),
        Flow::Continue
    );
    let answers = rig.answers();
    assert_eq!(answers[0].errno(), Errno::ETIMEDOUT);
    assert_eq!(answers[0].header.command, Command::DEVICE_RESET);
}

const MSIX: SetIrqsPayload = SetIrqsPayload {
    argsz: 20,
    flags: 0x24,
    index: irq::MSIX,
    start: 1,
    count: 2,
};

#[test]
fn every_form_of_set_irqs_is_understood() {
    use IrqAction::{Mask, Trigger, Unmask};
    let chosen = || Selection::Each(vec![true, false]);
    let forms: [(u32, IrqAction); 6] = [
        (0x21, Trigger(Selection::All)),
        (0x22, Trigger(chosen())),
        (0x09, Mask(Selection::All)),
        (0x0a, Mask(chosen())),
        (0x11, Unmask(Selection::All)),
        (0x12, Unmask(chosen())),
    ];
    let mut rig = Rig::new();
    for (flags, action) in forms {
        let request = SetIrqsPayload { flags, ..MSIX };
        let data: &[u8] = if flags & 2 != 0 { &[7, 0] } else { &[] };
        assert!(
            rig.set_irqs(request, data, 0).is_empty_success(),
            "{flags:x}"
        );
        let expected: SetIrqs = SetIrqs {
            index: irq::MSIX,
            start: 1,
            count: 2,
            action,
        };
        assert_eq!(
            format!("{:?}", rig.device.irqs.pop()),
            format!("{:?}", Some(expected))
        );
    }
    for flags in [0x24, 0x0c, 0x14] {
        for sent in [0, 2] {
            let request = SetIrqsPayload { flags, ..MSIX };
            assert!(
                rig.set_irqs(request, &[], sent).is_empty_success(),
                "{flags:x}"
            );
            let action = rig.device.irqs.pop().map(|irqs| irqs.action);
            let fds = match (flags, action) {
                (0x24, Some(IrqAction::Eventfds(fds)))
                | (0x0c, Some(IrqAction::MaskEventfds(fds)))
                | (0x14, Some(IrqAction::UnmaskEventfds(fds))) => fds,
                other => panic!("{other:?}"),
            };
            assert_eq!(fds.len(), 2);
            assert!(fds.iter().all(|fd| fd.is_some() == (sent == 2)));
        }
    }
    assert_eq!(rig.device.discarded, 0);
}

#[test]
fn an_index_is_disabled_even_where_it_has_no_interrupts() {
    let mut rig = Rig::new();
    let disable = SetIrqsPayload {
        flags: 0x21,
        start: 0,
        count: 0,
        ..MSIX
    };
    for index in [irq::MSIX, irq::MSI] {
        assert!(
            rig.set_irqs(SetIrqsPayload { index, ..disable }, &[], 0)
                .is_empty_success()
        );
        let expected: SetIrqs = SetIrqs {
            index,
            start: 0,
            count: 0,
            action: IrqAction::Disable,
        };
        assert_eq!(
            format!("{:?}", rig.device.irqs.pop()),
            format!("{:?}", Some(expected))
        );
    }
}

#[test]
fn sixteen_eventfds_fit_and_all_vectors_are_unbound_at_once() {
    let mut rig = Rig::new();
    let request = SetIrqsPayload {
        start: 48,
        count: 16,
        ..MSIX
    };
    assert!(
        rig.set_irqs(request, &[], FDS_PER_MESSAGE)
            .is_empty_success()
    );
    let request = SetIrqsPayload {
        start: 0,
        count: 64,
        ..MSIX
    };
    assert!(rig.set_irqs(request, &[], 0).is_empty_success());
}

#[test]
fn set_irqs_that_makes_no_sense_is_refused() {
    const MAX: u32 = u32::MAX;
    // argsz, flags, index, start, count; descriptors.
    let cases: [([u32; 5], usize); 25] = [
        // Flags: none, no action, no data, two of either, unknown.
        ([20, 0x00, 2, 1, 2], 0),
        ([20, 0x04, 2, 1, 2], 2),
        ([20, 0x20, 2, 1, 2], 0),
        ([20, 0x34, 2, 1, 2], 2),
        ([20, 0x38, 2, 1, 2], 0),
        ([20, 0x25, 2, 1, 2], 0),
        ([20, 0x23, 2, 1, 2], 0),
        ([20, 0x64, 2, 1, 2], 2),
        // Ranges.
        ([20, 0x24, 2, 63, 2], 2),
        ([20, 0x24, 2, MAX, 2], 2),
        ([20, 0x24, 2, 0, 65], 0),
        ([20, 0x24, 2, 1, MAX], 0),
        ([20, 0x24, 1, 0, 1], 1),
        ([20, 0x24, 5, 1, 2], 2),
        ([20, 0x21, 5, 0, 0], 0),
        // A count of 0 that is not "disable".
        ([20, 0x24, 2, 1, 0], 0),
        ([20, 0x21, 2, 1, 0], 0),
        ([20, 0x11, 2, 0, 0], 0),
        ([20, 0x21, 2, 0, 0], 1),
        // Descriptors.
        ([20, 0x24, 2, 1, 2], 1),
        ([20, 0x24, 2, 1, 2], 3),
        ([20, 0x21, 2, 1, 2], 2),
        ([20, 0x22, 2, 1, 2], 2),
        // Sizes: of the structure, of the booleans.
        ([19, 0x24, 2, 1, 2], 2),
        ([21, 0x22, 2, 1, 2], 0),
    ];
    let mut rig = Rig::new();
    let mut sent = 0;
    for (words, fds) in cases {
        sent += fds;
        let body = [words.as_bytes(), &[1]].concat();
        let answer = rig.ask_with_fds(Command::DEVICE_SET_IRQS, &body, fds);
        assert_eq!(answer.errno(), Errno::EINVAL, "{words:x?} {fds}");
    }
    let cut = &MSIX.as_bytes()[..19];
    assert_eq!(
        rig.ask(Command::DEVICE_SET_IRQS, cut).errno(),
        Errno::EINVAL
    );
    assert_eq!(rig.device.take_calls(), []);
    assert_eq!(rig.device.discarded, sent);
}

#[test]
fn a_reset_with_a_payload_is_refused() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask(Command::DEVICE_RESET, &[0]).errno(), Errno::EINVAL);
    assert_eq!(rig.device.take_calls(), []);
}

/// Words that are likely to be near something.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0_u32..40,
        1 => prop::sample::select(vec![64, 0x1000, 0x4000, 0x7fff_ffff, u32::MAX - 3, u32::MAX]),
        1 => any::<u32>(),
    ]
}

fn any_message() -> impl Strategy<Value = (u16, u32, Vec<u32>, usize, usize)> {
    let flags = prop_oneof![8 => Just(0), 1 => Just(0x10), 1 => any::<u32>()];
    (
        0_u16..20,
        flags,
        prop::collection::vec(word(), 0..14),
        0..4_usize,
        0..4_usize,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The scripted device asserts what it is promised; here every command gets one whole reply.
    #[test]
    fn no_message_upsets_a_session(messages in prop::collection::vec(any_message(), 1..8)) {
        let mut rig = Rig::new();
        for (number, flags, words, cut, fds) in messages {
            let flags = HeaderFlags(flags);
            let header = Header { flags, ..command(Command(number)) };
            let body = words.as_bytes();
            let body = &body[..body.len().saturating_sub(cut)];
            let before = rig.device.irqs.len() + rig.device.mapped.len() + rig.device.discarded;
            let (flow, answers) = rig.tell(header, body, fds);
            prop_assert_eq!(flow, Flow::Continue);
            let silent = flags.is_reply() || flags.no_reply();
            prop_assert_eq!(answers.len(), usize::from(!silent));
            for answer in answers {
                prop_assert_eq!(answer.header.message_id, 99);
                let flags = answer.header.flags;
                prop_assert!(flags == HeaderFlags::REPLY || flags == HeaderFlags::ERROR_REPLY);
                prop_assert!(!flags.is_error() || answer.body.is_empty());
            }
            let bound: usize = rig.device.irqs.drain(..).map(|irqs| match irqs.action {
                IrqAction::Eventfds(list)
                | IrqAction::MaskEventfds(list)
                | IrqAction::UnmaskEventfds(list) => list.iter().flatten().count(),
                _ => 0,
            }).sum();
            let after = bound + rig.device.mapped.len() + rig.device.discarded;
            prop_assert_eq!(after - before, fds, "descriptors are kept or discarded");
        }
    }
}

#[test]
fn a_region_descriptor_is_a_copy_of_the_devices() {
    let mut rig = Rig::new();
    let request = RegionInfoPayload {
        argsz: 64,
        ..Default::default()
    };
    let header = Header {
        size: 48,
        ..command(Command::DEVICE_GET_REGION_INFO)
    };
    let body = request.as_bytes();
    let message = Message {
        header,
        body,
        fds: Vec::new(),
        fds_lost: None,
    };
    rig.session
        .handle(message, &mut rig.device, &mut rig.outbox);
    let (_, fd) = rig.outbox.front();
    let copy = nix::sys::stat::fstat(fd.expect("a descriptor")).expect("fstat");
    let own = rig.device.region_fd(0).expect("a descriptor");
    let own = nix::sys::stat::fstat(own.as_fd()).expect("fstat");
    assert_eq!((copy.st_dev, copy.st_ino), (own.st_dev, own.st_ino));
}

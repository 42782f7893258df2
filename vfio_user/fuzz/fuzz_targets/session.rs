//! A stream of bytes, cut anywhere, with descriptors anywhere, into a session. Run with
//! `cargo +nightly fuzz run session` in `vfio_user/`.
//!
//! The oracle: the device is promised that what reaches it makes sense, and asserts it; each
//! command that wants one gets one whole reply, in order; no descriptor is lost or kept twice.

#![no_main]

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use libfuzzer_sys::fuzz_target;
use vfio_user::frame::{Assembler, Outbox};
use vfio_user::protocol::{self, Command, HEADER_SIZE, Header, HeaderFlags};
use vfio_user::session::{Flow, Session};
use vfio_user::socket::Received;
use vfio_user::{
    Device, DeviceInfo, DmaMap, DmaRange, Errno, IrqAction, Outcome, RegionInfo, Reply, Selection,
    ServerLimits, SetIrqs,
};

/// Answers by turns, as the input says, and asserts what it is promised.
struct Judge {
    turns: Vec<u8>,
    turn: usize,
    is_pending: bool,
    /// Descriptors that came to it, one way or another.
    fds: usize,
}

impl Judge {
    fn reply(&mut self) -> Reply {
        assert!(!self.is_pending);
        self.poll()
    }

    fn poll(&mut self) -> Reply {
        self.turn += 1;
        let reply = match self.turns.get(self.turn).map_or(0, |turn| turn % 4) {
            1 => Ok(Outcome::Pending),
            2 => Err(Errno::EIO),
            _ => Ok(Outcome::Done),
        };
        self.is_pending = reply == Ok(Outcome::Pending);
        reply
    }

    fn assert_inside(&self, region: u32, offset: u64, len: usize) {
        assert!(len > 0 && offset + len as u64 <= self.region_info(region).size);
    }
}

impl Device for Judge {
    fn region_info(&self, region: u32) -> RegionInfo {
        assert!(region < DeviceInfo::PCI.regions);
        RegionInfo::plain([0x4000, 0, 0, 0, 0x2000, 0, 0, 0x1000, 0][region as usize])
    }

    fn region_fd(&self, _: u32) -> Option<BorrowedFd<'_>> {
        None
    }

    fn irq_count(&self, index: u32) -> u32 {
        [1, 0, 64, 1, 1][index as usize]
    }

    fn irq_flags(&self, _: u32) -> u32 {
        0
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.assert_inside(region, offset, data.len());
        assert!(!self.is_pending);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Reply {
        self.assert_inside(region, offset, data.len());
        self.reply()
    }

    fn dma_map(&mut self, map: DmaMap, fd: Option<OwnedFd>) -> Reply {
        assert!(map.len > 0 && (map.read || map.write));
        assert!(map.iova.checked_add(map.len - 1).is_some());
        assert!(map.offset.checked_add(map.len).is_some());
        self.fds += usize::from(fd.is_some());
        self.reply()
    }

    fn dma_unmap(&mut self, range: DmaRange) -> Reply {
        if let DmaRange::Exact { iova, len } = range {
            assert!(len > 0 && iova.checked_add(len - 1).is_some());
        }
        self.reply()
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Reply {
        let SetIrqs {
            index,
            start,
            count,
            action,
        } = irqs;
        assert!(
            start
                .checked_add(count)
                .is_some_and(|end| end <= self.irq_count(index))
        );
        let listed = match action {
            IrqAction::Disable => 0,
            IrqAction::Eventfds(fds)
            | IrqAction::MaskEventfds(fds)
            | IrqAction::UnmaskEventfds(fds) => {
                self.fds += fds.iter().flatten().count();
                fds.len()
            }
            IrqAction::Trigger(chosen) | IrqAction::Mask(chosen) | IrqAction::Unmask(chosen) => {
                match chosen {
                    Selection::All => count as usize,
                    Selection::Each(chosen) => chosen.len(),
                }
            }
        };
        assert_eq!(listed, count as usize);
        self.reply()
    }

    fn reset(&mut self) -> Reply {
        self.reply()
    }

    fn poll_pending(&mut self) -> Reply {
        assert!(self.is_pending);
        self.poll()
    }

    fn connected(&mut self) {}

    fn disconnected(&mut self) -> Outcome {
        Outcome::Done
    }

    fn discard(&mut self, fd: OwnedFd) {
        self.fds += 1;
        drop(fd);
    }
}

/// The session under test, what it owes the client, and the descriptors it was given.
struct Rig {
    session: Session,
    device: Judge,
    outbox: Outbox,
    owed: VecDeque<(u16, Command)>,
    fds: usize,
}

impl Rig {
    /// Checks that the replies in the outbox are those owed, whole and in order.
    fn take_replies(&mut self) {
        while !self.outbox.is_empty() {
            let (bytes, _) = self.outbox.front();
            let (header, rest) = protocol::take::<Header>(bytes).expect("a whole header");
            let body = header.size as usize - HEADER_SIZE;
            assert!(rest.len() >= body);
            let flags = header.flags;
            assert!(flags == HeaderFlags::REPLY || flags == HeaderFlags::ERROR_REPLY);
            assert!(!flags.is_error() || (body == 0 && header.error != 0));
            let owed = self.owed.pop_front();
            assert_eq!(owed, Some((header.message_id, header.command)));
            self.outbox.advance(HEADER_SIZE + body);
        }
    }
}

/// A VERSION command of 0.0 without version data.
const VERSION: [u8; 20] = [0, 0, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The input: a length, that many bytes of turns (cuts, descriptors, answers), and the stream, to
/// which a VERSION is prepended when the length is even.
fn run(input: &[u8]) -> Option<()> {
    let (&len, input) = input.split_first()?;
    let (turns, stream) = input.split_at_checked(usize::from(len))?;
    let version: &[u8] = if len % 2 == 0 { &VERSION } else { &[] };
    let stream = [version, stream].concat();
    let mut stream = &stream[..];
    let device = Judge {
        turns: turns.to_vec(),
        turn: 0,
        is_pending: false,
        fds: 0,
    };
    let session = Session::new(ServerLimits::default(), &device);
    let (owed, outbox) = (VecDeque::new(), Outbox::default());
    let mut rig = Rig {
        session,
        device,
        outbox,
        owed,
        fds: 0,
    };
    let mut assembler = Assembler::new(ServerLimits::default().message_max());
    let mut turns = turns.iter().cycle();

    while !stream.is_empty() {
        let turn = usize::from(*turns.next().unwrap_or(&0xf0));
        let space = assembler.space();
        let bytes = space.len().min(stream.len()).min(1 + (turn & 0xf0));
        space[..bytes].copy_from_slice(&stream[..bytes]);
        stream = &stream[bytes..];
        let mut fds: Vec<OwnedFd> = (0..turn & 3)
            .map(|_| File::open("/dev/null").expect("/dev/null").into())
            .collect();
        rig.fds += fds.len();
        let truncated = turn & 0xf == 0xf;
        let received = Received { bytes, truncated };
        let flow = match assembler.advance(received, &mut fds) {
            Ok(None) => Flow::Continue,
            Ok(Some(message)) => {
                let Header {
                    flags,
                    message_id,
                    command,
                    ..
                } = message.header;
                if !flags.is_reply() && !flags.no_reply() {
                    rig.owed.push_back((message_id, command));
                }
                rig.session
                    .handle(message, &mut rig.device, &mut rig.outbox)
            }
            Err(_) => Flow::Close(""),
        };
        for fd in fds {
            rig.device.discard(fd);
        }
        rig.take_replies();
        match flow {
            Flow::Continue => {}
            Flow::Pending => {
                while rig.session.poll_pending(&mut rig.device, &mut rig.outbox) == Flow::Pending {}
                rig.take_replies();
            }
            Flow::Close(_) => break,
        }
        assert_eq!(rig.owed.len(), 0, "a reply is missing");
    }
    assert_eq!(rig.device.fds + assembler.into_fds().len(), rig.fds);
    Some(())
}

fuzz_target!(|input: &[u8]| {
    run(input);
});

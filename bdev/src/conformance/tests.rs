//! The suite itself: a plain device passes, and each way of breaking it is found.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::thread;

use uuid::Uuid;

use super::*;
use crate::memory::copy;
use crate::{Bdev, Channel, Completion, Error, Features, Geometry, Io, IoContext, Op, Status, Tag};

/// One way of breaking the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// No fault: a device of this kind passes.
    IsReadOnly,
    WritesThoughReadOnly,
    ChangesItsIdentity,
    ClaimsOddBlocks,
    AcceptsPastTheEnd,
    RefusesTheLastBlock,
    WrapsAround,
    TakesMemoryOfAnyLength,
    DoesWhatItDenies,
    FailsWhatItGrants,
    FailsOnNoBlocks,
    HasNoLimit,
    HandsBackAnother,
    CompletesTwice,
    NeverCompletes,
    GrowsTheBurst,
    CompletesTwiceWhenCancelled,
    ForgetsWhenCancelled,
    LosesWrites,
    MisplacesWrites,
    WritesTheFirstSegmentOnly,
    ReadsTheFirstSegmentOnly,
    IgnoresDiscards,
    WritesBeforeItRefuses,
    UnmapsNothing,
    ZeroesOneBlockTooMany,
    ComparesTheFirstBlockOnly,
    ComparesNothingEqual,
    LosesForcedWrites,
    LosesDataWithItsChannel,
    MixesRequests,
    KeepsChannelsApart,
    Tears,
}

const FEATURES: Features = Features {
    flush: true,
    fua: true,
    unmap: true,
    write_zeroes: true,
    compare: true,
};

const BLOCK: usize = 4096;

/// The simplest device that there is: one lock, one vector. With a fault.
#[derive(Debug)]
struct Plain {
    fault: Fault,
    uuid: Uuid,
    data: Mutex<Vec<u8>>,
}

impl Plain {
    fn new(fault: Fault, made: u128) -> Arc<Plain> {
        let uuid = Uuid::from_u128(if fault == Fault::ChangesItsIdentity {
            made
        } else {
            1
        });
        Arc::new(Plain {
            fault,
            uuid,
            data: Mutex::new(vec![0; DEVICE_BYTES_MIN as usize]),
        })
    }

    fn execute(&self, io: &Io, private: &mut [u8]) -> Status {
        let mut shared = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if self.fault == Fault::KeepsChannelsApart {
            self.apply(io, &mut shared);
            return self.apply(io, private);
        }
        if self.fault == Fault::Tears && io.op == Op::Write && self.verdict(io, &mut []).is_none() {
            drop(shared);
            self.write_in_halves(io);
            return Status::Success;
        }
        self.apply(io, &mut shared)
    }

    fn apply(&self, io: &Io, data: &mut [u8]) -> Status {
        if let Some(status) = self.verdict(io, data) {
            return status;
        }
        let (start, len) = (io.lba as usize * BLOCK, io.blocks as usize * BLOCK);
        match io.op {
            Op::Read => self.read(&data[start..start + len], io),
            Op::Write => self.write(data, start, io),
            Op::Unmap | Op::WriteZeroes { .. } => self.zero(data, start, len),
            Op::Compare => return self.compare(&data[start..start + len], io),
            Op::Flush => {}
        }
        Status::Success
    }

    fn verdict(&self, io: &Io, data: &mut [u8]) -> Option<Status> {
        let mut features = self.features();
        if self.fault == Fault::DoesWhatItDenies {
            features.compare = true;
        }
        let read_only = self.fault == Fault::IsReadOnly;
        let verdict = io.verdict(
            &Geometry {
                read_only,
                ..self.geometry()
            },
            features,
        );
        let last = self.geometry().blocks - 1;
        match (self.fault, verdict) {
            (Fault::AcceptsPastTheEnd, Some(Status::LbaOutOfRange)) => Some(Status::Success),
            (Fault::WrapsAround, Some(Status::LbaOutOfRange))
                if io.lba.wrapping_add(u64::from(io.blocks)) < last =>
            {
                Some(Status::Success)
            }
            (Fault::RefusesTheLastBlock, None) if io.lba == last => Some(Status::LbaOutOfRange),
            (Fault::TakesMemoryOfAnyLength, Some(Status::InternalError)) => Some(Status::Success),
            (Fault::FailsWhatItGrants, None) if io.op == Op::Unmap => Some(Status::NotSupported),
            (Fault::FailsOnNoBlocks, Some(Status::Success)) => Some(Status::InternalError),
            (Fault::WritesBeforeItRefuses, Some(status)) if io.op == Op::Write => {
                let start = (io.lba as usize).saturating_mul(BLOCK).min(data.len());
                copy::from_iovecs(&io.iovecs, 0, &mut data[start..]);
                Some(status)
            }
            _ => verdict,
        }
    }

    fn read(&self, data: &[u8], io: &Io) {
        match self.fault {
            Fault::ReadsTheFirstSegmentOnly => {
                let len = io.iovecs.segments()[0].len();
                copy::to_iovecs(&data[..len], &io.iovecs, 0)
            }
            Fault::IgnoresDiscards => {
                let mut position = 0;
                let mut read = 0;
                for segment in io.iovecs.segments() {
                    if !segment.is_discard() {
                        let part = &data[read..read + segment.len()];
                        copy::to_iovecs(part, &io.iovecs, position);
                        read += segment.len();
                    }
                    position += segment.len() as u64;
                }
                read
            }
            _ => copy::to_iovecs(data, &io.iovecs, 0),
        };
    }

    fn write(&self, data: &mut [u8], start: usize, io: &Io) {
        let len = io.iovecs.bytes() as usize;
        let (start, len) = match self.fault {
            Fault::LosesWrites if io.lba % 8 == 5 => return,
            Fault::LosesForcedWrites if io.fua => return,
            Fault::MisplacesWrites if io.lba % 8 == 3 => (start - BLOCK, len),
            Fault::WritesTheFirstSegmentOnly => (start, io.iovecs.segments()[0].len()),
            _ => (start, len),
        };
        copy::from_iovecs(&io.iovecs, 0, &mut data[start..start + len]);
    }

    fn write_in_halves(&self, io: &Io) {
        let start = io.lba as usize * BLOCK;
        let mut new = vec![0; io.iovecs.bytes() as usize];
        copy::from_iovecs(&io.iovecs, 0, &mut new);
        for (index, half) in new.chunks(BLOCK / 2).enumerate() {
            let at = start + index * BLOCK / 2;
            let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
            data[at..at + half.len()].copy_from_slice(half);
            drop(data);
            thread::yield_now();
        }
    }

    fn zero(&self, data: &mut [u8], start: usize, len: usize) {
        match self.fault {
            Fault::UnmapsNothing => {}
            Fault::ZeroesOneBlockTooMany => {
                let end = (start + len + BLOCK).min(data.len());
                data[start..end].fill(0);
            }
            _ => data[start..start + len].fill(0),
        }
    }

    fn compare(&self, data: &[u8], io: &Io) -> Status {
        let data = match self.fault {
            Fault::ComparesTheFirstBlockOnly => &data[..BLOCK],
            _ => data,
        };
        let equal = copy::equal(&io.iovecs, 0, data) && self.fault != Fault::ComparesNothingEqual;
        if equal {
            Status::Success
        } else {
            Status::CompareFailure
        }
    }
}

impl Bdev for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        let block_size = if self.fault == Fault::ClaimsOddBlocks {
            4000
        } else {
            BLOCK as u32
        };
        Geometry {
            block_size,
            blocks: DEVICE_BYTES_MIN.div_ceil(u64::from(block_size)),
            optimal_io_bytes: block_size,
            read_only: [Fault::IsReadOnly, Fault::WritesThoughReadOnly].contains(&self.fault),
            volatile_cache: false,
        }
    }

    fn features(&self) -> Features {
        Features {
            compare: self.fault != Fault::DoesWhatItDenies,
            ..FEATURES
        }
    }

    fn open_channel(self: Arc<Self>, _context: &IoContext) -> Result<Box<dyn Channel>, Error> {
        if self.fault == Fault::LosesDataWithItsChannel {
            self.data.lock().unwrap().fill(0);
        }
        let private = match self.fault {
            Fault::KeepsChannelsApart => self.data.lock().unwrap().clone(),
            _ => Vec::new(),
        };
        Ok(Box::new(PlainChannel {
            disk: self,
            private,
            waiting: VecDeque::new(),
            extra: None,
        }))
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
}

struct PlainChannel {
    disk: Arc<Plain>,
    private: Vec<u8>,
    waiting: VecDeque<Io>,
    extra: Option<Completion>,
}

impl Channel for PlainChannel {
    fn submit(&mut self, io: Io) -> Result<(), Io> {
        if self.waiting.len() >= 64 && self.disk.fault != Fault::HasNoLimit {
            return match self.disk.fault {
                Fault::HandsBackAnother => {
                    let another = self.waiting.pop_back();
                    self.waiting.push_back(io);
                    another.map_or(Ok(()), Err)
                }
                _ => Err(io),
            };
        }
        if self.disk.fault == Fault::NeverCompletes && io.lba == 8 {
            return Ok(());
        }
        self.waiting.push_back(io);
        Ok(())
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        let grows = self.disk.fault == Fault::GrowsTheBurst;
        completed.extend(self.extra.take());
        let mixes = self.disk.fault == Fault::MixesRequests && self.waiting.len() > 1;
        if mixes && self.waiting[0].blocks <= self.waiting[1].blocks {
            self.waiting[0].lba = self.waiting[1].lba;
        }
        while grows || completed.len() < completed.capacity() {
            let Some(io) = self.waiting.pop_front() else {
                break;
            };
            let status = self.disk.execute(&io, &mut self.private);
            let completion = Completion {
                tag: io.tag,
                status,
            };
            completed.push(completion);
            if self.disk.fault == Fault::CompletesTwice && io.lba == 8 {
                self.extra = Some(completion);
            }
        }
    }

    fn cancel(&mut self, tag: Tag) {
        let Some(at) = self.waiting.iter().position(|io| io.tag == tag) else {
            return;
        };
        match self.disk.fault {
            Fault::CompletesTwiceWhenCancelled => {
                self.extra = Some(Completion {
                    tag,
                    status: Status::Aborted,
                });
            }
            Fault::ForgetsWhenCancelled => drop(self.waiting.remove(at)),
            _ => {}
        }
    }
}

/// What the suite says of a device with this fault.
fn verdict(fault: Fault) -> Option<String> {
    let made = std::cell::Cell::new(0);
    let make = || -> Arc<dyn Bdev> {
        made.set(made.get() + 1);
        Plain::new(fault, made.get())
    };
    let subject = Subject {
        make: &make,
        patience: Duration::from_millis(200),
    };
    let check = AssertUnwindSafe(|| {
        subject.check_protocol();
        subject.check_data();
    });
    let panic = panic::catch_unwind(check).err()?;
    let sentence = panic.downcast_ref::<String>().cloned();
    sentence.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
}

#[test]
fn a_plain_device_passes() {
    assert_eq!(verdict(Fault::None), None);
    assert_eq!(verdict(Fault::IsReadOnly), None);
}

#[test]
fn each_fault_is_found_and_named() {
    let table = [
        (Fault::WritesThoughReadOnly, "Write is denied"),
        (Fault::ChangesItsIdentity, "a device made again is the same"),
        (Fault::ClaimsOddBlocks, "the block size is possible"),
        (Fault::AcceptsPastTheEnd, "Read of 1 blocks at 2048"),
        (
            Fault::RefusesTheLastBlock,
            "the first and the last block are there",
        ),
        (
            Fault::WrapsAround,
            "Read of 2 blocks at 18446744073709551614",
        ),
        (Fault::TakesMemoryOfAnyLength, "Read with 0 bytes for 16384"),
        (Fault::DoesWhatItDenies, "Compare is denied by the features"),
        (Fault::FailsWhatItGrants, "Unmap is granted by the features"),
        (Fault::FailsOnNoBlocks, "Read of no blocks at 0"),
        (Fault::HasNoLimit, "a channel has a limit"),
        (
            Fault::HandsBackAnother,
            "a full channel hands back what it was given",
        ),
        (Fault::CompletesTwice, "a request completed twice"),
        (Fault::NeverCompletes, "a request was never completed"),
        (Fault::GrowsTheBurst, "poll pushed more than the burst"),
        (
            Fault::CompletesTwiceWhenCancelled,
            "a request completed twice",
        ),
        (Fault::ForgetsWhenCancelled, "a request was never completed"),
        (Fault::LosesWrites, "blocks hold what was last written"),
        (Fault::MisplacesWrites, "blocks hold what was last written"),
        (
            Fault::WritesTheFirstSegmentOnly,
            "blocks hold what was last written",
        ),
        (
            Fault::ReadsTheFirstSegmentOnly,
            "blocks hold what was last written",
        ),
        (Fault::IgnoresDiscards, "bytes around the discarded ones"),
        (
            Fault::WritesBeforeItRefuses,
            "blocks hold what was last written",
        ),
        (Fault::UnmapsNothing, "blocks hold what was last written"),
        (
            Fault::ZeroesOneBlockTooMany,
            "blocks hold what was last written",
        ),
        (Fault::ComparesTheFirstBlockOnly, "of 2 blocks differs"),
        (
            Fault::ComparesNothingEqual,
            "Compare is granted by the features",
        ),
        (
            Fault::LosesForcedWrites,
            "blocks hold what was last written",
        ),
        (
            Fault::LosesDataWithItsChannel,
            "blocks hold what was last written",
        ),
        (Fault::MixesRequests, "blocks hold what was last written"),
        (
            Fault::KeepsChannelsApart,
            "a channel reads what another wrote",
        ),
        (Fault::Tears, "a block was torn"),
    ];
    for (fault, expected) in table {
        let said = verdict(fault);
        let found = said.as_ref().is_some_and(|said| said.contains(expected));
        assert!(
            found,
            "{fault:?}: the suite said {said:?}, not {expected:?}"
        );
    }
}

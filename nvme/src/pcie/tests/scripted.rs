//! A memory disk whose completions wait until they are let go.

use std::sync::{Arc, Mutex, MutexGuard};

use bdev::memory::{IoVecs, copy};
use bdev::{Bdev, Channel, Completion, Error, Features, Geometry, Io, IoContext, Op, Status, Tag};

pub(crate) const BLOCK: usize = 512;
const BLOCKS: u64 = 8192;

/// The script and the data, shared with the test.
#[derive(Debug)]
pub(crate) struct Scripted {
    script: Mutex<Script>,
}

#[derive(Debug)]
struct Script {
    data: Vec<u8>,
    hold: bool,
    limit: usize,
    fail_next: Option<Status>,
    submitted: usize,
    held: usize,
    unmapped: Vec<(u64, u32)>,
    last_fua: Option<bool>,
}

impl Scripted {
    pub(crate) fn new() -> Arc<Scripted> {
        let script = Script {
            data: vec![0; BLOCKS as usize * BLOCK],
            hold: false,
            limit: usize::MAX,
            fail_next: None,
            submitted: 0,
            held: 0,
            unmapped: Vec::new(),
            last_fua: None,
        };
        Arc::new(Scripted {
            script: Mutex::new(script),
        })
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn blocks(&self) -> u64 {
        BLOCKS
    }

    pub(crate) fn hold(&self, hold: bool) {
        self.script().hold = hold;
    }

    pub(crate) fn limit(&self, limit: usize) {
        self.script().limit = limit;
    }

    pub(crate) fn fail_next(&self, status: Status) {
        self.script().fail_next = Some(status);
    }

    pub(crate) fn submitted(&self) -> usize {
        self.script().submitted
    }

    pub(crate) fn held(&self) -> usize {
        self.script().held
    }

    pub(crate) fn unmapped(&self) -> Vec<(u64, u32)> {
        self.script().unmapped.clone()
    }

    pub(crate) fn last_fua(&self) -> Option<bool> {
        self.script().last_fua
    }
}

impl Bdev for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn uuid(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: BLOCK as u32,
            blocks: BLOCKS,
            optimal_io_bytes: 4096,
            read_only: false,
            volatile_cache: true,
        }
    }

    fn features(&self) -> Features {
        Features {
            flush: true,
            fua: true,
            unmap: true,
            write_zeroes: true,
            compare: true,
        }
    }

    fn open_channel(self: Arc<Self>, _: &IoContext) -> Result<Box<dyn Channel>, Error> {
        Ok(Box::new(ScriptedChannel {
            bdev: self,
            held: Vec::new(),
        }))
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
}

struct ScriptedChannel {
    bdev: Arc<Scripted>,
    held: Vec<Io>,
}

impl Channel for ScriptedChannel {
    fn submit(&mut self, io: Io) -> Result<(), Io> {
        let mut script = self.bdev.script();
        if self.held.len() >= script.limit {
            return Err(io);
        }
        script.submitted += 1;
        script.last_fua = Some(io.fua);
        self.held.push(io);
        script.held = self.held.len();
        Ok(())
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        let mut script = self.bdev.script();
        if script.hold {
            return;
        }
        let room = completed.capacity() - completed.len();
        let now = self.held.len().min(room);
        for io in self.held.drain(..now) {
            let status = match script.fail_next.take() {
                Some(status) => status,
                None => script.execute(&io),
            };
            completed.push(Completion {
                tag: io.tag,
                status,
            });
        }
        script.held = self.held.len();
    }

    fn cancel(&mut self, _: Tag) {}
}

impl Script {
    fn execute(&mut self, io: &Io) -> Status {
        let start = io.lba as usize * BLOCK;
        let range = start..start + io.blocks as usize * BLOCK;
        match io.op {
            Op::Read => scatter(&self.data[range], &io.iovecs),
            Op::Write => self.data[range].copy_from_slice(&gathered(&io.iovecs)),
            Op::Compare if gathered(&io.iovecs) != self.data[range.clone()] => {
                return Status::CompareFailure;
            }
            Op::Compare | Op::Flush => {}
            Op::Unmap => {
                self.unmapped.push((io.lba, io.blocks));
                self.data[range].fill(0);
            }
            Op::WriteZeroes { .. } => self.data[range].fill(0),
        }
        Status::Success
    }
}

fn gathered(iovecs: &IoVecs) -> Vec<u8> {
    let mut bytes = vec![0; iovecs.bytes() as usize];
    copy::from_iovecs(iovecs, 0, &mut bytes);
    bytes
}

fn scatter(bytes: &[u8], iovecs: &IoVecs) {
    copy::to_iovecs(bytes, iovecs, 0);
}

//! File disks over real files: every way in which one is opened, and what its channels do.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "a list of one piece of memory is meant"
)]

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::*;
use crate::claims::Mode;
use crate::memory::{
    Access, Backing, GuestMemory, IoVecs, Iova, MemoryRegion, PageKind, Protection,
};
use crate::{Completion, Io, IoLimits, Op, Status, Tag, conformance};

/// Guest memory for tests: 4 MiB at address 0.
pub(super) struct Guest {
    pub(super) memory: GuestMemory,
    pub(super) context: IoContext,
    file: OwnedFd,
}

const GUEST_BYTES: u64 = 4 << 20;

impl Guest {
    pub(super) fn new() -> Guest {
        let limits = IoLimits {
            ring_entries: 8,
            bounce_buffers: 2,
            iovec_lists: 16,
            ..IoLimits::default()
        };
        Guest::with(IoLimits {
            bounce_bytes: 16384,
            ..limits
        })
    }

    fn with(limits: IoLimits) -> Guest {
        let (backing, file) = Backing::memfd("guest", GUEST_BYTES, PageKind::Normal).unwrap();
        let both = Protection {
            read: true,
            write: true,
        };
        let region = MemoryRegion::new(backing, 0, Iova(0), GUEST_BYTES, both).unwrap();
        let mut memory = GuestMemory::new();
        memory.map(region).unwrap();
        Guest {
            memory,
            context: IoContext::new(limits).unwrap(),
            file,
        }
    }

    /// The memory in these ranges, in this order.
    pub(super) fn gather(&self, ranges: &[Range<u64>]) -> IoVecs {
        let mut iovecs = IoVecs::new();
        for range in ranges {
            let len = range.end - range.start;
            let pool = self.context.iovec_pool();
            self.memory
                .gather(pool, Iova(range.start), len, Access::Write, &mut iovecs)
                .unwrap();
        }
        iovecs
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(Iova(at), bytes).unwrap();
    }

    pub(super) fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.memory.read(Iova(range.start), &mut bytes).unwrap();
        bytes
    }
}

/// An open channel and a guest that uses it.
struct Rig {
    guest: Guest,
    channel: Box<dyn Channel>,
}

impl Rig {
    fn new(disk: &Arc<File>) -> Rig {
        let guest = Guest::new();
        let channel = Arc::clone(disk).open_channel(&guest.context).unwrap();
        Rig { guest, channel }
    }

    /// Completions of everything in flight, in their order.
    fn wait(&mut self, count: usize) -> Vec<Completion> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut completed = Vec::with_capacity(count);
        while completed.len() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} came",
                completed.len()
            );
            self.guest.context.flush();
            self.channel.poll(&mut completed);
        }
        completed
    }

    fn run(&mut self, io: Io) -> Status {
        let tag = io.tag;
        self.channel.submit(io).unwrap();
        let completed = self.wait(1);
        assert_eq!(completed[0].tag, tag);
        completed[0].status
    }

    fn data(&mut self, op: Op, lba: u64, blocks: u32, memory: &[Range<u64>]) -> Status {
        self.run(Io {
            iovecs: self.guest.gather(memory),
            ..io(op, lba, blocks)
        })
    }
}

pub(super) fn io(op: Op, lba: u64, blocks: u32) -> Io {
    Io {
        op,
        fua: false,
        lba,
        blocks,
        tag: Tag(7),
        iovecs: IoVecs::new(),
    }
}

pub(super) fn config(path: &Path, block_size: u32) -> FileConfig {
    FileConfig {
        name: "disk".to_owned(),
        uuid: None,
        path: path.to_owned(),
        size: Some(1 << 20),
        block_size,
        read_only: false,
        direct: None,
    }
}

/// Opens a disk that must be there. Another test that starts a program shares our descriptors with
/// it for a moment, and with them the locks of files that we have closed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "as File::open, which it stands for"
)]
pub(super) fn open(config: FileConfig) -> Arc<File> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match File::open(config.clone()) {
            Ok(disk) => return disk,
            Err(error) if error.to_string().contains("in use") => {
                assert!(Instant::now() < deadline, "{error}");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A folder beside the test program, which lies on a disk that has O_DIRECT.
pub(super) fn on_disk() -> TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

/// A folder in memory.
pub(super) fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 7) as u8 ^ (at >> 9) as u8 ^ seed)
        .collect()
}

/// Calls `test` with a fresh disk of each kind.
fn with_each_kind(test: impl Fn(&Arc<File>, &mut Rig)) {
    for folder in [on_disk(), in_memory()] {
        for block_size in [512, 4096] {
            for direct in [None, Some(false)] {
                let path = folder.path().join(format!("{block_size}-{direct:?}"));
                let disk = open(FileConfig {
                    direct,
                    ..config(&path, block_size)
                });
                test(&disk, &mut Rig::new(&disk));
            }
        }
    }
}

#[test]
fn every_kind_keeps_the_contract() {
    for folder in [on_disk(), in_memory()] {
        for block_size in [512, 4096] {
            for direct in [None, Some(false)] {
                let path = folder.path().join(format!("{block_size}-{direct:?}"));
                let size = Some(16 << 20);
                let config = FileConfig {
                    size,
                    direct,
                    ..config(&path, block_size)
                };
                conformance::check(&|| open(config.clone()));
                let config = FileConfig {
                    read_only: true,
                    ..config
                };
                conformance::check(&|| open(config.clone()));
            }
        }
    }
}

#[test]
fn a_disk_with_aligned_blocks_bypasses_the_page_cache_unless_told_otherwise() {
    let folder = on_disk();
    let path = folder.path().join("disk");
    let config = config(&path, 4096);
    assert!(open(config.clone()).is_direct());
    assert!(
        open(FileConfig {
            direct: Some(true),
            ..config.clone()
        })
        .is_direct()
    );
    assert!(
        !open(FileConfig {
            direct: Some(false),
            ..config
        })
        .is_direct()
    );
}

#[test]
fn what_is_written_is_in_the_file_and_is_read_back() {
    with_each_kind(|disk, rig| {
        let block = u64::from(disk.geometry.block_size);
        let data = pattern(16 * block as usize, 1);
        rig.guest.write(0, &data);
        assert_eq!(
            rig.data(Op::Write, 3, 16, &[0..16 * block]),
            Status::Success
        );
        let file = fs::read(&disk.path).unwrap();
        let range = 3 * block as usize..19 * block as usize;
        assert_eq!(file[range], data);
        assert_eq!(
            rig.data(Op::Read, 3, 16, &[1 << 20..(1 << 20) + 16 * block]),
            Status::Success
        );
        assert_eq!(rig.guest.read(1 << 20..(1 << 20) + 16 * block), data);
    });
}

#[test]
fn memory_at_any_address_and_in_any_pieces_is_fine() {
    with_each_kind(|disk, rig| {
        // More than a bounce buffer holds, so that it takes several turns.
        let blocks = 40960 / disk.geometry.block_size;
        let pieces = [
            3..1004,
            2048..6147,
            8192..8193,
            20001..20001 + 40960 - 1001 - 4099 - 1,
        ];
        let mut data = Vec::new();
        for (seed, piece) in (0..).zip(&pieces) {
            let part = pattern((piece.end - piece.start) as usize, seed);
            rig.guest.write(piece.start, &part);
            data.extend(part);
        }
        assert_eq!(rig.data(Op::Write, 1, blocks, &pieces), Status::Success);
        let at = disk.geometry.block_size as usize;
        assert_eq!(fs::read(&disk.path).unwrap()[at..at + 40960], data);
        let elsewhere = [
            (1 << 20) + 5..(1 << 20) + 30006,
            2 << 20..(2 << 20) + 40960 - 30001,
        ];
        assert_eq!(rig.data(Op::Read, 1, blocks, &elsewhere), Status::Success);
        let read: Vec<u8> = elsewhere
            .iter()
            .flat_map(|piece| rig.guest.read(piece.clone()))
            .collect();
        assert_eq!(read, data);
    });
}

#[test]
fn a_compare_finds_one_differing_byte() {
    with_each_kind(|disk, rig| {
        let blocks = 32768 / disk.geometry.block_size;
        rig.guest.write(0, &pattern(32768, 9));
        assert_eq!(rig.data(Op::Write, 0, blocks, &[0..32768]), Status::Success);
        assert_eq!(
            rig.data(Op::Compare, 0, blocks, &[0..32768]),
            Status::Success
        );
        let last = rig.guest.read(32767..32768)[0];
        rig.guest.write(32767, &[!last]);
        assert_eq!(
            rig.data(Op::Compare, 0, blocks, &[0..32768]),
            Status::CompareFailure
        );
    });
}

#[test]
fn zeroes_replace_exactly_their_blocks() {
    for op in [
        Op::Unmap,
        Op::WriteZeroes { unmap: true },
        Op::WriteZeroes { unmap: false },
    ] {
        with_each_kind(|disk, rig| {
            let block = disk.geometry.block_size as usize;
            rig.guest.write(0, &[0xa5; 1 << 20]);
            let all = (1 << 20) / disk.geometry.block_size;
            assert_eq!(rig.data(Op::Write, 0, all, &[0..1 << 20]), Status::Success);
            assert_eq!(
                rig.run(io(op, 1, all - 3)),
                Status::Success,
                "{op:?} {disk:?}"
            );
            let file = fs::read(&disk.path).unwrap();
            assert_eq!(file.len(), 1 << 20);
            let (zero, data) = (&file[block..file.len() - 2 * block], &file[..block]);
            assert!(zero.iter().all(|byte| *byte == 0), "{op:?} {disk:?}");
            assert!(
                data.iter()
                    .chain(&file[file.len() - 2 * block..])
                    .all(|byte| *byte == 0xa5)
            );
        });
    }
}

#[test]
fn unmapped_blocks_give_their_space_back_and_zeroes_that_must_stay_do_not() {
    use std::os::unix::fs::MetadataExt;

    with_each_kind(|disk, rig| {
        let all = (1 << 20) / disk.geometry.block_size;
        let kept = Op::WriteZeroes { unmap: false };
        assert_eq!(rig.run(io(kept, 0, all)), Status::Success);
        rig.run(io(Op::Flush, 0, 0));
        assert!(disk.file.metadata().unwrap().blocks() >= 2048, "{disk:?}");
        assert_eq!(rig.run(io(Op::Unmap, 0, all)), Status::Success);
        assert_eq!(disk.file.metadata().unwrap().blocks(), 0, "{disk:?}");
    });
}

#[test]
fn flush_and_force_unit_access_succeed() {
    with_each_kind(|disk, rig| {
        let fua = |rig: &mut Rig, op, memory: &[Range<u64>]| {
            let iovecs = rig.guest.gather(memory);
            rig.run(Io {
                fua: true,
                iovecs,
                ..io(op, 0, 8)
            })
        };
        let memory = [0..8 * u64::from(disk.geometry.block_size)];
        assert_eq!(fua(rig, Op::Write, &memory), Status::Success);
        assert_eq!(fua(rig, Op::Read, &memory), Status::Success);
        assert_eq!(fua(rig, Op::Compare, &memory), Status::Success);
        assert_eq!(
            fua(rig, Op::WriteZeroes { unmap: true }, &[]),
            Status::Success
        );
        assert_eq!(rig.run(io(Op::Flush, 0, 0)), Status::Success);
        disk.sync().unwrap();
    });
}

#[test]
fn requests_that_cannot_be_are_answered_without_the_kernel() {
    let folder = in_memory();
    let disk = open(config(&folder.path().join("disk"), 512));
    let mut rig = Rig::new(&disk);
    assert_eq!(
        rig.data(Op::Read, 2048, 1, &[0..512]),
        Status::LbaOutOfRange
    );
    assert_eq!(
        rig.data(Op::Read, u64::MAX, 2, &[0..1024]),
        Status::LbaOutOfRange
    );
    assert_eq!(rig.data(Op::Write, 0, 2, &[0..512]), Status::InternalError);
    assert_eq!(rig.data(Op::Unmap, 0, 1, &[0..512]), Status::InternalError);
    assert_eq!(rig.data(Op::Read, 2048, 0, &[]), Status::Success);
    assert_eq!(rig.guest.context.kernel_entries(), 0);
}

#[test]
fn a_disk_that_is_read_only_refuses_every_change() {
    let folder = on_disk();
    let path = folder.path().join("disk");
    fs::write(&path, pattern(1 << 20, 5)).unwrap();
    let disk = open(FileConfig {
        read_only: true,
        ..config(&path, 512)
    });
    let mut rig = Rig::new(&disk);
    assert!(disk.geometry().read_only && !disk.features().unmap && !disk.features().write_zeroes);
    for op in [Op::Write, Op::Unmap, Op::WriteZeroes { unmap: true }] {
        assert_eq!(rig.data(op, 0, 8, &[0..4096]), Status::NotSupported);
    }
    assert_eq!(rig.data(Op::Read, 0, 8, &[0..4096]), Status::Success);
    assert_eq!(rig.guest.read(0..4096), pattern(4096, 5));
    assert_eq!(rig.run(io(Op::Flush, 0, 0)), Status::Success);
}

#[test]
fn guest_memory_that_is_gone_is_a_memory_error() {
    let folder = on_disk();
    for direct in [None, Some(false)] {
        let config = config(&folder.path().join("disk"), 4096);
        let mut rig = Rig::new(&open(FileConfig { direct, ..config }));
        let memory = [GUEST_BYTES - 8192..GUEST_BYTES];
        assert_eq!(rig.data(Op::Write, 0, 2, &memory), Status::Success);
        fs::File::from(rig.guest.file.try_clone().unwrap())
            .set_len(GUEST_BYTES - 4096)
            .unwrap();
        for op in [Op::Read, Op::Write] {
            assert_eq!(
                rig.data(op, 0, 2, &memory),
                Status::MemoryError,
                "{op:?} {direct:?}"
            );
        }
        assert_eq!(rig.data(Op::Read, 0, 2, &[0..8192]), Status::Success);
    }
}

#[test]
fn a_file_that_was_cut_gives_read_errors() {
    let folder = on_disk();
    let path = folder.path().join("disk");
    let disk = open(config(&path, 4096));
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(6 * 4096)
        .unwrap();
    let mut rig = Rig::new(&disk);
    assert_eq!(rig.data(Op::Read, 4, 2, &[0..8192]), Status::Success);
    assert_eq!(rig.data(Op::Read, 5, 2, &[0..8192]), Status::ReadError);
    assert_eq!(rig.data(Op::Compare, 8, 1, &[0..4096]), Status::ReadError);
}

/// The environment of the half of the next test that runs where the file system is small.
const SMALL: &str = "BDEV_TEST_SMALL_FILE_SYSTEM";

#[test]
fn a_full_file_system_reports_capacity_exceeded() {
    let name = "file::tests::a_full_file_system_reports_capacity_exceeded";
    if let Some(folder) = std::env::var_os(SMALL) {
        return fill_up(Path::new(&folder));
    }
    let folder = in_memory();
    // A mount of our own, also for an ordinary user; it is gone with the process.
    let script = "mount -t tmpfs -o size=256k,nr_inodes=2 small \"$0\" && exec \"$@\"";
    let inner = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(SMALL, folder.path())
        .output()
        .unwrap();
    assert!(inner.status.success(), "{inner:?}");
    assert!(
        String::from_utf8_lossy(&inner.stdout).contains("1 passed"),
        "{inner:?}"
    );
}

fn fill_up(folder: &Path) {
    let disk = open(config(&folder.join("disk"), 4096));
    let error = File::open(config(&folder.join("another"), 4096)).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("No space left on device (os error 28)"),
        "{error}"
    );
    let mut rig = Rig::new(&disk);
    assert_eq!(rig.data(Op::Write, 0, 32, &[0..131072]), Status::Success);
    assert_eq!(
        rig.data(Op::Write, 32, 128, &[0..524288]),
        Status::CapacityExceeded
    );
    assert_eq!(
        rig.run(io(Op::WriteZeroes { unmap: false }, 32, 128)),
        Status::CapacityExceeded
    );
    assert_eq!(
        rig.run(io(Op::Flush, 0, 0)),
        Status::Success,
        "what fitted is not lost"
    );
    assert_eq!(rig.run(io(Op::Unmap, 0, 256)), Status::Success);
    assert_eq!(rig.data(Op::Write, 200, 32, &[0..131072]), Status::Success);
}

#[test]
fn after_a_failed_flush_of_the_page_cache_no_flush_succeeds() {
    let folder = in_memory();
    let config = config(&folder.path().join("disk"), 512);
    let disk = open(FileConfig {
        direct: Some(false),
        ..config
    });
    let mut rig = Rig::new(&disk);
    assert_eq!(rig.run(io(Op::Flush, 0, 0)), Status::Success);
    disk.lose_cache();
    assert_eq!(rig.run(io(Op::Flush, 0, 0)), Status::WriteError);
    assert!(disk.sync().is_err());
    assert_eq!(rig.data(Op::Write, 0, 1, &[0..512]), Status::Success);
}

#[test]
fn requests_for_claimed_blocks_wait_and_are_cancelled_or_go_on() {
    let folder = in_memory();
    let config = config(&folder.path().join("disk"), 4096);
    let disk = open(FileConfig {
        direct: Some(false),
        ..config
    });
    let mut claimant = disk.claims.as_ref().unwrap().claimant().unwrap();
    let claim = claimant.try_claim(3..4, Mode::Exclusive).unwrap();
    let mut rig = Rig::new(&disk);
    for (tag, lba) in [(Tag(1), 3), (Tag(2), 2), (Tag(3), 4)] {
        let iovecs = rig.guest.gather(&[0..8192]);
        rig.channel
            .submit(Io {
                tag,
                iovecs,
                ..io(Op::Read, lba, 2)
            })
            .unwrap();
    }
    assert_eq!(
        rig.wait(1),
        [Completion {
            tag: Tag(3),
            status: Status::Success
        }]
    );
    rig.channel.cancel(Tag(1));
    assert_eq!(
        rig.wait(1),
        [Completion {
            tag: Tag(1),
            status: Status::Aborted
        }]
    );
    claimant.release(claim);
    assert_eq!(
        rig.wait(1),
        [Completion {
            tag: Tag(2),
            status: Status::Success
        }]
    );
    let claim = claimant
        .try_claim(2..4, Mode::Exclusive)
        .expect("all was given back");
    claimant.release(claim);
}

#[test]
fn a_request_of_many_blocks_gets_them_from_others_that_never_rest() {
    let folder = in_memory();
    let config = config(&folder.path().join("disk"), 4096);
    let disk = open(config);
    let mut others = disk.claims.as_ref().unwrap().claimant().unwrap();
    let mut rig = Rig::new(&disk);
    let mut held = others.try_claim(0..1, Mode::Exclusive);
    let zeroes = io(Op::WriteZeroes { unmap: false }, 0, 256);
    rig.channel.submit(zeroes).unwrap();
    let mut completed = Vec::with_capacity(1);
    // At each poll the others have some block, as long as they are granted any.
    let polled = (1..100_000).take_while(|poll| {
        let next = others.try_claim(poll % 256..poll % 256 + 1, Mode::Exclusive);
        if let Some(claim) = std::mem::replace(&mut held, next) {
            others.release(claim);
        }
        rig.guest.context.flush();
        rig.channel.poll(&mut completed);
        completed.is_empty()
    });
    assert!(polled.count() > 100, "the others had the blocks");
    assert_eq!(completed.len(), 1, "it is never granted its blocks");
    let claim = held.or_else(|| others.try_claim(0..1, Mode::Shared));
    others.release(claim.expect("nobody insists any more"));
}

#[test]
fn a_dropped_channel_gives_its_claims_back_once_the_kernel_is_done() {
    let folder = in_memory();
    let config = config(&folder.path().join("disk"), 4096);
    let disk = open(FileConfig {
        direct: Some(false),
        ..config
    });
    let mut rig = Rig::new(&disk);
    let iovecs = rig.guest.gather(&[0..4096]);
    rig.channel
        .submit(Io {
            iovecs,
            ..io(Op::Write, 5, 1)
        })
        .unwrap();
    let Rig { guest, channel } = rig;
    drop(channel);
    let mut claimant = disk.claims.as_ref().unwrap().claimant().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    assert!(claimant.try_claim(5..6, Mode::Shared).is_none());
    while claimant.try_claim(5..6, Mode::Shared).is_none() {
        assert!(Instant::now() < deadline);
        guest.context.flush();
    }
}

#[test]
fn the_kernel_works_where_it_is_told_to() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap());
    let first = cores.next().unwrap();
    let last = cores.next_back().unwrap_or(first);
    let reactor = std::thread::spawn(move || {
        let mut ours = CpuSet::new();
        ours.set(last).unwrap();
        sched_setaffinity(Pid::from_raw(0), &ours).unwrap();
        let folder = on_disk();
        let disk = open(config(&folder.path().join("disk"), 4096));
        let guest = Guest::new();
        guest.context.set_worker_cores(vec![first]);
        let channel = disk.open_channel(&guest.context).unwrap();
        let mut rig = Rig { guest, channel };
        rig.channel.submit(io(Op::Flush, 0, 0)).unwrap();
        assert_eq!(rig.wait(1)[0].status, Status::Success);
        let worker = format!("iou-wrk-{}\n", nix::unistd::gettid());
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let its = threads.map(|thread| thread.unwrap().path()).find(|thread| {
            fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == worker)
        });
        fs::read_to_string(its.unwrap().join("status")).unwrap()
    });
    let status = reactor.join().unwrap();
    assert!(
        status.contains(&format!("Cpus_allowed_list:\t{first}\n")),
        "{status}"
    );
}

#[test]
fn many_channels_share_one_ring() {
    let folder = in_memory();
    let guest = Guest::with(IoLimits {
        ring_entries: 64,
        ..IoLimits::default()
    });
    let channel = |number: u32| {
        let disk = open(config(&folder.path().join(number.to_string()), 512));
        disk.open_channel(&guest.context).unwrap()
    };
    let mut channels: Vec<_> = (0..16).map(channel).collect();
    guest.context.flush();
    assert_eq!(guest.context.kernel_entries(), 0, "nothing was queued");
    for (channel, number) in channels.iter_mut().zip(0..) {
        for tag in [Tag(2 * number), Tag(2 * number + 1)] {
            let iovecs = guest.gather(&[0..512]);
            channel
                .submit(Io {
                    iovecs,
                    tag,
                    ..io(Op::Read, 0, 1)
                })
                .unwrap();
        }
    }
    guest.context.flush();
    assert_eq!(guest.context.kernel_entries(), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut missing = 32;
    while missing > 0 {
        assert!(Instant::now() < deadline);
        guest.context.flush();
        for (channel, number) in channels.iter_mut().zip(0..) {
            let mut completed = Vec::with_capacity(2);
            channel.poll(&mut completed);
            missing -= completed.len();
            for completion in completed {
                assert_eq!(completion.tag.0 / 2, number, "another channel's completion");
                assert_eq!(completion.status, Status::Success);
            }
        }
    }
    let entries = guest.context.kernel_entries();
    guest.context.flush();
    assert_eq!(
        guest.context.kernel_entries(),
        entries,
        "nothing was in flight"
    );
}

#[test]
fn a_full_ring_hands_requests_back_and_takes_them_later() {
    let folder = on_disk();
    let disk = open(config(&folder.path().join("disk"), 4096));
    let mut rig = Rig::new(&disk);
    let read = |rig: &Rig| Io {
        iovecs: rig.guest.gather(&[0..4096]),
        ..io(Op::Read, 0, 1)
    };
    for _ in 0..8 {
        rig.channel.submit(read(&rig)).unwrap();
    }
    let refused = rig.channel.submit(read(&rig)).unwrap_err();
    assert_eq!(refused.iovecs.bytes(), 4096);
    assert_eq!(rig.wait(8).len(), 8);
    rig.channel.submit(refused).unwrap();
    assert_eq!(rig.wait(1).len(), 1);
}

#[test]
fn without_a_bounce_buffer_a_request_is_handed_back() {
    let folder = on_disk();
    let disk = open(config(&folder.path().join("disk"), 4096));
    let mut rig = Rig::new(&disk);
    let compare = |rig: &Rig| Io {
        iovecs: rig.guest.gather(&[0..4096]),
        ..io(Op::Compare, 0, 1)
    };
    rig.channel.submit(compare(&rig)).unwrap();
    rig.channel.submit(compare(&rig)).unwrap();
    let refused = rig.channel.submit(compare(&rig)).unwrap_err();
    assert!(
        rig.wait(2)
            .iter()
            .all(|completion| completion.status == Status::Success)
    );
    rig.channel.submit(refused).unwrap();
    assert_eq!(rig.wait(1)[0].status, Status::Success);
    assert_eq!(rig.guest.context.buffer_pool().free(), 2);
}

#[test]
fn completions_beyond_the_burst_wait_for_the_next_poll() {
    let folder = in_memory();
    let disk = open(config(&folder.path().join("disk"), 512));
    let mut rig = Rig::new(&disk);
    for _ in 0..5 {
        rig.channel.submit(io(Op::Flush, 0, 0)).unwrap();
        rig.channel.submit(io(Op::Unmap, 1 << 40, 1)).unwrap();
    }
    for count in [3, 3, 3, 1] {
        assert_eq!(rig.wait(count).len(), count);
    }
}

#[test]
fn a_cancelled_request_completes_exactly_once() {
    let folder = on_disk();
    let disk = open(config(&folder.path().join("disk"), 512));
    let mut rig = Rig::new(&disk);
    for round in 0..50 {
        let memory = rig.guest.gather(&[0..1 << 20]);
        rig.channel
            .submit(Io {
                iovecs: memory,
                ..io(Op::Read, 0, 2048)
            })
            .unwrap();
        if round % 2 == 0 {
            rig.guest.context.flush();
        }
        rig.channel.cancel(Tag(7));
        rig.channel.cancel(Tag(8));
        let status = rig.wait(1)[0].status;
        assert!(
            matches!(status, Status::Success | Status::Aborted),
            "{status:?}"
        );
    }
    let mut completed = Vec::with_capacity(8);
    rig.guest.context.flush();
    rig.channel.poll(&mut completed);
    assert_eq!(completed, []);
}

#[test]
fn a_dropped_channel_keeps_guest_memory_until_the_kernel_is_done() {
    let folder = on_disk();
    let disk = open(config(&folder.path().join("disk"), 4096));
    let mut rig = Rig::new(&disk);
    for _ in 0..8 {
        let iovecs = rig.guest.gather(&[0..65536]);
        rig.channel
            .submit(Io {
                iovecs,
                ..io(Op::Read, 0, 16)
            })
            .unwrap();
    }
    let Rig { mut guest, channel } = rig;
    drop(channel);
    guest.memory.unmap_all();
    assert!(guest.memory.retired_busy());
    let deadline = Instant::now() + Duration::from_secs(20);
    while guest.memory.retired_busy() {
        assert!(Instant::now() < deadline);
        guest.context.flush();
    }
    let _ = disk.open_channel(&guest.context).unwrap();
}

#[test]
fn a_dropped_ring_waits_for_the_kernel() {
    let folder = on_disk();
    let disk = open(config(&folder.path().join("disk"), 4096));
    let mut rig = Rig::new(&disk);
    for _ in 0..8 {
        let iovecs = rig.guest.gather(&[0..65536]);
        rig.channel
            .submit(Io {
                iovecs,
                ..io(Op::Read, 0, 16)
            })
            .unwrap();
    }
    let Rig {
        guest: Guest {
            mut memory,
            context,
            ..
        },
        channel,
    } = rig;
    drop((channel, context));
    memory.unmap_all();
    assert!(!memory.retired_busy());
}

/// A loop device over a new file of 1 MiB, detached when dropped.
struct Loop {
    device: PathBuf,
    _folder: TempDir,
}

impl Loop {
    fn new(sector_bytes: u32) -> Loop {
        let folder = on_disk();
        let file = folder.path().join("below");
        fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let losetup = std::process::Command::new("losetup")
            .args([
                "--find",
                "--show",
                "--sector-size",
                &sector_bytes.to_string(),
            ])
            .arg(&file)
            .output()
            .unwrap();
        assert!(losetup.status.success(), "{losetup:?}");
        let device = String::from_utf8(losetup.stdout).unwrap();
        Loop {
            device: PathBuf::from(device.trim()),
            _folder: folder,
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detach = std::process::Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .status();
        assert!(detach.unwrap().success());
    }
}

#[test]
fn a_block_device_is_a_disk_of_its_own_size_for_one_writer() {
    if !nix::unistd::Uid::effective().is_root() {
        // An ordinary user has no block device to give: all there is to see is the refusal.
        let error = File::open(config(Path::new("/dev/loop0"), 512)).unwrap_err();
        return assert!(error.to_string().contains("/dev/loop0"), "{error}");
    }
    for (sector_bytes, block_size, direct) in
        [(512, 512, true), (4096, 4096, true), (4096, 512, false)]
    {
        let below = Loop::new(sector_bytes);
        let config = FileConfig {
            size: Some(16 << 20),
            ..config(&below.device, block_size)
        };
        let disk = open(config.clone());
        assert_eq!(disk.is_direct(), direct, "{sector_bytes} {block_size}");
        assert_eq!(disk.geometry().blocks, (16 << 20) / u64::from(block_size));
        for read_only in [false, true] {
            let second = File::open(FileConfig {
                read_only,
                ..config.clone()
            })
            .unwrap_err();
            assert!(second.to_string().contains("in use"), "{second}");
        }
        drop(disk);
        let config = FileConfig {
            size: None,
            ..config
        };
        conformance::check(&|| open(config.clone()));
    }
}

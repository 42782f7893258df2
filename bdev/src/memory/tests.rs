//! The memory of a guest against a model, and its leases.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const PAGE: u64 = PAGE_BYTES as u64;
const READ_WRITE: Protection = Protection {
    read: true,
    write: true,
};

/// A file of `pages` pages, each of whose bytes is the number of its page.
fn numbered(pages: u64) -> Arc<Backing> {
    let (backing, _) = Backing::memfd("test", pages * PAGE, PageKind::Normal).unwrap();
    let memory = table(&[region(&backing, 0, 0, pages)]);
    for page in 0..pages {
        memory
            .write(Iova(page * PAGE), &[page as u8; PAGE_BYTES])
            .unwrap();
    }
    backing
}

/// `pages` pages of a file, from page `offset` on, at page `at`.
fn region(backing: &Arc<Backing>, offset: u64, at: u64, pages: u64) -> MemoryRegion {
    let (iova, len) = (Iova(at * PAGE), pages * PAGE);
    MemoryRegion::new(Arc::clone(backing), offset * PAGE, iova, len, READ_WRITE).unwrap()
}

fn table(regions: &[MemoryRegion]) -> GuestMemory {
    let mut memory = GuestMemory::new();
    for region in regions {
        memory.map(region.clone()).unwrap();
    }
    memory
}

fn gather(memory: &GuestMemory, pool: &IoVecPool, at: u64, len: u64) -> IoVecs {
    let mut iovecs = IoVecs::new();
    memory
        .gather(pool, Iova(at), len, Access::Write, &mut iovecs)
        .unwrap();
    iovecs
}

fn contents(iovecs: &IoVecs) -> Vec<u8> {
    let mut bytes = vec![0; iovecs.bytes() as usize];
    assert_eq!(copy::from_iovecs(iovecs, 0, &mut bytes), bytes.len());
    bytes
}

#[test]
fn neighbours_in_the_file_become_one_segment() {
    let backing = numbered(8);
    let memory = table(&[region(&backing, 0, 16, 2), region(&backing, 2, 18, 2)]);
    let pool = IoVecPool::new(1);
    let iovecs = gather(&memory, &pool, 16 * PAGE + 100, 3 * PAGE);
    assert_eq!(iovecs.segments().len(), 1);
    assert_eq!(iovecs.bytes(), 3 * PAGE);
    assert_eq!(contents(&iovecs)[..4], [0; 4]);
    assert_eq!(contents(&iovecs)[3 * PAGE_BYTES - 1], 3);
}

#[test]
fn pieces_of_the_file_in_another_order_become_segments_in_the_order_of_the_guest() {
    let backing = numbered(8);
    let memory = table(&[
        region(&backing, 5, 0, 1),
        region(&backing, 2, 1, 1),
        region(&backing, 7, 2, 1),
    ]);
    let pool = IoVecPool::new(1);
    let iovecs = gather(&memory, &pool, 0, 3 * PAGE);
    let firsts: Vec<u8> = contents(&iovecs)
        .chunks(PAGE_BYTES)
        .map(|page| page[0])
        .collect();
    assert_eq!(firsts, [5, 2, 7]);
    assert_eq!(pool.free(), 0);
    drop(iovecs);
    assert_eq!(pool.free(), 1);
}

#[test]
fn a_list_is_needed_for_the_third_segment_and_an_empty_pool_says_so() {
    let backing = numbered(8);
    let memory = table(&[region(&backing, 0, 0, 8)]);
    let pool = IoVecPool::new(0);
    let mut iovecs = IoVecs::new();
    for page in [0, 2] {
        memory
            .gather(&pool, Iova(page * PAGE), PAGE, Access::Read, &mut iovecs)
            .unwrap();
    }
    let third = memory.gather(&pool, Iova(4 * PAGE), PAGE, Access::Read, &mut iovecs);
    assert_eq!(third, Err(MemoryError::PoolEmpty));
    assert_eq!(iovecs.segments().len(), 2);
    assert_eq!(iovecs.bytes(), 2 * PAGE);
}

#[test]
fn segments_end_at_their_limit() {
    let backing = numbered(4);
    let memory = table(&[region(&backing, 0, 0, 4)]);
    let pool = IoVecPool::new(1);
    let mut iovecs = IoVecs::new();
    let mut push = |at: usize| {
        let at = Iova((at as u64 * 8) % (4 * PAGE));
        memory.gather(&pool, at, 4, Access::Read, &mut iovecs)
    };
    for at in 0..SEGMENTS_MAX {
        push(at).unwrap();
    }
    assert_eq!(push(SEGMENTS_MAX), Err(MemoryError::TooManySegments));
    assert_eq!(iovecs.segments().len(), SEGMENTS_MAX);
    assert_eq!(iovecs.bytes(), 4 * SEGMENTS_MAX as u64);
}

#[test]
fn one_segment_through_ever_changing_regions_ends_at_a_limit_too() {
    let backing = numbered(1);
    let memory = table(&[0, 1, 2].map(|at| region(&backing, 0, at, 1)));
    let pool = IoVecPool::new(1);
    let mut iovecs = IoVecs::new();
    let mut push = |byte: u64| {
        let at = Iova(byte % 3 * PAGE + byte);
        memory.gather(&pool, at, 1, Access::Read, &mut iovecs)
    };
    let refused = (0..PAGE).find_map(|byte| push(byte).err());
    assert_eq!(refused, Some(MemoryError::TooManySegments));
    assert_eq!(iovecs.segments().len(), 1);
}

#[test]
fn discarded_bytes_count_join_and_are_skipped() {
    let backing = numbered(4);
    let memory = table(&[region(&backing, 0, 0, 4)]);
    let pool = IoVecPool::new(1);
    let mut iovecs = gather(&memory, &pool, PAGE, 4);
    iovecs.push_discard(&pool, 3).unwrap();
    iovecs.push_discard(&pool, 0).unwrap();
    iovecs.push_discard(&pool, 2).unwrap();
    memory
        .gather(&pool, Iova(2 * PAGE), 4, Access::Write, &mut iovecs)
        .unwrap();
    assert_eq!((iovecs.segments().len(), iovecs.bytes()), (3, 13));
    assert!(iovecs.has_discard());
    let data: Vec<u8> = (100..113).collect();
    assert_eq!(copy::to_iovecs(&data, &iovecs, 0), 13);
    let mut around = [0; 6];
    memory.read(Iova(PAGE), &mut around).unwrap();
    assert_eq!(around, [100, 101, 102, 103, 1, 1]);
    memory.read(Iova(2 * PAGE), &mut around).unwrap();
    assert_eq!(around, [109, 110, 111, 112, 2, 2]);
    iovecs.clear();
    assert!(iovecs.is_empty() && iovecs.bytes() == 0);
}

#[test]
fn copies_start_anywhere_and_stop_at_the_shorter_side() {
    let backing = numbered(4);
    let memory = table(&[region(&backing, 0, 0, 4)]);
    let pool = IoVecPool::new(1);
    let mut iovecs = gather(&memory, &pool, PAGE, 3);
    memory
        .gather(&pool, Iova(2 * PAGE), 3, Access::Read, &mut iovecs)
        .unwrap();
    memory
        .gather(&pool, Iova(3 * PAGE), 3, Access::Read, &mut iovecs)
        .unwrap();
    let mut four = [9; 4];
    assert_eq!(copy::from_iovecs(&iovecs, 2, &mut four), 4);
    assert_eq!(four, [1, 2, 2, 2]);
    assert_eq!(copy::from_iovecs(&iovecs, 7, &mut four), 2);
    assert_eq!(four, [3, 3, 2, 2]);
    assert_eq!(copy::from_iovecs(&iovecs, 9, &mut four), 0);
    assert!(copy::equal(&iovecs, 2, &[1, 2, 2, 2, 3]));
    assert!(!copy::equal(&iovecs, 2, &[1, 2, 2, 2, 4]));
    assert!(!copy::equal(&iovecs, 8, &[3, 3]));
    copy::zero(&iovecs);
    assert_eq!(contents(&iovecs), [0; 9]);
}

#[test]
fn removed_memory_stays_as_long_as_a_request_holds_it() {
    let backing = numbered(4);
    let mut memory = table(&[region(&backing, 0, 0, 2), region(&backing, 2, 2, 2)]);
    let pool = IoVecPool::new(1);
    let iovecs = gather(&memory, &pool, 2 * PAGE, PAGE);
    let crossing = gather(&memory, &pool, PAGE, 2 * PAGE);
    memory.unmap(Iova(2 * PAGE), 2 * PAGE).unwrap();
    assert!(memory.retired_busy());
    drop(iovecs);
    assert!(
        memory.retired_busy(),
        "a request that only ends in the region holds it too"
    );
    assert_eq!(contents(&crossing)[2 * PAGE_BYTES - 1], 2);
    drop(crossing);
    assert!(!memory.retired_busy());
    assert_eq!(
        Arc::strong_count(&backing),
        2,
        "the removed region has let go of the file"
    );
}

#[test]
fn a_ring_holds_its_memory_and_says_when_that_was_removed() {
    let backing = numbered(4);
    let mut memory = table(&[region(&backing, 0, 0, 1), region(&backing, 3, 1, 1)]);
    let ring = memory
        .ring::<8>(Iova(PAGE - 128), 4, Access::Write)
        .unwrap();
    ring.store(1, 7, 11);
    ring.store_release(2, 0, 22);
    assert!(!ring.retired());
    memory.unmap(Iova(PAGE), PAGE).unwrap();
    assert!(ring.retired() && memory.retired_busy());
    assert_eq!((ring.load(1, 7), ring.load_acquire(2, 0)), (11, 22));
    assert_eq!(
        (ring.load(5, 15), ring.load(6, 8)),
        (11, 22),
        "indexes and words wrap"
    );
    drop(ring);
    assert!(!memory.retired_busy());
    let mut word = [0; 8];
    table(&[region(&backing, 3, 0, 1)])
        .read(Iova(0), &mut word)
        .unwrap();
    assert_eq!(u64::from_ne_bytes(word), 22);
}

#[test]
fn a_ring_to_read_is_never_written() {
    let (backing, fd) = Backing::memfd("test", PAGE, PageKind::Normal).unwrap();
    let mut backings = Backings::new(MemoryPolicy::SharedOnly);
    let read_only = backings.open(fd, PAGE, false).unwrap();
    let protection = Protection {
        read: true,
        write: false,
    };
    let region = MemoryRegion::new(read_only, 0, Iova(0), PAGE, protection).unwrap();
    let memory = table(&[region]);
    let ring = memory.ring::<2>(Iova(0), 2, Access::Read).unwrap();
    ring.store(0, 0, 1);
    ring.store_release(0, 0, 1);
    assert_eq!(ring.load(0, 0), 0);
    assert_eq!(
        memory.ring::<2>(Iova(0), 2, Access::Write).err(),
        Some(MemoryError::Protection)
    );
    drop(backing);
}

#[test]
fn a_ring_must_start_where_an_entry_can() {
    let memory = table(&[region(&numbered(1), 0, 0, 1)]);
    let ring = |iova, entries| {
        memory
            .ring::<8>(Iova(iova), entries, Access::Read)
            .map(|ring| ring.entries())
    };
    assert_eq!(ring(64, 63), Ok(63));
    assert_eq!(ring(64, 64), Err(MemoryError::NotMapped));
    for (iova, entries) in [(32, 1), (4, 1), (0, 0)] {
        assert_eq!(ring(iova, entries), Err(MemoryError::Misaligned));
    }
    let small = memory.ring::<2>(Iova(4), 1, Access::Read);
    assert_eq!(small.err(), Some(MemoryError::Misaligned));
}

#[test]
fn regions_neither_overlap_nor_are_cut() {
    let backing = numbered(8);
    let mut memory = table(&[region(&backing, 0, 4, 4)]);
    let generation = memory.generation();
    let overlap = |at, pages| {
        Err(MapError::Overlap {
            iova: Iova(at * PAGE),
            len: pages * PAGE,
        })
    };
    for (at, pages) in [(4, 3), (2, 3), (7, 1), (3, 6), (5, 2)] {
        assert_eq!(
            memory.map(region(&backing, 0, at, pages)),
            overlap(at, pages)
        );
    }
    assert_eq!(
        memory.map(region(&backing, 1, 4, 4)),
        overlap(4, 4),
        "other bytes of the file"
    );
    assert_eq!(
        memory.map(region(&backing, 0, 4, 4)),
        Ok(()),
        "the same once more"
    );
    for (at, pages) in [(4, 3), (5, 3), (3, 2), (5, 1)] {
        let (iova, len) = (Iova(at * PAGE), pages * PAGE);
        assert_eq!(
            memory.unmap(iova, len),
            Err(MapError::Partial { iova, len })
        );
    }
    for (iova, len) in [
        (Iova(0), 4 * PAGE),
        (Iova(8 * PAGE), PAGE),
        (Iova(5 * PAGE), 0),
    ] {
        assert!(matches!(
            memory.unmap(iova, len),
            Err(MapError::NotMapped { .. } | MapError::Partial { .. })
        ));
    }
    assert_eq!(memory.generation(), generation);
    assert_eq!(memory.unmap(Iova(0), u64::MAX), Ok(()));
    assert_eq!(memory.generation(), generation + 1);
}

#[test]
fn a_region_that_was_changed_after_it_was_made_is_judged_again() {
    let backing = numbered(2);
    let mut long = region(&backing, 1, 0, 1);
    long.len = 2 * PAGE;
    let refused = Err(MapError::TooSmall {
        size: 2 * PAGE,
        needed: 3 * PAGE,
    });
    assert_eq!(GuestMemory::new().map(long), refused);
}

#[test]
fn a_region_must_be_whole_pages_within_its_file() {
    let backing = numbered(2);
    let new = |offset, iova, len| {
        MemoryRegion::new(Arc::clone(&backing), offset, Iova(iova), len, READ_WRITE).err()
    };
    assert_eq!(new(PAGE, PAGE, PAGE), None);
    assert!(matches!(new(0, 0, 0), Some(MapError::Range { .. })));
    assert!(matches!(
        new(0, u64::MAX - PAGE + 1, PAGE),
        Some(MapError::Range { .. })
    ));
    assert!(matches!(
        new(u64::MAX - PAGE + 1, 0, PAGE),
        Some(MapError::Range { .. })
    ));
    for (offset, iova, len) in [(1, 0, PAGE), (0, 512, PAGE), (0, 0, PAGE + 1)] {
        assert!(matches!(
            new(offset, iova, len),
            Some(MapError::Misaligned { .. })
        ));
    }
    assert!(matches!(
        new(PAGE, 0, 2 * PAGE),
        Some(MapError::TooSmall { .. })
    ));
}

/// What can happen to a table of 16 pages over a file of 8.
#[derive(Debug, Clone, Copy)]
enum Step {
    Map {
        at: u64,
        pages: u64,
        offset: u64,
        protection: Protection,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    Read {
        at: u64,
        len: u64,
    },
    Write {
        at: u64,
        len: u64,
        value: u8,
    },
    Gather {
        at: u64,
        len: u64,
        access: Access,
    },
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..16 * PAGE, 0..4 * PAGE);
    let protection = (any::<bool>(), any::<bool>());
    let step = prop_oneof![
        3 => (0u64..16, 1u64..5, 0u64..8, protection).prop_map(
            |(at, pages, offset, (read, write))| Step::Map {
                at, pages, offset, protection: Protection { read, write },
            }),
        1 => (0u64..16, 1u64..8).prop_map(|(at, pages)| Step::Unmap { at, pages }),
        2 => range().prop_map(|(at, len)| Step::Read { at, len }),
        2 => (range(), any::<u8>())
            .prop_map(|((at, len), value)| Step::Write { at, len, value }),
        2 => (range(), prop_oneof![Just(Access::Read), Just(Access::Write)])
            .prop_map(|((at, len), access)| Step::Gather { at, len, access }),
        1 => Just(Step::Release),
    ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Debug, Clone)]
struct ModelRegion {
    at: u64,
    pages: u64,
    offset: u64,
    protection: Protection,
}

/// The same table, byte by byte.
#[derive(Default)]
struct Model {
    regions: Vec<ModelRegion>,
    file: Vec<u8>,
}

impl Model {
    /// Where in the file a guest's byte is.
    fn byte(&self, at: u64, access: Access) -> Result<usize, MemoryError> {
        let inside = |region: &&ModelRegion| {
            (region.at * PAGE..(region.at + region.pages) * PAGE).contains(&at)
        };
        let region = self
            .regions
            .iter()
            .find(inside)
            .ok_or(MemoryError::NotMapped)?;
        let allowed = match access {
            Access::Read => region.protection.read,
            Access::Write => region.protection.write,
        };
        if !allowed {
            return Err(MemoryError::Protection);
        }
        Ok((region.offset * PAGE + at - region.at * PAGE) as usize)
    }

    fn bytes(&self, at: u64, len: u64, access: Access) -> Result<Vec<usize>, MemoryError> {
        (at..at + len).map(|at| self.byte(at, access)).collect()
    }

    fn map(&mut self, new: ModelRegion) -> bool {
        let end = new.at + new.pages;
        let equal = |old: &ModelRegion| {
            (old.at, old.pages, old.offset, old.protection)
                == (new.at, new.pages, new.offset, new.protection)
        };
        if new.offset + new.pages > 8 {
            return false;
        }
        if self.regions.iter().any(equal) {
            return true;
        }
        let free = self
            .regions
            .iter()
            .all(|old| old.at + old.pages <= new.at || end <= old.at);
        if free {
            self.regions.push(new);
        }
        free
    }

    fn unmap(&mut self, at: u64, pages: u64) -> bool {
        let end = at + pages;
        let touched = |old: &ModelRegion| old.at < end && at < old.at + old.pages;
        let inside = |old: &ModelRegion| at <= old.at && old.at + old.pages <= end;
        let any = self.regions.iter().any(touched);
        let whole = self.regions.iter().all(|old| !touched(old) || inside(old));
        if any && whole {
            self.regions.retain(|old| !inside(old));
        }
        any && whole
    }
}

/// Requests in flight, and the places in the file that each is about.
type Held = Vec<(IoVecs, Vec<usize>)>;

fn run(step: Step, memory: &mut GuestMemory, model: &mut Model, held: &mut Held, rig: &Rig) {
    match step {
        Step::Map {
            at,
            pages,
            offset,
            protection,
        } => {
            let new = MemoryRegion::new(
                Arc::clone(&rig.backing),
                offset * PAGE,
                Iova(at * PAGE),
                pages * PAGE,
                protection,
            );
            let mapped = new.and_then(|region| memory.map(region)).is_ok();
            assert_eq!(
                mapped,
                model.map(ModelRegion {
                    at,
                    pages,
                    offset,
                    protection
                })
            );
        }
        Step::Unmap { at, pages } => {
            let unmapped = memory.unmap(Iova(at * PAGE), pages * PAGE).is_ok();
            assert_eq!(unmapped, model.unmap(at, pages));
        }
        Step::Read { at, len } => {
            let mut out = vec![0; len as usize];
            let result = memory.read(Iova(at), &mut out).map(|()| out);
            let places = model.bytes(at, len, Access::Read);
            assert_eq!(
                result,
                places.map(|at| at.iter().map(|&at| model.file[at]).collect())
            );
        }
        Step::Write { at, len, value } => {
            let data: Vec<u8> = (0..len)
                .map(|index| value.wrapping_add(index as u8))
                .collect();
            let result = memory.write(Iova(at), &data);
            assert_eq!(result, model.bytes(at, len, Access::Write).map(|_| ()));
            // A write that fails has written up to where it failed.
            for (at, value) in (at..).zip(data) {
                let Ok(place) = model.byte(at, Access::Write) else {
                    break;
                };
                model.file[place] = value;
            }
        }
        Step::Gather { at, len, access } => {
            let mut iovecs = IoVecs::new();
            let result = memory.gather(&rig.pool, Iova(at), len, access, &mut iovecs);
            let places = model.bytes(at, len, access);
            assert_eq!(result, places.clone().map(|_| ()));
            held.extend(places.ok().map(|places| (iovecs, places)));
        }
        Step::Release => held.clear(),
    }
}

/// What the steps share.
struct Rig {
    backing: Arc<Backing>,
    pool: IoVecPool,
}

proptest! {
    #[test]
    fn guest_memory_is_what_a_map_of_bytes_is(steps in steps()) {
        let rig = Rig { backing: numbered(8), pool: IoVecPool::new(64) };
        let file = (0..8 * PAGE).map(|at| (at / PAGE) as u8).collect();
        let mut model = Model { file, ..Model::default() };
        let mut memory = GuestMemory::new();
        let mut held = Held::new();
        for step in steps {
            run(step, &mut memory, &mut model, &mut held, &rig);
            for (iovecs, places) in &held {
                let expected: Vec<u8> = places.iter().map(|&at| model.file[at]).collect();
                prop_assert_eq!(contents(iovecs), expected);
                let segments = iovecs.segments();
                let joinable = |(one, next): (&IoVec, &IoVec)| {
                    one.as_ptr().wrapping_add(one.len()) == next.as_ptr()
                };
                prop_assert!(!segments.iter().zip(segments.iter().skip(1)).any(joinable));
            }
        }
        held.clear();
        prop_assert!(!memory.retired_busy());
        memory.unmap_all();
        prop_assert!(!memory.retired_busy());
        prop_assert_eq!(rig.pool.free(), 64);
        prop_assert_eq!(Arc::strong_count(&rig.backing), 1);
    }
}

#[test]
fn a_write_past_or_through_the_caches_moves_the_same_bytes_at_any_alignment() {
    for write in [Arena::write, Arena::write_through_caches] {
        writes_at_any_alignment(write);
    }
}

fn writes_at_any_alignment(write: fn(&Arena, u64, &IoVecs) -> bool) {
    let backing = numbered(4);
    let memory = table(&[region(&backing, 0, 0, 2), region(&backing, 3, 2, 1)]);
    let pool = IoVecPool::new(1);
    for (at, len, offset) in [
        (0, PAGE, 0),
        (64, 2 * PAGE, 128),
        (7, 3 * PAGE - 7, 0),
        (PAGE - 1, 70, 13),
        (1, 5, 61),
        (3, 0, 9),
    ] {
        let arena = Arena::new(8 * PAGE).unwrap();
        let iovecs = gather(&memory, &pool, at, len);
        assert!(write(&arena, offset, &iovecs));
        arena.settle();
        assert!(arena.equals(offset, &iovecs), "{len} bytes from {at}");
        // Nothing beside it was touched.
        assert!(arena.zero(offset, len));
        let mut whole = vec![1; 8 * PAGE_BYTES];
        let (target, _) = Backing::memfd("target", 8 * PAGE, PageKind::Normal).unwrap();
        let target = table(&[region(&target, 0, 0, 8)]);
        assert!(arena.read(0, &gather(&target, &pool, 0, 8 * PAGE)));
        target.read(Iova(0), &mut whole).unwrap();
        assert!(whole.iter().all(|&byte| byte == 0), "{len} bytes from {at}");
    }
    let arena = Arena::new(PAGE).unwrap();
    assert!(!write(&arena, 1, &gather(&memory, &pool, 0, PAGE)));
}

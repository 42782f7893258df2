//! Commands of every shape, one by one.

use bdev::memory::{Access, Arena, GuestMemory, IoVecPool, IoVecs, Iova, copy};

use super::super::memory::SLOTS_BYTES;
use super::super::rings::Command;
use super::super::work::{BLOCK_BYTES, BURST, DEPTHS, LARGE_BYTES, LARGE_DEPTH, Work};
use super::*;

const DISK_BYTES: u64 = 2 << 20;

/// Fills memory so that each page, and each buffer, can be known: eight bytes of a number, again
/// and again.
fn fill(iovecs: &IoVecs, mark: u64) {
    let bytes = mark.to_le_bytes().repeat(iovecs.bytes() as usize / 8);
    copy::to_iovecs(&bytes, iovecs, 0);
}

fn holds(iovecs: &IoVecs, mark: u64) -> bool {
    let bytes = mark.to_le_bytes().repeat(iovecs.bytes() as usize / 8);
    copy::equal(iovecs, 0, &bytes)
}

/// A disk whose places of `bytes` bytes hold their offset, and a mark.
fn disk(bytes: u64) -> Arena {
    let disk = Arena::in_base_pages(DISK_BYTES).expect("a disk");
    let shape = Shape {
        bytes,
        ..Shape::empty(1)
    };
    let buffer = &Memory::new(&disk)
        .expect("memory")
        .buffers(shape)
        .expect("one")[0];
    for offset in (0..DISK_BYTES).step_by(bytes as usize) {
        fill(buffer, MARK + offset);
        assert!(disk.write(offset, buffer));
    }
    disk.settle();
    disk
}

const MARK: u64 = 0x5a00_0000_0000_0000;

/// Has commands answered, and returns what each slot has asked for last.
fn answered(shape: Shape, memory: &Memory<'_>, commands: u64) -> Vec<Command> {
    let asked = with_client(shape, memory, Pair::anywhere(), |client| {
        let done = client.commands(commands)?;
        assert!((commands..commands + u64::from(BURST)).contains(&done));
        // `drain` clears the numbers as the answers come.
        let asked = client.asked.clone();
        client.drain()?;
        assert!(client.asked.iter().all(|command| command.number == 0));
        Some(asked)
    });
    asked.expect("both threads").expect("a server")
}

fn shapes(work: Work) -> impl Iterator<Item = Shape> {
    let of_depth = move |depth| {
        let bytes = if depth == LARGE_DEPTH {
            LARGE_BYTES
        } else {
            BLOCK_BYTES
        };
        [false, true].map(|ahead| Shape {
            work,
            depth,
            ahead,
            bytes,
            in_order: false,
        })
    };
    DEPTHS
        .into_iter()
        .chain([LARGE_DEPTH, 3, 33])
        .flat_map(of_depth)
}

#[test]
fn every_command_is_answered_once_at_every_depth() {
    let disk = disk(BLOCK_BYTES);
    let memory = Memory::new(&disk).expect("memory");
    for shape in shapes(Work::Empty) {
        let asked = answered(shape, &memory, 3000);
        // Whatever was answered was asked for again: the last numbers are all different and there
        // are as many as slots.
        let mut numbers: Vec<u64> = asked.iter().map(|command| command.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), usize::from(shape.depth), "{shape:?}");
        assert!(
            numbers.first() > Some(&0) && numbers.last() > Some(&3000),
            "{shape:?}"
        );
    }
}

#[test]
fn what_is_read_is_what_was_asked_for() {
    for shape in shapes(Work::Read) {
        let disk = disk(shape.bytes);
        let memory = Memory::new(&disk).expect("memory");
        // The buffers stay as they are, and are looked at by another table.
        let asked = answered(shape, &memory, 300);
        for (slot, command) in asked.iter().enumerate() {
            let buffer = buffer_of(&memory, shape, slot);
            assert!(holds(&buffer, MARK + command.offset), "{shape:?} {slot}");
        }
    }
}

#[test]
fn what_is_written_is_where_it_was_asked_to_be() {
    for work in [Work::Write, Work::WriteStreaming] {
        for shape in shapes(work) {
            let disk = disk(shape.bytes);
            let memory = Memory::new(&disk).expect("memory");
            // A server begins with empty buffers.
            let asked = answered(shape, &memory, 300);
            let buffer = buffer_of(&memory, shape, 0);
            let mut written = 0;
            for offset in (0..DISK_BYTES).step_by(shape.bytes as usize) {
                assert!(disk.read(offset, &buffer));
                let empty = holds(&buffer, 0);
                assert!(empty || holds(&buffer, MARK + offset), "{shape:?} {offset}");
                let wanted = asked.iter().any(|command| command.offset == offset);
                assert!(empty || !wanted, "{shape:?} {offset}");
                written += u64::from(empty);
            }
            assert!(written > 0, "{shape:?}");
        }
    }
}

/// The buffer of one slot, as it is.
fn buffer_of(memory: &Memory<'_>, shape: Shape, slot: usize) -> IoVecs {
    let mut table = GuestMemory::new();
    table.map(memory.slots.clone()).expect("a region");
    let at = Iova(slot as u64 * shape.bytes);
    let mut iovecs = IoVecs::new();
    let pool = IoVecPool::new(0);
    table
        .gather(&pool, at, shape.bytes, Access::Write, &mut iovecs)
        .expect("a buffer");
    iovecs
}

#[test]
fn a_server_that_cannot_begin_ends_the_client() {
    let disk = disk(BLOCK_BYTES);
    let memory = Memory::new(&disk).expect("memory");
    let shape = Shape {
        bytes: SLOTS_BYTES,
        ..Shape::empty(2)
    };
    let ended = with_client(shape, &memory, Pair::anywhere(), |client| {
        assert_eq!(client.commands(1), None);
    });
    assert!(matches!(ended, Err(Error::Memory(_))));
}

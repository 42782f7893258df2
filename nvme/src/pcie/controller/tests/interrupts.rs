//! Interrupts: the pin, vectors that are masked, and doorbells in memory.

use bdev::memory::{Backing, Iova, MemoryRegion, PageKind, Protection};

use super::machine::*;
use crate::spec::registers::offset;
use crate::spec::{AdminOpcode, NvmOpcode, Status};

const COMMAND: u64 = 0x04;
const STATUS: u64 = 0x06;
const INTERRUPT_STATUS: u8 = 1 << 3;
const INTX_DISABLE: u16 = 1 << 10;
const MSIX_BAR: u8 = 4;
const PENDING_BITS: u64 = 0x1000;

fn with_pin() -> Machine {
    let mut machine = Machine::with(config(), malloc());
    machine.bind_pin();
    machine.enable(16);
    machine.create_pair_of(1, 8, Some(0));
    machine
}

fn is_asserted(machine: &Machine) -> bool {
    let mut status = [0];
    machine.controller.config_read(STATUS, &mut status);
    status[0] & INTERRUPT_STATUS != 0
}

fn read_on(machine: &mut Machine, id: u16) {
    machine.submit(id, transfer(NvmOpcode::READ, NULL, data(1), 0, 8));
    machine.settle();
}

#[test]
fn the_pin_is_asserted_until_the_host_has_consumed() {
    let mut machine = with_pin();
    assert!(!is_asserted(&machine));
    let before = machine.pin.count();
    read_on(&mut machine, 1);
    assert_eq!(machine.pin.count(), before + 1);
    assert!(is_asserted(&machine));
    machine.controller.mask_pin(false);
    assert_eq!(machine.pin.count(), before + 2, "a level is raised again");
    machine.reap(1);
    assert!(!is_asserted(&machine));
    machine.controller.mask_pin(false);
    assert_eq!(machine.pin.count(), before + 2);
}

#[test]
fn the_interrupt_mask_holds_the_pin_back() {
    let mut machine = with_pin();
    machine.write(offset::INTMS, 1);
    assert_eq!(machine.read(offset::INTMC), 1);
    machine.settle();
    let before = machine.pin.count();
    read_on(&mut machine, 1);
    assert_eq!(machine.pin.count(), before);
    machine.write(offset::INTMC, 1);
    machine.settle();
    assert_eq!(machine.pin.count(), before + 1);
    assert_eq!(machine.read(offset::INTMS), 0);
}

#[test]
fn the_host_may_disable_the_pin() {
    let mut machine = with_pin();
    let command = INTX_DISABLE.to_le_bytes();
    machine.controller.config_write(COMMAND, &command);
    machine.settle();
    let before = machine.pin.count();
    read_on(&mut machine, 1);
    assert_eq!(machine.pin.count(), before);
    machine.controller.config_write(COMMAND, &[0; 2]);
    machine.settle();
    assert_eq!(machine.pin.count(), before + 1);
}

/// Ways to shut the pin off and to open it again.
#[derive(Clone, Copy, Debug)]
enum Gate {
    InterruptMask,
    InterruptDisable,
    Binding,
}

fn set_gate(machine: &mut Machine, gate: Gate, open: bool) {
    match (gate, open) {
        (Gate::InterruptMask, false) => machine.write(offset::INTMS, 1),
        (Gate::InterruptMask, true) => machine.write(offset::INTMC, 1),
        (Gate::InterruptDisable, _) => {
            let command = if open { 0 } else { INTX_DISABLE };
            machine
                .controller
                .config_write(COMMAND, &command.to_le_bytes());
        }
        (Gate::Binding, false) => machine.controller.bind_pin(None),
        (Gate::Binding, true) => machine.bind_pin(),
    }
    machine.settle();
}

#[test]
fn a_level_that_was_told_is_told_again_when_the_pin_is_opened() {
    for gate in [Gate::InterruptMask, Gate::InterruptDisable, Gate::Binding] {
        for queue in [0, 1] {
            let mut machine = with_pin();
            match queue {
                0 => {
                    machine.submit(0, admin(AdminOpcode::IDENTIFY, data(1), [1, 0]));
                }
                _ => read_on(&mut machine, queue),
            }
            machine.settle();
            let before = machine.pin.count();
            // A host that takes its time: it has the interrupt, and has consumed nothing yet.
            set_gate(&mut machine, gate, false);
            assert_eq!(machine.pin.count(), before, "{gate:?} {queue}");
            set_gate(&mut machine, gate, true);
            assert_eq!(machine.pin.count(), before + 1, "{gate:?} {queue}");
            machine.reap(queue);
            set_gate(&mut machine, gate, false);
            set_gate(&mut machine, gate, true);
            assert_eq!(machine.pin.count(), before + 1, "{gate:?}: no level");
        }
    }
}

#[test]
fn the_pin_is_quiet_once_vectors_are_bound() {
    let mut machine = Machine::new();
    machine.bind_pin();
    read_on(&mut machine, 1);
    assert_eq!(machine.pin.count(), 0);
    assert_eq!(machine.vectors[1].count(), 1);
    assert!(!is_asserted(&machine));
}

fn pending(machine: &mut Machine) -> u8 {
    let mut bits = [0];
    machine
        .controller
        .bar_read(MSIX_BAR, PENDING_BITS, &mut bits);
    bits[0]
}

fn mask_entry(machine: &mut Machine, vector: u64, masked: u32) {
    let control = vector * 16 + 12;
    let masked = masked.to_le_bytes();
    machine.controller.bar_write(MSIX_BAR, control, &masked);
    machine.settle();
}

#[test]
fn a_masked_vector_is_pending_and_delivered_when_it_is_unmasked() {
    let mut machine = Machine::new();
    mask_entry(&mut machine, 1, 1);
    read_on(&mut machine, 1);
    read_on(&mut machine, 2);
    assert_eq!(machine.vectors[1].count(), 0);
    assert_eq!(machine.vectors[2].count(), 1);
    assert_eq!(pending(&mut machine), 1 << 1);
    mask_entry(&mut machine, 1, 0);
    assert_eq!(machine.vectors[1].count(), 1);
    assert_eq!(pending(&mut machine), 0);
}

#[test]
fn nothing_is_pending_once_the_host_has_consumed() {
    let mut machine = Machine::new();
    mask_entry(&mut machine, 1, 1);
    read_on(&mut machine, 1);
    machine.reap(1);
    assert_eq!(pending(&mut machine), 0);
}

#[test]
fn vectors_that_the_client_masks_are_delivered_when_it_unmasks_them() {
    let mut machine = Machine::new();
    machine.controller.mask_vectors(1, 1, true);
    machine.settle();
    read_on(&mut machine, 1);
    assert_eq!(machine.vectors[1].count(), 0);
    machine.controller.mask_vectors(1, 1, false);
    machine.settle();
    assert_eq!(machine.vectors[1].count(), 1);
}

#[test]
fn an_interrupt_outlives_the_process() {
    let mut machine = Machine::new();
    machine.held_writes(1, 1);
    machine.rebuild();
    machine.device.hold(false);
    machine.settle();
    assert!(machine.vectors[1].count() > 0);
    assert_eq!(machine.reap(1).len(), 1);
}

fn use_shadow_doorbells(machine: &mut Machine, doorbells: u64, events: u64) -> Status {
    let words = admin(AdminOpcode::DOORBELL_BUFFER_CONFIG, doorbells, [0; 2]);
    let mut words = words.to_words();
    words[4] = events;
    machine.admin(crate::spec::Sqe::from_words(words))
}

#[test]
fn doorbells_of_io_queues_may_be_in_memory() {
    let mut machine = Machine::new();
    let (doorbells, events) = (data(20), data(21));
    let refused = use_shadow_doorbells(&mut machine, doorbells + 8, events);
    assert_eq!(refused, Status::INVALID_FIELD);
    let refused = use_shadow_doorbells(&mut machine, doorbells, 1 << 40);
    assert_eq!(refused, Status::DATA_TRANSFER_ERROR);
    let accepted = use_shadow_doorbells(&mut machine, doorbells, events);
    assert_eq!(accepted, Status::SUCCESS);

    read_on(&mut machine, 1);
    assert_eq!(machine.peek(1), None, "by the register");
    machine.put(doorbells + 8, &1u32.to_le_bytes());
    machine.settle();
    assert_eq!(machine.reap(1).len(), 1);
    // What a Linux host asks: whether the next doorbell, 1 to 2, must be told by the register.
    let event = machine.get(events + 8, 4);
    let event = u16::from_le_bytes([event[0], event[1]]);
    assert!(2u16.wrapping_sub(event).wrapping_sub(1) >= 1, "{event}");

    machine.rebuild();
    read_on(&mut machine, 1);
    assert_eq!(machine.peek(1), None, "by the register");
    machine.put(doorbells + 8, &2u32.to_le_bytes());
    machine.settle();
    assert_eq!(machine.reap(1).len(), 1);
    machine.write(offset::CC, DISABLED);
    machine.settle();
    machine.enable(16);
    machine.create_pair(1);
    machine.assert_works(1, HELD);
}

#[test]
fn doorbells_are_not_looked_for_where_the_controller_may_not_write() {
    let mut machine = Machine::new();
    let (doorbells, read_only) = (data(20), 1 << 40);
    let (backing, _fd) = Backing::memfd("rom", PAGE, PageKind::Normal).unwrap();
    let protection = Protection {
        read: true,
        write: false,
    };
    let rom = MemoryRegion::new(backing, 0, Iova(read_only), PAGE, protection).unwrap();
    machine.controller.map(rom).unwrap();
    machine.settle();
    let refused = use_shadow_doorbells(&mut machine, doorbells, read_only);
    assert_eq!(refused, Status::DATA_TRANSFER_ERROR);
    machine.assert_works(1, HELD);
}

//! A guest that writes anything anywhere.

use std::sync::atomic::Ordering::Release;

use proptest::prelude::*;

use super::machine::*;
use crate::spec::Nsid;
use crate::spec::registers::offset;

const SHARED: Nsid = MEMORY;
const GUARD: u8 = 0xa5;

#[derive(Clone, Debug)]
enum Step {
    Register(u64, Vec<u8>),
    Config(u64, Vec<u8>),
    Vector(u64, Vec<u8>),
    /// A queue, what is put there and what its doorbells are set to.
    Commands(u16, Vec<[u64; 8]>),
    /// As by a client that has mapped the doorbells.
    Doorbell(usize, u32),
    Enable,
    Passes(u8),
    Die,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..17)
}

/// An address that may be memory: a ring, data, or anything.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(ADMIN),
        (0u64..64).prop_map(|page| IO + page * 1024),
        (0u64..64).prop_map(|page| DATA + page * 2048),
        any::<u64>(),
    ]
}

/// Entries of which the first bytes often make sense.
fn entry() -> impl Strategy<Value = [u64; 8]> {
    let plausible = (
        any::<u8>(),
        0u64..5,
        address(),
        address(),
        any::<[u32; 3]>(),
    );
    let plausible = plausible.prop_map(|(opcode, nsid, first, second, cdws)| {
        let dword_0_and_1 = u64::from(opcode % 0x20) | nsid << 32;
        let [cdw10, cdw11, cdw12] = cdws.map(u64::from);
        let cdw10_11 = cdw10 & 0xff_00ff | (cdw11 & 0x3_0003) << 32;
        [
            dword_0_and_1,
            0,
            0,
            first,
            second,
            cdw10_11,
            cdw12 & 0xffff,
            0,
        ]
    });
    prop_oneof![3 => plausible, 1 => any::<[u64; 8]>()]
}

fn step() -> impl Strategy<Value = Step> {
    let entries = proptest::collection::vec(entry(), 1..8);
    prop_oneof![
        2 => (0u64..0x60, bytes()).prop_map(|(at, bytes)| Step::Register(at, bytes)),
        1 => (any::<u64>(), bytes()).prop_map(|(at, bytes)| Step::Register(at, bytes)),
        2 => (0u64..0x120, bytes()).prop_map(|(at, bytes)| Step::Config(at, bytes)),
        1 => (0u64..0x3000, bytes()).prop_map(|(at, bytes)| Step::Vector(at, bytes)),
        6 => (0u16..3, entries).prop_map(|(queue, entries)| Step::Commands(queue, entries)),
        2 => (0usize..12, 0u32..20).prop_map(|(at, value)| Step::Doorbell(at, value)),
        1 => (0usize..12, any::<u32>()).prop_map(|(at, value)| Step::Doorbell(at, value)),
        2 => Just(Step::Enable),
        4 => (1u8..9).prop_map(Step::Passes),
        1 => Just(Step::Die),
    ]
}

/// The same entry, but harmless to the disk that another controller uses: nobody is kept from
/// writing to what was given to both.
fn without_writes_to_shared(mut words: [u64; 8]) -> [u64; 8] {
    let nsid = words[0] >> 32;
    if nsid == u64::from(SHARED.0) || nsid == u64::from(u32::MAX) {
        words[0] = words[0] & !0xff | 0x02;
    }
    words
}

fn take(machine: &mut Machine, step: Step) {
    match step {
        Step::Register(at, bytes) => machine.controller.bar_write(0, at, &bytes),
        Step::Config(at, bytes) => machine.controller.config_write(at, &bytes),
        Step::Vector(at, bytes) => machine.controller.bar_write(4, at, &bytes),
        Step::Commands(queue, entries) => {
            for (index, words) in (0..).zip(&entries) {
                machine.put_entry(queue, index, without_writes_to_shared(*words));
            }
            machine.write(0x1000 + u64::from(queue) * 8, entries.len() as u32);
        }
        Step::Doorbell(at, value) => {
            let pages = machine.controller.doorbells();
            pages.store_u32(0x1000 + at * 4, value, Release);
        }
        Step::Enable => {
            machine.write(offset::AQA, 0x000f_000f);
            machine.write(offset::ASQ, ADMIN as u32);
            machine.write(offset::ACQ, (ADMIN + PAGE) as u32);
            machine.write(offset::CC, ENABLED);
        }
        Step::Passes(count) => (0..count).for_each(|_| machine.pass()),
        Step::Die => machine.rebuild(),
    }
    let mut back = [0; 16];
    machine.controller.bar_read(0, 0x08, &mut back);
    machine.controller.config_read(0x04, &mut back);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nobody_else_notices_a_hostile_guest(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let disk = malloc();
        let mut neighbour = Machine::on(&disk);
        neighbour.assert_works(2, SHARED);
        let mut machine = Machine::on(&disk);
        for at in [ADMIN, IO, DATA] {
            machine.put(at - PAGE, &[GUARD; PAGE as usize]);
        }
        let guards = machine.guards();
        for step in steps {
            take(&mut machine, step);
            neighbour.pass();
        }
        machine.settle();
        prop_assert!(machine.guards() == guards, "wrote beside its memory");
        neighbour.assert_holds(2, SHARED);
        neighbour.assert_works(1, SHARED);

        machine.controller.device_reset();
        machine.settle();
        prop_assert_eq!(machine.reply(), Some(Ok(())));
        machine.enable(16);
        machine.create_pair_of(1, 8, Some(0));
        machine.assert_works(1, HELD);
    }
}

//! Resets of every kind while commands are in flight: nothing that was acknowledged may be lost,
//! and no guest may have to wait for a command that nobody will finish.

use crate::machine::Machine;
use crate::stage::Stage;
use crate::target::Target;
use crate::vm::Vm;
use crate::{digest, fio_verify, rounds, write_marked};

const DISK: &str = "--bdev file:disk,path=DIR/disk.img,size=256m \
                    --controller socket=DIR/disk.sock,ns=disk";

/// Where the load writes, behind the data that must not change.
const LOAD: &str = "--offset=64m --size=16m --iodepth=64 --loops=4";

/// Waits until commands are in flight: what comes next comes while they are.
const UNDER_LOAD: &str = "sleep 0.5; \
                          while grep -q '^ *0 *0$' /sys/block/nvme0n1/inflight; do :; done";

/// A test on its way: a guest with marked data on its disk.
struct Marked {
    stage: Stage,
    target: Target,
    vm: Vm,
    sum: String,
}

impl Marked {
    fn new() -> Marked {
        let stage = Stage::new();
        let target = Target::serve(&stage, DISK);
        let mut vm = Vm::boot(&stage, &machine());
        let sum = vm.run(&write_marked("/dev/nvme0n1", 8));
        Marked {
            stage,
            target,
            vm,
            sum,
        }
    }

    #[track_caller]
    fn check(&mut self) {
        assert_eq!(self.vm.run(&digest("/dev/nvme0n1", 8)), self.sum);
    }

    #[track_caller]
    fn finish(mut self) {
        self.check();
        self.vm.run(&fio_verify("/dev/nvme0n1", "--offset=128m"));
        self.vm.power_off();
        self.target.stop();
        drop(self.stage);
    }
}

fn machine() -> Machine {
    Machine::new().disk("disk.sock")
}

#[test]
fn controller_and_function_resets_under_load_lose_nothing() {
    let mut test = Marked::new();
    test.vm
        .run("echo flr >/sys/class/nvme/nvme0/device/reset_method");
    for reset in [
        "nvme reset /dev/nvme0",
        "echo 1 >/sys/class/nvme/nvme0/device/reset",
    ] {
        let load = test.vm.start(&fio_verify("/dev/nvme0n1", LOAD));
        for _ in 0..rounds() {
            test.vm.run(&format!("{UNDER_LOAD}; {reset}"));
        }
        test.vm.stop(load);
        test.check();
    }
    test.finish();
}

#[test]
fn the_driver_can_be_taken_off_under_load_and_put_back() {
    let mut test = Marked::new();
    let function = test
        .vm
        .run("basename $(readlink -f /sys/class/nvme/nvme0/device)");
    // The load has to fail, and the kernel to say so: its disk goes away.
    test.vm.forgive("I/O error");
    for _ in 0..rounds() {
        let load = test.vm.start(&fio_verify("/dev/nvme0n1", LOAD));
        let driver = "/sys/bus/pci/drivers/nvme";
        test.vm
            .run(&format!("{UNDER_LOAD}; echo {function} >{driver}/unbind"));
        assert_ne!(test.vm.finish(load).status, 0);
        test.vm.run(&format!("echo {function} >{driver}/bind"));
        test.vm.run("until [ -b /dev/nvme0n1 ]; do sleep 0.1; done");
        test.check();
    }
    test.finish();
}

#[test]
fn a_machine_reset_under_load_leaves_a_disk_that_works() {
    let mut test = Marked::new();
    for _ in 0..rounds() {
        let _lost = test.vm.start(&fio_verify("/dev/nvme0n1", LOAD));
        test.vm.run(UNDER_LOAD);
        test.vm.system_reset();
        test.check();
    }
    test.finish();
}

#[test]
fn the_next_machine_attaches_cleanly_after_a_kill_under_load() {
    let mut test = Marked::new();
    for _ in 0..rounds() {
        let _lost = test.vm.start(&fio_verify("/dev/nvme0n1", LOAD));
        test.vm.run(UNDER_LOAD);
        test.vm.kill();
        test.vm = Vm::boot(&test.stage, &machine());
        test.check();
    }
    test.finish();
}

#[test]
fn bellwire_stops_cleanly_under_load_and_keeps_what_was_written() {
    let mut test = Marked::new();
    let _lost = test.vm.start(&fio_verify("/dev/nvme0n1", LOAD));
    test.vm.run(UNDER_LOAD);
    test.target.stop();
    // Nobody gives this machine its disk back: what its kernel says now is not looked at.
    drop(test.vm);
    test.target = Target::serve(&test.stage, DISK);
    test.vm = Vm::boot(&test.stage, &machine());
    test.finish();
}

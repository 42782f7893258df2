//! Machines and controllers that are not what most people have.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::fio_verify;
use crate::machine::Machine;
use crate::stage::Stage;
use crate::target::Target;
use crate::vm::Vm;

#[test]
fn a_guest_without_message_interrupts_works_by_the_interrupt_pin() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev malloc:disk,size=64m --controller socket=DIR/disk.sock,ns=disk,intx=on",
    );
    let machine = Machine::new()
        .disk("disk.sock")
        .kernel_arguments("pci=nomsi");
    let mut vm = Vm::boot(&stage, &machine);
    vm.run("grep nvme0q0 /proc/interrupts | grep -q IO-APIC");
    vm.run(&fio_verify("/dev/nvme0n1", ""));
    vm.run("nvme reset /dev/nvme0");
    vm.run(&fio_verify("/dev/nvme0n1", ""));
    vm.power_off();
    target.stop();
}

#[test]
fn a_guest_with_an_iommu_maps_its_buffers_one_by_one() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev malloc:disk,size=64m --controller socket=DIR/disk.sock,ns=disk",
    );
    let mut vm = Vm::boot(&stage, &Machine::new().disk("disk.sock").iommu());
    let domain = vm.run("cat /sys/class/nvme/nvme0/device/iommu_group/type");
    assert!(domain.starts_with("DMA"), "{domain}");
    vm.run(&fio_verify("/dev/nvme0n1", "--size=4m"));
    vm.run("nvme reset /dev/nvme0");
    vm.run(&fio_verify(
        "/dev/nvme0n1",
        "--size=4m --bs=64k --iodepth=4",
    ));
    vm.power_off();
    target.stop();
}

#[test]
fn controllers_with_the_smallest_limits_and_large_blocks_work_on_a_reactor_that_sleeps() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--idle sleep=100 \
         --bdev malloc:a,size=64m --bdev malloc:b,size=64m --bdev malloc:c,size=64m,block=4096 \
         --controller socket=DIR/a.sock,ns=a,queues=1,vectors=1 \
         --controller socket=DIR/b.sock,ns=b,depth=2 --controller socket=DIR/c.sock,ns=c,vectors=2",
    );
    let machine = Machine::new().disk("a.sock").disk("b.sock").disk("c.sock");
    let mut vm = Vm::boot(&stage, &machine);
    let mut block_sizes = Vec::new();
    for disk in ["nvme0n1", "nvme1n1", "nvme2n1"] {
        block_sizes.push(vm.run(&format!("cat /sys/block/{disk}/queue/logical_block_size")));
        vm.run(&fio_verify(
            &format!("/dev/{disk}"),
            "--numjobs=2 --offset_increment=32m",
        ));
    }
    block_sizes.sort();
    assert_eq!(block_sizes, ["4096", "512", "512"]);
    vm.power_off();
    target.stop();
}

#[test]
fn two_controllers_of_one_subsystem_are_two_paths_to_one_disk() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev malloc:disk,size=64m \
         --controller socket=DIR/a.sock,ns=disk,shared=on,nqn=nqn.2024-01.test:both \
         --controller socket=DIR/b.sock,ns=disk,shared=on,nqn=nqn.2024-01.test:both",
    );
    let mut vm = Vm::boot(&stage, &Machine::new().disk("a.sock").disk("b.sock"));
    assert_eq!(
        vm.run("ls -d /sys/class/nvme-subsystem/*/nvme? | wc -l"),
        "2"
    );
    let disk = vm.run("ls /dev/nvme?n1");
    let load = vm.start(&fio_verify(&disk, ""));
    vm.run("sleep 1; nvme reset /dev/nvme0; sleep 1; nvme reset /dev/nvme1");
    vm.stop(load);
    vm.power_off();
    target.stop();
}

#[test]
fn two_reactors_share_the_queues_of_one_controller() {
    let stage = Stage::new();
    let disk = "--bdev malloc:disk,size=64m --controller socket=DIR/disk.sock,ns=disk";
    let target = Target::serve(&stage, &format!("-m {} {disk}", two_cores()));
    let mut vm = Vm::boot(&stage, &Machine::new().disk("disk.sock"));
    let load = vm.start(&fio_verify(
        "/dev/nvme0n1",
        "--numjobs=2 --offset_increment=32m",
    ));
    vm.run("sleep 1; nvme reset /dev/nvme0; sleep 1");
    vm.stop(load);
    vm.power_off();
    target.stop();
}

/// The first two cores that this process may use.
fn two_cores() -> String {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the allowed cores");
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    match (cores.next(), cores.next()) {
        (Some(first), Some(second)) => format!("[{first},{second}]"),
        _ => panic!("this process may use only one core, and two reactors need two"),
    }
}

#[test]
fn a_disk_can_be_plugged_into_a_running_machine() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev malloc:disk,size=64m --controller socket=DIR/disk.sock,ns=disk",
    );
    let mut vm = Vm::boot(&stage, &Machine::new().slot());
    vm.plug(&stage, "disk.sock");
    vm.run("until [ -b /dev/nvme0n1 ]; do sleep 0.1; done");
    vm.run(&fio_verify("/dev/nvme0n1", ""));
    vm.power_off();
    target.stop();
}

//! What a disk is for: partitions, file systems, data that is there again after a restart.

use crate::machine::Machine;
use crate::stage::Stage;
use crate::target::Target;
use crate::vm::Vm;
use crate::{digest, fio_verify, write_marked};

const FILE_DISK: &str = "--bdev file:disk,path=DIR/disk.img,size=2g \
                         --controller socket=DIR/disk.sock,ns=disk,serial=BELLWIRE-0001";

#[test]
fn file_systems_are_found_again_after_a_reboot_and_after_a_restart_of_everything() {
    let stage = Stage::new();
    let machine = Machine::new().disk("disk.sock");
    let target = Target::serve(&stage, FILE_DISK);
    let mut vm = Vm::boot(&stage, &machine);

    assert!(vm.run("nvme list").contains("BELLWIRE-0001"));
    assert_eq!(
        vm.run("cat /sys/block/nvme0n1/size"),
        (2u64 << 30 >> 9).to_string()
    );
    vm.run("printf 'size=512MiB\\nsize=1GiB\\n' | sfdisk -q --label gpt /dev/nvme0n1");
    vm.run("mkfs.ext4 -q /dev/nvme0n1p1");
    vm.run("mkfs.xfs -q /dev/nvme0n1p2");
    mount(&mut vm);
    let mut sums = Vec::new();
    for folder in ["/mnt/ext4", "/mnt/xfs"] {
        vm.run(&fio_verify(&format!("{folder}/fio"), ""));
        sums.push(vm.run(&write_marked(&format!("{folder}/data"), 8)));
        vm.run(&format!("rm {folder}/fio && fstrim {folder}"));
    }
    vm.run(
        "umount /mnt/ext4 /mnt/xfs && e2fsck -fn /dev/nvme0n1p1 && xfs_repair -n /dev/nvme0n1p2",
    );

    vm.reboot();
    check_files(&mut vm, &sums);
    vm.power_off();
    target.stop();

    let target = Target::serve(&stage, FILE_DISK);
    let mut vm = Vm::boot(&stage, &machine);
    check_files(&mut vm, &sums);
    vm.power_off();
    target.stop();
}

fn mount(vm: &mut Vm) {
    vm.run("mkdir -p /mnt/ext4 /mnt/xfs");
    vm.run("mount -t ext4 /dev/nvme0n1p1 /mnt/ext4 && mount -t xfs /dev/nvme0n1p2 /mnt/xfs");
}

fn check_files(vm: &mut Vm, sums: &[String]) {
    mount(vm);
    for (folder, sum) in ["/mnt/ext4", "/mnt/xfs"].iter().zip(sums) {
        assert_eq!(vm.run(&digest(&format!("{folder}/data"), 8)), *sum);
    }
    vm.run("umount /mnt/ext4 /mnt/xfs");
}

#[test]
fn a_raw_disk_keeps_what_is_written_in_any_size_and_zeroes_what_is_discarded() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev malloc:disk,size=256m --controller socket=DIR/disk.sock,ns=disk",
    );
    let mut vm = Vm::boot(&stage, &Machine::new().disk("disk.sock"));

    vm.run(&fio_verify(
        "/dev/nvme0n1",
        "--numjobs=2 --offset_increment=32m",
    ));
    vm.run(&fio_verify(
        "/dev/nvme0n1",
        "--bsrange=512-256k --iodepth=8",
    ));
    // Requests at the largest size that the controller takes, and ones the kernel has to split.
    vm.run(&fio_verify(
        "/dev/nvme0n1",
        "--rw=write --bs=1m --size=64m --iodepth=4",
    ));
    vm.run(&fio_verify(
        "/dev/nvme0n1",
        "--rw=write --bs=4m --size=64m --ioengine=psync",
    ));

    let is_zero = "dd if=/dev/zero bs=1M count=8 status=none | cmp -n 8388608 - /dev/nvme0n1";
    for command in ["blkdiscard -z", "blkdiscard"] {
        vm.run(&write_marked("/dev/nvme0n1", 8));
        vm.run(&format!("{command} --offset 0 --length 8M /dev/nvme0n1"));
        vm.run(is_zero);
    }
    vm.power_off();
    target.stop();
}

#[test]
fn two_disks_and_four_namespaces_keep_apart() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev malloc:one,size=64m --bdev malloc:a,size=32m --bdev malloc:b,size=33m \
         --bdev malloc:c,size=34m --bdev malloc:d,size=35m \
         --controller socket=DIR/one.sock,ns=one,serial=ONE \
         --controller socket=DIR/four.sock,ns=a,ns=b,ns=c,ns=d@9,serial=FOUR",
    );
    let mut vm = Vm::boot(&stage, &Machine::new().disk("one.sock").disk("four.sock"));

    let four = vm.run("grep -l FOUR /sys/class/nvme/nvme*/serial | cut -d / -f 5");
    let namespaces = vm.run(&format!("nvme list-ns /dev/{four} | sed 's/.*://'"));
    assert_eq!(
        namespaces.split_whitespace().collect::<Vec<_>>(),
        ["0x1", "0x2", "0x3", "0x9"]
    );
    let disks = vm.run("ls /sys/block");
    let disks: Vec<&str> = disks.split_whitespace().collect();
    assert_eq!(disks.len(), 5, "{disks:?}");

    let mut sizes: Vec<u64> = Vec::new();
    let mut sums = Vec::new();
    for disk in &disks {
        let sectors = vm.run(&format!("cat /sys/block/{disk}/size"));
        sizes.push(sectors.parse::<u64>().expect("a number of sectors") >> 11);
        sums.push(vm.run(&write_marked(&format!("/dev/{disk}"), 4)));
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [32, 33, 34, 35, 64]);
    for (disk, sum) in disks.iter().zip(&sums) {
        assert_eq!(vm.run(&digest(&format!("/dev/{disk}"), 4)), *sum);
    }
    vm.power_off();
    target.stop();
}

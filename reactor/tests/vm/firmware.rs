//! Firmware has drivers of its own, and starts what is on the disk.

use crate::machine::Machine;
use crate::stage::Stage;
use crate::target::Target;
use crate::vm::Vm;

#[test]
fn bios_and_uefi_firmware_boot_from_the_disk() {
    let stage = Stage::new();
    let target = Target::serve(
        &stage,
        "--bdev file:disk,path=DIR/disk.img,size=256m --controller socket=DIR/disk.sock,ns=disk",
    );
    let mut vm = Vm::boot(&stage, &Machine::installer().disk("disk.sock"));
    vm.run("/etc/bellwire/install /dev/nvme0n1");
    vm.power_off();

    for (machine, is_uefi) in [(Machine::bios(), false), (Machine::uefi(), true)] {
        let mut vm = Vm::boot(&stage, &machine.disk("disk.sock"));
        assert_eq!(vm.try_run("[ -d /sys/firmware/efi ]").status == 0, is_uefi);
        vm.run("dd if=/dev/nvme0n1p1 of=/dev/null bs=1M count=16 iflag=direct");
        vm.power_off();
    }
    target.stop();
}

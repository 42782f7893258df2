# KVM where a guest is seen to come up on it, software emulation (TCG) everywhere else: there are
# machines whose /dev/kvm is there and on which an ordinary kernel dies early.

# Leaves $testbed/accel: "BOOT_ID kvm" or "BOOT_ID tcg", tried once per boot of this machine.
set_up_accel() {
    local boot_id accel=tcg
    boot_id=$(cat /proc/sys/kernel/random/boot_id)
    [ "$(cut -d ' ' -f 1 "$testbed/accel" 2>/dev/null)" = "$boot_id" ] && return
    if [ -w /dev/kvm ]; then
        say "trying KVM"
        ! guest_comes_up_on_kvm || accel=kvm
    fi
    say "virtual machines run on $accel"
    echo "$boot_id $accel" >"$testbed/accel"
}

guest_comes_up_on_kvm() {
    timeout --foreground -k 1 15 "$testbed/qemu" -accel kvm -cpu host -machine q35 -m 512 \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$testbed/vmlinux" -initrd "$testbed/initramfs.cpio" \
        -append 'console=ttyS0 quiet bellwire=probe' </dev/null 2>/dev/null |
        grep -q 'reboot: Power down'
}

# A QEMU that can attach a vfio-user device (10.1 or newer): the system's, else a private one.

system_qemu() {
    local qemu
    qemu=$(type -P qemu-system-x86_64) || return 1
    "$qemu" -device help 2>/dev/null | grep -q '"vfio-user-pci"' && echo "$qemu"
}

# Leaves $testbed/qemu: one program, whichever QEMU it is.
set_up_qemu() {
    local qemu
    mkdir -p "$testbed"
    if qemu=$(system_qemu); then
        printf '#!/bin/sh\nexec %s "$@"\n' "$qemu" >"$testbed/qemu.new"
    else
        # The private copy knows only the paths of an installed one: tell it where all things are.
        cat >"$testbed/qemu.new" <<WRAPPER
#!/bin/sh
export QEMU_MODULE_DIR=$tree/usr/lib/x86_64-linux-gnu/qemu
exec $loader --library-path $libraries $tree/usr/bin/qemu-system-x86_64 \\
    -L $tree/usr/share/qemu -L $tree/usr/share/seabios "\$@"
WRAPPER
    fi
    chmod +x "$testbed/qemu.new"
    mv "$testbed/qemu.new" "$testbed/qemu"
    "$testbed/qemu" -device help | grep -q '"vfio-user-pci"' ||
        die "$testbed/qemu has no vfio-user-pci device"
    cp "$tree"/usr/share/OVMF/OVMF_{CODE,VARS}_4M.fd "$testbed"
}

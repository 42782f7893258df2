# The guest: Debian's kernel and an initramfs of a few Debian programs, built without root in
# seconds, and again whenever a file that it is made of has changed. Leaves in $testbed:
#   vmlinux           the kernel, uncompressed: QEMU starts it directly, by PVH
#   initramfs.cpio    busybox, nvme-cli, fio, mkfs and what they need
#   installer.cpio    the same, with all that a guest needs to make a disk bootable
#   kernel_arguments  those that every guest gets

guest_programs=(
    usr/bin/{dash,fio,kmod,lsblk,findmnt,stat,taskset}
    usr/sbin/{nvme,blkid,blockdev,fstrim,blkdiscard,sfdisk}
    usr/sbin/{mke2fs,e2fsck,mkfs.xfs,xfs_repair,mkfs.fat}
)
guest_modules=(xfs vfat nls_cp437 nls_ascii)
# What speeds a kernel up under software emulation, and does no harm elsewhere.
kernel_arguments='console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check'
kernel_arguments+=' random.trust_cpu=on'

set_up_guest() {
    local recipe
    recipe=$(cat "$root"/scripts/setup/guest.sh "$root"/scripts/guest/* "$tree/recipe" | cksum)
    [ "$(cat "$testbed/recipe" 2>/dev/null)" = "$recipe" ] && return
    say "building the guest image in $testbed"
    local build=$testbed/build
    rm -rf "$build" "$testbed/recipe"
    mkdir -p "$build"

    kernel_release=$(basename "$tree"/usr/lib/modules/*)
    extract_kernel "$tree/boot/vmlinuz-$kernel_release" >"$testbed/vmlinux"
    make_small_root "$build/small"
    pack "$build/small" >"$build/small.cpio"
    make_full_root "$build/full"
    pack "$build/full" >"$testbed/initramfs.cpio"
    make_boot_files "$build/boot/usr/share/bellwire" "$build/small.cpio"
    # The kernel unpacks archives that follow one another as one.
    { cat "$testbed/initramfs.cpio" && pack "$build/boot"; } >"$testbed/installer.cpio"

    echo "$kernel_arguments" >"$testbed/kernel_arguments"

    rm -rf "$build"
    echo "$recipe" >"$testbed/recipe"
}

# The kernel inside a bzImage: see "The Real-mode Kernel Header" in the kernel's boot protocol.
extract_kernel() {
    local image=$1 start length
    start=$(((($(number_at "$image" 497 1) + 1) * 512) + $(number_at "$image" 584 4)))
    length=$(number_at "$image" 588 4)
    # Its last four bytes are not part of the zstd stream but the size that comes out.
    dd if="$image" bs=1M status=none iflag=skip_bytes,count_bytes \
        skip="$start" count=$((length - 4)) | in_tree usr/bin/zstd -dcq
}

number_at() { od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }

pack() { (cd "$1" && find . | "$tree/usr/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null); }

# What is common to all: the folders, busybox, and what the guest does when it is up.
make_small_root() {
    local to=$1 name
    mkdir -p "$to"/{dev,etc/bellwire,proc,sys,tmp,usr/bin,usr/sbin,usr/lib,usr/lib64}
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$to/$name"; done
    cp "$tree/usr/bin/busybox" "$to/usr/bin"
    "$tree/usr/bin/busybox" --list | while read -r name; do
        [ "$name" = busybox ] || ln -s busybox "$to/usr/bin/$name"
    done
    install -m 755 "$root/scripts/guest/init" "$to/init"
    install -m 755 "$root"/scripts/guest/{agent,demo,install} "$to/etc/bellwire"
}

make_full_root() {
    local to=$1 program name
    make_small_root "$to"
    for program in "${guest_programs[@]}"; do
        rm -f "$to/usr/bin/${program##*/}"
        cp -L "$tree/$program" "$to/$program"
        load --list "$tree/$program"
    done | awk '$3 ~ "^/" { print $3 }' | sort -u | while read -r name; do
        install -D "$name" "$to/usr/lib/x86_64-linux-gnu/${name##*/}"
    done
    cp -L "$loader" "$to/usr/lib64"
    # Busybox's own shell would prefer busybox's programs to the real ones.
    ln -sf dash "$to/usr/bin/sh"
    # Where the kernel looks for it when it needs a module.
    ln -s ../bin/kmod "$to/usr/sbin/modprobe"
    for name in ext2 ext3 ext4; do ln -s mke2fs "$to/usr/sbin/mkfs.$name"; done
    ln -s mkfs.fat "$to/usr/sbin/mkfs.vfat"
    ln -s e2fsck "$to/usr/sbin/fsck.ext4"
    cp "$tree/etc/mke2fs.conf" "$to/etc"
    copy_modules "$to"
}

copy_modules() {
    local to=$1 modules=usr/lib/modules/$kernel_release name file
    mkdir -p "$to/$modules"
    cp "$tree/$modules"/modules.{order,builtin,builtin.modinfo} "$to/$modules"
    in_tree usr/sbin/depmod -b "$tree" "$kernel_release"
    for name in "${guest_modules[@]}"; do
        # A line of this file is a module and all that it needs.
        grep "/$name\.ko[^:]*:" "$tree/$modules/modules.dep" | tr ': ' '\n\n' | grep .
    done | sort -u | while read -r file; do
        install -D "$tree/$modules/$file" "$to/$modules/$file"
    done
    in_tree usr/sbin/depmod -b "$to" "$kernel_release"
}

# A kernel, a small initramfs and GRUB for both kinds of firmware, for the guest to put on a disk.
make_boot_files() {
    local to=$1 small=$2
    mkdir -p "$to"
    cp "$tree/boot/vmlinuz-$kernel_release" "$to/vmlinuz"
    cp "$small" "$to/initramfs.cpio"
    cat >"$to/grub.cfg" <<CONFIG
linux (hd0,msdos1)/vmlinuz $kernel_arguments
initrd (hd0,msdos1)/initramfs.cpio
boot
CONFIG
    make_grub i386-pc biosdisk "$to/core.img"
    make_grub x86_64-efi efi_gop "$to/bootx64.efi"
    cp "$tree/usr/lib/grub/i386-pc/boot.img" "$to"
}

make_grub() {
    in_tree usr/bin/grub-mkimage -d "$tree/usr/lib/grub/$1" -O "$1" -o "$3" -p '(hd0,msdos1)/' \
        -c "$(dirname "$3")/grub.cfg" "$2" part_msdos fat linux
}

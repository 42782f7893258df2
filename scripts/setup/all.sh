# Everything that the demo and the tests need, in order; quick when it is all there already.

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
for file in system debian qemu guest accel; do . "$root/scripts/setup/$file.sh"; done

set_up_testbed() {
    mkdir -p "$cache"
    # Two scripts started at once must not build the same thing.
    exec 9>"$cache/lock"
    flock 9
    if system_qemu >/dev/null; then
        set_up_tree "${guest_packages[@]}"
    else
        set_up_tree "${guest_packages[@]}" "${qemu_packages[@]}"
    fi
    set_up_qemu
    set_up_guest
    set_up_accel
    exec 9>&-
}

# Sourced first by scripts/demo and scripts/test: where things are, and how the scripts speak.
# Nothing here or beside it decides what is tested; these files only set a machine up.

set -Eeuo pipefail
trap 'echo "error: ${BASH_SOURCE[0]##*/}:$LINENO: failed: $BASH_COMMAND" >&2' ERR
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${BELLWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bellwire}
tree=$cache/debian       # unpacked Debian packages: QEMU, firmware, the guest's kernel and programs
testbed=$cache/testbed   # what a VM needs: qemu, vmlinux, initramfs.cpio, firmware, accel
export BELLWIRE_TESTBED=$testbed
target=${CARGO_TARGET_DIR:-$root/target}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The cores that may be used, and which of them poll and measure.
two_cores() {
    mapfile -t cores < <(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' |
        while IFS=- read -r a b; do seq "$a" "${b:-$a}"; done)
    [ "${#cores[@]}" -ge 2 ] || die "two cores are needed: one polls, the others measure"
    client=${cores[0]} reactor=${cores[-1]}
}

# await_ready FILE COUNT PROCESS: waits for as many lines of a daemon that say `ready`; false if it
# ends before.
await_ready() {
    until [ "$(grep -cs '^ready ' "$1")" = "$2" ]; do
        kill -0 "$3" 2>/dev/null || return 1
        sleep 0.1
    done
}

# What a script starts or makes is given to `at_exit`, so that Ctrl-C leaves nothing behind.
exit_commands=()
at_exit() { exit_commands=("$*" "${exit_commands[@]}"); }
run_exit_commands() {
    local command
    for command in "${exit_commands[@]}"; do eval "$command" || true; done
}
trap run_exit_commands EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(uname -sm)" = "Linux x86_64" ] || die "the VM tests and the demo need Linux on x86_64"
if [ -z "$(type -P apt-get)" ] || [ -z "$(type -P dpkg-deb)" ]; then
    die "these scripts set up Debian 12 or newer, and this system has no apt-get"
fi

# Programs of the unpacked tree run with the tree's own loader and libraries; nothing of the tree
# is installed, so the system's libc never meets it. Ceph's folder is there for Debian's fio.
in_tree() {
    local program=$1
    shift
    load --argv0 "${program##*/}" "$tree/$program" "$@"
}
loader=$tree/usr/lib64/ld-linux-x86-64.so.2
libraries=$tree/usr/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu/ceph
load() { "$loader" --library-path "$libraries" "$@"; }

# What comes from the system's own apt: a linker, and cargo where Debian's is new enough.

rust_needed=1.85

# install_system PACKAGE...: the only step that needs root.
install_system() {
    local as_root=() command=(apt-get install -y --no-install-recommends "$@")
    if [ "$(id -u)" != 0 ]; then
        [ -n "$(type -P sudo)" ] || die "packages are missing; as root, run: ${command[*]}"
        as_root=(sudo)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    say "installing with the system's apt: $*"
    "${as_root[@]}" "${command[@]}" -qq >/dev/null && return
    # The system's package lists may be missing or old.
    "${as_root[@]}" apt-get update -qq && "${as_root[@]}" "${command[@]}" -qq >/dev/null ||
        die "could not install packages; as root, run: apt-get update && ${command[*]}"
}

# newer_or_equal FOUND NEEDED
newer_or_equal() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

cargo_is_new_enough() {
    local version
    version=$(cargo --version 2>/dev/null | awk '{ print $2 }')
    [ -n "$version" ] && newer_or_equal "$version" "$rust_needed"
}

set_up_cargo() {
    local packages=()
    [ -n "$(type -P cc)" ] || packages+=(gcc libc6-dev)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
    if ! cargo_is_new_enough; then
        [ -z "$(type -P cargo)" ] && debian_has_cargo || die "$cargo_advice"
        packages+=(cargo)
    fi
    [ ${#packages[@]} = 0 ] || install_system "${packages[@]}"
}

debian_has_cargo() {
    local candidate
    candidate=$(apt-cache policy cargo 2>/dev/null | awk '/Candidate:/ { print $2 }')
    newer_or_equal "${candidate:-0}" "$rust_needed"
}

cargo_advice="cargo $rust_needed or newer is needed, on PATH or from Debian; neither has it.
This command installs it, for you alone:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env"

# The two cargo commands that only scripts/test needs.
set_up_lints() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    if [ -n "$(type -P rustup)" ]; then
        say "installing with rustup: rustfmt clippy"
        (cd "$root" && rustup component add rustfmt clippy) >&2
    else
        install_system rustfmt rust-clippy
    fi
    cargo fmt --version >/dev/null && cargo clippy --version >/dev/null ||
        die "cargo fmt and cargo clippy are needed, and could not be installed"
}

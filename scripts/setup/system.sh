# What comes from the system's own apt: a linker, and cargo where PATH has none that is new enough;
# valgrind for those who count instructions.

rust_needed=1.85
debians_cargo=

# The only steps that need root.
as_root() {
    local by=()
    [ "$(id -u)" = 0 ] || by=(sudo)
    "${by[@]}" env DEBIAN_FRONTEND=noninteractive "$@"
}

can_be_root() { [ "$(id -u)" = 0 ] || [ -n "$(type -P sudo)" ]; }

update_package_lists() {
    say "updating the system's package lists: apt-get update"
    as_root apt-get update -qq >/dev/null
}

# install_system PACKAGE...
install_system() {
    local command=(apt-get install -y --no-install-recommends "$@")
    can_be_root || die "packages are missing; as root, run: ${command[*]}"
    say "installing with the system's apt: $*"
    as_root "${command[@]}" -qq >/dev/null && return
    # The system's package lists may be missing or old.
    update_package_lists && as_root "${command[@]}" -qq >/dev/null ||
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
        # Debian's goes before the older one on PATH, with its rustc and the lints beside it.
        export PATH=/usr/bin:$PATH
        debians_cargo=yes
        if ! cargo_is_new_enough; then
            debian_has_cargo || die "$cargo_advice"
            packages+=(cargo)
        fi
    fi
    [ ${#packages[@]} = 0 ] || install_system "${packages[@]}"
}

debian_has_cargo() {
    local candidate
    candidate=$(candidate_of cargo)
    # Containers and cloud images come without package lists.
    if [ -z "$candidate" ] && can_be_root && update_package_lists; then
        candidate=$(candidate_of cargo)
    fi
    newer_or_equal "${candidate:-0}" "$rust_needed"
}

# The version that apt would install, if there is one.
candidate_of() {
    apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'
}

cargo_advice="cargo $rust_needed or newer is needed; neither PATH nor this system's apt has it.
This command installs it, for you alone:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env"

set_up_valgrind() { [ -n "$(type -P valgrind)" ] || install_system valgrind; }

# The two cargo commands that only scripts/test needs.
set_up_lints() {
    have_lints && return
    if [ -z "$debians_cargo" ] && [ -n "$(type -P rustup)" ]; then
        say "installing with rustup: rustfmt clippy"
        (cd "$root" && rustup component add rustfmt clippy) >&2
    else
        install_system rustfmt rust-clippy
    fi
    have_lints || die "cargo fmt and cargo clippy are needed, and could not be installed"
}

have_lints() {
    local command
    for command in fmt clippy; do
        # Those of an older cargo on PATH do not go with Debian's.
        [ -z "$debians_cargo" ] || [ -e "/usr/bin/cargo-$command" ] || return 1
        cargo "$command" --version >/dev/null 2>&1 || return 1
    done
}

# What comes from the system's own apt: a linker, and cargo where Debian's is new enough.

rust_needed=1.85

# install_system PACKAGE...: the only step that needs root.
install_system() {
    local as_root=() command="apt-get install -y --no-install-recommends $*"
    if [ "$(id -u)" != 0 ]; then
        [ -n "$(type -P sudo)" ] || die "missing packages; as root, run: $command"
        as_root=(sudo)
    fi
    say "installing with the system's apt: $*"
    DEBIAN_FRONTEND=noninteractive ${as_root[@]+"${as_root[@]}"} $command >&2 ||
        { ${as_root[@]+"${as_root[@]}"} apt-get update >&2 &&
            DEBIAN_FRONTEND=noninteractive ${as_root[@]+"${as_root[@]}"} $command >&2; } ||
        die "could not install packages; as root, run: apt-get update && $command"
}

# newer_or_equal FOUND NEEDED
newer_or_equal() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

cargo_is_new_enough() {
    local version
    version=$(cargo --version 2>/dev/null | awk '{ print $2 }')
    [ -n "$version" ] && newer_or_equal "$version" "$rust_needed"
}

set_up_cargo() {
    [ -n "$(type -P cc)" ] || install_system gcc libc6-dev
    cargo_is_new_enough && return
    local candidate
    candidate=$(apt-cache policy cargo 2>/dev/null | awk '/Candidate:/ { print $2 }')
    if [ -z "$(type -P cargo)" ] && newer_or_equal "${candidate:-0}" "$rust_needed"; then
        install_system cargo
        cargo_is_new_enough && return
    fi
    die "cargo $rust_needed or newer is needed (found: $(cargo --version 2>/dev/null || echo none);
Debian has: ${candidate:-none}). This command installs it:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
}

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

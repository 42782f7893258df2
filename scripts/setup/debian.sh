# Debian packages, unpacked under the cache folder without root and without touching the system:
# apt runs on a private state whose empty status file makes it resolve every dependency, and
# `dpkg-deb -x` unpacks what it downloads. Only the mirror is the system's.

release=trixie
guest_packages=(
    linux-image-cloud-amd64 busybox-static dash kmod
    nvme-cli fio e2fsprogs xfsprogs dosfstools util-linux fdisk
    ovmf grub-common grub-pc-bin grub-efi-amd64-bin zstd
)
qemu_packages=(qemu-system-x86 seabios)

# set_up_tree PACKAGE...: does nothing when the tree already holds exactly these.
set_up_tree() {
    local recipe="$release: $*"
    [ "$(cat "$tree/recipe" 2>/dev/null)" = "$recipe" ] && return
    local apt=$cache/apt
    rm -rf "$apt" "$tree" "$tree.new"
    mkdir -p "$apt"/{state/lists/partial,archives/partial} "$tree.new"
    write_apt_configuration "$apt"

    say "reading the package lists of Debian $release and its backports"
    APT_CONFIG=$apt/apt.conf apt-get update -qq -o APT::Update::Error-Mode=any >&2 ||
        die "could not read Debian's package lists; is the network up?"
    say "downloading into $cache (nothing is installed): $*"
    APT_CONFIG=$apt/apt.conf apt-get install -qq -y --download-only "$@" >&2 ||
        die "could not download Debian packages"
    say "unpacking $(find "$apt/archives" -name "*.deb" | wc -l) packages," \
        "$(du -sh "$apt/archives" | cut -f 1), into $tree"
    local package folder
    for package in "$apt"/archives/*.deb; do dpkg-deb -x "$package" "$tree.new"; done
    # What the installed system's base files would add.
    for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$tree.new/$folder"; done
    rm -rf "$apt" "$tree.new"/usr/share/{doc,man,locale,info}
    echo "$recipe" >"$tree.new/recipe"
    mv "$tree.new" "$tree"
}

write_apt_configuration() {
    local apt=$1 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "the system's apt sources name no Debian mirror"
    [ -e "$keyring" ] || install_system debian-archive-keyring
    : >"$apt/status"
    printf 'deb [signed-by=%s] %s %s main\n' \
        "$keyring" "$mirror" "$release" "$keyring" "$mirror" "$release-backports" >"$apt/sources"
    # Backports may serve everything but the kernel: its QEMU needs newer firmware packages, and
    # the guest should run the kernel that the release is known by.
    printf 'Package: %s\nPin: release n=%s\nPin-Priority: %s\n\n' \
        '*' "$release-backports" 500 'linux-image-*' "$release-backports" -1 >"$apt/preferences"
    {
        # How the system reaches its mirror (proxies, retries) holds here too.
        apt-config dump | grep -E '^Acquire::(http|https|Retries|Check-|ForceIPv|By-Hash)' || true
        cat <<CONFIG
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "$apt/sources";
Dir::Etc::preferences "$apt/preferences";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
CONFIG
    } >"$apt/apt.conf"
}

# The mirror that the system itself installs from: the one with its own release's main packages.
debian_mirror() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v codename="$codename" '
            ($1 == codename || $1 ~ /^(stable|testing|unstable|sid)$/) && $2 == "main" {
                print $3
                exit
            }'
}

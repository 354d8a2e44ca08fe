# shellcheck shell=bash
# What the scripts get out of a suite of Debian (sid, trixie), unpacked into a cache and not installed; sourced by them after
# lib.sh.

# shellcheck disable=SC2034 # the scripts use what they do not define
cache=${ON_DRIVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wgpu-attention-drivers}
triplet=$(uname -m)-linux-gnu

# apt's settings for the package lists of the suite $1, in folders of its own below the cache; of the system it uses only the rest.
suite_settings() {
    settings=(
        -o "Dir::State=$cache/apt-$1" -o "Dir::State::status=$cache/apt-$1/status" -o "Dir::Cache=$cache/apt-$1"
        -o "Dir::Etc::sourcelist=$cache/apt-$1/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o "APT::Sandbox::User=$(id -un)" -o "APT::Default-Release=$1" -o Acquire::Languages=none
    )
}
suite_apt() {
    local settings
    suite_settings "$1"
    apt-get -qq "${settings[@]}" "${@:2}" >&2
}

# The packages that the package $2 of the suite $1 depends on.
suite_dependencies() {
    local settings
    suite_settings "$1"
    apt-cache "${settings[@]}" depends "$2" | sed -n 's/^ *Depends: \([^<]*\)$/\1/p'
}

# The Debian mirror that the machine's own apt uses.
mirror() {
    local own
    # shellcheck disable=SC2016 # apt expands it
    own=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null || true)
    own=${ON_DRIVER_MIRROR:-$(sed -n '/^http/{p;q}' <<<"$own")}
    [ -n "$own" ] || die "apt knows no Debian mirror here: set ON_DRIVER_MIRROR to the address of one"
    echo "${own%/}"
}

# Makes the folder $1, unless it is there, by running a command on another that takes its name when it is whole.
# Test programs that start at the same time wait for the first.
whole() {
    local to=$1 partial=$1.partial
    shift
    [ ! -d "$to" ] || return 0
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    if [ ! -d "$to" ]; then
        rm -rf "$partial"
        mkdir "$partial"
        "$@" "$partial"
        mv "$partial" "$to"
    fi
    exec 9>&-
}

# The package lists of the suite $1, got anew when they are a day old: what they name is soon gone from the mirror.
suite_lists() {
    local own=$cache/apt-$1 address
    [ -z "$(find "$own/ready" -mtime -1 2>/dev/null)" ] || return 0
    apt_install debian-archive-keyring ca-certificates
    mkdir -p "$own/lists/partial" "$own/archives/partial"
    : >"$own/status"
    address=$(mirror)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $address $1 main" >"$own/sources.list"
    suite_apt "$1" update
    touch "$own/ready"
}

# Unpacks Mesa's Vulkan drivers of the suite $1, and all that they need, down to the C library, into the folder $2.
unpack_mesa() {
    say "fetching Mesa from Debian $1 into $cache"
    suite_lists "$1"
    suite_apt "$1" install -y --no-install-recommends --download-only mesa-vulkan-drivers libvulkan1
    local package
    for package in "$cache/apt-$1"/archives/*.deb; do dpkg-deb -x "$package" "$2"; done
    rm -f "$cache/apt-$1"/archives/*.deb
}

# The loader of the C library below the folder $1, which starts programs made for it.
unpacked_loader() {
    local loader
    loader=$(compgen -G "$1/usr/lib*/ld-linux*.so.*" || compgen -G "$1/usr/lib/$triplet/ld-linux*.so.*")
    echo "${loader%%$'\n'*}"
}

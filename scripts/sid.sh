# shellcheck shell=bash
# What the scripts get out of Debian sid, unpacked into a cache and not installed; sourced by them after lib.sh.

# shellcheck disable=SC2034 # the scripts use what they do not define
cache=${ON_DRIVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wgpu-attention-drivers}
triplet=$(uname -m)-linux-gnu

# apt on Debian sid's package lists, in folders of its own below the cache; of the system it uses only the settings.
sid_settings=(
    -o "Dir::State=$cache/apt" -o "Dir::State::status=$cache/apt/status" -o "Dir::Cache=$cache/apt"
    -o "Dir::Etc::sourcelist=$cache/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o "APT::Sandbox::User=$(id -un)" -o APT::Default-Release=sid -o Acquire::Languages=none
)
sid_apt() { apt-get -qq "${sid_settings[@]}" "$@" >&2; }

# The packages that a package of sid depends on.
sid_dependencies() { apt-cache "${sid_settings[@]}" depends "$1" | sed -n 's/^ *Depends: \([^<]*\)$/\1/p'; }

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

# The package lists of sid, got anew when they are a day old: what they name is soon gone from the mirror.
sid_lists() {
    [ -z "$(find "$cache/apt/ready" -mtime -1 2>/dev/null)" ] || return 0
    apt_install debian-archive-keyring ca-certificates
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
    : >"$cache/apt/status"
    local address
    address=$(mirror)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $address sid main" >"$cache/apt/sources.list"
    sid_apt update
    touch "$cache/apt/ready"
}

# The loader of the C library below the folder $1, which starts programs made for it.
sid_loader() {
    local loader
    loader=$(compgen -G "$1/usr/lib*/ld-linux*.so.*" || compgen -G "$1/usr/lib/$triplet/ld-linux*.so.*")
    echo "${loader%%$'\n'*}"
}

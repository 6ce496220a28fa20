//! The Redis image: what goes into it and where.

use std::path::Path;

use crate::builder::{Content, Recipe};
use crate::cpio::Archive;
use crate::parts::{self, content, read};
use crate::{ImageError, Sha256, elf};

/// Raised when the same packages and files would come out as other bytes.
const BUILDER_VERSION: &[u8] = b"2";

const INIT: &str = include_str!("redis/init");
const CONFIG: &str = include_str!("redis/redis.conf");
const UDHCPC: &str = include_str!("redis/udhcpc");
const PROFILE: &str = include_str!("redis/profile");
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// The programs beside busybox; their libraries follow by themselves.
const PROGRAMS: [&str; 2] = ["redis-server", "redis-cli"];

/// Where Debian's riscv64 packages keep shared libraries.
const LIBRARIES: &str = "usr/lib/riscv64-linux-gnu";

/// The loader's path is fixed in every program (RISC-V ELF psABI, program interpreter).
const LOADER: &str = "ld-linux-riscv64-lp64d.so.1";

/// Modules that init may load, below `kernel/` of the kernel's module folder.
const MODULES: [&str; 6] = [
    "drivers/virtio/virtio_mmio",
    "drivers/char/hw_random/virtio-rng",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// Commands of the shell: links to busybox. Init's own are among them.
const APPLETS: [&str; 75] = [
    "[",
    "ash",
    "awk",
    "base64",
    "basename",
    "cat",
    "chmod",
    "clear",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "devmem",
    "df",
    "diff",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "halt",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "killall",
    "less",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mknod",
    "more",
    "mount",
    "mv",
    "nc",
    "netstat",
    "ping",
    "poweroff",
    "printf",
    "ps",
    "pwd",
    "reboot",
    "rm",
    "rmdir",
    "route",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "sync",
    "tail",
    "time",
    "top",
    "touch",
    "true",
    "udhcpc",
    "umount",
    "uname",
    "usleep",
    "vi",
    "wget",
];

/// How the Redis image is made.
pub(crate) const RECIPE: Recipe = Recipe {
    name: "redis",
    // earlycon shows the boot from its first line; a panic resets the machine at once.
    cmdline: "console=ttyS0 earlycon=sbi panic=-1 ADDR=10.0.2.15/24 GW=10.0.2.2",
    kernel: "linux-image-riscv64",
    packages: &[
        "busybox-static",
        "libatomic1",
        "libc6",
        "libcap2",
        "libgcc-s1",
        "libjemalloc2",
        "liblzf1",
        "libssl3t64",
        "libstdc++6",
        "libsystemd0",
        "libzstd1",
        "redis-server",
        "redis-tools",
        "zlib1g",
    ],
    lock: include_str!("../redis.lock"),
    digest,
    assemble,
    disk: None,
};

fn digest() -> Sha256 {
    let texts = [INIT, CONFIG, UDHCPC, PROFILE, PASSWD, GROUP, RECIPE.cmdline];
    let lists = PROGRAMS.iter().chain(&MODULES).chain(&APPLETS);
    Sha256::of_parts(
        std::iter::once(BUILDER_VERSION)
            .chain(texts.iter().chain(lists).map(|text| text.as_bytes())),
    )
}

/// Takes the kernel and the file tree out of the unpacked packages.
fn assemble(unpacked: &Path) -> Result<Content, ImageError> {
    let (kernel, release) = parts::kernel(unpacked)?;
    let mut tree = Archive::new();
    for folder in ["proc", "root", "run", "sys", "tmp", "var/log"] {
        tree.directory(folder);
    }
    // The kernel opens it for init before devtmpfs is there.
    tree.character_device("dev/console", 5, 1);
    tree.file("init", true, INIT);
    tree.file("etc/redis.conf", false, CONFIG);
    tree.file("etc/udhcpc/default.script", true, UDHCPC);
    tree.file("etc/profile", false, PROFILE);
    tree.file("etc/passwd", false, PASSWD);
    tree.file("etc/group", false, GROUP);
    parts::busybox(unpacked, &mut tree, &APPLETS)?;
    programs(unpacked, &mut tree)?;
    parts::modules(unpacked, &mut tree, &release, &MODULES)?;
    Ok(Content {
        kernel,
        initrd: tree,
    })
}

/// The programs and, step by step, every library that they or their libraries ask for.
fn programs(unpacked: &Path, tree: &mut Archive) -> Result<(), ImageError> {
    let mut libraries: Vec<String> = vec![LOADER.to_owned()];
    for program in PROGRAMS {
        let path = format!("usr/bin/{program}");
        let data = read(unpacked, &path)?;
        note_libraries(&path, &data, &mut libraries)?;
        tree.file(&format!("bin/{program}"), true, data);
    }
    let mut next = 0;
    while let Some(name) = libraries.get(next).cloned() {
        next += 1;
        let path = format!("{LIBRARIES}/{name}");
        let data = read(unpacked, &path)?;
        note_libraries(&path, &data, &mut libraries)?;
        tree.file(&format!("lib/riscv64-linux-gnu/{name}"), true, data);
    }
    tree.link(
        &format!("lib/{LOADER}"),
        &format!("riscv64-linux-gnu/{LOADER}"),
    );
    Ok(())
}

/// Adds the libraries that a file asks for to those known.
fn note_libraries(path: &str, data: &[u8], libraries: &mut Vec<String>) -> Result<(), ImageError> {
    for name in elf::needed(data).map_err(|why| content(path, why))? {
        if name.contains('/') {
            return Err(content(path, format!("asks for the library {name:?}")));
        }
        if !libraries.contains(&name) {
            libraries.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

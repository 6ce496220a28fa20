//! A disk with an installed system: the locked packages become an archive of their own, from
//! which mmdebstrap installs them; our files are laid over them; mke2fs makes the file system.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, ARCHITECTURE, SUITE};
use crate::binfmt::Binfmt;
use crate::cpio::Archive;
use crate::lock::Package;
use crate::stoppable::Stoppable;
use crate::{ImageError, Progress, Sha256};

/// Its name in the output folder.
pub(crate) const DISK: &str = "disk.img";
/// Everything that the installation says, in the folder of downloads.
const LOG: &str = "debian.log";

/// Downloads, the installed system, its packages once more, and the disk.
const NEEDED_BYTES: u64 = 4 << 30;

/// Programs of the host beside those of every image.
pub(crate) const TOOLS: [(&str, &str); 9] = [
    ("mmdebstrap", "mmdebstrap"),
    ("arch-test", "arch-test"),
    ("qemu-riscv64-static", "qemu-user-static"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("chroot", "coreutils"),
    ("find", "findutils"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
];

/// The features are named here so that no setting of the host takes part.
const MKE2FS_CONFIG: &str = "\
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
";

/// What a recipe says of its disk.
pub(crate) struct DiskRecipe {
    pub(crate) size_bytes: u64,
    pub(crate) label: &'static str,
    /// Of the file system; also its seed for the order of names in folders.
    pub(crate) uuid: &'static str,
    /// The time that files made by the build get, in seconds since 1970.
    pub(crate) epoch_s: u64,
    /// A shell script that is run inside the system once its packages are installed; it finds the
    /// overlay as `/twinvm.cpio`.
    pub(crate) setup: &'static str,
    /// What is laid over the packages, made of the unpacked kernel and the key for SSH.
    pub(crate) overlay: fn(&Path, Option<&str>) -> Result<Archive, ImageError>,
}

/// Refuses what cannot end well, before anything is downloaded.
pub(crate) fn look_at_host(out: &Path) -> Result<(), ImageError> {
    let found = rustix::fs::statvfs(out).map_err(|error| ImageError::io(out)(error.into()))?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    check(out, rustix::process::geteuid().is_root(), free_bytes)
}

fn check(out: &Path, is_root: bool, free_bytes: u64) -> Result<(), ImageError> {
    if out.join(DISK).exists() {
        return Err(ImageError::DiskThere(out.join(DISK)));
    }
    if !is_root {
        return Err(ImageError::NotRoot);
    }
    if free_bytes < NEEDED_BYTES {
        return Err(ImageError::Space {
            path: out.to_owned(),
            free_mib: free_bytes >> 20,
            needed_mib: NEEDED_BYTES >> 20,
        });
    }
    Ok(())
}

/// What goes into a disk.
pub(crate) struct Ingredients<'a> {
    pub(crate) recipe: &'a DiskRecipe,
    /// The names of the packages that are wanted; what they need follows.
    pub(crate) wanted: &'a [&'a str],
    /// All that are locked.
    pub(crate) packages: &'a [Package],
    /// Where their files lie.
    pub(crate) debs: &'a Path,
    /// The kernel's package, unpacked.
    pub(crate) unpacked: &'a Path,
    pub(crate) ssh_key: Option<&'a str>,
}

/// Makes the disk below `work`, where the installed system is made too. Returns its path.
pub(crate) fn make(
    ingredients: &Ingredients,
    work: &Path,
    cache: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, ImageError> {
    let recipe = ingredients.recipe;
    let write = |name: &str, data: &[u8]| {
        let path = work.join(name);
        fs::write(&path, data).map_err(ImageError::io(&path))?;
        Ok(path)
    };
    let mut overlay = Vec::new();
    (recipe.overlay)(ingredients.unpacked, ingredients.ssh_key)?
        .write(&mut overlay)
        .map_err(ImageError::io(work))?;
    let overlay = write("overlay.cpio", &overlay)?;
    let setup = write("setup.sh", recipe.setup.as_bytes())?;
    let config = write("mke2fs.conf", MKE2FS_CONFIG.as_bytes())?;
    progress.stage("making an archive of the locked packages");
    let archive = work.join("archive");
    make_archive(&archive, ingredients.packages, ingredients.debs)?;

    let log = cache.join(LOG);
    let _ = fs::remove_file(&log);
    let stoppable = Stoppable::start().map_err(ImageError::io(work))?;
    let _binfmt = Binfmt::register(progress)?;

    let root = work.join("root");
    let command = mmdebstrap(
        recipe,
        ingredients.wanted,
        &archive,
        &root,
        &overlay,
        &setup,
    );
    // Each package is unpacked and set up; the essential ones among them twice, nearly.
    let total = 2 * ingredients.packages.len() as u64;
    let mut done = 0;
    progress.stage("installing the packages");
    stoppable.run(
        command,
        "mmdebstrap",
        "installing the packages",
        &log,
        |line| {
            if let Some(what) = step(line) {
                done += 1;
                progress.item(what, done.min(total), total);
            }
        },
    )?;

    progress.stage("making the file system");
    let mut touch = Command::new("find");
    touch.arg(&root).args(["-xdev", "-newermt"]);
    let epoch = format!("@{}", recipe.epoch_s);
    touch.arg(&epoch);
    touch.args(["-exec", "touch", "-h", "-d", &epoch, "{}", "+"]);
    stoppable.run(touch, "find", "setting times", &log, |_| {})?;
    let disk = work.join(DISK);
    let command = mke2fs(recipe, &root, &config, &disk);
    stoppable.run(command, "mke2fs", "making the file system", &log, |_| {})?;
    progress.stage("removing the work folder");
    Ok(disk)
}

/// The package of a line of dpkg that begins a step.
fn step(line: &str) -> Option<&str> {
    let rest = line
        .strip_prefix("Setting up ")
        .or_else(|| line.strip_prefix("Unpacking "))?;
    rest.split([' ', ':']).next()
}

/// A flat archive (`deb URI ./`) of links to the packages' files. It carries the suite's name,
/// by which mmdebstrap finds the essential packages.
fn make_archive(archive: &Path, packages: &[Package], debs: &Path) -> Result<(), ImageError> {
    fs::create_dir(archive).map_err(ImageError::io(archive))?;
    let mut index = String::new();
    for package in packages {
        let deb = debs.join(package.file_name());
        let name = format!("{}.deb", package.name);
        let link = archive.join(&name);
        symlink(&deb, &link).map_err(ImageError::io(&link))?;
        let mut fields = Command::new("dpkg-deb");
        fields.arg("-f").arg(&deb);
        let doing = format!("reading {}", package.name);
        apt::run(fields, "dpkg-deb", &doing, |line| {
            index.push_str(line);
            index.push('\n');
        })?;
        let Package {
            sha256, size_bytes, ..
        } = package;
        let _ = writeln!(
            index,
            "Filename: ./{name}\nSize: {size_bytes}\nSHA256: {sha256}\n"
        );
    }
    let (digest, size) = (Sha256::of(index.as_bytes()), index.len());
    let release = format!(
        "Origin: Debian\nLabel: Debian\nSuite: {SUITE}\nCodename: {SUITE}\n\
         Date: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: all {ARCHITECTURE}\n\
         SHA256:\n {digest} {size} Packages\n"
    );
    for (name, text) in [("Packages", &index), ("Release", &release)] {
        let path = archive.join(name);
        fs::write(&path, text).map_err(ImageError::io(&path))?;
    }
    Ok(())
}

/// mmdebstrap in namespaces of its own: when it ends, whatever way, no process and no mount of it
/// is left.
fn mmdebstrap(
    recipe: &DiskRecipe,
    wanted: &[&str],
    archive: &Path,
    root: &Path,
    overlay: &Path,
    setup: &Path,
) -> Command {
    let hook = format!(
        "cp {} \"$1/twinvm.cpio\" && chroot \"$1\" sh <{}",
        quoted(overlay),
        quoted(setup)
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "mmdebstrap"])
        .args(["--mode=root", "--variant=essential", "--format=directory"])
        .arg(format!("--architectures={ARCHITECTURE}"))
        .arg(format!("--include={}", wanted.join(",")))
        .args(["--verbose", "--dpkgopt=force-unsafe-io"])
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/info/*")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .args(["--aptopt=APT::Sandbox::User \"root\""])
        .arg(format!("--customize-hook={hook}"))
        .arg(SUITE)
        .arg(root)
        .arg(format!("deb [trusted=yes] copy:{} ./", uri_path(archive)))
        .env("SOURCE_DATE_EPOCH", recipe.epoch_s.to_string())
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn mke2fs(recipe: &DiskRecipe, root: &Path, config: &Path, disk: &Path) -> Command {
    let DiskRecipe {
        label,
        uuid,
        epoch_s,
        size_bytes,
        ..
    } = recipe;
    let mut command = Command::new("mke2fs");
    command
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", label, "-U", uuid])
        .arg("-E")
        .arg(format!(
            "hash_seed={uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
        ))
        .arg("-d")
        .arg(root)
        .arg(disk)
        .arg(format!("{}k", size_bytes >> 10))
        .env("MKE2FS_CONFIG", config)
        .env("E2FSPROGS_FAKE_TIME", epoch_s.to_string());
    command
}

/// A path as a word of the shell.
pub(crate) fn quoted(path: &Path) -> String {
    let word = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,@%".contains(c);
    if word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A path as part of a URI (RFC 3986, section 2.1).
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests;

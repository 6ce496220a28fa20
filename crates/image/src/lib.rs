//! Makes guest images from Debian's riscv64 packages.
//!
//! The packages come through the host's own `apt-get`, from the mirror that the host is set up
//! with, into a private package root: the host's package state is neither read nor changed. A lock
//! file pins every package by version and SHA-256 and says what must come out: the same lock makes
//! the same kernel and initramfs to the byte on every host, and the same packages on a disk.
//!
//! An initramfs is only unpacked and packed, which needs no rights. A disk holds an installed
//! system: its packages' own scripts run in a chroot under emulation, which needs root.
//!
//! ```no_run
//! use std::path::Path;
//! use twinvm_image::{BuildOptions, ImageKind, Terminal, build};
//!
//! let image = build(
//!     ImageKind::Redis,
//!     Path::new("target/image/redis"),
//!     &BuildOptions::default(),
//!     &mut Terminal::new(),
//! )?;
//! println!("{}", image.kernel.display());
//! # Ok::<(), twinvm_image::ImageError>(())
//! ```

// They panic where a line can't be written.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod apt;
mod binfmt;
mod builder;
pub mod cpio;
mod debian;
mod digest;
mod disk;
mod elf;
mod error;
pub mod inside;
pub mod lock;
mod parts;
mod progress;
mod redis;
pub mod sources;
mod stamp;
mod stoppable;

use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use digest::Sha256;
pub use error::ImageError;
pub use progress::{Progress, Silent, Terminal};

/// An image that this crate knows how to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// A Linux kernel and an initramfs with a Redis server and a shell on the serial console.
    Redis,
    /// A Linux kernel, an initramfs and a disk with a Debian system: Redis, PostgreSQL, nginx,
    /// memcached, SSH, a compiler and benchmarks.
    Debian,
}

impl ImageKind {
    /// Every kind, in the order in which help lists them.
    pub const ALL: [Self; 2] = [Self::Redis, Self::Debian];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Debian => "debian",
        }
    }
}

impl FromStr for ImageKind {
    type Err = ImageError;

    fn from_str(name: &str) -> Result<Self, ImageError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| ImageError::Kind(name.to_owned()))
    }
}

/// What a build does with the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockMode {
    /// Take exactly the locked packages, and refuse an outcome other than the locked one.
    #[default]
    Verify,
    /// Take the newest packages of the mirror and write a new lock (`--update-lock`).
    Update,
    /// Take the locked packages and write down what comes out: after a change of the recipe.
    Rehash,
}

/// Choices of a build; the default is what a first run wants.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The lock file. None: the one in the output folder if an update has left one there, else
    /// the one built into this program.
    pub lock: Option<PathBuf>,
    /// Whether to follow the lock or to write it.
    pub lock_mode: LockMode,
    /// Where downloads are kept. None: `.cache` in the output folder.
    pub cache: Option<PathBuf>,
    /// A file of public keys that may log in as root over SSH; only for an image with a disk.
    pub ssh_key: Option<PathBuf>,
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// A RISC-V Linux `Image` (which is an EFI program at the same time).
    pub kernel: PathBuf,
    /// The initramfs, a raw newc archive.
    pub initrd: PathBuf,
    /// The disk, a sparse raw ext4 file system; it belongs to its guest from now on.
    pub disk: Option<PathBuf>,
    /// With a disk: a VM.toml that starts it.
    pub vm: Option<PathBuf>,
    /// The command line that the image is meant to be started with.
    pub cmdline: String,
    /// Nothing had to be made: the files were there and still have the right digests.
    pub up_to_date: bool,
}

/// Makes the image in the folder `out`: `kernel`, `initrd.cpio`, and `image.toml`, the lines that
/// a VM.toml needs; or with a disk `disk.img` and a whole `VM.toml`.
///
/// A disk that is there is never replaced.
///
/// If the folder already holds what the lock and the recipe ask for, the files are only verified.
/// Everything is made in a folder aside and renamed into place, so a build that is cut short
/// leaves nothing half-made.
///
/// # Errors
///
/// Each error is one line that names the file, package or program and what to do about it.
pub fn build(
    kind: ImageKind,
    out: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<BuiltImage, ImageError> {
    match kind {
        ImageKind::Redis => builder::build(&redis::RECIPE, out, options, progress),
        ImageKind::Debian => builder::build(&debian::RECIPE, out, options, progress),
    }
}

/// As [`build`] with [`LockMode::Verify`]; but if the mirror no longer carries a locked version,
/// takes its newest packages and keeps a new lock beside the image. A point release of the
/// distribution must not leave a first user without a guest.
///
/// # Errors
///
/// As [`build`].
pub fn build_or_renew(
    kind: ImageKind,
    out: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<BuiltImage, ImageError> {
    let with = |lock_mode| BuildOptions {
        lock_mode,
        ..options.clone()
    };
    match build(kind, out, &with(LockMode::Verify), progress) {
        Err(gone @ ImageError::Gone { .. }) => {
            progress.note(&format!("{gone}; doing that now"));
            build(kind, out, &with(LockMode::Update), progress)
        }
        other => other,
    }
}

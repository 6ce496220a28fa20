//! What can go wrong while an image is made, each in one line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::Sha256;

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a name of an image.
    #[error("there is no image `{0}`; known: redis, debian")]
    Kind(String),
    /// A program of the host is missing.
    #[error("the program `{program}` is missing: apt-get install {package}")]
    Tool {
        /// What was looked for on the PATH.
        program: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// The host's package sources name no Debian archive.
    #[error(
        "no Debian archive with the component main among the package sources in {}; images are \
         made on Debian 12 or later",
        .0.display()
    )]
    NoMirror(PathBuf),
    /// A line of the host's package sources is not understood.
    #[error("{}:{line}: {why}", path.display())]
    Sources {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A line of the lock file is not understood.
    #[error("{path}{}: {why}: make a new lock with `{update}`", Line(*.line))]
    Lock {
        /// The file, or `the built-in redis.lock`.
        path: String,
        /// The line, from 1; 0 where the file as a whole lacks something.
        line: usize,
        /// What is wrong with it.
        why: String,
        /// The command that makes a new one.
        update: String,
    },
    /// There is no such lock file.
    #[error(
        "{}: there is no such lock file: leave --lock out to take the built-in one, or make one \
         there with `{update}`",
        path.display()
    )]
    NoLock {
        /// What --lock says.
        path: PathBuf,
        /// The command that makes one.
        update: String,
    },
    /// The lock was made by another version of this program.
    #[error(
        "{lock} was made for another recipe of this image: make a new lock with `{update}`, or \
         remove the file to take the built-in one"
    )]
    Recipe {
        /// The lock file.
        lock: String,
        /// The command that makes a new one.
        update: String,
    },
    /// The mirror no longer carries a locked version.
    #[error(
        "the mirror no longer has {name} {version} (it has {}), which {lock} asks for: make a \
         new lock with `{update}`",
        found.as_deref().unwrap_or("no such package")
    )]
    Gone {
        /// The package.
        name: String,
        /// The version that the lock asks for.
        version: String,
        /// The version that the mirror has.
        found: Option<String>,
        /// The lock file.
        lock: String,
        /// The command that makes a new one.
        update: String,
    },
    /// The mirror has no package of that name at all.
    #[error("the mirror {mirror} has no package {name} for riscv64 in {suite}")]
    NoPackage {
        /// The package.
        name: String,
        /// The mirror's address.
        mirror: String,
        /// The suite that was looked through.
        suite: &'static str,
    },
    /// A file is not the one that the lock asks for.
    #[error("{what} has the SHA-256 {found}, but {lock} says {expected}: {mend}")]
    Digest {
        /// The file or package.
        what: String,
        /// What was computed.
        found: Box<Sha256>,
        /// What the lock says.
        expected: Box<Sha256>,
        /// The lock file.
        lock: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// A program of the host failed.
    #[error("{program} failed while {doing}: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The work at hand.
        doing: String,
        /// Its last words.
        said: String,
    },
    /// A package does not contain what the image needs.
    #[error("{file}: {why}")]
    Content {
        /// The file inside the packages.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A folder name that cannot be written into apt's configuration.
    #[error(
        "the folder {0:?} has a quote, backslash or line end in its name, which apt cannot take"
    )]
    Folder(PathBuf),
    /// Debian's maintainer scripts need rights that this user has not.
    #[error(
        "an image with a disk is made as root (its packages are installed in a chroot): run this \
         with sudo"
    )]
    NotRoot,
    /// There is a disk already, and a guest may have written to it.
    #[error(
        "{}: is there already and may hold what a guest has written, so it is not replaced: \
         remove it, or give another --out",
        .0.display()
    )]
    DiskThere(PathBuf),
    /// The file system is too full.
    #[error(
        "{}: {free_mib} MiB are free and {needed_mib} are needed: make room, or give another --out",
        path.display()
    )]
    Space {
        /// The output folder.
        path: PathBuf,
        /// What is free.
        free_mib: u64,
        /// What is needed while the image is made.
        needed_mib: u64,
    },
    /// The file with keys for SSH is not one.
    #[error("{}: {why}", path.display())]
    SshKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A signal asked for the end.
    #[error("stopped; what was begun has been removed")]
    Stopped,
    /// A file or folder of the host.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A line's number behind the file's name, if it is about one.
struct Line(usize);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

impl ImageError {
    /// For `map_err`: ties a system error to the path it is about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

//! What a process gives up before it listens to anybody.
//!
//! A process that started as root becomes another user for good ([`User`]): its groups, its ids,
//! every capability, also those it could get again. Then it says which system calls it will ever
//! make ([`filter`]), so that whoever gets hold of it can't start programs, look into other
//! processes or turn to the kernel's less known parts. Its memory, which is the guest's, is in no
//! core file, and no other process of its user may read it.
//!
//! All this happens while there is one thread, and before the first byte of a stranger is read.
//! What a node needs later (an interface that is back, renewed keys) it must be able to reach
//! without the rights that it started with: it opens all of it without them from the beginning, so
//! that what is missing is told at the start, and not at night.

pub mod filter;

mod calls;
mod privileges;
mod user;

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

pub use filter::FilterError;
pub use user::{User, UserError};

/// Who a process will be and what it may still do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Whom a process that root has started becomes; `None`: it stays who it is.
    pub user: Option<User>,
    /// Whether the system calls are filtered, and debuggers and core files kept away.
    pub sandbox: bool,
}

/// A folder that must be the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFolder {
    /// The folder, made if it is missing.
    pub path: PathBuf,
    /// Permission bits of a folder that is made.
    pub mode: u32,
    /// Whether one that is there must belong to the user already. Others may be shared.
    pub must_own: bool,
}

/// A process can't give up what it should.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Only root may become somebody else.
    #[error("--user {name}: only root can become another user: start it as root, or as {name}")]
    NotRoot {
        /// Whom it should have become.
        name: String,
    },
    /// Rights belong to threads, so there may be one only.
    #[error("--user: there are {0} threads already, which is a fault of twinvm's own")]
    Threads(usize),
    /// A folder can't be made, or handed over.
    #[error("{}: {doing}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What failed.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A folder is somebody else's.
    #[error(
        "{path}: belongs to user {owner}, but this process is to run as {name}: chown -R {name} {path}",
        path = path.display()
    )]
    NotOwned {
        /// The folder.
        path: PathBuf,
        /// The user id that it belongs to.
        owner: u32,
        /// Whom the process becomes.
        name: String,
    },
    /// Root would leave files in a folder whose owner needs them.
    #[error(
        "{path}: belongs to user {owner}, who can't read what a process of root's leaves there: add --user {owner}",
        path = path.display()
    )]
    NotRoots {
        /// The folder.
        path: PathBuf,
        /// Its user, as `--user` takes it.
        owner: String,
    },
    /// The system said no.
    #[error("{doing}: {source}")]
    System {
        /// What failed.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The rights are still there.
    #[error("--user {0}: the system said that the rights are gone, but they are not")]
    StillThere(String),
    /// The filter.
    #[error("{0}: --sandbox off does without")]
    Filter(#[from] FilterError),
}

/// For one call of the system.
fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |error| SandboxError::System {
        doing,
        source: error.into(),
    }
}

impl Confinement {
    /// Gives up what this says, for good. Folders that the process needs are made, and made the
    /// user's, before; without a user they are left to whoever needs them, and root takes none that
    /// is somebody else's.
    ///
    /// To be called while there is one thread. What comes back is a line for the process's owner,
    /// if there is something to say.
    ///
    /// # Errors
    /// Something could not be given up. The process must not go on.
    pub fn enter(&self, folders: &[OwnFolder]) -> Result<Option<String>, SandboxError> {
        if let Some(user) = &self.user {
            privileges::become_user(user, folders)?;
            set_no_new_privs(true).map_err(system("giving up new rights"))?;
        } else {
            privileges::spare_others(folders)?;
        }
        if self.sandbox {
            harden()?;
            filter::install()?;
        }
        Ok(self.notice())
    }

    fn notice(&self) -> Option<String> {
        rustix::process::geteuid().is_root().then(|| {
            "runs as root, and needs none of root's rights: start it with --user NAME, or as a user \
             of its own"
                .to_owned()
        })
    }
}

/// No core file, and no other process of the same user that reads this one's memory.
fn harden() -> Result<(), SandboxError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(system("doing without core files"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(system("keeping debuggers away"))?;
    set_no_new_privs(true).map_err(system("giving up new rights"))
}

/// The number of this process's threads.
fn threads() -> Result<usize, SandboxError> {
    std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .map_err(system("counting threads"))
}

impl OwnFolder {
    /// A folder for this user alone.
    pub fn private(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o700,
            must_own: true,
        }
    }

    /// A folder that others may use too: one that is there is left as it is.
    pub fn shared(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o755,
            must_own: false,
        }
    }
}

#[cfg(test)]
mod tests;

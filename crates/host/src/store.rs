//! The node's own folder, `STATE_DIR/NAME`: who this node is and what it has learnt.
//!
//! ```text
//! lock         held with flock(2) while the process lives; content: its process id
//! node.id      32 hexadecimal digits, drawn once
//! generation   the highest generation of the arbiter's record this node has learnt
//! ```
//!
//! `generation` is made before `node.id`, so an id without a generation can't come from a
//! crash: it is a fault, and the node does not guess. A node that forgot its generation
//! could trust an absent record and start a second copy of the VM.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use twinvm_protocol::{Generation, NodeId};

use crate::durable::{self, read_small, replace_file, sync_dir};
use crate::random::random_u128;

const LOCK: &str = "lock";
const NODE_ID: &str = "node.id";
const GENERATION: &str = "generation";

/// Longest content of one of the small files: an id and its line end take 33.
const MAX_FILE_BYTES: usize = 64;
/// Longest name of a node in bytes, the same as on the channel.
const MAX_NAME_BYTES: usize = twinvm_protocol::message::MAX_NAME_BYTES;

/// The node's folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name can't be a folder's name.
    #[error(
        "node name {0:?}: use 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.', not starting with '.'"
    )]
    Name(String),
    /// Another process holds the folder.
    #[error("{}: in use by {}: stop that node first, or give this one another state_dir", folder.display(), holder(*pid))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process id in its lock file, if one could be read.
        pid: Option<u32>,
    },
    /// A file holds something else than this program writes.
    #[error("{}: expected {expected}, found {found:?}: restore the file, or if this node's copy of the VM may go, remove the folder", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// The start of what it holds.
        found: String,
    },
    /// One of the two files is there, the other is not.
    #[error("{}: missing beside {present}: restore it, or if this node's copy of the VM may go, remove the folder", path.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
        /// The file that is there.
        present: &'static str,
    },
    /// The node's folder, or the one that it goes into, can't be made.
    #[error("{}: can't make the folder: {source}: make it for this node's user, or choose another state_dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system said no.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// The id of the node `state_dir/name`, if it has run there; its folder is not locked.
pub fn id_of(state_dir: &Path, name: &str) -> Result<Option<NodeId>, StoreError> {
    if !is_valid_name(name) {
        return Err(StoreError::Name(name.to_owned()));
    }
    let path = state_dir.join(name).join(NODE_ID);
    Ok(read_value(&path, "32 hexadecimal digits", parse_id)?.map(NodeId))
}

/// A node's folder, locked for this process.
#[derive(Debug)]
pub struct NodeStore {
    folder: PathBuf,
    id: NodeId,
    generation: Generation,
    /// The id was drawn by this very call: the node has never run.
    new: bool,
    /// The lock ends with this descriptor, also when the process is killed.
    _lock: File,
}

impl NodeStore {
    /// Makes the folder `state_dir/name` if need be, locks it, and reads or draws the id.
    pub fn open(state_dir: &Path, name: &str) -> Result<NodeStore, StoreError> {
        if !is_valid_name(name) {
            return Err(StoreError::Name(name.to_owned()));
        }
        let folder = state_dir.join(name);
        make_folder(state_dir, &folder)?;
        let lock = take_lock(&folder)?;
        let id_path = folder.join(NODE_ID);
        let generation_path = folder.join(GENERATION);
        let id = read_value(&id_path, "32 hexadecimal digits", parse_id)?;
        let generation = read_value(&generation_path, "a decimal number", parse_generation)?;
        let new = id.is_none();
        let (id, generation) = match (id, generation) {
            (Some(id), Some(generation)) => (id, generation),
            (Some(_), None) => {
                return Err(StoreError::Missing {
                    path: generation_path,
                    present: NODE_ID,
                });
            }
            (None, Some(generation)) if generation > 0 => {
                return Err(StoreError::Missing {
                    path: id_path,
                    present: GENERATION,
                });
            }
            (None, _) => {
                let id = random_u128().map_err(|source| StoreError::Io {
                    path: id_path.clone(),
                    doing: "can't draw a random id",
                    source,
                })?;
                write_value(&folder, GENERATION, "0\n")?;
                write_value(&folder, NODE_ID, &format!("{id:032x}\n"))?;
                (id, 0)
            }
        };
        Ok(NodeStore {
            folder,
            id: NodeId(id),
            generation: Generation(generation),
            new,
            _lock: lock,
        })
    }

    /// Removes what [`NodeStore::open`] has made, if it made it: the node did not come
    /// to run. Best effort; what can't be removed is found again at the next start.
    pub fn forget_if_new(self) {
        if self.new {
            for file in [NODE_ID, GENERATION, LOCK] {
                let _ = fs::remove_file(self.folder.join(file));
            }
            // Only if they are empty: others may use the state folder.
            let _ = fs::remove_dir(&self.folder);
            if let Some(state_dir) = self.folder.parent() {
                let _ = fs::remove_dir(state_dir);
            }
        }
    }

    /// The id of this node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The highest generation that is stored; 0 if none was ever learnt.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The folder: `STATE_DIR/NAME`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where this node's control socket belongs.
    pub fn ctl_path(&self) -> PathBuf {
        ctl_path_in(&self.folder)
    }

    /// Stores `generation` durably if it is higher than the one stored. After an error the
    /// old one counts, and the call may be repeated. A full file system is no error: a VM must not
    /// end for the want of a few bytes.
    pub fn raise_generation(&mut self, generation: Generation) -> Result<(), StoreError> {
        if generation > self.generation {
            let text = format!("{generation}\n");
            match write_value(&self.folder, GENERATION, &text) {
                Err(StoreError::Io { source, .. }) if durable::is_full(&source) => {
                    let path = self.folder.join(GENERATION);
                    durable::overwrite(&path, text.as_bytes()).map_err(|source| {
                        StoreError::Io {
                            path,
                            doing: "can't write",
                            source,
                        }
                    })?;
                }
                done => done?,
            }
            self.generation = generation;
        }
        Ok(())
    }
}

/// The control socket of the node `name`, whether it runs or not.
pub fn ctl_path(state_dir: &Path, name: &str) -> PathBuf {
    ctl_path_in(&state_dir.join(name))
}

fn ctl_path_in(folder: &Path) -> PathBuf {
    folder.join("ctl.sock")
}

fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn make_folder(state_dir: &Path, folder: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path, source| StoreError::Folder {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(state_dir).map_err(|error| failed(state_dir, error))?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_dir(state_dir).map_err(|error| failed(state_dir, error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(failed(folder, error)),
    }
}

fn take_lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let failed = |doing, source| StoreError::Io {
        path: path.clone(),
        doing,
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed("can't open the lock file", error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse {
                folder: folder.to_owned(),
                pid: lock_holder(&mut file),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed("can't lock", error)),
    }
    // For the message that another process prints; the lock is what counts.
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(|error| failed("can't write the process id", error))?;
    Ok(file)
}

fn lock_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_FILE_BYTES as u64)
        .read_to_string(&mut text)
        .ok()?;
    text.trim_end().parse().ok()
}

fn read_value<V>(
    path: &Path,
    expected: &'static str,
    parse: fn(&str) -> Option<V>,
) -> Result<Option<V>, StoreError> {
    let bytes = match read_small(path, MAX_FILE_BYTES) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                expected,
                found: error.to_string(),
            });
        }
        Err(source) => {
            return Err(StoreError::Io {
                path: path.to_owned(),
                doing: "can't read",
                source,
            });
        }
    };
    match value_in(&bytes, parse) {
        Some(value) => Ok(Some(value)),
        None => Err(StoreError::Corrupt {
            path: path.to_owned(),
            expected,
            found: String::from_utf8_lossy(&bytes).into_owned(),
        }),
    }
}

/// The value in a file: one line, whole.
pub(crate) fn value_in<V>(bytes: &[u8], parse: fn(&str) -> Option<V>) -> Option<V> {
    let line = str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    parse(line)
}

fn write_value(folder: &Path, name: &'static str, text: &str) -> Result<(), StoreError> {
    replace_file(folder, name, text.as_bytes()).map_err(|source| StoreError::Io {
        path: folder.join(name),
        doing: "can't write",
        source,
    })
}

pub(crate) fn parse_id(text: &str) -> Option<u128> {
    let well_formed = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed.then(|| u128::from_str_radix(text, 16).ok())?
}

pub(crate) fn parse_generation(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests;

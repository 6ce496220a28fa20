//! What can be wrong with a node's disks.

use std::io;
use std::path::PathBuf;

use crate::file::DiskError;

/// Disks that can't be used; each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file can't be a disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The mark can't be read or written.
    #[error("{}: {source}: the node can't know what its disks are worth without it", path.display())]
    Mark {
        /// The mark.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The map of what was written can't be read or written.
    #[error("{}: {source}: the node can't keep a map of what it writes", path.display())]
    Map {
        /// The map.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another file lies where the disk's was.
    #[error(
        "disk {}: not the file that {} is about: put the disk's own file back, or remove {} to \
         have this node take the other one's copy",
        path.display(), mark.display(), mark.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The mark.
        mark: PathBuf,
    },
    /// The disk's file has become shorter.
    #[error(
        "disk {}: {found} bytes, it had {expected}: put the disk's own file back, or remove it and \
         {} to have this node take the other one's copy",
        path.display(), mark.display()
    )]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it had.
        expected: u64,
        /// The mark.
        mark: PathBuf,
    },
    /// No cold start: there is a copy elsewhere that is worth more, or none here.
    #[error("{0}")]
    NotWhole(String),
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(io::Error),
    /// No thread.
    #[error("no thread for a disk: {0}")]
    Thread(io::Error),
}

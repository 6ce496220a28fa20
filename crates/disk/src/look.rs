//! Looking at disks that aren't in use, and making them larger.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use twinvm_machine::SECTOR_BYTES;

use crate::file::{DiskError, DiskFile, Identity};
use crate::mark::{MARK, Mark, Stored};
use crate::set::SetError;

/// What a node's folder says about its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMark {
    stored: Stored,
}

impl StoredMark {
    /// Reads the mark in a node's folder; `None` if it has none. Nothing is locked: a node may be
    /// writing another one.
    ///
    /// # Errors
    /// [`SetError::Mark`].
    pub fn read(folder: &Path) -> Result<Option<Self>, SetError> {
        let stored = Stored::read(folder).map_err(|source| SetError::Mark {
            path: folder.join(MARK),
            source,
        })?;
        Ok(stored.map(|stored| Self { stored }))
    }

    /// What the copies are worth.
    pub fn mark(&self) -> Mark {
        self.stored.mark
    }

    /// Which of the VM's disks, from 0, this file is; `None` if it is none of them.
    ///
    /// # Errors
    /// The file can't be looked at.
    pub fn number_of(&self, file: &Path) -> io::Result<Option<usize>> {
        let identity = Identity::of(&fs::metadata(file)?);
        let own = |disk: &crate::mark::StoredDisk| disk.identity == identity;
        Ok(self.stored.disks.iter().position(own))
    }
}

/// A disk can't be made larger.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The file can't be a disk, or is in use.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Not larger.
    #[error("disk {}: it has {bytes} bytes already: a disk can only become larger", path.display())]
    NotLarger {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        bytes: u64,
    },
    /// Not whole sectors.
    #[error("a disk is whole sectors of {SECTOR_BYTES} bytes, {0} isn't")]
    Sectors(u64),
    /// The system said no.
    #[error("disk {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the disk in this file, which no VM may be using, larger: what is new reads as zeros and
/// takes no room. Gives its size before.
///
/// # Errors
/// [`GrowError`]; the file is as it was then.
pub fn grow(path: &Path, bytes: u64) -> Result<u64, GrowError> {
    let disk = DiskFile::open(path, false)?;
    let before = disk.bytes();
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(GrowError::Sectors(bytes));
    }
    if bytes <= before {
        return Err(GrowError::NotLarger {
            path: path.to_owned(),
            bytes: before,
        });
    }
    disk.grow(bytes).map_err(|source| GrowError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiskOptions, DiskSet, DiskSpec};

    #[test]
    fn a_disk_becomes_larger_and_stays_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (dir.path().join("node"), dir.path().join("disk"));
        fs::create_dir(&folder).unwrap();
        fs::write(&path, [7; 8192]).unwrap();
        let spec = DiskSpec {
            device: 0,
            path: path.clone(),
            read_only: false,
        };
        assert_eq!(StoredMark::read(&folder).unwrap(), None);
        let open = || DiskSet::open(&folder, vec![spec.clone()], DiskOptions::default());
        let set = open().unwrap();
        let mark = set.found().unwrap();
        let refused = grow(&path, 16384).unwrap_err().to_string();
        assert!(refused.contains("locked"), "{refused}");
        drop(set);
        for (bytes, why) in [(8192, "8192 bytes already"), (512, "only become larger")] {
            let refused = grow(&path, bytes).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let refused = grow(&path, 9000).unwrap_err().to_string();
        assert!(refused.contains("whole sectors"), "{refused}");
        assert_eq!(grow(&path, 16384).unwrap(), 8192);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(
            (&bytes[..8192], &bytes[8192..]),
            (&[7; 8192][..], &[0; 8192][..])
        );
        let set = open().unwrap();
        assert_eq!(set.sizes(), [Some(16384)]);
        let stored = StoredMark::read(&folder).unwrap().unwrap();
        assert_eq!(stored.mark(), mark);
        assert_eq!(stored.number_of(&path).unwrap(), Some(0));
        let other = dir.path().join("other");
        fs::write(&other, [7; 512]).unwrap();
        assert_eq!(stored.number_of(&other).unwrap(), None);
    }
}

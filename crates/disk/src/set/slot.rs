//! One disk of a set: its file, once there is one, and what is known of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use twinvm_machine::{DiskOp, DiskRequest};

use super::{DiskSpec, SetError};
use crate::file::{DiskError, DiskFile};
use crate::intents::Intents;
use crate::mark::{MARK, Stored, StoredDisk};
use crate::medium::Medium;
use crate::track::Track;
use crate::worker::Backing;

/// One disk.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) spec: DiskSpec,
    pub(super) flush: bool,
    pub(super) copy: RwLock<Option<Arc<Copy>>>,
}

/// A disk's file and what is known of it.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) file: DiskFile,
    pub(crate) track: Track,
}

impl Slot {
    pub(crate) fn copy(&self) -> Option<Arc<Copy>> {
        let copy = self.copy.read();
        copy.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the file, with room for `bytes` and nothing in it.
    pub(crate) fn create(
        &self,
        n: usize,
        folder: &Path,
        bytes: u64,
        medium: &Medium,
    ) -> Result<Arc<Copy>, SetError> {
        let path = &self.spec.path;
        let io = |source| DiskError::Io {
            path: path.clone(),
            source,
        };
        medium.make_file(path, bytes).map_err(io)?;
        let file = DiskFile::open_on(path, self.spec.read_only, medium.clone())?;
        let intents = open_intents(folder, n, bytes, medium)?;
        all(&intents).map_err(|source| map_error(folder, n, source))?;
        let copy = Arc::new(Copy {
            track: Track::new(bytes, intents),
            file,
        });
        let mut slot = self.copy.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::clone(&copy));
        Ok(copy)
    }

    pub(crate) fn make_durable(&self) -> io::Result<()> {
        self.copy().map_or(Ok(()), |copy| copy.file.flush())
    }
}

impl Backing for Slot {
    fn carry_out(&self, request: &DiskRequest) -> io::Result<Vec<u8>> {
        let Some(copy) = self.copy() else {
            return Err(io::Error::other("this node has no copy of it yet"));
        };
        let mut request = request.clone();
        match request.op {
            DiskOp::Read => return copy.file.carry_out(&request),
            DiskOp::Flush if !self.flush => return Ok(Vec::new()),
            DiskOp::Flush => return copy.file.carry_out(&request),
            DiskOp::Write { durable: true } if !self.flush => {
                request.op = DiskOp::Write { durable: false };
            }
            DiskOp::Write { .. } | DiskOp::Discard | DiskOp::WriteZeroes { .. } => {}
        }
        let bytes = request.offset..request.offset + request.bytes;
        let blocks = copy.track.begin(&copy.file, bytes)?;
        let done = copy.file.carry_out(&request);
        copy.track.end(&blocks);
        done
    }

    fn flush(&self) -> io::Result<()> {
        self.make_durable()
    }

    fn path(&self) -> &Path {
        &self.spec.path
    }
}

/// Opens and locks the files that are there, and holds them against the mark.
pub(super) fn open_files(
    folder: &Path,
    specs: &[DiskSpec],
    stored: Option<&Stored>,
    medium: &Medium,
) -> Result<Vec<Option<DiskFile>>, SetError> {
    let mut files = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let file = match DiskFile::open_on(&spec.path, spec.read_only, medium.clone()) {
            Ok(file) => file,
            Err(DiskError::Missing(_)) => {
                files.push(None);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(known) = stored.and_then(|stored| stored.disks.get(n))
            && *known != StoredDisk::default()
        {
            let mark = folder.join(MARK);
            let path = spec.path.clone();
            let identity = file.identity().map_err(|source| DiskError::Io {
                path: path.clone(),
                source,
            })?;
            if identity != known.identity {
                return Err(SetError::Foreign { path, mark });
            }
            if file.bytes() < known.bytes {
                return Err(SetError::Shrunk {
                    path,
                    found: file.bytes(),
                    expected: known.bytes,
                    mark,
                });
            }
        }
        files.push(Some(file));
    }
    Ok(files)
}

fn map_path(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("disk-{n}.intents"))
}

pub(super) fn map_error(folder: &Path, n: usize, source: io::Error) -> SetError {
    SetError::Map {
        path: map_path(folder, n),
        source,
    }
}

pub(super) fn open_intents(
    folder: &Path,
    n: usize,
    bytes: u64,
    medium: &Medium,
) -> Result<Intents, SetError> {
    let path = map_path(folder, n);
    Intents::open(&path, bytes, medium.clone()).map_err(|source| map_error(folder, n, source))
}

/// Every region may have been written.
pub(super) fn all(intents: &Intents) -> io::Result<()> {
    intents.set(0..intents.regions())
}

//! A machine's snapshot as a file: whole and durable under its name, or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use twinvm_machine::{Machine, Restore, SnapshotError, SnapshotStream};

use crate::durable::sync_dir;
use crate::random::random_u128;

/// Bytes read and written at one time.
const PIECE_BYTES: usize = 1 << 20;

/// A snapshot's file can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// Something has that name.
    #[error("{}: exists already: choose another name, or --force to replace it", .0.display())]
    Exists(PathBuf),
    /// It would replace something that isn't a file.
    #[error("{}: is no file: give another name", .0.display())]
    NotAFile(PathBuf),
    /// Its folder is missing.
    #[error("{}: there is no folder {}: make it first", path.display(), folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The system said no. Nothing is left of a file that could not be written.
    #[error("{}: can't be {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "written" or the like.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody wants it any more; nothing is left of it.
    #[error("{}: given up", .0.display())]
    GivenUp(PathBuf),
    /// It can't be restored.
    #[error("{}: {source}: {}", path.display(), mend(.source))]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SnapshotError,
    },
}

/// What to do about a file that can't be restored.
fn mend(error: &SnapshotError) -> &'static str {
    match error {
        SnapshotError::Foreign => {
            "give a file of `twinvm run --snapshot` or `twinvm ctl ... snapshot`"
        }
        SnapshotError::Format { .. } | SnapshotError::Field { .. } => {
            "go on from it with the twinvm that made it, or make a new one"
        }
        SnapshotError::NoImages => "make a new one with `twinvm run --snapshot`",
        SnapshotError::Short { .. } | SnapshotError::Checksum | SnapshotError::Content(_) => {
            "copy the file again, or make a new one"
        }
        SnapshotError::Machine(_) => "go on from it on a host that can hold it, or make a new one",
    }
}

/// The folder of a file's name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Looks whether a snapshot may get this name, before one is begun.
///
/// # Errors
/// [`SnapshotFileError::Exists`] (unless it may be replaced),
/// [`SnapshotFileError::NotAFile`], [`SnapshotFileError::NoFolder`].
pub fn check(path: &Path, replace: bool) -> Result<(), SnapshotFileError> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(SnapshotFileError::NoFolder {
            path: path.to_owned(),
            folder: folder.to_owned(),
        });
    }
    match fs::symlink_metadata(path) {
        Ok(data) if !data.is_file() => Err(SnapshotFileError::NotAFile(path.to_owned())),
        Ok(_) if !replace => Err(SnapshotFileError::Exists(path.to_owned())),
        _ => Ok(()),
    }
}

/// The same for a snapshot that will be begun much later: tries that a file can be made there.
///
/// # Errors
/// Those of [`check`], [`SnapshotFileError::Io`].
pub fn try_out(path: &Path, replace: bool) -> Result<(), SnapshotFileError> {
    check(path, replace)?;
    let (part, _) = create_part(path)?;
    fs::remove_file(&part).map_err(io_error(path, "written"))
}

/// Makes the temporary file beside `path`.
fn create_part(path: &Path) -> Result<(PathBuf, File), SnapshotFileError> {
    let mut name = path.as_os_str().to_owned();
    let number = random_u128().map_err(io_error(path, "named"))?;
    name.push(format!(".part-{number:032x}"));
    let part = PathBuf::from(name);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .map_err(io_error(path, "written"))?;
    Ok((part, file))
}

fn io_error(path: &Path, what: &'static str) -> impl Fn(io::Error) -> SnapshotFileError {
    move |source| SnapshotFileError::Io {
        path: path.to_owned(),
        what,
        source,
    }
}

/// Writes a snapshot under a temporary name beside `path`, makes it durable, and gives it
/// its name: `path` holds all of it or what it held before, whatever happens. Only its
/// owner may read it: it holds the guest's memory. Returns its length.
///
/// `progress` hears of the bytes written, piece by piece; false gives it up.
///
/// # Errors
/// [`SnapshotFileError`]; nothing of the snapshot is left then. (A process that is killed
/// leaves the temporary file, `NAME.part-` and a number.)
pub fn write(
    mut stream: SnapshotStream,
    path: &Path,
    replace: bool,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, SnapshotFileError> {
    check(path, replace)?;
    let io = |what| io_error(path, what);
    let (part, file) = create_part(path)?;
    let written = write_part(&mut stream, file, progress)
        .map_err(io("written"))
        .and_then(|written| written.ok_or_else(|| SnapshotFileError::GivenUp(path.to_owned())))
        .and_then(|bytes| {
            let named = if replace {
                fs::rename(&part, path)
            } else {
                // Unlike a rename this replaces nothing.
                fs::hard_link(&part, path)
            };
            match named {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(SnapshotFileError::Exists(path.to_owned()))
                }
                named => named.map_err(io("named")).map(|()| bytes),
            }
        });
    // After a rename it has gone.
    let _ = fs::remove_file(&part);
    let bytes = written?;
    sync_dir(folder_of(path)).map_err(io("made durable"))?;
    Ok(bytes)
}

/// `None` if nobody wants it any more.
fn write_part(
    stream: &mut SnapshotStream,
    mut file: File,
    progress: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Option<u64>> {
    let mut piece = Vec::new();
    let mut written = 0;
    loop {
        let more = stream.read(PIECE_BYTES, &mut piece);
        file.write_all(&piece)?;
        written += piece.len() as u64;
        piece.clear();
        if !progress(written) {
            return Ok(None);
        }
        if !more {
            file.sync_all()?;
            return Ok(Some(written));
        }
    }
}

/// Restores the machine of a snapshot's file, which must hold its images.
///
/// # Errors
/// [`SnapshotFileError::Io`], [`SnapshotFileError::NotAFile`],
/// [`SnapshotFileError::Content`].
pub fn restore(path: &Path) -> Result<Machine, SnapshotFileError> {
    let io = |source| SnapshotFileError::Io {
        path: path.to_owned(),
        what: "read",
        source,
    };
    let content = |source| SnapshotFileError::Content {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(SnapshotFileError::NotAFile(path.to_owned()));
    }
    let mut restore = Restore::new(None);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return restore.finish().map_err(content),
            Ok(count) => restore.push(&piece[..count]).map_err(content)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
}

#[cfg(test)]
mod tests;

//! Every change of a file that must outlive a power failure passes here, so that a test can cut
//! between any two of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;

/// One change that is about to be made.
#[allow(dead_code, reason = "only tests look into it")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// Bytes of a file change.
    Write {
        /// The file.
        path: &'a Path,
        /// First byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// What a file holds becomes durable.
    Sync(&'a Path),
    /// A file takes another's name, durably.
    Rename(&'a Path),
}

/// The way to the file system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Medium {
    #[cfg(test)]
    pub(crate) hook: Option<std::sync::Arc<dyn Hook>>,
}

/// What a test puts between.
#[cfg(test)]
pub(crate) trait Hook: std::fmt::Debug + Send + Sync {
    /// Called before each step; an error takes its place.
    fn about_to(&self, step: Step<'_>) -> io::Result<()>;
}

impl Medium {
    #[cfg(not(test))]
    fn about_to(&self, _: Step<'_>) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn about_to(&self, step: Step<'_>) -> io::Result<()> {
        self.hook
            .as_ref()
            .map_or(Ok(()), |hook| hook.about_to(step))
    }

    pub(crate) fn write_at(
        &self,
        path: &Path,
        file: &File,
        data: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let bytes = data.len() as u64;
        self.about_to(Step::Write {
            path,
            offset,
            bytes,
        })?;
        file.write_all_at(data, offset)
    }

    /// Has the file system clear a range; false if it can't.
    pub(crate) fn clear(
        &self,
        path: &Path,
        file: &File,
        how: FallocateFlags,
        offset: u64,
        bytes: u64,
    ) -> io::Result<bool> {
        self.about_to(Step::Write {
            path,
            offset,
            bytes,
        })?;
        loop {
            match fallocate(file, how, offset, bytes) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes durable what a file holds.
    pub(crate) fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        self.about_to(Step::Sync(path))?;
        Ok(fdatasync(file)?)
    }

    /// Makes a file of so many bytes without content, durably: it is there whole or not at all.
    pub(crate) fn make_file(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.about_to(Step::Rename(path))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let temporary = Path::new(&name);
        let file = File::create(temporary)?;
        let made = file.set_len(bytes).and_then(|()| file.sync_all());
        if made.is_err() {
            let _ = fs::remove_file(temporary);
        }
        made?;
        fs::rename(temporary, path)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))
    }

    /// Puts `bytes` into `dir/name`: a temporary file beside it, synced, renamed, the folder
    /// synced. When this returns an error the file holds either the old or the new bytes. Where
    /// no room is left the file is overwritten in place: a VM must not end for the want of a few
    /// bytes.
    pub(crate) fn replace_file(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = dir.join(name);
        self.about_to(Step::Rename(&path))?;
        match replace(dir, name, bytes) {
            Err(error) if is_full(&error) && path.exists() => {
                let mut file = OpenOptions::new().write(true).open(&path)?;
                file.write_all(bytes)?;
                file.sync_all()
            }
            done => done,
        }
    }
}

fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if written.is_err() {
        // What room it has taken others may need.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether an error says that there is no room left.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// The content of a file of at most `max` bytes; `None` if there is no such file. A longer file
/// is an error of kind `InvalidData`.
pub(crate) fn read_small(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than the {max} bytes it can have"),
        ));
    }
    Ok(Some(bytes))
}

//! Every change of a file that must outlive a power failure passes here, so that a test can cut
//! between any two of them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;

use crate::durable::{is_full, overwrite, replace_file, sync_dir};

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
        name.push(".twinvm-new");
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

    /// [`replace_file`], as one step. Where no room is left the file is overwritten in place: a VM
    /// must not end for the want of a few bytes. A power failure in the midst of that, or an error,
    /// may leave parts of both, which the file's checksum tells.
    pub(crate) fn replace_file(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = dir.join(name);
        self.about_to(Step::Rename(&path))?;
        match replace_file(dir, name, bytes) {
            Err(error) if is_full(&error) && path.exists() => overwrite(&path, bytes),
            done => done,
        }
    }
}

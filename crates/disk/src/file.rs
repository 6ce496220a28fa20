//! A disk's contents: a raw file, locked.
//!
//! A flush that failed may have lost what was written before it, and the next one would not say
//! so: from then on the disk counts as failed, and every request fails.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fcntl_lock, flock, major, minor, seek};
use rustix::io::Errno;
use twinvm_machine::{DiskOp, DiskRequest, SECTOR_BYTES};

use crate::medium::Medium;

/// Zeros are written in pieces of this many bytes where the file system can't clear a range.
const ZEROS_BYTES: usize = 64 << 10;

/// A file can't be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system said no.
    #[error("disk {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("disk {}: there is no such file: make it, for instance with truncate -s 4G FILE", .0.display())]
    Missing(PathBuf),
    /// A folder, a device, a socket.
    #[error("disk {}: {what}, not a regular file: give a raw disk image", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The guest would write and can't.
    #[error("disk {}: the file is read-only: make it writable, or set readonly = true", .0.display())]
    ReadOnly(PathBuf),
    /// This user can't even read it.
    #[error(
        "disk {}: this user may not read it: give the user a right to it (chown, chmod) and to its \
         folders",
        .0.display()
    )]
    Denied(PathBuf),
    /// Nothing in it.
    #[error("disk {}: the file is empty: give it a size, for instance with truncate -s 4G FILE", .0.display())]
    Empty(PathBuf),
    /// Not whole sectors.
    #[error("disk {}: {bytes} bytes are not a multiple of {SECTOR_BYTES}: a raw disk image is whole sectors", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Someone else uses it.
    #[error("disk {}: locked by {by}: a disk belongs to one VM at a time", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who holds it.
        by: String,
    },
}

/// A raw disk image, locked for this process: exclusively, or against writers if it is read-only.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    path: PathBuf,
    bytes: u64,
    read_only: bool,
    medium: Medium,
    /// Why nothing can be done with it any more.
    failed: OnceLock<String>,
}

impl DiskFile {
    /// Opens and locks the file at `path`.
    ///
    /// # Errors
    /// [`DiskError`]: a file that can't be a disk, or is in use.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        Self::open_on(path, read_only, Medium::default())
    }

    pub(crate) fn open_on(path: &Path, read_only: bool, medium: Medium) -> Result<Self, DiskError> {
        let io = |source: io::Error| match source.kind() {
            ErrorKind::PermissionDenied => DiskError::Denied(path.to_owned()),
            _ => DiskError::Io {
                path: path.to_owned(),
                source,
            },
        };
        let about = fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DiskError::Missing(path.to_owned()),
            _ => io(error),
        })?;
        if !about.is_file() {
            let what = if about.is_dir() {
                "a folder"
            } else {
                "a device or socket"
            };
            return Err(DiskError::NotAFile {
                path: path.to_owned(),
                what,
            });
        }
        // Root may write to any file; one that nobody may write to is so on purpose.
        if !read_only && about.mode() & 0o222 == 0 {
            return Err(DiskError::ReadOnly(path.to_owned()));
        }
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if !read_only => {
                    match File::open(path) {
                        Ok(_) => DiskError::ReadOnly(path.to_owned()),
                        Err(error) => io(error),
                    }
                }
                _ => io(error),
            })?;
        lock(&file, read_only).map_err(|error| match error {
            Errno::AGAIN | Errno::ACCESS => DiskError::Locked {
                path: path.to_owned(),
                by: holder(&about),
            },
            error => io(error.into()),
        })?;
        let bytes = file.metadata().map_err(io)?.len();
        if bytes == 0 {
            return Err(DiskError::Empty(path.to_owned()));
        }
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(DiskError::Size {
                path: path.to_owned(),
                bytes,
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            bytes,
            read_only,
            medium,
            failed: OnceLock::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its capacity in sectors.
    pub fn sectors(&self) -> u64 {
        self.bytes / SECTOR_BYTES
    }

    /// Whether the guest can only read.
    pub fn read_only(&self) -> bool {
        self.read_only
    }
}

/// Takes both kinds of lock that there are: flock(2) keeps other twinvm processes out, and
/// another disk of this one; the record lock keeps QEMU out.
fn lock(file: &File, read_only: bool) -> Result<(), Errno> {
    let how = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    for take in [flock::<&File>, fcntl_lock::<&File>] {
        match take(file, how) {
            // Some network file systems have no locks of one kind.
            Ok(()) | Err(Errno::NOLCK | Errno::NOTSUP | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Who locks a file, by proc_locks(5).
fn holder(about: &fs::Metadata) -> String {
    let (major, minor) = (major(about.dev()), minor(about.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", about.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == inode)?;
        fields.get(at.checked_sub(1)?)?.parse::<u32>().ok()
    });
    match pid {
        Some(pid) if pid == std::process::id() => "another disk of this VM".to_owned(),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl DiskFile {
    /// The same file, writable, for a copy of another node's disk: the guest can't write to it,
    /// the node can. It is locked already.
    pub(crate) fn writer(&self) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        let writer = Self {
            file,
            path: self.path.clone(),
            bytes: self.bytes,
            read_only: false,
            medium: self.medium.clone(),
            failed: OnceLock::new(),
        };
        if writer.identity()? != self.identity()? {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(writer)
    }

    /// Carries out one request; gives what a read has read.
    ///
    /// # Errors
    /// What the guest is told as an I/O error.
    pub fn carry_out(&self, request: &DiskRequest) -> io::Result<Vec<u8>> {
        let (offset, bytes) = (request.offset, request.bytes);
        self.check_failed()?;
        match request.op {
            DiskOp::Read => {
                let mut data = vec![0; bytes as usize];
                self.read_at(&mut data, offset)?;
                return Ok(data);
            }
            DiskOp::Write { durable } => {
                self.write_at(&request.data, offset)?;
                if durable {
                    self.flush()?;
                }
            }
            DiskOp::Flush => self.flush()?,
            DiskOp::Discard | DiskOp::WriteZeroes { unmap: true } => {
                self.discard(offset, bytes)?;
            }
            DiskOp::WriteZeroes { unmap: false } => {
                let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
                self.clear(zero, offset, bytes)?;
            }
        }
        Ok(Vec::new())
    }

    /// Why every request fails, if so.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    fn check_failed(&self) -> io::Result<()> {
        match self.failed() {
            Some(why) => Err(io::Error::other(why.to_owned())),
            None => Ok(()),
        }
    }

    pub(crate) fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.file
            .read_exact_at(data, offset)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => has_shrunk(),
                _ => error,
            })
    }

    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_size(offset, data.len() as u64)?;
        self.medium.write_at(&self.path, &self.file, data, offset)
    }

    /// Gives the storage of a range back: it reads as zeros.
    pub(crate) fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.clear(punch, offset, bytes)
    }

    /// A write behind the end would make the file longer again, with a hole where data was lost.
    fn check_size(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if self.file.metadata()?.len() < offset + bytes {
            return Err(has_shrunk());
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.check_failed()?;
        if self.read_only {
            return Ok(());
        }
        self.medium
            .sync(&self.path, &self.file)
            .inspect_err(|error| {
                let _ = self.failed.set(format!(
                    "an earlier flush failed ({error}): what was written before it may be lost"
                ));
            })
    }

    /// Has the file system clear a range, or writes zeros where it can't.
    fn clear(&self, how: FallocateFlags, offset: u64, bytes: u64) -> io::Result<()> {
        self.check_size(offset, bytes)?;
        let cleared = self
            .medium
            .clear(&self.path, &self.file, how, offset, bytes)?;
        if cleared {
            return Ok(());
        }
        self.write_zeros(offset, bytes)
    }

    pub(crate) fn write_zeros(&self, mut offset: u64, mut bytes: u64) -> io::Result<()> {
        let zeros = [0; ZEROS_BYTES];
        while bytes > 0 {
            let len = bytes.min(ZEROS_BYTES as u64);
            let zeros = &zeros[..len as usize];
            self.medium
                .write_at(&self.path, &self.file, zeros, offset)?;
            offset += len;
            bytes -= len;
        }
        Ok(())
    }

    /// The next range at or after `offset` that isn't known to be a hole; `None` if all the rest
    /// is one. Where the file system doesn't tell, nothing is a hole.
    pub(crate) fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        if offset >= self.bytes {
            return Ok(None);
        }
        let start = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some((offset, self.bytes))),
            Err(error) => return Err(error.into()),
        };
        let end = match seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(self.bytes),
            Err(_) => self.bytes,
        };
        Ok((start < end).then_some((start, end)))
    }

    /// Makes the file longer, durably.
    pub(crate) fn grow(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.sync_all()
    }

    /// What tells this file from one that was put in its place.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of(&self.file.metadata()?))
    }
}

/// What tells a file from another one under the same name. Numbers of devices are not in it: they
/// change when a host starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    pub(crate) inode: u64,
    /// When it was made, in nanoseconds since 1970; 0 where the file system doesn't keep it.
    pub(crate) born_ns: u64,
}

impl Identity {
    pub(crate) fn of(about: &fs::Metadata) -> Self {
        let born = about
            .created()
            .ok()
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Self {
            inode: about.ino(),
            born_ns: born.map_or(0, |since| since.as_nanos() as u64),
        }
    }
}

fn has_shrunk() -> io::Error {
    io::Error::other("the file has become shorter than the disk")
}

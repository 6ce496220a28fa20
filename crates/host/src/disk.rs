//! A disk's contents: a raw file, and the threads that read and write it.
//!
//! The machine decides which requests may be under way at once: none of them overlap. So threads
//! carry them out in any order, and what comes back is what the guest is told.
//!
//! Whatever the file does, the VM lives: an error, a full file system, a file that has become
//! shorter are a failed request to the guest.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fcntl_lock, fdatasync, flock};
use rustix::fs::{major, minor};
use rustix::io::Errno;
use twinvm_machine::{DiskOp, DiskRequest, MAX_DISK_REQUESTS, SECTOR_BYTES};

#[cfg(test)]
mod tests;

/// Threads of one disk: enough that a request that waits for the medium does not hold up those
/// that the page cache can answer.
const THREADS: usize = 4;
/// Zeros are written in pieces of this many bytes where the file system can't clear a range.
const ZEROS_BYTES: usize = 64 << 10;

/// Status of a request that was done (virtio 1.2 section 5.2.6).
const DONE: u8 = 0;
/// Status of a request that failed.
const FAILED: u8 = 1;

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
}

impl DiskFile {
    /// Opens and locks the file at `path`.
    ///
    /// # Errors
    /// [`DiskError`]: a file that can't be a disk, or is in use.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
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
        })
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

/// How a request has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskDone {
    /// Virtio slot of the disk.
    pub device: u8,
    /// The request's number.
    pub id: u64,
    /// 0 done, 1 failed.
    pub status: u8,
    /// What a read that was done has read.
    pub data: Vec<u8>,
    /// What a person should know, said once for each kind of trouble.
    pub trouble: Option<String>,
}

/// A disk at work. Dropping it waits for the requests under way.
#[derive(Debug)]
pub struct Disk {
    requests: Option<Sender<DiskRequest>>,
    threads: Vec<JoinHandle<()>>,
    worker: Arc<Worker>,
}

impl Disk {
    /// Starts the threads; results go to `done`, which must have room for
    /// [`MAX_DISK_REQUESTS`] of each disk.
    ///
    /// # Errors
    /// No thread.
    pub fn start(file: DiskFile, done: &Sender<DiskDone>) -> io::Result<Self> {
        let (requests_in, requests) = bounded(MAX_DISK_REQUESTS);
        let worker = Arc::new(Worker {
            file,
            said: Mutex::new(Vec::new()),
        });
        let threads = (0..THREADS)
            .map(|n| {
                let worker = Arc::clone(&worker);
                let (requests, done) = (requests.clone(), done.clone());
                thread::Builder::new()
                    .name(format!("disk {n}"))
                    .spawn(move || worker.run(&requests, &done))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            requests: Some(requests_in),
            threads,
            worker,
        })
    }

    /// Carries a request out. Never waits: the queue has room for all that a disk may have in
    /// flight. Next hop: a [`DiskDone`].
    pub fn submit(&self, request: DiskRequest) {
        if let Some(requests) = &self.requests {
            // The threads live as long as this does.
            let _ = requests.send(request);
        }
    }

    /// Brings the file to rest: waits for the requests under way, whose results may be left where
    /// they are, and makes durable what has been written. No request is taken after it; the file
    /// stays locked.
    ///
    /// # Errors
    /// [`DiskError::Io`]: what was written may not be there after a power failure.
    pub fn rest(&mut self) -> Result<(), DiskError> {
        self.stop();
        let file = &self.worker.file;
        file.flush().map_err(|source| DiskError::Io {
            path: file.path.clone(),
            source,
        })
    }

    fn stop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the threads of a disk share.
#[derive(Debug)]
struct Worker {
    file: DiskFile,
    /// Kinds of trouble that were told.
    said: Mutex<Vec<(&'static str, Option<i32>)>>,
}

impl Worker {
    fn run(&self, requests: &Receiver<DiskRequest>, done: &Sender<DiskDone>) {
        for request in requests {
            let result = self.file.carry_out(&request);
            let (status, data, trouble) = match result {
                Ok(data) => (DONE, data, None),
                Err(error) => (FAILED, Vec::new(), self.tell(request.op, &error)),
            };
            let ended = DiskDone {
                device: request.device,
                id: request.id,
                status,
                data,
                trouble,
            };
            if done.send(ended).is_err() {
                return;
            }
        }
    }

    /// The line for this kind of trouble, if it is the first of its kind.
    fn tell(&self, op: DiskOp, error: &io::Error) -> Option<String> {
        let doing = match op {
            DiskOp::Read => "read",
            DiskOp::Write { .. } => "write",
            DiskOp::Flush => "flush",
            DiskOp::Discard => "discard",
            DiskOp::WriteZeroes { .. } => "write of zeros",
        };
        let kind = (doing, error.raw_os_error());
        let mut said = match self.said.lock() {
            Ok(said) => said,
            Err(poisoned) => poisoned.into_inner(),
        };
        if said.contains(&kind) {
            return None;
        }
        said.push(kind);
        Some(format!(
            "disk {}: a {doing} failed: {error}; the guest gets an I/O error (said once)",
            self.file.path.display()
        ))
    }
}

impl DiskFile {
    /// Carries out one request; gives what a read has read.
    fn carry_out(&self, request: &DiskRequest) -> io::Result<Vec<u8>> {
        let (offset, bytes) = (request.offset, request.bytes);
        match request.op {
            DiskOp::Read => {
                let mut data = vec![0; bytes as usize];
                self.file
                    .read_exact_at(&mut data, offset)
                    .map_err(|error| match error.kind() {
                        ErrorKind::UnexpectedEof => has_shrunk(),
                        _ => error,
                    })?;
                return Ok(data);
            }
            DiskOp::Write { durable } => {
                self.check_size(offset, bytes)?;
                self.file.write_all_at(&request.data, offset)?;
                if durable {
                    self.flush()?;
                }
            }
            DiskOp::Flush => self.flush()?,
            DiskOp::Discard | DiskOp::WriteZeroes { unmap: true } => {
                self.check_size(offset, bytes)?;
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                if !self.clear(punch, offset, bytes)? {
                    self.write_zeros(offset, bytes)?;
                }
            }
            DiskOp::WriteZeroes { unmap: false } => {
                self.check_size(offset, bytes)?;
                let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
                if !self.clear(zero, offset, bytes)? {
                    self.write_zeros(offset, bytes)?;
                }
            }
        }
        Ok(Vec::new())
    }

    /// A write behind the end would make the file longer again, with a hole where data was lost.
    fn check_size(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if self.file.metadata()?.len() < offset + bytes {
            return Err(has_shrunk());
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        Ok(fdatasync(&self.file)?)
    }

    /// Has the file system clear a range; false if it can't.
    fn clear(&self, how: FallocateFlags, offset: u64, bytes: u64) -> io::Result<bool> {
        loop {
            match fallocate(&self.file, how, offset, bytes) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn write_zeros(&self, mut offset: u64, mut bytes: u64) -> io::Result<()> {
        let zeros = [0; ZEROS_BYTES];
        while bytes > 0 {
            let len = bytes.min(ZEROS_BYTES as u64);
            self.file.write_all_at(&zeros[..len as usize], offset)?;
            offset += len;
            bytes -= len;
        }
        Ok(())
    }
}

fn has_shrunk() -> io::Error {
    io::Error::other("the file has become shorter than the disk")
}

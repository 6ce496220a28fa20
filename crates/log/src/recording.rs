//! A recording: a directory with a machine's snapshot and the log after it.
//!
//! `snapshot` is the machine's own bytes behind this header, `log` is as in
//! [`LogReader`](crate::LogReader):
//!
//! ```text
//! offset  bytes
//!      0      8  "twinvsnp"
//!      8      4  version
//!     12      8  length of the snapshot
//!     20      8  checksum of the snapshot
//!     28      8  checksum of bytes 0..28
//! ```
//!
//! `states` may be missing: see [`StatesReader`](crate::StatesReader).
//!
//! The snapshot is written while the machine already runs and its log grows: until it is
//! complete its header states a length that no file has, and the log's header doesn't
//! name its checksum. A recording that ended before that can't be replayed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::batch::EncodedBatch;
use crate::logfile::{AppendError, Ending, Entry, LogHeader, LogReader, LogWriter, ReadError};
use crate::states::STATES_FILE;
use direct::DirectFile;

mod direct;

/// Name of the snapshot in a recording's directory.
pub const SNAPSHOT_FILE: &str = "snapshot";
/// Name of the log in a recording's directory.
pub const LOG_FILE: &str = "log";
/// The snapshot wrapping written and understood by this crate.
pub const SNAPSHOT_VERSION: u32 = 1;

const SNAPSHOT_MAGIC: &[u8; 8] = b"twinvsnp";
const SNAPSHOT_HEADER_BYTES: usize = 36;
const SNAPSHOT_CHECKED_BYTES: usize = 28;
/// Stated until the snapshot is complete.
const INCOMPLETE: u64 = u64::MAX;

/// Why a recording can't be made or read. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A recording is in the way.
    #[error(
        "{} already exists: a recording is never overwritten; \
         give another directory or remove this one",
        path.display()
    )]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// The directory is somebody else's.
    #[error(
        "{} is not empty ({} is in it): a recording gets a folder of its own; \
         give an empty one or a new name",
        dir.display(),
        found.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Name of something in it.
        found: PathBuf,
    },
    /// A file has the directory's name.
    #[error("{} is a file, and a recording is a folder: give another name", .0.display())]
    NotAFolder(PathBuf),
    /// A file or directory could not be made, written or read.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The directory is no recording.
    #[error(
        "{} is missing: {} is not a complete recording; give the folder of --record",
        path.display(),
        dir.display()
    )]
    Missing {
        /// The file that should be there.
        path: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// The snapshot file is not what was written.
    #[error("{}: snapshot is {what}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The snapshot file is of another version, or its version field is damaged.
    #[error(
        "{}: snapshot version {found}, this build reads version {SNAPSHOT_VERSION}: \
         read it with the twinvm that made it",
        path.display()
    )]
    SnapshotVersion {
        /// The file.
        path: PathBuf,
        /// The version field.
        found: u32,
    },
    /// The log doesn't start from the snapshot beside it.
    #[error(
        "{} starts from another snapshot than the one beside it: \
         copy both files of one recording",
        path.display()
    )]
    Mismatch {
        /// The log.
        path: PathBuf,
    },
    /// The log can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The log.
        path: PathBuf,
        /// What is wrong, and at which byte.
        source: ReadError,
    },
    /// A batch could not be appended to the log.
    #[error("{}: {source}", path.display())]
    Append {
        /// The log.
        path: PathBuf,
        /// Why.
        source: AppendError,
    },
}

/// The checksum that ties a log to its snapshot.
#[must_use]
pub fn snapshot_checksum(snapshot: &[u8]) -> u64 {
    xxh3_64(snapshot)
}

/// Writes a recording's log while the machine runs.
#[derive(Debug)]
pub struct RecordingWriter {
    log: LogWriter<File>,
    header: LogHeader,
    path: PathBuf,
    dir: PathBuf,
}

/// Writes a recording's snapshot, on any thread while the log grows.
pub struct SnapshotWriter {
    file: DirectFile,
    path: PathBuf,
    hash: Xxh3,
    len: u64,
}

impl SnapshotWriter {
    fn create(path: PathBuf) -> Result<Self, RecordingError> {
        let header = snapshot_header(INCOMPLETE, 0);
        let file = DirectFile::create_new(&path, &header).map_err(not_created(&path))?;
        Ok(Self {
            file,
            path,
            hash: Xxh3::new(),
            len: 0,
        })
    }

    /// Appends to the snapshot.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RecordingError> {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        self.file.append(bytes).map_err(io("write", &self.path))
    }

    /// Completes the snapshot and makes it durable. Returns its checksum, for
    /// [`RecordingWriter::seal`].
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn finish(self) -> Result<u64, RecordingError> {
        let checksum = self.hash.digest();
        self.file
            .finish(&snapshot_header(self.len, checksum))
            .map_err(io("write", &self.path))?;
        Ok(checksum)
    }
}

impl RecordingWriter {
    /// Makes `dir` if need be and starts a recording in it from `snapshot`, whose next
    /// record has position `first_position`.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub fn create(
        dir: &Path,
        config: &[u8],
        first_position: u64,
        snapshot: &[u8],
    ) -> Result<Self, RecordingError> {
        let (mut log, mut writer) = Self::begin(dir, config, first_position)?;
        writer.write(snapshot)?;
        log.seal(writer.finish()?)?;
        Ok(log)
    }

    /// Like [`create`](Self::create), for a snapshot that is written while the log grows.
    ///
    /// # Errors
    /// [`RecordingError::Exists`] if the directory holds a recording, even part of one;
    /// [`RecordingError::NotEmpty`] if it holds anything else.
    pub fn begin(
        dir: &Path,
        config: &[u8],
        first_position: u64,
    ) -> Result<(Self, SnapshotWriter), RecordingError> {
        if dir.is_file() {
            return Err(RecordingError::NotAFolder(dir.to_path_buf()));
        }
        let path = dir.join(LOG_FILE);
        // Looked at first, so that one file alone is refused before anything is written.
        for path in [&path, &dir.join(SNAPSHOT_FILE), &dir.join(STATES_FILE)] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(RecordingError::Exists { path: path.clone() });
            }
        }
        fs::create_dir_all(dir).map_err(io("create", dir))?;
        // Who removes a recording removes its folder.
        if let Some(entry) = fs::read_dir(dir).map_err(io("read", dir))?.next() {
            return Err(RecordingError::NotEmpty {
                dir: dir.to_path_buf(),
                found: entry.map_err(io("read", dir))?.file_name().into(),
            });
        }
        let snapshot = SnapshotWriter::create(dir.join(SNAPSHOT_FILE))?;
        let file = create_new(&path)?;
        let header = LogHeader {
            config: config.to_vec(),
            first_position,
            snapshot_checksum: 0,
        };
        let log = LogWriter::new(file, &header).map_err(|source| RecordingError::Append {
            path: path.clone(),
            source,
        })?;
        let writer = Self {
            log,
            header,
            path,
            dir: dir.to_path_buf(),
        };
        Ok((writer, snapshot))
    }

    /// Ties the log to its snapshot, which is complete: from now on the recording can be
    /// replayed.
    ///
    /// # Errors
    /// [`RecordingError::Io`] or [`RecordingError::Append`].
    pub fn seal(&mut self, snapshot_checksum: u64) -> Result<(), RecordingError> {
        self.header.snapshot_checksum = snapshot_checksum;
        let bytes = self
            .header
            .encode()
            .map_err(|source| RecordingError::Append {
                path: self.path.clone(),
                source,
            })?;
        self.log
            .get_mut()
            .write_all_at(&bytes, 0)
            .map_err(io("write", &self.path))
    }

    /// Appends a batch, which must start at [`next_position`](Self::next_position).
    ///
    /// # Errors
    /// [`RecordingError::Append`]; after a failed write nothing more is taken.
    pub fn append(&mut self, batch: &EncodedBatch) -> Result<(), RecordingError> {
        self.log
            .append(batch)
            .map_err(|source| RecordingError::Append {
                path: self.path.clone(),
                source,
            })
    }

    /// The position that the next batch must start at.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.log.next_position()
    }

    /// Makes the recording durable and closes it. A finished recording's last record is
    /// [`Body::End`](crate::Body::End), which the caller appends before.
    ///
    /// # Errors
    /// [`RecordingError::Io`] if the host can't say that the bytes are on the disk.
    pub fn finish(self) -> Result<(), RecordingError> {
        let file = self.log.into_inner();
        file.sync_all().map_err(io("sync", &self.path))?;
        let snapshot = self.dir.join(SNAPSHOT_FILE);
        for path in [&snapshot, &self.dir] {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(io("sync", path))?;
        }
        Ok(())
    }
}

/// Reads a recording: the snapshot at once, the records as an iterator.
#[derive(Debug)]
pub struct RecordingReader {
    snapshot: Vec<u8>,
    log: LogReader<BufReader<File>>,
    path: PathBuf,
}

impl RecordingReader {
    /// Opens the recording in `dir`, reads its snapshot and the head of its log.
    ///
    /// # Errors
    /// [`RecordingError`], naming the file at fault.
    pub fn open(dir: &Path) -> Result<Self, RecordingError> {
        let snapshot = read_snapshot(&dir.join(SNAPSHOT_FILE), dir)?;
        let path = dir.join(LOG_FILE);
        let input = BufReader::new(open(&path, dir)?);
        let log = LogReader::new(input).map_err(|source| RecordingError::Read {
            path: path.clone(),
            source,
        })?;
        if log.header().snapshot_checksum != snapshot_checksum(&snapshot) {
            return Err(RecordingError::Mismatch { path });
        }
        Ok(Self {
            snapshot,
            log,
            path,
        })
    }

    /// The machine's snapshot that the log starts from.
    #[must_use]
    pub fn snapshot(&self) -> &[u8] {
        &self.snapshot
    }

    /// Gives the snapshot away, to free its memory; [`snapshot`](Self::snapshot) is empty
    /// afterwards.
    pub fn take_snapshot(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.snapshot)
    }

    /// The machine's configuration, as given to [`RecordingWriter::create`].
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.log.header().config
    }

    /// Position of the first record.
    #[must_use]
    pub fn first_position(&self) -> u64 {
        self.log.header().first_position
    }

    /// How the log ends, once the iterator has reached its end.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.log.ending()
    }
}

impl Iterator for RecordingReader {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.log.next()?;
        Some(entry.map_err(|source| RecordingError::Read {
            path: self.path.clone(),
            source,
        }))
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordingError {
    let path = path.to_path_buf();
    move |source| RecordingError::Io { what, path, source }
}

fn create_new(path: &Path) -> Result<File, RecordingError> {
    create_private(path).map_err(not_created(path))
}

/// Makes a file that only its owner may read: a recording holds the guest's memory, and all that
/// it was sent.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn not_created(path: &Path) -> impl FnOnce(io::Error) -> RecordingError {
    let path = path.to_path_buf();
    move |source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            RecordingError::Exists { path }
        } else {
            io("create", &path)(source)
        }
    }
}

fn open(path: &Path, dir: &Path) -> Result<File, RecordingError> {
    File::open(path).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            RecordingError::Missing {
                path: path.to_path_buf(),
                dir: dir.to_path_buf(),
            }
        } else {
            io("open", path)(source)
        }
    })
}

fn snapshot_header(len: u64, checksum: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(SNAPSHOT_HEADER_BYTES);
    header.extend_from_slice(SNAPSHOT_MAGIC);
    header.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
    header.extend_from_slice(&len.to_le_bytes());
    header.extend_from_slice(&checksum.to_le_bytes());
    let own = xxh3_64(&header);
    header.extend_from_slice(&own.to_le_bytes());
    header
}

fn read_snapshot(path: &Path, dir: &Path) -> Result<Vec<u8>, RecordingError> {
    let bad = |what| RecordingError::Snapshot {
        path: path.to_path_buf(),
        what,
    };
    let file = open(path, dir)?;
    let mut header = Vec::new();
    (&file)
        .take(SNAPSHOT_HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(io("read", path))?;
    if !header.starts_with(SNAPSHOT_MAGIC) {
        return Err(bad(
            "not one of twinvm's: it doesn't start with \"twinvsnp\"",
        ));
    }
    let header: [u8; SNAPSHOT_HEADER_BYTES] = header
        .try_into()
        .map_err(|_| bad("cut short inside its header: copy it again"))?;
    let mut version = [0; 4];
    version.copy_from_slice(&header[8..12]);
    let found = u32::from_le_bytes(version);
    if found != SNAPSHOT_VERSION {
        return Err(RecordingError::SnapshotVersion {
            path: path.to_path_buf(),
            found,
        });
    }
    let long = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if xxh3_64(&header[..SNAPSHOT_CHECKED_BYTES]) != long(SNAPSHOT_CHECKED_BYTES) {
        return Err(bad("damaged: its header's checksum differs; copy it again"));
    }
    let len = long(12);
    if len == INCOMPLETE {
        return Err(bad(
            "incomplete: recording ended before it was written, so it can't be replayed; record again",
        ));
    }
    let mut snapshot = Vec::new();
    // The file's own size, not the stated one, decides how much is allocated.
    (&file)
        .take(len)
        .read_to_end(&mut snapshot)
        .map_err(io("read", path))?;
    if (snapshot.len() as u64) < len {
        return Err(bad("cut short: copy it again"));
    }
    if (&file).read(&mut [0]).map_err(io("read", path))? != 0 {
        return Err(bad("longer than its header says: copy it again"));
    }
    if snapshot_checksum(&snapshot) != long(20) {
        return Err(bad("damaged: its checksum differs; copy it again"));
    }
    Ok(snapshot)
}

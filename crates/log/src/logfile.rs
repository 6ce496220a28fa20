//! The log as a stream of bytes: one header, then batches.
//!
//! ```text
//! offset  bytes
//!      0      8  "twinvlog"
//!      8      4  version
//!     12      4  length of the configuration
//!     16      8  position of the first record
//!     24      8  checksum of the snapshot the log starts from
//!     32      n  configuration
//!   32+n      8  checksum of bytes 0..32+n
//! ```
//!
//! A process that dies while it appends leaves a last batch that is cut short. Only that, an
//! end that comes too early, counts as torn: the reader stops after the last whole batch and
//! says so. Anything else that doesn't fit is refused with its byte offset.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{Batch, BatchHeader, DecodeError, EncodedBatch, HEADER_BYTES};
use crate::record::{Body, Record};

/// The log format written and understood by this crate.
pub const LOG_VERSION: u32 = 1;
/// The longest configuration: a device tree and a few names, with room to spare.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;

const MAGIC: &[u8; 8] = b"twinvlog";
const FIXED_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 8;

/// What stands at the head of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// The machine's configuration, opaque here; at most [`MAX_CONFIG_BYTES`].
    pub config: Vec<u8>,
    /// Position of the first record.
    pub first_position: u64,
    /// Checksum of the snapshot that the log starts from.
    pub snapshot_checksum: u64,
}

impl LogHeader {
    /// As it stands in the file. Its length follows from the configuration's alone.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, AppendError> {
        let len = self.config.len();
        if len > MAX_CONFIG_BYTES {
            return Err(AppendError::Config { len });
        }
        let mut bytes = Vec::with_capacity(FIXED_BYTES + len + CHECKSUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&LOG_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.extend_from_slice(&self.first_position.to_le_bytes());
        bytes.extend_from_slice(&self.snapshot_checksum.to_le_bytes());
        bytes.extend_from_slice(&self.config);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Writing failed. Nothing more can be appended: the last batch may be cut short.
    #[error("cannot write the log: {0}")]
    Io(#[from] io::Error),
    /// An earlier write failed.
    #[error("the log is closed: an earlier write to it failed")]
    Failed,
    /// The batch doesn't follow the one before it.
    #[error("batch starts at position {found}, the log goes on at {expected}")]
    Position {
        /// The next position of the log.
        expected: u64,
        /// The batch's first position.
        found: u64,
    },
    /// The batch's instruction counts lie before those already written.
    #[error("batch starts at instruction count {found}, the log already stands at {last}")]
    Backwards {
        /// The last count written.
        last: u64,
        /// The batch's first count.
        found: u64,
    },
    /// The log already holds its [`Body::End`] record.
    #[error("the log has ended: its last record is the end of the recording")]
    Ended,
    /// The configuration is too long to be written.
    #[error("configuration has {len} bytes, allowed are {MAX_CONFIG_BYTES}")]
    Config {
        /// Its length.
        len: usize,
    },
}

/// Appends batches to a log. Each batch goes out in one write.
#[derive(Debug)]
pub struct LogWriter<W> {
    out: W,
    next_position: u64,
    last_icount: u64,
    ended: bool,
    failed: bool,
}

impl<W: Write> LogWriter<W> {
    /// Starts a log by writing its header.
    ///
    /// # Errors
    /// [`AppendError::Config`] or [`AppendError::Io`].
    pub fn new(mut out: W, header: &LogHeader) -> Result<Self, AppendError> {
        let bytes = header.encode()?;
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            next_position: header.first_position,
            last_icount: 0,
            ended: false,
            failed: false,
        })
    }

    /// Appends a batch, which must start where the log stands.
    ///
    /// # Errors
    /// [`AppendError`]; after a failed write the log takes nothing more.
    pub fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        if self.ended {
            return Err(AppendError::Ended);
        }
        if batch.first_position() != self.next_position {
            return Err(AppendError::Position {
                expected: self.next_position,
                found: batch.first_position(),
            });
        }
        if batch.first_icount() < self.last_icount {
            return Err(AppendError::Backwards {
                last: self.last_icount,
                found: batch.first_icount(),
            });
        }
        if let Err(error) = self.out.write_all(batch.bytes()) {
            self.failed = true;
            return Err(error.into());
        }
        self.next_position = batch.next_position();
        self.last_icount = batch.last_icount();
        self.ended = batch.ends();
        Ok(())
    }

    /// The position that the next batch must start at.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// The destination, to flush or sync it.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Gives the destination back.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// Why a log can't be read, with the offset of the bytes at fault.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading failed.
    #[error("cannot read the log at byte {offset}: {source}")]
    Io {
        /// Where reading stopped.
        offset: u64,
        /// What the host said.
        source: io::Error,
    },
    /// Not a log at all.
    #[error("not a twinvm log: it doesn't start with \"twinvlog\"")]
    Magic,
    /// A log of another version, or a damaged version field.
    #[error(
        "log version {found}, this build reads version {LOG_VERSION}: \
         read it with the twinvm that made it"
    )]
    Version {
        /// The version field.
        found: u32,
    },
    /// The header is cut short or damaged.
    #[error("log header is {0}: copy the file again; if it was always so, record again")]
    Header(&'static str),
    /// A batch is damaged.
    #[error("damaged batch at byte {offset}: {source}")]
    Batch {
        /// Where the batch starts.
        offset: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Batches are missing or doubled.
    #[error("batch at byte {offset} starts at position {found}, expected {expected}")]
    Gap {
        /// Where the batch starts.
        offset: u64,
        /// The position after the batch before.
        expected: u64,
        /// The batch's first position.
        found: u64,
    },
    /// A batch lies before the one it follows.
    #[error("batch at byte {offset} starts at instruction count {found}, below {last}")]
    Backwards {
        /// Where the batch starts.
        offset: u64,
        /// The last count before it.
        last: u64,
        /// Its first count.
        found: u64,
    },
    /// Bytes after the record that ends the recording.
    #[error("bytes after the end of the recording, from byte {offset}")]
    AfterEnd {
        /// Where they start.
        offset: u64,
    },
}

/// Where a log breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Offset of the batch that is cut short: the log is good up to here.
    pub at_byte: u64,
    /// Records before it.
    pub records_kept: u64,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a [`Body::End`] record.
    Finished {
        /// Its reason.
        reason: u8,
    },
    /// After a whole batch but without an end record: the writer is still at work or died.
    Open,
    /// In the middle of a batch, which is left out.
    Torn(Torn),
}

/// A record and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the record.
    pub position: u64,
    /// The record.
    pub record: Record,
}

/// Reads a log record by record, holding one batch at a time.
///
/// As an iterator it yields entries until the log ends or is refused; then
/// [`LogReader::ending`] says how it ended.
#[derive(Debug)]
pub struct LogReader<R> {
    input: R,
    header: LogHeader,
    /// Bytes read so far, all of them understood.
    offset: u64,
    next_position: u64,
    last_icount: u64,
    records_read: u64,
    batch: std::vec::IntoIter<Record>,
    batch_position: u64,
    end: Option<u8>,
    ending: Option<Ending>,
    refused: bool,
}

impl<R: Read> LogReader<R> {
    /// Reads and checks the log's header.
    ///
    /// # Errors
    /// [`ReadError`]; a header that is cut short is refused too, there is nothing to keep.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut bytes = Vec::new();
        let io = |source| ReadError::Io { offset: 0, source };
        let cut = || ReadError::Header("cut short");
        read_up_to(&mut input, &mut bytes, FIXED_BYTES).map_err(io)?;
        if !bytes.starts_with(MAGIC) {
            return Err(ReadError::Magic);
        }
        let word = |bytes: &[u8], at| Some(u32::from_le_bytes(*chunk(bytes, at)?));
        let long = |bytes: &[u8], at| Some(u64::from_le_bytes(*chunk(bytes, at)?));
        let version = word(&bytes, 8).ok_or_else(cut)?;
        if version != LOG_VERSION {
            return Err(ReadError::Version { found: version });
        }
        let len = word(&bytes, 12).ok_or_else(cut)? as usize;
        let first_position = long(&bytes, 16).ok_or_else(cut)?;
        let snapshot_checksum = long(&bytes, 24).ok_or_else(cut)?;
        if len > MAX_CONFIG_BYTES {
            return Err(ReadError::Header(
                "damaged: configuration longer than allowed",
            ));
        }
        read_up_to(&mut input, &mut bytes, len + CHECKSUM_BYTES).map_err(io)?;
        let stated = long(&bytes, FIXED_BYTES + len).ok_or_else(cut)?;
        if xxh3_64(&bytes[..FIXED_BYTES + len]) != stated {
            return Err(ReadError::Header("damaged: its checksum differs"));
        }
        let config = bytes[FIXED_BYTES..FIXED_BYTES + len].to_vec();
        Ok(Self {
            input,
            header: LogHeader {
                config,
                first_position,
                snapshot_checksum,
            },
            offset: bytes.len() as u64,
            next_position: first_position,
            last_icount: 0,
            records_read: 0,
            batch: Vec::new().into_iter(),
            batch_position: first_position,
            end: None,
            ending: None,
            refused: false,
        })
    }

    /// The log's header.
    #[must_use]
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// How the log ends, once the iterator has reached its end; `None` before, and for a log
    /// that was refused.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Reads the next batch; `Ok(None)` at the end.
    fn read_batch(&mut self) -> Result<Option<Batch>, ReadError> {
        let offset = self.offset;
        let io = |source| ReadError::Io { offset, source };
        let damaged = |source| ReadError::Batch { offset, source };
        let mut bytes = Vec::new();
        read_up_to(&mut self.input, &mut bytes, HEADER_BYTES).map_err(io)?;
        if let Some(reason) = self.end {
            if !bytes.is_empty() {
                return Err(ReadError::AfterEnd { offset });
            }
            self.ending = Some(Ending::Finished { reason });
            return Ok(None);
        }
        if bytes.is_empty() {
            self.ending = Some(Ending::Open);
            return Ok(None);
        }
        let torn = Ending::Torn(Torn {
            at_byte: offset,
            records_kept: self.records_read,
        });
        let Some(head) = bytes.first_chunk() else {
            self.ending = Some(torn);
            return Ok(None);
        };
        let header = BatchHeader::parse(head).map_err(damaged)?;
        let rest = header.batch_bytes() - HEADER_BYTES;
        read_up_to(&mut self.input, &mut bytes, rest).map_err(io)?;
        if bytes.len() < header.batch_bytes() {
            self.ending = Some(torn);
            return Ok(None);
        }
        let batch = Batch::decode(&bytes).map_err(damaged)?;
        if batch.first_position != self.next_position {
            return Err(ReadError::Gap {
                offset,
                expected: self.next_position,
                found: batch.first_position,
            });
        }
        if header.base_icount < self.last_icount {
            return Err(ReadError::Backwards {
                offset,
                last: self.last_icount,
                found: header.base_icount,
            });
        }
        if let Some(last) = batch.records.last() {
            self.last_icount = last.icount;
            if let Body::End { reason } = last.body {
                self.end = Some(reason);
            }
        }
        self.offset += bytes.len() as u64;
        self.next_position = batch.next_position();
        self.records_read += batch.records.len() as u64;
        Ok(Some(batch))
    }
}

impl<R: Read> Iterator for LogReader<R> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.batch.next() {
                let position = self.batch_position;
                self.batch_position += 1;
                return Some(Ok(Entry { position, record }));
            }
            if self.refused || self.ending.is_some() {
                return None;
            }
            match self.read_batch() {
                Ok(Some(batch)) => {
                    self.batch_position = batch.first_position;
                    self.batch = batch.records.into_iter();
                }
                Ok(None) => return None,
                Err(error) => {
                    self.refused = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Appends up to `len` bytes of `input` to `out`; fewer only at the end of the input.
fn read_up_to(input: &mut impl Read, out: &mut Vec<u8>, len: usize) -> io::Result<()> {
    input.by_ref().take(len as u64).read_to_end(out)?;
    Ok(())
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

//! Batches: records that travel together under one checksum.
//!
//! ```text
//! offset  bytes
//!      0      1  version
//!      1      8  position of the first record
//!      9      2  number of records
//!     11      8  base instruction count (that of the first record)
//!     19      4  payload length
//!     23      4  checksum of bytes 0..23
//!     27      n  records
//!   27+n      8  checksum of bytes 0..27+n
//! ```
//!
//! Numbers are little-endian. The header has a checksum of its own so that a damaged length
//! is known as damage and never taken for a batch whose end is missing.

use xxhash_rust::xxh3::xxh3_64;

use crate::builder::{BatchBuilder, PushError};
use crate::record::{self, Body, Context, Record};
use crate::varint::Cursor;

/// The version written and understood by this crate.
pub const BATCH_VERSION: u8 = 1;
/// Bytes before the records.
pub const HEADER_BYTES: usize = 27;
/// Bytes after the records.
pub const TRAILER_BYTES: usize = 8;
/// What a batch costs beside its records.
pub const BATCH_OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;
/// The longest encoded batch. Bounds what a receiver holds before it can check a checksum;
/// far above what one flush makes, and room for the largest record behind a batch that is due to
/// be closed.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;
/// The most records in one batch; bounds the memory that small records decode into.
pub const MAX_RECORDS: usize = 4096;

const HEADER_CHECKED_BYTES: usize = 23;

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the batch does.
    #[error("batch is cut short: {have} bytes where {need} are needed")]
    Short {
        /// Bytes present.
        have: usize,
        /// Bytes the batch takes, as far as is known.
        need: usize,
    },
    /// Another version, or a damaged first byte.
    #[error("batch version {found}, this build reads version {BATCH_VERSION}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The header is damaged, so the batch's length is unknown.
    #[error("batch header checksum differs: the header is damaged")]
    HeaderChecksum,
    /// The batch is complete but damaged.
    #[error("batch checksum differs: the records are damaged")]
    Checksum,
    /// A header field outside its bounds.
    #[error("batch header: {what} is {found}, allowed are {min} to {max}")]
    Bounds {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The least allowed value.
        min: u64,
        /// The greatest allowed value.
        max: u64,
    },
    /// The checksums agree but the records are not what they should be.
    #[error("batch record {index} at payload byte {at}: {what}")]
    Malformed {
        /// Which record of the batch, from 0.
        index: usize,
        /// Offset in the payload.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes after the batch where only one was expected.
    #[error("{extra} bytes after the batch")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// A checked batch header: enough to know how many bytes the batch takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Position of the first record.
    pub first_position: u64,
    /// Number of records, 1 to [`MAX_RECORDS`].
    pub count: u16,
    /// Instruction count of the first record.
    pub base_icount: u64,
    /// Bytes of the records.
    pub payload_bytes: u32,
}

impl BatchHeader {
    /// Parses and checks the first [`HEADER_BYTES`] of a batch.
    ///
    /// # Errors
    /// [`DecodeError::Version`], [`DecodeError::HeaderChecksum`] or [`DecodeError::Bounds`].
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        if bytes[0] != BATCH_VERSION {
            return Err(DecodeError::Version { found: bytes[0] });
        }
        let stated = u32::from_le_bytes(field(bytes, HEADER_CHECKED_BYTES));
        if header_checksum(bytes) != stated {
            return Err(DecodeError::HeaderChecksum);
        }
        let header = Self {
            first_position: u64::from_le_bytes(field(bytes, 1)),
            count: u16::from_le_bytes(field(bytes, 9)),
            base_icount: u64::from_le_bytes(field(bytes, 11)),
            payload_bytes: u32::from_le_bytes(field(bytes, 19)),
        };
        let max_payload = (MAX_BATCH_BYTES - BATCH_OVERHEAD_BYTES) as u64;
        bounds(
            "record count",
            u64::from(header.count),
            1,
            MAX_RECORDS as u64,
        )?;
        bounds(
            "payload length",
            u64::from(header.payload_bytes),
            1,
            max_payload,
        )?;
        let max_first = u64::MAX - u64::from(header.count);
        bounds("first position", header.first_position, 0, max_first)?;
        Ok(header)
    }

    /// Bytes of the whole batch, header and checksum included.
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        BATCH_OVERHEAD_BYTES + self.payload_bytes as usize
    }

    /// Writes the header over the first [`HEADER_BYTES`] of `batch`.
    pub(crate) fn write(&self, batch: &mut [u8]) {
        batch[0] = BATCH_VERSION;
        batch[1..9].copy_from_slice(&self.first_position.to_le_bytes());
        batch[9..11].copy_from_slice(&self.count.to_le_bytes());
        batch[11..19].copy_from_slice(&self.base_icount.to_le_bytes());
        batch[19..23].copy_from_slice(&self.payload_bytes.to_le_bytes());
        let checksum = header_checksum(batch);
        batch[HEADER_CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn bounds(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), DecodeError> {
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(DecodeError::Bounds {
            what,
            found,
            min,
            max,
        })
    }
}

fn header_checksum(bytes: &[u8]) -> u32 {
    xxh3_64(&bytes[..HEADER_CHECKED_BYTES]) as u32
}

/// Records with consecutive positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Position of `records[0]`.
    pub first_position: u64,
    /// At least one record; instruction counts never fall.
    pub records: Vec<Record>,
}

impl Batch {
    /// Encodes the batch.
    ///
    /// # Errors
    /// As [`BatchBuilder::push`]; [`PushError::Empty`] if there are no records.
    pub fn encode(&self) -> Result<EncodedBatch, PushError> {
        let mut builder = BatchBuilder::new(self.first_position);
        for record in &self.records {
            builder.push(record)?;
        }
        builder.take().ok_or(PushError::Empty)
    }

    /// Decodes bytes that are exactly one batch.
    ///
    /// # Errors
    /// Any [`DecodeError`]; hostile bytes are refused, never trusted.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(decode_whole(bytes)?.1)
    }

    /// Decodes the batch that `bytes` begin with and says how many bytes it took.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if more bytes are needed, else why the bytes are no batch.
    pub fn decode_prefix(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let (header, batch) = decode_first(bytes)?;
        Ok((batch, header.batch_bytes()))
    }

    /// The position after the last record.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.first_position + self.records.len() as u64
    }
}

/// The header and the batch that `bytes` begin with.
fn decode_first(bytes: &[u8]) -> Result<(BatchHeader, Batch), DecodeError> {
    let have = bytes.len();
    let head = bytes.first_chunk().ok_or(DecodeError::Short {
        have,
        need: HEADER_BYTES,
    })?;
    let header = BatchHeader::parse(head)?;
    let need = header.batch_bytes();
    let whole = bytes.get(..need).ok_or(DecodeError::Short { have, need })?;
    let (checked, trailer) = whole.split_at(need - TRAILER_BYTES);
    if xxh3_64(checked).to_le_bytes() != trailer {
        return Err(DecodeError::Checksum);
    }
    let batch = Batch {
        first_position: header.first_position,
        records: decode_records(&header, &checked[HEADER_BYTES..])?,
    };
    Ok((header, batch))
}

/// The same of bytes that are exactly one batch.
fn decode_whole(bytes: &[u8]) -> Result<(BatchHeader, Batch), DecodeError> {
    let (header, batch) = decode_first(bytes)?;
    match bytes.len() - header.batch_bytes() {
        0 => Ok((header, batch)),
        extra => Err(DecodeError::Trailing { extra }),
    }
}

fn decode_records(header: &BatchHeader, payload: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut cursor = Cursor::new(payload);
    let mut context = Context::new(header.base_icount);
    // Grown as records turn up: the count alone must not decide how much is allocated.
    let mut records: Vec<Record> = Vec::new();
    for index in 0..usize::from(header.count) {
        let at = cursor.at();
        let malformed = |what| DecodeError::Malformed { index, at, what };
        let record = record::decode(&mut cursor, &mut context).map_err(malformed)?;
        if index == 0 && record.icount != header.base_icount {
            return Err(malformed(
                "first record is not at the base instruction count",
            ));
        }
        if matches!(
            records.last(),
            Some(Record {
                body: Body::End { .. },
                ..
            })
        ) {
            return Err(malformed("record after the end of the recording"));
        }
        records.push(record);
    }
    if !cursor.is_empty() {
        return Err(DecodeError::Malformed {
            index: records.len(),
            at: cursor.at(),
            what: "bytes after the last record",
        });
    }
    Ok(records)
}

/// A batch as bytes, known to be whole and valid: made by a [`BatchBuilder`] or checked by
/// [`EncodedBatch::from_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBatch {
    bytes: Vec<u8>,
    header: BatchHeader,
    last_icount: u64,
    ends: bool,
}

impl EncodedBatch {
    /// Checks received bytes and keeps them beside their records.
    ///
    /// # Errors
    /// As [`Batch::decode`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<(Self, Batch), DecodeError> {
        let (header, batch) = decode_whole(&bytes)?;
        let last = batch.records.last();
        let encoded = Self {
            header,
            last_icount: last.map_or(header.base_icount, |record| record.icount),
            ends: last.is_some_and(|record| matches!(record.body, Body::End { .. })),
            bytes,
        };
        Ok((encoded, batch))
    }

    /// Puts header and checksum around the payload that `bytes` hold behind an empty header.
    pub(crate) fn seal(
        mut bytes: Vec<u8>,
        header: BatchHeader,
        last_icount: u64,
        ends: bool,
    ) -> Self {
        header.write(&mut bytes);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Self {
            bytes,
            header,
            last_icount,
            ends,
        }
    }

    /// The encoded batch.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded batch, given away.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.header.count)
    }

    /// Position of the first record.
    #[must_use]
    pub fn first_position(&self) -> u64 {
        self.header.first_position
    }

    /// The position after the last record.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.header.first_position + u64::from(self.header.count)
    }

    /// Instruction count of the first record.
    #[must_use]
    pub fn first_icount(&self) -> u64 {
        self.header.base_icount
    }

    /// Instruction count of the last record.
    #[must_use]
    pub fn last_icount(&self) -> u64 {
        self.last_icount
    }

    /// Whether the last record is [`Body::End`].
    #[must_use]
    pub fn ends(&self) -> bool {
        self.ends
    }
}

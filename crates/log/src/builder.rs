//! Gathers records into a batch, on the live node's channel and in a recording alike.

use crate::batch::{BATCH_OVERHEAD_BYTES, TRAILER_BYTES};
use crate::batch::{BatchHeader, EncodedBatch, HEADER_BYTES, MAX_BATCH_BYTES, MAX_RECORDS};
use crate::record::{self, Body, Context, Record};

/// Why a record was not taken. The builder is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The batch is full: [`BatchBuilder::take`] it and push again.
    #[error("batch is full: take it and push the record again")]
    Full,
    /// The record lies before the one already pushed.
    #[error("record at instruction count {icount} after one at {last}: counts never fall")]
    Backwards {
        /// Count of the refused record.
        icount: u64,
        /// Count of the record before it.
        last: u64,
    },
    /// A byte string above its bound.
    #[error("record's {what} has {len} bytes, allowed are {max}")]
    TooLong {
        /// The byte string.
        what: &'static str,
        /// Its length.
        len: usize,
        /// Its bound.
        max: usize,
    },
    /// [`Body::End`] was pushed before.
    #[error("record after the end of the recording")]
    Ended,
    /// Positions have run out.
    #[error("log position above 64 bits")]
    Positions,
    /// A batch without records.
    #[error("a batch needs at least one record")]
    Empty,
}

/// Encodes records as they come. Positions run on from batch to batch.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records so far; empty if there are none.
    bytes: Vec<u8>,
    first_position: u64,
    base_icount: u64,
    count: u16,
    context: Context,
    /// The last record's count, kept from batch to batch.
    last_icount: u64,
    ended: bool,
}

impl BatchBuilder {
    /// A builder whose first record gets position `first_position`.
    #[must_use]
    pub fn new(first_position: u64) -> Self {
        Self {
            bytes: Vec::new(),
            first_position,
            base_icount: 0,
            count: 0,
            context: Context::new(0),
            last_icount: 0,
            ended: false,
        }
    }

    /// Takes one record and returns its position.
    ///
    /// # Errors
    /// [`PushError::Full`] if the record has to wait for the next batch; else why the record
    /// can't be part of this log at all.
    pub fn push(&mut self, record: &Record) -> Result<u64, PushError> {
        let position = self.next_position();
        if self.ended {
            return Err(PushError::Ended);
        }
        if record.icount < self.last_icount {
            return Err(PushError::Backwards {
                icount: record.icount,
                last: self.last_icount,
            });
        }
        // One position is kept free, so that the position after the last record exists.
        if position == u64::MAX {
            return Err(PushError::Positions);
        }
        if usize::from(self.count) == MAX_RECORDS {
            return Err(PushError::Full);
        }
        let mut context = self.context;
        if self.count == 0 {
            self.bytes.resize(HEADER_BYTES, 0);
            context = Context::new(record.icount);
        }
        let start = self.bytes.len();
        let encoded = record::encode(record, &mut context, &mut self.bytes)
            .map_err(|(what, len, max)| PushError::TooLong { what, len, max })
            .and_then(|()| {
                if self.bytes.len() + TRAILER_BYTES > MAX_BATCH_BYTES {
                    Err(PushError::Full)
                } else {
                    Ok(())
                }
            });
        if let Err(error) = encoded {
            self.bytes.truncate(start);
            return Err(error);
        }
        if self.count == 0 {
            self.base_icount = record.icount;
        }
        self.context = context;
        self.count += 1;
        self.last_icount = record.icount;
        self.ended = matches!(record.body, Body::End { .. });
        Ok(position)
    }

    /// The position that the next record will get.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.first_position + u64::from(self.count)
    }

    /// Records waiting to be taken.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether no record waits to be taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch that [`take`](Self::take) would return now; 0 without records.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        if self.count == 0 {
            0
        } else {
            self.bytes.len() - HEADER_BYTES + BATCH_OVERHEAD_BYTES
        }
    }

    /// The records so far as a batch, or `None` if there are none.
    pub fn take(&mut self) -> Option<EncodedBatch> {
        if self.count == 0 {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let header = BatchHeader {
            first_position: self.first_position,
            count: self.count,
            base_icount: self.base_icount,
            payload_bytes: (bytes.len() - HEADER_BYTES) as u32,
        };
        self.first_position = self.next_position();
        self.count = 0;
        Some(EncodedBatch::seal(
            bytes,
            header,
            self.last_icount,
            self.ended,
        ))
    }
}

//! Records, batches and recordings: everything that may change a run, in order.
//!
//! A [`Record`] is one thing that happened to the machine at an exact instruction count.
//! Records have consecutive positions (`u64` indices) and travel in batches with one
//! checksum each. The same bytes go over the logging channel, lie in a recording on disk and
//! drive a replay.
//!
//! - [`BatchBuilder`] turns records into [`EncodedBatch`]es, [`Batch::decode`] turns bytes
//!   back into records.
//! - [`RecordingWriter`] and [`RecordingReader`] keep a directory with a machine's snapshot
//!   and the log after it.
//! - [`StatesWriter`] and [`StatesReader`] keep, beside it, what tells where a replay that fails
//!   went wrong.
//!
//! Decoding is total: whatever bytes come in, the answer is a value or an error, and memory
//! use stays proportional to the input. This crate has no clock, thread or socket; the
//! directory helpers are its only contact with the host.

mod batch;
mod builder;
mod logfile;
mod record;
mod recording;
mod states;
mod varint;

pub use batch::{
    BATCH_OVERHEAD_BYTES, BATCH_VERSION, Batch, BatchHeader, DecodeError, EncodedBatch,
    HEADER_BYTES, MAX_BATCH_BYTES, MAX_RECORDS, TRAILER_BYTES,
};
pub use builder::{BatchBuilder, PushError};
pub use logfile::{
    AppendError, Ending, Entry, LOG_VERSION, LogHeader, LogReader, LogWriter, MAX_CONFIG_BYTES,
    ReadError, Torn,
};
pub use record::{
    Body, MAX_CONSOLE_BYTES, MAX_DISK_BYTES, MAX_ENTROPY_BYTES, MAX_FRAME_BYTES, Record,
};
pub use recording::{
    LOG_FILE, RecordingError, RecordingReader, RecordingWriter, SNAPSHOT_FILE, SNAPSHOT_VERSION,
    SnapshotWriter, snapshot_checksum,
};
pub use states::{
    MAX_STATE_BYTES, STATES_FILE, STATES_VERSION, StateEntry, StatesError, StatesReader,
    StatesWriter,
};

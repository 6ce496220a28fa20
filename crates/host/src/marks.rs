//! Marks for measurements: when outputs and acks pass the places on their way, with one clock for
//! all processes of a host. Off unless asked for; then each costs a look at the clock and a line in
//! memory, and now and then a write to the page cache.
//!
//! A line is `PLACE POSITION NANOSECONDS`: the place ([`Place::name`]), the end of the batch or the
//! position that is acked (0 where there is none), and `CLOCK_MONOTONIC`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use twinvm_protocol::{Message, Position};

use crate::time::mono_ns;

/// The file's name in the node's folder.
pub const MARKS_LOG: &str = "marks.log";
/// Lines that are written together.
const LUMP_BYTES: usize = 16 << 10;
/// When the file is so long no more is noted: some million marks.
const MAX_BYTES: u64 = 64 << 20;

/// A place on an output's way, in the order in which one passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The live node's loop takes a packet from the wire for the guest.
    Packet,
    /// The live node is about to send a batch of the log.
    Sending,
    /// The batch has been written to the socket, or queued.
    Sent,
    /// The backup's receiving thread has decoded the batch.
    Came,
    /// The batch is stored, and its ack about to be sent.
    Stored,
    /// The live node's receiving thread has decoded the ack.
    AckCame,
    /// Its loop takes the ack.
    AckTaken,
    /// Its loop is about to put a packet of the guest on the wire.
    Out,
}

impl Place {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Came => "came",
            Self::Stored => "stored",
            Self::AckCame => "ack-came",
            Self::AckTaken => "ack-taken",
            Self::Out => "out",
        }
    }
}

/// Where a node notes its marks, if it does.
#[derive(Clone, Debug, Default)]
pub struct Marks(Option<Arc<Mutex<Lines>>>);

#[derive(Debug)]
struct Lines {
    to: To,
    written: u64,
    bytes: String,
    /// Why no more is noted, once.
    trouble: Option<String>,
}

/// Where they go.
#[derive(Debug)]
enum To {
    /// A file that is yet to be made: a node that doesn't come to run leaves none behind.
    New(PathBuf),
    File(File),
    /// No more is noted.
    Nothing,
}

impl Marks {
    /// They go to a new file here.
    pub(crate) fn to(path: PathBuf) -> Self {
        Self(Some(Arc::new(Mutex::new(Lines {
            to: To::New(path),
            written: 0,
            bytes: String::with_capacity(LUMP_BYTES),
            trouble: None,
        }))))
    }

    /// Notes that something passes this place now.
    pub(crate) fn note(&self, place: Place, position: Position) {
        if let Some(lines) = &self.0 {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.note(place, position, mono_ns());
        }
    }

    /// Notes that a batch or an ack passes: the one that it is decides which place it is.
    pub(crate) fn message(&self, message: &Message, batch: Place, ack: Place) {
        match message {
            Message::Log { end, .. } => self.note(batch, *end),
            Message::Ack { received, .. } => self.note(ack, *received),
            _ => {}
        }
    }

    /// Writes what is not written yet, and notes no more.
    pub(crate) fn end(&self) {
        if let Some(lines) = &self.0 {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.write();
            lines.to = To::Nothing;
        }
    }

    /// Why no more is noted; told once.
    pub(crate) fn trouble(&self) -> Option<String> {
        let lines = self.0.as_ref()?.lock();
        lines.unwrap_or_else(PoisonError::into_inner).trouble.take()
    }
}

impl Lines {
    fn note(&mut self, place: Place, position: Position, at_ns: u64) {
        if matches!(self.to, To::Nothing) {
            return;
        }
        let _ = writeln!(self.bytes, "{} {} {at_ns}", place.name(), position.0);
        if self.bytes.len() >= LUMP_BYTES {
            self.write();
        }
    }

    fn write_bytes(&mut self) -> io::Result<()> {
        if let To::New(path) = &self.to {
            self.to = To::File(File::create(path)?);
        }
        match &mut self.to {
            To::File(file) => file.write_all(self.bytes.as_bytes()),
            To::New(_) | To::Nothing => Ok(()),
        }
    }

    fn write(&mut self) {
        let written = self.write_bytes();
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        let why = match written {
            Err(error) => error.to_string(),
            Ok(()) if self.written < MAX_BYTES => return,
            Ok(()) => format!("it has {} MiB", MAX_BYTES >> 20),
        };
        self.to = To::Nothing;
        self.trouble = Some(format!("{MARKS_LOG}: {why}: nothing more is noted in it"));
    }
}

#[cfg(test)]
mod tests;

//! A batch of the log that a backup has checked.

use twinvm_log::{Batch, Record};
use twinvm_protocol::Position;

/// A batch whose checksum is right and which is what its frame says.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// Position before it.
    pub first: Position,
    /// Position after it.
    pub end: Position,
    /// Outputs up to here had left when it was sent.
    pub released: Position,
    pub(crate) records: Vec<Record>,
}

impl Stored {
    /// Checks a batch of the channel.
    ///
    /// # Errors
    /// In one sentence: it is none, or another one.
    pub fn decode(
        first: Position,
        end: Position,
        released: Position,
        batch: &[u8],
    ) -> Result<Self, String> {
        let batch = Batch::decode(batch).map_err(|error| format!("log batch: {error}"))?;
        if batch.first_position != first.0 || batch.next_position() != end.0 {
            return Err(format!(
                "log batch holds positions {}..{}, its frame says {first}..{end}",
                batch.first_position,
                batch.next_position()
            ));
        }
        Ok(Self {
            first,
            end,
            released,
            records: batch.records,
        })
    }

    /// How many records it has.
    pub fn records(&self) -> usize {
        self.records.len()
    }
}

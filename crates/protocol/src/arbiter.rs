//! The arbiter: a linearizable compare-and-set register per VM.
//!
//! It is the test-and-set of the published design, made reusable: every change of who is
//! live raises a generation, so the same register decides any number of times.

pub mod succession;
pub mod wire;

use crate::record::{Generation, Record};

/// How a request ended, as far as the asker can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read: the record, or that there is none.
    Read(Option<Record>),
    /// The compare-and-set took place; this is the record now.
    Won(Record),
    /// It did not take place by this request; this is the record now. (If an earlier copy
    /// of the same request took place, this shows exactly its record.)
    Lost(Option<Record>),
    /// Timeout, broken connection, server error: it may have taken place, or take place
    /// later.
    Unknown,
}

impl Outcome {
    /// The record that this outcome proves to have stood in the register.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Read(record) | Self::Lost(record) => record.as_ref(),
            Self::Won(record) => Some(record),
            Self::Unknown => None,
        }
    }
}

/// What every arbiter backend keeps.
///
/// - **Linearizable**: each call takes effect at one instant between its start and its
///   answer; one answered [`Outcome::Unknown`] takes effect at one later instant or never.
/// - **`cas(expect, record)`** takes effect only if the register's generation is `expect`
///   (0: no record) and `record.generation` is `expect + 1`.
/// - **The register never goes back** and a record, once there, never changes.
/// - Whatever the medium says, [`Outcome::Won`] is answered only if the register has been
///   seen to hold exactly the proposed record as its newest. In doubt: `Unknown`.
///
/// The node asks through actions, so backends run wherever the driver likes; this trait
/// states the contract and serves tests and small backends.
pub trait ArbiterContract {
    /// The record now.
    fn read(&mut self) -> Outcome;
    /// Puts `record` in the place of generation `expect`.
    fn cas(&mut self, expect: Generation, record: Record) -> Outcome;
}

/// The reference: a register in memory that never fails.
#[derive(Clone, Debug, Default)]
pub struct MemoryArbiter {
    history: Vec<Record>,
}

impl MemoryArbiter {
    /// An arbiter without a record.
    pub fn new() -> Self {
        Self::default()
    }

    /// The record now.
    pub fn current(&self) -> Option<&Record> {
        self.history.last()
    }

    /// All records there have been, oldest first.
    pub fn history(&self) -> &[Record] {
        &self.history
    }
}

impl ArbiterContract for MemoryArbiter {
    fn read(&mut self) -> Outcome {
        Outcome::Read(self.current().copied())
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        let now = self.current().map_or(Generation(0), |r| r.generation);
        if now == expect && record.generation == expect.next() {
            self.history.push(record);
            Outcome::Won(record)
        } else {
            Outcome::Lost(self.current().copied())
        }
    }
}

#[cfg(test)]
mod tests;

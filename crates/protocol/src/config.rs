//! What a node is told about itself, and the protocol's named bounds.

use crate::message::{Field, MAX_FIELDS, MAX_NAME_BYTES, MAX_VALUE_BYTES};
use crate::record::{Incarnation, NodeId};

/// Which node of a protected pair emits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFrom {
    /// The live one, when the backup has acked the output's record.
    #[default]
    Live,
    /// The backup, when it has executed past the output: half a round trip earlier at a place that
    /// is as far from both. Both nodes must be set so.
    Backup,
}

/// `[protect]` in VM.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often each side of a session says something, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence, or a live CPU thread without a beat, for this long means suspicion.
    pub suspect_ms: u64,
    /// A backup that executes nothing of what it has received for this long is dropped.
    pub stall_ms: u64,
    /// How long the id named live waits for an unreachable named backup before it starts
    /// from its disks alone. `None`: for ever.
    pub cold_delay_ms: Option<u64>,
    /// Who emits while the pair is protected.
    pub output: OutputFrom,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            suspect_ms: 300,
            stall_ms: 5000,
            cold_delay_ms: None,
            output: OutputFrom::Live,
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id stored beside the disks.
    pub id: NodeId,
    /// A label for messages; decides nothing.
    pub name: String,
    /// The other node's label, for what is said before it has said its own; decides nothing.
    pub peer_name: String,
    /// Drawn at random when the process started.
    pub incarnation: Incarnation,
    /// The machine's version and configuration, compared field by field with the peer's.
    pub machine: Vec<Field>,
}

/// The field by which two nodes see that they are set to different outputs.
pub(crate) const OUTPUT_FIELD: &str = "output";

/// An identity that would not fit into a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The node's or a field's name.
    #[error("the name {0:?} has more than {MAX_NAME_BYTES} bytes; choose a shorter one")]
    Name(String),
    /// A field's value.
    #[error("the value of {field} has {len} bytes, at most {MAX_VALUE_BYTES} are allowed")]
    Value {
        /// Whose.
        field: String,
        /// Its length.
        len: usize,
    },
    /// Too many fields.
    #[error("the machine has {0} configuration fields, at most {MAX_FIELDS} are allowed")]
    Fields(usize),
}

impl Identity {
    /// Whether it fits into a frame. To be asked where names come from a person or a file.
    pub fn validate(&self) -> Result<(), IdentityError> {
        if self.machine.len() > MAX_FIELDS {
            return Err(IdentityError::Fields(self.machine.len()));
        }
        let names = self.machine.iter().map(|f| &f.name);
        for name in names.chain([&self.name]) {
            if name.len() > MAX_NAME_BYTES {
                return Err(IdentityError::Name(name.clone()));
            }
        }
        match self
            .machine
            .iter()
            .find(|f| f.value.len() > MAX_VALUE_BYTES)
        {
            Some(field) => Err(IdentityError::Value {
                field: field.name.clone(),
                len: field.value.len(),
            }),
            None => Ok(()),
        }
    }
}

/// First pause before an arbiter request of unknown outcome is sent again.
pub const ARBITER_RETRY_FIRST_MS: u64 = 50;
/// Longest pause between two sendings: short enough that an arbiter that is back is
/// noticed at once, long enough not to flood one that is ailing.
pub const ARBITER_RETRY_LAST_MS: u64 = 2000;
/// A request without any answer for this long counts as unknown. Backends time out by
/// themselves; this is for an answer that got lost.
pub const ARBITER_ANSWER_MS: u64 = 3000;
/// Pause between two attempts to reach the peer.
pub const REDIAL_MS: u64 = 200;
/// Pause after a refusal that only a person can mend (unequal configuration).
pub const REDIAL_REFUSED_MS: u64 = 5000;
/// A dial that has neither succeeded nor failed for this long is given up.
pub const DIAL_MS: u64 = 3000;
/// An open connection must have said its part of the handshake within this time.
pub const HANDSHAKE_MS: u64 = 2000;
/// How long a peer's word that it holds the VM counts: by then a peer that is still there has been
/// dialled and has answered again.
pub const ANSWER_COUNTS_MS: u64 = REDIAL_MS + DIAL_MS + HANDSHAKE_MS;
/// How often a node that waits to join looks at the record.
pub const REREAD_MS: u64 = 2000;
/// With no record, how long a fresh node tries to ask its peer before it starts alone.
pub const FIRST_START_ASK_MS: u64 = 1000;
/// After a planned takeover, how long the old live node leaves the record to the backup
/// before it takes the VM back.
pub const HANDOVER_MS: u64 = 1000;
/// A joiner that is behind by no more (10 MHz ticks: 100 ms), in virtual time and in the time that it
/// needs for what is left to execute, has caught up.
pub const CAUGHT_UP_TICKS: u64 = 1_000_000;
/// Connections a node keeps: a session, a dial, and callers that are about to be refused.
pub const MAX_CONNS: usize = 8;

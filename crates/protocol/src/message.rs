//! What two nodes say to each other.
//!
//! The dialling side speaks first. The other answers every [`Hello`] with its own (that is
//! how a node asks whether its peer holds a session), then welcomes or refuses.
//!
//! ```text
//! joiner                                   live
//!   Hello ------------------------------->
//!        <------------------------------- Hello, Welcome{session}   (or Refuse)
//!   Side… ------------------------------>
//!        <------------------------------- Side…              (disks, before the snapshot)
//!        <------------------------------- SnapshotBegin{position}
//!        <------------------------------- SnapshotChunk…, Log…, Heartbeat…
//!   Ack… -------------------------------->
//!   Installed --------------------------->
//!   Ack… -------------------------------->  caught up, gate on at p, ack >= p, CAS won
//!        <------------------------------- Paired{generation}
//! ```

use crate::disks::DiskMark;
use crate::event::Progress;
use crate::node::RoleKind;
use crate::record::{Generation, Incarnation, NodeId, Position, SessionId};

/// Version of this protocol; unequal ones refuse each other.
///
/// 1: no disks. 2: a hello carries the mark of its speaker's disks, an ack the outputs that
/// have left.
pub const PROTOCOL_VERSION: u16 = 2;
/// The first version whose hello ends with a mark.
pub(crate) const MARKED_VERSION: u16 = 2;
/// Bytes of a snapshot chunk: large enough to be efficient, small enough that log batches
/// between two chunks are not held up (1 ms at 1 Gbit/s is 128 KiB; heartbeats need far less).
pub const MAX_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of one log batch: a slice's worth of full network queues stays far below.
pub const MAX_BATCH_BYTES: usize = 8 << 20;
/// Bytes of one side message: a digest list or a run of disk blocks.
pub const MAX_SIDE_BYTES: usize = 1 << 20;
/// Configuration fields in a hello.
pub const MAX_FIELDS: usize = 64;
/// Bytes of one field's name, and of a node's name.
pub const MAX_NAME_BYTES: usize = 64;
/// Bytes of one field's value.
pub const MAX_VALUE_BYTES: usize = 1024;

/// One item of the machine's version and configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Such as `ram_bytes`.
    pub name: String,
    /// Its value as text; equality is all that counts.
    pub value: String,
}

/// The first field in which two machines differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the nodes differ in {field}: here {ours:?}, there {theirs:?}; make them equal")]
pub struct Mismatch {
    /// Its name.
    pub field: String,
    /// The value on the node that says so; empty if it has none.
    pub ours: String,
    /// The value on its peer; empty if it has none.
    pub theirs: String,
}

/// Compares two configurations field by field, in our order, then what only they have.
pub fn first_mismatch(ours: &[Field], theirs: &[Field]) -> Option<Mismatch> {
    let value = |list: &[Field], name: &str| {
        let field = list.iter().find(|f| f.name == name);
        field.map(|f| f.value.clone())
    };
    let names = ours.iter().chain(theirs.iter()).map(|f| &f.name);
    for name in names {
        let (mine, other) = (value(ours, name), value(theirs, name));
        if mine != other {
            return Some(Mismatch {
                field: name.clone(),
                ours: mine.unwrap_or_default(),
                theirs: other.unwrap_or_default(),
            });
        }
    }
    None
}

/// Who speaks, and what it is and holds. Question and answer of a cold start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the speaker.
    pub version: u16,
    /// Its id.
    pub id: NodeId,
    /// Its label.
    pub name: String,
    /// Its life.
    pub incarnation: Incarnation,
    /// What it is now.
    pub role: RoleKind,
    /// The highest generation it knows.
    pub generation: Generation,
    /// The session whose snapshot and log it holds and could claim with.
    pub holds: Option<SessionId>,
    /// Its machine.
    pub machine: Vec<Field>,
    /// What its disks are worth. Of a speaker of version 1 [`DiskMark::NONE`].
    pub disks: DiskMark,
}

/// Why a caller is not welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node is not live.
    NotLive,
    /// This node is live but has another session, or waits for the arbiter, or stops.
    Busy,
    /// Same id as ours: a copied state directory, or a node that calls itself.
    SameNode,
    /// Another protocol version.
    Version {
        /// Ours.
        ours: u16,
    },
    /// Another machine.
    Machine(Mismatch),
}

/// Why a session ends in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// Live: all is acked and released, claim now.
    Claim,
    /// Live: the VM is off, the record says so.
    Halted,
    /// Live: the record no longer names you, leave.
    Detached,
    /// Live: your replay differs, start over. Backup: mine differs, I start over.
    Diverged,
    /// Either: this node goes away, or gives this session up.
    Leaving,
}

/// A frame of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First frame of either side.
    Hello(Hello),
    /// Live → joiner: you may join.
    Welcome {
        /// The session this connection now is.
        session: SessionId,
        /// The live node's settled generation.
        generation: Generation,
    },
    /// No session here; the connection closes.
    Refuse(Refusal),
    /// Live → joiner: a snapshot follows that stands at this position.
    SnapshotBegin {
        /// Where the log goes on.
        position: Position,
    },
    /// Live → joiner: a piece of it, in order.
    SnapshotChunk {
        /// Where it belongs.
        offset: u64,
        /// The piece.
        bytes: Vec<u8>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Live → backup: a batch of the log.
    Log {
        /// Position before it.
        first: Position,
        /// Position after it.
        end: Position,
        /// Outputs up to here are on the wire.
        released: Position,
        /// Its bytes.
        batch: Vec<u8>,
    },
    /// Backup → live: stored up to `received`, and executed as far as `progress` says.
    /// Also its heartbeat.
    Ack {
        /// Stored up to here.
        received: Position,
        /// Outputs up to here have left, as far as the backup knows; with `output = "backup"` it is
        /// the one that emits them.
        emitted: Position,
        /// Executed.
        progress: Progress,
    },
    /// Backup → live: the snapshot is restored.
    Installed,
    /// Live → backup, every `heartbeat_ms`.
    Heartbeat {
        /// The CPU thread's beat counter.
        beat: u64,
        /// Outputs up to here are on the wire.
        released: Position,
        /// How far the live node is.
        progress: Progress,
    },
    /// Live → backup: the record names you and this session.
    Paired {
        /// By this generation.
        generation: Generation,
    },
    /// Opaque words between the replicas.
    Side {
        /// What it says.
        bytes: Vec<u8>,
    },
    /// The session ends in good order; the connection closes.
    Goodbye(Goodbye),
}

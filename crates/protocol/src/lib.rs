//! The protocol of twinvm: who is live, what may leave, what happens when a node dies.
//!
//! One [`Node`] per process. It does no I/O: the driver feeds it [`Event`]s together with
//! the time, and carries out the [`Action`]s it gets back, in order. Guest bytes (log
//! batches, snapshot chunks, output frames) are opaque here; this crate never sees the
//! machine.
//!
//! Where to look:
//! - [`record`]: the arbiter's record, ids and positions; [`arbiter`]: the contract every
//!   arbiter backend keeps, and a reference in memory.
//! - [`message`] and [`codec`]: what the two nodes say to each other, and its bytes.
//! - [`disks`]: the mark that says whether a node's disks are what the record means.
//! - [`force`]: what a person is told before a start that no rule allows.
//! - [`gate`]: where outputs wait for their ack.
//! - [`node`]: the state machine. Its module page has the state diagram and the walk-throughs.
//!
//! The packet's way through this crate: the live node appends the `Output` record of a
//! frame and hands both over as [`Event::Output`]; the gate keeps the frame; the batch that
//! holds the record goes out ([`Event::Flushed`] → [`message::Message::Log`]), the backup
//! stores it ([`Action::Store`] → [`Event::Stored`]) and acks
//! ([`message::Message::Ack`]); the ack lets the frame out as [`Action::Emit`], and the next
//! channel frame tells the backup so (`released`).

pub mod arbiter;
pub mod codec;
pub mod config;
pub mod disks;
pub mod event;
pub mod force;
pub mod gate;
pub mod message;
pub mod node;
pub mod record;
pub mod time;

pub use arbiter::{ArbiterContract, MemoryArbiter, Outcome};
pub use config::{Config, Identity, OutputFrom};
pub use disks::DiskMark;
pub use event::{Action, CloseReason, Ctl, Event, ExitReason, NoteLevel, Progress};
pub use force::{Force, Prospect};
pub use gate::Gate;
pub use message::{Field, Message};
pub use node::{Node, RoleKind, Status};
pub use record::{
    BackupName, ConnId, Generation, Incarnation, LiveName, NodeId, Position, Record, ReqId,
    SessionId,
};
pub use time::Instant;

//! A node that joins takes the live node's disks.
//!
//! ```text
//! joining                                live
//!   Hello: mark, sizes  ───────────────▶
//!                       ◀───────────────  Begin: new epoch, sizes; all, or what the maps name
//!   Intents …, Ready    ───────────────▶  (marked inconsistent, durably)
//!                       ◀───────────────  Ask: hashes of these blocks
//!   Hashes              ───────────────▶
//!                       ◀───────────────  Apply: blocks, zeros      while the guest runs
//!                                         freeze: the moment of the snapshot
//!                       ◀───────────────  Apply: as they were at that moment
//!                       ◀───────────────  End
//!   Stable              ───────────────▶  (durable, marked consistent with the new epoch)
//! ```
//!
//! Copies of one epoch can only differ where the live node has written since, or where the joining
//! one has: its write-intent map says where, also what it wrote that nobody heard of. What may
//! differ is compared by hash, since most of what both wrote is equal; without a common epoch that
//! is everything. What is written meanwhile is sent without asking, and a block without content on
//! both sides costs nothing.
//!
//! A synchronization that breaks off leaves the joining copy marked inconsistent, with its map
//! set; the next one compares hashes and goes on from there.

use std::io;

mod incoming;
mod outgoing;
mod sender;
#[cfg(test)]
mod tests;
mod wire;

pub use incoming::SyncIn;
pub use outgoing::SyncOut;
pub use wire::MAX_MESSAGE_BYTES;

/// Bytes that are on their way at most: sent and not yet written by the other side.
const WINDOW_BYTES: u64 = 4 << 20;
/// The same in messages.
const WINDOW_MESSAGES: u64 = 64;

/// A synchronization has come to nothing. Each is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The other side says what it can't say.
    #[error("disks: the peer's message is wrong: {0}")]
    Peer(String),
    /// These disks can't become copies of those.
    #[error("disks: {0}")]
    Refused(String),
    /// The other side gave up, and says why.
    #[error("disks: the peer gave up: {0}")]
    GaveUp(String),
    /// Our own disk.
    #[error("disks: {0}")]
    Disk(String),
    /// No thread.
    #[error("disks: no thread: {0}")]
    Thread(String),
    /// It was given up here.
    #[error("disks: given up")]
    Stopped,
}

impl SyncError {
    fn disk(path: &std::path::Path, doing: &str, error: &io::Error) -> Self {
        Self::Disk(format!("{}: {doing}: {error}", path.display()))
    }
}

/// What a synchronization has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncPiece {
    /// A message for the other side, of at most [`MAX_MESSAGE_BYTES`].
    Ready(Vec<u8>),
    /// Nothing now; a [`DiskEvent::Sync`](crate::DiskEvent::Sync) comes when there may be.
    Later,
    /// Nothing any more: both copies are equal and durable, and both sides know it.
    Done,
    /// It has come to nothing.
    Failed(SyncError),
}

/// What a synchronization is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncStage {
    /// The sides hear of each other.
    #[default]
    Begin,
    /// Blocks are compared by hash.
    Compare,
    /// Blocks are sent while the guest runs on.
    Copy,
    /// Blocks are sent as they were at the snapshot's moment.
    Rest,
    /// The copy is made durable.
    Settle,
}

impl SyncStage {
    const ALL: [Self; 5] = [
        Self::Begin,
        Self::Compare,
        Self::Copy,
        Self::Rest,
        Self::Settle,
    ];
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncProgress {
    /// What it is doing.
    pub stage: SyncStage,
    /// Bytes of disks compared so far.
    pub compared_bytes: u64,
    /// Bytes of disks to compare.
    pub compare_bytes: u64,
    /// Bytes of disks copied so far, some of them more than once.
    pub copied_bytes: u64,
    /// Bytes of disks that are still to be copied, as far as is known.
    pub left_bytes: u64,
    /// Bytes of all messages to the other side.
    pub sent_bytes: u64,
    /// Bytes of all messages from it.
    pub heard_bytes: u64,
}

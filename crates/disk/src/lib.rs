//! Disks of a VM: files, the threads that read and write them, and how a node that joins gets
//! the other one's. No sockets: messages are given and taken.
//!
//! - [`DiskFile`], [`Disk`]: one raw file and its threads, as `twinvm run` has them.
//! - [`DiskSet`]: all disks of a node that is one of two. Each node executes the guest's requests
//!   on its own copies. A durable [`Mark`] says what they are worth, a durable write-intent map
//!   where they may differ from the other node's.
//! - [`SyncOut`], [`SyncIn`]: the live node's copies on their way to a joining one.
//! - [`WriteHash`]: what has been written, as one number.
//!
//! # How a pair drives it
//!
//! A joining node makes [`DiskSet::begin_join`], sends its pieces to the live node and gives it
//! what comes from there; the live node makes [`DiskSet::begin_sync`] of the first piece and does
//! the same. When [`SyncOut::due`] says so, the live node calls [`SyncOut::snapshot_now`] in the
//! same event as the machine's snapshot. [`SyncPiece::Done`] on the joining node means that its
//! copies are as the live node's were at that moment, durable and marked so; it restores the
//! machine and submits the requests in flight anew. On each [`DiskEvent::Sync`] both ask for
//! pieces until there is none.

pub mod background;
mod blocks;
pub mod durable;
mod file;
mod intents;
mod look;
mod mark;
mod medium;
mod set;
mod sync;
mod track;
mod worker;
mod write_hash;

#[cfg(test)]
mod tests;

pub use file::{DiskError, DiskFile};
pub use look::{GrowError, StoredMark, grow};
pub use mark::Mark;
pub use set::{DiskEvent, DiskOptions, DiskSet, DiskSpec, Point, SetError};
pub use sync::{MAX_MESSAGE_BYTES, SyncError, SyncIn, SyncOut, SyncPiece, SyncProgress, SyncStage};
pub use worker::{Disk, DiskDone};
pub use write_hash::WriteHash;

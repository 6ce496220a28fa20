//! One side of the pair: the machine, its log and the protocol in one value.
//!
//! * [`Live`] executes a machine and writes the log: it stamps what comes from
//!   outside with the step count, keeps virtual time close to the host's clock,
//!   and hands out outputs with their log positions.
//! * [`Replay`] executes a machine from a log and checks it against the log.
//! * [`Perturbation`] disturbs a replay in every way that must not matter.
//! * [`explain_disturbed`] and [`explain_recorded`] find where a replay that diverged went wrong.
//! * [`Replica`] joins either with the protocol: one `apply` per event.
//!
//! Neither has a clock: the host's time is an argument. Waiting, threads and
//! sockets live in the driver.

mod announce;
mod compare;
mod event;
mod explain;
mod install;
mod intake;
mod lag;
mod live;
mod node;
mod pacing;
mod perturb;
mod replay;
mod stored;
mod sync;
mod unexecuted;
mod voice;

pub use event::{Action, Env, Event};
pub use explain::{
    AHEAD, Executed, ExplainError, Explanation, Found, Opened, Recorded, Records, Searching,
    TOLD_INSTRUCTIONS, explain_disturbed, explain_recorded,
};
pub use install::{Piece, SnapshotPieces, SnapshotSource};
pub use intake::{Intake, Taken};
pub use live::{Live, LiveError, LiveExit, LiveStats};
pub use node::{Flush, Reads, Replica, ReplicaStatus, Storing, Wait};
pub use pacing::HostTime;
pub use perturb::{PerturbCounts, Perturbation};
pub use replay::{Divergence, Replay, ReplayExit};
pub use stored::Stored;
pub use sync::{DisksIn, DisksOut, MAX_WORDS_BYTES, SyncProgress, SyncWords};
pub use voice::{VOICE_PREFIX, voice_of};

#[cfg(test)]
mod tests;

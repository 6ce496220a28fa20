//! Where a replay that has diverged went wrong first.
//!
//! A divergence shows late: at the next tell-tale, output or digest. What went wrong is found by
//! replaying again from the beginning, as often as need be ([`Recorded`]). A disturbed replay
//! that diverged has a companion that knows better, the plain one: `lockstep` runs both and
//! narrows down where they part. A plain replay has only what the recording holds: `recorded`.

mod lockstep;
mod recorded;
mod side;

pub use lockstep::explain_disturbed;
pub use recorded::explain_recorded;
pub use side::{AHEAD, Opened, Recorded, Records};

use crate::replay::Divergence;
use twinvm_machine::Difference;

/// Instructions that an explanation tells at most.
pub const TOLD_INSTRUCTIONS: u64 = 16;

/// Where two runs that should be equal part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// How it was found.
    pub found: Found,
    /// Records applied before it.
    pub position: u64,
    /// The step at which it shows.
    pub icount: u64,
    /// First and last step of the disturbed replay's slice in which it arose.
    pub slice: Option<(u64, u64)>,
    /// What differs first: `left` is the plain replay or the recording, `right` is the replay that
    /// diverged. None if nothing does, or nothing is known.
    pub difference: Option<Difference>,
    /// The last instructions before it, oldest first.
    pub instructions: Vec<Executed>,
    /// What else is to be known, a sentence each.
    pub notes: Vec<String>,
}

/// How a difference was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Between two steps: what was done to the disturbed replay there has changed its machine.
    Disturbance,
    /// This step came out differently.
    Step,
    /// Only in the slice as it was: cut into steps, the runs are equal.
    Slice,
    /// The machines are equal to the bit, and yet the replay's own check fails.
    Check,
    /// The plain replay is not what was recorded; compared with what the recording holds.
    Recording,
    /// The disturbed replay doesn't diverge again.
    Vanished,
}

/// An instruction that was executed, or would have been if its step had not been a trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The step.
    pub icount: u64,
    /// Which hart.
    pub hart: usize,
    /// Its address.
    pub pc: u64,
    /// Its 16 or 32 bits; `None` where nothing could be fetched.
    pub raw: Option<u32>,
    /// As text.
    pub text: String,
    /// The step was a trap: an interrupt before it, or its exception.
    pub trap: bool,
}

/// What a search is doing, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Searching {
    /// Replays once more, to look between these steps.
    Pass {
        /// From 1.
        number: u32,
        /// What is known to be equal.
        from: u64,
        /// Where it shows at the latest.
        to: u64,
    },
    /// Has come to this step.
    At(u64),
}

/// Why there is no explanation.
#[derive(Debug)]
pub enum ExplainError<E> {
    /// The recording can't be read.
    Recording(E),
    /// The plain replay is not what was recorded: see [`explain_recorded`].
    PlainDiverged(Divergence),
}

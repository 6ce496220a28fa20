//! The seam for disks on their way from the live node to a joining one. What the two ends say to
//! each other is theirs: the replicas carry it.
//!
//! ```text
//! live                                            joining
//!   DisksOut <──────────── words ────────────────> DisksIn
//!      │ is_level: little is left
//!      ▼
//!   freeze, in the step of the machine's snapshot
//!      │ the rest as of that step                   │ Done: all of it, durable
//! ```

/// What an end of a copy under way has to say now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncWords {
    /// At most [`MAX_WORDS_BYTES`] for the other end.
    Ready(Vec<u8>),
    /// Nothing at the moment.
    Later,
    /// Nothing any more. On a joining node: the disks are whole and durable, so that requests may
    /// be carried out on them.
    Done,
    /// It can't go on.
    Failed(String),
    /// It can't go on before somebody has mended this host's disk.
    Broken(String),
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// What is being done, in one word for people.
    pub stage: &'static str,
    /// Bytes of disks that are done with: copied, or found equal.
    pub done_bytes: u64,
    /// Bytes of disks that are to be looked at or copied, as far as is known; 0 if nothing is.
    pub total_bytes: u64,
}

/// Most bytes that an end says at once: between two of them the log gets through.
pub const MAX_WORDS_BYTES: usize = 256 << 10;

/// The live node's end of a copy of its disks. Dropping it gives the copy up.
pub trait DisksOut {
    /// What the other end says. Every byte of it is to be checked.
    ///
    /// # Errors
    /// In one sentence: what is wrong with it.
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// What is to be sent next, without waiting.
    fn next(&mut self) -> SyncWords;
    /// Whether so little is left that the machine's snapshot can be taken.
    fn is_level(&mut self) -> bool;
    /// From here on the copy is of the disks as they are now: what is written later is not in it.
    /// Requests under way may be in it or not.
    fn freeze(&mut self);
    /// How far it is.
    fn progress(&self) -> SyncProgress;
}

/// The joining node's end. Dropping it leaves a copy that is worth nothing.
pub trait DisksIn {
    /// What the other end says. Every byte of it is to be checked.
    ///
    /// # Errors
    /// In one sentence: what is wrong with it.
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// What is to be sent next, without waiting.
    fn next(&mut self) -> SyncWords;
    /// Whether the copy here is no longer what it was, or may not be once the other end has the word
    /// that comes next. Until then nothing is lost if it breaks off.
    fn overwrites(&self) -> bool;
    /// How far it is.
    fn progress(&self) -> SyncProgress;
}

//! The arbiter's record, as the model keeps it.
//!
//! Incarnations and sessions only ever matter by whether they are the present ones, so a name
//! keeps that one bit: when a node begins a new life, its name in every record turns stale, and
//! when a new session begins, so does the old one of the same direction.

/// A node's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// One.
    #[default]
    A,
    /// The other.
    B,
}

impl Id {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) fn ix(self) -> usize {
        self as usize
    }
}

/// What the arbiter keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Counts the changes, from 1. States that differ only by a shift of all generations are one.
    pub generation: u8,
    /// The id named live.
    pub live: Id,
    /// By its present life.
    pub current: bool,
    /// The other node may claim, if it holds the present session (true) or an earlier one.
    pub backup: Option<bool>,
    /// The VM is off.
    pub halted: bool,
}

/// What a compare-and-set is for. Seen by the checker alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A cold start.
    Start,
    /// A cold start after `cold_delay_ms`: it may lose what a backup holds.
    StartAnyway,
    /// A start by a person's force.
    Forced,
    /// A claim with a log of this length.
    Claim(u8),
    /// The live node pairs, drops or halts.
    Change,
}

/// A compare-and-set under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cas {
    /// The generation it must find; 0: no record.
    pub expect: u8,
    /// What it puts there.
    pub record: Record,
    /// What for.
    pub purpose: Purpose,
}

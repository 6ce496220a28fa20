//! Ids, log positions, and the record the arbiter keeps.

use std::fmt;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            /// The first eight hex digits: enough for a person, too little to decide by.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", (self.0 >> 96) as u32)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }
    };
}

random_id! {
    /// A node: a random id stored beside its disks. Names are labels and decide nothing.
    NodeId
}
random_id! {
    /// One life of a node. Drawn at random at process start; every further life of the same
    /// process (after a lost claim, say) takes [`Incarnation::next`].
    Incarnation
}
random_id! {
    /// One channel connection, a snapshot and the contiguous log after it. Never resumes.
    SessionId
}

impl Incarnation {
    /// The incarnation that the same process takes for its next life.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The arbiter record's counter. 0 means that there has never been a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation that a won change of a record with this one has.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the log: the number of records before it.
///
/// Every position that crosses this crate's seam is an *end*. "Acked up to p" means that
/// records 0 to p−1 are stored. An `Output` record with index i has position i + 1: it may
/// leave once the ack is at least i + 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The driver's name for one channel connection; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The node's name for one arbiter request; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReqId(pub u64);

/// Who is live: the node, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LiveName {
    /// The node.
    pub id: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
}

/// Who may claim: the node, and the session whose log it must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackupName {
    /// The node.
    pub id: NodeId,
    /// The session it was paired by.
    pub session: SessionId,
}

/// What the arbiter keeps for one VM. Every change is a won compare-and-set g → g + 1.
///
/// A node only ever proposes records that name its own present incarnation live. So a
/// record tells who wrote it, and equal content means the same author. (A person's reset
/// draws an incarnation that no life has, so no node takes that record for its own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Counts the changes, from 1.
    pub generation: Generation,
    /// The only node that may execute and speak.
    pub live: LiveName,
    /// The only other node that may claim.
    pub backup: Option<BackupName>,
    /// The VM is off; the id named live may start it again.
    pub halted: bool,
}

impl Record {
    /// The record that names `live`, alone.
    pub const fn solo(generation: Generation, live: LiveName) -> Self {
        Self {
            generation,
            live,
            backup: None,
            halted: false,
        }
    }

    /// Whether this record lets the holder of `session` on node `id` claim.
    pub fn names_backup(&self, id: NodeId, session: SessionId) -> bool {
        self.backup == Some(BackupName { id, session })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} live {}", self.generation, self.live.id)?;
        if let Some(backup) = self.backup {
            write!(f, " backup {} session {}", backup.id, backup.session)?;
        }
        if self.halted {
            f.write_str(" halted")?;
        }
        Ok(())
    }
}

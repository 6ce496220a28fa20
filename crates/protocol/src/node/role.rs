//! The roles a node can be in, and which may follow which.

use std::fmt;

/// What a node is.
///
/// ```text
///            welcomed           installed            suspects
///   Cold ------------> Joining ----------> Backup ------------> Claiming
///   |  ^                  |                   |                  |    |
///   |  | session ended    |   sent away,      |   lost,          |    | won
///   |  +------------------+   diverged        |   diverged       |    |
///   |  +--------------------------------------+                  |    |
///   |  +---------------------------------------------------------+    |
///   |  |                                                              v
///   |  |  winner's snapshot begins, or the record names it live     Live
///   |  +----------------------------- Frozen <--------------------- (solo |
///   |                                           record names another  pairing |
///   |                                                                 paired)
///   +-------------------------------------------------------------->
///                start won by CAS
///
///   any role ---> Exited
/// ```
///
/// Only Live executes, and only it emits, but for a backup with `output = "backup"`; a backup that
/// is about to take over as planned announces the guest. Backup and Claiming replay. Frozen keeps a
/// VM that lost, executes nothing, and looks for the winner like Cold does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Holds nothing; looks for a live node to join, or for the right to start.
    Cold,
    /// Receives a snapshot.
    Joining,
    /// Replays.
    Backup,
    /// Lost its live node; drains, then asks the arbiter.
    Claiming,
    /// Executes and speaks.
    Live,
    /// Was live, lost; keeps its VM frozen until the winner's snapshot begins.
    Frozen,
    /// The process should end.
    Exited,
}

impl RoleKind {
    /// Whether the diagram has an arrow from `self` to `next`.
    pub fn may_become(self, next: Self) -> bool {
        use RoleKind::*;
        matches!(
            (self, next),
            (Cold, Joining | Live)
                | (Joining, Backup | Cold)
                | (Backup, Claiming | Cold)
                | (Claiming, Live | Cold)
                | (Live, Frozen)
                | (Frozen, Cold)
        ) || (next == Exited && self != Exited)
    }

    /// Its number in a frame.
    pub(crate) fn wire(self) -> u8 {
        match self {
            Self::Cold => 1,
            Self::Joining => 2,
            Self::Backup => 3,
            Self::Claiming => 4,
            Self::Live => 5,
            Self::Frozen => 6,
            Self::Exited => 7,
        }
    }

    /// The role with this number.
    pub(crate) fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Cold,
            2 => Self::Joining,
            3 => Self::Backup,
            4 => Self::Claiming,
            5 => Self::Live,
            6 => Self::Frozen,
            7 => Self::Exited,
            _ => return None,
        })
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cold => "cold",
            Self::Joining => "joining",
            Self::Backup => "backup",
            Self::Claiming => "claiming",
            Self::Live => "live",
            Self::Frozen => "frozen",
            Self::Exited => "exited",
        })
    }
}

//! A node's disks: their mark, as `twinvm_protocol::disks` keeps it, and what they really hold.

use std::cmp::Ordering;

use crate::log::Log;

/// What a copy really holds. Outside this crate nobody knows.
///
/// The guest flushes before each output, so what was emitted is on the disk of who emitted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// A state of the guest's disks.
    #[default]
    Whole,
    /// Installed, and not yet safe from a loss of power. Only if rules are broken.
    Volatile,
    /// Partly one copy, partly another.
    Mixed,
}

/// One node's disks. What survives when its process ends or its host loses power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// The mark: held by this record; 0: by none.
    pub generation: u8,
    /// The mark: a CAS to this generation may have been sent.
    pub pending: Option<u8>,
    /// The mark: half overwritten by another copy.
    pub half: bool,
    /// The truth.
    pub content: Content,
    /// The truth: safe from a loss of power is what this log did. (What happened in earlier boots
    /// is in it, or it is `old`.)
    pub holds: Log,
}

impl Disk {
    /// Whether nothing that was emitted is missing.
    pub fn has_all(&self, history: &Log) -> bool {
        self.content == Content::Whole && !self.holds.old && self.holds.contains(history)
    }

    /// Whether the id named live by a record of this generation may start from it.
    pub fn starts(&self, named: u8) -> bool {
        !self.half && (self.generation == named || self.pending == Some(named))
    }

    pub(crate) fn before_cas(&mut self, expect: u8, entitled: bool) {
        if entitled {
            self.generation = expect;
        }
        self.pending = Some(expect + 1);
    }

    pub(crate) fn held_by(&mut self, generation: u8) {
        (self.generation, self.pending, self.half) = (generation, None, false);
    }

    /// Which copy the marks call newer, if they can tell.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self.half, other.half) {
            (false, true) => return Some(Ordering::Greater),
            (true, false) => return Some(Ordering::Less),
            (true, true) => return None,
            (false, false) => {}
        }
        match self.generation.cmp(&other.generation) {
            Ordering::Equal => None,
            Ordering::Less if self.pending >= Some(other.generation) => None,
            Ordering::Greater if other.pending >= Some(self.generation) => None,
            order => Some(order),
        }
    }
}

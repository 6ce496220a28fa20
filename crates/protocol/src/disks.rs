//! The mark of a node's replicated disks: by which generation its copy was the newest.
//!
//! The record says who may start; the mark says whether the copy here is the one that it means.
//! The node keeps the mark, its driver stores it: [`crate::Action::MarkDisks`] is durable before
//! the next action. In the order in which it is written:
//!
//! ```text
//!   {g}              this node was named live, or told that it is backup, by g
//!   {g, pending g+1} before a CAS g -> g+1 that this node sends, whatever it says
//!   {g+1}            a record g+1 is seen that names this life live, before anything is done by it
//!   {g}              a record g+1 is seen that names the other node: the CAS came to nothing
//!   {g, inconsistent} before the first block of another node's copy is written over this one
//!   {g, consistent}   all of them are durable; g is still the old one, since no record says more
//! ```

use std::cmp::Ordering;
use std::fmt;

use crate::record::Generation;

/// What a node's disks are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskMark {
    /// Whether the VM has replicated disks. Without any the rest means nothing, and is never
    /// looked at.
    pub has_disks: bool,
    /// This node held the VM by this record, live or as a backup that was told so; 0: by none.
    pub generation: Generation,
    /// A CAS that makes a record of this generation may have been sent.
    pub pending: Option<Generation>,
    /// Not half overwritten by another node's copy, and all there.
    pub consistent: bool,
}

impl Default for DiskMark {
    fn default() -> Self {
        Self::NONE
    }
}

impl DiskMark {
    /// Of a VM without replicated disks.
    pub const NONE: Self = Self {
        has_disks: false,
        generation: Generation(0),
        pending: None,
        consistent: true,
    };

    /// Of disks that no pair has had yet.
    pub const FRESH: Self = Self {
        has_disks: true,
        ..Self::NONE
    };

    /// Whether a node that a record of this generation names live may start from them: this node
    /// wrote that record, or may have.
    pub fn starts(&self, named: Generation) -> bool {
        let own = self.generation == named || self.pending == Some(named);
        !self.has_disks || self.consistent && own
    }

    /// Before a CAS that makes a record of generation `expect` + 1. `entitled`: the node holds the
    /// VM by the record `expect`, so its copy is that generation's.
    #[must_use]
    pub(crate) fn before_cas(self, expect: Generation, entitled: bool) -> Self {
        Self {
            generation: if entitled { expect } else { self.generation },
            pending: Some(expect.next()),
            ..self
        }
    }

    /// This node holds the VM by this record.
    #[must_use]
    pub(crate) fn held_by(self, generation: Generation) -> Self {
        Self {
            generation,
            pending: None,
            consistent: true,
            ..self
        }
    }

    /// No CAS of this node can have taken effect that has not been seen.
    #[must_use]
    pub(crate) fn settled(self) -> Self {
        Self {
            pending: None,
            ..self
        }
    }

    /// Another node's copy begins to be written over this one.
    #[must_use]
    pub(crate) fn overwritten(self) -> Self {
        Self {
            consistent: false,
            ..self.settled()
        }
    }

    /// All of the other node's copy is here and durable.
    #[must_use]
    pub(crate) fn whole(self) -> Self {
        Self {
            consistent: true,
            ..self
        }
    }

    /// Which of two copies is the newer one, as far as the marks can tell; `None` if they can't.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self.consistent, other.consistent) {
            (true, false) => return Some(Ordering::Greater),
            (false, true) => return Some(Ordering::Less),
            (false, false) => return None,
            (true, true) => {}
        }
        match self.generation.cmp(&other.generation) {
            Ordering::Equal => None,
            // A change that may have been made is as good as one that was.
            Ordering::Less if self.pending >= Some(other.generation) => None,
            Ordering::Greater if other.pending >= Some(self.generation) => None,
            order => Some(order),
        }
    }
}

impl fmt::Display for DiskMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.has_disks {
            return f.write_str("no replicated disks");
        }
        if !self.consistent {
            return f.write_str("disks that were half overwritten by a copy, or are not there");
        }
        match (self.generation, self.pending) {
            (Generation(0), None) => f.write_str("disks that no pair has had yet"),
            (generation, None) => write!(f, "disks of generation {generation}"),
            (generation, Some(pending)) => {
                write!(f, "disks of generation {generation}, or {pending}")
            }
        }
    }
}

#[cfg(test)]
mod tests;

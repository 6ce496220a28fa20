//! A forced start: what a person has to know before saying that it is meant.
//!
//! A node starts by itself only if the record says that it may, and its disks are those that the
//! record means. [`crate::Event::Force`] has it start all the same, by a won compare-and-set as
//! always. Two things are then up to the person: that what only the other node has may be lost, and
//! that the other node is off, or cut off from everything: a live node without a backup asks the
//! arbiter nothing, so it would not notice, and there would be two.

use std::cmp::Ordering;
use std::fmt;

use crate::config::Identity;
use crate::disks::DiskMark;
use crate::message::{Hello, Message, PROTOCOL_VERSION};
use crate::node::RoleKind;
use crate::record::{Generation, NodeId, Record};

/// What a person has allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Force {
    /// The generation of the record that the person was shown, 0 if there was none. If it has
    /// changed since, somebody runs.
    pub shown: Generation,
    /// Start even from disks that were half overwritten by another node's copy.
    pub from_half_a_copy: bool,
}

/// All that can be known before a forced start.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// This node.
    pub id: NodeId,
    /// The highest generation that it knows.
    pub generation: Generation,
    /// What its disks are worth.
    pub disks: DiskMark,
    /// The other node's label.
    pub peer_name: String,
    /// What the arbiter has; `None` if it has no record.
    pub record: Option<Record>,
    /// What the other node says of itself, if it answers.
    pub peer: Option<Hello>,
}

impl Prospect {
    /// Why a forced start would be refused, if it would.
    pub fn refusal(&self, force: Force) -> Option<String> {
        let peer = &self.peer_name;
        if self.peer.is_some() {
            return Some(format!(
                "node {peer} answers, so it is not off: end it first, or let it have the VM"
            ));
        }
        let known = self.record.map_or(Generation(0), |r| r.generation);
        if known < self.generation {
            return Some(format!(
                "the arbiter shows generation {known}, but this node knows {}: it has lost its \
                 record; see twinvm arbiter reset --help, --above",
                self.generation
            ));
        }
        if self.disks.has_disks && !self.disks.consistent && !force.from_half_a_copy {
            return Some(format!(
                "this node has {}: to start from them all the same, add --from-half-a-copy",
                self.disks
            ));
        }
        None
    }

    /// Which copy of the disks is the newest.
    fn newest(&self) -> String {
        let peer = &self.peer_name;
        if !self.disks.has_disks {
            return "The VM has no replicated disks: it begins anew.".to_owned();
        }
        let own = self.disks;
        let named = self.record.filter(|r| r.live.id == self.id);
        let known = self.record.map_or(Generation(0), |r| r.generation);
        match &self.peer {
            Some(hello) => match own.compare(&hello.disks) {
                Some(Ordering::Less) => format!(
                    "Node {peer} has the newest copy ({}). This node's, {own}, would be started, \
                     and node {peer}'s be overwritten when it joins: all that was written since \
                     this one was current is lost.",
                    hello.disks
                ),
                Some(Ordering::Greater) => format!(
                    "This node has the newest copy ({own}); node {peer} has {}.",
                    hello.disks
                ),
                _ => format!(
                    "This node has {own}, node {peer} has {}: the marks can't tell which is newer.",
                    hello.disks
                ),
            },
            None if named.is_some() && own.starts(known) => format!(
                "This node has {own}, which is what the record means: nothing that was on the \
                 disks is lost."
            ),
            None => format!(
                "This node has {own}. The record is of generation {known}{}: what node {peer} \
                 wrote since is lost, and its copy is overwritten when it joins.",
                match self.record {
                    Some(r) if r.live.id != self.id => format!(" and names node {peer} live"),
                    _ => String::new(),
                }
            ),
        }
    }
}

impl fmt::Display for Prospect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = &self.peer_name;
        match &self.record {
            Some(record) => writeln!(f, "The record: {record}. This node's id is {}.", self.id)?,
            None => writeln!(f, "The arbiter has no record of this VM.")?,
        }
        match &self.peer {
            None => writeln!(
                f,
                "Node {peer} doesn't answer: it may be off, or cut off and live."
            )?,
            Some(hello) if hello.role == RoleKind::Live => {
                writeln!(
                    f,
                    "Node {peer} answers: it is live. The VM is there, with its memory."
                )?;
            }
            Some(hello) if hello.holds.is_some() => writeln!(
                f,
                "Node {peer} answers: it holds the VM as backup, with its memory."
            )?,
            Some(hello) => writeln!(f, "Node {peer} answers: it is {}.", hello.role)?,
        }
        writeln!(f, "{}", self.newest())?;
        f.write_str("What was in the VM's memory is lost in any case.")
    }
}

/// What a node asks its peer with before a forced start: it looks for nothing and joins nobody, so
/// a live peer says what it is and refuses.
pub fn question(me: &Identity, generation: Generation, disks: DiskMark) -> Message {
    Message::Hello(Hello {
        version: PROTOCOL_VERSION,
        id: me.id,
        name: me.name.clone(),
        incarnation: me.incarnation,
        role: RoleKind::Exited,
        generation,
        holds: None,
        machine: me.machine.clone(),
        disks,
    })
}

#[cfg(test)]
mod tests;

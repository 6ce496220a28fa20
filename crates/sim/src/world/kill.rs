//! One kill at a chosen place in the log, for sweeps over all of them.

use super::*;

/// When the log has reached a position, as one of the two nodes sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The live node has made that record, and nothing of it has left the process.
    Logged,
    /// The same, and what the node asked for has been carried out.
    Sent,
    /// The backup has stored that record, and has not said so.
    Stored,
    /// The same, and it has said so.
    Acked,
    /// The backup has executed that record.
    Executed,
}

impl Moment {
    pub(crate) const ALL: [Self; 5] = [
        Self::Logged,
        Self::Sent,
        Self::Stored,
        Self::Acked,
        Self::Executed,
    ];

    fn is_lives(self) -> bool {
        matches!(self, Self::Logged | Self::Sent)
    }

    /// Behind the actions of the event that led there, or before them.
    fn behind_actions(self) -> bool {
        matches!(self, Self::Sent | Self::Acked)
    }
}

/// A kill that is to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) moment: Moment,
    pub(crate) position: u64,
    /// The live node is killed, or the backup.
    pub(crate) live: bool,
    /// What is on its way from the killed node still arrives, or is lost.
    pub(crate) arrives: bool,
}

/// A kill that has happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Killed {
    /// Where the log was then.
    pub(crate) position: u64,
    /// What the record said then.
    pub(crate) record: Option<Record>,
}

impl World {
    /// Kills if this is the moment: an event was applied to the node at `slot`, and what it led to
    /// has been carried out or not.
    pub(super) fn maybe_kill(&mut self, slot: usize, behind_actions: bool) {
        let Some(kill) = self.kill else {
            return;
        };
        let Some(process) = &self.hosts[slot].process else {
            return;
        };
        if kill.moment.behind_actions() != behind_actions {
            return;
        }
        let status = process.replica.status();
        let position = match kill.moment {
            Moment::Stored | Moment::Acked => status.protocol.acked.0,
            _ => status.position,
        };
        self.kill_at(slot, position);
    }

    /// The same of a batch that what receives frames has stored by itself up to `end`, and acked or
    /// not.
    pub(super) fn maybe_kill_reader(&mut self, slot: usize, end: u64, acked: bool) {
        let moment = self.kill.map(|kill| kill.moment);
        if moment == Some(if acked { Moment::Acked } else { Moment::Stored }) {
            self.kill_at(slot, end);
        }
    }

    fn kill_at(&mut self, slot: usize, position: u64) {
        let (Some(kill), Some(process)) = (self.kill, &self.hosts[slot].process) else {
            return;
        };
        let role = process.role();
        let is_live = role == RoleKind::Live;
        let backs = matches!(role, RoleKind::Joining | RoleKind::Backup);
        if !(is_live && kill.moment.is_lives() || backs && !kill.moment.is_lives()) {
            return;
        }
        if position < kill.position {
            return;
        }
        let victim = if is_live == kill.live { slot } else { 1 - slot };
        self.kill = None;
        self.killed = Some(Killed {
            position,
            record: self.arbiter.current().copied(),
        });
        self.healed_at = self.now;
        self.end_process(victim, false, |world, wire, to| {
            if kill.arrives {
                world.wires[wire].flying(to)
            } else {
                0
            }
        });
        self.at(self.now + 50 * MS, Hap::Watch);
    }

    /// This kill is to happen.
    pub(crate) fn plan_kill(&mut self, kill: Kill) {
        self.kill = Some(kill);
    }

    pub(crate) fn killed(&self) -> Option<Killed> {
        self.killed
    }
}

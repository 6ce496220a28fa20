//! What a person may want to know about a node.

use crate::event::Progress;
use crate::gate::Permit;
use crate::node::live::{Link, PairingStage};
use crate::node::{Node, Role, RoleKind};
use crate::record::{Generation, NodeId, Position, SessionId};

/// A node at one moment, for `ctl status` and for slowing the live node down by lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its role.
    pub role: RoleKind,
    /// Of a live node: `solo`, `pairing: …`, `paired`, `settling`. Else empty.
    pub link: &'static str,
    /// The highest generation known.
    pub generation: Generation,
    /// Live and paired by a settled record, or a backup told so.
    pub protected: bool,
    /// The session's id, if one is open.
    pub session: Option<SessionId>,
    /// The other end of it, as far as known.
    pub peer: Option<(NodeId, String)>,
    /// Log acked by the backup (live), or stored (backup).
    pub acked: Position,
    /// How far the other side has executed, by its last word.
    pub peer_progress: Progress,
    /// Outputs in the gate, or not yet proven released.
    pub gate_items: usize,
    /// Their bytes.
    pub gate_bytes: usize,
    /// The last thing noted: what a waiting node waits for.
    pub note: String,
}

impl<T> Node<T> {
    /// From now on this node joins nobody, for this reason; `None`: it joins again.
    pub fn stay_out(&mut self, why: Option<String>) {
        self.core.stays_out = why;
    }

    /// Why this node joins nobody until it is started again, if so.
    pub fn stays_out(&self) -> Option<&str> {
        self.core.stays_out.as_deref()
    }

    /// Whether the VM is protected as far as this node knows, as [`Status::protected`].
    pub fn protected(&self) -> bool {
        match &self.role {
            Role::Backup(follow) => follow.told.is_some(),
            Role::Live(live) => matches!(live.link, Link::Paired(_)),
            _ => false,
        }
    }

    /// Whether a node is joining this live one that no record names, nor can by a request under
    /// way: nobody would take over from it, so how far it is behind makes nobody wait.
    pub fn has_joiner(&self) -> bool {
        match &self.role {
            Role::Live(live) => match &live.link {
                Link::Pairing { stage, .. } => *stage != PairingStage::Cas,
                Link::Solo | Link::Paired(_) | Link::Settling { .. } => false,
            },
            _ => false,
        }
    }

    /// Whether a live node's outputs wait for nobody: the settled record names no backup, and none is
    /// about to be named.
    pub fn emits_freely(&self) -> bool {
        match &self.role {
            Role::Live(live) => live.permit(&self.core) == Permit::Everything,
            _ => false,
        }
    }

    /// The session that is open, as [`Status::session`].
    pub fn session(&self) -> Option<SessionId> {
        match &self.role {
            Role::Joining(follow) | Role::Backup(follow) => Some(follow.session),
            Role::Claiming(claim) => Some(claim.follow.session),
            Role::Live(live) => live.session().map(|session| session.id),
            Role::Cold(_) | Role::Frozen(_) | Role::Exited => None,
        }
    }

    /// The node at this moment.
    pub fn status(&self) -> Status {
        let mut status = Status {
            role: self.role.kind(),
            link: "",
            generation: self.core.generation,
            protected: self.protected(),
            session: self.session(),
            peer: None,
            acked: Position(0),
            peer_progress: Progress::default(),
            gate_items: 0,
            gate_bytes: 0,
            note: self.core.last_note().to_owned(),
        };
        match &self.role {
            Role::Joining(follow) | Role::Backup(follow) => {
                status.acked = follow.acked;
                status.peer_progress = follow.live_progress;
                status.gate_items = follow.held.len();
                status.gate_bytes = follow.held.bytes();
            }
            Role::Claiming(claim) => {
                status.acked = claim.follow.acked;
                status.gate_items = claim.follow.held.len();
                status.gate_bytes = claim.follow.held.bytes();
            }
            Role::Live(live) => {
                status.link = link_name(&live.link);
                status.gate_items = live.gate.len();
                status.gate_bytes = live.gate.bytes();
                if let Some(session) = live.session() {
                    status.peer = Some((session.peer, session.peer_name.clone()));
                    status.acked = session.acked;
                    status.peer_progress = session.progress;
                } else if let Some(why) = &self.core.refused {
                    status.note.clone_from(why);
                }
            }
            // What a person has to mend outlives what is noted beside it.
            Role::Cold(_) | Role::Frozen(_) => {
                let why = self.core.stays_out.as_ref().or(self.core.refused.as_ref());
                if let Some(why) = why {
                    status.note.clone_from(why);
                }
            }
            Role::Exited => {}
        }
        status
    }
}

fn link_name(link: &Link) -> &'static str {
    match link {
        Link::Solo => "solo",
        Link::Pairing { stage, .. } => match stage {
            PairingStage::Snapshot => "pairing: snapshot",
            PairingStage::CatchUp => "pairing: catching up",
            PairingStage::Probe { .. } => "pairing: asking the arbiter",
            PairingStage::GateOn { .. } => "pairing: gate on",
            PairingStage::Cas => "pairing: awaiting the record",
        },
        Link::Paired(_) => "paired",
        Link::Settling { .. } => "settling",
    }
}

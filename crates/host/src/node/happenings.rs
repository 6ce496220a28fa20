//! What a node's owner hears of without asking: lines with names, the hook, the service manager.

use twinvm_protocol::{ExitReason, NoteLevel, RoleKind, SessionId};
use twinvm_replica::Replica;

use super::NodeError;
use crate::hooks::{HookEvent, Hooks};
use crate::journal::{Journal, timestamp};
use crate::notify::Notify;
use crate::time;

/// What has been counted since the process began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Times that this node took the VM over.
    pub(super) takeovers: u64,
    /// Times that protection was lost.
    pub(super) losses: u64,
    /// Sessions with the peer.
    pub(super) sessions: u64,
}

/// Sees what matters go by, and tells it.
#[derive(Debug)]
pub(super) struct Happenings {
    hooks: Option<Hooks>,
    notify: Option<Notify>,
    role: RoleKind,
    protected: bool,
    session: Option<SessionId>,
    divergences: u64,
    counts: Counts,
    /// What the service manager was told last.
    told: String,
}

impl Happenings {
    pub(super) fn new(hooks: Option<Hooks>, journal: &mut Journal) -> Self {
        let notify = Notify::from_env().unwrap_or_else(|trouble| {
            journal.note(NoteLevel::Warn, &trouble);
            None
        });
        Self {
            hooks,
            notify,
            role: RoleKind::Cold,
            protected: false,
            session: None,
            divergences: 0,
            counts: Counts::default(),
            told: String::new(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Everything is open; the node begins.
    pub(super) fn ready(&self) {
        if let Some(notify) = &self.notify {
            notify.ready("begins");
        }
    }

    /// The role has changed.
    pub(super) fn role_changed(
        &mut self,
        from: RoleKind,
        to: RoleKind,
        why: &str,
        replica: &Replica,
        journal: &mut Journal,
    ) {
        self.role = to;
        let event = match (from, to) {
            (RoleKind::Cold, RoleKind::Live) => Some("went-live"),
            (RoleKind::Claiming, RoleKind::Live) => {
                self.counts.takeovers += 1;
                Some("took-over")
            }
            (RoleKind::Live, RoleKind::Frozen) => Some("replaced"),
            _ => None,
        };
        let text = format!("{from} -> {to}: {why}");
        journal.tell(NoteLevel::Info, event.unwrap_or("role"), &text);
        if let Some(event) = event {
            self.call(event, why, replica, journal);
        }
        self.look_for(Some(why), replica, journal);
    }

    /// Looks for what changes without a word.
    pub(super) fn look(&mut self, replica: &Replica, journal: &mut Journal) {
        self.look_for(None, replica, journal);
    }

    /// `why`: the reason of a change, if it is known; else it is what the node noted last.
    fn look_for(&mut self, why: Option<&str>, replica: &Replica, journal: &mut Journal) {
        let session = replica.session();
        if session != self.session {
            self.session = session;
            self.counts.sessions += u64::from(session.is_some());
        }
        let (divergences, divergence) = replica.divergence();
        if divergences != self.divergences {
            self.divergences = divergences;
            let why = divergence.unwrap_or_default();
            journal.tell(NoteLevel::Error, "diverged", why);
            self.call("diverged", why, replica, journal);
        }
        let protected = replica.protected();
        if protected != self.protected {
            self.protected = protected;
            let why = why.map_or_else(|| replica.status().protocol.note, str::to_owned);
            let (level, event, text) = match protected {
                true => (NoteLevel::Info, "protection-regained", "protected"),
                false => (NoteLevel::Warn, "protection-lost", "NOT protected"),
            };
            self.counts.losses += u64::from(!protected);
            journal.tell(level, event, &format!("{text}: {why}"));
            self.call(event, &why, replica, journal);
        }
        if self.notify.is_some() {
            self.tell_manager();
        }
    }

    fn tell_manager(&mut self) {
        let protected = if self.protected { "" } else { "NOT " };
        let told = format!("{}, {protected}protected", self.role);
        if told != self.told
            && let Some(notify) = &self.notify
        {
            notify.status(&told);
            self.told = told;
        }
    }

    fn call(&mut self, event: &str, why: &str, replica: &Replica, journal: &mut Journal) {
        if self.hooks.is_some() {
            let generation = replica.status().protocol.generation.0;
            self.call_at(event, why, generation, journal);
        }
    }

    fn call_at(&mut self, event: &str, why: &str, generation: u64, journal: &mut Journal) {
        let Some(hooks) = &mut self.hooks else {
            return;
        };
        let told = hooks.tell(HookEvent {
            event: event.to_owned(),
            generation,
            role: self.role.to_string(),
            protected: self.protected,
            why: why.to_owned(),
            time: timestamp(time::wall_ns()),
        });
        if let Err(trouble) = told {
            journal.tell(NoteLevel::Warn, "hook", &trouble.to_string());
        }
    }

    /// The node has ended; the hook has yet to hear the rest.
    pub(super) fn end(
        &mut self,
        end: &Result<ExitReason, NodeError>,
        journal: &mut Journal,
    ) -> Option<Hooks> {
        let (level, event, why) = match end {
            Ok(reason) => (NoteLevel::Info, "ended", reason.to_string()),
            Err(error) => (NoteLevel::Error, "fault", error.to_string()),
        };
        let generation = journal.generation().unwrap_or_default();
        self.role = RoleKind::Exited;
        self.protected = false;
        journal.tell(level, event, &format!("ends: {why}"));
        self.call_at(event, &why, generation, journal);
        if let Some(notify) = &self.notify {
            notify.stopping();
        }
        self.hooks.take()
    }
}

//! A planned takeover loses nothing that clients send: frames that come for the guest while it stands
//! still go with it, as far as its queue has room, and its backup's host is where they are sent
//! before this one stops listening.
//!
//! ```text
//! live: the guest is frozen, its outputs leave     backup: follows
//!   all have left: "you are next" ──────────────────> announces the guest's addresses; frames
//!                                                       wait at its wire from here on
//!   what is still on its way to here  <──── "ready" ────┤
//!   is logged where the guest stands,
//!   GATHER_NS long; then the protocol                   executes it all, claims, is live
//!   hears that the guest is frozen
//! ```
//!
//! Without it nobody listens from the freeze to the announcement, and a client whose question comes
//! then repeats it after 200 ms, the least that Linux waits.

use super::*;

/// First byte of a side message about this. Never reused.
pub(super) const SUBJECT: u8 = 3;
/// Second byte.
const WORD_NEXT: u8 = 1;
const WORD_READY: u8 = 2;
/// How long frames may be on their way that were sent before the backup's announcement: 3 ms.
const GATHER_NS: u64 = 3_000_000;
/// All of it takes this long at most: 100 ms. A backup of an older release never says that it is
/// ready.
const MOST_NS: u64 = 100_000_000;
/// A guest that stayed is announced so often at most, 1 s, however often it is heard elsewhere.
const AGAIN_NS: u64 = 1_000_000_000;

/// Where a planned takeover stands.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Live: the freeze that comes next is for one.
    asked: bool,
    gathering: Option<Gathering>,
    /// Live: the backup was told that it is next, and the guest has not run since.
    told: bool,
    /// Live: the guest stayed, and the backup that was told may hear of it when it has come round.
    in_doubt: bool,
    /// Live: it is not announced again before this, whatever is heard.
    quiet_until_ns: u64,
    /// Backup: it is next.
    next: bool,
}

/// Frames are taken for a guest that stands still.
#[derive(Debug)]
struct Gathering {
    session: SessionId,
    until_ns: u64,
}

impl Handover {
    /// Whether frames for a frozen guest are taken.
    pub(super) fn gathers(&self) -> bool {
        self.gathering.is_some()
    }

    /// Whether frames wait at this backup's wire.
    pub(super) fn is_next(&self) -> bool {
        self.next
    }

    /// When the next step is due at the latest.
    pub(super) fn until_ns(&self) -> Option<u64> {
        self.gathering.as_ref().map(|it| it.until_ns)
    }
}

impl Replica {
    /// Hands an event to the protocol that may begin a planned takeover.
    pub(super) fn tell_of_leaving(&mut self, env: &mut dyn Env, event: ProtocolEvent<Output>) {
        self.handover.asked = matches!(self.vm, Vm::Live(_)) && self.node.protected();
        self.tell(env, event);
        self.handover.asked = false;
    }

    /// The guest is frozen. Whether the protocol hears of it later, when all frames have come.
    pub(super) fn begin_gathering(&mut self, now: HostTime) -> bool {
        let Some(session) = self.node.session().filter(|_| self.handover.asked) else {
            return false;
        };
        self.handover.gathering = Some(Gathering {
            session,
            until_ns: now.mono_ns.saturating_add(MOST_NS),
        });
        true
    }

    /// The guest stays here after all: frames shall come here again.
    pub(super) fn stays(&mut self) {
        if std::mem::take(&mut self.handover.told) {
            self.handover.in_doubt = true;
            self.announce();
        }
    }

    /// Somebody says on the network what only the guest says: the backup that was told and has come
    /// round late. Frames shall come here again.
    pub(super) fn hears_itself(&mut self, now: HostTime) {
        let live = matches!(self.vm, Vm::Live(_)) && !self.frozen;
        if live && self.handover.in_doubt && self.handover.quiet_until_ns <= now.mono_ns {
            self.handover.quiet_until_ns = now.mono_ns.saturating_add(AGAIN_NS);
            self.announce();
        }
    }

    /// A node joins: one that was told before has given up since, and says nothing in the guest's
    /// name any more.
    pub(super) fn stays_for_sure(&mut self) {
        if std::mem::take(&mut self.handover.in_doubt) {
            self.announce();
        }
    }

    /// After every event: the next step, if it is due.
    pub(super) fn go_on_with_handover(&mut self, env: &mut dyn Env) {
        let Some(gathering) = &self.handover.gathering else {
            return;
        };
        let session = gathering.session;
        let over = gathering.until_ns <= env.now().mono_ns || self.node.session() != Some(session);
        // What leaves here after the announcement would have the guest looked for here again.
        if !over && !self.handover.told && self.made_ns.is_empty() {
            self.handover.told = true;
            let bytes = vec![SUBJECT, WORD_NEXT];
            self.tell(env, ProtocolEvent::Side { session, bytes });
        }
        if !over {
            return;
        }
        self.handover.gathering = None;
        let Vm::Live(live) = &mut self.vm else { return };
        live.flush();
        let position = Position(live.position());
        self.send_batches(env);
        self.tell(env, ProtocolEvent::Frozen { position });
    }

    /// A word about it from the other node.
    pub(super) fn handover_heard(
        &mut self,
        now: HostTime,
        session: SessionId,
        word: &[u8],
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        match (word, &self.vm) {
            // Once in a session: nobody makes a backup say it again and again. One that can't take
            // over says nothing.
            ([WORD_NEXT], Vm::Following(following))
                if following.session == session
                    && following.examination.is_none()
                    && self.node.protected()
                    && !self.handover.next =>
            {
                self.handover.next = true;
                self.announce();
                let bytes = vec![SUBJECT, WORD_READY];
                events.push_back(ProtocolEvent::Side { session, bytes });
            }
            ([WORD_READY], Vm::Live(_)) => {
                let told = self.handover.told;
                let gathering = self.handover.gathering.as_mut();
                if let Some(gathering) = gathering.filter(|it| told && it.session == session) {
                    let until_ns = now.mono_ns.saturating_add(GATHER_NS);
                    gathering.until_ns = gathering.until_ns.min(until_ns);
                }
            }
            _ => {}
        }
    }
}

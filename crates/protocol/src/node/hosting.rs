//! Live: the session's side of it. Callers are welcomed or refused; a session that ends
//! takes the gate's state with it.

use crate::event::{Action, CloseReason, NoteLevel};
use crate::message::{Goodbye, Hello, Message, Refusal};
use crate::node::core::Core;
use crate::node::live::{Link, Live, PairingStage, Want};
use crate::node::mutation::Mutation;
use crate::node::role::RoleKind;
use crate::node::session::Session;
use crate::record::{ConnId, SessionId};
use crate::time::Instant;

impl<T> Live<T> {
    /// A node has called and its machine equals ours.
    pub(crate) fn on_caller(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        conn: ConnId,
        hello: &Hello,
    ) {
        if self.session().is_some_and(|s| s.peer == hello.id) {
            // It calls again: to it, the old session is over.
            self.lose_session(core, now, "the backup has come back as a new life");
        }
        let seeks = matches!(hello.role, RoleKind::Cold | RoleKind::Frozen);
        let free = matches!(self.link, Link::Solo) && self.stop.is_none() && !core.terminating;
        if hello.generation > self.settled.generation && free {
            core.note(
                NoteLevel::Warn,
                format!(
                    "{} knows generation {}, above ours: reading the record",
                    hello.name, hello.generation
                ),
            );
            if core.asking.question().is_none() {
                core.ask_read(now);
            }
        } else if free && seeks {
            core.asking.forget();
            return self.welcome(core, now, conn, hello);
        }
        core.send(conn, Message::Refuse(Refusal::Busy));
        core.close(now, conn, CloseReason::Done);
    }

    fn welcome(&mut self, core: &mut Core<T>, now: Instant, conn: ConnId, hello: &Hello) {
        let Some(c) = core.conn(conn) else {
            return;
        };
        c.session = true;
        let id = SessionId(c.nonce);
        let generation = self.settled.generation;
        core.send(
            conn,
            Message::Welcome {
                session: id,
                generation,
            },
        );
        core.act(Action::TakeSnapshot { session: id });
        core.note(
            NoteLevel::Info,
            format!("{} joins; sending a snapshot", hello.name),
        );
        self.link = Link::Pairing {
            session: Session::new(now, conn, id, hello.id, hello.name.clone()),
            stage: PairingStage::Snapshot,
        };
    }

    pub(crate) fn on_message(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        conn: ConnId,
        message: Message,
    ) {
        let Some(session) = self.session_mut().filter(|s| s.conn == conn) else {
            return core.close_protocol(now, conn, "a frame outside a session");
        };
        session.heard(now);
        match message {
            Message::Ack {
                received,
                emitted,
                progress,
            } => {
                if !session.on_ack(now, received, progress) {
                    self.lose_session(core, now, "it acked what was never sent");
                } else if emitted > received {
                    self.lose_session(core, now, "it emitted what it does not hold");
                } else {
                    self.on_spoken(core, received, emitted);
                }
            }
            Message::Installed => {
                if session.base.is_none() || session.installed {
                    self.lose_session(core, now, "it installed what was never sent");
                } else {
                    session.on_installed(now);
                }
            }
            Message::Side { bytes } => {
                let session = session.id;
                core.act(Action::Side { session, bytes });
            }
            Message::Goodbye(goodbye) => {
                let why = match goodbye {
                    Goodbye::Diverged => "the backup diverged",
                    _ => "the backup said goodbye",
                };
                self.lose_session(core, now, why);
            }
            Message::Hello(_)
            | Message::Welcome { .. }
            | Message::Refuse(_)
            | Message::SnapshotBegin { .. }
            | Message::SnapshotChunk { .. }
            | Message::Log { .. }
            | Message::Heartbeat { .. }
            | Message::Paired { .. } => {
                self.lose_session(core, now, "a frame that backups do not send");
            }
        }
    }

    /// Closes the session; what that means for the outputs depends on whether a CAS that
    /// names it was ever sent.
    pub(crate) fn lose_session(&mut self, core: &mut Core<T>, now: Instant, why: &str) {
        let Some(session) = self.session() else {
            return;
        };
        let (conn, id, name) = (session.conn, session.id, session.peer_name.clone());
        core.close(now, conn, CloseReason::SessionEnded(why.to_owned()));
        core.act(Action::EndSession { session: id });
        core.note(
            NoteLevel::Warn,
            format!("session with {name} ended: {why}; the VM is not protected"),
        );
        match &mut self.link {
            Link::Solo => {}
            Link::Pairing { stage, .. } => {
                if *stage == PairingStage::Cas {
                    self.settle_by(None, Want::Solo, now);
                } else {
                    core.asking.forget();
                    self.link = Link::Solo;
                }
            }
            Link::Paired(_) => {
                if core.broken(Mutation::SoloWithoutDrop) {
                    self.settled.backup = None;
                    self.link = Link::Solo;
                } else {
                    self.settle_by(None, Want::Solo, now);
                    self.forget_unspoken(core);
                }
            }
            Link::Settling { session, .. } => *session = None,
        }
    }

    /// From here on nothing leaves until a record of ours that says `want` is settled.
    pub(crate) fn settle_by(&mut self, session: Option<Session>, want: Want, not_before: Instant) {
        self.link = Link::Settling {
            want,
            session,
            not_before,
            asked: false,
            thaw: false,
        };
    }
}

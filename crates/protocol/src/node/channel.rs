//! Connections: they come up, say who they are, carry frames to the role, and go.

use super::core::{Change, Core};
use super::{Node, Role};
use crate::event::{Action, CloseReason, NoteLevel};
use crate::message::{Hello, Message, PROTOCOL_VERSION, Refusal, first_mismatch};
use crate::record::ConnId;
use crate::time::Instant;

/// What is wrong when the other end of the channel has our id.
pub(super) const SAME_NODE: &str = "the peer's channel address leads to a node with this node's id: a \
                         copied state directory, or this node itself";

impl<T> Node<T> {
    pub(super) fn on_channel_up(&mut self, now: Instant, conn: ConnId, dialed: bool, nonce: u128) {
        let seeking = matches!(&self.role, Role::Cold(s) | Role::Frozen(s) if !s.starting);
        self.core
            .channel_up(now, Core::<T>::new_conn(conn, dialed, nonce));
        if dialed && self.core.conn(conn).is_some() {
            if seeking {
                let hello = self.core.hello(self.role.kind(), None);
                self.core.send(conn, hello);
            } else {
                self.core.close(now, conn, CloseReason::Abandoned);
            }
        }
    }

    pub(super) fn on_channel_down(&mut self, now: Instant, conn: ConnId) {
        if !self.core.channel_down(now, conn) {
            return;
        }
        let why = "the connection broke";
        match &mut self.role {
            Role::Cold(seek) | Role::Frozen(seek) => seek.on_down(&mut self.core, conn),
            Role::Joining(follow) | Role::Backup(follow) if follow.conn == conn => {
                self.core.change(Change::Suspect(why.into()));
            }
            Role::Live(live) if live.session().is_some_and(|s| s.conn == conn) => {
                live.lose_session(&mut self.core, now, why);
            }
            _ => {}
        }
    }

    pub(super) fn on_received(&mut self, now: Instant, conn: ConnId, message: Message) {
        let Some(in_session) = self.core.conn(conn).map(|c| c.session) else {
            return;
        };
        // Within a session a hello is a wrong frame like any other: the role decides.
        if let Message::Hello(hello) = &message
            && !in_session
        {
            return self.on_hello(now, conn, hello);
        }
        let core = &mut self.core;
        match &mut self.role {
            Role::Cold(seek) | Role::Frozen(seek) => seek.on_message(core, now, conn, message),
            Role::Joining(follow) if follow.conn == conn => match message {
                Message::Paired { .. } => {
                    core.close_protocol(now, conn, "paired before it was installed");
                    core.change(Change::Suspect("the live node broke the protocol".into()));
                }
                message => follow.on_message(core, now, message),
            },
            Role::Backup(follow) if follow.conn == conn => follow.on_message(core, now, message),
            Role::Live(live) => live.on_message(core, now, conn, message),
            _ => core.close_protocol(now, conn, "a frame outside a session"),
        }
    }

    fn on_hello(&mut self, now: Instant, id: ConnId, hello: &Hello) {
        let kind = self.role.kind();
        let holds = self.holds();
        let core = &mut self.core;
        let Some(conn) = core.conn(id).filter(|c| c.peer.is_none()) else {
            return core.close_protocol(now, id, "two hellos");
        };
        conn.peer = Some(hello.id);
        let dialed = conn.dialed;
        if !dialed {
            let answer = core.hello(kind, holds);
            core.send(id, answer);
        }
        // What has been told isn't told again with each attempt.
        let is_news = |core: &Core<T>, why: &str| core.refused.as_deref() != Some(why);
        let (refusal, why) = if hello.version != PROTOCOL_VERSION {
            let ours = PROTOCOL_VERSION;
            let why = format!(
                "{} speaks protocol {}, this node {ours}; run the same version",
                hello.name, hello.version
            );
            if is_news(core, &why) {
                core.note(NoteLevel::Error, why.clone());
            }
            (Some(Refusal::Version { ours }), Some(why))
        } else if hello.id == core.me.id {
            let why = SAME_NODE.to_owned();
            if dialed && is_news(core, &why) {
                core.note(NoteLevel::Error, why.clone());
            }
            (Some(Refusal::SameNode), dialed.then_some(why))
        } else if let Some(mismatch) = first_mismatch(&core.me.machine, &hello.machine) {
            let why = mismatch.to_string();
            if is_news(core, &why) {
                core.act(Action::Mismatch(mismatch.clone()));
            }
            (Some(Refusal::Machine(mismatch)), Some(why))
        } else {
            (None, None)
        };
        if let Some(refusal) = refusal {
            if !dialed {
                core.send(id, Message::Refuse(refusal));
            }
            core.close(now, id, CloseReason::Done);
            if why.is_some() {
                core.refused = why;
            }
            if dialed {
                core.dial_slowly(now);
            }
            return;
        }
        core.refused = None;
        match &mut self.role {
            Role::Live(live) => live.on_caller(core, now, id, hello),
            role => {
                if !dialed {
                    core.send(id, Message::Refuse(Refusal::NotLive));
                    core.close(now, id, CloseReason::Done);
                }
                if let Role::Cold(seek) | Role::Frozen(seek) = role {
                    seek.on_answer(core, now, hello);
                }
            }
        }
    }
}

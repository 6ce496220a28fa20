//! Before a forced start: looks at the arbiter, the peer and this node's disks, changes nothing,
//! and lets a person say that it is meant.

use std::time::Duration;

use crossbeam_channel::{Select, never};
use twinvm_protocol::force::question;
use twinvm_protocol::message::Hello;
use twinvm_protocol::{
    ConnId, Force, Generation, Identity, Message, NoteLevel, Outcome, Prospect, Record, ReqId,
};
use twinvm_replica::Env;

use super::surroundings::identity;
use super::{NodeError, NodeLoop};
use crate::arbiter_worker::ArbiterRequest;
use crate::channel::ChannelEvent;

/// What a person asked for with a forced start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ForcedStart {
    /// The peer is off, or cut off from clients, arbiter and this host: a person answers for it.
    pub peer_is_off: bool,
    /// Start also from disks that were half overwritten by another node's copy.
    pub from_half_a_copy: bool,
}

/// How long the peer and the arbiter have to answer: a dial and the protocol's handshake, 4 s.
const LOOK_NS: u64 = 4_000_000_000;
/// No request of the protocol has this number.
const LOOK_REQ: ReqId = ReqId(0);

impl NodeLoop {
    /// Says what a forced start would lose; an error if it is refused, or not meant yet.
    pub(super) fn foresee(&mut self, asked: ForcedStart) -> Result<(), NodeError> {
        let identity = identity(&self.options, &self.store)?;
        let (record, peer) = self.look(&identity)?;
        let prospect = Prospect {
            id: identity.id,
            generation: self.store.generation(),
            disks: self.disk_mark(),
            peer_name: identity.peer_name,
            record,
            peer,
        };
        let force = Force {
            shown: record.map_or(Generation(0), |r| r.generation),
            from_half_a_copy: asked.from_half_a_copy,
        };
        let refusal = prospect.refusal(force).or_else(|| {
            (!asked.peer_is_off).then(|| {
                format!(
                    "if node {} is off for certain, or cut off from its clients, the arbiter and \
                     this host, add --peer-is-off",
                    prospect.peer_name
                )
            })
        });
        if let Some(why) = refusal {
            let prospect = prospect.to_string();
            return Err(NodeError::NotForced { prospect, why });
        }
        for line in prospect.to_string().lines() {
            self.journal.tell(NoteLevel::Warn, "forced", line);
        }
        self.force = Some(force);
        Ok(())
    }

    /// What the arbiter has, and what the peer says of itself if it answers.
    fn look(&mut self, identity: &Identity) -> Result<(Option<Record>, Option<Hello>), NodeError> {
        let until_ns = self.env.now().mono_ns.saturating_add(LOOK_NS);
        self.ask(ArbiterRequest::Read { req: LOOK_REQ }, LOOK_REQ);
        let mut dialled = self.hub.dial().is_ok().then_some(None::<ConnId>);
        let (mut record, mut peer) = (None, None);
        loop {
            if dialled.is_none() && record.is_some() {
                break;
            }
            let left = until_ns.saturating_sub(self.env.now().mono_ns);
            if left == 0 {
                break;
            }
            let nothing = never();
            let channel = match dialled {
                Some(_) => &self.inputs.channel,
                None => &nothing,
            };
            let mut select = Select::new();
            select.recv(channel);
            select.recv(&self.inputs.arbiter);
            if select.ready_timeout(Duration::from_nanos(left)).is_err() {
                break;
            }
            if let Ok(reply) = self.inputs.arbiter.try_recv() {
                match reply.outcome {
                    Outcome::Read(found) => record = Some(found),
                    _ => {
                        let why = reply.trouble.unwrap_or_else(|| "no answer".into());
                        return Err(self.no_arbiter(&why));
                    }
                }
            }
            match channel.try_recv() {
                Ok(ChannelEvent::Up { conn, dialed, .. }) if dialed => {
                    let hello = question(identity, self.store.generation(), self.disk_mark());
                    let _ = self.hub.send(conn, hello);
                    dialled = Some(Some(conn));
                }
                // Also if it is the one that calls.
                Ok(ChannelEvent::Received { conn, message }) => {
                    if let Message::Hello(hello) = message {
                        peer = Some(hello);
                        dialled = None;
                    }
                    self.hub.close(conn);
                }
                Ok(ChannelEvent::DialFailed { .. }) => dialled = None,
                Ok(ChannelEvent::Down { conn, .. }) if dialled == Some(Some(conn)) => {
                    dialled = None;
                }
                _ => {}
            }
        }
        match record {
            Some(record) => Ok((record, peer)),
            None => Err(self.no_arbiter("no answer")),
        }
    }

    fn no_arbiter(&self, why: &str) -> NodeError {
        NodeError::NotForced {
            prospect: format!("The arbiter {}: {why}.", self.options.arbiter),
            why: "a forced start is a change of its record, as any other: mend it first".into(),
        }
    }
}

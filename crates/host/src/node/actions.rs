//! Carries out what the replica asks.

use twinvm_protocol::{ConnId, Message, NoteLevel, Outcome, Position, ReqId};
use twinvm_replica::{Action, Env, Event};

use super::{NodeError, NodeLoop};
use crate::arbiter_worker::{ArbiterReply, ArbiterRequest};
use crate::channel::SendError;
use crate::marks::Place;

impl NodeLoop {
    /// Carries out what the replica asks, in order.
    pub(super) fn perform(&mut self) {
        while let Some(action) = self.replica.next_action() {
            if self.ended.is_some() {
                return;
            }
            let now_ns = self.env.now().mono_ns;
            match action {
                Action::Dial => {
                    if let Err(error) = self.hub.dial() {
                        let text = format!("dialling the peer: {error}");
                        self.journal.note(NoteLevel::Warn, &text);
                        self.replica.apply(&mut self.env, Event::DialFailed);
                    }
                }
                Action::Send { conn, message } => match self.send(conn, message) {
                    Ok(()) | Err(SendError::Gone) => {}
                    Err(error) => {
                        let text = format!("channel: {error}");
                        self.journal.note(NoteLevel::Warn, &text);
                        self.hub.close(conn);
                        self.conns.retain(|known| *known != conn);
                        self.replica
                            .apply(&mut self.env, Event::ChannelDown { conn });
                    }
                },
                Action::Close { conn, .. } => {
                    self.hub.close(conn);
                    self.conns.retain(|known| *known != conn);
                    self.closing.push(conn);
                }
                Action::ArbiterRead { req } => self.ask(ArbiterRequest::Read { req }, req),
                Action::ArbiterCas {
                    req,
                    expect,
                    record,
                } => {
                    self.watch.asked(now_ns);
                    self.ask(
                        ArbiterRequest::Cas {
                            req,
                            expect,
                            record,
                        },
                        req,
                    );
                }
                Action::PersistGeneration { generation } => {
                    self.journal.set_generation(generation.0);
                    if let Err(error) = self.store.raise_generation(generation) {
                        self.ended = Some(Err(error.into()));
                    }
                }
                Action::MarkDisks { mark } => {
                    if let Err(error) = self.disks.set_mark(mark) {
                        self.ended = Some(Err(error.into()));
                    }
                }
                Action::Transmit { device, bytes } => {
                    self.watch.transmitted(now_ns);
                    self.marks.note(Place::Out, Position(0));
                    if let Some((_, port)) = self.ports.iter().find(|(slot, _)| *slot == device) {
                        port.send(&bytes);
                    }
                }
                Action::ClaimDisks {
                    generation,
                    takeover,
                } => {
                    if let Err(source) = self.shared.claim(generation, takeover) {
                        let what = "starting a disk's thread";
                        self.ended = Some(Err(NodeError::Host { what, source }));
                    }
                }
                Action::ReadDisks => {
                    if let Err(source) = self.shared.read_beside() {
                        let what = "starting a disk's thread";
                        self.ended = Some(Err(NodeError::Host { what, source }));
                    }
                }
                Action::Disk(request) if self.shared.submit(&request) => {}
                Action::Disk(request) => self.disks.submit(request),
                Action::FlushDisks { flush } => self.disks.flush(flush),
                Action::DiskPoint {
                    point,
                    flush,
                    in_flight,
                } => self.disks.begin_point(point, flush, &in_flight),
                Action::ClearDisks { point } => self.disks.clear_to(point),
                Action::DoubtDisks => {
                    if let Err(error) = self.disks.doubt() {
                        self.ended = Some(Err(error.into()));
                    }
                }
                Action::ForgetDisks => {
                    self.disks.forget();
                    self.shared.forget();
                }
                Action::Console(text) => self.console.write(text),
                Action::RoleChanged { from, to, why } => {
                    self.watch.role_changed(now_ns, from, to);
                    self.happenings
                        .role_changed(from, to, &why, &self.replica, &mut self.journal);
                    self.meter.restart();
                }
                Action::Note { level, text } => self.journal.note(level, &text),
                Action::CtlAnswer { ctl, result } => self.answer(ctl, result),
                Action::Exit { reason } => {
                    while let Some((_, reply)) = self.ctl_waiting.pop_front() {
                        reply.send(Ok(serde_json::json!({ "ended": true })));
                    }
                    self.ended = Some(Ok(reason));
                }
                Action::Fatal { what } => {
                    self.ended = Some(Err(NodeError::Fault(what)));
                }
            }
        }
    }

    fn send(&self, conn: ConnId, message: Message) -> Result<(), SendError> {
        self.marks.message(&message, Place::Sending, Place::Stored);
        let sent = match &message {
            Message::Log { end, .. } => Some(*end),
            _ => None,
        };
        let result = self.hub.send(conn, message);
        if let Some(end) = sent {
            self.marks.note(Place::Sent, end);
        }
        result
    }

    pub(super) fn ask(&mut self, request: ArbiterRequest, req: ReqId) {
        if let Err(busy) = self.arbiter.submit(request) {
            let trouble = Some(busy.to_string());
            let reply = ArbiterReply {
                req,
                outcome: Outcome::Unknown,
                trouble,
            };
            let _ = self.arbiter_replies.send(reply);
        }
    }
}

//! Leaving in good order: poweroff, `ctl stop`, `ctl takeover`, `ctl detach`, SIGTERM.
//!
//! A stop is a gated output. In stages: freeze (nothing new is made), await acks (what was
//! made may leave), then a record change (stop) or a goodbye that lets the backup claim.

use crate::config::HANDOVER_MS;
use crate::event::{Action, CloseReason, Ctl, ExitReason, NoteLevel};
use crate::message::{Goodbye, Message};
use crate::node::core::{Change, Core};
use crate::node::live::{Link, Live, PairingStage, Want};
use crate::record::Position;
use crate::time::Instant;

/// All that the guest has done is where it belongs.
const POWERS_OFF: &str = "the VM is being powered off";

/// What a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopKind {
    /// The backup takes over, this node joins again.
    Handover,
    /// SIGTERM: the backup takes over if there is one, else as `Halt`; the process ends.
    Leave,
    /// The VM is powered off.
    Halt,
}

/// A stop under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) kind: StopKind,
    /// The log's end, once nothing executes any more.
    pub(crate) frozen_at: Option<Position>,
}

impl<T> Live<T> {
    /// Begins a stop, or turns the one under way into a more final one.
    pub(crate) fn begin_stop(&mut self, core: &mut Core<T>, kind: StopKind) {
        match &mut self.stop {
            Some(stop) => stop.kind = stop.kind.max(kind),
            None => {
                core.act(Action::Freeze);
                self.stop = Some(Stop {
                    kind,
                    frozen_at: None,
                });
            }
        }
    }

    /// The guest powered itself off.
    pub(crate) fn on_guest_halted(&mut self, position: Position) {
        self.log_end = self.log_end.max(position);
        self.stop = Some(Stop {
            kind: StopKind::Halt,
            frozen_at: Some(position),
        });
    }

    pub(crate) fn on_frozen(&mut self, position: Position) {
        self.log_end = self.log_end.max(position);
        if let Some(stop) = &mut self.stop {
            stop.frozen_at = Some(stop.frozen_at.map_or(position, |p| p.max(position)));
        }
    }

    /// Begins what a person asked for.
    pub(crate) fn on_ctl(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        ctl: Ctl,
    ) -> Result<(), String> {
        let paired = matches!(self.link, Link::Paired(_));
        match ctl {
            Ctl::Stop => {
                self.begin_stop(core, StopKind::Halt);
                Ok(())
            }
            _ if self.stop.is_some() => Err("the VM is being stopped".into()),
            _ if !paired => Err("the VM has no paired backup; see status".into()),
            Ctl::Takeover => {
                self.begin_stop(core, StopKind::Handover);
                Ok(())
            }
            Ctl::Detach => {
                let link = std::mem::replace(&mut self.link, Link::Solo);
                if let Link::Paired(session) = link {
                    core.note(
                        NoteLevel::Info,
                        format!(
                            "{} is sent away; the VM is not protected",
                            session.peer_name
                        ),
                    );
                    self.settle_by(Some(session), Want::Solo, now);
                }
                Ok(())
            }
        }
    }

    /// The stop's next stage, if it is due.
    pub(crate) fn advance_stop(&mut self, core: &mut Core<T>, now: Instant) -> bool {
        let Some(Stop { kind, frozen_at }) = self.stop else {
            return false;
        };
        if let Link::Pairing { session, stage } = &self.link
            && *stage != PairingStage::Cas
        {
            let conn = session.conn;
            core.send(conn, Message::Goodbye(Goodbye::Leaving));
            self.lose_session(core, now, "the VM stops");
            return true;
        }
        let Some(frozen_at) = frozen_at else {
            return false;
        };
        if !self.gate.is_empty() {
            return false;
        }
        match &self.link {
            Link::Solo if kind == StopKind::Handover => {
                // The backup was lost on the way; the drop is won, go on alone.
                self.stop = None;
                core.act(Action::Thaw);
                true
            }
            Link::Solo => {
                core.note(NoteLevel::Info, POWERS_OFF.into());
                self.settle_by(None, Want::Halted, now);
                true
            }
            Link::Paired(session) if session.acked >= frozen_at => {
                self.part(core, now, kind);
                true
            }
            _ => false,
        }
    }

    /// All is acked and released.
    fn part(&mut self, core: &mut Core<T>, now: Instant, kind: StopKind) {
        let link = std::mem::replace(&mut self.link, Link::Solo);
        let Link::Paired(session) = link else {
            self.link = link;
            return;
        };
        if kind == StopKind::Halt {
            core.note(NoteLevel::Info, POWERS_OFF.into());
            self.settle_by(Some(session), Want::Halted, now);
            return;
        }
        core.note(
            NoteLevel::Info,
            format!("all is acked: {} takes over", session.peer_name),
        );
        core.send(session.conn, Message::Goodbye(Goodbye::Claim));
        core.close(now, session.conn, CloseReason::Done);
        core.act(Action::EndSession {
            session: session.id,
        });
        if kind == StopKind::Leave {
            core.change(Change::Exit(ExitReason::Terminated));
        }
        // If the backup does not claim in time, the drop is ours and the VM runs on here.
        self.stop = None;
        self.link = Link::Settling {
            want: Want::Solo,
            session: None,
            not_before: now.plus_ms(HANDOVER_MS),
            asked: false,
            thaw: true,
        };
    }
}

//! Live: executes and speaks; pairs, is paired, and is left alone again.
//!
//! ```text
//!          joiner welcomed                    gate on, ack >= p, CAS won
//!   Solo ------------------> Pairing ------------------------------------> Paired
//!    ^ ^                      |   |                                          |
//!    | | suspected,           |   | suspected,                               | suspected
//!    | | no pairing CAS sent  |   | pairing CAS sent                         | or detached
//!    | +----------------------+   v                                          |
//!    +------------------------- Settling <-----------------------------------+
//!        drop won                 |
//!                                 +--> (Exited)  halted won
//!   any ---> (Frozen)  the record names another
//! ```
//!
//! One function, [`Live::permit`], says from this state alone what may leave.

use crate::config::REREAD_MS;
use crate::event::{Action, CloseReason, ExitReason, NoteLevel};
use crate::gate::{Gate, Permit};
use crate::message::{Goodbye, MAX_BATCH_BYTES, MAX_CHUNK_BYTES, Message};
use crate::node::core::{Change, Core};
use crate::node::mutation::Mutation;
use crate::node::session::Session;
use crate::node::stop::Stop;
use crate::record::{BackupName, Position, Record, SessionId};
use crate::time::Instant;

/// The stages of pairing, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairingStage {
    /// The snapshot streams. The gate is off: nobody could go live from half a snapshot.
    Snapshot,
    /// The joiner installs and replays until it is close behind, so that the gate will not
    /// hold outputs for long.
    CatchUp,
    /// The arbiter is asked whether it is there at all, so that an arbiter that is not
    /// cannot hold a solo VM's outputs. `retry`: when to ask again.
    Probe { retry: Option<Instant> },
    /// Outputs wait for acks. What left before has positions up to `p`, so an ack of `p`
    /// means that the backup holds all that was ever emitted.
    GateOn { p: Position },
    /// The CAS is out; nothing leaves until it is settled.
    Cas,
}

/// What the record is to say once settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Us, alone.
    Solo,
    /// Us, halted.
    Halted,
}

/// Whom the live node is linked with.
#[derive(Debug)]
pub(crate) enum Link {
    /// The settled record names no backup, and no CAS that could is out.
    Solo,
    /// Solo by record; a joiner is on its way to being named.
    Pairing {
        session: Session,
        stage: PairingStage,
    },
    /// The settled record names this session.
    Paired(Session),
    /// A backup may be named; a change of record must be won first.
    Settling {
        want: Want,
        /// Still open when the change is planned.
        session: Option<Session>,
        /// Ask from this time on (a planned takeover leaves the backup time to claim).
        not_before: Instant,
        asked: bool,
        /// The VM was frozen for a handover that did not happen: let it run again.
        thaw: bool,
    },
}

/// The live role.
#[derive(Debug)]
pub(crate) struct Live<T> {
    /// The record that names us; settled.
    pub(crate) settled: Record,
    pub(crate) link: Link,
    pub(crate) gate: Gate<T>,
    /// The log's end as far as this node has been told.
    pub(crate) log_end: Position,
    pub(crate) stop: Option<Stop>,
}

impl<T> Live<T> {
    pub(crate) fn new(settled: Record, gate: Gate<T>, log_end: Position) -> Self {
        Self {
            settled,
            link: Link::Solo,
            gate,
            log_end,
            stop: None,
        }
    }

    /// The session that is open, in whatever state.
    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.link {
            Link::Solo => None,
            Link::Pairing { session, .. } | Link::Paired(session) => Some(session),
            Link::Settling { session, .. } => session.as_ref(),
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.link {
            Link::Solo => None,
            Link::Pairing { session, .. } | Link::Paired(session) => Some(session),
            Link::Settling { session, .. } => session.as_mut(),
        }
    }

    /// What may leave now: everything while no backup can be named, what was acked while
    /// one is, nothing while an outcome is awaited.
    pub(crate) fn permit(&self, core: &Core<T>) -> Permit {
        let acked = |session: &Session| {
            let early = u64::from(core.broken(Mutation::ReleaseOnInputAck));
            Permit::UpTo(Position(session.acked.0.saturating_add(early)))
        };
        match &self.link {
            Link::Solo => Permit::Everything,
            Link::Pairing { .. } if core.broken(Mutation::PairGateOff) => Permit::Everything,
            Link::Pairing { session, stage } => match stage {
                PairingStage::Snapshot | PairingStage::CatchUp | PairingStage::Probe { .. } => {
                    Permit::Everything
                }
                PairingStage::GateOn { .. } => acked(session),
                PairingStage::Cas => Permit::Nothing,
            },
            // The backup emits, and says so.
            Link::Paired(_) if core.config.backup_speaks() => Permit::Nothing,
            Link::Paired(session) => acked(session),
            Link::Settling { .. } => Permit::Nothing,
        }
    }

    /// Lets out what may leave. The next hop is the wire.
    pub(crate) fn release(&mut self, core: &mut Core<T>) {
        let permit = self.permit(core);
        while let Some((position, item)) = self.gate.pop(permit) {
            core.emit(position, item);
        }
    }

    // ---- the machine ---------------------------------------------------------------

    /// An output and its record: it waits in the gate. The next hop is [`Live::release`].
    pub(crate) fn on_output(
        &mut self,
        core: &mut Core<T>,
        position: Position,
        bytes: usize,
        item: T,
    ) {
        self.log_end = self.log_end.max(position);
        if let Err(error) = self.gate.push(position, bytes, item) {
            core.fault(error.to_string());
        }
    }

    /// A batch goes to the session, from the snapshot's position on.
    pub(crate) fn on_flushed(
        &mut self,
        core: &mut Core<T>,
        first: Position,
        end: Position,
        batch: Vec<u8>,
    ) {
        self.log_end = self.log_end.max(end);
        let released = self.gate.released();
        let Some(session) = self.session_mut() else {
            return;
        };
        let Some(base) = session.base else {
            return;
        };
        if end <= base {
            return;
        }
        if first != session.sent || end <= first {
            let sent = session.sent;
            core.fault(format!("batch {first}..{end} after {sent} was sent"));
            return;
        }
        if batch.len() > MAX_BATCH_BYTES {
            core.fault(format!("a batch of {} bytes", batch.len()));
            return;
        }
        session.sent = end;
        let message = Message::Log {
            first,
            end,
            released: released.min(end),
            batch,
        };
        core.send(session.conn, message);
    }

    pub(crate) fn on_snapshot_taken(
        &mut self,
        core: &mut Core<T>,
        id: SessionId,
        position: Position,
    ) {
        self.log_end = self.log_end.max(position);
        if let Some(session) = self.session_mut().filter(|s| s.id == id) {
            if session.base.is_some() {
                core.fault("two snapshots for one session");
                return;
            }
            session.base = Some(position);
            session.sent = position;
            core.send(session.conn, Message::SnapshotBegin { position });
        }
    }

    pub(crate) fn on_snapshot_chunk(
        &mut self,
        core: &mut Core<T>,
        id: SessionId,
        offset: u64,
        bytes: Vec<u8>,
        last: bool,
    ) {
        let Link::Pairing { session, stage } = &mut self.link else {
            return;
        };
        if session.id != id {
            return;
        }
        let fits = bytes.len() <= MAX_CHUNK_BYTES;
        if session.base.is_none() || *stage != PairingStage::Snapshot || !fits {
            core.fault("a snapshot chunk outside a snapshot");
            return;
        }
        if last {
            *stage = PairingStage::CatchUp;
        }
        core.send(
            session.conn,
            Message::SnapshotChunk {
                offset,
                bytes,
                last,
            },
        );
    }

    // ---- the record ----------------------------------------------------------------

    /// A newer record exists.
    pub(crate) fn on_record(&mut self, core: &mut Core<T>, now: Instant, record: &Record) {
        if record.live != core.live_name() {
            core.change(Change::Lost(*record));
            return;
        }
        self.settled = *record;
        if record.backup.is_some() {
            self.tell_released(core);
        }
        let link = std::mem::replace(&mut self.link, Link::Solo);
        match link {
            Link::Pairing {
                session,
                stage: PairingStage::Cas,
            } if record.names_backup(session.peer, session.id) => {
                let generation = record.generation;
                core.send(session.conn, Message::Paired { generation });
                core.note(
                    NoteLevel::Info,
                    format!(
                        "paired with {} by generation {generation}: the VM is protected",
                        session.peer_name
                    ),
                );
                self.link = Link::Paired(session);
            }
            Link::Settling {
                want,
                session,
                not_before,
                asked,
                thaw,
            } => {
                let done = match want {
                    Want::Solo => record.backup.is_none() && !record.halted,
                    Want::Halted => record.halted,
                };
                if !done {
                    // An earlier CAS of ours landed first: raise it once more.
                    self.link = Link::Settling {
                        want,
                        session,
                        not_before,
                        asked: asked && core.asking.awaits_cas(),
                        thaw,
                    };
                    return;
                }
                self.settled_as(core, now, want, session, thaw);
            }
            other => {
                self.link = other;
                core.fault(format!("a record of ours that was never sent: {record}"));
            }
        }
    }

    fn settled_as(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        want: Want,
        session: Option<Session>,
        thaw: bool,
    ) {
        let (goodbye, text) = match want {
            Want::Solo => (Goodbye::Detached, "settled: live alone"),
            Want::Halted => (Goodbye::Halted, "settled: the VM is off"),
        };
        core.note(
            NoteLevel::Info,
            format!("{text}, generation {}", self.settled.generation),
        );
        if let Some(session) = session {
            core.send(session.conn, Message::Goodbye(goodbye));
            core.close(now, session.conn, CloseReason::Done);
            core.act(Action::EndSession {
                session: session.id,
            });
        }
        match want {
            Want::Solo if thaw && self.stop.is_none() => core.act(Action::Thaw),
            Want::Solo => {}
            Want::Halted => core.change(Change::Exit(ExitReason::Halted)),
        }
    }

    pub(crate) fn on_read(&mut self, core: &mut Core<T>, now: Instant, read: Option<Record>) {
        let Link::Pairing { session, stage } = &mut self.link else {
            return;
        };
        if !matches!(stage, PairingStage::Probe { .. }) {
            return;
        }
        if read == Some(self.settled) {
            // It may have fallen behind while the arbiter took its time.
            *stage = match session.caught_up(self.log_end) {
                true => PairingStage::GateOn { p: self.log_end },
                false => PairingStage::CatchUp,
            };
        } else {
            core.note(
                NoteLevel::Error,
                format!(
                    "cannot pair with {}: the arbiter shows {} instead of ours ({})",
                    session.peer_name,
                    read.map_or("no record".into(), |r| r.to_string()),
                    self.settled
                ),
            );
            *stage = PairingStage::Probe {
                retry: Some(now.plus_ms(REREAD_MS)),
            };
        }
    }

    // ---- time ----------------------------------------------------------------------

    /// Takes the next step that is due, if one is. True if it took one.
    pub(crate) fn advance(&mut self, core: &mut Core<T>, now: Instant) -> bool {
        if self.advance_stop(core, now) {
            return true;
        }
        let log_end = self.log_end;
        let generation = self.settled.generation;
        match &mut self.link {
            Link::Pairing { session, stage } => match *stage {
                PairingStage::CatchUp if session.caught_up(log_end) => {
                    *stage = PairingStage::Probe { retry: None };
                    core.ask_read(now);
                    true
                }
                PairingStage::GateOn { p }
                    if session.acked >= p || core.broken(Mutation::PairBeforeAck) =>
                {
                    *stage = PairingStage::Cas;
                    let backup = BackupName {
                        id: session.peer,
                        session: session.id,
                    };
                    core.ask_cas(now, generation, Some(backup), false);
                    true
                }
                _ => false,
            },
            Link::Settling {
                want,
                not_before,
                asked,
                ..
            } if !*asked && now >= *not_before => {
                *asked = true;
                let halted = *want == Want::Halted;
                core.ask_cas(now, generation, None, halted);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn tick(&mut self, core: &mut Core<T>, now: Instant) {
        if core.asking.awaits_cas()
            && let Some(trouble) = core.asking.trouble()
        {
            core.note(
                NoteLevel::Error,
                format!("outputs wait until the record is settled, but {trouble}"),
            );
        }
        if let Link::Pairing { stage, .. } = &mut self.link {
            match stage {
                PairingStage::Cas
                    if core.broken(Mutation::UnknownIsFailed) && core.asking.unanswered() =>
                {
                    core.asking.forget();
                    self.link = Link::Solo;
                    return;
                }
                PairingStage::Probe { retry: Some(at) } if now >= *at => {
                    *stage = PairingStage::Probe { retry: None };
                    core.ask_read(now);
                }
                _ => {}
            }
        }
        let released = self.gate.released();
        let Some(session) = self.session_mut() else {
            return;
        };
        if let Some(why) = session.suspicion(now, &core.config) {
            self.lose_session(core, now, &why);
        } else if now >= session.next_beat {
            session.next_beat = now.plus_ms(core.config.heartbeat_ms);
            let message = Message::Heartbeat {
                beat: core.beat,
                released: released.min(session.sent),
                progress: core.progress,
            };
            core.send(session.conn, message);
        }
    }

    pub(crate) fn deadline(&self, core: &Core<T>) -> Option<Instant> {
        let session = self.session().map(|s| s.deadline(&core.config));
        let own = match &self.link {
            Link::Settling {
                not_before,
                asked: false,
                ..
            } => Some(*not_before),
            Link::Pairing {
                stage: PairingStage::Probe { retry },
                ..
            } => *retry,
            _ => None,
        };
        session.into_iter().chain(own).min()
    }
}

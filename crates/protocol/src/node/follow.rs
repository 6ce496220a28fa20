//! Joining and Backup: the receiving end of a session.
//!
//! The one promise made here is the ack: what was acked is stored, and the drain that comes
//! before a claim covers it.

use crate::event::{Action, CloseReason, ExitReason, NoteLevel, Progress};
use crate::gate::{Gate, Permit};
use crate::message::{Goodbye, Message};
use crate::node::core::{Change, Core};
use crate::node::mutation::Mutation;
use crate::record::{ConnId, Generation, NodeId, Position, SessionId};
use crate::time::Instant;

/// A session as its backup sees it.
#[derive(Debug)]
pub(crate) struct Follow<T> {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    /// The live node's generation when it welcomed us, and its id.
    pub(crate) welcomed_by: (Generation, NodeId),
    /// The generation that names us and this session, if the live node told us.
    pub(crate) told: Option<Generation>,
    /// Where the snapshot stands.
    pub(crate) base: Position,
    /// Handed over to be stored, up to here.
    pub(crate) received: Position,
    /// Stored, up to here.
    pub(crate) stored: Position,
    /// Acked, up to here.
    pub(crate) acked: Position,
    /// Outputs of our replay that are not proven released.
    pub(crate) held: Gate<T>,
    /// Where replay came upon the guest's poweroff.
    pub(crate) halted: Option<Position>,
    /// How far the live node said it was.
    pub(crate) live_progress: Progress,
    next_offset: u64,
    snapshot_whole: bool,
    heard_at: Instant,
    beat: u64,
    beat_at: Instant,
    next_beat: Instant,
}

impl<T> Follow<T> {
    pub(crate) fn new(
        now: Instant,
        conn: ConnId,
        session: SessionId,
        welcomed_by: (Generation, NodeId),
        base: Position,
    ) -> Self {
        Self {
            conn,
            session,
            welcomed_by,
            told: None,
            base,
            received: base,
            stored: base,
            acked: base,
            held: Gate::new(Position(0)),
            halted: None,
            live_progress: Progress::default(),
            next_offset: 0,
            snapshot_whole: false,
            heard_at: now,
            beat: 0,
            beat_at: now,
            next_beat: now,
        }
    }

    /// A batch is stored: ack it. The next hop is the live node's gate.
    pub(crate) fn on_stored(&mut self, core: &mut Core<T>, now: Instant, end: Position) {
        if end > self.received || end < self.stored {
            core.fault(format!(
                "stored up to {end}, but received {} and stored {} before",
                self.received, self.stored
            ));
            return;
        }
        self.stored = end;
        self.ack(core, now);
    }

    /// A batch was stored and acked before this node has seen it.
    pub(crate) fn on_stored_ahead(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        first: Position,
        end: Position,
        released: Position,
    ) {
        if first != self.received || first != self.stored || end <= first {
            let (received, stored) = (self.received, self.stored);
            core.fault(format!(
                "stored {first}..{end} ahead, but received {received} and stored {stored} before"
            ));
            return;
        }
        self.heard_at = now;
        (self.received, self.stored, self.acked) = (end, end, end);
        self.next_beat = now.plus_ms(core.config.heartbeat_ms);
        self.on_released(core, now, released);
    }

    fn ack(&mut self, core: &mut Core<T>, now: Instant) {
        self.acked = self.stored;
        self.next_beat = now.plus_ms(core.config.heartbeat_ms);
        let message = Message::Ack {
            received: self.acked,
            emitted: self.emitted(),
            progress: core.progress,
        };
        core.send(self.conn, message);
    }

    /// Replay made an output again: keep it until it is proven to be on the wire.
    pub(crate) fn on_output(
        &mut self,
        core: &mut Core<T>,
        position: Position,
        bytes: usize,
        item: T,
    ) {
        if position > self.held.released()
            && let Err(error) = self.held.push(position, bytes, item)
        {
            core.fault(format!("replay: {error}"));
        }
    }

    fn on_released(&mut self, core: &mut Core<T>, now: Instant, released: Position) -> bool {
        if released > self.received {
            self.broken(core, now, "it released what it never sent");
            return false;
        }
        self.held.raise_released(released);
        while self.held.pop(Permit::UpTo(released)).is_some() {}
        true
    }

    /// The session is of no use: as a joiner start over, as a backup ask the arbiter.
    fn broken(&mut self, core: &mut Core<T>, now: Instant, what: &str) {
        core.close_protocol(now, self.conn, what);
        core.change(Change::Suspect(format!("the live node's session: {what}")));
    }

    pub(crate) fn on_message(&mut self, core: &mut Core<T>, now: Instant, message: Message) {
        self.heard_at = now;
        match message {
            Message::SnapshotChunk {
                offset,
                bytes,
                last,
            } => {
                if self.snapshot_whole || offset != self.next_offset {
                    return self.broken(core, now, "a snapshot chunk out of place");
                }
                self.next_offset += bytes.len() as u64;
                self.snapshot_whole = last;
                core.act(Action::InstallChunk {
                    session: self.session,
                    offset,
                    bytes,
                    last,
                });
            }
            Message::Log {
                first,
                end,
                released,
                batch,
            } => {
                if first != self.received || end <= first {
                    return self.broken(core, now, "a log batch out of place");
                }
                self.received = end;
                if core.broken(Mutation::AckBeforeStored) {
                    let progress = core.progress;
                    core.send(
                        self.conn,
                        Message::Ack {
                            received: end,
                            emitted: Position(0),
                            progress,
                        },
                    );
                }
                if self.on_released(core, now, released) {
                    core.act(Action::Store {
                        session: self.session,
                        first,
                        end,
                        batch,
                    });
                }
            }
            Message::Heartbeat {
                beat,
                released,
                progress,
            } => {
                if beat != self.beat {
                    self.beat = beat;
                    self.beat_at = now;
                }
                self.live_progress = progress;
                self.on_released(core, now, released);
            }
            Message::Paired { generation } => {
                if generation != self.welcomed_by.0.next() || self.told.is_some() {
                    return self.broken(core, now, "paired by a generation that cannot be");
                }
                core.learn_generation(generation);
                core.mark(core.disks.held_by(generation));
                self.told = Some(generation);
                core.note(
                    NoteLevel::Info,
                    format!("paired as backup by generation {generation}: the VM is protected"),
                );
            }
            Message::Side { bytes } => core.act(Action::Side {
                session: self.session,
                bytes,
            }),
            Message::Goodbye(goodbye) => self.on_goodbye(core, now, goodbye),
            Message::Hello(_)
            | Message::Welcome { .. }
            | Message::Refuse(_)
            | Message::SnapshotBegin { .. }
            | Message::Ack { .. }
            | Message::Installed => self.broken(core, now, "a frame that live nodes do not send"),
        }
    }

    fn on_goodbye(&mut self, core: &mut Core<T>, now: Instant, goodbye: Goodbye) {
        core.close(now, self.conn, CloseReason::Done);
        match goodbye {
            Goodbye::Claim | Goodbye::Leaving => {
                core.change(Change::Suspect("the live node said goodbye".into()));
            }
            Goodbye::Halted => core.change(Change::Exit(ExitReason::PeerHalted)),
            Goodbye::Detached => core.change(Change::Exit(ExitReason::Detached)),
            Goodbye::Diverged => {
                core.change(Change::Discard("the live node says we diverged".into()));
            }
        }
    }

    /// Leaves the session in good order.
    pub(crate) fn leave(&mut self, core: &mut Core<T>, now: Instant, goodbye: Goodbye) {
        core.send(self.conn, Message::Goodbye(goodbye));
        core.close(now, self.conn, CloseReason::Done);
    }

    /// `paired`: beats are watched, too (a joiner's live node may pause for the snapshot).
    pub(crate) fn tick(&mut self, core: &mut Core<T>, now: Instant, backup: bool) {
        let suspect_ms = core.config.suspect_ms;
        let why = if now >= self.heard_at.plus_ms(suspect_ms) {
            format!("nothing heard from the live node for {suspect_ms} ms")
        } else if backup && now >= self.beat_at.plus_ms(suspect_ms) {
            format!("the live node's CPU thread has not beaten for {suspect_ms} ms")
        } else {
            if now >= self.next_beat {
                self.ack(core, now);
            }
            return;
        };
        core.close(now, self.conn, CloseReason::SessionEnded(why.clone()));
        core.change(Change::Suspect(why));
    }

    /// Beats count from now.
    pub(crate) fn watch_beats(&mut self, now: Instant) {
        self.beat_at = now;
    }

    pub(crate) fn deadline(&self, core: &Core<T>, backup: bool) -> Instant {
        let mut at = self.heard_at.plus_ms(core.config.suspect_ms);
        if backup {
            at = at.min(self.beat_at.plus_ms(core.config.suspect_ms));
        }
        at.min(self.next_beat)
    }

    /// Whether the snapshot's last chunk has come.
    pub(crate) fn snapshot_whole(&self) -> bool {
        self.snapshot_whole
    }
}

//! Cold and Frozen: looking for the right to start, or for a live node to join.
//!
//! ```text
//!   Reading --> Deciding --------> Starting ---> (Live)
//!      ^          |   ^   CAS         |
//!      |          |   +---------------+ someone else's record
//!      +----------+
//!       re-read    \---> Welcomed ---> (Joining) when the snapshot begins
//! ```
//!
//! A start's CAS, once sent, must be settled before anything else: it may land late and
//! make this node live.

use std::cmp::Ordering;

use crate::config::{ANSWER_COUNTS_MS, FIRST_START_ASK_MS, Identity, REDIAL_MS, REREAD_MS};
use crate::disks::DiskMark;
use crate::event::{Action, CloseReason, NoteLevel, Progress};
use crate::force::Force;
use crate::message::{Goodbye, Hello, Message, Refusal};
use crate::node::channel::SAME_NODE;
use crate::node::core::{Change, Core};
use crate::node::follow::Follow;
use crate::node::mutation::Mutation;
use crate::node::role::RoleKind;
use crate::record::{BackupName, ConnId, Generation, NodeId, Position, Record, SessionId};
use crate::time::Instant;

/// What the peer last said of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    id: NodeId,
    role: RoleKind,
    generation: Generation,
    holds: Option<SessionId>,
    disks: DiskMark,
    at: Instant,
}

/// A live node has welcomed us; its snapshot has not begun.
#[derive(Clone, Debug)]
pub(crate) struct Welcomed {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    generation: Generation,
    by: NodeId,
    heard_at: Instant,
    next_beat: Instant,
}

/// The other node as a person knows it, and as the record does.
fn peer<T>(core: &Core<T>, id: NodeId) -> String {
    format!("node {} (id {id})", core.me.peer_name)
}

/// Why a node that the record lets start does not.
fn waiting_for_disks<T>(core: &Core<T>, named: Generation, answer: Option<&Answer>) -> String {
    let Identity { peer_name, .. } = &core.me;
    let own = core.disks;
    let newest = match answer.map(|a| (a.disks, own.compare(&a.disks))) {
        Some((theirs, Some(Ordering::Less))) => {
            format!("the newest copy is that of node {peer_name}, which has {theirs}")
        }
        Some((theirs, _)) => format!("node {peer_name} has {theirs}"),
        None => format!("what node {peer_name} has is not known, since it doesn't answer"),
    };
    // Nobody has ever had the VM: there is nothing to force.
    let mend = match named {
        Generation(0) => "Put the VM's disks here, or start the other node first if it has them",
        _ => "To start from this copy all the same, see twinvm node --help, --force",
    };
    format!("waiting: this node may start by generation {named}, but has {own}; {newest}. {mend}")
}

/// The search.
#[derive(Debug)]
pub(crate) struct Seek {
    /// When it began: `cold_delay_ms` counts from here.
    pub(super) since: Instant,
    /// The newest record, and when it was first seen: answers before that do not count.
    read: Option<(Option<Record>, Instant)>,
    next_read: Instant,
    pub(super) answer: Option<Answer>,
    /// A start's CAS is out.
    pub(crate) starting: bool,
    pub(crate) welcomed: Option<Welcomed>,
    /// A person has said that this node is to start.
    pub(super) forced: Option<Force>,
}

impl Seek {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            read: None,
            next_read: now,
            answer: None,
            starting: false,
            welcomed: None,
            forced: None,
        }
    }

    pub(crate) fn tick<T>(&mut self, core: &mut Core<T>, now: Instant) {
        if let Some(welcomed) = &mut self.welcomed {
            if now >= welcomed.heard_at.plus_ms(core.config.suspect_ms) {
                let conn = welcomed.conn;
                self.unwelcome(core);
                core.close(now, conn, CloseReason::SessionEnded("silence".into()));
            } else if now >= welcomed.next_beat {
                welcomed.next_beat = now.plus_ms(core.config.heartbeat_ms);
                let message = Message::Ack {
                    received: Position(0),
                    emitted: Position(0),
                    progress: Progress::default(),
                };
                core.send(welcomed.conn, message);
            }
            return;
        }
        if self.starting {
            if let Some(trouble) = core.asking.trouble() {
                core.note(NoteLevel::Warn, format!("starting, but {trouble}"));
            }
            return;
        }
        core.tick_dial(now);
        if now >= self.next_read && core.asking.question().is_none() {
            core.ask_read(now);
        } else if let Some(trouble) = core.asking.trouble() {
            core.note(NoteLevel::Warn, format!("waiting: {trouble}"));
        }
        self.decide(core, now);
    }

    pub(crate) fn deadline<T>(&self, core: &Core<T>, now: Instant) -> Option<Instant> {
        if let Some(welcomed) = &self.welcomed {
            let silent = welcomed.heard_at.plus_ms(core.config.suspect_ms);
            return Some(silent.min(welcomed.next_beat));
        }
        if self.starting {
            return None;
        }
        let mut deadline = core.dial_deadline();
        deadline = deadline.into_iter().chain(self.forced_deadline(now)).min();
        let mut sooner = |at: Instant| deadline = Some(deadline.map_or(at, |d| d.min(at)));
        if core.asking.question().is_none() {
            sooner(self.next_read);
        }
        // Once past, these have had their effect, or an answer has overruled them.
        let mut once = |at: Instant| {
            if at > now {
                sooner(at);
            }
        };
        match self.read {
            Some((None, _)) if core.generation == Generation(0) => {
                once(self.since.plus_ms(FIRST_START_ASK_MS));
            }
            Some((Some(record), _)) if record.live.id == core.me.id => {
                let reached = self.answer.map(|a| a.at);
                if let Some(at) = reached {
                    once(at.plus_ms(ANSWER_COUNTS_MS));
                }
                if let Some(delay) = core.config.cold_delay_ms {
                    once(self.since.plus_ms(delay));
                    once(reached.unwrap_or(self.since).plus_ms(delay));
                }
            }
            _ => {}
        }
        deadline
    }

    pub(crate) fn on_read<T>(&mut self, core: &mut Core<T>, now: Instant, read: Option<Record>) {
        self.next_read = now.plus_ms(REREAD_MS);
        // A register that shows less than is known has lost something, or the answer is old.
        let stale = read.filter(|r| r.generation < core.generation);
        if let Some(stale) = stale {
            core.note(
                NoteLevel::Warn,
                format!(
                    "waiting: the arbiter shows generation {}, but this node knows {}; if that \
                     lasts, the arbiter has lost records: restore it",
                    stale.generation, core.generation
                ),
            );
        }
        // The same generation is never given twice, unless records were lost.
        let known = core
            .record
            .filter(|r| stale.is_none() && r.generation == core.generation);
        let second =
            read.filter(|r| known.is_some_and(|k| k.generation == r.generation && k != *r));
        if let Some((known, second)) = known.zip(second) {
            core.note(
                NoteLevel::Error,
                format!(
                    "waiting: the arbiter shows another record than before ({second}, it was \
                     {known}): it has lost records; restore it"
                ),
            );
        }
        if stale.is_none() && second.is_none() && self.read.is_none_or(|(old, _)| old != read) {
            self.read = Some((read, now));
        }
        self.decide(core, now);
    }

    pub(crate) fn on_record<T>(&mut self, core: &mut Core<T>, now: Instant, record: &Record) {
        let won = self.starting && record.live == core.live_name();
        if self.starting && !won {
            self.not_forced(
                core,
                "the record has changed meanwhile, so the other node is not off",
            );
        }
        self.starting = self.starting && core.asking.awaits_cas();
        self.read = Some((Some(*record), now));
        if won {
            core.change(Change::Start(*record));
        } else {
            self.decide(core, now);
        }
    }

    /// The peer said what it is and holds.
    pub(crate) fn on_answer<T>(&mut self, core: &mut Core<T>, now: Instant, hello: &Hello) {
        self.answer = Some(Answer {
            id: hello.id,
            role: hello.role,
            generation: hello.generation,
            holds: hello.holds,
            disks: hello.disks,
            at: now,
        });
        if hello.generation > core.generation {
            self.next_read = self.next_read.min(now);
        }
        self.decide(core, now);
    }

    /// Cold start, rule by rule.
    pub(super) fn decide<T>(&mut self, core: &mut Core<T>, now: Instant) {
        if self.starting || self.welcomed.is_some() {
            return;
        }
        let Some((read, read_at)) = self.read else {
            return;
        };
        if self.decide_forced(core, now, read) {
            return;
        }
        match read {
            None if core.generation == Generation(0) => {
                let answer = self.answer.filter(|a| a.at >= self.since);
                match answer {
                    Some(a) if a.generation > Generation(0) || a.role == RoleKind::Live => {
                        core.note(
                            NoteLevel::Warn,
                            format!(
                                "waiting: the arbiter has no record, but the peer knows \
                                 generation {}; if the peer is not live and the record is \
                                 lost, end both nodes: see twinvm arbiter reset --help",
                                a.generation
                            ),
                        );
                    }
                    None if now < self.since.plus_ms(FIRST_START_ASK_MS) => {}
                    _ => self.start(core, now, Generation(0)),
                }
            }
            None => core.note(
                NoteLevel::Error,
                format!(
                    "waiting: the arbiter has no record, but this node knows generation {}: \
                     it will not start by itself. Is it the right arbiter? If its record is \
                     lost, end both nodes: see twinvm arbiter reset --help",
                    core.generation
                ),
            ),
            Some(record)
                if record.live.id != core.me.id
                    && self.answer.is_some_and(|a| a.id != record.live.id) =>
            {
                core.note(
                    NoteLevel::Warn,
                    format!(
                        "waiting: the id named live, {}, is neither this node's nor that of node \
                         {}: bring its state folder back, or let one begin anew (twinvm arbiter \
                         reset)",
                        record.live.id, core.me.peer_name
                    ),
                );
            }
            // What there is to say has been said: starting the other node wouldn't end it.
            Some(record) if record.live.id != core.me.id && core.stays_out.is_some() => {}
            Some(record) if record.live.id != core.me.id => {
                core.note(
                    NoteLevel::Info,
                    format!(
                        "waiting to join {}, which was live last: start it if it doesn't run",
                        peer(core, record.live.id)
                    ),
                );
            }
            Some(record) => match record.backup {
                None => self.start(core, now, record.generation),
                Some(backup) => self.decide_beside(core, now, &record, backup, read_at),
            },
        }
    }

    /// The record names us live and a backup that may hold a newer machine than our disks.
    fn decide_beside<T>(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        record: &Record,
        backup: BackupName,
        read_at: Instant,
    ) {
        if core.broken(Mutation::StartBesideHolder) {
            self.start(core, now, record.generation);
            return;
        }
        // Only the named node can say that it does not hold the session. One that said that it
        // does may have died since: it claims, or it answers again.
        let last = self.answer.filter(|a| a.id == backup.id && a.at >= read_at);
        let reached = last.map_or(self.since, |a| a.at);
        match last.filter(|a| now < a.at.plus_ms(ANSWER_COUNTS_MS)) {
            Some(a) if a.role == RoleKind::Live || a.generation > record.generation => {
                self.next_read = self.next_read.min(now.plus_ms(REDIAL_MS));
            }
            Some(a) if a.holds == Some(backup.session) => core.note(
                NoteLevel::Info,
                format!(
                    "waiting: {} holds the VM as backup and will claim it",
                    peer(core, backup.id)
                ),
            ),
            Some(_) => self.start(core, now, record.generation),
            None => match core.config.cold_delay_ms {
                Some(delay) if now >= reached.plus_ms(delay) => {
                    core.note(
                        NoteLevel::Warn,
                        format!(
                            "{}, the backup, was unreachable for {delay} ms: starting from the disks",
                            peer(core, backup.id)
                        ),
                    );
                    self.start(core, now, record.generation);
                }
                Some(delay) => core.note(
                    NoteLevel::Warn,
                    format!(
                        "waiting up to {delay} ms for the backup, {}, which may hold a newer \
                         state: start it if it doesn't run",
                        peer(core, backup.id)
                    ),
                ),
                None => core.note(
                    NoteLevel::Warn,
                    format!(
                        "waiting for ever for the backup, {}, which may hold a newer \
                         state: start it if it doesn't run, or set cold_delay_ms in [protect]",
                        peer(core, backup.id)
                    ),
                ),
            },
        }
    }

    fn start<T>(&mut self, core: &mut Core<T>, now: Instant, expect: Generation) {
        if !core.disks.starts(expect) {
            let text = waiting_for_disks(core, expect, self.answer.as_ref());
            return core.note(NoteLevel::Error, text);
        }
        self.starting = true;
        core.ask_cas(now, expect, None, false);
    }

    pub(crate) fn on_message<T>(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        conn: ConnId,
        message: Message,
    ) {
        if let Some(welcomed) = self.welcomed.as_mut().filter(|w| w.conn == conn) {
            welcomed.heard_at = now;
            match message {
                Message::Heartbeat { .. } => {}
                Message::SnapshotBegin { position } => {
                    let (session, by) = (welcomed.session, (welcomed.generation, welcomed.by));
                    let follow = Follow::new(now, conn, session, by, position);
                    core.change(Change::Join(Box::new(follow)));
                }
                // Disks on their way, ahead of the snapshot.
                Message::Side { bytes } => {
                    let session = welcomed.session;
                    core.act(Action::Side { session, bytes });
                }
                Message::Goodbye(goodbye) => {
                    self.unwelcome(core);
                    if goodbye == Goodbye::Halted {
                        core.note(NoteLevel::Info, "the peer has powered the VM off".into());
                    }
                    core.close(now, conn, CloseReason::Done);
                }
                _ => {
                    self.unwelcome(core);
                    core.close_protocol(now, conn, "a frame before the snapshot");
                }
            }
            return;
        }
        let peer = core.conn(conn).filter(|c| c.dialed).and_then(|c| c.peer);
        let ready = peer.is_some();
        match message {
            Message::Refuse(refusal) if ready => {
                core.close(now, conn, CloseReason::Done);
                match refusal {
                    Refusal::NotLive | Refusal::Busy => {}
                    Refusal::SameNode => {
                        core.dial_slowly(now);
                        core.note(NoteLevel::Error, SAME_NODE.into());
                    }
                    Refusal::Version { ours } => {
                        core.dial_slowly(now);
                        core.note(
                            NoteLevel::Error,
                            format!("the peer speaks protocol {ours}; run the same version"),
                        );
                    }
                    // Told already, from the two hellos.
                    Refusal::Machine(_) => core.dial_slowly(now),
                }
            }
            Message::Welcome {
                session,
                generation,
            } if let Some(by) = peer => {
                self.on_welcome(core, now, conn, session, (generation, by));
            }
            _ => core.close_protocol(now, conn, "a frame outside a session"),
        }
    }

    fn on_welcome<T>(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        conn: ConnId,
        session: SessionId,
        (generation, by): (Generation, NodeId),
    ) {
        // Not while our own start may land; and never behind a node that the record has
        // left behind.
        if self.starting || generation < core.generation || self.welcomed.is_some() {
            core.close(now, conn, CloseReason::Abandoned);
            return;
        }
        core.learn_generation(generation);
        if let Some(c) = core.conn(conn) {
            c.session = true;
        }
        core.asking.forget();
        self.welcomed = Some(Welcomed {
            conn,
            session,
            generation,
            by,
            heard_at: now,
            next_beat: now,
        });
        core.note(
            NoteLevel::Info,
            "welcomed by the live node; waiting for its snapshot".into(),
        );
    }

    pub(crate) fn on_down<T>(&mut self, core: &mut Core<T>, conn: ConnId) {
        if self.welcomed.as_ref().is_some_and(|w| w.conn == conn) {
            self.unwelcome(core);
        }
    }

    /// The session can't go on here: leaves it in good order.
    pub(crate) fn leave<T>(&mut self, core: &mut Core<T>, now: Instant, why: &str) {
        let Some(welcomed) = &self.welcomed else {
            return;
        };
        let conn = welcomed.conn;
        self.unwelcome(core);
        core.note(NoteLevel::Warn, format!("the join was given up: {why}"));
        core.send(conn, Message::Goodbye(Goodbye::Leaving));
        core.close(now, conn, CloseReason::Done);
    }

    /// The session is over before its snapshot began.
    fn unwelcome<T>(&mut self, core: &mut Core<T>) {
        if let Some(welcomed) = self.welcomed.take() {
            core.act(Action::EndSession {
                session: welcomed.session,
            });
        }
    }
}

//! What every role shares: identity, connections, what is known of the record, and the
//! queue of actions.

use std::collections::VecDeque;

use crate::config::{
    Config, DIAL_MS, HANDSHAKE_MS, Identity, MAX_CONNS, OUTPUT_FIELD, REDIAL_MS, REDIAL_REFUSED_MS,
};
use crate::disks::DiskMark;
use crate::event::{Action, CloseReason, ExitReason, NoteLevel, Progress};
use crate::message::{Field, Hello, Message, PROTOCOL_VERSION};
use crate::node::asking::{Asking, Question};
use crate::node::follow::Follow;
use crate::node::mutation::Mutation;
use crate::node::role::RoleKind;
use crate::record::{
    BackupName, ConnId, Generation, Incarnation, LiveName, NodeId, Position, Record, SessionId,
};
use crate::time::Instant;

/// A change of role that an event handler asks for; carried out by the one function that
/// checks it.
pub(crate) enum Change<T> {
    /// Cold or Frozen → Live: the start's CAS is won.
    Start(Record),
    /// Cold or Frozen → Joining: the snapshot begins.
    Join(Box<Follow<T>>),
    /// Joining → Backup.
    Installed,
    /// Backup → Claiming.
    Suspect(String),
    /// Claiming → Live.
    Claimed(Record),
    /// Joining, Backup or Claiming → Cold.
    Discard(String),
    /// Live → Frozen.
    Lost(Record),
    /// Any → Exited.
    Exit(ExitReason),
}

impl<T> Change<T> {
    /// For the fault that an unfit change is.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "started",
            Self::Join(_) => "joined",
            Self::Installed => "installed",
            Self::Suspect(_) => "suspected",
            Self::Claimed(_) => "claimed",
            Self::Discard(_) => "discarded",
            Self::Lost(_) => "lost",
            Self::Exit(_) => "exited",
        }
    }
}

/// An open connection.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) dialed: bool,
    pub(crate) nonce: u128,
    since: Instant,
    /// Whose hello has come.
    pub(crate) peer: Option<NodeId>,
    /// It carries a session, so the role watches over it.
    pub(crate) session: bool,
}

/// The one attempt to reach the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Idle { next: Instant },
    Dialing { since: Instant },
    Open { conn: ConnId },
}

/// State shared by all roles.
pub(crate) struct Core<T> {
    pub(crate) me: Identity,
    pub(crate) config: Config,
    /// The highest generation ever learnt; also stored beside the id.
    pub(crate) generation: Generation,
    /// What the disks here are worth; also stored beside them.
    pub(crate) disks: DiskMark,
    /// The newest record seen by this process.
    pub(crate) record: Option<Record>,
    pub(crate) asking: Asking,
    pub(crate) conns: Vec<Conn>,
    dial: Dial,
    pub(crate) out: VecDeque<Action<T>>,
    pub(crate) change: Option<Change<T>>,
    /// A fault of our own, found while handling the present event.
    pub(crate) fault: Option<String>,
    /// Outputs emitted by the present event.
    pub(crate) emitted: usize,
    /// The machine here.
    pub(crate) progress: Progress,
    pub(crate) beat: u64,
    pub(crate) terminating: bool,
    last_note: String,
    /// Why this node joins nobody until it is started again.
    pub(crate) stays_out: Option<String>,
    /// Why the peer and this node can't go together, by its last hello.
    pub(crate) refused: Option<String>,
    pub(crate) mutation: Option<Mutation>,
}

impl<T> Core<T> {
    pub(crate) fn new(mut me: Identity, config: Config) -> Self {
        if config.backup_speaks() {
            me.machine.push(Field {
                name: OUTPUT_FIELD.to_owned(),
                value: "backup".to_owned(),
            });
        }
        Self {
            me,
            config,
            generation: Generation(0),
            disks: DiskMark::NONE,
            record: None,
            asking: Asking::default(),
            conns: Vec::new(),
            dial: Dial::Idle {
                next: Instant::default(),
            },
            out: VecDeque::new(),
            change: None,
            fault: None,
            emitted: 0,
            progress: Progress::default(),
            beat: 0,
            terminating: false,
            last_note: String::new(),
            stays_out: None,
            refused: None,
            mutation: None,
        }
    }

    /// Whether a test broke this rule. Always false without the `mutations` feature.
    pub(crate) fn broken(&self, mutation: Mutation) -> bool {
        cfg!(feature = "mutations") && self.mutation == Some(mutation)
    }

    /// Our name as a record has it.
    pub(crate) fn live_name(&self) -> LiveName {
        LiveName {
            id: self.me.id,
            incarnation: self.me.incarnation,
        }
    }

    /// A new life begins: what the old one sent or was named by counts no more.
    pub(crate) fn new_life(&mut self) {
        self.me.incarnation = Incarnation::next(self.me.incarnation);
        self.progress = Progress::default();
    }

    // ---- actions -------------------------------------------------------------------

    pub(crate) fn act(&mut self, action: Action<T>) {
        self.out.push_back(action);
    }

    pub(crate) fn send(&mut self, conn: ConnId, message: Message) {
        self.act(Action::Send { conn, message });
    }

    pub(crate) fn emit(&mut self, position: Position, item: T) {
        self.emitted += 1;
        self.act(Action::Emit { position, item });
    }

    /// A note; the same one twice in a row is said once.
    pub(crate) fn note(&mut self, level: NoteLevel, text: String) {
        if text != self.last_note {
            self.last_note.clone_from(&text);
            self.act(Action::Note { level, text });
        }
    }

    /// This node is live from now on, and alone: what was noted before is not so any more. That it
    /// is live another action says.
    pub(crate) fn note_alone(&mut self, generation: Generation) {
        self.last_note = format!(
            "live alone, generation {generation}: node {} joins when it runs",
            self.me.peer_name
        );
    }

    pub(crate) fn last_note(&self) -> &str {
        &self.last_note
    }

    pub(crate) fn fault(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert(what.into());
    }

    pub(crate) fn change(&mut self, change: Change<T>) {
        self.change.get_or_insert(change);
    }

    // ---- the record ----------------------------------------------------------------

    /// Takes note of a generation that exists, durably before anything is done about it.
    pub(crate) fn learn_generation(&mut self, generation: Generation) {
        if generation > self.generation {
            self.generation = generation;
            self.act(Action::PersistGeneration { generation });
        }
    }

    /// Takes note of a record that stood in the register. True if it is news: what is older than
    /// the highest generation known is not, even if no record of that has been seen (its own
    /// session may have told a backup that it is named; an answer may come late).
    pub(crate) fn learn(&mut self, record: &Record) -> bool {
        self.learn_generation(record.generation);
        let known = self.record.map_or(Generation(0), |r| r.generation);
        if record.generation <= known || record.generation < self.generation {
            return false;
        }
        self.record = Some(*record);
        if record.live == self.live_name() {
            self.mark(self.disks.held_by(record.generation));
        } else if record.live.id != self.me.id && self.disks.pending <= Some(record.generation) {
            self.mark(self.disks.settled());
        }
        true
    }

    /// Stores another mark beside the disks, durably before what follows.
    pub(crate) fn mark(&mut self, mark: DiskMark) {
        if self.disks.has_disks && mark != self.disks {
            self.disks = mark;
            self.act(Action::MarkDisks { mark });
        }
    }

    /// Asks for a change of the record g → g + 1, in the place of any earlier question. The VM here
    /// is that of g: by it, this node was live, or holds the session that it names, or may start.
    pub(crate) fn ask_cas(
        &mut self,
        now: Instant,
        expect: Generation,
        backup: Option<BackupName>,
        halted: bool,
    ) {
        self.mark(self.disks.before_cas(expect, true));
        self.ask_change(now, expect, backup, halted);
    }

    /// Asks for a start from a copy that the record does not mean.
    pub(crate) fn ask_forced(&mut self, now: Instant, expect: Generation) {
        self.mark(self.disks.before_cas(expect, false));
        self.ask_change(now, expect, None, false);
    }

    fn ask_change(
        &mut self,
        now: Instant,
        expect: Generation,
        backup: Option<BackupName>,
        halted: bool,
    ) {
        let record = Record {
            generation: expect.next(),
            live: self.live_name(),
            backup,
            halted,
        };
        let question = Question::Cas { expect, record };
        self.asking.ask(now, question, &mut self.out);
    }

    pub(crate) fn ask_read(&mut self, now: Instant) {
        self.asking.ask(now, Question::Read, &mut self.out);
    }

    // ---- connections ---------------------------------------------------------------

    pub(crate) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|c| c.id == id)
    }

    pub(crate) fn channel_up(&mut self, now: Instant, conn: Conn) {
        let expected = matches!(self.dial, Dial::Dialing { .. });
        if conn.dialed && !expected {
            let reason = CloseReason::Abandoned;
            self.act(Action::Close {
                conn: conn.id,
                reason,
            });
            return;
        }
        if self.conns.len() >= MAX_CONNS && !conn.dialed {
            let reason = CloseReason::TooMany;
            self.act(Action::Close {
                conn: conn.id,
                reason,
            });
            return;
        }
        let (id, dialed) = (conn.id, conn.dialed);
        self.conns.push(Conn { since: now, ..conn });
        if dialed {
            self.dial = Dial::Open { conn: id };
        }
    }

    pub(crate) fn new_conn(id: ConnId, dialed: bool, nonce: u128) -> Conn {
        Conn {
            id,
            dialed,
            nonce,
            since: Instant::default(),
            peer: None,
            session: false,
        }
    }

    pub(crate) fn hello(&self, role: RoleKind, holds: Option<SessionId>) -> Message {
        Message::Hello(Hello {
            version: PROTOCOL_VERSION,
            id: self.me.id,
            name: self.me.name.clone(),
            incarnation: self.me.incarnation,
            role,
            generation: self.generation,
            holds,
            machine: self.me.machine.clone(),
            disks: self.disks,
        })
    }

    /// The connection is gone. False if it was none of ours any more.
    pub(crate) fn channel_down(&mut self, now: Instant, id: ConnId) -> bool {
        let before = self.conns.len();
        self.conns.retain(|c| c.id != id);
        if self.dial == (Dial::Open { conn: id }) {
            self.redial(now, REDIAL_MS);
        }
        self.conns.len() != before
    }

    pub(crate) fn close(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        if self.channel_down(now, conn) {
            self.act(Action::Close { conn, reason });
        }
    }

    /// The frame does not belong there.
    pub(crate) fn close_protocol(&mut self, now: Instant, conn: ConnId, what: &str) {
        let what = what.to_owned();
        self.note(
            NoteLevel::Warn,
            format!("the peer broke the protocol: {what}"),
        );
        self.close(now, conn, CloseReason::Protocol(what));
    }

    fn redial(&mut self, now: Instant, ms: u64) {
        self.dial = Dial::Idle {
            next: now.plus_ms(ms),
        };
    }

    pub(crate) fn dial_failed(&mut self, now: Instant) {
        if matches!(self.dial, Dial::Dialing { .. }) {
            self.redial(now, REDIAL_MS);
        }
    }

    /// The peer refused what only a person can mend.
    pub(crate) fn dial_slowly(&mut self, now: Instant) {
        self.redial(now, REDIAL_REFUSED_MS);
    }

    /// Keeps one attempt to reach the peer going. Called by roles that look for it.
    pub(crate) fn tick_dial(&mut self, now: Instant) {
        match self.dial {
            Dial::Idle { .. } if self.stays_out.is_some() => {}
            Dial::Idle { next } if now >= next => {
                self.dial = Dial::Dialing { since: now };
                self.act(Action::Dial);
            }
            Dial::Dialing { since } if now >= since.plus_ms(DIAL_MS) => {
                self.redial(now, REDIAL_MS);
            }
            _ => {}
        }
    }

    pub(crate) fn dial_deadline(&self) -> Option<Instant> {
        match self.dial {
            Dial::Idle { .. } if self.stays_out.is_some() => None,
            Dial::Idle { next } => Some(next),
            Dial::Dialing { since } => Some(since.plus_ms(DIAL_MS)),
            Dial::Open { .. } => None,
        }
    }

    /// Closes connections that do not get on with their handshake.
    pub(crate) fn tick_conns(&mut self, now: Instant) {
        while let Some(conn) = self
            .conns
            .iter()
            .find(|c| !c.session && now >= c.since.plus_ms(HANDSHAKE_MS))
        {
            let id = conn.id;
            self.close(now, id, CloseReason::Abandoned);
        }
    }

    pub(crate) fn conns_deadline(&self) -> Option<Instant> {
        let open = self.conns.iter().filter(|c| !c.session);
        open.map(|c| c.since.plus_ms(HANDSHAKE_MS)).min()
    }
}

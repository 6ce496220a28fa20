//! The node: one state machine per process.
//!
//! [`RoleKind`] has the diagram of the roles; each role's file has its own. One call of
//! [`Node::handle`] takes one event, carries out at most a few changes of role through the
//! one function that checks them, lets out what may leave, and checks the invariants. A
//! violated invariant takes back everything the event did and freezes the node
//! ([`Action::Fatal`]): a crash is always safe, a wrong frame never is.
//!
//! Rules for the driver:
//! - carry out actions in order; events that follow from them come in later calls;
//! - after [`Action::Discard`] no machine event of the discarded VM may come;
//! - call with [`Event::Tick`] at [`Node::next_deadline`];
//! - while [`Node::execution_must_wait`], do not execute.
//!
//! # Walk-throughs
//!
//! `>` is an event, `<` an action.
//!
//! **First start.** `> Start{0}` `< Dial, ArbiterRead` `> Arbiter Read(None)`, then the
//! peer's hello or one second without it `< ArbiterCas 0→1` `> Won` `< PersistGeneration,
//! ColdStart`. The other node loses that CAS, or reads the record, and dials.
//!
//! **Join and pair.** Live: `> ChannelUp, Received Hello` `< Send Hello, Welcome;
//! TakeSnapshot` `> SnapshotTaken, SnapshotChunk…, Flushed…` `< Send SnapshotBegin,
//! SnapshotChunk…, Log…` `> Received Installed, Ack` (close behind) `< ArbiterRead` (is it
//! there?) `> Read(ours)`: the gate is on at p `> Ack ≥ p` `< ArbiterCas names the backup`
//! `> Won` `< Send Paired`. Joiner: `< Dial` `> ChannelUp` `< Send Hello` `> Welcome,
//! SnapshotBegin` `< BeginInstall` `> SnapshotChunk, Log` `< InstallChunk, Store` `>
//! Stored` `< Send Ack` `> Installed` `< Send Installed` `> Paired`.
//!
//! **The live node is killed.** Backup: `> ChannelDown`, or silence `< Close, BeginDrain`
//! `> Output…, Drained` `< ArbiterCas drops the dead` `> Won` `< PersistGeneration, GoLive,
//! Announce, Emit…` (all not proven released).
//!
//! **It comes back.** `> Start{g}` `< ArbiterRead, Dial` `> Read` (names the other) `>
//! ChannelUp` …: joins as above. A node that was only cut off learns by its own CAS that it
//! lost: `< Freeze`, dials, and at the winner's SnapshotBegin `< Discard, BeginInstall`.
//!
//! **The backup is killed.** Live: `> ChannelDown` `< EndSession, ArbiterCas names nobody`;
//! outputs wait `> Won` `< Emit…`.
//!
//! **Poweroff.** `> GuestHalted{h}`, `> Ack ≥ h` `< Emit…, ArbiterCas halted` `> Won` `<
//! Send Goodbye, Close, Exit{Halted}`; the backup: `< Exit{PeerHalted}`. `ctl stop` is the
//! same after `< Freeze` `> Frozen{h}`.
//!
//! **SIGTERM.** Paired: `> Terminate` `< Freeze` `> Frozen{h}, Ack ≥ h` `< Emit…, Send
//! Goodbye(Claim), Close, Exit{Terminated}`; the backup claims at once. Solo: as `ctl stop`.
//! Backup: `< Send Goodbye, Close, Exit{Terminated}`.

mod asking;
mod change;
mod channel;
mod claim;
mod core;
mod follow;
mod forced;
mod hosting;
mod invariants;
mod live;
mod mutation;
mod role;
mod seek;
mod session;
mod speak;
mod status;
mod stop;
#[cfg(test)]
mod tests;

use crate::config::{Config, Identity};
use crate::disks::DiskMark;
use crate::event::{Action, Ctl, Event, ExitReason, NoteLevel, Progress};
use crate::force::Force;
use crate::message::{Goodbye, MAX_SIDE_BYTES, Message};
use crate::record::{ConnId, Generation, Position, Record, SessionId};
use crate::time::Instant;

use self::claim::{Claim, ClaimStage};
use self::core::{Change, Core};
use self::follow::Follow;
use self::live::Live;
#[doc(hidden)]
pub use self::mutation::Mutation;
pub use self::role::RoleKind;
use self::seek::Seek;
pub use self::status::Status;
use self::stop::StopKind;

/// A role with its state. [`RoleKind`] has the diagram.
enum Role<T> {
    Cold(Seek),
    Joining(Box<Follow<T>>),
    Backup(Box<Follow<T>>),
    Claiming(Box<Claim<T>>),
    Live(Box<Live<T>>),
    Frozen(Seek),
    Exited,
}

impl<T> Role<T> {
    fn kind(&self) -> RoleKind {
        match self {
            Self::Cold(_) => RoleKind::Cold,
            Self::Joining(_) => RoleKind::Joining,
            Self::Backup(_) => RoleKind::Backup,
            Self::Claiming(_) => RoleKind::Claiming,
            Self::Live(_) => RoleKind::Live,
            Self::Frozen(_) => RoleKind::Frozen,
            Self::Exited => RoleKind::Exited,
        }
    }
}

/// One node's protocol. `T` is an output: kept, ordered and handed back, never looked at.
pub struct Node<T> {
    core: Core<T>,
    role: Role<T>,
    started: bool,
    now: Instant,
}

impl<T> Node<T> {
    /// A node that does nothing before [`Event::Start`].
    pub fn new(me: Identity, config: Config) -> Self {
        Self {
            core: Core::new(me, config),
            role: Role::Cold(Seek::new(Instant::default())),
            started: false,
            now: Instant::default(),
        }
    }

    /// Breaks a rule, to prove that tests see it.
    #[cfg(feature = "mutations")]
    #[doc(hidden)]
    pub fn break_rule(&mut self, mutation: Mutation) {
        self.core.mutation = Some(mutation);
    }

    /// Takes one event. `now` must not go back.
    pub fn handle(&mut self, now: Instant, event: Event<T>) {
        if matches!(self.role, Role::Exited) {
            return;
        }
        let mark = self.core.out.len();
        let now = now.max(self.now);
        self.now = now;
        self.core.emitted = 0;
        match event {
            Event::Start { generation, disks } if !self.started => {
                self.started = true;
                self.core.generation = generation;
                self.core.disks = disks;
                self.role = Role::Cold(Seek::new(now));
                self.tick(now);
            }
            _ if !self.started => {}
            event => self.dispatch(now, event),
        }
        self.settle(now);
        if let Err(what) = self.check() {
            self.core.out.truncate(mark);
            self.core.act(Action::Fatal { what });
            self.role = Role::Exited;
        }
    }

    /// The next thing to do; `None` when all is done. Take them until then.
    pub fn next_action(&mut self) -> Option<Action<T>> {
        self.core.out.pop_front()
    }

    /// When the next [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let core = &self.core;
        let role = match &self.role {
            Role::Cold(seek) | Role::Frozen(seek) => seek.deadline(core, self.now),
            Role::Joining(follow) => Some(follow.deadline(core, false)),
            Role::Backup(follow) => Some(follow.deadline(core, true)),
            Role::Claiming(claim) => claim.deadline(),
            Role::Live(live) => live.deadline(core),
            Role::Exited => return None,
        };
        let shared = [core.asking.deadline(), core.conns_deadline()];
        shared.into_iter().flatten().chain(role).min()
    }

    fn dispatch(&mut self, now: Instant, event: Event<T>) {
        match event {
            Event::Start { .. } => self.core.fault("started twice"),
            Event::Force(force) => self.on_force(now, force),
            Event::Tick => self.tick(now),
            Event::Terminate => self.on_terminate(now),
            Event::Ctl(ctl) => self.on_ctl(now, ctl),
            Event::ChannelUp {
                conn,
                dialed,
                nonce,
            } => self.on_channel_up(now, conn, dialed, nonce),
            Event::DialFailed => self.core.dial_failed(now),
            Event::ChannelDown { conn } => self.on_channel_down(now, conn),
            Event::Received { conn, message } => self.on_received(now, conn, message),
            Event::Arbiter { req, outcome } => self.on_arbiter(now, req, outcome),
            Event::Progress {
                progress,
                beat,
                joiner_lag,
            } => {
                self.core.progress = progress;
                self.core.beat = beat;
                if let Role::Live(live) = &mut self.role {
                    live.log_end = live.log_end.max(progress.position);
                    if let Some(session) = live.session_mut() {
                        session.lag = joiner_lag;
                    }
                }
            }
            Event::Stored { session, end } => {
                if let Some(follow) = self.follow_mut(session) {
                    let (follow, core) = follow;
                    follow.on_stored(core, now, end);
                }
            }
            Event::StoredAhead {
                conn,
                first,
                end,
                released,
            } => {
                if let Role::Backup(follow) = &mut self.role
                    && follow.conn == conn
                {
                    follow.on_stored_ahead(&mut self.core, now, first, end, released);
                }
            }
            Event::Side { session, bytes } => self.on_side(session, bytes),
            Event::Overwriting { session } => self.on_overwriting(session),
            Event::Installed { session } => self.on_installed(session),
            Event::SessionFailed { session, why } => self.on_session_failed(now, session, &why),
            Event::Unfit { why } => self.on_unfit(now, why),
            Event::Diverged { detail } => self.on_diverged(now, &detail),
            event => self.on_machine(now, event),
        }
    }

    fn on_machine(&mut self, now: Instant, event: Event<T>) {
        let core = &mut self.core;
        match (&mut self.role, event) {
            (
                Role::Live(live),
                Event::Output {
                    position,
                    bytes,
                    item,
                },
            ) => live.on_output(core, position, bytes, item),
            (Role::Live(live), Event::Flushed { first, end, batch }) => {
                live.on_flushed(core, first, end, batch);
            }
            (Role::Live(live), Event::SnapshotTaken { session, position }) => {
                live.on_snapshot_taken(core, session, position);
            }
            (
                Role::Live(live),
                Event::SnapshotChunk {
                    session,
                    offset,
                    bytes,
                    last,
                },
            ) => live.on_snapshot_chunk(core, session, offset, bytes, last),
            (Role::Live(live), Event::GuestHalted { position }) => live.on_guest_halted(position),
            (Role::Live(live), Event::Frozen { position }) => live.on_frozen(position),
            (
                Role::Backup(follow),
                Event::Output {
                    position,
                    bytes,
                    item,
                },
            ) => follow.on_output(core, position, bytes, item),
            (Role::Backup(follow), Event::GuestHalted { position }) => {
                follow.halted = Some(position);
            }
            (Role::Claiming(claim), event) => match event {
                Event::Output {
                    position,
                    bytes,
                    item,
                } => claim.follow.on_output(core, position, bytes, item),
                Event::GuestHalted { position } => claim.follow.halted = Some(position),
                Event::Drained { position } => claim.on_drained(core, now, position),
                _ => {}
            },
            // What a thread said before it learnt of the change of role.
            _ => {}
        }
    }

    fn tick(&mut self, now: Instant) {
        let core = &mut self.core;
        core.asking.tick(now, &mut core.out);
        match &mut self.role {
            Role::Cold(seek) | Role::Frozen(seek) => seek.tick(core, now),
            Role::Joining(follow) => follow.tick(core, now, false),
            Role::Backup(follow) => follow.tick(core, now, true),
            Role::Claiming(claim) => claim.tick(core, now),
            Role::Live(live) => live.tick(core, now),
            Role::Exited => {}
        }
        // After the roles, so that a session that has just ended is not also abandoned.
        self.core.tick_conns(now);
    }

    /// The session this node could claim with.
    fn holds(&self) -> Option<SessionId> {
        match &self.role {
            Role::Backup(follow) => Some(follow.session),
            Role::Claiming(claim) => Some(claim.follow.session),
            _ => None,
        }
    }

    fn follow_mut(&mut self, session: SessionId) -> Option<(&mut Follow<T>, &mut Core<T>)> {
        match &mut self.role {
            Role::Joining(follow) | Role::Backup(follow) if follow.session == session => {
                Some((follow, &mut self.core))
            }
            _ => None,
        }
    }

    fn on_side(&mut self, session: SessionId, bytes: Vec<u8>) {
        let conn = match &self.role {
            Role::Cold(seek) | Role::Frozen(seek) => seek
                .welcomed
                .as_ref()
                .filter(|w| w.session == session)
                .map(|w| w.conn),
            Role::Joining(f) | Role::Backup(f) if f.session == session => Some(f.conn),
            Role::Live(live) => live.session().filter(|s| s.id == session).map(|s| s.conn),
            _ => None,
        };
        if bytes.len() > MAX_SIDE_BYTES {
            self.core
                .fault(format!("a side message of {} bytes", bytes.len()));
        } else if let Some(conn) = conn {
            self.core.send(conn, Message::Side { bytes });
        }
    }

    fn on_overwriting(&mut self, session: SessionId) {
        if let Role::Cold(seek) | Role::Frozen(seek) = &self.role
            && seek.welcomed.as_ref().is_some_and(|w| w.session == session)
        {
            self.core.mark(self.core.disks.overwritten());
        }
    }

    fn on_installed(&mut self, session: SessionId) {
        if let Role::Joining(follow) = &self.role
            && follow.session == session
        {
            if follow.snapshot_whole() {
                self.core.change(Change::Installed);
            } else {
                self.core.fault("installed half a snapshot");
            }
        }
    }

    fn on_session_failed(&mut self, now: Instant, session: SessionId, why: &str) {
        let core = &mut self.core;
        match &mut self.role {
            Role::Cold(seek) | Role::Frozen(seek)
                if seek.welcomed.as_ref().is_some_and(|w| w.session == session) =>
            {
                seek.leave(core, now, why);
            }
            Role::Joining(f) | Role::Backup(f) if f.session == session => {
                f.leave(core, now, Goodbye::Leaving);
                core.change(Change::Suspect(why.to_owned()));
            }
            Role::Live(live) if live.session().is_some_and(|s| s.id == session) => {
                live.lose_session(core, now, why);
            }
            _ => {}
        }
    }

    /// A claim whose CAS may be out is not given up: whoever drains asks for it after that.
    fn on_unfit(&mut self, now: Instant, why: String) {
        let core = &mut self.core;
        match &mut self.role {
            Role::Cold(seek) | Role::Frozen(seek) => seek.leave(core, now, &why),
            Role::Joining(follow) | Role::Backup(follow) => {
                follow.leave(core, now, Goodbye::Leaving);
                core.note(NoteLevel::Error, why.clone());
                core.change(Change::Discard(why));
            }
            Role::Claiming(claim) if claim.stage == ClaimStage::Draining => {
                core.note(NoteLevel::Error, why.clone());
                core.change(Change::Discard(why));
            }
            _ => {}
        }
    }

    fn on_diverged(&mut self, now: Instant, detail: &str) {
        let core = &mut self.core;
        let why = format!("replay diverged: {detail}");
        if !matches!(self.role, Role::Cold(_) | Role::Frozen(_) | Role::Exited) {
            core.note(NoteLevel::Error, why.clone());
        }
        match &mut self.role {
            Role::Joining(follow) | Role::Backup(follow) => {
                follow.leave(core, now, Goodbye::Diverged);
                core.change(Change::Discard(why));
            }
            Role::Claiming(_) => core.change(Change::Discard(why)),
            Role::Live(live) => {
                if let Some(session) = live.session() {
                    let conn = session.conn;
                    core.send(conn, Message::Goodbye(Goodbye::Diverged));
                    live.lose_session(core, now, &why);
                }
            }
            _ => {}
        }
    }

    fn on_force(&mut self, now: Instant, force: Force) {
        match &mut self.role {
            Role::Cold(seek) => seek.force(&mut self.core, now, force),
            role => {
                let text = format!("not forced: this node is {}", role.kind());
                self.core.note(NoteLevel::Error, text);
            }
        }
    }

    // ---- people ----------------------------------------------------------------------

    fn on_terminate(&mut self, now: Instant) {
        let core = &mut self.core;
        if std::mem::replace(&mut core.terminating, true) {
            return core.change(Change::Exit(ExitReason::Forced));
        }
        match &mut self.role {
            Role::Live(live) => live.begin_stop(core, StopKind::Leave),
            // The VM may exist only here: settle the claim first, then leave as live or cold.
            Role::Claiming(_) => core.note(
                NoteLevel::Warn,
                "asked to terminate while claiming: settling the claim first".into(),
            ),
            Role::Joining(follow) | Role::Backup(follow) => {
                follow.leave(core, now, Goodbye::Leaving);
                core.change(Change::Exit(ExitReason::Terminated));
            }
            _ => core.change(Change::Exit(ExitReason::Terminated)),
        }
    }

    fn on_ctl(&mut self, now: Instant, ctl: Ctl) {
        let core = &mut self.core;
        let result = match (&mut self.role, ctl) {
            (Role::Live(live), ctl) => live.on_ctl(core, now, ctl),
            (Role::Backup(follow), Ctl::Detach) => {
                follow.leave(core, now, Goodbye::Leaving);
                core.change(Change::Exit(ExitReason::Detached));
                Ok(())
            }
            (role, _) => Err(format!("this node is {}; ask the live node", role.kind())),
        };
        self.core.act(Action::CtlAnswer { ctl, result });
    }

    // ---- the arbiter -----------------------------------------------------------------

    fn on_arbiter(&mut self, now: Instant, req: crate::ReqId, outcome: crate::Outcome) {
        let core = &mut self.core;
        let read = core.asking.answer(now, req, &outcome);
        if let Some(shown) = outcome.record()
            && (core.learn(shown) | core.asking.settle(shown.generation))
            && let Some(record) = &core.record.clone()
        {
            match &mut self.role {
                Role::Cold(seek) | Role::Frozen(seek) => seek.on_record(core, now, record),
                Role::Claiming(claim) => claim.on_record(core, now, record),
                Role::Live(live) => live.on_record(core, now, record),
                _ => {}
            }
        }
        if let Some(read) = read {
            match &mut self.role {
                Role::Cold(seek) | Role::Frozen(seek) => seek.on_read(core, now, read),
                Role::Claiming(claim) => claim.on_read(core, now, read),
                Role::Live(live) => live.on_read(core, now, read),
                _ => {}
            }
        }
    }

    /// Whether execution must wait: the gate, or a backup's store of unproven outputs, is
    /// full. Never while draining for a claim: what is left to execute is bounded by the
    /// log that is stored.
    pub fn execution_must_wait(&self) -> bool {
        match &self.role {
            Role::Live(live) => live.gate.full(),
            Role::Backup(follow) => follow.held.full(),
            _ => false,
        }
    }

    /// A backup's session: its connection, how far its log is stored, and which outputs have left.
    pub fn stored(&self) -> Option<(ConnId, Position, Position)> {
        match &self.role {
            Role::Backup(follow) => Some((follow.conn, follow.stored, follow.emitted())),
            _ => None,
        }
    }

    /// The session that a backup stores from this connection.
    pub fn storing(&self, conn: ConnId) -> Option<SessionId> {
        match &self.role {
            Role::Backup(follow) if follow.conn == conn => Some(follow.session),
            _ => None,
        }
    }

    /// How far the machine here is, as acks say.
    pub fn progress(&self) -> Progress {
        self.core.progress
    }

    /// Whether batches must be handed over as [`Event::Flushed`].
    pub fn wants_log(&self) -> bool {
        matches!(&self.role, Role::Live(live) if live.session().is_some())
    }

    /// The newest record seen.
    pub fn record(&self) -> Option<&Record> {
        self.core.record.as_ref()
    }

    /// The highest generation known.
    pub fn generation(&self) -> Generation {
        self.core.generation
    }

    /// What the disks here are worth.
    pub fn disks(&self) -> DiskMark {
        self.core.disks
    }

    /// What this node is.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }
}

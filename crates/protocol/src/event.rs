//! The seam: everything that can happen to a node, and everything it can ask for.

use crate::arbiter::Outcome;
use crate::disks::DiskMark;
use crate::force::Force;
use crate::message::{Message, Mismatch};
use crate::node::RoleKind;
use crate::record::{ConnId, Generation, Position, Record, ReqId, SessionId};

/// How far a machine has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps executed since power-on.
    pub icount: u64,
    /// Log applied (backup) or appended (live) up to here.
    pub position: Position,
    /// Virtual time, 10 MHz ticks.
    pub vtime: u64,
}

/// What a person asks a node to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ctl {
    /// Power the VM off for good: record halted, both nodes exit.
    Stop,
    /// Hand the VM to the backup; this node joins again.
    Takeover,
    /// On the live node: send the backup away. On the backup: leave.
    Detach,
}

/// Everything that can happen to a node. `T` is an output: opaque here.
#[derive(Clone, Debug)]
pub enum Event<T> {
    /// The process is up, ids and lock are held. First event, once.
    Start {
        /// The generation stored beside the node's id; 0 if none was ever learnt.
        generation: Generation,
        /// The mark stored beside the disks; [`DiskMark::NONE`] if there are no replicated ones.
        disks: DiskMark,
    },
    /// A person has said that the other node is off, or cut off from everything, and that this one
    /// is to start from its disks whatever the record names. Right after [`Event::Start`].
    Force(Force),
    /// The time given is at or after [`crate::Node::next_deadline`].
    Tick,
    /// SIGTERM. A second one makes the node exit at once, which is always safe.
    Terminate,
    /// A request from a person; answered by [`Action::CtlAnswer`].
    Ctl(Ctl),

    /// A connection is open, dialled by us or accepted.
    ChannelUp {
        /// A fresh name.
        conn: ConnId,
        /// Whether [`Action::Dial`] made it.
        dialed: bool,
        /// A fresh random number; becomes the session's id if this node welcomes a joiner.
        nonce: u128,
    },
    /// [`Action::Dial`] came to nothing.
    DialFailed,
    /// A connection has ended, from whatever side and for whatever cause.
    ChannelDown {
        /// The connection.
        conn: ConnId,
    },
    /// A frame arrived. One that does not decode is a [`Event::ChannelDown`] after closing.
    Received {
        /// The connection.
        conn: ConnId,
        /// The decoded frame.
        message: Message,
    },

    /// The arbiter answered.
    Arbiter {
        /// Which request.
        req: ReqId,
        /// How it ended.
        outcome: Outcome,
    },

    /// Live: an output's record was appended and ends at `position`; here is the output
    /// itself. Backup: replay made the output again. The next hop is the gate, then
    /// [`Action::Emit`].
    Output {
        /// The end of its own `Output` record.
        position: Position,
        /// Its size, for the gate's bound.
        bytes: usize,
        /// The output.
        item: T,
    },
    /// Live: a batch was closed. Needed while [`crate::Node::wants_log`]; the next hop is
    /// [`Message::Log`] to the backup.
    Flushed {
        /// Position before the batch.
        first: Position,
        /// Position after it.
        end: Position,
        /// The batch's bytes.
        batch: Vec<u8>,
    },
    /// The machine has come this far. Live: also proves that the CPU thread beats, once per
    /// slice or turn of a bounded wait; hand it over about every millisecond.
    Progress {
        /// How far.
        progress: Progress,
        /// The CPU thread's beat counter.
        beat: u64,
        /// Live, of the node that joins: how far it is behind, 10 MHz ticks, in virtual time or in the
        /// time that it needs for what is left to execute, whichever is more. `None` as long as nobody
        /// knows how fast it is.
        joiner_lag: Option<u64>,
    },
    /// The guest powered off, or reset under on_reset="exit". Everything up to `position`
    /// has been appended. On a backup: replay came to that point.
    GuestHalted {
        /// The log's end.
        position: Position,
    },
    /// [`Action::Freeze`] is done: nothing executes, all is appended and flushed.
    Frozen {
        /// The log's end.
        position: Position,
    },
    /// Live: the snapshot for this session stands at `position`. Comes before the first
    /// [`Event::Flushed`] beyond it, and no batch straddles it.
    SnapshotTaken {
        /// Whose.
        session: SessionId,
        /// The log position it stands at.
        position: Position,
    },
    /// Live: the next piece of the snapshot, in order.
    SnapshotChunk {
        /// Whose.
        session: SessionId,
        /// Where in the snapshot it belongs.
        offset: u64,
        /// At most [`crate::message::MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Either side, a welcomed joiner too: opaque words for the other replica (digests, disk
    /// blocks), in order with the log.
    Side {
        /// Whose.
        session: SessionId,
        /// At most [`crate::message::MAX_SIDE_BYTES`].
        bytes: Vec<u8>,
    },
    /// Welcomed: from now on the disks here are no longer what they were, since another node's are
    /// copied over them.
    Overwriting {
        /// Whose.
        session: SessionId,
    },
    /// Backup: the snapshot is restored, its disks are durable, replay begins.
    Installed {
        /// Whose.
        session: SessionId,
    },
    /// Backup: the log of this session is stored up to `end`; the next hop is
    /// [`Message::Ack`].
    Stored {
        /// Whose.
        session: SessionId,
        /// Its end.
        end: Position,
    },
    /// Backup: a batch of the log that was stored and acked before the node has seen it, in order
    /// with the frames of its connection. Whoever acks like that stops it, in one step with saying
    /// what was stored, when [`Action::BeginDrain`] or [`Action::Discard`] is carried out.
    StoredAhead {
        /// The connection.
        conn: ConnId,
        /// Position before it.
        first: Position,
        /// Position after it.
        end: Position,
        /// Outputs up to here had left.
        released: Position,
    },
    /// Either side: this session cannot go on (bad checksum, snapshot failed, buffer
    /// broken). Same as the connection's end.
    SessionFailed {
        /// Whose.
        session: SessionId,
        /// What to tell a person.
        why: String,
    },
    /// Backup: after [`Action::BeginDrain`], everything stored is executed and the disk is
    /// durable.
    Drained {
        /// The end of the log it holds.
        position: Position,
    },
    /// Backup or joiner: what is here can't become the VM, and it is nobody's fault but this
    /// host's (its disk fails). It drops out and doesn't claim. After [`Event::Drained`] it is
    /// too late to say so.
    Unfit {
        /// What to tell a person.
        why: String,
    },
    /// Replay and original differ. Live: the backup is sent away and synced again. Backup:
    /// it drops out and never claims.
    Diverged {
        /// The first differing item.
        detail: String,
    },
}

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Said all there was to say.
    Done,
    /// More connections than [`crate::config::MAX_CONNS`].
    TooMany,
    /// The peer broke the protocol.
    Protocol(String),
    /// The session has ended.
    SessionEnded(String),
    /// Handshake took too long, or the node now wants something else.
    Abandoned,
}

/// Weight of a [`Action::Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteLevel {
    /// What happened.
    Info,
    /// Something a person may want to mend.
    Warn,
    /// Something a person must look at.
    Error,
}

/// Why the process should end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExitReason {
    /// The VM is off and the record says so (poweroff, reset under "exit", `ctl stop`, or
    /// SIGTERM while solo).
    #[error("the VM is off")]
    Halted,
    /// SIGTERM, and the VM lives on elsewhere, or none was here.
    #[error("asked to end, and no VM runs here")]
    Terminated,
    /// SIGTERM twice: left without waiting.
    #[error("asked to end twice: left without waiting")]
    Forced,
    /// This backup was sent away, or left, by `ctl detach`.
    #[error("detached: the VM goes on without this node")]
    Detached,
    /// The peer, live, has powered the VM off.
    #[error("the VM is off: the live node has powered it off")]
    PeerHalted,
}

/// Everything a node can ask of its driver. Carry them out in order: an [`Action::Emit`]
/// must have been handed to the wire before a later [`Action::Send`] leaves, because that
/// frame may tell the backup to forget the output.
#[derive(Clone, Debug)]
pub enum Action<T> {
    /// Connect to the peer's channel address; answer with [`Event::ChannelUp`] or
    /// [`Event::DialFailed`].
    Dial,
    /// Queue a frame.
    Send {
        /// Where.
        conn: ConnId,
        /// What.
        message: Message,
    },
    /// Hand over no more frames from it; let queued ones leave if they can, then close.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },

    /// Read the arbiter's record.
    ArbiterRead {
        /// For the answer.
        req: ReqId,
    },
    /// Compare and set it. With disks, [`Action::MarkDisks`] came before.
    ArbiterCas {
        /// For the answer.
        req: ReqId,
        /// The generation it must have now.
        expect: Generation,
        /// What to put there.
        record: Record,
    },
    /// Store this generation beside the node's id, durably, before the next action.
    PersistGeneration {
        /// The generation learnt.
        generation: Generation,
    },

    /// Store this mark beside the disks, durably, before the next action. Never asked of a node
    /// that was started with [`DiskMark::NONE`].
    MarkDisks {
        /// From now on.
        mark: DiskMark,
    },

    /// Power the VM on from its disks, and execute. The record is won.
    ColdStart {
        /// By this generation.
        generation: Generation,
    },
    /// The drained backup becomes the machine: step time forward, execute. The record is
    /// won. (With shared storage: fence first.)
    GoLive {
        /// By this generation.
        generation: Generation,
    },
    /// Announce the guest's addresses (RARP, gratuitous ARP, unsolicited NA).
    Announce,
    /// Put this output on the wire. On a backup (`output = "backup"`) too: what teaches a network
    /// where the guest is must not do so from there.
    Emit {
        /// The end of its record.
        position: Position,
        /// The output.
        item: T,
    },
    /// Live, with `output = "backup"`: the outputs up to here have left, at the backup.
    Left {
        /// The end of the last one's record.
        position: Position,
    },
    /// Stop executing at the next slice end, append and flush what is there, answer with
    /// [`Event::Frozen`]. The VM is kept.
    Freeze,
    /// Execute again.
    Thaw,
    /// The VM here is worthless: drop it, and whatever was received.
    Discard,

    /// Live: take a snapshot for this session and stream it; from its position on, every
    /// batch goes to [`Event::Flushed`].
    TakeSnapshot {
        /// Whose.
        session: SessionId,
    },
    /// This session is over: stop its snapshot, drop what is kept for it. Also on a joiner, if the
    /// snapshot had not begun.
    EndSession {
        /// Whose.
        session: SessionId,
    },
    /// Backup: a snapshot at this position begins.
    BeginInstall {
        /// Whose.
        session: SessionId,
        /// Where its log goes on.
        position: Position,
    },
    /// Backup: its next piece; after the last, restore and answer [`Event::Installed`].
    InstallChunk {
        /// Whose.
        session: SessionId,
        /// Where it belongs.
        offset: u64,
        /// The piece.
        bytes: Vec<u8>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Backup: check and store this batch, answer [`Event::Stored`].
    Store {
        /// Whose.
        session: SessionId,
        /// Position before it.
        first: Position,
        /// Position after it.
        end: Position,
        /// Its bytes.
        batch: Vec<u8>,
    },
    /// Either side: opaque words from the other replica.
    Side {
        /// Whose.
        session: SessionId,
        /// What it said.
        bytes: Vec<u8>,
    },
    /// Backup: store nothing more, execute all that is stored, make the disk durable,
    /// answer [`Event::Drained`].
    BeginDrain,

    /// For status and the journal.
    RoleChanged {
        /// Before.
        from: RoleKind,
        /// Now.
        to: RoleKind,
        /// Why, for a person.
        why: String,
    },
    /// For the journal; the last one of a waiting node says what it waits for.
    Note {
        /// Weight.
        level: NoteLevel,
        /// One sentence.
        text: String,
    },
    /// The configurations of the two nodes differ.
    Mismatch(Mismatch),
    /// Answer to [`Event::Ctl`]: begun, or refused with a reason.
    CtlAnswer {
        /// The request.
        ctl: Ctl,
        /// Begun or not.
        result: Result<(), String>,
    },
    /// End the process. Nothing follows.
    Exit {
        /// Why.
        reason: ExitReason,
    },
    /// A fault of our own was found. The event that showed it had no other effect. Freeze
    /// everything, emit nothing, exit. Nothing follows.
    Fatal {
        /// What was found.
        what: String,
    },
}

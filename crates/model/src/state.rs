//! The world: two nodes, the connections between them, the arbiter's register, and what has been
//! seen from outside.

use crate::disk::Disk;
use crate::log::Log;
use crate::record::{Cas, Id, Record};

/// What a node is. `twinvm_protocol::RoleKind` has the diagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// No process runs: not started yet, crashed, or exited.
    #[default]
    Off,
    /// Looks for a live node to join, or for the right to start.
    Cold,
    /// As Cold, with the VM that lost.
    Frozen,
    /// Receives a snapshot.
    Joining,
    /// Replays.
    Backup,
    /// Drains what it has stored.
    Draining,
    /// Was never told that it is named: looks at the record.
    Reading,
    /// Claims.
    Asking,
    /// Executes and speaks.
    Live,
}

impl Role {
    /// Whether it looks for a live node or a start.
    pub fn seeks(self) -> bool {
        matches!(self, Self::Cold | Self::Frozen)
    }

    /// Whether it could claim with a session.
    pub fn holds(self) -> bool {
        matches!(
            self,
            Self::Backup | Self::Draining | Self::Reading | Self::Asking
        )
    }
}

/// Whom a live node is linked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// With nobody.
    #[default]
    Solo,
    /// Pairing: the snapshot is not taken yet.
    Snapshot,
    /// Pairing: the joiner installs.
    CatchUp,
    /// Pairing: is the arbiter there?
    Probe,
    /// Pairing: the gate is on.
    GateOn,
    /// Pairing: the CAS is out.
    PairCas,
    /// The settled record names the session.
    Paired,
    /// A change of record must be won first.
    Settling,
}

/// What a stop is for; more final ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stop {
    /// The backup takes over, this node joins again.
    Handover,
    /// SIGTERM.
    Leave,
    /// The VM is powered off.
    Halt,
}

/// The present question to the arbiter, if it is a compare-and-set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// None is out.
    #[default]
    None,
    /// On its way.
    Out(Cas),
    /// It took effect or not; the answer, with the record it found or made, is on its way.
    Answered(Cas, Option<Record>),
    /// Its outcome is unknown; it will be sent again.
    Unknown(Cas),
}

/// A read's answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// It answers the present question; else the node has forgotten that it asked, and only
    /// takes note.
    pub asked: bool,
    /// The record at the time of the read.
    pub record: Option<Record>,
    /// For the checker: the arbiter had lost its record by then.
    pub after_loss: bool,
}

/// What a peer said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// It is live.
    pub live: bool,
    /// The highest generation it knows.
    pub generation: u8,
    /// It holds a session (of the caller's, as there are two nodes).
    pub holds: bool,
    /// It came after the record that is being decided on.
    pub fresh: bool,
}

/// A call's answer on its way: what the peer is, and its welcome if it gave one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The peer.
    pub answer: Answer,
    /// Its settled generation, if it welcomed the caller.
    pub welcome: Option<u8>,
}

/// What a seeking node knows of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Known {
    /// Not read in this search.
    #[default]
    Unread,
    /// There is none.
    Absent,
    /// [`Node::record`].
    Record,
}

/// A start by force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forced {
    /// Nobody asked for it, or it was refused.
    #[default]
    No,
    /// A person asked for it when the process was started, and was shown a record of this
    /// generation.
    Asked(u8),
    /// Its CAS was sent.
    Sent,
}

/// One node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// What it is.
    pub role: Role,
    /// The highest generation learnt; survives crashes.
    pub generation: u8,
    /// SIGTERM has come.
    pub terminating: bool,
    /// The newest record seen by this process; a live node's settled one.
    pub record: Option<Record>,
    /// Its CAS.
    pub question: Question,
    /// Its read.
    pub seen: Option<Seen>,

    /// Seeking: the record.
    pub known: Known,
    /// Seeking: the peer's last answer.
    pub answer: Option<Answer>,
    /// Seeking: a person wants it to start.
    pub forced: Forced,
    /// Seeking: a call under way.
    pub call: Option<Call>,
    /// Seeking: welcomed by a live node with this generation; following: by whom.
    pub welcomed: Option<u8>,

    /// The machine's log: executed (live), received (following).
    pub log: Log,
    /// Following: stored up to here.
    pub stored: u8,
    /// Draining: the last position, as read.
    pub drained: u8,
    /// Following: named by this generation, as the live node told.
    pub told: Option<u8>,
    /// Outputs up to here have left (live), are proven to have left (following).
    pub released: u8,

    /// Live: with whom.
    pub link: Link,
    /// Live: this session's ack.
    pub acked: u8,
    /// Live: the joiner has installed the snapshot.
    pub installed: bool,
    /// Live: the gate was turned on here.
    pub gate_on: u8,
    /// Live, settling: the change is to say halted.
    pub want_halted: bool,
    /// Live, settling: its CAS was sent.
    pub asked: bool,
    /// Live, settling: the backup is left time to claim first.
    pub waits: bool,
    /// Live, settling: the VM stands still for a handover.
    pub thaw: bool,
    /// Live: a stop under way.
    pub stop: Option<Stop>,
    /// For the checker: another node has won the record with a log that has this much of ours.
    pub lost_at: Option<u8>,
}

/// How a session ends in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bye {
    /// All is acked and released: claim.
    Claim,
    /// The VM is off.
    Halted,
    /// The record no longer names the backup.
    Detached,
    /// This session is given up.
    Leaving,
}

/// The session connection of one direction: from a live node to its follower. What is under way
/// is a stream of which the follower has taken a prefix: snapshot, log, told, goodbye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn {
    /// The live node's end is open.
    pub live_end: bool,
    /// The follower's end is open.
    pub follower_end: bool,
    /// Nothing more gets through; either end may notice at any time.
    pub broken: bool,
    /// The snapshot stands here, once it was sent.
    pub base: Option<u8>,
    /// What was sent, snapshot included.
    pub stream: Log,
    /// Sent after the stream had this length: named by that generation.
    pub told: Option<(u8, u8)>,
    /// The last thing sent.
    pub bye: Option<Bye>,
    /// On the way back: the highest ack.
    pub acked: u8,
    /// On the way back: the snapshot is installed.
    pub installed: bool,
    /// On the way back: the backup has emitted all outputs up to here. With `output = "backup"`.
    pub spoken: u8,
}

/// Requests that outlive their askers: as many as matter at one time.
pub const MAX_STRAYS: usize = 6;

/// What is left of what may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Left {
    /// Crashes, cuts, unknown outcomes.
    pub faults: u8,
    /// Poweroffs, and what people ask for.
    pub requests: u8,
    /// Inputs.
    pub inputs: u8,
    /// Whether `cold_delay_ms` is set. (It may pass any number of times.)
    pub cold_delay: bool,
    /// Losses of the arbiter's record.
    pub wipes: u8,
}

/// What must never be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// A former live node emitted what is not in the winner's log.
    LoserEmitted,
    /// Outputs that no single history contains.
    TwoHistories,
    /// An output was passed over: a later one left before it ever did.
    OutputLost,
    /// The VM was powered off before all its outputs had left.
    OffTooEarly,
    /// A backup emitted what is not in the log of the node that is live.
    SpokenElsewhere,
    /// Something emitted is missing in the state that goes live.
    EmittedMissing,
    /// The record names a backup that lacks something emitted.
    NamedLacks,
    /// Went live without being named by the record.
    NotNamed,
    /// Two nodes are live by one generation.
    TwoLive,
    /// A cold start by a node that the record doesn't name.
    StartNotNamed,
    /// A cold start beside a backup that holds the VM, or beside a live node.
    StartBeside,
    /// A start from disks that lack what was emitted, or began this boot.
    OldStarted,
    /// A start from disks that are partly one copy, partly another.
    HalfStarted,
    /// A person had such disks started by force, and was not told.
    HalfUnsaid,
    /// By the marks a copy is the newest, but the other one has what it lacks.
    NewerLacks,
    /// A machine was thrown away although the record names its node live, or may yet.
    WinnerDiscarded,
    /// The arbiter has lost its record. Whom that gave the VM to threw the machine away, and no other
    /// node has it.
    LostDiscarded,
    /// An invariant that the production node checks at run time.
    Invariant(&'static str),
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    /// The arbiter's register.
    pub register: Option<Record>,
    /// A and B.
    pub nodes: [Node; 2],
    /// Theirs. Untouched if there are none in the scope.
    pub disks: [Disk; 2],
    /// By the live node's id.
    pub conns: [Conn; 2],
    /// The record that the arbiter has lost, for the checker.
    pub lost: Option<Record>,
    /// A node has built on a record that came back from the past: nothing more is looked at.
    pub beyond: bool,
    /// Compare-and-sets whose askers have forgotten them; they land late or never.
    pub strays: [Option<Cas>; MAX_STRAYS],
    /// The log up to the last output that has left, of this boot.
    pub history: Log,
    /// What may still happen.
    pub left: Left,
    /// What went wrong.
    pub wrong: Option<Wrong>,
}

impl World {
    /// A node.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.ix()]
    }

    /// The connection on which `live` is the live end.
    pub fn conn(&self, live: Id) -> &Conn {
        &self.conns[live.ix()]
    }

    /// One node is down; the other is not live, though the record names it live, or names it backup
    /// and it holds the session.
    pub fn waits_alone(&self) -> bool {
        self.register.is_some_and(|record| {
            let (named, peer) = (self.node(record.live), self.node(record.live.other()));
            let waits = |node: &Node| !matches!(node.role, Role::Off | Role::Live);
            let live = peer.role == Role::Off && waits(named);
            let backup = record.backup == Some(true) && peer.role.holds();
            live || named.role == Role::Off && backup
        })
    }

    /// The id named live has other disks than the record means: by themselves the nodes wait for
    /// ever.
    pub fn waits_for_a_person(&self) -> bool {
        self.register
            .is_some_and(|r| !self.disks[r.live.ix()].starts(r.generation))
    }

    /// Live and paired by the settled record, and a backup told so, with nothing owed to the
    /// outside: what must always be within reach.
    pub fn is_protected(&self) -> bool {
        Id::BOTH.into_iter().any(|id| {
            let (live, backup) = (self.node(id), self.node(id.other()));
            let conn = self.conn(id);
            live.role == Role::Live
                && live.link == Link::Paired
                && live.stop.is_none()
                && live.record == self.register
                && backup.role == Role::Backup
                && backup.told.is_some()
                && !live.terminating
                && !backup.terminating
                && conn.live_end
                && conn.follower_end
                && !conn.broken
                && !live.log.old
                && live.log.outputs(self.history.len()).next().is_none()
        })
    }
}

//! What a driver tells a [`crate::Replica`], and what it is asked for.

use twinvm_protocol::{
    Action as ProtocolAction, CloseReason, ConnId, Ctl, DiskMark, ExitReason, Force, Generation,
    Message, NoteLevel, Outcome, Record, ReqId, RoleKind,
};

use crate::HostTime;
use crate::install::{SnapshotPieces, SnapshotSource};
use crate::stored::Stored;
use crate::sync::{DisksIn, DisksOut};
use twinvm_machine::{DiskRequest, PowerOn};

/// What a replica reads from its surroundings while it works.
pub trait Env {
    /// The host's clocks now.
    fn now(&mut self) -> HostTime;
    /// The guest has just executed this many steps. They took their time on a host's own clock,
    /// which has nothing to do here; a simulated one moves on by them.
    fn ran(&mut self, steps: u64);
    /// Fills `bytes` from the host's source of randomness.
    fn random(&mut self, bytes: &mut [u8]);
    /// Wall time now, for a machine that powers on: nanoseconds since 1970.
    fn wall_ns(&mut self) -> u64;
    /// Has a snapshot read, best on a thread beside the guest's. At most a few pieces
    /// may wait: the replica takes them as the channel has room.
    fn read_snapshot(&mut self, source: SnapshotSource) -> Box<dyn SnapshotPieces>;
    /// Begins to send this node's copies of the disks to a joining node.
    ///
    /// # Errors
    /// In one sentence: why this host can't.
    fn send_disks(&mut self) -> Result<Box<dyn DisksOut>, String>;
    /// Begins to take the live node's copies in place of this node's, once nothing gets at these
    /// any more.
    ///
    /// # Errors
    /// In one sentence: why this host can't.
    fn take_disks(&mut self) -> Result<Box<dyn DisksIn>, String>;
    /// Whatever stores and acks a session's log beside the replica ends to do so, in one step with
    /// what this gives back: batches that it has acked and not handed over, in order.
    fn end_storing(&mut self) -> Vec<Stored>;
}

/// What a power-on draws from the environment.
pub(crate) fn draw_power_on(env: &mut dyn Env) -> PowerOn {
    let mut rng_seed = [0; 32];
    env.random(&mut rng_seed);
    PowerOn {
        rng_seed,
        rtc_base_ns: env.wall_ns(),
    }
}

/// Everything that can happen to a replica.
#[derive(Debug)]
pub enum Event {
    /// The process is up; ids and lock are held. First event, once.
    Start {
        /// The generation stored beside the node's id.
        generation: Generation,
        /// The mark stored beside its disks.
        disks: DiskMark,
    },
    /// A person wants this node to start whatever the record names. Right after
    /// [`Event::Start`].
    Force(Force),
    /// [`crate::Replica::wait`]'s time has come.
    Tick,
    /// Run the guest for one slice, if it may run.
    Slice,
    /// A frame from the wire for the network device in this slot. Next hop on a live
    /// node: [`crate::Live::net_rx`] at the slice end that this is.
    Frame {
        /// Virtio slot.
        device: u8,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// SIGTERM.
    Terminate,
    /// A request from a person.
    Ctl(Ctl),
    /// A connection is open.
    ChannelUp {
        /// A fresh name.
        conn: ConnId,
        /// Whether [`Action::Dial`] made it.
        dialed: bool,
        /// A fresh random number.
        nonce: u128,
    },
    /// [`Action::Dial`] came to nothing.
    DialFailed,
    /// A connection has ended.
    ChannelDown {
        /// The connection.
        conn: ConnId,
    },
    /// A frame of the channel.
    Received {
        /// The connection.
        conn: ConnId,
        /// The frame.
        message: Message,
    },
    /// Backup: a batch that was stored and acked beside the loop, in order with the frames of its
    /// connection; [`crate::Replica::storing`] says from where on.
    Stored {
        /// The connection.
        conn: ConnId,
        /// The batch.
        stored: Stored,
    },
    /// Bytes that wait to be sent on all connections together. The replica sends
    /// snapshot pieces and holds the guest back by it.
    Queued {
        /// How many.
        bytes: usize,
    },
    /// A disk's request has ended ([`Action::Disk`]).
    DiskDone {
        /// Virtio slot.
        device: u8,
        /// The request's number.
        id: u64,
        /// 0 done, 1 failed.
        status: u8,
        /// What a read that was done has read.
        data: Vec<u8>,
    },
    /// [`Action::FlushDisks`] is done, or why it can't be.
    DisksFlushed {
        /// Which.
        flush: u64,
        /// Whether all that was written is on stable storage.
        result: Result<(), String>,
    },
    /// The arbiter answered.
    Arbiter {
        /// Which request.
        req: ReqId,
        /// How it ended.
        outcome: Outcome,
    },
}

/// Everything a replica asks of its driver, to be carried out in order.
#[derive(Debug)]
pub enum Action {
    /// This node executes from now on, by this generation: whoever had the shared disks by an
    /// older one is cut off before anything is read from them or written to them. Requests that
    /// were under way before mean nothing any more.
    ClaimDisks {
        /// By this generation.
        generation: Generation,
        /// Another node was live before, by the record.
        takeover: bool,
    },
    /// A backup's machine comes, and some of the shared disks are read by both nodes: their requests
    /// that follow are reads, over a connection that takes nothing from the live node.
    ReadDisks,
    /// Connect to the peer.
    Dial,
    /// Queue a frame of the channel.
    Send {
        /// Where.
        conn: ConnId,
        /// What.
        message: Message,
    },
    /// Close a connection.
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
    /// Compare and set it.
    ArbiterCas {
        /// For the answer.
        req: ReqId,
        /// The generation it must have.
        expect: Generation,
        /// What to put there.
        record: Record,
    },
    /// Store the generation durably before going on.
    PersistGeneration {
        /// The generation.
        generation: Generation,
    },
    /// Store the mark of the disks durably before going on.
    MarkDisks {
        /// From now on.
        mark: DiskMark,
    },
    /// Put a frame on the wire. The last hop of the packet's way.
    Transmit {
        /// Virtio slot of the network device.
        device: u8,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Carry a disk's request out on this node's copy, answer with [`Event::DiskDone`]. Several may
    /// be under way at once, in any order.
    Disk(DiskRequest),
    /// Bring everything that was written to this node's copies to stable storage, answer with
    /// [`Event::DisksFlushed`].
    FlushDisks {
        /// For the answer.
        flush: u64,
    },
    /// Name this moment: what is handed out later is written after it, and so is what is in flight
    /// now. Then make durable what was written, and answer with [`Event::DisksFlushed`].
    DiskPoint {
        /// For [`Action::ClearDisks`]; it replaces the one before.
        point: u64,
        /// For the answer.
        flush: u64,
        /// Handed out, and not ended for the guest: on one node's copy it may be done, and on the
        /// other one's not even begun.
        in_flight: Vec<DiskRequest>,
    },
    /// What was written before this point is durable on both nodes' copies: they can only differ
    /// in what was written since.
    ClearDisks {
        /// Which.
        point: u64,
    },
    /// The copies here were not what the live node's are, and nobody knows where else: note it
    /// durably, so that the next copy from the live node compares all of them.
    DoubtDisks,
    /// The machine here is gone. Of the requests under way no answer may come any more, and what
    /// they do must be over before another machine's requests, or a copy from the other node, get
    /// at the disks.
    ForgetDisks,
    /// The guest printed this.
    Console(Vec<u8>),
    /// The role has changed.
    RoleChanged {
        /// Before.
        from: RoleKind,
        /// Now.
        to: RoleKind,
        /// Why.
        why: String,
    },
    /// For the journal.
    Note {
        /// Weight.
        level: NoteLevel,
        /// One sentence.
        text: String,
    },
    /// Answer to [`Event::Ctl`].
    CtlAnswer {
        /// The request.
        ctl: Ctl,
        /// Begun, or refused with a reason.
        result: Result<(), String>,
    },
    /// End the process in good order.
    Exit {
        /// Why.
        reason: ExitReason,
    },
    /// End the process at once: a fault of our own.
    Fatal {
        /// What was found.
        what: String,
    },
}

/// What the protocol asks that a driver carries out; the other half is what the
/// replica does itself.
pub(crate) enum Sorted<T> {
    Driver(Action),
    Own(ProtocolAction<T>),
}

/// Tells who carries an action out.
pub(crate) fn sort<T>(action: ProtocolAction<T>) -> Sorted<T> {
    Sorted::Driver(match action {
        ProtocolAction::Dial => Action::Dial,
        ProtocolAction::Send { conn, message } => Action::Send { conn, message },
        ProtocolAction::Close { conn, reason } => Action::Close { conn, reason },
        ProtocolAction::ArbiterRead { req } => Action::ArbiterRead { req },
        ProtocolAction::ArbiterCas {
            req,
            expect,
            record,
        } => Action::ArbiterCas {
            req,
            expect,
            record,
        },
        ProtocolAction::PersistGeneration { generation } => {
            Action::PersistGeneration { generation }
        }
        ProtocolAction::MarkDisks { mark } => Action::MarkDisks { mark },
        ProtocolAction::RoleChanged { from, to, why } => Action::RoleChanged { from, to, why },
        ProtocolAction::Note { level, text } => Action::Note { level, text },
        ProtocolAction::Mismatch(mismatch) => Action::Note {
            level: NoteLevel::Error,
            text: mismatch.to_string(),
        },
        ProtocolAction::CtlAnswer { ctl, result } => Action::CtlAnswer { ctl, result },
        ProtocolAction::Exit { reason } => Action::Exit { reason },
        ProtocolAction::Fatal { what } => Action::Fatal { what },
        own => return Sorted::Own(own),
    })
}

//! Two nodes in one process: production replicas, joined by queues, with a clock and an
//! arbiter in memory. A test moves everything by hand or lets it run.

mod actions;
mod disks;
mod hand;
mod surroundings;
mod turns;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use twinvm_log::{Batch, Body, Record as LogRecord};
use twinvm_machine::{DiskRequest, Images, MachineConfig, NET_HEADER_BYTES, OnReset, SlotConfig};
use twinvm_protocol::node::Mutation;
use twinvm_protocol::{
    ArbiterContract, Config, ConnId, DiskMark, ExitReason, Field, Generation, Identity,
    Incarnation, MemoryArbiter, Message, NodeId, Outcome, OutputFrom, Record, ReqId, RoleKind,
    SessionId,
};
use twinvm_replica::{
    Action, DisksIn, DisksOut, Env, Event, Flush, HostTime, Reads, Replica, SnapshotPieces,
    SnapshotSource, Stored, Wait,
};

use crate::guest;
use crate::shared::Server;
use crate::toy::{Toy, ToyIn, ToyOut, Work};
use disks::disk_machine;
use surroundings::Surroundings;

/// The node that tests start first.
pub(crate) const A: usize = 0;
/// The other one.
pub(crate) const B: usize = 1;

/// A slice of the guest takes this long on the world's clock.
const SLICE_NS: u64 = 30_000;
/// A node looks at its timers this often at least: 1 ms.
const TICK_NS: u64 = 1_000_000;
/// Each look at the clock takes this long, so that time always moves.
const LOOK_NS: u64 = 100;
/// How long anything that a test waits for may take on the world's clock: 20 s.
const PATIENCE_NS: u64 = 20_000_000_000;

/// What waits to be handed to a node, in the order of the one channel.
#[derive(Debug)]
pub(crate) enum Incoming {
    Up {
        conn: ConnId,
        dialed: bool,
        nonce: u128,
    },
    Message {
        conn: ConnId,
        message: Message,
    },
    Down {
        conn: ConnId,
    },
}

/// A connection: its name at each end, `None` once that end has closed it.
struct Link {
    ends: [Option<ConnId>; 2],
}

/// One node and what the world has seen of it.
pub(crate) struct Side {
    pub(crate) replica: Replica,
    /// From the peer, not yet handed over.
    pub(crate) inbox: VecDeque<Incoming>,
    /// To the arbiter, not yet carried out.
    pub(crate) questions: VecDeque<(ReqId, Option<(Generation, Record)>)>,
    /// Frames that it has put on the wire.
    pub(crate) wire: Vec<Vec<u8>>,
    /// The log it holds by what it was sent since it runs: its own storing, not its promise.
    pub(crate) received: Vec<(u64, LogRecord)>,
    /// Side messages that it was sent.
    asked: usize,
    pub(crate) exited: Option<ExitReason>,
    pub(crate) notes: Vec<String>,
    pub(crate) printed: String,
    last_tick_ns: u64,
}

/// Both nodes and everything between them.
pub(crate) struct World {
    env: Surroundings,
    pub(crate) arbiter: MemoryArbiter,
    pub(crate) sides: [Option<Side>; 2],
    generations: [Generation; 2],
    links: Vec<Link>,
    next_conn: u64,
    /// Nothing is handed to this node from its inbox.
    pub(crate) hold_inbox: [bool; 2],
    /// The arbiter does not hear this node.
    pub(crate) hold_questions: [bool; 2],
    /// Frames on the wire in the order they left, with the node that sent each.
    pub(crate) wire: Vec<(usize, Vec<u8>)>,
    /// Of 256 looks into the channel, so many find nothing although there is something.
    pub(crate) lateness: u8,
    starts: u128,
    /// Side messages get lost.
    pub(crate) mute: bool,
    /// What B is handed in the place of each side message.
    pub(crate) instead: Option<Vec<u8>>,
    /// The rule that every node breaks from its start on.
    pub(crate) broken: Option<Mutation>,
    /// Who emits, by node.
    pub(crate) output: [OutputFrom; 2],
    /// The guest works on a disk for so many rounds, and has no network card.
    pub(crate) disk_rounds: Option<u32>,
    pub(crate) flush: Flush,
    /// Points that each node has made, and that both have.
    pub(crate) points: [Vec<u64>; 2],
    /// What was in flight at them.
    pub(crate) in_flight: [Vec<Vec<DiskRequest>>; 2],
    /// How often a copy was doubted.
    pub(crate) doubts: [u32; 2],
    pub(crate) cleared: [Vec<u64>; 2],
    /// The disk is one that both nodes reach.
    pub(crate) server: Option<Server>,
    /// How a backup learns what was read there.
    pub(crate) reads: Reads,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            env: Surroundings {
                now_ns: 1_000_000_000,
                dice: 1,
                at: A,
                toys: std::array::from_fn(|_| Rc::new(RefCell::new(Toy::new()))),
                kept: Vec::new(),
            },
            disk_rounds: None,
            flush: Flush::default(),
            points: [Vec::new(), Vec::new()],
            in_flight: [Vec::new(), Vec::new()],
            doubts: [0; 2],
            cleared: [Vec::new(), Vec::new()],
            server: None,
            reads: Reads::default(),
            arbiter: MemoryArbiter::new(),
            sides: [None, None],
            generations: [Generation(0); 2],
            links: Vec::new(),
            next_conn: 1,
            hold_inbox: [false; 2],
            hold_questions: [false; 2],
            wire: Vec::new(),
            lateness: 0,
            starts: 0,
            mute: false,
            instead: None,
            broken: None,
            output: [OutputFrom::Live; 2],
        }
    }

    /// A live A and its paired backup B, the guest waiting for frames.
    pub(crate) fn paired() -> Self {
        let mut world = Self::new();
        world.pair();
        world
    }

    /// Starts A, then B, and runs until they are a pair.
    pub(crate) fn pair(&mut self) {
        self.start(A);
        self.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
        self.start(B);
        self.run_until("B is paired", |w| w.protected(A) && w.protected(B));
        self.run_ms(20);
    }

    // ---- the nodes --------------------------------------------------------

    /// Starts a process for this node.
    pub(crate) fn start(&mut self, side: usize) {
        assert!(self.sides[side].is_none(), "node {side} runs already");
        self.starts += 1;
        let config = match self.disk_rounds {
            Some(rounds) => disk_machine(rounds),
            None => machine(),
        };
        let fields = config.fields().into_iter();
        let identity = Identity {
            id: NodeId(0xa0 + side as u128),
            name: ["a", "b"][side].to_owned(),
            peer_name: ["b", "a"][side].to_owned(),
            incarnation: Incarnation(self.starts << 64),
            machine: fields.map(|(name, value)| Field { name, value }).collect(),
        };
        let protect = Config {
            output: self.output[side],
            ..Config::default()
        };
        self.sides[side] = Some(Side {
            replica: Replica::new(identity, protect, config),
            inbox: VecDeque::new(),
            questions: VecDeque::new(),
            wire: Vec::new(),
            received: Vec::new(),
            asked: 0,
            exited: None,
            notes: Vec::new(),
            printed: String::new(),
            last_tick_ns: 0,
        });
        let flush = self.flush;
        self.side(side).replica.set_flush(flush);
        if self.server.is_some() {
            let disks = [(0, self.reads)];
            self.side(side).replica.set_shared_disks(&disks);
        }
        if let Some(mutation) = self.broken {
            self.side(side).replica.break_rule(mutation);
        }
        let generation = self.generations[side];
        let disks = DiskMark::NONE;
        self.apply(side, Event::Start { generation, disks });
    }

    /// kill -9: what it has sent still arrives, then the connections end.
    pub(crate) fn kill(&mut self, side: usize) {
        self.sides[side] = None;
        self.forget_disk(side);
        let ends = self.links.iter_mut().filter_map(|link| {
            link.ends[side] = None;
            link.ends[1 - side].take()
        });
        let down: Vec<ConnId> = ends.collect();
        self.links.clear();
        if let Some(peer) = &mut self.sides[1 - side] {
            peer.inbox
                .extend(down.into_iter().map(|conn| Incoming::Down { conn }));
        }
    }

    /// kill -9 with a host that dies: of what was on its way, only the oldest `keep` arrive.
    pub(crate) fn kill_losing(&mut self, side: usize, keep: usize) {
        self.side(1 - side).inbox.truncate(keep);
        self.kill(side);
    }

    /// A process that has ended is no longer there.
    pub(crate) fn gone(&mut self, side: usize) {
        assert!(self.exited(side), "node {side} still runs");
        self.sides[side] = None;
    }

    pub(crate) fn exited(&self, side: usize) -> bool {
        let side = self.sides[side].as_ref();
        side.is_some_and(|side| side.exited.is_some())
    }

    pub(crate) fn side(&mut self, side: usize) -> &mut Side {
        self.sides[side].as_mut().expect("the node runs")
    }

    pub(crate) fn role(&self, side: usize) -> Option<RoleKind> {
        let side = self.sides[side].as_ref()?;
        Some(side.replica.status().protocol.role)
    }

    pub(crate) fn protected(&self, side: usize) -> bool {
        let side = self.sides[side].as_ref();
        side.is_some_and(|side| side.replica.status().protocol.protected)
    }

    /// The session that a node has open.
    pub(crate) fn session(&self, side: usize) -> Option<SessionId> {
        let side = self.sides[side].as_ref()?;
        side.replica.status().protocol.session
    }

    /// A node's connection.
    pub(crate) fn conn(&self, at: usize) -> ConnId {
        let conn = self.links.iter().find_map(|link| link.ends[at]);
        conn.expect("it is connected")
    }

    /// The state of a live node's link with its backup.
    pub(crate) fn link(&self, side: usize) -> &'static str {
        let side = self.sides[side].as_ref();
        side.map_or("", |side| side.replica.status().protocol.link)
    }

    /// The numbers of the guest's answers that have left, in the order they left.
    pub(crate) fn answers(&self) -> Vec<u64> {
        let frames = self.wire.iter();
        frames
            .filter_map(|(_, frame)| guest::answer(frame))
            .collect()
    }
}

/// The machine of all tests here: a network card and little memory.
pub(crate) fn machine() -> MachineConfig {
    MachineConfig {
        ram_bytes: 8 << 20,
        harts: 1,
        slots: vec![SlotConfig::Net { mac: guest::MAC }],
        cmdline: String::new(),
        images: Images::new(guest::image(), None),
        on_reset: OnReset::Exit,
    }
}

/// A batch's records, each with the position behind it.
pub(crate) fn records(batch: &[u8]) -> Vec<(u64, LogRecord)> {
    let batch = Batch::decode(batch).expect("a batch of ours decodes");
    let first = batch.first_position;
    let ends = (first + 1..).zip(batch.records);
    ends.collect()
}

/// Whether a record is the guest's output.
pub(crate) fn is_output(record: &LogRecord) -> bool {
    matches!(record.body, Body::Output { .. })
}

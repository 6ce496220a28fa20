//! Two nodes in one process: production replicas, joined by queues, with a clock and an
//! arbiter in memory. A test moves everything by hand or lets it run.

mod disks;
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
    Action, DisksIn, DisksOut, Env, Event, Flush, HostTime, Replica, SnapshotPieces,
    SnapshotSource, Stored, Wait,
};

use crate::guest;
use crate::shared::Server;
use crate::toy::{Toy, ToyIn, ToyOut, Work};
use disks::disk_machine;

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

/// The world's clock and dice.
struct Surroundings {
    now_ns: u64,
    dice: u64,
    /// Whose turn it is.
    at: usize,
    toys: [Rc<RefCell<Toy>>; 2],
    /// Stored and acked beside a replica that has not been told yet.
    kept: Vec<Stored>,
}

impl Env for Surroundings {
    fn now(&mut self) -> HostTime {
        self.now_ns += LOOK_NS;
        HostTime {
            mono_ns: self.now_ns,
        }
    }

    fn ran(&mut self, _steps: u64) {}

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (self.dice >> 56) as u8;
        }
    }

    fn wall_ns(&mut self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn read_snapshot(&mut self, source: SnapshotSource) -> Box<dyn SnapshotPieces> {
        Box::new(source)
    }

    fn send_disks(&mut self) -> Result<Box<dyn DisksOut>, String> {
        Ok(Box::new(ToyOut::new(&self.toys[self.at])))
    }

    fn take_disks(&mut self) -> Result<Box<dyn DisksIn>, String> {
        let Self { dice, toys, .. } = self;
        toys[self.at].borrow_mut().forget(|| {
            *dice = dice.wrapping_mul(5).wrapping_add(1);
            *dice >> 60 > 7
        });
        Ok(Box::new(ToyIn::new(&self.toys[self.at])))
    }

    fn end_storing(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.kept)
    }
}

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
            self.side(side).replica.set_shared_disks(&[0]);
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

    /// The state of a live node's link with its backup.
    /// A node's connection.
    pub(crate) fn conn(&self, at: usize) -> ConnId {
        let conn = self.links.iter().find_map(|link| link.ends[at]);
        conn.expect("it is connected")
    }

    pub(crate) fn link(&self, side: usize) -> &'static str {
        let side = self.sides[side].as_ref();
        side.map_or("", |side| side.replica.status().protocol.link)
    }

    // ---- one event --------------------------------------------------------

    /// Hands one event to a node and carries out what it asks, into queues.
    pub(crate) fn apply(&mut self, at: usize, event: Event) {
        let Some(side) = &mut self.sides[at] else {
            return;
        };
        if side.exited.is_some() {
            return;
        }
        self.env.at = at;
        side.replica.apply(&mut self.env, event);
        while let Some(action) = self.sides[at]
            .as_mut()
            .and_then(|s| s.replica.next_action())
        {
            self.carry_out(at, action);
        }
    }

    fn carry_out(&mut self, at: usize, action: Action) {
        match action {
            Action::Dial => self.dial(at),
            Action::Send { conn, message } => {
                let Some(conn) = self.far_end(at, conn) else {
                    return;
                };
                let mut message = message;
                if let Message::Side { bytes } = &mut message {
                    self.side(1 - at).asked += 1;
                    if self.mute {
                        return;
                    }
                    if let (A, Some(instead)) = (at, &self.instead) {
                        bytes.clone_from(instead);
                    }
                }
                let inbox = &mut self.side(1 - at).inbox;
                inbox.push_back(Incoming::Message { conn, message });
            }
            Action::Close { conn, .. } => {
                if let Some(far) = self.far_end(at, conn) {
                    let inbox = &mut self.side(1 - at).inbox;
                    inbox.push_back(Incoming::Down { conn: far });
                }
                self.links.retain(|link| link.ends[at] != Some(conn));
            }
            Action::ArbiterRead { req } => self.side(at).questions.push_back((req, None)),
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                let questions = &mut self.side(at).questions;
                questions.push_back((req, Some((expect, record))));
            }
            Action::ClaimDisks { generation, .. } => {
                let mut dice = self.env.dice;
                let server = self.server.as_mut().expect("there is a shared disk");
                server.claim(at, generation, || {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    dice >> 63 == 1
                });
                self.env.dice = dice;
            }
            Action::Disk(request) => self.disk(at, Work::Request(request)),
            Action::FlushDisks { flush } => self.disk(at, Work::Flush(flush)),
            Action::DiskPoint {
                point,
                flush,
                in_flight,
            } => {
                self.points[at].push(point);
                self.in_flight[at].push(in_flight);
                self.disk(at, Work::Flush(flush));
            }
            Action::ClearDisks { point } => self.cleared[at].push(point),
            Action::DoubtDisks => self.doubts[at] += 1,
            Action::ForgetDisks => self.forget_disk(at),
            Action::MarkDisks { .. } => unreachable!("there are no disks"),
            Action::PersistGeneration { generation } => self.generations[at] = generation,
            Action::Transmit { bytes, .. } => {
                // The port's work: nothing is asked of it by this guest and by announcements.
                let (header, frame) = bytes.split_at(NET_HEADER_BYTES);
                assert_eq!(header, [0; NET_HEADER_BYTES]);
                self.wire.push((at, frame.to_vec()));
                self.side(at).wire.push(frame.to_vec());
            }
            Action::Console(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.side(at).printed.push_str(&text);
            }
            Action::RoleChanged { .. } | Action::CtlAnswer { .. } => {}
            Action::Note { text, .. } => self.side(at).notes.push(text),
            Action::Exit { reason } => {
                self.side(at).exited = Some(reason);
                for link in std::mem::take(&mut self.links) {
                    if let (Some(conn), Some(peer)) = (link.ends[1 - at], &mut self.sides[1 - at]) {
                        peer.inbox.push_back(Incoming::Down { conn });
                    }
                }
            }
            Action::Fatal { what } => panic!("node {at} found a fault of its own: {what}"),
        }
    }

    fn far_end(&self, at: usize, conn: ConnId) -> Option<ConnId> {
        self.sides[1 - at].as_ref()?;
        let link = self.links.iter().find(|link| link.ends[at] == Some(conn))?;
        link.ends[1 - at]
    }

    fn dial(&mut self, at: usize) {
        let listens = self.sides[1 - at]
            .as_ref()
            .is_some_and(|peer| peer.exited.is_none());
        if !listens {
            return self.apply(at, Event::DialFailed);
        }
        let mut ends = [None; 2];
        for (side, dialed) in [(at, true), (1 - at, false)] {
            let conn = ConnId(self.next_conn);
            self.next_conn += 1;
            ends[side] = Some(conn);
            let nonce = u128::from(conn.0) << 64 | 1;
            self.side(side).inbox.push_back(Incoming::Up {
                conn,
                dialed,
                nonce,
            });
        }
        self.links.push(Link { ends });
    }

    // ---- by hand ----------------------------------------------------------

    /// Hands the oldest thing in its inbox to a node; what it was.
    pub(crate) fn deliver(&mut self, at: usize) -> Option<String> {
        let incoming = self.sides[at].as_mut()?.inbox.pop_front()?;
        let what = format!("{incoming:?}");
        match incoming {
            Incoming::Up {
                conn,
                dialed,
                nonce,
            } => self.apply(
                at,
                Event::ChannelUp {
                    conn,
                    dialed,
                    nonce,
                },
            ),
            Incoming::Message { conn, message } => {
                if let Message::Log { batch, .. } = &message {
                    let records = records(batch);
                    self.side(at).received.extend(records);
                }
                self.apply(at, Event::Received { conn, message });
            }
            Incoming::Down { conn } => self.apply(at, Event::ChannelDown { conn }),
        }
        Some(what)
    }

    /// What the receiving thread of a host does with the oldest thing in a backup's inbox, a batch of
    /// the log: it is stored and acked, and the replica has not heard of it yet.
    pub(crate) fn store_beside(&mut self, at: usize) -> Stored {
        let storing = self.side(at).replica.storing().expect("it follows");
        let Some(Incoming::Message { conn, message }) = self.side(at).inbox.pop_front() else {
            panic!("no batch of the log");
        };
        let Message::Log {
            first,
            end,
            released,
            batch,
        } = message
        else {
            panic!("no batch of the log, but {message:?}");
        };
        assert_eq!((conn, first), (storing.conn, storing.end));
        let message = Message::Ack {
            received: end,
            emitted: storing.emitted,
            progress: storing.progress,
        };
        if let Some(conn) = self.far_end(at, conn) {
            let inbox = &mut self.side(1 - at).inbox;
            inbox.push_back(Incoming::Message { conn, message });
        }
        Stored::decode(first, end, released, &batch).expect("a batch of ours")
    }

    /// The replica has not heard of it when its session ends.
    pub(crate) fn keep(&mut self, stored: Stored) {
        self.env.kept.push(stored);
    }

    /// Lets the arbiter carry out and answer a node's oldest question.
    pub(crate) fn ask(&mut self, at: usize) {
        let Some((req, cas)) = self.side(at).questions.pop_front() else {
            return;
        };
        let outcome: Outcome = match cas {
            None => self.arbiter.read(),
            Some((expect, record)) => self.arbiter.cas(expect, record),
        };
        self.apply(at, Event::Arbiter { req, outcome });
    }

    /// One slice of the guest, if it may run.
    pub(crate) fn slice(&mut self, at: usize) {
        self.apply(at, Event::Slice);
        self.env.now_ns += SLICE_NS;
    }

    /// A frame from the wire.
    pub(crate) fn frame(&mut self, at: usize, frame: Vec<u8>) {
        assert!(self.side(at).replica.net_room(0), "the guest has room");
        let bytes = [vec![0; NET_HEADER_BYTES], frame].concat();
        self.apply(at, Event::Frame { device: 0, bytes });
    }

    /// A person asks for a digest: the backup compares its own.
    pub(crate) fn digest(&mut self, at: usize) {
        let side = self.sides[at].as_mut().expect("the node runs");
        let position = side.replica.log_digest(&mut self.env);
        assert!(position.is_some(), "a live node has something to compare");
    }

    /// Whether the other node has sent this one a side message.
    pub(crate) fn asked(&self, at: usize) -> bool {
        self.sides[at].as_ref().is_some_and(|side| side.asked > 0)
    }

    pub(crate) fn divergence(&self, at: usize) -> Option<String> {
        self.sides[at].as_ref()?.replica.status().divergence
    }

    pub(crate) fn digests_equal(&self, at: usize) -> u64 {
        let side = self.sides[at].as_ref();
        side.map_or(0, |side| side.replica.status().digests_equal)
    }

    /// Time passes, and nobody is told.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.env.now_ns += ms * 1_000_000;
    }

    /// Delivers and executes what there is, until all is quiet.
    pub(crate) fn settle(&mut self) {
        loop {
            let runs = [A, B].map(|at| {
                let runs = self.side(at).replica.wait() == Wait::Run;
                if runs {
                    self.slice(at);
                }
                let delivered = self.deliver(at).is_some();
                runs || delivered
            });
            if runs == [false, false] {
                return;
            }
        }
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

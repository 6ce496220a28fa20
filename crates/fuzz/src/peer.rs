//! A peer that says what it likes: two nodes, and somebody between them who changes, repeats and
//! makes up frames. A peer is authenticated, so this is what one can do whose host was taken over.

mod disks;

use std::collections::VecDeque;

use twinvm_log::{Body, Record as LogRecord};
use twinvm_machine::{ImageKind, Images, MachineConfig, NET_HEADER_BYTES, OnReset, SlotConfig};
use twinvm_protocol::message::Goodbye;
use twinvm_protocol::{
    ArbiterContract, Config, ConnId, DiskMark, Field, Generation, Identity, Incarnation,
    MemoryArbiter, Message, NodeId, Position, Record, ReqId, RoleKind, SessionId, codec,
};
use twinvm_replica::{
    Action, Env, Event, HostTime, Replica, SnapshotPieces, SnapshotSource, Stored,
};

use twinvm_sim::guest;

use crate::input::Input;

/// A slice of the guest on the clock.
const SLICE_NS: u64 = 30_000;
const MS_NS: u64 = 1_000_000;
/// What is done for one input at most: the guest and both nodes are real.
const STEPS: usize = 200;
/// Frames that wait for one node; what goes over it is lost with its connection.
const INBOX: usize = 4096;

struct Surroundings {
    now_ns: u64,
    dice: u64,
    /// Whose turn it is, and both nodes' disks, if the guest has one.
    at: usize,
    copies: Option<[disks::Copy; 2]>,
}

impl Surroundings {
    fn copy(&self) -> Result<&disks::Copy, String> {
        let copies = self.copies.as_ref().ok_or("there are no disks")?;
        Ok(&copies[self.at])
    }
}

impl Env for Surroundings {
    fn now(&mut self) -> HostTime {
        self.now_ns += 100;
        HostTime {
            mono_ns: self.now_ns,
        }
    }

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (self.dice >> 56) as u8;
        }
    }

    fn ran(&mut self, _: u64) {}

    fn wall_ns(&mut self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn read_snapshot(&mut self, source: SnapshotSource) -> Box<dyn SnapshotPieces> {
        Box::new(source)
    }

    fn send_disks(&mut self) -> Result<Box<dyn twinvm_replica::DisksOut>, String> {
        Ok(Box::new(disks::Out::new(self.copy()?)))
    }

    fn take_disks(&mut self) -> Result<Box<dyn twinvm_replica::DisksIn>, String> {
        Ok(Box::new(disks::In::new(self.copy()?)))
    }

    fn end_storing(&mut self) -> Vec<Stored> {
        // Nobody stores beside the replica here.
        Vec::new()
    }
}

enum Incoming {
    Up {
        conn: ConnId,
        dialed: bool,
        nonce: u128,
    },
    Message(ConnId, Message),
    Down(ConnId),
}

struct Side {
    replica: Replica,
    inbox: VecDeque<Incoming>,
    questions: VecDeque<(ReqId, Option<(Generation, Record)>)>,
    generation: Generation,
    mark: DiskMark,
    /// What its disk has done.
    done: VecDeque<Event>,
    /// It has ended, in good order.
    ended: bool,
}

struct World {
    env: Surroundings,
    arbiter: MemoryArbiter,
    sides: Vec<Side>,
    /// Connections by their names at both ends.
    links: Vec<[ConnId; 2]>,
    next_conn: u64,
}

/// A guest that counts in memory, for ever; or one that answers packets, and flushes its disk before.
fn machine(with_disk: bool) -> MachineConfig {
    if with_disk {
        return MachineConfig {
            ram_bytes: 4 << 20,
            harts: 1,
            slots: vec![SlotConfig::Net { mac: [2; 6] }, disks::slot()],
            cmdline: String::new(),
            images: Images::new(guest::image(Some(0)), None),
            on_reset: OnReset::Exit,
        };
    }
    // auipc t0, 1; addi a0, a0, 1; sd a0, 0(t0); j -8
    let code = [0x0000_1297_u32, 0x0015_0513, 0x00a2_b023, 0xff9f_f06f];
    let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    MachineConfig {
        ram_bytes: 3 << 20,
        harts: 1,
        slots: vec![SlotConfig::Net { mac: [2; 6] }],
        cmdline: String::new(),
        images: Images::default().with(ImageKind::Firmware, &code),
        on_reset: OnReset::Exit,
    }
}

impl World {
    fn new(with_disk: bool) -> Self {
        let mark = match with_disk {
            true => DiskMark::FRESH,
            false => DiskMark::NONE,
        };
        let sides = (0..2).map(|side: usize| {
            let config = machine(with_disk);
            let fields = config.fields().into_iter();
            let identity = Identity {
                id: NodeId(0xa0 + side as u128),
                name: ["a", "b"][side].to_owned(),
                peer_name: ["b", "a"][side].to_owned(),
                incarnation: Incarnation(side as u128 + 1),
                machine: fields.map(|(name, value)| Field { name, value }).collect(),
            };
            Side {
                replica: Replica::new(identity, Config::default(), config),
                inbox: VecDeque::new(),
                questions: VecDeque::new(),
                generation: Generation(0),
                mark,
                done: VecDeque::new(),
                ended: false,
            }
        });
        Self {
            env: Surroundings {
                now_ns: 1_000_000_000,
                dice: 1,
                at: 0,
                copies: with_disk.then(|| [disks::copy(), disks::copy()]),
            },
            arbiter: MemoryArbiter::new(),
            sides: sides.collect(),
            links: Vec::new(),
            next_conn: 1,
        }
    }

    fn apply(&mut self, at: usize, event: Event) {
        if self.sides[at].ended {
            return;
        }
        self.env.at = at;
        self.sides[at].replica.apply(&mut self.env, event);
        self.carry_out_all(at);
    }

    fn start(&mut self, at: usize) {
        let (generation, disks) = (self.sides[at].generation, self.sides[at].mark);
        self.apply(at, Event::Start { generation, disks });
    }

    /// A question for the guest of a live node, if it has room.
    fn question(&mut self, at: usize, seq: u64) {
        let side = &self.sides[at];
        let live = side.replica.status().protocol.role == RoleKind::Live;
        if live && self.env.copies.is_some() && side.replica.net_room(0) {
            let bytes = guest::question(0, seq, 0, guest::Op::Add(1));
            self.apply(at, Event::Frame { device: 0, bytes });
        }
    }

    fn carry_out_all(&mut self, at: usize) {
        while let Some(action) = self.sides[at].replica.next_action() {
            self.carry_out(at, action);
        }
    }

    fn carry_out(&mut self, at: usize, action: Action) {
        match action {
            Action::Dial => {
                let ends = [ConnId(self.next_conn), ConnId(self.next_conn + 1)];
                self.next_conn += 2;
                self.links.push(ends);
                for side in [at, 1 - at] {
                    let (conn, dialed) = (ends[side], side == at);
                    let nonce = u128::from(conn.0) << 64 | 1;
                    self.sides[side].inbox.push_back(Incoming::Up {
                        conn,
                        dialed,
                        nonce,
                    });
                }
            }
            Action::Send { conn, message } => {
                if let Some(far) = self.far_end(at, conn) {
                    self.put(1 - at, Incoming::Message(far, message));
                }
            }
            Action::Close { conn, .. } => self.close(at, conn),
            Action::ArbiterRead { req } => self.sides[at].questions.push_back((req, None)),
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                let questions = &mut self.sides[at].questions;
                questions.push_back((req, Some((expect, record))));
            }
            Action::MarkDisks { mark } => {
                assert!(self.env.copies.is_some() && mark != self.sides[at].mark);
                self.sides[at].mark = mark;
            }
            Action::PersistGeneration { generation } => {
                assert!(generation > self.sides[at].generation);
                self.sides[at].generation = generation;
            }
            Action::Transmit { bytes, .. } => assert!(bytes.len() > NET_HEADER_BYTES),
            Action::Console(_) | Action::RoleChanged { .. } | Action::CtlAnswer { .. } => {}
            Action::Note { text, .. } => assert!(!text.is_empty()),
            Action::Exit { .. } => self.sides[at].ended = true,
            Action::ClaimDisks { .. } | Action::ReadDisks => {
                panic!("node {at}: its disks are its own")
            }
            Action::Disk(request) => {
                self.env.at = at;
                let copy = self.env.copy().expect("work for disks that are there");
                let data = disks::carry_out(copy, &request);
                self.sides[at].done.push_back(Event::DiskDone {
                    device: request.device,
                    id: request.id,
                    status: 0,
                    data,
                });
            }
            Action::FlushDisks { flush } | Action::DiskPoint { flush, .. } => {
                let result = Ok(());
                let flushed = Event::DisksFlushed { flush, result };
                self.sides[at].done.push_back(flushed);
            }
            Action::ClearDisks { .. } | Action::DoubtDisks => {}
            Action::ForgetDisks => self.sides[at].done.clear(),
            Action::Fatal { what } => panic!("node {at}: {what}"),
        }
    }

    fn far_end(&self, at: usize, conn: ConnId) -> Option<ConnId> {
        let link = self.links.iter().find(|ends| ends[at] == conn)?;
        Some(link[1 - at])
    }

    fn put(&mut self, at: usize, incoming: Incoming) {
        self.sides[at].inbox.push_back(incoming);
        if self.sides[at].inbox.len() > INBOX
            && let Some(link) = self.links.first().copied()
        {
            self.close(1 - at, link[1 - at]);
        }
    }

    /// One end closes; the other finds out.
    fn close(&mut self, at: usize, conn: ConnId) {
        if let Some(far) = self.far_end(at, conn) {
            self.links.retain(|ends| ends[at] != conn);
            self.sides[1 - at].inbox.push_back(Incoming::Down(far));
            self.sides[at]
                .inbox
                .retain(|it| !matches!(it, Incoming::Message(of, _) if *of == conn));
        }
    }

    fn deliver(&mut self, at: usize, incoming: Incoming) {
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
            Incoming::Message(conn, message) => {
                // As over a real channel: a closed one brings nothing.
                if self.links.iter().any(|ends| ends[at] == conn) {
                    self.apply(at, Event::Received { conn, message });
                }
            }
            Incoming::Down(conn) => self.apply(at, Event::ChannelDown { conn }),
        }
    }

    fn ask(&mut self, at: usize) {
        let Some((req, cas)) = self.sides[at].questions.pop_front() else {
            return;
        };
        let outcome = match cas {
            None => self.arbiter.read(),
            Some((expect, record)) => self.arbiter.cas(expect, record),
        };
        self.apply(at, Event::Arbiter { req, outcome });
    }

    /// The backup's machine is no longer what the live one is, and a digest is asked for.
    fn damage(&mut self, at: usize) {
        let role = self.sides[at].replica.status().protocol.role;
        if role != RoleKind::Backup {
            return;
        }
        if let Some(machine) = self.sides[at].replica.machine_mut() {
            let icount = machine.icount();
            let body = Body::ConsoleRx { bytes: vec![b'x'] };
            // What there is no room for changes nothing.
            let _ = machine.inject(&LogRecord { icount, body });
        }
        let live = &mut self.sides[1 - at].replica;
        live.log_digest(&mut self.env);
        self.carry_out_all(1 - at);
    }

    fn pass(&mut self, ns: u64) {
        self.env.now_ns += ns;
        for at in 0..2 {
            self.apply(at, Event::Queued { bytes: 0 });
            self.apply(at, Event::Tick);
        }
    }

    /// Both do what they would without anybody in between.
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for at in 0..2 {
                while let Some(incoming) = self.sides[at].inbox.pop_front() {
                    self.deliver(at, incoming);
                }
                self.ask(at);
                while let Some(done) = self.sides[at].done.pop_front() {
                    self.apply(at, done);
                }
                self.apply(at, Event::Slice);
            }
            self.pass(SLICE_NS + MS_NS / 2);
        }
    }

    fn is_protected(&self) -> bool {
        let mut sides = self.sides.iter();
        sides.all(|side| side.replica.status().protocol.protected)
    }

    /// The session that a node has open, or one that nobody has.
    fn session(&self, at: usize) -> SessionId {
        let open = self.sides[at].replica.status().protocol.session;
        open.unwrap_or(SessionId(7))
    }
}

/// A frame that fits the moment more or less.
fn made_up(input: &mut Input<'_>, session: SessionId, like: Option<&Message>) -> Message {
    let near = |position: Position, input: &mut Input<'_>| {
        let by = u64::from(input.byte() % 8);
        match input.byte() % 4 {
            0 => Position(position.0.wrapping_add(by)),
            1 => Position(position.0.saturating_sub(by)),
            2 => Position(input.quad()),
            _ => position,
        }
    };
    let kind = input.byte();
    match (kind % 12, like) {
        (
            0..=2,
            Some(Message::Log {
                first,
                end,
                released,
                batch,
            }),
        ) => Message::Log {
            first: near(*first, input),
            end: near(*end, input),
            released: near(*released, input),
            batch: batch.clone(),
        },
        (
            0..=2,
            Some(Message::Ack {
                received,
                emitted,
                progress,
            }),
        ) => Message::Ack {
            received: near(*received, input),
            emitted: near(*emitted, input),
            progress: *progress,
        },
        (
            0..=2,
            Some(Message::Heartbeat {
                progress, released, ..
            }),
        ) => Message::Heartbeat {
            beat: input.quad(),
            released: near(*released, input),
            progress: *progress,
        },
        (
            0..=2,
            Some(Message::SnapshotChunk {
                offset,
                bytes,
                last,
            }),
        ) => Message::SnapshotChunk {
            offset: offset.wrapping_add(u64::from(input.byte())),
            bytes: bytes.clone(),
            last: *last == (input.byte() & 1 == 0),
        },
        (3, _) => Message::Welcome {
            session,
            generation: Generation(u64::from(input.byte())),
        },
        (4, _) => Message::Paired {
            generation: Generation(u64::from(input.byte() % 8)),
        },
        (5, _) => Message::SnapshotBegin {
            position: Position(u64::from(input.byte())),
        },
        (6, _) => Message::SnapshotChunk {
            offset: u64::from(input.byte()),
            bytes: input.bytes(20).to_vec(),
            last: input.byte() & 1 == 0,
        },
        (7, _) => {
            // A word about a difference, or junk.
            let kind = input.byte() % 8;
            let head: &[u8] = match kind {
                0 => &[],
                // Or one about disks.
                1..4 => &[2, kind],
                _ => &[1, kind - 3],
            };
            let bytes = [head, input.bytes(40)].concat();
            Message::Side { bytes }
        }
        (8, _) => Message::Installed,
        (kind, _) => Message::Goodbye(match kind {
            9 => Goodbye::Claim,
            10 => Goodbye::Diverged,
            11 => Goodbye::Halted,
            1 => Goodbye::Detached,
            _ => Goodbye::Leaving,
        }),
    }
}

/// The frame with some of its bytes changed, if that still is one: others end the connection
/// before anybody hears of them.
fn changed(message: &Message, input: &mut Input<'_>) -> Option<Message> {
    let mut body = Vec::new();
    codec::encode_body(message, &mut body);
    let len = 6 + usize::from(input.byte() % 32);
    let body = Input::new(input.bytes(len)).mutate(body);
    codec::decode_body(&body).ok()
}

/// Neither node fails by anything that the other says.
pub fn peer(data: &[u8]) {
    let mut input = Input::new(data);
    let begin = input.byte();
    let mut world = World::new(input.byte() & 1 == 1);
    world.start(0);
    // From the first word on, or with a VM that runs, or that is about to be protected, or is.
    if !begin.is_multiple_of(4) {
        world.run(20);
    }
    world.start(1);
    match begin % 4 {
        2 => world.run(usize::from(begin >> 2)),
        3 => {
            world.run(64);
            for _ in 0..100 {
                if !world.is_protected() {
                    world.run(8);
                }
            }
            assert!(world.is_protected(), "no pair without anybody in between");
        }
        _ => {}
    }
    for seq in 1..=STEPS as u64 {
        if input.is_empty() {
            break;
        }
        let choice = input.byte();
        let at = usize::from(choice >> 7);
        match choice % 16 {
            0..=4 => {
                if let Some(incoming) = world.sides[at].inbox.pop_front() {
                    world.deliver(at, incoming);
                }
            }
            5..=7 => match world.sides[at].inbox.pop_front() {
                Some(Incoming::Message(conn, message)) => {
                    if let Some(message) = changed(&message, &mut input) {
                        world.deliver(at, Incoming::Message(conn, message));
                    } else {
                        world.close(at, conn);
                        world.deliver(at, Incoming::Down(conn));
                    }
                }
                Some(other) => world.deliver(at, other),
                None => {}
            },
            8..=10 => {
                let session = world.session(usize::from(choice >> 6 & 1));
                let like = world.sides[at].inbox.iter().find_map(|it| match it {
                    Incoming::Message(_, message) => Some(message),
                    _ => None,
                });
                let message = made_up(&mut input, session, like);
                if let Some(link) = world.links.last().copied() {
                    world.deliver(at, Incoming::Message(link[at], message));
                }
            }
            // The same once more.
            11 => {
                let again = world.sides[at].inbox.iter().find_map(|it| match it {
                    Incoming::Message(conn, message) => Some((*conn, message.clone())),
                    _ => None,
                });
                if let Some((conn, message)) = again {
                    world.deliver(at, Incoming::Message(conn, message));
                }
            }
            12 => {
                if let Some(link) = world.links.last().copied() {
                    world.close(at, link[at]);
                    world.deliver(at, Incoming::Down(link[at]));
                }
            }
            13 => world.pass(u64::from(input.byte()) * 4 * MS_NS),
            14 if choice & 0x40 != 0 => world.damage(at),
            14 => world.ask(at),
            _ => {
                world.question(at, seq);
                world.run(1 + usize::from(choice >> 4 & 3));
            }
        }
    }
    // Left alone they go on.
    world.run(40);
}

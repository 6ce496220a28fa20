//! A peer that sends anything at any time. It may end sessions; it may never bring a node
//! to a fault of its own. (The node's invariants, checked after every event, are the judge.)

#[path = "sim/rng.rs"]
mod rng;

use rng::Rng;
use twinvm_protocol::message::{Field, Goodbye, Hello, PROTOCOL_VERSION, Refusal};
use twinvm_protocol::{
    Action, ArbiterContract, BackupName, Config, ConnId, DiskMark, Event, Generation, Identity,
    Incarnation, Instant, LiveName, MemoryArbiter, Message, Node, NodeId, Outcome, OutputFrom,
    Position, Progress, Record, RoleKind, SessionId,
};

struct Victim {
    rng: Rng,
    node: Node<u64>,
    arbiter: MemoryArbiter,
    now_ms: u64,
    conns: Vec<ConnId>,
    /// Frames sent on the newest connection.
    told: u64,
    /// One frame in so many is any frame, the others are what a good peer would send.
    malice: u64,
    last_conn: u64,
    session: SessionId,
    stored: u64,
    log_end: u64,
    todo: Vec<Event<u64>>,
    roles: [u64; 8],
    /// What a good peer's hello says.
    machine: Vec<Field>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let me = Identity {
            id: NodeId(1),
            name: "a".into(),
            peer_name: "b".into(),
            incarnation: Incarnation(1),
            machine: vec![],
        };
        let machine = match seed % 4 {
            0 => vec![Field {
                name: "output".into(),
                value: "backup".into(),
            }],
            _ => vec![],
        };
        let config = Config {
            output: match seed % 4 {
                0 => OutputFrom::Backup,
                _ => OutputFrom::Live,
            },
            ..Config::default()
        };
        let mut rng = Rng::new(seed);
        let mut arbiter = MemoryArbiter::new();
        if rng.one_in(2) {
            let record = Record {
                generation: Generation(1),
                live: LiveName {
                    id: NodeId(2),
                    incarnation: Incarnation(2),
                },
                backup: None,
                halted: false,
            };
            arbiter.cas(Generation(0), record);
        }
        Self {
            rng,
            node: Node::new(me, config),
            arbiter,
            now_ms: 0,
            conns: vec![],
            told: 0,
            malice: [2, 8, 30][seed as usize % 3],
            last_conn: 0,
            session: SessionId(0),
            stored: 0,
            log_end: 0,
            todo: vec![],
            roles: [0; 8],
            machine,
        }
    }

    fn ev(&mut self, event: Event<u64>) {
        self.todo.push(event);
        while !self.todo.is_empty() {
            let event = self.todo.remove(0);
            let text = format!("{event:?} as {}", self.node.role());
            self.node.handle(Instant::from_millis(self.now_ms), event);
            while let Some(action) = self.node.next_action() {
                self.act(action, &text);
            }
        }
    }

    fn position(&mut self) -> Position {
        let near = self
            .node
            .status()
            .acked
            .0
            .max(self.stored)
            .max(self.log_end);
        Position(match self.rng.range(0, 8) {
            0 => u64::MAX,
            1 => 0,
            2 => self.rng.next(),
            _ => (near + self.rng.range(0, 6)).saturating_sub(2),
        })
    }

    fn act(&mut self, action: Action<u64>, cause: &str) {
        match action {
            Action::Fatal { what } => panic!("{what}, after {cause}"),
            Action::Dial => {
                if self.rng.one_in(4) {
                    self.todo.push(Event::DialFailed);
                } else {
                    self.connect(true);
                }
            }
            Action::Close { conn, .. } => self.conns.retain(|c| *c != conn),
            Action::ArbiterRead { req } => {
                let outcome = self.arbiter.read();
                self.todo.push(Event::Arbiter { req, outcome });
            }
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                let mut outcome = self.arbiter.cas(expect, record);
                if self.rng.one_in(3) {
                    outcome = Outcome::Unknown;
                }
                self.todo.push(Event::Arbiter { req, outcome });
            }
            Action::ColdStart { .. } => self.log_end = 0,
            Action::GoLive { .. } => self.log_end = self.stored,
            Action::Freeze => self.todo.push(Event::Frozen {
                position: Position(self.log_end),
            }),
            Action::TakeSnapshot { session } => {
                let position = Position(self.log_end);
                self.todo.push(Event::SnapshotTaken { session, position });
                self.todo.push(Event::SnapshotChunk {
                    session,
                    offset: 0,
                    bytes: vec![1],
                    last: true,
                });
            }
            Action::BeginInstall { session, position } => {
                self.session = session;
                self.stored = position.0;
            }
            Action::InstallChunk { session, last, .. } if last => {
                self.todo.push(Event::Installed { session });
            }
            Action::Store { session, end, .. } => {
                self.stored = end.0;
                self.todo.push(Event::Stored { session, end });
            }
            Action::BeginDrain => self.todo.push(Event::Drained {
                position: Position(self.stored),
            }),
            _ => {}
        }
    }

    fn connect(&mut self, dialed: bool) {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        self.conns.push(conn);
        self.told = 0;
        let nonce = self.rng.u128();
        self.todo.push(Event::ChannelUp {
            conn,
            dialed,
            nonce,
        });
    }

    /// What a good peer would say next on the newest connection.
    fn fair(&mut self) -> Message {
        self.told += 1;
        let session = SessionId(self.rng.u128());
        let generation = self.node.generation();
        let hello = |role| {
            Message::Hello(Hello {
                version: PROTOCOL_VERSION,
                id: NodeId(2),
                name: "b".into(),
                incarnation: Incarnation(2),
                role,
                generation,
                holds: None,
                machine: self.machine.clone(),
                disks: DiskMark::NONE,
            })
        };
        let progress = Progress {
            icount: 0,
            position: Position(self.log_end),
            vtime: 0,
        };
        match (self.node.role(), self.told) {
            (RoleKind::Live, 1) => hello(RoleKind::Cold),
            (RoleKind::Live, 2) => Message::Installed,
            (RoleKind::Live, _) => Message::Ack {
                received: Position(self.log_end),
                emitted: Position(self.log_end / 2),
                progress,
            },
            (RoleKind::Cold | RoleKind::Frozen, 1) => hello(RoleKind::Live),
            (RoleKind::Cold | RoleKind::Frozen, 2) => Message::Welcome {
                session,
                generation,
            },
            (RoleKind::Cold | RoleKind::Frozen, _) => Message::SnapshotBegin {
                position: Position(self.rng.range(0, 10)),
            },
            (RoleKind::Joining, _) => Message::SnapshotChunk {
                offset: 0,
                bytes: vec![],
                last: true,
            },
            (_, told) if told % 7 == 0 => Message::Heartbeat {
                beat: told,
                released: Position(self.stored),
                progress,
            },
            (_, 9) => {
                let session = self.session;
                self.peer_writes(Some(session));
                Message::Paired {
                    generation: generation.next(),
                }
            }
            _ => Message::Log {
                first: Position(self.stored),
                end: Position(self.stored + 2),
                released: Position(self.stored),
                batch: vec![],
            },
        }
    }

    /// The peer changes the record.
    fn peer_writes(&mut self, session: Option<SessionId>) {
        let now = self
            .arbiter
            .current()
            .map_or(Generation(0), |r| r.generation);
        let record = Record {
            generation: now.next(),
            live: LiveName {
                id: NodeId(2),
                incarnation: Incarnation(2),
            },
            backup: session.map(|session| BackupName {
                id: NodeId(1),
                session,
            }),
            halted: false,
        };
        self.arbiter.cas(now, record);
    }

    fn any(&mut self) -> Message {
        let progress = Progress {
            icount: 0,
            position: self.position(),
            vtime: self.rng.next() >> self.rng.range(0, 64),
        };
        let generation = Generation(self.rng.range(0, 4) + self.node.generation().0);
        match self.rng.range(0, 16) {
            0..3 => Message::Hello(Hello {
                version: PROTOCOL_VERSION,
                id: NodeId(2),
                name: "b".into(),
                incarnation: Incarnation(2),
                role: [RoleKind::Cold, RoleKind::Live][self.rng.range(0, 2) as usize],
                generation: Generation(generation.0.saturating_sub(2)),
                holds: None,
                machine: self.machine.clone(),
                disks: DiskMark::NONE,
            }),
            3 => Message::Welcome {
                session: SessionId(self.rng.u128()),
                generation,
            },
            4 => Message::SnapshotBegin {
                position: Position(self.rng.range(0, 10)),
            },
            5 | 6 => Message::SnapshotChunk {
                offset: 0,
                bytes: vec![0; self.rng.range(0, 2) as usize],
                last: self.rng.one_in(2),
            },
            7 | 8 => Message::Log {
                first: if self.rng.one_in(4) {
                    self.position()
                } else {
                    Position(self.stored)
                },
                end: self.position(),
                released: Position(self.rng.range(0, self.stored.max(1))),
                batch: vec![],
            },
            9 | 10 => Message::Ack {
                received: self.position(),
                emitted: self.position(),
                progress,
            },
            11 => Message::Installed,
            12 => Message::Heartbeat {
                beat: self.rng.next(),
                released: self.position(),
                progress,
            },
            13 => Message::Paired { generation },
            14 => Message::Side { bytes: vec![1] },
            _ => match self.rng.range(0, 6) {
                0 => Message::Refuse(Refusal::SameNode),
                1 => Message::Refuse(Refusal::Busy),
                2 => Message::Goodbye(Goodbye::Claim),
                3 => Message::Goodbye(Goodbye::Diverged),
                _ => Message::Goodbye(Goodbye::Leaving),
            },
        }
    }

    fn step(&mut self) {
        self.roles[self.node.role() as usize] += 1;
        match self.rng.range(0, 12) {
            0 => {
                self.now_ms += self.rng.range(0, 120);
                self.ev(Event::Tick);
            }
            1 if self.rng.one_in(6) => {
                if self.conns.len() < 4 {
                    self.connect(false);
                    self.ev(Event::Tick);
                }
            }
            2 if self.node.role() == RoleKind::Live => {
                let first = self.log_end;
                self.log_end += self.rng.range(1, 3);
                let position = Position(self.log_end);
                self.ev(Event::Output {
                    position,
                    bytes: 1,
                    item: 0,
                });
                self.ev(Event::Flushed {
                    first: Position(first),
                    end: position,
                    batch: vec![],
                });
            }
            // By force: the protocol itself never overrules a live node like this.
            4 if self.node.role() == RoleKind::Live && self.rng.one_in(60) => {
                self.peer_writes(None);
            }
            3 if self.rng.one_in(10) && !self.conns.is_empty() => {
                let conn = self.conns.remove(0);
                self.ev(Event::ChannelDown { conn });
            }
            _ => {
                let Some(newest) = self.conns.last().copied() else {
                    return;
                };
                let (conn, message) = if self.rng.one_in(self.malice) {
                    let count = self.conns.len() as u64;
                    let conn = self.conns[self.rng.range(0, count) as usize];
                    (conn, self.any())
                } else {
                    (newest, self.fair())
                };
                self.ev(Event::Received { conn, message });
            }
        }
    }
}

#[test]
fn a_hostile_peer_never_makes_a_fault() {
    let mut roles = [0; 8];
    for seed in 0..1500 {
        let mut victim = Victim::new(seed);
        victim.ev(Event::Start {
            generation: Generation(0),
            disks: DiskMark::NONE,
        });
        for _ in 0..400 {
            victim.step();
        }
        for (sum, count) in roles.iter_mut().zip(victim.roles) {
            *sum += count;
        }
    }
    // The test is worth something only if it gets everywhere.
    let seen = [
        RoleKind::Cold,
        RoleKind::Joining,
        RoleKind::Backup,
        RoleKind::Claiming,
        RoleKind::Live,
        RoleKind::Frozen,
    ];
    for role in seen {
        assert!(roles[role as usize] > 100, "{role}: {roles:?}");
    }
}

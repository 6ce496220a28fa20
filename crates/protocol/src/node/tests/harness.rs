//! One node under a script.

use crate::disks::DiskMark;
use crate::event::{Action, Event, Progress};
use crate::message::{Field, Hello, Message, PROTOCOL_VERSION};
use crate::record::{
    BackupName, ConnId, Generation, Incarnation, LiveName, NodeId, Position, Record, ReqId,
    SessionId,
};
use crate::{Config, Identity, Instant, Node, Outcome, RoleKind};

pub(super) type Acts = Vec<Action<u32>>;

/// This node and its peer.
pub(super) const ME: NodeId = NodeId(1);
pub(super) const PEER: NodeId = NodeId(2);
pub(super) const MY_LIFE: Incarnation = Incarnation(100);
pub(super) const PEER_LIFE: Incarnation = Incarnation(200);
pub(super) const CONN: ConnId = ConnId(7);
pub(super) const SESSION: SessionId = SessionId(77);

pub(super) struct One {
    pub(super) node: Node<u32>,
    pub(super) ms: u64,
    beat: u64,
}

pub(super) fn machine() -> Vec<Field> {
    let field = |name: &str, value: &str| Field {
        name: name.into(),
        value: value.into(),
    };
    vec![field("machine_version", "1"), field("ram_bytes", "4096")]
}

pub(super) fn hello(role: RoleKind, generation: u64, holds: Option<SessionId>) -> Message {
    Message::Hello(Hello {
        version: PROTOCOL_VERSION,
        id: PEER,
        name: "peer".into(),
        incarnation: PEER_LIFE,
        role,
        generation: Generation(generation),
        holds,
        machine: machine(),
        disks: DiskMark::NONE,
    })
}

/// A record that names this node's first life live.
pub(super) fn mine(generation: u64, backup: bool) -> Record {
    Record {
        generation: Generation(generation),
        live: LiveName {
            id: ME,
            incarnation: MY_LIFE,
        },
        backup: backup.then_some(BackupName {
            id: PEER,
            session: SESSION,
        }),
        halted: false,
    }
}

/// A record that names the peer live and, if asked, this node backup.
pub(super) fn theirs(generation: u64, backup: bool) -> Record {
    Record {
        generation: Generation(generation),
        live: LiveName {
            id: PEER,
            incarnation: PEER_LIFE,
        },
        backup: backup.then_some(BackupName {
            id: ME,
            session: SESSION,
        }),
        halted: false,
    }
}

pub(super) fn ack(received: u64) -> Message {
    Message::Ack {
        received: Position(received),
        emitted: Position(0),
        progress: Progress {
            icount: received,
            position: Position(received),
            vtime: 0,
        },
    }
}

/// The outputs that `acts` put on the wire.
pub(super) fn emitted(acts: &Acts) -> Vec<u32> {
    let items = acts.iter().filter_map(|a| match a {
        Action::Emit { item, .. } => Some(*item),
        _ => None,
    });
    items.collect()
}

/// The frames that `acts` send.
pub(super) fn sent(acts: &Acts) -> Vec<&Message> {
    let messages = acts.iter().filter_map(|a| match a {
        Action::Send { message, .. } => Some(message),
        _ => None,
    });
    messages.collect()
}

/// The only CAS in `acts`.
pub(super) fn cas(acts: &Acts) -> Option<(ReqId, Generation, Record)> {
    let mut found = acts.iter().filter_map(|a| match a {
        Action::ArbiterCas {
            req,
            expect,
            record,
        } => Some((*req, *expect, *record)),
        _ => None,
    });
    let first = found.next();
    assert!(found.next().is_none(), "two CASes: {acts:?}");
    first
}

/// The only read in `acts`.
pub(super) fn read(acts: &Acts) -> Option<ReqId> {
    acts.iter().find_map(|a| match a {
        Action::ArbiterRead { req } => Some(*req),
        _ => None,
    })
}

/// Whether an action matches.
macro_rules! has {
    ($acts:expr, $($pattern:tt)+) => {
        $acts.iter().any(|a| matches!(a, $($pattern)+))
    };
}
pub(super) use has;

impl One {
    pub(super) fn new(config: Config) -> Self {
        let me = Identity {
            id: ME,
            name: "me".into(),
            peer_name: "you".into(),
            incarnation: MY_LIFE,
            machine: machine(),
        };
        me.validate().unwrap();
        Self {
            node: Node::new(me, config),
            ms: 1000,
            beat: 0,
        }
    }

    pub(super) fn ev(&mut self, event: Event<u32>) -> Acts {
        self.node.handle(Instant::from_millis(self.ms), event);
        std::iter::from_fn(|| self.node.next_action()).collect()
    }

    pub(super) fn started(config: Config, generation: u64) -> (Self, Acts) {
        Self::started_with(config, generation, DiskMark::NONE)
    }

    pub(super) fn started_with(config: Config, generation: u64, disks: DiskMark) -> (Self, Acts) {
        let mut one = Self::new(config);
        let generation = Generation(generation);
        let acts = one.ev(Event::Start { generation, disks });
        (one, acts)
    }

    /// Lets time pass with a tick every 10 ms.
    pub(super) fn wait(&mut self, ms: u64) -> Acts {
        let mut acts = Vec::new();
        for _ in 0..ms / 10 {
            self.ms += 10;
            acts.extend(self.ev(Event::Tick));
        }
        acts
    }

    pub(super) fn answer(&mut self, req: ReqId, outcome: Outcome) -> Acts {
        self.ev(Event::Arbiter { req, outcome })
    }

    pub(super) fn got(&mut self, message: Message) -> Acts {
        self.ev(Event::Received {
            conn: CONN,
            message,
        })
    }

    pub(super) fn up(&mut self, dialed: bool) -> Acts {
        self.ev(Event::ChannelUp {
            conn: CONN,
            dialed,
            nonce: SESSION.0,
        })
    }

    pub(super) fn output(&mut self, position: u64) -> Acts {
        self.ev(Event::Output {
            position: Position(position),
            bytes: 1,
            item: position as u32,
        })
    }

    pub(super) fn flushed(&mut self, first: u64, end: u64) -> Acts {
        self.ev(Event::Flushed {
            first: Position(first),
            end: Position(end),
            batch: vec![0; 3],
        })
    }

    /// Keeps a backup's session alive for a while.
    pub(super) fn hear_live(&mut self, ms: u64, released: u64) -> Acts {
        let mut acts = Vec::new();
        for _ in 0..ms / 50 {
            acts.extend(self.wait(50));
            self.beat += 1;
            let beat = self.beat;
            acts.extend(self.got(Message::Heartbeat {
                beat,
                released: Position(released),
                progress: Progress::default(),
            }));
        }
        acts
    }

    /// Live alone, generation 1.
    pub(super) fn solo() -> Self {
        let (mut one, acts) = Self::started(Config::default(), 0);
        one.answer(read(&acts).unwrap(), Outcome::Read(None));
        one.ev(Event::DialFailed);
        let acts = one.wait(1100);
        one.ev(Event::DialFailed);
        let (req, expect, record) = cas(&acts).unwrap();
        assert_eq!((expect, record), (Generation(0), mine(1, false)));
        let acts = one.answer(req, Outcome::Won(record));
        assert!(has!(acts, Action::ColdStart { .. }));
        one
    }

    /// A joiner was welcomed.
    pub(super) fn welcomed() -> Self {
        let mut one = Self::solo();
        one.up(false);
        let acts = one.got(hello(RoleKind::Cold, 1, None));
        assert!(has!(acts, Action::TakeSnapshot { session: SESSION }));
        one
    }

    /// Log end 10, of which outputs up to 8 have left; the snapshot stands at 5 and is sent;
    /// the log up to 9 is sent, up to 6 acked.
    pub(super) fn snapshot_sent() -> Self {
        let mut one = Self::welcomed();
        one.ev(Event::SnapshotTaken {
            session: SESSION,
            position: Position(5),
        });
        one.ev(Event::SnapshotChunk {
            session: SESSION,
            offset: 0,
            bytes: vec![1],
            last: true,
        });
        assert_eq!(emitted(&one.output(8)), [8]);
        one.flushed(5, 9);
        one.got(ack(6));
        one.ev(Event::Progress {
            progress: Progress {
                icount: 10,
                position: Position(10),
                vtime: 0,
            },
            beat: 1,
            joiner_lag: Some(0),
        });
        one
    }

    /// The joiner has installed; the arbiter is being asked whether it is there.
    pub(super) fn probing() -> (Self, ReqId) {
        let mut one = Self::snapshot_sent();
        let acts = one.got(Message::Installed);
        let req = read(&acts).expect("a probe");
        (one, req)
    }

    /// The gate is on at 10, the ack of 9 has come.
    pub(super) fn gate_on() -> Self {
        let (mut one, req) = Self::probing();
        let acts = one.answer(req, Outcome::Read(Some(mine(1, false))));
        assert_eq!(cas(&acts), None);
        one.got(ack(9));
        one
    }

    /// The pairing CAS is out.
    pub(super) fn pairing_cas() -> (Self, ReqId) {
        let mut one = Self::gate_on();
        one.flushed(9, 10);
        let acts = one.got(ack(10));
        let (req, expect, record) = cas(&acts).expect("the pairing CAS");
        assert_eq!((expect, record), (Generation(1), mine(2, true)));
        (one, req)
    }

    /// Live and paired, generation 2, log end and ack 10.
    pub(super) fn paired() -> Self {
        let (mut one, req) = Self::pairing_cas();
        let acts = one.answer(req, Outcome::Won(mine(2, true)));
        let paired = Message::Paired {
            generation: Generation(2),
        };
        assert!(sent(&acts).contains(&&paired));
        one
    }

    /// Welcomed by a live peer of generation 4 whose snapshot stands at 5.
    pub(super) fn joining() -> Self {
        let (mut one, acts) = Self::started(Config::default(), 0);
        assert!(has!(acts, Action::Dial));
        one.answer(read(&acts).unwrap(), Outcome::Read(Some(theirs(4, false))));
        one.join();
        one
    }

    /// From a dial to a snapshot that begins.
    pub(super) fn join(&mut self) -> Acts {
        self.up(true);
        self.got(hello(RoleKind::Live, 4, None));
        self.got(Message::Welcome {
            session: SESSION,
            generation: Generation(4),
        });
        let acts = self.got(Message::SnapshotBegin {
            position: Position(5),
        });
        assert!(has!(acts, Action::BeginInstall { .. }));
        acts
    }

    /// A backup that has stored and acked up to 9, made outputs 7 and 9 again, knows 7 to
    /// be released, and was never told that it is paired.
    pub(super) fn untold() -> Self {
        let mut one = Self::joining();
        one.install();
        one
    }

    /// Joins and becomes that backup.
    pub(super) fn follow(&mut self) {
        self.join();
        self.install();
    }

    fn install(&mut self) {
        let one = self;
        one.got(Message::SnapshotChunk {
            offset: 0,
            bytes: vec![1],
            last: true,
        });
        let acts = one.ev(Event::Installed { session: SESSION });
        assert!(sent(&acts).contains(&&Message::Installed));
        let acts = one.got(Message::Log {
            first: Position(5),
            end: Position(9),
            released: Position(7),
            batch: vec![1],
        });
        assert!(has!(acts, Action::Store { .. }));
        let end = Position(9);
        let session = SESSION;
        let acts = one.ev(Event::Stored { session, end });
        assert!(matches!(sent(&acts)[..], [Message::Ack { received, .. }] if *received == end));
        one.output(7);
        one.output(9);
    }

    /// The same, told by generation 5.
    pub(super) fn told() -> Self {
        let mut one = Self::untold();
        one.got(Message::Paired {
            generation: Generation(5),
        });
        one
    }

    pub(super) fn drained(&mut self, position: u64) -> Acts {
        self.ev(Event::Drained {
            position: Position(position),
        })
    }

    /// Was paired, has lost to a claim by generation 3.
    pub(super) fn lost() -> (Self, Acts) {
        let mut one = Self::paired();
        one.output(12);
        let acts = one.ev(Event::ChannelDown { conn: CONN });
        let (req, ..) = cas(&acts).expect("a drop");
        let acts = one.answer(req, Outcome::Lost(Some(theirs(3, false))));
        (one, acts)
    }
}

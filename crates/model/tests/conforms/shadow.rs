//! Production nodes that are led along a way of the model: each of its steps becomes the events
//! that the drivers of two nodes would hand over.

mod compare;

use std::collections::VecDeque;

use twinvm_model::model::{Action, What};
use twinvm_model::record::{Id, Record as ModelRecord};
use twinvm_model::state::{Forced, Known, Link, Role, World};
use twinvm_protocol::{
    Action as Asked, ArbiterContract, Config, ConnId, Ctl, DiskMark, Event, Force, Generation,
    Identity, Incarnation, Instant, LiveName, MemoryArbiter, Message, Node, NodeId, Outcome,
    OutputFrom, Position, Progress, Record, ReqId, RoleKind, SessionId,
};

/// No timer of a session is to expire by itself.
const NEVER_MS: u64 = 1 << 40;
const HEARTBEAT_MS: u64 = 10;
/// Ticks that bring any retry, and how far apart.
const TICKS: usize = 60;
const TICK_MS: u64 = 100;
/// A first start alone comes at 1000 ms.
const FIRST_START_MS: u64 = 1000;
const HANDOVER_MS: u64 = 1000;
/// After that the node dials anew.
const DIAL_MS: u64 = 3000;

/// A compare-and-set as the node sent it.
#[derive(Clone, Copy)]
struct Cas {
    req: ReqId,
    expect: Generation,
    record: Record,
    landed: bool,
}

struct Proc {
    node: Node<u8>,
    ms: u64,
    started_ms: u64,
    dialed: Option<u64>,
    read: Option<ReqId>,
    cas: Option<Cas>,
    answered: Option<Outcome>,
    seen: Option<(ReqId, Outcome)>,
    exited: bool,
}

/// One connection.
struct Wire {
    open: [bool; 2],
    cut: bool,
    queue: [VecDeque<Message>; 2],
}

pub(crate) struct Shadow {
    procs: [Option<Proc>; 2],
    disks: [u64; 2],
    marks: [DiskMark; 2],
    wires: Vec<Wire>,
    /// The wire of the session on which a node is live.
    sessions: [usize; 2],
    /// The wire of the call that a node has made.
    calls: [usize; 2],
    arbiter: MemoryArbiter,
    strays: Vec<Cas>,
    history: u8,
    /// What the step emitted.
    emitted: Vec<(usize, u8)>,
    lives: u128,
    /// `output = "backup"`: a backup executes an output when the model says that it emits it.
    speaks: bool,
}

type Checked = Result<(), String>;

/// Whether the node waits to start by force.
fn forced(node: &twinvm_model::state::Node) -> bool {
    matches!(node.forced, Forced::Asked(_))
}

fn node_id(slot: usize) -> NodeId {
    NodeId(slot as u128 + 1)
}

impl Shadow {
    pub(crate) fn new(speaks: bool, disks: bool) -> Self {
        Self {
            procs: [None, None],
            disks: [0; 2],
            marks: [if disks {
                DiskMark::FRESH
            } else {
                DiskMark::NONE
            }; 2],
            wires: Vec::new(),
            sessions: [usize::MAX; 2],
            calls: [usize::MAX; 2],
            arbiter: MemoryArbiter::new(),
            strays: Vec::new(),
            history: 0,
            emitted: Vec::new(),
            lives: 0,
            speaks,
        }
    }

    /// Whether the step can be led: some need time, in which a call under way would be given up.
    pub(crate) fn can(&self, world: &World, action: Action) -> bool {
        let slot = action.at as usize;
        let node = world.node(action.at);
        // Or a node would start alone.
        let alone = node.known == Known::Absent && node.generation == 0;
        let waiting = node.call.is_some() || alone || forced(node);
        let reading = self.procs[slot].as_ref().is_some_and(|p| p.read.is_some());
        match action.what {
            What::Read => !waiting || reading,
            What::AskAgain => !waiting,
            What::StartAlone | What::Force => node.call.is_none(),
            _ => true,
        }
    }

    /// A node that has spent its first second on other things would start by itself.
    pub(crate) fn timed_out(&self, world: &World) -> bool {
        Id::BOTH.into_iter().any(|id| {
            let node = world.node(id);
            let spent = |p: &Proc| p.ms - p.started_ms + 2 * TICK_MS >= FIRST_START_MS;
            node.role == Role::Cold
                && (node.generation == 0 || forced(node))
                && self.procs[id as usize].as_ref().is_some_and(spent)
        })
    }

    fn proc(&mut self, slot: usize) -> Result<&mut Proc, String> {
        let proc = self.procs[slot].as_mut();
        proc.ok_or_else(|| format!("node {slot} does not run"))
    }

    fn feed(&mut self, slot: usize, event: Event<u8>) -> Checked {
        let proc = self.proc(slot)?;
        let now = Instant::from_millis(proc.ms);
        proc.node.handle(now, event);
        while let Some(asked) = self.proc(slot)?.node.next_action() {
            self.act(slot, asked)?;
        }
        Ok(())
    }

    fn act(&mut self, slot: usize, asked: Asked<u8>) -> Checked {
        match asked {
            Asked::Dial => {
                let proc = self.proc(slot)?;
                proc.dialed = Some(proc.ms);
            }
            Asked::Send { conn, message } => {
                let wire = &mut self.wires[conn.0 as usize];
                if wire.open[slot] && wire.open[1 - slot] && !wire.cut {
                    wire.queue[1 - slot].push_back(message);
                }
            }
            Asked::Close { conn, .. } => {
                let wire = &mut self.wires[conn.0 as usize];
                wire.open[slot] = false;
                wire.queue[slot].clear();
            }
            Asked::ArbiterRead { req } => self.proc(slot)?.read = Some(req),
            Asked::ArbiterCas {
                req,
                expect,
                record,
            } => {
                let old = self.proc(slot)?.cas.replace(Cas {
                    req,
                    expect,
                    record,
                    landed: false,
                });
                self.strays.extend(old.filter(|c| !c.landed));
            }
            Asked::PersistGeneration { generation } => self.disks[slot] = generation.0,
            Asked::MarkDisks { mark } => self.marks[slot] = mark,
            Asked::Emit { position, .. } => self.emitted.push((slot, position.0 as u8)),
            Asked::Exit { .. } => self.proc(slot)?.exited = true,
            Asked::Fatal { what } => return Err(format!("node {slot}: {what}")),
            _ => {}
        }
        Ok(())
    }

    /// Lets time pass until `done`.
    fn tick_until(&mut self, slot: usize, done: fn(&Proc) -> bool) -> Checked {
        for _ in 0..TICKS {
            if done(self.proc(slot)?) {
                return Ok(());
            }
            self.proc(slot)?.ms += TICK_MS;
            self.feed(slot, Event::Tick)?;
        }
        Err(format!("node {slot} does not get on"))
    }

    /// The next message for a node, heartbeats aside.
    fn next(&mut self, wire: usize, slot: usize) -> Result<Message, String> {
        let queue = &mut self.wires[wire].queue[slot];
        queue.retain(|m| !matches!(m, Message::Heartbeat { .. }));
        let message = queue.pop_front();
        message.ok_or_else(|| format!("nothing is on its way to node {slot}"))
    }

    fn deliver(&mut self, wire: usize, slot: usize) -> Result<Message, String> {
        let message = self.next(wire, slot)?;
        let conn = ConnId(wire as u64);
        let copy = message.clone();
        self.feed(slot, Event::Received { conn, message })?;
        Ok(copy)
    }

    fn hang_up(&mut self, wire: usize, slot: usize) -> Checked {
        let Some(end) = self.wires.get_mut(wire) else {
            return Ok(());
        };
        if std::mem::replace(&mut end.open[slot], false) {
            end.queue[slot].clear();
            let conn = ConnId(wire as u64);
            self.feed(slot, Event::ChannelDown { conn })?;
        }
        Ok(())
    }

    fn session_of(&self, slot: usize) -> Result<SessionId, String> {
        let status = self.procs[slot].as_ref().map(|p| p.node.status());
        let session = status.and_then(|s| s.session);
        session.ok_or_else(|| format!("node {slot} has no session"))
    }

    /// The live machine has come to `end`.
    fn appended(
        &mut self,
        slot: usize,
        world: &World,
        id: Id,
        event: Option<Event<u8>>,
    ) -> Checked {
        let end = Position(u64::from(world.node(id).log.len()));
        let progress = Progress {
            position: end,
            ..Progress::default()
        };
        let wants = self.proc(slot)?.node.wants_log();
        if let Some(event @ Event::Output { .. }) = event {
            self.feed(slot, event)?;
        } else {
            self.feed(slot, Event::Progress { progress, beat: 0 })?;
            if let Some(event) = event {
                self.feed(slot, event)?;
            }
        }
        if wants && self.procs[slot].as_ref().is_some_and(|p| !p.exited) {
            let first = Position(end.0 - 1);
            let batch = vec![0];
            self.feed(slot, Event::Flushed { first, end, batch })?;
        }
        Ok(())
    }

    fn start(&mut self, slot: usize) -> Checked {
        self.lives += 1;
        let me = Identity {
            id: node_id(slot),
            name: ["a", "b"][slot].into(),
            incarnation: Incarnation(self.lives << 32),
            peer_name: ["b", "a"][slot].into(),
            machine: Vec::new(),
        };
        let config = Config {
            heartbeat_ms: HEARTBEAT_MS,
            suspect_ms: NEVER_MS,
            stall_ms: NEVER_MS,
            cold_delay_ms: None,
            output: match self.speaks {
                true => OutputFrom::Backup,
                false => OutputFrom::Live,
            },
        };
        self.procs[slot] = Some(Proc {
            node: Node::new(me, config),
            ms: 1000,
            started_ms: 1000,
            dialed: None,
            read: None,
            cas: None,
            answered: None,
            seen: None,
            exited: false,
        });
        let generation = Generation(self.disks[slot]);
        let disks = self.marks[slot];
        self.feed(slot, Event::Start { generation, disks })
    }

    fn stop(&mut self, slot: usize) {
        if let Some(proc) = self.procs[slot].take() {
            self.strays.extend(proc.cas.filter(|c| !c.landed));
            for wire in &mut self.wires {
                wire.open[slot] = false;
                wire.queue[slot].clear();
            }
        }
    }

    /// A person's record: no life has this name.
    fn reset(&mut self, slot: usize) -> Checked {
        self.stop(0);
        self.stop(1);
        for _ in 0..2 {
            let expect = self
                .arbiter
                .current()
                .map_or(Generation(0), |r| r.generation);
            let live = LiveName {
                id: node_id(slot),
                incarnation: Incarnation(u128::MAX),
            };
            let record = Record {
                halted: true,
                ..Record::solo(expect.next(), live)
            };
            self.arbiter.cas(expect, record);
        }
        Ok(())
    }

    fn dial(&mut self, slot: usize) -> Checked {
        let proc = self.proc(slot)?;
        let given_up = |at: u64| proc.ms >= at + DIAL_MS;
        if proc.dialed.is_some_and(given_up) {
            proc.dialed = None;
        }
        self.tick_until(slot, |p| p.dialed.is_some())?;
        self.proc(slot)?.dialed = None;
        let index = self.wires.len();
        self.wires.push(Wire {
            open: [true; 2],
            cut: false,
            queue: Default::default(),
        });
        self.calls[slot] = index;
        let conn = ConnId(index as u64);
        for (slot, dialed) in [(1 - slot, false), (slot, true)] {
            let nonce = index as u128 + 1;
            let event = Event::ChannelUp {
                conn,
                dialed,
                nonce,
            };
            self.feed(slot, event)?;
        }
        self.deliver(index, 1 - slot)?;
        let welcomes = |m: &Message| matches!(m, Message::Welcome { .. });
        if self.wires[index].queue[slot].iter().any(welcomes) {
            self.sessions[1 - slot] = index;
        }
        Ok(())
    }

    fn called(&mut self, slot: usize, before: &World, at: Id) -> Checked {
        let wire = self.calls[slot];
        let welcome = before.node(at).call.is_some_and(|c| c.welcome.is_some());
        self.deliver(wire, slot)?;
        // The answer may have made it start: then it hangs up before the welcome.
        if self.wires[wire].open[slot] {
            let second = self.deliver(wire, slot)?;
            if matches!(second, Message::Welcome { .. }) != welcome {
                return Err(format!(
                    "the model's call is welcome: {welcome}, {second:?}"
                ));
            }
        }
        if !welcome {
            self.hang_up(wire, slot)?;
        }
        Ok(())
    }

    fn land(&mut self, cas: Cas) -> Outcome {
        self.arbiter.cas(cas.expect, cas.record)
    }

    fn land_stray(&mut self, before: &World, index: u8) -> Result<Outcome, String> {
        let Some(wanted) = before.strays[usize::from(index)] else {
            return Err("no such request".into());
        };
        let generation = self.arbiter.current().map_or(0, |r| r.generation.0);
        let shift = before.register.map_or(0, |r| r.generation);
        let found = self.strays.iter().rposition(|c| {
            c.expect.0 + u64::from(shift) == u64::from(wanted.expect) + generation
                && c.record.live.id == node_id(wanted.record.live as usize)
                && c.record.backup.is_some() == wanted.record.backup.is_some()
                && c.record.halted == wanted.record.halted
        });
        let Some(found) = found else {
            return Err(format!("{wanted:?} was never sent"));
        };
        let cas = self.strays.remove(found);
        Ok(self.land(cas))
    }

    /// The events of one step.
    fn lead(&mut self, before: &World, action: Action, after: &World) -> Checked {
        let (at, slot) = (action.at, action.at as usize);
        let node = before.node(at);
        let down = self.sessions[1 - slot];
        let up = self.sessions[slot];
        match action.what {
            What::Start => self.start(slot),
            What::Read => {
                if node.role.seeks() {
                    self.tick_until(slot, |p| p.read.is_some())?;
                } else if node.link == Link::Probe {
                    self.tick_until(slot, |p| p.read.is_some())?;
                }
                Ok(())
            }
            What::Seen => {
                let proc = self.proc(slot)?;
                let Some((req, outcome)) = proc.seen.take() else {
                    return Err("no answer is on its way".into());
                };
                // Asked again meanwhile, the question has a new number.
                let asked = node.seen.is_some_and(|s| s.asked);
                let req = proc.read.take_if(|_| asked).unwrap_or(req);
                self.feed(slot, Event::Arbiter { req, outcome })
            }
            What::Land => {
                let Some(mut cas) = self.proc(slot)?.cas else {
                    return Err("no CAS is out".into());
                };
                cas.landed = true;
                let outcome = self.land(cas);
                let proc = self.proc(slot)?;
                proc.cas = Some(cas);
                proc.answered = Some(outcome);
                Ok(())
            }
            What::Answered => {
                let proc = self.proc(slot)?;
                let (Some(cas), Some(outcome)) = (proc.cas, proc.answered.take()) else {
                    return Err("no answer is on its way".into());
                };
                self.feed(
                    slot,
                    Event::Arbiter {
                        req: cas.req,
                        outcome,
                    },
                )
            }
            What::Unknown => {
                let proc = self.proc(slot)?;
                let Some(cas) = &mut proc.cas else {
                    return Err("no CAS is out".into());
                };
                let late = (!cas.landed).then_some(*cas);
                cas.landed = true;
                let req = cas.req;
                proc.answered = None;
                self.strays.extend(late);
                let outcome = Outcome::Unknown;
                self.feed(slot, Event::Arbiter { req, outcome })
            }
            What::AskAgain => self.tick_until(slot, |p| p.cas.is_some_and(|c| !c.landed)),
            What::LandStray(index) => {
                let outcome = self.land_stray(before, index)?;
                if after.node(at).seen.is_some() && node.seen.is_none() {
                    self.proc(slot)?.seen = Some((ReqId(0), outcome));
                }
                Ok(())
            }
            What::Dial => self.dial(slot),
            What::Called => self.called(slot, before, at),
            What::Snapshot => {
                let session = self.session_of(slot)?;
                let position = Position(u64::from(node.log.len()));
                self.feed(slot, Event::SnapshotTaken { session, position })?;
                let event = Event::SnapshotChunk {
                    session,
                    offset: 0,
                    bytes: vec![0],
                    last: true,
                };
                self.feed(slot, event)
            }
            What::Deliver => {
                let message = self.deliver(down, slot)?;
                if matches!(message, Message::SnapshotBegin { .. }) {
                    self.deliver(down, slot)?;
                }
                Ok(())
            }
            What::Store => {
                let session = self.session_of(slot)?;
                let end = after.node(at).stored;
                let outputs = node.log.prefix(end).outputs(node.stored);
                let now = !self.speaks;
                for position in outputs.filter(|_| now) {
                    self.executed(slot, position)?;
                }
                if node.log.halted() {
                    let position = Position(u64::from(end));
                    self.feed(slot, Event::GuestHalted { position })?;
                }
                let end = Position(u64::from(end));
                self.feed(slot, Event::Stored { session, end })
            }
            What::Install => {
                let session = self.session_of(slot)?;
                self.feed(slot, Event::Installed { session })?;
                self.proc(slot)?.ms += HEARTBEAT_MS;
                self.feed(slot, Event::Tick)
            }
            What::Acks => {
                // The model has the highest ack alone.
                let ack = |m: &Message| matches!(m, Message::Ack { .. });
                let fits = |m: &Message| ack(m) || matches!(m, Message::Installed);
                let queue = &mut self.wires[up].queue[slot];
                let last = queue.iter().rposition(ack);
                let mut index = 0;
                queue.retain(|m| {
                    index += 1;
                    !ack(m) || Some(index - 1) == last
                });
                while self.wires[up].queue[slot].front().is_some_and(fits) {
                    self.deliver(up, slot)?;
                }
                Ok(())
            }
            What::Beat => {
                self.proc(slot)?.ms += HEARTBEAT_MS;
                self.feed(slot, Event::Tick)?;
                let beat = self.wires[up].queue[1 - slot].pop_back();
                let Some(message @ Message::Heartbeat { .. }) = beat else {
                    return Err(format!("no heartbeat, but {beat:?}"));
                };
                let conn = ConnId(up as u64);
                self.feed(1 - slot, Event::Received { conn, message })
            }
            What::Speak => {
                self.executed(slot, after.node(at).released)?;
                // The next ack says so.
                self.proc(slot)?.ms += HEARTBEAT_MS;
                self.feed(slot, Event::Tick)
            }
            What::LoseSession => self.hang_up(up, slot),
            What::Suspect => self.hang_up(down, slot),
            What::Drained => {
                let left = node.log.prefix(node.stored).outputs(node.released);
                let now = self.speaks;
                for position in left.filter(|_| now) {
                    self.executed(slot, position)?;
                }
                let position = Position(u64::from(node.stored));
                self.feed(slot, Event::Drained { position })
            }
            What::Output => {
                let position = after.node(at).log.len();
                let event = Event::Output {
                    position: Position(u64::from(position)),
                    bytes: 1,
                    item: position,
                };
                self.appended(slot, after, at, Some(event))
            }
            What::Input => self.appended(slot, after, at, None),
            What::Overwrite => {
                let session = self.session_of(1 - slot)?;
                self.feed(slot, Event::Overwriting { session })
            }
            What::Reset => self.reset(slot),
            What::StartForced => {
                self.stop(1 - slot);
                self.stop(slot);
                let shown = self
                    .arbiter
                    .current()
                    .map_or(Generation(0), |r| r.generation);
                self.start(slot)?;
                let force = Force {
                    shown,
                    ..Force::default()
                };
                self.feed(slot, Event::Force(force))
            }
            What::StartAlone | What::Force => {
                let proc = self.proc(slot)?;
                proc.ms = proc.ms.max(proc.started_ms + FIRST_START_MS);
                self.feed(slot, Event::Tick)
            }
            What::HandoverOver => {
                self.proc(slot)?.ms += HANDOVER_MS;
                self.feed(slot, Event::Tick)
            }
            What::Crash => {
                self.stop(slot);
                Ok(())
            }
            What::Cut => {
                self.wires[up].cut = true;
                Ok(())
            }
            What::Poweroff => {
                let position = Position(u64::from(node.log.len() + 1));
                self.halted(slot, position)
            }
            What::Stop | What::Takeover | What::Detach => {
                let ctl = match action.what {
                    What::Stop => Ctl::Stop,
                    What::Takeover => Ctl::Takeover,
                    _ => Ctl::Detach,
                };
                self.feed(slot, Event::Ctl(ctl))?;
                self.frozen(slot, node.log.len())
            }
            What::Terminate => {
                self.feed(slot, Event::Terminate)?;
                self.frozen(slot, node.log.len())
            }
            other => Err(format!("{other:?} has no counterpart")),
        }
    }

    /// Replay has made this output again.
    fn executed(&mut self, slot: usize, position: u8) -> Checked {
        let event = Event::Output {
            position: Position(u64::from(position)),
            bytes: 1,
            item: position,
        };
        self.feed(slot, event)
    }

    fn halted(&mut self, slot: usize, position: Position) -> Checked {
        if self.proc(slot)?.node.wants_log() {
            let first = Position(position.0 - 1);
            let batch = vec![0];
            let end = position;
            self.feed(slot, Event::Flushed { first, end, batch })?;
        }
        self.feed(slot, Event::GuestHalted { position })
    }

    /// What a frozen machine reports.
    fn frozen(&mut self, slot: usize, end: u8) -> Checked {
        let live = self.proc(slot)?.node.role() == RoleKind::Live;
        let position = Position(u64::from(end));
        if live {
            self.feed(slot, Event::Frozen { position })?;
        }
        Ok(())
    }

    /// Takes one step, and compares.
    pub(crate) fn step(&mut self, before: &World, action: Action, after: &World) -> Checked {
        self.emitted.clear();
        self.lead(before, action, after)?;
        // A claim that ends in a stop freezes at once.
        for id in Id::BOTH {
            let slot = id as usize;
            let stops = after.node(id).stop.is_some() && before.node(id).role != Role::Live;
            if stops && after.node(id).role == Role::Live {
                self.frozen(slot, after.node(id).log.len())?;
            }
            if self.procs[slot].as_ref().is_some_and(|p| p.exited) {
                self.stop(slot);
            }
            self.answers(before, id, after)?;
        }
        if after.history.len() < before.history.len() {
            self.history = 0;
        }
        for (slot, position) in std::mem::take(&mut self.emitted) {
            let id = Id::BOTH[slot];
            if !before.node(id).log.old {
                self.history = self.history.max(position);
            }
        }
        self.compare(after)
    }

    /// Answers that the step has put on their way.
    fn answers(&mut self, before: &World, id: Id, after: &World) -> Checked {
        let (old, new) = (before.node(id).seen, after.node(id).seen);
        let record = self.arbiter.current().copied();
        let Some(proc) = &mut self.procs[id as usize] else {
            return Ok(());
        };
        let asked = |s: Option<twinvm_model::state::Seen>| s.is_some_and(|s| s.asked);
        if new.is_none() {
            proc.seen = None;
        } else if asked(new) && !asked(old) {
            let Some(req) = proc.read.take() else {
                return Err("the node has not asked".into());
            };
            proc.seen = Some((req, Outcome::Read(record)));
        } else if proc.seen.is_none() {
            let outcome = proc.answered.take();
            let Some(outcome) = outcome else {
                return Err("no answer was forgotten".into());
            };
            proc.seen = Some((ReqId(0), outcome));
        }
        Ok(())
    }
}

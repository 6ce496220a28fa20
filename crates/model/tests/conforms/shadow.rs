//! Production nodes that are led along a way of the model: each of its steps becomes the events
//! that the drivers of two nodes would hand over.

mod compare;
mod lead;
mod lives;
mod wires;

use std::collections::VecDeque;

use twinvm_model::action::{Action, What};
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

    fn session_of(&self, slot: usize) -> Result<SessionId, String> {
        let status = self.procs[slot].as_ref().map(|p| p.node.status());
        let session = status.and_then(|s| s.session);
        session.ok_or_else(|| format!("node {slot} has no session"))
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

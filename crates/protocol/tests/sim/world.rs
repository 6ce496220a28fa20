//! The simulated world: time, faults, and what carries actions out.

use std::collections::{BTreeMap, VecDeque};

use twinvm_protocol::message::Field;
use twinvm_protocol::node::Mutation;
use twinvm_protocol::{
    Action, ArbiterContract, Config, ConnId, Ctl, Event, Generation, Identity, Incarnation,
    Instant, MemoryArbiter, Node, NodeId, Outcome, Position, Record, ReqId, RoleKind, SessionId,
};

use super::check::Check;
use super::link::Wire;
use super::machine::{Out, Vm};
use super::proc::{Events, Proc};
use super::rng::Rng;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub mutation: Option<Mutation>,
}

/// What must not happen, happened.
#[derive(Debug)]
pub struct Violation {
    pub at_ms: u64,
    /// Something wrong was seen, as against nothing good in time.
    pub safety: bool,
    pub what: String,
}

/// For the sum over seeds: faults that never lead anywhere test nothing.
#[derive(Debug, Default)]
pub struct Tally {
    pub takeovers: u64,
    pub emissions: u64,
    pub crashes: u64,
    pub records: u64,
    pub boots: u64,
}

const MS: u64 = 1000;
/// Once faults have stopped, the pair must be protected within this time.
const PATIENCE: u64 = 40_000 * MS;

#[derive(Clone, Debug)]
enum Ask {
    Read,
    Cas(Generation, Record),
}

#[derive(Debug)]
enum Hap {
    Tick {
        slot: usize,
        epoch: u64,
    },
    Slice {
        slot: usize,
        epoch: u64,
    },
    Drain {
        slot: usize,
        epoch: u64,
    },
    Local {
        slot: usize,
        epoch: u64,
        event: Event<Out>,
    },
    Install {
        slot: usize,
        epoch: u64,
        session: SessionId,
        image: usize,
    },
    Store {
        slot: usize,
        epoch: u64,
        session: SessionId,
        batch: Vec<u8>,
        end: Position,
    },
    Dialed {
        slot: usize,
        epoch: u64,
    },
    Look {
        wire: usize,
        to: usize,
    },
    Request {
        slot: usize,
        epoch: u64,
        req: ReqId,
        ask: Ask,
        quiet: bool,
    },
    Reply {
        slot: usize,
        epoch: u64,
        req: ReqId,
        outcome: Outcome,
    },
    Resume {
        slot: usize,
        epoch: u64,
    },
    Boot {
        slot: usize,
    },
    Fault,
    Trouble,
    Heal,
    Watch,
}

struct World {
    rng: Rng,
    now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Hap>,
    procs: [Option<Proc>; 2],
    inbox: [VecDeque<Hap>; 2],
    /// The generation stored beside each node's id.
    disks: [u64; 2],
    epochs: u64,
    lives: u64,
    wires: Vec<Wire>,
    arbiter: MemoryArbiter,
    images: Vec<Vm>,
    check: Check,
    mutation: Option<Mutation>,
    faults: bool,
    inputs: bool,
    partition_until: u64,
    outage_until: u64,
    crash_one_in: u64,
    fault_every: u64,
    arbiter_us: u64,
    link_us: u64,
    halt_soon: bool,
    protected_since: Option<u64>,
    healed_at: u64,
    crashes: u64,
    trace: bool,
    done: bool,
    impatient: bool,
}

pub fn run(plan: Plan) -> Result<Tally, Violation> {
    let mut rng = Rng::new(plan.seed);
    let world = World {
        crash_one_in: [1500, 8000, 100_000][rng.range(0, 3) as usize],
        fault_every: [250, 1000, 3000][rng.range(0, 3) as usize] * MS,
        arbiter_us: [500, 5000, 60_000][rng.range(0, 3) as usize],
        link_us: [2000, 8000, 40_000][rng.range(0, 3) as usize],
        rng,
        now: 0,
        seq: 0,
        queue: BTreeMap::new(),
        procs: [None, None],
        inbox: Default::default(),
        disks: [0; 2],
        epochs: 0,
        lives: 0,
        wires: Vec::new(),
        arbiter: MemoryArbiter::new(),
        images: Vec::new(),
        check: Check::default(),
        mutation: plan.mutation,
        faults: true,
        inputs: true,
        partition_until: 0,
        outage_until: 0,
        halt_soon: false,
        protected_since: None,
        healed_at: 0,
        crashes: 0,
        trace: std::env::var_os("TWINVM_SIM_TRACE").is_some(),
        done: false,
        impatient: false,
    };
    world.run()
}

impl World {
    fn run(mut self) -> Result<Tally, Violation> {
        self.at(0, Hap::Boot { slot: 0 });
        let second = self.rng.range(0, 300) * MS;
        self.at(second, Hap::Boot { slot: 1 });
        let first_fault = self.rng.range(300, 2500) * MS;
        self.at(first_fault, Hap::Fault);
        let heal = first_fault + self.rng.range(2000, 20_000) * MS;
        self.at(heal, Hap::Heal);
        while let Some(((at, _), hap)) = self.queue.pop_first() {
            self.now = at;
            if let Err(what) = self.take(hap) {
                return Err(Violation {
                    at_ms: self.now / MS,
                    safety: !self.impatient,
                    what,
                });
            }
            if self.done {
                break;
            }
        }
        Ok(Tally {
            takeovers: self.check.takeovers,
            emissions: self.check.emissions,
            crashes: self.crashes,
            records: self.arbiter.history().len() as u64,
            boots: self.check.boot,
        })
    }

    fn at(&mut self, at: u64, hap: Hap) {
        self.seq += 1;
        self.queue.insert((at, self.seq), hap);
    }

    fn after(&mut self, low: u64, high: u64, hap: Hap) {
        let at = self.now + self.rng.range(low, high);
        self.at(at, hap);
    }

    fn proc(&mut self, slot: usize, epoch: u64) -> Option<&mut Proc> {
        self.procs[slot].as_mut().filter(|p| p.epoch == epoch)
    }

    /// A report of a process's own threads: in order.
    fn local(&mut self, slot: usize, low: u64, high: u64, make: impl FnOnce(u64) -> Hap) {
        let delay = self.rng.range(low, high);
        let now = self.now;
        if let Some(p) = &mut self.procs[slot] {
            p.last_local = (now + delay).max(p.last_local + 1);
            let (at, epoch) = (p.last_local, p.epoch);
            self.at(at, make(epoch));
        }
    }

    fn owner(&self, hap: &Hap) -> Option<(usize, u64)> {
        Some(match hap {
            Hap::Tick { slot, epoch }
            | Hap::Slice { slot, epoch }
            | Hap::Drain { slot, epoch }
            | Hap::Local { slot, epoch, .. }
            | Hap::Install { slot, epoch, .. }
            | Hap::Store { slot, epoch, .. }
            | Hap::Dialed { slot, epoch }
            | Hap::Reply { slot, epoch, .. } => (*slot, *epoch),
            Hap::Look { wire, to } => self.wires[*wire].ends[*to],
            _ => return None,
        })
    }

    fn take(&mut self, hap: Hap) -> Result<(), String> {
        if let Some((slot, epoch)) = self.owner(&hap) {
            let now = self.now;
            let Some(p) = self.proc(slot, epoch) else {
                return Ok(());
            };
            if p.paused_until > now || !self.inbox[slot].is_empty() {
                self.inbox[slot].push_back(hap);
                return Ok(());
            }
        }
        self.happen(hap)
    }

    fn happen(&mut self, hap: Hap) -> Result<(), String> {
        let now = self.now;
        match hap {
            Hap::Tick { slot, epoch } => {
                if let Some(p) = self.proc(slot, epoch) {
                    p.tick_at = u64::MAX;
                    return self.drive(slot, vec![Event::Tick]);
                }
            }
            Hap::Slice { slot, epoch } => return self.slice(slot, epoch),
            Hap::Drain { slot, epoch } => {
                if let Some(p) = self.proc(slot, epoch) {
                    let events = p.drain(now);
                    return self.drive(slot, events);
                }
            }
            Hap::Local { slot, epoch, event } => {
                if self.proc(slot, epoch).is_some() {
                    return self.drive(slot, vec![event]);
                }
            }
            Hap::Install {
                slot,
                epoch,
                session,
                image,
            } => {
                let vm = self.images[image].clone();
                if let Some(p) = self.proc(slot, epoch)
                    && p.session == Some(session)
                {
                    p.vm = Some(vm);
                    p.replaying = true;
                    return self.drive(slot, vec![Event::Installed { session }]);
                }
            }
            Hap::Store {
                slot,
                epoch,
                session,
                batch,
                end,
            } => {
                if let Some(p) = self.proc(slot, epoch)
                    && p.session == Some(session)
                {
                    p.store(&batch, end);
                    return self.drive(slot, vec![Event::Stored { session, end }]);
                }
            }
            Hap::Dialed { slot, epoch } => return self.dialed(slot, epoch),
            Hap::Look { wire, to } => return self.look(wire, to),
            Hap::Request {
                slot,
                epoch,
                req,
                ask,
                quiet,
            } => self.request(slot, epoch, req, ask, quiet),
            Hap::Reply {
                slot,
                epoch,
                req,
                outcome,
            } => {
                if self.proc(slot, epoch).is_some() {
                    return self.drive(slot, vec![Event::Arbiter { req, outcome }]);
                }
            }
            Hap::Resume { slot, epoch } => {
                if self.proc(slot, epoch).is_some() {
                    let held = std::mem::take(&mut self.inbox[slot]);
                    for hap in held {
                        self.happen(hap)?;
                    }
                }
            }
            Hap::Boot { slot } => return self.boot(slot),
            Hap::Fault => {
                let every = self.fault_every;
                self.after(every / 4, every, Hap::Fault);
                return self.fault();
            }
            Hap::Trouble => return self.fault(),
            Hap::Heal => {
                self.faults = false;
                self.partition_until = 0;
                self.outage_until = 0;
                self.healed_at = now;
                for slot in 0..2 {
                    if self.procs[slot].is_none() {
                        self.after(1, 500 * MS, Hap::Boot { slot });
                    }
                }
                self.at(now + 50 * MS, Hap::Watch);
            }
            Hap::Watch => return self.watch(),
        }
        Ok(())
    }

    fn boot(&mut self, slot: usize) -> Result<(), String> {
        if self.procs[slot].is_some() {
            return Ok(());
        }
        self.epochs += 1;
        let me = Identity {
            id: NodeId(slot as u128 + 1),
            name: ["a", "b"][slot].into(),
            incarnation: Incarnation(self.rng.u128()),
            machine: vec![Field {
                name: "machine_version".into(),
                value: "1".into(),
            }],
        };
        let config = Config {
            heartbeat_ms: 40,
            suspect_ms: 200,
            stall_ms: 1000,
            cold_delay_ms: None,
        };
        let mut node = Node::new(me, config);
        if let Some(mutation) = self.mutation {
            node.break_rule(mutation);
        }
        self.procs[slot] = Some(Proc::new(self.epochs, node));
        self.inbox[slot].clear();
        let (epoch, generation) = (self.epochs, Generation(self.disks[slot]));
        self.after(1, 10 * MS, Hap::Slice { slot, epoch });
        self.drive(slot, vec![Event::Start { generation }])
    }

    fn slice(&mut self, slot: usize, epoch: u64) -> Result<(), String> {
        let now = self.now;
        let steps = self.rng.range(1, 30);
        let count = self.rng.range(0, 8) as usize;
        let mut inputs = Vec::new();
        if self.inputs {
            for _ in 0..self.rng.range(0, 3) {
                inputs.push(self.rng.next());
            }
        }
        let halt_soon = self.halt_soon;
        let Some(p) = self.proc(slot, epoch) else {
            return Ok(());
        };
        let halt = halt_soon && p.running;
        let events = if p.replaying {
            p.replay(now, count)
        } else {
            p.slice(now, steps, &inputs, halt)
        };
        if halt {
            self.halt_soon = false;
        }
        let taken = events.iter().find_map(|e| match e {
            Event::SnapshotTaken { session, .. } => Some(*session),
            _ => None,
        });
        if let Some(session) = taken
            && let Some(vm) = self.procs[slot].as_ref().and_then(|p| p.vm.clone())
        {
            let image = self.images.len() as u64;
            self.images.push(vm);
            let bytes = image.to_le_bytes();
            for i in 0..4 {
                let event = Event::SnapshotChunk {
                    session,
                    offset: i * 2,
                    bytes: bytes[i as usize * 2..][..2].to_vec(),
                    last: i == 3,
                };
                self.local(slot, 500, 30 * MS, |epoch| Hap::Local {
                    slot,
                    epoch,
                    event,
                });
            }
        }
        self.after(4 * MS, 14 * MS, Hap::Slice { slot, epoch });
        self.drive(slot, events)
    }

    // ---- the channel -----------------------------------------------------------------

    fn dialed(&mut self, slot: usize, epoch: u64) -> Result<(), String> {
        let other = 1 - slot;
        let peer = self.procs[other].as_ref().map(|p| p.epoch);
        let Some(peer) = peer.filter(|_| self.now >= self.partition_until) else {
            return self.drive(slot, vec![Event::DialFailed]);
        };
        let wire = self.wires.len();
        let conn = ConnId(wire as u64);
        self.wires.push(Wire::new([(slot, epoch), (other, peer)]));
        let nonce = self.rng.u128();
        let event = Event::ChannelUp {
            conn,
            dialed: false,
            nonce,
        };
        self.take(Hap::Local {
            slot: other,
            epoch: peer,
            event,
        })?;
        let nonce = self.rng.u128();
        self.drive(
            slot,
            vec![Event::ChannelUp {
                conn,
                dialed: true,
                nonce,
            }],
        )
    }

    fn look(&mut self, wire: usize, to: usize) -> Result<(), String> {
        let until = self.partition_until;
        if self.now < until {
            self.at(until, Hap::Look { wire, to });
            return Ok(());
        }
        while let Some((at, _)) = self.wires[wire].queue[to].front() {
            if *at > self.now {
                let at = *at;
                self.at(at, Hap::Look { wire, to });
                return Ok(());
            }
            let (_, frame) = self.wires[wire].queue[to].pop_front().unwrap();
            if !self.wires[wire].open[to] {
                continue;
            }
            let (slot, epoch) = self.wires[wire].ends[to];
            if self.proc(slot, epoch).is_none() {
                continue;
            }
            let conn = ConnId(wire as u64);
            let event = match frame {
                Some(body) => Event::Received {
                    conn,
                    message: twinvm_protocol::codec::decode_body(&body)
                        .map_err(|e| format!("codec: {e}"))?,
                },
                None => {
                    self.wires[wire].open[to] = false;
                    Event::ChannelDown { conn }
                }
            };
            self.drive(slot, vec![event])?;
        }
        Ok(())
    }

    /// Ends what goes towards `to`, after a prefix of what is under way.
    fn cut(&mut self, wire: usize, to: usize, keep: usize) {
        let delay = self.rng.range(50, 3000);
        if let Some(at) = self.wires[wire].cut(to, self.now + delay, keep) {
            self.at(at, Hap::Look { wire, to });
        }
    }

    fn keep(&mut self, wire: usize, to: usize) -> usize {
        let len = self.wires[wire].queue[to].len() as u64;
        self.rng.range(0, len + 1) as usize
    }

    fn down(&mut self, slot: usize, crash: bool) {
        let Some(p) = self.procs[slot].take() else {
            return;
        };
        self.inbox[slot].clear();
        for wire in 0..self.wires.len() {
            let Some(end) = self.wires[wire].end_of(slot, p.epoch) else {
                continue;
            };
            if !self.wires[wire].open[end] {
                continue;
            }
            self.wires[wire].open[end] = false;
            let keep = if crash {
                self.keep(wire, 1 - end)
            } else {
                usize::MAX
            };
            self.cut(wire, 1 - end, keep);
        }
        self.after(20 * MS, 900 * MS, Hap::Boot { slot });
    }

    // ---- the arbiter -----------------------------------------------------------------

    fn request(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask, quiet: bool) {
        let lame = self.now < self.outage_until || self.faults && self.rng.one_in(12);
        if lame && !quiet {
            // The sender hears that it is unknown, or nothing; the request may land yet.
            if self.rng.one_in(2) {
                let outcome = Outcome::Unknown;
                self.after(
                    MS,
                    400 * MS,
                    Hap::Reply {
                        slot,
                        epoch,
                        req,
                        outcome,
                    },
                );
            }
            if self.rng.one_in(2) {
                let quiet = true;
                self.after(
                    MS,
                    4000 * MS,
                    Hap::Request {
                        slot,
                        epoch,
                        req,
                        ask,
                        quiet,
                    },
                );
            }
            return;
        }
        let outcome = match ask.clone() {
            Ask::Read => self.arbiter.read(),
            Ask::Cas(expect, record) => self.arbiter.cas(expect, record),
        };
        if self.trace {
            println!("{:>8} arbiter {slot} {ask:?} -> {outcome:?}", self.now);
        }
        let lost = quiet || self.faults && self.rng.one_in(12);
        if !lost {
            let high = self.arbiter_us;
            self.after(
                100,
                high,
                Hap::Reply {
                    slot,
                    epoch,
                    req,
                    outcome,
                },
            );
        }
        if self.faults && self.rng.one_in(10) {
            // A copy of the request, and a late copy of the answer.
            let copy = Hap::Request {
                slot,
                epoch,
                req,
                ask,
                quiet: true,
            };
            self.after(MS, 3000 * MS, copy);
            self.after(
                MS,
                3000 * MS,
                Hap::Reply {
                    slot,
                    epoch,
                    req,
                    outcome,
                },
            );
        }
    }

    // ---- faults ----------------------------------------------------------------------

    fn fault(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let slot = self.rng.range(0, 2) as usize;
        let now = self.now;
        let kind = self.rng.range(0, 16);
        if self.trace {
            println!("{now:>8} fault {kind} at {slot}");
        }
        match kind {
            0..3 => {
                self.crashes += 1;
                self.down(slot, true);
            }
            3..6 => {
                for wire in 0..self.wires.len() {
                    for to in 0..2 {
                        if self.wires[wire].open[0] || self.wires[wire].open[1] {
                            let keep = self.keep(wire, to);
                            self.cut(wire, to, keep);
                        }
                    }
                }
            }
            6..8 => self.partition_until = now + self.rng.range(20, 1500) * MS,
            8..10 => {
                let until = now + self.rng.range(20, 1500) * MS;
                if let Some(p) = &mut self.procs[slot]
                    && p.paused_until <= now
                {
                    p.paused_until = until;
                    let epoch = p.epoch;
                    self.at(until, Hap::Resume { slot, epoch });
                }
            }
            10 => {
                if let Some(p) = &mut self.procs[slot] {
                    p.hung_until = now + 500 * MS;
                }
            }
            11..13 => self.outage_until = now + self.rng.range(20, 2500) * MS,
            13 => return self.person(slot, Event::Terminate),
            14 => {
                let ctl = [Ctl::Takeover, Ctl::Detach, Ctl::Stop][self.rng.range(0, 3) as usize];
                return self.person(slot, Event::Ctl(ctl));
            }
            _ => self.halt_soon = self.rng.one_in(3),
        }
        Ok(())
    }

    fn person(&mut self, slot: usize, event: Event<Out>) -> Result<(), String> {
        match &self.procs[slot] {
            Some(p) => {
                let epoch = p.epoch;
                self.take(Hap::Local { slot, epoch, event })
            }
            None => Ok(()),
        }
    }

    // ---- actions ---------------------------------------------------------------------

    fn drive(&mut self, slot: usize, events: Events) -> Result<(), String> {
        let Some(epoch) = self.procs[slot].as_ref().map(|p| p.epoch) else {
            return Ok(());
        };
        for event in events {
            let at = Instant::from_micros(self.now);
            let Some(p) = self.proc(slot, epoch) else {
                return Ok(());
            };
            p.node.handle(at, event);
            while let Some(action) = self.proc(slot, epoch).and_then(Proc::next_action) {
                if self.faults && self.rng.one_in(self.crash_one_in) {
                    self.crashes += 1;
                    self.down(slot, true);
                    return Ok(());
                }
                self.act(slot, epoch, action)?;
            }
        }
        let now = self.now;
        if let Some(p) = self.proc(slot, epoch)
            && let Some(deadline) = p.node.next_deadline()
        {
            let at = deadline.micros().max(now + 1);
            if at < p.tick_at {
                p.tick_at = at;
                self.at(at, Hap::Tick { slot, epoch });
            }
        }
        Ok(())
    }

    fn act(&mut self, slot: usize, epoch: u64, action: Action<Out>) -> Result<(), String> {
        let now = self.now;
        if self.trace {
            println!("{now:>8} {slot} {action:?}");
        }
        let Some(p) = self.procs[slot].as_mut() else {
            return Ok(());
        };
        match action {
            Action::Dial => self.after(200, 8 * MS, Hap::Dialed { slot, epoch }),
            Action::Send { conn, message } => {
                let wire = conn.0 as usize;
                let delay = self.rng.range(50, self.link_us);
                if let Some(end) = self.wires[wire].end_of(slot, epoch)
                    && self.wires[wire].open[end]
                    && let Some(at) = self.wires[wire].send(1 - end, now + delay, &message)
                {
                    self.at(at, Hap::Look { wire, to: 1 - end });
                }
            }
            Action::Close { conn, .. } => {
                let wire = conn.0 as usize;
                if let Some(end) = self.wires[wire].end_of(slot, epoch) {
                    self.wires[wire].open[end] = false;
                    let short = self.faults && self.rng.one_in(4);
                    let keep = if short {
                        self.keep(wire, 1 - end)
                    } else {
                        usize::MAX
                    };
                    self.cut(wire, 1 - end, keep);
                }
            }
            Action::ArbiterRead { req } => self.ask(slot, epoch, req, Ask::Read),
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                if p.node.role() == RoleKind::Claiming
                    && let Some(vm) = &p.vm
                {
                    self.check.claim(record.live, vm);
                }
                // Trouble just where the record changes is what the rules are about.
                if self.faults && self.rng.one_in(6) {
                    self.after(50, 20 * MS, Hap::Trouble);
                }
                self.ask(slot, epoch, req, Ask::Cas(expect, record));
            }
            Action::PersistGeneration { generation } => self.disks[slot] = generation.0,
            Action::ColdStart { generation } => self.cold_start(slot, generation)?,
            Action::GoLive { generation } => {
                self.lives += 1;
                p.life = self.lives;
                p.running = true;
                p.replaying = false;
                if let Some(vm) = &p.vm {
                    let id = NodeId(slot as u128 + 1);
                    let history = self.arbiter.history();
                    self.check.go_live(p.life, id, generation, history, vm)?;
                }
            }
            Action::Emit { item, .. } => self.check.emit(p.life, &item, self.arbiter.history())?,
            Action::Freeze => {
                p.running = false;
                let mut events = Vec::new();
                p.flush(&mut events);
                let position = Position(p.vm.as_ref().map_or(0, Vm::end));
                events.push(Event::Frozen { position });
                for event in events {
                    self.local(slot, 1, 5 * MS, |epoch| Hap::Local { slot, epoch, event });
                }
            }
            Action::Thaw => p.running = true,
            Action::Discard => p.discard(),
            Action::TakeSnapshot { session } => p.snapshot_for = Some(session),
            Action::EndSession { session } => {
                if p.snapshot_for == Some(session) {
                    p.snapshot_for = None;
                }
            }
            Action::BeginInstall { session, position } => {
                p.discard();
                p.session = Some(session);
                p.stored_end = position.0;
            }
            Action::InstallChunk {
                session,
                bytes,
                last,
                ..
            } => {
                p.install.extend_from_slice(&bytes);
                if last {
                    let image = std::mem::take(&mut p.install);
                    let image = u64::from_le_bytes(image.try_into().unwrap()) as usize;
                    self.local(slot, MS, 60 * MS, |epoch| Hap::Install {
                        slot,
                        epoch,
                        session,
                        image,
                    });
                }
            }
            Action::Store {
                session,
                end,
                batch,
                ..
            } => self.local(slot, 10, 4 * MS, |epoch| Hap::Store {
                slot,
                epoch,
                session,
                batch,
                end,
            }),
            Action::BeginDrain => {
                // Storing ends here: what is under way is dropped.
                p.session = None;
                self.after(MS, 100 * MS, Hap::Drain { slot, epoch });
            }
            Action::Exit { .. } => self.down(slot, false),
            Action::Fatal { what } => {
                if self.mutation.is_none() {
                    return Err(format!("node {slot} found a fault of its own: {what}"));
                }
                self.down(slot, true);
            }
            Action::Mismatch(mismatch) => return Err(mismatch.to_string()),
            Action::Announce
            | Action::Side { .. }
            | Action::RoleChanged { .. }
            | Action::Note { .. }
            | Action::CtlAnswer { .. } => {}
        }
        Ok(())
    }

    fn ask(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask) {
        let high = self.arbiter_us;
        let quiet = false;
        self.after(
            100,
            high,
            Hap::Request {
                slot,
                epoch,
                req,
                ask,
                quiet,
            },
        );
    }

    fn cold_start(&mut self, slot: usize, generation: Generation) -> Result<(), String> {
        let history = self.arbiter.history();
        let index = generation.0 as usize;
        let before = index.checked_sub(2).and_then(|i| history.get(i));
        let id = NodeId(slot as u128 + 1);
        let other = self.procs[1 - slot].as_ref().map(|p| p.node.status());
        let held = other.is_some_and(|s| {
            matches!(s.role, RoleKind::Backup | RoleKind::Claiming)
                && before.and_then(|r| r.backup).map(|b| b.session) == s.session
                && s.session.is_some()
        });
        self.lives += 1;
        let life = self.lives;
        let boot = self
            .check
            .cold_start(life, id, generation, self.arbiter.history(), held)?;
        if let Some(p) = &mut self.procs[slot] {
            p.life = life;
            p.discard();
            p.vm = Some(Vm::power_on(boot));
            p.running = true;
        }
        Ok(())
    }

    // ---- afterwards ------------------------------------------------------------------

    fn watch(&mut self) -> Result<(), String> {
        let now = self.now;
        let all: Vec<_> = self
            .procs
            .iter()
            .flatten()
            .map(|p| p.node.status())
            .collect();
        let is = |role| all.iter().any(|s| s.role == role && s.protected);
        if is(RoleKind::Live) && is(RoleKind::Backup) {
            let since = *self.protected_since.get_or_insert(now);
            if now >= since + 300 * MS {
                self.inputs = false;
            }
            if now >= since + 700 * MS {
                let live = self.procs.iter().flatten().find(|p| p.running);
                if let Some(vm) = live.and_then(|p| p.vm.as_ref()) {
                    self.check.nothing_lost(vm)?;
                }
                self.done = true;
                return Ok(());
            }
        } else {
            self.protected_since = None;
        }
        if now > self.healed_at + PATIENCE {
            self.impatient = true;
            return Err(format!(
                "faults stopped at {} ms, but the pair is not protected: record {:?}, {all:#?}",
                self.healed_at / MS,
                self.arbiter.current()
            ));
        }
        self.at(now + 50 * MS, Hap::Watch);
        Ok(())
    }
}

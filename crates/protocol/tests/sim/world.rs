//! The simulated world: time, faults, and what carries actions out.

mod actions;
mod asking;
mod channel;
mod faults;

use std::collections::{BTreeMap, VecDeque};

use twinvm_protocol::message::Field;
use twinvm_protocol::node::Mutation;
use twinvm_protocol::{
    Action, ArbiterContract, Config, ConnId, Ctl, DiskMark, Event, Generation, Identity,
    Incarnation, Instant, MemoryArbiter, Node, NodeId, Outcome, OutputFrom, Position, Record,
    ReqId, RoleKind, SessionId,
};

use super::check::Check;
use super::link::Wire;
use super::machine::{Out, Vm};
use super::proc::{Events, Proc};
use super::rng::Rng;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mutation: Option<Mutation>,
    /// Who emits in a protected pair.
    pub(crate) output: OutputFrom,
}

/// What must not happen, happened.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) at_ms: u64,
    /// Something wrong was seen, as against nothing good in time.
    pub(crate) safety: bool,
    pub(crate) what: String,
}

/// For the sum over seeds: faults that never lead anywhere test nothing.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) takeovers: u64,
    pub(crate) emissions: u64,
    pub(crate) spoken: u64,
    pub(crate) crashes: u64,
    pub(crate) records: u64,
    pub(crate) boots: u64,
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
    marks: [DiskMark; 2],
    epochs: u64,
    lives: u64,
    wires: Vec<Wire>,
    arbiter: MemoryArbiter,
    images: Vec<Vm>,
    check: Check,
    mutation: Option<Mutation>,
    output: OutputFrom,
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

pub(crate) fn run(plan: Plan) -> Result<Tally, Violation> {
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
        marks: [DiskMark::FRESH; 2],
        epochs: 0,
        lives: 0,
        wires: Vec::new(),
        arbiter: MemoryArbiter::new(),
        images: Vec::new(),
        check: Check::default(),
        mutation: plan.mutation,
        output: plan.output,
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
            spoken: self.check.spoken,
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

    // ---- the arbiter -----------------------------------------------------------------

    // ---- faults ----------------------------------------------------------------------

    // ---- actions ---------------------------------------------------------------------

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

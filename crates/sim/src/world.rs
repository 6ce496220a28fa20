//! The simulated world: time, hosts, what connects them, and what goes wrong.

mod actions;
mod asking;
mod channel;
mod clients;
mod disks;
mod end;
mod faults;
mod kill;
mod shared;
mod tally;
mod turn;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use twinvm_machine::{DiskRequest, MachineConfig};
use twinvm_protocol::{
    Config, DiskMark, Generation, Identity, Incarnation, MemoryArbiter, NodeId, Outcome, Record,
    ReqId, RoleKind, message::Field,
};
use twinvm_replica::{Event, Intake, Replica};

use crate::check::Check;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::guest::{self, Answer, Contents};
use crate::history::{History, Judged};
use crate::host::{Host, Input, Process, SimEnv};
use crate::link::Wire;
use crate::medium::Medium;
use crate::plan::{Broken, DriverFault, MS, Measures};
use crate::rng::Rng;
use crate::trace::Trace;
use clients::Client;
pub(crate) use disks::Work;
pub(crate) use kill::{Kill, Killed, Moment};
use shared::Server;
pub use tally::Tally;

#[derive(Clone, Copy, Debug)]
enum Ask {
    Read,
    Cas(Generation, Record),
}

/// Something that will happen.
enum Hap {
    Boot {
        slot: usize,
    },
    Turn {
        slot: usize,
        epoch: u64,
        at: u64,
    },
    Look {
        wire: usize,
        to: usize,
    },
    Dialed {
        slot: usize,
        epoch: u64,
        fails: bool,
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
    Packet {
        slot: usize,
        bytes: Vec<u8>,
    },
    Answer {
        answer: Answer,
    },
    Client {
        client: usize,
        stamp: u64,
    },
    Compare,
    Fault,
    /// A fault at once; with a host, its process ends, or the host loses its power.
    Trouble {
        slot: Option<usize>,
        power: bool,
    },
    /// The guest's mood changes.
    Mood {
        busy: bool,
    },
    /// A disk has done something.
    DiskDone {
        slot: usize,
        epoch: u64,
        ticket: u64,
    },
    /// A claim has come to the server of the guest's disk.
    Claimed {
        epoch: u64,
        generation: Generation,
    },
    /// So has a request whose process has ended.
    Late {
        epoch: u64,
        request: DiskRequest,
    },
    RecordLost,
    Heal,
    Watch,
}

/// The world of one run.
pub(crate) struct World {
    measures: Measures,
    rng: Rng,
    pub(crate) now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Hap>,
    pub(crate) hosts: [Host; 2],
    epochs: u64,
    lives: u64,
    wires: Vec<Wire>,
    machine: MachineConfig,
    pub(crate) protect: Config,
    server: Server,
    pub(crate) arbiter: MemoryArbiter,
    check: Check,
    clients: Vec<Client>,
    pub(crate) history: History,
    broken: Option<Broken>,
    /// Faults may still happen.
    faults: bool,
    /// Clients still ask.
    pub(crate) asking: bool,
    partition_until: u64,
    /// Questions of each host don't reach the arbiter until then.
    outage_until: [u64; 2],
    protected_since: Option<u64>,
    healed_at: u64,
    pub(crate) done: bool,
    /// Nothing wrong was seen, but nothing good in time either.
    impatient: bool,
    judged: Judged,
    fault_count: u64,
    digests: u64,
    /// Times that the guest was asked to be busy or to sleep again.
    moods: u64,
    /// The arbiter has lost its record: nobody may go live any more.
    record_lost: bool,
    /// All records that were won before that.
    past: Vec<Record>,
    /// Those that were asked for as the first one.
    firsts: Vec<Record>,
    /// The one kill of a sweep, until it has happened; then the position at which it did.
    kill: Option<Kill>,
    killed: Option<Killed>,
    recovery_ms: u64,
    /// Batches that were stored and acked beside a loop.
    beside: u64,
    /// Packets that waited at a backup and reached the guest there.
    kept: u64,
    pub(crate) trace: Trace,
}

/// A node's name in traces.
fn name(slot: usize) -> &'static str {
    ["a", "b"][slot]
}

impl World {
    pub(crate) fn new(
        measures: Measures,
        mut rng: Rng,
        broken: Option<Broken>,
        trace: bool,
    ) -> Self {
        let fault = match broken {
            Some(Broken::Disk(fault)) => Some(fault),
            _ => None,
        };
        let lies = broken == Some(Broken::Driver(DriverFault::FlushesNothing));
        let hosts = [0, 1].map(|slot| Host {
            clock: Clock {
                ahead_ns: rng.range(1, 1_000_000) * MS,
                drift_ppm: measures.drift_ppm[slot],
            },
            disk: Disk::new(fault),
            medium: Rc::new(RefCell::new(Medium::new(lies))),
            mark: DiskMark::FRESH,
            disk_fails_until: 0,
            ns_per_kstep: measures.ns_per_kstep[slot],
            engine: measures.engines[slot],
            slow_until: 0,
            stored: 0,
            lan_down_until: 0,
            full_until: 0,
            retired: false,
            process: None,
        });
        let clients = (0..measures.clients).map(Client::new).collect();
        let with_disk = measures.disk;
        let machine = guest::machine(with_disk);
        Self {
            rng,
            now: 0,
            seq: 0,
            queue: BTreeMap::new(),
            hosts,
            epochs: 0,
            lives: 0,
            wires: Vec::new(),
            machine,
            protect: Config {
                cold_delay_ms: measures.cold_delay_ms,
                output: measures.output,
                ..Config::default()
            },
            measures,
            server: Server::new(),
            arbiter: MemoryArbiter::new(),
            check: Check::default(),
            clients,
            history: History::new(with_disk),
            broken,
            faults: false,
            asking: true,
            partition_until: 0,
            outage_until: [0; 2],
            protected_since: None,
            healed_at: 0,
            done: false,
            impatient: false,
            judged: Judged::default(),
            fault_count: 0,
            digests: 0,
            moods: 0,
            record_lost: false,
            past: Vec::new(),
            firsts: Vec::new(),
            kill: None,
            killed: None,
            recovery_ms: 0,
            beside: 0,
            kept: 0,
            trace: Trace::new(trace),
        }
    }

    /// Both hosts start, clients ask, faults come and go; to the end of the run.
    pub(crate) fn plan_all(&mut self) {
        self.at(0, Hap::Boot { slot: 0 });
        let second = self.rng.range(0, 300) * MS;
        self.at(second, Hap::Boot { slot: 1 });
        self.begin_clients();
        self.at(100 * MS, Hap::Compare);
        let (from, to) = (self.measures.faults_from_ns, self.measures.faults_to_ns);
        self.faults = self.measures.fault_ns > 0;
        if self.faults {
            self.at(from, Hap::Fault);
        }
        self.at(to.max(from), Hap::Heal);
        if let Some(at) = self.measures.record_lost_ns {
            self.at(at, Hap::RecordLost);
        }
    }

    /// Both hosts start, clients ask, nothing goes wrong by itself.
    pub(crate) fn plan_quiet(&mut self) {
        self.at(0, Hap::Boot { slot: 0 });
        self.at(50 * MS, Hap::Boot { slot: 1 });
        self.begin_clients();
    }

    /// The end of the log at a host's node.
    pub(crate) fn position(&self, slot: usize) -> u64 {
        let process = self.hosts[slot].process.as_ref();
        process.map_or(0, |process| process.replica.status().position)
    }

    /// Starts the clients alone.
    pub(crate) fn begin_clients(&mut self) {
        for client in 0..self.clients.len() {
            let at = self.now + self.rng.below(self.measures.think_ns);
            self.at(at, Hap::Client { client, stamp: 0 });
        }
    }

    pub(crate) fn boot_now(&mut self, slot: usize) {
        self.at(self.now, Hap::Boot { slot });
    }

    /// Goes on until `done` holds, which is looked at every `every` nanoseconds; how long that took.
    pub(crate) fn run_until(
        &mut self,
        every: u64,
        limit: u64,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<u64, String> {
        let began = self.now;
        let mut look = began;
        loop {
            while self
                .queue
                .first_key_value()
                .is_some_and(|((at, _), _)| *at <= look)
            {
                self.step()?;
            }
            self.now = look;
            if done(self) {
                return Ok(look - began);
            }
            if look - began >= limit {
                return Err(format!("nothing came of it in {} ms", limit / MS));
            }
            look += every;
        }
    }

    /// Steps and virtual time (ticks) of a host's guest.
    pub(crate) fn progress(&self, slot: usize) -> (u64, u64) {
        let process = self.hosts[slot].process.as_ref();
        process.map_or((0, 0), |process| {
            let status = process.replica.status();
            (status.icount, status.vtime)
        })
    }

    /// Outputs that the gate of a host's node holds, and bytes that wait for its channel.
    pub(crate) fn held(&self, slot: usize) -> (usize, usize) {
        let process = self.hosts[slot].process.as_ref();
        let gate = process.map_or(0, |p| p.replica.status().protocol.gate_items);
        (gate, self.queued(slot))
    }

    /// Outputs that have left so far.
    pub(crate) fn emissions(&self) -> u64 {
        self.check.emissions + self.check.spoken
    }

    /// The next thing happens. False if nothing is left.
    pub(crate) fn step(&mut self) -> Result<bool, String> {
        let Some(((at, _), hap)) = self.queue.pop_first() else {
            return Ok(false);
        };
        self.now = at;
        self.happen(hap)?;
        Ok(true)
    }

    pub(crate) fn run(&mut self) -> Result<(), String> {
        while !self.done && self.step()? {}
        Ok(())
    }

    pub(crate) fn is_impatient(&self) -> bool {
        self.impatient
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            takeovers: self.check.takeovers,
            outputs: self.check.emissions,
            spoken: self.check.spoken,
            operations: self.judged.operations,
            unjudged: self.judged.unjudged,
            faults: self.fault_count,
            digests: self.digests,
            records: self.records().len() as u64,
            boots: self.check.boot,
            rejected: self.rejected(),
            beside: self.beside,
            kept: self.kept,
            virtual_ms: self.now / MS,
            recovery_ms: self.recovery_ms,
        }
    }

    /// All records that count, oldest first.
    fn records(&self) -> &[Record] {
        if self.record_lost {
            &self.past
        } else {
            self.arbiter.history()
        }
    }

    fn at(&mut self, at: u64, hap: Hap) {
        self.seq += 1;
        self.queue.insert((at, self.seq), hap);
    }

    /// Some time from `low` to below `high` from now.
    fn after(&mut self, low: u64, high: u64, hap: Hap) {
        let at = self.now + self.rng.range(low, high);
        self.at(at, hap);
    }

    fn is_broken(&self, fault: DriverFault) -> bool {
        self.broken == Some(Broken::Driver(fault))
    }

    fn process(&mut self, slot: usize, epoch: u64) -> Option<&mut Process> {
        let process = self.hosts[slot].process.as_mut();
        process.filter(|process| process.epoch == epoch)
    }

    pub(crate) fn role(&self, slot: usize) -> Option<RoleKind> {
        self.hosts[slot].process.as_ref().map(Process::role)
    }

    pub(crate) fn protected(&self, slot: usize) -> bool {
        let process = self.hosts[slot].process.as_ref();
        process.is_some_and(|process| process.replica.status().protocol.protected)
    }

    /// Whether a host's node is live and knows that it is alone.
    pub(crate) fn is_solo(&self, slot: usize) -> bool {
        let process = self.hosts[slot].process.as_ref();
        process.is_some_and(|process| process.replica.status().protocol.link == "solo")
    }

    /// The life of a host's node.
    pub(crate) fn incarnation(&self, slot: usize) -> Option<Incarnation> {
        let process = self.hosts[slot].process.as_ref();
        process.map(|process| process.born)
    }

    /// Whether the record gives the VM to a host's node and names no backup beside it.
    pub(crate) fn is_named_alone(&self, slot: usize) -> bool {
        let record = self.arbiter.current();
        record.is_some_and(|r| r.live.id.0 == slot as u128 + 1 && r.backup.is_none())
    }

    fn happen(&mut self, hap: Hap) -> Result<(), String> {
        match hap {
            Hap::Boot { slot } => self.boot(slot),
            Hap::Turn { slot, epoch, at } => self.turn(slot, epoch, at),
            Hap::Look { wire, to } => self.look(wire, to),
            Hap::Dialed { slot, epoch, fails } => {
                self.dialed(slot, epoch, fails);
                Ok(())
            }
            Hap::Request {
                slot,
                epoch,
                req,
                ask,
                quiet,
            } => {
                self.request(slot, epoch, req, ask, quiet);
                Ok(())
            }
            Hap::Reply {
                slot,
                epoch,
                req,
                outcome,
            } => {
                self.input(slot, epoch, Input::Event(Event::Arbiter { req, outcome }));
                Ok(())
            }
            Hap::Packet { slot, bytes } => {
                self.packet(slot, bytes);
                Ok(())
            }
            Hap::Answer { answer } => self.answered(&answer),
            Hap::Client { client, stamp } => {
                self.client_turn(client, stamp);
                Ok(())
            }
            Hap::Compare => self.compare_soon(),
            Hap::Fault => {
                let every = self.measures.fault_ns;
                self.after(every / 8, every, Hap::Fault);
                self.fault();
                Ok(())
            }
            Hap::Trouble { slot, power } => {
                match slot {
                    Some(slot) if self.faults => self.down(slot, power),
                    _ => self.fault(),
                }
                Ok(())
            }
            Hap::Mood { busy } => {
                self.mood(busy);
                Ok(())
            }
            Hap::DiskDone {
                slot,
                epoch,
                ticket,
            } => {
                self.disk_done(slot, epoch, ticket);
                Ok(())
            }
            Hap::Claimed { epoch, generation } => {
                self.claimed(epoch, generation);
                Ok(())
            }
            Hap::Late { epoch, request } => {
                self.serve(epoch, &request);
                Ok(())
            }
            Hap::RecordLost => {
                self.lose_record();
                Ok(())
            }
            Hap::Heal => {
                self.heal();
                Ok(())
            }
            Hap::Watch => self.watch(),
        }
    }

    fn boot(&mut self, slot: usize) -> Result<(), String> {
        if self.hosts[slot].process.is_some() || self.hosts[slot].retired {
            return Ok(());
        }
        let mark = self.mark_of(slot);
        let shared = self.shared_slots();
        let forgets_stored = self.is_broken(DriverFault::StoredForgotten);
        let host = &mut self.hosts[slot];
        let Some(generation) = host.disk.read() else {
            return Err(format!(
                "node {}: the generation's file is torn",
                name(slot)
            ));
        };
        if generation < host.stored {
            return Err(format!(
                "node {} starts with generation {generation}, but has stored {} before",
                name(slot),
                host.stored
            ));
        }
        self.epochs += 1;
        let fields = self.machine.fields().into_iter();
        let born = Incarnation(self.rng.wide());
        let identity = Identity {
            id: NodeId(slot as u128 + 1),
            name: name(slot).into(),
            peer_name: name(1 - slot).into(),
            incarnation: born,
            machine: fields.map(|(name, value)| Field { name, value }).collect(),
        };
        let mut replica = Replica::new(identity, self.protect, self.machine.clone());
        replica.set_engine(host.engine);
        replica.set_shared_disks(shared);
        #[cfg(feature = "mutations")]
        if let Some(Broken::Protocol(mutation)) = self.broken {
            replica.break_rule(mutation);
        }
        let now = self.now;
        let epoch = self.epochs;
        let env = SimEnv {
            clock: host.clock,
            began: now,
            elapsed: 0,
            ns_per_kstep: host.ns_per_kstep,
            dice: self.rng.split(),
            next_boot: 0,
            powered_on: false,
            medium: Rc::clone(&host.medium),
            intake: Intake::default(),
            forgets_stored,
        };
        self.trace.note(now, || {
            format!("{} starts, generation {generation}", name(slot))
        });
        let start = Event::Start {
            generation: Generation(generation),
            disks: mark,
        };
        host.process = Some(Process {
            epoch,
            born,
            replica,
            last_tick_ns: env.clock.shows(now),
            env,
            inbox: [Input::Event(start)].into(),
            wire: [].into(),
            channel_waits: 0,
            taken: 0,
            paused_until: 0,
            stuck_until: 0,
            timers_first: false,
            lets_store: None,
            turn_at: now,
            sleeps: false,
            storing: None,
            late: Vec::new(),
            life: 0,
            live_since: 0,
            claim: None,
            saw_loss: false,
            at_disk: BTreeMap::new(),
            next_ticket: 0,
            disk_claimed_at: 0,
            wires: Vec::new(),
        });
        self.at(
            now,
            Hap::Turn {
                slot,
                epoch,
                at: now,
            },
        );
        Ok(())
    }

    /// What the machine on a host holds of the guest's answers.
    pub(crate) fn contents(&mut self, slot: usize) -> Option<Contents> {
        let process = self.hosts[slot].process.as_mut()?;
        process.machine().map(|machine| Contents::of(machine))
    }
}

//! One node: the thread that runs the guest, and everything around it.
//!
//! The loop takes what the host's threads bring, hands it to the [`Replica`] and carries out
//! what that asks. It waits only when the guest has nothing to do.

mod actions;
mod console;
mod disks;
mod env;
mod figures;
mod force;
mod happenings;
mod keys;
mod options;
mod requests;
mod shared;
mod snapshots;
mod status;
mod surroundings;
mod takeover;
mod wires;

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Select, Sender};
use twinvm_protocol::{ConnId, Ctl, DiskMark, ExitReason, Force, Identity, Message, NoteLevel};
use twinvm_replica::{Env, Event, Replica, Storing, Wait};

use crate::arbiter_worker::{ArbiterReply, ArbiterWorker};
use crate::channel::{ChannelEvent, ChannelHub};
use crate::ctl_socket::{CtlReply, CtlServer};
use crate::journal::Journal;
use crate::marks::{Marks, Place};
use crate::metrics::MetricsServer;
use crate::port::Port;
use crate::signals::SignalWatch;
use crate::store::NodeStore;
use console::Console;
use disks::NodeDisks;
use env::HostEnv;
use happenings::Happenings;
use keys::Keys;
use shared::SharedDisks;
use snapshots::FileSnapshot;
use status::Meter;
use surroundings::{Inputs, Surroundings, identity};
use takeover::Watch;

pub use force::ForcedStart;
pub use options::{NodeError, NodeOptions, Operation, Wire};
pub use shared::SharedDisk;
pub use twinvm_replica::{Flush, Reads};

/// Things taken from the queues between two slices: the guest must go on too.
const INPUTS_PER_TURN: usize = 64;
/// The loop looks at timers at least this often while the guest runs: 1 ms.
const TICK_NS: u64 = 1_000_000;
/// How long a node that ends waits for its last words to leave: 2 s.
const LINGER_NS: u64 = 2_000_000_000;
/// The guest's console in the node's folder.
const CONSOLE_LOG: &str = "console.log";
/// Longest sleep of the loop: it looks at its timers now and then whatever happens.
const LONGEST_WAIT: Duration = Duration::from_millis(1000);

/// Runs a node until it ends. It is to be the only thing that its process does.
pub fn run(options: NodeOptions) -> Result<ExitReason, NodeError> {
    // Before anybody is listened to, and while there is one thread.
    let notice = options.confine()?;
    let mut node = NodeLoop::start(options)?;
    if let Some(asked) = node.options.forced
        && let Err(error) = node.foresee(asked)
    {
        node.forget();
        return Err(error);
    }
    if let Some(notice) = notice {
        node.journal.tell(NoteLevel::Warn, "rights", &notice);
    }
    let end = node.run();
    node.marks.end();
    let off = matches!(end, Ok(ExitReason::Halted | ExitReason::PeerHalted));
    if node.stop_asked && !off {
        node.ctl_server.leave_file();
    }
    let hooks = node.happenings.end(&end, &mut node.journal);
    node.leave_unanswered();
    // Everything else is let go of first: a command may take its time.
    drop(node);
    if let Some(mut hooks) = hooks {
        hooks.finish();
    }
    end
}

struct NodeLoop {
    options: NodeOptions,
    replica: Replica,
    env: HostEnv,
    /// What the channel's readers know of the log that they may store.
    storing: Option<Storing>,
    store: NodeStore,
    hub: ChannelHub,
    marks: Marks,
    keys: Keys,
    arbiter: ArbiterWorker,
    ports: Vec<(u8, Port)>,
    disks: NodeDisks,
    shared: SharedDisks,
    ctl_server: CtlServer,
    metrics: Option<MetricsServer>,
    _signals: SignalWatch,
    inputs: Inputs,
    /// For arbiter requests that could not even be queued.
    arbiter_replies: Sender<ArbiterReply>,
    conns: Vec<ConnId>,
    /// Connections that were closed here and are not yet gone.
    closing: Vec<ConnId>,
    /// A frame that the guest's queue has no room for, per wire.
    waiting_frames: Vec<Option<Vec<u8>>>,
    ctl_waiting: VecDeque<(Ctl, CtlReply)>,
    journal: Journal,
    happenings: Happenings,
    console: Console,
    meter: Meter,
    watch: Watch,
    file_snapshot: FileSnapshot,
    last_tick_ns: u64,
    /// A person wants the VM to be off.
    stop_asked: bool,
    /// A person has seen what it would lose, and wants this node to start.
    force: Option<Force>,
    ended: Option<Result<ExitReason, NodeError>>,
}

impl NodeLoop {
    fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let store = NodeStore::open(&options.state_dir, &options.name)?;
        let opened = identity(&options, &store)
            .and_then(|identity| Ok((identity, Surroundings::open(&options, &store)?)));
        match opened {
            Ok((identity, surroundings)) => Ok(Self::with(options, store, identity, surroundings)),
            Err(error) => {
                store.forget_if_new();
                Err(error)
            }
        }
    }

    fn with(
        mut options: NodeOptions,
        store: NodeStore,
        identity: Identity,
        host: Surroundings,
    ) -> Self {
        let mut replica = Replica::new(identity, options.protect, options.machine.clone());
        if let Some(engine) = options.engine {
            replica.set_engine(engine);
        }
        replica.set_flush(options.flush);
        let shared = SharedDisks::new(std::mem::take(&mut options.shared));
        replica.set_shared_disks(&shared.slots());
        let mut journal = Journal::new(options.operation.log_format, &options.vm, &options.name);
        Self {
            happenings: Happenings::new(options.operation.hooks.take(), &mut journal),
            journal,
            console: host.console,
            meter: Meter::default(),
            watch: Watch::default(),
            file_snapshot: FileSnapshot::default(),
            waiting_frames: vec![None; host.inputs.wires.len()],
            inputs: host.inputs,
            arbiter_replies: host.arbiter_replies,
            replica,
            env: HostEnv::new(host.disks.for_sync(), host.hub.intake()),
            storing: None,
            store,
            hub: host.hub,
            marks: host.marks,
            keys: host.keys,
            arbiter: host.arbiter,
            ports: host.ports,
            disks: host.disks,
            shared,
            ctl_server: host.ctl_server,
            metrics: host.metrics,
            _signals: host.signals,
            conns: Vec::new(),
            closing: Vec::new(),
            ctl_waiting: VecDeque::new(),
            last_tick_ns: 0,
            stop_asked: false,
            force: None,
            ended: None,
            options,
        }
    }

    /// The node does not come to run: leaves nothing behind.
    fn forget(self) {
        let Self {
            store, ctl_server, ..
        } = self;
        // Its socket is in the folder.
        drop(ctl_server);
        store.forget_if_new();
    }

    /// Whoever still waits for an answer hears that the node has ended.
    fn leave_unanswered(&mut self) {
        self.ctl_waiting.clear();
        self.file_snapshot = FileSnapshot::default();
        while self.inputs.ctl.try_recv().is_ok() {}
    }

    fn run(&mut self) -> Result<ExitReason, NodeError> {
        let generation = self.store.generation();
        self.journal.set_generation(generation.0);
        let text = format!(
            "twinvm {}, VM {:?}, node id {}, listening on {} ({}); the guest's console is in {}",
            env!("CARGO_PKG_VERSION"),
            self.options.vm,
            self.store.id(),
            self.hub.local_addr(),
            self.keys.describe(),
            self.store.folder().join(CONSOLE_LOG).display()
        );
        self.journal.tell(NoteLevel::Info, "started", &text);
        if let Some(metrics) = &self.metrics {
            let text = format!("figures at http://{}/metrics", metrics.local_addr());
            self.journal.line(&text);
        }
        self.happenings.ready();
        let disks = self.disk_mark();
        self.apply(Event::Start { generation, disks });
        if let Some(force) = self.force {
            self.apply(Event::Force(force));
        }
        loop {
            if let Some(end) = self.ended.take() {
                self.linger();
                return end;
            }
            self.take_inputs();
            let now_ns = self.env.now().mono_ns;
            if now_ns.saturating_sub(self.last_tick_ns) >= TICK_NS {
                self.tick(now_ns);
            }
            match self.replica.wait() {
                Wait::Run => self.apply(Event::Slice),
                Wait::Until(at_ns) => self.sleep(at_ns),
            }
        }
    }

    /// What this node's disks are worth.
    fn disk_mark(&self) -> DiskMark {
        self.disks.mark()
    }

    /// Lets the last words to the peer leave: it may need them to know that this was
    /// no crash.
    fn linger(&mut self) {
        let until_ns = self.env.now().mono_ns.saturating_add(LINGER_NS);
        while !self.closing.is_empty() {
            let left = until_ns.saturating_sub(self.env.now().mono_ns);
            match self.inputs.channel.recv_timeout(Duration::from_nanos(left)) {
                Ok(ChannelEvent::Down { conn, .. }) => self.closing.retain(|c| *c != conn),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.last_tick_ns = now_ns;
        if self.replica.has_session() {
            self.tell_queued();
        }
        self.apply(Event::Tick);
        self.meter.sample(now_ns, &self.replica);
        self.happenings.look(&self.replica, &mut self.journal);
        self.disks.look(now_ns, &self.replica, &mut self.journal);
        while let Some((level, line)) = self.shared.line() {
            self.journal.tell(level, "disk", &line);
        }
        if let Some(trouble) = self.marks.trouble() {
            self.journal.note(NoteLevel::Warn, &trouble);
        }
        if let Some(notice) = self.keys.look(now_ns) {
            self.journal.note(NoteLevel::Warn, &notice);
        }
    }

    fn tell_queued(&mut self) {
        let bytes = self
            .conns
            .iter()
            .map(|conn| self.hub.queued_bytes(*conn))
            .sum();
        self.apply(Event::Queued { bytes });
    }

    /// Waits for the next input, at most until `at_ns`.
    fn sleep(&mut self, at_ns: u64) {
        let now_ns = self.env.now().mono_ns;
        let mut wait = Duration::from_nanos(at_ns.saturating_sub(now_ns)).min(LONGEST_WAIT);
        if self.replica.wants_queue() {
            wait = wait.min(Duration::from_nanos(TICK_NS));
        }
        if !wait.is_zero() {
            let mut select = Select::new();
            select.recv(&self.inputs.channel);
            select.recv(&self.inputs.arbiter);
            select.recv(&self.inputs.ctl);
            select.recv(&self.inputs.signals);
            select.recv(self.disks.wakes());
            select.recv(self.shared.wakes());
            for (wire, waiting) in self.inputs.wires.iter().zip(&self.waiting_frames) {
                if waiting.is_none() {
                    select.recv(wire);
                }
            }
            if select.ready_timeout(wait).is_ok() {
                return;
            }
        }
        let now_ns = self.env.now().mono_ns;
        self.tick(now_ns);
    }

    /// Takes what has come, a bounded number of things.
    fn take_inputs(&mut self) {
        self.tell_ports();
        for _ in 0..INPUTS_PER_TURN {
            if self.ended.is_some() {
                return;
            }
            let mut any = false;
            if let Ok(event) = self.inputs.channel.try_recv() {
                self.on_channel(event);
                any = true;
            }
            if let Ok(reply) = self.inputs.arbiter.try_recv() {
                self.watch.answered(self.env.now().mono_ns);
                if let Some(trouble) = reply.trouble {
                    self.journal.note(NoteLevel::Warn, &trouble);
                }
                self.apply(Event::Arbiter {
                    req: reply.req,
                    outcome: reply.outcome,
                });
                any = true;
            }
            if let Ok(call) = self.inputs.ctl.try_recv() {
                self.on_ctl(call);
                any = true;
            }
            if let Ok(signal) = self.inputs.signals.try_recv() {
                self.journal.line(&format!("asked to end ({signal:?})"));
                self.apply(Event::Terminate);
                any = true;
            }
            any |= self.take_disk_event();
            any |= self.take_shared_result();
            for wire in 0..self.inputs.wires.len() {
                any |= self.take_frame(wire);
            }
            if !any {
                return;
            }
        }
    }

    fn on_channel(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Up {
                conn,
                dialed,
                nonce,
                ..
            } => {
                self.conns.push(conn);
                self.apply(Event::ChannelUp {
                    conn,
                    dialed,
                    nonce,
                });
            }
            ChannelEvent::DialFailed { .. } => self.apply(Event::DialFailed),
            ChannelEvent::Refused { why } => self.journal.note(NoteLevel::Warn, &why),
            ChannelEvent::Received { conn, message } => {
                self.watch.heard(self.env.now().mono_ns);
                if let Message::Ack { received, .. } = &message {
                    self.marks.note(Place::AckTaken, *received);
                }
                self.apply(Event::Received { conn, message });
            }
            ChannelEvent::Stored { conn, number } => {
                self.watch.heard(self.env.now().mono_ns);
                while let Some(stored) = self.env.intake.next(conn, number) {
                    self.apply(Event::Stored { conn, stored });
                }
            }
            ChannelEvent::Down { conn, .. } => {
                self.conns.retain(|known| *known != conn);
                self.closing.retain(|known| *known != conn);
                self.apply(Event::ChannelDown { conn });
                self.tell_queued();
            }
        }
    }

    fn apply(&mut self, event: Event) {
        self.replica.apply(&mut self.env, event);
        self.perform();
        self.let_store();
    }

    /// Tells the channel's readers how far this node is, and whether they may store and ack.
    fn let_store(&mut self) {
        let storing = self.replica.storing();
        if storing == self.storing {
            return;
        }
        self.storing = storing;
        match storing {
            Some(storing) => self.env.intake.follow(storing),
            None => drop(self.env.intake.close()),
        }
    }
}

#[cfg(test)]
mod tests;

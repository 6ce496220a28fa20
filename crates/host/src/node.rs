//! One node: the thread that runs the guest, and everything around it.
//!
//! The loop takes what the host's threads bring, hands it to the [`Replica`] and carries out
//! what that asks. It waits only when the guest has nothing to do.

mod console;
mod env;
mod journal;
mod keys;
mod snapshots;
mod status;
mod takeover;
mod wires;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};
use twinvm_machine::{EngineKind, MachineConfig};
use twinvm_protocol::config::IdentityError;
use twinvm_protocol::message::Field;
use twinvm_protocol::{Config, ConnId, Ctl, ExitReason, Identity, Incarnation, NoteLevel, Outcome};
use twinvm_replica::{Action, Env, Event, Replica, Wait};

use crate::arbiter::{ArbiterAddress, OpenError};
use crate::arbiter_worker::{ArbiterReply, ArbiterRequest, ArbiterWorker};
use crate::channel::{ChannelError, ChannelEvent, ChannelHub, SendError};
use crate::ctl_socket::{CtlCall, CtlReply, CtlRequest, CtlServer, CtlServerError};
use crate::port::{Port, PortAddress, PortError, PortEvent};
use crate::random::random_u128;
use crate::signals::{SignalEvent, SignalWatch};
use crate::store::{NodeStore, StoreError};
use crate::tls::{TlsError, TlsFiles};
use console::Console;
use env::HostEnv;
use journal::Journal;
use keys::Keys;
use snapshots::FileSnapshot;
use status::Meter;
use takeover::Watch;

/// Packets from the wire that wait for the guest: a burst of a few round trips, 16 MiB at most.
const FRAME_QUEUE: usize = 256;
/// Frames of the channel that wait for the loop; each may have 8 MiB, so few.
const CHANNEL_QUEUE: usize = 64;
/// Requests of people that wait for the loop.
const CTL_QUEUE: usize = 16;
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

/// One network device and what it is plugged into.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Virtio slot.
    pub device: u8,
    /// Where it leads.
    pub address: PortAddress,
}

/// What a node needs to know.
pub struct NodeOptions {
    /// Name of the VM.
    pub vm: String,
    /// Name of this node.
    pub name: String,
    /// Name of the other one.
    pub peer_name: String,
    /// Folder under which each node has its own.
    pub state_dir: PathBuf,
    /// Address this node listens on for its peer.
    pub listen: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Keys of the cluster; without them both addresses must be loopback.
    pub tls: Option<TlsFiles>,
    /// Where the arbiter's record is.
    pub arbiter: ArbiterAddress,
    /// The machine.
    pub machine: MachineConfig,
    /// What executes the guest on this node; `None`: the fastest that there is.
    pub engine: Option<EngineKind>,
    /// Network devices.
    pub wires: Vec<Wire>,
    /// Timers.
    pub protect: Config,
}

/// Why a node did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What it is called or made of doesn't fit into the channel's first message.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node's folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The arbiter.
    #[error(transparent)]
    Arbiter(#[from] OpenError),
    /// The channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A network port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The socket for requests.
    #[error(transparent)]
    Ctl(#[from] CtlServerError),
    /// The host refuses something that a process always gets.
    #[error("{what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A fault of our own. The guest, if it was live here, lives on at the backup.
    #[error("internal fault, this node has stopped: {0}")]
    Fault(String),
}

impl NodeError {
    /// Whether nothing ran: the mend is in the input or the surroundings.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Fault(_))
    }
}

/// Runs a node until it ends.
pub fn run(options: NodeOptions) -> Result<ExitReason, NodeError> {
    let mut node = NodeLoop::start(options)?;
    node.run()
}

/// The receiving ends of all queues that feed the loop.
struct Inputs {
    channel: Receiver<ChannelEvent>,
    arbiter: Receiver<ArbiterReply>,
    ctl: Receiver<CtlCall>,
    wires: Vec<Receiver<PortEvent>>,
    signals: Receiver<SignalEvent>,
}

struct NodeLoop {
    options: NodeOptions,
    replica: Replica,
    env: HostEnv,
    store: NodeStore,
    hub: ChannelHub,
    keys: Keys,
    arbiter: ArbiterWorker,
    ports: Vec<(u8, Port)>,
    _ctl_server: CtlServer,
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
    console: Console,
    meter: Meter,
    watch: Watch,
    file_snapshot: FileSnapshot,
    last_tick_ns: u64,
    ended: Option<Result<ExitReason, NodeError>>,
}

/// What a node needs of its host, open.
struct Surroundings {
    inputs: Inputs,
    hub: ChannelHub,
    keys: Keys,
    arbiter: ArbiterWorker,
    arbiter_replies: Sender<ArbiterReply>,
    ports: Vec<(u8, Port)>,
    ctl_server: CtlServer,
    signals: SignalWatch,
    console: Console,
}

impl Surroundings {
    /// Opens all; the arbiter, whose folder is made if need be, last.
    fn open(options: &NodeOptions, store: &NodeStore) -> Result<Self, NodeError> {
        let host = |what| move |source| NodeError::Host { what, source };
        let keys = Keys::load(options)?;
        let (signals_in, signals_rx) = bounded(CTL_QUEUE);
        let signals = SignalWatch::start(signals_in).map_err(host("watching for signals"))?;
        let (channel_in, channel) = bounded(CHANNEL_QUEUE);
        let hub = ChannelHub::start(options.listen, options.peer, keys.credentials(), channel_in)?;
        let mut ports = Vec::new();
        let mut wires = Vec::new();
        for wire in &options.wires {
            let (frames_in, frames) = bounded(FRAME_QUEUE);
            ports.push((wire.device, Port::open(&wire.address, frames_in)?));
            wires.push(frames);
        }
        let (ctl_in, ctl) = bounded(CTL_QUEUE);
        let ctl_server = CtlServer::start(&store.ctl_path(), ctl_in)?;
        // One for each request, of which the protocol has a few at a time.
        let (arbiter_replies, arbiter_out) = unbounded();
        let console = Console::start(store.folder().join(CONSOLE_LOG))
            .map_err(host("starting the console's thread"))?;
        let arbiter_keys = options.tls.as_ref().map(|files| (files, &options.name[..]));
        let backend = options.arbiter.open(&options.vm, arbiter_keys)?;
        let arbiter = ArbiterWorker::start(backend, arbiter_replies.clone())
            .map_err(host("starting the arbiter's thread"))?;
        Ok(Self {
            inputs: Inputs {
                channel,
                arbiter: arbiter_out,
                ctl,
                wires,
                signals: signals_rx,
            },
            hub,
            keys,
            arbiter,
            arbiter_replies,
            ports,
            ctl_server,
            signals,
            console,
        })
    }
}

/// Who this node is, from now on.
fn identity(options: &NodeOptions, store: &NodeStore) -> Result<Identity, NodeError> {
    let incarnation = random_u128().map_err(|source| NodeError::Host {
        what: "reading random numbers",
        source,
    })?;
    let fields = options.machine.fields().into_iter();
    let identity = Identity {
        id: store.id(),
        name: options.name.clone(),
        peer_name: options.peer_name.clone(),
        incarnation: Incarnation(incarnation),
        machine: fields.map(|(name, value)| Field { name, value }).collect(),
    };
    identity.validate()?;
    Ok(identity)
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
        options: NodeOptions,
        store: NodeStore,
        identity: Identity,
        host: Surroundings,
    ) -> Self {
        let mut replica = Replica::new(identity, options.protect, options.machine.clone());
        if let Some(engine) = options.engine {
            replica.set_engine(engine);
        }
        Self {
            journal: Journal::new(&options.name),
            console: host.console,
            meter: Meter::default(),
            watch: Watch::default(),
            file_snapshot: FileSnapshot::default(),
            waiting_frames: vec![None; host.inputs.wires.len()],
            inputs: host.inputs,
            arbiter_replies: host.arbiter_replies,
            replica,
            env: HostEnv,
            store,
            hub: host.hub,
            keys: host.keys,
            arbiter: host.arbiter,
            ports: host.ports,
            _ctl_server: host.ctl_server,
            _signals: host.signals,
            conns: Vec::new(),
            closing: Vec::new(),
            ctl_waiting: VecDeque::new(),
            last_tick_ns: 0,
            ended: None,
            options,
        }
    }

    fn run(&mut self) -> Result<ExitReason, NodeError> {
        let generation = self.store.generation();
        self.journal.line(&format!(
            "VM {:?}, node id {}, listening on {} ({}); the guest's console is in {}",
            self.options.vm,
            self.store.id(),
            self.hub.local_addr(),
            self.keys.describe(),
            self.store.folder().join(CONSOLE_LOG).display()
        ));
        self.apply(Event::Start { generation });
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
                    self.journal.line(&trouble);
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
            ChannelEvent::Refused { why } => self.journal.line(&why),
            ChannelEvent::Received { conn, message } => {
                self.watch.heard(self.env.now().mono_ns);
                self.apply(Event::Received { conn, message });
            }
            ChannelEvent::Down { conn, .. } => {
                self.conns.retain(|known| *known != conn);
                self.closing.retain(|known| *known != conn);
                self.apply(Event::ChannelDown { conn });
                self.tell_queued();
            }
        }
    }

    fn on_ctl(&mut self, call: CtlCall) {
        let CtlCall { request, reply } = call;
        let ctl = match request {
            CtlRequest::Status {} => {
                let status = status::json(&self.options, &self.replica, &self.meter, &self.watch);
                return reply.send(Ok(status));
            }
            CtlRequest::Digest {} => {
                let answer = match self.replica.digest() {
                    Some((icount, digest)) => Ok(serde_json::json!({
                        "icount": icount,
                        "digest": format!("{digest:032x}"),
                    })),
                    None => Err("this node has no machine now".to_owned()),
                };
                return reply.send(answer);
            }
            CtlRequest::Snapshot { to, force } => return self.on_snapshot(to, force, reply),
            CtlRequest::Stop {} => Ctl::Stop,
            CtlRequest::Takeover {} => Ctl::Takeover,
            CtlRequest::Detach {} => Ctl::Detach,
        };
        self.ctl_waiting.push_back((ctl, reply));
        self.apply(Event::Ctl(ctl));
    }

    fn apply(&mut self, event: Event) {
        self.replica.apply(&mut self.env, event);
        self.perform();
    }

    /// Carries out what the replica asks, in order.
    fn perform(&mut self) {
        while let Some(action) = self.replica.next_action() {
            if self.ended.is_some() {
                return;
            }
            let now_ns = self.env.now().mono_ns;
            match action {
                Action::Dial => {
                    if let Err(error) = self.hub.dial() {
                        self.journal.line(&format!("dialling the peer: {error}"));
                        self.replica.apply(&mut self.env, Event::DialFailed);
                    }
                }
                Action::Send { conn, message } => match self.hub.send(conn, message) {
                    Ok(()) | Err(SendError::Gone) => {}
                    Err(error) => {
                        self.journal.line(&format!("channel: {error}"));
                        self.hub.close(conn);
                        self.conns.retain(|known| *known != conn);
                        self.replica
                            .apply(&mut self.env, Event::ChannelDown { conn });
                    }
                },
                Action::Close { conn, .. } => {
                    self.hub.close(conn);
                    self.conns.retain(|known| *known != conn);
                    self.closing.push(conn);
                }
                Action::ArbiterRead { req } => self.ask(ArbiterRequest::Read { req }, req),
                Action::ArbiterCas {
                    req,
                    expect,
                    record,
                } => {
                    self.watch.asked(now_ns);
                    self.ask(
                        ArbiterRequest::Cas {
                            req,
                            expect,
                            record,
                        },
                        req,
                    );
                }
                Action::PersistGeneration { generation } => {
                    if let Err(error) = self.store.raise_generation(generation) {
                        self.ended = Some(Err(error.into()));
                    }
                }
                Action::Transmit { device, bytes } => {
                    self.watch.transmitted(now_ns);
                    if let Some((_, port)) = self.ports.iter().find(|(slot, _)| *slot == device) {
                        port.send(&bytes);
                    }
                }
                Action::Console(text) => self.console.write(text),
                Action::RoleChanged { from, to, why } => {
                    self.watch.role_changed(now_ns, from, to);
                    self.journal.line(&format!("{from} -> {to}: {why}"));
                    self.meter.restart();
                }
                Action::Note { level, text } => self.journal.note(level, &text),
                Action::CtlAnswer { ctl, result } => self.answer(ctl, result),
                Action::Exit { reason } => {
                    self.journal.line(&format!("ends: {reason:?}"));
                    while let Some((_, reply)) = self.ctl_waiting.pop_front() {
                        reply.send(Ok(serde_json::json!({ "ended": true })));
                    }
                    self.ended = Some(Ok(reason));
                }
                Action::Fatal { what } => {
                    self.journal.note(NoteLevel::Error, &what);
                    self.ended = Some(Err(NodeError::Fault(what)));
                }
            }
        }
    }

    fn ask(&mut self, request: ArbiterRequest, req: twinvm_protocol::ReqId) {
        if let Err(busy) = self.arbiter.submit(request) {
            let trouble = Some(busy.to_string());
            let reply = ArbiterReply {
                req,
                outcome: Outcome::Unknown,
                trouble,
            };
            let _ = self.arbiter_replies.send(reply);
        }
    }

    fn answer(&mut self, ctl: Ctl, result: Result<(), String>) {
        let at = self
            .ctl_waiting
            .iter()
            .position(|(waiting, _)| *waiting == ctl);
        let Some((_, reply)) = at.and_then(|at| self.ctl_waiting.remove(at)) else {
            return;
        };
        reply.send(match result {
            Ok(()) => Ok(serde_json::json!({ "begun": true })),
            Err(why) => Err(why),
        });
    }
}

#[cfg(test)]
mod tests;

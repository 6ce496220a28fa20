//! The replica: protocol and machine joined. [`Replica::apply`] takes one event.
//!
//! The virtual machine's side of it:
//!
//! ```text
//!            ColdStart                        BeginInstall
//!   Nothing ----------> Live <----+   Nothing ------------> Installing
//!      ^                 |        | GoLive                      | last chunk
//!      |   Discard       | Freeze | (drained)                   v
//!      +-----------------+        +----------------------- Following
//! ```

use std::collections::VecDeque;

use crate::announce::Neighbours;
use crate::event::{Action, Env, Event, Sorted, draw_power_on, sort};
use crate::install::{Install, SnapshotOut};
use crate::{HostTime, Live, LiveExit, Replay, ReplayExit};
use twinvm_log::{Batch, Record};
use twinvm_machine::{Machine, MachineConfig, Output, OutputItem, SlotConfig};
use twinvm_protocol::{
    Action as ProtocolAction, Config, Event as ProtocolEvent, Identity, Instant, Message, Node,
    NoteLevel, Position, Progress, SessionId, Status,
};

/// Steps of one slice of a replay: the backup looks at its channel as often as the
/// live node looks at its wire.
const REPLAY_STEPS: u64 = 10_000;
/// Steps of a slice while draining for a takeover: nothing else is to be done.
const DRAIN_STEPS: u64 = 1_000_000;
/// Unsent bytes up to which the next piece of a snapshot is queued: enough to keep a
/// fast link busy between two looks.
const SNAPSHOT_QUEUE_BYTES: usize = 1 << 20;
/// Unsent bytes at which the guest is held back: the backup or the link is slower
/// than the log. Nothing is ever dropped.
const LOG_QUEUE_BYTES: usize = 16 << 20;
/// Records a backup stores ahead of its execution before its acks wait for it. They
/// are bounded on the wire by the live node's lag and queue already.
const MAX_BACKLOG: usize = 1 << 20;
/// A backup that is further behind than this holds the live guest back: 1 s.
const MAX_LAG_TICKS: u64 = 10_000_000;
/// Samples of how long outputs were held.
const MAX_HOLDS: usize = 4096;
/// The protocol hears of progress this often: 1 ms.
const PROGRESS_NS: u64 = 1_000_000;

/// The virtual machine, as far as this node has one.
enum Vm {
    Nothing,
    Live(Box<Live>),
    Installing(Box<Install>),
    Following(Box<Following>),
}

/// A backup's machine.
struct Following {
    session: SessionId,
    replay: Replay,
    draining: bool,
}

/// When a driver must call again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At once, with [`Event::Slice`]: the guest has something to do.
    Run,
    /// When something happens, at the latest at this host time (nanoseconds).
    Until(u64),
}

/// Figures for `status`.
#[derive(Debug, Clone)]
pub struct ReplicaStatus {
    /// The protocol's part.
    pub protocol: Status,
    /// Steps executed.
    pub icount: u64,
    /// Virtual time, ticks.
    pub vtime: u64,
    /// End of the log here.
    pub position: u64,
    /// Bytes of log made since this node went live.
    pub log_bytes: u64,
    /// Digests that the backup compared and found equal.
    pub digests_equal: u64,
    /// The digest comparison that failed last, if any did.
    pub divergence: Option<String>,
}

/// One side of the pair.
pub struct Replica {
    node: Node<Output>,
    config: MachineConfig,
    vm: Vm,
    neighbours: Neighbours,
    frozen: bool,
    /// The guest waits for a record; until then or the host time given.
    idle: Option<Option<u64>>,
    held_back: bool,
    snapshot: Option<SnapshotOut>,
    queued_bytes: usize,
    /// The live side's virtual time when it last spoke, and when that was.
    live_vtime: Option<(u64, HostTime)>,
    /// The backup's virtual time by its last ack, once it has caught up with one.
    peer_vtime: Option<u64>,
    beat: u64,
    last_progress_ns: u64,
    /// When the outputs that wait in the gate were made.
    made_ns: VecDeque<(u64, u64)>,
    /// How long the last outputs were held, microseconds; newest last.
    holds_us: VecDeque<u32>,
    actions: VecDeque<Action>,
    divergence: Option<String>,
}

fn protocol_time(now: HostTime) -> Instant {
    Instant::from_micros(now.mono_ns / 1000)
}

fn output_bytes(output: &Output) -> usize {
    let item = |item: &OutputItem| match item {
        OutputItem::Frame { bytes, .. } => bytes.len(),
        OutputItem::Halt(_) => 1,
    };
    output.items.iter().map(item).sum()
}

fn cards(config: &MachineConfig) -> Neighbours {
    Neighbours::new(
        config
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, config)| match config {
                SlotConfig::Net { mac } => Some((slot as u8, *mac)),
                _ => None,
            }),
    )
}

impl Replica {
    /// A node that does nothing before [`Event::Start`].
    pub fn new(identity: Identity, protect: Config, config: MachineConfig) -> Self {
        Self {
            node: Node::new(identity, protect),
            neighbours: cards(&config),
            config,
            vm: Vm::Nothing,
            frozen: false,
            idle: None,
            held_back: false,
            snapshot: None,
            queued_bytes: 0,
            live_vtime: None,
            peer_vtime: None,
            beat: 0,
            last_progress_ns: 0,
            made_ns: VecDeque::new(),
            holds_us: VecDeque::new(),
            actions: VecDeque::new(),
            divergence: None,
        }
    }

    /// Takes one event; then ask for [`Replica::next_action`] until there is none.
    pub fn apply(&mut self, env: &mut dyn Env, event: Event) {
        let now = env.now();
        match event {
            Event::Start { generation } => self.tell(env, ProtocolEvent::Start { generation }),
            Event::Tick => self.tick(env, now),
            Event::Slice => self.slice(env, now),
            Event::Frame { device, bytes } => self.frame(env, now, device, bytes),
            Event::Terminate => self.tell(env, ProtocolEvent::Terminate),
            Event::Ctl(ctl) => self.tell(env, ProtocolEvent::Ctl(ctl)),
            Event::ChannelUp {
                conn,
                dialed,
                nonce,
            } => {
                self.tell(
                    env,
                    ProtocolEvent::ChannelUp {
                        conn,
                        dialed,
                        nonce,
                    },
                );
            }
            Event::DialFailed => self.tell(env, ProtocolEvent::DialFailed),
            Event::ChannelDown { conn } => self.tell(env, ProtocolEvent::ChannelDown { conn }),
            Event::Received { conn, message } => {
                match &message {
                    Message::Heartbeat { progress, .. } => {
                        self.live_vtime = Some((progress.vtime, now));
                    }
                    // 0: it has not restored a snapshot yet.
                    Message::Ack { progress, .. } if progress.vtime != 0 => {
                        self.peer_vtime = Some(progress.vtime);
                    }
                    _ => {}
                }
                self.tell(env, ProtocolEvent::Received { conn, message });
            }
            Event::Queued { bytes } => self.queued_bytes = bytes,
            Event::Arbiter { req, outcome } => {
                self.tell(env, ProtocolEvent::Arbiter { req, outcome });
            }
        }
        self.send_snapshot(env);
    }

    /// The next thing the driver must do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the driver does next.
    pub fn wait(&self) -> Wait {
        let runs = match &self.vm {
            Vm::Live(_) => !self.stalled() && self.idle.is_none(),
            Vm::Following(following) => {
                following.replay.backlog() > 0 && !self.node.execution_must_wait()
            }
            Vm::Nothing | Vm::Installing(_) => false,
        };
        if runs && !self.frozen {
            return Wait::Run;
        }
        let protocol = self
            .node
            .next_deadline()
            .map(|at| at.micros().saturating_mul(1000));
        let (wake, flush) = match &self.vm {
            Vm::Live(live) if !self.frozen => (self.idle.flatten(), live.flush_due_ns()),
            _ => (None, None),
        };
        let until = [protocol, wake, flush].into_iter().flatten().min();
        Wait::Until(until.unwrap_or(u64::MAX))
    }

    /// Whether a frame for this device would be taken now. If not, the driver keeps it
    /// and stops reading that wire for a while.
    pub fn net_room(&self, device: u8) -> bool {
        match &self.vm {
            Vm::Live(live) => !self.frozen && live.machine().net_room(device),
            // Nobody here listens: frames may be thrown away.
            _ => true,
        }
    }

    /// Whether the next piece of a snapshot waits for room on the channel.
    pub fn wants_queue(&self) -> bool {
        self.snapshot.is_some() || self.held_back
    }

    /// Figures for `status`.
    pub fn status(&self) -> ReplicaStatus {
        let (icount, vtime, position, log_bytes, digests_equal) = match &self.vm {
            Vm::Live(live) => {
                let machine = live.machine();
                let bytes = live.stats().log_bytes;
                (machine.icount(), machine.mtime(), live.position(), bytes, 0)
            }
            Vm::Following(following) => {
                let replay = &following.replay;
                let machine = replay.machine();
                let equal = replay.checked_digests();
                (
                    machine.icount(),
                    machine.mtime(),
                    replay.position(),
                    0,
                    equal,
                )
            }
            Vm::Nothing | Vm::Installing(_) => (0, 0, 0, 0, 0),
        };
        ReplicaStatus {
            protocol: self.node.status(),
            icount,
            vtime,
            position,
            log_bytes,
            digests_equal,
            divergence: self.divergence.clone(),
        }
    }

    /// Steps executed and bytes of log made, for rates.
    pub fn counters(&self) -> (u64, u64) {
        match &self.vm {
            Vm::Live(live) => (live.machine().icount(), live.stats().log_bytes),
            Vm::Following(following) => (following.replay.machine().icount(), 0),
            Vm::Nothing | Vm::Installing(_) => (0, 0),
        }
    }

    /// Announces the guest's addresses once more, if it lives here: the wire forgot
    /// them.
    pub fn announce_again(&mut self) {
        if matches!(self.vm, Vm::Live(_)) && !self.frozen {
            self.announce();
        }
    }

    /// Full digest of the machine here, with the step it is of.
    pub fn digest(&mut self) -> Option<(u64, u128)> {
        let machine = match &mut self.vm {
            Vm::Live(live) => live.machine_mut(),
            Vm::Following(following) => following.replay.machine_mut(),
            Vm::Nothing | Vm::Installing(_) => return None,
        };
        Some((machine.icount(), machine.digest().total()))
    }

    /// The machine here, for tests that damage it on purpose.
    #[doc(hidden)]
    pub fn machine_mut(&mut self) -> Option<&mut Machine> {
        match &mut self.vm {
            Vm::Live(live) => Some(live.machine_mut()),
            Vm::Following(following) => Some(following.replay.machine_mut()),
            Vm::Nothing | Vm::Installing(_) => None,
        }
    }

    /// Breaks a rule of the protocol, to prove that tests see it.
    #[cfg(feature = "mutations")]
    #[doc(hidden)]
    pub fn break_rule(&mut self, mutation: twinvm_protocol::node::Mutation) {
        self.node.break_rule(mutation);
    }

    // ---- protocol ---------------------------------------------------------

    /// Hands an event to the protocol and does what it asks, until all is quiet.
    fn tell(&mut self, env: &mut dyn Env, event: ProtocolEvent<Output>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = env.now();
            self.node.handle(protocol_time(now), event);
            while let Some(action) = self.node.next_action() {
                match sort(action) {
                    Sorted::Driver(action) => self.actions.push_back(action),
                    Sorted::Own(own) => self.carry_out(env, own, &mut events),
                }
            }
        }
    }

    fn carry_out(
        &mut self,
        env: &mut dyn Env,
        action: ProtocolAction<Output>,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let now = env.now();
        match action {
            ProtocolAction::ColdStart { .. } => self.cold_start(env),
            ProtocolAction::GoLive { .. } => self.go_live(env),
            ProtocolAction::Announce => self.announce(),
            ProtocolAction::Emit { position, item } => {
                self.note_hold(position.0, now);
                for item in item.items {
                    if let OutputItem::Frame { device, bytes } = item {
                        self.actions.push_back(Action::Transmit { device, bytes });
                    }
                }
            }
            ProtocolAction::Freeze => {
                self.frozen = true;
                self.snapshot = None;
                let position = match &mut self.vm {
                    Vm::Live(live) => {
                        live.flush();
                        live.position()
                    }
                    _ => 0,
                };
                self.collect_batches(events);
                events.push_back(ProtocolEvent::Frozen {
                    position: Position(position),
                });
            }
            ProtocolAction::Thaw => {
                self.frozen = false;
                self.resume(now);
            }
            ProtocolAction::Discard => {
                self.vm = Vm::Nothing;
                self.frozen = false;
                self.idle = None;
                self.snapshot = None;
                self.live_vtime = None;
                self.neighbours = cards(&self.config);
            }
            ProtocolAction::TakeSnapshot { session } => {
                if let Vm::Live(live) = &mut self.vm {
                    live.flush();
                    // The snapshot takes place between two slices, no output waits.
                    let position = live.position();
                    let machine = live.machine_mut();
                    self.snapshot = Some(SnapshotOut::new(session, &self.neighbours, machine));
                    self.collect_batches(events);
                    let position = Position(position);
                    events.push_back(ProtocolEvent::SnapshotTaken { session, position });
                }
            }
            ProtocolAction::EndSession { session } => {
                self.peer_vtime = None;
                self.snapshot.take_if(|out| out.session == session);
            }
            ProtocolAction::BeginInstall { session, position } => {
                let (progress, beat) = (Progress::default(), self.beat);
                events.push_back(ProtocolEvent::Progress { progress, beat });
                self.vm = Vm::Installing(Box::new(Install::new(
                    session,
                    position.0,
                    self.config.clone(),
                    cards(&self.config),
                )));
            }
            ProtocolAction::InstallChunk {
                session,
                offset,
                bytes,
                last,
            } => {
                self.install_chunk(session, offset, &bytes, last, events);
            }
            ProtocolAction::Store {
                session,
                first,
                end,
                batch,
            } => {
                let stored = self.store(session, first.0, end.0, &batch);
                events.push_back(match stored {
                    Ok(()) => ProtocolEvent::Stored { session, end },
                    Err(why) => ProtocolEvent::SessionFailed { session, why },
                });
            }
            ProtocolAction::BeginDrain => {
                if let Vm::Following(following) = &mut self.vm {
                    following.draining = true;
                    self.drain(events);
                }
            }
            // Opaque words are for disks; this version has none.
            ProtocolAction::Side { .. } => {}
            _ => {}
        }
    }

    fn note_hold(&mut self, position: u64, now: HostTime) {
        while let Some((made_position, made_ns)) = self.made_ns.front().copied() {
            if made_position > position {
                break;
            }
            self.made_ns.pop_front();
            if self.holds_us.len() >= MAX_HOLDS {
                self.holds_us.pop_front();
            }
            let held_us = now.mono_ns.saturating_sub(made_ns) / 1000;
            self.holds_us
                .push_back(u32::try_from(held_us).unwrap_or(u32::MAX));
        }
    }

    /// How long recent outputs waited in the gate, microseconds: median and 99th
    /// percentile. `None` before the first.
    pub fn hold_us(&self) -> Option<(u32, u32)> {
        let mut holds: Vec<u32> = self.holds_us.iter().copied().collect();
        holds.sort_unstable();
        let at = |percent: usize| holds.get((holds.len().saturating_sub(1)) * percent / 100);
        Some((*at(50)?, *at(99)?))
    }

    // ---- becoming live ----------------------------------------------------

    fn cold_start(&mut self, env: &mut dyn Env) {
        let power_on = draw_power_on(env);
        let live = Machine::new(self.config.clone(), power_on)
            .map_err(|error| error.to_string())
            .and_then(|machine| Live::new(machine, 0, env.now()).map_err(|e| e.to_string()));
        self.neighbours = cards(&self.config);
        self.set_live(live);
        self.announce();
    }

    fn go_live(&mut self, env: &mut dyn Env) {
        let Vm::Following(following) = std::mem::replace(&mut self.vm, Vm::Nothing) else {
            return self.fatal("went live without a machine".to_owned());
        };
        let position = following.replay.position();
        let machine = following.replay.into_machine();
        let live = Live::take_over(machine, position, env.now(), self.live_vtime);
        self.set_live(live.map_err(|error| error.to_string()));
    }

    fn set_live(&mut self, live: Result<Live, String>) {
        self.frozen = false;
        self.idle = None;
        self.held_back = false;
        match live {
            Ok(live) => self.vm = Vm::Live(Box::new(live)),
            Err(what) => self.fatal(what),
        }
    }

    fn announce(&mut self) {
        for (device, bytes) in self.neighbours.announcements() {
            self.actions.push_back(Action::Transmit { device, bytes });
        }
    }

    fn fatal(&mut self, what: String) {
        self.frozen = true;
        self.actions.push_back(Action::Fatal { what });
    }

    // ---- executing --------------------------------------------------------

    /// Whether a live guest must be held back now.
    fn stalled(&self) -> bool {
        let behind = match (&self.vm, self.peer_vtime) {
            (Vm::Live(live), Some(peer)) => {
                live.machine().mtime().saturating_sub(peer) > MAX_LAG_TICKS
            }
            _ => false,
        };
        self.node.execution_must_wait()
            || (self.node.wants_log() && (behind || self.queued_bytes > LOG_QUEUE_BYTES))
    }

    fn slice(&mut self, env: &mut dyn Env, now: HostTime) {
        if self.frozen {
            return;
        }
        self.beat = self.beat.wrapping_add(1);
        match &self.vm {
            Vm::Live(_) => self.live_slice(env, now),
            Vm::Following(_) => self.follow_slice(env, REPLAY_STEPS),
            Vm::Nothing | Vm::Installing(_) => {}
        }
        self.report_progress(env, false);
    }

    fn live_slice(&mut self, env: &mut dyn Env, now: HostTime) {
        if self.stalled() {
            self.held_back = true;
            return;
        }
        if self.held_back {
            self.held_back = false;
            self.resume(now);
        }
        let Vm::Live(live) = &mut self.vm else { return };
        let exit = live.slice(now, &mut || env.now());
        let console = live.machine_mut().take_console();
        if !console.is_empty() {
            self.actions.push_back(Action::Console(console));
        }
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => return self.fatal(error.to_string()),
        };
        match exit {
            LiveExit::Busy => self.idle = None,
            LiveExit::Idle { wake_ns } => self.idle = Some(wake_ns),
            LiveExit::Output { position, output } => {
                self.idle = None;
                self.live_output(env, position, output);
            }
            LiveExit::Halted(_) => self.idle = Some(None),
        }
        self.answer_entropy(env);
        if let Vm::Live(live) = &mut self.vm {
            live.flush_if_due(env.now());
        }
        self.send_batches(env);
    }

    /// The output's record is in the log: flush, then queue it in the gate under its
    /// position. Next hop: [`twinvm_protocol::Gate`].
    fn live_output(&mut self, env: &mut dyn Env, position: u64, output: Output) {
        for item in &output.items {
            if let OutputItem::Frame { device, bytes } = item {
                self.neighbours.learn(*device, bytes);
            }
        }
        let halts = output
            .items
            .iter()
            .any(|item| matches!(item, OutputItem::Halt(_)));
        let position = Position(position);
        let bytes = output_bytes(&output);
        if let Vm::Live(live) = &mut self.vm {
            live.flush();
        }
        self.tell(
            env,
            ProtocolEvent::Output {
                position,
                bytes,
                item: output,
            },
        );
        self.send_batches(env);
        if halts {
            self.tell(env, ProtocolEvent::GuestHalted { position });
        }
    }

    fn answer_entropy(&mut self, env: &mut dyn Env) {
        let Vm::Live(live) = &mut self.vm else { return };
        if let Some((device, len)) = live.entropy_wanted() {
            let mut bytes = vec![0; len];
            env.random(&mut bytes);
            let now = env.now();
            if let Err(error) = live.entropy(device, bytes, now) {
                return self.fatal(error.to_string());
            }
            self.idle = None;
        }
    }

    fn follow_slice(&mut self, env: &mut dyn Env, steps: u64) {
        let Vm::Following(following) = &mut self.vm else {
            return;
        };
        let result = following.replay.run(steps);
        let console = following.replay.machine_mut().take_console();
        if !console.is_empty() {
            self.actions.push_back(Action::Console(console));
        }
        match result {
            Ok(ReplayExit::Output { position, output }) => {
                let event = self.replayed_output(position, output);
                for event in event {
                    self.tell(env, event);
                }
            }
            Ok(_) => {}
            Err(divergence) => {
                let detail = divergence.to_string();
                self.divergence = Some(detail.clone());
                self.tell(env, ProtocolEvent::Diverged { detail });
            }
        }
    }

    fn replayed_output(&mut self, position: u64, output: Output) -> Vec<ProtocolEvent<Output>> {
        for item in &output.items {
            if let OutputItem::Frame { device, bytes } = item {
                self.neighbours.learn(*device, bytes);
            }
        }
        let halts = output
            .items
            .iter()
            .any(|item| matches!(item, OutputItem::Halt(_)));
        let position = Position(position);
        let bytes = output_bytes(&output);
        let mut events = vec![ProtocolEvent::Output {
            position,
            bytes,
            item: output,
        }];
        if halts {
            events.push(ProtocolEvent::GuestHalted { position });
        }
        events
    }

    /// Executes all that is stored, for a claim.
    fn drain(&mut self, events: &mut VecDeque<ProtocolEvent<Output>>) {
        loop {
            let Vm::Following(following) = &mut self.vm else {
                return;
            };
            let exit = following.replay.run(DRAIN_STEPS);
            let position = Position(following.replay.position());
            let console = following.replay.machine_mut().take_console();
            if !console.is_empty() {
                self.actions.push_back(Action::Console(console));
            }
            match exit {
                Ok(ReplayExit::Starved | ReplayExit::End { .. }) => {
                    events.push_back(ProtocolEvent::Drained { position });
                    return;
                }
                Ok(ReplayExit::Busy) => {}
                Ok(ReplayExit::Output { position, output }) => {
                    events.extend(self.replayed_output(position, output));
                }
                Err(divergence) => {
                    let detail = divergence.to_string();
                    self.divergence = Some(detail.clone());
                    events.push_back(ProtocolEvent::Diverged { detail });
                    return;
                }
            }
        }
    }

    // ---- input ------------------------------------------------------------

    fn frame(&mut self, env: &mut dyn Env, now: HostTime, device: u8, bytes: Vec<u8>) {
        if self.frozen {
            return;
        }
        let Vm::Live(live) = &mut self.vm else { return };
        if let Err(error) = live.net_rx(device, bytes, now) {
            return self.fatal(error.to_string());
        }
        self.idle = None;
        self.send_batches(env);
    }

    fn tick(&mut self, env: &mut dyn Env, now: HostTime) {
        self.beat = self.beat.wrapping_add(1);
        let due = self
            .node
            .next_deadline()
            .is_some_and(|at| at <= protocol_time(now));
        self.report_progress(env, due);
        if due {
            self.tell(env, ProtocolEvent::Tick);
        }
        if self.frozen {
            return;
        }
        let Vm::Live(live) = &mut self.vm else { return };
        let woken = matches!(self.idle, Some(Some(wake)) if wake <= now.mono_ns);
        if woken && let Err(error) = live.woke(now) {
            return self.fatal(error.to_string());
        }
        live.flush_if_due(now);
        if woken {
            self.idle = None;
        }
        self.send_batches(env);
    }

    /// Goes on after a time in which nothing was executed.
    fn resume(&mut self, now: HostTime) {
        if let Vm::Live(live) = &mut self.vm {
            if let Err(error) = live.woke(now) {
                return self.fatal(error.to_string());
            }
            self.idle = None;
        }
    }

    // ---- log and snapshot -------------------------------------------------

    fn report_progress(&mut self, env: &mut dyn Env, always: bool) {
        let now = env.now();
        if !always && now.mono_ns.saturating_sub(self.last_progress_ns) < PROGRESS_NS {
            return;
        }
        let progress = match &self.vm {
            Vm::Live(live) => Progress {
                icount: live.machine().icount(),
                position: Position(live.position()),
                vtime: live.machine().mtime(),
            },
            Vm::Following(following) => Progress {
                icount: following.replay.machine().icount(),
                position: Position(following.replay.position()),
                vtime: following.replay.machine().mtime(),
            },
            Vm::Nothing | Vm::Installing(_) => return,
        };
        self.last_progress_ns = now.mono_ns;
        let beat = self.beat;
        self.tell(env, ProtocolEvent::Progress { progress, beat });
    }

    /// Hands closed batches to the protocol; without a session nobody needs them.
    fn collect_batches(&mut self, events: &mut VecDeque<ProtocolEvent<Output>>) {
        let Vm::Live(live) = &mut self.vm else { return };
        let batches = live.take_batches();
        if self.node.wants_log() {
            events.extend(batches.into_iter().map(|batch| ProtocolEvent::Flushed {
                first: Position(batch.first_position()),
                end: Position(batch.next_position()),
                batch: batch.into_bytes(),
            }));
        }
    }

    fn send_batches(&mut self, env: &mut dyn Env) {
        let mut events = VecDeque::new();
        self.collect_batches(&mut events);
        for event in events {
            self.tell(env, event);
        }
    }

    /// Sends the next piece of a snapshot if the channel has room. One at a time: the
    /// guest runs in between.
    fn send_snapshot(&mut self, env: &mut dyn Env) {
        if self.queued_bytes >= SNAPSHOT_QUEUE_BYTES {
            return;
        }
        let (Some(out), Vm::Live(live)) = (&mut self.snapshot, &mut self.vm) else {
            return;
        };
        let (event, bytes, last) = out.next_chunk(live.machine_mut());
        if last {
            self.snapshot = None;
        }
        self.queued_bytes += bytes;
        self.tell(env, event);
    }

    fn install_chunk(
        &mut self,
        session: SessionId,
        offset: u64,
        bytes: &[u8],
        last: bool,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let Vm::Installing(install) = &mut self.vm else {
            return;
        };
        if let Err(why) = install.chunk(offset, bytes) {
            events.push_back(ProtocolEvent::SessionFailed { session, why });
            return;
        }
        if !last {
            return;
        }
        match install.finish() {
            Ok((position, machine, neighbours, records)) => {
                let mut replay = Replay::new(machine, position);
                replay.push(records);
                self.neighbours = neighbours;
                let following = Following {
                    session,
                    replay,
                    draining: false,
                };
                self.vm = Vm::Following(Box::new(following));
                events.push_back(ProtocolEvent::Installed { session });
            }
            Err(why) => events.push_back(ProtocolEvent::SessionFailed { session, why }),
        }
    }

    fn store(
        &mut self,
        session: SessionId,
        first: u64,
        end: u64,
        batch: &[u8],
    ) -> Result<(), String> {
        let batch = Batch::decode(batch).map_err(|error| format!("log batch: {error}"))?;
        if batch.first_position != first || batch.next_position() != end {
            return Err(format!(
                "log batch holds positions {}..{}, its frame says {first}..{end}",
                batch.first_position,
                batch.next_position()
            ));
        }
        let push = |records: Vec<Record>, backlog: usize| {
            if backlog + records.len() > MAX_BACKLOG {
                return Err(format!(
                    "more than {MAX_BACKLOG} records wait to be executed"
                ));
            }
            Ok(records)
        };
        match &mut self.vm {
            Vm::Following(f) if f.session == session && !f.draining => {
                let records = push(batch.records, f.replay.backlog())?;
                f.replay.push(records);
                Ok(())
            }
            Vm::Installing(install) if install.session == session => {
                let records = push(batch.records, install.backlog())?;
                install.push(records);
                Ok(())
            }
            _ => Err("a log batch without a machine to follow it".to_owned()),
        }
    }

    /// Notes something for the journal.
    pub fn note(&mut self, level: NoteLevel, text: String) {
        self.actions.push_back(Action::Note { level, text });
    }
}

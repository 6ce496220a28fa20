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

mod asked;
mod disks;
mod examine;
mod execute;
mod handover;
mod points;
mod reads;
mod scrub;
mod shared;
mod status;
mod sync;
mod transfer;

use std::collections::VecDeque;

use crate::announce::Neighbours;
use crate::event::{Action, Env, Event, Sorted, draw_power_on, sort};
use crate::install::{Install, SnapshotOut, SnapshotSource};
use crate::lag::BackupSpeed;
use crate::pacing::Slices;
use crate::replay::DiskResult;
use crate::stored::Stored;
use crate::unexecuted::Unexecuted;
use crate::voice::give_voice;
use crate::{HostTime, Live, LiveExit, Replay, ReplayExit};
use disks::Disks;
use points::Points;
use reads::OwnReads;
use scrub::Scrub;
use shared::Shared;
use sync::Sync;
use twinvm_log::Record;
use twinvm_machine::{
    EngineKind, Machine, MachineConfig, NetOffloads, Output, OutputItem, SlotConfig,
};
use twinvm_protocol::{
    Action as ProtocolAction, Config, Event as ProtocolEvent, Identity, Instant, Message, Node,
    NoteLevel, OutputFrom, Position, Progress, SessionId,
};

/// Unsent bytes at which the guest is held back: the backup or the link is slower
/// than the log. Nothing is ever dropped.
const LOG_QUEUE_BYTES: usize = 16 << 20;
/// A backup that is further behind than this, or has more to execute, holds the live guest back:
/// 1 s.
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
    slices: Slices,
    /// The last slice had nothing more to execute.
    rested: bool,
    draining: bool,
    /// It has found a difference.
    examination: Option<Box<Examination>>,
}

/// When a driver must call again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At once, with [`Event::Slice`]: the guest has something to do.
    Run,
    /// When something happens, at the latest at this host time (nanoseconds).
    Until(u64),
}

use self::examine::Examination;
pub use disks::Flush;
pub use reads::Reads;
pub use status::ReplicaStatus;
pub use transfer::Storing;

/// One side of the pair.
pub struct Replica {
    node: Node<Output>,
    config: MachineConfig,
    engine: Option<EngineKind>,
    output: OutputFrom,
    vm: Vm,
    neighbours: Neighbours,
    frozen: bool,
    handover: handover::Handover,
    /// The guest waits for a record; until then or the host time given.
    idle: Option<Option<u64>>,
    held_back: bool,
    /// The slow loop's pause: no slice before this host time.
    hold_until_ns: Option<u64>,
    /// Whether it is a joining one, and since when the backup lags by more than the slow loop's
    /// threshold.
    lagging: Option<(bool, u64)>,
    /// Of the slow loop's pauses, what has not been waited yet.
    owed_ns: u64,
    snapshot: Option<SnapshotOut>,
    /// How long the guest stood still for the last one that went to a joining node.
    join_pause_ns: Option<u64>,
    queued_bytes: usize,
    /// The live side's virtual time when it last spoke, and when that was.
    live_vtime: Option<(u64, HostTime)>,
    /// How far the backup was by its last ack, once it has restored a snapshot. Its virtual
    /// time counts the guest's sleep if the backup was level with us when that ended.
    peer: Option<Progress>,
    /// How fast that backup is.
    peer_speed: BackupSpeed,
    /// What it keeps of the log behind its snapshot.
    unexecuted: Option<Unexecuted>,
    beat: u64,
    last_progress_ns: u64,
    /// When the outputs that wait in the gate were made.
    made_ns: VecDeque<(u64, u64)>,
    /// How long the last outputs were held, microseconds; newest last.
    holds_us: VecDeque<u32>,
    actions: VecDeque<Action>,
    disks: Disks,
    shared: Shared,
    own_reads: OwnReads,
    /// A rule broken on purpose: writes don't wait for the backup's reads.
    #[cfg(feature = "mutations")]
    overwrites_unread: bool,
    sync: Sync,
    points: Points,
    scrub: Scrub,
    divergence: Option<String>,
    /// How many there were.
    divergences: u64,
    /// Questions about a difference that were answered in this session.
    answers: u32,
    /// Outputs that were held, and for how long together.
    holds: u64,
    holds_sum_us: u64,
}

fn protocol_time(now: HostTime) -> Instant {
    Instant::from_micros(now.mono_ns / 1000)
}

/// A new machine gets this node's engine. Without memory for code the interpreter does it all: the
/// guest can't tell.
fn equip(machine: &mut Machine, engine: Option<EngineKind>) {
    if let Some(engine) = engine {
        let _ = machine.set_engine(engine);
    }
}

fn output_bytes(output: &Output) -> usize {
    let item = |item: &OutputItem| match item {
        OutputItem::Frame { bytes, .. } => bytes.len(),
        OutputItem::Disk(request) => request.data.len() + 1,
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
            output: protect.output,
            neighbours: cards(&config),
            engine: None,
            vm: Vm::Nothing,
            frozen: false,
            handover: handover::Handover::default(),
            idle: None,
            held_back: false,
            hold_until_ns: None,
            lagging: None,
            owed_ns: 0,
            snapshot: None,
            join_pause_ns: None,
            queued_bytes: 0,
            live_vtime: None,
            peer: None,
            peer_speed: BackupSpeed::default(),
            unexecuted: None,
            beat: 0,
            last_progress_ns: 0,
            made_ns: VecDeque::new(),
            holds_us: VecDeque::new(),
            actions: VecDeque::new(),
            disks: Disks::new(&config),
            shared: Shared::default(),
            own_reads: OwnReads::default(),
            #[cfg(feature = "mutations")]
            overwrites_unread: false,
            sync: Sync::default(),
            points: Points::default(),
            scrub: Scrub::default(),
            divergence: None,
            divergences: 0,
            answers: 0,
            holds: 0,
            holds_sum_us: 0,
            config,
        }
    }

    /// What executes the guest on this node from the next machine on, if it can be had here. The
    /// other node may have another engine.
    pub fn set_engine(&mut self, engine: EngineKind) {
        self.engine = Some(engine);
    }

    /// Takes one event; then ask for [`Replica::next_action`] until there is none.
    pub fn apply(&mut self, env: &mut dyn Env, event: Event) {
        let now = env.now();
        match event {
            Event::Start { generation, disks } => {
                self.tell(env, ProtocolEvent::Start { generation, disks });
            }
            Event::Force(force) => self.tell(env, ProtocolEvent::Force(force)),
            Event::Tick => self.tick(env, now),
            Event::Slice => self.slice(env, now),
            Event::Frame { device, bytes } => self.frame(env, now, device, bytes),
            Event::Terminate => self.tell_of_leaving(env, ProtocolEvent::Terminate),
            Event::Ctl(ctl @ twinvm_protocol::Ctl::Takeover) => {
                self.tell_of_leaving(env, ProtocolEvent::Ctl(ctl));
            }
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
                let tells = matches!(message, Message::Heartbeat { .. } | Message::Ack { .. });
                self.tell(env, ProtocolEvent::Received { conn, message });
                if tells {
                    self.peer_told(now);
                    if self.node.has_joiner() {
                        self.report_progress(env, true);
                    }
                }
            }
            Event::Stored { conn, stored } => {
                self.stored_ahead(env, conn, stored);
            }
            Event::Queued { bytes } => self.queued_bytes = bytes,
            Event::DiskDone {
                device,
                id,
                status,
                data,
            } => self.disk_done(
                env,
                now,
                DiskResult {
                    device,
                    id,
                    status,
                    data,
                },
            ),
            Event::DisksFlushed { flush, result } => self.disks_flushed(env, flush, result),
            Event::Arbiter { req, outcome } => {
                self.tell(env, ProtocolEvent::Arbiter { req, outcome });
            }
        }
        self.begin_shared(env);
        self.go_on_with_handover(env);
        self.go_on_with_sync(env);
        self.send_snapshot(env);
    }

    /// The next thing the driver must do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the driver does next.
    pub fn wait(&self) -> Wait {
        let runs = match &self.vm {
            Vm::Live(_) => !self.stalled() && self.idle.is_none() && self.hold_until_ns.is_none(),
            Vm::Following(following) => match &following.examination {
                Some(examination) => examination.goes_on(),
                None => {
                    following.replay.backlog() > 0
                        && !following.draining
                        && !following.replay.waits_for_disk()
                        && !self.node.execution_must_wait()
                }
            },
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
        let examined = match &self.vm {
            Vm::Following(following) => following.examination.as_ref().map(|e| e.until_ns()),
            _ => None,
        };
        let handover = self.handover.until_ns();
        let until = [
            protocol,
            wake,
            flush,
            self.hold_until_ns,
            examined,
            handover,
        ]
        .into_iter()
        .flatten()
        .min();
        Wait::Until(until.unwrap_or(u64::MAX))
    }

    /// Whether a frame for this device would be taken now. If not, the driver keeps it
    /// and stops reading that wire for a while.
    pub fn net_room(&self, device: u8) -> bool {
        match &self.vm {
            Vm::Live(live) => {
                (!self.frozen || self.handover.gathers()) && live.machine().net_room(device)
            }
            // They wait for the guest, which goes on here soon.
            Vm::Following(_) if self.handover.is_next() => false,
            // Nobody here listens: frames may be thrown away.
            _ => true,
        }
    }

    /// What the guest does by itself with frames from this device: which headers frames for it may
    /// carry. Nothing while it doesn't execute here.
    pub fn net_offloads(&self, device: u8) -> NetOffloads {
        match &self.vm {
            Vm::Live(live) => live.machine().net_offloads(device),
            _ => NetOffloads::default(),
        }
    }

    /// Whether a session is open whose queue may fill: the driver says every
    /// millisecond or so how much waits ([`Event::Queued`]).
    pub fn has_session(&self) -> bool {
        self.node.wants_log()
    }

    /// Whether a snapshot or the guest itself waits for room on the channel: the
    /// driver looks at the queue often, even if nothing else is to be done.
    pub fn wants_queue(&self) -> bool {
        self.snapshot.is_some()
            || self.sync.is_under_way()
            || (matches!(self.vm, Vm::Live(_)) && self.stalled())
    }

    /// The wire forgot the guest's addresses: announces them once more if the record
    /// is settled and names no backup. With a backup another node may be live already;
    /// then the guest's own frames, which pass the gate, teach the wire.
    pub fn announce_again(&mut self) {
        let solo = self.node.status().link == "solo";
        if matches!(self.vm, Vm::Live(_)) && !self.frozen && solo {
            self.announce();
        }
    }

    /// Breaks a rule of the protocol, to prove that tests see it.
    #[cfg(feature = "mutations")]
    #[doc(hidden)]
    pub fn break_rule(&mut self, mutation: twinvm_protocol::node::Mutation) {
        self.overwrites_unread = mutation == twinvm_protocol::node::Mutation::OverwriteUnread;
        self.node.break_rule(mutation);
    }

    fn fatal(&mut self, what: String) {
        self.frozen = true;
        self.actions.push_back(Action::Fatal { what });
    }

    /// Notes something for the journal.
    pub fn note(&mut self, level: NoteLevel, text: String) {
        self.actions.push_back(Action::Note { level, text });
    }
}

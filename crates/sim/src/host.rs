//! A simulated host, and the node's process on it: production code with what it reads of its
//! surroundings.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use twinvm_machine::{EngineKind, Machine};
use twinvm_protocol::{ConnId, DiskMark, Incarnation, LiveName, RoleKind};
use twinvm_replica::{
    Action, DisksIn, DisksOut, Env, Event, HostTime, Intake, Replica, SnapshotPieces,
    SnapshotSource, Stored, Storing,
};

use crate::check::Life;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::guest::BOOT_NS;
use crate::medium::{In, Medium, Out};
use crate::rng::Rng;
use crate::world::Work;

/// Each look at the clock takes this long, so that time always moves.
const LOOK_NS: u64 = 20;
/// What one turn of a node's loop costs beside the guest's steps.
pub(crate) const TURN_NS: u64 = 1000;

/// What a replica reads from its host while it works.
pub(crate) struct SimEnv {
    pub(crate) clock: Clock,
    /// The world's time when this turn began, and how long it has taken so far.
    pub(crate) began: u64,
    pub(crate) elapsed: u64,
    pub(crate) ns_per_kstep: u64,
    pub(crate) dice: Rng,
    /// The number that a power-on gets, and whether there was one.
    pub(crate) next_boot: u64,
    pub(crate) powered_on: bool,
    pub(crate) medium: Rc<RefCell<Medium>>,
    /// What the process's receiving thread has stored beside its loop.
    pub(crate) intake: Intake,
    /// A claim forgets that.
    pub(crate) forgets_stored: bool,
}

impl Env for SimEnv {
    fn now(&mut self) -> HostTime {
        self.elapsed += LOOK_NS;
        HostTime {
            mono_ns: self.clock.shows(self.began + self.elapsed),
        }
    }

    fn ran(&mut self, steps: u64) {
        self.elapsed += steps * self.ns_per_kstep / 1000;
    }

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.dice.next() as u8;
        }
    }

    fn wall_ns(&mut self) -> u64 {
        self.powered_on = true;
        self.next_boot * BOOT_NS
    }

    fn read_snapshot(&mut self, source: SnapshotSource) -> Box<dyn SnapshotPieces> {
        Box::new(source)
    }

    fn send_disks(&mut self) -> Result<Box<dyn DisksOut>, String> {
        Ok(Box::new(Out::new(&self.medium)))
    }

    fn take_disks(&mut self) -> Result<Box<dyn DisksIn>, String> {
        Ok(Box::new(In::new(&self.medium)))
    }

    fn end_storing(&mut self) -> Vec<Stored> {
        let kept = self.intake.close();
        if self.forgets_stored {
            Vec::new()
        } else {
            kept
        }
    }
}

/// What waits for a node's loop.
pub(crate) enum Input {
    Event(Event),
    /// A frame of the channel.
    Channel(Event),
    /// Batches that the receiving thread has stored and acked, by the number that it tells.
    Stored(ConnId, u64),
    /// A packet from the clients' network.
    Packet(Vec<u8>),
    /// The guest is to be compared.
    Digest,
}

/// A node's process.
pub(crate) struct Process {
    /// Tells this process from others on the same host.
    pub(crate) epoch: u64,
    /// Its first life.
    pub(crate) born: Incarnation,
    pub(crate) replica: Replica,
    pub(crate) env: SimEnv,
    pub(crate) inbox: VecDeque<Input>,
    /// Packets from the clients' network that wait for the guest, and whether they came to a backup
    /// that keeps them.
    pub(crate) wire: VecDeque<(bool, Vec<u8>)>,
    /// Frames of the channel in the inbox.
    pub(crate) channel_waits: usize,
    /// Inputs taken since the last slice or tick.
    pub(crate) taken: u32,
    /// Stopped from outside until then, with all its threads.
    pub(crate) paused_until: u64,
    /// Its loop is stuck until then; what receives frames beside it isn't.
    pub(crate) stuck_until: u64,
    /// It stands still between its inputs and its timers, and goes on with these.
    pub(crate) timers_first: bool,
    /// What the receiving thread has last been let store.
    pub(crate) lets_store: Option<Storing>,
    /// When its loop goes on.
    pub(crate) turn_at: u64,
    /// Its loop waits for input.
    pub(crate) sleeps: bool,
    /// On its own clock.
    pub(crate) last_tick_ns: u64,
    /// A generation is being stored: since when, and how long it takes.
    pub(crate) storing: Option<(u64, u64, u64)>,
    /// Actions that a negligent driver carries out later.
    pub(crate) late: Vec<Action>,
    pub(crate) life: Life,
    /// When it last went live by a takeover.
    pub(crate) live_since: u64,
    pub(crate) claim: Option<LiveName>,
    /// It has read the arbiter's record since that was lost.
    pub(crate) saw_loss: bool,
    /// What the disk has to do for it, and the next one's number.
    pub(crate) at_disk: BTreeMap<u64, Work>,
    pub(crate) next_ticket: u64,
    /// When its claim comes to the server of the guest's disk.
    pub(crate) disk_claimed_at: u64,
    /// Connections, by the world's number.
    pub(crate) wires: Vec<usize>,
}

impl Process {
    pub(crate) fn machine(&mut self) -> Option<&mut Machine> {
        self.replica.machine_mut()
    }

    pub(crate) fn role(&self) -> RoleKind {
        self.replica.status().protocol.role
    }

    /// The next packet from the wire would be taken now.
    pub(crate) fn takes_packet(&self) -> bool {
        !self.wire.is_empty() && self.replica.net_room(0)
    }

    /// Its loop does nothing before this.
    pub(crate) fn loop_stands_until(&self) -> u64 {
        self.paused_until.max(self.stuck_until)
    }

    /// Time on the host's clock at the world's time.
    pub(crate) fn local(&self, now: u64) -> u64 {
        self.env.clock.shows(now)
    }
}

/// One host: what outlives its processes.
pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// This host's copy of the guest's disk, and what it is worth.
    pub(crate) medium: Rc<RefCell<Medium>>,
    pub(crate) mark: DiskMark,
    /// It fails until then.
    pub(crate) disk_fails_until: u64,
    /// What executes the guest here.
    pub(crate) engine: EngineKind,
    /// Nanoseconds for a thousand steps, and a factor that is on until then.
    pub(crate) ns_per_kstep: u64,
    pub(crate) slow_until: u64,
    /// The highest generation that a process here has stored and gone on with.
    pub(crate) stored: u64,
    /// The clients' network does not reach it until then.
    pub(crate) lan_down_until: u64,
    /// More waits for the channel than the live node's log may have there, until then.
    pub(crate) full_until: u64,
    /// No process starts here any more.
    pub(crate) retired: bool,
    pub(crate) process: Option<Process>,
}

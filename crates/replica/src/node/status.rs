//! What a replica tells about itself.

use super::{Replica, Vm};
use crate::SyncProgress;
use crate::event::Env;
use twinvm_machine::Machine;
use twinvm_protocol::{SessionId, Status};

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
    /// Live: how long the guest stood still when the last node joined, nanoseconds.
    pub join_pause_ns: Option<u64>,
    /// Digests that the backup compared and found equal.
    pub digests_equal: u64,
    /// The digest comparison that failed last, if any did.
    pub divergence: Option<String>,
    /// Comparisons that failed here since the process began.
    pub divergences: u64,
    /// Outputs that waited in the gate since the process began.
    pub holds: u64,
    /// How long they did together, microseconds.
    pub holds_us: u64,
    /// Disks on their way: whether to a joining node (or from a live one), and how far.
    pub sync: Option<(bool, SyncProgress)>,
    /// Bytes that this node has sent to joining nodes for their disks since the process began, and
    /// bytes of their answers.
    pub disk_copies_bytes: (u64, u64),
    /// Why this node joins nobody until it is started again.
    pub stays_out: Option<String>,
}

impl Replica {
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
            join_pause_ns: self.join_pause_ns,
            digests_equal,
            divergence: self.divergence.clone(),
            divergences: self.divergences,
            holds: self.holds,
            holds_us: self.holds_sum_us,
            sync: self.sync.progress(),
            disk_copies_bytes: self.sync.copied_out(),
            stays_out: self.stays_out().map(str::to_owned),
        }
    }

    /// Disks on their way: whether to a joining node, and how far.
    pub fn sync_progress(&self) -> Option<(bool, SyncProgress)> {
        self.sync.progress()
    }

    /// Whether disks are on their way, to a joining node or from the live one.
    pub fn is_syncing(&self) -> bool {
        self.sync.is_under_way()
    }

    /// Whether the VM is protected as far as this node knows.
    pub fn protected(&self) -> bool {
        self.node.protected()
    }

    /// The session that is open.
    pub fn session(&self) -> Option<SessionId> {
        self.node.session()
    }

    /// The comparison that failed last, and how many have.
    pub fn divergence(&self) -> (u64, Option<&str>) {
        (self.divergences, self.divergence.as_deref())
    }

    /// Steps executed and bytes of log made, for rates.
    pub fn counters(&self) -> (u64, u64) {
        match &self.vm {
            Vm::Live(live) => (live.machine().icount(), live.stats().log_bytes),
            Vm::Following(following) => (following.replay.machine().icount(), 0),
            Vm::Nothing | Vm::Installing(_) => (0, 0),
        }
    }

    /// Full digest of the machine here, with the step it is of.
    pub fn digest(&mut self) -> Option<(u64, u128)> {
        let machine = self.machine_mut()?;
        Some((machine.icount(), machine.digest().total()))
    }

    /// The digest that both nodes have at the same step: on a backup the last one that it found
    /// equal to the log's, on a live node the last one that it put there.
    pub fn compared_digest(&self) -> Option<(u64, u128)> {
        match &self.vm {
            Vm::Live(live) => live.last_digest(),
            Vm::Following(following) => following.replay.last_digest(),
            Vm::Nothing | Vm::Installing(_) => None,
        }
    }

    /// Has the backup compare the guest as it is now: a digest in the log, beside those that a
    /// machine's own steps bring ([`Replica::status`] counts what was equal). The position behind
    /// it; `None` if nothing executes here.
    pub fn log_digest(&mut self, env: &mut dyn Env) -> Option<u64> {
        let now = env.now();
        let Vm::Live(live) = &mut self.vm else {
            return None;
        };
        if self.frozen {
            return None;
        }
        if let Err(error) = live.log_digest(now) {
            self.fatal(error.to_string());
            return None;
        }
        live.flush();
        let position = live.position();
        self.send_batches(env);
        Some(position)
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

    /// How long recent outputs waited in the gate, microseconds: median and 99th
    /// percentile. `None` before the first.
    pub fn hold_us(&self) -> Option<(u32, u32)> {
        let mut holds: Vec<u32> = self.holds_us.iter().copied().collect();
        holds.sort_unstable();
        let at = |percent: usize| holds.get((holds.len().saturating_sub(1)) * percent / 100);
        Some((*at(50)?, *at(99)?))
    }
}

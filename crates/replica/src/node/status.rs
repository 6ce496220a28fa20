//! What a replica tells about itself.

use super::{Replica, Vm};
use twinvm_machine::Machine;
use twinvm_protocol::Status;

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

    /// How long recent outputs waited in the gate, microseconds: median and 99th
    /// percentile. `None` before the first.
    pub fn hold_us(&self) -> Option<(u32, u32)> {
        let mut holds: Vec<u32> = self.holds_us.iter().copied().collect();
        holds.sort_unstable();
        let at = |percent: usize| holds.get((holds.len().saturating_sub(1)) * percent / 100);
        Some((*at(50)?, *at(99)?))
    }
}

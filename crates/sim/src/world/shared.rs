//! A disk that both nodes reach, at a server that outlives them. It belongs to whoever has claimed
//! it by the highest generation; what others have asked for and is not done by then never is.

use super::*;
use crate::guest::DISK_SLOT;
use crate::medium::Medium;
use crate::plan::US;
use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_replica::Reads;

/// The server, and its way to the hosts.
pub(crate) struct Server {
    medium: Medium,
    /// Whose process has the disk (0: nobody's), and by which generation.
    owner: (u64, Generation),
    /// Nothing gets there until then.
    away_until: u64,
    /// Requests of those who have it no more, that came too late.
    rejected: u64,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            medium: Medium::new(false),
            owner: (0, Generation(0)),
            away_until: 0,
            rejected: 0,
        }
    }
}

impl World {
    /// Of the guest's disk each host has a copy of its own.
    pub(super) fn has_copies(&self) -> bool {
        self.measures.disk && !self.measures.shared
    }

    pub(super) fn shared_slots(&self) -> &'static [(u8, Reads)] {
        match (self.measures.shared, self.measures.own_reads) {
            (true, true) => &[(DISK_SLOT, Reads::Own)],
            (true, false) => &[(DISK_SLOT, Reads::Log)],
            (false, _) => &[],
        }
    }

    /// A node that goes live asks for the disk; its requests wait until that has arrived.
    pub(super) fn claim_disk(&mut self, slot: usize, epoch: u64, generation: Generation) {
        self.forget_disk(slot, epoch);
        let longest = self.rng.pick(&[100, 1000, 50_000]);
        let delay = self.rng.range(50, longest) * US;
        let at = self.now.max(self.server.away_until) + delay;
        if let Some(process) = self.process(slot, epoch) {
            process.disk_claimed_at = at;
        }
        self.at(at, Hap::Claimed { epoch, generation });
    }

    pub(super) fn claimed(&mut self, epoch: u64, generation: Generation) {
        if generation > self.server.owner.1 {
            self.server.owner = (epoch, generation);
        }
    }

    /// When a request that is made now is done: most of them soon, and a few after seconds, as long
    /// as there are faults.
    pub(super) fn served_at(&mut self, slot: usize, epoch: u64) -> u64 {
        let claimed = self.process(slot, epoch).map_or(0, |p| p.disk_claimed_at);
        let from = self.now.max(claimed);
        let soon = from + self.rng.range(5 * US, 300 * US);
        match self.faults && self.rng.one_in(60) {
            true => (from + self.rng.range(1, 2000) * MS)
                .min(self.measures.faults_to_ns)
                .max(soon),
            false => soon,
        }
    }

    /// The server comes to a request. None: whoever has asked hears nothing of it.
    pub(super) fn serve(&mut self, epoch: u64, request: &DiskRequest) -> Option<Vec<u8>> {
        let beside = self.measures.own_reads && request.op == DiskOp::Read;
        let owns = self.server.owner.0 == epoch || self.is_broken(DriverFault::ClaimsNothing);
        if !owns && !beside {
            self.server.rejected += 1;
            return None;
        }
        Some(self.server.medium.carry_out(request))
    }

    /// What was under way when its process ended may come to the server later.
    pub(super) fn comes_late(&mut self, epoch: u64, at_disk: BTreeMap<u64, Work>) {
        for work in at_disk.into_values() {
            if let Work::Request(request) = work
                && self.rng.one_in(2)
            {
                let longest = self.rng.pick(&[1, 100, 2000]) * MS;
                self.after(0, longest, Hap::Late { epoch, request });
            }
        }
    }

    pub(super) fn server_away(&mut self) {
        let until = self.now + self.rng.range(1, 1000) * MS;
        self.server.away_until = until.min(self.measures.faults_to_ns);
        self.trace
            .note(self.now, || "the disk's server is away".to_owned());
    }

    /// Until when nothing gets to the server, if so.
    pub(super) fn server_is_away(&self) -> Option<u64> {
        let until = self.server.away_until;
        (self.measures.shared && until > self.now).then_some(until)
    }

    /// Whether a live guest is about to answer something, as far as can be seen from outside.
    pub(super) fn still_writes(&self) -> bool {
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let mut live = processes.filter(|process| process.role() == RoleKind::Live);
        self.measures.shared
            && live.any(|process| {
                let waits = process.replica.status().protocol.gate_items;
                waits > 0 || !process.sleeps || !process.at_disk.is_empty()
            })
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.server.rejected
    }
}

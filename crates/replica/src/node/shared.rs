//! Shared disks: their contents are at a server that both nodes reach.
//!
//! Only the live node touches them, so what it has read travels in the log (`BlockDone`), unless the
//! backup reads by itself ([`super::reads`]). A write is an output: it changes what the next live node finds, as a packet changes what a client
//! knows. It gets a record of its own (`DiskWrite`), waits in the gate under that record's position
//! and goes to the driver when the gate lets it go. The backup's machine makes the very same
//! request; the record's hash says so.
//!
//! A node that goes live has the driver claim the disks first ([`Action::ClaimDisks`]); then all
//! requests in flight are issued again. None of them overlaps another, so it changes nothing if the
//! former live node had carried some of them out.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::replay::DiskResult;
use twinvm_machine::{DiskOp, DiskRequest, VIRTIO_SLOTS};
use twinvm_protocol::Generation;

/// What a replica knows of its shared disks.
#[derive(Default)]
pub(super) struct Shared {
    slots: [bool; VIRTIO_SLOTS],
    /// Made by the guest, and not yet begun. Bounded by what a machine may have in flight.
    pub(super) made: VecDeque<DiskRequest>,
    /// With the driver.
    under_way: BTreeSet<(u8, u64)>,
}

impl Shared {
    pub(super) fn any(&self) -> bool {
        self.slots.contains(&true)
    }

    pub(super) fn has(&self, device: u8) -> bool {
        self.slots.get(usize::from(device)) == Some(&true)
    }

    pub(super) fn under_way_of(&self, device: u8) -> usize {
        self.under_way
            .range((device, 0)..=(device, u64::MAX))
            .count()
    }

    /// The machine here is another one, or none: what is under way is nobody's.
    pub(super) fn forget(&mut self) {
        self.made.clear();
        self.under_way.clear();
    }

    /// Of each slot, the first request that is not under way, if this is so for the others.
    pub(super) fn all_again(&self, mut next: [u64; VIRTIO_SLOTS]) -> [u64; VIRTIO_SLOTS] {
        for (next, shared) in next.iter_mut().zip(self.slots) {
            if shared {
                *next = 0;
            }
        }
        next
    }
}

impl Replica {
    /// The disks in these virtio slots are shared: both nodes reach their contents, and only the
    /// live one may write there. Before [`Event::Start`].
    pub fn set_shared_disks(&mut self, slots: &[(u8, Reads)]) {
        for (slot, reads) in slots {
            if let Some(shared) = self.shared.slots.get_mut(usize::from(*slot)) {
                *shared = true;
            }
            if *reads == Reads::Own {
                self.own_reads.set(*slot);
            }
        }
        let mut slots = self.config.slots.iter().zip(self.shared.slots);
        let own =
            |(slot, shared): (&SlotConfig, bool)| matches!(slot, SlotConfig::Disk(_)) && !shared;
        self.disks.set_any(slots.any(own));
    }

    /// This node executes from now on, by this generation: nothing of a shared disk is touched
    /// before it is claimed by it.
    pub(super) fn claim_shared(&mut self, generation: Generation, takeover: bool) {
        self.shared.forget();
        self.own_reads.forget();
        if self.shared.any() {
            self.actions.push_back(Action::ClaimDisks {
                generation,
                takeover,
            });
        }
    }

    /// The guest has made a request of a shared disk. A backup carries out reads, of some.
    pub(super) fn share(&mut self, request: DiskRequest) {
        let carried_out = match self.vm {
            Vm::Live(_) => true,
            _ => request.op == DiskOp::Read && self.own_reads.has(request.device),
        };
        if carried_out {
            self.shared.made.push_back(request);
        }
    }

    /// Begins what the guest has asked of shared disks: reads at once, writes when the gate lets
    /// them go. A frozen guest's wait: nothing may be logged.
    pub(super) fn begin_shared(&mut self, env: &mut dyn Env) {
        if matches!(self.vm, Vm::Following(_)) {
            self.begin_own_reads();
            return self.has_come(env);
        }
        self.begin_writes(env);
        while !self.frozen
            && let Some(request) = self.shared.made.pop_front()
        {
            match request.op {
                // Neither changes what others find.
                DiskOp::Read | DiskOp::Flush => self.begin_request(request),
                DiskOp::Write { .. } | DiskOp::Discard | DiskOp::WriteZeroes { .. } => {
                    self.gate_shared(env, request);
                }
            }
        }
    }

    /// A write's record goes into the log, the write into the gate under its position.
    /// Next hop: [`twinvm_protocol::Gate`], then [`Replica::emit_shared`].
    fn gate_shared(&mut self, env: &mut dyn Env, request: DiskRequest) {
        let now = env.now();
        let Vm::Live(live) = &mut self.vm else { return };
        let icount = live.machine().icount();
        match live.disk_write(&request, now) {
            Err(error) => self.fatal(error.to_string()),
            Ok(end) => {
                let items = vec![OutputItem::Disk(request)];
                self.live_output(env, end, Output { icount, items });
            }
        }
    }

    /// The gate lets a write go. A backup's write is the live node's; one that is under way or has
    /// ended needs nothing more. Next hop: [`Replica::begin_request`], at once or when the backup has
    /// read what the write changes.
    pub(super) fn emit_shared(&mut self, request: DiskRequest) {
        let live = matches!(self.vm, Vm::Live(_));
        if live
            && self.in_flight(request.device, request.id).is_some()
            && !self.waits_for_reads(&request)
        {
            self.begin_request(request);
        }
    }

    /// Next hop: the driver's disk.
    pub(super) fn begin_request(&mut self, request: DiskRequest) {
        if self.shared.under_way.insert((request.device, request.id)) {
            self.actions.push_back(Action::Disk(request));
        }
    }

    /// A request of a shared disk has ended.
    pub(super) fn shared_done(&mut self, env: &mut dyn Env, now: HostTime, result: DiskResult) {
        let key = (result.device, result.id);
        // Of a machine that is gone, if it is not under way.
        if !self.shared.under_way.remove(&key) {
            return;
        }
        if !self.own_reads.can_be_had() {
            return self.probed(env, &result);
        }
        if self.in_flight(key.0, key.1).is_none() {
            return;
        }
        if self.frozen {
            return self.keep(result);
        }
        match &self.vm {
            Vm::Live(_) => {
                let level = self.backup_is_level();
                self.deliver(now, result);
                self.hand_out_disks(now);
                self.woken(level);
                self.send_batches(env);
            }
            Vm::Following(_) => {
                self.deliver(now, result);
                self.drain_on(env);
            }
            Vm::Nothing | Vm::Installing(_) => {}
        }
    }
}

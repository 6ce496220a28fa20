//! The guest's disks: requests take their time, and what is under way when its process ends may
//! still have happened.

use std::rc::Rc;

use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_protocol::DiskMark;

use super::*;
use crate::medium::Medium;
use crate::plan::US;

/// What a disk has to do.
#[derive(Debug)]
pub(crate) enum Work {
    Request(DiskRequest),
    Flush(u64),
}

impl World {
    /// What a node that starts on this host is told of its disks.
    pub(super) fn mark_of(&self, slot: usize) -> DiskMark {
        match self.has_copies() {
            true => self.hosts[slot].mark,
            false => DiskMark::NONE,
        }
    }

    /// A disk begins to work.
    pub(super) fn disk_begins(&mut self, slot: usize, epoch: u64, work: Work) {
        let slow = match &work {
            Work::Flush(_) => true,
            Work::Request(request) => request.op == DiskOp::Flush,
        };
        let longest = match slow {
            true => self.measures.sync_ns.min(5 * MS),
            false => 300 * US,
        };
        let at = match self.measures.shared {
            true => self.served_at(slot, epoch),
            false => self.now + self.rng.range(5 * US, longest),
        };
        let Some(process) = self.process(slot, epoch) else {
            return;
        };
        let ticket = process.next_ticket;
        process.next_ticket += 1;
        process.at_disk.insert(ticket, work);
        let done = Hap::DiskDone {
            slot,
            epoch,
            ticket,
        };
        self.at(at, done);
    }

    /// It has done something.
    pub(super) fn disk_done(&mut self, slot: usize, epoch: u64, ticket: u64) {
        let medium = Rc::clone(&self.hosts[slot].medium);
        let fails = self.now < self.hosts[slot].disk_fails_until;
        if let Some(until) = self.server_is_away() {
            let done = Hap::DiskDone {
                slot,
                epoch,
                ticket,
            };
            return self.at(until, done);
        }
        let Some(process) = self.process(slot, epoch) else {
            return;
        };
        let event = match process.at_disk.remove(&ticket) {
            None => return,
            Some(Work::Request(request)) if self.measures.shared => {
                let Some(data) = self.serve(epoch, &request) else {
                    return;
                };
                Event::DiskDone {
                    device: request.device,
                    id: request.id,
                    status: 0,
                    data,
                }
            }
            Some(Work::Flush(flush)) if fails => {
                let result = Err("the medium fails".to_owned());
                Event::DisksFlushed { flush, result }
            }
            Some(Work::Request(request)) if fails => Event::DiskDone {
                device: request.device,
                id: request.id,
                status: 1,
                data: Vec::new(),
            },
            Some(Work::Flush(flush)) => {
                medium.borrow_mut().flush();
                let result = Ok(());
                Event::DisksFlushed { flush, result }
            }
            Some(Work::Request(request)) => Event::DiskDone {
                device: request.device,
                id: request.id,
                status: 0,
                data: medium.borrow_mut().carry_out(&request),
            },
        };
        self.input(slot, epoch, Input::Event(event));
    }

    /// A disk fails for a while.
    pub(super) fn disk_fails(&mut self, slot: usize) {
        let until = self.now + self.rng.range(1, 800) * MS;
        self.hosts[slot].disk_fails_until = until;
        self.trace
            .note(self.now, || format!("the disk of {} fails", name(slot)));
    }

    /// Once nothing fails any more somebody starts the nodes again that stay out.
    pub(super) fn mend_disks(&mut self) {
        for slot in 0..2 {
            let process = self.hosts[slot].process.as_ref();
            if process.is_some_and(|process| process.replica.stays_out().is_some()) {
                self.down(slot, false);
            }
        }
    }

    /// The machine that the requests under way are of is gone.
    pub(super) fn forget_disk(&mut self, slot: usize, epoch: u64) {
        let Some(process) = self.process(slot, epoch) else {
            return;
        };
        let late = |input: &Input| {
            let done = matches!(
                input,
                Input::Event(Event::DiskDone { .. } | Event::DisksFlushed { .. })
            );
            !done
        };
        process.inbox.retain(late);
        let at_disk = std::mem::take(&mut process.at_disk);
        self.happens_or_not(slot, epoch, at_disk);
    }

    /// Nobody waits for this any more, but some of it still happens.
    pub(super) fn happens_or_not(&mut self, slot: usize, epoch: u64, at_disk: BTreeMap<u64, Work>) {
        if self.measures.shared {
            return self.comes_late(epoch, at_disk);
        }
        for work in at_disk.into_values() {
            if let Work::Request(request) = work
                && self.rng.one_in(2)
            {
                self.hosts[slot].medium.borrow_mut().carry_out(&request);
            }
        }
    }

    /// The disk loses its power.
    pub(super) fn disk_off(&mut self, slot: usize) {
        let medium = Rc::clone(&self.hosts[slot].medium);
        Medium::lose_power(&mut medium.borrow_mut(), &mut self.rng);
    }
}

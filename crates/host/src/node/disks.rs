//! A node's copies of the machine's disks.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, never};
use twinvm_machine::{DiskOp, DiskRequest, MAX_DISK_REQUESTS, MachineConfig, SlotConfig};
use twinvm_protocol::NoteLevel;
use twinvm_replica::Event;

use super::NodeLoop;
use crate::disk::{Disk, DiskDone, DiskFile};

/// Number of a flush that is the node's own: guests count from 0 and don't come there.
const OWN_FLUSH: u64 = u64::MAX;

/// The disks at work.
pub(super) struct NodeDisks {
    /// Slot and disk.
    disks: Vec<(u8, Disk)>,
    done: Receiver<DiskDone>,
    /// Requests without a result yet.
    under_way: usize,
    /// So many of them are of a machine that is gone. As long as there are any, nothing is begun.
    stale: usize,
    /// What came meanwhile; bounded by what a machine may have in flight.
    waiting: VecDeque<DiskRequest>,
    /// A flush of all disks: its number, what is left of it, and the first that failed.
    flushing: Option<(u64, usize, Result<(), String>)>,
}

impl NodeDisks {
    /// Starts the machine's disks, whose files these are.
    pub(super) fn start(config: &MachineConfig, files: Vec<DiskFile>) -> io::Result<Self> {
        let (done_in, done) = match files.len() {
            0 => (None, never()),
            // The node's own flush beside what a guest has in flight.
            disks => {
                let (done_in, done) = bounded((MAX_DISK_REQUESTS + 1) * disks);
                (Some(done_in), done)
            }
        };
        let slots = (0..).zip(&config.slots);
        let slots = slots.filter(|(_, slot)| matches!(slot, SlotConfig::Disk(_)));
        let mut disks = Vec::new();
        if let Some(done_in) = done_in {
            for ((slot, _), file) in slots.zip(files) {
                disks.push((slot, Disk::start(file, &done_in)?));
            }
        }
        Ok(Self {
            disks,
            done,
            under_way: 0,
            stale: 0,
            waiting: VecDeque::new(),
            flushing: None,
        })
    }

    /// What announces results.
    pub(super) fn wakes(&self) -> &Receiver<DiskDone> {
        &self.done
    }

    /// Has a request carried out.
    pub(super) fn submit(&mut self, request: DiskRequest) {
        if self.stale > 0 {
            self.waiting.push_back(request);
            return;
        }
        let disk = self.disks.iter().find(|(slot, _)| *slot == request.device);
        if let Some((_, disk)) = disk {
            self.under_way += 1;
            disk.submit(request);
        }
    }

    /// Brings all disks to rest; `flush` is for the answer.
    pub(super) fn flush(&mut self, flush: u64) {
        self.flushing = Some((flush, self.disks.len(), Ok(())));
        let devices: Vec<u8> = self.disks.iter().map(|(slot, _)| *slot).collect();
        for device in devices {
            self.submit(DiskRequest {
                device,
                id: OWN_FLUSH,
                op: DiskOp::Flush,
                offset: 0,
                bytes: 0,
                data: Arc::default(),
            });
        }
    }

    /// Whose requests these are is gone: their results mean nothing, and what comes waits for
    /// their end.
    pub(super) fn forget(&mut self) {
        self.stale = self.under_way;
        self.waiting.clear();
        self.flushing = None;
    }

    /// The next result.
    fn next(&mut self) -> Option<DiskDone> {
        loop {
            let done = self.done.try_recv().ok()?;
            self.under_way = self.under_way.saturating_sub(1);
            if self.stale == 0 {
                return Some(done);
            }
            self.stale -= 1;
            if self.stale == 0 {
                for request in std::mem::take(&mut self.waiting) {
                    self.submit(request);
                }
            }
        }
    }

    /// One disk has been flushed for the node. The whole, if it is the last.
    fn flushed(&mut self, done: &DiskDone) -> Option<(u64, Result<(), String>)> {
        let (_, left, result) = self.flushing.as_mut()?;
        *left = left.saturating_sub(1);
        if done.status != 0 && result.is_ok() {
            *result = Err(format!("the disk in slot {} can't be flushed", done.device));
        }
        if *left > 0 {
            return None;
        }
        let (flush, _, result) = self.flushing.take()?;
        Some((flush, result))
    }
}

impl NodeLoop {
    /// Takes one result of a disk, if there is one.
    pub(super) fn take_disk_result(&mut self) -> bool {
        let Some(done) = self.disks.next() else {
            return false;
        };
        if let Some(trouble) = &done.trouble {
            self.journal.tell(NoteLevel::Error, "disk", trouble);
        }
        if done.id == OWN_FLUSH {
            if let Some((flush, result)) = self.disks.flushed(&done) {
                self.apply(Event::DisksFlushed { flush, result });
            }
            return true;
        }
        self.apply(Event::DiskDone {
            device: done.device,
            id: done.id,
            status: done.status,
            data: done.data,
        });
        true
    }
}

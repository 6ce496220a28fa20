//! A node's way to the disks that both nodes reach.
//!
//! A node that goes live claims them by the generation that it has won; each connection begins with
//! that, so nothing is read or written before the server has cut off whoever had them before. Where
//! the server can't, a command does it before the first connection. A node that isn't live has no
//! connection at all, unless the VM's file says that it reads a disk by itself: then a backup has one
//! over which it can only read.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, never};
use twinvm_machine::{DiskRequest, MAX_DISK_REQUESTS};
use twinvm_protocol::{Generation, NoteLevel};
use twinvm_replica::Reads;

use crate::disk::DiskDone;
use crate::nbd::{NbdDisk, NbdTarget};

/// Lines for the journal that wait: a server that is away has few to say.
const MAX_LINES: usize = 64;

/// One for the journal.
type Line = (NoteLevel, String);

/// A disk that both nodes reach.
pub struct SharedDisk {
    /// Virtio slot.
    pub device: u8,
    /// Where it is, as it was found when the node was started.
    pub target: NbdTarget,
    /// How a backup learns what was read there.
    pub reads: Reads,
}

/// All of them.
pub(super) struct SharedDisks {
    disks: Vec<SharedDisk>,
    /// While this node is live; of some, while it is a backup or about to be one.
    running: Vec<(u8, NbdDisk)>,
    done: Receiver<DiskDone>,
    lines: (Sender<Line>, Receiver<Line>),
}

impl SharedDisks {
    pub(super) fn new(disks: Vec<SharedDisk>) -> Self {
        Self {
            disks,
            running: Vec::new(),
            done: never(),
            lines: bounded(MAX_LINES),
        }
    }

    /// Their slots, and who reads them.
    pub(super) fn slots(&self) -> Vec<(u8, Reads)> {
        let disks = self.disks.iter();
        disks.map(|disk| (disk.device, disk.reads)).collect()
    }

    /// Claims them by this generation, from another node if it is a takeover. Does not wait:
    /// requests do.
    pub(super) fn claim(&mut self, generation: Generation, takeover: bool) -> io::Result<()> {
        self.start(|disk| Some(disk.target.claimed_by(generation.0, takeover)))
    }

    /// Begins to read those that a backup reads by itself, beside the node that has claimed them.
    pub(super) fn read_beside(&mut self) -> io::Result<()> {
        self.start(|disk| match disk.reads {
            Reads::Own => Some(disk.target.read_beside()),
            Reads::Log => None,
        })
    }

    fn start(&mut self, target: impl Fn(&SharedDisk) -> Option<NbdTarget>) -> io::Result<()> {
        self.forget();
        let (done_in, done) = bounded(MAX_DISK_REQUESTS * self.disks.len());
        for disk in &self.disks {
            let Some(target) = target(disk) else { continue };
            let lines = self.lines.0.clone();
            // One that nobody reads is lost, and nothing waits for it.
            let tell = Arc::new(move |level, line| drop(lines.try_send((level, line))));
            let started = NbdDisk::start(target, &done_in, tell)?;
            self.running.push((disk.device, started));
        }
        self.done = done;
        Ok(())
    }

    /// This node isn't live any more: connections are closed, and what was under way is nobody's.
    pub(super) fn forget(&mut self) {
        for (_, disk) in self.running.drain(..) {
            disk.abandon();
        }
        self.done = never();
    }

    /// Has a request carried out. False if it is of no shared disk.
    pub(super) fn submit(&self, request: &DiskRequest) -> bool {
        let device = request.device;
        if let Some((_, disk)) = self.running.iter().find(|(own, _)| *own == device) {
            disk.submit(request.clone());
        }
        self.disks.iter().any(|disk| disk.device == device)
    }

    /// What announces results.
    pub(super) fn wakes(&self) -> &Receiver<DiskDone> {
        &self.done
    }

    /// The next result.
    pub(super) fn next(&self) -> Option<DiskDone> {
        self.done.try_recv().ok()
    }

    /// Why the guest's requests wait, of each disk where they do.
    pub(super) fn waits(&self) -> Vec<String> {
        let disks = self.running.iter();
        disks.filter_map(|(_, disk)| disk.waits()).collect()
    }

    /// The next line for the journal.
    pub(super) fn line(&self) -> Option<Line> {
        self.lines.1.try_recv().ok()
    }
}

impl Drop for SharedDisks {
    fn drop(&mut self) {
        // Whatever is under way, the next live node asks for it again.
        self.forget();
    }
}

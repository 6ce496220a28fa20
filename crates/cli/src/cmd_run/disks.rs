//! The disks of a VM that runs alone.

use std::io;

use crossbeam_channel::{Receiver, bounded, never};
use twinvm_host::disk::{Disk, DiskDone, DiskFile};
use twinvm_machine::{DiskRequest, MAX_DISK_REQUESTS};

/// The disks, and what they have done.
pub(crate) struct Disks {
    first_slot: usize,
    disks: Vec<Disk>,
    done: Receiver<DiskDone>,
}

impl Disks {
    /// Starts the disks that are in the slots from `first_slot` on.
    pub(crate) fn start(first_slot: usize, files: Vec<DiskFile>) -> io::Result<Self> {
        if files.is_empty() {
            return Ok(Self {
                first_slot,
                disks: Vec::new(),
                done: never(),
            });
        }
        let (done_in, done) = bounded(MAX_DISK_REQUESTS * files.len());
        let start = |file| Disk::start(file, &done_in);
        Ok(Self {
            first_slot,
            disks: files.into_iter().map(start).collect::<io::Result<_>>()?,
            done,
        })
    }

    /// Has a request carried out.
    pub(crate) fn submit(&self, request: DiskRequest) {
        let slot = usize::from(request.device);
        if let Some(disk) = slot
            .checked_sub(self.first_slot)
            .and_then(|n| self.disks.get(n))
        {
            disk.submit(request);
        }
    }

    /// What announces results.
    pub(crate) fn wakes(&self) -> &Receiver<DiskDone> {
        &self.done
    }

    /// The next result; tells a person what went wrong.
    pub(crate) fn next(&self) -> Option<DiskDone> {
        let done = self.done.try_recv().ok()?;
        if let Some(trouble) = &done.trouble {
            eprintln!("twinvm run: {trouble}");
        }
        Some(done)
    }
}

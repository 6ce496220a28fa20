//! The disks of a VM that runs alone.

use std::io;

use crossbeam_channel::{Receiver, bounded, never};
use twinvm_host::disk::{Disk, DiskDone, DiskError, DiskFile};
use twinvm_machine::{DiskRequest, MAX_DISK_REQUESTS, MachineConfig, SlotConfig};

use crate::say;

/// The disks, and what they have done.
pub(crate) struct Disks {
    /// Slot and disk.
    disks: Vec<(usize, Disk)>,
    done: Receiver<DiskDone>,
}

impl Disks {
    /// Starts the machine's disks, whose files these are.
    pub(crate) fn start(config: &MachineConfig, files: Vec<DiskFile>) -> io::Result<Self> {
        if files.is_empty() {
            return Ok(Self {
                disks: Vec::new(),
                done: never(),
            });
        }
        let (done_in, done) = bounded(MAX_DISK_REQUESTS * files.len());
        let is_disk = |slot: &usize| matches!(config.slots[*slot], SlotConfig::Disk(_));
        let slots = (0..config.slots.len()).filter(is_disk);
        let start = |(slot, file)| Ok((slot, Disk::start(file, &done_in)?));
        Ok(Self {
            disks: slots.zip(files).map(start).collect::<io::Result<_>>()?,
            done,
        })
    }

    /// Has a request carried out.
    pub(crate) fn submit(&self, request: DiskRequest) {
        let slot = usize::from(request.device);
        if let Some((_, disk)) = self.disks.iter().find(|(own, _)| *own == slot) {
            disk.submit(request);
        }
    }

    /// Waits for the requests under way and makes durable what was written. No request is taken
    /// after it.
    pub(crate) fn rest(&mut self) -> Result<(), DiskError> {
        self.disks.iter_mut().try_for_each(|(_, disk)| disk.rest())
    }

    /// What announces results.
    pub(crate) fn wakes(&self) -> &Receiver<DiskDone> {
        &self.done
    }

    /// The next result; tells a person what went wrong.
    pub(crate) fn next(&self) -> Option<DiskDone> {
        let done = self.done.try_recv().ok()?;
        if let Some(trouble) = &done.trouble {
            say::line(format_args!("twinvm run: {trouble}"));
        }
        Some(done)
    }
}

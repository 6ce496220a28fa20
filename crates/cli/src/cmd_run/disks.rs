//! The disks of a VM that runs alone.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, never};
use twinvm_host::disk::{Disk, DiskDone, DiskError};
use twinvm_host::nbd::{NbdDisk, NbdError};
use twinvm_machine::{DiskRequest, MAX_DISK_REQUESTS, MachineConfig, SlotConfig};

use crate::guest::OpenDisk;
use crate::say;

/// A disk at work.
enum Running {
    File(Disk),
    Nbd(NbdDisk),
}

/// A disk can't be brought to rest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestError {
    /// A file.
    #[error(transparent)]
    File(#[from] DiskError),
    /// An export.
    #[error(transparent)]
    Nbd(#[from] NbdError),
}

/// The disks, and what they have done.
pub(crate) struct Disks {
    /// Slot and disk.
    disks: Vec<(usize, Running)>,
    done: Receiver<DiskDone>,
}

impl Disks {
    /// Starts the machine's disks, which these are.
    pub(crate) fn start(config: &MachineConfig, opened: Vec<OpenDisk>) -> io::Result<Self> {
        if opened.is_empty() {
            return Ok(Self {
                disks: Vec::new(),
                done: never(),
            });
        }
        let (done_in, done) = bounded(MAX_DISK_REQUESTS * opened.len());
        let is_disk = |slot: &usize| matches!(config.slots[*slot], SlotConfig::Disk(_));
        let slots = (0..config.slots.len()).filter(is_disk);
        let start = |(slot, opened)| {
            let disk = match opened {
                OpenDisk::File(file) => Running::File(Disk::start(file, &done_in)?),
                OpenDisk::Nbd(target) => {
                    let tell = |_, text| say::line(format_args!("twinvm run: {text}"));
                    Running::Nbd(NbdDisk::start(*target, &done_in, Arc::new(tell))?)
                }
            };
            Ok((slot, disk))
        };
        Ok(Self {
            disks: slots.zip(opened).map(start).collect::<io::Result<_>>()?,
            done,
        })
    }

    /// Has a request carried out.
    pub(crate) fn submit(&self, request: DiskRequest) {
        let slot = usize::from(request.device);
        if let Some((_, disk)) = self.disks.iter().find(|(own, _)| *own == slot) {
            match disk {
                Running::File(disk) => disk.submit(request),
                Running::Nbd(disk) => disk.submit(request),
            }
        }
    }

    /// Waits for the requests under way and makes durable what was written. No request is taken
    /// after it.
    pub(crate) fn rest(&mut self) -> Result<(), RestError> {
        self.disks.iter_mut().try_for_each(|(_, disk)| match disk {
            Running::File(disk) => Ok(disk.rest()?),
            Running::Nbd(disk) => Ok(disk.rest()?),
        })
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

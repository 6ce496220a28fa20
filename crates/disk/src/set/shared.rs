//! What the loop, the threads of all disks and a synchronization's share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use super::slot::Slot;
use super::{DiskEvent, DiskOptions, SetError};
use crate::background;
use crate::mark::{MARK, Mark, Stored, StoredDisk};
use crate::medium::Medium;
use crate::sync::SyncError;
use crate::worker::locked;

/// What the threads of all disks and of a synchronization share.
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) disks: Vec<Arc<Slot>>,
    pub(crate) options: DiskOptions,
    pub(crate) medium: Medium,
    pub(super) stored: Mutex<Option<Stored>>,
    pub(crate) events: Sender<DiskEvent>,
    /// Held by the thread of a synchronization while it works: the next one waits.
    pub(crate) busy: Mutex<()>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) closing: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("disks", &self.disks)
            .finish()
    }
}

impl Shared {
    pub(crate) fn mark(&self) -> Option<Mark> {
        locked(&self.stored).as_ref().map(|stored| stored.mark)
    }

    /// Changes the mark durably, if there is one. The loop and the thread of a synchronization both
    /// do, each its own part of it.
    pub(crate) fn change_mark(&self, change: impl FnOnce(&mut Mark)) -> Result<(), SetError> {
        self.update_mark(|mark| {
            let mut mark = mark?;
            change(&mut mark);
            Some(mark)
        })
    }

    /// Stores what `change` makes of the mark that there is, in one step.
    pub(crate) fn update_mark(
        &self,
        change: impl FnOnce(Option<Mark>) -> Option<Mark>,
    ) -> Result<(), SetError> {
        let mut stored = locked(&self.stored);
        match change(stored.as_ref().map(|stored| stored.mark)) {
            Some(mark) => self.store_in(&mut stored, mark),
            None => Ok(()),
        }
    }

    /// Stores this mark, the first one, for the files as they are.
    pub(super) fn store(&self, mark: Mark) -> Result<(), SetError> {
        self.store_in(&mut locked(&self.stored), mark)
    }

    /// Stores this mark for the files as they are.
    fn store_in(&self, stored: &mut Option<Stored>, mark: Mark) -> Result<(), SetError> {
        let failed = |source| SetError::Mark {
            path: self.folder.join(MARK),
            source,
        };
        let mut disks = Vec::new();
        for (n, slot) in self.disks.iter().enumerate() {
            let known = stored.as_ref().and_then(|stored| stored.disks.get(n));
            disks.push(match slot.copy() {
                Some(copy) => StoredDisk {
                    bytes: copy.file.bytes(),
                    identity: copy.file.identity().map_err(failed)?,
                },
                // One that has gone is still the one; a copy to come is whatever it will be.
                None if mark.consistent => known.copied().unwrap_or_default(),
                None => StoredDisk::default(),
            });
        }
        let new = Stored { mark, disks };
        if stored.as_ref() != Some(&new) {
            new.write(&self.folder, &self.medium).map_err(failed)?;
            *stored = Some(new);
        }
        Ok(())
    }

    /// Starts the thread of a synchronization.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<(), SyncError> {
        let thread = background::spawn("disk sync", work)
            .map_err(|error| SyncError::Thread(error.to_string()))?;
        let mut threads = locked(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Whether the disks are being closed: the threads of synchronizations end.
    pub(crate) fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Tells the loop to ask for the next piece.
    pub(crate) fn wake(&self) {
        let _ = self.events.send(DiskEvent::Sync);
    }
}

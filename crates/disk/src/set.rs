//! All replicated disks of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crossbeam_channel::{Receiver, unbounded};
use rustix::rand::{GetRandomFlags, getrandom};
use twinvm_machine::{DiskOp, DiskRequest};

use crate::file::DiskError;
use crate::mark::{MARK, Mark, Stored};
use crate::medium::Medium;
use crate::sync::{SyncError, SyncIn, SyncOut};
use crate::track::Track;
use crate::worker::{Backing, DiskDone, Pool, Sink, locked};

mod error;
mod shared;
mod slot;

pub use error::SetError;
pub(crate) use shared::Shared;
pub(crate) use slot::{Copy, Slot};
use slot::{all, map_error, open_files, open_intents};

/// One disk of a VM, as its description says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Virtio slot.
    pub device: u8,
    /// The file with this node's copy.
    pub path: PathBuf,
    /// The guest can only read.
    pub read_only: bool,
}

/// How the disks are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// A guest's flush makes durable what was written. False: it is done at once.
    pub flush: bool,
    /// Most bytes per second that a synchronization sends; none: as many as go.
    pub sync_bytes_s: Option<u64>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            flush: true,
            sync_bytes_s: None,
        }
    }
}

/// What comes from the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEvent {
    /// A request has ended. Its status says whether this node's copy did it.
    Done(DiskDone),
    /// [`DiskSet::flush`] has ended; the line says what couldn't be made durable.
    Flushed {
        /// What was given to it.
        ticket: u64,
        /// What went wrong.
        result: Result<(), String>,
    },
    /// A synchronization may have something to say: ask for its next piece.
    Sync,
}

/// Names a moment: see [`DiskSet::begin_point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point(u64);

/// All replicated disks of a node, locked for this process. Dropping it waits for the requests
/// under way.
#[derive(Debug)]
pub struct DiskSet {
    pools: Vec<Pool>,
    shared: Arc<Shared>,
    events: Receiver<DiskEvent>,
    points: AtomicU64,
}

impl DiskSet {
    /// Opens the disks of the node whose folder this is. A file that isn't there is no error: a
    /// node that joins makes it. What can't be used is told before anything is changed.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn open(
        folder: &Path,
        specs: Vec<DiskSpec>,
        options: DiskOptions,
    ) -> Result<Self, SetError> {
        Self::open_on(folder, specs, options, Medium::default())
    }

    pub(crate) fn open_on(
        folder: &Path,
        specs: Vec<DiskSpec>,
        options: DiskOptions,
        medium: Medium,
    ) -> Result<Self, SetError> {
        let stored = Stored::read(folder).map_err(|source| SetError::Mark {
            path: folder.join(MARK),
            source,
        })?;
        let files = open_files(folder, &specs, stored.as_ref(), &medium)?;
        let (events_in, events) = unbounded();
        let mut disks = Vec::new();
        for (n, (spec, file)) in specs.into_iter().zip(files).enumerate() {
            let known = stored.as_ref().and_then(|stored| stored.disks.get(n));
            let copy = match file {
                None => None,
                Some(file) => {
                    let grown = known.is_some_and(|known| known.bytes != file.bytes());
                    let intents = open_intents(folder, n, file.bytes(), &medium)?;
                    if grown || known.is_none() {
                        all(&intents).map_err(|source| map_error(folder, n, source))?;
                    }
                    Some(Arc::new(Copy {
                        track: Track::new(file.bytes(), intents),
                        file,
                    }))
                }
            };
            disks.push(Arc::new(Slot {
                spec,
                flush: options.flush,
                copy: RwLock::new(copy),
            }));
        }
        let results = events_in.clone();
        let sink: Sink = Arc::new(move |done| results.send(DiskEvent::Done(done)).is_ok());
        let pools = disks
            .iter()
            .map(|slot| Pool::start(Arc::clone(slot) as Arc<dyn Backing>, &sink))
            .collect::<io::Result<_>>()
            .map_err(SetError::Thread)?;
        let grown = |stored: &Stored| {
            let files = disks.iter().zip(&stored.disks);
            files.into_iter().any(|(slot, known)| {
                let bytes = slot.copy().map(|copy| copy.file.bytes());
                bytes.is_some_and(|bytes| bytes != known.bytes)
            })
        };
        let grown = stored.as_ref().filter(|stored| grown(stored));
        let grown = grown.map(|stored| stored.mark);
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            disks,
            options,
            medium,
            stored: Mutex::new(stored),
            events: events_in,
            busy: Mutex::new(()),
            threads: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        if let Some(mark) = grown {
            shared.store(mark)?;
        }
        Ok(Self {
            pools,
            shared,
            events,
            points: AtomicU64::new(0),
        })
    }

    /// Where results come from: at most one [`DiskEvent::Done`] for each request, one
    /// [`DiskEvent::Flushed`] for each flush, and a word about a synchronization.
    pub fn events(&self) -> &Receiver<DiskEvent> {
        &self.events
    }

    /// Size of each disk in bytes, in the order of the specs; `None` where there is no file yet.
    pub fn sizes(&self) -> Vec<Option<u64>> {
        let size = |slot: &Arc<Slot>| slot.copy().map(|copy| copy.file.bytes());
        self.shared.disks.iter().map(size).collect()
    }

    /// What this node's copies are worth; `None` if it has never had any.
    pub fn mark(&self) -> Option<Mark> {
        self.shared.mark()
    }

    /// Why the VM can't cold-start from these copies, whatever the generation: a file is missing,
    /// the copies aren't consistent.
    ///
    /// # Errors
    /// [`SetError::NotWhole`].
    pub fn check_whole(&self) -> Result<(), SetError> {
        for slot in &self.shared.disks {
            if slot.copy().is_none() {
                return Err(DiskError::Missing(slot.spec.path.clone()).into());
            }
        }
        match self.mark() {
            Some(mark) if !mark.consistent => Err(SetError::NotWhole(format!(
                "the disks of this node are half a copy of the other one's ({}: consistent no): \
                 start the other node, this one joins it",
                self.shared.folder.join(MARK).display()
            ))),
            _ => Ok(()),
        }
    }

    /// At the VM's first start ever: these files are its disks. Draws the VM's id and stores a
    /// mark of generation 0; the mark that is there already stays.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn found(&self) -> Result<Mark, SetError> {
        self.check_whole()?;
        if let Some(mark) = self.mark() {
            return Ok(mark);
        }
        let mark = Mark {
            vm: random()?,
            generation: 0,
            pending: None,
            consistent: true,
            epoch: 0,
        };
        self.shared.store(mark)?;
        Ok(mark)
    }

    /// Stores durably under which generation this node executes, or may come to; a node without
    /// a mark has none to change. Nothing is written if it stands there already. Takes a few
    /// durable writes of time.
    ///
    /// # Errors
    /// [`SetError::Mark`]: what is stored is the old or the new.
    pub fn set_generation(&self, generation: u64, pending: Option<u64>) -> Result<(), SetError> {
        self.shared.change_mark(|mark| {
            mark.generation = generation;
            mark.pending = pending;
        })
    }

    /// Stores durably that the copies are worth nothing until they are copied anew.
    ///
    /// # Errors
    /// [`SetError::Mark`].
    pub fn set_inconsistent(&self) -> Result<(), SetError> {
        self.shared.change_mark(|mark| mark.consistent = false)
    }

    /// Stores durably that these copies may differ from the other node's anywhere, whatever the
    /// maps say: the next synchronization compares all of them.
    ///
    /// # Errors
    /// [`SetError::Mark`].
    pub fn doubt(&self) -> Result<(), SetError> {
        self.shared.change_mark(|mark| mark.epoch = 0)
    }

    /// Stores durably that the copies are what the VM's disks are, whatever they were: a person has
    /// had it started from them. Not while they are copied.
    ///
    /// # Errors
    /// [`SetError::Mark`].
    pub fn set_consistent(&self) -> Result<(), SetError> {
        match self.shared.busy.try_lock() {
            Ok(_idle) => self.shared.change_mark(|mark| mark.consistent = true),
            Err(_) => Ok(()),
        }
    }

    /// Carries a request out. Never waits; one for a slot without a disk is dropped. Next hop: a
    /// [`DiskEvent::Done`].
    pub fn submit(&self, request: DiskRequest) {
        let slot = |slot: &Arc<Slot>| slot.spec.device == request.device;
        if let Some(n) = self.shared.disks.iter().position(slot) {
            self.pools[n].submit(request);
        }
    }

    /// Makes durable on all disks what the requests have written that have ended. Next hop: a
    /// [`DiskEvent::Flushed`] with this ticket.
    pub fn flush(&self, ticket: u64) {
        let events = self.shared.events.clone();
        self.flush_then(move |result| {
            let _ = events.send(DiskEvent::Flushed { ticket, result });
        });
    }

    /// Flushes all disks beside each other; the last one calls `then`.
    fn flush_then(&self, then: impl FnOnce(Result<(), String>) + Send + 'static) {
        if self.pools.is_empty() {
            return then(Ok(()));
        }
        let left = Arc::new(AtomicUsize::new(self.pools.len()));
        let state = Arc::new(Mutex::new((Ok(()), Some(then))));
        for (pool, slot) in self.pools.iter().zip(&self.shared.disks) {
            let (left, state, slot) = (Arc::clone(&left), Arc::clone(&state), Arc::clone(slot));
            pool.run(move || {
                let flushed = slot.make_durable();
                let mut both = locked(&state);
                if let Err(error) = flushed {
                    both.0 = Err(format!("disk {}: {error}", slot.spec.path.display()));
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1
                    && let Some(then) = both.1.take()
                {
                    then(both.0.clone());
                }
            });
        }
    }

    /// Why a disk can do nothing any more, if one can't: a flush has failed.
    pub fn failed(&self) -> Option<String> {
        self.shared.disks.iter().find_map(|slot| {
            let copy = slot.copy()?;
            let why = copy.file.failed()?;
            Some(format!("disk {}: {why}", slot.spec.path.display()))
        })
    }

    /// Names this moment, so that [`DiskSet::clear_to`] can say later that the copies of both
    /// nodes hold durably what was written before it. The one before it is forgotten. To be
    /// called on both nodes at the same position of the log, with no difference in what has been
    /// submitted.
    ///
    /// What the guest has `in_flight` at that position counts as written later: here it may have
    /// ended, there it may not have begun.
    pub fn begin_point(&self, in_flight: &[DiskRequest]) -> Point {
        let id = self.points.fetch_add(1, Ordering::Relaxed);
        for slot in &self.shared.disks {
            if let Some(copy) = slot.copy() {
                let own = |request: &&DiskRequest| {
                    request.device == slot.spec.device
                        && !matches!(request.op, DiskOp::Read | DiskOp::Flush)
                };
                let bytes = |of: &DiskRequest| of.offset..of.offset.saturating_add(of.bytes);
                let in_flight: Vec<_> = in_flight.iter().filter(own).map(bytes).collect();
                copy.track.begin_point(id, &in_flight);
            }
        }
        Point(id)
    }

    /// Both nodes have executed everything up to this point and flushed it after that
    /// ([`DiskSet::flush`] begun after [`DiskSet::begin_point`]): only what was written since may
    /// differ. Nothing happens if the point was forgotten.
    pub fn clear_to(&self, point: Point) {
        for (pool, slot) in self.pools.iter().zip(&self.shared.disks) {
            let slot = Arc::clone(slot);
            pool.run(move || {
                if let Some(copy) = slot.copy() {
                    // A map that can't be cleared has bits too many.
                    let _ = copy.track.clear_to(point.0);
                }
            });
        }
    }

    /// Bytes that are copied aside for a synchronization, since the guest has changed them on the
    /// disk: at most 32 MiB for each disk.
    pub fn bytes_aside(&self) -> u64 {
        let aside = |slot: &Arc<Slot>| slot.copy().map_or(0, |copy| copy.track.bytes_aside());
        self.shared.disks.iter().map(aside).sum()
    }

    /// On a joining node: begins to take the live node's disks. Its first piece is what
    /// [`DiskSet::begin_sync`] wants. No request may be submitted until it is done.
    ///
    /// # Errors
    /// No thread.
    pub fn begin_join(&self) -> Result<SyncIn, SyncError> {
        SyncIn::begin(Arc::clone(&self.shared))
    }

    /// On the live node: begins to send the disks to a node that joins, which has said `hello`.
    ///
    /// # Errors
    /// [`SyncError`]: what it said is malformed, or its disks can't become copies of these.
    pub fn begin_sync(&self, hello: &[u8]) -> Result<SyncOut, SyncError> {
        let id = self.points.fetch_add(1, Ordering::Relaxed);
        SyncOut::begin(Arc::clone(&self.shared), id, hello)
    }

    /// Brings the disks to rest: waits for the requests under way and makes durable what has been
    /// written. No request is taken after it; the files stay locked.
    ///
    /// # Errors
    /// [`SetError::Disk`]: what was written may not be there after a power failure.
    pub fn rest(&mut self) -> Result<(), SetError> {
        self.stop();
        for slot in &self.shared.disks {
            slot.make_durable().map_err(|source| DiskError::Io {
                path: slot.spec.path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

impl DiskSet {
    fn stop(&mut self) {
        // A write may wait for a synchronization that nobody drives any more.
        for slot in &self.shared.disks {
            if let Some(copy) = slot.copy() {
                copy.track.close();
            }
        }
        for pool in &mut self.pools {
            pool.stop();
        }
        self.shared.closing.store(true, Ordering::Release);
        for thread in locked(&self.shared.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for DiskSet {
    fn drop(&mut self) {
        self.stop();
    }
}

/// 128 random bits.
pub(crate) fn random() -> Result<u128, SetError> {
    let mut bytes = [0; 16];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| SetError::Random(error.into()))?;
    // The kernel gives so few bytes whole.
    if got != bytes.len() {
        return Err(SetError::Random(io::Error::other("too few")));
    }
    Ok(u128::from_le_bytes(bytes))
}

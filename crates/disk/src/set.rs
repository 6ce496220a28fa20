//! All replicated disks of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::rand::{GetRandomFlags, getrandom};
use twinvm_machine::{DiskOp, DiskRequest};

use crate::file::{DiskError, DiskFile};
use crate::intents::Intents;
use crate::mark::{MARK, Mark, Stored, StoredDisk};
use crate::medium::Medium;
use crate::sync::{SyncError, SyncIn, SyncOut};
use crate::track::Track;
use crate::worker::{Backing, DiskDone, Pool, Sink, locked};

mod error;

pub use error::SetError;

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

/// What the threads of all disks and of a synchronization share.
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) disks: Vec<Arc<Slot>>,
    pub(crate) options: DiskOptions,
    pub(crate) medium: Medium,
    stored: Mutex<Option<Stored>>,
    pub(crate) events: Sender<DiskEvent>,
    /// Held by the thread of a synchronization while it works: the next one waits.
    pub(crate) busy: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    closing: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("disks", &self.disks)
            .finish()
    }
}

/// One disk.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) spec: DiskSpec,
    flush: bool,
    copy: RwLock<Option<Arc<Copy>>>,
}

/// A disk's file and what is known of it.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) file: DiskFile,
    pub(crate) track: Track,
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
    pub fn begin_point(&self) -> Point {
        let id = self.points.fetch_add(1, Ordering::Relaxed);
        for slot in &self.shared.disks {
            if let Some(copy) = slot.copy() {
                copy.track.begin_point(id);
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

impl Shared {
    pub(crate) fn mark(&self) -> Option<Mark> {
        locked(&self.stored).as_ref().map(|stored| stored.mark)
    }

    fn change_mark(&self, change: impl FnOnce(&mut Mark)) -> Result<(), SetError> {
        let Some(mut mark) = self.mark() else {
            return Ok(());
        };
        change(&mut mark);
        self.store(mark)
    }

    /// Stores this mark for the files as they are.
    pub(crate) fn store(&self, mark: Mark) -> Result<(), SetError> {
        let failed = |source| SetError::Mark {
            path: self.folder.join(MARK),
            source,
        };
        let mut stored = locked(&self.stored);
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
        let thread = thread::Builder::new().name("disk sync".to_owned());
        let thread = thread
            .spawn(work)
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

impl Slot {
    pub(crate) fn copy(&self) -> Option<Arc<Copy>> {
        let copy = self.copy.read();
        copy.unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Makes the file, with room for `bytes` and nothing in it.
    pub(crate) fn create(
        &self,
        n: usize,
        folder: &Path,
        bytes: u64,
        medium: &Medium,
    ) -> Result<Arc<Copy>, SetError> {
        let path = &self.spec.path;
        let io = |source| DiskError::Io {
            path: path.clone(),
            source,
        };
        medium.make_file(path, bytes).map_err(io)?;
        let file = DiskFile::open_on(path, self.spec.read_only, medium.clone())?;
        let intents = open_intents(folder, n, bytes, medium)?;
        all(&intents).map_err(|source| map_error(folder, n, source))?;
        let copy = Arc::new(Copy {
            track: Track::new(bytes, intents),
            file,
        });
        let mut slot = self
            .copy
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *slot = Some(Arc::clone(&copy));
        Ok(copy)
    }

    pub(crate) fn make_durable(&self) -> io::Result<()> {
        self.copy().map_or(Ok(()), |copy| copy.file.flush())
    }
}

impl Backing for Slot {
    fn carry_out(&self, request: &DiskRequest) -> io::Result<Vec<u8>> {
        let Some(copy) = self.copy() else {
            return Err(io::Error::other("this node has no copy of it yet"));
        };
        let mut request = request.clone();
        match request.op {
            DiskOp::Read => return copy.file.carry_out(&request),
            DiskOp::Flush if !self.flush => return Ok(Vec::new()),
            DiskOp::Flush => return copy.file.carry_out(&request),
            DiskOp::Write { durable: true } if !self.flush => {
                request.op = DiskOp::Write { durable: false };
            }
            DiskOp::Write { .. } | DiskOp::Discard | DiskOp::WriteZeroes { .. } => {}
        }
        let bytes = request.offset..request.offset + request.bytes;
        let blocks = copy.track.begin(&copy.file, bytes)?;
        let done = copy.file.carry_out(&request);
        copy.track.end(&blocks);
        done
    }

    fn flush(&self) -> io::Result<()> {
        self.make_durable()
    }

    fn path(&self) -> &Path {
        &self.spec.path
    }
}

/// Opens and locks the files that are there, and holds them against the mark.
fn open_files(
    folder: &Path,
    specs: &[DiskSpec],
    stored: Option<&Stored>,
    medium: &Medium,
) -> Result<Vec<Option<DiskFile>>, SetError> {
    let mut files = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let file = match DiskFile::open_on(&spec.path, spec.read_only, medium.clone()) {
            Ok(file) => file,
            Err(DiskError::Missing(_)) => {
                files.push(None);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(known) = stored.and_then(|stored| stored.disks.get(n))
            && *known != StoredDisk::default()
        {
            let mark = folder.join(MARK);
            let path = spec.path.clone();
            let identity = file.identity().map_err(|source| DiskError::Io {
                path: path.clone(),
                source,
            })?;
            if identity != known.identity {
                return Err(SetError::Foreign { path, mark });
            }
            if file.bytes() < known.bytes {
                return Err(SetError::Shrunk {
                    path,
                    found: file.bytes(),
                    expected: known.bytes,
                    mark,
                });
            }
        }
        files.push(Some(file));
    }
    Ok(files)
}

fn map_path(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("disk-{n}.intents"))
}

fn map_error(folder: &Path, n: usize, source: io::Error) -> SetError {
    SetError::Map {
        path: map_path(folder, n),
        source,
    }
}

fn open_intents(folder: &Path, n: usize, bytes: u64, medium: &Medium) -> Result<Intents, SetError> {
    let path = map_path(folder, n);
    Intents::open(&path, bytes, medium.clone()).map_err(|source| map_error(folder, n, source))
}

/// Every region may have been written.
fn all(intents: &Intents) -> io::Result<()> {
    intents.set(0..intents.regions())
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

//! The joining node's side.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};

use twinvm_machine::SECTOR_BYTES;

use super::wire::{
    Apply, HashRun, HelloMark, MAX_ASK_BLOCKS, MAX_ASKS, MAX_DISK_BYTES, MAX_INTENT_RUNS, Run,
    ToJoiner, ToLive, VERSION, block_hash, check_runs, decode, encode, is_zero, shown, wrong,
};
use super::{SyncError, SyncPiece, SyncProgress, SyncStage, WINDOW_MESSAGES};
use crate::file::DiskFile;
use crate::mark::Mark;
use crate::set::{Copy, Shared};
use crate::track::BLOCK_BYTES;
use crate::worker::locked;

/// Messages that wait for the thread: a window, and the first and the last word.
const MAX_WAITING: usize = WINDOW_MESSAGES as usize + 2;
/// Words for the live node that wait to be sent; the thread waits when there are more.
const MAX_SAID: usize = MAX_ASKS + 4;
/// After so many messages the live node hears that they are written.
const ACK_EVERY: u64 = 8;
/// After so many bytes the file is made durable, so that the end doesn't take long.
const FLUSH_BYTES: u64 = 256 << 20;

/// Bytes of a live node's last word, if it gives up; a longer one is heard in its turn.
const LONGEST_SORRY: usize = 4096;
/// How often a thread that waits looks whether the disks are being closed.
const LOOK: Duration = Duration::from_millis(100);

/// The live node's disks on their way here. Dropping it gives it up; the copies are worth nothing
/// then, and their mark says so.
#[derive(Debug)]
pub struct SyncIn {
    waiting: Sender<Vec<u8>>,
    said: Receiver<Vec<u8>>,
    link: Arc<Link>,
}

#[derive(Debug, Default)]
struct Link {
    ended: Mutex<Option<Result<(), SyncError>>>,
    overwrites: AtomicBool,
    stage: AtomicU64,
    compared: AtomicU64,
    copied: AtomicU64,
    sent: AtomicU64,
    heard: AtomicU64,
}

impl SyncIn {
    pub(crate) fn begin(shared: Arc<Shared>) -> Result<Self, SyncError> {
        let (waiting, messages) = bounded(MAX_WAITING);
        let (say, said) = bounded(MAX_SAID);
        let link = Arc::new(Link::default());
        let starting = Arc::clone(&shared);
        let mut worker = Worker {
            shared,
            link: Arc::clone(&link),
            messages,
            say,
            session: None,
            done: (0, 0),
            acked: 0,
            unflushed: 0,
        };
        starting.spawn(move || worker.run())?;
        Ok(Self {
            waiting,
            said,
            link,
        })
    }

    /// What it has to say now.
    pub fn next_piece(&mut self) -> SyncPiece {
        if let Ok(bytes) = self.said.try_recv() {
            return SyncPiece::Ready(bytes);
        }
        match &*locked(&self.link.ended) {
            None => SyncPiece::Later,
            // It may have said a last word meanwhile.
            Some(_) if !self.said.is_empty() => SyncPiece::Later,
            Some(Ok(())) => SyncPiece::Done,
            Some(Err(error)) => SyncPiece::Failed(error.clone()),
        }
    }

    /// A message from the live node. What is wrong with it is said by the next piece.
    pub fn heard(&mut self, bytes: &[u8]) {
        let link = &self.link;
        link.heard.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // At once: the connection ends behind it.
        if bytes.len() <= LONGEST_SORRY
            && let Ok(ToJoiner::Sorry { line }) = decode(bytes)
        {
            locked(&link.ended).get_or_insert(Err(SyncError::GaveUp(shown(&line))));
            return;
        }
        if let Err(error) = self.waiting.try_send(bytes.to_vec())
            && error.is_full()
        {
            let error = wrong("more messages than the window has");
            locked(&link.ended).get_or_insert(Err(error));
        }
    }

    /// Whether the copies are complete and durable, and their mark says so.
    pub fn is_done(&self) -> bool {
        matches!(&*locked(&self.link.ended), Some(Ok(())))
    }

    /// Whether the copies here are worth nothing until all is done, as their mark says. Until then they
    /// are what they were.
    pub fn overwrites(&self) -> bool {
        self.link.overwrites.load(Ordering::Acquire)
    }

    /// How far it is. What is still to come only the live node knows.
    pub fn progress(&self) -> SyncProgress {
        let link = &self.link;
        SyncProgress {
            stage: SyncStage::ALL[link.stage.load(Ordering::Relaxed) as usize % 5],
            compared_bytes: link.compared.load(Ordering::Relaxed) * BLOCK_BYTES,
            copied_bytes: link.copied.load(Ordering::Relaxed) * BLOCK_BYTES,
            sent_bytes: link.sent.load(Ordering::Relaxed),
            heard_bytes: link.heard.load(Ordering::Relaxed),
            ..SyncProgress::default()
        }
    }
}

impl Drop for SyncIn {
    fn drop(&mut self) {
        locked(&self.link.ended).get_or_insert(Err(SyncError::Stopped));
    }
}

/// The thread that reads, writes and hashes.
struct Worker {
    shared: Arc<Shared>,
    link: Arc<Link>,
    messages: Receiver<Vec<u8>>,
    say: Sender<Vec<u8>>,
    session: Option<Session>,
    /// Messages and their bytes that are dealt with.
    done: (u64, u64),
    /// Messages of which the live node knows it.
    acked: u64,
    unflushed: u64,
}

/// What the live node began.
struct Session {
    epoch: u128,
    copies: Vec<Arc<Copy>>,
    /// For disks that the guest can only read.
    writers: Vec<Option<DiskFile>>,
}

impl Worker {
    fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let _busy = locked(&shared.busy);
        let how = catch_unwind(AssertUnwindSafe(|| self.work()))
            .unwrap_or_else(|_| Err(SyncError::Disk("the thread has failed".to_owned())));
        if let Err(error @ (SyncError::Disk(_) | SyncError::Peer(_) | SyncError::Refused(_))) = &how
        {
            let line = error.to_string();
            let _ = self.queue(encode(&ToLive::Sorry { line }));
        }
        locked(&self.link.ended).get_or_insert(how);
        self.shared.wake();
    }

    fn work(&mut self) -> Result<(), SyncError> {
        self.greet()?;
        loop {
            let received = self.messages.recv_timeout(LOOK);
            if let Some(Err(error)) = &*locked(&self.link.ended) {
                return Err(error.clone());
            }
            let bytes = match received {
                Ok(bytes) => bytes,
                Err(error) if error.is_disconnected() => return Err(SyncError::Stopped),
                Err(_) if self.shared.closing() => return Err(SyncError::Stopped),
                Err(_) => continue,
            };
            match decode(&bytes)? {
                ToJoiner::Begin {
                    version,
                    vm,
                    epoch,
                    all,
                    disk_bytes,
                } => {
                    if version != VERSION || self.session.is_some() {
                        return Err(wrong("a beginning that can't be one"));
                    }
                    self.session = Some(self.begin(vm, epoch, all, &disk_bytes)?);
                    self.say(&ToLive::Ready)?;
                }
                ToJoiner::Ask { disk, runs } => self.answer(disk, &runs)?,
                ToJoiner::Apply(apply) => self.apply(&apply)?,
                ToJoiner::End => {
                    self.end()?;
                    return self.say(&ToLive::Stable);
                }
                ToJoiner::Sorry { line } => return Err(SyncError::GaveUp(shown(&line))),
            }
            self.done.0 += 1;
            self.done.1 += bytes.len() as u64;
            if self.done.0 - self.acked >= ACK_EVERY || self.messages.is_empty() {
                self.acked = self.done.0;
                self.say(&ToLive::Ack {
                    messages: self.done.0,
                    bytes: self.done.1,
                })?;
            }
        }
    }

    fn say(&self, message: &ToLive) -> Result<(), SyncError> {
        let bytes = encode(message);
        let len = bytes.len() as u64;
        self.link.sent.fetch_add(len, Ordering::Relaxed);
        self.queue(bytes)
    }

    /// Waits for room.
    fn queue(&self, mut bytes: Vec<u8>) -> Result<(), SyncError> {
        loop {
            bytes = match self.say.send_timeout(bytes, LOOK) {
                Ok(()) => break,
                Err(SendTimeoutError::Timeout(bytes)) if !self.shared.closing() => bytes,
                Err(_) => return Err(SyncError::Stopped),
            };
        }
        self.shared.wake();
        Ok(())
    }

    fn enter(&self, stage: SyncStage) {
        self.link.stage.store(stage as u64, Ordering::Relaxed);
    }

    fn greet(&self) -> Result<(), SyncError> {
        let mark = self.shared.mark().map(|mark| HelloMark {
            vm: mark.vm,
            generation: mark.generation,
            consistent: mark.consistent,
            epoch: mark.epoch,
        });
        let disks = self.shared.disks.iter();
        self.say(&ToLive::Hello {
            version: VERSION,
            mark,
            disk_bytes: disks
                .map(|slot| slot.copy().map(|copy| copy.file.bytes()))
                .collect(),
        })
    }

    /// Says where this copy may differ, marks it as worth nothing, and makes what isn't there.
    fn begin(
        &self,
        vm: u128,
        epoch: u128,
        all: bool,
        disk_bytes: &[u64],
    ) -> Result<Session, SyncError> {
        let disks = &self.shared.disks;
        let possible = |bytes: &u64| {
            (1..=MAX_DISK_BYTES).contains(bytes) && bytes.is_multiple_of(SECTOR_BYTES)
        };
        if disk_bytes.len() != disks.len() || !disk_bytes.iter().all(possible) || epoch == 0 {
            return Err(wrong("a beginning that can't be one"));
        }
        let old = self.shared.mark();
        if old.is_some_and(|old| old.vm != vm) {
            return Err(SyncError::Refused(
                "these disks belong to another VM".to_owned(),
            ));
        }
        for (disk, (slot, bytes)) in disks.iter().zip(disk_bytes).enumerate() {
            let Some(copy) = slot.copy() else { continue };
            if copy.file.bytes() != *bytes {
                return Err(wrong("a disk of another size"));
            }
            if all {
                continue;
            }
            let runs = copy.track.intents.runs();
            for runs in runs.chunks(MAX_INTENT_RUNS) {
                let run = |run: &std::ops::Range<u64>| Run {
                    first: run.start,
                    count: run.end - run.start,
                };
                self.say(&ToLive::Intents {
                    disk: disk as u8,
                    runs: runs.iter().map(run).collect(),
                })?;
            }
        }
        let failed = |error: crate::SetError| SyncError::Disk(error.to_string());
        let worth_nothing = |old: Option<Mark>| {
            Some(Mark {
                vm,
                generation: old.map_or(0, |old| old.generation),
                pending: old.and_then(|old| old.pending),
                consistent: false,
                // If all is compared, what the map says since that epoch isn't kept.
                epoch: old.filter(|_| !all).map_or(0, |old| old.epoch),
            })
        };
        self.shared.update_mark(worth_nothing).map_err(failed)?;
        self.link.overwrites.store(true, Ordering::Release);
        let mut session = Session {
            epoch,
            copies: Vec::new(),
            writers: Vec::new(),
        };
        for (n, (slot, bytes)) in disks.iter().zip(disk_bytes).enumerate() {
            let shared = &self.shared;
            let copy = match slot.copy() {
                Some(copy) => copy,
                None => slot
                    .create(n, &shared.folder, *bytes, &shared.medium)
                    .map_err(failed)?,
            };
            if all {
                let intents = &copy.track.intents;
                intents
                    .set(0..intents.regions())
                    .map_err(|error| SyncError::disk(copy.file.path(), "map", &error))?;
            }
            session.copies.push(copy);
            session.writers.push(None);
        }
        // With the files that were made.
        self.shared.update_mark(worth_nothing).map_err(failed)?;
        Ok(session)
    }

    fn copy(&self, disk: u8) -> Result<Arc<Copy>, SyncError> {
        let session = self.session.as_ref();
        let copy = session.and_then(|session| session.copies.get(usize::from(disk)));
        copy.cloned()
            .ok_or_else(|| wrong("a disk that there isn't"))
    }

    /// The hashes of some blocks.
    fn answer(&self, disk: u8, runs: &[Run]) -> Result<(), SyncError> {
        self.enter(SyncStage::Compare);
        let copy = self.copy(disk)?;
        let total = check_runs(runs, copy.track.blocks(), MAX_ASK_BLOCKS)?;
        let mut hashes = Vec::new();
        for run in runs {
            self.hash(&copy, run.first..run.first + run.count, &mut hashes)
                .map_err(|error| SyncError::disk(copy.file.path(), "read", &error))?;
        }
        self.link.compared.fetch_add(total, Ordering::Relaxed);
        self.say(&ToLive::Hashes { runs: hashes })
    }

    fn hash(
        &self,
        copy: &Copy,
        run: std::ops::Range<u64>,
        hashes: &mut Vec<HashRun>,
    ) -> std::io::Result<()> {
        let zeros = |hashes: &mut Vec<HashRun>, more: u64| match hashes.last_mut() {
            _ if more == 0 => {}
            Some(HashRun::Zeros(count)) => *count += more,
            _ => hashes.push(HashRun::Zeros(more)),
        };
        let mut at = run.start;
        while at < run.end {
            let data = copy.file.next_data(at * BLOCK_BYTES)?;
            let (start, end) = match data {
                Some((start, end)) => (start / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES)),
                None => (run.end, run.end),
            };
            let start = start.clamp(at, run.end);
            zeros(hashes, start - at);
            at = start;
            let end = end.min(run.end);
            while at < end {
                let part = at..(at + 64).min(end);
                let data = copy.track.read(&copy.file, &part)?;
                for block in data.chunks(BLOCK_BYTES as usize) {
                    if is_zero(block) {
                        zeros(hashes, 1);
                        continue;
                    }
                    let hash = block_hash(block);
                    match hashes.last_mut() {
                        Some(HashRun::Hashes(list)) => list.push(hash),
                        _ => hashes.push(HashRun::Hashes(vec![hash])),
                    }
                }
                at = part.end;
            }
        }
        Ok(())
    }

    fn apply(&mut self, apply: &Apply) -> Result<(), SyncError> {
        self.enter(SyncStage::Copy);
        let copy = self.copy(apply.disk)?;
        let data = apply.check(copy.file.bytes())?;
        let failed = |error| SyncError::disk(copy.file.path(), "write", &error);
        let mut writer = None;
        if copy.file.read_only()
            && let Some(session) = &mut self.session
        {
            let place = &mut session.writers[usize::from(apply.disk)];
            if place.is_none() {
                *place = Some(copy.file.writer().map_err(failed)?);
            }
            writer = place.as_ref();
        }
        let file = writer.unwrap_or(&copy.file);
        let mut content = &data[..];
        for (run, zeros) in &apply.runs {
            let bytes = copy.track.bytes_of(&(run.first..run.first + run.count));
            let blocks = copy
                .track
                .begin(&copy.file, bytes.clone())
                .map_err(failed)?;
            let len = bytes.end - bytes.start;
            let written = if *zeros {
                file.discard(bytes.start, len)
            } else {
                let (own, rest) = content.split_at(len as usize);
                content = rest;
                file.write_at(own, bytes.start)
            };
            copy.track.end(&blocks);
            written.map_err(failed)?;
            self.unflushed += len;
            self.link.copied.fetch_add(run.count, Ordering::Relaxed);
        }
        if self.unflushed >= FLUSH_BYTES {
            self.unflushed = 0;
            let failed = |error| SyncError::disk(file.path(), "flush", &error);
            file.flush().map_err(failed)?;
        }
        Ok(())
    }

    /// All is there: durable first, then the mark, then the maps.
    fn end(&self) -> Result<(), SyncError> {
        self.enter(SyncStage::Settle);
        let Some(session) = &self.session else {
            return Err(wrong("an end without a beginning"));
        };
        for (copy, writer) in session.copies.iter().zip(&session.writers) {
            let file = writer.as_ref().unwrap_or(&copy.file);
            let failed = |error| SyncError::disk(file.path(), "flush", &error);
            file.flush().map_err(failed)?;
        }
        self.shared
            .change_mark(|mark| {
                mark.consistent = true;
                mark.epoch = session.epoch;
            })
            .map_err(|error| SyncError::Disk(error.to_string()))?;
        for copy in &session.copies {
            // A map that can't be cleared has bits too many.
            let _ = copy.track.reset();
        }
        Ok(())
    }
}

//! The live node's side.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

use super::wire::{
    Apply, HashRun, HelloMark, MAX_ASK_BLOCKS, MAX_ASKS, MAX_BATCH_BLOCKS, MAX_INTENT_RUNS,
    MAX_RUNS, Run, ToJoiner, ToLive, VERSION, block_hash, check_runs, decode, encode, is_zero,
    shown, wrong,
};
use super::{SyncError, SyncPiece, SyncProgress, SyncStage, WINDOW_BYTES, WINDOW_MESSAGES};
use crate::blocks::Blocks;
use crate::set::{Copy, Shared, random};
use crate::track::{BLOCK_BYTES, Batch, REGION_BLOCKS};
use crate::worker::locked;

/// Answers of the joiner that wait for the thread: the pieces of its maps, and hashes.
const MAX_ANSWERS: usize = 256;
/// When so little is left the moment for the snapshot has come: it is sent in well under a
/// second.
const DUE_BYTES: u64 = 16 << 20;
/// After so many passes it has come in any case: the guest writes as fast as is sent.
const MAX_PASSES: u32 = 8;
/// How long the thread waits for the snapshot before it looks what was written meanwhile.
const PASS_WAIT: Duration = Duration::from_millis(100);

/// The live node's disks on their way to a node that joins. Dropping it gives it up; the disks go
/// on as if nothing had been.
#[derive(Debug)]
pub struct SyncOut {
    id: u64,
    shared: Arc<Shared>,
    link: Arc<Link>,
    out: Receiver<Vec<u8>>,
    answers: Sender<ToLive>,
    /// Questions the thread has asked and answers that came.
    heard_bytes: u64,
}

/// What the loop and the thread share.
#[derive(Debug, Default)]
struct Link {
    state: Mutex<State>,
    changed: Condvar,
    stage: AtomicU64,
    compared: AtomicU64,
    compare: AtomicU64,
    copied: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    frozen: bool,
    due: bool,
    ended: Option<Result<(), SyncError>>,
    sent: (u64, u64),
    acked: (u64, u64),
}

impl SyncOut {
    pub(crate) fn begin(shared: Arc<Shared>, id: u64, hello: &[u8]) -> Result<Self, SyncError> {
        let ToLive::Hello {
            version,
            mark,
            disk_bytes,
        } = decode(hello)?
        else {
            return Err(wrong("it doesn't begin with a greeting"));
        };
        if version != VERSION {
            return Err(SyncError::Refused(format!(
                "the joining node speaks version {version} of this, we {VERSION}: install the \
                 same version on both"
            )));
        }
        let begin = plan(&shared, mark, &disk_bytes)?;
        let (pieces, out) = unbounded();
        let (answers, heard) = bounded(MAX_ANSWERS);
        let link = Arc::new(Link::default());
        let worker = Worker {
            id,
            shared: Arc::clone(&shared),
            link: Arc::clone(&link),
            pieces,
            heard,
            next_at: None,
        };
        thread::Builder::new()
            .name("disk sync".to_owned())
            .spawn(move || worker.run(begin))
            .map_err(|error| SyncError::Thread(error.to_string()))?;
        Ok(Self {
            id,
            shared,
            link,
            out,
            answers,
            heard_bytes: 0,
        })
    }

    /// Whether the moment for the snapshot has come: so little is left, or it doesn't become
    /// less, that [`SyncOut::snapshot_now`] is to be called when it suits.
    pub fn due(&self) -> bool {
        locked(&self.link.state).due
    }

    /// The joiner gets the disks as they are now: as what the requests have made of them that
    /// have ended. To be called on the thread that submits requests, with the machine's snapshot.
    pub fn snapshot_now(&mut self) {
        for slot in &self.shared.disks {
            if let Some(copy) = slot.copy() {
                copy.track.begin_point(self.id);
                copy.track.freeze(self.id);
            }
        }
        let mut state = locked(&self.link.state);
        state.frozen = true;
        self.link.changed.notify_all();
    }

    /// What it has to say now.
    pub fn next_piece(&mut self) -> SyncPiece {
        match self.out.try_recv() {
            Ok(bytes) => return SyncPiece::Ready(bytes),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        match &locked(&self.link.state).ended {
            None => SyncPiece::Later,
            // It may have said a last word meanwhile.
            Some(_) if !self.out.is_empty() => SyncPiece::Later,
            Some(Ok(())) => SyncPiece::Done,
            Some(Err(error)) => SyncPiece::Failed(error.clone()),
        }
    }

    /// A message from the joining node. What is wrong with it is said by the next piece.
    pub fn heard(&mut self, bytes: &[u8]) {
        self.heard_bytes += bytes.len() as u64;
        let taken = decode(bytes).and_then(|message| match message {
            ToLive::Ack { messages, bytes } => self.acked(messages, bytes),
            message => match self.answers.try_send(message) {
                Ok(()) => Ok(()),
                Err(error) if error.is_disconnected() => Ok(()),
                Err(_) => Err(wrong("answers that nobody asked for")),
            },
        });
        if let Err(error) = taken {
            self.link.end(Err(error));
        }
    }

    fn acked(&self, messages: u64, bytes: u64) -> Result<(), SyncError> {
        let mut state = locked(&self.link.state);
        let (least, most) = (state.acked, state.sent);
        if messages < least.0 || bytes < least.1 || messages > most.0 || bytes > most.1 {
            return Err(wrong("it has more than was sent"));
        }
        state.acked = (messages, bytes);
        self.link.changed.notify_all();
        Ok(())
    }

    /// How far it is.
    pub fn progress(&self) -> SyncProgress {
        let link = &self.link;
        let left = self.shared.disks.iter().filter_map(|slot| {
            let copy = slot.copy()?;
            copy.track.left(self.id)
        });
        SyncProgress {
            stage: SyncStage::ALL[link.stage.load(Ordering::Relaxed) as usize % 5],
            compared_bytes: link.compared.load(Ordering::Relaxed) * BLOCK_BYTES,
            compare_bytes: link.compare.load(Ordering::Relaxed) * BLOCK_BYTES,
            copied_bytes: link.copied.load(Ordering::Relaxed) * BLOCK_BYTES,
            left_bytes: left.sum::<u64>() * BLOCK_BYTES,
            sent_bytes: locked(&link.state).sent.1,
            heard_bytes: self.heard_bytes,
        }
    }
}

impl Drop for SyncOut {
    fn drop(&mut self) {
        self.link.end(Err(SyncError::Stopped));
        for slot in &self.shared.disks {
            if let Some(copy) = slot.copy() {
                copy.track.end_sync(self.id);
            }
        }
    }
}

impl Link {
    fn end(&self, how: Result<(), SyncError>) {
        let mut state = locked(&self.state);
        state.stopped = true;
        state.ended.get_or_insert(how);
        self.changed.notify_all();
    }

    fn enter(&self, stage: SyncStage) {
        self.stage.store(stage as u64, Ordering::Relaxed);
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// What is to be done, from what the joiner has said.
fn plan(
    shared: &Shared,
    theirs: Option<HelloMark>,
    disk_bytes: &[Option<u64>],
) -> Result<ToJoiner, SyncError> {
    let refused = |line: String| Err(SyncError::Refused(line));
    let Some(ours) = shared.mark() else {
        return refused("this node's disks have no mark".to_owned());
    };
    if !ours.consistent {
        return refused("this node's own disks are half a copy".to_owned());
    }
    if let Some(theirs) = theirs.filter(|theirs| theirs.vm != ours.vm) {
        return refused(format!(
            "the joining node's belong to another VM (id {:032x}, ours is {:032x}): remove \
             disks.mark in its folder to have them overwritten",
            theirs.vm, ours.vm
        ));
    }
    if disk_bytes.len() != shared.disks.len() {
        return refused(format!(
            "{} here, {} on the joining node: both need the same VM.toml",
            shared.disks.len(),
            disk_bytes.len()
        ));
    }
    let mut sizes = Vec::new();
    for (slot, theirs) in shared.disks.iter().zip(disk_bytes) {
        let path = slot.spec.path.display();
        let Some(copy) = slot.copy() else {
            return refused(format!("{path}: there is no such file here"));
        };
        let bytes = copy.file.bytes();
        if let Some(theirs) = theirs.filter(|theirs| *theirs != bytes) {
            return refused(format!(
                "{path}: {bytes} bytes here, {theirs} on the joining node: make the smaller one \
                 larger (twinvm disk grow), or remove the joining node's file and disks.mark"
            ));
        }
        sizes.push(bytes);
    }
    let same_epoch = theirs.is_some_and(|theirs| theirs.epoch == ours.epoch && ours.epoch != 0);
    Ok(ToJoiner::Begin {
        version: VERSION,
        vm: ours.vm,
        epoch: random().map_err(|error| SyncError::Disk(error.to_string()))?,
        all: !same_epoch || disk_bytes.contains(&None),
        disk_bytes: sizes,
    })
}

/// The thread that reads and sends.
struct Worker {
    id: u64,
    shared: Arc<Shared>,
    link: Arc<Link>,
    pieces: Sender<Vec<u8>>,
    heard: Receiver<ToLive>,
    /// When the rate allows the next message.
    next_at: Option<Instant>,
}

/// A question on its way.
struct Asked {
    disk: usize,
    runs: Vec<Range<u64>>,
}

impl Worker {
    fn run(mut self, begin: ToJoiner) {
        let shared = Arc::clone(&self.shared);
        let _busy = locked(&shared.busy);
        let how = self.work(begin);
        if let Err(error @ (SyncError::Disk(_) | SyncError::Peer(_))) = &how {
            let line = error.to_string();
            // Past the window: it is the last word.
            let _ = self.pieces.send(encode(&ToJoiner::Sorry { line }));
        }
        for slot in &self.shared.disks {
            if let Some(copy) = slot.copy() {
                copy.track.end_sync(self.id);
            }
        }
        self.link.end(how);
        self.shared.wake();
    }

    fn work(&mut self, begin: ToJoiner) -> Result<(), SyncError> {
        let ToJoiner::Begin { epoch, all, .. } = begin else {
            return Err(SyncError::Stopped);
        };
        let copies: Vec<Arc<Copy>> = self
            .shared
            .disks
            .iter()
            .filter_map(|slot| slot.copy())
            .collect();
        self.send(&begin)?;
        let theirs = self.hear_maps(&copies)?;
        let mut compare = Vec::new();
        for (copy, theirs) in copies.iter().zip(theirs) {
            let track = &copy.track;
            let (fine, mut regions) = track.changed();
            if all {
                track.begin_sync(self.id, Blocks::new(track.blocks()));
                regions.insert(0..u64::MAX);
            } else {
                track.begin_sync(self.id, fine);
                regions.union(&theirs);
            }
            compare.push(regions);
        }
        self.compare(&copies, &compare)?;
        self.copy(&copies)?;
        self.link.enter(SyncStage::Settle);
        self.send(&ToJoiner::End)?;
        match self.hear()? {
            ToLive::Stable => {}
            _ => return Err(wrong("it isn't stable")),
        }
        self.settle(&copies, epoch)
    }

    /// The joiner holds everything up to the snapshot durably; once this node does too, only what
    /// was written since can differ.
    fn settle(&self, copies: &[Arc<Copy>], epoch: u128) -> Result<(), SyncError> {
        for copy in copies {
            let failed = |error| SyncError::disk(copy.file.path(), "flush", &error);
            copy.file.flush().map_err(failed)?;
        }
        let failed = |error: crate::SetError| SyncError::Disk(error.to_string());
        let Some(mut mark) = self.shared.mark() else {
            return Err(SyncError::Stopped);
        };
        // The mark first: with the new epoch the map may name too much, never too little.
        mark.epoch = epoch;
        self.shared.store(mark).map_err(failed)?;
        for copy in copies {
            let _ = copy.track.clear_to(self.id);
        }
        Ok(())
    }

    /// Where the joiner may have written.
    fn hear_maps(&mut self, copies: &[Arc<Copy>]) -> Result<Vec<Blocks>, SyncError> {
        let mut maps: Vec<Blocks> = copies
            .iter()
            .map(|copy| Blocks::new(copy.track.intents.regions()))
            .collect();
        loop {
            match self.hear()? {
                ToLive::Ready => return Ok(maps),
                ToLive::Intents { disk, runs } if runs.len() <= MAX_INTENT_RUNS => {
                    let place = usize::from(disk);
                    let (Some(copy), Some(map)) = (copies.get(place), maps.get_mut(place)) else {
                        return Err(wrong("a disk that there isn't"));
                    };
                    check_runs(&runs, copy.track.intents.regions(), u64::MAX)?;
                    for run in runs {
                        map.insert(run.first..run.first + run.count);
                    }
                }
                _ => return Err(wrong("not its maps")),
            }
        }
    }

    /// Finds the blocks that differ in these regions, apart from those that are sent anyway.
    fn compare(&mut self, copies: &[Arc<Copy>], regions: &[Blocks]) -> Result<(), SyncError> {
        self.link.enter(SyncStage::Compare);
        let total: u64 = regions.iter().map(|map| map.count() * REGION_BLOCKS).sum();
        self.link.compare.store(total, Ordering::Relaxed);
        let mut asked = VecDeque::new();
        for (disk, (copy, map)) in copies.iter().zip(regions).enumerate() {
            for run in map.runs() {
                let end = (run.end * REGION_BLOCKS).min(copy.track.blocks());
                let mut at = run.start * REGION_BLOCKS;
                while at < end {
                    let stop = (at + MAX_ASK_BLOCKS).min(end);
                    let runs = copy.track.not_yet_to_send(self.id, at..stop);
                    at = stop;
                    for runs in runs.chunks(MAX_RUNS) {
                        let runs = runs.to_vec();
                        let wire = runs.iter().map(Run::of).collect();
                        self.send(&ToJoiner::Ask {
                            disk: disk as u8,
                            runs: wire,
                        })?;
                        asked.push_back(Asked { disk, runs });
                        if asked.len() == MAX_ASKS {
                            self.answer(copies, &mut asked)?;
                        }
                    }
                }
            }
        }
        while !asked.is_empty() {
            self.answer(copies, &mut asked)?;
        }
        Ok(())
    }

    /// Takes the answer to the oldest question.
    fn answer(
        &mut self,
        copies: &[Arc<Copy>],
        asked: &mut VecDeque<Asked>,
    ) -> Result<(), SyncError> {
        let Some(Asked { disk, runs }) = asked.pop_front() else {
            return Ok(());
        };
        let copy = &copies[disk];
        let ToLive::Hashes { runs: hashes } = self.hear()? else {
            return Err(wrong("not the hashes it was asked for"));
        };
        let mut hashes = hashes.into_iter();
        let mut current = None;
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                let wanted = run.end - at;
                match current.take().or_else(|| hashes.next()) {
                    None | Some(HashRun::Zeros(0)) => {
                        return Err(wrong("fewer hashes than it was asked for"));
                    }
                    Some(HashRun::Zeros(count)) => {
                        let here = count.min(wanted);
                        self.unlike_zeros(copy, at..at + here)?;
                        at += here;
                        if count > here {
                            current = Some(HashRun::Zeros(count - here));
                        }
                    }
                    Some(HashRun::Hashes(mut list)) => {
                        if list.is_empty() {
                            return Err(wrong("fewer hashes than it was asked for"));
                        }
                        let here = (list.len() as u64).min(wanted);
                        let rest = list.split_off(here as usize);
                        self.unlike(copy, at, &list)?;
                        at += here;
                        if !rest.is_empty() {
                            current = Some(HashRun::Hashes(rest));
                        }
                    }
                }
            }
            let count = run.end - run.start;
            self.link.compared.fetch_add(count, Ordering::Relaxed);
        }
        if current.is_some() || hashes.next().is_some() {
            return Err(wrong("more hashes than it was asked for"));
        }
        Ok(())
    }

    /// The joiner has zeros there: what may have content here is sent.
    fn unlike_zeros(&self, copy: &Copy, run: Range<u64>) -> Result<(), SyncError> {
        let bytes = copy.track.bytes_of(&run);
        let mut at = bytes.start;
        while at < bytes.end {
            let failed = |error| SyncError::disk(copy.file.path(), "read", &error);
            let Some((start, end)) = copy.file.next_data(at).map_err(failed)? else {
                break;
            };
            if start >= bytes.end {
                break;
            }
            let end = end.min(bytes.end);
            let blocks = start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
            copy.track.also_send(self.id, blocks);
            at = end;
        }
        Ok(())
    }

    /// The joiner has blocks with these hashes there.
    fn unlike(
        &self,
        copy: &Copy,
        first: u64,
        hashes: &[super::wire::BlockHash],
    ) -> Result<(), SyncError> {
        let failed = |error| SyncError::disk(copy.file.path(), "read", &error);
        let mut at = first;
        for part in hashes.chunks(MAX_BATCH_BLOCKS as usize) {
            let run = at..at + part.len() as u64;
            at = run.end;
            let data = copy.track.read(&copy.file, &run).map_err(failed)?;
            let blocks = data.chunks(BLOCK_BYTES as usize);
            for (block, (ours, theirs)) in run.zip(blocks.zip(part)) {
                if block_hash(ours) != *theirs {
                    copy.track.also_send(self.id, block..block + 1);
                }
            }
        }
        Ok(())
    }

    /// Sends what is to be sent, again and again while the guest runs on, and after the snapshot
    /// the rest.
    fn copy(&mut self, copies: &[Arc<Copy>]) -> Result<(), SyncError> {
        self.link.enter(SyncStage::Copy);
        let mut passes = 0;
        loop {
            let frozen = locked(&self.link.state).frozen;
            if frozen {
                self.link.enter(SyncStage::Rest);
            }
            for (disk, copy) in copies.iter().enumerate() {
                self.pass(disk as u8, copy)?;
            }
            let mut left = 0;
            for copy in copies {
                // Over: the disks are being closed.
                left += copy.track.left(self.id).ok_or(SyncError::Stopped)?;
            }
            if frozen && left == 0 {
                return Ok(());
            }
            passes += 1;
            let mut state = locked(&self.link.state);
            if !state.due && (left * BLOCK_BYTES <= DUE_BYTES || passes >= MAX_PASSES) {
                state.due = true;
                drop(state);
                self.shared.wake();
                state = locked(&self.link.state);
            }
            if state.due && !state.frozen && !state.stopped {
                state = self.link.wait(state, PASS_WAIT);
            }
            if state.stopped {
                return Err(SyncError::Stopped);
            }
        }
    }

    /// Sends what is to be sent of one disk, once from its beginning to its end.
    fn pass(&mut self, disk: u8, copy: &Copy) -> Result<(), SyncError> {
        let mut cursor = 0;
        loop {
            let before = cursor;
            let failed = |error| SyncError::disk(copy.file.path(), "read", &error);
            let batch = copy
                .track
                .take(self.id, &copy.file, &mut cursor, MAX_BATCH_BLOCKS)
                .map_err(failed)?;
            if batch.runs.is_empty() {
                return Ok(());
            }
            let blocks: u64 = batch.runs.iter().map(|run| run.end - run.start).sum();
            self.link.copied.fetch_add(blocks, Ordering::Relaxed);
            self.send(&ToJoiner::Apply(packed(disk, &batch)))?;
            if cursor < before {
                return Ok(());
            }
        }
    }

    /// Sends a message once the window and the rate allow it.
    fn send(&mut self, message: &ToJoiner) -> Result<(), SyncError> {
        let message = encode(message);
        let bytes = message.len() as u64;
        if let (Some(rate), Some(at)) = (self.shared.options.sync_bytes_s, self.next_at) {
            let now = Instant::now();
            let mut state = locked(&self.link.state);
            let mut rest = at.saturating_duration_since(now);
            while !rest.is_zero() && !state.stopped {
                state = self.link.wait(state, rest);
                rest = at.saturating_duration_since(Instant::now());
            }
            drop(state);
            let from = at.max(now);
            self.next_at = Some(from + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
        } else {
            self.next_at = Some(Instant::now());
        }
        let mut state = locked(&self.link.state);
        loop {
            if state.stopped {
                return Err(SyncError::Stopped);
            }
            let messages = state.sent.0 - state.acked.0;
            let under_way = state.sent.1 - state.acked.1;
            if messages < WINDOW_MESSAGES && under_way + bytes <= WINDOW_BYTES {
                break;
            }
            state = self.link.wait(state, Duration::from_secs(1));
        }
        state.sent.0 += 1;
        state.sent.1 += bytes;
        drop(state);
        let _ = self.pieces.send(message);
        self.shared.wake();
        Ok(())
    }

    /// The joiner's next answer.
    fn hear(&self) -> Result<ToLive, SyncError> {
        loop {
            if locked(&self.link.state).stopped {
                return Err(SyncError::Stopped);
            }
            match self.heard.recv_timeout(PASS_WAIT) {
                Ok(ToLive::Sorry { line }) => return Err(SyncError::GaveUp(shown(&line))),
                Ok(message) => return Ok(message),
                Err(error) if error.is_disconnected() => return Err(SyncError::Stopped),
                Err(_) => {}
            }
        }
    }
}

/// The message with these blocks: without those that are zeros, smaller if that goes.
fn packed(disk: u8, batch: &Batch) -> Apply {
    let mut runs: Vec<(Run, bool)> = Vec::new();
    let mut content = Vec::with_capacity(batch.data.len());
    let mut blocks = batch.data.chunks(BLOCK_BYTES as usize);
    for block in batch.runs.iter().cloned().flatten() {
        let Some(bytes) = blocks.next() else { break };
        let zeros = is_zero(bytes);
        match runs.last_mut() {
            Some((run, same)) if *same == zeros && run.first + run.count == block => run.count += 1,
            _ => runs.push((
                Run {
                    first: block,
                    count: 1,
                },
                zeros,
            )),
        }
        if !zeros {
            content.extend_from_slice(bytes);
        }
    }
    let small = lz4_flex::block::compress(&content);
    let packed = small.len() < content.len();
    Apply {
        disk,
        runs,
        packed,
        data: if packed { small } else { content },
    }
}

impl Run {
    fn of(range: &Range<u64>) -> Self {
        Self {
            first: range.start,
            count: range.end - range.start,
        }
    }
}

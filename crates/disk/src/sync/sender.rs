//! The live node's thread: it compares, reads and sends.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::outgoing::Link;
use super::wire::{
    Apply, BlockHash, HashRun, MAX_ASK_BLOCKS, MAX_ASKS, MAX_BATCH_BLOCKS, MAX_INTENT_RUNS,
    MAX_RUNS, Run, ToJoiner, ToLive, block_hash, check_runs, encode, is_zero, wrong,
};
use super::{SyncError, SyncStage, WINDOW_BYTES, WINDOW_MESSAGES};
use crate::blocks::Blocks;
use crate::set::{Copy, Shared};
use crate::track::{BLOCK_BYTES, Batch, REGION_BLOCKS};
use crate::worker::locked;

/// When so little is left the moment for the snapshot has come: it is sent in well under a
/// second.
const DUE_BYTES: u64 = 16 << 20;
/// After so many passes it has come in any case: the guest writes as fast as is sent.
const MAX_PASSES: u32 = 8;
/// How long the thread waits for the snapshot before it looks what was written meanwhile.
const PASS_WAIT: Duration = Duration::from_millis(100);

/// The thread that reads and sends.
pub(super) struct Worker {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
    pub(super) pieces: Sender<Vec<u8>>,
    pub(super) heard: Receiver<ToLive>,
    /// When the rate allows the next message.
    pub(super) next_at: Option<Instant>,
}

/// A question on its way.
struct Asked {
    disk: usize,
    runs: Vec<Range<u64>>,
}

impl Worker {
    pub(super) fn run(mut self, begin: ToJoiner) {
        let shared = Arc::clone(&self.shared);
        let _busy = locked(&shared.busy);
        let how = catch_unwind(AssertUnwindSafe(|| self.work(begin)))
            .unwrap_or_else(|_| Err(SyncError::Disk("the thread has failed".to_owned())));
        // What is wrong with the peer's messages the loop has found.
        let how = match &locked(&self.link.state).ended {
            Some(Err(error)) => Err(error.clone()),
            _ => how,
        };
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
            let (fine, coarse) = track.begin_sync(self.id);
            let mut blocks = if all {
                Blocks::new(track.blocks())
            } else {
                fine
            };
            if all {
                blocks.insert(0..track.blocks());
            }
            for run in coarse.runs().chain(theirs.runs()) {
                blocks.insert(run.start * REGION_BLOCKS..run.end * REGION_BLOCKS);
            }
            compare.push(blocks);
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
        // The mark first: with the new epoch the map may name too much, never too little.
        self.shared
            .change_mark(|mark| mark.epoch = epoch)
            .map_err(|error| SyncError::Disk(error.to_string()))?;
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

    /// Finds which of these blocks differ, apart from those that are sent anyway since they were
    /// written meanwhile.
    fn compare(&mut self, copies: &[Arc<Copy>], maps: &[Blocks]) -> Result<(), SyncError> {
        self.link.enter(SyncStage::Compare);
        let total: u64 = maps.iter().map(Blocks::count).sum();
        self.link.compare.store(total, Ordering::Relaxed);
        let mut asked = VecDeque::new();
        for (disk, (copy, map)) in copies.iter().zip(maps).enumerate() {
            let mut runs = Vec::new();
            let (mut at, mut room) = (0, MAX_ASK_BLOCKS);
            while let Some(run) = map.next_run(at, room) {
                at = run.end;
                let open = copy.track.not_yet_to_send(self.id, run);
                room -= open.iter().map(|run| run.end - run.start).sum::<u64>();
                runs.extend(open);
                if room == 0 || runs.len() >= MAX_RUNS / 2 {
                    self.ask(copies, disk, std::mem::take(&mut runs), &mut asked)?;
                    room = MAX_ASK_BLOCKS;
                }
            }
            if !runs.is_empty() {
                self.ask(copies, disk, runs, &mut asked)?;
            }
        }
        while !asked.is_empty() {
            self.answer(copies, &mut asked)?;
        }
        Ok(())
    }

    /// Asks for the hashes of some blocks; takes an answer if many are out.
    fn ask(
        &mut self,
        copies: &[Arc<Copy>],
        disk: usize,
        runs: Vec<Range<u64>>,
        asked: &mut VecDeque<Asked>,
    ) -> Result<(), SyncError> {
        self.send(&ToJoiner::Ask {
            disk: disk as u8,
            runs: runs.iter().map(Run::of).collect(),
        })?;
        asked.push_back(Asked { disk, runs });
        if asked.len() == MAX_ASKS {
            self.answer(copies, asked)?;
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
    fn unlike(&self, copy: &Copy, first: u64, hashes: &[BlockHash]) -> Result<(), SyncError> {
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
            while !rest.is_zero() && !state.stopped && !self.shared.closing() {
                state = self.link.wait(state, rest.min(PASS_WAIT));
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
            if state.stopped || self.shared.closing() {
                return Err(SyncError::Stopped);
            }
            let messages = state.sent.0 - state.acked.0;
            let under_way = state.sent.1 - state.acked.1;
            if messages < WINDOW_MESSAGES && under_way + bytes <= WINDOW_BYTES {
                break;
            }
            state = self.link.wait(state, PASS_WAIT);
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
            if locked(&self.link.state).stopped || self.shared.closing() {
                return Err(SyncError::Stopped);
            }
            match self.heard.recv_timeout(PASS_WAIT) {
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

//! What is known about the writes to one disk, and copy-before-write.
//!
//! Every write passes [`Track::begin`] before it touches the file and [`Track::end`] after. In
//! between it is *executing*: its effect may or may not be there.
//!
//! - The layer `since` has the blocks that may differ from the other node's copy. A *point*
//!   begins a second layer; when both copies are known to hold durably what was written before
//!   it, that layer takes the first one's place, and the write-intent map is cleared to it.
//! - A synchronization has the blocks that are still to be sent. While the guest runs on, a block
//!   counts as changed when a write into it has *ended*: whoever reads a block takes it out of
//!   the set first, so what it may have missed is in the set again. Once frozen, the set only
//!   shrinks, and a write first copies aside what it would destroy.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::blocks::Blocks;
use crate::file::DiskFile;
use crate::intents::{Intents, REGION_BYTES};
use crate::worker::locked;

/// Bytes of a block: the unit in which copies are compared and sent.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Blocks of a region of the write-intent map.
pub(crate) const REGION_BLOCKS: u64 = REGION_BYTES / BLOCK_BYTES;
/// Bytes that are copied aside at most for one disk. Then a write waits until some have been
/// sent.
const MAX_ASIDE_BYTES: u64 = 32 << 20;
const MAX_ASIDE: usize = (MAX_ASIDE_BYTES / BLOCK_BYTES) as usize;

/// What is known of one disk's writes.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) intents: Intents,
    bytes: u64,
    state: Mutex<State>,
    /// Room aside, or no synchronization any more.
    room: Condvar,
}

#[derive(Debug)]
struct State {
    executing: Vec<Range<u64>>,
    since: Layer,
    next: Option<(u64, Layer)>,
    sync: Option<Sending>,
    closed: bool,
}

/// Blocks that were written since some moment.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Block by block.
    pub(crate) fine: Blocks,
    /// Region by region: what an earlier process has written.
    pub(crate) coarse: Blocks,
}

/// What is still to be sent.
#[derive(Debug)]
struct Sending {
    id: u64,
    left: Blocks,
    /// Taken out of `left` and being read.
    reading: Vec<Range<u64>>,
    frozen: bool,
    /// Copied aside since the freeze.
    aside: BTreeMap<u64, Vec<u8>>,
    /// Something that was to be copied aside couldn't be read.
    broken: Option<String>,
}

/// Blocks as they are sent: runs, and the bytes of all of them in a row.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) runs: Vec<Range<u64>>,
    pub(crate) data: Vec<u8>,
}

impl Track {
    /// Nothing is known but the map in the file.
    pub(crate) fn new(bytes: u64, intents: Intents) -> Self {
        let mut coarse = Blocks::new(intents.regions());
        for run in intents.runs() {
            coarse.insert(run);
        }
        let since = Layer {
            fine: Blocks::new(bytes.div_ceil(BLOCK_BYTES)),
            coarse,
        };
        Self {
            intents,
            bytes,
            state: Mutex::new(State {
                executing: Vec::new(),
                since,
                next: None,
                sync: None,
                closed: false,
            }),
            room: Condvar::new(),
        }
    }

    /// How many blocks the disk has; the last may be a short one.
    pub(crate) fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_BYTES)
    }

    /// Bytes of some blocks in the file.
    pub(crate) fn bytes_of(&self, run: &Range<u64>) -> Range<u64> {
        run.start * BLOCK_BYTES..(run.end * BLOCK_BYTES).min(self.bytes)
    }

    fn layer(&self) -> Layer {
        Layer {
            fine: Blocks::new(self.blocks()),
            coarse: Blocks::new(self.intents.regions()),
        }
    }

    /// A write is about to change these bytes. Waits for the write-intent map, and for room to
    /// copy aside what a frozen synchronization has still to send.
    pub(crate) fn begin(&self, file: &DiskFile, bytes: Range<u64>) -> io::Result<Range<u64>> {
        let blocks = blocks_of(&bytes);
        {
            let mut state = locked(&self.state);
            state.executing.push(blocks.clone());
            state.since.fine.insert(blocks.clone());
            if let Some((_, next)) = &mut state.next {
                next.fine.insert(blocks.clone());
            }
        }
        if let Err(error) = self.intents.set(regions(&blocks)) {
            self.end(&blocks);
            return Err(error);
        }
        self.copy_aside(file, &blocks);
        Ok(blocks)
    }

    /// The write has ended, however it did.
    pub(crate) fn end(&self, blocks: &Range<u64>) {
        let mut state = locked(&self.state);
        if let Some(at) = state.executing.iter().position(|other| other == blocks) {
            state.executing.swap_remove(at);
        }
        match &mut state.sync {
            Some(sync) if !sync.frozen => sync.left.insert(blocks.clone()),
            _ => {}
        }
    }

    fn copy_aside(&self, file: &DiskFile, blocks: &Range<u64>) {
        let mut state = locked(&self.state);
        loop {
            let frozen = |sync: &&mut Sending| sync.frozen && sync.broken.is_none();
            let Some(sync) = state.sync.as_mut().filter(frozen) else {
                return;
            };
            let run = sync.left.next_run(blocks.start, u64::MAX);
            let Some(run) = run.filter(|run| run.start < blocks.end) else {
                return;
            };
            if sync.aside.len() >= MAX_ASIDE {
                state = wait(&self.room, state);
                continue;
            }
            let block = run.start;
            match self.read(file, &(block..block + 1)) {
                Ok(data) => {
                    sync.left.remove(block..block + 1);
                    sync.aside.insert(block, data);
                }
                // The guest's write is none the worse for it.
                Err(error) => sync.broken = Some(error.to_string()),
            }
        }
    }

    /// The bytes of some blocks.
    pub(crate) fn read(&self, file: &DiskFile, run: &Range<u64>) -> io::Result<Vec<u8>> {
        let bytes = self.bytes_of(run);
        let mut data = vec![0; (bytes.end - bytes.start) as usize];
        file.read_at(&mut data, bytes.start)?;
        Ok(data)
    }

    /// Begins the layer of a point; one that was begun before is forgotten. Writes that are
    /// executing, and those of the requests `in_flight`, belong to both sides of it.
    pub(crate) fn begin_point(&self, id: u64, in_flight: &[Range<u64>]) {
        let mut next = self.layer();
        for bytes in in_flight {
            next.fine.insert(blocks_of(bytes));
        }
        let mut state = locked(&self.state);
        for blocks in &state.executing {
            next.fine.insert(blocks.clone());
        }
        state.next = Some((id, next));
    }

    /// Both copies hold durably all that was written before the point. False if there is no such
    /// point any more.
    pub(crate) fn clear_to(&self, id: u64) -> io::Result<bool> {
        let mut state = locked(&self.state);
        match state.next.take() {
            Some((point, layer)) if point == id => state.since = layer,
            other => {
                state.next = other;
                return Ok(false);
            }
        }
        // Under the lock: a write that begins now finds its bit gone, and sets it again.
        let mut keep = Blocks::new(self.intents.regions());
        for run in state.since.fine.runs().chain(state.executing.clone()) {
            keep.insert(regions(&run));
        }
        self.intents.retain(|region| keep.contains(region))?;
        Ok(true)
    }

    /// Begins a synchronization with nothing to send as yet; one before it ends. Gives what may
    /// differ from a copy of the same epoch: blocks, and regions of which no more is known.
    pub(crate) fn begin_sync(&self, id: u64) -> (Blocks, Blocks) {
        let mut state = locked(&self.state);
        if !state.closed {
            state.sync = Some(Sending {
                id,
                left: Blocks::new(self.blocks()),
                reading: Vec::new(),
                frozen: false,
                aside: BTreeMap::new(),
                broken: None,
            });
        }
        self.room.notify_all();
        // What is written from now on is sent.
        (state.since.fine.clone(), state.since.coarse.clone())
    }

    /// There are no more synchronizations.
    pub(crate) fn close(&self) {
        let mut state = locked(&self.state);
        state.closed = true;
        state.sync = None;
        self.room.notify_all();
    }

    /// On a node that has taken the other one's copy, durably: nothing differs.
    pub(crate) fn reset(&self) -> io::Result<()> {
        let since = self.layer();
        let mut state = locked(&self.state);
        state.since = since;
        state.next = None;
        self.intents.retain(|_| false)
    }

    /// Ends it; writes that wait go on.
    pub(crate) fn end_sync(&self, id: u64) {
        let mut state = locked(&self.state);
        if state.sync.as_ref().is_some_and(|sync| sync.id == id) {
            state.sync = None;
            self.room.notify_all();
        }
    }

    /// From now on the blocks are sent as they are now.
    pub(crate) fn freeze(&self, id: u64) {
        let mut state = locked(&self.state);
        if let Some(sync) = state.sync.as_mut().filter(|sync| sync.id == id) {
            sync.frozen = true;
            for run in std::mem::take(&mut sync.reading) {
                sync.left.insert(run);
            }
        }
    }

    /// More blocks to send; while not frozen.
    pub(crate) fn also_send(&self, id: u64, run: Range<u64>) {
        let mut state = locked(&self.state);
        if let Some(sync) = state.sync.as_mut().filter(|sync| sync.id == id) {
            sync.left.insert(run);
        }
    }

    /// Blocks of `run` that aren't to be sent anyway.
    pub(crate) fn not_yet_to_send(&self, id: u64, run: Range<u64>) -> Vec<Range<u64>> {
        let state = locked(&self.state);
        let Some(sync) = state.sync.as_ref().filter(|sync| sync.id == id) else {
            return Vec::new();
        };
        let mut open = Vec::new();
        let mut at = run.start;
        while at < run.end {
            let taken = sync.left.next_run(at, run.end - at);
            let taken = taken.filter(|taken| taken.start < run.end);
            let end = taken.as_ref().map_or(run.end, |taken| taken.start);
            if at < end {
                open.push(at..end);
            }
            at = taken.map_or(run.end, |taken| taken.end);
        }
        open
    }

    /// How many blocks are still to be sent; `None` if the synchronization is over.
    pub(crate) fn left(&self, id: u64) -> Option<u64> {
        let state = locked(&self.state);
        let sync = state.sync.as_ref().filter(|sync| sync.id == id)?;
        Some(sync.left.count() + sync.aside.len() as u64)
    }

    /// Bytes copied aside.
    pub(crate) fn bytes_aside(&self) -> u64 {
        let state = locked(&self.state);
        let aside = state.sync.as_ref().map_or(0, |sync| sync.aside.len());
        aside as u64 * BLOCK_BYTES
    }

    /// Takes some blocks to send, at most `most`, from `cursor` on; empty if there are none.
    /// `cursor` moves on, and begins again at the end.
    pub(crate) fn take(
        &self,
        id: u64,
        file: &DiskFile,
        cursor: &mut u64,
        most: u64,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut state = locked(&self.state);
        let Some(sync) = state.sync.as_mut().filter(|sync| sync.id == id) else {
            return Ok(batch);
        };
        if let Some(why) = &sync.broken {
            return Err(io::Error::other(why.clone()));
        }
        // What was copied aside goes first: it makes room.
        while (batch.data.len() as u64) < most * BLOCK_BYTES
            && let Some((block, data)) = sync.aside.pop_first()
        {
            batch.add(block..block + 1);
            batch.data.extend_from_slice(&data);
        }
        if !batch.runs.is_empty() {
            self.room.notify_all();
            return Ok(batch);
        }
        let mut taken = 0;
        while taken < most {
            let run = match sync.left.next_run(*cursor, most - taken) {
                None if *cursor == 0 => break,
                None => {
                    *cursor = 0;
                    if taken > 0 {
                        break;
                    }
                    continue;
                }
                Some(run) => run,
            };
            taken += run.end - run.start;
            *cursor = run.end;
            sync.left.remove(run.clone());
            batch.add(run);
        }
        if sync.frozen {
            // No write may come between: what is read is what was frozen.
            for run in &batch.runs {
                batch.data.extend_from_slice(&self.read(file, run)?);
            }
            self.room.notify_all();
            return Ok(batch);
        }
        sync.reading.clone_from(&batch.runs);
        drop(state);
        for run in &batch.runs {
            batch.data.extend_from_slice(&self.read(file, run)?);
        }
        let mut state = locked(&self.state);
        if let Some(sync) = state.sync.as_mut().filter(|sync| sync.id == id) {
            sync.reading.clear();
        }
        Ok(batch)
    }
}

impl Batch {
    fn add(&mut self, run: Range<u64>) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
    }
}

/// The blocks of some bytes.
fn blocks_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES)
}

/// The regions of some blocks.
pub(crate) fn regions(blocks: &Range<u64>) -> Range<u64> {
    blocks.start / REGION_BLOCKS..blocks.end.div_ceil(REGION_BLOCKS)
}

fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(PoisonError::into_inner)
}

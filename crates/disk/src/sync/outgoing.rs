//! The live node's side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

use super::sender::Worker;
use super::wire::{
    HelloMark, MAX_DISK_BYTES, MAX_INTENT_RUNS, MAX_RUNS, ToJoiner, ToLive, VERSION, decode,
    encode, shown, wrong,
};
use super::{SyncError, SyncPiece, SyncProgress, SyncStage};
use crate::set::{Shared, random};
use crate::track::BLOCK_BYTES;
use crate::worker::locked;

/// Answers of the joiner that wait for the thread: the pieces of its maps, and hashes.
const MAX_ANSWERS: usize = 256;

/// The live node's disks on their way to a node that joins. Dropping it gives it up; the disks go
/// on as if nothing had been.
#[derive(Debug)]
pub struct SyncOut {
    id: u64,
    shared: Arc<Shared>,
    link: Arc<Link>,
    out: Receiver<Vec<u8>>,
    answers: Sender<ToLive>,
    heard_bytes: u64,
}

/// What the loop and the thread share.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) stage: AtomicU64,
    pub(super) compared: AtomicU64,
    pub(super) compare: AtomicU64,
    pub(super) copied: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) stopped: bool,
    pub(super) frozen: bool,
    pub(super) due: bool,
    pub(super) ended: Option<Result<(), SyncError>>,
    /// Messages and their bytes.
    pub(super) sent: (u64, u64),
    pub(super) acked: (u64, u64),
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
        shared.spawn(move || worker.run(begin))?;
        Ok(Self {
            id,
            shared,
            link,
            out,
            answers,
            heard_bytes: 0,
        })
    }

    /// What tells the joining node that [`DiskSet::begin_sync`](crate::DiskSet::begin_sync) came
    /// to this: a message for its [`SyncIn`](crate::SyncIn).
    pub fn refusal(error: &SyncError) -> Vec<u8> {
        encode(&ToJoiner::Sorry {
            line: error.to_string(),
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
                copy.track.begin_point(self.id, &[]);
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
            // At once: the thread may be waiting for an ack that never comes.
            ToLive::Sorry { line } => Err(SyncError::GaveUp(shown(&line))),
            // Decoded they take more room than they had as bytes.
            ToLive::Intents { runs, .. } if runs.len() > MAX_INTENT_RUNS => {
                Err(wrong("not its maps"))
            }
            ToLive::Hashes { runs } if runs.len() > MAX_RUNS => {
                Err(wrong("more hashes than it was asked for"))
            }
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
    pub(super) fn end(&self, how: Result<(), SyncError>) {
        let mut state = locked(&self.state);
        state.stopped = true;
        state.ended.get_or_insert(how);
        self.changed.notify_all();
    }

    pub(super) fn enter(&self, stage: SyncStage) {
        self.stage.store(stage as u64, Ordering::Relaxed);
    }

    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        most: Duration,
    ) -> MutexGuard<'a, State> {
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
        if bytes > MAX_DISK_BYTES {
            return refused(format!("{path}: more than {MAX_DISK_BYTES} bytes"));
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

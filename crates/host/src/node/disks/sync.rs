//! Copies of disks between the nodes: the crate's ends as the replica wants them.
//!
//! The live node asks with a word of no bytes; the joining one answers with its hello.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use twinvm_replica::{DisksIn, DisksOut, SyncProgress, SyncWords};

use crate::disk::{self, DiskSet, SyncError, SyncIn, SyncOut, SyncPiece, SyncStage};

/// The disks, for what the replica asks of its surroundings.
pub(in crate::node) struct DisksForSync {
    set: Option<Arc<DiskSet>>,
    under_way: Arc<AtomicUsize>,
}

impl DisksForSync {
    pub(super) fn new(set: Option<Arc<DiskSet>>, under_way: Arc<AtomicUsize>) -> Self {
        Self { set, under_way }
    }

    fn set(&self) -> Result<Arc<DiskSet>, String> {
        self.set.clone().ok_or("this node has no disks".to_owned())
    }

    pub(in crate::node) fn out(&self) -> Result<Box<dyn DisksOut>, String> {
        Ok(Box::new(Out {
            set: self.set()?,
            asked: false,
            sync: None,
            refused: None,
        }))
    }

    pub(in crate::node) fn inward(&self) -> Result<Box<dyn DisksIn>, String> {
        Ok(Box::new(In {
            set: self.set()?,
            under_way: Arc::clone(&self.under_way),
            sync: None,
        }))
    }
}

fn words(piece: SyncPiece) -> SyncWords {
    match piece {
        SyncPiece::Ready(bytes) => SyncWords::Ready(bytes),
        SyncPiece::Later => SyncWords::Later,
        SyncPiece::Done => SyncWords::Done,
        SyncPiece::Failed(error @ SyncError::Disk(_)) => SyncWords::Broken(error.to_string()),
        SyncPiece::Failed(error) => SyncWords::Failed(error.to_string()),
    }
}

fn progress(of: disk::SyncProgress) -> SyncProgress {
    SyncProgress {
        stage: match of.stage {
            SyncStage::Begin => "begins",
            SyncStage::Compare => "compared",
            SyncStage::Copy => "copied",
            SyncStage::Rest => "the rest copied",
            SyncStage::Settle => "made durable",
        },
        done_bytes: of.compared_bytes.saturating_add(of.copied_bytes),
        total_bytes: of
            .compare_bytes
            .saturating_add(of.copied_bytes)
            .saturating_add(of.left_bytes),
    }
}

/// The live node's end.
struct Out {
    set: Arc<DiskSet>,
    asked: bool,
    sync: Option<SyncOut>,
    /// Why it can't be done, and that in the joiner's words until they are sent.
    refused: Option<(String, Option<Vec<u8>>)>,
}

impl DisksOut for Out {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.sync {
            Some(sync) => sync.heard(bytes),
            None if self.refused.is_some() => {}
            None => match self.set.begin_sync(bytes) {
                Ok(sync) => self.sync = Some(sync),
                Err(error) => {
                    let words = SyncOut::refusal(&error);
                    self.refused = Some((error.to_string(), Some(words)));
                }
            },
        }
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if !std::mem::replace(&mut self.asked, true) {
            return SyncWords::Ready(Vec::new());
        }
        // The joiner hears why before the session ends.
        if let Some((why, words)) = &mut self.refused {
            return match words.take() {
                Some(words) => SyncWords::Ready(words),
                None => SyncWords::Failed(why.clone()),
            };
        }
        match &mut self.sync {
            Some(sync) => words(sync.next_piece()),
            None => SyncWords::Later,
        }
    }

    fn is_level(&mut self) -> bool {
        self.sync.as_ref().is_some_and(SyncOut::due)
    }

    fn freeze(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.snapshot_now();
        }
    }

    fn progress(&self) -> SyncProgress {
        progress(
            self.sync
                .as_ref()
                .map(SyncOut::progress)
                .unwrap_or_default(),
        )
    }
}

/// The joining node's end.
struct In {
    set: Arc<DiskSet>,
    /// Requests of a machine that is gone; nothing is copied while they are at the disks.
    under_way: Arc<AtomicUsize>,
    sync: Option<SyncIn>,
}

impl DisksIn for In {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        // The live node's question has no bytes, and nothing comes before the answer.
        match &mut self.sync {
            Some(sync) => sync.heard(bytes),
            None if bytes.is_empty() => {}
            None => return Err("it sends disks before they were asked for".to_owned()),
        }
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if self.sync.is_none() {
            if self.under_way.load(Ordering::Relaxed) > 0 {
                return SyncWords::Later;
            }
            match self.set.begin_join() {
                Ok(sync) => self.sync = Some(sync),
                Err(error) => return SyncWords::Failed(error.to_string()),
            }
        }
        match &mut self.sync {
            Some(sync) => words(sync.next_piece()),
            None => SyncWords::Later,
        }
    }

    fn overwrites(&self) -> bool {
        self.sync.as_ref().is_some_and(SyncIn::overwrites)
    }

    fn progress(&self) -> SyncProgress {
        let done = progress(self.sync.as_ref().map(SyncIn::progress).unwrap_or_default());
        SyncProgress {
            // Only the live node knows.
            total_bytes: 0,
            ..done
        }
    }
}

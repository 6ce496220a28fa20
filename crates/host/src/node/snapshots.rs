//! Snapshots of this node's machine, read by threads of their own: for a joining node,
//! and for people.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use serde_json::json;
use twinvm_disk::background;
use twinvm_machine::SnapshotStream;
use twinvm_replica::{Env, Piece, SnapshotPieces, SnapshotSource};

use super::NodeLoop;
use crate::ctl_socket::{CtlAnswer, CtlReply};
use crate::snapshot_file;

/// Pieces of 128 KiB that wait to be sent: what the loop hands on between two looks.
const PIECES: usize = 8;

/// A snapshot for a joining node, read by a thread.
struct ThreadPieces(Receiver<(Vec<u8>, bool)>);

impl SnapshotPieces for ThreadPieces {
    fn next_piece(&mut self) -> Piece {
        match self.0.try_recv() {
            Ok((bytes, last)) => Piece::Ready { bytes, last },
            Err(TryRecvError::Empty) => Piece::Later,
            Err(TryRecvError::Disconnected) => {
                Piece::Failed("this host starts no thread that reads the snapshot".to_owned())
            }
        }
    }
}

/// Starts reading. The thread ends with the last piece, or when nobody wants them.
pub(super) fn read_pieces(mut source: SnapshotSource) -> Box<dyn SnapshotPieces> {
    let (pieces, ready) = bounded(PIECES);
    // Without a thread `pieces` is dropped, which says that it failed.
    let _ = thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || {
            loop {
                let (bytes, last) = source.read_piece();
                if pieces.send((bytes, last)).is_err() || last {
                    return;
                }
            }
        });
    Box::new(ThreadPieces(ready))
}

/// How long a node that ends waits for the thread to take its unfinished file away.
const LEAVE: Duration = Duration::from_secs(2);
/// How often it looks.
const LEAVE_TURN: Duration = Duration::from_millis(5);
/// A person hears of progress this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A snapshot that is being written to a file for a person.
#[derive(Default)]
pub(super) struct FileSnapshot {
    thread: Option<JoinHandle<()>>,
    given_up: Arc<AtomicBool>,
}

impl FileSnapshot {
    fn is_busy(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }
}

impl Drop for FileSnapshot {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        let until = Instant::now() + LEAVE;
        while self.is_busy() && Instant::now() < until {
            thread::sleep(LEAVE_TURN);
        }
    }
}

impl NodeLoop {
    /// Begins a snapshot into a file; a thread writes it and answers.
    pub(super) fn on_snapshot(&mut self, to: Option<PathBuf>, force: bool, reply: CtlReply) {
        if let Err((reply, why)) = self.begin_snapshot(to, force, reply) {
            reply.send(Err(why));
        }
    }

    fn begin_snapshot(
        &mut self,
        to: Option<PathBuf>,
        force: bool,
        reply: CtlReply,
    ) -> Result<(), (CtlReply, String)> {
        if self.file_snapshot.is_busy() {
            let why = "a snapshot is being taken: wait until it is complete";
            return Err((reply, why.to_owned()));
        }
        if let Some(Err(error)) = to.as_ref().map(|path| snapshot_file::check(path, force)) {
            return Err((reply, error.to_string()));
        }
        let begun_ns = self.env.now().mono_ns;
        let (icount, stream) = match self.replica.snapshot() {
            Ok(begun) => begun,
            Err(why) => return Err((reply, why)),
        };
        let pause_us = self.env.now().mono_ns.saturating_sub(begun_ns) / 1000;
        let path = to.unwrap_or_else(|| self.store.folder().join(format!("snapshot-{icount}")));
        self.journal.line(&format!(
            "a snapshot of step {icount} is being written to {}; the guest waited {pause_us} µs",
            path.display()
        ));
        let mut work = Work {
            reply,
            path,
            force,
            icount,
            pause_us,
            given_up: Arc::default(),
        };
        self.file_snapshot = FileSnapshot {
            thread: None,
            given_up: Arc::clone(&work.given_up),
        };
        // If there is no thread the reply is dropped, which says so.
        self.file_snapshot.thread = background::spawn("snapshot file", move || {
            let answer = work.write(stream);
            work.reply.send(answer);
        })
        .ok();
        Ok(())
    }
}

/// What the thread needs.
struct Work {
    reply: CtlReply,
    path: PathBuf,
    force: bool,
    icount: u64,
    pause_us: u64,
    given_up: Arc<AtomicBool>,
}

impl Work {
    fn write(&mut self, stream: SnapshotStream) -> CtlAnswer {
        let mut told = Instant::now();
        let (reply, given_up) = (&self.reply, &self.given_up);
        let bytes = snapshot_file::write(stream, &self.path, self.force, &mut |bytes| {
            if given_up.load(Ordering::Relaxed) {
                return false;
            }
            if told.elapsed() < PROGRESS_EVERY {
                return true;
            }
            told = Instant::now();
            // A person who no longer waits doesn't want it.
            reply.progress(json!({ "bytes": bytes }))
        })
        .map_err(|error| error.to_string())?;
        Ok(json!({
            "path": self.path,
            "icount": self.icount,
            "bytes": bytes,
            "pause_us": self.pause_us,
        }))
    }
}

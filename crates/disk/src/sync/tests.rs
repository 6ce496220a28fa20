use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::Receiver;
use tempfile::TempDir;
use twinvm_machine::{DiskOp, DiskRequest};

use super::*;
use crate::medium::Medium;
use crate::{DiskEvent, DiskOptions, DiskSet, DiskSpec};

mod bounds;
mod crash;
mod marks;
mod ways;

const DEVICE: u8 = 3;
const MIB: u64 = 1 << 20;
const WAIT: Duration = Duration::from_secs(60);

/// A node's folder and the one disk in it, which needn't be open.
struct Place {
    _dir: TempDir,
    folder: PathBuf,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        // What is durable the tests decide themselves: they needn't wait for a medium.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let folder = dir.path().join("node");
        fs::create_dir(&folder).unwrap();
        Self {
            path: dir.path().join("disk"),
            folder,
            _dir: dir,
        }
    }

    fn with_file(bytes: u64) -> Self {
        let place = Self::new();
        let file = fs::File::create(&place.path).unwrap();
        file.set_len(bytes).unwrap();
        place
    }

    fn open(&self) -> Node {
        self.open_on(Medium::default(), DiskOptions::default())
            .unwrap()
    }

    fn open_on(&self, medium: Medium, options: DiskOptions) -> Result<Node, crate::SetError> {
        let spec = DiskSpec {
            device: DEVICE,
            path: self.path.clone(),
            read_only: false,
        };
        let set = DiskSet::open_on(&self.folder, vec![spec], options, medium)?;
        let events = set.events().clone();
        Ok(Node {
            set,
            events,
            next_id: 0,
            path: self.path.clone(),
            snapshot_taken: false,
        })
    }
}

/// A node's disk at work.
struct Node {
    set: DiskSet,
    events: Receiver<DiskEvent>,
    next_id: u64,
    path: PathBuf,
    /// Of the synchronization under way.
    snapshot_taken: bool,
}

impl Node {
    fn submit(&mut self, op: DiskOp, range: Range<u64>, data: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.set.submit(DiskRequest {
            device: DEVICE,
            id,
            op,
            offset: range.start,
            bytes: range.end - range.start,
            data: data.into(),
        });
        id
    }

    /// Waits for the results of so many requests: their statuses.
    fn results(&self, count: usize) -> Vec<u8> {
        let mut statuses = Vec::new();
        while statuses.len() < count {
            match self.events.recv_timeout(WAIT).unwrap() {
                DiskEvent::Done(done) => statuses.push(done.status),
                DiskEvent::Flushed { .. } | DiskEvent::Sync => {}
            }
        }
        statuses
    }

    /// A write that is done.
    fn write(&mut self, offset: u64, data: &[u8]) -> u8 {
        let range = offset..offset + data.len() as u64;
        self.submit(DiskOp::Write { durable: false }, range, data);
        self.results(1)[0]
    }

    fn flush(&self) {
        assert!(self.try_flush());
    }

    fn try_flush(&self) -> bool {
        self.set.flush(77);
        loop {
            if let DiskEvent::Flushed { ticket, result } = self.events.recv_timeout(WAIT).unwrap() {
                assert_eq!(ticket, 77);
                return result.is_ok();
            }
        }
    }

    fn contents(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

type Meanwhile<'a> = &'a mut dyn FnMut(&mut Node, u64);

/// What is done with a synchronization while its messages travel.
#[derive(Default)]
struct Script<'a> {
    /// Called before each message to the joiner, with the live node and how many went before.
    meanwhile: Option<Meanwhile<'a>>,
    /// Ends the connection after so many messages to the joiner.
    cut_after: Option<u64>,
}

/// How it went.
#[derive(Debug)]
struct Outcome {
    live: SyncPiece,
    joiner: SyncPiece,
    /// The live node's disk at the moment of the snapshot.
    snapshot: Vec<u8>,
    progress: SyncProgress,
}

/// The next piece that says something.
fn wait_for(node: &Node, mut next: impl FnMut() -> SyncPiece) -> SyncPiece {
    loop {
        match next() {
            SyncPiece::Later => drop(node.events.recv_timeout(WAIT).unwrap()),
            piece => return piece,
        }
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// The joining node's greeting, and both ends.
fn begin(live: &Node, joiner: &Node) -> (SyncOut, SyncIn) {
    let mut into = joiner.set.begin_join().unwrap();
    let SyncPiece::Ready(hello) = wait_for(joiner, || into.next_piece()) else {
        panic!("no greeting");
    };
    (live.set.begin_sync(&hello).unwrap(), into)
}

/// Has `joiner` take the disk of `live`.
fn synchronize(live: &mut Node, joiner: &mut Node, mut script: Script<'_>) -> Outcome {
    let mut into = joiner.set.begin_join().unwrap();
    let SyncPiece::Ready(hello) = wait_for(joiner, || into.next_piece()) else {
        panic!("no greeting");
    };
    let mut outcome = Outcome {
        live: SyncPiece::Later,
        joiner: SyncPiece::Later,
        snapshot: Vec::new(),
        progress: SyncProgress::default(),
    };
    let mut out = match live.set.begin_sync(&hello) {
        Ok(out) => out,
        Err(error) => {
            into.heard(&SyncOut::refusal(&error));
            outcome.live = SyncPiece::Failed(error);
            outcome.joiner = wait_for(joiner, || into.next_piece());
            return outcome;
        }
    };
    live.snapshot_taken = false;
    let mut sent = 0;
    let mut snapshot = None;
    loop {
        let mut quiet = true;
        match out.next_piece() {
            SyncPiece::Ready(bytes) => {
                assert!(bytes.len() <= MAX_MESSAGE_BYTES);
                if script.cut_after == Some(sent) {
                    break;
                }
                if let Some(meanwhile) = &mut script.meanwhile {
                    meanwhile(live, sent);
                }
                sent += 1;
                into.heard(&bytes);
                quiet = false;
            }
            SyncPiece::Later => {}
            end => outcome.live = end,
        }
        match into.next_piece() {
            SyncPiece::Ready(bytes) => {
                out.heard(&bytes);
                quiet = false;
            }
            SyncPiece::Later => {}
            end => outcome.joiner = end,
        }
        if out.due() && snapshot.is_none() {
            out.snapshot_now();
            snapshot = Some(live.contents());
            live.snapshot_taken = true;
        }
        // Whoever fails says so.
        if outcome.live != SyncPiece::Later && outcome.joiner != SyncPiece::Later {
            break;
        }
        if quiet {
            crossbeam_channel::select! {
                recv(live.events) -> _ => {}
                recv(joiner.events) -> _ => {}
                default(Duration::from_millis(20)) => {}
            }
        }
    }
    outcome.progress = out.progress();
    outcome.snapshot = snapshot.unwrap_or_default();
    outcome
}

impl Outcome {
    /// Both sides are done and `joiner` holds what the live one's disk was.
    #[track_caller]
    fn assert_copied(&self, joiner: &Node) {
        assert_eq!(
            (&self.live, &self.joiner),
            (&SyncPiece::Done, &SyncPiece::Done)
        );
        assert_same(&joiner.contents(), &self.snapshot);
        assert!(joiner.set.mark().unwrap().consistent);
    }
}

#[track_caller]
fn assert_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    let differs = found
        .chunks(4096)
        .zip(expected.chunks(4096))
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(n, _)| n);
    assert_eq!(
        differs.collect::<Vec<_>>(),
        Vec::<usize>::new(),
        "blocks differ"
    );
}

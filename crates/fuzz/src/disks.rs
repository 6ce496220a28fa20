//! Disks on their way to a joining node, with somebody between the nodes who changes, repeats,
//! swallows and makes up messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use twinvm_disk::{
    DiskOptions, DiskSet, DiskSpec, MAX_MESSAGE_BYTES, SyncError, SyncOut, SyncPiece,
};

use crate::input::Input;

/// Small: five blocks, the last of them short.
const DISK_BYTES: usize = 4 * 4096 + 512;
/// Messages of one side that are carried at most.
const MAX_TURNS: u32 = 200;
/// How often nothing may be said before it counts as the end.
const MAX_QUIET: u32 = 4;
const PAUSE: Duration = Duration::from_millis(4);

/// A folder that goes when this goes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("twinvm-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("a")).expect("a folder");
        fs::create_dir_all(path.join("b")).expect("a folder");
        Self(path)
    }

    fn open(&self, node: &str) -> DiskSet {
        let spec = DiskSpec {
            device: 0,
            path: self.disk(node),
            read_only: false,
        };
        DiskSet::open(&self.0.join(node), vec![spec], DiskOptions::default()).expect("a disk")
    }

    fn disk(&self, node: &str) -> PathBuf {
        self.0.join(format!("{node}.img"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What becomes of a message on its way.
fn meddle(input: &mut Input<'_>, bytes: Vec<u8>, altered: &mut bool) -> Vec<Vec<u8>> {
    if input.is_empty() {
        return vec![bytes];
    }
    let choice = input.byte();
    *altered |= choice % 8 < 5;
    match choice % 8 {
        0 => vec![input.mutate_some(bytes)],
        1 => vec![bytes.clone(), bytes],
        2 => Vec::new(),
        3 => {
            let len = usize::from(input.byte());
            vec![input.bytes(len).to_vec(), bytes]
        }
        4 => vec![input.mutate_some(bytes.clone()), bytes],
        _ => vec![bytes],
    }
}

/// Two nodes, and what the input does to their messages. Whatever it is, the live node's disk
/// stays as it was, both sides go on or say in a line why not, and the joining one claims to be
/// whole only if it was told so.
pub fn disk_sync(data: &[u8]) {
    let mut input = Input::new(data);
    let folder = Folder::new();
    let shape = input.byte();
    let mut content = vec![0; DISK_BYTES];
    for (n, byte) in content.iter_mut().enumerate() {
        *byte = if n % 8192 < 4096 { shape } else { n as u8 };
    }
    fs::write(folder.disk("a"), &content).expect("a file");
    if shape & 1 != 0 {
        fs::write(folder.disk("b"), vec![shape; DISK_BYTES]).expect("a file");
    }
    let (live, joiner) = (folder.open("a"), folder.open("b"));
    live.found().expect("a mark");
    let before = fs::read(folder.disk("b")).ok();

    let mut altered = false;
    let mut into = joiner.begin_join().expect("a thread");
    let mut out: Option<SyncOut> = None;
    let (mut quiet, mut frozen) = (0, false);
    for _ in 0..MAX_TURNS {
        let (mut said, mut ended) = (false, 0);
        match into.next_piece() {
            SyncPiece::Ready(bytes) => {
                said = true;
                assert!(bytes.len() <= MAX_MESSAGE_BYTES);
                for bytes in meddle(&mut input, bytes, &mut altered) {
                    match &mut out {
                        Some(out) => out.heard(&bytes),
                        None => match live.begin_sync(&bytes) {
                            Ok(begun) => out = Some(begun),
                            Err(error) => {
                                one_line(&error);
                                into.heard(&SyncOut::refusal(&error));
                            }
                        },
                    }
                }
            }
            SyncPiece::Later => {}
            SyncPiece::Done => ended += 1,
            SyncPiece::Failed(error) => {
                one_line(&error);
                ended += 1;
            }
        }
        if let Some(out) = &mut out {
            match out.next_piece() {
                SyncPiece::Ready(bytes) => {
                    said = true;
                    assert!(bytes.len() <= MAX_MESSAGE_BYTES);
                    for bytes in meddle(&mut input, bytes, &mut altered) {
                        into.heard(&bytes);
                    }
                }
                SyncPiece::Later => {}
                SyncPiece::Done => ended += 1,
                SyncPiece::Failed(error) => {
                    one_line(&error);
                    ended += 1;
                }
            }
            if out.due() && !frozen {
                frozen = true;
                out.snapshot_now();
            }
        }
        if ended == 2 {
            break;
        }
        quiet = if said { 0 } else { quiet + 1 };
        // Unaltered, it comes to its end, however slow the host.
        if quiet > MAX_QUIET && altered {
            break;
        }
        if !said {
            let _ = joiner.events().recv_timeout(PAUSE);
        }
    }
    let done = into.is_done();
    drop((into, out));
    assert_eq!(fs::read(folder.disk("a")).expect("a file"), content);
    live.check_whole().expect("the live node is unharmed");
    drop(live);
    // Waits for its thread.
    drop(joiner);
    let after = fs::read(folder.disk("b")).ok();
    let joiner = folder.open("b");
    if !altered {
        assert!(done && after.as_ref() == Some(&content));
    }
    match joiner.mark() {
        Some(mark) if mark.consistent => assert!(done || mark.epoch != 0),
        Some(_) => assert!(joiner.check_whole().is_err()),
        // Nothing was begun.
        None => assert_eq!(after, before),
    }
}

fn one_line(error: &SyncError) {
    assert_eq!(error.to_string().lines().count(), 1);
}

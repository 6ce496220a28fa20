//! A program of its own: a child between fork and exec holds the locks of its parent for a
//! moment, which would disturb other tests.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use twinvm_disk::{DiskError, DiskFile};

#[test]
fn the_lock_of_another_process_holds_until_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(4096).unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "exec 9<>\"$0\"; flock -n 9 || exit 1; echo held; exec sleep 60",
        ])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut held).unwrap();
    let refused = DiskFile::open(&path, false);
    let reader = DiskFile::open(&path, true);
    child.kill().unwrap();
    child.wait().unwrap();
    // The flock program took the lock and has ended: the kernel knows no process by name.
    for refused in [refused, reader] {
        match refused {
            Err(DiskError::Locked { by, .. }) => assert!(by.contains("process"), "{by}"),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
    DiskFile::open(&path, false).unwrap();
}

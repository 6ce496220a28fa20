//! A program of its own: a child between fork and exec holds the locks of its parent for a
//! moment, which would disturb other tests.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use twinvm_host::store::{NodeStore, StoreError};

#[test]
fn the_lock_of_another_process_holds_until_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    drop(NodeStore::open(dir.path(), "a").unwrap());
    let lock = dir.path().join("a/lock");
    // One process, so that killing it leaves no child with the descriptor.
    let script = format!(
        "exec 9<>'{}'; flock -n 9 || exit 1; echo held; exec sleep 60",
        lock.display()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "held\n");
    let refused = NodeStore::open(dir.path(), "a");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(refused, Err(StoreError::InUse { .. })));
    NodeStore::open(dir.path(), "a").unwrap();
}

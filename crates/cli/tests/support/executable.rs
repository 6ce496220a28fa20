//! Programs of a test's own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a file that can be executed. Another process writes it: a child that this one starts at
/// that moment for another test would hold it open for writing, and such a file can't be executed
/// (`ETXTBSY`).
pub(crate) fn executable(path: &Path, content: &[u8]) {
    let mut child = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(content).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{path:?}");
}

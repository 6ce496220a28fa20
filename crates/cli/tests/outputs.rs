//! Standard output and standard error that take nothing: a full file system, a reader that is gone.
//! None of it ends a guest or a switch, and what is lost is said if it was the answer.

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use support::{Folder, PROGRAM, guest, twinvm};

/// Takes no byte (full(4)).
fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_guest_outlives_them() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::disk_writer());
    let disk = folder.file("disk", [0; 4096]);
    // No file can be written to: the disk fails, which is told, to nobody.
    let script = "ulimit -f 0; exec \"$0\" \"$@\"";
    for stderr in [full, closed] {
        let status = Command::new("sh")
            .args(["-c", script, PROGRAM, "run", "--kernel", &kernel])
            .args(["--disk", &disk, "--max-instructions", "300000000"])
            .stdin(Stdio::null())
            .stdout(full())
            .stderr(stderr())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(124));
    }
}

#[test]
fn a_switch_outlives_them() {
    let folder = Folder::new();
    let socket = folder.text("lan.sock");
    let mut lan = Command::new(PROGRAM)
        .args(["lan", "--listen", &socket])
        .args(["--forward", "127.0.0.1:0=10.0.2.15:80"])
        .stdout(Stdio::piped())
        .stderr(full())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(lan.stdout.take().unwrap()).lines();
    let bound = lines
        .find_map(|line| Some(line.unwrap().strip_prefix("forward ")?.to_owned()))
        .unwrap();
    let address = bound.split('=').next().unwrap();
    // Each connection to a guest that isn't there is a line of its log.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(b"x");
    }
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    TcpStream::connect(address).unwrap();
    assert!(lan.try_wait().unwrap().is_none());
    lan.kill().unwrap();
    lan.wait().unwrap();
}

#[test]
fn an_answer_that_is_lost_is_a_failure_unless_nobody_wants_it() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let dir = folder.text("rec");
    assert_eq!(
        twinvm(&["run", "--kernel", &kernel, "--record", &dir]).code,
        Some(0)
    );
    let replay = |stdout: Stdio| {
        let done = Command::new(PROGRAM)
            .args(["replay", &dir, "--json"])
            .stdout(stdout)
            .output()
            .unwrap();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    assert_eq!(replay(closed()), (Some(0), String::new()));
    assert_eq!(
        replay(full()),
        (
            Some(125),
            "twinvm replay: the answer can't be written: No space left on device (os error 28)\n"
                .to_owned()
        )
    );
}

#[test]
fn what_is_no_text_is_refused_in_one_line() {
    let done = Command::new(PROGRAM)
        .arg(OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

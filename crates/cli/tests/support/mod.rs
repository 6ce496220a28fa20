//! What the tests of the program share: small guests, files for them, and the program itself.

#![allow(dead_code)] // Each test uses some of it.

pub(crate) mod executable;
#[path = "../../../replica/tests/support/guest.rs"]
pub(crate) mod guest;
pub(crate) mod redis;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_twinvm");
/// Everything here takes seconds at most, on a very busy host a minute.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// A line may come after much that the program has to do before.
const LINE_LIMIT: Duration = Duration::from_secs(180);
/// Bytes of a program's messages that a failed test prints.
const MESSAGES_SHOWN: usize = 4000;

/// A folder of its own for each test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.text(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The names of all there is.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// What a finished program has left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program to its end.
pub(crate) fn twinvm(args: &[&str]) -> Done {
    twinvm_with(args, "")
}

/// The same with something on standard input.
pub(crate) fn twinvm_with(args: &[&str], input: impl Into<Vec<u8>>) -> Done {
    let output = assert_cmd::Command::new(PROGRAM)
        .args(args)
        .timeout(LIMIT)
        .write_stdin(input)
        .output()
        .unwrap();
    Done {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asserts that the program refuses with exactly this line, exit code 2 and nothing on standard
/// output.
#[track_caller]
pub(crate) fn refuses(args: &[&str], line: &str) {
    let done = twinvm(args);
    assert_eq!(done.err, format!("{line}\n"), "{args:?}");
    assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{args:?}");
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A program that is killed if the test fails before it has ended; its messages are shown then.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
    messages: File,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(Command::new(PROGRAM).args(args))
    }

    /// The same, however the program is started.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let messages = tempfile::tempfile().unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(messages.try_clone().unwrap())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            out,
            messages,
        }
    }

    /// Reads standard output up to a line that contains `text`; that line.
    #[track_caller]
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        let until = Instant::now() + LINE_LIMIT;
        let mut said = String::new();
        let mut line = Vec::new();
        loop {
            if self.out.buffer().is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                let left = Timespec::try_from(left).unwrap();
                let mut out = [PollFd::new(self.out.get_ref(), PollFlags::IN)];
                let ready = match poll(&mut out, Some(&left)) {
                    Err(Errno::INTR) => continue,
                    ready => ready.unwrap(),
                };
                assert!(ready > 0, "it doesn't say {text:?}; it said: {said}");
            }
            let bytes = self.out.fill_buf().unwrap();
            assert!(
                !bytes.is_empty(),
                "it ended without saying {text:?}; it said: {said}"
            );
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |end| end + 1);
            line.extend_from_slice(&bytes[..taken]);
            self.out.consume(taken);
            if end.is_some() {
                let line = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                if line.contains(text) {
                    return line.trim_end().to_owned();
                }
                said.push_str(&line);
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end; the exit code, or `None` if a signal killed it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it doesn't end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where a server listens that is to come back at the same address: on an address of the loopback
/// that nobody else uses, so that meanwhile nobody is given its port.
pub(crate) const LISTEN: &str = "127.0.0.2:0";

/// A server that says where it listens; killed when it is dropped.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut running = Running::start(args);
        let line = running.line_with("");
        let address = line.strip_prefix("listening on ");
        let address = address.unwrap_or_else(|| panic!("it says {line:?}"));
        Self {
            address: address.to_owned(),
            running,
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.running.child.kill().unwrap();
        self.running.child.wait().unwrap();
    }
}

/// The arguments of a run of the test image whose shell the test types into, through the virtio
/// console, with a disk and recorded.
pub(crate) fn shell_with_disk(folder: &Folder, disk: &str) -> Vec<String> {
    let image = redis::image();
    let file = |name: &str| image.join(name).to_str().unwrap().to_owned();
    [
        "run",
        "--kernel",
        &file("kernel"),
        "--initrd",
        &file("initrd.cpio"),
        "--cmdline",
        "console=ttyS0 console=hvc0 panic=-1 twinvm.shell",
        "--console",
        "virtio",
        "--memory",
        "128M",
        "--disk",
        disk,
        "--record",
        &folder.text("rec"),
        "--report",
        &folder.text("report.json"),
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut said = vec![0; MESSAGES_SHOWN];
            let count = self.messages.read_at(&mut said, 0).unwrap_or(0);
            let said = String::from_utf8_lossy(&said[..count]);
            eprintln!("---- messages of {} ----\n{said}", self.child.id());
        }
    }
}

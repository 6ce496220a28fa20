//! What a node puts on the wire, seen from its host: frames that come out of its TAP interface.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::hosts::{Host, TAP};

/// Header of a capture file, and of each packet in it (libpcap, pcap-savefile(5)).
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const LIMIT: Duration = Duration::from_secs(20);

/// A capture under way.
pub(crate) struct Capture {
    child: Child,
    file: PathBuf,
}

/// A frame and when it came, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) at_us: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Capture {
    /// Begins; everything that comes after this is captured.
    pub(crate) fn start(host: &Host, file: &Path) -> Self {
        let _ = fs::remove_file(file);
        let child = host
            .command("tcpdump")
            .args([
                "-i",
                TAP,
                "-Q",
                "in",
                "-U",
                "--immediate-mode",
                "-n",
                "-Z",
                "root",
            ])
            .args(["-s", "0", "--time-stamp-precision=micro", "-w"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tcpdump");
        let until = Instant::now() + LIMIT;
        // It writes the header when it listens.
        while fs::metadata(file).map_or(0, |file| file.len()) < FILE_HEADER as u64 {
            assert!(Instant::now() < until, "tcpdump doesn't begin");
            thread::sleep(Duration::from_millis(5));
        }
        Self {
            child,
            file: file.to_owned(),
        }
    }

    /// Ends it; all frames.
    pub(crate) fn end(mut self) -> Vec<Frame> {
        self.kill();
        self.frames()
    }

    /// All frames that its file has by now.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let bytes = fs::read(&self.file).expect("the capture's file");
        let number = |at: usize| {
            let four = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
        };
        assert_eq!(number(0), Some(0xa1b2_c3d4), "no capture file");
        let (mut frames, mut at) = (Vec::new(), FILE_HEADER);
        // The last one may be cut off.
        while let (Some(s), Some(us), Some(length)) = (number(at), number(at + 4), number(at + 8)) {
            at += PACKET_HEADER;
            let Some(frame) = bytes.get(at..at + length) else {
                break;
            };
            frames.push(Frame {
                at_us: s as u64 * 1_000_000 + us as u64,
                bytes: frame.to_vec(),
            });
            at += length;
        }
        frames
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.kill();
    }
}

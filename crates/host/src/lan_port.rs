//! A node's port on the user-mode switch: frames over a Unix stream socket, in the framing
//! of QEMU's stream netdev (a big-endian `u32` length, then that many bytes of Ethernet
//! frame).
//!
//! The frames on the socket are plain: what the guest left to its card is done here
//! ([`crate::offload`]), and what comes from the switch gets a header that asks for nothing.
//!
//! A network may lose frames, so nothing here waits: a frame that finds no switch, or a full
//! queue in either direction, is dropped and counted. [`LanPort::send`] writes to the socket
//! itself when nothing waits before it: then the frame is the kernel's before anything the
//! caller does next, and will arrive even if this process is killed. What the socket doesn't
//! take at once is sent by the port's writer thread.
//!
//! When the switch goes away (it was restarted, say) the port connects again by itself, with a
//! growing pause between attempts.

use std::collections::VecDeque;
use std::io::{self, BufReader, IoSlice, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use twinvm_machine::{MAX_FRAME_BYTES, MIN_FRAME_BYTES, NET_HEADER_BYTES};

use crate::ctl_socket::MAX_PATH_BYTES;
use crate::offload::plain_frames;
use crate::port::{Counters, PortCounts, PortEvent};

/// Bytes of frames that wait for the switch: some dozen TCP windows.
pub const MAX_QUEUE_BYTES: usize = 4 << 20;

/// Read buffer: at least one whole frame.
const READ_BYTES: usize = 128 << 10;
/// An emptied queue that grew beyond this gives its memory back.
const KEEP_BYTES: usize = 256 << 10;
/// Pause before the first attempt to connect again: a switch that restarts takes about that.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts.
const LAST_PAUSE: Duration = Duration::from_millis(1000);
/// How often a writer that the switch keeps waiting looks whether the port has ended.
const WRITE_TURN_NS: i64 = 100_000_000;

/// The switch can't be reached at the start.
#[derive(Debug, thiserror::Error)]
pub enum LanPortError {
    /// Longer than the kernel takes.
    #[error("{}: a Unix socket's path has at most {MAX_PATH_BYTES} bytes, this one has {bytes}: choose a shorter one for the switch", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Nothing listens there.
    #[error("{}: no switch listens there ({source}): start `twinvm lan --listen {} ...` first", path.display(), path.display())]
    NoSwitch {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another user's switch.
    #[error("{}: this node's user may not connect ({source}): run `twinvm lan` as the same user, or let the node's user write to the socket", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The threads can't be started.
    #[error("{}: can't start the port's threads: {source}", path.display())]
    Start {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LanPortError {
    fn unreachable(path: &Path, source: io::Error) -> LanPortError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => LanPortError::Denied { path, source },
            _ => LanPortError::NoSwitch { path, source },
        }
    }
}

/// A connection to the switch. Dropping it ends it; frames that wait are lost.
#[derive(Debug)]
pub struct LanPort {
    shared: Arc<Shared>,
    /// Dropped with the port: ends a pause.
    _alive: Sender<()>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    out: Mutex<Out>,
    /// Told when frames begin to wait, and when the port ends.
    waiting: Condvar,
    counters: Counters,
    ended: AtomicBool,
}

/// The way to the switch.
#[derive(Debug, Default)]
struct Out {
    stream: Option<Arc<UnixStream>>,
    /// What the socket did not take yet. May begin inside a frame.
    backlog: VecDeque<u8>,
    /// Frames in it.
    backlog_frames: u64,
}

impl LanPort {
    /// Connects to the switch's socket. The first connection is made here, later ones by
    /// the port's own thread.
    ///
    /// `events` should be bounded: frames that find it full are dropped.
    pub fn connect(path: &Path, events: Sender<PortEvent>) -> Result<LanPort, LanPortError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_PATH_BYTES {
            return Err(LanPortError::PathTooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        let (stream, reading) =
            open(path).map_err(|source| LanPortError::unreachable(path, source))?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            out: Mutex::new(Out {
                stream: Some(stream),
                ..Out::default()
            }),
            waiting: Condvar::new(),
            counters: Counters::default(),
            ended: AtomicBool::new(false),
        });
        let (alive, ended) = bounded(0);
        let port = LanPort {
            shared: Arc::clone(&shared),
            _alive: alive,
        };
        let failed = |source| LanPortError::Start {
            path: path.to_owned(),
            source,
        };
        let writing = Arc::clone(&shared);
        thread::Builder::new()
            .name("lan out".to_owned())
            .spawn(move || write_backlog(&writing))
            .map_err(failed)?;
        thread::Builder::new()
            .name("lan in".to_owned())
            .spawn(move || run(&shared, reading, &events, &ended))
            .map_err(failed)?;
        Ok(port)
    }

    /// Sends a packet to the switch, as plain frames, and returns at once; false if it is dropped,
    /// because there is no switch, the queue is full, or the packet is not what its header says.
    /// The next hop is the switch's port.
    pub fn send(&self, packet: &[u8]) -> bool {
        let mut stream = Vec::new();
        let mut frames = 0;
        let finished = plain_frames(packet, |frame| {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
            frames += 1;
        });
        let mut out = self.shared.lock();
        let was_empty = out.backlog.is_empty();
        let accepted = finished.is_ok() && out.send(&stream, frames);
        if was_empty && !out.backlog.is_empty() {
            self.shared.waiting.notify_one();
        }
        drop(out);
        if accepted {
            self.shared.counters.sent(packet);
        } else {
            self.shared.counters.lost(1);
        }
        accepted
    }

    /// Bytes of frames that wait in this process for the switch to read.
    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().backlog.len()
    }

    /// Whether the switch is there, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().stream.is_some()
    }

    /// What went through it so far, as far as is known.
    pub fn counts(&self) -> PortCounts {
        self.shared.counters.counts()
    }
}

impl Drop for LanPort {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.disconnect();
        self.shared.waiting.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disconnect(&self) {
        let mut out = self.lock();
        if let Some(stream) = out.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let lost = out.forget_backlog();
        self.counters.lost(lost);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A connected stream for the writer, and one for the reader.
fn open(path: &Path) -> io::Result<(Arc<UnixStream>, UnixStream)> {
    let stream = UnixStream::connect(path)?;
    let reading = stream.try_clone()?;
    Ok((Arc::new(stream), reading))
}

/// The reader thread: reads while there is a switch, and looks for one while there is none.
fn run(shared: &Shared, mut reading: UnixStream, events: &Sender<PortEvent>, ended: &Receiver<()>) {
    loop {
        let why = match read_frames(shared, reading, events) {
            Some(end) => end.to_string(),
            None => return,
        };
        shared.disconnect();
        if shared.has_ended() || events.send(PortEvent::Lost { why }).is_err() {
            return;
        }
        let Some(found) = reconnect(shared, ended) else {
            return;
        };
        reading = found;
        if events.send(PortEvent::Reconnected).is_err() {
            return;
        }
    }
}

/// Tries until the switch is there; `None` if the port has ended.
fn reconnect(shared: &Shared, ended: &Receiver<()>) -> Option<UnixStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        // Nothing is ever sent on it: it only ends.
        let _ = ended.recv_timeout(pause);
        if shared.has_ended() {
            return None;
        }
        if let Ok((stream, reading)) = open(&shared.path) {
            shared.lock().stream = Some(stream);
            if shared.has_ended() {
                shared.disconnect();
            }
            return Some(reading);
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum ReadEnd {
    #[error("the switch has gone")]
    Closed,
    #[error(
        "the switch announced a frame of {0} bytes, allowed are {MIN_FRAME_BYTES} to {MAX_FRAME_BYTES}"
    )]
    Length(u32),
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadEnd {
    fn from(error: io::Error) -> ReadEnd {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ReadEnd::Closed,
            _ => ReadEnd::Io(error),
        }
    }
}

/// Reads until the stream's end; `None` if nobody takes the frames any more.
fn read_frames(shared: &Shared, stream: UnixStream, events: &Sender<PortEvent>) -> Option<ReadEnd> {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    loop {
        let frame = match read_frame(&mut stream) {
            Ok(frame) => frame,
            Err(end) => return Some(end),
        };
        shared.counters.received(&frame);
        match events.try_send(PortEvent::Frame(frame)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => shared.counters.refused(),
            Err(TrySendError::Disconnected(_)) => return None,
        }
    }
}

/// All packets of a stream, up to its end or the first length that no frame has.
pub(crate) fn packets_in(mut stream: &[u8]) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| read_frame(&mut stream).ok()).collect()
}

/// Reads a frame; gives it behind an empty header.
fn read_frame(stream: &mut impl Read) -> Result<Vec<u8>, ReadEnd> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let announced = u32::from_be_bytes(head);
    let length = announced as usize;
    // What follows can't be told from a frame any more: connect again.
    if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&length) {
        return Err(ReadEnd::Length(announced));
    }
    let mut packet = vec![0; NET_HEADER_BYTES + length];
    stream.read_exact(&mut packet[NET_HEADER_BYTES..])?;
    Ok(packet)
}

impl Out {
    /// Writes the frames, each with its length before it, or queues what of them the socket
    /// doesn't take; false if they are dropped.
    fn send(&mut self, frames: &[u8], count: u64) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        let mut written = 0;
        if self.backlog.is_empty() {
            match write_now(stream, &[IoSlice::new(frames)]) {
                Ok(bytes) => written = bytes,
                Err(Errno::AGAIN) => {}
                Err(_) => return false, // The reader finds the end of the stream.
            }
        }
        if written == frames.len() {
            return true;
        }
        // The rest of what has begun is always kept.
        if written == 0 && self.backlog.len() + frames.len() > MAX_QUEUE_BYTES {
            return false;
        }
        self.backlog.extend(&frames[written..]);
        self.backlog_frames += count;
        true
    }

    /// Writes what the socket takes of the backlog.
    fn write_backlog(&mut self) -> rustix::io::Result<()> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        while !self.backlog.is_empty() {
            let (front, back) = self.backlog.as_slices();
            match write_now(stream, &[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.backlog_frames = 0;
        self.backlog.shrink_to(KEEP_BYTES);
        Ok(())
    }

    /// Drops what waits, and tells how many frames that were at most.
    fn forget_backlog(&mut self) -> u64 {
        self.backlog.clear();
        self.backlog.shrink_to(KEEP_BYTES);
        std::mem::take(&mut self.backlog_frames)
    }
}

/// Writes without waiting.
fn write_now(stream: &UnixStream, bytes: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(stream, bytes, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The writer thread: sends what waits whenever the socket takes it, until the port ends.
fn write_backlog(shared: &Shared) {
    let turn = Timespec {
        tv_sec: 0,
        tv_nsec: WRITE_TURN_NS,
    };
    loop {
        let mut out = shared.lock();
        while out.backlog.is_empty() && !shared.has_ended() {
            out = shared
                .waiting
                .wait(out)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if shared.has_ended() {
            return;
        }
        let stream = out.stream.clone();
        drop(out);
        if let Some(stream) = stream {
            let mut ready = [PollFd::new(&stream, PollFlags::OUT)];
            let _ = poll(&mut ready, Some(&turn));
        }
        let mut out = shared.lock();
        if out.write_backlog().is_err() || out.stream.is_none() {
            // Part of a frame may have gone: only a new stream is of use. The reader finds
            // the end of this one.
            let lost = out.forget_backlog();
            shared.counters.lost(lost);
            if let Some(stream) = &out.stream {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! A node's port on the user-mode switch: frames over a Unix stream socket, in the framing
//! of QEMU's stream netdev (a big-endian `u32` length, then that many bytes of Ethernet
//! frame).
//!
//! A network may lose frames, so nothing here waits: a frame that finds no switch, or a full
//! queue in either direction, is dropped and counted. When the switch goes away (it was
//! restarted, say) the port connects again by itself, with a growing pause between attempts.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

/// Shortest frame: an Ethernet header.
pub const MIN_FRAME_BYTES: usize = 14;
/// Longest frame: 64 KiB of payload as segmentation offload makes it and room for headers
/// (QEMU's `NET_BUFSIZE`).
pub const MAX_FRAME_BYTES: usize = 4096 + 65536;
/// Bytes of frames that wait for the switch: some dozen TCP windows.
pub const MAX_QUEUE_BYTES: usize = 4 << 20;

/// What a frame counts for in the queue beside its own bytes.
const FRAME_COST_BYTES: usize = 64;
/// Frames are put together up to this size before they are written.
const COALESCE_BYTES: usize = 64 << 10;
/// Read buffer: at least one whole frame.
const READ_BYTES: usize = 128 << 10;
/// Pause before the first attempt to connect again: a switch that restarts takes about that.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts.
const LAST_PAUSE: Duration = Duration::from_millis(1000);
/// How often a writer that the switch keeps waiting looks whether the port has ended.
const WRITE_TURN: Duration = Duration::from_millis(100);

/// The switch can't be reached at the start.
#[derive(Debug, thiserror::Error)]
pub enum LanPortError {
    /// Nothing listens there.
    #[error("{}: no switch listens there ({source}): start `twinvm lan --listen {} ...` first", path.display(), path.display())]
    NoSwitch {
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

/// What happens on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanPortEvent {
    /// A frame for the guest, or for nobody here. The next hop is the log, as a received
    /// frame.
    Frame(Vec<u8>),
    /// The switch has gone; the port tries to connect again. Told once.
    Lost {
        /// Why, for the journal.
        why: String,
    },
    /// The switch is there again. It knows no addresses: a live node announces its guest's.
    Reconnected,
}

/// A connection to the switch. Dropping it ends it; frames that wait are lost.
#[derive(Debug)]
pub struct LanPort {
    shared: Arc<Shared>,
    queue: Sender<Vec<u8>>,
    /// Dropped with the port: ends a pause.
    _alive: Sender<()>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    stream: Mutex<Option<Arc<UnixStream>>>,
    queued: AtomicUsize,
    dropped_out: AtomicU64,
    dropped_in: AtomicU64,
    ended: AtomicBool,
}

impl LanPort {
    /// Connects to the switch's socket. The first connection is made here, later ones by
    /// the port's own thread.
    ///
    /// `events` should be bounded: frames that find it full are dropped.
    pub fn connect(path: &Path, events: Sender<LanPortEvent>) -> Result<LanPort, LanPortError> {
        let (stream, reading) = open(path).map_err(|source| LanPortError::NoSwitch {
            path: path.to_owned(),
            source,
        })?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            stream: Mutex::new(Some(stream)),
            queued: AtomicUsize::new(0),
            dropped_out: AtomicU64::new(0),
            dropped_in: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        // Bounded in bytes, by `queued`.
        let (queue, frames) = unbounded();
        let (alive, ended) = bounded(0);
        let port = LanPort {
            shared: Arc::clone(&shared),
            queue,
            _alive: alive,
        };
        let failed = |source| LanPortError::Start {
            path: path.to_owned(),
            source,
        };
        let writing = Arc::clone(&shared);
        thread::Builder::new()
            .name("lan out".to_owned())
            .spawn(move || write_frames(&writing, &frames))
            .map_err(failed)?;
        thread::Builder::new()
            .name("lan in".to_owned())
            .spawn(move || run(&shared, reading, &events, &ended))
            .map_err(failed)?;
        Ok(port)
    }

    /// Queues a frame for the switch and returns at once; false if it is dropped, because
    /// there is no switch, the queue is full, or the frame is too short or too long.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        let accepted = self.try_send(frame);
        if !accepted {
            self.shared.dropped_out.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    fn try_send(&self, frame: Vec<u8>) -> bool {
        let fits = (MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame.len());
        if !fits || !self.is_connected() {
            return false;
        }
        let cost = frame.len() + FRAME_COST_BYTES;
        // Added first, so that senders on several threads keep the bound too.
        let before = self.shared.queued.fetch_add(cost, Ordering::Relaxed);
        if before + cost > MAX_QUEUE_BYTES || self.queue.send(frame).is_err() {
            self.shared.queued.fetch_sub(cost, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Whether the switch is there, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().is_some()
    }

    /// Frames of the guest that never reached the switch.
    pub fn dropped_out(&self) -> u64 {
        self.shared.dropped_out.load(Ordering::Relaxed)
    }

    /// Frames of the switch that found the event channel full.
    pub fn dropped_in(&self) -> u64 {
        self.shared.dropped_in.load(Ordering::Relaxed)
    }
}

impl Drop for LanPort {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.disconnect();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disconnect(&self) {
        if let Some(stream) = self.lock().take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A connected stream for the writer, and one for the reader.
fn open(path: &Path) -> io::Result<(Arc<UnixStream>, UnixStream)> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(WRITE_TURN))?;
    let reading = stream.try_clone()?;
    Ok((Arc::new(stream), reading))
}

/// The reader thread: reads while there is a switch, and looks for one while there is none.
fn run(
    shared: &Shared,
    mut reading: UnixStream,
    events: &Sender<LanPortEvent>,
    ended: &Receiver<()>,
) {
    loop {
        let why = match read_frames(shared, reading, events) {
            Some(end) => end.to_string(),
            None => return,
        };
        shared.disconnect();
        if shared.has_ended() || events.send(LanPortEvent::Lost { why }).is_err() {
            return;
        }
        let Some(found) = reconnect(shared, ended) else {
            return;
        };
        reading = found;
        if events.send(LanPortEvent::Reconnected).is_err() {
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
            *shared.lock() = Some(stream);
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
fn read_frames(
    shared: &Shared,
    stream: UnixStream,
    events: &Sender<LanPortEvent>,
) -> Option<ReadEnd> {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    loop {
        let frame = match read_frame(&mut stream) {
            Ok(frame) => frame,
            Err(end) => return Some(end),
        };
        match events.try_send(LanPortEvent::Frame(frame)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                shared.dropped_in.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => return None,
        }
    }
}

fn read_frame(stream: &mut impl Read) -> Result<Vec<u8>, ReadEnd> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let announced = u32::from_be_bytes(head);
    let length = announced as usize;
    // What follows can't be told from a frame any more: connect again.
    if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&length) {
        return Err(ReadEnd::Length(announced));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// The writer thread: ends when the port is dropped.
fn write_frames(shared: &Shared, frames: &Receiver<Vec<u8>>) {
    let mut bytes = Vec::new();
    while let Ok(first) = frames.recv() {
        bytes.clear();
        let (mut count, mut cost) = (0, 0);
        let mut put = |frame: Vec<u8>, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&frame);
            count += 1;
            cost += frame.len() + FRAME_COST_BYTES;
        };
        put(first, &mut bytes);
        while bytes.len() < COALESCE_BYTES {
            let Ok(next) = frames.try_recv() else { break };
            put(next, &mut bytes);
        }
        let stream = shared.lock().clone();
        let written = stream.is_some_and(|stream| match write_all(shared, &stream, &bytes) {
            Ok(()) => true,
            Err(_) => {
                // It may have got half a frame: only a new stream is of use. The reader
                // sees its end, but first what the switch sent before.
                let _ = stream.shutdown(Shutdown::Write);
                false
            }
        });
        shared.queued.fetch_sub(cost, Ordering::Relaxed);
        if !written {
            shared.dropped_out.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn write_all(shared: &Shared, mut stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            // The write timeout: the switch doesn't read just now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if shared.has_ended() {
                    return Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

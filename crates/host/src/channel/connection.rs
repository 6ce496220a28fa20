//! One connection: its queue, its reader thread and its writer thread.
//!
//! A small frame that finds nothing before it is written by who sends it, as far as the socket takes
//! it at once: the writer thread would have to be woken first, and a guest's answer waits for that
//! frame. All else is the writer's.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use twinvm_protocol::codec::{DecodeError, body_len, decode_body, encode_frame};
use twinvm_protocol::{ConnId, Message};

use super::beside::Beside;
use super::wire::{Reading, Wire, Writing};
use super::{ChannelEvent, LINGER, MAX_QUEUE_BYTES, SendError, Shared, Slot};

/// What a frame counts for in the queue beside its payload. More than the heads and the
/// small frames take, so that the bound holds for many small frames too.
const FRAME_COST_BYTES: usize = 256;
/// Frames are put together up to this size before they are written.
const COALESCE_BYTES: usize = 64 << 10;
/// Read buffer: some dozen small frames, and the head of a large one.
const READ_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this gives its memory back.
const KEEP_BYTES: usize = 1 << 20;
/// The end of a connection whose hub has no user any more.
const NOBODY: &str = "nobody takes its frames";
/// A frame that costs more is the writer's from the beginning: encrypting it takes time. No more
/// than a record of TLS.
const AT_ONCE_BYTES: usize = 16 << 10;
/// How often a writer that a peer keeps waiting looks whether it should stop.
const WRITE_TURN: Duration = Duration::from_millis(50);

/// The part of a connection that the hub holds.
#[derive(Debug)]
pub(crate) struct Connection {
    /// To end it; its bytes are the threads' business.
    stream: TcpStream,
    /// Taken by [`Connection::close`]: the writer ends when the queue is empty. Held by who sends.
    queue: Mutex<Option<Sender<Work>>>,
    /// What the frames cost that are not written to their end yet.
    queued: AtomicUsize,
    /// Held by who writes.
    out: Mutex<Out>,
    /// Nothing more is to be handed over.
    closing: AtomicBool,
    /// Set once; the writer gives up then.
    cut: AtomicBool,
    /// Why this side ended it, if it did.
    reason: Mutex<Option<&'static str>>,
}

/// What the writer is woken for.
#[derive(Debug)]
enum Work {
    /// A frame.
    Frame(Message),
    /// The rest of a frame of this cost, of which the socket has taken a part.
    Rest(usize),
}

/// The writing half, and what belongs before anything else.
#[derive(Debug)]
struct Out {
    writing: Writing,
    bytes: Vec<u8>,
}

/// What the threads of a connection start with.
pub(crate) struct Threads {
    conn: ConnId,
    reading: Reading,
    queue: Receiver<Work>,
}

impl Connection {
    pub(crate) fn new(conn: ConnId, wire: Wire) -> io::Result<(Connection, Threads)> {
        let stream = wire.tcp().try_clone()?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TURN))?;
        // Bounded in bytes, by `queued`.
        let (sender, queue) = unbounded();
        let (reading, writing) = wire.split()?;
        let threads = Threads {
            conn,
            reading,
            queue,
        };
        let connection = Connection {
            stream,
            queue: Mutex::new(Some(sender)),
            queued: AtomicUsize::new(0),
            out: Mutex::new(Out {
                writing,
                bytes: Vec::new(),
            }),
            closing: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            reason: Mutex::new(None),
        };
        Ok((connection, threads))
    }

    pub(crate) fn send(&self, message: Message) -> Result<(), SendError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = queue.as_ref().ok_or(SendError::Gone)?;
        let cost = cost(&message);
        let before = self.queued.load(Ordering::Acquire);
        if before + cost > MAX_QUEUE_BYTES {
            drop(queue);
            self.set_reason("the peer reads too slowly: the queue for it is full");
            self.cut();
            return Err(SendError::Overflow);
        }
        self.queued.fetch_add(cost, Ordering::Relaxed);
        let mut work = Work::Frame(message);
        // With nothing queued nobody else comes before it.
        if before == 0
            && cost <= AT_ONCE_BYTES
            && let Ok(mut out) = self.out.try_lock()
            && let Work::Frame(message) = &work
        {
            if out.at_once(message) {
                self.queued.fetch_sub(cost, Ordering::Release);
                return Ok(());
            }
            work = Work::Rest(cost);
        }
        sender.send(work).map_err(|_| SendError::Gone)
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// No more frames in; the writer sends what is queued and then ends the connection.
    pub(crate) fn close(&self) {
        self.set_reason("closed by this node");
        self.closing.store(true, Ordering::Relaxed);
        self.drop_queue();
    }

    /// Ends the connection now; the reader tells.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.drop_queue();
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn drop_queue(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        *queue = None;
    }

    /// The first reason stays.
    fn set_reason(&self, reason: &'static str) {
        let mut held = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(reason);
    }

    fn reason(&self) -> Option<&'static str> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

impl Out {
    /// Writes a frame as far as the socket takes it now; whether that is to its end. What is wrong
    /// with the socket the writer finds out.
    fn at_once(&mut self, message: &Message) -> bool {
        self.bytes.clear();
        encode_frame(message, &mut self.bytes);
        let (taken, out) = self.writing.write_now(&self.bytes);
        self.bytes.drain(..taken);
        out && self.bytes.is_empty()
    }
}

/// What a frame counts for in the queue.
fn cost(message: &Message) -> usize {
    let payload = match message {
        Message::SnapshotChunk { bytes, .. } | Message::Side { bytes } => bytes.len(),
        Message::Log { batch, .. } => batch.len(),
        Message::Hello(hello) => hello
            .machine
            .iter()
            .map(|field| field.name.len() + field.value.len())
            .sum(),
        _ => 0,
    };
    payload + FRAME_COST_BYTES
}

impl Threads {
    /// Starts both; the reader tells `up` first and the end last.
    pub(crate) fn start(
        self,
        shared: &Arc<Shared>,
        connection: Arc<Connection>,
        up: ChannelEvent,
        slot: Option<Slot>,
    ) -> io::Result<()> {
        let Threads {
            conn,
            reading,
            queue,
        } = self;
        // The reader never sends on it: the writer learns that it has ended.
        let (reader_lives, reader_ended) = bounded::<()>(0);
        let written = Arc::clone(&connection);
        thread::Builder::new()
            .name(format!("channel {} out", conn.0))
            .spawn(move || {
                let unsent = write_frames(&written, &queue);
                finish(&written, unsent, &reader_ended);
            })?;
        let shared = Arc::clone(shared);
        let held = Arc::clone(&connection);
        thread::Builder::new()
            .name(format!("channel {} in", conn.0))
            .spawn(move || {
                // Its user is told first, and may be slow to listen.
                let told = shared.events.send(up);
                let why = match told {
                    Ok(()) => read_frames(&connection, conn, reading, &shared),
                    Err(_) => NOBODY.to_owned(),
                };
                // A peer that ended while this side closes may still take what is queued.
                if !connection.is_closing() {
                    connection.cut();
                }
                drop(reader_lives);
                shared.lock().remove(&conn);
                drop(slot);
                let _ = shared.events.send(ChannelEvent::Down { conn, why });
            })
            .inspect_err(|_| held.cut())?;
        Ok(())
    }
}

/// Reads until the end and says why it came.
fn read_frames(connection: &Connection, conn: ConnId, stream: Reading, shared: &Shared) -> String {
    let mut beside = Beside::default();
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let mut body = Vec::new();
    loop {
        let frame = read_frame(&mut stream, &mut body);
        if let Some(reason) = connection.reason() {
            discard(connection, &mut stream);
            return reason.to_owned();
        }
        match frame {
            Ok(message) => {
                let event = beside.take_in(connection, conn, shared, message);
                if event.is_some_and(|event| shared.events.send(event).is_err()) {
                    return NOBODY.to_owned();
                }
            }
            Err(end) => return end.to_string(),
        }
    }
}

/// Reads what still comes and throws it away: a socket closed over unread bytes answers
/// with a reset, and that could take our last frames from the peer. Bounded in time by
/// [`finish`].
fn discard(connection: &Connection, stream: &mut impl BufRead) {
    while !connection.is_cut() {
        let count = match stream.fill_buf() {
            Ok([]) => return,
            Ok(bytes) => bytes.len(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return,
        };
        stream.consume(count);
    }
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum ReadEnd {
    #[error("closed by the peer")]
    Closed,
    #[error("the peer ended inside a frame")]
    Torn,
    #[error("the peer sent what is no frame: {0}")]
    Undecodable(#[from] DecodeError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads one frame. `body` is only there to be used again.
fn read_frame(stream: &mut impl Read, body: &mut Vec<u8>) -> Result<Message, ReadEnd> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head[..1]) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ReadEnd::Closed),
        result => result?,
    }
    match stream.read_exact(&mut head[1..]) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ReadEnd::Torn),
        result => result?,
    }
    let len = body_len(head)?;
    body.clear();
    body.shrink_to(KEEP_BYTES);
    // Memory grows with what comes, not with what was announced.
    stream.take(len as u64).read_to_end(body)?;
    if body.len() < len {
        return Err(ReadEnd::Torn);
    }
    Ok(decode_body(body)?)
}

/// Writes what is queued, several small frames at a time, until the queue is dropped and
/// empty, or the connection has ended: then something is unsent.
fn write_frames(connection: &Connection, queue: &Receiver<Work>) -> bool {
    // Set when the connection is being closed.
    let mut deadline = None;
    while let Ok(first) = queue.recv() {
        let mut out = connection.out();
        let Out { writing, bytes } = &mut *out;
        let mut cost_sum = 0;
        let mut next = Some(first);
        while let Some(work) = next {
            cost_sum += match work {
                Work::Rest(cost) => cost,
                Work::Frame(message) => {
                    encode_frame(&message, bytes);
                    cost(&message)
                }
            };
            next = match bytes.len() < COALESCE_BYTES {
                true => queue.try_recv().ok(),
                false => None,
            };
        }
        if write_all(connection, writing, bytes, &mut deadline).is_err() {
            // The reader finds the end, after what the peer sent before it.
            connection.drop_queue();
            let _ = connection.stream.shutdown(Shutdown::Write);
            return true;
        }
        bytes.clear();
        bytes.shrink_to(KEEP_BYTES);
        drop(out);
        connection.queued.fetch_sub(cost_sum, Ordering::Release);
    }
    connection.is_cut()
}

fn write_all(
    connection: &Connection,
    writing: &mut Writing,
    mut bytes: &[u8],
    deadline: &mut Option<Instant>,
) -> io::Result<()> {
    loop {
        if connection.is_cut() || deadline.is_some_and(|at| Instant::now() >= at) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if deadline.is_none() && connection.is_closing() {
            *deadline = Some(Instant::now() + LINGER);
        }
        let written = match bytes {
            [] => writing.flush().map(|()| None),
            _ => writing.write(bytes).map(Some),
        };
        match written {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Some(count)) => bytes = &bytes[count..],
            // The write timeout: the peer doesn't read.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends the connection so that the peer gets what was written: first our direction, then,
/// when the peer has ended its own or took too long, the rest.
fn finish(connection: &Connection, unsent: bool, reader_ended: &Receiver<()>) {
    // An orderly end would be a lie when something is missing before it.
    if unsent || connection.out().writing.close().is_err() {
        let _ = connection.stream.shutdown(Shutdown::Write);
    }
    let _ = reader_ended.recv_timeout(LINGER);
    connection.cut();
}

//! The client: one TCP connection, one request at a time, every answer judged and timed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::checker::{Checker, Tally};
use super::resp::{self, Reply};

/// The counter's key.
pub(crate) const KEY: &str = "demo:count";

/// How long connecting to the switch may take: it is on this host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a waiting client looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last answers may take once the client is to end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);
/// Most answers whose times are kept (8 bytes each): hours of them.
const MAX_ANSWERS: usize = 1 << 26;

/// A client that counts, in a thread of its own.
#[derive(Debug)]
pub(crate) struct Client {
    origin: Instant,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the client has seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// When each answer came, in microseconds since the client's start; never decreasing.
    pub(crate) times_us: Vec<u64>,
    /// The judgement of all answers.
    pub(crate) tally: Tally,
    /// The highest number.
    pub(crate) last: u64,
    /// What ended the counting early.
    pub(crate) fault: Option<String>,
    /// What GET said at the end.
    pub(crate) final_value: Option<String>,
}

impl Client {
    /// Connects and begins to count.
    pub(crate) fn start(address: SocketAddr) -> io::Result<Self> {
        let stream = connect(address)?;
        let origin = Instant::now();
        let shared = Arc::new(Shared::default());
        let counting = Counting {
            stream,
            buffer: Vec::new(),
            checker: Checker::default(),
            origin,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || counting.run())?;
        Ok(Self {
            origin,
            shared,
            thread: Some(thread),
        })
    }

    /// Microseconds since the client's start.
    pub(crate) fn now_us(&self) -> u64 {
        micros(self.origin)
    }

    /// When the `nth` answer after `since_us` came (1 is the first), if it has.
    pub(crate) fn answer_after(&self, since_us: u64, nth: usize) -> Option<u64> {
        let seen = self.shared.seen();
        let first = seen.times_us.partition_point(|&at| at <= since_us);
        seen.times_us.get(first + nth - 1).copied()
    }

    /// What ended the counting early, if something has.
    pub(crate) fn fault(&self) -> Option<String> {
        self.shared.seen().fault.clone()
    }

    /// What has been seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }

    /// Waits for the last answer, asks for the count, and gives everything that was seen.
    pub(crate) fn finish(mut self) -> Seen {
        self.end();
        std::mem::take(&mut *self.shared.seen())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let mut seen = self.shared.seen();
            seen.fault.get_or_insert("the client panicked".to_owned());
        }
    }
}

/// Ends the thread without waiting: it looks at the flag by itself.
impl Drop for Client {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether the server at `address` answers PING within `timeout`.
pub(crate) fn ping(address: SocketAddr, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let ask = || -> io::Result<bool> {
        let mut stream = connect(address)?;
        stream.write_all(&resp::command(&["PING"]))?;
        let mut buffer = Vec::new();
        while Instant::now() < deadline {
            fill(&mut stream, &mut buffer)?;
            match resp::parse(&buffer) {
                Ok(None) => {}
                Ok(Some((reply, _))) => return Ok(reply == Reply::Simple("PONG".to_owned())),
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    };
    ask().unwrap_or(false)
}

/// A connection for small questions, each with its own time limit.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(stream)
}

/// Reads what is there, or nothing after [`LOOK`]. The end of the stream is an error.
pub(crate) fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 1024];
    match stream.read(&mut piece) {
        Ok(0) => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed",
        )),
        Ok(length) => {
            buffer.extend_from_slice(&piece[..length]);
            Ok(())
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn micros(origin: Instant) -> u64 {
    origin.elapsed().as_micros() as u64
}

/// What the client's thread works with.
struct Counting {
    stream: TcpStream,
    buffer: Vec<u8>,
    checker: Checker,
    origin: Instant,
    shared: Arc<Shared>,
}

impl Counting {
    fn run(mut self) {
        let outcome = self.count().and_then(|()| self.ask_for_count());
        let mut seen = self.shared.seen();
        match outcome {
            Ok(value) => seen.final_value = Some(value),
            Err(fault) => seen.fault = Some(fault),
        }
        seen.tally = self.checker.tally();
    }

    /// Counts until it is told to stop.
    fn count(&mut self) -> Result<(), String> {
        let request = resp::command(&["INCR", KEY]);
        while !self.stopping() {
            let sent = self.stream.write_all(&request);
            if let Err(error) = sent.map_err(|e| e.to_string()).and_then(|()| self.answer()) {
                self.checker.never_answered();
                return Err(format!(
                    "after answer {}, request {} got none: {error}",
                    self.checker.last(),
                    self.checker.last() + 1
                ));
            }
        }
        Ok(())
    }

    /// Takes replies until one answers the request.
    fn answer(&mut self) -> Result<(), String> {
        let mut patience = Patience::default();
        loop {
            let reply = self.reply(&mut patience)?;
            let verdict = match &reply {
                Reply::Integer(number) => self.checker.take(*number),
                _ => self.checker.take_wrong(),
            };
            let mut seen = self.shared.seen();
            seen.tally = self.checker.tally();
            seen.last = self.checker.last();
            if seen.times_us.len() >= MAX_ANSWERS {
                return Err(format!("more than {MAX_ANSWERS} answers"));
            }
            seen.times_us.push(micros(self.origin));
            match reply {
                Reply::Integer(_) if verdict.answers_request() => return Ok(()),
                Reply::Integer(_) => {}
                other => return Err(format!("the answer to INCR was {other:?}")),
            }
        }
    }

    /// GET at the end. Replies that still come are judged as answers to INCR, as bulk strings
    /// come from GET alone.
    fn ask_for_count(&mut self) -> Result<String, String> {
        let sent = self.stream.write_all(&resp::command(&["GET", KEY]));
        sent.map_err(|error| format!("GET: {error}"))?;
        let mut patience = Patience::default();
        loop {
            match self.reply(&mut patience).map_err(|e| format!("GET: {e}"))? {
                Reply::Bulk(Some(value)) => return Ok(value),
                Reply::Integer(number) => {
                    self.checker.take(number);
                }
                other => return Err(format!("the answer to GET was {other:?}")),
            }
        }
    }

    fn reply(&mut self, patience: &mut Patience) -> Result<Reply, String> {
        loop {
            if let Some((reply, length)) = resp::parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(reply);
            }
            if self.stopping() && patience.is_over() {
                return Err(format!("no answer in {} s", FINISH_TIMEOUT.as_secs()));
            }
            fill(&mut self.stream, &mut self.buffer).map_err(|error| error.to_string())?;
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

/// How long a client that is to end still waits for an answer.
#[derive(Debug, Default)]
struct Patience(Option<Instant>);

impl Patience {
    fn is_over(&mut self) -> bool {
        self.0.get_or_insert_with(Instant::now).elapsed() > FINISH_TIMEOUT
    }
}

#[cfg(test)]
mod tests;

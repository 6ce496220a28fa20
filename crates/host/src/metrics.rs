//! A node's figures over HTTP, in the text format that Prometheus reads (version 0.0.4).
//!
//! A responder for one question: `GET /metrics`. A client that is slow, talks nonsense or says
//! too much costs one of a few threads for a bounded time; the node's loop only hears of whole
//! questions.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::few_clients::accept_few;

/// Longest request, head and all: a scraper's has about 300 bytes.
const MAX_REQUEST_BYTES: usize = 4096;
/// Clients served at one time.
const MAX_CLIENTS: usize = 8;
/// A request has come, and its answer has been taken, within this time each.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The figures' content type.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The port can't be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics: can't listen on {listen}: {source}: choose another address with --metrics, or [metrics] in VM.toml"
)]
pub struct MetricsError {
    /// Where.
    pub listen: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// Gets the figures; an error says why there are none now.
pub type Figures = dyn Fn() -> Result<String, String> + Send + Sync;

/// The responder. Dropping it ends the listening.
#[derive(Debug)]
pub struct MetricsServer {
    local: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens at `listen`.
    pub fn start(listen: SocketAddr, figures: Box<Figures>) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { listen, source };
        let socket = TcpListener::bind(listen).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || accept(&socket, &flag, &Arc::from(figures)))
            .map_err(failed)?;
        Ok(Self {
            local,
            ended,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a client.
        let mut own = self.local;
        if own.ip().is_unspecified() {
            own.set_ip(match own {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let woken = TcpStream::connect_timeout(&own, TIME_LIMIT);
        if let Some(thread) = self.thread.take()
            && woken.is_ok()
        {
            let _ = thread.join();
        }
    }
}

fn accept(socket: &TcpListener, ended: &AtomicBool, figures: &Arc<Figures>) {
    let figures = Arc::clone(figures);
    accept_few(
        "metrics client",
        MAX_CLIENTS,
        ended,
        || socket.accept().map(|(stream, _)| stream),
        // Closed without a word: nobody waits for a client here.
        |_| (),
        // One that has gone is not waited for.
        move |stream| drop(serve(stream, &*figures)),
    );
}

/// An answer before it is written.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

fn plain(status: &'static str, body: &str) -> Answer {
    Answer {
        status,
        kind: "text/plain; charset=utf-8",
        body: format!("{body}\n"),
    }
}

fn serve(stream: &TcpStream, figures: &Figures) -> io::Result<()> {
    write_all(stream, respond(&read_request(stream)?, figures).as_bytes())
}

/// The first line of a request, or what to answer to what is none.
type Request = Result<String, (&'static str, &'static str)>;

/// The whole answer.
fn respond(request: &Request, figures: &Figures) -> String {
    let mut head_only = false;
    let answer = match request {
        Err(answer) => plain(answer.0, answer.1),
        Ok(line) => {
            let mut words = line.split(' ');
            let (method, target) = (words.next(), words.next());
            let version = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
            head_only = method == Some("HEAD");
            let path = target.map(|target| target.split('?').next().unwrap_or_default());
            match (method, path) {
                _ if !version || words.next().is_some() => {
                    plain("400 Bad Request", "expected an HTTP/1.1 request")
                }
                (Some("GET" | "HEAD"), Some("/metrics")) => match figures() {
                    Ok(body) => Answer {
                        status: "200 OK",
                        kind: TEXT,
                        body,
                    },
                    Err(why) => plain("503 Service Unavailable", &why),
                },
                (Some("GET" | "HEAD"), _) => plain("404 Not Found", "the figures are at /metrics"),
                _ => plain("405 Method Not Allowed", "only GET and HEAD"),
            }
        }
    };
    let mut text = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    if !head_only {
        text.push_str(&answer.body);
    }
    text
}

/// What would be answered to these bytes if nothing followed them; `None` while a request must
/// go on.
pub(crate) fn answer_to(bytes: &[u8]) -> Option<String> {
    let figures = || Ok("figure 1\n".to_owned());
    is_whole(bytes).then(|| respond(&first_line(bytes), &figures))
}

/// The first line of a whole head, or what is wrong with it.
fn read_request(mut stream: &TcpStream) -> io::Result<Request> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !is_whole(&head) {
        if head.len() > MAX_REQUEST_BYTES {
            return Ok(Err((
                "431 Request Header Fields Too Large",
                "the request is too long",
            )));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err((
                "408 Request Timeout",
                "no whole request came in time",
            )));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&piece[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                _ => return Err(error),
            },
        }
    }
    Ok(first_line(&head))
}

/// The first line of a whole head.
fn first_line(head: &[u8]) -> Request {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line);
    let bad = |_| ("400 Bad Request", "expected an HTTP/1.1 request");
    line.map(str::to_owned).map_err(bad)
}

/// Whether the empty line after the head is there.
fn is_whole(head: &[u8]) -> bool {
    let ends_with = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    ends_with(b"\r\n\r\n") || ends_with(b"\n\n")
}

/// Writes within the time limit, however slowly the client reads.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! A web client that asks for one page again and again on a connection that stays open.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::demo::client::connect;
use crate::demo::error::DemoError;
use crate::demo::report::Session;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take once the client is to end.
const END_LIMIT: Duration = Duration::from_secs(20);
/// The page is the server's first one; more than this it never is.
const MAX_ANSWER_BYTES: usize = 64 << 10;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n";

/// The client, in a thread of its own.
pub(super) struct Web {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    pages: u64,
    /// Connections: a server may end one after some answers, but says so with the last.
    connections: u64,
    fault: Option<String>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Web {
    pub(super) fn start(address: SocketAddr) -> Result<Self, DemoError> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("web".to_owned())
            .spawn(move || {
                if let Err(why) = ask(address, &own) {
                    own.seen().fault = Some(why);
                }
            });
        let thread =
            thread.map_err(|error| DemoError::failed(format!("the web client: {error}")))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn fault(&self) -> Option<String> {
        let fault = self.shared.seen().fault.clone()?;
        Some(format!("the web client: {fault}"))
    }

    pub(super) fn finish(mut self) -> Session {
        self.shared.stop.store(true, Ordering::Relaxed);
        let panicked = self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err());
        let seen = self.shared.seen().clone();
        Session {
            name: "nginx",
            told: match seen.connections {
                1 => format!("{} pages on one connection", seen.pages),
                several => format!(
                    "{} pages on {several} connections, each ended by the server when it had \
                     answered as often as it does on one",
                    seen.pages
                ),
            },
            failure: match panicked {
                true => Some("the client panicked".to_owned()),
                false => seen.fault,
            },
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(address: SocketAddr, shared: &Shared) -> Result<(), String> {
    let mut first: Option<Vec<u8>> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut stream = connect(address).map_err(|error| format!("connecting: {error}"))?;
        shared.seen().connections += 1;
        loop {
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let page = page(&mut stream, shared)?;
            if *first.get_or_insert_with(|| page.body.clone()) != page.body {
                return Err("the page has changed".to_owned());
            }
            shared.seen().pages += 1;
            if page.is_last {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// An answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    /// The server ends the connection after it.
    pub(super) is_last: bool,
}

fn page(stream: &mut TcpStream, shared: &Shared) -> Result<Page, String> {
    stream
        .write_all(REQUEST)
        .map_err(|error| error.to_string())?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let mut until = None;
    loop {
        if let Some(page) = parse(&bytes)? {
            return Ok(page);
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error.to_string()),
        }
        if shared.stop.load(Ordering::Relaxed)
            && Instant::now() > *until.get_or_insert_with(|| Instant::now() + END_LIMIT)
        {
            return Err(format!("no answer in {} s", END_LIMIT.as_secs()));
        }
    }
}

/// Reads an answer with `Content-Length` (RFC 9112, section 6), if it is whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Page>, String> {
    if bytes.len() > MAX_ANSWER_BYTES {
        return Err(format!("an answer of more than {MAX_ANSWER_BYTES} bytes"));
    }
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("http/1.1 200 ") {
        return Err(format!("the answer was {status:?}"));
    }
    let field = |name: &str| {
        let mut values = head.split("\r\n").filter_map(|line| line.split_once(':'));
        values.find_map(|(found, value)| (found == name).then(|| value.trim().to_owned()))
    };
    let length = field("content-length").and_then(|text| text.parse::<usize>().ok());
    let length = length.ok_or("the answer has no length")?;
    let body = &bytes[end + 4..];
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Ok(None),
        std::cmp::Ordering::Greater => Err("bytes behind the answer".to_owned()),
        std::cmp::Ordering::Equal => Ok(Some(Page {
            body: body.to_vec(),
            is_last: field("connection").as_deref() == Some("close"),
        })),
    }
}

//! The control socket of a running node, `STATE_DIR/NAME/ctl.sock`: one line of JSON asks,
//! one line of JSON answers, then the connection ends.
//!
//! ```text
//! {"op":"status"}
//! {"ok":{...}}            or            {"error":"one sentence"}
//! ```
//!
//! Long work may say how far it is before that, in lines of `{"progress":{...}}`.
//!
//! The server only carries: each request goes to the node's loop as a [`CtlCall`], which
//! answers when it can. A client that is slow, talks nonsense or says too much costs one
//! thread for a bounded time.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use rustix::net::Shutdown;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::few_clients::accept_few;

/// Longest request line.
pub const MAX_REQUEST_BYTES: usize = 4096;
/// Longest answer line: a status with its nodes takes about 1 KiB.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Clients served at one time.
pub const MAX_CLIENTS: usize = 8;
/// A request that has not come by then is not waited for.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The node answers, or says how far it is, within this time.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server's end waits until answers that were given are written.
const WRITTEN_LIMIT: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);

/// Longest path of a Unix socket in bytes (`sun_path` without its final zero).
pub(crate) const MAX_PATH_BYTES: usize = 107;

/// What a person asks a node. Which of them it can do is the node's to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum CtlRequest {
    /// How it is.
    Status {},
    /// Power the VM off for good.
    Stop {},
    /// Hand the VM to the backup.
    Takeover {},
    /// Live: send the backup away. Backup: leave.
    Detach {},
    /// Write a snapshot of the VM.
    Snapshot {
        /// The file to write it to; none means one in the node's folder.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<PathBuf>,
        /// Whether a file of that name may be replaced.
        #[serde(default)]
        force: bool,
    },
    /// The digest of the guest's state, and at which instruction count; a live node has its
    /// backup compare it.
    Digest {},
    /// The figures for monitoring, as text.
    Metrics {},
}

/// What the node answers: any JSON value, or one sentence that says why not.
pub type CtlAnswer = Result<Value, String>;

/// The forms of an answer line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerLine {
    Progress(Value),
    Ok(Value),
    Error(String),
}

/// A request on its way to the node's loop.
#[derive(Debug)]
pub struct CtlCall {
    /// What is asked.
    pub request: CtlRequest,
    /// For the answer.
    pub reply: CtlReply,
}

/// Answers one request. Dropped without an answer, it tells the client that the node ended.
#[derive(Debug)]
pub struct CtlReply {
    lines: Sender<AnswerLine>,
    /// Held by whoever passes the lines on. The channel doesn't do: one that nobody reads any more
    /// may look like one whose reader is slow.
    heard: Weak<()>,
}

/// What passes a reply on to the client.
struct Heard {
    lines: Receiver<AnswerLine>,
    _here: Arc<()>,
}

impl CtlReply {
    fn new() -> (Self, Heard) {
        // One piece of progress and the answer.
        let (sender, lines) = bounded(2);
        let here = Arc::new(());
        let reply = Self {
            lines: sender,
            heard: Arc::downgrade(&here),
        };
        (reply, Heard { lines, _here: here })
    }

    /// Says how far the work is, if the client keeps up with hearing it; false if it has
    /// gone. Never blocks.
    pub fn progress(&self, value: Value) -> bool {
        // The answer's place is kept free.
        if self.lines.is_empty() {
            let _ = self.lines.try_send(AnswerLine::Progress(value));
        }
        self.heard.strong_count() > 0
    }

    /// Answers; never blocks. A client that has gone is no error.
    pub fn send(self, answer: CtlAnswer) {
        let line = match answer {
            Ok(value) => AnswerLine::Ok(value),
            Err(error) => AnswerLine::Error(error),
        };
        // There is room for the only answer.
        let _ = self.lines.try_send(line);
    }
}

/// The socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum CtlServerError {
    /// Longer than the kernel takes.
    #[error("{}: a Unix socket's path has at most {MAX_PATH_BYTES} bytes, this one has {bytes}: choose a shorter state_dir", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something that isn't a socket has that name.
    #[error("{}: exists and is no socket: remove it", .0.display())]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("{}: can't listen there: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The server. Dropping it ends the listening and removes the socket; answers that were given are
/// written by then, since the process may end next.
#[derive(Debug)]
pub struct CtlServer {
    path: PathBuf,
    leaves_file: bool,
    socket: Arc<UnixListener>,
    ended: Arc<AtomicBool>,
    /// Requests that were read and have no answer yet.
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl CtlServer {
    /// Listens at `path`. A socket that is there already is taken for what a killed node
    /// left and replaced: hold the node's [`crate::store::NodeStore`] when calling this.
    ///
    /// Requests that find `calls` full are answered with an error.
    pub fn start(path: &Path, calls: Sender<CtlCall>) -> Result<CtlServer, CtlServerError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_PATH_BYTES {
            return Err(CtlServerError::PathTooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        let failed = |source| CtlServerError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(data) if !data.file_type().is_socket() => {
                return Err(CtlServerError::NotASocket(path.to_owned()));
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = Arc::new(UnixListener::bind(path).map_err(failed)?);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let (accepting, flag, count) =
            (Arc::clone(&socket), Arc::clone(&ended), Arc::clone(&asked));
        let thread = thread::Builder::new()
            .name("ctl".to_owned())
            .spawn(move || accept(&accepting, &flag, &count, &calls))
            .map_err(failed)?;
        Ok(CtlServer {
            path: path.to_owned(),
            leaves_file: false,
            socket,
            ended,
            asked,
            thread: Some(thread),
        })
    }

    /// Its file stays when it ends, as that of a process that was killed: who waits for the VM to be
    /// off must not take this end for that.
    pub fn leave_file(&mut self) {
        self.leaves_file = true;
    }
}

impl Drop for CtlServer {
    fn drop(&mut self) {
        if !self.leaves_file {
            let _ = fs::remove_file(&self.path);
        }
        self.ended.store(true, Ordering::Relaxed);
        // On Linux this ends an accept that waits.
        let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let until = Instant::now() + WRITTEN_LIMIT;
        while self.asked.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }
}

fn accept(
    socket: &UnixListener,
    ended: &AtomicBool,
    asked: &Arc<AtomicUsize>,
    calls: &Sender<CtlCall>,
) {
    let (calls, asked) = (calls.clone(), Arc::clone(asked));
    accept_few(
        "ctl client",
        MAX_CLIENTS,
        ended,
        || socket.accept().map(|(stream, _)| stream),
        |stream| {
            let busy = "too many requests at a time: try again";
            answer(stream, Err(busy.to_owned()));
        },
        move |stream| serve(stream, &calls, &asked),
    );
}

fn serve(stream: &UnixStream, calls: &Sender<CtlCall>, asked: &AtomicUsize) {
    let request = Lines::of(stream)
        .next(MAX_REQUEST_BYTES, REQUEST_TIMEOUT)
        .map_err(|error| error.to_string())
        .and_then(|line| parse_request(&line));
    asked.fetch_add(1, Ordering::AcqRel);
    answer(
        stream,
        request.and_then(|request| call(stream, request, calls)),
    );
    asked.fetch_sub(1, Ordering::AcqRel);
}

/// What a client's line asks.
pub(crate) fn parse_request(line: &[u8]) -> Result<CtlRequest, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

/// What a node's line says.
pub(crate) fn parse_answer(line: &[u8]) -> io::Result<AnswerLine> {
    Ok(serde_json::from_slice(line)?)
}

/// Everything that a client has said, line by line, up to the first that is too long.
pub(crate) fn lines_of(stream: &UnixStream) -> Vec<Vec<u8>> {
    let mut lines = Lines::of(stream);
    let next = || lines.next(MAX_REQUEST_BYTES, REQUEST_TIMEOUT).ok();
    let lines = std::iter::from_fn(next);
    lines.take_while(|line| !line.is_empty()).collect()
}

fn hand_over(request: CtlRequest, calls: &Sender<CtlCall>) -> Result<Heard, String> {
    let (reply, heard) = CtlReply::new();
    match calls.try_send(CtlCall { request, reply }) {
        Ok(()) => Ok(heard),
        Err(TrySendError::Full(_)) => Err("the node is busy: try again".to_owned()),
        Err(TrySendError::Disconnected(_)) => Err("the node is ending".to_owned()),
    }
}

/// A request of this process, which takes no long work.
pub(crate) fn ask(calls: &Sender<CtlCall>, request: CtlRequest, timeout: Duration) -> CtlAnswer {
    let heard = hand_over(request, calls)?;
    match heard.lines.recv_timeout(timeout) {
        Ok(AnswerLine::Ok(value)) => Ok(value),
        Ok(AnswerLine::Error(error)) => Err(error),
        Ok(AnswerLine::Progress(_)) | Err(RecvTimeoutError::Timeout) => {
            Err("the node does not answer".to_owned())
        }
        Err(RecvTimeoutError::Disconnected) => Err("the node is ending".to_owned()),
    }
}

/// The way to the node's loop and back.
fn call(stream: &UnixStream, request: CtlRequest, calls: &Sender<CtlCall>) -> CtlAnswer {
    let heard = hand_over(request, calls)?;
    loop {
        match heard.lines.recv_timeout(ANSWER_TIMEOUT) {
            Ok(AnswerLine::Ok(value)) => return Ok(value),
            Ok(AnswerLine::Error(error)) => return Err(error),
            Ok(progress) => {
                if write_line(stream, &progress).is_err() {
                    // Nobody listens: what is being done hears of it by the dropped end.
                    return Err("the client has gone".to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "the node did not answer within {} s",
                    ANSWER_TIMEOUT.as_secs()
                ));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the node ended before it answered".to_owned());
            }
        }
    }
}

fn answer(stream: &UnixStream, answer: CtlAnswer) {
    let line = match answer {
        Ok(value) => AnswerLine::Ok(value),
        Err(error) => AnswerLine::Error(error),
    };
    let _ = write_line(stream, &line);
}

/// A client that doesn't read or has gone is not waited for.
fn write_line(mut stream: &UnixStream, line: &AnswerLine) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    stream.write_all(&text)
}

/// Reads line by line.
struct Lines<'a> {
    stream: &'a UnixStream,
    /// Read, but not yet handed out.
    rest: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn of(stream: &'a UnixStream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    /// The bytes up to a line end, which is not part of the result. An end of the stream
    /// ends the line too.
    fn next(&mut self, max: usize, timeout: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut piece = [0; 4096];
        loop {
            let end = self.rest.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(self.rest.len()) > max {
                let text = format!("a line of more than {max} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            if let Some(end) = end {
                let behind = self.rest.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.rest, behind);
                line.pop();
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no whole line came in time",
                ));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(std::mem::take(&mut self.rest)),
                Ok(count) => self.rest.extend_from_slice(&piece[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Nothing listens.
    #[error("node {name} is not running (no socket {}): start its service, or `twinvm node`", path.display())]
    NotRunning {
        /// The node's name.
        name: String,
        /// Its socket.
        path: PathBuf,
    },
    /// It said no.
    #[error("node {name}: {text}")]
    Refused {
        /// The node's name.
        name: String,
        /// In its words.
        text: String,
    },
    /// The conversation failed.
    #[error("node {name}: {}: {source}", path.display())]
    Io {
        /// The node's name.
        name: String,
        /// Its socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Asks the node whose socket is at `path`, `STATE_DIR/NAME/ctl.sock`.
pub fn request(path: &Path, request: &CtlRequest) -> Result<Value, CtlError> {
    request_with(path, request, &mut |_| {})
}

/// The same; `progress` hears how far long work is.
pub fn request_with(
    path: &Path,
    request: &CtlRequest,
    progress: &mut dyn FnMut(&Value),
) -> Result<Value, CtlError> {
    let name = || {
        let folder = path.parent().and_then(Path::file_name);
        folder.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    match converse(path, request, progress) {
        Ok(answer) => answer.map_err(|text| CtlError::Refused { name: name(), text }),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CtlError::NotRunning {
                name: name(),
                path: path.to_owned(),
            },
            _ => CtlError::Io {
                name: name(),
                path: path.to_owned(),
                source: error,
            },
        }),
    }
}

fn converse(
    path: &Path,
    request: &CtlRequest,
    progress: &mut dyn FnMut(&Value),
) -> io::Result<CtlAnswer> {
    let mut stream = UnixStream::connect(path)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It may have answered without reading: too many clients.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    let mut lines = Lines::of(&stream);
    loop {
        let line = lines.next(MAX_ANSWER_BYTES, ANSWER_TIMEOUT + REQUEST_TIMEOUT)?;
        if line.is_empty() {
            let text = "the node ended before it answered";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        match parse_answer(&line)? {
            AnswerLine::Progress(value) => progress(&value),
            AnswerLine::Ok(value) => return Ok(Ok(value)),
            AnswerLine::Error(error) => return Ok(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests;

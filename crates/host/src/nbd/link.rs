//! The threads of a disk at a server: one connects and asks, one hears the answers.
//!
//! All that is under way stands in one table under a lock, which is never held while a socket or a
//! clock is waited for. A connection that is lost takes nothing with it: the table knows what it
//! owes, and the next one is asked for it.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_nbd::transfers::{Ended, Frame, Job, Next, Payload, Transfers, ZEROS_BYTES};
use twinvm_nbd::wire::{Command, Export, Reply, Request};
use twinvm_protocol::NoteLevel;

use super::stream::{Halves, Socket};
use super::{Failure, NbdError, NbdSpec, NbdTarget, Open, Tell, fits};
use crate::disk::DiskDone;
use crate::fence::Fencing;

/// Bytes that are put together before they are written: two of the guest's largest requests.
const SEND_BYTES: usize = 256 << 10;
/// How often who asks looks up from waiting.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// A server that owes answers and says nothing for this long is spoken of.
const SLOW: Duration = Duration::from_secs(10);
/// Waits between attempts to connect: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Kinds of errors that are told: a server may have as many as it likes.
const MAX_SAID: usize = 64;

const DONE: u8 = 0;
const FAILED: u8 = 1;

/// Whose a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Guest {
        device: u8,
        id: u64,
    },
    /// The flush at the end.
    Rest,
}

struct State {
    transfers: Transfers<Tag>,
    /// The connection that there is.
    up: Option<Up>,
    /// Why it is none any more.
    broken: Option<String>,
    /// Everybody is to end.
    ending: bool,
    /// How the flush at the end went.
    rested: Option<Result<(), u32>>,
    /// When the server last did something, or was first owed an answer.
    heard: Instant,
    is_slow: bool,
    /// Kinds of errors that were told.
    said: BTreeSet<(&'static str, u32)>,
    /// The server keeps off whoever has an older claim.
    fenced: bool,
    /// Why requests wait, while they do.
    waits: Option<String>,
}

struct Up {
    export: Export,
    socket: Socket,
}

struct Shared {
    spec: NbdSpec,
    /// The size that the guest knows.
    bytes: u64,
    state: Mutex<State>,
    /// Something in the state has changed.
    wake: Condvar,
    done: Sender<DiskDone>,
    tell: Tell,
}

/// Both threads.
pub(super) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    pub(super) fn start(target: NbdTarget, done: Sender<DiskDone>, tell: Tell) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            spec: target.spec,
            bytes: target.export.bytes,
            state: Mutex::new(State {
                transfers: Transfers::default(),
                up: None,
                broken: None,
                ending: false,
                rested: None,
                heard: Instant::now(),
                is_slow: false,
                said: BTreeSet::new(),
                fenced: false,
                waits: None,
            }),
            wake: Condvar::new(),
            done,
            tell,
        });
        let thread = {
            let (shared, open) = (Arc::clone(&shared), target.open);
            thread::Builder::new()
                .name("nbd".to_owned())
                .spawn(move || shared.run(open))?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn submit(&self, request: DiskRequest) {
        let (offset, bytes) = (request.offset, request.bytes);
        let job = match request.op {
            // The device's bound on requests fits.
            DiskOp::Read => Job::Read {
                offset,
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            },
            DiskOp::Write { durable } => Job::Write {
                offset,
                data: request.data,
                durable,
            },
            DiskOp::Flush => Job::Flush,
            DiskOp::Discard => Job::Zero {
                offset,
                bytes,
                unmap: true,
            },
            DiskOp::WriteZeroes { unmap } => Job::Zero {
                offset,
                bytes,
                unmap,
            },
        };
        let (device, id) = (request.device, request.id);
        self.shared.submit(Tag::Guest { device, id }, job);
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.shared.lock().fenced
    }

    pub(super) fn waits(&self) -> Option<String> {
        let state = self.shared.lock();
        let why = state.waits.as_ref()?;
        Some(format!("disk {}: {why}", self.shared.spec.address))
    }

    pub(super) fn rest(&mut self, limit: Duration) -> Result<(), NbdError> {
        let until = Instant::now() + limit;
        let result = self.shared.wait_for_all(until).and_then(|()| {
            if !self.shared.spec.read_only {
                self.shared.submit(Tag::Rest, Job::Flush);
            }
            self.shared.wait_for_all(until)?;
            match self.shared.lock().rested {
                Some(Err(error)) => Err(format!("a flush failed: {}", meaning(error))),
                _ => Ok(()),
            }
        });
        self.end();
        result.map_err(|why| NbdError {
            address: self.shared.spec.address.clone(),
            why,
            passing: false,
        })
    }

    fn end(&mut self) {
        self.tell_end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// The thread ends by itself; no request begins any more.
    pub(super) fn abandon(&mut self) {
        self.tell_end();
        self.thread = None;
    }

    fn tell_end(&self) {
        let mut state = self.shared.lock();
        state.ending = true;
        if let Some(up) = &state.up
            && !state.transfers.is_empty()
        {
            up.socket.shut();
        }
        drop(state);
        self.shared.wake.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.shared.wait_for_all(Instant::now() + super::REST_LIMIT);
            self.end();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, tag: Tag, job: Job) {
        let mut state = self.lock();
        if !state.transfers.waits() {
            state.heard = Instant::now();
        }
        state.transfers.submit(tag, job);
        drop(state);
        self.wake.notify_all();
    }

    fn wait_for_all(&self, until: Instant) -> Result<(), String> {
        let mut state = self.lock();
        while !state.transfers.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "the server does not carry out what is under way ({} requests)",
                    state.transfers.len()
                ));
            }
            state = self.sleep(state, left);
        }
        Ok(())
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let woken = self.wake.wait_timeout(state, most);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn say(&self, level: NoteLevel, what: &str) {
        (self.tell)(level, format!("disk {}: {what}", self.spec.address));
    }

    /// Connects, asks, and connects again, until everybody is to end.
    fn run(self: &Arc<Self>, mut open: Option<Open>) {
        let mut lost = false;
        if !self.keep_others_off() {
            return;
        }
        loop {
            let next = open.take().map_or_else(|| self.connect(lost), Some);
            let Some(next) = next else { return };
            if lost {
                self.say(NoteLevel::Info, "the server is there again");
            }
            let why = match self.use_up(next) {
                Ok(why) => why,
                Err(error) => error.to_string(),
            };
            {
                let mut state = self.lock();
                state.transfers.lost();
                state.up = None;
                state.broken = None;
                if state.ending {
                    return;
                }
            }
            lost = true;
            self.wait_since(format!(
                "the connection is lost ({why}): the guest's requests wait until the server is \
                 there again"
            ));
        }
    }

    /// A connection whose export is still the one that the guest knows; `None` if everybody is to
    /// end. `told`: a person knows that there is none.
    fn connect(&self, mut told: bool) -> Option<Open> {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        loop {
            if self.lock().ending {
                return None;
            }
            let why = match self.spec.enter() {
                Ok(open) => match self.is_same(&open.export) {
                    Ok(()) => return Some(open),
                    Err(why) => Failure::Refused(why),
                },
                Err(failure) => failure,
            };
            // That nobody answers is known already.
            let news = match why {
                Failure::Away(why) => (!told).then_some(why),
                Failure::Refused(why) => (why != said).then_some(why),
            };
            if let Some(why) = news {
                self.wait_since(format!("{why}; the guest's requests wait"));
                said = why;
                told = true;
            }
            self.pause(&mut pause);
        }
    }

    /// Before the first connection: what keeps others off, where the server can't, has done so.
    /// False if everybody is to end.
    fn keep_others_off(&self) -> bool {
        let Some(Fencing { fence, takeover }) = &self.spec.fencing else {
            return true;
        };
        self.lock().waits = Some("fence is at work; the guest's requests wait".to_owned());
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        loop {
            let wanted = || !self.lock().ending;
            match fence.keep_off(self.spec.claim.generation, *takeover, &wanted) {
                None => return false,
                Some(Ok(())) => {
                    self.say(NoteLevel::Info, "fence has kept the other node off");
                    self.lock().waits = None;
                    return true;
                }
                Some(Err(why)) if why != said => {
                    self.wait_since(format!(
                        "fence has failed ({why}): the guest's requests wait until it succeeds"
                    ));
                    said = why;
                }
                Some(Err(_)) => {}
            }
            self.pause(&mut pause);
        }
    }

    /// Says why requests wait from now on.
    fn wait_since(&self, why: String) {
        self.say(NoteLevel::Warn, &why);
        self.lock().waits = Some(why);
    }

    /// A pause before the next attempt, the next one longer.
    fn pause(&self, pause: &mut Duration) {
        let until = Instant::now() + *pause;
        let mut state = self.lock();
        while !state.ending {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.sleep(state, left);
        }
        *pause = (*pause * 2).min(LAST_PAUSE);
    }

    fn is_same(&self, export: &Export) -> Result<(), String> {
        if export.bytes < self.bytes {
            return Err(format!(
                "the export has {} bytes, and had {} when the VM was started: export the same one \
                 again",
                export.bytes, self.bytes
            ));
        }
        fits(&self.spec, export)
    }

    /// Carries requests over a connection until it is lost, and says why it is.
    fn use_up(self: &Arc<Self>, open: Open) -> io::Result<String> {
        let export = open.export;
        let Halves {
            reader,
            mut writer,
            socket,
        } = open.stream.split(LOOK_EACH)?;
        {
            let mut state = self.lock();
            state.heard = Instant::now();
            state.is_slow = false;
            state.fenced = open.fenced;
            state.waits = None;
            state.up = Some(Up { export, socket });
        }
        let hearing = {
            let shared = Arc::clone(self);
            thread::Builder::new()
                .name("nbd answers".to_owned())
                .spawn(move || shared.hear(reader))?
        };
        let why = self.ask(&mut *writer, &export);
        if let Some(up) = &self.lock().up {
            up.socket.shut();
        }
        let _ = hearing.join();
        Ok(why)
    }

    /// Sends what is to be asked, until the connection is lost or everybody is to end.
    fn ask(&self, writer: &mut dyn Write, export: &Export) -> String {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let mut state = self.lock();
            loop {
                if let Some(why) = state.broken.take() {
                    return why;
                }
                if state.ending {
                    drop(state);
                    leave(writer);
                    return "the end".to_owned();
                }
                while bytes.len() < SEND_BYTES {
                    match state.transfers.next_frame(export) {
                        Some(Next::Send(frame)) => put(&frame, &mut bytes),
                        Some(Next::Ended(ended)) => self.finish(&mut state, ended),
                        None => break,
                    }
                }
                if !bytes.is_empty() {
                    break;
                }
                state = self.sleep(state, LOOK_EACH);
                self.look_at_clock(&mut state);
            }
            drop(state);
            if let Err(error) = self.write(writer, &bytes) {
                let broken = self.lock().broken.take();
                return broken.unwrap_or_else(|| match is_end(&error) {
                    true => "the server closed it".to_owned(),
                    false => error.to_string(),
                });
            }
        }
    }

    fn write(&self, writer: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let result = match bytes.is_empty() {
                true => writer.flush().map(|()| None),
                false => writer.write(bytes).map(Some),
            };
            match result {
                Ok(None) => return Ok(()),
                Ok(Some(0)) => return Err(ErrorKind::WriteZero.into()),
                Ok(Some(count)) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut state = self.lock();
                    if state.ending || state.broken.is_some() {
                        return Err(error);
                    }
                    self.look_at_clock(&mut state);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says once that the server owes an answer for long.
    fn look_at_clock(&self, state: &mut State) {
        if state.transfers.waits() && !state.is_slow && state.heard.elapsed() >= SLOW {
            state.is_slow = true;
            let why = format!(
                "the server has not answered for {} s; the guest's requests wait",
                SLOW.as_secs()
            );
            self.say(NoteLevel::Warn, &why);
            state.waits = Some(why);
        }
    }

    /// Hears answers until the connection is lost.
    fn hear(&self, mut reader: Box<dyn Read + Send>) {
        let why = match self.hear_all(&mut *reader) {
            Ok(why) => why.to_owned(),
            Err(error) if is_end(&error) => "the server closed it".to_owned(),
            Err(error) => error.to_string(),
        };
        let mut state = self.lock();
        state.broken = Some(why);
        if let Some(up) = &state.up {
            up.socket.shut();
        }
        drop(state);
        self.wake.notify_all();
    }

    fn hear_all(&self, reader: &mut dyn Read) -> io::Result<&'static str> {
        const UNASKED: &str = "the server answers what was not asked";
        let mut reader = io::BufReader::with_capacity(SEND_BYTES, reader);
        let mut head = [0; Reply::BYTES];
        let mut data = Vec::new();
        loop {
            reader.read_exact(&mut head)?;
            let Some(reply) = Reply::decode(&head) else {
                return Ok("the server answers something else than NBD");
            };
            if reply.error == Reply::ESHUTDOWN {
                return Ok("the server ends");
            }
            let Ok(bytes) = self.lock().transfers.data_bytes(&reply) else {
                return Ok(UNASKED);
            };
            data.resize(bytes, 0);
            reader.read_exact(&mut data)?;
            let mut state = self.lock();
            let Some(export) = state.up.as_ref().map(|up| up.export) else {
                return Ok("the end");
            };
            state.heard = Instant::now();
            if std::mem::take(&mut state.is_slow) {
                self.say(NoteLevel::Info, "the server answers again");
                state.waits = None;
            }
            let Ok(ended) = state.transfers.answered(&reply, &data, &export) else {
                return Ok(UNASKED);
            };
            if let Some(ended) = ended {
                self.finish(&mut state, ended);
            }
            drop(state);
            self.wake.notify_all();
        }
    }

    /// Hands a result on.
    fn finish(&self, state: &mut State, ended: Ended<Tag>) {
        let Tag::Guest { device, id } = ended.tag else {
            state.rested = Some(ended.result.map(drop));
            return;
        };
        let trouble = match &ended.result {
            Err(error)
                if state.said.len() < MAX_SAID && state.said.insert((ended.name, *error)) =>
            {
                Some(format!(
                    "disk {}: a {} failed: {}; the guest gets an I/O error (said once)",
                    self.spec.address,
                    ended.name,
                    meaning(*error)
                ))
            }
            _ => None,
        };
        let (status, data) = match ended.result {
            Ok(data) => (DONE, data),
            Err(_) => (FAILED, Vec::new()),
        };
        // There is room; or nobody wants it any more.
        let _ = self.done.send(DiskDone {
            device,
            id,
            status,
            data,
            trouble,
        });
    }
}

/// Whether the other end is gone.
fn is_end(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn put(frame: &Frame, bytes: &mut Vec<u8>) {
    static ZEROS: [u8; ZEROS_BYTES as usize] = [0; ZEROS_BYTES as usize];
    bytes.extend_from_slice(&frame.head);
    match &frame.payload {
        Payload::None => {}
        Payload::Data(data, part) => bytes.extend_from_slice(&data[part.clone()]),
        Payload::Zeros(count) => bytes.extend_from_slice(&ZEROS[..*count]),
    }
}

/// Says that no more requests come.
fn leave(writer: &mut dyn Write) {
    let request = Request {
        flags: 0,
        command: Command::Disconnect,
        cookie: 0,
        offset: 0,
        bytes: 0,
    };
    let _ = writer
        .write_all(&request.encode())
        .and_then(|()| writer.flush());
}

/// An error of the protocol in words.
fn meaning(error: u32) -> String {
    match error {
        Reply::EPERM => "the server lets nobody write".to_owned(),
        Reply::EIO => "the server has an I/O error".to_owned(),
        Reply::ENOSPC => "the server has no room left".to_owned(),
        Reply::EINVAL => "the server calls it invalid".to_owned(),
        Reply::EOVERFLOW => "it is more than the server takes".to_owned(),
        Reply::ENOTSUP => "the server can't do it".to_owned(),
        other => format!("the server says error {other}"),
    }
}

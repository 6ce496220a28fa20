//! Requests under way: cut into what a server takes, matched with its answers, and sent again over
//! the next connection when one is lost.
//!
//! ```text
//! submit ──▶ unsent ──next_frame──▶ sent ──answered──▶ (stable) ──▶ ended
//!               ▲                     │
//!               └───────── lost ──────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::wire::{Command, DEFAULT_BLOCK_BYTES, Export, ExportFlags, Reply, Request};

/// Zeros that one request carries where the server can't write zeros by itself.
pub const ZEROS_BYTES: u32 = 64 << 10;
/// Most data of one request that is sent, whatever the server would take.
const MAX_PIECE_BYTES: u32 = 1 << 20;
/// Longest range that a server is asked to clear at once.
const MAX_CLEAR_BYTES: u32 = 1 << 30;

/// What is to be done with an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Read `bytes` at `offset`.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        bytes: u32,
    },
    /// Write `data` at `offset`.
    Write {
        /// First byte.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
        /// Stable before it has ended.
        durable: bool,
    },
    /// Make stable what has ended before.
    Flush,
    /// Fill a range with zeros.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        bytes: u64,
        /// The room behind them may be given back.
        unmap: bool,
    },
}

impl Job {
    /// What a person calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush => "flush",
            Self::Zero { .. } => "write of zeros",
        }
    }

    fn range(&self) -> (u64, u64) {
        match self {
            Self::Read { offset, bytes } => (*offset, u64::from(*bytes)),
            Self::Write { offset, data, .. } => (*offset, data.len() as u64),
            Self::Flush => (0, 0),
            Self::Zero { offset, bytes, .. } => (*offset, *bytes),
        }
    }
}

/// What follows the head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// This part of a write's data.
    Data(Arc<[u8]>, Range<usize>),
    /// So many zeros, at most [`ZEROS_BYTES`].
    Zeros(usize),
}

/// A request as it is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its head.
    pub head: [u8; Request::BYTES],
    /// Its data.
    pub payload: Payload,
}

/// How a job has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// Whose it was.
    pub tag: T,
    /// What a read has read, or the server's error.
    pub result: Result<Vec<u8>, u32>,
    /// [`Job::name`].
    pub name: &'static str,
}

/// A server has answered what was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answers what was not asked")]
pub struct Unasked;

#[derive(Debug)]
struct Pending<T> {
    tag: T,
    job: Job,
    /// Bytes of the range that have been asked for over this connection.
    asked: u64,
    /// Requests that have no answer yet.
    waiting: usize,
    /// The range is done and is being made stable.
    flushing: bool,
    error: Option<u32>,
    /// What a read has read so far.
    read: Vec<u8>,
}

/// One request on the wire.
#[derive(Clone, Copy, Debug)]
struct Piece {
    job: u64,
    /// Where its data lie within the job's.
    at: usize,
    /// Data that come with a good answer.
    data_bytes: usize,
}

/// All that is under way with one export. `T` says whose a job is.
#[derive(Debug)]
pub struct Transfers<T> {
    jobs: BTreeMap<u64, Pending<T>>,
    next_job: u64,
    /// Jobs with something to ask, in their order.
    unsent: VecDeque<u64>,
    pieces: BTreeMap<u64, Piece>,
    next_cookie: u64,
}

impl<T> Default for Transfers<T> {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            next_job: 0,
            unsent: VecDeque::new(),
            pieces: BTreeMap::new(),
            next_cookie: 0,
        }
    }
}

impl<T: Clone> Transfers<T> {
    /// Begins a job. Its range must lie within the export; no two jobs under way may overlap if one
    /// of them writes, since they may be carried out in any order, and more than once.
    pub fn submit(&mut self, tag: T, job: Job) {
        let number = self.next_job;
        self.next_job += 1;
        let read = match job {
            Job::Read { bytes, .. } => vec![0; bytes as usize],
            _ => Vec::new(),
        };
        let pending = Pending {
            tag,
            job,
            asked: 0,
            waiting: 0,
            flushing: false,
            error: None,
            read,
        };
        self.jobs.insert(number, pending);
        self.unsent.push_back(number);
    }

    /// Jobs that have not ended.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether the server has something to answer.
    pub fn waits(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The connection is gone: all that has not ended is asked for again, in the order in which it
    /// came, over the next one.
    pub fn lost(&mut self) {
        self.pieces.clear();
        for pending in self.jobs.values_mut() {
            pending.asked = 0;
            pending.waiting = 0;
            pending.flushing = false;
            pending.error = None;
        }
        self.unsent = self.jobs.keys().copied().collect();
    }

    /// The next request to send to a server whose export is this one, or a job that has ended
    /// without asking it.
    pub fn next_frame(&mut self, export: &Export) -> Option<Next<T>> {
        let cookie = self.next_cookie;
        let (number, pending, next) = loop {
            let number = *self.unsent.front()?;
            let Some(pending) = self.jobs.get_mut(&number) else {
                self.unsent.pop_front();
                continue;
            };
            if let Some(next) = pending.next(export, cookie) {
                break (number, pending, next);
            }
            self.unsent.pop_front();
            if pending.waiting == 0 {
                return self.end(number).map(Next::Ended);
            }
        };
        let (request, payload, at) = next;
        if !pending.has_more(export) {
            self.unsent.pop_front();
        }
        self.next_cookie = cookie.wrapping_add(1);
        let data_bytes = match request.command {
            Command::Read => request.bytes as usize,
            _ => 0,
        };
        let piece = Piece {
            job: number,
            at,
            data_bytes,
        };
        self.pieces.insert(cookie, piece);
        Some(Next::Send(Frame {
            head: request.encode(),
            payload,
        }))
    }

    /// Where the data that follow an answer's head belong: none, unless it is a read that was done.
    ///
    /// # Errors
    /// [`Unasked`]: the connection is good for nothing.
    pub fn data_bytes(&self, reply: &Reply) -> Result<usize, Unasked> {
        let piece = self.pieces.get(&reply.cookie).ok_or(Unasked)?;
        Ok(match reply.error {
            0 => piece.data_bytes,
            _ => 0,
        })
    }

    /// Takes an answer and the data that came with it; the job, if that was its last one.
    ///
    /// # Errors
    /// [`Unasked`], as [`Transfers::data_bytes`], or if `data` has another length than that says.
    pub fn answered(
        &mut self,
        reply: &Reply,
        data: &[u8],
        export: &Export,
    ) -> Result<Option<Ended<T>>, Unasked> {
        if self.data_bytes(reply)? != data.len() {
            return Err(Unasked);
        }
        let piece = self.pieces.remove(&reply.cookie).ok_or(Unasked)?;
        let pending = self.jobs.get_mut(&piece.job).ok_or(Unasked)?;
        pending.waiting = pending.waiting.saturating_sub(1);
        match reply.error {
            0 if data.is_empty() => {}
            0 => {
                let room = pending.read.get_mut(piece.at..piece.at + data.len());
                room.ok_or(Unasked)?.copy_from_slice(data);
            }
            error => pending.error = pending.error.or(Some(error)),
        }
        if pending.waiting > 0 {
            return Ok(None);
        }
        if pending.has_more(export) {
            // A failed one need not be gone on with; one to be made stable is asked that next.
            if pending.error.is_none() {
                if !self.unsent.contains(&piece.job) {
                    self.unsent.push_back(piece.job);
                }
                return Ok(None);
            }
            self.unsent.retain(|job| *job != piece.job);
        }
        Ok(self.end(piece.job))
    }

    fn end(&mut self, number: u64) -> Option<Ended<T>> {
        let pending = self.jobs.remove(&number)?;
        Some(Ended {
            name: pending.job.name(),
            tag: pending.tag,
            result: match pending.error {
                None => Ok(pending.read),
                Some(error) => Err(error),
            },
        })
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// This is to be sent.
    Send(Frame),
    /// There was nothing to ask.
    Ended(Ended<T>),
}

impl<T> Pending<T> {
    /// Whether something of it is still to be asked, now or after what has no answer yet.
    fn has_more(&self, export: &Export) -> bool {
        let (_, bytes) = self.job.range();
        match self.job {
            Job::Flush => !self.flushing && export.flags.has(ExportFlags::SEND_FLUSH),
            _ => self.asked < bytes || (!self.flushing && self.needs_flush(export)),
        }
    }

    /// Whether it is made stable by a flush of its own.
    fn needs_flush(&self, export: &Export) -> bool {
        matches!(self.job, Job::Write { durable: true, .. })
            && !export.flags.has(ExportFlags::SEND_FUA)
            && export.flags.has(ExportFlags::SEND_FLUSH)
    }

    /// The next request of this job, what follows it, and where its data lie within the job's;
    /// `None` if there is none, or not yet.
    fn next(&mut self, export: &Export, cookie: u64) -> Option<(Request, Payload, usize)> {
        let (offset, bytes) = self.job.range();
        let at = self.asked;
        let left = bytes - at;
        let flush = Request {
            flags: 0,
            command: Command::Flush,
            cookie,
            offset: 0,
            bytes: 0,
        };
        if left == 0 {
            // A flush covers what has been answered before it.
            if self.waiting > 0 || !self.has_more(export) {
                return None;
            }
            self.flushing = true;
            self.waiting += 1;
            return Some((flush, Payload::None, 0));
        }
        let zeroes = export.flags.has(ExportFlags::SEND_WRITE_ZEROES);
        let most = match self.job {
            Job::Zero { .. } if zeroes => MAX_CLEAR_BYTES,
            Job::Zero { .. } => piece_bytes(export).min(ZEROS_BYTES),
            _ => piece_bytes(export),
        };
        let piece = left.min(u64::from(most)) as u32;
        let (command, flags, payload) = match &self.job {
            Job::Read { .. } => (Command::Read, 0, Payload::None),
            Job::Write { data, durable, .. } => {
                let fua = *durable && export.flags.has(ExportFlags::SEND_FUA);
                let part = at as usize..at as usize + piece as usize;
                let flags = if fua { Request::FUA } else { 0 };
                (Command::Write, flags, Payload::Data(Arc::clone(data), part))
            }
            Job::Zero { unmap, .. } if zeroes => {
                let flags = if *unmap { 0 } else { Request::NO_HOLE };
                (Command::WriteZeroes, flags, Payload::None)
            }
            Job::Zero { .. } => (Command::Write, 0, Payload::Zeros(piece as usize)),
            Job::Flush => return None,
        };
        self.asked += u64::from(piece);
        self.waiting += 1;
        let request = Request {
            flags,
            command,
            cookie,
            offset: offset + at,
            bytes: piece,
        };
        Some((request, payload, at as usize))
    }
}

/// Most data of one read or write: whole sectors.
fn piece_bytes(export: &Export) -> u32 {
    let most = export.payload_bytes.min(MAX_PIECE_BYTES);
    (most - most % DEFAULT_BLOCK_BYTES).max(DEFAULT_BLOCK_BYTES)
}

#[cfg(test)]
mod tests;

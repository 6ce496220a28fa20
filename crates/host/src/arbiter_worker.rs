//! The thread that asks the arbiter, so that a hung file system or server never makes the
//! guest's thread wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use twinvm_protocol::{ArbiterContract, Generation, Outcome, Record, ReqId};

/// Requests that wait while the arbiter hangs. The protocol has one unsettled change and a
/// read in flight and repeats them at most every 50 ms; more than this help nobody.
pub const MAX_REQUESTS: usize = 16;

/// An arbiter that can be asked from its own thread.
pub trait ArbiterBackend: ArbiterContract + Send {
    /// Why the last answer was [`Outcome::Unknown`], once, for the journal.
    fn take_trouble(&mut self) -> Option<String>;
}

/// What the protocol asks with its two arbiter actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArbiterRequest {
    /// Read the record.
    Read {
        /// For the answer.
        req: ReqId,
    },
    /// Compare and set it.
    Cas {
        /// For the answer.
        req: ReqId,
        /// The generation it must have now.
        expect: Generation,
        /// What to put there.
        record: Record,
    },
}

/// The answer to one request. The next hop is the protocol's `Event::Arbiter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArbiterReply {
    /// Which request.
    pub req: ReqId,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is unknown, for the journal; the same reason is told once until there is an answer.
    pub trouble: Option<String>,
}

/// The queue is full because the arbiter does not answer, or its thread has ended: the
/// outcome of this request is [`Outcome::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the arbiter does not answer: {MAX_REQUESTS} requests already wait for it")]
pub struct ArbiterBusy;

/// The thread that asks, and its queue. Dropping it abandons what waits; a call that hangs
/// is left behind and its answer goes nowhere.
#[derive(Debug)]
pub struct ArbiterWorker {
    requests: Sender<ArbiterRequest>,
    stopped: Arc<AtomicBool>,
}

impl ArbiterWorker {
    /// Starts the thread. Each accepted request has exactly one reply, in order.
    pub fn start(
        backend: Box<dyn ArbiterBackend>,
        replies: Sender<ArbiterReply>,
    ) -> io::Result<ArbiterWorker> {
        let (requests, queue) = bounded(MAX_REQUESTS);
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        thread::Builder::new()
            .name("arbiter".to_owned())
            .spawn(move || work(backend, &queue, &replies, &flag))?;
        Ok(ArbiterWorker { requests, stopped })
    }

    /// Queues a request; never blocks.
    pub fn submit(&self, request: ArbiterRequest) -> Result<(), ArbiterBusy> {
        match self.requests.try_send(request) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(ArbiterBusy),
        }
    }
}

impl Drop for ArbiterWorker {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn work(
    mut backend: Box<dyn ArbiterBackend>,
    queue: &Receiver<ArbiterRequest>,
    replies: &Sender<ArbiterReply>,
    stopped: &AtomicBool,
) {
    let mut told = None;
    for request in queue {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let (req, outcome) = match request {
            ArbiterRequest::Read { req } => (req, backend.read()),
            ArbiterRequest::Cas {
                req,
                expect,
                record,
            } => (req, backend.cas(expect, record)),
        };
        if outcome != Outcome::Unknown {
            told = None;
        }
        let trouble = backend
            .take_trouble()
            .filter(|why| told.as_ref() != Some(why));
        told = trouble.clone().or(told);
        let reply = ArbiterReply {
            req,
            outcome,
            trouble,
        };
        if replies.send(reply).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

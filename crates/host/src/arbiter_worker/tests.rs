use std::time::Duration;

use twinvm_protocol::{Incarnation, LiveName, MemoryArbiter, NodeId};

use super::*;

/// Answers when it is let go on, once per token.
struct Gated {
    inner: MemoryArbiter,
    entered: Sender<()>,
    tokens: Receiver<()>,
}

impl ArbiterContract for Gated {
    fn read(&mut self) -> Outcome {
        let _ = self.entered.send(());
        match self.tokens.recv() {
            Ok(()) => self.inner.read(),
            Err(_) => Outcome::Unknown,
        }
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        let _ = self.entered.send(());
        match self.tokens.recv() {
            Ok(()) => self.inner.cas(expect, record),
            Err(_) => Outcome::Unknown,
        }
    }
}

impl ArbiterBackend for Gated {
    fn take_trouble(&mut self) -> Option<String> {
        Some("gate".to_owned())
    }
}

fn record(generation: u64) -> Record {
    let (id, incarnation) = (NodeId(1), Incarnation(2));
    Record::solo(Generation(generation), LiveName { id, incarnation })
}

struct Asked {
    worker: ArbiterWorker,
    token: Sender<()>,
    entered: Receiver<()>,
    answers: Receiver<ArbiterReply>,
}

fn gated() -> Asked {
    let (enter, entered) = crossbeam_channel::unbounded();
    let (token, tokens) = crossbeam_channel::unbounded();
    let (replies, answers) = crossbeam_channel::unbounded();
    let backend = Gated {
        inner: MemoryArbiter::new(),
        entered: enter,
        tokens,
    };
    let worker = ArbiterWorker::start(Box::new(backend), replies).unwrap();
    Asked {
        worker,
        token,
        entered,
        answers,
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn answers_come_in_order_with_their_requests_names() {
    let Asked {
        worker,
        token,
        answers,
        ..
    } = gated();
    worker
        .submit(ArbiterRequest::Read { req: ReqId(5) })
        .unwrap();
    let cas = ArbiterRequest::Cas {
        req: ReqId(6),
        expect: Generation(0),
        record: record(1),
    };
    worker.submit(cas).unwrap();
    token.send(()).unwrap();
    token.send(()).unwrap();
    let first = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!((first.req, first.outcome), (ReqId(5), Outcome::Read(None)));
    assert_eq!(first.trouble.as_deref(), Some("gate"));
    let second = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (second.req, second.outcome),
        (ReqId(6), Outcome::Won(record(1)))
    );
}

#[test]
fn a_hung_arbiter_never_blocks_the_asker() {
    let Asked {
        worker,
        token,
        answers,
        ..
    } = gated();
    // One that waited would wait for ever: nobody gives a token.
    let mut accepted = 0;
    for req in 0..100 {
        let request = ArbiterRequest::Read { req: ReqId(req) };
        accepted += usize::from(worker.submit(request).is_ok());
    }
    // One is being asked, if its thread has come to it.
    assert!(
        (MAX_REQUESTS..=MAX_REQUESTS + 1).contains(&accepted),
        "{accepted}"
    );
    // It wakes up: every accepted request is answered once, no other.
    drop(token);
    for req in 0..accepted as u64 {
        let reply = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!((reply.req, reply.outcome), (ReqId(req), Outcome::Unknown));
    }
    drop(worker);
    assert!(answers.recv_timeout(PATIENCE).is_err());
}

#[test]
fn a_dropped_worker_sends_no_waiting_request() {
    let Asked {
        worker,
        token,
        entered,
        answers,
    } = gated();
    for req in 0..3 {
        worker
            .submit(ArbiterRequest::Read { req: ReqId(req) })
            .unwrap();
    }
    // The first has its answer, the second waits for its token.
    token.send(()).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().req, ReqId(0));
    entered.recv_timeout(PATIENCE).unwrap();
    entered.recv_timeout(PATIENCE).unwrap();
    // Its thread waits for a token all the while.
    drop(worker);
    token.send(()).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().req, ReqId(1));
    assert!(answers.recv_timeout(PATIENCE).is_err());
}

/// Fails with the first of these reasons, then the next; an empty one is an answer.
struct Failing(std::vec::IntoIter<&'static str>, Option<String>);

impl ArbiterContract for Failing {
    fn read(&mut self) -> Outcome {
        match self.0.next() {
            None | Some("") => Outcome::Read(None),
            Some(why) => {
                self.1 = Some(why.to_owned());
                Outcome::Unknown
            }
        }
    }

    fn cas(&mut self, _: Generation, _: Record) -> Outcome {
        Outcome::Unknown
    }
}

impl ArbiterBackend for Failing {
    fn take_trouble(&mut self) -> Option<String> {
        self.1.take()
    }
}

#[test]
fn a_trouble_that_lasts_is_told_once() {
    let (replies, answers) = crossbeam_channel::unbounded();
    let reasons = vec!["a", "a", "b", "b", "", "b"];
    let expected = [Some("a"), None, Some("b"), None, None, Some("b")];
    let backend = Box::new(Failing(reasons.into_iter(), None));
    let worker = ArbiterWorker::start(backend, replies).unwrap();
    for (number, expected) in (1..).zip(expected) {
        let req = ReqId(number);
        worker.submit(ArbiterRequest::Read { req }).unwrap();
        let reply = answers.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(reply.trouble.as_deref(), expected, "{number}");
    }
}

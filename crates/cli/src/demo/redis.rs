//! The clients of the Redis guest: one that counts, and others on keys that they share.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::{Client, Seen};
use super::error::DemoError;
use super::load::Load;
use super::report::{History, Told, Wording};
use crate::lab::clients::{self, Clients, Seens};
use crate::lab::history::Verdict;

/// Beside the client that counts, these ask for different things on shared keys. They pause between
/// two questions, so that the waits of the first are its own.
const OTHERS: u16 = 3;
const OTHERS_THINK: Duration = Duration::from_millis(10);
/// With one request at a time, at most one answer of the killed node can still be on its way.
const FLOWING_ANSWERS: usize = 5;

/// What is told of the one that counts.
pub(super) const WORDING: Wording = Wording {
    what: "answers",
    on: "on one connection",
    title: "One connection through every takeover",
    right: "GET says the same (demo:count)",
    wrong: "GET DOESN'T SAY THE SAME (demo:count)",
    unknown: "GET was not asked (demo:count)",
};

/// All clients.
pub(super) struct RedisLoad {
    address: SocketAddr,
    client: Client,
    others: Option<Clients>,
}

impl RedisLoad {
    /// Connects the one that counts; it begins.
    pub(super) fn start(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self {
            address,
            client: Client::start(address)?,
            others: None,
        })
    }

    /// Starts the others; how many.
    pub(super) fn start_others(&mut self, seed: u64) -> Result<u16, DemoError> {
        let others = Clients::start(&clients::Load {
            address: self.address,
            clients: OTHERS,
            think: OTHERS_THINK,
            seed,
        });
        self.others = Some(others.map_err(|error| DemoError::failed(error.to_string()))?);
        Ok(OTHERS)
    }
}

impl Load for RedisLoad {
    fn now_us(&self) -> u64 {
        self.client.now_us()
    }

    fn answer_after(&self, since_us: u64, nth: usize) -> Option<u64> {
        self.client.answer_after(since_us, nth)
    }

    fn flowing_answers(&self) -> usize {
        FLOWING_ANSWERS
    }

    fn times_us(&self) -> Vec<u64> {
        self.client.seen().times_us
    }

    fn fault(&mut self) -> Option<String> {
        self.client.fault()
    }

    fn audit(&mut self) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn finish(self: Box<Self>, orderly: bool) -> Result<Told, DemoError> {
        let Self {
            address,
            client,
            others,
        } = *self;
        let broken = client.fault().is_some();
        let history = match others {
            Some(others) if orderly && !broken => Some(
                others
                    .finish(address)
                    .map_err(|error| DemoError::Client(error.to_string()))?,
            ),
            _ => None,
        };
        let seen = match orderly {
            true => client.finish(),
            false => client.seen(),
        };
        Ok(Told {
            history: history.as_ref().map(history_of),
            ..told(seen)
        })
    }
}

/// What the one that counts has to tell.
pub(super) fn told(seen: Seen) -> Told {
    let final_check = seen.final_value.as_ref();
    Told {
        final_check: final_check.map(|value| *value == seen.last.to_string()),
        times_us: seen.times_us,
        tally: seen.tally,
        fault: seen.fault,
        wording: WORDING,
        history: None,
        sessions: Vec::new(),
    }
}

/// What the other clients' history is.
fn history_of(seen: &Seens) -> History {
    let verdict = seen.verdict();
    let right = verdict == Verdict::Linearizable;
    let lost = seen.lost.first();
    History {
        clients: OTHERS,
        answers: seen.answers(),
        linearizable: right,
        failure: (!right)
            .then(|| verdict.to_string())
            .or_else(|| lost.map(|why| format!("a connection was lost: {why}"))),
    }
}

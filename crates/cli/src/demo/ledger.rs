//! Clients of a ledger in the guest's PostgreSQL, and a journal of what they were told.
//!
//! Each client moves money between accounts on one connection, one transaction at a time:
//!
//! ```text
//! BEGIN; SELECT … FOR UPDATE ─> both balances ─> UPDATE, UPDATE, INSERT ─> COMMIT ─> journal
//! ```
//!
//! The rows are locked in the order of their numbers, so no two transactions wait for each other.
//! A transfer's row carries a number of its client's, and the versions that it gave the two
//! accounts. No constraint keeps a row from being there twice: it would show. What must hold is in
//! [`check`].

pub(crate) mod check;
mod client;
mod tables;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::DemoError;
use crate::lab::pg::{Pg, PgError};
use check::Finding;
use tables::Present;

/// Accounts: few, so that clients meet.
pub(crate) const ACCOUNTS: u16 = 16;
/// What each begins with.
pub(crate) const BALANCE: i64 = 1000;
/// Clients that transfer.
pub(crate) const CLIENTS: u16 = 4;
/// Role and database.
const ROLE: &str = "postgres";
const DATABASE: &str = "postgres";
/// How long the server may take to let somebody in.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long a question of our own may take: a takeover lies within, and a join.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// How long the last answers may take once clients are to end.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// What one transaction asked for and read. Times are microseconds of the ledger's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) client: u16,
    /// Of this client's transfers, from 0.
    pub(crate) number: u64,
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) amount: i64,
    /// Balance and version of either account as the transaction read them under its locks.
    pub(crate) from_read: (i64, i64),
    pub(crate) to_read: (i64, i64),
    pub(crate) asked_us: u64,
    /// When the commit was acknowledged; none if it never was.
    pub(crate) acked_us: Option<u64>,
}

/// A look at all accounts in one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// Balance and version, by account.
    pub(crate) accounts: Vec<(i64, i64)>,
    pub(crate) asked_us: u64,
    pub(crate) answered_us: u64,
}

/// All that clients have asked and been told.
#[derive(Debug, Default, Clone)]
pub(crate) struct Journal {
    /// Whose commit was sent, in the order in which they were answered.
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) looks: Vec<Look>,
    /// When each commit was acknowledged; never decreasing.
    pub(crate) times_us: Vec<u64>,
    /// Acknowledged transfers, by client.
    pub(crate) acked: [u64; CLIENTS as usize],
    /// Connections that ended, and refusals.
    pub(crate) broken: Vec<String>,
}

/// What clients share.
#[derive(Debug)]
struct Shared {
    origin: Instant,
    stop: AtomicBool,
    journal: Mutex<Journal>,
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A ledger with clients at work, each in a thread of its own.
#[derive(Debug)]
pub(crate) struct Ledger {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The connection for questions of our own; it too goes through every takeover.
    pg: Pg,
}

/// What is known at the end.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) journal: Journal,
    /// What is wrong with journal and tables together.
    pub(crate) finding: Finding,
}

impl Ledger {
    /// Makes the tables and begins.
    pub(crate) fn start(address: SocketAddr, seed: u64) -> Result<Self, DemoError> {
        let mut pg = connect(address)?;
        tables::make(&mut pg)?;
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            stop: AtomicBool::new(false),
            journal: Mutex::default(),
        });
        let mut ledger = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            pg,
        };
        for number in 0..CLIENTS {
            let client = client::Client::new(number, connect(address)?, seed, &shared);
            ledger.spawn(format!("ledger {number}"), move || client.run())?;
        }
        let looker = client::Looker::new(connect(address)?, &shared);
        ledger.spawn("ledger look".to_owned(), move || looker.run())?;
        Ok(ledger)
    }

    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), DemoError> {
        let thread = thread::Builder::new().name(name).spawn(run);
        let thread = thread.map_err(|error| DemoError::failed(format!("a client: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Microseconds since the clients' start.
    pub(crate) fn now_us(&self) -> u64 {
        self.shared.now_us()
    }

    /// When the `nth` commit after `since_us` was acknowledged (1 is the first), if it was.
    pub(crate) fn ack_after(&self, since_us: u64, nth: usize) -> Option<u64> {
        let journal = self.shared.journal();
        let first = journal.times_us.partition_point(|&at| at <= since_us);
        journal.times_us.get(first + nth - 1).copied()
    }

    /// What no takeover may do to a client, if it has happened.
    pub(crate) fn fault(&self) -> Option<String> {
        self.shared.journal().broken.first().cloned()
    }

    /// When commits were acknowledged so far.
    pub(crate) fn times_us(&self) -> Vec<u64> {
        self.shared.journal().times_us.clone()
    }

    /// What has been told so far.
    pub(crate) fn journal(&self) -> Journal {
        self.shared.journal().clone()
    }

    /// Looks whether everything that had been acknowledged is in the tables, once, and the sum
    /// right; how many transfers there are.
    pub(crate) fn audit(&mut self) -> Result<u64, String> {
        let acked = self.shared.journal().acked;
        let present = tables::count(&mut self.pg).map_err(|error| format!("the audit: {error}"))?;
        audit(&acked, &present)
    }

    /// Ends the clients, reads the tables and judges everything.
    pub(crate) fn finish(mut self) -> Result<Outcome, DemoError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| DemoError::failed("a client of the ledger has panicked"))?;
        }
        let stored = tables::read(&mut self.pg).map_err(refused)?;
        let journal = std::mem::take(&mut *self.shared.journal());
        let finding = check::judge(&journal, &stored);
        Ok(Outcome { journal, finding })
    }
}

/// Ends the threads without waiting: they look at the flag by themselves.
impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Lets a client in.
pub(crate) fn connect(address: SocketAddr) -> Result<Pg, DemoError> {
    Pg::connect(address, ROLE, DATABASE, CONNECT_LIMIT).map_err(refused)
}

/// Whether the server lets somebody in and answers.
pub(crate) fn answers(address: SocketAddr, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let ask = || -> Result<usize, PgError> {
        let mut pg = Pg::connect(address, ROLE, DATABASE, limit)?;
        Ok(pg.query("SELECT 1", || Instant::now() < until)?.len())
    };
    ask().is_ok_and(|rows| rows == 1)
}

fn refused(error: PgError) -> DemoError {
    DemoError::failed(format!("the guest's PostgreSQL: {error}"))
}

/// Each client's numbers must be there without a hole and without a double, at least up to the
/// last that was acknowledged before the tables were read.
fn audit(acked: &[u64; CLIENTS as usize], present: &Present) -> Result<u64, String> {
    let sum = i64::from(ACCOUNTS) * BALANCE;
    if present.sum != sum {
        return Err(format!(
            "the accounts' sum is {} and not {sum}",
            present.sum
        ));
    }
    for (client, (acked, found)) in acked.iter().zip(&present.clients).enumerate() {
        let (rows, different, next) = *found;
        if different != next || next < *acked {
            return Err(format!(
                "client {client}: {acked} transfers were acknowledged, and {different} up to \
                 number {next} are in the table"
            ));
        }
        if rows != different {
            return Err(format!(
                "client {client}: {} transfers are in the table twice",
                rows - different
            ));
        }
    }
    Ok(present.clients.iter().map(|found| found.0).sum())
}

#[cfg(test)]
mod tests;

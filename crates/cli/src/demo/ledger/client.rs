//! One client: transfers, one after the other; and one that looks at all accounts.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{ACCOUNTS, FINISH_LIMIT, Look, Shared, Transfer, tables};
use crate::lab::clients::Dice;
use crate::lab::pg::{Pg, PgError};

/// Most that one transfer moves.
const MAX_AMOUNT: u64 = 20;
/// Between two looks at all accounts.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Transfers that are kept (80 bytes each).
const MAX_TRANSFERS: usize = 1 << 22;

/// What a client's thread works with.
pub(super) struct Client {
    number: u16,
    pg: Pg,
    dice: Dice,
    /// Number of the next transfer.
    next: u64,
    shared: Arc<Shared>,
}

/// Waits without an end while the clients work, and some time more once they are to end.
fn patience(shared: &Shared) -> impl FnMut() -> bool {
    let mut until = None;
    move || {
        !shared.stopping()
            || Instant::now() < *until.get_or_insert_with(|| Instant::now() + FINISH_LIMIT)
    }
}

impl Client {
    pub(super) fn new(number: u16, pg: Pg, seed: u64, shared: &Arc<Shared>) -> Self {
        Self {
            number,
            pg,
            dice: Dice(seed.wrapping_add(u64::from(number) << 32)),
            next: 0,
            shared: Arc::clone(shared),
        }
    }

    /// Transfers until it is told to stop. A connection that breaks isn't made again: what it had
    /// asked is looked up by its number at the end.
    pub(super) fn run(mut self) {
        while !self.shared.stopping() {
            let mut sent = None;
            let outcome = self.transfer(&mut sent);
            let mut journal = self.shared.journal();
            if let Some(mut transfer) = sent {
                if outcome.is_ok() {
                    // Under the lock, so that times never decrease.
                    let now_us = self.shared.now_us();
                    transfer.acked_us = Some(now_us);
                    journal.times_us.push(now_us);
                    journal.acked[usize::from(self.number)] += 1;
                    self.next += 1;
                }
                journal.transfers.push(transfer);
            }
            if let Err(error) = outcome {
                let (client, number) = (self.number, self.next);
                let why = format!("ledger client {client}, transfer {number}: {error}");
                journal.broken.push(why);
                return;
            }
            if journal.transfers.len() >= MAX_TRANSFERS {
                let why = format!("more than {MAX_TRANSFERS} transfers");
                journal.broken.push(why);
                return;
            }
        }
    }

    /// One transaction. `sent` is what it is from the moment on from which it may be done.
    fn transfer(&mut self, sent: &mut Option<Transfer>) -> Result<(), PgError> {
        let from = (self.dice.next() % u64::from(ACCOUNTS)) as u16;
        let step = 1 + (self.dice.next() % u64::from(ACCOUNTS - 1)) as u16;
        let to = (from + step) % ACCOUNTS;
        let wanted = 1 + (self.dice.next() % MAX_AMOUNT) as i64;
        let asked_us = self.shared.now_us();
        let rows = self.ask(&format!(
            "BEGIN; SELECT id, balance, version FROM account WHERE id IN ({from}, {to}) \
             ORDER BY id FOR UPDATE"
        ))?;
        let mut reads = [(0, 0); 2];
        let [first, second] = &rows[..] else {
            return Err(PgError::Protocol(format!(
                "{} rows for two accounts",
                rows.len()
            )));
        };
        for row in [first, second] {
            let [id, balance, version] = tables::numbers(row)?;
            reads[usize::from(id != i64::from(from))] = (balance, version);
        }
        let [from_read, to_read] = reads;
        let amount = wanted.min(from_read.0);
        let transfer = Transfer {
            client: self.number,
            number: self.next,
            from,
            to,
            amount,
            from_read,
            to_read,
            asked_us,
            acked_us: None,
        };
        let (from_version, to_version) = (from_read.1 + 1, to_read.1 + 1);
        self.ask(&format!(
            "UPDATE account SET balance = {}, version = {from_version} WHERE id = {from}; \
             UPDATE account SET balance = {}, version = {to_version} WHERE id = {to}; \
             INSERT INTO transfer VALUES ({}, {}, {from}, {to}, {amount}, {from_version}, \
             {to_version})",
            from_read.0 - amount,
            to_read.0 + amount,
            self.number,
            self.next,
        ))?;
        *sent = Some(transfer);
        self.ask("COMMIT").map(drop)
    }

    fn ask(&mut self, sql: &str) -> Result<Vec<crate::lab::pg::Values>, PgError> {
        self.pg.query(sql, patience(&self.shared))
    }
}

/// Looks at all accounts again and again.
pub(super) struct Looker {
    pg: Pg,
    shared: Arc<Shared>,
}

impl Looker {
    pub(super) fn new(pg: Pg, shared: &Arc<Shared>) -> Self {
        Self {
            pg,
            shared: Arc::clone(shared),
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.stopping() {
            let look = self.look();
            let mut journal = self.shared.journal();
            match look {
                Ok(look) => journal.looks.push(look),
                Err(error) => {
                    journal.broken.push(format!("the ledger's looker: {error}"));
                    return;
                }
            }
            drop(journal);
            thread::sleep(LOOK_PAUSE);
        }
    }

    fn look(&mut self) -> Result<Look, PgError> {
        let asked_us = self.shared.now_us();
        let sql = "SELECT balance, version FROM account ORDER BY id";
        let rows = self.pg.query(sql, patience(&self.shared))?;
        let accounts = rows.iter().map(|row| {
            let [balance, version] = tables::numbers(row)?;
            Ok((balance, version))
        });
        Ok(Look {
            accounts: accounts.collect::<Result<_, PgError>>()?,
            asked_us,
            answered_us: self.shared.now_us(),
        })
    }
}

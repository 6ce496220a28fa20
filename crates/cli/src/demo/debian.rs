//! The clients of the Debian guest: the ledger, and sessions beside it.

use std::time::Duration;

use super::checker::Tally;
use super::error::DemoError;
use super::ledger::{self, CLIENTS, Ledger, Outcome};
use super::load::Load;
use super::report::{History, Told, Wording};
use super::sessions::{Services, Sessions};
use super::vm::Files;
use crate::lab::pg::Pg;

/// As many commits as clients can still be on their way from the killed node, and some more.
const FLOWING_ANSWERS: usize = CLIENTS as usize + 4;

const WORDING: Wording = Wording {
    what: "transfers",
    on: "on 4 connections",
    title: "PostgreSQL's clients through every takeover",
    right: "the tables say the same, balances and sum are right",
    wrong: "THE TABLES DON'T SAY THE SAME",
    unknown: "the tables were not asked",
};

/// All clients.
pub(super) struct DebianLoad {
    ledger: Ledger,
    sessions: Sessions,
    /// For questions about pgbench's tables.
    pg: Pg,
}

impl DebianLoad {
    pub(super) fn start(files: &Files, services: &Services, seed: u64) -> Result<Self, DemoError> {
        Ok(Self {
            pg: ledger::connect(services.postgres)?,
            sessions: Sessions::start(files, services)?,
            ledger: Ledger::start(services.postgres, seed)?,
        })
    }

    /// Whether the guest's PostgreSQL answers.
    pub(super) fn is_up(services: &Services, limit: Duration) -> bool {
        ledger::answers(services.postgres, limit)
    }
}

impl Load for DebianLoad {
    fn now_us(&self) -> u64 {
        self.ledger.now_us()
    }

    fn answer_after(&self, since_us: u64, nth: usize) -> Option<u64> {
        self.ledger.ack_after(since_us, nth)
    }

    fn flowing_answers(&self) -> usize {
        FLOWING_ANSWERS
    }

    fn times_us(&self) -> Vec<u64> {
        self.ledger.times_us()
    }

    fn fault(&mut self) -> Option<String> {
        self.ledger.fault().or_else(|| self.sessions.fault())
    }

    fn audit(&mut self) -> Result<Option<String>, String> {
        let transfers = self.ledger.audit()?;
        Ok(Some(format!(
            "{transfers} transfers are in the table: every acknowledged one, none twice; the sum \
             is right"
        )))
    }

    fn finish(mut self: Box<Self>, orderly: bool) -> Result<Told, DemoError> {
        if !orderly {
            let journal = self.ledger.journal();
            return Ok(Told {
                tally: Tally {
                    answers: journal.acked.iter().sum(),
                    ..Tally::default()
                },
                fault: journal.broken.first().cloned(),
                times_us: journal.times_us,
                wording: WORDING,
                ..Told::default()
            });
        }
        let sessions = self.sessions.finish(&mut self.pg);
        // What the tables say is judged also where a connection is broken.
        let outcome = self.ledger.finish()?;
        Ok(Told {
            sessions,
            ..told(outcome)
        })
    }
}

/// What a ledger has to tell.
fn told(Outcome { journal, finding }: Outcome) -> Told {
    let tables_are_right = finding.lost == 0 && finding.duplicated == 0 && finding.wrong.is_empty();
    let unknown = match finding.unknown {
        (0, 0) => None,
        (done, undone) => Some(format!(
            "{} commits were never answered: {done} of them are done, {undone} are not",
            done + undone
        )),
    };
    Told {
        tally: Tally {
            answers: journal.acked.iter().sum(),
            lost: finding.lost,
            duplicated: finding.duplicated,
            out_of_order: 0,
            wrong: finding.wrong.len() as u64,
        },
        final_check: Some(tables_are_right),
        fault: finding
            .wrong
            .first()
            .or(journal.broken.first())
            .cloned()
            .or(unknown),
        times_us: journal.times_us,
        wording: WORDING,
        history: Some(History {
            clients: CLIENTS + 1,
            answers: finding.judged,
            linearizable: finding.no_order.is_none(),
            failure: finding.no_order,
        }),
        sessions: Vec::new(),
    }
}

#[cfg(test)]
mod tests;

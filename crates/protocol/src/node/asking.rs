//! One question to the arbiter at a time, repeated until it is settled.
//!
//! ```text
//!            sent                unknown / no answer
//!   Idle ----------> InFlight ------------------------> Waiting
//!    ^                  | ^                                |
//!    | settled          | |        backoff over            |
//!    +------------------+ +--------------------------------+
//! ```
//!
//! A read is settled by its answer. A CAS from g is settled only by a record with a higher
//! generation, from whatever answer; `Unknown` and records that still show g are not
//! answers, because the request may land later.

use std::collections::VecDeque;

use crate::arbiter::Outcome;
use crate::config::{ARBITER_ANSWER_MS, ARBITER_RETRY_FIRST_MS, ARBITER_RETRY_LAST_MS};
use crate::event::Action;
use crate::record::{Generation, Record, ReqId};
use crate::time::Instant;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Read,
    Cas { expect: Generation, record: Record },
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    InFlight { give_up: Instant },
    Waiting { until: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    question: Question,
    req: ReqId,
    stage: Stage,
    backoff_ms: u64,
}

/// The node's side of the arbiter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asking {
    last_req: u64,
    pending: Option<Pending>,
    unanswered: u32,
    /// A CAS was refused by a register that shows less than the CAS expects.
    behind: Option<Generation>,
}

impl Asking {
    /// What is being asked.
    pub(crate) fn question(&self) -> Option<Question> {
        self.pending.map(|p| p.question)
    }

    /// Whether the outcome of a CAS is awaited.
    pub(crate) fn awaits_cas(&self) -> bool {
        matches!(self.question(), Some(Question::Cas { .. }))
    }

    /// What a person should know if the present question finds no answer.
    pub(crate) fn trouble(&self) -> Option<String> {
        match (self.behind, self.question()) {
            (Some(shown), Some(Question::Cas { expect, .. })) => Some(format!(
                "the arbiter shows generation {shown} where {expect} was reached before: it \
                 has lost records; restore it"
            )),
            _ if self.unanswered > 1 => {
                Some("the arbiter does not answer; asking again".to_owned())
            }
            _ => None,
        }
    }

    /// Whether the present question found no answer at least once.
    pub(crate) fn unanswered(&self) -> bool {
        self.unanswered > 0
    }

    /// Forgets the question. For a CAS: only when another one that raises the same
    /// generation takes its place.
    pub(crate) fn forget(&mut self) {
        self.pending = None;
        self.unanswered = 0;
        self.behind = None;
    }

    /// Asks, in the place of whatever was asked before.
    pub(crate) fn ask<T>(
        &mut self,
        now: Instant,
        question: Question,
        out: &mut VecDeque<Action<T>>,
    ) {
        self.forget();
        self.send(now, question, ARBITER_RETRY_FIRST_MS, out);
    }

    fn send<T>(
        &mut self,
        now: Instant,
        question: Question,
        backoff_ms: u64,
        out: &mut VecDeque<Action<T>>,
    ) {
        self.last_req += 1;
        let req = ReqId(self.last_req);
        out.push_back(match question {
            Question::Read => Action::ArbiterRead { req },
            Question::Cas { expect, record } => Action::ArbiterCas {
                req,
                expect,
                record,
            },
        });
        self.pending = Some(Pending {
            question,
            req,
            stage: Stage::InFlight {
                give_up: now.plus_ms(ARBITER_ANSWER_MS),
            },
            backoff_ms,
        });
    }

    /// Takes an answer. Returns what a read found, if this settles it; a CAS is settled by
    /// [`Asking::settle`].
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        req: ReqId,
        outcome: &Outcome,
    ) -> Option<Option<Record>> {
        let pending = self.pending.as_mut().filter(|p| p.req == req)?;
        match (pending.question, outcome) {
            (Question::Read, Outcome::Read(record)) => {
                self.forget();
                Some(*record)
            }
            (question, outcome) => {
                if let (Question::Cas { expect, .. }, Outcome::Lost(shown)) = (question, outcome) {
                    let shown = shown.map_or(Generation(0), |r| r.generation);
                    self.behind = Some(shown).filter(|g| *g < expect);
                }
                pending.stage = Stage::Waiting {
                    until: now.plus_ms(pending.backoff_ms),
                };
                self.unanswered = self.unanswered.saturating_add(1);
                None
            }
        }
    }

    /// A record of this generation exists: the end of any CAS from a lower one. True if
    /// one was awaited.
    pub(crate) fn settle(&mut self, generation: Generation) -> bool {
        let settled =
            matches!(self.question(), Some(Question::Cas { expect, .. }) if generation > expect);
        if settled {
            self.forget();
        }
        settled
    }

    /// Repeats the question when its time has come.
    pub(crate) fn tick<T>(&mut self, now: Instant, out: &mut VecDeque<Action<T>>) {
        let Some(pending) = self.pending else {
            return;
        };
        match pending.stage {
            Stage::InFlight { give_up } if now >= give_up => {
                self.unanswered = self.unanswered.saturating_add(1);
            }
            Stage::Waiting { until } if now >= until => {}
            _ => return,
        }
        let backoff_ms = (pending.backoff_ms * 2).min(ARBITER_RETRY_LAST_MS);
        self.send(now, pending.question, backoff_ms, out);
    }

    /// When [`Asking::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.map(|p| match p.stage {
            Stage::InFlight { give_up } => give_up,
            Stage::Waiting { until } => until,
        })
    }
}

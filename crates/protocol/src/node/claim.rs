//! Claiming: a backup without its live node.
//!
//! ```text
//!   Draining ----> Asking ----------------> (Live)    the record names us live
//!      |             ^  \
//!      |             |   +----------------> (Cold)    it names neither us nor our session
//!      +--> Reading -+---------------------> (Cold)
//!     never told that we were paired
//! ```
//!
//! Draining is a stage because the last position is read only after storing and acking have
//! ended; Reading because a backup that was never told may not be named; Asking because
//! only a higher generation settles. Disk durability belongs to the drain; fencing of shared
//! storage comes between the won CAS and the first access.

use crate::config::REREAD_MS;
use crate::event::{ExitReason, NoteLevel};
use crate::node::core::{Change, Core};
use crate::node::follow::Follow;
use crate::node::mutation::Mutation;
use crate::record::{Position, Record};
use crate::time::Instant;

/// How far the claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimStage {
    Draining,
    Reading,
    Asking,
}

/// A claim.
#[derive(Debug)]
pub(crate) struct Claim<T> {
    pub(crate) follow: Follow<T>,
    pub(crate) stage: ClaimStage,
    /// The end of the log we hold, once drained.
    pub(crate) drained: Position,
    /// Reading: the arbiter showed what it can't show as long as it keeps its records.
    read_again: Option<Instant>,
}

impl<T> Claim<T> {
    pub(crate) fn new(follow: Follow<T>) -> Self {
        Self {
            follow,
            stage: ClaimStage::Draining,
            drained: Position(0),
            read_again: None,
        }
    }

    pub(crate) fn on_drained(&mut self, core: &mut Core<T>, now: Instant, position: Position) {
        if self.stage != ClaimStage::Draining {
            core.fault("drained twice");
            return;
        }
        if position < self.follow.acked && !core.broken(Mutation::AckBeforeStored) {
            core.fault(format!(
                "drained to {position}, but {} was acked",
                self.follow.acked
            ));
            return;
        }
        self.drained = position;
        if core.broken(Mutation::ClaimWithoutCas) {
            let record = Record::solo(core.generation.next(), core.live_name());
            core.change(Change::Claimed(record));
            return;
        }
        // A late answer may have shown that the record has moved on since we were told.
        let newer = core
            .record
            .filter(|r| self.follow.told.is_some_and(|g| r.generation > g));
        match self.follow.told {
            Some(_) if let Some(record) = newer => self.look(core, now, &record),
            Some(generation) => {
                self.stage = ClaimStage::Asking;
                core.ask_cas(now, generation, None, false);
            }
            None => {
                self.stage = ClaimStage::Reading;
                core.ask_read(now);
            }
        }
    }

    pub(crate) fn on_read(&mut self, core: &mut Core<T>, now: Instant, read: Option<Record>) {
        if self.stage != ClaimStage::Reading {
            return;
        }
        match (self.unlikely(core, read.as_ref()), read) {
            (None, Some(record)) => self.look(core, now, &record),
            // Only if a test broke the rule.
            (None, None) => core.change(Change::Discard("the arbiter has no record".into())),
            (Some(why), _) => {
                self.read_again = Some(now.plus_ms(REREAD_MS));
                core.note(
                    NoteLevel::Error,
                    format!(
                        "claiming, the VM stands still, and nothing is decided: {why}, so it has \
                         lost records. Restore it, or give the VM's memory up: end both nodes and \
                         see twinvm arbiter reset --help"
                    ),
                );
            }
        }
    }

    /// What is wrong with an arbiter that shows this. The record by which we were welcomed had been
    /// won before, and nobody but the node that welcomed us had one of that generation. A request
    /// for the first record may be late by the whole life of the VM: it lands where all records are
    /// lost.
    fn unlikely<U>(&self, core: &Core<U>, read: Option<&Record>) -> Option<String> {
        let (generation, by) = self.follow.welcomed_by;
        match read {
            None if core.broken(Mutation::AbsentEndsClaim) => None,
            None => Some(format!(
                "the arbiter has no record, where {generation} was reached before"
            )),
            Some(record) if record.generation < generation => {
                let shown = record.generation;
                Some(format!(
                    "the arbiter shows generation {shown}, where {generation} was reached before"
                ))
                .filter(|_| !core.broken(Mutation::OldEndsClaim))
            }
            Some(record) if record.generation == generation && record.live.id != by => {
                Some(format!(
                    "the arbiter shows another record of generation {generation} than there was \
                     ({record})"
                ))
                .filter(|_| !core.broken(Mutation::OldEndsClaim))
            }
            Some(_) => None,
        }
    }

    pub(crate) fn on_record(&mut self, core: &mut Core<T>, now: Instant, record: &Record) {
        if self.stage == ClaimStage::Asking {
            self.look(core, now, record);
        }
    }

    fn look(&mut self, core: &mut Core<T>, now: Instant, record: &Record) {
        if record.live == core.live_name() {
            core.change(Change::Claimed(*record));
        } else if record.names_backup(core.me.id, self.follow.session)
            || core.broken(Mutation::ClaimUntold) && self.stage == ClaimStage::Reading
        {
            self.stage = ClaimStage::Asking;
            core.ask_cas(now, record.generation, None, false);
        } else if record.halted {
            core.change(Change::Exit(ExitReason::PeerHalted));
        } else {
            let why = format!("the claim is lost: {record}");
            core.change(Change::Discard(why));
        }
    }

    /// Whether the next read has its time.
    pub(crate) fn reads_again(&self) -> bool {
        self.read_again.is_some()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.read_again
    }

    pub(crate) fn tick(&mut self, core: &mut Core<T>, now: Instant) {
        if self.read_again.take_if(|at| now >= *at).is_some() {
            core.ask_read(now);
        }
        if let Some(trouble) = core.asking.trouble() {
            core.note(
                NoteLevel::Error,
                format!("claiming, the VM stands still until it is decided, but {trouble}"),
            );
        }
    }
}

//! What must never be seen from outside.

use std::collections::BTreeMap;

use twinvm_protocol::arbiter::succession::Succession;
use twinvm_protocol::{Generation, LiveName, NodeId, Record};

use crate::guest::{Answer, Contents};

/// One life of a live node.
pub(crate) type Life = u64;

/// Watches who goes live, by what, and what leaves.
#[derive(Default)]
pub(crate) struct Check {
    /// Power-ons so far: the newest boot.
    pub(crate) boot: u64,
    /// What left, of this boot, by number.
    emitted: BTreeMap<u64, Answer>,
    lives: Succession,
    /// What each claim's state held when the claim was sent.
    claims: BTreeMap<(u128, u128), Contents>,
    pub(crate) takeovers: u64,
    pub(crate) emissions: u64,
    /// By backups.
    pub(crate) spoken: u64,
}

fn key(name: LiveName) -> (u128, u128) {
    (name.id.0, name.incarnation.0)
}

impl Check {
    /// `held`: the backup that the record before named is up and holds the session.
    pub(crate) fn cold_start(
        &mut self,
        life: Life,
        id: NodeId,
        generation: Generation,
        history: &[Record],
        held: bool,
    ) -> Result<(), String> {
        self.lives
            .starts_cold(life, id, generation, history, held)?;
        self.boot += 1;
        self.emitted.clear();
        Ok(())
    }

    /// A drained backup asks for the record.
    pub(crate) fn claim(&mut self, name: LiveName, contents: Contents) {
        self.claims.insert(key(name), contents);
    }

    pub(crate) fn go_live(
        &mut self,
        life: Life,
        id: NodeId,
        generation: Generation,
        history: &[Record],
        contents: &Contents,
    ) -> Result<(), String> {
        self.lives.goes_live(life, id, generation, history)?;
        // 0: the guest has not yet looked at its clock.
        if contents.boot != self.boot && contents.boot != 0 {
            return Err(format!(
                "boot {} went live, boot {} is the newest",
                contents.boot, self.boot
            ));
        }
        let mut emitted = self.emitted.values();
        if let Some(answer) = emitted.find(|answer| !contents.contains(answer)) {
            return Err(format!(
                "{answer:?} has left, but the new live state ({} answers) does not contain it",
                contents.chains.len()
            ));
        }
        self.takeovers += 1;
        Ok(())
    }

    pub(crate) fn emit(
        &mut self,
        life: Life,
        answer: &Answer,
        history: &[Record],
    ) -> Result<(), String> {
        if let Some(next) = self.lives.successor(life, history)? {
            // Acked before it lost, the frame is in the log that its successor claimed with.
            let claim = self.claims.get(&key(next.live));
            if !claim.is_some_and(|contents| contents.contains(answer)) {
                return Err(format!(
                    "a former live node emitted {answer:?}, which is not in the winner's log"
                ));
            }
        } else if answer.boot != self.boot {
            return Err(format!(
                "{answer:?} left, but boot {} is the newest",
                self.boot
            ));
        }
        self.emissions += 1;
        self.seen(answer)
    }

    /// A backup emits; `live` is what the newest live node's state holds, if it is up.
    pub(crate) fn speak(&mut self, answer: &Answer, live: Option<&Contents>) -> Result<(), String> {
        if let Some(contents) = live
            && answer.boot == self.boot
            && !contents.contains(answer)
        {
            return Err(format!(
                "a backup emitted {answer:?}, which the live node has not made"
            ));
        }
        // One that has not heard of a cold start yet may still speak of what was before.
        self.spoken += 1;
        self.seen(answer)
    }

    fn seen(&mut self, answer: &Answer) -> Result<(), String> {
        if answer.boot == self.boot {
            let first = *self.emitted.entry(answer.number).or_insert(*answer);
            if first != *answer {
                return Err(format!(
                    "answer {} left in two versions: {first:?}, then {answer:?}",
                    answer.number
                ));
            }
        }
        Ok(())
    }

    /// All that has left is in the final live state, and nothing that it made is missing on the
    /// wire.
    pub(crate) fn nothing_lost(&self, contents: &Contents) -> Result<(), String> {
        if let Some(answer) = self.emitted.values().find(|a| !contents.contains(a)) {
            return Err(format!(
                "{answer:?} has left, but the live state does not contain it"
            ));
        }
        let made = 1..=contents.chains.len() as u64;
        match made.into_iter().find(|n| !self.emitted.contains_key(n)) {
            Some(number) => Err(format!("answer {number} was made but never left")),
            None => Ok(()),
        }
    }
}

//! What must never be seen from outside.

use std::collections::{HashMap, HashSet};

use twinvm_protocol::arbiter::succession::Succession;
use twinvm_protocol::{Generation, LiveName, NodeId, Record};

use super::machine::{Out, Vm, contains};

/// One life of a live node.
pub(crate) type Life = u64;

#[derive(Default)]
pub(crate) struct Check {
    pub(crate) boot: u64,
    /// What left, of this boot.
    emitted: Vec<Out>,
    emitted_positions: HashSet<u64>,
    lives: Succession,
    /// The drained log with which each claim was sent.
    claims: HashMap<LiveName, (u64, Vec<u64>)>,
    pub(crate) takeovers: u64,
    pub(crate) emissions: u64,
    /// By backups.
    pub(crate) spoken: u64,
}

impl Check {
    /// `held`: a backup that the record before named is up and holds the session.
    pub(crate) fn cold_start(
        &mut self,
        life: Life,
        id: NodeId,
        generation: Generation,
        history: &[Record],
        held: bool,
    ) -> Result<u64, String> {
        self.lives
            .starts_cold(life, id, generation, history, held)?;
        self.boot += 1;
        self.emitted.clear();
        self.emitted_positions.clear();
        Ok(self.boot)
    }

    /// A drained backup asks for the record.
    pub(crate) fn claim(&mut self, name: LiveName, vm: &Vm) {
        self.claims.insert(name, (vm.boot, vm.history.clone()));
    }

    pub(crate) fn go_live(
        &mut self,
        life: Life,
        id: NodeId,
        generation: Generation,
        history: &[Record],
        vm: &Vm,
    ) -> Result<(), String> {
        self.lives.goes_live(life, id, generation, history)?;
        if vm.boot != self.boot {
            return Err(format!(
                "boot {} went live, boot {} is the newest",
                vm.boot, self.boot
            ));
        }
        if let Some(out) = self.emitted.iter().find(|o| !vm.contains(o)) {
            return Err(format!(
                "{out:?} has left, the new live state ({} records) does not contain it",
                vm.end()
            ));
        }
        self.takeovers += 1;
        Ok(())
    }

    pub(crate) fn emit(&mut self, life: Life, out: &Out, history: &[Record]) -> Result<(), String> {
        if let Some(next) = self.lives.successor(life, history)? {
            // Acked before it lost, the frame is in the log that its successor claimed with.
            // (The successor may have died since, and the VM begun anew.)
            let known = self
                .claims
                .get(&next.live)
                .is_some_and(|(boot, log)| *boot == out.boot && contains(log, out));
            if !known {
                return Err(format!(
                    "a former live node emitted {out:?}, which is not in the winner's log"
                ));
            }
        } else if out.boot != self.boot {
            return Err(format!(
                "{out:?} left, but boot {} is the newest",
                self.boot
            ));
        }
        self.emissions += 1;
        if out.boot == self.boot {
            self.emitted_positions.insert(out.position);
            self.emitted.push(*out);
        }
        Ok(())
    }

    /// A backup emits, beside the other node if that is live.
    pub(crate) fn speak(&mut self, out: &Out, live: Option<(Life, &Vm)>) -> Result<(), String> {
        if out.boot != self.boot {
            // A backup that has not heard of the cold start yet: so had a live node.
            return Ok(());
        }
        let newest = self.lives.newest();
        if let Some((life, vm)) = live
            && Some(life) == newest
            && !vm.contains(out)
        {
            return Err(format!(
                "a backup emitted {out:?}, which the live node has not made"
            ));
        }
        self.spoken += 1;
        self.emitted_positions.insert(out.position);
        self.emitted.push(*out);
        Ok(())
    }

    /// Nothing that the final live node ever made may be missing on the wire.
    pub(crate) fn nothing_lost(&self, vm: &Vm) -> Result<(), String> {
        let mut outs = vm.outs.iter();
        match outs.find(|o| !self.emitted_positions.contains(&o.position)) {
            Some(out) => Err(format!("{out:?} never left")),
            None => Ok(()),
        }
    }
}

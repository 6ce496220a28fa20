//! What must never be seen from outside.

use std::collections::{HashMap, HashSet};

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
    /// All who went live, in order.
    lives: Vec<(Life, Record)>,
    /// The drained log with which each claim was sent.
    claims: HashMap<LiveName, (u64, Vec<u64>)>,
    pub(crate) takeovers: u64,
    pub(crate) emissions: u64,
    /// By backups.
    pub(crate) spoken: u64,
}

impl Check {
    /// Going live takes a won record, newer than that of anyone before.
    fn won(
        &mut self,
        life: Life,
        id: NodeId,
        generation: Generation,
        history: &[Record],
    ) -> Result<(), String> {
        let record = history.get((generation.0 as usize).wrapping_sub(1));
        let Some(record) = record.filter(|r| r.live.id == id) else {
            return Err(format!(
                "{id:?} went live by {generation}, which it never won"
            ));
        };
        match self.lives.last() {
            Some((_, last)) if generation <= last.generation => Err(format!(
                "went live by generation {generation} after {}",
                last.generation
            )),
            _ => {
                self.lives.push((life, *record));
                Ok(())
            }
        }
    }

    /// `held`: a backup that the record before named is up and holds the session.
    pub(crate) fn cold_start(
        &mut self,
        life: Life,
        id: NodeId,
        generation: Generation,
        history: &[Record],
        held: bool,
    ) -> Result<u64, String> {
        self.won(life, id, generation, history)?;
        let before = (generation.0 as usize).checked_sub(2).map(|i| history[i]);
        if before.is_some_and(|r| r.live.id != id) {
            return Err("cold start by a node that was not named live".into());
        }
        if held {
            return Err("cold start beside a backup that holds the VM".into());
        }
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
        self.won(life, id, generation, history)?;
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
        let Some((_, own)) = self.lives.iter().find(|(l, _)| *l == life) else {
            return Err("a node that never was live emitted something".into());
        };
        let after = &history[own.generation.0 as usize..];
        if let Some(next) = after.iter().find(|r| r.live != own.live) {
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
        let newest = self.lives.last().map(|(life, _)| *life);
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

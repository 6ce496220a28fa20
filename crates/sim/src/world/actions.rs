//! What replicas ask of their driver, carried out on simulated hosts.

use twinvm_replica::Action;

use super::turn::brief;
use super::*;
use crate::plan::US;

impl World {
    /// Carries out what the replica asks, in order. `Some` if the process is busy with one thing
    /// for so long; then the rest comes after.
    pub(super) fn perform(&mut self, slot: usize, epoch: u64) -> Result<Option<u64>, String> {
        let late = match self.process(slot, epoch) {
            Some(process) => std::mem::take(&mut process.late),
            None => return Ok(None),
        };
        let mut sent = false;
        loop {
            let Some(process) = self.process(slot, epoch) else {
                return Ok(None);
            };
            let Some(action) = process.replica.next_action() else {
                break;
            };
            sent |= matches!(action, Action::Send { .. });
            let transmits = matches!(action, Action::Transmit { .. });
            if transmits && self.is_broken(DriverFault::SendsFirst) {
                if let Some(process) = self.process(slot, epoch) {
                    process.late.push(action);
                }
                continue;
            }
            if let Some(busy) = self.act_or_crash(slot, epoch, action)? {
                if let Some(process) = self.process(slot, epoch) {
                    process.late.splice(..0, late);
                }
                return Ok(Some(busy));
            }
        }
        if !late.is_empty() && !sent {
            if let Some(process) = self.process(slot, epoch) {
                process.late.splice(..0, late);
            }
            return Ok(None);
        }
        for action in late {
            self.act_or_crash(slot, epoch, action)?;
        }
        Ok(None)
    }

    /// Carries one action out, unless the process ends before or behind it.
    fn act_or_crash(
        &mut self,
        slot: usize,
        epoch: u64,
        action: Action,
    ) -> Result<Option<u64>, String> {
        if self.process(slot, epoch).is_none() {
            return Ok(None);
        }
        let transmits = matches!(action, Action::Transmit { .. });
        let crash = |world: &mut Self, one_in| world.faults && world.rng.one_in(one_in);
        if crash(self, self.measures.crash_one_in) {
            self.trace.note(self.now, || {
                let action = brief(&format!("{action:?}"));
                format!("{} ends before {action}", name(slot))
            });
            self.crash(slot);
            return Ok(None);
        }
        let busy = self.act(slot, epoch, action)?;
        if transmits && crash(self, self.measures.crash_sent_one_in) {
            self.crash(slot);
            return Ok(None);
        }
        Ok(busy)
    }

    fn crash(&mut self, slot: usize) {
        self.fault_count += 1;
        let power = self.rng.one_in(3);
        if self.rng.one_in(2) {
            // All that was on its way is lost.
            self.end_process(slot, power, |_, _, _| 0);
        } else {
            self.down(slot, power);
        }
    }

    fn act(&mut self, slot: usize, epoch: u64, action: Action) -> Result<Option<u64>, String> {
        let now = self.now;
        if self.trace.on {
            let text = brief(&format!("{action:?}"));
            self.trace.note(now, || format!("{} -> {text}", name(slot)));
        }
        match action {
            Action::Dial => {
                let silent = now < self.partition_until && self.rng.one_in(2);
                let (low, high) = if silent {
                    (2000 * MS, 2100 * MS)
                } else {
                    (50 * US, 4 * MS)
                };
                self.after(
                    low,
                    high,
                    Hap::Dialed {
                        slot,
                        epoch,
                        fails: silent,
                    },
                );
            }
            Action::Send { conn, message } => self.send(slot, epoch, conn, message)?,
            Action::Close { conn, .. } => self.close(slot, epoch, conn),
            Action::ArbiterRead { req } => self.ask(slot, epoch, req, Ask::Read),
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                if self.role(slot) == Some(RoleKind::Claiming)
                    && let Some(contents) = self.contents(slot)
                {
                    self.check.claim(record.live, contents);
                    if let Some(process) = self.process(slot, epoch) {
                        process.claim = Some(record.live);
                    }
                }
                // Trouble just where the record changes is what the rules are about.
                if self.faults && self.rng.one_in(5) {
                    let high = self.rng.pick(&[2, 20]) * MS;
                    let slot = self.rng.one_in(2).then_some(slot);
                    let power = false;
                    self.after(50 * US, high, Hap::Trouble { slot, power });
                }
                self.ask(slot, epoch, req, Ask::Cas(expect, record));
            }
            Action::Disk(request) => self.disk_begins(slot, epoch, Work::Request(request)),
            Action::FlushDisks { flush } => self.disk_begins(slot, epoch, Work::Flush(flush)),
            Action::DiskPoint { flush, .. } => self.disk_begins(slot, epoch, Work::Flush(flush)),
            // A copy is always made whole.
            Action::ClearDisks { .. } | Action::DoubtDisks => {}
            Action::ForgetDisks => self.forget_disk(slot, epoch),
            Action::MarkDisks { mark } if self.has_copies() => self.hosts[slot].mark = mark,
            Action::ClaimDisks { generation, .. } if self.measures.shared => {
                self.claim_disk(slot, epoch, generation);
            }
            // Who reads there takes nothing from anybody.
            Action::ReadDisks if self.measures.own_reads => {}
            Action::ReadDisks => return Err("a disk that is not to be read by a backup".into()),
            Action::ClaimDisks { .. } => {
                return Err("a claim of disks that are not there".into());
            }
            Action::MarkDisks { .. } => return Err("a mark for disks that are not there".into()),
            Action::PersistGeneration { generation } => {
                return Ok(self.store(slot, epoch, generation.0));
            }
            Action::Transmit { bytes, .. } => self.transmit(slot, epoch, &bytes)?,
            Action::RoleChanged { from, to, .. } => self.role_changed(slot, epoch, from, to)?,
            Action::Exit { .. } => self.down(slot, false),
            Action::Fatal { what } => {
                if self.broken.is_none() {
                    return Err(format!(
                        "node {} found a fault of its own: {what}",
                        name(slot)
                    ));
                }
                self.down(slot, false);
            }
            Action::Console(_) | Action::Note { .. } | Action::CtlAnswer { .. } => {}
        }
        Ok(None)
    }

    /// Begins to store a generation; the process waits for that.
    fn store(&mut self, slot: usize, epoch: u64, generation: u64) -> Option<u64> {
        let now = self.now;
        if self.is_broken(DriverFault::GenerationLater) {
            self.hosts[slot].stored = generation;
            return None;
        }
        let busy = self.rng.range(US, self.measures.sync_ns);
        if self.faults && self.rng.one_in(25) {
            let (slot, power) = (Some(slot), true);
            self.after(0, busy, Hap::Trouble { slot, power });
        }
        self.hosts[slot].disk.begin(generation);
        let process = self.process(slot, epoch)?;
        process.storing = Some((now, busy, generation));
        Some(busy)
    }

    /// The generation that was being stored is.
    pub(super) fn finish_storing(&mut self, slot: usize) {
        let host = &mut self.hosts[slot];
        let storing = host
            .process
            .as_mut()
            .and_then(|process| process.storing.take());
        if let Some((_, _, generation)) = storing {
            host.disk.advance(1, 1);
            host.stored = host.stored.max(generation);
        }
    }

    fn role_changed(
        &mut self,
        slot: usize,
        epoch: u64,
        from: RoleKind,
        to: RoleKind,
    ) -> Result<(), String> {
        if (from, to) == (RoleKind::Claiming, RoleKind::Cold) {
            self.check_lost(slot, epoch)?;
        }
        if to != RoleKind::Live {
            return Ok(());
        }
        let id = NodeId(slot as u128 + 1);
        self.lives += 1;
        let (life, now) = (self.lives, self.now);
        let Some(process) = self.process(slot, epoch) else {
            return Ok(());
        };
        process.life = life;
        let generation = process.replica.status().protocol.generation;
        if from != RoleKind::Cold {
            process.live_since = now;
        }
        // A slice of `self`'s own would be borrowed with it.
        let history = self.records().to_vec();
        if from == RoleKind::Cold {
            let before = (generation.0 as usize).checked_sub(2);
            let before = before.and_then(|n| history.get(n)).copied();
            // After `cold_delay_ms` a node starts beside one that it can't reach, as configured.
            let waits = self.measures.cold_delay_ms.is_none();
            let held = waits && self.holds(1 - slot, before);
            return self.check.cold_start(life, id, generation, &history, held);
        }
        let contents = self.contents(slot).unwrap_or_default();
        self.check
            .go_live(life, id, generation, &history, &contents)
    }

    /// A claim was given up. Not for what the arbiter shows since it has lost its record, unless the
    /// other node has the VM: then nobody would.
    fn check_lost(&mut self, slot: usize, epoch: u64) -> Result<(), String> {
        let id = NodeId(slot as u128 + 1);
        let last = self.past.last().filter(|_| self.record_lost);
        let gave = last.is_some_and(|r| r.backup.is_some_and(|b| b.id == id));
        let elsewhere = self.role(1 - slot) == Some(RoleKind::Live);
        let Some(process) = self.process(slot, epoch) else {
            return Ok(());
        };
        let fails = process.replica.stays_out().is_some();
        match gave && process.saw_loss && !elsewhere && !fails {
            true => Err(format!(
                "node {} threw away the only machine since the arbiter has lost its record",
                name(slot)
            )),
            false => Ok(()),
        }
    }

    /// Whether a host's node is the backup that `record` names, and holds the session.
    fn holds(&self, slot: usize, record: Option<Record>) -> bool {
        let Some(process) = &self.hosts[slot].process else {
            return false;
        };
        let status = process.replica.status().protocol;
        let named = record.and_then(|record| record.backup);
        matches!(status.role, RoleKind::Backup | RoleKind::Claiming)
            && status.session.is_some()
            && named.map(|backup| backup.session) == status.session
    }

    /// The last hop: a packet leaves for the clients' network.
    fn transmit(&mut self, slot: usize, epoch: u64, packet: &[u8]) -> Result<(), String> {
        let now = self.now;
        let Some(process) = self.process(slot, epoch) else {
            return Ok(());
        };
        // What announces addresses says nothing of the guest's state.
        let Some(answer) = guest::answer(packet) else {
            return Ok(());
        };
        let since = process.live_since;
        let (life, fresh) = (process.life, since > 0 && now < since + 50 * MS);
        if self.is_broken(DriverFault::FirstOutputsDropped) && fresh {
            return Ok(());
        }
        if guest::is_voice(packet) {
            let peer = self.hosts[1 - slot].process.as_ref();
            let newest = peer.is_some_and(|p| p.life == self.lives);
            let live = newest && self.role(1 - slot) == Some(RoleKind::Live);
            let contents = live.then(|| self.contents(1 - slot)).flatten();
            self.check.speak(&answer, contents.as_ref())?;
            return self.carry(slot, answer);
        }
        let history = if self.record_lost {
            &self.past
        } else {
            self.arbiter.history()
        };
        self.check.emit(life, &answer, history)?;
        self.carry(slot, answer)
    }

    /// The clients' network takes an answer, or loses it.
    fn carry(&mut self, slot: usize, answer: guest::Answer) -> Result<(), String> {
        let now = self.now;
        if now < self.hosts[slot].lan_down_until || self.rng.one_in(self.measures.loss_one_in) {
            return Ok(());
        }
        let delay = self.measures.lan_ns;
        self.after(10 * US, delay, Hap::Answer { answer });
        Ok(())
    }
}

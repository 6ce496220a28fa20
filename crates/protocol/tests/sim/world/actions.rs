//! What nodes ask of their driver, carried out on simulated hosts.

use super::*;

impl World {
    pub(super) fn drive(&mut self, slot: usize, events: Events) -> Result<(), String> {
        let Some(epoch) = self.procs[slot].as_ref().map(|p| p.epoch) else {
            return Ok(());
        };
        for event in events {
            let at = Instant::from_micros(self.now);
            let Some(p) = self.proc(slot, epoch) else {
                return Ok(());
            };
            p.node.handle(at, event);
            while let Some(action) = self.proc(slot, epoch).and_then(Proc::next_action) {
                if self.faults && self.rng.one_in(self.crash_one_in) {
                    self.crashes += 1;
                    self.down(slot, true);
                    return Ok(());
                }
                self.act(slot, epoch, action)?;
            }
        }
        let now = self.now;
        if let Some(p) = self.proc(slot, epoch)
            && let Some(deadline) = p.node.next_deadline()
        {
            let at = deadline.micros().max(now + 1);
            if at < p.tick_at {
                p.tick_at = at;
                self.at(at, Hap::Tick { slot, epoch });
            }
        }
        Ok(())
    }

    pub(super) fn act(
        &mut self,
        slot: usize,
        epoch: u64,
        action: Action<Out>,
    ) -> Result<(), String> {
        let now = self.now;
        if self.trace {
            println!("{now:>8} {slot} {action:?}");
        }
        let Some(p) = self.procs[slot].as_mut() else {
            return Ok(());
        };
        match action {
            Action::Dial => self.after(200, 8 * MS, Hap::Dialed { slot, epoch }),
            Action::Send { conn, message } => {
                let wire = conn.0 as usize;
                let delay = self.rng.range(50, self.link_us);
                if let Some(end) = self.wires[wire].end_of(slot, epoch)
                    && self.wires[wire].open[end]
                    && let Some(at) = self.wires[wire].send(1 - end, now + delay, &message)
                {
                    self.at(at, Hap::Look { wire, to: 1 - end });
                }
            }
            Action::Close { conn, .. } => {
                let wire = conn.0 as usize;
                if let Some(end) = self.wires[wire].end_of(slot, epoch) {
                    self.wires[wire].open[end] = false;
                    let short = self.faults && self.rng.one_in(4);
                    let keep = if short {
                        self.keep(wire, 1 - end)
                    } else {
                        usize::MAX
                    };
                    self.cut(wire, 1 - end, keep);
                }
            }
            Action::ArbiterRead { req } => self.ask(slot, epoch, req, Ask::Read),
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                if p.node.role() == RoleKind::Claiming
                    && let Some(vm) = &p.vm
                {
                    self.check.claim(record.live, vm);
                    p.claim = Some(record.live);
                }
                // Trouble just where the record changes is what the rules are about.
                if self.faults && self.rng.one_in(6) {
                    self.after(50, 20 * MS, Hap::Trouble);
                }
                self.ask(slot, epoch, req, Ask::Cas(expect, record));
            }
            Action::PersistGeneration { generation } => self.disks[slot] = generation.0,
            Action::MarkDisks { mark } => self.marks[slot] = mark,
            Action::ColdStart { generation } => self.cold_start(slot, generation)?,
            Action::GoLive { generation } => {
                self.lives += 1;
                p.life = self.lives;
                p.running = true;
                p.replaying = false;
                if let Some(vm) = &p.vm {
                    let id = NodeId(slot as u128 + 1);
                    let history = self.arbiter.history();
                    self.check.go_live(p.life, id, generation, history, vm)?;
                }
            }
            Action::Emit { item, .. } if p.node.role() == RoleKind::Backup => {
                let live = self.procs[1 - slot].as_ref().filter(|p| p.running);
                let live = live.and_then(|p| Some((p.life, p.vm.as_ref()?)));
                self.check.speak(&item, live)?;
            }
            Action::Emit { item, .. } => self.check.emit(p.life, &item, self.arbiter.history())?,
            Action::Freeze => {
                p.running = false;
                let mut events = Vec::new();
                p.flush(&mut events);
                let position = Position(p.vm.as_ref().map_or(0, Vm::end));
                events.push(Event::Frozen { position });
                for event in events {
                    self.local(slot, 1, 5 * MS, |epoch| Hap::Local { slot, epoch, event });
                }
            }
            Action::Thaw => p.running = true,
            Action::Discard => {
                let named = self.arbiter.current().map(|r| r.live);
                if p.vm.is_some() && named.is_some() && named == p.claim {
                    return Err(format!(
                        "node {slot} threw away the machine of its won claim"
                    ));
                }
                p.discard();
            }
            Action::TakeSnapshot { session } => p.snapshot_for = Some(session),
            Action::EndSession { session } => {
                if p.snapshot_for == Some(session) {
                    p.snapshot_for = None;
                }
            }
            Action::BeginInstall { session, position } => {
                p.discard();
                p.session = Some(session);
                p.stored_end = position.0;
            }
            Action::InstallChunk {
                session,
                bytes,
                last,
                ..
            } => {
                p.install.extend_from_slice(&bytes);
                if last {
                    let image = std::mem::take(&mut p.install);
                    let image = u64::from_le_bytes(image.try_into().unwrap()) as usize;
                    self.local(slot, MS, 60 * MS, |epoch| Hap::Install {
                        slot,
                        epoch,
                        session,
                        image,
                    });
                }
            }
            Action::Store {
                session,
                end,
                batch,
                ..
            } => self.local(slot, 10, 4 * MS, |epoch| Hap::Store {
                slot,
                epoch,
                session,
                batch,
                end,
            }),
            Action::BeginDrain => {
                // Storing ends here: what is under way is dropped.
                p.session = None;
                self.after(MS, 100 * MS, Hap::Drain { slot, epoch });
            }
            Action::Exit { .. } => self.down(slot, false),
            Action::Fatal { what } => {
                if self.mutation.is_none() {
                    return Err(format!("node {slot} found a fault of its own: {what}"));
                }
                self.down(slot, true);
            }
            Action::Mismatch(mismatch) => return Err(mismatch.to_string()),
            Action::Announce
            | Action::Left { .. }
            | Action::Side { .. }
            | Action::RoleChanged { .. }
            | Action::Note { .. }
            | Action::CtlAnswer { .. } => {}
        }
        Ok(())
    }

    pub(super) fn cold_start(&mut self, slot: usize, generation: Generation) -> Result<(), String> {
        let history = self.arbiter.history();
        let index = generation.0 as usize;
        let before = index.checked_sub(2).and_then(|i| history.get(i));
        let id = NodeId(slot as u128 + 1);
        let other = self.procs[1 - slot].as_ref().map(|p| p.node.status());
        let held = other.is_some_and(|s| {
            matches!(s.role, RoleKind::Backup | RoleKind::Claiming)
                && before.and_then(|r| r.backup).map(|b| b.session) == s.session
                && s.session.is_some()
        });
        self.lives += 1;
        let life = self.lives;
        let boot = self
            .check
            .cold_start(life, id, generation, self.arbiter.history(), held)?;
        if let Some(p) = &mut self.procs[slot] {
            p.life = life;
            p.discard();
            p.vm = Some(Vm::power_on(boot));
            p.running = true;
        }
        Ok(())
    }
}

//! What must be equal after each step: roles, links, acks, outputs, records, generations.

use super::*;

impl Shadow {
    pub(super) fn compare(&self, world: &World) -> Checked {
        let now = self.arbiter.current().copied();
        same(
            "the register",
            self.record(world, world.register, now),
            true,
        )?;
        same("the history", self.history, world.history.len())?;
        for id in Id::BOTH {
            let (mark, disk) = (self.marks[id as usize], world.disks[id as usize]);
            if mark.has_disks {
                let generation = self.generation(world, disk.generation);
                same("the mark", mark.generation.0, generation)?;
                let pending = disk.pending.map(|g| self.generation(world, g));
                same("the pending mark", mark.pending.map(|g| g.0), pending)?;
                same("a copy that is half", !mark.consistent, disk.half)?;
            }
            let (slot, node) = (id as usize, world.node(id));
            let kind = match node.role {
                Role::Off => None,
                Role::Cold => Some(RoleKind::Cold),
                Role::Frozen => Some(RoleKind::Frozen),
                Role::Joining => Some(RoleKind::Joining),
                Role::Backup => Some(RoleKind::Backup),
                Role::Draining | Role::Reading | Role::Asking => Some(RoleKind::Claiming),
                Role::Live => Some(RoleKind::Live),
            };
            let proc = self.procs[slot].as_ref();
            same("the role", proc.map(|p| p.node.role()), kind)?;
            let Some(proc) = proc else {
                continue;
            };
            let status = proc.node.status();
            let link = match (node.role, node.link) {
                (Role::Live, link) => match link {
                    Link::Solo => "solo",
                    Link::Snapshot => "pairing: snapshot",
                    Link::CatchUp => "pairing: catching up",
                    Link::Probe => "pairing: asking the arbiter",
                    Link::GateOn => "pairing: gate on",
                    Link::PairCas => "pairing: awaiting the record",
                    Link::Paired => "paired",
                    Link::Settling => "settling",
                },
                _ => "",
            };
            same("the link", status.link, link)?;
            if node.role == Role::Backup {
                same("being told", status.protected, node.told.is_some())?;
                same("the ack", status.acked.0, u64::from(node.stored))?;
            }
            let linked = node.role == Role::Live && world.conn(id).live_end;
            same(
                "a session",
                status.session.is_some(),
                linked || following(world, id),
            )?;
            if linked {
                same("acked", status.acked.0, u64::from(node.acked))?;
            }
            if node.role == Role::Live {
                let held = node.log.outputs(node.released).count();
                same("held outputs", status.gate_items, held)?;
            }
            let own = self.record(world, node.record, proc.node.record().copied());
            same("the known record", own, true)?;
            let generation = self.generation(world, node.generation);
            same("the generation", proc.node.generation().0, generation)?;
        }
        Ok(())
    }

    /// A generation of the model as the code counts.
    fn generation(&self, world: &World, generation: u8) -> u64 {
        let now = self.arbiter.current().map_or(0, |r| r.generation.0);
        let shift = world.register.map_or(0, |r| r.generation);
        match generation {
            0 => 0,
            g => now + u64::from(g) - u64::from(shift),
        }
    }

    fn record(&self, world: &World, model: Option<ModelRecord>, code: Option<Record>) -> bool {
        match (model, code) {
            (None, None) => true,
            (Some(m), Some(c)) => {
                c.generation.0 == self.generation(world, m.generation)
                    && c.live.id == node_id(m.live as usize)
                    && c.backup.is_some() == m.backup.is_some()
                    && c.halted == m.halted
            }
            _ => false,
        }
    }
}

fn following(world: &World, id: Id) -> bool {
    let role = world.node(id).role;
    role == Role::Joining || role.holds()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, code: T, model: T) -> Checked {
    if code == model {
        return Ok(());
    }
    Err(format!("{what} is {code:?}, the model says {model:?}"))
}

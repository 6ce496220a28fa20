//! What goes wrong, and what people ask for.

use super::*;

impl World {
    pub(super) fn boot(&mut self, slot: usize) -> Result<(), String> {
        if self.procs[slot].is_some() {
            return Ok(());
        }
        self.epochs += 1;
        let me = Identity {
            id: NodeId(slot as u128 + 1),
            name: ["a", "b"][slot].into(),
            peer_name: ["b", "a"][slot].into(),
            incarnation: Incarnation(self.rng.u128()),
            machine: vec![Field {
                name: "machine_version".into(),
                value: "1".into(),
            }],
        };
        let config = Config {
            heartbeat_ms: 40,
            suspect_ms: 200,
            stall_ms: 1000,
            cold_delay_ms: None,
            output: self.output,
        };
        let mut node = Node::new(me, config);
        if let Some(mutation) = self.mutation {
            node.break_rule(mutation);
        }
        self.procs[slot] = Some(Proc::new(self.epochs, node));
        self.inbox[slot].clear();
        let (epoch, generation) = (self.epochs, Generation(self.disks[slot]));
        self.after(1, 10 * MS, Hap::Slice { slot, epoch });
        let disks = self.marks[slot];
        self.drive(slot, vec![Event::Start { generation, disks }])
    }

    pub(super) fn down(&mut self, slot: usize, crash: bool) {
        let Some(p) = self.procs[slot].take() else {
            return;
        };
        self.inbox[slot].clear();
        for wire in 0..self.wires.len() {
            let Some(end) = self.wires[wire].end_of(slot, p.epoch) else {
                continue;
            };
            if !self.wires[wire].open[end] {
                continue;
            }
            self.wires[wire].open[end] = false;
            let keep = if crash {
                self.keep(wire, 1 - end)
            } else {
                usize::MAX
            };
            self.cut(wire, 1 - end, keep);
        }
        self.after(20 * MS, 900 * MS, Hap::Boot { slot });
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let slot = self.rng.range(0, 2) as usize;
        let now = self.now;
        let kind = self.rng.range(0, 16);
        if self.trace {
            println!("{now:>8} fault {kind} at {slot}");
        }
        match kind {
            0..3 => {
                self.crashes += 1;
                self.down(slot, true);
            }
            3..6 => {
                for wire in 0..self.wires.len() {
                    for to in 0..2 {
                        if self.wires[wire].open[0] || self.wires[wire].open[1] {
                            let keep = self.keep(wire, to);
                            self.cut(wire, to, keep);
                        }
                    }
                }
            }
            6..8 => self.partition_until = now + self.rng.range(20, 1500) * MS,
            8..10 => {
                let until = now + self.rng.range(20, 1500) * MS;
                if let Some(p) = &mut self.procs[slot]
                    && p.paused_until <= now
                {
                    p.paused_until = until;
                    let epoch = p.epoch;
                    self.at(until, Hap::Resume { slot, epoch });
                }
            }
            10 => {
                if let Some(p) = &mut self.procs[slot] {
                    p.hung_until = now + 500 * MS;
                }
            }
            11..13 => self.outage_until = now + self.rng.range(20, 2500) * MS,
            13 => return self.person(slot, Event::Terminate),
            14 => {
                let ctl = [Ctl::Takeover, Ctl::Detach, Ctl::Stop][self.rng.range(0, 3) as usize];
                return self.person(slot, Event::Ctl(ctl));
            }
            _ => self.halt_soon = self.rng.one_in(3),
        }
        Ok(())
    }

    pub(super) fn person(&mut self, slot: usize, event: Event<Out>) -> Result<(), String> {
        match &self.procs[slot] {
            Some(p) => {
                let epoch = p.epoch;
                self.take(Hap::Local { slot, epoch, event })
            }
            None => Ok(()),
        }
    }
}

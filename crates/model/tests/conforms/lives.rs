//! Processes that start and end, and a person's record.

use super::*;

impl Shadow {
    pub(super) fn start(&mut self, slot: usize) -> Checked {
        self.lives += 1;
        let me = Identity {
            id: node_id(slot),
            name: ["a", "b"][slot].into(),
            incarnation: Incarnation(self.lives << 32),
            peer_name: ["b", "a"][slot].into(),
            machine: Vec::new(),
        };
        let config = Config {
            heartbeat_ms: HEARTBEAT_MS,
            suspect_ms: NEVER_MS,
            stall_ms: NEVER_MS,
            cold_delay_ms: None,
            output: match self.speaks {
                true => OutputFrom::Backup,
                false => OutputFrom::Live,
            },
        };
        self.procs[slot] = Some(Proc {
            node: Node::new(me, config),
            ms: 1000,
            started_ms: 1000,
            dialed: None,
            read: None,
            cas: None,
            answered: None,
            seen: None,
            exited: false,
        });
        let generation = Generation(self.disks[slot]);
        let disks = self.marks[slot];
        self.feed(slot, Event::Start { generation, disks })
    }

    pub(super) fn stop(&mut self, slot: usize) {
        if let Some(proc) = self.procs[slot].take() {
            self.strays.extend(proc.cas.filter(|c| !c.landed));
            for wire in &mut self.wires {
                wire.open[slot] = false;
                wire.queue[slot].clear();
            }
        }
    }

    /// A person's record: no life has this name.
    pub(super) fn reset(&mut self, slot: usize) -> Checked {
        self.stop(0);
        self.stop(1);
        for _ in 0..2 {
            let expect = self
                .arbiter
                .current()
                .map_or(Generation(0), |r| r.generation);
            let live = LiveName {
                id: node_id(slot),
                incarnation: Incarnation(u128::MAX),
            };
            let record = Record {
                halted: true,
                ..Record::solo(expect.next(), live)
            };
            self.arbiter.cas(expect, record);
        }
        Ok(())
    }
}

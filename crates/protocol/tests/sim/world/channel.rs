//! The channel between the two nodes: dialling, frames on their way, cuts.

use super::*;

impl World {
    pub(super) fn dialed(&mut self, slot: usize, epoch: u64) -> Result<(), String> {
        let other = 1 - slot;
        let peer = self.procs[other].as_ref().map(|p| p.epoch);
        let Some(peer) = peer.filter(|_| self.now >= self.partition_until) else {
            return self.drive(slot, vec![Event::DialFailed]);
        };
        let wire = self.wires.len();
        let conn = ConnId(wire as u64);
        self.wires.push(Wire::new([(slot, epoch), (other, peer)]));
        let nonce = self.rng.u128();
        let event = Event::ChannelUp {
            conn,
            dialed: false,
            nonce,
        };
        self.take(Hap::Local {
            slot: other,
            epoch: peer,
            event,
        })?;
        let nonce = self.rng.u128();
        self.drive(
            slot,
            vec![Event::ChannelUp {
                conn,
                dialed: true,
                nonce,
            }],
        )
    }

    pub(super) fn look(&mut self, wire: usize, to: usize) -> Result<(), String> {
        let until = self.partition_until;
        if self.now < until {
            self.at(until, Hap::Look { wire, to });
            return Ok(());
        }
        while let Some((at, _)) = self.wires[wire].queue[to].front() {
            if *at > self.now {
                let at = *at;
                self.at(at, Hap::Look { wire, to });
                return Ok(());
            }
            let (_, frame) = self.wires[wire].queue[to].pop_front().unwrap();
            if !self.wires[wire].open[to] {
                continue;
            }
            let (slot, epoch) = self.wires[wire].ends[to];
            if self.proc(slot, epoch).is_none() {
                continue;
            }
            let conn = ConnId(wire as u64);
            let event = match frame {
                Some(body) => Event::Received {
                    conn,
                    message: twinvm_protocol::codec::decode_body(&body)
                        .map_err(|e| format!("codec: {e}"))?,
                },
                None => {
                    self.wires[wire].open[to] = false;
                    Event::ChannelDown { conn }
                }
            };
            self.drive(slot, vec![event])?;
        }
        Ok(())
    }

    /// Ends what goes towards `to`, after a prefix of what is under way.
    pub(super) fn cut(&mut self, wire: usize, to: usize, keep: usize) {
        let delay = self.rng.range(50, 3000);
        if let Some(at) = self.wires[wire].cut(to, self.now + delay, keep) {
            self.at(at, Hap::Look { wire, to });
        }
    }

    pub(super) fn keep(&mut self, wire: usize, to: usize) -> usize {
        let len = self.wires[wire].queue[to].len() as u64;
        self.rng.range(0, len + 1) as usize
    }
}

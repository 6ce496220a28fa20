//! The channel between the two nodes: dialling, frames on their way, cuts, silence.

use twinvm_protocol::{ConnId, Message};
use twinvm_replica::{HostTime, Stored, Taken};

use super::turn::CHANNEL_QUEUE;
use super::*;
use crate::link::Found;
use crate::plan::US;

/// What a full channel has: more than the live node lets its log grow to.
const FULL_BYTES: usize = 17 << 20;
/// Bytes that may wait for one connection; a node that paces itself stays far below.
const MAX_QUEUE_BYTES: usize = 64 << 20;

impl World {
    pub(super) fn dialed(&mut self, slot: usize, epoch: u64, fails: bool) {
        if self.process(slot, epoch).is_none() {
            return;
        }
        let other = 1 - slot;
        let peer = self.hosts[other].process.as_ref().map(|p| p.epoch);
        let Some(peer) = peer.filter(|_| !fails && self.now >= self.partition_until) else {
            return self.input(slot, epoch, Input::Event(Event::DialFailed));
        };
        let wire = self.wires.len();
        self.wires.push(Wire::new([(slot, epoch), (other, peer)]));
        for (slot, epoch, dialed) in [(other, peer, false), (slot, epoch, true)] {
            let nonce = self.rng.wide();
            if let Some(process) = self.process(slot, epoch) {
                process.wires.push(wire);
            }
            let event = Event::ChannelUp {
                conn: ConnId(wire as u64),
                dialed,
                nonce,
            };
            self.input(slot, epoch, Input::Event(event));
        }
    }

    pub(super) fn send(
        &mut self,
        slot: usize,
        epoch: u64,
        conn: ConnId,
        message: Message,
    ) -> Result<(), String> {
        let wire = conn.0 as usize;
        let Some(end) = self.wires[wire].end_of(slot, epoch) else {
            return Ok(());
        };
        if !self.wires[wire].open[end] {
            return Ok(());
        }
        // Most frames are much faster than the slowest.
        let slowest = self.measures.link_ns;
        let slowest = if self.rng.one_in(6) {
            slowest
        } else {
            slowest / 8
        };
        let (to, delay) = (1 - end, self.rng.range(20 * US, slowest));
        let pace = self.measures.ns_per_kib;
        if let Some(at) = self.wires[wire].send(to, self.now, delay, pace, &message) {
            self.at(at, Hap::Look { wire, to });
        }
        if self.wires[wire].queued(to) > MAX_QUEUE_BYTES {
            return Err(format!(
                "more than {MAX_QUEUE_BYTES} bytes wait on the channel"
            ));
        }
        Ok(())
    }

    pub(super) fn close(&mut self, slot: usize, epoch: u64, conn: ConnId) {
        let wire = conn.0 as usize;
        let Some(end) = self.wires[wire].end_of(slot, epoch) else {
            return;
        };
        self.wires[wire].open[end] = false;
        if let Some(process) = self.process(slot, epoch) {
            process.wires.retain(|known| *known != wire);
        }
        let keep = if self.faults && self.rng.one_in(4) {
            self.prefix(wire, 1 - end)
        } else {
            usize::MAX
        };
        self.cut(wire, 1 - end, keep, true);
    }

    /// What has arrived goes to the node, as far as it has room.
    pub(super) fn look(&mut self, wire: usize, to: usize) -> Result<(), String> {
        loop {
            let (slot, epoch) = self.wires[wire].ends[to];
            let waits = self.process(slot, epoch).map(|p| p.channel_waits);
            if waits.is_some_and(|waits| waits >= CHANNEL_QUEUE) {
                self.wires[wire].hold(to);
                return Ok(());
            }
            // A process that is stopped receives nothing, and its host keeps what comes.
            let stopped = self.process(slot, epoch).map_or(0, |p| p.paused_until);
            let at = self.partition_until.max(stopped);
            if self.now < at {
                self.at(at, Hap::Look { wire, to });
                return Ok(());
            }
            let conn = ConnId(wire as u64);
            let frame = match self.wires[wire].take(to, self.now)? {
                Found::Nothing => return Ok(()),
                Found::Later(at) => {
                    self.at(at, Hap::Look { wire, to });
                    return Ok(());
                }
                Found::Frame(message) => Some(message),
                Found::End => None,
            };
            if !self.wires[wire].open[to] {
                continue;
            }
            let Some(message) = frame else {
                self.wires[wire].open[to] = false;
                if let Some(process) = self.process(slot, epoch) {
                    process.wires.retain(|known| *known != wire);
                }
                self.input(slot, epoch, Input::Event(Event::ChannelDown { conn }));
                continue;
            };
            let input = match self.store_beside(wire, to, &message)? {
                Taken::Yes(None) => continue,
                Taken::Yes(Some(number)) => Input::Stored(conn, number),
                Taken::No => {
                    self.wires[wire].after_other[to] = true;
                    Input::Channel(Event::Received { conn, message })
                }
            };
            self.input(slot, epoch, input);
        }
    }

    /// What a node's receiving thread does with a batch of the log while the loop lets it: stores and
    /// acks it at once, as the host's own (`host::channel`).
    fn store_beside(&mut self, wire: usize, to: usize, message: &Message) -> Result<Taken, String> {
        let Message::Log {
            first,
            end,
            released,
            batch,
        } = message
        else {
            return Ok(Taken::No);
        };
        let conn = ConnId(wire as u64);
        let (now, (slot, epoch)) = (self.now, self.wires[wire].ends[to]);
        let after_other = self.wires[wire].after_other[to];
        let local = HostTime {
            mono_ns: self.hosts[slot].clock.shows(now),
        };
        let Some(process) = self.process(slot, epoch) else {
            return Ok(Taken::No);
        };
        let intake = &mut process.env.intake;
        if !intake.wants(conn, *first, local) {
            return Ok(Taken::No);
        }
        let Ok(stored) = Stored::decode(*first, *end, *released, batch) else {
            return Ok(Taken::No);
        };
        let mut acks = None;
        let taken = intake.take(conn, stored, batch.len(), after_other, local, |ack| {
            acks = Some(ack);
        });
        let Some(ack) = acks else {
            return Ok(taken);
        };
        self.wires[wire].after_other[to] = false;
        self.beside += 1;
        self.maybe_kill_reader(slot, end.0, false);
        self.trace.note(now, || {
            format!("{} stores and acks up to {end} beside its loop", name(slot))
        });
        self.send(slot, epoch, conn, ack)?;
        self.maybe_kill_reader(slot, end.0, true);
        Ok(taken)
    }

    /// A node took a frame of the channel: others may come in.
    pub(super) fn room_again(&mut self, slot: usize, epoch: u64) {
        let now = self.now;
        let wires = self.process(slot, epoch).map(|p| p.wires.clone());
        for wire in wires.unwrap_or_default() {
            let to = self.wires[wire].end_of(slot, epoch);
            if let Some(to) = to
                && self.wires[wire].resume(to)
            {
                self.at(now, Hap::Look { wire, to });
            }
        }
    }

    /// Ends what goes towards `to`, after a prefix of what is on its way; `told`: the node there
    /// gets to know.
    pub(super) fn cut(&mut self, wire: usize, to: usize, keep: usize, told: bool) {
        let delay = self.rng.range(20 * US, 3 * MS);
        if let Some(at) = self.wires[wire].cut(to, self.now + delay, keep, told) {
            self.at(at, Hap::Look { wire, to });
        }
    }

    /// Some of the frames on their way.
    pub(super) fn prefix(&mut self, wire: usize, to: usize) -> usize {
        let flying = self.wires[wire].flying(to) as u64;
        self.rng.below(flying + 1) as usize
    }

    /// Connections that at least one end still uses.
    pub(super) fn open_wires(&self) -> Vec<usize> {
        let open = |wire: &usize| self.wires[*wire].open != [false; 2];
        (0..self.wires.len()).filter(open).collect()
    }

    /// Bytes that wait at this host to be sent.
    pub(super) fn queued(&self, slot: usize) -> usize {
        let Some(process) = &self.hosts[slot].process else {
            return 0;
        };
        let wires = process.wires.iter().map(|wire| &self.wires[*wire]);
        let queued = wires.map(|wire| {
            let end = wire.end_of(slot, process.epoch);
            end.map_or(0, |end| wire.queued(1 - end))
        });
        let full = self.now < self.hosts[slot].full_until && !process.wires.is_empty();
        queued.sum::<usize>() + if full { FULL_BYTES } else { 0 }
    }
}

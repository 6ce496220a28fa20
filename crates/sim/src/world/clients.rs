//! Clients of the guest: each asks one thing after the other, again and again until it is
//! answered, as TCP would; now and then it gives one up and never knows.

use super::*;
use crate::guest::{KEYS, Op};
use crate::plan::US;

/// First wait for an answer; it doubles up to the longest.
const FIRST_WAIT_NS: u64 = 150 * MS;
const LONGEST_WAIT_NS: u64 = 800 * MS;
/// Keys in use: few, so that clients meet.
const HOT_KEYS: u64 = 3;

/// What a client waits for.
struct Waiting {
    packet: Vec<u8>,
    wait_ns: u64,
    sent: u32,
}

/// One client.
pub(super) struct Client {
    id: u64,
    seq: u64,
    stamp: u64,
    waiting: Option<Waiting>,
}

impl Client {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            seq: 0,
            stamp: 0,
            waiting: None,
        }
    }
}

impl World {
    /// The client's timer: it asks, or asks again.
    pub(super) fn client_turn(&mut self, n: usize, stamp: u64) {
        if self.clients[n].stamp != stamp {
            return;
        }
        let gives_up = match &self.clients[n].waiting {
            Some(_) if !self.asking => true,
            Some(waiting) => waiting.sent >= 3 && self.rng.one_in(6),
            None => true,
        };
        if gives_up {
            self.clients[n].waiting = None;
            if !self.asking || self.history.len() >= self.measures.max_asked {
                return;
            }
            self.new_question(n);
        }
        let client = &mut self.clients[n];
        let Some(waiting) = &mut client.waiting else {
            return;
        };
        waiting.sent += 1;
        let wait = waiting.wait_ns;
        waiting.wait_ns = (wait * 2).min(LONGEST_WAIT_NS);
        let packet = waiting.packet.clone();
        client.stamp += 1;
        let stamp = client.stamp;
        self.at(self.now + wait, Hap::Client { client: n, stamp });
        self.put_on_lan(packet);
    }

    fn new_question(&mut self, n: usize) {
        let value = self.rng.below(4);
        let op = match self.rng.below(8) {
            0..3 => Op::Get,
            3..5 => Op::Set(value),
            5 => Op::Add(1 + value),
            _ => Op::Swap(value, self.rng.below(4)),
        };
        let key = self.rng.below(HOT_KEYS.min(KEYS));
        let client = &mut self.clients[n];
        client.seq += 1;
        let (id, seq) = (client.id, client.seq);
        client.waiting = Some(Waiting {
            packet: guest::question(id, seq, key, op),
            wait_ns: FIRST_WAIT_NS,
            sent: 0,
        });
        self.history.ask(id, seq, key, op, self.now);
        self.trace.note(self.now, || {
            format!("client {id} asks {seq}: key {key} {op:?}")
        });
    }

    /// A packet goes to both hosts, as through a hub: to the live node, and to who thinks it is.
    pub(crate) fn put_on_lan(&mut self, packet: Vec<u8>) {
        for slot in 0..2 {
            let down = self.now < self.hosts[slot].lan_down_until;
            if down || self.rng.one_in(self.measures.loss_one_in) {
                continue;
            }
            let delay = self.rng.range(10 * US, self.measures.lan_ns);
            let at = (self.now + delay).next_multiple_of(self.measures.bunch_ns);
            let bytes = packet.clone();
            self.at(at, Hap::Packet { slot, bytes });
        }
    }

    /// A packet has come to a host.
    pub(super) fn packet(&mut self, slot: usize, bytes: Vec<u8>) {
        let epoch = self.hosts[slot].process.as_ref().map(|p| p.epoch);
        if let Some(epoch) = epoch {
            self.input(slot, epoch, Input::Packet(bytes));
        }
    }

    /// An answer has come to a client.
    pub(super) fn answered(&mut self, answer: &Answer) -> Result<(), String> {
        let now = self.now;
        self.trace
            .note(now, || format!("client {} gets {answer:?}", answer.client));
        self.history.answered(answer, now)?;
        let Some(client) = self.clients.get_mut(answer.client as usize) else {
            return Ok(());
        };
        if client.seq == answer.seq && client.waiting.take().is_some() {
            client.stamp += 1;
            let stamp = client.stamp;
            let beat = self.measures.beat_ns;
            let at = now + self.rng.below(self.measures.think_ns);
            let at = at.next_multiple_of(beat);
            let client = answer.client as usize;
            self.at(at, Hap::Client { client, stamp });
        }
        Ok(())
    }
}

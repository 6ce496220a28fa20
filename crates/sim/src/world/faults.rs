//! What goes wrong, and what people ask for.

use twinvm_log::{Body, Record as LogRecord};
use twinvm_protocol::{ArbiterContract, Ctl};

use super::*;
use crate::guest::Op;

impl World {
    /// The process on a host ends: killed, or with its host's power. What it has sent and has not
    /// arrived yet is lost from some point on.
    pub(super) fn down(&mut self, slot: usize, power: bool) {
        self.end_process(slot, power, |world, wire, to| world.prefix(wire, to));
    }

    /// The process ends, with all that it has sent arriving, and is not started again.
    pub(crate) fn end_for_good(&mut self, slot: usize, power: bool) {
        self.end_process(slot, power, |world, wire, to| world.wires[wire].flying(to));
        self.hosts[slot].retired = true;
    }

    /// The process ends, with some of what it has sent arriving, and none is started there until
    /// [`Self::start_again`].
    pub(crate) fn end_until_started(&mut self, slot: usize, power: bool) {
        self.hosts[slot].retired = true;
        self.down(slot, power);
    }

    /// The same, with nothing that it has sent arriving.
    pub(crate) fn end_losing(&mut self, slot: usize) {
        self.hosts[slot].retired = true;
        self.end_process(slot, false, |_, _, _| 0);
    }

    /// A process is started there again.
    pub(crate) fn start_again(&mut self, slot: usize) {
        self.hosts[slot].retired = false;
        self.boot_now(slot);
    }

    /// The process does nothing for so long, and goes on.
    pub(crate) fn stands_still(&mut self, slot: usize, ns: u64) {
        let until = self.now + ns;
        if let Some(process) = &mut self.hosts[slot].process {
            process.paused_until = process.paused_until.max(until);
        }
    }

    /// A host is so many times slower from now on.
    pub(crate) fn slow_down_host(&mut self, slot: usize, times: u64) {
        self.hosts[slot].ns_per_kstep *= times;
    }

    /// The same; `keep` says how many frames of a connection still arrive.
    pub(super) fn end_process(
        &mut self,
        slot: usize,
        power: bool,
        keep: impl Fn(&mut Self, usize, usize) -> usize,
    ) {
        let now = self.now;
        let host = &mut self.hosts[slot];
        let Some(mut process) = host.process.take() else {
            return;
        };
        self.trace.note(now, || {
            format!(
                "{} {}",
                name(slot),
                if power { "loses its power" } else { "ends" }
            )
        });
        if let Some((since, busy, _)) = process.storing {
            host.disk.advance(now - since, busy);
        }
        if power {
            host.disk.lose_power(&mut self.rng);
        } else {
            host.disk.process_ended();
        }
        self.happens_or_not(slot, process.epoch, std::mem::take(&mut process.at_disk));
        if power {
            self.disk_off(slot);
        }
        for wire in self.open_wires() {
            let Some(end) = self.wires[wire].end_of(slot, process.epoch) else {
                continue;
            };
            self.wires[wire].open[end] = false;
            let keep = keep(self, wire, 1 - end);
            // A host without power says nothing, not even that a connection has ended.
            self.cut(wire, 1 - end, keep, !power);
        }
        if self.faults || self.asking {
            self.after(20 * MS, 900 * MS, Hap::Boot { slot });
        }
    }

    pub(super) fn fault(&mut self) {
        let protected = self.protected(0) && self.protected(1);
        let goes = protected || self.rng.one_in(self.measures.unprotected_one_in);
        if !self.faults || !goes {
            return;
        }
        self.fault_count += 1;
        let slot = self.rng.below(2) as usize;
        let now = self.now;
        if self.measures.disk && self.rng.one_in(12) {
            return match self.measures.shared {
                true => self.server_away(),
                false => self.disk_fails(slot),
            };
        }
        let kind = self.rng.below(24);
        self.trace
            .note(now, || format!("fault {kind} at {}", name(slot)));
        match kind {
            0..3 => self.down(slot, false),
            3 => self.down(slot, true),
            4..6 => self.cut_all(),
            6 => self.half_open(),
            7 => self.partition_until = now + self.rng.range(20, 1500) * MS,
            8..10 => self.silence(),
            10..13 => {
                let until = now + self.rng.range(20, 1500) * MS;
                let timers_first = self.rng.one_in(2);
                if let Some(process) = &mut self.hosts[slot].process {
                    process.timers_first |= timers_first;
                    let stands_until = match kind {
                        12 => &mut process.stuck_until,
                        _ => &mut process.paused_until,
                    };
                    *stands_until = until.max(*stands_until);
                }
            }
            13 => self.hosts[slot].slow_until = now + self.rng.range(50, 2000) * MS,
            14 => self.hosts[slot].clock.ahead_ns += self.rng.range(1, 3000) * MS,
            15..18 => {
                let until = now + self.rng.range(20, 2500) * MS;
                let both = self.rng.one_in(2);
                self.outage_until[slot] = until;
                if both {
                    self.outage_until[1 - slot] = until;
                }
            }
            18 => self.hosts[slot].lan_down_until = now + self.rng.range(20, 1000) * MS,
            19 => self.person(slot, Event::Terminate),
            20 => {
                let ctl = self
                    .rng
                    .pick(&[Ctl::Takeover, Ctl::Takeover, Ctl::Detach, Ctl::Stop]);
                self.person(slot, Event::Ctl(ctl));
            }
            21 if self.rng.one_in(3) => self.power_off(),
            21 => self.hosts[slot].full_until = now + self.rng.range(5, 1000) * MS,
            23 if self.measures.busy => {
                self.mood(true);
                self.after(5 * MS, 400 * MS, Hap::Mood { busy: false });
            }
            22 if self.is_broken(DriverFault::UnloggedInput) => self.inject_unlogged(slot),
            _ => self.cut_all(),
        }
    }

    fn person(&mut self, slot: usize, event: Event) {
        let epoch = self.hosts[slot].process.as_ref().map(|p| p.epoch);
        if let Some(epoch) = epoch {
            self.input(slot, epoch, Input::Event(event));
        }
    }

    /// Somebody asks the guest to power off.
    fn power_off(&mut self) {
        let client = guest::CLIENTS - 1;
        let packet = guest::question(client, u64::MAX >> 1, 0, Op::PowerOff);
        self.put_on_lan(packet);
    }

    /// The arbiter loses its record. Nodes that have learnt a generation don't trust that; one
    /// that never has may start, so it waits for both.
    pub(super) fn lose_record(&mut self) {
        if self.hosts.iter().any(|host| host.stored == 0) {
            if self.faults {
                self.after(50 * MS, 200 * MS, Hap::RecordLost);
            }
            return;
        }
        let late = |r: &&Record| self.arbiter.history().first() != Some(*r);
        let late = self.firsts.iter().find(late).copied();
        let late = late.filter(|_| self.rng.one_in(2));
        self.lose_record_now(late);
    }

    /// The arbiter loses its record. A request for the first one comes late by the whole life of the
    /// VM, and lands.
    pub(crate) fn lose_record_now(&mut self, late: Option<Record>) {
        self.trace
            .note(self.now, || "the arbiter loses its record".to_owned());
        self.past = self.arbiter.history().to_vec();
        self.arbiter = MemoryArbiter::new();
        self.record_lost = true;
        if let Some(record) = late {
            let late = Hap::Request {
                slot: 0,
                epoch: 0,
                req: ReqId(0),
                ask: Ask::Cas(Generation(0), record),
                quiet: true,
            };
            self.after(MS, 2000 * MS, late);
        }
    }

    /// Somebody brings the arbiter's records back.
    pub(crate) fn restore_record(&mut self) {
        self.arbiter = MemoryArbiter::new();
        for record in std::mem::take(&mut self.past) {
            let before = Generation(record.generation.0 - 1);
            self.arbiter.cas(before, record);
        }
        self.record_lost = false;
    }

    /// Asks the guest to be busy, or to sleep again; the latter until it is heard.
    pub(super) fn mood(&mut self, busy: bool) {
        self.moods += 1;
        let (client, seq, op) = (guest::CLIENTS - 2, self.moods, Op::Busy(busy));
        self.history.ask(client, seq, 0, op, self.now);
        self.put_on_lan(guest::question(client, seq, 0, op));
        if !busy && self.asking {
            self.at(self.now + 100 * MS, Hap::Mood { busy });
        }
    }

    fn cut_all(&mut self) {
        for wire in self.open_wires() {
            for to in 0..2 {
                let keep = self.prefix(wire, to);
                self.cut(wire, to, keep, true);
            }
        }
    }

    /// One end hears that the connection is over, the other nothing more at all.
    fn half_open(&mut self) {
        for wire in self.open_wires() {
            let told = self.rng.below(2) as usize;
            for to in 0..2 {
                let keep = self.prefix(wire, to);
                self.cut(wire, to, keep, to == told);
            }
        }
    }

    /// One way of the channel is silent for a while; what was sent arrives afterwards.
    fn silence(&mut self) {
        let to = self.rng.below(2) as usize;
        let until = self.now + self.rng.range(20, 1500) * MS;
        for wire in self.open_wires() {
            let end = self.wires[wire]
                .ends
                .iter()
                .position(|(slot, _)| *slot == to);
            if let Some(end) = end {
                self.wires[wire].silence(end, until);
            }
        }
    }

    /// Something reaches the guest's machine that is not in the log: a key on its console.
    fn inject_unlogged(&mut self, slot: usize) {
        self.trace
            .note(self.now, || format!("unlogged input at {}", name(slot)));
        let process = self.hosts[slot].process.as_mut();
        if let Some(machine) = process.and_then(Process::machine) {
            let body = Body::ConsoleRx {
                bytes: b"x".to_vec(),
            };
            let icount = machine.icount();
            // Refused if the console is full; another one will do.
            let _ = machine.inject(&LogRecord { icount, body });
        }
    }

    /// Nothing more goes wrong; who is down comes back.
    pub(crate) fn heal(&mut self) {
        let now = self.now;
        self.trace.note(now, || "faults end".to_owned());
        self.faults = false;
        self.partition_until = 0;
        self.outage_until = [0; 2];
        self.healed_at = now;
        for slot in 0..2 {
            self.hosts[slot].slow_until = 0;
            self.hosts[slot].full_until = 0;
            self.hosts[slot].lan_down_until = 0;
            match &mut self.hosts[slot].process {
                Some(process) if process.loop_stands_until() > now => {
                    (process.paused_until, process.stuck_until) = (now, now);
                    let epoch = process.epoch;
                    self.turn_at(slot, epoch, now);
                }
                Some(_) => {}
                None => self.after(1, 500 * MS, Hap::Boot { slot }),
            }
        }
        for wire in self.open_wires() {
            self.wires[wire].heal();
            for to in 0..2 {
                self.at(now, Hap::Look { wire, to });
            }
        }
        self.at(now + 50 * MS, Hap::Watch);
    }
}

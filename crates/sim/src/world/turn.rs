//! The loop of a node: as the host's own loop, with time as an argument.

use twinvm_replica::{Event, Wait};

use super::*;
use crate::host::TURN_NS;

/// Inputs taken between two slices.
const INPUTS_PER_TURN: u32 = 64;
/// The loop looks at timers at least this often while the guest runs.
const TICK_NS: u64 = MS;
/// Longest sleep of the loop.
const LONGEST_SLEEP_NS: u64 = 1000 * MS;
/// Frames of the channel that wait for the loop.
pub(super) const CHANNEL_QUEUE: usize = 64;
/// Packets that wait for the guest; those that come when there are so many are lost.
const WIRE_QUEUE: usize = 256;
/// Other things that wait for it; more means that something is not bounded.
const OTHER_QUEUE: usize = 1024;

impl World {
    /// Something waits for the node's loop now.
    pub(super) fn input(&mut self, slot: usize, epoch: u64, input: Input) {
        let now = self.now;
        let Some(process) = self.process(slot, epoch) else {
            return;
        };
        if matches!(input, Input::Channel(_) | Input::Stored(..)) {
            process.channel_waits += 1;
        }
        process.inbox.push_back(input);
        if process.sleeps {
            process.sleeps = false;
            let at = now.max(process.loop_stands_until());
            self.turn_at(slot, epoch, at);
        }
    }

    pub(super) fn turn_at(&mut self, slot: usize, epoch: u64, at: u64) {
        if let Some(process) = self.process(slot, epoch) {
            process.turn_at = at;
            self.at(at, Hap::Turn { slot, epoch, at });
        }
    }

    /// The node goes on: carries out what was asked, then takes what comes next.
    pub(super) fn turn(&mut self, slot: usize, epoch: u64, at: u64) -> Result<(), String> {
        let now = self.now;
        let Some(process) = self.process(slot, epoch) else {
            return Ok(());
        };
        if process.turn_at != at {
            return Ok(());
        }
        process.sleeps = false;
        let until = process.loop_stands_until();
        if until > now {
            self.turn_at(slot, epoch, until);
            return Ok(());
        }
        self.finish_storing(slot);
        if let Some(busy) = self.perform(slot, epoch)? {
            self.turn_at(slot, epoch, now + busy);
            return Ok(());
        }
        self.let_store(slot, epoch);
        self.maybe_kill(slot, true);
        let Some(process) = self.process(slot, epoch) else {
            return Ok(());
        };
        let local = process.local(now);
        let mut sleep = None;
        let events = if std::mem::take(&mut process.timers_first) {
            self.tick(slot, epoch)
        } else if process.taken < INPUTS_PER_TURN
            && (!process.inbox.is_empty() || process.takes_packet())
        {
            process.taken += 1;
            self.next_input(slot, epoch)?
        } else {
            process.taken = 0;
            if local.saturating_sub(process.last_tick_ns) >= TICK_NS {
                self.tick(slot, epoch)
            } else {
                match process.replica.wait() {
                    Wait::Run => vec![Event::Slice],
                    Wait::Until(until) if until <= local => self.tick(slot, epoch),
                    Wait::Until(until) => {
                        let mut wait = (until - local).min(LONGEST_SLEEP_NS);
                        if process.replica.wants_queue() {
                            wait = wait.min(TICK_NS);
                        }
                        sleep = Some(process.env.clock.when(local + wait, now));
                        Vec::new()
                    }
                }
            }
        };
        if let Some(until) = sleep {
            if let Some(process) = self.process(slot, epoch) {
                process.sleeps = process.inbox.is_empty();
            }
            self.turn_at(slot, epoch, until);
            return Ok(());
        }
        let mut elapsed = 0;
        for event in events {
            elapsed = self.apply(slot, epoch, event, elapsed)?;
        }
        self.turn_at(slot, epoch, now + elapsed.max(TURN_NS));
        Ok(())
    }

    /// Tells what receives frames beside the loop how far the node is, and whether it may store.
    fn let_store(&mut self, slot: usize, epoch: u64) {
        let Some(process) = self.process(slot, epoch) else {
            return;
        };
        let storing = process.replica.storing();
        if storing == process.lets_store {
            return;
        }
        process.lets_store = storing;
        match storing {
            Some(storing) => process.env.intake.follow(storing),
            None => drop(process.env.intake.close()),
        }
    }

    /// The timers' turn.
    fn tick(&mut self, slot: usize, epoch: u64) -> Vec<Event> {
        let now = self.now;
        let Some(process) = self.process(slot, epoch) else {
            return Vec::new();
        };
        process.last_tick_ns = process.local(now);
        vec![Event::Tick]
    }

    /// The next thing from the inbox, as events if it is any.
    fn next_input(&mut self, slot: usize, epoch: u64) -> Result<Vec<Event>, String> {
        let Some(process) = self.process(slot, epoch) else {
            return Ok(Vec::new());
        };
        if process.inbox.len() - process.channel_waits > OTHER_QUEUE {
            return Err(format!(
                "more than {OTHER_QUEUE} things wait for node {}",
                name(slot)
            ));
        }
        // From the wire and from everything else in turns.
        if process.takes_packet() && (process.inbox.is_empty() || process.taken.is_multiple_of(2)) {
            return Ok(self.packet_for_guest(slot, epoch).into_iter().collect());
        }
        match process.inbox.pop_front() {
            Some(Input::Event(event)) => Ok(vec![event]),
            Some(Input::Channel(event)) => {
                process.channel_waits -= 1;
                self.room_again(slot, epoch);
                Ok(vec![event])
            }
            Some(Input::Stored(conn, number)) => {
                if let Some(stored) = process.env.intake.next(conn, number) {
                    process.inbox.push_front(Input::Stored(conn, number));
                    return Ok(vec![Event::Stored { conn, stored }]);
                }
                process.channel_waits -= 1;
                self.room_again(slot, epoch);
                Ok(Vec::new())
            }
            Some(Input::Packet(bytes)) => {
                if process.wire.len() < WIRE_QUEUE {
                    let kept = process.role() == RoleKind::Backup && !process.replica.net_room(0);
                    process.wire.push_back((kept, bytes));
                }
                Ok(Vec::new())
            }
            Some(Input::Digest) => {
                process.replica.log_digest(&mut process.env);
                Ok(Vec::new())
            }
            None => Ok(Vec::new()),
        }
    }

    /// The next packet that has waited on the wire; it reaches the guest if that is here.
    fn packet_for_guest(&mut self, slot: usize, epoch: u64) -> Option<Event> {
        let process = self.process(slot, epoch)?;
        let (kept, bytes) = process.wire.pop_front()?;
        if process.role() != RoleKind::Live {
            return Some(Event::Frame { device: 0, bytes });
        }
        self.kept += u64::from(kept);
        let boot = self.contents(slot).map_or(0, |contents| contents.boot);
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(u64::MAX, u64::from_le_bytes)
        };
        self.history.reaches(word(32), word(40), boot);
        Some(Event::Frame { device: 0, bytes })
    }

    /// Hands one event to the replica, so long after the turn has begun; how long the turn is then.
    fn apply(&mut self, slot: usize, epoch: u64, event: Event, after: u64) -> Result<u64, String> {
        let now = self.now;
        let slow = now < self.hosts[slot].slow_until;
        let host = &self.hosts[slot];
        let (clock, speed) = (host.clock, host.ns_per_kstep * if slow { 10 } else { 1 });
        let next_boot = self.check.boot + 1;
        let queued = self.queued(slot);
        let Some(process) = self.hosts[slot].process.as_mut() else {
            return Ok(after);
        };
        let env = &mut process.env;
        env.clock = clock;
        env.began = now;
        env.elapsed = after + TURN_NS;
        env.ns_per_kstep = speed;
        env.next_boot = next_boot;
        if self.trace.on && !matches!(event, Event::Slice | Event::Tick | Event::Queued { .. }) {
            let text = brief(&format!("{event:?}"));
            self.trace.note(now, || format!("{} <- {text}", name(slot)));
        }
        // Before its timers' turn the replica hears how much waits on the channel.
        if matches!(event, Event::Tick)
            && (process.replica.has_session() || process.replica.wants_queue())
        {
            process.replica.apply(env, Event::Queued { bytes: queued });
        }
        process.replica.apply(env, event);
        let elapsed = process.env.elapsed;
        let status = process.replica.status();
        if let Some(what) = status.divergence {
            return Err(format!("node {} diverged: {what}", name(slot)));
        }
        self.check_kept(slot, epoch)?;
        self.maybe_kill(slot, false);
        Ok(elapsed)
    }

    /// Nobody throws the machine of a won claim away.
    fn check_kept(&mut self, slot: usize, epoch: u64) -> Result<(), String> {
        let named = self.arbiter.current().map(|record| record.live);
        let Some(process) = self.process(slot, epoch) else {
            return Ok(());
        };
        if process.claim.is_some() && process.claim == named && process.machine().is_none() {
            return Err(format!(
                "node {} threw away the machine of its won claim",
                name(slot)
            ));
        }
        Ok(())
    }
}

/// Long texts cut short.
pub(super) fn brief(text: &str) -> String {
    const LONGEST: usize = 240;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

//! Live: `node/live.rs`, `node/hosting.rs` and the stages of a stop in `node/stop.rs`.

use crate::log::Entry;
use crate::record::{Id, Purpose, Record};
use crate::rules::Broken;
use crate::state::{Bye, Link, Question, Role, Stop, World, Wrong};
use crate::step::Step;

/// Stages that one event may set off, as in the production node.
const MAX_STEPS: usize = 16;

impl World {
    /// Whether the guest executes here.
    pub(crate) fn runs(&self, id: Id) -> bool {
        let node = self.node(id);
        node.role == Role::Live && node.stop.is_none() && !node.thaw && !node.log.halted()
    }
}

impl Step<'_> {
    /// The guest takes in or makes something.
    pub(crate) fn append(&mut self, id: Id, entry: Entry) {
        self.node(id).log.push(entry);
        if entry == Entry::Output {
            self.flushed(id);
        }
        let conn = &mut self.w.conns[id.ix()];
        if conn.live_end && !conn.broken && conn.base.is_some() {
            conn.stream.push(entry);
        }
        self.settle(id);
    }

    /// After every event: stages that are due, outputs that may leave.
    pub(crate) fn settle(&mut self, id: Id) {
        for _ in 0..MAX_STEPS {
            if self.node(id).role != Role::Live {
                return;
            }
            self.release(id);
            if !self.advance(id) {
                return;
            }
        }
        let what = "one event set off too many steps";
        self.w.wrong.get_or_insert(Wrong::Invariant(what));
    }

    /// Outputs up to here may leave.
    fn permit(&self, id: Id) -> u8 {
        let node = self.w.node(id);
        let everything = node.log.len();
        let acked = node.acked + u8::from(self.is(Broken::ReleaseOnInputAck));
        let pairing = matches!(node.link, Link::GateOn | Link::PairCas);
        match node.link {
            _ if pairing && self.is(Broken::PairGateOff) => everything,
            Link::Solo | Link::Snapshot | Link::CatchUp | Link::Probe => everything,
            // The backup emits, and says so.
            Link::Paired if self.backup_speaks => 0,
            Link::GateOn | Link::Paired => acked,
            Link::PairCas | Link::Settling => 0,
        }
    }

    fn release(&mut self, id: Id) {
        let permit = self.permit(id);
        let node = *self.node(id);
        for position in node.log.outputs(node.released) {
            if position > permit {
                return;
            }
            self.emitted(id, position);
            self.node(id).released = position;
        }
    }

    pub(crate) fn link(&mut self, id: Id, link: Link) {
        let node = self.node(id);
        node.link = link;
        node.gate_on = 0;
        (node.want_halted, node.asked) = (false, false);
        (node.waits, node.thaw) = (false, false);
    }

    /// From here on nothing leaves until a record of ours is settled.
    pub(crate) fn settle_by(&mut self, id: Id, halted: bool) {
        self.link(id, Link::Settling);
        self.node(id).want_halted = halted;
    }

    pub(crate) fn lose_session(&mut self, id: Id) {
        if !self.w.conn(id).live_end {
            return;
        }
        self.close_live(id, None);
        match self.w.node(id).link {
            Link::Solo | Link::Settling => {}
            Link::Paired if self.is(Broken::SoloWithoutDrop) => {
                if let Some(record) = &mut self.node(id).record {
                    record.backup = None;
                }
                self.link(id, Link::Solo);
            }
            Link::PairCas | Link::Paired => {
                self.settle_by(id, false);
                self.forget_unspoken(id);
            }
            Link::Snapshot | Link::CatchUp | Link::Probe | Link::GateOn => {
                self.forget_read(id);
                self.link(id, Link::Solo);
            }
        }
    }

    pub(crate) fn take_snapshot(&mut self, id: Id) {
        let log = self.node(id).log;
        let conn = &mut self.w.conns[id.ix()];
        conn.base = Some(log.len());
        conn.stream = log;
        self.link(id, Link::CatchUp);
    }

    /// The follower's words so far are here.
    pub(crate) fn on_acks(&mut self, id: Id) {
        let (acked, installed) = (self.w.conn(id).acked, self.w.conn(id).installed);
        let node = self.node(id);
        node.acked = node.acked.max(acked);
        node.installed |= installed;
        self.on_spoken(id);
        self.settle(id);
    }

    // ---- the record ----------------------------------------------------------------

    pub(crate) fn live_on_record(&mut self, id: Id, record: &Record) {
        if record.live != id || !record.current {
            return self.lost(id);
        }
        let node = *self.node(id);
        match node.link {
            Link::PairCas if record.backup == Some(true) => {
                self.link(id, Link::Paired);
                self.tell(id, record.generation);
            }
            Link::Settling => {
                let done = match node.want_halted {
                    false => record.backup.is_none() && !record.halted,
                    true => record.halted,
                };
                if done {
                    self.settled_as(id);
                } else {
                    // An earlier CAS of ours landed first: raise it once more.
                    let still = node.question != Question::None;
                    self.node(id).asked &= still;
                }
            }
            _ => {
                let what = "a record of ours that was never sent";
                self.w.wrong.get_or_insert(Wrong::Invariant(what));
            }
        }
    }

    fn tell(&mut self, id: Id, generation: u8) {
        let conn = &mut self.w.conns[id.ix()];
        if conn.live_end && !conn.broken && conn.told.is_none() {
            conn.told = Some((conn.stream.len(), generation));
        }
    }

    fn settled_as(&mut self, id: Id) {
        let halted = self.node(id).want_halted;
        let bye = if halted { Bye::Halted } else { Bye::Detached };
        self.close_live(id, Some(bye));
        self.link(id, Link::Solo);
        if halted {
            self.off(id);
        }
    }

    /// The record names another node live.
    fn lost(&mut self, id: Id) {
        if self.is(Broken::LoserGoesOn) {
            self.close_live(id, None);
            self.forget_cas(id);
            return self.link(id, Link::Solo);
        }
        self.discarded(id);
        self.lose_session(id);
        if self.is(Broken::LoserEmits) {
            self.link(id, Link::Solo);
            self.release(id);
        }
        self.forget_cas(id);
        self.forget_read(id);
        self.new_life(id);
        if self.node(id).terminating {
            return self.off(id);
        }
        self.seek(id, Role::Frozen);
        if !self.is(Broken::LoserKeepsMachine) {
            self.node(id).log = Default::default();
        }
    }

    pub(crate) fn live_on_read(&mut self, id: Id, read: Option<Record>) {
        let node = *self.node(id);
        if node.link == Link::Probe && read == node.record {
            self.link(id, Link::GateOn);
            self.node(id).gate_on = node.log.len();
        }
    }

    // ---- stages --------------------------------------------------------------------

    /// Takes the next step that is due, if one is. True if it took one.
    fn advance(&mut self, id: Id) -> bool {
        if self.advance_stop(id) {
            return true;
        }
        let node = *self.node(id);
        let generation = node.record.map_or(0, |r| r.generation);
        match node.link {
            Link::CatchUp if node.installed => {
                self.link(id, Link::Probe);
                true
            }
            Link::GateOn if node.acked >= node.gate_on || self.is(Broken::PairBeforeAck) => {
                self.link(id, Link::PairCas);
                self.ask_cas(id, generation, true, false, Purpose::Change);
                if self.is(Broken::TellBeforeCas) {
                    self.tell(id, generation + 1);
                }
                true
            }
            Link::Settling if !node.asked && !node.waits => {
                self.node(id).asked = true;
                self.ask_cas(id, generation, false, node.want_halted, Purpose::Change);
                true
            }
            _ => false,
        }
    }

    fn advance_stop(&mut self, id: Id) -> bool {
        let node = *self.node(id);
        let Some(kind) = node.stop else {
            return false;
        };
        match node.link {
            Link::Snapshot | Link::CatchUp | Link::Probe | Link::GateOn => {
                self.close_live(id, Some(Bye::Leaving));
                self.forget_read(id);
                self.link(id, Link::Solo);
                true
            }
            Link::Paired if self.is(Broken::HaltUnspoken) && node.acked >= node.log.len() => {
                self.part(id, kind);
                true
            }
            _ if node.log.outputs(node.released).next().is_some() => false,
            Link::Solo if kind == Stop::Handover => {
                self.node(id).stop = None;
                true
            }
            Link::Solo => {
                self.settle_by(id, true);
                true
            }
            Link::Paired if node.acked >= node.log.len() => {
                self.part(id, kind);
                true
            }
            _ => false,
        }
    }

    /// All is acked and released.
    fn part(&mut self, id: Id, kind: Stop) {
        if kind == Stop::Halt {
            return self.settle_by(id, true);
        }
        self.close_live(id, Some(Bye::Claim));
        if kind == Stop::Leave {
            return self.off(id);
        }
        self.node(id).stop = None;
        self.settle_by(id, false);
        (self.node(id).waits, self.node(id).thaw) = (true, true);
    }

    /// The backup has not claimed in time.
    pub(crate) fn handover_over(&mut self, id: Id) {
        self.node(id).waits = false;
        self.settle(id);
    }

    /// Broken rules: the CAS counts as failed.
    pub(crate) fn taken_for_failed(&mut self, id: Id) {
        self.forget_cas(id);
        self.close_live(id, None);
        self.link(id, Link::Solo);
        self.settle(id);
    }
}

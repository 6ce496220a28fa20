//! Marks and copies: what `node/core.rs` and the others do with `Core::mark`, and `node/forced.rs`.

use std::cmp::Ordering;

use crate::disk::{Content, Disk};
use crate::log::Log;
use crate::record::{Id, Purpose, Record};
use crate::rules::Broken;
use crate::state::{Forced, Known, Node, Question, Wrong};
use crate::step::Step;

impl Step<'_> {
    fn disk(&mut self, id: Id) -> &mut Disk {
        &mut self.w.disks[id.ix()]
    }

    /// A mark is durable before the CAS that it is about.
    pub(crate) fn mark_before_cas(&mut self, id: Id, expect: u8, purpose: Purpose) {
        let never = self.is(Broken::PendingUnmarked) || self.is(Broken::PendingMarkedLate);
        if self.disks && !never {
            let entitled = purpose != Purpose::Forced && !self.is(Broken::HeldUnmarked);
            self.disk(id).before_cas(expect, entitled);
        }
    }

    /// A rule broken on purpose: the mark comes with the CAS's answer.
    pub(crate) fn mark_after_cas(&mut self, id: Id, expect: u8) {
        if self.disks && self.is(Broken::PendingMarkedLate) {
            self.disk(id).before_cas(expect, true);
        }
    }

    /// A record is news.
    pub(crate) fn mark_learnt(&mut self, id: Id, record: &Record) {
        if !self.disks {
            return;
        }
        if record.live == id && record.current {
            self.mark_held(id, record.generation);
        } else if record.live != id && self.disk(id).pending <= Some(record.generation) {
            self.disk(id).pending = None;
        }
    }

    pub(crate) fn mark_held(&mut self, id: Id, generation: u8) {
        if self.disks && !self.is(Broken::HeldUnmarked) {
            self.disk(id).held_by(generation);
        }
    }

    /// The first block of the other copy is written over this one.
    pub(crate) fn overwrite(&mut self, id: Id) {
        if self.disks {
            let marked = !self.is(Broken::HalfUnmarked);
            let disk = self.disk(id);
            (disk.half, disk.pending) = (marked, None);
            (disk.content, disk.holds) = (Content::Mixed, Log::default());
        }
    }

    /// All blocks are there, as of the snapshot, and durable.
    pub(crate) fn overwritten(&mut self, id: Id) {
        if !self.disks {
            return;
        }
        let node = *self.w.node(id);
        let base = self.w.conn(id.other()).base.unwrap_or(0);
        let early = self.is(Broken::HalfClearedEarly);
        let disk = self.disk(id);
        disk.half = false;
        disk.holds = node.log.prefix(base);
        disk.content = match early {
            true => Content::Volatile,
            false => Content::Whole,
        };
    }

    /// The log that is held was executed, and the disks are durable.
    pub(crate) fn drained_to_disk(&mut self, id: Id) {
        if self.disks && !self.is(Broken::ClaimUnflushed) {
            let log = self.w.node(id).log;
            let disk = self.disk(id);
            (disk.content, disk.holds) = (Content::Whole, log);
        }
    }

    /// The guest makes an output: it has flushed its disks before.
    pub(crate) fn flushed(&mut self, id: Id) {
        if self.disks {
            let log = self.w.node(id).log;
            let disk = self.disk(id);
            (disk.content, disk.holds) = (Content::Whole, log);
        }
    }

    /// The host loses power.
    pub(crate) fn power_lost(&mut self, id: Id) {
        if self.disk(id).content == Content::Volatile {
            self.disk(id).content = Content::Mixed;
        }
    }

    /// A start is won, from the disks of `id`.
    pub(crate) fn begins_from(&mut self, id: Id, forced: bool) {
        if !self.disks {
            return;
        }
        let disk = self.w.disks[id.ix()];
        let whole = disk.content == Content::Whole;
        if forced {
            // A person was told what is lost.
            if !whole && !disk.half {
                self.wrong(Wrong::HalfUnsaid);
            }
        } else if !whole {
            self.wrong(Wrong::HalfStarted);
        } else if !disk.has_all(&self.w.history) {
            self.wrong(Wrong::OldStarted);
        }
        let disk = self.disk(id);
        (disk.content, disk.holds) = (Content::Whole, Log::default());
    }

    /// Powers on: from here on the other copy is one of an earlier boot.
    pub(crate) fn powered_on(&mut self, id: Id) {
        if self.disks {
            self.disk(id.other()).holds.old = true;
        }
    }

    /// Whether the rules let it start by a record of this generation.
    pub(crate) fn may_start(&self, id: Id, named: u8) -> bool {
        !self.disks || self.is(Broken::MarkIgnored) || self.w.disks[id.ix()].starts(named)
    }

    /// What a person would be told about the newest copy.
    pub(crate) fn newest_is_right(&mut self) {
        let [a, b] = self.w.disks;
        let history = self.w.history;
        let has = [a.has_all(&history), b.has_all(&history)];
        let lies = match a.compare(&b) {
            Some(Ordering::Greater) => has == [false, true],
            Some(Ordering::Less) => has == [true, false],
            _ => false,
        };
        if lies {
            self.wrong(Wrong::NewerLacks);
        }
    }

    // ---- people --------------------------------------------------------------------

    /// A person ends what waits on both hosts, and starts one by force.
    pub(crate) fn start_forced(&mut self, id: Id) {
        let unfenced = self.is(Broken::ForceUnfenced);
        let shown = self.w.register.map_or(0, |r| r.generation);
        if !self.w.waits_for_a_person() {
            self.w.left.requests = self.w.left.requests.saturating_sub(1);
        }
        if !unfenced {
            self.off(id.other());
        }
        self.off(id);
        let node = self.node(id);
        *node = Node {
            forced: Forced::Asked(shown),
            ..Node::started(node.generation)
        };
    }

    /// The peer has not answered in time.
    pub(crate) fn force(&mut self, id: Id) {
        let node = self.node(id);
        node.forced = Forced::Sent;
        let expect = match node.known {
            Known::Record => node.record.map_or(0, |r| r.generation),
            _ => 0,
        };
        self.ask_cas(id, expect, false, false, Purpose::Forced);
    }

    /// Whether force is asked for and may be used; else the rules decide.
    pub(crate) fn decide_forced(&mut self, id: Id) -> bool {
        let half = self.disk(id).half;
        let later = self.is(Broken::ForceLater);
        let node = self.node(id);
        let Forced::Asked(shown) = node.forced else {
            return false;
        };
        let changed = !later && node.forces().is_some_and(|expect| expect != shown);
        if half || changed {
            node.forced = Forced::No;
        }
        node.forces().is_some()
    }

    /// A peer that answers is not off.
    pub(crate) fn answered(&mut self, id: Id) {
        let sent = self.node(id).forced == Forced::Sent;
        if !sent && !self.is(Broken::ForceUnfenced) {
            self.node(id).forced = Forced::No;
        }
    }

    /// A person ends what waits on both hosts, and has the record name one of them.
    pub(crate) fn reset(&mut self, id: Id) {
        for id in Id::BOTH {
            self.off(id);
        }
        let known = self.w.nodes.map(|n| n.generation);
        let before = self.w.register.map_or(0, |r| r.generation);
        self.w.lost = None;
        let once = u8::from(!self.is(Broken::ResetByOne));
        let generation = before.max(known[0]).max(known[1]) + 1 + once;
        self.w.register = Some(Record {
            generation,
            live: id,
            current: false,
            backup: None,
            halted: true,
        });
    }
}

impl Node {
    /// The generation from which a forced start would be asked for now.
    pub(crate) fn forces(&self) -> Option<u8> {
        let idle = self.question == Question::None && self.welcomed.is_none();
        let expect = match (self.known, self.record) {
            (Known::Record, Some(record)) => record.generation,
            (Known::Absent, _) => 0,
            _ => return None,
        };
        let fits = idle && self.role.seeks() && expect >= self.generation;
        (fits && matches!(self.forced, Forced::Asked(_))).then_some(expect)
    }
}

//! What must never be seen, checked where it would be seen first.

use crate::log::Log;
use crate::record::{Cas, Id, Purpose, Record};
use crate::rules::Broken;
use crate::state::{Link, Question, Role, World, Wrong};
use crate::step::Step;

impl Step<'_> {
    /// Notes the first thing that went wrong.
    pub(crate) fn wrong(&mut self, wrong: Wrong) {
        self.w.wrong.get_or_insert(wrong);
    }

    /// The output that ends at `position` of this node's log leaves for the world.
    pub(crate) fn emitted(&mut self, id: Id, position: u8) {
        let node = *self.w.node(id);
        let named = self.w.given().is_none_or(|r| {
            r.live == id && (r.current || self.broken == Some(Broken::StartWithoutCas))
        });
        match node.lost_at {
            Some(known) if position > known => return self.wrong(Wrong::LoserEmitted),
            None if !named => return self.wrong(Wrong::LoserEmitted),
            // What a log of an earlier boot shares with its winner's was a former history.
            Some(_) if node.log.old => return,
            _ => {}
        }
        self.seen(node.log.prefix(position), position);
    }

    /// A backup emits the output that ends at `position`.
    pub(crate) fn spoken(&mut self, id: Id, position: u8) {
        let node = *self.w.node(id);
        // A backup of an earlier boot that has not heard of the cold start yet.
        if node.log.old {
            return;
        }
        let start = node.log.prefix(position);
        let live = self.w.node(id.other());
        let elsewhere =
            live.role == Role::Live && live.lost_at.is_none() && !live.log.contains(&start);
        let won = self.w.register.is_some_and(|r| r.live == id);
        if elsewhere || won {
            return self.wrong(Wrong::SpokenElsewhere);
        }
        self.seen(start, position);
    }

    /// The output at the end of `start` is seen outside.
    fn seen(&mut self, start: Log, position: u8) {
        let history = self.w.history;
        if start.len() <= history.len() {
            if !history.contains(&start) {
                self.wrong(Wrong::TwoHistories);
            }
            return;
        }
        if !start.contains(&history) {
            return self.wrong(Wrong::TwoHistories);
        }
        if start.outputs(history.len()).next() != Some(position) {
            return self.wrong(Wrong::OutputLost);
        }
        self.w.history = start;
    }

    /// A compare-and-set takes effect.
    pub(crate) fn landing(&mut self, cas: &Cas) {
        let id = cas.record.live;
        if self.w.lost.is_some() && cas.expect > 0 {
            self.w.beyond = true;
            return;
        }
        let other = *self.w.node(id.other());
        match cas.purpose {
            Purpose::Change => {
                let log = self.w.node(id).log;
                let live = self.w.node(id).role == Role::Live;
                let early = log.outputs(self.w.history.len()).next().is_some();
                if cas.record.halted && live && !log.old && early {
                    self.wrong(Wrong::OffTooEarly);
                }
            }
            Purpose::Claim(len) => {
                let node = self.w.node(id);
                if node.role == Role::Asking && !node.log.contains(&self.w.history) {
                    self.wrong(Wrong::EmittedMissing);
                }
                self.loses(id.other(), len);
            }
            Purpose::Start | Purpose::StartAnyway | Purpose::Forced => {
                let before = self.w.register;
                let forced = cas.purpose == Purpose::Forced;
                if before.is_some_and(|r| r.live != id) && !forced {
                    self.wrong(Wrong::StartNotNamed);
                }
                let held = before.is_none_or(|r| r.backup == Some(true)) && other.role.holds();
                let live = other.role == Role::Live && other.lost_at.is_none();
                if live || held && cas.purpose != Purpose::StartAnyway {
                    self.wrong(Wrong::StartBeside);
                }
                self.loses(id.other(), 0);
                for node in &mut self.w.nodes {
                    node.log.old = !node.role.seeks() && node.role != Role::Off;
                }
                for conn in &mut self.w.conns {
                    conn.stream.old = conn.base.is_some();
                }
                self.begins_from(id, forced);
                self.w.history = Default::default();
            }
        }
    }

    fn loses(&mut self, id: Id, known: u8) {
        let node = &mut self.w.nodes[id.ix()];
        if node.role == Role::Live {
            node.lost_at.get_or_insert(known);
        }
    }

    /// A node goes live with its log, by a claim or by a start.
    pub(crate) fn went_live(&mut self, id: Id) {
        let node = *self.w.node(id);
        let skip = self.broken == Some(Broken::StartWithoutCas);
        let named = |r: Record| Some(r) == node.record && r.current;
        if !skip && !self.w.given().is_none_or(named) {
            self.wrong(Wrong::NotNamed);
        }
        if !node.log.contains(&self.w.history) {
            self.wrong(Wrong::EmittedMissing);
        }
    }

    /// A machine is given up: right only if the record doesn't name its node live, and no claim of
    /// it can be won any more.
    pub(crate) fn discarded(&mut self, id: Id) {
        let given = self.w.given();
        let generation = given.map_or(0, |r| r.generation);
        let won = given.is_some_and(|r| r.live == id && r.current);
        let strays = self.w.strays.iter().flatten().copied();
        let mut own = strays.chain(match self.w.node(id).question {
            Question::Out(cas) => Some(cas),
            _ => None,
        });
        let may_win =
            own.any(|c| c.record.live == id && c.record.current && c.expect == generation);
        if won || may_win {
            self.wrong(Wrong::WinnerDiscarded);
        }
        let other = *self.w.node(id.other());
        let elsewhere = other.role == Role::Live && other.lost_at.is_none();
        let names = |lost: Record| lost.live != id && lost.backup == Some(true);
        let lost = self.after_loss && self.w.lost == given;
        if lost && given.is_some_and(names) && !elsewhere {
            self.wrong(Wrong::LostDiscarded);
        }
    }

    /// After each step.
    pub(crate) fn looks(&mut self) {
        let [a, b] = self.w.nodes;
        let generation = |n: &crate::state::Node| n.record.map(|r| r.generation);
        if !self.w.backup_suffices() {
            self.wrong(Wrong::NamedLacks);
        }
        self.newest_is_right();
        if a.role == Role::Live && b.role == Role::Live && generation(&a) == generation(&b) {
            self.wrong(Wrong::TwoLive);
        }
        // A rule broken on purpose is to be found by what is seen from outside.
        if self.broken.is_none()
            && let Some(what) = Id::BOTH.into_iter().find_map(|id| violated(self.w, id))
        {
            self.wrong(Wrong::Invariant(what));
        }
    }
}

impl World {
    /// The newest record that was won, also if the arbiter has lost it since.
    fn given(&self) -> Option<Record> {
        let generation = self.register.map_or(0, |r| r.generation);
        let lost = self.lost.filter(|lost| lost.generation >= generation);
        lost.or(self.register)
    }

    /// A backup that the record names and that still holds the session has all that was emitted:
    /// if the live node died now, nothing would be missed.
    fn backup_suffices(&self) -> bool {
        let Some(record) = self.given().filter(|r| r.backup == Some(true)) else {
            return true;
        };
        let backup = self.node(record.live.other());
        match backup.role {
            Role::Joining => backup.log.old,
            Role::Backup => {
                backup.log.old || backup.log.prefix(backup.stored).contains(&self.history)
            }
            _ => true,
        }
    }
}

/// The run-time invariants of the production node, as far as they speak of what is modelled.
fn violated(world: &World, id: Id) -> Option<&'static str> {
    let node = world.node(id);
    let awaits = node.question.cas().is_some();
    let must = |holds: bool, what| (!holds).then_some(what);
    match node.role {
        Role::Off | Role::Cold | Role::Frozen => must(
            !(awaits && node.welcomed.is_some()),
            "joining while a start may land",
        ),
        Role::Joining | Role::Backup => must(!awaits, "a backup awaits a CAS"),
        Role::Draining | Role::Reading => must(!awaits, "asked before it was drained"),
        Role::Asking => must(awaits, "claiming without a CAS"),
        Role::Live => {
            let Some(settled) = node.record.filter(|r| r.live == id && r.current) else {
                return Some("live by a record that names another");
            };
            let waiting = node.log.outputs(node.released).next().is_some();
            let alone = must(settled.backup.is_none(), "a backup is named");
            match node.link {
                Link::Solo => alone
                    .or(must(!awaits, "solo, but the outcome of a CAS is awaited"))
                    .or(must(!waiting, "solo, but an output is held")),
                Link::Snapshot | Link::CatchUp | Link::Probe => {
                    alone.or(must(!awaits, "pairing: a CAS is awaited outside its stage"))
                }
                Link::GateOn => alone.or(must(
                    node.released <= node.acked.max(node.gate_on),
                    "an unacked output left after the gate was on",
                )),
                Link::PairCas => alone.or(must(awaits, "pairing without its CAS")).or(must(
                    node.released <= node.acked,
                    "the pairing CAS is out, but the backup lacks what has left",
                )),
                Link::Paired => must(
                    settled.backup == Some(true),
                    "paired, but the record names another session",
                )
                .or(must(!awaits, "paired, but the outcome of a CAS is awaited"))
                .or(must(
                    node.released <= node.acked,
                    "an output left before the backup acked its record",
                )),
                Link::Settling => must(awaits || !node.asked, "settling without its CAS"),
            }
        }
    }
}

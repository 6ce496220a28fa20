//! Questions to the arbiter: `node/asking.rs`, and what every role does with an answer.

use crate::record::{Cas, Id, Purpose, Record};
use crate::rules::Broken;
use crate::state::{Question, Role, Seen};
use crate::step::Step;

impl Step<'_> {
    /// Asks for a change of the record, in the place of any earlier question.
    pub(crate) fn ask_cas(
        &mut self,
        id: Id,
        expect: u8,
        backup: bool,
        halted: bool,
        purpose: Purpose,
    ) {
        self.forget_cas(id);
        self.forget_read(id);
        self.mark_before_cas(id, expect, purpose);
        let record = Record {
            generation: expect + 1,
            live: id,
            current: true,
            backup: backup.then_some(true),
            halted,
        };
        self.node(id).question = Question::Out(Cas {
            expect,
            record,
            purpose,
        });
    }

    /// The node stops waiting for its CAS; the request is on its way all the same.
    pub(crate) fn forget_cas(&mut self, id: Id) {
        match std::mem::take(&mut self.node(id).question) {
            Question::Out(cas) => self.stray(cas),
            Question::Answered(_, record) if self.node(id).seen.is_none() => {
                self.node(id).seen = Some(Seen {
                    asked: false,
                    record,
                    after_loss: false,
                });
            }
            _ => {}
        }
    }

    pub(crate) fn forget_read(&mut self, id: Id) {
        if let Some(seen) = &mut self.node(id).seen {
            seen.asked = false;
        }
    }

    /// A request that will land late or never.
    pub(crate) fn stray(&mut self, cas: Cas) {
        let strays = &mut self.w.strays;
        let generation = self.w.register.map_or(0, |r| r.generation);
        if strays.contains(&Some(cas)) {
            return;
        }
        let dead = |c: &Option<Cas>| c.is_none_or(|c| c.expect < generation);
        let place = strays.iter_mut().find(|c| dead(c));
        *place.expect("more requests under way than the bounds allow for") = Some(cas);
    }

    /// The register takes a compare-and-set; the record after it.
    pub(crate) fn land(&mut self, cas: Cas) -> Option<Record> {
        if self.w.register.map_or(0, |r| r.generation) == cas.expect {
            self.landing(&cas);
            self.w.register = Some(cas.record);
        }
        self.w.register
    }

    /// The node reads the record. The answer comes later.
    pub(crate) fn read(&mut self, id: Id) {
        let record = self.w.register;
        let after_loss = self.w.lost.is_some();
        self.node(id).seen = Some(Seen {
            asked: true,
            record,
            after_loss,
        });
    }

    /// A late request lands; its asker, if it is still the same, may hear of it.
    pub(crate) fn land_stray(&mut self, index: usize) {
        let Some(cas) = self.w.strays[index].take() else {
            return;
        };
        let record = self.land(cas);
        let node = self.node(cas.record.live);
        if cas.record.current && node.role != Role::Off && node.seen.is_none() {
            node.seen = Some(Seen {
                asked: false,
                record,
                after_loss: false,
            });
        }
    }

    /// The arbiter has lost its record, and takes this node's first request of all.
    pub(crate) fn late_first(&mut self, id: Id, current: bool) {
        self.w.register = Some(Record {
            generation: 1,
            live: id,
            current,
            backup: None,
            halted: false,
        });
    }

    /// The outcome stays unknown: no answer, or a lost one.
    pub(crate) fn unknown(&mut self, id: Id) {
        match self.node(id).question {
            Question::Out(cas) => {
                self.stray(cas);
                self.node(id).question = Question::Unknown(cas);
            }
            Question::Answered(cas, _) => self.node(id).question = Question::Unknown(cas),
            _ => {}
        }
    }

    pub(crate) fn learn_generation(&mut self, id: Id, generation: u8) {
        let node = self.node(id);
        node.generation = node.generation.max(generation);
    }

    fn learn(&mut self, id: Id, record: &Record) -> bool {
        self.learn_generation(id, record.generation);
        let node = self.node(id);
        let known = node.record.map_or(0, |r| r.generation);
        let late = record.generation < node.generation;
        if record.generation <= known || late && self.broken != Some(Broken::LateNews) {
            return false;
        }
        self.node(id).record = Some(*record);
        self.mark_learnt(id, record);
        true
    }

    /// A record of this generation exists: the end of any CAS from a lower one.
    fn settles(&mut self, id: Id, generation: u8) -> bool {
        let cas = self.node(id).question.cas();
        let settled = cas.is_some_and(|cas| generation > cas.expect);
        if settled {
            self.forget_cas(id);
        }
        settled
    }

    /// An answer is here: `shown` is the record; `read` says that it answers the present read.
    pub(crate) fn on_arbiter(&mut self, id: Id, shown: Option<Record>, read: bool) {
        let role = self.node(id).role;
        if let Some(shown) = shown
            && (self.learn(id, &shown) | self.settles(id, shown.generation))
            && let Some(record) = self.node(id).record
        {
            match role {
                Role::Cold | Role::Frozen => self.seek_on_record(id, &record),
                Role::Draining | Role::Reading | Role::Asking => self.claim_on_record(id, &record),
                Role::Live => self.live_on_record(id, &record),
                Role::Off | Role::Joining | Role::Backup => {}
            }
        }
        if read && self.node(id).role == role {
            match role {
                Role::Cold | Role::Frozen => self.seek_on_read(id, shown),
                Role::Reading => self.claim_on_read(id, shown),
                Role::Live => self.live_on_read(id, shown),
                _ => {}
            }
        }
        self.settle(id);
    }

    /// The answer to the CAS is here.
    pub(crate) fn on_cas(&mut self, id: Id) {
        if let Question::Answered(cas, shown) = self.node(id).question {
            self.node(id).question = Question::Unknown(cas);
            self.mark_after_cas(id, cas.expect);
            self.on_arbiter(id, shown, false);
        }
    }

    /// The answer to a read is here, asked for or not.
    pub(crate) fn on_seen(&mut self, id: Id) {
        if let Some(seen) = self.node(id).seen.take() {
            self.after_loss = seen.after_loss;
            self.on_arbiter(id, seen.record, seen.asked);
        }
    }
}

//! Cold, by force: a person has said that the other node is off. `crate::force` says what that
//! means.

use crate::config::FIRST_START_ASK_MS;
use crate::event::NoteLevel;
use crate::force::Force;
use crate::node::core::Core;
use crate::node::seek::Seek;
use crate::record::{Generation, Record};
use crate::time::Instant;

impl Seek {
    /// A person wants this node to start. The other one is given its time to answer all the same.
    pub(crate) fn force<T>(&mut self, core: &mut Core<T>, now: Instant, force: Force) {
        self.forced = Some(force);
        self.decide(core, now);
    }

    /// A forced start is over, unless it is won. The node goes on as one that was not forced.
    pub(super) fn not_forced<T>(&mut self, core: &mut Core<T>, why: &str) {
        if self.forced.take().is_some() {
            core.note(NoteLevel::Error, format!("not forced: {why}"));
        }
    }

    /// When the other node has had its time.
    pub(super) fn forced_deadline(&self, now: Instant) -> Option<Instant> {
        let at = self.since.plus_ms(FIRST_START_ASK_MS);
        (self.forced.is_some() && at > now).then_some(at)
    }

    /// Starts by force if that is asked for and may be. False if the rules decide as ever.
    pub(super) fn decide_forced<T>(
        &mut self,
        core: &mut Core<T>,
        now: Instant,
        read: Option<Record>,
    ) -> bool {
        let Some(force) = self.forced else {
            return false;
        };
        if self.answer.is_some() {
            self.not_forced(core, "the other node answers, so it is not off");
            return false;
        }
        if core.disks.has_disks && !core.disks.consistent && !force.from_half_a_copy {
            self.not_forced(core, &format!("this node has {}", core.disks));
            return false;
        }
        let expect = read.map_or(Generation(0), |r| r.generation);
        if expect < core.generation {
            // The rules say what is wrong with the arbiter.
            return false;
        }
        if expect != force.shown {
            self.not_forced(
                core,
                &format!(
                    "the record has changed since it was looked at: its generation is {expect}, it \
                     was {}",
                    force.shown
                ),
            );
            return false;
        }
        if now >= self.since.plus_ms(FIRST_START_ASK_MS) {
            let text = format!(
                "starting by force from generation {expect}, with {}",
                core.disks
            );
            core.note(NoteLevel::Warn, text);
            self.starting = true;
            core.ask_forced(now, expect);
        }
        true
    }
}

//! Cold and Frozen: `node/seek.rs`, and the greeting of two nodes.

use crate::log::Log;
use crate::record::{Id, Purpose, Record};
use crate::rules::Broken;
use crate::state::{Answer, Call, Conn, Forced, Known, Link, Node, Question, Role};
use crate::step::Step;

impl Step<'_> {
    /// A new search: nothing of an old one counts.
    pub(crate) fn seek(&mut self, id: Id, role: Role) {
        let node = self.node(id);
        *node = Node {
            role,
            generation: node.generation,
            terminating: node.terminating,
            record: node.record,
            question: node.question,
            seen: node.seen,
            log: node.log,
            ..Node::default()
        };
        self.forget_read(id);
    }

    pub(crate) fn seek_on_read(&mut self, id: Id, read: Option<Record>) {
        let node = self.node(id);
        match (read, node.record) {
            (None, _) if node.known != Known::Absent => {
                node.known = Known::Absent;
                self.read_is_new(id);
            }
            (Some(read), Some(record))
                if read == record
                    && read.generation >= node.generation
                    && node.known != Known::Record =>
            {
                node.known = Known::Record;
                self.read_is_new(id);
            }
            _ => {}
        }
        self.decide(id);
    }

    pub(crate) fn seek_on_record(&mut self, id: Id, record: &Record) {
        let node = self.node(id);
        let started = node.question == Question::None && record.live == id && record.current;
        node.known = Known::Record;
        self.read_is_new(id);
        if started {
            self.start(id);
        } else {
            if self.node(id).forced == Forced::Sent {
                self.node(id).forced = Forced::No;
            }
            self.decide(id);
        }
    }

    /// Answers before now do not count.
    fn read_is_new(&mut self, id: Id) {
        if let Some(answer) = &mut self.node(id).answer {
            answer.fresh = false;
        }
    }

    /// Cold start, rule by rule.
    pub(crate) fn decide(&mut self, id: Id) {
        let node = *self.node(id);
        if !node.role.seeks() || node.question != Question::None || node.welcomed.is_some() {
            return;
        }
        if self.decide_forced(id) {
            return;
        }
        match (node.known, node.record) {
            (Known::Unread, _) | (Known::Record, None) => {}
            (Known::Absent, _) if node.generation == 0 || self.is(Broken::AbsentTrusted) => {
                // Without an answer it waits a second: `start_alone`.
                let known = |a: Answer| a.generation > 0 || a.live;
                if node.answer.is_some_and(|a| !known(a)) {
                    self.ask_start(id, 0, Purpose::Start);
                }
            }
            (Known::Absent, _) => {}
            (Known::Record, Some(record)) => {
                let from_other = record.live != id;
                if from_other && !self.is(Broken::StartFromOther) {
                    return;
                }
                if from_other || record.backup.is_none() {
                    return self.ask_start(id, record.generation, Purpose::Start);
                }
                self.decide_beside(id, &record);
            }
        }
    }

    /// The record names us live and a backup that may hold a newer machine than our disks.
    fn decide_beside(&mut self, id: Id, record: &Record) {
        let answer = self.node(id).answer.filter(|a| a.fresh);
        let start = match answer {
            _ if self.is(Broken::StartBesideHolder) => true,
            None => false,
            Some(a) if a.live || a.generation > record.generation => false,
            Some(a) => !(a.holds && record.backup == Some(true)),
        };
        if start {
            self.ask_start(id, record.generation, Purpose::Start);
        }
    }

    fn ask_start(&mut self, id: Id, expect: u8, purpose: Purpose) {
        if !self.may_start(id, expect) {
            return;
        }
        if self.is(Broken::StartWithoutCas) && expect > 0 {
            return self.start(id);
        }
        self.ask_cas(id, expect, false, false, purpose);
    }

    /// The start's CAS is won: power on from the disks, execute.
    fn start(&mut self, id: Id) {
        let node = self.node(id);
        *node = Node {
            role: Role::Live,
            generation: node.generation,
            record: node.record,
            seen: node.seen,
            log: Log::default(),
            ..Node::default()
        };
        self.powered_on(id);
        self.went_live(id);
    }

    /// No record, and a second without an answer.
    pub(crate) fn start_alone(&mut self, id: Id) {
        self.ask_start(id, 0, Purpose::Start);
    }

    /// `cold_delay_ms` without an answer: starts, whatever the backup may hold.
    pub(crate) fn cold_delay(&mut self, id: Id) {
        if let Some(record) = self.node(id).record {
            self.ask_start(id, record.generation, Purpose::StartAnyway);
        }
    }

    /// Calls the peer, which answers at once; the answer comes later.
    pub(crate) fn dial(&mut self, id: Id) {
        let peer = id.other();
        let node = *self.node(peer);
        let answer = Answer {
            live: node.role == Role::Live,
            generation: node.generation,
            holds: node.role.holds(),
            fresh: true,
        };
        let mut call = Call {
            answer,
            welcome: None,
        };
        if node.role == Role::Live {
            let generation = self.node(id).generation;
            call.welcome = self.on_caller(peer, generation);
            self.settle(peer);
        }
        if node.role.seeks() {
            // To the peer the caller's own words are an answer.
            let caller = self.w.node(id);
            let answer = Answer {
                live: false,
                generation: caller.generation,
                holds: false,
                fresh: true,
            };
            self.node(peer).answer = Some(answer);
            self.answered(peer);
            self.decide(peer);
        }
        self.node(id).call = Some(call);
    }

    /// The live node is called; its settled generation if it welcomes the caller.
    fn on_caller(&mut self, id: Id, generation: u8) -> Option<u8> {
        if self.w.conn(id).live_end {
            // To the caller the old session is over.
            self.lose_session(id);
        }
        let node = *self.node(id);
        let settled = node.record.map_or(0, |r| r.generation);
        let solo = node.link == Link::Solo
            || self.is(Broken::WelcomeBeforeDrop) && node.link == Link::Settling;
        let free = solo && node.stop.is_none() && !node.terminating;
        if !free {
            return None;
        }
        if generation > settled {
            if node.seen.is_none_or(|s| !s.asked) && node.question == Question::None {
                self.read(id);
            }
            return None;
        }
        self.forget_cas(id);
        self.forget_read(id);
        // Whatever record names an earlier session of ours names nobody any more.
        self.w.records(|r| {
            if r.live == id && r.backup.is_some() {
                r.backup = Some(false);
            }
        });
        self.w.conns[id.ix()] = Conn {
            live_end: true,
            follower_end: true,
            ..Conn::default()
        };
        self.link(id, Link::Snapshot);
        Some(settled)
    }

    /// The peer's answer is here.
    pub(crate) fn on_answer(&mut self, id: Id) {
        let Some(call) = self.node(id).call.take() else {
            return;
        };
        self.node(id).answer = Some(call.answer);
        self.answered(id);
        self.decide(id);
        let Some(generation) = call.welcome else {
            return;
        };
        let node = self.node(id);
        let starting = node.question != Question::None || !node.role.seeks();
        if starting || generation < node.generation {
            self.close_follower(id);
            return;
        }
        self.learn_generation(id, generation);
        self.forget_read(id);
        self.node(id).welcomed = Some(generation);
    }
}

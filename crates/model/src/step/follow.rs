//! Joining, Backup and the claim: `node/follow.rs` and `node/claim.rs`.

use crate::record::{Id, Purpose, Record};
use crate::rules::Broken;
use crate::state::{Bye, Link, Node, Role, Stop, World};
use crate::step::Step;

/// What the follower will find next in its session's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Snapshot(u8),
    Entry,
    Told(u8),
    Bye(Bye),
}

impl World {
    /// The next thing on its way to this follower.
    pub(crate) fn next(&self, id: Id) -> Option<Next> {
        let node = self.node(id);
        let conn = self.conn(id.other());
        if !conn.follower_end || node.welcomed.is_none() {
            return None;
        }
        if node.role.seeks()
            && let Some(base) = conn.base
        {
            return Some(Next::Snapshot(base));
        }
        let told = conn.told.filter(|_| node.told.is_none());
        if let Some((at, generation)) = told
            && node.log.len() >= at
        {
            return Some(Next::Told(generation));
        }
        if node.log.len() < conn.stream.len() && !node.role.seeks() {
            return Some(Next::Entry);
        }
        conn.bye.map(Next::Bye)
    }
}

impl Step<'_> {
    /// Takes it.
    pub(crate) fn deliver(&mut self, id: Id) {
        match self.w.next(id) {
            Some(Next::Snapshot(base)) => self.join(id, base),
            Some(Next::Entry) => {
                let stream = self.w.conn(id.other()).stream;
                let node = self.node(id);
                node.log.push(stream.entry(node.log.len() + 1));
                let received = node.log.len();
                if self.is(Broken::AckBeforeStored) {
                    self.ack(id, received);
                }
            }
            Some(Next::Told(generation)) => {
                let node = self.node(id);
                let fits = node.welcomed.is_some_and(|w| w + 1 == generation);
                if node.role == Role::Joining || !fits {
                    return self.suspect(id);
                }
                node.told = Some(generation);
                self.learn_generation(id, generation);
                self.mark_held(id, generation);
            }
            Some(Next::Bye(bye)) => self.on_goodbye(id, bye),
            None => {}
        }
    }

    fn on_goodbye(&mut self, id: Id, bye: Bye) {
        let following = !self.node(id).role.seeks();
        match bye {
            Bye::Halted | Bye::Detached if following => self.off(id),
            _ => self.suspect(id),
        }
    }

    /// The winner's snapshot begins: what was here is worthless.
    fn join(&mut self, id: Id, base: u8) {
        self.overwrite(id);
        let stream = self.w.conn(id.other()).stream;
        let keeps = self.is(Broken::LoserKeepsMachine);
        let node = self.node(id);
        let own = node.log.prefix(base);
        let kept = keeps && node.role == Role::Frozen && own.len() == base && !own.old;
        *node = Node {
            role: Role::Joining,
            generation: node.generation,
            terminating: node.terminating,
            record: node.record,
            seen: node.seen,
            welcomed: node.welcomed,
            log: if kept { own } else { stream.prefix(base) },
            stored: base,
            released: base,
            ..Node::default()
        };
    }

    pub(crate) fn install(&mut self, id: Id) {
        self.overwritten(id);
        self.node(id).role = Role::Backup;
        let conn = &mut self.w.conns[id.other().ix()];
        conn.installed |= !conn.broken;
        // Heartbeats ack what is there, the snapshot too.
        let stored = self.node(id).stored;
        self.ack(id, stored);
    }

    /// What was received is stored: ack it.
    pub(crate) fn store(&mut self, id: Id) {
        let node = self.node(id);
        node.stored = node.log.len();
        let stored = node.stored;
        self.ack(id, stored);
    }

    fn ack(&mut self, id: Id, position: u8) {
        let conn = &mut self.w.conns[id.other().ix()];
        if !conn.broken {
            conn.acked = conn.acked.max(position);
        }
    }

    /// The live node's heartbeat says what has left.
    pub(crate) fn beat(&mut self, id: Id) {
        let released = self.node(id).released;
        let node = self.node(id.other());
        node.released = node.released.max(released.min(node.log.len()));
    }

    /// The session is over, for whatever reason.
    pub(crate) fn suspect(&mut self, id: Id) {
        let role = self.node(id).role;
        let late = role == Role::Backup && self.is(Broken::DrainBeforeAcksEnd);
        if !late {
            self.close_follower(id);
        }
        match role {
            Role::Cold | Role::Frozen => {
                let node = self.node(id);
                (node.welcomed, node.call) = (None, None);
                self.decide(id);
            }
            Role::Joining => self.discard(id),
            Role::Backup => {
                let node = self.node(id);
                node.role = Role::Draining;
                node.drained = node.stored;
                if !late {
                    // Storing and acking have ended.
                    node.log = node.log.prefix(node.stored);
                }
            }
            _ => {}
        }
    }

    fn discard(&mut self, id: Id) {
        self.discarded(id);
        self.forget_cas(id);
        self.forget_read(id);
        self.new_life(id);
        self.node(id).log = Default::default();
        if self.node(id).terminating {
            return self.off(id);
        }
        self.seek(id, Role::Cold);
    }

    // ---- the claim -----------------------------------------------------------------

    /// Everything stored is executed.
    pub(crate) fn on_drained(&mut self, id: Id) {
        if self.is(Broken::DrainBeforeAcksEnd) {
            self.close_follower(id);
        }
        let node = self.node(id);
        node.log = node.log.prefix(node.drained);
        node.stored = node.drained;
        self.drained_to_disk(id);
        let node = self.node(id);
        let (told, record) = (node.told, node.record);
        if self.is(Broken::ClaimWithoutCas) {
            let record = Record {
                generation: self.node(id).generation + 1,
                live: id,
                current: true,
                backup: None,
                halted: false,
            };
            return self.claimed(id, &record);
        }
        let newer = record.filter(|r| told.is_some_and(|g| r.generation > g));
        match told {
            Some(_) if let Some(record) = newer => self.look(id, &record),
            Some(generation) => self.ask_claim(id, generation),
            None => self.node(id).role = Role::Reading,
        }
        self.settle(id);
    }

    fn ask_claim(&mut self, id: Id, expect: u8) {
        let node = self.node(id);
        node.role = Role::Asking;
        let purpose = Purpose::Claim(node.log.len());
        self.ask_cas(id, expect, false, false, purpose);
    }

    pub(crate) fn claim_on_read(&mut self, id: Id, read: Option<Record>) {
        let welcomed = self.node(id).welcomed;
        // While the arbiter keeps its records, it shows those by which this node was welcomed, or
        // newer ones. Else it decides nothing.
        match read {
            None if self.is(Broken::AbsentEndsClaim) => self.discard(id),
            None => {}
            Some(record) => {
                let older = welcomed > Some(record.generation);
                let strange = welcomed == Some(record.generation) && record.live == id;
                let wait = older && !self.is(Broken::OlderEndsClaim)
                    || strange && !self.is(Broken::StrangerEndsClaim);
                if !wait {
                    self.look(id, &record);
                }
            }
        }
    }

    pub(crate) fn claim_on_record(&mut self, id: Id, record: &Record) {
        if self.node(id).role == Role::Asking {
            self.look(id, record);
        }
    }

    fn look(&mut self, id: Id, record: &Record) {
        let untold = self.is(Broken::ClaimUntold) && self.node(id).role == Role::Reading;
        if record.live == id && record.current {
            self.claimed(id, record);
        } else if record.live == id.other() && record.backup == Some(true) || untold {
            self.ask_claim(id, record.generation);
        } else if record.halted {
            self.discarded(id);
            self.off(id);
        } else {
            self.discard(id);
        }
    }

    /// The claim is won: execute, and send every output not proven released.
    fn claimed(&mut self, id: Id, record: &Record) {
        let resend = !self.is(Broken::NoResend);
        let node = self.node(id);
        let stop = if node.log.halted() {
            Some(Stop::Halt)
        } else {
            node.terminating.then_some(Stop::Leave)
        };
        *node = Node {
            role: Role::Live,
            generation: node.generation,
            terminating: node.terminating,
            record: Some(*record),
            seen: node.seen,
            log: node.log,
            released: if resend {
                node.released
            } else {
                node.log.len()
            },
            link: Link::Solo,
            stop,
            ..Node::default()
        };
        self.went_live(id);
    }
}

//! What an event does to the world: the rules as the production node follows them, event by event.
//!
//! The files here stand beside those of `twinvm_protocol::node`; the functions keep their names
//! where they can, so that the two can be read side by side.

mod arbiter;
mod disks;
mod follow;
mod live;
mod people;
mod seek;
mod speak;

use crate::record::Id;
use crate::rules::Broken;
use crate::state::{Bye, Node, World};

/// One step being taken.
pub(crate) struct Step<'a> {
    pub(crate) w: &'a mut World,
    pub(crate) broken: Option<Broken>,
    pub(crate) backup_speaks: bool,
    /// The VM has replicated disks.
    pub(crate) disks: bool,
    /// For the checker: an answer is taken that the arbiter gave when it had lost its record.
    pub(crate) after_loss: bool,
}

impl Step<'_> {
    pub(crate) fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    pub(crate) fn node(&mut self, id: Id) -> &mut Node {
        &mut self.w.nodes[id.ix()]
    }

    /// The process ends: a crash, or an exit in good order. What it asked of the arbiter and
    /// what it has sent may still arrive.
    pub(crate) fn off(&mut self, id: Id) {
        self.power_lost(id);
        self.forget_cas(id);
        self.close_live(id, None);
        self.close_follower(id);
        self.new_life(id);
        let node = self.node(id);
        *node = Node::off(node.generation);
    }

    /// What the old life sent or was named by counts no more.
    pub(crate) fn new_life(&mut self, id: Id) {
        self.w.records(|r| r.current &= r.live != id);
    }

    /// The live node closes its session, if one is open. Everything sent may still arrive.
    pub(crate) fn close_live(&mut self, id: Id, bye: Option<Bye>) {
        let conn = &mut self.w.conns[id.ix()];
        if conn.live_end {
            if !conn.broken {
                conn.bye = bye;
            }
            conn.live_end = false;
            conn.broken = true;
            if !self.is(Broken::OldAcks) {
                let node = self.node(id);
                (node.acked, node.installed) = (0, false);
            }
        }
    }

    /// The follower closes its session, if one is open.
    pub(crate) fn close_follower(&mut self, id: Id) {
        let conn = &mut self.w.conns[id.other().ix()];
        conn.follower_end = false;
        conn.broken = true;
    }
}

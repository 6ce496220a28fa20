//! `output = "backup"`: the backup emits what it has executed, and the live node only what no backup
//! has when there is none any more.
//!
//! ```text
//! live                                     backup
//!   Output: waits in the gate
//!   Log ---------------------------------->  stored, acked, executed: emitted
//!        <--------------------------- Ack{emitted}
//!   forgotten
//! ```
//!
//! What a backup emits is in the log of its session, so the live node has made it before, and the
//! backup holds it: whoever goes on contains it. A backup that was dropped and does not know may
//! emit what it holds of that log and nothing else. The live node keeps each output until it hears
//! that it was emitted, and so emits it itself when it is alone: twice is allowed, never is not.

use crate::config::{Config, OutputFrom};
use crate::event::Action;
use crate::gate::Permit;
use crate::message::Message;
use crate::node::core::Core;
use crate::node::follow::Follow;
use crate::node::live::Live;
use crate::node::mutation::Mutation;
use crate::record::Position;

impl Config {
    /// Whether a backup emits.
    pub(crate) fn backup_speaks(&self) -> bool {
        self.output == OutputFrom::Backup
    }
}

impl<T> Follow<T> {
    /// Whether outputs leave here: in a session that this node was told the record names. (Before
    /// that the live node emits everything itself.)
    pub(crate) fn speaks(&self, core: &Core<T>) -> bool {
        core.config.backup_speaks() && self.told.is_some()
    }

    /// Lets out what has been executed. The next hop is the wire.
    pub(crate) fn speak(&mut self, core: &mut Core<T>) {
        if !self.speaks(core) {
            return;
        }
        let permit = Permit::UpTo(self.stored);
        while let Some((position, item)) = self.held.pop(permit) {
            core.emit(position, item);
        }
    }

    /// The last output that has left, for the live node.
    pub(crate) fn emitted(&self) -> Position {
        self.held.released().min(self.acked)
    }
}

impl<T> Live<T> {
    /// The backup says what it has emitted: nobody else need.
    pub(crate) fn on_spoken(&mut self, core: &mut Core<T>, acked: Position, emitted: Position) {
        if !core.config.backup_speaks() {
            return;
        }
        let left = match core.broken(Mutation::ForgetOnAck) {
            true => acked,
            false => emitted,
        };
        let before = self.gate.released();
        while self.gate.pop(Permit::UpTo(left)).is_some() {}
        let position = self.gate.released();
        if position > before {
            core.act(Action::Left { position });
        }
    }

    /// Before the backup is told that it is named: what has left until now it need not repeat.
    pub(crate) fn tell_released(&self, core: &mut Core<T>) {
        let Some(session) = self.session().filter(|_| core.config.backup_speaks()) else {
            return;
        };
        let (conn, sent) = (session.conn, session.sent);
        let message = Message::Heartbeat {
            beat: core.beat,
            released: self.gate.released().min(sent),
            progress: core.progress,
        };
        core.send(conn, message);
    }

    /// A test breaks the rule that an output is kept until it is known to have left.
    pub(crate) fn forget_unspoken(&mut self, core: &Core<T>) {
        if core.broken(Mutation::ForgetUnspoken) {
            while self.gate.pop(Permit::Everything).is_some() {}
        }
    }
}

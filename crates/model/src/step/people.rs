//! Leaving in good order: `node/stop.rs`, and what ends a process.

use crate::log::Entry;
use crate::record::Id;
use crate::state::{Role, Stop};
use crate::step::Step;

impl Step<'_> {
    /// Begins a stop, or turns the one under way into a more final one.
    pub(crate) fn begin_stop(&mut self, id: Id, kind: Stop) {
        let node = self.node(id);
        node.stop = node.stop.max(Some(kind));
        self.settle(id);
    }

    /// The guest powers itself off.
    pub(crate) fn poweroff(&mut self, id: Id) {
        self.node(id).stop = Some(Stop::Halt);
        self.append(id, Entry::Halt);
    }

    /// The backup is sent away: the record changes first.
    pub(crate) fn detach(&mut self, id: Id) {
        self.settle_by(id, false);
        self.settle(id);
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self, id: Id) {
        match self.node(id).role {
            Role::Live => {
                self.node(id).terminating = true;
                self.begin_stop(id, Stop::Leave);
            }
            // The VM may exist only here: settle the claim first.
            Role::Draining | Role::Reading | Role::Asking => self.node(id).terminating = true,
            _ => self.off(id),
        }
    }
}

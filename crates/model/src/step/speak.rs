//! `output = "backup"`: the backup emits; `node/speak.rs`.

use crate::record::Id;
use crate::rules::Broken;
use crate::step::Step;

impl Step<'_> {
    /// The backup has executed past its next output: it leaves here, and the live node hears of it
    /// with the next ack.
    pub(crate) fn speak(&mut self, id: Id) {
        let node = *self.w.node(id);
        let Some(position) = node.log.outputs(node.released).next() else {
            return;
        };
        self.spoken(id, position);
        self.node(id).released = position;
        let conn = &mut self.w.conns[id.other().ix()];
        if !conn.broken {
            conn.spoken = conn.spoken.max(position);
        }
    }

    /// The live node hears what its backup has emitted: those it need not emit itself any more.
    pub(crate) fn on_spoken(&mut self, id: Id) {
        let conn = *self.w.conn(id);
        let told = match self.is(Broken::ForgetOnAck) && self.backup_speaks {
            true => conn.acked,
            false => conn.spoken,
        };
        let node = self.node(id);
        if let Some(last) = node.log.prefix(told).outputs(node.released).last() {
            node.released = last;
        }
    }

    /// Broken rules: a live node that loses its backup takes for emitted what was acked.
    pub(crate) fn forget_unspoken(&mut self, id: Id) {
        if self.is(Broken::ForgetUnspoken) {
            let node = self.node(id);
            node.released = node.released.max(node.log.len());
        }
    }
}

//! What a backup's receiving thread has stored and acked and the loop has not taken yet
//! ([`twinvm_replica::Intake`]), under the lock that the two share.
//!
//! Storing and acking are one step under it, and so are reading what is stored and ending both.

use twinvm_protocol::{ConnId, Message, Position};
use twinvm_replica::{HostTime, Stored, Storing, Taken};

use super::sync::{Mutex, MutexGuard, PoisonError};

/// The store that receiving thread and loop share.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    held: Mutex<twinvm_replica::Intake>,
    /// Tests break the rule that storing and acking end before the last position is read.
    #[cfg(test)]
    pub(crate) close_late: Option<ConnId>,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, twinvm_replica::Intake> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`twinvm_replica::Intake::follow`].
    pub(crate) fn follow(&self, storing: Storing) {
        self.lock().follow(storing);
    }

    /// See [`twinvm_replica::Intake::wants`].
    pub(crate) fn wants(&self, conn: ConnId, first: Position, now: HostTime) -> bool {
        self.lock().wants(conn, first, now)
    }

    /// See [`twinvm_replica::Intake::take`]; the ack is sent under the lock.
    pub(crate) fn take(
        &self,
        conn: ConnId,
        stored: Stored,
        bytes: usize,
        after_other: bool,
        now: HostTime,
        ack: impl FnOnce(Message),
    ) -> Taken {
        let mut held = self.lock();
        held.take(conn, stored, bytes, after_other, now, ack)
    }

    /// See [`twinvm_replica::Intake::next`].
    pub(crate) fn next(&self, conn: ConnId, number: u64) -> Option<Stored> {
        self.lock().next(conn, number)
    }

    /// See [`twinvm_replica::Intake::close`].
    pub(crate) fn close(&self) -> Vec<Stored> {
        #[cfg(test)]
        if let Some(conn) = self.close_late {
            let stored = std::iter::from_fn(|| self.next(conn, u64::MAX)).collect();
            self.lock().close();
            return stored;
        }
        self.lock().close()
    }
}

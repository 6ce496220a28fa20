//! Storing and acking beside the loop: what a backup's receiving thread has stored and the loop has
//! not taken yet.
//!
//! An answer of the guest waits for the backup's ack, so the ack should not wait for the backup's
//! loop to wake up, or to end a slice. While a session allows it, the thread that reads the
//! connection checks a batch, puts it here and acks it; the loop hears of it and hands it to the
//! replica, in order with all that came before.
//!
//! ```text
//!            open                    take… (stored, acked)
//! Closed ----------> Open{end} ----------------------------> Open{end'}
//!    ^                   |
//!    +-------------------+  close: what is left goes to the drain, nothing is acked any more
//! ```
//!
//! What was acked must be in the log with which this node claims. So storing and acking are one step
//! under the lock, and [`Intake::close`] takes what is stored and ends both in one step, too.
//!
//! A batch is taken only if it goes on exactly where storing stands. One that comes while an earlier
//! one is still on its way to the loop goes there as well, and the loop stores and acks it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use twinvm_protocol::{ConnId, Position, Progress};
use twinvm_replica::Stored;

use super::sync::{Mutex, MutexGuard, PoisonError};

/// Records that may wait here. More is the loop's, and then the connection's, to hold back.
const MAX_RECORDS: usize = 1 << 16;
/// Bytes of batches that may wait here.
const MAX_BYTES: usize = 16 << 20;
/// A loop that has not come for this long is not spoken for any more: the live node has to notice a
/// backup that is stuck by its silence.
const MAX_UNTAKEN: Duration = Duration::from_millis(100);

/// What an ack says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Says {
    /// How far this node has executed.
    pub(crate) progress: Progress,
    /// Outputs up to here have left.
    pub(crate) emitted: Position,
}

/// The store that receiving thread and loop share.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    open: Mutex<Option<Open>>,
    /// Tests break the rule that storing and acking end before the last position is read.
    #[cfg(test)]
    pub(crate) close_late: bool,
}

#[derive(Debug)]
struct Open {
    conn: ConnId,
    /// Stored up to here, by whomever.
    end: Position,
    says: Says,
    /// Each with the number of the event that tells the loop of it.
    batches: VecDeque<(u64, Stored)>,
    records: usize,
    bytes: usize,
    /// Number of the last event sent, and since when the loop has not taken it.
    told: u64,
    untaken: Option<Instant>,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Stored and acked; the loop is to be told with this number, unless it has been already.
    Yes(Option<u64>),
    /// It is the loop's.
    No,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop has stored this session's log up to `end`, and its acks say this: goes on from there
    /// unless it is further. Opens it for a new session.
    pub(crate) fn follow(&self, conn: ConnId, end: Position, says: Says) {
        let mut held = self.lock();
        match held.as_mut().filter(|open| open.conn == conn) {
            Some(open) => {
                open.end = open.end.max(end);
                open.says = says;
            }
            None => {
                *held = Some(Open {
                    conn,
                    end,
                    says,
                    batches: VecDeque::new(),
                    records: 0,
                    bytes: 0,
                    told: 0,
                    untaken: None,
                });
            }
        }
    }

    /// Whether a batch of this connection that begins at `first` would be taken.
    pub(crate) fn wants(&self, conn: ConnId, first: Position) -> bool {
        let held = self.lock();
        let open = held.as_ref().filter(|open| open.conn == conn);
        open.is_some_and(|open| {
            let stuck = open
                .untaken
                .is_some_and(|since| since.elapsed() > MAX_UNTAKEN);
            open.end == first && open.records < MAX_RECORDS && open.bytes < MAX_BYTES && !stuck
        })
    }

    /// Stores a batch and acks it by `ack`, which must not wait. `after_other`: something else was
    /// sent to the loop since its last event about a batch, which it must take first.
    pub(crate) fn take(
        &self,
        conn: ConnId,
        stored: Stored,
        bytes: usize,
        after_other: bool,
        ack: impl FnOnce(Position, Says),
    ) -> Taken {
        let mut held = self.lock();
        let Some(open) = held.as_mut().filter(|open| open.conn == conn) else {
            return Taken::No;
        };
        if open.end != stored.first {
            return Taken::No;
        }
        let new = after_other || open.untaken.is_none();
        if new {
            open.told += 1;
            open.untaken.get_or_insert_with(Instant::now);
        }
        open.end = stored.end;
        open.records += stored.records();
        open.bytes += bytes;
        open.batches.push_back((open.told, stored));
        ack(open.end, open.says);
        Taken::Yes(new.then_some(open.told))
    }

    /// What the event of this number tells of, for the loop.
    pub(crate) fn told(&self, conn: ConnId, number: u64) -> Vec<Stored> {
        let mut held = self.lock();
        let Some(open) = held.as_mut().filter(|open| open.conn == conn) else {
            return Vec::new();
        };
        if open.told == number {
            open.untaken = None;
        }
        let of_it = open.batches.iter().take_while(|(n, _)| *n <= number);
        let count = of_it.count();
        let taken: Vec<Stored> = open
            .batches
            .drain(..count)
            .map(|(_, stored)| stored)
            .collect();
        open.records -= taken.iter().map(|s| s.records()).sum::<usize>();
        if open.batches.is_empty() {
            open.bytes = 0;
        }
        taken
    }

    /// Storing and acking end, in one step with reading what is stored: what was acked and not taken
    /// yet.
    pub(crate) fn close(&self) -> Vec<Stored> {
        #[cfg(test)]
        if self.close_late {
            let mut held = self.lock();
            let batches = held.as_mut().map(|open| std::mem::take(&mut open.batches));
            drop(held);
            *self.lock() = None;
            return batches.into_iter().flatten().map(|(_, s)| s).collect();
        }
        let open = self.lock().take();
        let batches = open.into_iter().flat_map(|open| open.batches);
        batches.map(|(_, stored)| stored).collect()
    }
}

//! Storing and acking beside the loop: what a backup's receiving thread has stored and the loop has
//! not taken yet. The driver shares it between the two; it has no lock and no clock of its own.
//!
//! An answer of the guest waits for the backup's ack, so the ack should not wait for the backup's
//! loop to wake up, or to end a slice. While a session allows it, the thread that reads the
//! connection checks a batch, puts it here and acks it; the loop hears of it and hands it to the
//! replica, in order with all that came before.
//!
//! ```text
//!            follow                  take… (stored, acked)
//! Closed ----------> Open{end} ----------------------------> Open{end'}
//!    ^                   |
//!    +-------------------+  close: what is left goes to the drain, nothing is acked any more
//! ```
//!
//! What was acked must be in the log with which this node claims. So storing and acking are one step
//! for everybody else, and [`Intake::close`] takes what is stored and ends both in one step, too. And
//! the loop takes one batch at a time: what its own work on one ends the session for finds the others
//! here.
//!
//! A batch is taken only if it goes on exactly where storing stands. One that comes while an earlier
//! one is still on its way to the loop goes there as well, and the loop stores and acks it.

use std::collections::VecDeque;

use twinvm_protocol::{ConnId, Message, Position};

use crate::{HostTime, Stored, Storing};

/// Records that may wait here. More is the loop's, and then the connection's, to hold back.
const MAX_RECORDS: usize = 1 << 16;
/// Bytes of batches that may wait here.
const MAX_BYTES: usize = 16 << 20;
/// A loop that has not come for this long is not spoken for any more: the live node has to notice a
/// backup that is stuck by its silence. 100 ms.
const MAX_UNTAKEN_NS: u64 = 100_000_000;

/// The store that receiving thread and loop share.
#[derive(Debug, Default)]
pub struct Intake {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// The session, how far it is stored, by whomever, and what acks say.
    storing: Storing,
    batches: VecDeque<Held>,
    records: usize,
    bytes: usize,
    /// Number of the last event sent, and of the last one that the loop has come to.
    told: u64,
    come_to: u64,
}

#[derive(Debug)]
struct Held {
    stored: Stored,
    bytes: usize,
    /// When it came.
    at_ns: u64,
    /// Number of the event that tells the loop of it.
    told: u64,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Stored and acked; the loop is to be told with this number, unless it has been already.
    Yes(Option<u64>),
    /// It is the loop's.
    No,
}

impl Intake {
    /// The loop is so far, and acks say this: goes on from there unless it is further. Opens it for
    /// a new session.
    pub fn follow(&mut self, storing: Storing) {
        match self.of(storing.conn) {
            Some(open) => {
                let end = open.storing.end.max(storing.end);
                open.storing = Storing { end, ..storing };
            }
            None => {
                self.open = Some(Open {
                    storing,
                    batches: VecDeque::new(),
                    records: 0,
                    bytes: 0,
                    told: 0,
                    come_to: 0,
                });
            }
        }
    }

    fn of(&mut self, conn: ConnId) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| open.storing.conn == conn)
    }

    /// Whether a batch of this connection that begins at `first` would be taken now.
    pub fn wants(&self, conn: ConnId, first: Position, now: HostTime) -> bool {
        let open = self.open.as_ref().filter(|open| open.storing.conn == conn);
        open.is_some_and(|open| {
            let waits = |held: &Held| now.mono_ns.saturating_sub(held.at_ns) > MAX_UNTAKEN_NS;
            let stuck = open.batches.front().is_some_and(waits);
            open.storing.end == first
                && open.records < MAX_RECORDS
                && open.bytes < MAX_BYTES
                && !stuck
        })
    }

    /// Stores a batch of so many bytes and acks it by `ack`, which must not wait. `after_other`:
    /// something else was sent to the loop since its last event about a batch, which it must take
    /// first.
    pub fn take(
        &mut self,
        conn: ConnId,
        stored: Stored,
        bytes: usize,
        after_other: bool,
        now: HostTime,
        ack: impl FnOnce(Message),
    ) -> Taken {
        let open = self.of(conn);
        let Some(open) = open.filter(|open| open.storing.end == stored.first) else {
            return Taken::No;
        };
        let new = after_other || open.come_to == open.told;
        open.told += u64::from(new);
        open.storing.end = stored.end;
        open.records += stored.records();
        open.bytes += bytes;
        open.batches.push_back(Held {
            stored,
            bytes,
            at_ns: now.mono_ns,
            told: open.told,
        });
        let Storing {
            end: received,
            emitted,
            progress,
            ..
        } = open.storing;
        ack(Message::Ack {
            received,
            emitted: emitted.min(received),
            progress,
        });
        Taken::Yes(new.then_some(open.told))
    }

    /// The next batch that the event of this number tells of, for the loop; `None` behind the last.
    pub fn next(&mut self, conn: ConnId, number: u64) -> Option<Stored> {
        let open = self.of(conn)?;
        open.come_to = open.come_to.max(number);
        let held = open.batches.pop_front_if(|held| held.told <= number)?;
        open.records -= held.stored.records();
        open.bytes -= held.bytes;
        Some(held.stored)
    }

    /// Storing and acking end, in one step with reading what is stored: what was acked and not taken
    /// yet.
    pub fn close(&mut self) -> Vec<Stored> {
        let batches = self.open.take().into_iter().flat_map(|open| open.batches);
        batches.map(|held| held.stored).collect()
    }
}

#[cfg(test)]
mod tests;

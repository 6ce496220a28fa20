//! Channel connections: frames in order, late, and cut at any point.

use std::collections::VecDeque;

use twinvm_protocol::Message;
use twinvm_protocol::codec;

/// Bytes that the two hosts' sockets hold between them: what is not yet delivered beyond this
/// waits at the sender.
const SOCKET_BYTES: usize = 512 << 10;

/// Something on its way.
struct Flying {
    at: u64,
    /// A frame's body, or the connection's end.
    body: Option<Vec<u8>>,
}

/// What goes to one end of a connection.
struct Lane {
    queue: VecDeque<Flying>,
    bytes: usize,
    last_at: u64,
    /// When all that was sent so far is through the link's bottleneck.
    through_at: u64,
    /// Nothing more can be queued.
    cut: bool,
    /// Nothing arrives before this.
    silent_until: u64,
    /// The receiver has no room; it looks again when it has.
    waiting: bool,
}

/// One connection. End 0 dialled.
pub(crate) struct Wire {
    /// Host and process of each end.
    pub(crate) ends: [(usize, u64); 2],
    lanes: [Lane; 2],
    /// The process at this end still listens.
    pub(crate) open: [bool; 2],
    /// What receives frames at this end has given its loop something else since the last batch
    /// that it has stored by itself.
    pub(crate) after_other: [bool; 2],
}

/// What a look at a lane found.
pub(crate) enum Found {
    Nothing,
    /// Look again then.
    Later(u64),
    Frame(Message),
    End,
}

impl Wire {
    pub(crate) fn new(ends: [(usize, u64); 2]) -> Self {
        let lane = || Lane {
            queue: VecDeque::new(),
            bytes: 0,
            last_at: 0,
            through_at: 0,
            cut: false,
            silent_until: 0,
            waiting: false,
        };
        Self {
            ends,
            lanes: [lane(), lane()],
            open: [true; 2],
            after_other: [false; 2],
        }
    }

    pub(crate) fn end_of(&self, slot: usize, epoch: u64) -> Option<usize> {
        self.ends.iter().position(|end| *end == (slot, epoch))
    }

    /// Queues a frame towards end `to`: through the bottleneck at `ns_per_kib`, then `delay`. When
    /// it can be looked for.
    pub(crate) fn send(
        &mut self,
        to: usize,
        now: u64,
        delay: u64,
        ns_per_kib: u64,
        message: &Message,
    ) -> Option<u64> {
        let lane = &mut self.lanes[to];
        if lane.cut {
            return None;
        }
        let mut frame = Vec::new();
        codec::encode_frame(message, &mut frame);
        let body = frame.split_off(4);
        lane.bytes += body.len();
        let cost = body.len() as u64 * ns_per_kib / 1024;
        lane.through_at = lane.through_at.max(now) + cost;
        lane.last_at = lane.last_at.max(lane.through_at + delay);
        lane.queue.push_back(Flying {
            at: lane.last_at,
            body: Some(body),
        });
        Some(lane.last_at)
    }

    /// Bytes that wait at the sender of what goes to `to`.
    pub(crate) fn queued(&self, to: usize) -> usize {
        self.lanes[to].bytes.saturating_sub(SOCKET_BYTES)
    }

    /// Frames on their way to `to`.
    pub(crate) fn flying(&self, to: usize) -> usize {
        self.lanes[to].queue.len()
    }

    /// Nothing more goes towards `to`; of what is on its way, `keep` frames still arrive. With
    /// `told`, the end of the connection arrives behind them.
    pub(crate) fn cut(&mut self, to: usize, at: u64, keep: usize, told: bool) -> Option<u64> {
        let lane = &mut self.lanes[to];
        if lane.cut {
            return None;
        }
        lane.cut = true;
        lane.queue.truncate(keep);
        lane.bytes = lane
            .queue
            .iter()
            .map(|f| f.body.as_ref().map_or(0, Vec::len))
            .sum();
        told.then(|| {
            lane.last_at = lane.last_at.max(at);
            lane.queue.push_back(Flying {
                at: lane.last_at,
                body: None,
            });
            lane.last_at
        })
    }

    /// Nothing arrives at `to` before `until`.
    pub(crate) fn silence(&mut self, to: usize, until: u64) {
        let lane = &mut self.lanes[to];
        lane.silent_until = lane.silent_until.max(until);
    }

    /// All silence ends now.
    pub(crate) fn heal(&mut self) {
        for lane in &mut self.lanes {
            lane.silent_until = 0;
        }
    }

    /// The receiver at `to` has no room for a frame; true if one waits for that.
    pub(crate) fn hold(&mut self, to: usize) {
        self.lanes[to].waiting = true;
    }

    /// Whether something waited for room at `to`, which there is now.
    pub(crate) fn resume(&mut self, to: usize) -> bool {
        std::mem::take(&mut self.lanes[to].waiting)
    }

    /// What has arrived at `to` by now.
    pub(crate) fn take(&mut self, to: usize, now: u64) -> Result<Found, String> {
        let lane = &mut self.lanes[to];
        let Some(first) = lane.queue.front() else {
            return Ok(Found::Nothing);
        };
        let at = first.at.max(lane.silent_until);
        if at > now {
            return Ok(Found::Later(at));
        }
        let body = lane.queue.pop_front().and_then(|flying| flying.body);
        let Some(body) = body else {
            return Ok(Found::End);
        };
        lane.bytes -= body.len();
        let message = codec::decode_body(&body).map_err(|e| format!("codec: {e}"))?;
        Ok(Found::Frame(message))
    }
}

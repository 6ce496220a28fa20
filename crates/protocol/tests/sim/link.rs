//! Channel connections: in order, cut at any point.

use std::collections::VecDeque;

use twinvm_protocol::Message;
use twinvm_protocol::codec;

/// One connection. End 0 dialled.
pub(crate) struct Wire {
    /// (slot, epoch) of each end.
    pub(crate) ends: [(usize, u64); 2],
    /// Towards each end: when ready, and a frame, or `None` for the connection's end.
    pub(crate) queue: [VecDeque<(u64, Option<Vec<u8>>)>; 2],
    pub(crate) last_ready: [u64; 2],
    /// The process at this end still listens.
    pub(crate) open: [bool; 2],
    /// No more frames can be queued towards this end.
    pub(crate) cut: [bool; 2],
}

impl Wire {
    pub(crate) fn new(ends: [(usize, u64); 2]) -> Self {
        Self {
            ends,
            queue: Default::default(),
            last_ready: [0; 2],
            open: [true; 2],
            cut: [false; 2],
        }
    }

    pub(crate) fn end_of(&self, slot: usize, epoch: u64) -> Option<usize> {
        self.ends.iter().position(|e| *e == (slot, epoch))
    }

    fn put(&mut self, to: usize, at: u64, frame: Option<Vec<u8>>) -> u64 {
        let at = at.max(self.last_ready[to]);
        self.last_ready[to] = at;
        self.queue[to].push_back((at, frame));
        at
    }

    /// Queues a frame towards `to`; when it can be looked for.
    pub(crate) fn send(&mut self, to: usize, at: u64, message: &Message) -> Option<u64> {
        if self.cut[to] {
            return None;
        }
        let mut frame = Vec::new();
        codec::encode_frame(message, &mut frame);
        let head = frame[..4].try_into().unwrap();
        assert_eq!(codec::body_len(head), Ok(frame.len() - 4));
        Some(self.put(to, at, Some(frame.split_off(4))))
    }

    /// Nothing more goes towards `to`; of what is queued, `keep` frames still arrive.
    pub(crate) fn cut(&mut self, to: usize, at: u64, keep: usize) -> Option<u64> {
        if self.cut[to] {
            return None;
        }
        self.cut[to] = true;
        self.queue[to].truncate(keep);
        Some(self.put(to, at, None))
    }
}

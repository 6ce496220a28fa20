//! The ledger of what guests have not acknowledged.
//!
//! The stack's least retransmission timeout is one second, and it has no call to
//! repeat at once. So the gateway keeps, at its device, each segment that takes
//! sequence numbers until the guest has acknowledged it, and repeats them itself
//! when the guest announces that it is reached elsewhere. Repeating is harmless:
//! TCP receivers drop what they have and acknowledge again.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;

use super::segment::{Ends, Segment, Seq, bare_ack, refresh_ack};
use crate::ethernet::MacAddr;

/// Most payload bytes kept of one flow. The stack's send buffer bounds what can
/// be unacknowledged; repeats with other boundaries can overlap.
pub(super) const MAX_FLOW_BYTES: usize = 2 * super::SOCKET_BUFFER_BYTES;

/// Resets kept after their flow ended, so that a takeover doesn't lose them.
const MAX_RESETS: usize = 256;

/// One TCP connection of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowKey {
    pub(super) guest: SocketAddrV4,
    pub(super) gateway: SocketAddrV4,
}

struct Kept {
    start: Seq,
    end: Seq,
    frame: Vec<u8>,
}

#[derive(Default)]
struct Flow {
    /// In order of `start`.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The guest's address and the highest end sent, once something was.
    sent: Option<(MacAddr, Seq)>,
    /// The last acknowledgement and window sent.
    acked: Option<(Seq, u16)>,
}

/// Unacknowledged segments of all flows.
pub(super) struct Unacked {
    gateway_mac: MacAddr,
    flows: BTreeMap<FlowKey, Flow>,
    resets: VecDeque<(MacAddr, Vec<u8>)>,
}

impl Unacked {
    pub(super) fn new(gateway_mac: MacAddr) -> Unacked {
        Unacked {
            gateway_mac,
            flows: BTreeMap::new(),
            resets: VecDeque::new(),
        }
    }

    /// Begins to keep a flow's segments. The caller bounds how many flows there are.
    pub(super) fn open(&mut self, key: FlowKey) {
        self.flows.insert(key, Flow::default());
    }

    /// Forgets a flow.
    pub(super) fn close(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    /// Notes a frame that the gateway sends.
    pub(super) fn sent(&mut self, frame: &[u8]) {
        let Some(segment) = Segment::parse(frame) else {
            return;
        };
        let key = FlowKey {
            guest: segment.dst,
            gateway: segment.src,
        };
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        if segment.rst {
            flow.clear();
            if self.resets.len() == MAX_RESETS {
                self.resets.pop_front();
            }
            self.resets.push_back((segment.dst_mac, frame.to_vec()));
            return;
        }
        flow.sent(&segment, frame);
    }

    /// Notes a frame that came from a guest.
    pub(super) fn received(&mut self, frame: &[u8]) {
        let Some(segment) = Segment::parse(frame) else {
            return;
        };
        let key = FlowKey {
            guest: segment.src,
            gateway: segment.dst,
        };
        if let (Some(flow), Some(ack)) = (self.flows.get_mut(&key), segment.ack) {
            flow.received_ack(ack);
        }
    }

    /// Puts into `out` what the guest behind `mac` may have missed: unacknowledged
    /// segments in order, or else one acknowledgement, and recent resets. Returns
    /// how many frames.
    pub(super) fn repeat(&mut self, mac: MacAddr, out: &mut VecDeque<Vec<u8>>) -> usize {
        let before = out.len();
        self.resets.retain_mut(|(to, frame)| {
            if *to == mac {
                out.push_back(std::mem::take(frame));
            }
            *to != mac
        });
        for (key, flow) in &self.flows {
            let Some((to, next)) = flow.sent else {
                continue;
            };
            if to != mac {
                continue;
            }
            if let (true, Some((ack, window))) = (flow.kept.is_empty(), flow.acked) {
                let ends = Ends {
                    src_mac: self.gateway_mac,
                    dst_mac: mac,
                    src: key.gateway,
                    dst: key.guest,
                };
                out.push_back(bare_ack(&ends, next, ack, window));
            }
            for kept in &flow.kept {
                let mut frame = kept.frame.clone();
                if let Some((ack, window)) = flow.acked {
                    refresh_ack(&mut frame, ack, window);
                }
                out.push_back(frame);
            }
        }
        out.len() - before
    }
}

impl Flow {
    fn clear(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
    }

    fn sent(&mut self, segment: &Segment, frame: &[u8]) {
        let end = segment.end();
        match &mut self.sent {
            Some((mac, highest)) => {
                *mac = segment.dst_mac;
                if highest.is_before(end) {
                    *highest = end;
                }
            }
            None => self.sent = Some((segment.dst_mac, end)),
        }
        if let Some(ack) = segment.ack {
            self.acked = Some((ack, segment.window));
        }
        if segment.length == 0 {
            return;
        }
        // A repeat may cut the bytes differently: it replaces what it covers, and
        // isn't kept if a kept one covers it.
        let start = segment.start;
        let covers = |a: (Seq, Seq), b: (Seq, Seq)| !b.0.is_before(a.0) && !a.1.is_before(b.1);
        let new = (start, end);
        // Almost always the segment follows all others.
        let follows = self
            .kept
            .back()
            .is_none_or(|last| !start.is_before(last.end));
        if !follows {
            if self
                .kept
                .iter()
                .any(|kept| kept.start != start && covers((kept.start, kept.end), new))
            {
                return;
            }
            self.kept
                .retain(|kept| !covers(new, (kept.start, kept.end)));
            self.kept_bytes = self.kept.iter().map(|kept| kept.frame.len()).sum();
        }
        if self.kept_bytes + frame.len() > MAX_FLOW_BYTES {
            return;
        }
        let at = self
            .kept
            .partition_point(|kept| kept.start.is_before(start));
        self.kept_bytes += frame.len();
        self.kept.insert(
            at,
            Kept {
                start,
                end,
                frame: frame.to_vec(),
            },
        );
    }

    fn received_ack(&mut self, ack: Seq) {
        // An acknowledgement of what was never sent says nothing.
        let highest = self.sent.map(|(_, highest)| highest);
        if highest.is_none_or(|highest| highest.is_before(ack)) {
            return;
        }
        while self
            .kept
            .front()
            .is_some_and(|kept| !ack.is_before(kept.end))
        {
            if let Some(kept) = self.kept.pop_front() {
                self.kept_bytes -= kept.frame.len();
            }
        }
    }
}

#[cfg(test)]
mod tests;

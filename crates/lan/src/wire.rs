//! The wires between the switch and its ports, worse than they are if that is asked for: each
//! frame late by the same time, some lost, in both directions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Impairment;
use crate::switch::PortId;

/// Bytes under way in all wires: a second at 1 Gbit/s. What is beyond that is lost, as in any
/// network whose buffers are full.
const MAX_BYTES: usize = 128 << 20;
/// What a frame under way takes beside its bytes.
const FRAME_OVERHEAD: usize = 64;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a node to the switch.
    From(PortId),
    /// From the switch to a node.
    To(PortId),
}

/// What becomes of a frame that is put on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there at once.
    Through,
    /// It comes out of [`Wires::arrived`] later.
    UnderWay,
    /// Nobody sees it again.
    Lost,
}

struct UnderWay {
    due: Instant,
    way: Way,
    frame: Vec<u8>,
}

/// All wires of a switch. The delay is the same for all, so frames arrive in the order in which
/// they were sent.
pub(crate) struct Wires {
    delay: Duration,
    loss_ppm: u32,
    random: fastrand::Rng,
    under_way: VecDeque<UnderWay>,
    bytes: usize,
}

impl Wires {
    pub(crate) fn new(impairment: Impairment, seed: u64) -> Wires {
        Wires {
            delay: impairment.delay,
            loss_ppm: impairment.loss_ppm,
            random: fastrand::Rng::with_seed(seed),
            under_way: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Puts a frame on a wire.
    pub(crate) fn put(&mut self, now: Instant, way: Way, frame: &[u8]) -> Put {
        if self.loss_ppm > 0 && self.random.u32(..1_000_000) < self.loss_ppm {
            return Put::Lost;
        }
        if self.delay.is_zero() {
            return Put::Through;
        }
        let size = frame.len() + FRAME_OVERHEAD;
        if self.bytes + size > MAX_BYTES {
            return Put::Lost;
        }
        self.bytes += size;
        self.under_way.push_back(UnderWay {
            due: now + self.delay,
            way,
            frame: frame.to_vec(),
        });
        Put::UnderWay
    }

    /// The next frame that is at its wire's end by now.
    pub(crate) fn arrived(&mut self, now: Instant) -> Option<(Way, Vec<u8>)> {
        self.under_way.front().filter(|first| first.due <= now)?;
        let UnderWay { way, frame, .. } = self.under_way.pop_front()?;
        self.bytes -= frame.len() + FRAME_OVERHEAD;
        Some((way, frame))
    }

    /// When the next frame is at its wire's end.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.under_way.front().map(|first| first.due)
    }
}

#[cfg(test)]
mod tests;

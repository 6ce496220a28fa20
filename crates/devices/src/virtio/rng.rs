//! The entropy source (virtio 1.2 section 5.4).
//!
//! Entropy is input: a request of the guest waits until a record brings the bytes. The device keeps
//! only how many bytes it wants; the buffer is looked up in the ring when the bytes come, so
//! nothing of the ring is held between steps.

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::{Chain, RingError, VirtioDevice, VirtioMmio, Virtqueue};
use crate::DeviceOut;
use crate::persist::{Persist, StateError, at_most};

#[cfg(test)]
mod tests;

/// Most bytes given per request: what Linux asks for at a time, and a bound on the log that a guest
/// can cause. A longer request gets this much, which section 5.4.6 allows.
pub const MAX_REQUEST_BYTES: usize = 64;

const REQUESTS: usize = 0;

/// The entropy source.
#[derive(Debug, Default)]
pub struct VirtioRng {
    /// Bytes that the oldest request wants; 0 without a request.
    wanted: u8,
}

/// The saved form of [`VirtioRng`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// Bytes that the oldest request wants; 0 without a request.
    pub wanted: u8,
}

impl VirtioRng {
    /// An entropy source without a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the oldest request that has room for bytes; those without room are given back at
    /// once.
    fn look(&mut self, queue: &mut Virtqueue, mem: &mut Memory) -> Result<bool, RingError> {
        self.wanted = 0;
        let mut chain = Chain::default();
        for _ in 0..queue.available(mem)? {
            queue.peek(mem, &mut chain)?;
            let room = chain.writable_bytes();
            if room > 0 {
                self.wanted = room.min(MAX_REQUEST_BYTES as u64) as u8;
                break;
            }
            queue.take(mem, &mut chain)?;
            queue.give_back(mem, &chain, 0)?;
        }
        queue.publish(mem)
    }

    /// Fills the oldest request and looks for the next.
    fn fill(
        &mut self,
        queue: &mut Virtqueue,
        mem: &mut Memory,
        bytes: &[u8],
    ) -> Result<bool, RingError> {
        if queue.available(mem)? > 0 {
            let mut chain = Chain::default();
            queue.take(mem, &mut chain)?;
            let written = chain.write(mem, &bytes[..bytes.len().min(MAX_REQUEST_BYTES)])?;
            queue.give_back(mem, &chain, written as u32)?;
        }
        let interrupt = queue.publish(mem)?;
        Ok(self.look(queue, mem)? || interrupt)
    }
}

impl VirtioDevice for VirtioRng {
    const DEVICE_ID: u32 = 4;
    const QUEUES: usize = 1;

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn notify(
        &mut self,
        queue: usize,
        queues: &mut [Virtqueue],
        mem: &mut Memory,
        _out: DeviceOut<'_>,
    ) -> Result<bool, RingError> {
        if queue == REQUESTS {
            self.look(&mut queues[REQUESTS], mem)
        } else {
            Ok(false)
        }
    }

    fn reset(&mut self) {
        self.wanted = 0;
    }
}

impl VirtioMmio<VirtioRng> {
    /// Bytes that the guest's oldest request wants, at most [`MAX_REQUEST_BYTES`]; 0 if there is
    /// none. The live node answers with an entropy record.
    pub fn wanted(&self) -> usize {
        if self.queue_running(REQUESTS) {
            self.device().wanted.into()
        } else {
            0
        }
    }

    /// Completes the oldest request with these bytes, in the step of their record. Without a
    /// request they are dropped, the same on every node.
    pub fn complete(&mut self, mem: &mut Memory, bytes: &[u8]) {
        if self.wanted() > 0 {
            self.act(REQUESTS, |device, queues| {
                device.fill(&mut queues[REQUESTS], mem, bytes)
            });
        }
    }
}

impl Persist for VirtioRng {
    type State = RngState;

    fn save(&self) -> RngState {
        RngState {
            wanted: self.wanted,
        }
    }

    fn restore(state: RngState) -> Result<Self, StateError> {
        at_most("rng.wanted", state.wanted, MAX_REQUEST_BYTES as u8)?;
        Ok(Self {
            wanted: state.wanted,
        })
    }
}

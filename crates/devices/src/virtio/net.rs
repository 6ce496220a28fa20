//! The network card (virtio 1.2 section 5.1): one receive and one transmit queue, no offloads.
//!
//! Transmit completes in its notify step. A received frame goes into the guest's buffer in the step
//! of its record; without a buffer it waits in a queue of fixed size in device state until the
//! guest notifies its receive queue.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::mmio::serve_all;
use super::{Chain, RingError, VirtioDevice, VirtioMmio, Virtqueue};
use crate::DeviceOut;
use crate::persist::{Persist, StateError, length};

#[cfg(test)]
mod tests;

/// Largest frame in either direction: 1500 bytes of payload, Ethernet header, a VLAN tag.
pub const MAX_FRAME_BYTES: usize = 1518;
/// Smallest frame in either direction: an Ethernet header.
pub const MIN_FRAME_BYTES: usize = 14;
/// Frames that may wait for receive buffers; when as many wait, the host drops before it logs. As
/// many as the largest queue has buffers.
pub const RX_QUEUE_FRAMES: usize = 256;

const RX: usize = 0;
const TX: usize = 1;
const FEATURE_MAC: u64 = 1 << 5;

/// `virtio_net_hdr` of a modern device (section 5.1.6).
const HEADER_BYTES: usize = 12;
/// The header of a received frame: all zero but `num_buffers`, which is 1.
const RX_HEADER: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The network card.
#[derive(Debug)]
pub struct VirtioNet {
    mac: [u8; 6],
    waiting: VecDeque<Vec<u8>>,
}

/// The saved form of [`VirtioNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// The card's address.
    pub mac: [u8; 6],
    /// Received frames that wait for buffers, oldest first.
    pub waiting: Vec<Vec<u8>>,
}

impl VirtioNet {
    /// A card with this address.
    pub fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            waiting: VecDeque::new(),
        }
    }

    /// The card's address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Hands waiting frames to the guest while it has buffers.
    fn deliver(&mut self, rx: &mut Virtqueue, mem: &mut Memory) -> Result<bool, RingError> {
        let available = rx.available(mem)?;
        let mut chain = Chain::default();
        let mut used = 0;
        let mut packet = Vec::new();
        while used < available {
            let Some(frame) = self.waiting.front() else {
                break;
            };
            rx.peek(mem, &mut chain)?;
            packet.clear();
            packet.extend_from_slice(&RX_HEADER);
            packet.extend_from_slice(frame);
            // A frame that doesn't fit is dropped and its buffer stays: without mergeable buffers
            // the driver owes us 1526 bytes (section 5.1.6.3.1).
            if chain.writable_bytes() >= packet.len() as u64 {
                rx.take(mem, &mut chain)?;
                let written = chain.write(mem, &packet)?;
                rx.give_back(mem, &chain, written as u32)?;
                used += 1;
            }
            self.waiting.pop_front();
        }
        if used == 0 {
            return Ok(false);
        }
        rx.publish(mem)
    }
}

/// Copies the frame of one transmit buffer out; a buffer that holds no proper frame is only given
/// back.
fn transmit(mem: &Memory, chain: &Chain, out: &mut DeviceOut<'_>) -> Result<(), RingError> {
    let header = HEADER_BYTES as u64;
    let bytes = chain.readable_bytes().saturating_sub(header) as usize;
    if (MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&bytes) {
        let mut frame = vec![0; bytes];
        chain.read(mem, header, &mut frame)?;
        out.frame(frame);
    }
    Ok(())
}

impl VirtioDevice for VirtioNet {
    const DEVICE_ID: u32 = 1;
    const QUEUES: usize = 2;

    fn features(&self) -> u64 {
        FEATURE_MAC
    }

    fn config(&self) -> &[u8] {
        &self.mac
    }

    /// What it offers changes nothing that it does.
    fn negotiated(&mut self, _features: u64) {}

    fn notify(
        &mut self,
        queue: usize,
        queues: &mut [Virtqueue],
        mem: &mut Memory,
        mut out: DeviceOut<'_>,
    ) -> Result<bool, RingError> {
        match queue {
            RX => self.deliver(&mut queues[RX], mem),
            TX => serve_all(&mut queues[TX], mem, |mem, chain| {
                transmit(mem, chain, &mut out).map(|()| 0)
            }),
            _ => Ok(false),
        }
    }

    fn reset(&mut self) {
        self.waiting.clear();
    }
}

impl VirtioMmio<VirtioNet> {
    /// Whether a frame received now would reach the guest: the card runs and fewer than
    /// [`RX_QUEUE_FRAMES`] wait. Otherwise the host drops the frame before it is logged.
    pub fn rx_room(&self) -> bool {
        self.queue_running(RX) && self.device().waiting.len() < RX_QUEUE_FRAMES
    }

    /// Receives a frame, in the step of its record: data, used ring and interrupt appear together,
    /// or the frame waits for a buffer. Without [`rx_room`](Self::rx_room), or if its size is not
    /// that of a frame, it is dropped, the same on every node.
    pub fn receive(&mut self, mem: &mut Memory, frame: &[u8]) {
        let proper = (MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame.len());
        if proper && self.rx_room() {
            self.act(RX, |device, queues| {
                device.waiting.push_back(frame.to_vec());
                device.deliver(&mut queues[RX], mem)
            });
        }
    }
}

impl Persist for VirtioNet {
    type State = NetState;

    fn save(&self) -> NetState {
        NetState {
            mac: self.mac,
            waiting: self.waiting.iter().cloned().collect(),
        }
    }

    fn restore(state: NetState) -> Result<Self, StateError> {
        length("net.waiting", state.waiting.len(), 0, RX_QUEUE_FRAMES)?;
        for frame in &state.waiting {
            length(
                "net.waiting frame",
                frame.len(),
                MIN_FRAME_BYTES,
                MAX_FRAME_BYTES,
            )?;
        }
        Ok(Self {
            mac: state.mac,
            waiting: state.waiting.into(),
        })
    }
}

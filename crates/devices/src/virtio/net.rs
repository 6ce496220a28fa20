//! The network card (virtio 1.2 section 5.1): one receive and one transmit queue, checksum and TCP
//! segmentation offload both ways, mergeable receive buffers.
//!
//! The card does none of that work itself: a packet carries its header along, and the port of the
//! host, or the guest, finishes it. What carries a header that was not negotiated is dropped here,
//! by what the packet and the device's state say and nothing else.
//!
//! Transmit completes in its notify step. A received packet goes into the guest's buffers in the
//! step of its record; without enough of them it waits in a queue of fixed size in device state
//! until the guest notifies its receive queue.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::mmio::serve_all;
use super::{Chain, RingError, VirtioDevice, VirtioMmio, Virtqueue, feature};
use crate::DeviceOut;
use crate::persist::{Persist, StateError, consistent, length};

mod header;
#[cfg(test)]
mod tests;

use header::NUM_BUFFERS_AT;
pub use header::{
    MAX_FRAME_BYTES, MAX_PACKET_BYTES, MIN_FRAME_BYTES, NET_HEADER_BYTES, NetHeader, NetOffloads,
    PartialChecksum, Segmentation,
};

/// Packets that may wait for receive buffers; when as many wait, the host keeps or drops before it
/// logs. As many as the largest queue has buffers.
pub const RX_QUEUE_FRAMES: usize = 256;
/// Bytes of packets that may wait: some of the largest. There is room for a packet while the
/// longest one would fit.
pub const RX_QUEUE_BYTES: usize = 1 << 20;

const RX: usize = 0;
const TX: usize = 1;
const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_MRG_RXBUF: u64 = 1 << 15;
const FEATURE_STATUS: u64 = 1 << 16;

/// Bytes of the address in the configuration; a word of status follows.
const MAC_BYTES: usize = 6;
const STATUS_LINK_UP: u8 = 1;

/// The network card.
#[derive(Debug)]
pub struct VirtioNet {
    config: [u8; MAC_BYTES + 2],
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
}

/// The saved form of [`VirtioNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// The card's address.
    pub mac: [u8; 6],
    /// Received packets that wait for buffers, oldest first.
    pub waiting: Vec<Vec<u8>>,
}

/// What became of a packet for the guest.
enum Placed {
    /// It is in the guest's buffers.
    InBuffers,
    /// The guest has too few buffers now.
    Waits,
    /// The guest's buffers can't hold it.
    Dropped,
}

impl VirtioNet {
    /// A card with this address, its link up.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut config = [0; MAC_BYTES + 2];
        config[..MAC_BYTES].copy_from_slice(&mac);
        config[MAC_BYTES] = STATUS_LINK_UP;
        Self {
            config,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// The card's address.
    pub fn mac(&self) -> [u8; 6] {
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&self.config[..MAC_BYTES]);
        mac
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < RX_QUEUE_FRAMES
            && self.waiting_bytes + MAX_PACKET_BYTES <= RX_QUEUE_BYTES
    }

    /// Hands waiting packets to the guest while it has buffers. Its notifications for new ones are
    /// wanted only while packets wait.
    fn deliver(&mut self, rx: &mut Virtqueue, mem: &mut Memory) -> Result<bool, RingError> {
        if !self.waiting.is_empty() {
            let mut offered = Offered::new(rx.available(mem)?);
            while let Some(packet) = self.waiting.front_mut() {
                match place(rx, mem, &mut offered, packet)? {
                    Placed::InBuffers | Placed::Dropped => {}
                    Placed::Waits => break,
                }
                self.waiting_bytes -= packet.len();
                self.waiting.pop_front();
            }
        }
        if self.waiting.is_empty() {
            rx.unwatch(mem)?;
        } else {
            rx.watch(mem)?;
        }
        rx.publish(mem)
    }
}

/// Bytes of the header in the guest's buffers. A driver that takes neither VERSION_1 nor mergeable
/// buffers has none for `num_buffers` (section 5.1.6.1, legacy interface).
fn header_bytes(features: u64) -> usize {
    if features & (feature::VERSION_1 | FEATURE_MRG_RXBUF) == 0 {
        NUM_BUFFERS_AT
    } else {
        NET_HEADER_BYTES
    }
}

/// The buffers that the guest offers in one operation. Each is looked at once, however many
/// packets it is tried for: so the operation reads no more descriptors than its queue has entries
/// and chains have descriptors.
struct Offered {
    /// How many are left.
    count: u16,
    /// Those that were looked at, each with the number of bytes that it can hold.
    known: VecDeque<(Chain, u64)>,
}

impl Offered {
    fn new(count: u16) -> Self {
        Self {
            count,
            known: VecDeque::new(),
        }
    }

    /// Bytes that the buffer `ahead` behind the next one can hold; to be asked in order.
    fn room(&mut self, rx: &mut Virtqueue, mem: &Memory, ahead: u16) -> Result<u64, RingError> {
        if let Some((_, room)) = self.known.get(ahead.into()) {
            return Ok(*room);
        }
        let mut chain = Chain::default();
        rx.peek_ahead(mem, ahead, &mut chain)?;
        let room = chain.writable_bytes();
        self.known.push_back((chain, room));
        Ok(room)
    }

    /// Takes the next buffer, which was looked at.
    fn take(&mut self, rx: &mut Virtqueue) -> Option<Chain> {
        let (chain, _) = self.known.pop_front()?;
        self.count -= 1;
        rx.skip();
        Some(chain)
    }
}

/// Puts a packet into the next of the guest's buffers: into one, or with mergeable buffers into as
/// many as it takes (section 5.1.6.4).
fn place(
    rx: &mut Virtqueue,
    mem: &mut Memory,
    offered: &mut Offered,
    packet: &mut [u8],
) -> Result<Placed, RingError> {
    let mergeable = rx.features() & FEATURE_MRG_RXBUF != 0;
    let most = if mergeable {
        offered.count
    } else {
        offered.count.min(1)
    };
    let header_bytes = header_bytes(rx.features());
    let bytes = packet.len() - NET_HEADER_BYTES + header_bytes;
    let mut room = 0;
    let mut count = 0;
    while room < bytes as u64 {
        if count == most {
            // A packet that all the buffers a queue can have, or the one that it must have, can't
            // hold would wait for ever and hold up those behind it.
            let hopeless = count == if mergeable { rx.size() } else { 1 };
            return Ok(if hopeless {
                Placed::Dropped
            } else {
                Placed::Waits
            });
        }
        room += offered.room(rx, mem, count)?;
        count += 1;
    }
    header::set_num_buffers(packet, count);
    let bytes = if header_bytes == NET_HEADER_BYTES {
        Cow::Borrowed(&*packet)
    } else {
        Cow::Owned([&packet[..header_bytes], &packet[NET_HEADER_BYTES..]].concat())
    };
    let mut done = 0;
    for _ in 0..count {
        let Some(chain) = offered.take(rx) else {
            break;
        };
        let written = chain.write(mem, &bytes[done..])?;
        rx.give_back(mem, &chain, written as u32)?;
        done += written;
    }
    Ok(Placed::InBuffers)
}

/// Copies the packet of one transmit buffer out; a buffer that holds no proper frame, or asks for
/// work that was not negotiated, is only given back.
fn transmit(
    mem: &Memory,
    chain: &Chain,
    features: u64,
    out: &mut DeviceOut<'_>,
) -> Result<(), RingError> {
    let permitted = NetOffloads::from_guest(features);
    let header_bytes = header_bytes(features);
    let frame_bytes = chain.readable_bytes().saturating_sub(header_bytes as u64);
    if !(MIN_FRAME_BYTES as u64..=MAX_FRAME_BYTES as u64).contains(&frame_bytes) {
        return Ok(());
    }
    let mut packet = vec![0; NET_HEADER_BYTES + frame_bytes as usize];
    let (head, frame) = packet.split_at_mut(NET_HEADER_BYTES);
    chain.read(mem, 0, &mut head[..header_bytes])?;
    chain.read(mem, header_bytes as u64, frame)?;
    let Some(mut header) = NetHeader::of_packet(&packet).filter(|h| permitted.permit(h)) else {
        return Ok(());
    };
    // Only the receiver of a frame may be told so (section 5.1.6.2.1).
    header.data_valid = false;
    packet[..NET_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    out.frame(packet);
    Ok(())
}

impl VirtioDevice for VirtioNet {
    const DEVICE_ID: u32 = 1;
    const QUEUES: usize = 2;

    fn features(&self) -> u64 {
        FEATURE_MAC | FEATURE_MRG_RXBUF | FEATURE_STATUS | header::OFFLOAD_FEATURES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn notify(
        &mut self,
        queue: usize,
        queues: &mut [Virtqueue],
        mem: &mut Memory,
        mut out: DeviceOut<'_>,
    ) -> Result<bool, RingError> {
        match queue {
            RX => self.deliver(&mut queues[RX], mem),
            TX => {
                let features = queues[TX].features();
                serve_all(&mut queues[TX], mem, |mem, chain| {
                    transmit(mem, chain, features, &mut out).map(|()| 0)
                })
            }
            _ => Ok(false),
        }
    }

    fn reset(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }
}

impl VirtioMmio<VirtioNet> {
    /// Whether a packet received now would reach the guest: the card runs and its queue has room
    /// for the longest. Otherwise the host drops or keeps it before it is logged.
    pub fn rx_room(&self) -> bool {
        self.queue_running(RX) && self.device().has_room()
    }

    /// What the guest does by itself with frames that it receives: packets for it may ask for
    /// that. Nothing while the card doesn't run.
    pub fn offloads(&self) -> NetOffloads {
        if self.queue_running(RX) {
            NetOffloads::to_guest(self.accepted_features())
        } else {
            NetOffloads::default()
        }
    }

    /// Receives a packet, in the step of its record: data, used ring and interrupt appear
    /// together, or it waits for buffers. Without [`rx_room`](Self::rx_room), or if it is no
    /// packet, or asks for what the guest has not accepted, it is dropped, the same on every node.
    pub fn receive(&mut self, mem: &mut Memory, packet: &[u8]) {
        let offloads = self.offloads();
        let Some(mut header) = NetHeader::of_packet(packet).filter(|h| offloads.permit(h)) else {
            return;
        };
        if !self.rx_room() {
            return;
        }
        header.data_valid &= offloads.checksum;
        let mut packet = packet.to_vec();
        packet[..NET_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        self.act(RX, |device, queues| {
            device.waiting_bytes += packet.len();
            device.waiting.push_back(packet);
            if device.waiting.len() > 1 {
                // Those before it wait until the guest says that it has more buffers.
                return Ok(false);
            }
            device.deliver(&mut queues[RX], mem)
        });
    }
}

impl Persist for VirtioNet {
    type State = NetState;

    fn save(&self) -> NetState {
        NetState {
            mac: self.mac(),
            waiting: self.waiting.iter().cloned().collect(),
        }
    }

    fn restore(state: NetState) -> Result<Self, StateError> {
        length("net.waiting", state.waiting.len(), 0, RX_QUEUE_FRAMES)?;
        let mut card = Self::new(state.mac);
        for packet in &state.waiting {
            consistent(
                NetHeader::of_packet(packet).is_some(),
                "what waits for the guest is no packet",
            )?;
            card.waiting_bytes += packet.len();
        }
        length("net.waiting bytes", card.waiting_bytes, 0, RX_QUEUE_BYTES)?;
        card.waiting = state.waiting.into();
        Ok(card)
    }
}

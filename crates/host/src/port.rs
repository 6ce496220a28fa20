//! What a network card of the guest is plugged into: the user-mode switch or a TAP interface.
//!
//! Packets go in and out as everywhere inside twinvm: a header that says what is still to be done
//! (`twinvm_machine::NetHeader`), then the Ethernet frame.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use twinvm_machine::{NET_HEADER_BYTES, NetHeader, NetOffloads};

use crate::lan_port::{LanPort, LanPortError};
use crate::tap::{TapError, TapPort};

/// Where a port leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortAddress {
    /// The socket of `twinvm lan`.
    Lan(PathBuf),
    /// A TAP interface of this host.
    Tap(String),
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lan(socket) => write!(f, "lan:{}", socket.display()),
            Self::Tap(name) => write!(f, "tap:{name}"),
        }
    }
}

/// What happens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// A packet for the guest, or for nobody here. The next hop is the log, as a received frame.
    Frame(Vec<u8>),
    /// The other side has gone; the port tries to connect again. Told once.
    Lost {
        /// Why, for the journal.
        why: String,
    },
    /// The other side is there again. It knows no addresses: a live node announces its guest's.
    Reconnected,
    /// Something a person should know.
    Note {
        /// In one line.
        text: String,
    },
}

/// A port can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The switch.
    #[error(transparent)]
    Lan(#[from] LanPortError),
    /// The interface.
    #[error(transparent)]
    Tap(#[from] TapError),
}

/// What went through a port.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    frames_in: AtomicU64,
    large_in: AtomicU64,
    bytes_in: AtomicU64,
    dropped_in: AtomicU64,
    frames_out: AtomicU64,
    large_out: AtomicU64,
    bytes_out: AtomicU64,
    dropped_out: AtomicU64,
}

/// What went through a port up to a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct PortCounts {
    /// Packets for the guest.
    pub frames_in: u64,
    /// Those among them that are several TCP segments in one.
    pub large_in: u64,
    /// Bytes of frames for the guest.
    pub bytes_in: u64,
    /// Packets for the guest that were dropped here.
    pub dropped_in: u64,
    /// Packets of the guest.
    pub frames_out: u64,
    /// Those among them that are several TCP segments in one.
    pub large_out: u64,
    /// Bytes of frames of the guest.
    pub bytes_out: u64,
    /// Packets of the guest that were dropped here.
    pub dropped_out: u64,
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn is_large(packet: &[u8]) -> bool {
    NetHeader::of_packet(packet).is_some_and(|header| header.segmentation.is_some())
}

fn frame_bytes(packet: &[u8]) -> u64 {
    packet.len().saturating_sub(NET_HEADER_BYTES) as u64
}

impl Counters {
    /// Counts a packet for the guest.
    pub(crate) fn received(&self, packet: &[u8]) {
        bump(&self.frames_in, 1);
        bump(&self.large_in, is_large(packet).into());
        bump(&self.bytes_in, frame_bytes(packet));
    }

    /// Counts a packet for the guest that was dropped.
    pub(crate) fn refused(&self) {
        bump(&self.dropped_in, 1);
    }

    /// Counts a packet of the guest.
    pub(crate) fn sent(&self, packet: &[u8]) {
        bump(&self.frames_out, 1);
        bump(&self.large_out, is_large(packet).into());
        bump(&self.bytes_out, frame_bytes(packet));
    }

    /// Counts packets of the guest that were lost.
    pub(crate) fn lost(&self, packets: u64) {
        bump(&self.dropped_out, packets);
    }

    pub(crate) fn counts(&self) -> PortCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PortCounts {
            frames_in: get(&self.frames_in),
            large_in: get(&self.large_in),
            bytes_in: get(&self.bytes_in),
            dropped_in: get(&self.dropped_in),
            frames_out: get(&self.frames_out),
            large_out: get(&self.large_out),
            bytes_out: get(&self.bytes_out),
            dropped_out: get(&self.dropped_out),
        }
    }
}

/// An open port. Dropping it closes it.
#[derive(Debug)]
pub struct Port {
    wire: Wire,
    guest_takes: NetOffloads,
}

#[derive(Debug)]
enum Wire {
    Lan(LanPort),
    Tap(TapPort),
}

impl Port {
    /// Opens the port; what comes from it goes to `events`, which should be bounded.
    pub fn open(address: &PortAddress, events: Sender<PortEvent>) -> Result<Self, PortError> {
        let wire = match address {
            PortAddress::Lan(socket) => Wire::Lan(LanPort::connect(socket, events)?),
            PortAddress::Tap(name) => Wire::Tap(TapPort::open(name, events)?),
        };
        Ok(Self {
            wire,
            guest_takes: NetOffloads::default(),
        })
    }

    /// Sends a packet of the guest and returns at once; false if it is dropped. The next hop is
    /// the switch or the kernel's network.
    pub fn send(&self, packet: &[u8]) -> bool {
        match &self.wire {
            Wire::Lan(port) => port.send(packet),
            Wire::Tap(port) => port.send(packet),
        }
    }

    /// The guest does this much by itself with what it receives: the port leaves it to it. To be
    /// called whenever that may have changed.
    pub fn guest_takes(&mut self, offloads: NetOffloads) {
        if self.guest_takes == offloads {
            return;
        }
        self.guest_takes = offloads;
        match &self.wire {
            // Its frames are plain always.
            Wire::Lan(_) => {}
            Wire::Tap(port) => port.set_offloads(offloads),
        }
    }

    /// What went through it so far.
    pub fn counts(&self) -> PortCounts {
        match &self.wire {
            Wire::Lan(port) => port.counts(),
            Wire::Tap(port) => port.counts(),
        }
    }
}

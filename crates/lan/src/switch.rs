//! The learning table: which port a station is behind, and where a frame goes.
//!
//! ```text
//!            plain frame                     announcement
//! unknown ───────────────▶ learnt at P ───────────────────▶ announced at P
//!                            │   ▲ plain frame from Q          │
//!                            └───┘ moves it                    │ moved only by an
//!                                                              ▼ announcement from Q
//! any state ── port leaves ──▶ unknown                   announced at Q
//! ```
//!
//! Why a plain frame doesn't move an announced station: after a takeover the
//! loser's last frames, which were acknowledged before and may still leave, can
//! arrive behind the winner's announcement. They must not draw the traffic back.

use std::collections::HashMap;

use crate::ethernet::{Header, MacAddr};

/// Names a port for the life of the switch; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortId(pub(crate) usize);

/// Stations learnt behind one port. A guest has a few; a flood of made-up
/// addresses fills only its own port's share, and what isn't learnt is flooded.
pub(crate) const MAX_STATIONS_PER_PORT: usize = 256;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The station inside the switch.
    Gateway,
    /// One port.
    Port(PortId),
    /// All ports but the one it came from; the gateway too if it is a group frame.
    Flood {
        /// Group address: the gateway hears it as well.
        to_gateway: bool,
    },
    /// Nowhere.
    Nowhere,
}

/// What the switch decided about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Where it goes.
    pub(crate) destination: Destination,
    /// This station is now reached through the frame's port, and frames sent to
    /// it before may be lost: the gateway repeats what wasn't acknowledged.
    pub(crate) arrived: Option<MacAddr>,
    /// The port is another than before, or there was none.
    pub(crate) is_news: bool,
}

/// What a frame taught about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Learned {
    /// Nothing new.
    Nothing,
    /// A station not known before.
    New,
    /// A station that was behind another port.
    Moved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Station {
    port: PortId,
    announced: bool,
}

/// The learning table of the switch.
pub(crate) struct Switch {
    gateway: MacAddr,
    stations: HashMap<MacAddr, Station>,
    per_port: HashMap<PortId, usize>,
}

impl Switch {
    pub(crate) fn new(gateway: MacAddr) -> Switch {
        Switch {
            gateway,
            stations: HashMap::new(),
            per_port: HashMap::new(),
        }
    }

    /// Learns from a frame that came in through `port` and says where it goes.
    /// Next hop: a port's queue, or [`crate::gateway::Gateway::input`].
    pub(crate) fn frame_from(&mut self, port: PortId, header: &Header) -> Verdict {
        if !header.src.is_unicast() || header.src == self.gateway {
            // No station may speak as a group or as the gateway.
            return Verdict {
                destination: Destination::Nowhere,
                arrived: None,
                is_news: false,
            };
        }
        let learned = self.learn(port, header);
        let destination = if header.dst == self.gateway {
            Destination::Gateway
        } else if !header.dst.is_unicast() {
            Destination::Flood { to_gateway: true }
        } else {
            match self.route(header.dst) {
                Destination::Port(to) if to == port => Destination::Nowhere,
                other => other,
            }
        };
        let arrived = learned == Learned::Moved || header.announces;
        Verdict {
            destination,
            arrived: arrived.then_some(header.src),
            is_news: learned != Learned::Nothing,
        }
    }

    /// Where a frame of the gateway goes.
    pub(crate) fn route(&self, dst: MacAddr) -> Destination {
        match self.stations.get(&dst) {
            Some(station) => Destination::Port(station.port),
            None => Destination::Flood { to_gateway: false },
        }
    }

    /// Forgets a port that left; the stations that were behind it.
    pub(crate) fn port_left(&mut self, port: PortId) -> Vec<MacAddr> {
        self.per_port.remove(&port);
        let mut gone: Vec<MacAddr> = self
            .stations
            .extract_if(|_, station| station.port == port)
            .map(|(mac, _)| mac)
            .collect();
        gone.sort_unstable();
        gone
    }

    /// Notes the sender.
    fn learn(&mut self, port: PortId, header: &Header) -> Learned {
        match self.stations.get_mut(&header.src) {
            Some(station) if station.port == port => {
                station.announced |= header.announces;
                Learned::Nothing
            }
            Some(station) if station.announced && !header.announces => Learned::Nothing,
            Some(station) => {
                let old = station.port;
                self.stations.remove(&header.src);
                if let Some(count) = self.per_port.get_mut(&old) {
                    *count -= 1;
                }
                self.insert(port, header);
                Learned::Moved
            }
            None => {
                self.insert(port, header);
                Learned::New
            }
        }
    }

    fn insert(&mut self, port: PortId, header: &Header) {
        let count = self.per_port.entry(port).or_default();
        if *count < MAX_STATIONS_PER_PORT {
            *count += 1;
            let announced = header.announces;
            self.stations
                .insert(header.src, Station { port, announced });
        }
    }
}

#[cfg(test)]
mod tests;

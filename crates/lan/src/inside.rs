//! The switch without its sockets, for tests that send it anything.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::iface::SocketHandle;
use smoltcp::time::Instant;

use crate::config::{DhcpConfig, GatewayConfig};
use crate::ethernet::Header;
use crate::framing::FrameReader;
use crate::gateway::Gateway;
use crate::switch::{Destination, PortId, Switch};

/// Connections into guests that are open at once.
const MAX_CONNECTIONS: usize = 4;

/// Learning table and gateway with a forward to one guest.
pub struct Inside {
    switch: Switch,
    gateway: Gateway,
    reader: FrameReader,
    connections: Vec<SocketHandle>,
}

impl Inside {
    /// A switch nobody is plugged into. `seed` is that of the gateway's sequence numbers.
    pub fn new(seed: u64) -> Self {
        let gateway = GatewayConfig::default();
        Self {
            switch: Switch::new(gateway.mac),
            gateway: Gateway::new(
                gateway,
                &DhcpConfig::default(),
                [Ipv4Addr::new(10, 0, 2, 15)],
                seed,
                Instant::ZERO,
            ),
            reader: FrameReader::new(),
            connections: Vec::new(),
        }
    }

    /// A frame of one port, and all that it causes.
    pub fn frame(&mut self, port: usize, frame: &[u8], now_ms: u64) {
        let Some(header) = Header::parse(frame) else {
            return;
        };
        let verdict = self.switch.frame_from(PortId(port), &header);
        if let Some(mac) = verdict.arrived {
            self.gateway.station_arrived(mac);
        }
        if let Destination::Gateway | Destination::Flood { to_gateway: true } = verdict.destination
        {
            self.gateway.input(frame);
        }
        let now = Instant::from_millis(i64::try_from(now_ms).unwrap_or(i64::MAX));
        self.gateway.poll(now);
        while let Some(frame) = self.gateway.output() {
            if let Some(header) = Header::parse(&frame) {
                self.switch.route(header.dst);
            }
        }
        self.gateway.poll_delay(now);
    }

    /// A port is unplugged.
    pub fn leave(&mut self, port: usize) {
        self.switch.port_left(PortId(port));
    }

    /// Somebody connects to the forward; the oldest of too many is given up.
    pub fn connect(&mut self) {
        if self.connections.len() == MAX_CONNECTIONS {
            self.gateway.remove(self.connections.remove(0));
        }
        let guest = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 80);
        self.connections.extend(self.gateway.connect(guest));
    }

    /// Bytes of a port's stream: frames are cut out of it until it breaks the framing.
    pub fn stream(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.reader.fill(&mut bytes).is_ok() {
            loop {
                match self.reader.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        self.reader = FrameReader::new();
                        return;
                    }
                }
            }
        }
    }
}

//! The station inside the switch: a TCP/IP stack that speaks for the forwards.
//!
//! No socket and no clock of the host inside: frames in, frames out, time as an
//! argument.

mod device;
mod dhcp;
mod neighbours;
mod segment;
mod unacked;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use crate::config::{DhcpConfig, GatewayConfig};
use crate::ethernet::MacAddr;
use device::SeamDevice;
use dhcp::Dhcp;
use neighbours::Neighbours;
use segment::Arp;
use unacked::{FlowKey, Unacked};

/// Bytes of each direction's buffer in a TCP connection to a guest. At a round
/// trip of 2 ms, which replication makes, this carries 64 MB/s.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 128 * 1024;

/// First port the gateway connects from; it goes round up to 65535, so that a
/// port comes again only after tens of thousands of connections.
const FIRST_LOCAL_PORT: u16 = 10_000;

/// Least time between two repeats of everything unacknowledged, so that a port
/// which announces without end can't make the gateway flood it.
const REPEAT_GAP: Duration = Duration::from_millis(2);

/// DHCP requests that wait for the next poll, which comes after each port's turn; more are a flood.
const MAX_REQUESTS: usize = 64;

/// The gateway: the stack, and the bookkeeping at its device.
pub(crate) struct Gateway {
    config: GatewayConfig,
    interface: Interface,
    sockets: SocketSet<'static>,
    device: SeamDevice,
    unacked: Unacked,
    neighbours: Neighbours,
    dhcp: Option<Dhcp>,
    requests: Vec<Vec<u8>>,
    flows: BTreeMap<SocketHandle, FlowKey>,
    local_ports: BTreeSet<u16>,
    next_local_port: u16,
    /// Stations whose segments are to be repeated.
    arrived: BTreeSet<MacAddr>,
    repeated_at: Option<Instant>,
    repeated_frames: u64,
}

impl Gateway {
    /// A gateway for forwards to `guests`. `config` has been checked; `seed` makes
    /// sequence numbers and ports hard to guess.
    pub(crate) fn new(
        config: GatewayConfig,
        dhcp: &DhcpConfig,
        guests: impl IntoIterator<Item = Ipv4Addr>,
        seed: u64,
        now: Instant,
    ) -> Gateway {
        let mut device = SeamDevice::default();
        let mac = HardwareAddress::Ethernet(EthernetAddress(config.mac.0));
        let mut settings = Config::new(mac);
        settings.random_seed = seed;
        let mut interface = Interface::new(settings, &mut device, now);
        interface.update_ip_addrs(|addresses| {
            let pushed = addresses.push(IpCidr::new(IpAddress::Ipv4(config.ip), config.prefix));
            assert!(pushed.is_ok(), "an interface has room for one address");
        });
        let ports = u64::from(u16::MAX - FIRST_LOCAL_PORT) + 1;
        let guests: Vec<Ipv4Addr> = guests.into_iter().collect();
        let fixed = dhcp.fixed.iter().map(|fixed| (fixed.ip, fixed.mac));
        let server = Dhcp::new(config, fixed, guests.iter().copied());
        Gateway {
            config,
            interface,
            sockets: SocketSet::new(Vec::new()),
            device,
            unacked: Unacked::new(config.mac),
            neighbours: Neighbours::new(guests),
            dhcp: dhcp.serve.then_some(server),
            requests: Vec::new(),
            flows: BTreeMap::new(),
            local_ports: BTreeSet::new(),
            next_local_port: FIRST_LOCAL_PORT + (seed % ports) as u16,
            arrived: BTreeSet::new(),
            repeated_at: None,
            repeated_frames: 0,
        }
    }

    /// Takes a frame for the gateway. Next hop: the stack, in [`Gateway::poll`],
    /// then [`crate::forward::Connection::pump`].
    pub(crate) fn input(&mut self, frame: &[u8]) {
        if let Some(arp) = Arp::parse(frame) {
            if self.neighbours.learn(arp.sender, arp.sender_mac) {
                self.tell_stack(arp.sender, arp.sender_mac);
            }
        } else if let Some((mac, ip)) = segment::ipv4_source(frame) {
            if self.dhcp.is_some() && Dhcp::is_request(frame) {
                if self.requests.len() < MAX_REQUESTS {
                    self.requests.push(frame.to_vec());
                }
                return;
            }
            // The stack answers hosts of its own network only.
            if !self.config.is_guest(ip) {
                return;
            }
            if !mac.is_voice() && self.neighbours.learn_if_unknown(ip, mac) {
                self.tell_stack(ip, mac);
            }
            self.unacked.received(frame);
        } else {
            return;
        }
        self.device.incoming.push_back(frame.to_vec());
    }

    /// The station `mac` is reached by a new way: repeat what it may have missed.
    pub(crate) fn station_arrived(&mut self, mac: MacAddr) {
        // A few stations at a time are real; more are somebody's flood.
        const MAX_ARRIVED: usize = 1024;
        if self.arrived.len() < MAX_ARRIVED {
            self.arrived.insert(mac);
        }
    }

    /// Begins a connection to a guest. `None` if all local ports are in use.
    pub(crate) fn connect(&mut self, guest: SocketAddrV4) -> Option<SocketHandle> {
        let local = self.take_local_port()?;
        let buffer = || tcp::SocketBuffer::new(vec![0; SOCKET_BUFFER_BYTES]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let remote = (IpAddress::Ipv4(*guest.ip()), guest.port());
        let source = (IpAddress::Ipv4(self.config.ip), local);
        if socket
            .connect(self.interface.context(), remote, source)
            .is_err()
        {
            self.local_ports.remove(&local);
            return None;
        }
        match self.neighbours.get(*guest.ip()) {
            // The stack may be waiting out its second after another question.
            None => self.ask(*guest.ip()),
            Some(mac) => self.tell_stack(*guest.ip(), mac),
        }
        let key = FlowKey {
            guest,
            gateway: SocketAddrV4::new(self.config.ip, local),
        };
        self.unacked.open(key);
        let handle = self.sockets.add(socket);
        self.flows.insert(handle, key);
        Some(handle)
    }

    /// A connection's socket.
    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Removes a connection. What it still has to say (a reset, a last
    /// acknowledgement) must have left in a [`Gateway::poll`] before.
    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        if let Some(key) = self.flows.remove(&handle) {
            self.unacked.close(&key);
            self.local_ports.remove(&key.gateway.port());
        }
    }

    /// Runs the stack. True if a socket may have changed. Frames for the switch
    /// are then taken with [`Gateway::output`].
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        for (ip, mac) in self.neighbours.refresh(now) {
            self.tell_stack(ip, mac);
        }
        if let Some(dhcp) = &mut self.dhcp {
            let requests = self.requests.drain(..);
            let answers = requests.filter_map(|request| dhcp.answer(&request, now));
            self.device.outgoing.extend(answers);
        }
        let result = self
            .interface
            .poll(now, &mut self.device, &mut self.sockets);
        for index in 0..self.device.outgoing.len() {
            let frame = &self.device.outgoing[index];
            self.unacked.sent(frame);
            // The stack's own question, where the answer is known. It goes out as
            // well, so that a changed answer is heard.
            if let Some(question) = Arp::parse(frame).filter(|arp| arp.request)
                && let Some(mac) = self.neighbours.get(question.target)
            {
                self.tell_stack(question.target, mac);
            }
        }
        self.repeat(now);
        result == PollResult::SocketStateChanged || !self.device.incoming.is_empty()
    }

    /// The next frame for the switch. Next hop: [`crate::switch::Switch::route`].
    pub(crate) fn output(&mut self) -> Option<Vec<u8>> {
        self.device.outgoing.pop_front()
    }

    /// Time until the gateway has to be polled, if nothing else happens.
    pub(crate) fn poll_delay(&mut self, now: Instant) -> Option<Duration> {
        if !self.device.incoming.is_empty() || !self.requests.is_empty() {
            return Some(Duration::ZERO);
        }
        let repeat = self.repeat_due().map(|due| {
            if due <= now {
                Duration::ZERO
            } else {
                due - now
            }
        });
        let stack = self.interface.poll_delay(now, &self.sockets);
        match (repeat, stack) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Frames repeated at announcements so far.
    pub(crate) fn repeated_frames(&self) -> u64 {
        self.repeated_frames
    }

    fn repeat_due(&self) -> Option<Instant> {
        let again = self.repeated_at.map(|at| at + REPEAT_GAP);
        (!self.arrived.is_empty()).then_some(again.unwrap_or(Instant::ZERO))
    }

    fn repeat(&mut self, now: Instant) {
        if self.repeat_due().is_none_or(|due| due > now) {
            return;
        }
        self.repeated_at = Some(now);
        let mut count = 0;
        for mac in std::mem::take(&mut self.arrived) {
            count += self.unacked.repeat(mac, &mut self.device.outgoing);
        }
        self.repeated_frames += count as u64;
        // Questions to guests that never answered: perhaps it is one of them.
        let unknown: BTreeSet<Ipv4Addr> = self
            .flows
            .values()
            .map(|key| *key.guest.ip())
            .filter(|ip| self.neighbours.get(*ip).is_none())
            .collect();
        for ip in unknown {
            self.ask(ip);
        }
    }

    /// Gives the stack an answer it would otherwise have to ask for.
    fn tell_stack(&mut self, ip: Ipv4Addr, mac: MacAddr) {
        let own = (self.config.mac, self.config.ip);
        let answer = segment::arp(ArpOperation::Reply, (mac, ip), own);
        self.device.incoming.push_back(answer);
    }

    /// Asks the LAN for a guest's address.
    fn ask(&mut self, ip: Ipv4Addr) {
        let own = (self.config.mac, self.config.ip);
        let question = segment::arp(ArpOperation::Request, own, (MacAddr::BROADCAST, ip));
        self.device.outgoing.push_back(question);
    }

    fn take_local_port(&mut self) -> Option<u16> {
        for _ in FIRST_LOCAL_PORT..=u16::MAX {
            let port = self.next_local_port;
            self.next_local_port = port.checked_add(1).unwrap_or(FIRST_LOCAL_PORT);
            if self.local_ports.insert(port) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;

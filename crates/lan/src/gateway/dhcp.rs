//! A DHCP server for the guests (RFC 2131): addresses for as long as the switch lives.
//!
//! Leases belong to Ethernet addresses. The switch outlives the nodes, and a guest that goes on at
//! another node has the same address there, so it keeps its lease without a word.
//!
//! ```text
//!         DISCOVER                REQUEST
//! free ────────────▶ offered 60 s ────────▶ leased a day ◀─┐ REQUEST
//!  ▲                      │                   │      └─────┘
//!  └── another's turn ◀───┴─ time is over ────┤
//!  ▲                                          │ DECLINE: in use by a stranger
//!  └──────── RELEASE ─────────────────────────┴──────────▶ withheld a day
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use crate::config::{GatewayConfig, MAX_LEASES};
use crate::ethernet::MacAddr;

#[cfg(test)]
mod tests;

/// Where the pool begins in the network, behind the guests that forwards name: 10.0.2.15, what
/// guests of user-mode networks are used to.
const FIRST_HOST: u32 = 15;
/// How long an address is leased: a day.
const LEASE: Duration = Duration::from_secs(86_400);
/// How long an offer stands.
const OFFER: Duration = Duration::from_secs(60);

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const HOP_LIMIT: u8 = 64;

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    /// `None`: somebody who never asked.
    mac: Option<MacAddr>,
    until: Instant,
}

/// The server.
pub(super) struct Dhcp {
    gateway: GatewayConfig,
    /// The addresses that may be given, in the order in which they are.
    pool: Vec<Ipv4Addr>,
    leases: BTreeMap<Ipv4Addr, Lease>,
    /// Addresses that are kept for one client each.
    fixed: BTreeMap<Ipv4Addr, MacAddr>,
}

/// What a client asked, and how to answer it.
struct Request<'a> {
    repr: DhcpRepr<'a>,
    mac: MacAddr,
}

impl Dhcp {
    /// A server that keeps the addresses in `fixed` for one client each, and gives others first
    /// those of `guests`, in their order.
    pub(super) fn new(
        gateway: GatewayConfig,
        fixed: impl IntoIterator<Item = (Ipv4Addr, MacAddr)>,
        guests: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Self {
        let fixed: BTreeMap<Ipv4Addr, MacAddr> = fixed.into_iter().collect();
        let network = gateway.ip.to_bits() & !(u32::MAX >> gateway.prefix);
        let hosts = u32::MAX >> gateway.prefix;
        // Small networks have no host 15: then from the first.
        let rest = (FIRST_HOST..hosts).chain(1..FIRST_HOST.min(hosts));
        let rest = rest.map(|host| Ipv4Addr::from_bits(network | host));
        let mut pool: Vec<Ipv4Addr> = Vec::new();
        // What repeats are the guests: a few more than the pool holds is enough of the rest.
        let guests = fixed.keys().copied().chain(guests);
        for ip in guests.chain(rest.take(2 * MAX_LEASES)) {
            if gateway.is_guest(ip) && !pool.contains(&ip) && pool.len() < MAX_LEASES {
                pool.push(ip);
            }
        }
        Self {
            gateway,
            pool,
            leases: BTreeMap::new(),
            fixed,
        }
    }

    /// Whether a frame is for a DHCP server.
    pub(super) fn is_request(frame: &[u8]) -> bool {
        payload(frame).is_some()
    }

    /// The answer to a request, if it gets one. Next hop: the switch.
    pub(super) fn answer(&mut self, frame: &[u8], now: Instant) -> Option<Vec<u8>> {
        let packet = DhcpPacket::new_checked(payload(frame)?).ok()?;
        let repr = DhcpRepr::parse(&packet).ok()?;
        let mac = MacAddr(repr.client_hardware_address.0);
        // Relays have servers of their own.
        if !mac.is_unicast() || !repr.relay_agent_ip.is_unspecified() {
            return None;
        }
        let request = Request { repr, mac };
        match request.repr.message_type {
            DhcpMessageType::Discover => {
                let ip = self.choose(&request, now)?;
                if self.own(mac) != Some(ip) {
                    self.withdraw(mac);
                }
                self.lease(ip, Some(mac), now + OFFER);
                Some(self.reply(&request, DhcpMessageType::Offer, ip))
            }
            DhcpMessageType::Request => self.request(&request, now),
            DhcpMessageType::Inform => {
                Some(self.reply(&request, DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED))
            }
            DhcpMessageType::Release => {
                self.withdraw(mac);
                None
            }
            DhcpMessageType::Decline => {
                let ip = self.withdraw(mac)?;
                self.lease(ip, None, now + LEASE);
                None
            }
            _ => None,
        }
    }

    /// A client takes an offer, or wants to keep what it has or had (RFC 2131 section 4.3.2).
    fn request(&mut self, request: &Request<'_>, now: Instant) -> Option<Vec<u8>> {
        let repr = &request.repr;
        if repr
            .server_identifier
            .is_some_and(|server| server != self.gateway.ip)
        {
            // It took another server's.
            self.withdraw(request.mac);
            return None;
        }
        let asked = match repr.requested_ip {
            Some(ip) => ip,
            None => repr.client_ip,
        };
        let own = self.own(request.mac);
        if self.pool.contains(&asked)
            && (own == Some(asked) || self.is_free(asked, request.mac, now))
        {
            self.withdraw(request.mac);
            self.lease(asked, Some(request.mac), now + LEASE);
            return Some(self.reply(request, DhcpMessageType::Ack, asked));
        }
        Some(self.reply(request, DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED))
    }

    /// The address for a client: its own, the one it asks for, a new one, or one whose time is
    /// over.
    fn choose(&self, request: &Request<'_>, now: Instant) -> Option<Ipv4Addr> {
        let mac = request.mac;
        let free = |ip: &Ipv4Addr| self.is_free(*ip, mac, now);
        let kept = self.fixed.iter().find(|(_, owner)| **owner == mac);
        let kept = kept.map(|(ip, _)| *ip).filter(free);
        let asked = request.repr.requested_ip;
        kept.or_else(|| self.own(mac))
            .or_else(|| asked.filter(|ip| self.pool.contains(ip) && free(ip)))
            .or_else(|| {
                let unused = |ip: &&Ipv4Addr| !self.leases.contains_key(*ip) && free(ip);
                self.pool.iter().find(unused).copied()
            })
            .or_else(|| self.pool.iter().copied().find(free))
    }

    fn own(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        let mut leases = self.leases.iter();
        let (ip, _) = leases.find(|(_, lease)| lease.mac == Some(mac))?;
        Some(*ip)
    }

    /// Whether `mac` may have an address: it is kept for nobody else, and nobody else has it now.
    fn is_free(&self, ip: Ipv4Addr, mac: MacAddr, now: Instant) -> bool {
        let lease = self.leases.get(&ip);
        self.fixed.get(&ip).is_none_or(|owner| *owner == mac)
            && lease.is_none_or(|lease| lease.mac == Some(mac) || lease.until <= now)
    }

    /// A new end for an address; it may be sooner for an offer repeated, never for a lease.
    fn lease(&mut self, ip: Ipv4Addr, mac: Option<MacAddr>, until: Instant) {
        let known = self.leases.get(&ip).filter(|lease| lease.mac == mac);
        let until = known.map_or(until, |lease| lease.until.max(until));
        self.leases.insert(ip, Lease { mac, until });
    }

    /// Takes a client's address from it.
    fn withdraw(&mut self, mac: MacAddr) -> Option<Ipv4Addr> {
        let ip = self.own(mac)?;
        self.leases.remove(&ip);
        Some(ip)
    }

    fn reply(&self, request: &Request<'_>, kind: DhcpMessageType, ip: Ipv4Addr) -> Vec<u8> {
        let asked = &request.repr;
        let gives = kind != DhcpMessageType::Nak;
        let leases = gives && !ip.is_unspecified();
        let netmask = Ipv4Addr::from_bits(!(u32::MAX >> self.gateway.prefix));
        let seconds = LEASE.secs() as u32;
        let dhcp = DhcpRepr {
            message_type: kind,
            transaction_id: asked.transaction_id,
            secs: 0,
            client_hardware_address: asked.client_hardware_address,
            client_ip: if gives {
                asked.client_ip
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            your_ip: ip,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: gives.then_some(self.gateway.ip),
            subnet_mask: gives.then_some(netmask),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: asked.broadcast,
            requested_ip: None,
            client_identifier: asked.client_identifier,
            server_identifier: Some(self.gateway.ip),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: leases.then_some(seconds),
            renew_duration: leases.then_some(seconds / 2),
            rebind_duration: leases.then_some(seconds / 8 * 7),
            additional_options: &[],
        };
        // RFC 2131 section 4.1: to the address it has, by broadcast if it asks for that or is
        // refused, else to the address it gets.
        let (to_mac, to_ip) = if !gives {
            (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
        } else if !asked.client_ip.is_unspecified() {
            (request.mac, asked.client_ip)
        } else if asked.broadcast || !leases {
            (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
        } else {
            (request.mac, ip)
        };
        self.frame(&dhcp, to_mac, to_ip)
    }

    fn frame(&self, dhcp: &DhcpRepr<'_>, to_mac: MacAddr, to_ip: Ipv4Addr) -> Vec<u8> {
        let checksums = ChecksumCapabilities::default();
        let udp = UdpRepr {
            src_port: SERVER_PORT,
            dst_port: CLIENT_PORT,
        };
        let payload_len = udp.header_len() + dhcp.buffer_len();
        let ip = Ipv4Repr {
            src_addr: self.gateway.ip,
            dst_addr: to_ip,
            next_header: IpProtocol::Udp,
            payload_len,
            hop_limit: HOP_LIMIT,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(self.gateway.mac.0),
            dst_addr: EthernetAddress(to_mac.0),
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + payload_len];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &IpAddress::Ipv4(self.gateway.ip),
            &IpAddress::Ipv4(to_ip),
            dhcp.buffer_len(),
            |room| {
                // The room is what its own length asks for.
                let _ = dhcp.emit(&mut DhcpPacket::new_unchecked(room));
            },
            &checksums,
        );
        bytes
    }
}

/// What a frame carries to a DHCP server; `None` if it is for somebody else, or damaged.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let whole = ip.version() == 4 && !ip.more_frags() && ip.frag_offset() == 0;
    if !whole || ip.next_header() != IpProtocol::Udp || !ip.verify_checksum() {
        return None;
    }
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let proper = udp.src_port() == CLIENT_PORT
        && udp.dst_port() == SERVER_PORT
        && udp.verify_checksum(&IpAddress::Ipv4(source), &IpAddress::Ipv4(target));
    proper.then(|| udp.payload())
}

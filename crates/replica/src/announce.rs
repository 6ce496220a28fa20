//! Which addresses the guest uses, and the frames that tell a network where it is now.
//!
//! Addresses are learnt from the guest's own frames only: the ARP sender fields and
//! the source of its IPv4 and IPv6 packets. They travel with snapshots, so that a new
//! live node can announce them before the guest says a word.

use twinvm_machine::NET_HEADER_BYTES;

use crate::voice;

/// Addresses kept per network card: a guest with more than these uses routing, and
/// its neighbours find the rest by asking.
const MAX_ADDRESSES: usize = 16;
/// Network cards a board can have.
const MAX_CARDS: usize = 8;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_RARP: [u8; 2] = [0x80, 0x35];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Least length of an Ethernet frame without checksum.
const MIN_FRAME: usize = 60;

/// What one network card is known by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Card {
    device: u8,
    mac: [u8; 6],
    ipv4: Vec<[u8; 4]>,
    ipv6: Vec<[u8; 16]>,
}

/// Addresses learnt from the guest's frames.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Neighbours {
    cards: Vec<Card>,
}

impl Neighbours {
    /// Nothing learnt yet; `cards` are the board's network cards.
    pub(crate) fn new(cards: impl IntoIterator<Item = (u8, [u8; 6])>) -> Self {
        let cards = cards
            .into_iter()
            .take(MAX_CARDS)
            .map(|(device, mac)| Card {
                device,
                mac,
                ipv4: Vec::new(),
                ipv6: Vec::new(),
            })
            .collect();
        Self { cards }
    }

    /// Whether this may replace what another board's snapshot carried: same cards.
    pub(crate) fn same_cards(&self, other: &Self) -> bool {
        let key = |n: &Self| {
            n.cards
                .iter()
                .map(|c| (c.device, c.mac))
                .collect::<Vec<_>>()
        };
        let bounded = |n: &Self| {
            n.cards
                .iter()
                .all(|c| c.ipv4.len() <= MAX_ADDRESSES && c.ipv6.len() <= MAX_ADDRESSES)
        };
        key(self) == key(other) && bounded(other)
    }

    /// Looks at a packet that the guest sent.
    pub(crate) fn learn(&mut self, device: u8, packet: &[u8]) {
        let frame = packet.get(NET_HEADER_BYTES..).unwrap_or_default();
        let Some(card) = self.cards.iter_mut().find(|card| card.device == device) else {
            return;
        };
        let Some(ethertype) = frame.get(12..14) else {
            return;
        };
        if frame.get(6..12) != Some(&card.mac[..]) {
            return;
        }
        if ethertype == ETHERTYPE_ARP {
            if let Some(ip) = frame.get(28..32).and_then(|ip| ip.try_into().ok()) {
                keep(&mut card.ipv4, ip, [0; 4]);
            }
        } else if ethertype == ETHERTYPE_IPV4 {
            if let Some(ip) = frame.get(26..30).and_then(|ip| ip.try_into().ok()) {
                keep(&mut card.ipv4, ip, [0; 4]);
            }
        } else if ethertype == ETHERTYPE_IPV6
            && let Some(ip) = frame.get(22..38).and_then(|ip| ip.try_into().ok())
        {
            keep(&mut card.ipv6, ip, [0; 16]);
        }
    }

    /// Whether a packet from the wire is the guest's own, sent by its backup.
    pub(crate) fn is_echo(&self, device: u8, packet: &[u8]) -> bool {
        let mut cards = self.cards.iter();
        cards.any(|card| card.device == device && voice::is_echo(card.mac, packet))
    }

    /// Whether a packet from the wire has the guest's own address as its source: another node speaks
    /// in its name.
    pub(crate) fn is_own(&self, device: u8, packet: &[u8]) -> bool {
        let mut cards = self.cards.iter();
        cards.any(|card| card.device == device && voice::is_from(card.mac, packet))
    }

    /// The packets that announce every card: RARP for the address of the card itself
    /// (switches learn its new port), gratuitous ARP for each IPv4 address (RFC 5227,
    /// section 3), an unsolicited neighbour advertisement for each IPv6 address
    /// (RFC 4861, section 7.2.6).
    pub(crate) fn announcements(&self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        for card in &self.cards {
            frames.push((card.device, rarp(&card.mac)));
            frames.extend(
                card.ipv4
                    .iter()
                    .map(|ip| (card.device, gratuitous_arp(&card.mac, ip))),
            );
            frames.extend(
                card.ipv6
                    .iter()
                    .map(|ip| (card.device, advertisement(&card.mac, ip))),
            );
        }
        frames
    }
}

/// Keeps an address, the latest last; forgets the oldest above the bound.
fn keep<const N: usize>(list: &mut Vec<[u8; N]>, address: [u8; N], unspecified: [u8; N]) {
    if address == unspecified || list.last() == Some(&address) {
        return;
    }
    list.retain(|known| *known != address);
    if list.len() >= MAX_ADDRESSES {
        list.remove(0);
    }
    list.push(address);
}

/// A packet whose header asks for nothing.
fn ethernet(to: &[u8; 6], from: &[u8; 6], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; NET_HEADER_BYTES];
    packet.extend_from_slice(to);
    packet.extend_from_slice(from);
    packet.extend_from_slice(&ethertype);
    packet.extend_from_slice(payload);
    packet.resize(packet.len().max(NET_HEADER_BYTES + MIN_FRAME), 0);
    packet
}

/// Payload of ARP and RARP over Ethernet and IPv4 (RFC 826, RFC 903).
fn arp(op: u8, sender: (&[u8; 6], &[u8; 4]), target: (&[u8; 6], &[u8; 4])) -> Vec<u8> {
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, op];
    p.extend_from_slice(sender.0);
    p.extend_from_slice(sender.1);
    p.extend_from_slice(target.0);
    p.extend_from_slice(target.1);
    p
}

fn rarp(mac: &[u8; 6]) -> Vec<u8> {
    let payload = arp(3, (mac, &[0; 4]), (mac, &[0; 4]));
    ethernet(&BROADCAST, mac, ETHERTYPE_RARP, &payload)
}

fn gratuitous_arp(mac: &[u8; 6], ip: &[u8; 4]) -> Vec<u8> {
    let payload = arp(1, (mac, ip), (&[0; 6], ip));
    ethernet(&BROADCAST, mac, ETHERTYPE_ARP, &payload)
}

fn advertisement(mac: &[u8; 6], ip: &[u8; 16]) -> Vec<u8> {
    let all_nodes = {
        let mut address = [0u8; 16];
        address[0] = 0xff;
        address[1] = 0x02;
        address[15] = 1;
        address
    };
    // Type 136, override flag, target, target link-layer address option.
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend_from_slice(ip);
    icmp.extend_from_slice(&[2, 1]);
    icmp.extend_from_slice(mac);
    let sum = icmp6_checksum(ip, &all_nodes, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, icmp.len() as u8, 58, 255];
    packet.extend_from_slice(ip);
    packet.extend_from_slice(&all_nodes);
    packet.extend_from_slice(&icmp);
    ethernet(&[0x33, 0x33, 0, 0, 0, 1], mac, ETHERTYPE_IPV6, &packet)
}

fn icmp6_checksum(from: &[u8; 16], to: &[u8; 16], icmp: &[u8]) -> u16 {
    let mut sum = icmp.len() as u32 + 58;
    for bytes in [&from[..], &to[..], icmp] {
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    #[test]
    fn addresses_are_learnt_from_the_guests_own_frames_and_bounded() {
        let mut n = Neighbours::new([(0, MAC)]);
        n.learn(0, &gratuitous_arp(&MAC, &[10, 0, 2, 15]));
        n.learn(0, &gratuitous_arp(&[1; 6], &[10, 0, 2, 99]));
        n.learn(1, &gratuitous_arp(&MAC, &[10, 0, 2, 98]));
        n.learn(0, &[0; 25]);
        n.learn(0, &[0; 11]);
        assert_eq!(n.cards[0].ipv4, [[10, 0, 2, 15]]);
        for last in 0..40 {
            n.learn(0, &gratuitous_arp(&MAC, &[10, 0, 3, last]));
        }
        assert_eq!(n.cards[0].ipv4.len(), MAX_ADDRESSES);
        assert_eq!(n.announcements().len(), 1 + MAX_ADDRESSES);
    }

    #[test]
    fn an_advertisement_is_well_formed() {
        let ip = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let packet = advertisement(&MAC, &ip);
        let (header, frame) = packet.split_at(NET_HEADER_BYTES);
        assert_eq!(header, [0; NET_HEADER_BYTES]);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let mut all_nodes = [0u8; 16];
        all_nodes.copy_from_slice(&frame[38..54]);
        // A correct checksum makes the sum over everything zero.
        assert_eq!(icmp6_checksum(&ip, &all_nodes, &frame[54..]), 0);
    }
}

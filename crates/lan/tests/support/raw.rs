//! A guest made of single frames: it acknowledges only what a test tells it to,
//! and it can go on behind another port, as a guest does after a takeover.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress,
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::{Port, SOON};

pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x99];
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x02];
pub(crate) const GUEST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 20);
pub(crate) const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The port of the raw guest's server.
pub(crate) const SERVER: &str = "10.0.2.20:80";

/// A TCP segment from the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) control: TcpControl,
    pub(crate) payload: Vec<u8>,
}

/// The guest's half of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
}

pub(crate) fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(dst);
    frame.extend(src);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn arp(operation: ArpOperation, ethertype: u16, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(GUEST_MAC),
        source_protocol_addr: spa,
        target_hardware_addr: EthernetAddress(GUEST_MAC),
        target_protocol_addr: tpa,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut packet[..]));
    ethernet([0xff; 6], GUEST_MAC, ethertype, &packet)
}

/// RARP as a hypervisor sends it for a guest that moved (operation 3).
pub(crate) fn rarp() -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    arp(ArpOperation::Unknown(3), 0x8035, none, none)
}

pub(crate) fn gratuitous_arp() -> Vec<u8> {
    arp(ArpOperation::Request, 0x0806, GUEST_IP, GUEST_IP)
}

pub(crate) fn arp_reply() -> Vec<u8> {
    arp(ArpOperation::Reply, 0x0806, GUEST_IP, GATEWAY_IP)
}

pub(crate) fn is_arp_question(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == GUEST_IP.octets()
}

impl Flow {
    pub(crate) fn segment(&self, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 80,
            dst_port: self.port,
            control,
            seq_number: TcpSeqNumber(self.seq as i32),
            ack_number: Some(TcpSeqNumber(self.ack as i32)),
            window_len: 60_000,
            window_scale: None,
            max_seg_size: (control == TcpControl::Syn).then_some(1460),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr: GUEST_IP,
            dst_addr: GATEWAY_IP,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; ip.buffer_len() + tcp.buffer_len()];
        let mut ip_packet = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.emit(&mut ip_packet, &checksums);
        let (src, dst) = (IpAddress::Ipv4(GUEST_IP), IpAddress::Ipv4(GATEWAY_IP));
        tcp.emit(
            &mut TcpPacket::new_unchecked(ip_packet.payload_mut()),
            &src,
            &dst,
            &checksums,
        );
        ethernet(GATEWAY_MAC, GUEST_MAC, 0x0800, &packet)
    }
}

/// Answers ARP on `port` until a TCP segment comes, and gives that.
pub(crate) fn next_segment(port: &mut Port, timeout: Duration) -> Option<Segment> {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let frame = port.receive(left).unwrap()?;
        if is_arp_question(&frame) {
            port.send(&arp_reply()).unwrap();
        } else if let Some(segment) = parse(&frame) {
            return Some(segment);
        }
    }
}

pub(crate) fn parse(frame: &[u8]) -> Option<Segment> {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    let packet = TcpPacket::new_checked(ip.payload()).unwrap();
    let (src, dst) = (
        IpAddress::Ipv4(ip.src_addr()),
        IpAddress::Ipv4(ip.dst_addr()),
    );
    // Checks the checksum.
    let tcp = TcpRepr::parse(&packet, &src, &dst, &ChecksumCapabilities::default()).unwrap();
    Some(Segment {
        port: tcp.src_port,
        seq: tcp.seq_number.0 as u32,
        ack: tcp.ack_number.map(|ack| ack.0 as u32),
        control: tcp.control,
        payload: tcp.payload.to_vec(),
    })
}

/// Takes the gateway's SYN on `port` and completes the handshake.
pub(crate) fn accept(port: &mut Port) -> Flow {
    let syn = next_segment(port, SOON).expect("a SYN");
    assert_eq!(syn.control, TcpControl::Syn);
    let mut flow = Flow {
        port: syn.port,
        seq: 5000,
        ack: syn.seq.wrapping_add(1),
    };
    port.send(&flow.segment(TcpControl::Syn, &[])).unwrap();
    flow.seq += 1;
    let ack = next_segment(port, SOON).expect("the handshake's end");
    assert_eq!((ack.control, ack.ack), (TcpControl::None, Some(flow.seq)));
    flow
}

//! TCP segments in Ethernet frames: reading those that pass the gateway's device,
//! and making the few that the gateway sends by itself.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::ethernet::MacAddr;

/// A position in TCP's sequence space (RFC 9293 section 3.4), which wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    pub(super) fn is_before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    pub(super) fn plus(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_add(bytes))
    }

    fn of(number: TcpSeqNumber) -> Seq {
        Seq(number.0 as u32)
    }

    fn number(self) -> TcpSeqNumber {
        TcpSeqNumber(self.0 as i32)
    }
}

/// What the ledger needs of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) dst_mac: MacAddr,
    pub(super) src: SocketAddrV4,
    pub(super) dst: SocketAddrV4,
    pub(super) start: Seq,
    /// Sequence numbers it takes: payload, SYN and FIN.
    pub(super) length: u32,
    pub(super) ack: Option<Seq>,
    pub(super) window: u16,
    pub(super) syn: bool,
    pub(super) rst: bool,
}

impl Segment {
    /// Reads a frame; `None` if it holds no whole TCP segment over IPv4.
    pub(super) fn parse(frame: &[u8]) -> Option<Segment> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        if ip.version() != 4
            || ip.next_header() != IpProtocol::Tcp
            || ip.more_frags()
            || ip.frag_offset() != 0
        {
            return None;
        }
        let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
        let payload = ip.payload().len() - usize::from(tcp.header_len());
        Some(Segment {
            dst_mac: MacAddr(ethernet.dst_addr().0),
            src: SocketAddrV4::new(ip.src_addr(), tcp.src_port()),
            dst: SocketAddrV4::new(ip.dst_addr(), tcp.dst_port()),
            start: Seq::of(tcp.seq_number()),
            length: payload as u32 + u32::from(tcp.syn()) + u32::from(tcp.fin()),
            ack: tcp.ack().then(|| Seq::of(tcp.ack_number())),
            window: tcp.window_len(),
            syn: tcp.syn(),
            rst: tcp.rst(),
        })
    }

    /// The first sequence number after it.
    pub(super) fn end(&self) -> Seq {
        self.start.plus(self.length)
    }
}

/// Brings acknowledgement and window of a recorded frame up to date.
pub(super) fn refresh_ack(frame: &mut [u8], ack: Seq, window: u16) {
    let Ok(mut ethernet) = EthernetFrame::new_checked(frame) else {
        return;
    };
    let Ok(mut ip) = Ipv4Packet::new_checked(ethernet.payload_mut()) else {
        return;
    };
    let (src, dst) = (
        IpAddress::Ipv4(ip.src_addr()),
        IpAddress::Ipv4(ip.dst_addr()),
    );
    let Ok(mut tcp) = TcpPacket::new_checked(ip.payload_mut()) else {
        return;
    };
    if tcp.ack() {
        tcp.set_ack_number(ack.number());
        tcp.set_window_len(window);
        tcp.fill_checksum(&src, &dst);
    }
}

/// The Ethernet and IPv4 ends of a frame that the gateway makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) src_mac: MacAddr,
    pub(super) dst_mac: MacAddr,
    pub(super) src: SocketAddrV4,
    pub(super) dst: SocketAddrV4,
}

/// A segment without payload that acknowledges everything up to `ack`.
pub(super) fn bare_ack(ends: &Ends, seq: Seq, ack: Seq, window: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: ends.src.port(),
        dst_port: ends.dst.port(),
        control: TcpControl::None,
        seq_number: seq.number(),
        ack_number: Some(ack.number()),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: *ends.src.ip(),
        dst_addr: *ends.dst.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(ends.src_mac.0),
        dst_addr: EthernetAddress(ends.dst_mac.0),
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut frame = vec![0; ethernet.buffer_len() + ip.buffer_len() + tcp.buffer_len()];
    let mut ethernet_frame = EthernetFrame::new_unchecked(&mut frame[..]);
    ethernet.emit(&mut ethernet_frame);
    let mut ip_packet = Ipv4Packet::new_unchecked(ethernet_frame.payload_mut());
    ip.emit(&mut ip_packet, &checksums);
    tcp.emit(
        &mut TcpPacket::new_unchecked(ip_packet.payload_mut()),
        &IpAddress::Ipv4(ip.src_addr),
        &IpAddress::Ipv4(ip.dst_addr),
        &checksums,
    );
    frame
}

/// An ARP frame (RFC 826) from `(src_mac, src)` to `(dst_mac, dst)`.
pub(super) fn arp(
    operation: ArpOperation,
    (src_mac, src): (MacAddr, Ipv4Addr),
    (dst_mac, dst): (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(src_mac.0),
        source_protocol_addr: src,
        target_hardware_addr: EthernetAddress(dst_mac.0),
        target_protocol_addr: dst,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(src_mac.0),
        dst_addr: EthernetAddress(dst_mac.0),
        ethertype: EthernetProtocol::Arp,
    };
    let mut frame = vec![0; ethernet.buffer_len() + packet.buffer_len()];
    let mut ethernet_frame = EthernetFrame::new_unchecked(&mut frame[..]);
    ethernet.emit(&mut ethernet_frame);
    packet.emit(&mut ArpPacket::new_unchecked(ethernet_frame.payload_mut()));
    frame
}

/// The sender, target and operation of an ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) request: bool,
    pub(super) sender_mac: MacAddr,
    pub(super) sender: Ipv4Addr,
    pub(super) target: Ipv4Addr,
}

impl Arp {
    pub(super) fn parse(frame: &[u8]) -> Option<Arp> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Arp {
            return None;
        }
        let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        Some(Arp {
            request: operation == ArpOperation::Request,
            sender_mac: MacAddr(source_hardware_addr.0),
            sender: source_protocol_addr,
            target: target_protocol_addr,
        })
    }
}

/// Source address of an IPv4 frame.
pub(super) fn ipv4_source(frame: &[u8]) -> Option<(MacAddr, Ipv4Addr)> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    Some((MacAddr(ethernet.src_addr().0), ip.src_addr()))
}

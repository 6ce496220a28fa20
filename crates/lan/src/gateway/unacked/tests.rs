use super::*;
use crate::gateway::segment::Segment;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn key() -> FlowKey {
    FlowKey {
        guest: "10.0.2.15:80".parse().unwrap(),
        gateway: "10.0.2.2:40000".parse().unwrap(),
    }
}

fn frame(to_guest: bool, seq: u32, ack: u32, control: TcpControl, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = match to_guest {
        true => (key().gateway, key().guest),
        false => (key().guest, key().gateway),
    };
    let tcp = TcpRepr {
        src_port: src.port(),
        dst_port: dst.port(),
        control,
        seq_number: TcpSeqNumber(seq as i32),
        ack_number: Some(TcpSeqNumber(ack as i32)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let ip = Ipv4Repr {
        src_addr: *src.ip(),
        dst_addr: *dst.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + ip.buffer_len() + tcp.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.set_dst_addr(EthernetAddress(if to_guest { GUEST.0 } else { GATEWAY.0 }));
    ethernet.set_src_addr(EthernetAddress(if to_guest { GATEWAY.0 } else { GUEST.0 }));
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut packet, &checksums);
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
    tcp.emit(
        &mut TcpPacket::new_unchecked(packet.payload_mut()),
        &src,
        &dst,
        &checksums,
    );
    bytes
}

/// (start, payload and flag bytes, ack) of each frame that would be repeated.
fn repeated(ledger: &mut Unacked) -> Vec<(u32, u32, u32)> {
    let mut out = VecDeque::new();
    let count = ledger.repeat(GUEST, &mut out);
    assert_eq!(count, out.len());
    out.iter()
        .map(|frame| {
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            assert!(ip.verify_checksum());
            assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
            let segment = Segment::parse(frame).unwrap();
            assert_eq!((segment.src, segment.dst), (key().gateway, key().guest));
            (segment.start.0, segment.length, segment.ack.unwrap().0)
        })
        .collect()
}

fn ledger() -> Unacked {
    let mut ledger = Unacked::new(GATEWAY);
    ledger.open(key());
    ledger
}

#[test]
fn keeps_in_order_until_acknowledged_across_the_wrap() {
    let mut ledger = ledger();
    let start = u32::MAX - 5;
    ledger.sent(&frame(true, start, 70, TcpControl::Syn, &[]));
    ledger.sent(&frame(
        true,
        start.wrapping_add(1),
        80,
        TcpControl::None,
        &[1; 10],
    ));
    ledger.sent(&frame(
        true,
        start.wrapping_add(11),
        90,
        TcpControl::Fin,
        &[2; 5],
    ));
    // Each carries the newest acknowledgement.
    assert_eq!(
        repeated(&mut ledger),
        [(start, 1, 90), (start.wrapping_add(1), 10, 90), (5, 6, 90)]
    );
    ledger.received(&frame(
        false,
        90,
        start.wrapping_add(1),
        TcpControl::None,
        &[],
    ));
    assert_eq!(repeated(&mut ledger).len(), 2);
    // Half a segment acknowledged keeps it; an acknowledgement of the future says nothing.
    ledger.received(&frame(
        false,
        90,
        start.wrapping_add(6),
        TcpControl::None,
        &[],
    ));
    ledger.received(&frame(false, 90, 12, TcpControl::None, &[]));
    assert_eq!(repeated(&mut ledger).len(), 2);
    ledger.received(&frame(false, 90, 11, TcpControl::None, &[]));
    // Nothing left: one bare acknowledgement, after the last byte sent.
    assert_eq!(repeated(&mut ledger), [(11, 0, 90)]);
}

#[test]
fn repeats_of_the_stack_replace_what_they_cover() {
    let mut ledger = ledger();
    for at in [0, 10, 20] {
        ledger.sent(&frame(true, at, 1, TcpControl::None, &[0; 10]));
    }
    ledger.sent(&frame(true, 0, 1, TcpControl::None, &[0; 25]));
    assert_eq!(repeated(&mut ledger), [(0, 25, 1), (20, 10, 1)]);
    ledger.sent(&frame(true, 5, 1, TcpControl::None, &[0; 5]));
    assert_eq!(repeated(&mut ledger), [(0, 25, 1), (20, 10, 1)]);
    ledger.received(&frame(false, 1, 30, TcpControl::None, &[]));
    assert_eq!(ledger.flows[&key()].kept_bytes, 0);
}

#[test]
fn memory_is_bounded() {
    let mut ledger = ledger();
    for at in 0..1000 {
        ledger.sent(&frame(true, at * 1400, 1, TcpControl::None, &[0; 1400]));
    }
    assert!(ledger.flows[&key()].kept_bytes <= MAX_FLOW_BYTES);
    // The oldest are the ones a guest waits for.
    assert_eq!(repeated(&mut ledger)[0].0, 0);
    for _ in 0..2 * MAX_RESETS {
        ledger.sent(&frame(true, 0, 1, TcpControl::Rst, &[]));
    }
    assert_eq!(ledger.resets.len(), MAX_RESETS);
}

#[test]
fn a_reset_outlives_its_flow_and_is_repeated_once() {
    let mut ledger = ledger();
    ledger.sent(&frame(true, 0, 1, TcpControl::None, &[0; 10]));
    ledger.sent(&frame(true, 10, 1, TcpControl::Rst, &[]));
    ledger.close(&key());
    assert_eq!(ledger.repeat(MacAddr([2; 6]), &mut VecDeque::new()), 0);
    assert_eq!(repeated(&mut ledger), [(10, 0, 1)]);
    assert!(repeated(&mut ledger).is_empty());
}

#[test]
fn other_flows_and_other_guests_are_left_alone() {
    let mut ledger = Unacked::new(GATEWAY);
    ledger.sent(&frame(true, 0, 1, TcpControl::None, &[0; 10]));
    assert!(repeated(&mut ledger).is_empty());
    ledger.open(key());
    ledger.sent(&frame(true, 0, 1, TcpControl::None, &[0; 10]));
    assert_eq!(ledger.repeat(MacAddr([2; 6]), &mut VecDeque::new()), 0);
}

use super::*;
use proptest::prelude::*;

const GUEST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GUEST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn gateway() -> Gateway {
    Gateway::new(
        GatewayConfig::default(),
        &DhcpConfig::default(),
        [GUEST_IP],
        7,
        Instant::ZERO,
    )
}

fn frames(gateway: &mut Gateway, now: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..4 {
        gateway.poll(now);
        frames.extend(std::iter::from_fn(|| gateway.output()));
    }
    frames
}

fn questions(frames: &[Vec<u8>]) -> usize {
    let arps = frames.iter().filter_map(|frame| Arp::parse(frame));
    arps.filter(|arp| arp.request && arp.target == GUEST_IP)
        .count()
}

fn syns(frames: &[Vec<u8>]) -> usize {
    let segments = frames
        .iter()
        .filter_map(|frame| segment::Segment::parse(frame));
    segments
        .filter(|segment| segment.syn && segment.dst_mac == GUEST_MAC)
        .count()
}

fn arp_from_guest(operation: ArpOperation, target: Ipv4Addr) -> Vec<u8> {
    segment::arp(
        operation,
        (GUEST_MAC, GUEST_IP),
        (MacAddr::BROADCAST, target),
    )
}

/// An IPv4 packet of the guest to its gateway, under this source.
fn packet_from_guest(source: MacAddr) -> Vec<u8> {
    let gateway = GatewayConfig::default();
    let mut frame = [gateway.mac.0, source.0].concat();
    frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&GUEST_IP.octets());
    frame.extend_from_slice(&gateway.ip.octets());
    frame.resize(60, 0);
    frame
}

#[test]
fn what_a_backup_sends_does_not_say_where_its_guest_is() {
    for (source, asks) in [
        (GUEST_MAC, false),
        (MacAddr([0x76, 0x6d, 0x62, 0, 0, 9]), true),
    ] {
        let mut gateway = gateway();
        gateway.input(&packet_from_guest(source));
        gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
        let sent = frames(&mut gateway, Instant::ZERO);
        assert_eq!(questions(&sent) > 0, asks, "{source}");
    }
}

#[test]
fn connects_without_asking_where_a_guest_was_heard_before() {
    // Any frame teaches: a question for somebody else, a gratuitous ARP.
    for target in [Ipv4Addr::new(10, 0, 2, 77), GUEST_IP] {
        let mut gateway = gateway();
        gateway.input(&arp_from_guest(ArpOperation::Request, target));
        gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
        let sent = frames(&mut gateway, Instant::ZERO);
        assert_eq!((questions(&sent), syns(&sent)), (0, 1));
    }
}

#[test]
fn known_guests_are_never_forgotten() {
    let mut gateway = gateway();
    gateway.input(&arp_from_guest(ArpOperation::Request, GUEST_IP));
    let unknown = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 99), 80);
    let guest = SocketAddrV4::new(GUEST_IP, 80);
    gateway.connect(unknown).unwrap();
    gateway.connect(guest).unwrap();
    assert_eq!(syns(&frames(&mut gateway, Instant::ZERO)), 1);
    // Long after the stack's cache has expired, while the question after the other
    // guest keeps it silent for a second: the old connection and a new one speak.
    let later = Instant::from_secs(10_000);
    gateway.connect(guest).unwrap();
    assert_eq!(syns(&frames(&mut gateway, later)), 2);
    // The same without a new connection, which would remind the stack.
    let later = Instant::from_secs(20_000);
    assert_eq!(syns(&frames(&mut gateway, later)), 2);
}

#[test]
fn an_unknown_guest_is_asked_at_once_and_again_at_an_announcement() {
    let mut gateway = gateway();
    let guest = SocketAddrV4::new(GUEST_IP, 80);
    gateway
        .connect(SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 99), 80))
        .unwrap();
    frames(&mut gateway, Instant::ZERO);
    let now = Instant::from_millis(10);
    gateway.connect(guest).unwrap();
    assert_eq!(questions(&frames(&mut gateway, now)), 1);
    assert_eq!(questions(&frames(&mut gateway, now)), 0);
    gateway.station_arrived(GUEST_MAC);
    assert_eq!(gateway.poll_delay(now), Some(Duration::ZERO));
    assert_eq!(questions(&frames(&mut gateway, now)), 1);
    gateway.input(&arp_from_guest(
        ArpOperation::Reply,
        GatewayConfig::default().ip,
    ));
    assert_eq!(syns(&frames(&mut gateway, now)), 1);
}

#[test]
fn repeats_at_once_but_not_without_end() {
    let mut gateway = gateway();
    gateway.input(&arp_from_guest(ArpOperation::Request, GUEST_IP));
    gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
    let start = Instant::from_millis(1);
    assert_eq!(syns(&frames(&mut gateway, start)), 1);
    let mut repeated = 0;
    for micros in (0..10_000).step_by(100) {
        gateway.station_arrived(GUEST_MAC);
        let now = start + Duration::from_micros(micros);
        repeated += syns(&frames(&mut gateway, now));
        if micros == 0 {
            assert_eq!(repeated, 1);
        }
    }
    assert_eq!(repeated, 5);
    assert_eq!(gateway.repeated_frames(), 5);
}

#[test]
fn local_ports_come_back() {
    let mut gateway = gateway();
    let first = gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
    let port = gateway.flows[&first].gateway.port();
    gateway.remove(first);
    gateway.next_local_port = u16::MAX;
    let second = gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
    let third = gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
    assert_eq!(gateway.flows[&second].gateway.port(), u16::MAX);
    assert_eq!(gateway.flows[&third].gateway.port(), FIRST_LOCAL_PORT);
    assert!(!gateway.local_ports.contains(&port));
}

/// Makes an edited frame pass the stack's first checks, as far as it still can.
fn fill_checksums(frame: &mut [u8]) {
    use smoltcp::wire::{Ipv4Packet, TcpPacket};
    let Ok(mut ip) = Ipv4Packet::new_checked(&mut frame[14..]) else {
        return;
    };
    ip.fill_checksum();
    let (src, dst) = (ip.src_addr().into(), ip.dst_addr().into());
    if let Ok(mut tcp) = TcpPacket::new_checked(ip.payload_mut()) {
        tcp.fill_checksum(&src, &dst);
    }
}

proptest! {
    #[test]
    fn hostile_frames_do_no_harm(
        seed in any::<u64>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        kind in 0..4,
    ) {
        let mut gateway = Gateway::new(GatewayConfig::default(), &DhcpConfig::default(), [GUEST_IP], seed, Instant::ZERO);
        gateway.input(&arp_from_guest(ArpOperation::Request, GUEST_IP));
        let handle = gateway.connect(SocketAddrV4::new(GUEST_IP, 80)).unwrap();
        let sent = frames(&mut gateway, Instant::ZERO);
        // The guest's answer to the SYN, or an echo or ARP, with bytes changed and cut.
        let mut frame = match kind {
            0 => arp_from_guest(ArpOperation::Reply, GatewayConfig::default().ip),
            1 => vec![0; 1514],
            _ => {
                let mut frame = sent.last().unwrap().clone();
                for at in 0..6 {
                    frame.swap(at, at + 6);
                }
                frame[26..34].rotate_left(4);
                frame[34..38].rotate_left(2);
                frame
            }
        };
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if kind == 3 {
            fill_checksums(&mut frame);
        }
        frame.truncate(14.max(cut.index(frame.len() * 2)).min(frame.len()));
        for millis in [0, 5, 1500] {
            gateway.input(&frame);
            gateway.station_arrived(GUEST_MAC);
            let now = Instant::from_millis(millis);
            let _ = frames(&mut gateway, now);
            gateway.poll_delay(now);
        }
        gateway.socket(handle).abort();
        let _ = frames(&mut gateway, Instant::from_secs(5));
        gateway.remove(handle);
    }
}

/// The server's answer comes out of the gateway, and only if there is a server.
#[test]
fn a_guest_gets_its_address_from_the_gateway() {
    // DISCOVER of 52:54:00:00:00:01, without a UDP checksum (RFC 2131 section 2).
    let mut dhcp = vec![0; 244];
    dhcp[..4].copy_from_slice(&[1, 1, 6, 0]);
    dhcp[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    dhcp[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0, 1, 16, 0, 0, 0, 0, 64, 17, 0x79, 0xde]);
    frame.extend([0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend([0, 68, 0, 67, 0, 252, 0, 0]);
    frame.extend(dhcp);
    for serve in [true, false] {
        let dhcp = DhcpConfig {
            serve,
            ..DhcpConfig::default()
        };
        let config = GatewayConfig::default();
        let mut gateway = Gateway::new(config, &dhcp, [GUEST_IP], 7, Instant::ZERO);
        gateway.input(&frame);
        assert_eq!(
            gateway.poll_delay(Instant::ZERO),
            serve.then_some(Duration::ZERO)
        );
        let answers = frames(&mut gateway, Instant::ZERO);
        let offered: Vec<&[u8]> = answers.iter().map(|answer| &answer[58..62]).collect();
        let expected: &[&[u8]] = if serve { &[&GUEST_IP.octets()] } else { &[] };
        assert_eq!(offered, expected);
    }
}

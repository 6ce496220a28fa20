use proptest::prelude::*;

use super::*;

const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const FORWARDED: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 30);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn server() -> Dhcp {
    Dhcp::new(GatewayConfig::default(), [], [FORWARDED])
}

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([0x56, 0x54, a, b, c, d])
}

/// What a client says before it has an address.
fn says(mac: MacAddr, kind: DhcpMessageType) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6, 51]),
        dns_servers: None,
        max_size: Some(576),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn frame(dhcp: &DhcpRepr<'_>) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let (source, target) = (dhcp.client_ip, Ipv4Addr::BROADCAST);
    let udp = UdpRepr {
        src_port: CLIENT_PORT,
        dst_port: SERVER_PORT,
    };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + dhcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + ip.payload_len];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr {
        src_addr: dhcp.client_hardware_address,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    }
    .emit(&mut ethernet);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &source.into(),
        &target.into(),
        dhcp.buffer_len(),
        |room| dhcp.emit(&mut DhcpPacket::new_unchecked(room)).unwrap(),
        &checksums,
    );
    bytes
}

/// The answer as the client reads it: where it goes, kind, address, lease, router and mask.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    to_mac: MacAddr,
    to_ip: Ipv4Addr,
    kind: DhcpMessageType,
    ip: Ipv4Addr,
    lease_s: Option<u32>,
    router: Option<Ipv4Addr>,
    mask: Option<Ipv4Addr>,
}

fn ask(server: &mut Dhcp, dhcp: &DhcpRepr<'_>, at_s: i64) -> Option<Answer> {
    let bytes = server.answer(&frame(dhcp), Instant::from_secs(at_s))?;
    let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
    assert_eq!(MacAddr(ethernet.src_addr().0), GatewayConfig::default().mac);
    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    assert!(ip.verify_checksum());
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!((udp.src_port(), udp.dst_port()), (67, 68));
    let packet = DhcpPacket::new_checked(udp.payload()).unwrap();
    let answer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(answer.transaction_id, dhcp.transaction_id);
    assert_eq!(answer.client_hardware_address, dhcp.client_hardware_address);
    assert_eq!(answer.server_identifier, Some(GATEWAY));
    assert_eq!(answer.dns_servers, None);
    Some(Answer {
        to_mac: MacAddr(ethernet.dst_addr().0),
        to_ip: ip.dst_addr(),
        kind: answer.message_type,
        ip: answer.your_ip,
        lease_s: answer.lease_duration,
        router: answer.router,
        mask: answer.subnet_mask,
    })
}

/// Asks for an address and takes what is offered.
fn join(server: &mut Dhcp, mac: MacAddr, at_s: i64) -> Option<Ipv4Addr> {
    let offer = ask(server, &says(mac, DhcpMessageType::Discover), at_s)?;
    assert_eq!(offer.kind, DhcpMessageType::Offer);
    let request = DhcpRepr {
        requested_ip: Some(offer.ip),
        server_identifier: Some(GATEWAY),
        ..says(mac, DhcpMessageType::Request)
    };
    let ack = ask(server, &request, at_s)?;
    assert_eq!((ack.kind, ack.ip), (DhcpMessageType::Ack, offer.ip));
    Some(ack.ip)
}

#[test]
fn the_first_guest_gets_what_the_forwards_lead_to() {
    let mut server = server();
    let discover = says(GUEST, DhcpMessageType::Discover);
    let expected = |kind, ip| Answer {
        to_mac: GUEST,
        to_ip: ip,
        kind,
        ip,
        lease_s: Some(86_400),
        router: Some(GATEWAY),
        mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
    };
    let offer = ask(&mut server, &discover, 0);
    assert_eq!(offer, Some(expected(DhcpMessageType::Offer, FORWARDED)));
    assert_eq!(join(&mut server, GUEST, 1), Some(FORWARDED));
    let first_free = Ipv4Addr::new(10, 0, 2, 15);
    assert_eq!(join(&mut server, OTHER, 2), Some(first_free));
    // The same guest, at another node or after a restart, has the same address.
    assert_eq!(join(&mut server, GUEST, 90_000), Some(FORWARDED));

    let broadcast = DhcpRepr {
        broadcast: true,
        ..discover
    };
    let offer = ask(&mut server, &broadcast, 3).unwrap();
    assert_eq!(
        (offer.to_mac, offer.to_ip),
        (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
    );
}

#[test]
fn leases_are_renewed_refused_and_given_back() {
    let mut server = server();
    assert_eq!(join(&mut server, GUEST, 0), Some(FORWARDED));
    let renew = |mac| DhcpRepr {
        client_ip: FORWARDED,
        ..says(mac, DhcpMessageType::Request)
    };
    let kind = |answer: Option<Answer>| answer.map(|answer| (answer.kind, answer.to_mac));
    let at = 80_000;
    let (ack, nak) = (DhcpMessageType::Ack, DhcpMessageType::Nak);
    let answer = kind(ask(&mut server, &renew(GUEST), at));
    assert_eq!(answer, Some((ack, GUEST)));
    let answer = kind(ask(&mut server, &renew(OTHER), at));
    assert_eq!(answer, Some((nak, MacAddr::BROADCAST)));
    // Not before the renewed lease has ended.
    let reboot = DhcpRepr {
        requested_ip: Some(FORWARDED),
        ..says(OTHER, DhcpMessageType::Request)
    };
    assert_eq!(kind(ask(&mut server, &reboot, 160_000)).unwrap().0, nak);
    assert_eq!(kind(ask(&mut server, &reboot, 166_401)).unwrap().0, ack);
    let foreign = DhcpRepr {
        requested_ip: Some(Ipv4Addr::new(192, 168, 0, 9)),
        ..says(GUEST, DhcpMessageType::Request)
    };
    assert_eq!(kind(ask(&mut server, &foreign, 166_402)).unwrap().0, nak);

    let release = says(OTHER, DhcpMessageType::Release);
    assert_eq!(ask(&mut server, &release, 166_403), None);
    assert_eq!(join(&mut server, GUEST, 166_404), Some(FORWARDED));
    // Somebody else uses it: the guest gets another, nobody this one.
    let decline = says(GUEST, DhcpMessageType::Decline);
    assert_eq!(ask(&mut server, &decline, 166_405), None);
    let next = join(&mut server, GUEST, 166_406);
    assert_eq!(next, Some(Ipv4Addr::new(10, 0, 2, 15)));
    // Another server's offer was taken.
    let elsewhere = DhcpRepr {
        server_identifier: Some(Ipv4Addr::new(10, 0, 2, 3)),
        ..says(GUEST, DhcpMessageType::Request)
    };
    assert_eq!(ask(&mut server, &elsewhere, 166_407), None);
    assert_eq!(join(&mut server, OTHER, 166_408), next);
    let inform = DhcpRepr {
        client_ip: Ipv4Addr::new(10, 0, 2, 99),
        ..says(GUEST, DhcpMessageType::Inform)
    };
    let answer = ask(&mut server, &inform, 0).unwrap();
    assert_eq!((answer.kind, answer.lease_s), (ack, None));
    assert_eq!(answer.to_ip, inform.client_ip);
}

#[test]
fn a_fixed_lease_is_for_one_guest() {
    let fixed = Ipv4Addr::new(10, 0, 2, 77);
    let mut server = Dhcp::new(GatewayConfig::default(), [(fixed, OTHER)], [fixed]);
    let first = join(&mut server, GUEST, 0);
    assert_eq!(first, Some(Ipv4Addr::new(10, 0, 2, 15)));
    assert_eq!(join(&mut server, OTHER, 0), Some(fixed));
    let grab = DhcpRepr {
        requested_ip: Some(fixed),
        ..says(GUEST, DhcpMessageType::Request)
    };
    let answer = ask(&mut server, &grab, 1_000_000).unwrap();
    assert_eq!(answer.kind, DhcpMessageType::Nak);
}

#[test]
fn a_flood_takes_the_pool_for_a_minute_and_no_more_memory() {
    let mut server = server();
    assert_eq!(join(&mut server, GUEST, 0), Some(FORWARDED));
    for number in 0..10_000 {
        ask(
            &mut server,
            &says(mac(number), DhcpMessageType::Discover),
            1,
        );
    }
    assert_eq!(server.leases.len(), MAX_LEASES);
    assert_eq!(join(&mut server, OTHER, 2), None);
    assert_eq!(join(&mut server, GUEST, 2), Some(FORWARDED));
    assert!(join(&mut server, OTHER, 61).is_some());
    assert_eq!(server.leases.len(), MAX_LEASES);
}

#[test]
fn small_networks_have_small_pools() {
    for (prefix, size) in [
        (30, 1),
        (29, 5),
        (28, 13),
        (24, MAX_LEASES),
        (8, MAX_LEASES),
    ] {
        let gateway = GatewayConfig {
            prefix,
            ..GatewayConfig::default()
        };
        let server = Dhcp::new(gateway, [], []);
        assert_eq!(server.pool.len(), size, "/{prefix}");
        assert!(server.pool.iter().all(|ip| gateway.is_guest(*ip)));
    }
}

#[test]
fn what_is_no_request_of_a_client_gets_no_answer() {
    let mut server = server();
    let mut silent = |dhcp: &DhcpRepr<'_>| {
        let answer = server.answer(&frame(dhcp), Instant::ZERO);
        assert_eq!(answer, None, "{dhcp:?}");
    };
    silent(&says(MacAddr::BROADCAST, DhcpMessageType::Discover));
    silent(&DhcpRepr {
        relay_agent_ip: Ipv4Addr::new(10, 0, 2, 9),
        ..says(GUEST, DhcpMessageType::Discover)
    });
    let good = frame(&says(GUEST, DhcpMessageType::Discover));
    assert!(Dhcp::is_request(&good));
    for (at, name) in [
        (12, "type"),
        (23, "protocol"),
        (24, "IP checksum"),
        (37, "port"),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(!Dhcp::is_request(&bad), "{name}");
    }
}

proptest! {
    #[test]
    fn hostile_requests_never_panic(
        changes in prop::collection::vec((42..400usize, any::<u8>()), 0..40),
        kind in 1..9u8,
        cut in 0..300usize,
    ) {
        let mut server = server();
        let mut bytes = frame(&says(GUEST, DhcpMessageType::from(kind)));
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let len = bytes.len().saturating_sub(cut).max(42);
        bytes.truncate(len);
        // Lengths right and no UDP checksum, so that what is behind them is looked at.
        bytes[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
        bytes[38..40].copy_from_slice(&(len as u16 - 34).to_be_bytes());
        bytes[40..42].fill(0);
        if let Ok(mut ip) = Ipv4Packet::new_checked(&mut bytes[14..]) {
            ip.fill_checksum();
        }
        prop_assert!(Dhcp::is_request(&bytes));
        for at in 0..3 {
            server.answer(&bytes, Instant::from_secs(at));
        }
        prop_assert!(server.leases.len() <= MAX_LEASES);
    }
}

use super::*;

const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn arp_like(ethertype: u16, operation: u8, sender: MacAddr, spa: [u8; 4], tpa: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(MacAddr::BROADCAST.0);
    frame.extend(GUEST.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender.0);
    frame.extend(spa);
    frame.extend([0; 6]);
    frame.extend(tpa);
    frame
}

#[test]
fn announcements_are_rarp_and_gratuitous_arp_only() {
    let announces = |frame: &[u8]| Header::parse(frame).unwrap().announces;
    let rarp = arp_like(0x8035, 3, GUEST, [0; 4], [0; 4]);
    assert!(announces(&rarp));
    assert!(announces(&arp_like(
        0x0806,
        1,
        GUEST,
        [10, 0, 2, 15],
        [10, 0, 2, 15]
    )));
    assert!(announces(&arp_like(
        0x0806,
        2,
        GUEST,
        [10, 0, 2, 15],
        [10, 0, 2, 15]
    )));

    // A question, a probe, another's address, a cut packet.
    assert!(!announces(&arp_like(
        0x0806,
        1,
        GUEST,
        [10, 0, 2, 15],
        [10, 0, 2, 2]
    )));
    assert!(!announces(&arp_like(0x0806, 1, GUEST, [0; 4], [0; 4])));
    assert!(!announces(&arp_like(
        0x8035,
        3,
        MacAddr([2; 6]),
        [0; 4],
        [0; 4]
    )));
    assert!(!announces(&rarp[..41]));
    assert_eq!(Header::parse(&rarp[..13]), None);
}

#[test]
fn mac_addresses_read_and_print() {
    let mac: MacAddr = "52:54:00:12:34:56".parse().unwrap();
    assert_eq!(mac, GUEST);
    assert_eq!(mac.to_string(), "52:54:00:12:34:56");
    for bad in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52:54:0:12:34:56",
        "zz:54:00:12:34:56",
        "+5:54:00:12:34:56",
    ] {
        assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
    }
}

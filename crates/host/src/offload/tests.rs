use proptest::prelude::*;
use twinvm_machine::{MAX_FRAME_BYTES, PartialChecksum, Segmentation};

use super::*;

/// The sum as RFC 1071 defines it: word by word, each carry at once.
fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u16;
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
        let (next, carry) = sum.overflowing_add(word);
        sum = next + u16::from(carry);
    }
    sum
}

/// A large TCP frame, made field by field, and where its parts are.
#[derive(Debug, Clone)]
struct Large {
    vlan: bool,
    ipv6: bool,
    ip_options: usize,
    tcp_options: usize,
    identification: u16,
    sequence: u32,
    flags: u8,
    size: u16,
    payload: Vec<u8>,
}

impl Large {
    fn ip_at(&self) -> usize {
        if self.vlan { 18 } else { 14 }
    }

    fn tcp_at(&self) -> usize {
        let fixed = if self.ipv6 { 40 } else { 20 };
        self.ip_at() + fixed + self.ip_options
    }

    fn payload_at(&self) -> usize {
        self.tcp_at() + 20 + self.tcp_options
    }

    fn pseudo_header(&self, frame: &[u8]) -> Vec<u8> {
        let ip = self.ip_at();
        let len = (frame.len() - self.tcp_at()) as u32;
        let addresses = if self.ipv6 {
            &frame[ip + 8..ip + 40]
        } else {
            &frame[ip + 12..ip + 20]
        };
        [addresses, &len.to_be_bytes(), &[0, 0, 0, 6]].concat()
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame: Vec<u8> = (1..=12).collect();
        if self.vlan {
            frame.extend([0x81, 0, 0, 5]);
        }
        let ip_bytes = self.payload_at() - self.ip_at() + self.payload.len();
        if self.ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((ip_bytes as u16 - 40).to_be_bytes());
            frame.extend([if self.ip_options > 0 { 60 } else { 6 }, 64]);
            frame.extend(0x20..0x40);
            if self.ip_options > 0 {
                frame.extend([6, (self.ip_options / 8 - 1) as u8]);
                frame.extend(vec![0; self.ip_options - 2]);
            }
        } else {
            frame.extend([8, 0, 0x45 + (self.ip_options / 4) as u8, 0]);
            frame.extend((ip_bytes as u16).to_be_bytes());
            frame.extend(self.identification.to_be_bytes());
            frame.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
            frame.extend(vec![1; self.ip_options]);
        }
        frame.extend([0x12, 0x34, 0x56, 0x78]);
        frame.extend(self.sequence.to_be_bytes());
        frame.extend([0, 0, 0, 9]);
        frame.extend([(((20 + self.tcp_options) / 4) << 4) as u8, self.flags]);
        frame.extend([0x10, 0, 0, 0, 0, 0]);
        frame.extend(vec![1; self.tcp_options]);
        frame.extend(&self.payload);
        // What a stack leaves in the field: the pseudo header's sum.
        let sum = naive_sum(&self.pseudo_header(&frame));
        let at = self.tcp_at() + 16;
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn header(&self) -> NetHeader {
        NetHeader {
            checksum: Some(PartialChecksum {
                start: self.tcp_at() as u16,
                offset: 16,
            }),
            data_valid: false,
            segmentation: Some(Segmentation {
                ipv6: self.ipv6,
                ecn: self.flags & 0x80 != 0,
                size: self.size,
                header_bytes: self.payload_at() as u16,
            }),
        }
    }

    fn packet(&self) -> Vec<u8> {
        [&self.header().to_bytes()[..], &self.frame()].concat()
    }
}

fn large() -> impl Strategy<Value = Large> {
    let shape = (any::<bool>(), any::<bool>(), 0..4usize, 0..=10usize);
    let numbers = (any::<u16>(), any::<u32>(), any::<u8>(), 1..3000u16);
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6000),
        (0..6000usize).prop_map(|len| vec![0xff; len]),
    ];
    (shape, numbers, payload).prop_map(|(shape, numbers, payload)| {
        let (vlan, ipv6, ip_options, tcp_options) = shape;
        let (identification, sequence, flags, size) = numbers;
        Large {
            vlan,
            ipv6,
            ip_options: ip_options * if ipv6 { 8 } else { 4 },
            tcp_options: tcp_options * 4,
            identification,
            sequence,
            flags,
            // At most some thousand segments.
            size: size.max(payload.len() as u16 / 64),
            payload,
        }
    })
}

fn frames_of(packet: &[u8]) -> Result<Vec<Vec<u8>>, Unfit> {
    let mut frames = Vec::new();
    plain_frames(packet, |frame| frames.push(frame.to_vec())).map(|()| frames)
}

proptest! {
    /// Each segment is a frame of its own, valid to a reader who knows nothing of the others, and
    /// together they carry what the large one did.
    #[test]
    fn segments_are_whole_frames_that_carry_it_all(large in large()) {
        let original = large.frame();
        let segments = frames_of(&large.packet()).unwrap();
        let (ip, tcp, data) = (large.ip_at(), large.tcp_at(), large.payload_at());
        let count = large.payload.len().div_ceil(large.size.into()).max(1);
        prop_assert_eq!(segments.len(), count);
        let mut carried = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let last = index + 1 == count;
            prop_assert_eq!(&segment[..ip], &original[..ip], "Ethernet");
            if large.ipv6 {
                let len = (segment.len() - ip - 40) as u16;
                prop_assert_eq!(&segment[ip + 4..ip + 6], &len.to_be_bytes());
                prop_assert_eq!(&segment[ip + 6..tcp], &original[ip + 6..tcp]);
            } else {
                let len = (segment.len() - ip) as u16;
                prop_assert_eq!(&segment[ip + 2..ip + 4], &len.to_be_bytes());
                let id = large.identification.wrapping_add(index as u16);
                prop_assert_eq!(&segment[ip + 4..ip + 6], &id.to_be_bytes());
                prop_assert_eq!(naive_sum(&segment[ip..tcp]), 0xffff, "IP checksum");
                prop_assert_eq!(&segment[ip + 12..tcp], &original[ip + 12..tcp]);
            }
            let sequence = large.sequence.wrapping_add(carried.len() as u32);
            prop_assert_eq!(&segment[tcp..tcp + 4], &original[tcp..tcp + 4]);
            prop_assert_eq!(&segment[tcp + 4..tcp + 8], &sequence.to_be_bytes());
            prop_assert_eq!(&segment[tcp + 8..tcp + 13], &original[tcp + 8..tcp + 13]);
            let mut flags = large.flags;
            if index > 0 {
                flags &= !0x80;
            }
            if !last {
                flags &= !0x09;
            }
            prop_assert_eq!(segment[tcp + 13], flags);
            prop_assert_eq!(&segment[tcp + 18..data], &original[tcp + 18..data]);
            let sum = [large.pseudo_header(segment), segment[tcp..].to_vec()].concat();
            prop_assert_eq!(naive_sum(&sum), 0xffff, "TCP checksum");
            let bytes = segment.len() - data;
            let size = usize::from(large.size);
            prop_assert!(bytes <= size && (last || bytes == size));
            carried.extend_from_slice(&segment[data..]);
        }
        prop_assert_eq!(carried, large.payload);
    }

    #[test]
    fn a_partial_checksum_is_finished(large in large()) {
        let mut header = large.header();
        header.segmentation = None;
        let original = large.frame();
        let frames = frames_of(&[&header.to_bytes()[..], &original].concat()).unwrap();
        let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
        let (tcp, at) = (large.tcp_at(), large.tcp_at() + 16);
        prop_assert_eq!(&frame[..at], &original[..at]);
        prop_assert_eq!(&frame[at + 2..], &original[at + 2..]);
        let sum = [large.pseudo_header(frame), frame[tcp..].to_vec()].concat();
        prop_assert_eq!(naive_sum(&sum), 0xffff);
    }

    /// Whatever a guest sends: no panic, and no frame longer than it was.
    #[test]
    fn hostile_packets_are_dropped_or_cut(
        large in large(),
        changes in prop::collection::vec((0..120usize, any::<u8>()), 0..6),
        cut in 0..200usize,
    ) {
        let mut packet = large.packet();
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet.truncate(packet.len().saturating_sub(cut));
        let longest = packet.len();
        if let Ok(frames) = frames_of(&packet) {
            prop_assert!(frames.iter().all(|frame| frame.len() <= longest));
        }
    }

    #[test]
    fn sums_agree(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..8usize) {
        let bytes = &bytes[at.min(bytes.len())..];
        let naive = naive_sum(bytes);
        let found = fold(add(0, bytes));
        // Both forms of zero are one.
        let both_zero = found.is_multiple_of(0xffff) && naive.is_multiple_of(0xffff);
        prop_assert!(found == naive || both_zero);
    }
}

fn example() -> Large {
    Large {
        vlan: false,
        ipv6: false,
        ip_options: 0,
        tcp_options: 12,
        identification: 65_535,
        sequence: u32::MAX - 10,
        flags: 0x99,
        size: 1448,
        payload: (0..4000u32).map(|i| (i / 3) as u8).collect(),
    }
}

#[test]
fn what_is_not_as_its_header_says_is_unfit() {
    type Spoil = fn(&mut Vec<u8>);
    // Behind the virtio header of 12 bytes: Ethernet 14, IPv4 20, TCP 32.
    let cases: [(&str, Spoil); 12] = [
        ("another protocol in the frame", |p| p[24] = 0x86),
        ("IP version", |p| p[26] = 0x65),
        ("IP header length", |p| p[26] = 0x44),
        ("IP header longer than TCP's start", |p| p[26] = 0x46),
        ("IP total length", |p| p[29] ^= 1),
        ("a fragment", |p| p[33] = 1),
        ("more fragments", |p| p[32] = 0x20),
        ("UDP", |p| p[35] = 17),
        ("TCP header length below", |p| p[58] = 0x40),
        ("checksum elsewhere", |p| p[8] = 6),
        ("checksum from elsewhere", |p| p[6] = 20),
        ("cut short", |p| p.truncate(60)),
    ];
    for (name, spoil) in cases {
        let mut packet = example().packet();
        spoil(&mut packet);
        assert_eq!(frames_of(&packet), Err(Unfit), "{name}");
    }
    let mut long_tcp = example();
    long_tcp.payload.truncate(5);
    let mut packet = long_tcp.packet();
    packet[58] = 0xf0;
    assert_eq!(
        frames_of(&packet),
        Err(Unfit),
        "TCP header beyond the frame"
    );
    assert_eq!(frames_of(&[0; 25]), Err(Unfit));
}

#[test]
fn a_packet_does_not_swell_without_bound() {
    let mut large = Large {
        tcp_options: 40,
        payload: vec![1; 65_000],
        size: 48,
        ..example()
    };
    assert_eq!(frames_of(&large.packet()).unwrap().len(), 1355);
    large.size = 1;
    assert_eq!(frames_of(&large.packet()), Err(Unfit));
}

#[test]
fn ipv6_extensions_are_walked_but_not_for_ever() {
    let mut large = Large {
        ipv6: true,
        ip_options: 24,
        ..example()
    };
    assert_eq!(frames_of(&large.packet()).unwrap().len(), 3);
    let extension = NET_HEADER_BYTES + 54;
    for (at, value) in [(extension, 59), (extension + 1, 200), (extension, 60)] {
        let mut packet = large.packet();
        packet[at] = value;
        assert_eq!(frames_of(&packet), Err(Unfit));
    }
    // A loop of empty options.
    large.ip_options = 0;
    let mut packet = large.packet();
    packet[NET_HEADER_BYTES + 20] = 60;
    packet[NET_HEADER_BYTES + 54..].fill(60);
    assert_eq!(frames_of(&packet), Err(Unfit));
}

#[test]
fn plain_frames_pass_as_they_are() {
    for len in [14, 60, 1514, MAX_FRAME_BYTES] {
        let frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let packet = [vec![0; NET_HEADER_BYTES], frame.clone()].concat();
        assert_eq!(frames_of(&packet), Ok(vec![frame]));
    }
}

#[test]
fn a_checksum_of_zero_is_sent_in_its_other_form() {
    let mut packet = vec![0; NET_HEADER_BYTES + 60];
    packet[0] = 1;
    packet[6] = 34;
    packet[8] = 6;
    packet[NET_HEADER_BYTES + 34..][..2].fill(0xff);
    let frames = frames_of(&packet).unwrap();
    assert_eq!(frames[0][40..42], [0xff, 0xff]);
}

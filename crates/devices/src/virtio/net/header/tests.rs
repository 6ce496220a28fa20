use super::*;
use crate::testing::Random;

const FRAME: usize = 2000;

fn parse(bytes: [u8; NET_HEADER_BYTES]) -> Option<NetHeader> {
    NetHeader::parse(&bytes, FRAME)
}

/// Flags, kind, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
fn header(flags: u8, kind: u8, words: [u16; 4]) -> [u8; NET_HEADER_BYTES] {
    let mut bytes = [0; NET_HEADER_BYTES];
    bytes[0] = flags;
    bytes[1] = kind;
    for (i, word) in words.into_iter().enumerate() {
        bytes[2 + 2 * i..4 + 2 * i].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[test]
fn headers_are_checked_against_their_frame() {
    let cases = [
        ("nothing", header(0, 0, [0; 4]), true),
        ("checksum", header(1, 0, [0, 0, 34, 16]), true),
        ("checksum at the end", header(1, 0, [0, 0, 34, 1964]), true),
        (
            "checksum behind the end",
            header(1, 0, [0, 0, 34, 1965]),
            false,
        ),
        (
            "checksum far behind",
            header(1, 0, [0, 0, 65_535, 65_535]),
            false,
        ),
        (
            "unasked checksum far behind",
            header(0, 0, [0, 0, 65_535, 65_535]),
            true,
        ),
        ("segments", header(1, 1, [54, 1448, 34, 16]), true),
        ("segments over IPv6", header(1, 4, [74, 1428, 54, 16]), true),
        (
            "segments with ECN",
            header(1, 0x81, [54, 1448, 34, 16]),
            true,
        ),
        (
            "segments without checksum",
            header(0, 1, [54, 1448, 34, 16]),
            false,
        ),
        ("segments of nothing", header(1, 1, [54, 0, 34, 16]), false),
        (
            "headers beyond the frame",
            header(1, 1, [2001, 1448, 34, 16]),
            false,
        ),
        (
            "headers of the whole frame",
            header(1, 1, [2000, 1448, 34, 16]),
            true,
        ),
        ("UDP fragments", header(1, 3, [42, 1448, 34, 6]), false),
        ("UDP segments", header(1, 5, [42, 1448, 34, 6]), false),
        ("ECN of nothing", header(1, 0x80, [54, 1448, 34, 16]), false),
        ("no kind", header(1, 0x7f, [54, 1448, 34, 16]), false),
    ];
    for (name, bytes, proper) in cases {
        assert_eq!(parse(bytes).is_some(), proper, "{name}");
    }
    for (frame, proper) in [(13, false), (14, true), (MAX_FRAME_BYTES, true)] {
        assert_eq!(NetHeader::parse(&[0; 12], frame).is_some(), proper);
    }
    assert_eq!(NetHeader::parse(&[0; 12], MAX_FRAME_BYTES + 1), None);
    assert_eq!(NetHeader::of_packet(&[0; 11]), None);
    assert_eq!(NetHeader::of_packet(&[0; 25]), None);
    assert!(NetHeader::of_packet(&[0; 26]).is_some());
}

/// Whatever the bytes are: what was parsed has one form, which parses to the same.
#[test]
fn a_header_has_one_form() {
    let mut random = Random(3);
    let mut proper = 0;
    for _ in 0..200_000 {
        let mut bytes = [0; NET_HEADER_BYTES];
        for byte in &mut bytes {
            *byte = match random.below(3) {
                0 => random.next() as u8,
                1 => random.below(6) as u8,
                _ => 0,
            };
        }
        let frame = random.below(3000) as usize;
        let Some(header) = NetHeader::parse(&bytes, frame) else {
            continue;
        };
        proper += 1;
        assert_eq!(NetHeader::parse(&header.to_bytes(), frame), Some(header));
        if let Some(sum) = header.checksum {
            assert!(sum.at() + 2 <= frame);
        }
    }
    assert!(proper > 10_000, "{proper}");
}

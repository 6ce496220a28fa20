//! What peers and networks send.

use twinvm_lan::Inside;
use twinvm_protocol::arbiter::wire;
use twinvm_protocol::codec;
use twinvm_protocol::{Generation, Incarnation, LiveName, NodeId, Record};

use crate::input::Input;

/// Frames of the channel and records of the arbiter: what is accepted has exactly one encoding.
pub fn channel(data: &[u8]) {
    if let Some(head) = data.first_chunk()
        && let Ok(len) = codec::body_len(*head)
    {
        assert!(len <= codec::MAX_BODY_BYTES);
    }
    if let Ok(message) = codec::decode_body(data) {
        let mut again = Vec::new();
        codec::encode_body(&message, &mut again);
        assert_eq!(again, data);
    }
    // Past the format's version.
    let mut body = vec![codec::FORMAT];
    body.extend_from_slice(data);
    if let Ok(message) = codec::decode_body(&body) {
        let mut again = Vec::new();
        codec::encode_body(&message, &mut again);
        assert_eq!(again, body);
    }
    if let Ok(record) = codec::decode_record(data) {
        assert_eq!(codec::encode_record(&record), data);
    }
}

/// Frames of an arbiter's server and its clients: what is accepted has exactly one encoding.
pub fn arbiter(data: &[u8]) {
    if let Some(head) = data.first_chunk()
        && let Ok(len) = wire::body_len(*head)
    {
        assert!(len <= wire::MAX_BODY_BYTES);
    }
    // As it is; past the version; and a good change or answer with something changed.
    let mut input = Input::new(data);
    let versioned = [&[wire::VERSION][..], data].concat();
    let change = input.byte() & 1 == 0;
    let changed = input.mutate(arbiter_frame(change));
    for body in [data, &versioned, &changed] {
        if let Ok(request) = wire::decode_request(body) {
            assert_eq!(wire::encode_request(&request)[4..], *body);
            assert!(body.len() <= wire::MAX_BODY_BYTES);
        }
        if let Ok(answer) = wire::decode_answer(body) {
            assert_eq!(wire::encode_answer(&answer)[4..], *body);
            assert!(body.len() <= wire::MAX_BODY_BYTES);
        }
    }
}

/// The body of a change or of an answer.
fn arbiter_frame(change: bool) -> Vec<u8> {
    let record = Record {
        generation: Generation(5),
        live: LiveName {
            id: NodeId(1),
            incarnation: Incarnation(2),
        },
        backup: None,
        halted: false,
    };
    let frame = match (change, wire::VmName::new("shop")) {
        (true, Some(vm)) => wire::encode_request(&wire::Request {
            number: 1,
            vm,
            ask: wire::Ask::Cas {
                expect: Generation(4),
                record,
            },
        }),
        _ => wire::encode_answer(&wire::Answer {
            number: 1,
            told: wire::Told::Lost(Some(record)),
        }),
    };
    frame[4..].to_vec()
}

/// Frames of guests that reach the switch, its station and its DHCP server, and streams that
/// frames are cut out of.
pub fn lan(data: &[u8]) {
    let mut input = Input::new(data);
    let mut lan = Inside::new(u64::from(input.byte()));
    let mut now_ms = 0;
    while !input.is_empty() {
        let choice = input.byte();
        now_ms += u64::from(choice >> 4) * 10;
        let len = usize::from(input.word()) % 1600;
        let bytes = input.bytes(len);
        match choice % 8 {
            0 => lan.stream(bytes),
            1 => lan.leave(usize::from(choice >> 4)),
            2 => lan.connect(),
            3 => lan.frame(usize::from(choice >> 6), &dhcp(bytes), now_ms),
            4 => lan.frame(usize::from(choice >> 6), &ip(bytes), now_ms),
            _ => lan.frame(usize::from(choice >> 6), bytes, now_ms),
        }
    }
}

/// A broadcast from a guest's address.
fn ethernet(kind: [u8; 2], content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame.extend_from_slice(&kind);
    frame.extend_from_slice(content);
    frame
}

/// An IPv4 packet with a right checksum (RFC 791) around what is to be hostile.
fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&((20 + content.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&from);
    packet.extend_from_slice(&to);
    let sum = packet
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(content);
    ethernet([8, 0], &packet)
}

fn ip(bytes: &[u8]) -> Vec<u8> {
    let (protocol, rest) = bytes.split_first().unwrap_or((&6, &[]));
    ipv4(*protocol, [10, 0, 2, 15], [10, 0, 2, 2], rest)
}

/// A request (RFC 2131) whose fixed part and options are hostile.
fn dhcp(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    message.extend_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(bytes);
    let mut datagram = vec![0, 68, 0, 67];
    datagram.extend_from_slice(&((8 + message.len()) as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(&message);
    ipv4(17, [0; 4], [255; 4], &datagram)
}

//! What reaches a node's process from its host: files of its folder, keys, requests of people, etcd's
//! answers, packets.

use std::sync::OnceLock;

use twinvm_host::inside;
use twinvm_host::sandbox::User;
use twinvm_host::tls::{Authority, Subject};
use twinvm_host::{offload, time};
use twinvm_machine::{MAX_PACKET_BYTES, NET_HEADER_BYTES};

use crate::input::Input;

const ETCD: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n\
    {\"header\":{\"cluster_id\":\"14841639068965178418\",\"revision\":\"2\"},\"kvs\":[{\"key\":\
    \"dHdpbnZtL2FyYml0ZXIvc2hvcA==\",\"value\":\"AQEAAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAA\
    AAAAAAAA==\"}],\"count\":\"1\"}";

/// An answer of etcd: it is a record, or none, or no answer.
pub fn etcd(data: &[u8]) {
    let mut input = Input::new(data);
    let answer = match input.byte() % 4 {
        0 => input.rest().to_vec(),
        _ => input.mutate(ETCD.to_vec()),
    };
    if let Some(Some(record)) = inside::etcd_answer(&answer) {
        assert!(!record.to_string().contains('\n'));
    }
}

/// Lines of the control socket, both ways.
pub fn ctl(data: &[u8]) {
    const LINES: [&[u8]; 4] = [
        b"{\"op\":\"snapshot\",\"to\":\"/x\",\"force\":true}\n",
        b"{\"op\":\"status\"}\n{\"op\":\"stop\"}\n",
        b"{\"ok\":{\"role\":\"live\"}}\n",
        b"{\"progress\":{\"bytes\":1}}\n{\"error\":\"no\"}\n",
    ];
    let mut input = Input::new(data);
    let choice = usize::from(input.byte());
    let stream = match LINES.get(choice % 8) {
        Some(lines) => input.mutate(lines.to_vec()),
        None => input.rest().to_vec(),
    };
    let lines = inside::ctl_lines(&stream);
    for line in &lines {
        assert!(line.len() <= twinvm_host::ctl_socket::MAX_REQUEST_BYTES && !line.contains(&b'\n'));
        if let Some(request) = inside::ctl_request(line) {
            let again = serde_json::to_vec(&request).expect("encodes");
            assert_eq!(inside::ctl_request(&again), Some(request));
        }
        inside::is_ctl_answer(line);
    }
}

/// Requests for figures: each has an answer of HTTP, and the figures only those that ask for them.
pub fn metrics(data: &[u8]) {
    let mut input = Input::new(data);
    let request = match input.byte() % 3 {
        0 => input.rest().to_vec(),
        _ => input.mutate(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
    };
    let Some(answer) = inside::metrics_answer(&request) else {
        return;
    };
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 ") && head.len() < 1000);
    assert!(request.starts_with(b"GET /metrics") || body != "figure 1\n");
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ntwinvm:x:990:980::/:/bin/false\n";
const GROUP: &str = "root:x:0:\nkvm:x:104:twinvm\ntwinvm:x:980:\n";

/// Small files of a node's folder and of its host.
pub fn small_files(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let base: &[u8] = match choice % 4 {
        0 => b"0123456789abcdef0123456789abcdef\n",
        1 => b"18446744073709551615\n",
        2 => PASSWD.as_bytes(),
        _ => GROUP.as_bytes(),
    };
    let file = input.mutate(base.to_vec());
    if let Some(id) = inside::node_id(&file) {
        let text = format!("{id:032x}\n");
        assert_eq!(inside::node_id(text.as_bytes()), Some(id));
    }
    if let Some(generation) = inside::node_generation(&file) {
        let text = format!("{generation}\n");
        assert_eq!(inside::node_generation(text.as_bytes()), Some(generation));
    }
    let text = String::from_utf8_lossy(&file);
    let (passwd, group) = match choice % 4 {
        2 => (&*text, GROUP),
        _ => (PASSWD, &*text),
    };
    for wanted in ["twinvm", "990", "twinvm:kvm", "5:5", "root", &text] {
        if let Ok(user) = User::find_in(wanted, passwd, group) {
            assert!(user.uid() != 0 && user.gid() != 0);
            assert!(user.uid() != u32::MAX && user.gid() != u32::MAX);
            assert!(!user.groups().contains(&0) && user.groups().contains(&user.gid()));
        }
    }
}

/// An authority's certificate, and a node's with its key.
fn keys() -> &'static [Vec<u8>; 3] {
    static KEYS: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    KEYS.get_or_init(|| {
        let now_s = (time::wall_ns() / 1_000_000_000) as i64;
        let authority = Authority::new(now_s).expect("an authority");
        let span = authority.span(now_s, 2);
        let issued = authority
            .issue(&Subject::Node("a".to_owned()), span)
            .expect("a certificate");
        let contents = [authority.cert(), &issued.cert, &issued.key];
        let contents = contents.map(|pem| pem.as_bytes().to_vec());
        let all = [0, 1, 2].map(|at: usize| &contents[at][..]);
        assert!(inside::are_credentials(all) && inside::are_client_credentials(all));
        for pem in &contents {
            let (first, last, der) = parts(pem);
            let again = armoured(first, last, &der);
            assert_eq!(parts(&again), (first, last, der));
        }
        let (.., der) = parts(&contents[1]);
        assert!(inside::subject_of(&der).is_some());
        contents
    })
}

/// Files of keys: they are refused, or they are credentials.
pub fn keys_files(data: &[u8]) {
    let pem = keys();
    let mut input = Input::new(data);
    let which = usize::from(input.byte());
    let changed = match which % 4 {
        3 => input.rest().to_vec(),
        2 => input.mutate(pem[which % 3].clone()),
        // Changed inside its armour: DER of whatever kind.
        _ => {
            let (first, last, der) = parts(&pem[which % 3]);
            armoured(first, last, &input.mutate(der))
        }
    };
    let mut files = [0, 1, 2].map(|at: usize| &pem[at][..]);
    files[which % 3] = &changed;
    inside::are_credentials(files);
    inside::are_client_credentials(files);
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The first and the last line of a PEM file (RFC 7468), and what is between them.
fn parts(pem: &[u8]) -> (&[u8], &[u8], Vec<u8>) {
    let lines: Vec<&[u8]> = pem.trim_ascii().split(|byte| *byte == b'\n').collect();
    let (first, last) = (lines[0].trim_ascii(), lines[lines.len() - 1]);
    let digits = lines[1..lines.len() - 1].concat();
    let digits = digits.iter().filter_map(|digit| {
        let at = DIGITS.iter().position(|known| known == digit)?;
        Some(at as u32)
    });
    let digits: Vec<u32> = digits.collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let word = (0..4).fold(0, |word, at| word << 6 | four.get(at).copied().unwrap_or(0));
        let bytes = word.to_be_bytes();
        bytes[1..four.len()].to_vec()
    });
    (first, last, bytes.collect())
}

fn armoured(first: &[u8], last: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut pem = [first, b"\n"].concat();
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, at| {
            word << 8 | u32::from(three.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            pem.push(match at <= three.len() {
                true => DIGITS[(word >> (18 - 6 * at) & 63) as usize],
                false => b'=',
            });
        }
    }
    [&pem[..], b"\n", last, b"\n"].concat()
}

/// Packets: what a guest gives to the switch's port, and what comes from there.
pub fn packets(data: &[u8]) {
    for packet in inside::switch_packets(data) {
        assert!(packet.len() > NET_HEADER_BYTES && packet.len() <= MAX_PACKET_BYTES);
    }
    let mut input = Input::new(data);
    let base = match input.byte() % 4 {
        0 => input.rest().to_vec(),
        1 => segmented(0x06, true),
        2 => segmented(0x06, false),
        _ => segmented(0x11, true),
    };
    let packet = input.mutate(base);
    let mut bytes = 0;
    let mut count = 0;
    let done = offload::plain_frames(&packet, |frame| {
        bytes += frame.len();
        count += 1;
        assert!(frame.len() <= packet.len());
    });
    // Of one packet nobody makes a flood: each segment has bytes of its own behind the headers.
    assert!(count <= packet.len().max(1) && bytes <= packet.len() * packet.len().max(1));
    assert!(done.is_ok() || count == 0);
}

/// A packet of several segments: virtio 1.2 section 5.1.6, Ethernet, IPv4 or IPv6, TCP or UDP.
fn segmented(protocol: u8, four: bool) -> Vec<u8> {
    let (ip, gso): (usize, u8) = if four { (20, 1) } else { (40, 4) };
    let start = 14 + ip;
    let mut packet = vec![1, gso];
    for half in [start + 20, 100, start, 16] {
        packet.extend_from_slice(&(half as u16).to_le_bytes());
    }
    packet.extend_from_slice(&[0; 2]);
    packet.extend_from_slice(&[2; 12]);
    let content = 350;
    if four {
        packet.extend_from_slice(&[8, 0, 0x45, 0]);
        packet.extend_from_slice(&((20 + 20 + content) as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    } else {
        packet.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        packet.extend_from_slice(&((20 + content) as u16).to_be_bytes());
        packet.extend_from_slice(&[protocol, 64]);
        packet.extend_from_slice(&[0xfd; 32]);
    }
    packet.extend_from_slice(&[
        0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ]);
    packet.extend(std::iter::repeat_n(0x42, content));
    packet
}

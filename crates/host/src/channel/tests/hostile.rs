//! Whoever knows the port, and what they can do: nothing.

use std::sync::Arc;

use super::*;
use crate::channel::half_open::{MAX_HALF_OPEN, MAX_THREADS};
use crate::tls::tests::{always, expired};
use crate::tls::{Subject, TlsStream, connect};

/// The node under attack and its peer, who are connected.
struct Attacked {
    cluster: Cluster,
    pair: Pair,
    target: SocketAddr,
}

fn node(name: &str) -> Expect {
    Expect::Node(name.to_owned())
}

impl Attacked {
    fn new() -> Self {
        let cluster = Cluster::new();
        let pair = pair(
            Some(cluster.node("a", node("b"))),
            Some(cluster.node("b", node("a"))),
            unbounded,
        );
        let target = pair.b.local_addr();
        Self {
            cluster,
            pair,
            target,
        }
    }

    fn knock(&self) -> TcpStream {
        let stream = TcpStream::connect(self.target).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What the node writes into its journal, once; nothing else happens.
    #[track_caller]
    fn refusal(&self) -> String {
        match next(&self.pair.b_heard) {
            ChannelEvent::Refused { why } => {
                assert!(
                    !why.contains('\n') && why.contains("is not taken for node a"),
                    "{why}"
                );
                why
            }
            other => panic!("{other:?}"),
        }
    }

    /// The pair is as it was, and the next of its connections is made as the first.
    #[track_caller]
    fn goes_on(&self) {
        let p = &self.pair;
        p.a.send(p.a_conn, heartbeat(1)).unwrap();
        p.b.send(p.b_conn, heartbeat(2)).unwrap();
        assert_eq!(received(&p.b_heard), (p.b_conn, heartbeat(1)));
        assert_eq!(received(&p.a_heard), (p.a_conn, heartbeat(2)));
        p.a.dial().unwrap();
        let (a_conn, _, _) = up(&p.a_heard);
        let (b_conn, _, _) = up(&p.b_heard);
        p.a.send(a_conn, heartbeat(3)).unwrap();
        assert_eq!(received(&p.b_heard), (b_conn, heartbeat(3)));
        p.a.close(a_conn);
        assert_eq!(down(&p.a_heard).0, a_conn);
        assert_eq!(down(&p.b_heard), (b_conn, "closed by the peer".to_owned()));
        assert!(p.b_heard.is_empty());
    }
}

/// A ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2), as it was before there was any other.
fn hello_of_tls_1_2() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0]);
    hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]);
    hello.extend([1, 0]);
    // Groups and signatures, but no supported_versions.
    let extensions = [&[0, 10, 0, 4, 0, 2, 0, 23][..], &[0, 13, 0, 4, 0, 2, 4, 3]].concat();
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let handshake = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    [&[22, 3, 1, 0, handshake.len() as u8][..], &handshake].concat()
}

#[test]
fn what_is_no_tls_1_3_is_refused_with_a_line() {
    let attacked = Attacked::new();
    let mut frame = Vec::new();
    encode_frame(&heartbeat(1), &mut frame);
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak TLS"),
        (&[0xff; 3000], "does not speak TLS"),
        (&frame, "does not speak TLS"),
        (&hello_of_tls_1_2(), "does not speak TLS 1.3"),
        (&[], "hung up"),
    ];
    for (bytes, expected) in cases {
        let mut stream = attacked.knock();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let why = attacked.refusal();
        assert!(why.contains(expected), "{why}");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        // At most an alert (RFC 8446 section 6): nothing of who this is.
        assert!(
            said.is_empty() || said[0] == 21 && said.len() == 7,
            "{said:?}"
        );
    }
    attacked.goes_on();
}

#[test]
fn whoever_is_no_member_is_refused_with_a_line() {
    let attacked = Attacked::new();
    let cluster = &attacked.cluster;
    let other = Cluster::new();
    let named = |name: &str| Subject::Node(name.to_owned());
    let strangers = [
        (cluster.without_certificate(node("b")), "no certificate"),
        (
            cluster.unchecked(&named("a"), expired(), node("b")),
            "has expired",
        ),
        (cluster.node("c", node("b")), "is for node c"),
        (cluster.node("b", node("b")), "is for node b"),
        (
            cluster.unchecked(&Subject::Arbiter, always(), node("b")),
            "not for one who connects",
        ),
        // It leaves first, at the sight of b's certificate.
        (other.node("a", node("b")), "of another cluster"),
    ];
    for (credentials, expected) in strangers {
        let tried = connect(attacked.knock(), &credentials, Instant::now() + PATIENCE);
        tried.unwrap_err();
        let why = attacked.refusal();
        assert!(why.contains(expected), "{why}");
    }
    attacked.goes_on();
}

/// Passes bytes on between a dialling node and `to`, and keeps what the first has said.
fn wiretap(to: SocketAddr) -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let address = listener.local_addr().unwrap();
    let tap = thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let mut far = TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
        });
        let mut kept = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut bytes) {
            kept.extend_from_slice(&bytes[..count]);
            far.write_all(&bytes[..count]).unwrap();
        }
        let _ = far.shutdown(std::net::Shutdown::Write);
        back.join().unwrap();
        kept
    });
    (address, tap)
}

#[test]
fn recorded_bytes_mean_nothing_later() {
    let attacked = Attacked::new();
    let (way, tap) = wiretap(attacked.target);
    let (a, a_heard) = hub_with(way, Some(attacked.cluster.node("a", node("b"))));
    a.dial().unwrap();
    let (conn, _, _) = up(&a_heard);
    let (there, _, _) = up(&attacked.pair.b_heard);
    a.send(conn, heartbeat(77)).unwrap();
    assert_eq!(received(&attacked.pair.b_heard), (there, heartbeat(77)));
    a.close(conn);
    down(&a_heard);
    down(&attacked.pair.b_heard);
    let recorded = tap.join().unwrap();
    // The content can't be read either.
    let mut frame = Vec::new();
    encode_frame(&heartbeat(77), &mut frame);
    assert!(!recorded.windows(frame.len()).any(|part| part == frame));

    let mut stream = attacked.knock();
    stream.write_all(&recorded).unwrap();
    attacked.refusal();
    // The same while the recorded connection's own peer listens: nothing of it was kept.
    let mut stream = attacked.knock();
    for byte in recorded {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
    }
    attacked.refusal();
    attacked.goes_on();
}

#[test]
fn who_dawdles_is_cut_off() {
    let attacked = Attacked::new();
    let mut stream = attacked.knock();
    let mut ended = stream.try_clone().unwrap();
    let drip = thread::spawn(move || {
        // The beginning of a long ClientHello, a byte at a time, for as long as it goes.
        let mut hello = [
            &[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..],
            &[1; 10_000],
        ]
        .concat();
        hello.reverse();
        while let Some(byte) = hello.pop() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    let started = Instant::now();
    let why = attacked.refusal();
    assert!(why.contains("in time"), "{why}");
    assert!(started.elapsed() >= HANDSHAKE_TIMEOUT / 2);
    assert_eq!(ended.read(&mut [0; 1]).unwrap_or(0), 0);
    drip.join().unwrap();
    attacked.goes_on();
}

#[test]
fn a_member_that_sends_no_frames_is_cut_off() {
    let attacked = Attacked::new();
    let credentials = attacked.cluster.node("a", node("b"));
    let member = || -> (TlsStream, ConnId) {
        let deadline = Instant::now() + PATIENCE;
        let stream = connect(attacked.knock(), &credentials, deadline).unwrap();
        let (conn, _, _) = up(&attacked.pair.b_heard);
        (stream, conn)
    };
    for bytes in [[0xff; 4], [0; 4], [2, 0, 0, 0]] {
        let (mut stream, conn) = member();
        stream.write_all(&bytes).unwrap();
        // It may have been cut off by now.
        let _ = stream.close();
        let (ended, why) = down(&attacked.pair.b_heard);
        assert!(ended == conn && (why.contains("frame")), "{why}");
    }
    // Without an orderly end.
    let (stream, conn) = member();
    drop(stream);
    let expected = (conn, "the peer ended without saying so".to_owned());
    assert_eq!(down(&attacked.pair.b_heard), expected);
    attacked.goes_on();
}

#[test]
fn a_hundred_at_once_take_a_bounded_number_of_threads() {
    let attacked = Attacked::new();
    let shared = Arc::clone(&attacked.pair.b.shared);
    let mut streams = Vec::new();
    let mut most = 0;
    for _ in 0..100 {
        streams.push(attacked.knock());
        most = most.max(shared.half_open.threads());
        // The pair takes no notice.
        let p = &attacked.pair;
        p.a.send(p.a_conn, heartbeat(1)).unwrap();
    }
    assert!(most <= MAX_THREADS, "{most}");
    // One who comes last has a place, and so has the peer.
    let p = &attacked.pair;
    p.a.dial().unwrap();
    let (a_conn, _, _) = up(&p.a_heard);
    let (mut ups, mut lines, mut frames) = (0, 0, 0);
    while ups < 1 || frames < 100 {
        match next(&p.b_heard) {
            ChannelEvent::Up { .. } => ups += 1,
            ChannelEvent::Received { .. } => frames += 1,
            ChannelEvent::Refused { .. } => lines += 1,
            other => panic!("{other:?}"),
        }
    }
    drop(streams);
    let start = Instant::now();
    while shared.half_open.threads() > 0 {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    lines += p
        .b_heard
        .try_iter()
        .filter(|event| matches!(event, ChannelEvent::Refused { .. }))
        .count();
    assert!((1..=MAX_HALF_OPEN).contains(&lines), "{lines} lines");
    p.a.close(a_conn);
    down(&p.a_heard);
    down(&p.b_heard);
    attacked.goes_on();
}

#[test]
fn the_one_who_dials_says_why_it_is_refused() {
    let cluster = Cluster::new();
    let (b, _b_heard) = hub_with(loopback(1), Some(cluster.node("b", node("a"))));
    // Both hosts were given the same credentials' name, or the address of a third.
    let (c, heard) = hub_with(b.local_addr(), Some(cluster.node("c", node("b"))));
    c.dial().unwrap();
    match next(&heard) {
        ChannelEvent::Refused { why } => {
            let start = format!("channel: {} is not taken for node b: ", b.local_addr());
            assert!(
                why.starts_with(&start) && why.contains("another node's"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&heard), ChannelEvent::DialFailed { .. }));
}

#[test]
fn a_peer_without_tls_is_told_apart() {
    let cluster = Cluster::new();
    let (b, b_heard) = hub_with(loopback(1), None);
    let (a, a_heard) = hub_with(b.local_addr(), Some(cluster.node("a", node("b"))));
    a.dial().unwrap();
    up(&b_heard);
    // It takes the ClientHello for the beginning of a frame, and waits for the rest.
    let why = match next(&a_heard) {
        ChannelEvent::Refused { why } => why,
        other => panic!("{other:?}"),
    };
    assert!(why.contains("has no [tls]"), "{why}");
    assert!(matches!(next(&a_heard), ChannelEvent::DialFailed { .. }));
    let (_, why) = down(&b_heard);
    assert!(why.contains("inside a frame"), "{why}");
}

//! Handshakes between members, and the streams they give.

use std::io::{Read, Write};

use super::*;

fn node(name: &str) -> Expect {
    Expect::Node(name.to_owned())
}

fn said(result: Result<TlsStream, HandshakeError>) -> String {
    let text = result.expect_err("no connection").to_string();
    assert!(!text.contains('\n') && !text.contains("  "), "{text}");
    text
}

#[test]
fn members_meet_and_know_each_other() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let (dialled, accepted) = shake(&a, &b);
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(*dialled.peer(), Subject::Node("b".to_owned()));
    assert_eq!(*accepted.peer(), Subject::Node("a".to_owned()));
    assert_eq!(dialled.tcp().read_timeout().unwrap(), None);

    dialled.write_all(b"question").unwrap();
    let mut bytes = [0; 8];
    accepted.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"question");
    accepted.write_all(b"answer").unwrap();
    accepted.close().unwrap();
    let mut text = String::new();
    dialled.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
    assert_eq!(dialled.read(&mut bytes).unwrap(), 0);
}

#[test]
fn an_arbiter_and_a_node_meet() {
    let cluster = Cluster::new();
    let arbiter = cluster.member(Subject::Arbiter, Expect::AnyNode);
    for name in ["a", "b"] {
        let (dialled, accepted) = shake(&cluster.node(name, Expect::Arbiter), &arbiter);
        assert_eq!(*dialled.unwrap().peer(), Subject::Arbiter);
        assert_eq!(*accepted.unwrap().peer(), Subject::Node(name.to_owned()));
    }
}

/// Each says no, and each says why in its own words.
#[test]
fn others_are_refused_by_both_sides() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let named = |name: &str| Subject::Node(name.to_owned());
    let ours = |own: Subject, dates, expect| cluster.unchecked(&own, dates, expect);
    // Who dials b; what b says of it; what it hears.
    let dials = [
        (other.node("a", node("b")), "", "of another cluster"),
        (
            other.unchecked(&named("a"), always(), node("b")),
            "",
            "of another cluster",
        ),
        (
            ours(named("c"), always(), node("b")),
            "is for node c, expected is node a",
            "another node's",
        ),
        (
            ours(named("b"), always(), node("b")),
            "is for node b, expected is node a",
            "another node's",
        ),
        (
            ours(named("A"), always(), node("b")),
            "is for node A, expected is node a",
            "another node's",
        ),
        (
            ours(Subject::Arbiter, always(), node("b")),
            "not for one who connects",
            "another node's",
        ),
        (
            ours(named("a"), expired(), node("b")),
            "has expired on",
            "has expired or",
        ),
        (
            ours(named("a"), not_yet(), node("b")),
            "is valid from",
            "not valid yet",
        ),
        (
            cluster.without_certificate(node("b")),
            "shows no certificate",
            "CertificateRequired",
        ),
        (
            cluster.node("a", Expect::Arbiter),
            "another node's",
            "is for node b, expected is the arbiter",
        ),
    ];
    for (at, (dialling, by_b, heard)) in dials.into_iter().enumerate() {
        let (dialled, accepted) = shake(&dialling, &b);
        let (dialled, accepted) = (said(dialled), said(accepted));
        assert!(accepted.contains(by_b), "{at}: {accepted}");
        assert!(dialled.contains(heard), "{at}: {dialled}");
    }
    // Whom a dials; what a says of it.
    let answers = [
        (
            other.unchecked(&named("b"), always(), node("a")),
            "of another cluster",
        ),
        (
            ours(named("a"), always(), node("a")),
            "is for node a, expected is node b",
        ),
        (
            ours(Subject::Arbiter, always(), node("a")),
            "is for the arbiter, expected is node b",
        ),
        (ours(named("b"), expired(), node("a")), "has expired on"),
        (ours(named("b"), not_yet(), node("a")), "is valid from"),
    ];
    for (at, (listening, by_a)) in answers.into_iter().enumerate() {
        let (dialled, accepted) = shake(&a, &listening);
        let (dialled, _) = (said(dialled), said(accepted));
        assert!(dialled.contains(by_a), "{at}: {dialled}");
    }
}

#[test]
fn a_cut_is_no_orderly_end() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let (dialled, accepted) = shake(&a, &b);
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    dialled.write_all(b"the last word").unwrap();
    dialled.tcp().shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    let error = accepted.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(bytes, b"the last word");
}

#[test]
fn a_changed_byte_on_the_way_ends_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let (dialled, accepted) = shake(&a, &b);
    let (dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    // A record of application data that nobody has encrypted.
    let forged = [&[23, 3, 3, 0, 32][..], &[0xaa; 32]].concat();
    dialled.tcp().write_all(&forged).unwrap();
    let error = accepted.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

/// Who reads waits for the peer; meanwhile the other half writes as much as it likes.
#[test]
fn a_waiting_reader_keeps_no_writer_from_writing() {
    const BYTES: usize = 5 << 20;
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let (dialled, accepted) = shake(&a, &b);
    let (mut a_in, mut a_out) = dialled.unwrap().split();
    let (mut b_in, mut b_out) = accepted.unwrap().split();
    let content: Vec<u8> = (0..BYTES).map(|at| (at * 7 / 3) as u8).collect();
    thread::scope(|scope| {
        for reader in [&mut a_in, &mut b_in] {
            let content = &content;
            scope.spawn(move || {
                let mut bytes = vec![0; BYTES];
                reader.read_exact(&mut bytes).unwrap();
                assert!(bytes == *content);
            });
        }
        for writer in [&mut a_out, &mut b_out] {
            let content = &content;
            scope.spawn(move || {
                // The readers wait by now, or soon.
                for part in content.chunks(100_001) {
                    writer.write_all(part).unwrap();
                }
            });
        }
    });
}

/// As happens by itself after some millions of records.
#[test]
fn new_keys_on_the_way_change_nothing() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let (dialled, accepted) = shake(&a, &b);
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    for turn in 0..20u8 {
        let [from, to] = match turn % 4 {
            0 | 1 => [&mut dialled, &mut accepted],
            _ => [&mut accepted, &mut dialled],
        };
        if turn % 2 == 0 {
            from.describe(|session| session.refresh_traffic_keys())
                .unwrap();
        }
        from.write_all(&[turn; 20_000]).unwrap();
        let mut bytes = [0; 20_000];
        to.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [turn; 20_000]);
    }
}

#[test]
fn what_the_socket_does_not_take_waits_and_is_bounded() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    let (dialled, accepted) = shake(&a, &b);
    let (_a_in, mut a_out) = dialled.unwrap().split();
    let mut accepted = accepted.unwrap();
    a_out
        .tcp()
        .set_write_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut content = Vec::new();
    let mut blocked = 0;
    // The other side does not read: the socket fills up.
    while blocked < 3 {
        let part = vec![content.len() as u8; 300_000];
        match a_out.write(&part) {
            Ok(count) => {
                assert!(count <= 96 << 10);
                content.extend_from_slice(&part[..count]);
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                blocked += 1;
            }
        }
    }
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        accepted.read_to_end(&mut bytes).map(|_| bytes)
    });
    while a_out.flush().is_err() {}
    a_out.close().unwrap();
    assert!(reader.join().unwrap().unwrap() == content);
}

#[test]
fn there_is_nothing_to_resume() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a", node("b")), cluster.node("b", node("a")));
    for _ in 0..3 {
        let (dialled, accepted) = shake(&a, &b);
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        accepted.write_all(b"x").unwrap();
        dialled.read_exact(&mut [0]).unwrap();
        let session = stream_session(&dialled);
        assert_eq!(
            session,
            (
                Some(rustls::HandshakeKind::Full),
                Some(rustls::ProtocolVersion::TLSv1_3),
                0
            )
        );
    }
}

fn stream_session(
    stream: &TlsStream,
) -> (
    Option<rustls::HandshakeKind>,
    Option<rustls::ProtocolVersion>,
    u32,
) {
    stream.describe(|session| {
        let tickets = match session {
            rustls::Connection::Client(session) => session.tls13_tickets_received(),
            rustls::Connection::Server(_) => 0,
        };
        (
            session.handshake_kind(),
            session.protocol_version(),
            tickets,
        )
    })
}

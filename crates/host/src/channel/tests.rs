use std::io::{Read, Write};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded, unbounded};
use twinvm_protocol::codec::encode_frame;
use twinvm_protocol::{Position, Progress};

use super::*;
use crate::tls::Expect;
use crate::tls::tests::Cluster;

mod hostile;

const PATIENCE: Duration = Duration::from_secs(20);

/// Asserts that `work` gives a time below `limit`: at once, or when it is tried again, since a busy
/// host may keep any thread waiting for longer.
#[track_caller]
fn takes_less(limit: Duration, mut work: impl FnMut() -> Duration) {
    let until = Instant::now() + PATIENCE;
    loop {
        let took = work();
        if took < limit {
            return;
        }
        assert!(Instant::now() < until, "it always takes {took:?}");
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn hub(peer: SocketAddr) -> (ChannelHub, Receiver<ChannelEvent>) {
    hub_with(peer, None)
}

fn next(heard: &Receiver<ChannelEvent>) -> ChannelEvent {
    heard.recv_timeout(PATIENCE).expect("an event")
}

fn up(heard: &Receiver<ChannelEvent>) -> (ConnId, bool, u128) {
    match next(heard) {
        ChannelEvent::Up {
            conn,
            dialed,
            nonce,
            ..
        } => (conn, dialed, nonce),
        other => panic!("{other:?}"),
    }
}

fn received(heard: &Receiver<ChannelEvent>) -> (ConnId, Message) {
    match next(heard) {
        ChannelEvent::Received { conn, message } => (conn, message),
        other => panic!("{other:?}"),
    }
}

fn down(heard: &Receiver<ChannelEvent>) -> (ConnId, String) {
    match next(heard) {
        ChannelEvent::Down { conn, why } => (conn, why),
        other => panic!("{other:?}"),
    }
}

/// Two hubs, `a` has dialled `b`.
struct Pair {
    a: ChannelHub,
    a_heard: Receiver<ChannelEvent>,
    a_conn: ConnId,
    b: ChannelHub,
    b_heard: Receiver<ChannelEvent>,
    b_conn: ConnId,
}

/// One on bare sockets, one over TLS: the same must hold for both.
fn pairs() -> [Pair; 2] {
    pairs_with(unbounded)
}

type Events = fn() -> (Sender<ChannelEvent>, Receiver<ChannelEvent>);

fn pairs_with(events: Events) -> [Pair; 2] {
    let cluster = Cluster::new();
    [
        pair(None, None, events),
        pair(
            Some(cluster.node("a", Expect::Node("b".to_owned()))),
            Some(cluster.node("b", Expect::Node("a".to_owned()))),
            events,
        ),
    ]
}

fn hub_with(peer: SocketAddr, tls: Option<Credentials>) -> (ChannelHub, Receiver<ChannelEvent>) {
    hub_telling(peer, tls, unbounded)
}

fn hub_telling(
    peer: SocketAddr,
    tls: Option<Credentials>,
    events: Events,
) -> (ChannelHub, Receiver<ChannelEvent>) {
    let (events, heard) = events();
    let hub = ChannelHub::start(loopback(0), peer, tls, events, Marks::default()).unwrap();
    (hub, heard)
}

fn pair(a_tls: Option<Credentials>, b_tls: Option<Credentials>, events: Events) -> Pair {
    let (b, b_heard) = hub_telling(loopback(1), b_tls, events);
    let (a, a_heard) = hub_telling(b.local_addr(), a_tls, events);
    a.dial().unwrap();
    let (a_conn, dialed, a_nonce) = up(&a_heard);
    assert!(dialed);
    let (b_conn, dialed, b_nonce) = up(&b_heard);
    assert!(!dialed && a_nonce != b_nonce);
    Pair {
        a,
        a_heard,
        a_conn,
        b,
        b_heard,
        b_conn,
    }
}

fn heartbeat(beat: u64) -> Message {
    Message::Heartbeat {
        beat,
        released: Position(0),
        progress: Progress::default(),
    }
}

fn chunk(offset: u64, len: usize) -> Message {
    Message::SnapshotChunk {
        offset,
        bytes: vec![offset as u8; len],
        last: false,
    }
}

/// A raw peer of a hub.
fn raw() -> (ChannelHub, Receiver<ChannelEvent>, TcpStream, ConnId) {
    let (hub, heard) = hub(loopback(1));
    let stream = TcpStream::connect(hub.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (conn, _, _) = up(&heard);
    (hub, heard, stream, conn)
}

#[test]
fn frames_arrive_whole_and_in_order_both_ways() {
    pairs()
        .into_iter()
        .for_each(frames_arrive_whole_and_in_order_both_ways_in);
}

fn frames_arrive_whole_and_in_order_both_ways_in(p: Pair) {
    for beat in 0..2000 {
        p.a.send(p.a_conn, heartbeat(beat)).unwrap();
        p.b.send(p.b_conn, heartbeat(beat)).unwrap();
        if beat % 100 == 0 {
            p.a.send(p.a_conn, chunk(beat, 200_000)).unwrap();
        }
    }
    for beat in 0..2000 {
        assert_eq!(received(&p.b_heard), (p.b_conn, heartbeat(beat)));
        assert_eq!(received(&p.a_heard), (p.a_conn, heartbeat(beat)));
        if beat % 100 == 0 {
            assert_eq!(received(&p.b_heard), (p.b_conn, chunk(beat, 200_000)));
        }
    }
    let start = Instant::now();
    while p.a.queued_bytes(p.a_conn) > 0 {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

/// Small frames are written by who sends them until the socket is full, at any byte of one; then the
/// writer has the rest, and what comes after it waits for that.
#[test]
fn frames_keep_their_order_whoever_writes_them() {
    for p in pairs_with(|| bounded(1)) {
        // Bytes of several records' lengths, none of which divides a buffer's.
        let frame = |number: u64| match number % 3 {
            0 => heartbeat(number),
            _ => chunk(number, (number * 997 % 15_000) as usize),
        };
        let (mut sent, mut waited) = (0, 0);
        // Nobody takes them: the other side's buffers fill up, then this one's.
        while waited < 200 {
            p.a.send(p.a_conn, frame(sent)).unwrap();
            sent += 1;
            waited += u64::from(p.a.queued_bytes(p.a_conn) > 0);
            assert!(sent < 100_000, "all of it leaves, and nobody takes it");
        }
        for number in 0..sent {
            assert_eq!(received(&p.b_heard), (p.b_conn, frame(number)));
        }
        // All is out, and the next ones are written at once again.
        while p.a.queued_bytes(p.a_conn) > 0 {
            thread::yield_now();
        }
        for number in 0..10 {
            p.a.send(p.a_conn, heartbeat(number)).unwrap();
            assert_eq!(p.a.queued_bytes(p.a_conn), 0);
            assert_eq!(received(&p.b_heard), (p.b_conn, heartbeat(number)));
        }
    }
}

#[test]
fn the_end_of_a_peer_is_told_at_once() {
    for which in 0..2 {
        takes_less(LINGER / 2, || {
            let [bare, tls] = pairs();
            the_end_of_a_peer_is_told_in(if which == 0 { bare } else { tls })
        });
    }
}

/// After how long.
fn the_end_of_a_peer_is_told_in(p: Pair) -> Duration {
    let start = Instant::now();
    drop(p.a);
    assert_eq!(down(&p.b_heard).0, p.b_conn);
    assert_eq!(down(&p.a_heard).0, p.a_conn);
    let took = start.elapsed();
    assert_eq!(p.b.send(p.b_conn, heartbeat(0)), Err(SendError::Gone));
    assert_eq!(p.b.queued_bytes(p.b_conn), 0);
    took
}

#[test]
fn a_reset_is_told_after_the_frames_before_it() {
    let (_hub, heard, mut stream, conn) = raw();
    let mut bytes = Vec::new();
    encode_frame(&heartbeat(1), &mut bytes);
    stream.write_all(&bytes).unwrap();
    assert_eq!(received(&heard), (conn, heartbeat(1)));
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    let (ended, why) = down(&heard);
    assert!(ended == conn && why.contains("reset"), "{why}");
}

#[test]
fn closing_lets_queued_frames_leave() {
    pairs()
        .into_iter()
        .for_each(closing_lets_queued_frames_leave_in);
}

fn closing_lets_queued_frames_leave_in(p: Pair) {
    // More than the socket buffers hold, so that most of it waits when it is closed.
    for offset in 0..100 {
        p.a.send(p.a_conn, chunk(offset, 200_000)).unwrap();
    }
    // And the other side talks on, so that there are unread bytes.
    for beat in 0..100 {
        p.b.send(p.b_conn, heartbeat(beat)).unwrap();
    }
    p.a.close(p.a_conn);
    assert_eq!(p.a.send(p.a_conn, heartbeat(0)), Err(SendError::Gone));
    for offset in 0..100 {
        assert_eq!(received(&p.b_heard), (p.b_conn, chunk(offset, 200_000)));
    }
    assert_eq!(down(&p.b_heard).0, p.b_conn);
    loop {
        match next(&p.a_heard) {
            ChannelEvent::Received { .. } => {}
            ChannelEvent::Down { why, .. } => break assert_eq!(why, "closed by this node"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn both_sides_may_close_at_once() {
    pairs()
        .into_iter()
        .for_each(both_sides_may_close_at_once_in);
}

fn both_sides_may_close_at_once_in(p: Pair) {
    for offset in 0..20 {
        p.a.send(p.a_conn, chunk(offset, 100_000)).unwrap();
        p.b.send(p.b_conn, chunk(offset, 100_000)).unwrap();
    }
    p.a.close(p.a_conn);
    p.b.close(p.b_conn);
    for heard in [&p.a_heard, &p.b_heard] {
        loop {
            if let ChannelEvent::Down { .. } = next(heard) {
                break;
            }
        }
    }
}

#[test]
fn closing_does_not_wait_for_a_peer_that_does_not_read() {
    takes_less(LINGER / 2, || {
        let (hub, heard, _stream, conn) = raw();
        for offset in 0..100 {
            hub.send(conn, chunk(offset, 200_000)).unwrap();
        }
        let start = Instant::now();
        hub.close(conn);
        let returned = start.elapsed();
        // It has its time, and no more.
        assert_eq!(down(&heard).0, conn);
        assert!(start.elapsed() >= LINGER / 2, "{:?}", start.elapsed());
        returned
    });
}

#[test]
fn a_full_queue_ends_the_connection_and_blocks_nobody() {
    let (hub, heard, _stream, conn) = raw();
    let start = Instant::now();
    let mut sent = 0;
    let refused = loop {
        match hub.send(conn, chunk(0, 200_000)) {
            Ok(()) => sent += 200_000,
            Err(error) => break error,
        }
        assert!(hub.queued_bytes(conn) <= MAX_QUEUE_BYTES);
        assert!(sent < 4 * MAX_QUEUE_BYTES, "no bound");
    };
    assert_eq!(refused, SendError::Overflow);
    let (ended, why) = down(&heard);
    assert!(ended == conn && why.contains("slowly"), "{why}");
    assert_eq!(hub.send(conn, heartbeat(0)), Err(SendError::Gone));
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn small_frames_count_for_the_bound_too() {
    let (hub, heard, _stream, conn) = raw();
    let mut sent = 0usize;
    while hub.send(conn, Message::Installed).is_ok() {
        sent += 1;
        assert!(sent < 8 * MAX_QUEUE_BYTES / 256, "no bound");
    }
    assert_eq!(down(&heard).0, conn);
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let mut torn = Vec::new();
    encode_frame(&chunk(0, 1000), &mut torn);
    torn.truncate(500);
    let cases: [(&[u8], &str); 6] = [
        (&[0, 0, 0, 0], "no frame"),
        (&[0xff, 0xff, 0xff, 0xff], "no frame"),
        (&[2, 0, 0, 0, 9, 9], "no frame"),
        (&[2, 0, 0, 0, 1, 99], "no frame"),
        (&[2, 0], "inside a frame"),
        (&torn, "inside a frame"),
    ];
    for (bytes, expected) in cases {
        let (hub, heard, mut stream, conn) = raw();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (ended, why) = down(&heard);
        assert!(ended == conn && why.contains(expected), "{bytes:?}: {why}");
        // The hub has ended it too.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, [0u8; 0]);
        drop(hub);
    }
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let (_hub, heard, mut stream, conn) = raw();
    let mut bytes = Vec::new();
    encode_frame(&chunk(7, 300), &mut bytes);
    stream.set_nodelay(true).unwrap();
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(received(&heard), (conn, chunk(7, 300)));
}

#[test]
fn silent_peers_hold_a_bounded_number_of_connections() {
    let (hub, heard) = hub(loopback(1));
    let mut streams = Vec::new();
    for _ in 0..MAX_ACCEPTED {
        streams.push(TcpStream::connect(hub.local_addr()).unwrap());
        up(&heard);
    }
    let mut extra = TcpStream::connect(hub.local_addr()).unwrap();
    extra.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(extra.read(&mut [0; 1]).unwrap_or(0), 0);
    assert_eq!(hub.refused(), 1);
    assert!(heard.is_empty());
    // One goes: there is room for another.
    drop(streams.pop());
    down(&heard);
    streams.push(TcpStream::connect(hub.local_addr()).unwrap());
    up(&heard);
}

#[test]
fn a_full_event_channel_holds_the_peer_up_and_loses_nothing() {
    let (events, heard) = bounded(1);
    let hub = ChannelHub::start(loopback(0), loopback(1), None, events, Marks::default()).unwrap();
    let mut stream = TcpStream::connect(hub.local_addr()).unwrap();
    let writer = thread::spawn(move || {
        let mut bytes = Vec::new();
        for beat in 0..50 {
            encode_frame(&chunk(beat, 100_000), &mut bytes);
        }
        stream.write_all(&bytes).unwrap();
    });
    thread::sleep(Duration::from_millis(50));
    let (conn, _, _) = up(&heard);
    for beat in 0..50 {
        assert_eq!(received(&heard), (conn, chunk(beat, 100_000)));
    }
    assert_eq!(down(&heard).0, conn);
    writer.join().unwrap();
}

#[test]
fn a_dial_to_nobody_fails() {
    let nobody = loopback(1);
    let (hub, heard) = hub(nobody);
    hub.dial().unwrap();
    match next(&heard) {
        ChannelEvent::DialFailed { why } => assert!(why.contains(&nobody.to_string()), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_restarted_node_can_listen_at_once() {
    // An address of its own: nobody else is given its port meanwhile.
    let listen = SocketAddr::from(([127, 0, 0, 3], 0));
    let (events, heard) = unbounded();
    let first = ChannelHub::start(listen, loopback(1), None, events, Marks::default()).unwrap();
    let address = first.local_addr();
    let mut stream = TcpStream::connect(address).unwrap();
    up(&heard);
    // Ended by the listening side, whose end of it then waits for old segments.
    drop(first);
    down(&heard);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    drop(stream);
    // A process that another test has just started holds a copy of every socket until it executes its
    // program; old segments are waited for far longer.
    let until = Instant::now() + PATIENCE;
    let (_again, heard) = loop {
        let (events, heard) = unbounded();
        match ChannelHub::start(address, loopback(1), None, events, Marks::default()) {
            Ok(again) => break (again, heard),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    let _stream = TcpStream::connect(address).unwrap();
    up(&heard);
}

#[test]
fn addresses_that_cannot_be_had_are_named() {
    let (first, _heard) = hub(loopback(1));
    let error = |listen, peer| {
        let (events, _) = unbounded();
        ChannelHub::start(listen, peer, None, events, Marks::default())
            .unwrap_err()
            .to_string()
    };
    let taken = first.local_addr();
    let text = error(taken, loopback(1));
    let port = format!("channel port {}", taken.port());
    assert!(text.starts_with(&port) && !text.contains('\n'), "{text}");
    let outside = SocketAddr::from(([192, 0, 2, 1], 7000));
    for text in [error(outside, loopback(1)), error(loopback(0), outside)] {
        assert!(
            text.contains("192.0.2.1:7000") && text.contains("loopback"),
            "{text}"
        );
    }
}

//! A guest goes on behind another port; the gateway repeats at once what it may
//! have missed.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use smoltcp::wire::TcpControl;
use support::raw::{
    GUEST_MAC, SERVER, accept, ethernet, gratuitous_arp, is_arp_question, next_segment, rarp,
};
use support::{SOON, TestLan};
use twinvm_lan::LanEvent;

/// Below TCP's least retransmission timeout of one second, far above what a
/// repeat takes, so that a busy machine doesn't fail the test.
const AT_ONCE: Duration = Duration::from_millis(700);
/// After this long without a frame there is none; far below that timeout.
const NO_MORE: Duration = Duration::from_millis(200);

fn joined(event: &LanEvent) -> bool {
    matches!(event, LanEvent::PortJoined { .. })
}

#[test]
fn unacknowledged_bytes_are_repeated_at_an_announcement() {
    for (announcement, leaves) in [(rarp(), true), (rarp(), false), (gratuitous_arp(), false)] {
        let lan = TestLan::start(&[SERVER]);
        let mut first = lan.port();
        let mut second = lan.port();
        lan.wait_for(2, joined);
        let mut client = lan.client(0);
        let mut flow = accept(&mut first);

        // Two segments reach the node that dies, which acknowledges neither.
        client.write_all(b"one").unwrap();
        let one = next_segment(&mut first, SOON).unwrap();
        client.write_all(b"two").unwrap();
        let two = next_segment(&mut first, SOON).unwrap();
        assert_eq!(
            (&one.payload[..], &two.payload[..]),
            (&b"one"[..], &b"two"[..])
        );
        if leaves {
            drop(first);
            lan.wait_for(1, |event| matches!(event, LanEvent::PortLeft { .. }));
            // Flooded, as the address is unknown: the backup still drops them.
            assert_eq!(next_segment(&mut second, AT_ONCE).as_ref(), Some(&one));
            assert_eq!(next_segment(&mut second, AT_ONCE).as_ref(), Some(&two));
        }

        let start = Instant::now();
        second.send(&announcement).unwrap();
        assert_eq!(next_segment(&mut second, AT_ONCE).as_ref(), Some(&one));
        assert_eq!(next_segment(&mut second, AT_ONCE).as_ref(), Some(&two));
        println!("repeated {:?} after the announcement", start.elapsed());

        // The connection goes on through the new port, both ways.
        flow.ack += 6;
        second
            .send(&flow.segment(TcpControl::Psh, b"three"))
            .unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"three");
        client.write_all(b"four").unwrap();
        let four = loop {
            let segment = next_segment(&mut second, SOON).unwrap();
            if !segment.payload.is_empty() {
                break segment;
            }
        };
        assert_eq!((four.seq, &four.payload[..]), (flow.ack, &b"four"[..]));

        // All acknowledged: the next announcement brings one bare acknowledgement.
        flow.seq += 5;
        flow.ack += 4;
        second.send(&flow.segment(TcpControl::None, &[])).unwrap();
        second.send(&announcement).unwrap();
        let bare = next_segment(&mut second, AT_ONCE).unwrap();
        assert_eq!(bare.payload, b"");
        assert_eq!((bare.seq, bare.ack), (flow.ack, Some(flow.seq)));
        assert_eq!(next_segment(&mut second, NO_MORE), None);
        assert!(lan.stop().frames_repeated >= 3);
    }
}

#[test]
fn a_connection_being_made_survives() {
    let lan = TestLan::start(&[SERVER]);
    let mut first = lan.port();
    let mut second = lan.port();
    lan.wait_for(2, joined);
    let mut client = lan.client(0);
    let syn = next_segment(&mut first, SOON).unwrap();
    assert_eq!(syn.control, TcpControl::Syn);
    second.send(&rarp()).unwrap();
    let start = Instant::now();
    let mut flow = accept(&mut second);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(flow.port, syn.port);
    flow.seq = 5001;
    second.send(&flow.segment(TcpControl::Psh, b"hi")).unwrap();
    let mut back = [0; 2];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hi");
}

#[test]
fn the_end_of_a_connection_survives() {
    let lan = TestLan::start(&[SERVER]);
    let mut first = lan.port();
    let mut second = lan.port();
    lan.wait_for(2, joined);
    // An orderly end, and a reset.
    let closing = lan.client(0);
    let closed = accept(&mut first);
    drop(closing);
    let fin = next_segment(&mut first, SOON).unwrap();
    assert_eq!((fin.port, fin.control), (closed.port, TcpControl::Fin));
    let resetting = lan.client(0);
    let reset = accept(&mut first);
    rustix::net::sockopt::set_socket_linger(&resetting, Some(Duration::ZERO)).unwrap();
    drop(resetting);
    let rst = next_segment(&mut first, SOON).unwrap();
    assert_eq!((rst.port, rst.control), (reset.port, TcpControl::Rst));

    second.send(&rarp()).unwrap();
    let again = [
        next_segment(&mut second, AT_ONCE).unwrap(),
        next_segment(&mut second, AT_ONCE).unwrap(),
    ];
    assert!(again.contains(&fin), "{again:?}");
    assert!(again.contains(&rst), "{again:?}");
}

#[test]
fn a_guest_that_was_never_heard_is_found_at_its_announcement() {
    let lan = TestLan::start(&[SERVER]);
    let mut port = lan.port();
    lan.wait_for(1, joined);
    let _client = lan.client(0);
    // It misses the questions.
    while port.receive(Duration::from_millis(100)).unwrap().is_some() {}
    let start = Instant::now();
    port.send(&rarp()).unwrap();
    let question = port.receive(AT_ONCE).unwrap().unwrap();
    assert!(is_arp_question(&question));
    port.send(&gratuitous_arp()).unwrap();
    let syn = next_segment(&mut port, AT_ONCE).unwrap();
    assert_eq!(syn.control, TcpControl::Syn);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn late_frames_of_the_loser_do_not_draw_the_traffic_back() {
    let lan = TestLan::start(&[SERVER]);
    let mut first = lan.port();
    let mut second = lan.port();
    lan.wait_for(2, joined);
    let mut client = lan.client(0);
    let flow = accept(&mut first);
    second.send(&rarp()).unwrap();
    next_segment(&mut second, AT_ONCE).expect("a bare acknowledgement");
    // Held before, released late: it still counts, but moves nothing.
    first.send(&flow.segment(TcpControl::Psh, b"late")).unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"late");
    client.write_all(b"answer").unwrap();
    let answer = loop {
        let segment = next_segment(&mut second, SOON).unwrap();
        if !segment.payload.is_empty() {
            break segment;
        }
    };
    assert_eq!(answer.payload, b"answer");
    assert_eq!(next_segment(&mut first, Duration::from_millis(50)), None);
}

#[test]
fn ports_speak_to_each_other() {
    let lan = TestLan::start(&[]);
    let mut a = lan.port();
    let mut b = lan.port();
    let mut c = lan.port();
    lan.wait_for(3, joined);
    let other = [2, 0, 0, 0, 0, 7];
    let hello = ethernet([0xff; 6], GUEST_MAC, 0x88b5, b"hello to all");
    a.send(&hello).unwrap();
    assert_eq!(b.receive(SOON).unwrap().unwrap(), hello);
    assert_eq!(c.receive(SOON).unwrap().unwrap(), hello);
    let answer = ethernet(GUEST_MAC, other, 0x88b5, &[7; 9000]);
    b.send(&answer).unwrap();
    assert_eq!(a.receive(SOON).unwrap().unwrap(), answer);
    assert_eq!(c.receive(Duration::from_millis(50)).unwrap(), None);
}

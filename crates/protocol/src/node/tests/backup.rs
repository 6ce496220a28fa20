//! Rule 8, and what a backup accepts.

use super::harness::*;
use crate::event::{Action, Event, Progress};
use crate::message::{Goodbye, Message};
use crate::record::{Generation, Incarnation, LiveName, NodeId, Position, Record};
use crate::{Config, ExitReason, Outcome, RoleKind};

fn claimed(generation: u64) -> Record {
    mine(generation, false)
}

#[test]
fn a_claim_in_order() {
    let mut one = One::told();
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    assert!(has!(acts, Action::BeginDrain));
    assert_eq!(cas(&acts), None);
    let acts = one.drained(9);
    let (req, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(5), claimed(6)));
    let acts = one.answer(req, Outcome::Won(record));
    let order: Vec<_> = acts
        .iter()
        .filter_map(|a| match a {
            Action::PersistGeneration { .. } => Some("persist"),
            Action::GoLive { .. } => Some("go live"),
            Action::Announce => Some("announce"),
            Action::Emit { .. } => Some("emit"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["persist", "go live", "announce", "emit"]);
    // 7 was proven released, 9 was not.
    assert_eq!(emitted(&acts), [9]);
}

#[test]
fn nothing_is_acked_after_suspicion() {
    let mut one = One::told();
    one.got(Message::Log {
        first: Position(9),
        end: Position(11),
        released: Position(7),
        batch: vec![1],
    });
    let acts = one.wait(400);
    assert!(has!(acts, Action::Close { conn: CONN, .. }));
    assert!(has!(acts, Action::BeginDrain));
    let end = Position(11);
    let session = SESSION;
    let acts = one.ev(Event::Stored { session, end });
    assert!(sent(&acts).is_empty(), "{acts:?}");
    // The drain may or may not cover what was stored late; it must cover what was acked.
    assert!(cas(&one.drained(9)).is_some());
}

#[test]
fn a_drain_that_misses_what_was_acked_is_fatal() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    assert!(matches!(one.drained(8)[..], [Action::Fatal { .. }]));
}

#[test]
fn outputs_made_by_the_drain_are_sent_too() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(emitted(&one.output(9)), []);
    let acts = one.drained(9);
    let (req, _, record) = cas(&acts).unwrap();
    assert_eq!(emitted(&one.answer(req, Outcome::Won(record))), [9, 9]);
}

#[test]
fn silence_and_a_stopped_cpu_thread_are_suspected() {
    let mut one = One::told();
    assert!(!has!(one.hear_live(3000, 7), Action::BeginDrain));
    assert!(has!(one.wait(310), Action::BeginDrain));

    let mut one = One::told();
    let mut acts = Vec::new();
    for _ in 0..8 {
        acts.extend(one.wait(50));
        acts.extend(one.got(Message::Heartbeat {
            beat: 42,
            released: Position(7),
            progress: Progress::default(),
        }));
    }
    assert!(has!(acts, Action::BeginDrain));
}

#[test]
fn a_backup_never_told_claims_only_if_named() {
    let mut one = One::untold();
    one.ev(Event::ChannelDown { conn: CONN });
    let req = read(&one.drained(9)).unwrap();
    let acts = one.answer(req, Outcome::Read(Some(theirs(5, true))));
    let (req, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(5), claimed(6)));
    let acts = one.answer(req, Outcome::Won(record));
    assert!(has!(acts, Action::GoLive { .. }));
    // What it noted as a backup is over.
    assert_eq!(
        one.node.status().note,
        "live alone, generation 6: node you joins when it runs"
    );

    let mut one = One::untold();
    one.ev(Event::ChannelDown { conn: CONN });
    let req = read(&one.drained(9)).unwrap();
    let acts = one.answer(req, Outcome::Read(Some(theirs(4, false))));
    assert!(has!(acts, Action::Discard));
    assert_eq!(cas(&acts), None);
    assert_eq!(one.node.role(), RoleKind::Cold);
}

/// A request for the very first record may be late by the VM's whole life. It lands where the arbiter
/// has lost its records.
#[test]
fn what_an_arbiter_shows_that_has_lost_records_decides_no_claim() {
    let foreign = Record {
        live: LiveName {
            id: NodeId(77),
            ..theirs(4, false).live
        },
        ..theirs(4, false)
    };
    for shown in [
        None,
        Some(theirs(3, false)),
        Some(mine(3, false)),
        // Of the generation by which it was welcomed, but not of the node that welcomed it.
        Some(mine(4, false)),
        Some(foreign),
    ] {
        let mut one = One::untold();
        one.ev(Event::ChannelDown { conn: CONN });
        let mut acts = one.drained(9);
        // It says so once, and reads again.
        for round in 0..3 {
            let req = read(&acts).expect("a read");
            let acts_of_answer = one.answer(req, Outcome::Read(shown));
            let notes = acts_of_answer.iter().filter(
                |a| matches!(a, Action::Note { text, .. } if text.contains("nothing is decided")),
            );
            assert_eq!(notes.count(), usize::from(round == 0), "{shown:?}");
            assert_eq!(one.node.role(), RoleKind::Claiming, "{shown:?}");
            assert_eq!(cas(&acts_of_answer), None);
            acts = one.wait(2000);
        }
        // Its records are back: the VM goes on with its memory.
        let req = read(&acts).expect("a read");
        let acts = one.answer(req, Outcome::Read(Some(theirs(5, true))));
        let (req, _, record) = cas(&acts).expect("a claim");
        let acts = one.answer(req, Outcome::Won(record));
        assert!(has!(acts, Action::GoLive { .. }));
    }
}

#[test]
fn a_reset_ends_a_claim_that_waits() {
    for live in [theirs(7, false).live, mine(7, false).live] {
        let mut one = One::untold();
        one.ev(Event::ChannelDown { conn: CONN });
        let req = read(&one.drained(9)).unwrap();
        one.answer(req, Outcome::Read(None));
        let req = read(&one.wait(2000)).unwrap();
        let reset = Record {
            // No life of any node.
            live: LiveName {
                incarnation: Incarnation(0),
                ..live
            },
            halted: true,
            ..theirs(7, false)
        };
        let acts = one.answer(req, Outcome::Read(Some(reset)));
        let reason = ExitReason::PeerHalted;
        assert!(
            has!(acts, Action::Exit { reason: r } if *r == reason),
            "{acts:?}"
        );
    }
}

#[test]
fn an_unknown_claim_is_repeated_and_silent() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    let (req, ..) = cas(&one.drained(9)).unwrap();
    one.answer(req, Outcome::Unknown);
    let acts = one.wait(60);
    assert_eq!(emitted(&acts), []);
    let (_, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(5), claimed(6)));
}

#[test]
fn a_lost_claim_is_discarded_and_joins_as_a_new_life() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    let (req, ..) = cas(&one.drained(9)).unwrap();
    let acts = one.answer(req, Outcome::Lost(Some(theirs(6, false))));
    assert!(has!(acts, Action::Discard));
    assert_eq!(emitted(&acts), []);
    let acts = one.wait(300);
    assert!(has!(acts, Action::Dial));
    let acts = one.up(true);
    assert!(
        matches!(sent(&acts)[..], [Message::Hello(h)] if h.incarnation == MY_LIFE.next()),
        "{acts:?}"
    );
}

#[test]
fn a_record_that_moved_on_before_the_claim_is_heeded() {
    // The answer to an earlier read comes while draining: the live node has won a drop.
    let (mut one, acts) = One::started(crate::Config::default(), 0);
    let early = read(&acts).unwrap();
    one.join();
    one.got(Message::SnapshotChunk {
        offset: 0,
        bytes: vec![],
        last: true,
    });
    one.ev(Event::Installed { session: SESSION });
    one.got(Message::Paired {
        generation: Generation(5),
    });
    one.ev(Event::ChannelDown { conn: CONN });
    one.answer(early, Outcome::Read(Some(theirs(6, false))));
    let acts = one.drained(5);
    assert_eq!(cas(&acts), None);
    assert!(has!(acts, Action::Discard));
}

/// A read of its search, answered only now, shows the record from before it was named.
#[test]
fn a_claim_outlives_late_news() {
    for told in [true, false] {
        let (mut one, acts) = One::started(Config::default(), 0);
        let late = read(&acts).expect("a first read");
        let before = Outcome::Read(Some(theirs(4, false)));
        one.follow();
        if told {
            one.got(Message::Paired {
                generation: Generation(5),
            });
        }
        one.ev(Event::ChannelDown { conn: CONN });
        let mut acts = one.drained(9);
        if !told {
            let named = Outcome::Read(Some(theirs(5, true)));
            acts = one.answer(read(&acts).unwrap(), named);
        }
        let (req, _, record) = cas(&acts).unwrap();
        let acts = one.answer(late, before);
        assert!(!has!(acts, Action::Discard), "the only machine there is");
        assert_eq!(one.node.role(), RoleKind::Claiming);
        let acts = one.answer(req, Outcome::Won(record));
        assert!(has!(acts, Action::GoLive { .. }));
    }
}

#[test]
fn a_halted_record_is_no_takeover() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    let (req, ..) = cas(&one.drained(9)).unwrap();
    let halted = Record {
        halted: true,
        ..theirs(6, false)
    };
    let acts = one.answer(req, Outcome::Lost(Some(halted)));
    let reason = ExitReason::PeerHalted;
    assert!(has!(acts, Action::Exit { reason: r } if *r == reason));
    assert!(!has!(acts, Action::GoLive { .. }));
}

#[test]
fn goodbyes() {
    let mut one = One::told();
    assert!(has!(
        one.got(Message::Goodbye(Goodbye::Claim)),
        Action::BeginDrain
    ));
    let mut one = One::told();
    let acts = one.got(Message::Goodbye(Goodbye::Halted));
    assert!(has!(
        acts,
        Action::Exit {
            reason: ExitReason::PeerHalted
        }
    ));
    let mut one = One::told();
    let acts = one.got(Message::Goodbye(Goodbye::Detached));
    assert!(has!(
        acts,
        Action::Exit {
            reason: ExitReason::Detached
        }
    ));
    let mut one = One::told();
    let acts = one.got(Message::Goodbye(Goodbye::Diverged));
    assert!(has!(acts, Action::Discard));
}

#[test]
fn a_diverged_backup_never_claims() {
    for suspected in [false, true] {
        let mut one = One::told();
        if suspected {
            one.ev(Event::ChannelDown { conn: CONN });
        }
        let detail = "output 9".into();
        let acts = one.ev(Event::Diverged { detail });
        assert!(has!(acts, Action::Discard));
        assert_eq!(one.node.role(), RoleKind::Cold);
    }
}

#[test]
fn what_does_not_belong_there_ends_the_session() {
    let log = |first, end, released| Message::Log {
        first: Position(first),
        end: Position(end),
        released: Position(released),
        batch: vec![1],
    };
    let bad = [
        log(10, 11, 7),
        log(9, 9, 7),
        log(9, 11, 12),
        Message::SnapshotChunk {
            offset: 1,
            bytes: vec![1],
            last: false,
        },
        Message::Paired {
            generation: Generation(4),
        },
        Message::Installed,
        ack(3),
    ];
    for message in bad {
        let mut one = One::told();
        let text = format!("{message:?}");
        let acts = one.got(message);
        assert!(has!(acts, Action::BeginDrain), "{text}");
        assert!(!has!(acts, Action::Store { .. }), "{text}");
    }
}

#[test]
fn half_a_snapshot_is_worth_nothing() {
    let mut one = One::joining();
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    assert!(has!(acts, Action::Discard));
    assert_eq!(one.node.role(), RoleKind::Cold);
    assert_eq!(one.node.status().session, None);
}

#[test]
fn only_our_own_life_wins() {
    // A record with our id and another life is not ours.
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    let (req, ..) = cas(&one.drained(9)).unwrap();
    let other = Record {
        live: LiveName {
            id: ME,
            incarnation: Incarnation(1),
        },
        ..claimed(6)
    };
    let acts = one.answer(req, Outcome::Lost(Some(other)));
    assert!(!has!(acts, Action::GoLive { .. }));
    assert!(has!(acts, Action::Discard));
}

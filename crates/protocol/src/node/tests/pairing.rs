//! Rules 1, 4, 5, 6, 7, 9 and 13 on a live node.

use super::harness::*;
use crate::event::{Action, Event, Progress};
use crate::message::{Message, Refusal};
use crate::record::{ConnId, Generation, Position, SessionId};
use crate::{Outcome, RoleKind};

#[test]
fn solo_outputs_leave_at_once() {
    let mut one = One::solo();
    assert_eq!(emitted(&one.output(3)), [3]);
}

#[test]
fn a_paired_output_waits_for_the_ack_of_its_own_record() {
    let mut one = One::paired();
    assert_eq!(emitted(&one.output(12)), []);
    one.flushed(10, 12);
    assert_eq!(emitted(&one.got(ack(11))), []);
    assert_eq!(emitted(&one.got(ack(12))), [12]);
}

#[test]
fn the_next_frame_tells_what_has_left() {
    let mut one = One::paired();
    one.output(12);
    one.flushed(10, 12);
    one.got(ack(12));
    one.output(13);
    let acts = one.flushed(12, 13);
    let [Message::Log { released, .. }] = sent(&acts)[..] else {
        panic!("{acts:?}");
    };
    assert_eq!(*released, Position(12));
}

#[test]
fn acks_of_what_was_never_sent_end_the_session() {
    let mut one = One::paired();
    one.output(12);
    let acts = one.got(ack(12));
    assert_eq!(emitted(&acts), []);
    assert!(has!(acts, Action::Close { conn: CONN, .. }));
    assert!(cas(&acts).is_some());
}

#[test]
fn acks_from_elsewhere_do_not_count() {
    let mut one = One::paired();
    one.output(12);
    one.flushed(10, 12);
    let conn = ConnId(99);
    one.ev(Event::ChannelUp {
        conn,
        dialed: false,
        nonce: 5,
    });
    let message = ack(12);
    let acts = one.ev(Event::Received { conn, message });
    assert_eq!(emitted(&acts), []);
    assert!(has!(
        acts,
        Action::Close {
            conn: ConnId(99),
            ..
        }
    ));
}

#[test]
fn acks_after_the_session_do_not_count() {
    let mut one = One::paired();
    one.output(12);
    one.flushed(10, 12);
    one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(emitted(&one.got(ack(12))), []);
}

#[test]
fn pairing_asks_only_after_the_ack_of_p() {
    let (mut one, req) = One::probing();
    // Until the gate is on, outputs leave.
    assert_eq!(emitted(&one.output(11)), [11]);
    one.flushed(9, 11);
    let acts = one.answer(req, Outcome::Read(Some(mine(1, false))));
    assert_eq!(cas(&acts), None);
    // From now on they wait, those below p have left already.
    assert_eq!(emitted(&one.output(12)), []);
    assert_eq!(cas(&one.got(ack(10))), None);
    let acts = one.got(ack(11));
    assert!(cas(&acts).is_some());
}

#[test]
fn gated_outputs_leave_by_ack_before_the_cas_is_out() {
    let mut one = One::gate_on();
    one.flushed(9, 10);
    one.output(11);
    one.flushed(10, 11);
    // This ack covers both p and the output: the output leaves, then the CAS goes out.
    let acts = one.got(ack(11));
    assert_eq!(emitted(&acts), [11]);
    assert!(cas(&acts).is_some());
}

#[test]
fn no_cas_before_the_snapshot_is_installed_and_replay_is_close() {
    let mut one = One::snapshot_sent();
    assert_eq!(read(&one.behind(Some(0))), None, "not installed");
    one.behind(None);
    assert_eq!(read(&one.got(Message::Installed)), None);
    assert_eq!(read(&one.got(ack(9))), None, "of unknown speed");
    assert_eq!(read(&one.behind(Some(1_000_001))), None, "more than 100 ms");
    assert!(read(&one.behind(Some(1_000_000))).is_some(), "100 ms");
}

#[test]
fn a_joiner_that_has_executed_all_is_close_however_slow_it_is() {
    let mut one = One::snapshot_sent();
    one.behind(Some(u64::MAX));
    one.got(Message::Installed);
    one.flushed(9, 10);
    let level = |position| Message::Ack {
        received: Position(10),
        emitted: Position(0),
        progress: Progress {
            position: Position(position),
            ..Progress::default()
        },
    };
    assert_eq!(read(&one.got(level(9))), None);
    assert!(read(&one.got(level(10))).is_some());
}

#[test]
fn a_joiner_that_falls_behind_while_the_arbiter_is_asked_is_waited_for_once_more() {
    let (mut one, req) = One::probing();
    one.behind(Some(5_000_000));
    let shown = || Outcome::Read(Some(mine(1, false)));
    let acts = one.answer(req, shown());
    assert_eq!((cas(&acts), read(&acts)), (None, None));
    // The gate stays off.
    assert_eq!(emitted(&one.output(11)), [11]);
    one.flushed(9, 11);
    let acts = one.got(ack(10));
    assert_eq!((cas(&acts), read(&acts)), (None, None));
    let req = read(&one.behind(Some(0))).expect("another probe");
    one.output(12);
    let acts = one.answer(req, shown());
    assert_eq!(cas(&acts), None, "the gate is on, at 12");
    one.flushed(11, 12);
    assert!(cas(&one.got(ack(12))).is_some());
}

impl One {
    /// The joiner is so far behind.
    fn behind(&mut self, joiner_lag: Option<u64>) -> Acts {
        self.ev(Event::Progress {
            progress: Progress {
                icount: 10,
                position: Position(10),
                vtime: 0,
            },
            beat: 2,
            joiner_lag,
        })
    }
}

#[test]
fn an_arbiter_that_does_not_answer_cannot_hold_a_solo_vm() {
    let (mut one, req) = One::probing();
    one.answer(req, Outcome::Unknown);
    assert_eq!(emitted(&one.output(11)), [11]);
    // Asked again, and again if it is silent; the joiner keeps its session.
    let mut reads = 0;
    for _ in 0..100 {
        let acts = one.wait(100);
        reads += usize::from(read(&acts).is_some());
        one.got(ack(9));
    }
    assert!((2..20).contains(&reads), "{reads}");
}

#[test]
fn nothing_leaves_while_the_pairing_cas_is_out() {
    let (mut one, req) = One::pairing_cas();
    one.output(12);
    one.flushed(10, 12);
    assert_eq!(emitted(&one.got(ack(12))), []);
    let acts = one.answer(req, Outcome::Won(mine(2, true)));
    assert_eq!(emitted(&acts), [12]);
}

#[test]
fn unknown_is_asked_again_with_the_same_content() {
    let (mut one, mut req) = One::pairing_cas();
    one.output(12);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let acts = one.answer(req, Outcome::Unknown);
        assert_eq!(emitted(&acts), []);
        let since = one.ms;
        let (next, expect, record) = loop {
            let acts = one.wait(10);
            assert_eq!(emitted(&acts), []);
            one.got(ack(10));
            if let Some(found) = cas(&acts) {
                break found;
            }
        };
        assert_eq!((expect, record), (Generation(1), mine(2, true)));
        assert_ne!(next, req);
        pauses.push(one.ms - since);
        req = next;
    }
    assert!(
        pauses[0] <= 60 && pauses[9] <= 2010 && pauses[9] > 1000,
        "{pauses:?}"
    );
}

#[test]
fn a_lost_answer_that_shows_our_record_is_a_win() {
    let (mut one, req) = One::pairing_cas();
    one.answer(req, Outcome::Lost(Some(mine(2, true))));
    assert!(one.node.status().protected);
}

#[test]
fn a_record_that_still_shows_g_settles_nothing() {
    let (mut one, req) = One::pairing_cas();
    one.output(12);
    let acts = one.answer(req, Outcome::Lost(Some(mine(1, false))));
    assert_eq!(emitted(&acts), []);
    assert!(!one.node.status().protected);
    one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(emitted(&one.wait(1000)), []);
}

#[test]
fn suspicion_before_the_pairing_cas_turns_the_gate_off() {
    let mut one = One::gate_on();
    assert_eq!(emitted(&one.output(12)), []);
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(emitted(&acts), [12]);
    assert_eq!(cas(&acts), None);
    assert!(has!(acts, Action::EndSession { session: SESSION }));
}

#[test]
fn suspicion_after_the_pairing_cas_takes_a_won_drop() {
    let (mut one, pairing) = One::pairing_cas();
    one.output(12);
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(emitted(&acts), []);
    let (drop, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(1), mine(2, false)));
    // The old CAS landed first; its answer is late but a fact. Raise it once more.
    let acts = one.answer(pairing, Outcome::Won(mine(2, true)));
    assert_eq!(emitted(&acts), []);
    let (again, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(2), mine(3, false)));
    assert_eq!(
        emitted(&one.answer(drop, Outcome::Lost(Some(mine(2, true))))),
        []
    );
    assert_eq!(
        emitted(&one.answer(again, Outcome::Won(mine(3, false)))),
        [12]
    );
}

#[test]
fn a_drop_that_wins_ends_the_pairing_cas() {
    let (mut one, pairing) = One::pairing_cas();
    one.output(12);
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    let (drop, ..) = cas(&acts).unwrap();
    assert_eq!(
        emitted(&one.answer(drop, Outcome::Won(mine(2, false)))),
        [12]
    );
    let acts = one.answer(pairing, Outcome::Lost(Some(mine(2, false))));
    assert!(acts.is_empty(), "{acts:?}");
}

#[test]
fn a_paired_node_that_suspects_accepts_no_join_before_the_drop() {
    let mut one = One::paired();
    one.output(12);
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    let (req, ..) = cas(&acts).unwrap();
    let conn = ConnId(8);
    let nonce = 88;
    let up = Event::ChannelUp {
        conn,
        dialed: false,
        nonce,
    };
    one.ev(up.clone());
    let message = hello(RoleKind::Cold, 2, None);
    let acts = one.ev(Event::Received { conn, message });
    assert!(sent(&acts).contains(&&Message::Refuse(Refusal::Busy)));
    assert_eq!(
        emitted(&one.answer(req, Outcome::Won(mine(3, false)))),
        [12]
    );
    one.ev(up);
    let message = hello(RoleKind::Cold, 2, None);
    let acts = one.ev(Event::Received { conn, message });
    let session = SessionId(nonce);
    assert!(has!(acts, Action::TakeSnapshot { session: s } if *s == session));
}

#[test]
fn a_backup_that_calls_anew_has_lost_its_session() {
    let mut one = One::paired();
    let conn = ConnId(8);
    one.ev(Event::ChannelUp {
        conn,
        dialed: false,
        nonce: 88,
    });
    let message = hello(RoleKind::Cold, 2, None);
    let acts = one.ev(Event::Received { conn, message });
    assert!(has!(acts, Action::Close { conn: CONN, .. }));
    assert!(cas(&acts).is_some());
}

#[test]
fn silence_is_suspected() {
    let mut one = One::paired();
    assert!(cas(&one.wait(290)).is_none());
    assert!(cas(&one.wait(20)).is_some());
}

#[test]
fn a_backup_that_executes_nothing_is_dropped() {
    let mut one = One::paired();
    one.flushed(10, 12);
    let mut suspected_after = 0;
    for _ in 0..60 {
        let acts = one.wait(100);
        suspected_after += 100;
        if cas(&acts).is_some() {
            break;
        }
        // It stores, but stays at 10.
        one.got(Message::Ack {
            received: Position(12),
            emitted: Position(0),
            progress: Progress {
                icount: 10,
                position: Position(10),
                vtime: 0,
            },
        });
    }
    assert!(
        (4900..=5200).contains(&suspected_after),
        "{suspected_after}"
    );
}

#[test]
fn an_idle_backup_is_not_dropped_and_the_arbiter_is_left_alone() {
    let mut one = One::paired();
    for _ in 0..200 {
        let acts = one.wait(100);
        assert!(read(&acts).is_none() && cas(&acts).is_none());
        assert!(
            sent(&acts)
                .iter()
                .any(|m| matches!(m, Message::Heartbeat { .. }))
        );
        one.got(ack(10));
    }
    assert!(one.node.status().protected);
    let mut one = One::solo();
    let acts = one.wait(60_000);
    assert!(acts.is_empty(), "{acts:?}");
}

#[test]
fn the_loser_freezes_and_emits_nothing() {
    let (mut one, acts) = One::lost();
    assert_eq!(emitted(&acts), []);
    assert!(has!(acts, Action::Freeze));
    assert_eq!(one.node.role(), RoleKind::Frozen);
    assert_eq!(emitted(&one.output(13)), []);
    assert_eq!(emitted(&one.wait(5000)), []);
}

#[test]
fn the_losers_vm_is_kept_until_the_winners_snapshot() {
    let (mut one, _) = One::lost();
    let acts = one.wait(500);
    assert!(has!(acts, Action::Dial));
    assert!(!has!(acts, Action::Discard));
    let acts = one.up(true);
    let [Message::Hello(hello)] = sent(&acts)[..] else {
        panic!("{acts:?}");
    };
    assert_eq!(hello.incarnation, MY_LIFE.next());
    one.ev(Event::ChannelDown { conn: CONN });
    one.wait(500);
    let acts = one.join();
    let place = |test: fn(&Action<u32>) -> bool| acts.iter().position(test);
    let discard = place(|a| matches!(a, Action::Discard)).expect("a discard");
    assert!(Some(discard) < place(|a| matches!(a, Action::BeginInstall { .. })));
}

#[test]
fn divergence_sends_the_backup_away() {
    let mut one = One::paired();
    one.output(12);
    let detail = "hart 0 x5".into();
    let acts = one.ev(Event::Diverged { detail });
    assert_eq!(emitted(&acts), []);
    assert!(has!(acts, Action::Close { conn: CONN, .. }));
    assert!(cas(&acts).is_some());
}

#[test]
fn a_violated_invariant_takes_everything_back() {
    let mut one = One::paired();
    one.output(12);
    one.flushed(10, 12);
    // A batch out of order is the driver's fault.
    let acts = one.flushed(10, 12);
    assert!(matches!(acts[..], [Action::Fatal { .. }]), "{acts:?}");
    assert!(one.got(ack(12)).is_empty());
}

#[test]
fn a_gate_that_was_left_open_is_found() {
    let mut one = One::paired();
    if let crate::node::Role::Live(live) = &mut one.node.role {
        live.gate.raise_released(Position(11));
    }
    let acts = one.ev(Event::Tick);
    assert!(has!(acts, Action::Fatal { what } if what.contains("before the backup acked")));
}

#[test]
fn a_full_gate_stalls_execution_and_drops_nothing() {
    let mut one = One::paired();
    let count = crate::gate::GATE_MAX_ITEMS as u64;
    for i in 0..count {
        assert!(!one.node.execution_must_wait());
        one.output(11 + i);
    }
    assert!(one.node.execution_must_wait());
    one.output(11 + count);
    one.flushed(10, 11 + count);
    let acts = one.got(ack(11 + count));
    assert_eq!(emitted(&acts).len() as u64, count + 1);
    assert!(!one.node.execution_must_wait());
}

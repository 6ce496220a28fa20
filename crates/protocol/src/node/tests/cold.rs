//! Rules 2 and 10: who may start.

use super::harness::*;
use crate::event::{Action, Event};
use crate::message::Message;
use crate::record::{Generation, Incarnation, NodeId, Record, SessionId};
use crate::{Config, NoteLevel, Outcome, RoleKind};

fn with_record(own: u64, record: Option<Record>, config: Config) -> (One, Acts) {
    let (mut one, acts) = One::started(config, own);
    let acts = one.answer(read(&acts).unwrap(), Outcome::Read(record));
    (one, acts)
}

/// A record by an earlier life of this node.
fn earlier(backup: bool) -> Record {
    let mut record = mine(3, backup);
    record.live.incarnation = Incarnation(1);
    record
}

/// Reaches the peer, which says what it is.
fn ask_peer(one: &mut One, role: RoleKind, generation: u64, holds: Option<SessionId>) -> Acts {
    one.up(true);
    one.got(hello(role, generation, holds))
}

#[test]
fn every_start_is_a_won_cas() {
    let (mut one, acts) = with_record(3, Some(earlier(false)), Config::default());
    assert!(!has!(acts, Action::ColdStart { .. }));
    let (req, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(3), mine(4, false)));
    let acts = one.answer(req, Outcome::Won(record));
    let generation = Generation(4);
    assert!(has!(acts, Action::ColdStart { generation: g } if *g == generation));
    assert!(has!(acts, Action::PersistGeneration { .. }));
}

#[test]
fn the_first_start_asks_the_peer_first() {
    let (mut one, acts) = with_record(0, None, Config::default());
    assert_eq!(cas(&acts), None);
    let acts = ask_peer(&mut one, RoleKind::Cold, 0, None);
    assert!(cas(&acts).is_some());
}

#[test]
fn two_fresh_nodes_and_one_record() {
    let (mut one, _) = with_record(0, None, Config::default());
    let acts = ask_peer(&mut one, RoleKind::Cold, 0, None);
    let (req, ..) = cas(&acts).unwrap();
    let acts = one.answer(req, Outcome::Lost(Some(theirs(1, false))));
    assert!(!has!(acts, Action::ColdStart { .. }));
    one.ev(Event::ChannelDown { conn: CONN });
    assert!(has!(one.wait(300), Action::Dial));
}

#[test]
fn a_lost_record_is_trusted_by_fresh_nodes_only() {
    let (mut one, acts) = with_record(3, None, Config::default());
    assert!(has!(acts, Action::Note { level: NoteLevel::Error, text } if text.contains('3')));
    assert_eq!(cas(&one.wait(60_000)), None);
    // It may still join a live peer.
    assert!(has!(one.wait(4000), Action::Dial));
    one.join();

    let (mut one, _) = with_record(0, None, Config::default());
    let acts = ask_peer(&mut one, RoleKind::Cold, 3, None);
    assert_eq!(cas(&acts), None);
    assert_eq!(cas(&one.wait(1990)), None);
}

#[test]
fn the_id_not_named_never_starts() {
    let config = Config {
        cold_delay_ms: Some(100),
        ..Config::default()
    };
    for backup in [false, true] {
        let (mut one, _) = with_record(0, Some(theirs(3, backup)), config);
        assert_eq!(
            one.node.status().note,
            format!(
                "waiting to join node you (id {PEER}), which was live last: start it if it \
                 doesn't run"
            )
        );
        let acts = ask_peer(&mut one, RoleKind::Cold, 3, None);
        assert_eq!(cas(&acts), None);
        assert_eq!(cas(&one.wait(1000)), None);
    }
}

#[test]
fn another_protocol_is_told_once_however_often_it_is_heard() {
    let (mut one, acts) = with_record(3, Some(theirs(3, false)), Config::default());
    let mut req = read(&acts);
    let mut told = 0;
    for _ in 0..5 {
        one.up(true);
        let Message::Hello(mut other) = hello(RoleKind::Live, 3, None) else {
            unreachable!()
        };
        other.version += 1;
        let mut acts = one.got(Message::Hello(other));
        // What it says between two attempts, when it has read the record.
        acts.extend(one.wait(6000));
        req = read(&acts).or(req);
        if let Some(req) = req.take() {
            acts.extend(one.answer(req, Outcome::Read(Some(theirs(3, false)))));
        }
        told += acts
            .iter()
            .filter(|act| {
                matches!(
                    act,
                    Action::Note {
                        level: NoteLevel::Error,
                        ..
                    }
                )
            })
            .count();
        let note = one.node.status().note;
        assert!(note.ends_with("run the same version"), "{note}");
    }
    assert_eq!(told, 1);
}

#[test]
fn a_node_that_stays_out_dials_nobody_and_says_why_it_waits() {
    let record = theirs(3, false);
    let (mut one, _) = with_record(3, Some(record), Config::default());
    one.node.stay_out(Some("the disk fails: mend it".into()));
    let later = |one: &mut One| {
        let mut all = Vec::new();
        for _ in 0..20 {
            let acts = one.wait(500);
            if let Some(req) = read(&acts) {
                all.extend(one.answer(req, Outcome::Read(Some(record))));
            }
            all.extend(acts);
        }
        all
    };
    let acts = later(&mut one);
    assert!(!has!(acts, Action::Dial | Action::Note { .. }), "{acts:?}");
    assert_eq!(one.node.status().note, "the disk fails: mend it");
    one.node.stay_out(None);
    assert!(has!(later(&mut one), Action::Dial));
    assert!(one.node.status().note.contains("waiting to join"));
}

/// The state folder that the record names is gone: no start of either node mends that.
#[test]
fn an_id_that_is_neither_nodes_is_told_with_the_mend() {
    let mut lost = theirs(3, false);
    lost.live.id = NodeId(9);
    let (mut one, _) = with_record(3, Some(lost), Config::default());
    let note = |one: &One| one.node.status().note;
    assert!(note(&one).contains("start it if it"), "{}", note(&one));
    assert_eq!(cas(&ask_peer(&mut one, RoleKind::Cold, 3, None)), None);
    assert_eq!(
        note(&one),
        format!(
            "waiting: the id named live, {}, is neither this node's nor that of node you: bring \
             its state folder back, or let one begin anew (twinvm arbiter reset)",
            NodeId(9)
        )
    );
}

#[test]
fn a_named_backup_is_asked_first() {
    // It holds the session: wait for its claim.
    let (mut one, acts) = with_record(3, Some(earlier(true)), Config::default());
    assert_eq!(cas(&acts), None);
    assert_eq!(
        one.node.status().note,
        format!(
            "waiting for ever for the backup, node you (id {PEER}), which may hold a newer \
             state: start it if it doesn't run, or set cold_delay_ms in [protect]"
        )
    );
    let acts = ask_peer(&mut one, RoleKind::Claiming, 3, Some(SESSION));
    assert_eq!(cas(&acts), None);
    assert!(has!(acts, Action::Note { text, .. } if text.contains("will claim")));

    // It holds another session, or none: start.
    for holds in [None, Some(SessionId(1))] {
        let (mut one, _) = with_record(3, Some(earlier(true)), Config::default());
        let acts = ask_peer(&mut one, RoleKind::Cold, 3, holds);
        let (_, expect, record) = cas(&acts).unwrap();
        assert_eq!((expect, record), (Generation(3), mine(4, false)));
    }

    // It is live: join.
    let (mut one, _) = with_record(3, Some(earlier(true)), Config::default());
    let acts = ask_peer(&mut one, RoleKind::Live, 4, None);
    assert_eq!(cas(&acts), None);
    let acts = one.got(Message::Welcome {
        session: SessionId(5),
        generation: Generation(4),
    });
    assert!(!has!(acts, Action::Close { .. }));
}

#[test]
fn only_the_named_backup_can_say_that_it_holds_nothing() {
    let mut record = earlier(true);
    if let Some(backup) = &mut record.backup {
        backup.id = NodeId(9);
    }
    let (mut one, _) = with_record(3, Some(record), Config::default());
    let acts = ask_peer(&mut one, RoleKind::Cold, 3, None);
    assert_eq!(cas(&acts), None);
}

#[test]
fn an_unreachable_backup_is_waited_for() {
    let (mut one, _) = with_record(3, Some(earlier(true)), Config::default());
    let mut acts = Vec::new();
    for _ in 0..100 {
        acts.extend(one.wait(100));
        acts.extend(one.ev(Event::DialFailed));
    }
    assert_eq!(cas(&acts), None);
    assert!(one.node.status().note.contains("for ever"));

    let config = Config {
        cold_delay_ms: Some(5000),
        ..Config::default()
    };
    let (mut one, _) = with_record(3, Some(earlier(true)), config);
    assert_eq!(cas(&one.wait(4900)), None);
    assert!(cas(&one.wait(200)).is_some());
}

#[test]
fn a_backup_that_dies_before_it_claims_is_unreachable() {
    let config = Config {
        cold_delay_ms: Some(10_000),
        ..Config::default()
    };
    let (mut one, _) = with_record(3, Some(earlier(true)), config);
    one.wait(8000);
    let acts = ask_peer(&mut one, RoleKind::Backup, 3, Some(SESSION));
    assert_eq!(cas(&acts), None);
    // Answering, it was reached: the delay begins again.
    assert_eq!(cas(&one.wait(9900)), None);
    assert!(one.node.status().note.contains("waiting up to"));
    assert!(cas(&one.wait(200)).is_some());

    // However short the delay, a backup that is there gets the time to answer again.
    let config = Config {
        cold_delay_ms: Some(50),
        ..Config::default()
    };
    let (mut one, _) = with_record(3, Some(earlier(true)), config);
    for _ in 0..10 {
        let acts = ask_peer(&mut one, RoleKind::Claiming, 3, Some(SESSION));
        assert_eq!(cas(&acts), None);
        assert_eq!(cas(&one.wait(5000)), None);
    }
    assert!(cas(&one.wait(300)).is_some());
}

#[test]
fn a_record_from_before_what_is_known_decides_nothing() {
    // From an arbiter that was put back, or an answer that took its time.
    let (mut one, acts) = with_record(5, Some(earlier(false)), Config::default());
    assert_eq!(cas(&acts), None);
    assert!(one.node.status().note.contains("generation 3"));
    let req = read(&one.wait(2100)).expect("a second read");
    let mut record = earlier(false);
    record.generation = Generation(5);
    let acts = one.answer(req, Outcome::Read(Some(record)));
    assert!(matches!(cas(&acts), Some((_, Generation(5), _))));
}

#[test]
fn a_halted_vm_is_started_by_the_id_named_live() {
    let halted = Record {
        halted: true,
        ..earlier(false)
    };
    let (_, acts) = with_record(3, Some(halted), Config::default());
    assert!(matches!(cas(&acts), Some((_, _, r)) if !r.halted));
}

#[test]
fn a_waiting_joiner_looks_at_the_record_again() {
    let (mut one, _) = with_record(0, Some(theirs(3, false)), Config::default());
    let acts = one.wait(2100);
    let req = read(&acts).expect("a second read");
    // An operator has named this node live.
    let mut record = earlier(false);
    record.generation = Generation(4);
    let acts = one.answer(req, Outcome::Read(Some(record)));
    assert!(matches!(cas(&acts), Some((_, Generation(4), _))));
}

#[test]
fn no_joining_while_a_start_may_land() {
    let (mut one, acts) = with_record(3, Some(earlier(false)), Config::default());
    let (req, ..) = cas(&acts).unwrap();
    one.up(true);
    one.got(hello(RoleKind::Live, 9, None));
    let acts = one.got(Message::Welcome {
        session: SESSION,
        generation: Generation(9),
    });
    assert!(!has!(acts, Action::BeginInstall { .. }));
    one.answer(req, Outcome::Unknown);
    let (_, expect, _) = cas(&one.wait(60)).unwrap();
    assert_eq!(expect, Generation(3));
}

#[test]
fn nobody_joins_a_node_that_the_record_has_left_behind() {
    let (mut one, _) = with_record(0, Some(theirs(6, false)), Config::default());
    one.up(true);
    one.got(hello(RoleKind::Live, 4, None));
    let acts = one.got(Message::Welcome {
        session: SESSION,
        generation: Generation(4),
    });
    assert!(has!(acts, Action::Close { conn: CONN, .. }));
}

#[test]
fn a_silent_arbiter_is_asked_for_ever_but_not_often() {
    let (mut one, _) = One::started(Config::default(), 0);
    let mut reads = 0;
    for _ in 0..600 {
        reads += usize::from(read(&one.wait(100)).is_some());
    }
    assert!((10..40).contains(&reads), "{reads}");
    assert!(one.node.status().note.contains("arbiter does not answer"));
}

#[test]
fn deadlines_do_not_spin() {
    let config = Config {
        cold_delay_ms: Some(50),
        ..Config::default()
    };
    let (mut one, _) = with_record(3, Some(earlier(true)), config);
    ask_peer(&mut one, RoleKind::Backup, 3, Some(SESSION));
    for _ in 0..2000 {
        one.wait(10);
        let deadline = one.node.next_deadline().unwrap();
        assert!(
            deadline > crate::Instant::from_millis(one.ms),
            "at {}",
            one.ms
        );
    }
}

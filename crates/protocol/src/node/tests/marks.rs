//! Rules 10 and 11 with disks: marks are durable before what they are for, and only the copy that
//! the record means is started.

use super::harness::*;
use crate::disks::DiskMark;
use crate::event::{Action, Event};
use crate::message::Message;
use crate::record::{Generation, Incarnation, Position, Record, SessionId};
use crate::{Config, Outcome, RoleKind};

fn mark(generation: u64, pending: Option<u64>, consistent: bool) -> DiskMark {
    DiskMark {
        has_disks: true,
        generation: Generation(generation),
        pending: pending.map(Generation),
        consistent,
    }
}

/// What the order of actions is about: marks, and what they are for.
fn order(acts: &Acts) -> Vec<String> {
    let words = acts.iter().filter_map(|act| match act {
        Action::MarkDisks { mark } => Some(match (mark.pending, mark.consistent) {
            (_, false) => "half".into(),
            (Some(pending), _) => format!("{} or {pending}", mark.generation),
            (None, _) => format!("{}", mark.generation),
        }),
        Action::PersistGeneration { generation } => Some(format!("learn {generation}")),
        Action::ArbiterCas { expect, .. } => Some(format!("cas {expect}")),
        Action::ColdStart { .. } => Some("start".into()),
        Action::GoLive { .. } => Some("go live".into()),
        Action::BeginInstall { .. } => Some("install".into()),
        Action::Send {
            message: Message::Installed,
            ..
        } => Some("installed".into()),
        Action::Send {
            message: Message::Paired { .. },
            ..
        } => Some("told".into()),
        _ => None,
    });
    words.collect()
}

fn read_with(own: u64, disks: DiskMark, record: Option<Record>) -> (One, Acts) {
    let (mut one, acts) = One::started_with(Config::default(), own, disks);
    let acts = one.answer(read(&acts).unwrap(), Outcome::Read(record));
    (one, acts)
}

/// A record by an earlier life of this node.
fn earlier(generation: u64) -> Record {
    let mut record = mine(generation, false);
    record.live.incarnation = Incarnation(1);
    record
}

#[test]
fn a_start_is_marked_before_and_after() {
    let (mut one, acts) = read_with(3, mark(3, None, true), Some(earlier(3)));
    assert_eq!(order(&acts), ["3 or 4", "cas 3"]);
    let (req, _, record) = cas(&acts).unwrap();
    let acts = one.answer(req, Outcome::Won(record));
    assert_eq!(order(&acts), ["learn 4", "4", "start"]);
}

#[test]
fn a_crash_between_the_mark_and_the_cas_or_behind_it() {
    // The CAS didn't land: the record is still the old one.
    let (_, acts) = read_with(3, mark(3, Some(4), true), Some(earlier(3)));
    assert_eq!(order(&acts), ["cas 3"]);
    // It did.
    let (_, acts) = read_with(3, mark(3, Some(4), true), Some(earlier(4)));
    assert_eq!(order(&acts), ["learn 4", "4 or 5", "cas 4"]);
}

#[test]
fn another_copy_than_the_records_is_not_started() {
    for disks in [
        mark(2, None, true),
        mark(1, Some(2), true),
        mark(4, None, true),
        mark(3, None, false),
    ] {
        let (mut one, acts) = read_with(3, disks, Some(earlier(3)));
        assert_eq!(order(&acts), [""; 0], "{disks}");
        assert_eq!(cas(&one.wait(60_000)), None);
        let note = one.node.status().note;
        assert!(note.contains(&disks.to_string()), "{note}");
        assert!(note.contains("--force"), "{note}");
    }
}

#[test]
fn whose_copy_is_newer_is_said() {
    let (mut one, _) = read_with(5, mark(3, None, true), Some(earlier(5)));
    assert!(one.node.status().note.contains("not known"));
    one.up(true);
    let Message::Hello(mut peer) = hello(RoleKind::Cold, 5, None) else {
        unreachable!("it is a hello")
    };
    peer.disks = mark(4, None, true);
    one.got(Message::Hello(peer));
    let note = one.node.status().note;
    assert!(
        note.contains("the newest copy is that of node you"),
        "{note}"
    );
    assert!(note.contains("disks of generation 4"), "{note}");
}

#[test]
fn an_absent_record_is_trusted_by_fresh_disks_only() {
    let (mut one, _) = read_with(0, mark(2, None, true), None);
    assert_eq!(cas(&one.wait(5000)), None);
    // Files that are not there yet are no disks to start from.
    let (mut one, _) = read_with(0, mark(0, None, false), None);
    assert_eq!(cas(&one.wait(5000)), None);
    let (mut one, _) = read_with(0, DiskMark::FRESH, None);
    assert_eq!(order(&one.wait(1100)), ["0 or 1", "cas 0"]);
}

#[test]
fn a_joiner_is_half_overwritten_until_all_is_durable() {
    let (mut one, _) = read_with(3, mark(3, Some(4), true), Some(theirs(4, false)));
    // The record says that the CAS to 4 came to nothing.
    assert_eq!(one.node.disks(), mark(3, None, true));
    one.up(true);
    one.got(hello(RoleKind::Live, 4, None));
    one.got(Message::Welcome {
        session: SESSION,
        generation: Generation(4),
    });
    let acts = one.got(Message::SnapshotBegin {
        position: Position(10),
    });
    assert_eq!(order(&acts), ["half", "install"]);
    one.got(Message::SnapshotChunk {
        offset: 0,
        bytes: vec![1],
        last: true,
    });
    let acts = one.ev(Event::Installed { session: SESSION });
    // No record names it, so its copy is of none that is newer.
    assert_eq!(order(&acts), ["3", "installed"]);
    let acts = one.got(Message::Paired {
        generation: Generation(5),
    });
    assert_eq!(order(&acts), ["learn 5", "5"]);
    // A claim: by 5, to 6.
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(order(&acts), [""; 0]);
    let acts = one.ev(Event::Drained {
        position: Position(10),
    });
    assert_eq!(order(&acts), ["5 or 6", "cas 5"]);
    let (req, ..) = cas(&acts).unwrap();
    let acts = one.answer(req, Outcome::Won(mine(6, false)));
    assert_eq!(order(&acts), ["learn 6", "6", "go live"]);
}

#[test]
fn a_joiner_that_gets_nothing_keeps_its_copy() {
    let (mut one, _) = read_with(3, mark(3, None, true), Some(theirs(4, false)));
    one.up(true);
    one.got(hello(RoleKind::Live, 4, None));
    one.got(Message::Welcome {
        session: SESSION,
        generation: Generation(4),
    });
    // What the live node asks and says of its disks changes nothing here.
    let acts = one.got(Message::Side { bytes: vec![1] });
    assert_eq!(order(&acts), [""; 0]);
    let acts = one.ev(Event::Overwriting {
        session: SessionId(SESSION.0 + 1),
    });
    assert_eq!(order(&acts), [""; 0]);
    assert_eq!(one.node.disks(), mark(3, None, true));
    let session = SESSION;
    assert_eq!(order(&one.ev(Event::Overwriting { session })), ["half"]);
    assert_eq!(order(&one.ev(Event::Overwriting { session })), [""; 0]);
    one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(one.node.disks(), mark(3, None, false));
}

#[test]
fn a_joiner_that_is_left_stays_half() {
    let (mut one, _) = read_with(3, mark(3, None, true), Some(theirs(4, false)));
    one.join();
    assert_eq!(one.node.disks(), mark(3, None, false));
    one.ev(Event::ChannelDown { conn: CONN });
    assert_eq!(one.node.role(), RoleKind::Cold);
    assert_eq!(one.node.disks(), mark(3, None, false));
}

#[test]
fn nodes_without_disks_mark_nothing() {
    let mut one = One::paired();
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    let (req, _, record) = cas(&acts).unwrap();
    let after = one.answer(req, Outcome::Won(record));
    assert!(!has!(acts, Action::MarkDisks { .. }));
    assert!(!has!(after, Action::MarkDisks { .. }));
}

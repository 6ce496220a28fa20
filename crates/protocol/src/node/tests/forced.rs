//! Rule 15: a start that a person answers for.

use super::harness::*;
use crate::disks::DiskMark;
use crate::event::{Action, Event};
use crate::force::Force;
use crate::record::{Generation, Record};
use crate::{Config, NoteLevel, Outcome, RoleKind};

fn stale(consistent: bool) -> DiskMark {
    DiskMark {
        has_disks: true,
        generation: Generation(3),
        pending: None,
        consistent,
    }
}

fn forced(own: u64, disks: DiskMark, record: Option<Record>) -> (One, Acts) {
    let (mut one, acts) = One::started_with(Config::default(), own, disks);
    let shown = record.map_or(Generation(0), |r| r.generation);
    let force = Force {
        shown,
        ..Force::default()
    };
    assert_eq!(cas(&one.ev(Event::Force(force))), None);
    let acts = one.answer(read(&acts).unwrap(), Outcome::Read(record));
    (one, acts)
}

#[test]
fn a_forced_start_waits_for_an_answer_and_is_a_won_cas() {
    let (mut one, acts) = forced(5, stale(true), Some(theirs(5, true)));
    assert_eq!(cas(&acts), None);
    one.ev(Event::DialFailed);
    assert_eq!(cas(&one.wait(900)), None);
    let acts = one.wait(200);
    let marked = acts.iter().position(|a| {
        matches!(a, Action::MarkDisks { mark } if mark.pending == Some(Generation(6))
            && mark.generation == Generation(3))
    });
    let sent = acts
        .iter()
        .position(|a| matches!(a, Action::ArbiterCas { .. }));
    assert!(marked.is_some() && marked < sent, "{acts:?}");
    let (req, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(5), mine(6, false)));
    let acts = one.answer(req, Outcome::Won(record));
    assert!(has!(acts, Action::ColdStart { .. }));
    assert_eq!(one.node.disks().generation, Generation(6));
}

#[test]
fn its_deadline_comes_by_itself() {
    let (one, _) = forced(5, stale(true), Some(theirs(5, true)));
    let due = one.node.next_deadline().unwrap();
    assert!(due.micros() <= 2_000_000, "{due:?}");
}

#[test]
fn a_peer_that_answers_ends_it() {
    for (role, holds) in [(RoleKind::Cold, None), (RoleKind::Backup, Some(SESSION))] {
        let (mut one, _) = forced(5, stale(true), Some(theirs(5, true)));
        one.up(true);
        let acts = one.got(hello(role, 5, holds));
        assert!(
            has!(acts, Action::Note { level: NoteLevel::Error, text } if text.contains("not off"))
        );
        assert_eq!(cas(&one.wait(5000)), None);
    }
}

#[test]
fn somebody_faster_ends_it() {
    let (mut one, _) = forced(5, stale(true), Some(theirs(5, true)));
    let (req, ..) = cas(&one.wait(1100)).unwrap();
    let acts = one.answer(req, Outcome::Lost(Some(theirs(6, false))));
    assert_eq!(cas(&acts), None);
    assert_eq!(cas(&one.wait(5000)), None);
    assert_eq!(one.node.disks(), stale(true));
}

#[test]
fn half_a_copy_and_a_lost_record_are_refused() {
    let (mut one, acts) = forced(5, stale(false), Some(theirs(5, true)));
    assert!(has!(acts, Action::Note { level: NoteLevel::Error, text } if text.contains("half")));
    assert_eq!(cas(&one.wait(5000)), None);
    for lost in [None, Some(theirs(4, true))] {
        let (mut one, _) = forced(5, stale(true), lost);
        assert_eq!(cas(&one.wait(5000)), None);
    }
}

#[test]
fn half_a_copy_starts_if_a_person_says_so() {
    let (mut one, acts) = One::started_with(Config::default(), 5, stale(false));
    let (shown, from_half_a_copy) = (Generation(5), true);
    one.ev(Event::Force(Force {
        shown,
        from_half_a_copy,
    }));
    one.answer(read(&acts).unwrap(), Outcome::Read(Some(theirs(5, true))));
    let (req, _, record) = cas(&one.wait(1100)).unwrap();
    let acts = one.answer(req, Outcome::Won(record));
    assert!(has!(acts, Action::ColdStart { .. }));
    assert!(one.node.disks().consistent);
}

#[test]
fn a_cold_delay_is_not_waited_for() {
    // The record names this node live, and a backup that doesn't answer.
    let mut record = mine(3, true);
    record.live.incarnation = crate::record::Incarnation(1);
    let (mut one, _) = forced(3, stale(true), Some(record));
    assert!(cas(&one.wait(1100)).is_some());
}

#[test]
fn a_record_that_nobody_was_shown_is_left_alone() {
    let (mut one, acts) = One::started_with(Config::default(), 5, stale(true));
    let shown = Generation(5);
    one.ev(Event::Force(Force {
        shown,
        ..Force::default()
    }));
    let acts = one.answer(read(&acts).unwrap(), Outcome::Read(Some(theirs(6, false))));
    let said =
        |a: &Action<u32>| matches!(a, Action::Note { text, .. } if text.contains("changed since"));
    assert!(acts.iter().any(said), "{acts:?}");
    assert_eq!(cas(&one.wait(5000)), None);
}

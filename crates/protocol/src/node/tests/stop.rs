//! Rule 14: leaving in good order.

use super::harness::*;
use crate::event::{Action, Ctl, Event};
use crate::message::{Goodbye, Message};
use crate::record::{Generation, Position, Record};
use crate::{ExitReason, Outcome, RoleKind};

fn halted(generation: u64) -> Record {
    Record {
        halted: true,
        ..mine(generation, false)
    }
}

fn frozen(one: &mut One, position: u64) -> Acts {
    one.ev(Event::Frozen {
        position: Position(position),
    })
}

fn exits(acts: &Acts, reason: ExitReason) -> bool {
    acts.iter()
        .any(|a| matches!(a, Action::Exit { reason: r } if *r == reason))
}

#[test]
fn poweroff_is_a_gated_output_then_a_record_change() {
    let mut one = One::paired();
    one.output(12);
    one.flushed(10, 13);
    let position = Position(13);
    let acts = one.ev(Event::GuestHalted { position });
    assert_eq!(cas(&acts), None);
    let acts = one.got(ack(12));
    assert_eq!(emitted(&acts), [12]);
    assert_eq!(cas(&acts), None, "the poweroff itself is not acked");
    let acts = one.got(ack(13));
    let (req, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(2), halted(3)));
    let acts = one.answer(req, Outcome::Won(record));
    assert!(sent(&acts).contains(&&Message::Goodbye(Goodbye::Halted)));
    assert!(exits(&acts, ExitReason::Halted));
}

#[test]
fn a_replayed_poweroff_is_carried_out_after_the_takeover() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    let position = Position(9);
    one.ev(Event::GuestHalted { position });
    let (req, _, record) = cas(&one.drained(9)).unwrap();
    let acts = one.answer(req, Outcome::Won(record));
    assert_eq!(emitted(&acts), [9]);
    let (req, expect, record) = cas(&acts).unwrap();
    assert_eq!((expect, record), (Generation(6), halted(7)));
    assert!(exits(
        &one.answer(req, Outcome::Won(record)),
        ExitReason::Halted
    ));
}

#[test]
fn a_poweroff_that_lost_its_backup_settles_the_drop_first() {
    let mut one = One::paired();
    one.output(12);
    let position = Position(13);
    one.ev(Event::GuestHalted { position });
    let acts = one.ev(Event::ChannelDown { conn: CONN });
    let (req, _, record) = cas(&acts).unwrap();
    assert_eq!(record, mine(3, false));
    let acts = one.answer(req, Outcome::Won(record));
    assert_eq!(emitted(&acts), [12]);
    assert_eq!(cas(&acts).unwrap().2, halted(4));
}

#[test]
fn ctl_stop() {
    let mut one = One::paired();
    let acts = one.ev(Event::Ctl(Ctl::Stop));
    assert!(has!(acts, Action::Freeze));
    assert!(has!(acts, Action::CtlAnswer { result: Ok(()), .. }));
    let acts = frozen(&mut one, 10);
    let (req, _, record) = cas(&acts).unwrap();
    assert_eq!(record, halted(3));
    assert!(exits(
        &one.answer(req, Outcome::Won(record)),
        ExitReason::Halted
    ));
}

#[test]
fn a_stop_that_loses_the_record_is_no_stop() {
    let mut one = One::paired();
    one.ev(Event::Ctl(Ctl::Stop));
    let (req, ..) = cas(&frozen(&mut one, 10)).unwrap();
    let acts = one.answer(req, Outcome::Lost(Some(theirs(3, false))));
    assert!(!has!(acts, Action::Exit { .. }));
    assert_eq!(one.node.role(), RoleKind::Frozen);
}

#[test]
fn sigterm_paired_leaves_the_vm_to_the_backup() {
    let mut one = One::paired();
    assert!(has!(one.ev(Event::Terminate), Action::Freeze));
    one.output(12);
    one.flushed(10, 12);
    assert!(!has!(frozen(&mut one, 12), Action::Exit { .. }));
    let acts = one.got(ack(12));
    assert_eq!(emitted(&acts), [12]);
    assert!(sent(&acts).contains(&&Message::Goodbye(Goodbye::Claim)));
    assert!(exits(&acts, ExitReason::Terminated));
    assert_eq!(cas(&acts), None);
}

#[test]
fn sigterm_solo_is_a_stop() {
    let mut one = One::solo();
    one.ev(Event::Terminate);
    let (req, _, record) = cas(&frozen(&mut one, 3)).unwrap();
    assert_eq!(record, halted(2));
    assert!(exits(
        &one.answer(req, Outcome::Won(record)),
        ExitReason::Halted
    ));
}

#[test]
fn sigterm_while_pairing_sends_the_joiner_away() {
    let mut one = One::gate_on();
    let acts = one.ev(Event::Terminate);
    assert!(sent(&acts).contains(&&Message::Goodbye(Goodbye::Leaving)));
    let (_, _, record) = cas(&frozen(&mut one, 12)).unwrap();
    assert_eq!(record, halted(2));
}

#[test]
fn sigterm_on_other_roles() {
    let mut one = One::told();
    let acts = one.ev(Event::Terminate);
    assert!(sent(&acts).contains(&&Message::Goodbye(Goodbye::Leaving)));
    assert!(exits(&acts, ExitReason::Terminated));

    let (mut one, _) = One::lost();
    assert!(exits(&one.ev(Event::Terminate), ExitReason::Terminated));

    // A claiming node may hold the only VM: it settles the claim, then leaves as live.
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    assert!(!has!(one.ev(Event::Terminate), Action::Exit { .. }));
    let (req, _, record) = cas(&one.drained(9)).unwrap();
    let acts = one.answer(req, Outcome::Won(record));
    assert_eq!(emitted(&acts), [9]);
    assert!(has!(acts, Action::Freeze));
    assert_eq!(cas(&frozen(&mut one, 9)).unwrap().2, halted(7));
}

#[test]
fn a_second_sigterm_leaves_at_once() {
    let mut one = One::paired();
    one.ev(Event::Terminate);
    assert!(exits(&one.ev(Event::Terminate), ExitReason::Forced));
    assert!(one.wait(1000).is_empty());
}

#[test]
fn takeover_by_request() {
    let mut one = One::paired();
    one.ev(Event::Ctl(Ctl::Takeover));
    let acts = frozen(&mut one, 10);
    assert!(sent(&acts).contains(&&Message::Goodbye(Goodbye::Claim)));
    assert_eq!(cas(&acts), None);
    let (req, ..) = cas(&one.wait(3100)).expect("a drop, in the end");
    let acts = one.answer(req, Outcome::Lost(Some(theirs(3, false))));
    assert_eq!(one.node.role(), RoleKind::Frozen);
    assert!(!has!(acts, Action::Thaw));
}

#[test]
fn a_takeover_that_nobody_takes_is_taken_back() {
    let mut one = One::paired();
    one.ev(Event::Ctl(Ctl::Takeover));
    frozen(&mut one, 10);
    let (req, _, record) = cas(&one.wait(3100)).unwrap();
    let acts = one.answer(req, Outcome::Won(record));
    assert!(has!(acts, Action::Thaw));
    assert_eq!(emitted(&one.output(12)), [12]);
}

#[test]
fn takeover_and_detach_need_a_backup() {
    for ctl in [Ctl::Takeover, Ctl::Detach] {
        let acts = One::solo().ev(Event::Ctl(ctl));
        assert!(has!(acts, Action::CtlAnswer { result: Err(_), .. }));
        let acts = One::gate_on().ev(Event::Ctl(ctl));
        assert!(has!(acts, Action::CtlAnswer { result: Err(_), .. }));
    }
    let acts = One::told().ev(Event::Ctl(Ctl::Takeover));
    assert!(has!(acts, Action::CtlAnswer { result: Err(e), .. } if e.contains("backup")));
}

#[test]
fn detach_drops_by_record_then_says_so() {
    let mut one = One::paired();
    one.output(12);
    let acts = one.ev(Event::Ctl(Ctl::Detach));
    let (req, _, record) = cas(&acts).unwrap();
    assert_eq!(record, mine(3, false));
    assert!(sent(&acts).is_empty());
    let acts = one.answer(req, Outcome::Won(record));
    assert!(sent(&acts).contains(&&Message::Goodbye(Goodbye::Detached)));
    assert_eq!(emitted(&acts), [12]);
}

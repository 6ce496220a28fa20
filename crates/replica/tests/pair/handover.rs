//! What clients send while the VM goes over as planned.

use twinvm_machine::Flip;
use twinvm_protocol::{Ctl, RoleKind};
use twinvm_replica::Event;

use crate::guest;
use crate::world::{A, B, World};

fn has_room(world: &mut World, at: usize) -> bool {
    world.side(at).replica.net_room(0)
}

/// Frames of a node that are no answers: its announcements.
fn announced(world: &World, by: usize) -> usize {
    let frames = world.wire.iter();
    let own = frames.filter(|(at, frame)| *at == by && guest::answer(frame).is_none());
    own.count()
}

#[test]
fn what_comes_while_the_guest_stands_still_goes_with_it() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
    world.apply(A, Event::Ctl(Ctl::Takeover));
    // The guest is frozen, the backup has heard nothing yet.
    world.frame(A, guest::question());
    assert_eq!(announced(&world, B), 0);
    while world.deliver(B).is_some() {}
    // Frames are sent to the backup's host from here on, and wait there.
    assert_eq!(announced(&world, B), 1);
    assert_eq!(world.role(B), Some(RoleKind::Backup));
    assert!(!has_room(&mut world, B), "frames at the backup are lost");
    while world.deliver(A).is_some() {}
    // One that was on its way here still.
    world.frame(A, guest::question());
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    assert!(has_room(&mut world, B), "the guest runs there");
    world.run_until("both answers", |w| w.answers() == [1, 2, 3]);
    let by = |number| {
        let mut frames = world.wire.iter();
        frames.find(|(_, frame)| guest::answer(frame) == Some(number))
    };
    assert!(by(2).is_some_and(|(at, _)| *at == B));
    world.run_until("A is its backup", |w| w.protected(A) && w.protected(B));
    assert!(
        has_room(&mut world, A),
        "frames at a backup are thrown away"
    );
}

#[test]
fn nobody_is_told_before_the_last_output_has_left() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    while world.side(A).replica.status().protocol.gate_items == 0 {
        world.slice(A);
    }
    world.apply(A, Event::Ctl(Ctl::Takeover));
    assert!(!world.asked(B), "the answer has not left");
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    let last_of_a = world.wire.iter().rposition(|(at, _)| *at == A);
    let first_of_b = world.wire.iter().position(|(at, _)| *at == B);
    assert!(last_of_a < first_of_b, "A speaks after B");
}

#[test]
fn a_guest_does_not_hear_what_is_announced_in_its_name() {
    let mut world = World::paired();
    world.apply(A, Event::Ctl(Ctl::Takeover));
    let mut announcement = guest::question();
    announcement[6..12].copy_from_slice(&guest::MAC);
    let unheard = |world: &mut World, at: usize| {
        let before = world.side(at).replica.status().position;
        world.frame(at, announcement.clone());
        assert_eq!(world.side(at).replica.status().position, before);
    };
    unheard(&mut world, A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    unheard(&mut world, B);
}

#[test]
fn a_backup_that_comes_round_too_late_has_not_the_last_word() {
    let mut world = World::paired();
    world.apply(A, Event::Ctl(Ctl::Takeover));
    // B stands still with what it was sent until then.
    world.hold_inbox[B] = true;
    let stopped = world.sides[B].take();
    world.run_until("A goes on", |w| w.link(A) == "solo");
    let before = announced(&world, A);
    world.sides[B] = stopped;
    world.hold_inbox[B] = false;
    while world.deliver(B).is_some() {}
    world.run_until("B is back", |w| w.protected(A) && w.protected(B));
    assert_eq!(
        (announced(&world, A), announced(&world, B)),
        (before + 1, 1)
    );
    assert_eq!(world.wire.last().map(|(at, _)| *at), Some(A));
}

#[test]
fn a_backup_that_finds_a_difference_says_nothing_in_the_guests_name() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
    world.settle();
    let machine = world.side(B).replica.machine_mut().expect("it follows");
    let pa = 0x8000_0008;
    machine
        .flip(Flip::Ram { pa, bit: 3 })
        .expect("there is such a bit");
    world.digest(A);
    world.run_until("it asks what differs", |w| w.asked(A));
    world.apply(A, Event::Ctl(Ctl::Takeover));
    while world.deliver(B).is_some() {}
    assert_eq!(announced(&world, B), 0);
}

#[test]
fn a_guest_that_stays_is_announced_where_it_stays() {
    let mut world = World::paired();
    world.apply(A, Event::Ctl(Ctl::Takeover));
    while world.deliver(B).is_some() {}
    assert_eq!((announced(&world, A), announced(&world, B)), (1, 1));
    world.kill(B);
    world.run_until("A goes on", |w| w.link(A) == "solo");
    assert_eq!(announced(&world, A), 2);
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
}

#[test]
fn a_backup_that_knows_no_such_word_takes_over_all_the_same() {
    let mut world = World::paired();
    world.mute = true;
    world.apply(A, Event::Ctl(Ctl::Takeover));
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.frame(B, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
}

#[test]
fn a_backup_announces_once_however_often_it_is_told() {
    let mut world = World::paired();
    world.apply(A, Event::Ctl(Ctl::Takeover));
    let again = world.side(B).inbox.back().expect("it was told");
    let again = format!("{again:?}");
    assert!(again.contains("Side"), "{again}");
    let message = twinvm_protocol::Message::Side { bytes: vec![3, 1] };
    for _ in 0..9 {
        let inbox = &mut world.side(B).inbox;
        let conn = inbox.iter().rev().find_map(|it| match it {
            crate::world::Incoming::Message { conn, .. } => Some(*conn),
            _ => None,
        });
        let (conn, message) = (conn.expect("one connection"), message.clone());
        inbox.push_back(crate::world::Incoming::Message { conn, message });
    }
    while world.deliver(B).is_some() {}
    assert_eq!(announced(&world, B), 1);
}

#[test]
fn who_is_asked_to_end_hands_over_the_same_way() {
    let mut world = World::paired();
    world.apply(A, Event::Terminate);
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
    assert_eq!(world.role(B), Some(RoleKind::Live));
    assert!(world.exited(A));
}

#[test]
fn a_late_backup_that_never_settles_its_claim_has_not_the_last_word_either() {
    let mut world = World::paired();
    world.apply(A, Event::Ctl(Ctl::Takeover));
    world.hold_inbox[B] = true;
    let stopped = world.sides[B].take();
    world.run_until("A goes on", |w| w.link(A) == "solo");
    world.sides[B] = stopped;
    world.hold_inbox[B] = false;
    // Its way to the arbiter is broken: it neither wins nor joins.
    world.hold_questions[B] = true;
    while world.deliver(B).is_some() {}
    let last = |world: &World| world.wire.last().map(|(at, _)| *at);
    assert_eq!(last(&world), Some(B), "B says that the guest is there");
    let (_, frame) = world.wire.last().cloned().expect("it said so");
    world.frame(A, frame.clone());
    assert_eq!(last(&world), Some(A), "A has heard it");
    // However often it is said, A says so once in a second.
    let said = announced(&world, A);
    for _ in 0..10 {
        world.frame(A, frame.clone());
    }
    assert_eq!(announced(&world, A), said);
    world.run_ms(1_500);
    world.frame(A, frame);
    assert!(announced(&world, A) > said);
}

#[test]
fn a_stop_that_a_takeover_makes_void_is_told() {
    let mut world = World::paired();
    world.apply(A, Event::Ctl(Ctl::Takeover));
    world.run_until("A has parted", |w| w.link(A) == "settling");
    world.apply(A, Event::Ctl(Ctl::Stop));
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.run_until("A knows", |w| w.role(A) != Some(RoleKind::Live));
    let notes = &world.side(A).notes;
    let void = |note: &String| note.contains("was to be stopped here, and goes on at the other");
    assert!(notes.iter().any(void), "{notes:#?}");
}

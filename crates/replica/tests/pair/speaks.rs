//! `output = "backup"`: who emits what, and what becomes of it when either node goes.

use twinvm_protocol::{OutputFrom, RoleKind};
use twinvm_replica::{Event, Wait, voice_of};

use crate::guest;
use crate::world::{A, B, World};

const HEARTBEAT_MS: u64 = 50;

fn speaking() -> World {
    let mut world = World::new();
    world.output = [OutputFrom::Backup; 2];
    world.pair();
    world.settle();
    world
}

/// Answers on the wire: by which node and number.
fn answers(world: &World) -> Vec<(usize, u64)> {
    let frames = world.wire.iter();
    frames
        .filter_map(|(at, frame)| Some((*at, guest::answer(frame)?)))
        .collect()
}

fn held(world: &mut World, at: usize) -> usize {
    world.side(at).replica.status().protocol.gate_items
}

/// A question is asked, and the live node has made its answer.
fn ask(world: &mut World) {
    world.frame(A, guest::question());
    while held(world, A) == 0 {
        world.slice(A);
    }
}

#[test]
fn an_answer_leaves_where_the_backup_is_when_it_has_executed_it() {
    let mut world = speaking();
    ask(&mut world);
    // The ack of the answer's own record lets nothing out: the backup is to emit it.
    while world.deliver(B).is_some() {}
    while world.deliver(A).is_some() {}
    assert_eq!((answers(&world), held(&mut world, A)), (vec![], 1));
    while world.side(B).replica.wait() == Wait::Run {
        world.slice(B);
    }
    assert_eq!(answers(&world), [(B, 1)]);
    // The frame's source is nobody's, and the guest's own in what it says.
    let (_, frame) = world.wire.last().expect("it left");
    assert_eq!(frame[6..12], voice_of(guest::MAC));
    // The live node keeps it until it hears that it has left.
    assert_eq!(held(&mut world, A), 1);
    world.pass_ms(HEARTBEAT_MS);
    world.apply(B, Event::Tick);
    while world.deliver(A).is_some() {}
    assert_eq!(held(&mut world, A), 0);
    let (median_us, _) = world.side(A).replica.hold_us().expect("one was held");
    assert!(median_us >= 1000, "{median_us} µs");
    world.run_ms(500);
    assert_eq!(answers(&world), [(B, 1)], "once");
}

#[test]
fn what_a_dead_backup_had_stored_and_not_emitted_the_live_node_emits() {
    let mut world = speaking();
    ask(&mut world);
    while world.deliver(B).is_some() {}
    while world.deliver(A).is_some() {}
    world.kill(B);
    world.run_until("the answer", |w| answers(w) == [(A, 1)]);
    assert_eq!(world.link(A), "solo");
}

#[test]
fn what_a_backup_had_not_emitted_it_emits_when_it_takes_over() {
    let mut world = speaking();
    ask(&mut world);
    while world.deliver(B).is_some() {}
    world.kill(A);
    world.run_until("the answer", |w| answers(w) == [(B, 1)]);
    assert_eq!(world.role(B), Some(RoleKind::Live));
    // As its own: now the guest is here.
    let answer = world.wire.iter().rev();
    let mut answer = answer.filter(|(_, frame)| guest::answer(frame).is_some());
    let (_, frame) = answer.next().expect("it left");
    assert_eq!(frame[6..12], guest::MAC);
    world.frame(B, guest::question());
    world.run_until("the next", |w| answers(w) == [(B, 1), (B, 2)]);
}

#[test]
fn a_backup_that_was_dropped_says_nothing_that_the_live_node_has_not_made() {
    let mut world = speaking();
    ask(&mut world);
    // B stands still. A is alone after a while, and answers by itself.
    world.hold_inbox[B] = true;
    let stopped = world.sides[B].take();
    world.run_until("A is alone", |w| {
        w.link(A) == "solo" && answers(w).len() == 1
    });
    world.frame(A, guest::question());
    world.run_until("the next", |w| answers(w) == [(A, 1), (A, 2)]);
    // B goes on with what it was sent until then.
    world.sides[B] = stopped;
    world.hold_inbox[B] = false;
    world.run_ms(1000);
    let said = answers(&world);
    assert_eq!(said[..2], [(A, 1), (A, 2)]);
    assert!(said[2..].iter().all(|by| *by == (B, 1)), "{said:?}");
    world.run_until("B is back", |w| w.protected(A) && w.protected(B));
    world.frame(A, guest::question());
    world.run_until("the next", |w| answers(w).last() == Some(&(B, 3)));
}

#[test]
fn the_guest_does_not_hear_what_its_backup_sends_to_all() {
    let mut world = speaking();
    let before = world.side(A).replica.status().position;
    let mut echo = guest::question();
    echo[6..12].copy_from_slice(&voice_of(guest::MAC));
    world.frame(A, echo);
    assert_eq!(world.side(A).replica.status().position, before);
}

#[test]
fn a_guest_that_powers_off_is_heard_to_its_last_word() {
    let mut world = speaking();
    ask(&mut world);
    world.frame(A, guest::power_off());
    world.run_until("both have ended", |w| w.exited(A) && w.exited(B));
    assert_eq!(answers(&world), [(B, 1)]);
}

#[test]
fn a_planned_takeover_leaves_nothing_unsaid() {
    let mut world = speaking();
    ask(&mut world);
    world.apply(A, Event::Ctl(twinvm_protocol::Ctl::Takeover));
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    assert_eq!(answers(&world), [(B, 1)]);
    world.run_until("A is its backup", |w| w.protected(A) && w.protected(B));
    world.frame(B, guest::question());
    world.run_until("the next", |w| answers(w) == [(B, 1), (A, 2)]);
}

#[test]
fn nodes_that_disagree_about_who_emits_refuse_each_other() {
    let mut world = World::new();
    world.output = [OutputFrom::Live, OutputFrom::Backup];
    world.start(A);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    world.start(B);
    world.run_ms(2000);
    assert_eq!(world.role(B), Some(RoleKind::Cold));
    let notes = world.side(B).notes.join("\n");
    assert!(notes.contains("the nodes differ in output"), "{notes}");
}

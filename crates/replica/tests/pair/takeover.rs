//! The course of a pair from first start to takeover.

use twinvm_protocol::RoleKind;

use crate::guest;
use crate::world::{A, B, World};

#[test]
fn the_guest_answers_and_a_backup_joins() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
}

#[test]
fn the_backup_goes_on_with_what_the_killed_live_node_had_answered() {
    let mut world = World::paired();
    for number in 1..=5 {
        world.frame(A, guest::question());
        world.run_until("an answer", |w| w.answers().last() == Some(&number));
    }
    world.kill(A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    for number in 6..=9 {
        world.frame(B, guest::question());
        world.run_until("an answer", |w| w.answers().last() == Some(&number));
    }
    let mut answers = world.answers();
    answers.dedup();
    assert_eq!(answers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // The killed node comes back and is the next to take over.
    world.start(A);
    world.run_until("A is paired", |w| w.protected(A) && w.protected(B));
    world.kill(B);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers().last() == Some(&10));
}

#[test]
fn an_answer_after_a_long_silence_is_as_fast_as_any() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    let soon = world.run_until("the answer", |w| w.answers() == [1]);
    world.run_ms(5_000);
    world.frame(A, guest::question());
    let late = world.run_until("the answer", |w| w.answers() == [1, 2]);
    assert!(late < soon + 5_000_000, "{late} ns, but {soon} ns before");
}

//! The course of a pair from first start to takeover.

use twinvm_protocol::{ExitReason, RoleKind};

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

#[test]
fn time_that_the_guest_slept_survives_a_takeover() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
    let before = world.side(A).replica.status().vtime;
    world.run_ms(5_000);
    world.kill(A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.frame(B, guest::question());
    world.run_until("the answer", |w| w.answers().last() == Some(&2));
    let ms = (world.side(B).replica.status().vtime - before) / 10_000;
    assert!(
        (4_990..5_500).contains(&ms),
        "{ms} ms of virtual time in 5 s"
    );
}

#[test]
fn how_long_outputs_wait_is_measured() {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
    let (median_us, worst_us) = world.side(A).replica.hold_us().expect("one was held");
    assert!(
        median_us == worst_us && (10..5_000).contains(&median_us),
        "{median_us} µs"
    );
}

#[test]
fn a_guest_that_powers_off_ends_both_nodes_and_nobody_takes_over() {
    let mut world = World::paired();
    world.frame(A, guest::power_off());
    world.run_until("both have ended", |w| w.exited(A) && w.exited(B));
    assert_eq!(world.side(A).exited, Some(ExitReason::Halted));
    assert_eq!(world.side(B).exited, Some(ExitReason::PeerHalted));
    let record = world.arbiter.current().copied();
    assert!(record.is_some_and(|record| record.halted), "{record:?}");
    // The one named live may start it again; it begins anew.
    world.gone(A);
    world.start(A);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    world.run_ms(20);
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers() == [1]);
}

//! A backup that is no longer equal: found, said, thrown away and made anew, and no client notices.

use twinvm_log::{Body, Record};
use twinvm_protocol::RoleKind;

use crate::guest;
use crate::world::{A, B, World};

/// Does something to the backup's machine that the live one's doesn't know of, and looks at what
/// comes of it; the alarm.
fn alarm_after(body: Body, ask: impl FnOnce(&mut World)) -> String {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("an answer", |w| w.answers() == [1]);
    world.run_ms(20);
    let session = world.session(B);

    let machine = world.side(B).replica.machine_mut().expect("B has one");
    let icount = machine.icount();
    machine.inject(&Record { icount, body }).expect("it fits");
    ask(&mut world);
    world.run_until("B raises the alarm", |w| w.divergence(B).is_some());
    let alarm = world.divergence(B).expect("an alarm");
    let said = world.side(B).notes.iter().any(|note| note.contains(&alarm));
    assert!(said, "{alarm}: {:?}", world.side(B).notes);

    world.run_until("the pair is protected by another session", |w| {
        w.protected(A) && w.protected(B) && w.session(B) != session
    });
    assert_eq!(
        world.role(A),
        Some(RoleKind::Live),
        "A never was anything else"
    );
    world.frame(A, guest::question());
    let answered = world.answers().len() + 1;
    world.run_until("the next answer", |w| w.answers().len() == answered);
    let answers: Vec<u64> = (1..).take(answered).collect();
    assert_eq!(world.answers(), answers, "none is missing, none came twice");
    assert!(world.wire.iter().all(|(from, _)| *from == A));
    // What B has now is what A has.
    let equal = world.side(B).replica.status().digests_equal;
    world.digest(A);
    world.run_until("an equal digest", |w| w.digests_equal(B) > equal);
    alarm
}

#[test]
fn a_device_that_differs_is_found_by_the_next_digest() {
    let typed = Body::ConsoleRx { bytes: vec![b'x'] };
    let alarm = alarm_after(typed, |world| world.digest(A));
    assert!(alarm.contains("digest"), "{alarm}");
}

#[test]
fn a_guest_that_does_something_else_is_found_by_what_it_says_or_where_it_waits() {
    let question = Body::NetRx {
        device: 0,
        frame: [vec![0; twinvm_machine::NET_HEADER_BYTES], guest::question()].concat(),
    };
    let alarm = alarm_after(question, |world| world.frame(A, guest::question()));
    assert!(!alarm.contains("digest"), "{alarm}");
}

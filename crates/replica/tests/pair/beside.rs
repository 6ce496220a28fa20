//! Batches that are stored and acked beside the backup's loop.

use twinvm_log::{Batch, Body, MAX_RECORDS, Record};
use twinvm_protocol::{Position, RoleKind};
use twinvm_replica::{Event, Stored};

use crate::guest;
use crate::world::{A, B, World};

fn held(world: &mut World, at: usize) -> usize {
    world.side(at).replica.status().protocol.gate_items
}

/// A protected pair whose live node has just made an answer; the batches with it wait for B.
fn asked() -> World {
    let mut world = World::paired();
    world.settle();
    world.frame(A, guest::question());
    while held(&mut world, A) == 0 {
        world.slice(A);
    }
    world
}

#[test]
fn an_answer_leaves_before_the_backups_loop_has_turned() {
    let mut world = asked();
    let stored = world.store_beside(B);
    let conn = world.side(B).replica.storing().expect("it follows").conn;
    while world.deliver(A).is_some() {}
    assert_eq!(world.answers(), [1]);
    // Its loop hears of it, executes it, and goes on in step.
    world.apply(B, Event::Stored { conn, stored });
    world.frame(A, guest::question());
    world.run_until("the next answer", |w| w.answers() == [1, 2]);
    world.run_ms(100);
    let behind = world.side(B).replica.status().position;
    assert_eq!(behind, world.side(A).replica.status().position);
    world.kill(A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.frame(B, guest::question());
    world.run_until("one more", |w| w.answers().last() == Some(&3));
}

#[test]
fn what_was_acked_beside_the_loop_is_claimed_with() {
    let mut world = asked();
    let stored = world.store_beside(B);
    while world.deliver(A).is_some() {}
    assert_eq!(world.answers(), [1], "it has left");
    // The live node dies before B's loop hears of the batch.
    world.keep(stored);
    world.kill(A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.frame(B, guest::question());
    world.run_until("the next answer", |w| w.answers().last() == Some(&2));
}

#[test]
fn what_was_acked_is_claimed_with_even_if_it_is_too_much() {
    let mut world = World::paired();
    world.run_ms(100);
    let replica = &mut world.side(B).replica;
    let storing = replica.storing().expect("it follows");
    assert_eq!(replica.status().position, storing.end.0, "it is level");
    let machine = replica.machine_mut().expect("it follows");
    // Nothing happens at it, as often as one likes.
    let record = Record {
        icount: machine.icount(),
        body: Body::Anchor {
            mtime: machine.mtime(),
            rate: machine.clock().rate,
            span: machine.clock().span,
            tell_tale: machine.tell_tale(),
        },
    };
    let mut end = storing.end;
    while replica_stores(&mut world) {
        let first = end;
        end.0 += MAX_RECORDS as u64;
        assert!(end.0 < 2 << 20, "it takes any number");
        let batch = Batch {
            first_position: first.0,
            records: vec![record.clone(); MAX_RECORDS],
        };
        let batch = batch.encode().expect("it fits").into_bytes();
        let stored = Stored::decode(first, end, Position(0), &batch).expect("a batch of ours");
        let conn = storing.conn;
        world.apply(B, Event::Stored { conn, stored });
    }
    assert_eq!(world.role(B), Some(RoleKind::Claiming));
    assert_eq!(world.side(B).replica.status().position, end.0);
}

fn replica_stores(world: &mut World) -> bool {
    world.side(B).replica.storing().is_some()
}

#[test]
fn a_batch_of_a_session_that_has_ended_changes_nothing() {
    let mut world = asked();
    let stored = world.store_beside(B);
    let conn = world.side(B).replica.storing().expect("it follows").conn;
    world.kill(A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    let before = world.side(B).replica.status().position;
    world.apply(B, Event::Stored { conn, stored });
    assert_eq!(world.side(B).replica.status().position, before);
    assert_eq!(world.side(B).replica.storing(), None);
}

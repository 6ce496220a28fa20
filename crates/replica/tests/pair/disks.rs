//! Disks of which each node has a copy: the guest's work on them goes on over takeovers, and both
//! copies stay equal.

use twinvm_log::Body;
use twinvm_protocol::{Message, RoleKind};
use twinvm_replica::{Event, Flush};

use crate::small;
use crate::world::{A, B, World};

fn world(rounds: u32) -> World {
    let mut world = World::new();
    world.disk_rounds = Some(rounds);
    world
}

/// What the sectors of a node's copy begin with.
fn sectors(world: &World, at: usize) -> Vec<u64> {
    let toy = world.toy(at);
    let sectors = toy.bytes.chunks(512);
    let first = |sector: &[u8]| u64::from_le_bytes(sector[..8].try_into().unwrap());
    sectors.map(first).collect()
}

fn printed(world: &World, at: usize) -> &str {
    world.sides[at].as_ref().map_or("", |side| &side.printed)
}

/// Runs until the guest has done all rounds on a live node, and the backup too if there is one.
fn finish(world: &mut World, rounds: u64) {
    world.run_until("the guest is done", |w| {
        [A, B]
            .iter()
            .all(|at| w.role(*at).is_none() || printed(w, *at).ends_with("end"))
    });
    world.run_ms(20);
    for at in [A, B] {
        if world.role(at).is_some() {
            assert_eq!(sectors(world, at), small::worked(rounds), "node {at}");
            assert!(
                !printed(world, at).contains('E'),
                "node {at} showed an error"
            );
        }
    }
    if world.role(A).is_some() && world.role(B).is_some() {
        assert_eq!(world.toy(A).bytes, world.toy(B).bytes);
    }
}

#[test]
fn a_backup_carries_out_on_its_copy_what_the_guest_asks_for() {
    let mut world = world(300);
    world.pair();
    assert!(!printed(&world, A).contains("end"), "the pair is too late");
    world.digest(A);
    finish(&mut world, 300);
    world.digest(A);
    world.run_ms(50);
    assert_eq!(world.divergence(B), None);
    assert!(world.digests_equal(B) >= 2);
}

#[test]
fn the_guest_goes_on_with_the_backups_disk_wherever_the_live_node_dies() {
    for ms in 0..40 {
        let mut world = world(400);
        world.pair();
        world.run_ms(ms);
        world.run_steps(ms % 7);
        assert!(!printed(&world, A).contains("end"));
        world.kill(A);
        world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
        if ms % 2 == 0 {
            // With a copy of its own made anew.
            world.start(A);
            world.run_until("A is paired", |w| w.protected(A) && w.protected(B));
            if ms % 4 == 0 {
                world.kill(B);
                world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
            }
        }
        finish(&mut world, 400);
    }
}

#[test]
fn a_copy_that_differs_is_found_where_it_is_read() {
    let mut world = world(100_000);
    world.pair();
    world.toy(B).bytes[5 * 512 + 300] ^= 1;
    // Read before it is written again, or not: then it is right again.
    world.toy(B).bytes[23 * 512 + 300] ^= 1;
    for sector in 0..16 {
        world.toy(B).bytes[sector * 512 + 300] ^= 1;
    }
    world.run_until("it is found", |w| w.divergence(B).is_some());
    let found = world.divergence(B).unwrap();
    assert!(
        found.contains("the disk in slot 0: a read (request") && found.contains("has hash"),
        "{found}"
    );
    // No map names what differs: the new copy is compared whole.
    assert_eq!(world.doubts, [0, 1]);
    world.run_until("a new copy", |w| w.protected(A) && w.protected(B));
}

#[test]
fn a_backup_cant_make_a_live_node_take_its_disk() {
    let mut world = world(100_000);
    world.pair();
    let conn = world.conn(A);
    // What a live node says to one that joins: it begins to send its disk.
    let bytes = vec![2, 2, 1];
    let message = Message::Side { bytes };
    world.apply(A, Event::Received { conn, message });
    world.run_ms(10);
    assert!(
        world.toy(A).bytes.iter().any(|byte| *byte != 0x55),
        "overwritten"
    );
    assert!(world.protected(A) && world.protected(B));
}

#[test]
fn a_backup_whose_disk_fails_leaves_and_stays_out_until_it_is_started_again() {
    let mut world = world(100_000);
    world.pair();
    world.toy(B).fails = true;
    world.run_until("B has left", |w| w.role(B) == Some(RoleKind::Cold));
    world.run_ms(8_000);
    assert_eq!(world.role(B), Some(RoleKind::Cold));
    let status = world.side(B).replica.status();
    let why = status.stays_out.expect("it says why");
    assert!(
        why.contains("disk 0 fails here") && why.contains("mend the disk"),
        "{why}"
    );
    assert!(
        !printed(&world, A).contains('E'),
        "the guest sees nothing of it"
    );
    // Mended.
    world.kill(B);
    world.toy(B).fails = false;
    world.start(B);
    world.run_until("B is paired", |w| w.protected(A) && w.protected(B));
}

#[test]
fn a_live_node_whose_disk_fails_hands_the_vm_over_and_the_guest_sees_nothing() {
    let mut world = world(1500);
    world.pair();
    world.toy(A).fails = true;
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.run_ms(8_000);
    assert_eq!(world.role(A), Some(RoleKind::Frozen), "it stays out");
    assert!(world.side(A).replica.status().stays_out.is_some());
    assert!(!printed(&world, A).contains('E'));
    world.kill(A);
    finish(&mut world, 1500);
}

#[test]
fn alone_the_guest_is_told_that_its_disk_fails() {
    let mut world = world(100_000);
    world.start(A);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    world.run_ms(20);
    assert!(!printed(&world, A).contains('E'));
    world.toy(A).fails = true;
    world.run_ms(20);
    assert!(printed(&world, A).contains("EEEE."));
    world.toy(A).fails = false;
    world.run_ms(20);
    assert!(printed(&world, A).ends_with("......"));
}

/// The flushes that a backup's log says are done.
fn flushes_told(world: &mut World) -> Vec<u64> {
    let received = &world.side(B).received;
    // The guest's second request of four in each round.
    let told = received.iter().filter_map(|(_, record)| match record.body {
        Body::BlockEnded { id, .. } if id % 4 == 1 => Some(id),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_flush_waits_for_both_copies_if_it_is_to() {
    for flush in [Flush::Both, Flush::Live] {
        let mut world = world(100_000);
        world.flush = flush;
        world.pair();
        let before = flushes_told(&mut world).len();
        let mut early = 0;
        for _ in 0..2000 {
            world.toy(B).slower_ns = 3_000_000;
            world.run_steps(1);
            let told = flushes_told(&mut world);
            let done = &world.toy(B).flushed;
            early += usize::from(told[before..].iter().any(|id| !done.contains(id)));
        }
        assert!(flushes_told(&mut world).len() > before + 3);
        match flush {
            Flush::Both => assert_eq!(early, 0, "the guest was told before the backup was done"),
            _ => assert!(early > 0, "the live node doesn't wait"),
        }
        world.kill(B);
        let dots = printed(&world, A).len();
        world.run_ms(500);
        assert!(
            printed(&world, A).len() > dots + 10,
            "alone it waits for nobody"
        );
    }
}

#[test]
fn flushes_that_never_wait_are_not_carried_out() {
    let mut world = world(300);
    world.flush = Flush::Never;
    world.pair();
    finish(&mut world, 300);
    assert_eq!(
        (world.toy(A).flushed.len(), world.toy(B).flushed.len()),
        (0, 0)
    );
}

#[test]
fn what_both_have_durably_is_forgotten_at_points() {
    let mut world = world(100_000);
    world.pair();
    world.run_until("two points", |w| {
        w.cleared[A].len() == 2 && w.cleared[B].len() == 2
    });
    assert_eq!(world.points, [vec![1, 2], vec![1, 2]]);
    assert_eq!(world.cleared, world.points);
    // Requests that may be done here and not begun there count as later, on both sides.
    assert_eq!(world.in_flight[A], world.in_flight[B]);
    assert!(world.in_flight[A].iter().any(|some| !some.is_empty()));
    // Alone there are none.
    world.kill(B);
    world.run_ms(25_000);
    assert_eq!(world.points[A], [1, 2]);
}

#[test]
fn a_node_whose_disk_cant_take_the_copy_stays_out_and_says_what_to_mend() {
    let mut world = world(100_000);
    world.start(A);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    world.toy(B).fails = true;
    world.start(B);
    world.run_ms(5_000);
    assert_eq!(world.role(B), Some(RoleKind::Cold));
    let why = world
        .side(B)
        .replica
        .status()
        .stays_out
        .expect("it says why");
    assert!(
        why.contains("no room") && why.contains("mend the disk"),
        "{why}"
    );
    let joins = world
        .side(A)
        .notes
        .iter()
        .filter(|note| note.contains("joins"));
    assert_eq!(joins.count(), 1, "once");
}

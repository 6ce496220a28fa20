//! The packet's way, from the client to the guest and back, hop by hop.

use twinvm_log::Body;
use twinvm_protocol::{Message, RoleKind};
use twinvm_replica::{Event, Wait};

use crate::guest;
use crate::world::{A, B, Incoming, World, is_output, records};

/// A packet waits less than this for company before it is sent: 0.1 ms.
const FLUSH_MS: u64 = 1;
const HEARTBEAT_MS: u64 = 50;

/// The oldest batch that waits for B, and the `released` that came with it.
fn batch_for_b(world: &mut World) -> Vec<(u64, twinvm_log::Record)> {
    match world.side(B).inbox.front() {
        Some(Incoming::Message {
            message: Message::Log { batch, .. },
            ..
        }) => records(batch),
        other => panic!("expected a batch of the log, found {other:?}"),
    }
}

/// The ack that waits for A.
fn ack_for_a(world: &mut World) -> u64 {
    match world.side(A).inbox.back() {
        Some(Incoming::Message {
            message: Message::Ack { received, .. },
            ..
        }) => received.0,
        other => panic!("expected an ack, found {other:?}"),
    }
}

fn waiting_outputs(world: &mut World, at: usize) -> usize {
    world.side(at).replica.status().protocol.gate_items
}

#[test]
fn walks_all_seven_hops_in_order() {
    let mut world = World::paired();
    world.settle();
    let before = world.side(A).replica.status();
    let said = world.wire.len();
    assert!(world.side(B).inbox.is_empty());

    // 1 and 2: the frame is stamped with the step count at which the guest stands and is in the
    // log; the guest has not executed anything since, so it can't have seen the frame earlier.
    world.frame(A, guest::question());
    let stamped = world.side(A).replica.status();
    assert_eq!(stamped.icount, before.icount);
    assert!(stamped.position > before.position);

    // 3: the log goes to the backup, which acks on receipt, before it executes.
    assert!(world.side(B).inbox.is_empty(), "input waits for company");
    world.pass_ms(FLUSH_MS);
    world.apply(A, Event::Tick);
    let batch = batch_for_b(&mut world);
    let stamp = batch
        .iter()
        .find(|(_, record)| matches!(record.body, Body::NetRx { .. }))
        .map(|(_, record)| record.icount);
    assert_eq!(stamp, Some(stamped.icount));
    let input = batch.last().map_or(0, |(end, _)| *end);
    assert_eq!(input, stamped.position);
    let behind = world.side(B).replica.status();
    world.deliver(B);
    assert_eq!(ack_for_a(&mut world), input);
    assert_eq!(world.side(B).replica.status().icount, behind.icount);
    assert_eq!(world.side(B).replica.wait(), Wait::Run);

    // 4: the backup runs to exactly that step and injects the same record there.
    while world.side(B).replica.wait() == Wait::Run {
        world.slice(B);
    }
    let injected = world.side(B).replica.status();
    assert_eq!(
        (injected.icount, injected.position),
        (stamped.icount, input)
    );

    // 5: the guest answers. The output's record is in the log and on its way, the frame is in
    // the gate.
    while waiting_outputs(&mut world, A) == 0 {
        world.slice(A);
    }
    let batch = batch_for_b(&mut world);
    let (output, record) = batch.last().expect("a batch has records");
    let output = *output;
    assert!(is_output(record), "an output ends its batch: {record:?}");
    assert_eq!(world.wire.len(), said);

    // 6: the ack of the input opens nothing; the ack of the output's own record does.
    while world.deliver(A).is_some() {}
    assert_eq!(world.side(A).replica.status().protocol.acked.0, input);
    assert_eq!(
        (world.wire.len(), waiting_outputs(&mut world, A)),
        (said, 1)
    );
    world.deliver(B);
    assert_eq!(ack_for_a(&mut world), output);
    assert_eq!(
        world.side(B).replica.status().icount,
        injected.icount,
        "acked before it is executed"
    );
    while world.deliver(A).is_some() {}
    assert_eq!(waiting_outputs(&mut world, A), 0);
    let answer = world
        .wire
        .last()
        .map(|(from, frame)| (*from, guest::answer(frame)));
    assert_eq!((world.wire.len(), answer), (said + 1, Some((A, Some(1)))));

    // 7: the backup makes the same frame, keeps it and stays silent, and drops it when it hears
    // that the frame is on the wire.
    while world.side(B).replica.wait() == Wait::Run {
        world.slice(B);
    }
    assert_eq!(world.side(B).replica.status().position, output);
    assert_eq!(waiting_outputs(&mut world, B), 1);
    world.pass_ms(HEARTBEAT_MS);
    world.apply(A, Event::Tick);
    while world.deliver(B).is_some() {}
    assert_eq!(waiting_outputs(&mut world, B), 0);
    assert!(world.side(B).wire.is_empty());
    assert_eq!(world.role(B), Some(RoleKind::Backup));
}

/// An answer of a guest that was waiting is on its way at once. What it makes of more work, without
/// having waited, leaves with what comes meanwhile: half a millisecond later, or when it waits.
#[test]
fn batches_of_a_busy_guest_are_spaced() {
    let mut world = World::paired();
    world.settle();
    let batches = |world: &mut World| world.side(B).inbox.len();
    let answer = |world: &mut World, waiting: usize| {
        while waiting_outputs(world, A) < waiting {
            world.slice(A);
        }
    };
    world.frame(A, guest::question());
    world.frame(A, guest::question());
    answer(&mut world, 1);
    let first = batches(&mut world);
    assert!(first > 0, "the first answer waits for nothing");
    answer(&mut world, 2);
    assert_eq!(batches(&mut world), first, "the second may have company");
    while world.side(A).replica.wait() == Wait::Run {
        world.slice(A);
    }
    assert_eq!(
        batches(&mut world),
        first + 1,
        "the guest waits, it doesn't"
    );
    let last = batch_back(&mut world);
    assert!(is_output(&last), "{last:?}");
}

/// The last record of the newest batch that waits for B.
fn batch_back(world: &mut World) -> twinvm_log::Record {
    match world.side(B).inbox.back() {
        Some(Incoming::Message {
            message: Message::Log { batch, .. },
            ..
        }) => records(batch).pop().expect("a batch has records").1,
        other => panic!("expected a batch of the log, found {other:?}"),
    }
}

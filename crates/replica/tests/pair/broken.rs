//! Tests of the tests: with a rule broken on purpose, the checks must find it.

use twinvm_protocol::RoleKind;
use twinvm_protocol::node::Mutation;

use crate::guest;
use crate::world::{A, B, World, is_output};

/// Rule 1: no output leaves before the backup holds its own record. Two questions are stamped
/// at once; when the first answer's record is acked, so are both inputs.
fn outputs_wait_for_their_own_ack(broken: Option<Mutation>) -> Result<(), String> {
    let mut world = World::paired();
    world.settle();
    if let Some(mutation) = broken {
        world.side(A).replica.break_rule(mutation);
    }
    world.frame(A, guest::question());
    world.frame(A, guest::question());
    while world.side(A).replica.status().protocol.gate_items < 2 {
        world.slice(A);
    }
    // The first batch, with both inputs and one output, and its ack.
    world.deliver(B);
    while world.deliver(A).is_some() {}
    let stored = world.side(B).received.iter();
    let stored = stored.filter(|(_, record)| is_output(record)).count();
    let left = world.answers().len();
    assert!(left >= 1, "what is acked leaves");
    if left > stored {
        return Err(format!("{left} answers left, the backup holds {stored}"));
    }
    Ok(())
}

/// Answers of the guest while its backup joins.
const WARM: usize = 20;

/// Rule 5: the record names a backup only after that has acked everything that ever left.
fn pairing_waits_for_the_ack(broken: Option<Mutation>) -> Result<(), String> {
    let mut world = World::new();
    world.start(A);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    if let Some(mutation) = broken {
        world.side(A).replica.break_rule(mutation);
    }
    world.hold_questions[A] = true;
    world.start(B);
    world.run_until("B has caught up", |w| {
        w.link(A) == "pairing: asking the arbiter"
    });
    // B shows that an answer is little work for it.
    for count in 1..=WARM {
        world.frame(A, guest::question());
        world.run_until("an answer", |w| w.answers().len() == count);
        world.run_ms(5);
    }
    // From here on B gets nothing. The gate is still off: an answer leaves at once.
    world.hold_inbox[B] = true;
    world.frame(A, guest::question());
    world.run_until("the answer", |w| w.answers().len() > WARM);
    world.hold_questions[A] = false;
    world.run_ms(20);
    let named = world.arbiter.current().is_some_and(|r| r.backup.is_some());
    if !named {
        return Ok(());
    }
    // What that leads to: B may claim, and knows nothing of the answer.
    world.kill(A);
    world.hold_inbox[B] = false;
    let lost = world.side(B).inbox.len();
    world.side(B).inbox.drain(..lost - 1);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    world.frame(B, guest::question());
    world.run_until("an answer", |w| w.answers().len() > WARM + 1);
    let last = &world.answers()[WARM..];
    Err(format!("the client saw the answers {last:?}"))
}

#[test]
fn outputs_wait_for_the_ack_of_their_own_record() {
    outputs_wait_for_their_own_ack(None).unwrap();
}

#[test]
fn an_output_that_leaves_on_the_ack_of_its_input_is_noticed() {
    let found = outputs_wait_for_their_own_ack(Some(Mutation::ReleaseOnInputAck));
    assert_eq!(found.unwrap_err(), "2 answers left, the backup holds 1");
}

#[test]
fn a_backup_is_named_only_after_its_ack_of_all_that_left() {
    pairing_waits_for_the_ack(None).unwrap();
}

#[test]
fn a_backup_that_is_named_too_early_is_noticed() {
    let found = pairing_waits_for_the_ack(Some(Mutation::PairBeforeAck));
    assert_eq!(found.unwrap_err(), "the client saw the answers [21, 21]");
}

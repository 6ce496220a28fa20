use twinvm_protocol::{Incarnation, LiveName, NodeId};

use super::*;

fn record(generation: u64, id: u128) -> Record {
    let (id, incarnation) = (NodeId(id), Incarnation(1));
    Record::solo(Generation(generation), LiveName { id, incarnation })
}

#[test]
fn what_can_not_be_is_not_believed() {
    let mut guard = Guard::default();
    assert_eq!(guard.read(None), Ok(Outcome::Read(None)));
    let (mine, other) = (record(2, 1), record(2, 2));
    assert_eq!(
        guard.lost(Some(record(1, 1))),
        Ok(Outcome::Lost(Some(record(1, 1))))
    );
    // Won, but not what was proposed, or not in its place.
    assert!(guard.won(Generation(1), &mine, &other).is_err());
    assert!(guard.won(Generation(0), &mine, &mine).is_err());
    assert!(guard.won(Generation(2), &mine, &mine).is_err());
    assert_eq!(
        guard.won(Generation(1), &mine, &mine),
        Ok(Outcome::Won(mine))
    );
    assert!(guard.read(None).is_err());
    assert!(guard.read(Some(record(1, 1))).is_err());
    assert!(guard.lost(Some(other)).is_err());
    assert!(guard.won(Generation(1), &other, &other).is_err());
    assert_eq!(guard.read(Some(mine)), Ok(Outcome::Read(Some(mine))));
    let text = guard.read(Some(record(1, 1))).expect_err("went back");
    assert!(text.contains("generation 1 where 2 stood"), "{text}");
}

#[test]
fn texts_of_others_are_one_line() {
    assert_eq!(one_line("a\nb\u{1b}c"), "a b c");
    assert_eq!(one_line(&"ä".repeat(999)).chars().count(), MAX_TEXT_CHARS);
}

use super::*;
use crate::record::{Incarnation, LiveName};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Records by which these have been live, one after the other.
fn history(ids: &[NodeId]) -> Vec<Record> {
    let record = |(n, id): (u64, &NodeId)| {
        let name = LiveName {
            id: *id,
            incarnation: Incarnation(7),
        };
        Record::solo(Generation(n), name)
    };
    (1..).zip(ids).map(record).collect()
}

#[test]
fn each_life_takes_a_newer_record_of_its_own() {
    let history = history(&[A, B, A]);
    let mut lives = Succession::default();
    lives.goes_live(1, A, Generation(1), &history).unwrap();
    assert_eq!(lives.successor(1, &history).unwrap(), Some(history[1]));
    lives.goes_live(2, A, Generation(2), &history).unwrap_err();
    lives.goes_live(2, A, Generation(4), &history).unwrap_err();
    lives.goes_live(2, A, Generation(0), &history).unwrap_err();
    lives.goes_live(2, A, Generation(3), &history).unwrap();
    lives.goes_live(3, B, Generation(2), &history).unwrap_err();
    assert_eq!(lives.newest(), Some(2));
    assert_eq!(lives.successor(2, &history).unwrap(), None);
    lives.successor(9, &history).unwrap_err();
}

#[test]
fn only_the_node_named_live_starts_cold_and_beside_no_backup() {
    let history = history(&[A, A, B]);
    let starts = |life, id, generation, held| {
        Succession::default().starts_cold(life, id, Generation(generation), &history, held)
    };
    starts(1, A, 1, false).unwrap();
    starts(1, A, 2, false).unwrap();
    starts(1, A, 2, true).unwrap_err();
    starts(1, B, 3, false).unwrap_err();
}

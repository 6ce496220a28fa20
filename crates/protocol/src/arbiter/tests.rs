use super::*;
use crate::record::{Incarnation, LiveName, NodeId};

fn record(generation: u64, id: u128) -> Record {
    let (id, incarnation) = (NodeId(id), Incarnation(1));
    Record::solo(Generation(generation), LiveName { id, incarnation })
}

#[test]
fn one_of_two_wins_and_nothing_goes_back() {
    let mut arbiter = MemoryArbiter::new();
    assert_eq!(arbiter.read(), Outcome::Read(None));
    let (a, b) = (record(1, 1), record(1, 2));
    assert_eq!(arbiter.cas(Generation(0), a), Outcome::Won(a));
    assert_eq!(arbiter.cas(Generation(0), b), Outcome::Lost(Some(a)));
    // A generation other than g + 1 never takes effect.
    assert_eq!(
        arbiter.cas(Generation(1), record(3, 1)),
        Outcome::Lost(Some(a))
    );
    assert_eq!(
        arbiter.cas(Generation(1), record(1, 2)),
        Outcome::Lost(Some(a))
    );
    let c = record(2, 2);
    assert_eq!(arbiter.cas(Generation(1), c), Outcome::Won(c));
    assert_eq!(arbiter.read(), Outcome::Read(Some(c)));
    assert_eq!(arbiter.history(), [a, c]);
}

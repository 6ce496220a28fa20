//! The explorer itself: against stateright's own checkers, and on a graph with a trap.

use stateright::{Checker, Model, Representative};
use twinvm_model::explore::{Question, explore};
use twinvm_model::model::Protocol;
use twinvm_model::rules::Broken;
use twinvm_model::scope::Scope;

#[test]
fn stateright_counts_the_same_states() {
    for scope in [
        Scope::new(1, 0, 0),
        Scope::new(1, 0, 1),
        Scope::new(0, 1, 0),
    ] {
        let protocol = Protocol::new(scope);
        let ours = explore(&protocol, usize::MAX);
        let theirs = protocol.checker().symmetry().spawn_dfs().join();
        theirs.assert_properties();
        assert_eq!(ours.states, theirs.unique_state_count(), "{scope}");
    }
}

#[test]
fn stateright_finds_ways_of_the_same_length() {
    let scope = Scope::new(1, 0, 1);
    for rule in [Broken::PairGateOff, Broken::ClaimUntold, Broken::LoserEmits] {
        let protocol = Protocol::broken(scope, rule);
        let ours = explore(&protocol, usize::MAX).wrong.map(|way| way.len());
        let theirs = protocol.checker().spawn_bfs().join();
        let path = theirs.discovery("nothing wrong is seen");
        assert_eq!(ours, path.map(|p| p.into_actions().len()), "{rule:?}");
    }
}

/// Counts up to 9; a fault leads from 3 to 20, from where only odd numbers can be reached.
struct Trap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Number(u64);

impl Representative for Number {
    fn representative(&self) -> Self {
        *self
    }
}

impl Model for Trap {
    type State = Number;
    type Action = u64;

    fn init_states(&self) -> Vec<Number> {
        vec![Number(0)]
    }

    fn actions(&self, state: &Number, actions: &mut Vec<u64>) {
        match state.0 {
            3 => actions.extend([1, 17]),
            0..9 => actions.push(1),
            20 => actions.push(1),
            21 => actions.push(2),
            _ => {}
        }
    }

    fn next_state(&self, state: &Number, add: u64) -> Option<Number> {
        Some(Number(state.0 + add))
    }
}

impl Question for Trap {
    fn is_wrong(&self, _: &Number) -> bool {
        false
    }

    fn is_good(&self, state: &Number) -> bool {
        state.0 == 9
    }

    fn may_count_on(&self, add: &u64) -> bool {
        *add != 17
    }
}

#[test]
fn a_trap_is_found() {
    let report = explore(&Trap, usize::MAX);
    assert_eq!(report.states, 13);
    assert_eq!(report.stuck, 3);
    assert_eq!(report.stuck_by, Some(vec![1, 1, 1, 17]));
}

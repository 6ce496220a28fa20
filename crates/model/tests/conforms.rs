//! The model beside the code: two production nodes are led along random ways of the model, and must
//! be what it says after every step.
//!
//! `TWINVM_MODEL_WALKS=n` sets how many ways are taken, `TWINVM_MODEL_WALK=n` takes that one and
//! prints it.

#[path = "conforms/shadow.rs"]
mod shadow;

use std::collections::BTreeMap;

use shadow::Shadow;
use stateright::Model;
use twinvm_model::action::{Action, What};
use twinvm_model::model::Protocol;
use twinvm_model::scope::Scope;

/// What may happen in a scope without lost records and cold delays.
const KINDS: usize = 30;
/// Long enough for a few takeovers.
const MAX_STEPS: usize = 400;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Takes one way; counts what happened.
fn walk(scope: Scope, seed: u64, trace: bool, tally: &mut BTreeMap<String, usize>) {
    let protocol = Protocol::new(scope);
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut world = protocol.init_states()[0];
    let mut shadow = Shadow::new(scope.backup_speaks, scope.disks);
    let mut way: Vec<Action> = Vec::new();
    let mut actions = Vec::new();
    while way.len() < MAX_STEPS {
        protocol.actions(&world, &mut actions);
        // Faults and people are rarer than what goes on by itself.
        let rare = rng.below(12) != 0;
        let own = |a: &Action| a.is_recovery() || matches!(a.what, What::LandStray(_));
        let fits = |a: &Action| shadow.can(&world, *a) && (own(a) || !rare);
        actions.retain(fits);
        if actions.is_empty() {
            if rare {
                continue;
            }
            break;
        }
        let action = actions.swap_remove(rng.below(actions.len()));
        actions.clear();
        let Some(next) = protocol.next_state(&world, action) else {
            continue;
        };
        way.push(action);
        if trace {
            println!("{:>4} {:?} {:?}", way.len(), action.at, action.what);
        }
        if let Err(what) = shadow.step(&world, action, &next) {
            panic!(
                "walk {seed}, after {} steps, {:?} {:?}: {what}\nagain: TWINVM_MODEL_WALK={seed} \
                 cargo test --release -p twinvm-model --test conforms -- --nocapture\n{next:#?}",
                way.len(),
                action.at,
                action.what,
            );
        }
        let what = format!("{:?}", action.what);
        let kind = what.split('(').next().unwrap_or_default();
        *tally.entry(kind.to_owned()).or_default() += 1;
        world = next;
        if shadow.timed_out(&world) {
            break;
        }
    }
}

#[test]
fn the_code_does_what_the_model_does() {
    walks(Scope::new(3, 2, 6), KINDS);
}

#[test]
fn the_code_of_a_backup_that_speaks_does_what_the_model_does() {
    walks(Scope::new(3, 2, 6).with_backup_speaking(), KINDS + 1);
}

#[test]
fn the_code_does_with_disks_what_the_model_does() {
    walks(Scope::new(3, 2, 6).with_disks(), KINDS + 1);
}

#[test]
fn the_code_does_by_force_what_the_model_does() {
    // Resets and starts by force are among the requests, and their next step.
    walks(Scope::new(3, 3, 2).with_disks().with_people(), KINDS + 4);
}

fn walks(scope: Scope, kinds: usize) {
    let (first, count) = match number("TWINVM_MODEL_WALK") {
        Some(walk) => (walk, 1),
        None => (0, number("TWINVM_MODEL_WALKS").unwrap_or(10_000)),
    };
    let mut tally = BTreeMap::new();
    for seed in first..first + count {
        walk(scope, seed, count == 1, &mut tally);
    }
    let steps: usize = tally.values().sum();
    println!("{count} walks, {steps} steps: {tally:?}");
    if count >= 10_000 {
        let rare = tally.iter().find(|(_, n)| **n < 300);
        assert!(rare.is_none(), "{rare:?} happens too rarely");
        assert_eq!(tally.len(), kinds, "of all that may happen");
    }
}

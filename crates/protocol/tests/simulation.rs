//! Two nodes under seeded faults: nothing wrong may ever be seen from outside, and when the
//! faults stop the pair is protected again.
//!
//! `TWINVM_SIM_SEED=n` runs that seed alone, `TWINVM_SIM_TRACE=1` prints every action (with
//! `-- --nocapture`), `TWINVM_SIM_SEEDS=n` sets how many are run.

#[path = "sim/mod.rs"]
mod sim;

use sim::{Plan, Tally, run};
use twinvm_protocol::OutputFrom;
use twinvm_protocol::node::Mutation;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The backup emits in a third of all runs.
fn output_of(seed: u64) -> OutputFrom {
    match seed % 3 {
        0 => OutputFrom::Backup,
        _ => OutputFrom::Live,
    }
}

#[test]
fn seeds_hold() {
    let (first, count) = match number("TWINVM_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("TWINVM_SIM_SEEDS").unwrap_or(4000)),
    };
    let mut sum = Tally::default();
    for seed in first..first + count {
        let plan = Plan {
            seed,
            mutation: None,
            output: output_of(seed),
        };
        match run(plan) {
            Ok(tally) => {
                sum.takeovers += tally.takeovers;
                sum.emissions += tally.emissions;
                sum.spoken += tally.spoken;
                sum.crashes += tally.crashes;
                sum.records += tally.records;
                sum.boots += tally.boots;
            }
            Err(v) => panic!(
                "seed {seed}, {} ms: {}\nagain: TWINVM_SIM_SEED={seed} cargo test --release \
                 -p twinvm-protocol --test simulation seeds_hold",
                v.at_ms, v.what
            ),
        }
    }
    println!("{count} seeds: {sum:?}");
    if count >= 1000 {
        assert!(
            sum.spoken > sum.emissions / 20,
            "backups say too little: {sum:?}"
        );
        assert!(sum.takeovers > count / 2, "too few takeovers: {sum:?}");
        assert!(sum.boots < 6 * count, "too many cold starts: {sum:?}");
    }
}

/// Breaks one rule and looks for the first seed whose outcome the checker refuses.
fn found_by(mutation: Mutation) -> Option<(u64, String)> {
    (0..3000).find_map(|seed| {
        let speaking = matches!(mutation, Mutation::ForgetOnAck | Mutation::ForgetUnspoken);
        let plan = Plan {
            seed,
            mutation: Some(mutation),
            output: match speaking {
                true => OutputFrom::Backup,
                false => OutputFrom::Live,
            },
        };
        let violation = run(plan).err().filter(|v| v.safety)?;
        Some((seed, violation.what))
    })
}

fn must_find(mutation: Mutation) {
    match found_by(mutation) {
        Some((seed, what)) => println!("{mutation:?}: seed {seed}: {what}"),
        None => panic!("3000 seeds did not notice that {mutation:?} breaks its rule"),
    }
}

macro_rules! mutations {
    ($($name:ident => $mutation:ident,)*) => {
        $(#[test]
        fn $name() {
            must_find(Mutation::$mutation);
        })*
    };
}

mutations! {
    finds_release_on_the_inputs_ack => ReleaseOnInputAck,
    finds_pairing_before_the_ack => PairBeforeAck,
    finds_pairing_without_gate => PairGateOff,
    finds_unknown_taken_for_failed => UnknownIsFailed,
    finds_solo_without_a_won_drop => SoloWithoutDrop,
    finds_acks_before_storing => AckBeforeStored,
    finds_a_claim_without_cas => ClaimWithoutCas,
    finds_an_untold_claim => ClaimUntold,
    finds_unproven_outputs_not_sent => NoResend,
    finds_a_loser_that_emits => LoserEmits,
    finds_a_start_beside_a_holder => StartBesideHolder,
    finds_an_output_forgotten_on_its_ack => ForgetOnAck,
    finds_an_output_forgotten_with_its_backup => ForgetUnspoken,
}

//! A perturbed replay gives the digests of the log; and if it doesn't it is found.

use crate::worker::{Run, machine};
use twinvm_log::Record;
use twinvm_replica::{Divergence, Perturbation, Replay, ReplayExit};

/// Steps of the recorded run: each kind of disturbance happens several times.
const STEPS: u64 = 100_000_000;
/// Steps between two keys.
const KEY_STEPS: u64 = 10_000_000;

fn record() -> Vec<Record> {
    let mut run = Run::begin();
    run.run(STEPS, KEY_STEPS, |_, _| {});
    run.end()
}

/// Replays with a seed; the number of digests that were equal.
fn replay(records: &[Record], perturbation: &mut Perturbation) -> Result<u64, Divergence> {
    let mut replay = Replay::new(machine(), 0);
    replay.push(records.iter().cloned());
    loop {
        match perturbation.run(&mut replay, u64::MAX)? {
            ReplayExit::End { .. } => return Ok(replay.checked_digests()),
            ReplayExit::Starved => panic!("the log has an end"),
            ReplayExit::Busy | ReplayExit::Output { .. } => {}
            ReplayExit::Waits | ReplayExit::DiskDiffers { .. } => panic!("there is no disk"),
        }
        replay.machine_mut().take_console();
    }
}

#[test]
fn what_must_not_matter_does_not_and_what_does_is_found() {
    let records = record();
    for seed in 1..=3 {
        let mut perturbation = Perturbation::new(seed, &machine());
        let digests = replay(&records, &mut perturbation)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(digests, 1, "seed {seed}");
        let done = perturbation.counts();
        assert!(
            done.slices > 50_000
                && done.flushes > 10
                && done.switches > 30
                && done.digests > 0
                && done.restores > 0
                && done.snapshots > 0,
            "seed {seed} disturbs too little: {done:?}"
        );
    }
    // The same seed does the same again.
    let counts = |seed| {
        let mut perturbation = Perturbation::new(seed, &machine());
        replay(&records, &mut perturbation).unwrap();
        perturbation.counts()
    };
    assert_eq!(counts(7), counts(7));

    // One key that depends on where a slice ended.
    let mut perturbation = Perturbation::new(1, &machine());
    perturbation.sabotage(STEPS / 2);
    let found = replay(&records, &mut perturbation).expect_err("a key that is not in the log");
    assert!(found.icount >= STEPS / 2, "{found}");
}

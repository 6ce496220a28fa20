//! Runs with random faults, thousands of them: nothing wrong may be seen, and every run must end
//! with a protected pair.

use std::io::{self, Write as _};
use std::thread;

use twinvm_sim::{Tally, run};

/// Runs of the ordinary test: about a minute on two processors.
const RUNS: u64 = 8000;

/// Seeds `first`, `first + step`, … below `end`.
fn runs(first: u64, step: usize, end: u64) -> Tally {
    let mut sum = Tally::default();
    for seed in (first..end).step_by(step) {
        match run(seed, None) {
            Ok(tally) => sum.add(&tally),
            Err(finding) => panic!(
                "seed {seed}, {} ms: {}\nagain: cargo xtask simulate --seed {seed} --runs 1 --trace",
                finding.at_ms, finding.what
            ),
        }
    }
    sum
}

#[test]
fn seeds_hold() {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut sum = Tally::default();
    thread::scope(|scope| {
        let spawn = |n: usize| scope.spawn(move || runs(n as u64, jobs, RUNS));
        let workers: Vec<_> = (0..jobs).map(spawn).collect();
        for worker in workers {
            sum.add(&worker.join().unwrap());
        }
    });
    let _ = writeln!(io::stderr(), "simulation: {RUNS} runs: {sum:?}");
    // Faults that lead nowhere test nothing.
    assert!(sum.takeovers > RUNS / 3, "too few takeovers: {sum:?}");
    assert!(sum.operations > 50 * RUNS, "too few operations: {sum:?}");
    assert!(
        sum.spoken * 20 > sum.outputs,
        "backups say too little: {sum:?}"
    );
    assert!(sum.beside > 50 * RUNS, "loops store too much: {sum:?}");
    assert!(sum.kept > RUNS / 400, "backups keep no packets: {sum:?}");
    assert!(sum.digests > RUNS, "too few digests: {sum:?}");
    assert!(sum.rejected > RUNS / 200, "nobody comes too late: {sum:?}");
    assert!(sum.boots < 3 * RUNS, "too many power-ons: {sum:?}");
    // All boots of a guest with a disk are one history, in which calls that were never answered add
    // up: some are more than the judge may remember. One such history is hundreds of operations, so
    // this says that nearly all are judged, and no more.
    assert!(sum.unjudged * 250 < sum.operations, "too hard: {sum:?}");
}

#[test]
fn a_seed_decides_all_of_a_run() {
    for seed in [3, 14, 15] {
        let [one, other] = [0; 2].map(|_| run(seed, None).unwrap());
        assert_eq!(one, other);
    }
    assert_eq!(twinvm_sim::trace(3, None), twinvm_sim::trace(3, None));
}

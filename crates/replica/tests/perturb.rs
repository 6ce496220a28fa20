//! A perturbed replay gives the digests of the log; and if it doesn't it is found.

#[path = "support/guest.rs"]
mod guest;

use twinvm_log::{Batch, Record};
use twinvm_machine::{Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig};
use twinvm_replica::{Divergence, HostTime, Live, LiveExit, Perturbation, Replay, ReplayExit};

/// Steps of the recorded run: each kind of disturbance happens several times.
const STEPS: u64 = 100_000_000;

fn machine() -> Machine {
    let config = MachineConfig {
        ram_bytes: 16 << 20,
        harts: 1,
        slots: vec![SlotConfig::Rng],
        cmdline: String::new(),
        images: Images::new(guest::worker(), None),
        on_reset: OnReset::Exit,
    };
    let power_on = PowerOn {
        rng_seed: [3; 32],
        rtc_base_ns: 0,
    };
    Machine::new(config, power_on).expect("a guest of a few instructions")
}

/// Runs the worker live, with a key now and then, on a host of 300 MIPS.
fn record() -> Vec<Record> {
    let start = HostTime { mono_ns: 1 << 40 };
    let mut live = Live::new(machine(), 0, start).unwrap();
    live.stop_at(STEPS);
    let mut now = start;
    let mut keys = 0;
    loop {
        let from = live.machine().icount();
        if from >= STEPS {
            break;
        }
        if from / 10_000_000 >= keys {
            keys += 1;
            assert_eq!(live.console_rx(b"k", now).unwrap(), 1);
        }
        let exit = live.slice(now, &mut || now).unwrap();
        assert!(matches!(exit, LiveExit::Busy), "{exit:?}");
        now.mono_ns += (live.machine().icount() - from) * 10 / 3;
    }
    live.end(0, now).unwrap();
    let mut records = Vec::new();
    for batch in live.take_batches() {
        records.extend(Batch::decode(batch.bytes()).unwrap().records);
    }
    records
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
            done.slices > 100_000
                && done.flushes > 10
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

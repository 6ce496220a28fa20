//! Every fuzz target with inputs of fixed seeds, so that each run of the tests tries them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Inputs for each target: seconds in all.
const CASES: u64 = 3000;
/// For those that run two machines for each input, or two nodes' disks.
const SLOW_CASES: u64 = 300;
const SLOW: [&str; 2] = ["peer", "disk_sync"];
const MAX_INPUT_BYTES: u64 = 1500;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn input(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    // Short ones often: each of their few choices counts.
    let most = 1 << (4 + random.next() % 7);
    let len = random.next() % u64::min(most, MAX_INPUT_BYTES);
    (0..len).map(|_| random.next() as u8).collect()
}

/// Inputs that once broke something, or were wrongly said to.
const FOUND: [(&str, &[u8]); 1] = [
    // A damaged state with a console in another slot.
    (
        "virtqueues",
        b"\x8c\x8c\x8c\x8c\x0e\x06\x18\x18\x18\x18\x00\x00\xae\xee\x8c\xee\x0a\x3a\xae\x2c\x6c",
    ),
];

fn try_target(name: &str) {
    let (_, target) = twinvm_fuzz::TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a target");
    for (_, input) in FOUND.iter().filter(|(of, _)| *of == name) {
        target(input);
    }
    for seed in 0..if SLOW.contains(&name) {
        SLOW_CASES
    } else {
        CASES
    } {
        let input = input(seed);
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!(
                "target {name}, seed {seed}: {} bytes {input:02x?}",
                input.len()
            );
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { try_target(stringify!($name)); })*

        #[test]
        fn no_target_is_forgotten() {
            let known: Vec<&str> = twinvm_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
        }
    };
}

targets!(
    virtqueues recording snapshot loader channel arbiter vm_toml lan states image_files etcd ctl
    small_files keys_files packets peer metrics disk_sync nbd_client
    nbd_server
);

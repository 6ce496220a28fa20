//! Every operation against Berkeley SoftFloat (RISC-V specialisation), result
//! and flags, in every rounding mode.
//!
//! A failure prints the operands and, for a random case, the command that
//! repeats it. `FP_SEED` and `FP_CASES` (cases per operation) change the random
//! run: `FP_SEED=7 FP_CASES=10000000 cargo test --release -p twinvm-fp --test
//! oracle`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod cases;
mod ops;

use cases::{F32, F64, Random, hard, hard_ints, hard_reduced};
use ops::{Kind, Op};
use twinvm_fp::{Flags, Rm};

const MODES: [Rm; 5] = [Rm::Rne, Rm::Rtz, Rm::Rdn, Rm::Rup, Rm::Rmm];

const DEFAULT_SEED: u64 = 0x5eed_0f10_a7f1_0a75;
const DEFAULT_CASES: u64 = 200_000;

/// Compares one case, starting from the flags `before`.
#[track_caller]
fn check(op: &Op, operands: [u64; 3], rm: Rm, before: u8, context: &dyn Fn() -> String) {
    let mut flags = Flags(before);
    let result = (op.ours)(operands, rm, &mut flags);
    let (expected, expected_flags) = ops::oracle(op, operands, rm, before);
    assert!(
        result == expected && flags.0 == expected_flags,
        "{}({:#x?}) {rm:?} from flags {before:#x}: \
         got {result:#x} flags {:#x}, expected {expected:#x} flags {expected_flags:#x}; {}",
        op.name,
        &operands[..op.inputs.len()],
        flags.0,
        context(),
    );
}

/// Compares one set of operands in all modes, from clear flags and from
/// flags already set.
#[track_caller]
fn check_modes(op: &Op, operands: [u64; 3], context: &dyn Fn() -> String) {
    for rm in MODES {
        check(op, operands, rm, 0, context);
        check(op, operands, rm, Flags::NX, context);
    }
}

fn hard_operands(kind: Kind, reduced: bool) -> Vec<u64> {
    match kind {
        Kind::F32 if reduced => hard_reduced(F32),
        Kind::F64 if reduced => hard_reduced(F64),
        Kind::F32 => hard(F32),
        Kind::F64 => hard(F64),
        Kind::Int => hard_ints(),
    }
}

#[test]
fn hard_cases_agree() {
    let (mut operations, mut cases) = (0, 0_u64);
    for op in ops::all() {
        let sets: Vec<Vec<u64>> = op
            .inputs
            .iter()
            .map(|&kind| hard_operands(kind, op.inputs.len() == 3))
            .collect();
        let none = vec![0];
        let (seconds, thirds) = (sets.get(1).unwrap_or(&none), sets.get(2).unwrap_or(&none));
        for &a in &sets[0] {
            for &b in seconds {
                for &c in thirds {
                    check_modes(op, [a, b, c], &|| "hard case".to_owned());
                    cases += 2 * MODES.len() as u64;
                }
            }
        }
        operations += 1;
    }
    // All of F and D that isn't moving bits; the sign of a product or an addend in
    // the other three forms of fma is turned before.
    assert_eq!(operations, 42);
    println!("{operations} operations, {cases} cases");
}

#[test]
fn random_cases_agree() {
    let variable = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().expect("FP_SEED and FP_CASES are decimal"),
        Err(_) => default,
    };
    let seed = variable("FP_SEED", DEFAULT_SEED);
    let cases = variable("FP_CASES", DEFAULT_CASES);
    for op in ops::all() {
        let mut random = Random::new(seed);
        for case in 0..cases {
            let mut operands = [0; 3];
            for (operand, &kind) in operands.iter_mut().zip(op.inputs) {
                *operand = random.operand(kind);
            }
            random.relate(op.inputs, &mut operands);
            let rm = MODES[case as usize % MODES.len()];
            let before = (random.next() as u8 & 31) & (random.next() as u8);
            check(op, operands, rm, before, &|| {
                format!(
                    "rerun: FP_SEED={seed} FP_CASES={} \
                     cargo test --release -p twinvm-fp --test oracle",
                    case + 1
                )
            });
        }
    }
}

/// Singles are few enough for a dense sample in one-operand functions.
#[test]
fn singles_spread_over_the_whole_range_agree() {
    const STRIDE: usize = 8_009; // Prime, so that the low bits vary too.
    for op in ops::all().filter(|op| op.inputs == [Kind::F32]) {
        for (n, a) in (0..=u32::MAX).step_by(STRIDE).enumerate() {
            let rm = MODES[n % MODES.len()];
            check(op, [u64::from(a), 0, 0], rm, 0, &|| "spread".to_owned());
        }
    }
}

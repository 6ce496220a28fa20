//! The engine against the reference simulator spike on random programs, by
//! spike's commit log: pc, mode, registers, memory, CSRs and traps of every
//! instruction. docs/ISA.md tells what is compared, and what may differ and why.
//!
//! ```text
//! make differential DIFF_ARGS="--seed 1 --instructions 100000000"
//! ```

#[path = "../engine/asm.rs"]
mod asm;
mod compare;
mod float;
#[path = "../engine/float_forms.rs"]
mod float_forms;
mod instructions;
mod layout;
mod ours;
mod program;
#[path = "../engine/rng.rs"]
mod rng;
mod segment;
mod spike;
mod store;

use compare::Outcome;
use program::Program;
use std::io::BufReader;
use std::path::Path;

/// In CI; `TWINVM_INSTRUCTIONS` and `TWINVM_SEED` say otherwise.
const INSTRUCTIONS: u64 = 4_000_000;
const FIRST_SEED: u64 = 1;

fn compare(spike: &Path, program: &Program, name: &str) -> Result<Outcome, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("running-{}-{name}.elf", std::process::id()));
    let mut child = spike::start(spike, program, &path)?;
    let result = match child.stdout.take() {
        Some(out) => compare::follow(program, &mut BufReader::with_capacity(1 << 18, out)),
        None => Err("spike has no output".into()),
    };
    // At the program's end it loops.
    let _ = child.kill();
    let _ = child.wait();
    let kept = dir.join(format!("differs-{name}.elf"));
    if result.is_ok() {
        let _ = std::fs::remove_file(&path);
    } else if std::fs::rename(&path, &kept).is_ok() {
        let options = spike::options().join(" ");
        println!(
            "the program that differs: spike {options} -l {}",
            kept.display()
        );
    }
    result
}

#[test]
fn every_instruction_does_what_the_reference_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let first = number("TWINVM_SEED").unwrap_or(FIRST_SEED);
    let wanted = number("TWINVM_INSTRUCTIONS").unwrap_or(INSTRUCTIONS);
    let keep_going = number("TWINVM_KEEP_GOING").unwrap_or(0);
    let spike = spike::find().unwrap_or_else(|why| panic!("{why}"));
    let mut sum = Outcome::default();
    let (mut seed, mut complete, mut failed) = (first, 0, 0);
    let mut told = 0;
    while sum.instructions < wanted {
        match compare(&spike, &Program::new(seed), &format!("seed-{seed}")) {
            Ok(outcome) => {
                sum.instructions += outcome.instructions;
                sum.traps += outcome.traps;
                sum.allowed += outcome.allowed;
                for (cause, count) in outcome.causes {
                    *sum.causes.entry(cause).or_default() += count;
                }
                complete += u64::from(outcome.complete);
            }
            Err(why) => {
                failed += 1;
                println!(
                    "seed {seed}: {why}\n  again: make differential DIFF_ARGS=\"--seed {seed} --instructions 1\""
                );
                if failed > keep_going {
                    break;
                }
            }
        }
        seed += 1;
        if sum.instructions - told >= 5_000_000 {
            told = sum.instructions;
            eprintln!("seed {seed}: {told} instructions equal");
        }
    }
    println!(
        "seeds {first} to {}: {} instructions equal, {} traps, {complete} programs complete, \
         {} differences allowed, {failed} programs differ",
        seed - 1,
        sum.instructions,
        sum.traps,
        sum.allowed
    );
    for (cause, count) in &sum.causes {
        let kind = if cause >> 63 == 1 {
            "interrupt"
        } else {
            "exception"
        };
        println!("  {kind} {}: {count}", cause & 63);
    }
    assert_eq!(failed, 0, "programs differ");
    // The programs must get somewhere.
    let programs = seed - first;
    assert!(
        complete * 10 >= programs * 8,
        "{complete} of {programs} complete"
    );
    if programs >= 20 {
        assert!(sum.traps > programs * 20 && sum.traps < sum.instructions / 8);
    }
}

#[test]
fn every_float_instruction_does_what_the_reference_does_with_hard_operands() {
    let spike = spike::find().unwrap_or_else(|why| panic!("{why}"));
    let (mut forms, mut cases) = (0, 0);
    for (n, (program, some)) in float::programs().iter().enumerate() {
        match compare(&spike, program, &format!("float-{n}")) {
            Ok(outcome) => assert!(outcome.complete, "instruction {n} of float.rs ended early"),
            Err(why) => panic!("instruction {n} of float.rs: {why}"),
        }
        forms += 1;
        cases += some;
    }
    println!("{forms} floating-point instructions, {cases} cases equal");
    assert!(
        forms == 46 && cases > 1_000_000,
        "{forms} instructions, {cases} cases"
    );
}

//! A block that is translated wrongly is found, down to the instruction.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use crate::worker::{Run, machine};
use twinvm_log::Record;
use twinvm_machine::Machine;
use twinvm_machine::tier::{
    Code, CodeListener, DecodedOp, Kind, Tier, TierExit, TierMemory, Window,
};
use twinvm_replica::{
    Divergence, Explanation, Found, Opened, Perturbation, Recorded, Replay, ReplayExit,
    explain_disturbed,
};

/// Some two hundred rounds of the guest's outer loop, whose beginning is hot after a few.
const STEPS: u64 = 3_000_000;
const KEY_STEPS: u64 = 500_000;
/// Steps between two digests.
const DIGEST_STEPS: u64 = 1_000_000;
/// More than a round has.
const SLICE_STEPS: u64 = 20_000;

/// Which translations are wrong.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// Each of the instruction.
    Always,
    /// Those in a block with others.
    InBlocks,
}

/// The second engine, which takes `li s2,0` for `li s2,8`.
struct Faulty {
    right: Box<dyn Tier>,
    wrong: Wrong,
}

const S2: u8 = 18;

fn mistake(op: &DecodedOp) -> DecodedOp {
    let mut op = *op;
    if op.kind == Kind::Li && op.rd == S2 && op.imm == 0 {
        op.imm = 8;
    }
    op
}

impl Tier for Faulty {
    fn translate(&mut self, code: &Code<'_>) -> Option<u64> {
        if matches!(self.wrong, Wrong::InBlocks) && code.ops.len() == 1 {
            return self.right.translate(code);
        }
        let ops: Vec<DecodedOp> = code.ops.iter().map(mistake).collect();
        self.right.translate(&Code { ops: &ops, ..*code })
    }

    fn cold(&self) -> u64 {
        self.right.cold()
    }

    fn run(&mut self, window: &mut Window<'_, '_>, entry: u64, limit: u64) -> TierExit {
        self.right.run(window, entry, limit)
    }

    fn link(&mut self, jump: u32, entry: u64, page: u32) {
        self.right.link(jump, entry, page);
    }

    fn retire(&mut self, entry: u64) {
        self.right.retire(entry);
    }

    fn flush(&mut self) {
        self.right.flush();
    }

    fn listen(&mut self, listener: CodeListener) {
        self.right.listen(listener);
    }

    fn memory(&self) -> TierMemory {
        self.right.memory()
    }
}

fn record() -> Vec<Record> {
    let mut run = Run::begin();
    let mut digests = 1;
    run.run(STEPS, KEY_STEPS, |run, icount| {
        if icount / DIGEST_STEPS >= digests {
            digests += 1;
            run.live.log_digest(run.now).unwrap();
        }
    });
    run.end()
}

/// The log, replayed on such an engine.
struct Log {
    records: Vec<Record>,
    wrong: Wrong,
}

impl Recorded for Log {
    type Error = ();

    fn open(&mut self) -> Result<Opened<()>, ()> {
        let mut machine = machine();
        let wrong = self.wrong;
        machine.wrap_translation(|right| Box::new(Faulty { right, wrong }));
        Ok(Opened {
            machine,
            position: 0,
            records: Box::new(self.records.clone().into_iter().map(Ok)),
        })
    }
}

fn undisturbed(machine: &Machine) -> Perturbation {
    Perturbation::quiet(SLICE_STEPS, machine)
}

fn diverge(log: &mut Log) -> Divergence {
    let Ok(Opened { machine, .. }) = log.open() else {
        panic!("a log in memory can be read");
    };
    let mut perturbation = undisturbed(&machine);
    let mut replay = Replay::new(machine, 0);
    replay.push(log.records.iter().cloned());
    loop {
        match perturbation.run(&mut replay, u64::MAX) {
            Ok(ReplayExit::End { .. }) => panic!("a wrong translation doesn't matter"),
            Ok(_) => {}
            Err(divergence) => return divergence,
        }
        replay.machine_mut().take_console();
    }
}

fn explain(wrong: Wrong) -> Explanation {
    let records = record();
    let mut log = Log { records, wrong };
    let divergence = diverge(&mut log);
    let found = explain_disturbed(
        &mut log,
        &mut undisturbed,
        u64::MAX,
        &divergence,
        &mut |_| {},
    );
    let found = found.unwrap_or_else(|_| panic!("no explanation"));
    assert!(found.icount < divergence.icount, "{found:?}");
    // It needs some rounds to get hot: not in the first slice.
    let (from, _) = found.slice.unwrap();
    assert!(from >= SLICE_STEPS, "{found:?}");
    found
}

fn texts(found: &Explanation) -> Vec<&str> {
    let instructions = found.instructions.iter();
    instructions.map(|it| it.text.as_str()).collect()
}

#[test]
fn the_instruction_is_named_whose_translation_is_wrong() {
    let found = explain(Wrong::Always);
    assert_eq!(found.found, Found::Step, "{found:?}");
    assert_eq!(texts(&found).last(), Some(&"li s2,0"), "{found:?}");
    assert_eq!(found.instructions.last().unwrap().icount, found.icount);
    let difference = found.difference.as_ref().unwrap();
    assert_eq!(
        (
            difference.item.as_str(),
            difference.left.as_str(),
            difference.right.as_str()
        ),
        ("hart 0 s2", "0x0", "0x8"),
        "{found:?}"
    );
    assert_eq!(found.notes.len(), 1, "{found:?}");
    assert!(
        found.notes[0].ends_with("the translation of the last one is wrong"),
        "{found:?}"
    );
}

#[test]
fn where_only_the_whole_block_is_wrong_its_end_is_named() {
    let found = explain(Wrong::InBlocks);
    assert_eq!(found.found, Found::Slice, "{found:?}");
    let (from, to) = found.slice.unwrap();
    assert_eq!(to, found.icount);
    let note = format!(
        "in one run from step {from} the machines are equal up to step {}: the fault lies in the \
         block that ends with step {to}, ",
        to - 1
    );
    assert!(found.notes[0].contains(&note), "{found:?}");
    assert!(found.difference.is_some());
    // The block, to its end.
    let texts = texts(&found);
    let block = ["li s2,0", "add t2,t3,s2", "rdtime t0"];
    assert!(texts.ends_with(&block), "{texts:?}");
}

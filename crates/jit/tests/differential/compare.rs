//! Follows the reference's log with our engine, instruction by instruction.

use crate::layout::*;
use crate::ours::Ours;
use crate::program::Program;
use crate::spike::{Commit, Write};
use std::collections::{BTreeMap, VecDeque};
use std::io::BufRead;
use std::ops::Range;
use twinvm_mem::RAM_BASE;

/// How a program's comparison ended well.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) instructions: u64,
    pub(crate) traps: u64,
    /// It came to its end.
    pub(crate) complete: bool,
    /// Differences that the architecture allows, taken over from the reference.
    pub(crate) allowed: u64,
    /// What the handlers found in mcause and scause, and how often.
    pub(crate) causes: BTreeMap<u64, u64>,
}

/// CSRs whose value in the log is compared where it is written; all are read
/// and compared through registers as well.
const LOGGED: [(u16, &str); 16] = [
    (0x300, "mstatus"),
    (0x302, "medeleg"),
    (0x303, "mideleg"),
    (0x304, "mie"),
    (0x305, "mtvec"),
    (0x340, "mscratch"),
    (0x341, "mepc"),
    (0x342, "mcause"),
    (0x343, "mtval"),
    (0x105, "stvec"),
    (0x140, "sscratch"),
    (0x141, "sepc"),
    (0x142, "scause"),
    (0x143, "stval"),
    (0x180, "satp"),
    (0x30a, "menvcfg"),
];

const FCSR: [u16; 3] = [1, 2, 3];

/// How often a block is entered before it is translated, in runs that are.
const TRANSLATED_AT: [u8; 2] = [0, 1];

/// Lines of the log that a difference shows before its own.
const CONTEXT: usize = 6;

/// Follows a log to the program's end, or to its own.
pub(crate) fn follow(program: &Program, log: &mut impl BufRead) -> Result<Outcome, String> {
    let mut compare = Compare {
        ours: Ours::new(program, None)?,
        mirror: program.ram.clone(),
        x: [0; 32],
        f: [0; 32],
        fence: None,
        allowed: 0,
        over: false,
    };
    // Reset leaves the floating-point registers and the loader's integer ones
    // open: the program sets all of them first.
    let mut commit = Commit::default();
    let mut line = String::new();
    let mut before = VecDeque::new();
    let mut outcome = Outcome::default();
    loop {
        if before.len() >= CONTEXT {
            before.pop_front();
        }
        before.push_back(std::mem::take(&mut line));
        line.clear();
        if log.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
            break;
        }
        let known = commit.parse(&line).is_some();
        // Its boot ROM runs first.
        if !known || (outcome.instructions == 0 && commit.pc != DRIVER) {
            continue;
        }
        if commit.pc == program.end {
            outcome.complete = true;
            break;
        }
        if outcome.instructions == program.limit {
            break;
        }
        if !compare.fenced(&commit) {
            break;
        }
        let same = compare.one(&commit).map_err(|why| {
            format!(
                "instruction {}, after\n{}{line}  {why}",
                outcome.instructions,
                before.iter().map(String::as_str).collect::<String>()
            )
        })?;
        if !same {
            break;
        }
        outcome.instructions += 1;
        if let (M_CAUSE | S_CAUSE, Some(Write::X(_, cause))) = (commit.pc, commit.writes.first()) {
            *outcome.causes.entry(*cause).or_default() += 1;
        }
    }
    outcome.traps = compare.ours.state.traps;
    outcome.allowed = compare.allowed;
    if outcome.complete {
        compare.memory()?;
        compare.again(program)?;
    }
    Ok(outcome)
}

/// True for an instruction that one may let through where the other traps: the
/// reference asks PMP for one byte of what a cache-block operation or a failing SC
/// would reach.
fn may_differ(commit: &Commit) -> bool {
    let block = commit.raw & 0xff80_7fff == 0x200f;
    let sc = commit.raw >> 27 == 3 && commit.raw & 0x7f == 0x2f;
    let failed = commit.writes.iter().any(|w| matches!(w, Write::X(_, 1)));
    block || (sc && failed)
}

/// A store to code or tables without the fence that must follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fence {
    Translation,
    Instruction,
}

struct Compare {
    ours: Ours,
    mirror: Vec<u8>,
    x: [u64; 32],
    f: [u64; 32],
    fence: Option<Fence>,
    allowed: u64,
    /// From here on the two may differ.
    over: bool,
}

impl Compare {
    /// False if the architecture lets the two differ from here on: memory that
    /// one of them may have cached was changed, and no fence follows.
    fn fenced(&mut self, commit: &Commit) -> bool {
        match self.fence.take() {
            None => true,
            Some(Fence::Translation) => {
                matches!(commit.raw >> 25, 9 | 0xb) && commit.raw & 0x7fff == 0x73
            }
            Some(Fence::Instruction) => commit.raw == 0x100f,
        }
    }

    /// False where the architecture lets the two go different ways.
    fn one(&mut self, commit: &Commit) -> Result<bool, String> {
        let mut halves = Vec::new();
        let (mode, pc) = self.ours.retire(&mut halves)?;
        for half in halves {
            // The reference has stored it.
            let stored = self.ours.memory.store(half.pa, &half.bytes);
            stored.map_err(|e| e.to_string())?;
            put(&mut self.mirror, half.pa, &half.bytes);
            self.allowed += 1;
        }
        if (mode as u64, pc) != (commit.mode, commit.pc) {
            if may_differ(commit) {
                return Ok(false);
            }
            let now = &self.ours.state;
            let csr = |name| Ours::csr(now, name).unwrap_or(0);
            return Err(format!(
                "ours is {mode:?} {pc:#x}; mcause {:#x} mtval {:#x} scause {:#x} stval {:#x}",
                csr("mcause"),
                csr("mtval"),
                csr("scause"),
                csr("stval")
            ));
        }
        for write in &commit.writes {
            match *write {
                Write::X(n, value) => self.x[n] = value,
                Write::F(n, value) => self.f[n] = value,
                Write::Csr(number, value) => self.csr(number, value)?,
                Write::Memory(..) => {}
            }
        }
        for n in 1..32 {
            let (got, want) = (self.ours.state.x[n - 1], self.x[n]);
            if got != want && !self.allow(commit, n, got, want)? {
                return Err(format!("x{n}: ours {got:#x}, spike {want:#x}"));
            }
        }
        if self.ours.state.f[..] != self.f[..] {
            for (n, (got, want)) in self.ours.state.f.iter().zip(&self.f).enumerate() {
                if got != want {
                    return Err(format!("f{n}: ours {got:#x}, spike {want:#x}"));
                }
            }
        }
        for write in &commit.writes {
            if let Write::Memory(va, value, size) = *write {
                self.stored(va, value, size)?;
            }
        }
        Ok(!self.over)
    }

    fn csr(&self, number: u16, value: u64) -> Result<(), String> {
        let state = &self.ours.state;
        let got = if FCSR.contains(&number) {
            match number {
                1 => u64::from(state.fcsr & 31),
                2 => u64::from(state.fcsr >> 5),
                _ => u64::from(state.fcsr),
            }
        } else if let Some((_, name)) = LOGGED.iter().find(|(n, _)| *n == number) {
            match Ours::csr(state, name) {
                // SD is computed.
                Some(got) if number == 0x300 && got >> 13 & 3 == 3 => got | 1 << 63,
                Some(got) => got,
                None => return Ok(()),
            }
        } else {
            return Ok(());
        };
        if got == value {
            return Ok(());
        }
        Err(format!("csr {number:#x}: ours {got:#x}, spike {value:#x}"))
    }

    /// Compares a store's bytes and keeps them; notes what it makes stale.
    fn stored(&mut self, va: u64, value: u64, size: usize) -> Result<(), String> {
        let bytes = value.to_le_bytes();
        for (n, byte) in bytes[..size].iter().enumerate() {
            let at = va.wrapping_add(n as u64);
            let Some(pa) = self.ours.physical(at) else {
                return Err(format!("the store to {at:#x} has no physical address"));
            };
            if pa == 0x200_4000 + n as u64 {
                continue;
            }
            let mut got = [0];
            self.ours
                .memory
                .read(pa, &mut got)
                .map_err(|_| format!("the store to {at:#x} goes to {pa:#x}"))?;
            if got[0] != *byte {
                return Err(format!(
                    "byte at {at:#x} ({pa:#x}): ours {:#x}, spike {byte:#x}",
                    got[0]
                ));
            }
            put(&mut self.mirror, pa, &got);
            if (TABLES..TABLES_END).contains(&pa) {
                self.fence = Some(Fence::Translation);
            } else if (DRIVER..SEGMENTS_END).contains(&pa) {
                self.fence = Some(Fence::Instruction);
            }
        }
        Ok(())
    }

    /// Where the architecture leaves a choice, ours may differ; then the
    /// reference's value is taken over.
    fn allow(&mut self, commit: &Commit, n: usize, got: u64, want: u64) -> Result<bool, String> {
        let rd = (commit.raw >> 7 & 31) as usize;
        let csr = commit.raw & 0x7f == 0x73 && commit.raw & 0x7000 != 0;
        let cause = csr && matches!(commit.raw >> 20, 0x342 | 0x142);
        // A misaligned atomic may raise either exception.
        let trapped = self.ours.trapped.unwrap_or(0);
        let misaligned = cause && trapped & 0x7f == 0x2f && matches!((got, want), (4, 5) | (6, 7));
        // Of a cache block, the fault's address is the operand (as in the Sail model) or
        // the block's.
        let tval = csr && matches!(commit.raw >> 20, 0x343 | 0x143);
        let block = tval && trapped & 0x7fff == 0x200f && got & !63 == want & !63;
        // Where PMP cuts the block, the reference has zeroed what lies before.
        self.over |= block && want & 63 != 0;
        // SC may fail for no reason, as the reference's does when it has been away;
        // and may succeed with another size than LR's.
        let sc = commit.raw >> 27 == 3 && commit.raw & 0x7f == 0x2f && got ^ want == 1;
        if n != rd || !(misaligned || block || sc) {
            return Ok(false);
        }
        if let (true, Some(Write::Memory(va, value, size))) = (sc, commit.writes.last()) {
            let Some(pa) = self.ours.physical(*va) else {
                return Ok(false);
            };
            self.ours
                .memory
                .store(pa, &value.to_le_bytes()[..*size])
                .map_err(|e| e.to_string())?;
        } else if sc {
            let va = self.ours.before.x[(commit.raw >> 15 & 31) as usize - 1];
            let Some(pa) = self.ours.physical(va) else {
                return Ok(false);
            };
            let size = 4 << (commit.raw >> 12 & 1);
            let at = (pa - RAM_BASE) as usize;
            self.ours
                .memory
                .store(pa, &self.mirror[at..at + size])
                .map_err(|e| e.to_string())?;
        }
        self.ours.hart.set_x(n as u8, want);
        self.ours.state = self.ours.hart.save();
        self.allowed += 1;
        Ok(true)
    }

    /// All of RAM, but for the A and D bits that only a walk writes.
    fn memory(&mut self) -> Result<(), String> {
        self.compare_range(RAM_BASE..TABLES, !0)?;
        self.compare_range(TABLES..TABLES_END, !0xc0)?;
        self.compare_range(TABLES_END..RAM_BASE + RAM_BYTES, !0)
    }

    fn compare_range(&mut self, range: Range<u64>, mask: u64) -> Result<(), String> {
        for at in range.step_by(8) {
            let got = self.ours.memory.load_u64(at).map_err(|e| e.to_string())?;
            let start = (at - RAM_BASE) as usize;
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.mirror[start..start + 8]);
            let want = u64::from_le_bytes(bytes);
            if (got ^ want) & mask != 0 {
                return Err(format!(
                    "RAM at {at:#x} in the end: ours {got:#x}, spike {want:#x}"
                ));
            }
        }
        Ok(())
    }

    /// The same program in one run instead of single steps: interpreted, and
    /// translated. Where the reference's values were taken over, single steps are left
    /// out.
    fn again(&mut self, program: &Program) -> Result<(), String> {
        let steps = self.ours.icount;
        let run = |hot_at| -> Result<Ours, String> {
            let mut ours = Ours::new(program, hot_at)?;
            // A run that ends early is one too.
            let _ = ours.run(steps);
            ours.state = ours.hart.save();
            Ok(ours)
        };
        let interpreted = run(None)?;
        if self.allowed == 0 {
            equal(&interpreted, &self.ours, "one run")?;
        }
        for hot_at in TRANSLATED_AT {
            let how = format!("one run, translated after {hot_at} entries,");
            equal(&run(Some(hot_at))?, &interpreted, &how)?;
        }
        Ok(())
    }
}

/// Compares the ends of two runs.
fn equal(run: &Ours, other: &Ours, how: &str) -> Result<(), String> {
    if (run.icount, &run.state) != (other.icount, &other.state) {
        return Err(format!(
            "{how} ends in another state: {:x?} after {} steps, not {:x?} after {}",
            run.state, run.icount, other.state, other.icount
        ));
    }
    for at in (RAM_BASE..RAM_BASE + RAM_BYTES).step_by(8) {
        if run.memory.load_u64(at) != other.memory.load_u64(at) {
            return Err(format!("{how} leaves another value at {at:#x}"));
        }
    }
    Ok(())
}

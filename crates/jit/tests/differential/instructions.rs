//! Random instructions over the whole of the implemented instruction set.
//!
//! A trap handler goes on 4 bytes behind the trapping instruction, so whatever
//! may trap is either 4 bytes long or a compressed pair of which only the first
//! may trap. Nothing here writes to the registers that the program lives on.

use crate::asm::*;
use crate::rng::Rng;

/// The registers that random instructions leave alone.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    /// The first of five: two for the trap handlers, the mark of a scene's end,
    /// the address of the next scene, and the counter of a loop.
    pub(crate) first: u32,
}

impl Kept {
    pub(crate) fn scratch(self) -> u32 {
        self.first
    }

    pub(crate) fn scratch2(self) -> u32 {
        self.first + 1
    }

    /// Not zero: the scene is over.
    pub(crate) fn mark(self) -> u32 {
        self.first + 2
    }

    /// Where M-mode goes on when the scene is over.
    pub(crate) fn next(self) -> u32 {
        self.first + 3
    }

    pub(crate) fn count(self) -> u32 {
        self.first + 4
    }

    fn has(self, n: u32) -> bool {
        POINTERS.contains(&n) || (self.first..self.first + 5).contains(&n)
    }
}

/// Registers that hold addresses; compressed instructions reach these.
pub(crate) const POINTERS: [u32; 3] = [2, 8, 9];

/// What a segment is mostly made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    Integer,
    Bits,
    Memory,
    Atomic,
    Float,
    Compressed,
    Csr,
    Encoding,
    Mixed,
}

pub(crate) const FLAVOURS: [Flavour; 9] = [
    Flavour::Integer,
    Flavour::Bits,
    Flavour::Memory,
    Flavour::Atomic,
    Flavour::Float,
    Flavour::Compressed,
    Flavour::Csr,
    Flavour::Encoding,
    Flavour::Mixed,
];

/// Makes random instructions for one program.
pub(crate) struct Source<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) kept: Kept,
    /// Atomics and cache-block operations at addresses that aren't aligned, where the
    /// two machines may report faults differently.
    pub(crate) odd: bool,
}

impl Source<'_> {
    pub(crate) fn rd(&mut self) -> u32 {
        loop {
            let n = self.rng.below(32) as u32;
            if !self.kept.has(n) {
                return n;
            }
        }
    }

    fn rd_not_zero(&mut self) -> u32 {
        loop {
            let n = self.rd();
            if n != 0 {
                return n;
            }
        }
    }

    pub(crate) fn rs(&mut self) -> u32 {
        self.rng.below(32) as u32
    }

    fn pointer(&mut self) -> u32 {
        self.rng.pick(&POINTERS)
    }

    fn offset(&mut self) -> i32 {
        let any = self.rng.below(4096) as i32 - 2048;
        match self.rng.below(4) {
            0 => any,
            1 => any / 8,
            _ => any / 64 * 8,
        }
    }

    /// One instruction of 4 bytes, or a pair of compressed ones.
    pub(crate) fn emit(&mut self, asm: &mut Asm, flavour: Flavour) {
        let flavour = if flavour == Flavour::Mixed || self.rng.chance(6) {
            self.rng.pick(&FLAVOURS[..8])
        } else {
            flavour
        };
        let word = match flavour {
            Flavour::Integer | Flavour::Mixed => self.integer(),
            Flavour::Bits => self.bits(),
            Flavour::Memory if self.rng.chance(20) => return self.block(asm),
            Flavour::Memory => self.memory(),
            Flavour::Atomic => return self.atomic(asm),
            Flavour::Float => self.float(),
            Flavour::Compressed => {
                let (first, second) = (self.compressed(), self.harmless());
                asm.c(first).c(second);
                return;
            }
            Flavour::Csr => self.csr(),
            Flavour::Encoding => {
                let word = self.encoding();
                let at = word >> 15 & 31;
                if !self.odd && matches!(word & 0x7f, 0x0f | 0x2f) {
                    // Another register than the pointer, aligned for all of them.
                    let rd = self.rd_not_zero();
                    asm.op(i(-64, at, 7, rd, 0x13));
                    word & !(31 << 15) | rd << 15
                } else {
                    word
                }
            }
        };
        asm.op(word);
    }

    fn integer(&mut self) -> u32 {
        let (rd, a, b) = (self.rd(), self.rs(), self.rs());
        let rng = &mut *self.rng;
        let f3 = rng.below(8) as u32;
        match rng.below(6) {
            0 => {
                let f7 = if matches!(f3, 0 | 5) {
                    rng.pick(&[0, 0x20])
                } else {
                    0
                };
                r(f7, b, a, f3, rd, 0x33)
            }
            1 => r(1, b, a, f3, rd, 0x33),
            2 => {
                let (f7, f3) = rng.pick(&[
                    (0, 0),
                    (0x20, 0),
                    (0, 1),
                    (0, 5),
                    (0x20, 5),
                    (1, 0),
                    (1, 4),
                    (1, 5),
                    (1, 6),
                    (1, 7),
                ]);
                r(f7, b, a, f3, rd, 0x3b)
            }
            3 => {
                let imm = match f3 {
                    1 => rng.below(64) as i32,
                    5 => rng.below(64) as i32 | rng.pick(&[0, 0x400]),
                    _ => rng.next() as i32,
                };
                i(imm, a, f3, rd, 0x13)
            }
            4 => match rng.below(3) {
                0 => i(rng.next() as i32, a, 0, rd, 0x1b),
                1 => i(rng.below(32) as i32, a, 1, rd, 0x1b),
                _ => i(rng.below(32) as i32 | rng.pick(&[0, 0x400]), a, 5, rd, 0x1b),
            },
            _ => (rng.next() as u32) << 12 | rd << 7 | rng.pick(&[0x37, 0x17]),
        }
    }

    /// Zba, Zbb, Zbs and Zicond.
    fn bits(&mut self) -> u32 {
        let (rd, a, b) = (self.rd(), self.rs(), self.rs());
        let rng = &mut *self.rng;
        let shamt = rng.below(64) as i32;
        match rng.below(5) {
            0 | 1 => {
                let (f7, f3) = rng.pick(&[
                    (0x10, 2),
                    (0x10, 4),
                    (0x10, 6),
                    (0x20, 4),
                    (0x20, 6),
                    (0x20, 7),
                    (5, 4),
                    (5, 5),
                    (5, 6),
                    (5, 7),
                    (0x30, 1),
                    (0x30, 5),
                    (0x24, 1),
                    (0x24, 5),
                    (0x34, 1),
                    (0x14, 1),
                    (7, 5),
                    (7, 7),
                ]);
                r(f7, b, a, f3, rd, 0x33)
            }
            2 => {
                let (f7, f3) = rng.pick(&[
                    (4, 0),
                    (0x10, 2),
                    (0x10, 4),
                    (0x10, 6),
                    (0x30, 1),
                    (0x30, 5),
                    (4, 4),
                ]);
                let b = if (f7, f3) == (4, 4) { 0 } else { b };
                r(f7, b, a, f3, rd, 0x3b)
            }
            3 => {
                let (imm, f3) = rng.pick(&[
                    (0x600, 1),
                    (0x601, 1),
                    (0x602, 1),
                    (0x604, 1),
                    (0x605, 1),
                    (0x287, 5),
                    (0x6b8, 5),
                    (0x600 | shamt, 5),
                    (0x480 | shamt, 1),
                    (0x480 | shamt, 5),
                    (0x680 | shamt, 1),
                    (0x280 | shamt, 1),
                ]);
                i(imm, a, f3, rd, 0x13)
            }
            _ => {
                let (imm, f3) = rng.pick(&[
                    (0x600, 1),
                    (0x601, 1),
                    (0x602, 1),
                    (0x600 | shamt & 31, 5),
                    (0x80 | shamt, 1),
                ]);
                i(imm, a, f3, rd, 0x1b)
            }
        }
    }

    fn memory(&mut self) -> u32 {
        let (at, offset) = (self.pointer(), self.offset());
        let (rd, b) = (self.rd(), self.rs());
        let rng = &mut *self.rng;
        match rng.below(19) {
            0..9 => load(rng.below(7) as u32, rd, at, offset),
            9..16 => store(rng.below(4) as u32, b, at, offset),
            16 => i(offset, at, rng.pick(&[2, 3]), b, 0x07),
            17 => s(offset, b, at, rng.pick(&[2, 3]), 0x27),
            _ => rng.pick(&[FENCE, 0x0330_000f, 0x8330_000f, FENCE_I, PAUSE]),
        }
    }

    /// A cache-block operation.
    fn block(&mut self, asm: &mut Asm) {
        let mut at = self.pointer();
        if !self.odd {
            let rd = self.rd_not_zero();
            asm.op(i(-64, at, 7, rd, 0x13));
            at = rd;
        }
        asm.op(cbo(self.rng.pick(&[0, 1, 2, 4]), at));
    }

    fn atomic(&mut self, asm: &mut Asm) {
        let mut at = self.pointer();
        // Mostly aligned: the pointer may not be.
        if !self.odd || !self.rng.chance(4) {
            let rd = self.rd_not_zero();
            let (offset, mask) = (self.offset(), self.rng.pick(&[-8, -8, -4]));
            asm.op(addi(rd, at, offset)).op(i(mask, rd, 7, rd, 0x13));
            at = rd;
        }
        let (double, order) = (self.rng.chance(2), self.rng.below(4) as u32);
        // SC must tell whether it failed.
        let (rd, b) = (self.rd_not_zero(), self.rs());
        if self.rng.chance(3) {
            // A pair, with something between now and then.
            asm.op(amo(2, double, if rd == at { 0 } else { rd }, at, 0) | order << 25);
            if self.rng.chance(2) {
                let word = self.integer();
                if word >> 7 & 31 != at {
                    asm.op(word);
                }
            }
            let rd = self.rd_not_zero();
            asm.op(amo(3, double, rd, at, b) | order << 25);
            return;
        }
        let f5 = self
            .rng
            .pick(&[2, 3, 1, 0, 4, 0xc, 8, 0x10, 0x14, 0x18, 0x1c, 0x1c]);
        let b = if f5 == 2 { 0 } else { b };
        asm.op(amo(f5, double, rd, at, b) | order << 25);
    }

    fn float(&mut self) -> u32 {
        let (rd, a) = (self.rd(), self.rs());
        let rng = &mut *self.rng;
        let f = |rng: &mut Rng| rng.below(32) as u32;
        let rm = rng.pick(&[0, 1, 2, 3, 4, 7, 7, 7, 7, 5]);
        let format = rng.below(2) as u32;
        match rng.below(11) {
            0 | 1 => {
                let opcode = rng.pick(&[0x43, 0x47, 0x4b, 0x4f]);
                f(rng) << 27 | r(format, f(rng), f(rng), rm, f(rng), opcode)
            }
            2..6 => {
                let f7 = rng.below(4) as u32 * 4 + format;
                r(f7, f(rng), f(rng), rm, f(rng), 0x53)
            }
            6 => r(0x2c + format, 0, f(rng), rm, f(rng), 0x53),
            7 => match rng.below(3) {
                0 => r(0x20, 1, f(rng), rm, f(rng), 0x53),
                1 => r(0x21, 0, f(rng), rm, f(rng), 0x53),
                _ => {
                    let f7 = rng.pick(&[0x10, 0x14]) + format;
                    r(f7, f(rng), f(rng), rng.below(3) as u32, f(rng), 0x53)
                }
            },
            8 => r(0x68 + format, rng.below(4) as u32, a, rm, f(rng), 0x53),
            9 => r(0x60 + format, rng.below(4) as u32, f(rng), rm, rd, 0x53),
            _ => match rng.below(5) {
                0 => r(0x50 + format, f(rng), f(rng), rng.below(3) as u32, rd, 0x53),
                1 => r(0x70 + format, 0, f(rng), rng.below(2) as u32, rd, 0x53),
                2 => csrrwi(rd, 2, rng.below(8) as u32),
                3 => csrrwi(rd, 1, rng.below(32) as u32),
                _ => r(0x78 + format, 0, a, 0, f(rng), 0x53),
            },
        }
    }

    /// Any 16 bits that neither jump nor write a kept register.
    fn compressed(&mut self) -> u16 {
        loop {
            let mut half = self.rng.next() as u16;
            let full = u32::from(half >> 7 & 31);
            let low = u32::from(half >> 2 & 7) + 8;
            let high = u32::from(half >> 7 & 7) + 8;
            let fine = match (half & 3, half >> 13) {
                (3, _) => false,
                (0, n) => {
                    if n != 0 {
                        // Its address comes from one of the pointers.
                        half = half & !(7 << 7) | (half >> 7 & 1) << 7;
                    }
                    n >= 5 || !self.kept.has(low)
                }
                (1, 4) => !self.kept.has(high),
                (1, 5..=7) => false,
                (2, 4) => full != 0 && half & 0x7c != 0 && !self.kept.has(full) || half == 0x9002,
                (1, _) | (2, 0..=3) => !self.kept.has(full),
                _ => true,
            };
            // fld and flw forms name a floating-point register, kept or not.
            if fine {
                return half;
            }
        }
    }

    /// A compressed instruction that cannot trap.
    fn harmless(&mut self) -> u16 {
        let rd = self.rd() as u16;
        let imm = self.rng.below(64) as u16;
        if rd == 0 {
            return C_NOP;
        }
        // c.addi, c.li
        let f3 = self.rng.pick(&[0, 2]) << 13;
        f3 | (imm & 32) << 7 | rd << 7 | (imm & 31) << 2 | 1
    }

    fn csr(&mut self) -> u32 {
        let (rd, a) = (self.rd(), self.rs());
        let rng = &mut *self.rng;
        if rng.chance(4) {
            let word = rng.pick(&[
                ECALL, EBREAK, SFENCE, SINVAL, SFENCE_W, SFENCE_IR, WRS_STO, RESERVED, FENCE_I,
            ]);
            return if matches!(word, SFENCE | SINVAL) {
                word | (rng.below(32) as u32) << 20 | a << 15
            } else {
                word
            };
        }
        // Reads of any number, existing or not; writes of those that end no scene.
        if rng.chance(4) {
            let any = rng.below(4096) as u32;
            let csr = if rng.chance(2) || own(any) {
                rng.pick(READ_ONLY)
            } else {
                any
            };
            return csrr(rd, csr);
        }
        let csr = rng.pick(WRITABLE);
        let f3 = rng.pick(&[1, 2, 3, 5, 6, 7, 2, 2]);
        let source = if rng.chance(3) { 0 } else { a };
        csr << 20 | source << 15 | f3 << 12 | rd << 7 | 0x73
    }

    /// Random fields under an opcode whose instructions do nothing but write rd
    /// or access memory at a pointer: most are reserved.
    fn encoding(&mut self) -> u32 {
        let (rd, at) = (self.rd_not_zero(), self.pointer());
        let rng = &mut *self.rng;
        let word = rng.next() as u32;
        let opcode = rng.pick(&[
            0x33, 0x3b, 0x13, 0x1b, 0x33, 0x3b, 0x13, 0x1b, 0x53, 0x53, 0x53, 0x43, 0x47, 0x4b,
            0x4f, 0x0f, 0x2f, 0x03, 0x23, 0x07, 0x27, 0x0b, 0x2b, 0x5b, 0x7b, 0x57, 0x77, 0x6b,
        ]);
        let f7 = rng.pick(&[
            0, 1, 4, 5, 7, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x60, 0x61, 0x70, 0x71, 0x78, 0x79,
            0x50, 0x51, 0x2c, 0x2d,
        ]);
        let word = match opcode {
            0x0f | 0x2f | 0x03 | 0x23 | 0x07 | 0x27 => word & !(31 << 15) | at << 15,
            0x33 | 0x3b | 0x13 | 0x1b | 0x53 if !rng.chance(3) => word << 7 >> 7 | f7 << 25,
            _ => word,
        };
        word & !0xfff | rd << 7 | opcode
    }
}

/// CSRs that random code reads, but for those that it writes as well.
const READ_ONLY: &[u32] = &[
    0x180, 0x301, 0x302, 0x303, 0x305, 0x105, 0x30a, 0x320, 0x3a0, 0x3a2, 0x3b0, 0x3b5, 0x3bf,
    0xc02, 0xc03, 0xc1f, 0xb02, 0xb03, 0xb1f, 0x323, 0x33f, 0xf14, 0xf15, 0x14d,
];

/// CSRs that the two machines have in their own way.
fn own(csr: u32) -> bool {
    match csr {
        // Cycles and time; the implementation's names.
        0xb00 | 0xc00 | 0xc01 | 0xf11..=0xf13 => true,
        // PMP entries from 16 on: none, or read-only zero.
        0x3a4..=0x3af | 0x3c0..=0x3ef => true,
        // Triggers and debugging, which the reference has.
        0x5a8 | 0x7a0..=0x7af => true,
        _ => false,
    }
}

/// CSRs that random code writes as well: whatever they hold, the handlers work.
const WRITABLE: &[u32] = &[
    0x001, 0x002, 0x003, 0x100, 0x100, 0x100, 0x104, 0x106, 0x140, 0x141, 0x142, 0x143, 0x144,
    0x144, 0x300, 0x300, 0x300, 0x304, 0x306, 0x340, 0x341, 0x342, 0x343, 0x344, 0x344, 0xc02,
    0xb02, 0xf14, 0xb03, 0x323,
];

/// zicsr aside, what the shared assembler doesn't name.
/// Not 0xffff_ffff: the reference fetches longer instructions whole.
pub(crate) const RESERVED: u32 = 0xffff_fffb;
pub(crate) const PAUSE: u32 = 0x0100_000f;
pub(crate) const SINVAL: u32 = 0x1600_0073;
pub(crate) const SFENCE_W: u32 = 0x1800_0073;
pub(crate) const SFENCE_IR: u32 = 0x1810_0073;
pub(crate) const WRS_NTO: u32 = 0x00d0_0073;
pub(crate) const WRS_STO: u32 = 0x01d0_0073;

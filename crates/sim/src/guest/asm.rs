//! An assembler for the few instructions that the guest is made of.
//!
//! Encodings: RISC-V Instruction Set Manual, volume I, "RV32/64G Instruction Set Listings".

use std::collections::BTreeMap;

/// A register by its number.
pub(super) type Reg = u32;

macro_rules! registers {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(pub(super) const $name: Reg = $number;)*
    };
}

registers! {
    ZERO = 0, RA = 1, GP = 3, TP = 4, T0 = 5, T1 = 6, T2 = 7, S0 = 8, S1 = 9,
    A0 = 10, A1 = 11, A2 = 12, A3 = 13, A4 = 14, A5 = 15, A6 = 16, A7 = 17,
    S2 = 18, S3 = 19, S4 = 20, S5 = 21, S6 = 22, S7 = 23, S8 = 24, S9 = 25, S10 = 26, S11 = 27,
    T3 = 28, T4 = 29, T5 = 30, T6 = 31,
}

/// How a jump to a label is encoded.
#[derive(Clone, Copy)]
enum Jump {
    Branch,
    Long,
}

/// A program that grows, with the jumps to labels that are still to be filled in.
#[derive(Default)]
pub(super) struct Asm {
    words: Vec<u32>,
    labels: BTreeMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str, Jump)>,
}

impl Asm {
    /// The program. Panics, in tests and tools only, on a label that is missing or too far away.
    pub(super) fn finish(mut self) -> Vec<u32> {
        for (at, label, jump) in self.jumps {
            let to = *self.labels.get(label).expect("every label is set");
            let offset = (to as i64 - at as i64) * 4;
            let o = offset as u32;
            self.words[at] |= match jump {
                Jump::Branch => {
                    assert!((-4096..4096).contains(&offset), "{label} is too far away");
                    (o >> 12 & 1) << 31
                        | (o >> 5 & 0x3f) << 25
                        | (o >> 1 & 0xf) << 8
                        | (o >> 11 & 1) << 7
                }
                Jump::Long => {
                    (o >> 20 & 1) << 31
                        | (o >> 1 & 0x3ff) << 21
                        | (o >> 11 & 1) << 20
                        | (o >> 12 & 0xff) << 12
                }
            };
        }
        self.words
    }

    pub(super) fn label(&mut self, name: &'static str) {
        let before = self.labels.insert(name, self.words.len());
        assert!(before.is_none(), "{name} is set twice");
    }

    fn itype(&mut self, opcode: u32, funct3: u32, rd: Reg, rs1: Reg, imm: i32) {
        assert!((-2048..2048).contains(&imm), "{imm} fits no immediate");
        let imm = (imm as u32 & 0xfff) << 20;
        self.words
            .push(imm | rs1 << 15 | funct3 << 12 | rd << 7 | opcode);
    }

    fn rtype(&mut self, funct7: u32, funct3: u32, rd: Reg, rs1: Reg, rs2: Reg) {
        let code = funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x33;
        self.words.push(code);
    }

    fn store(&mut self, funct3: u32, rs2: Reg, rs1: Reg, imm: i32) {
        assert!((-2048..2048).contains(&imm), "{imm} fits no immediate");
        let imm = imm as u32;
        let high = (imm >> 5 & 0x7f) << 25;
        let low = (imm & 0x1f) << 7;
        self.words
            .push(high | rs2 << 20 | rs1 << 15 | funct3 << 12 | low | 0x23);
    }

    fn branch(&mut self, funct3: u32, rs1: Reg, rs2: Reg, to: &'static str) {
        self.jumps.push((self.words.len(), to, Jump::Branch));
        self.words.push(rs2 << 20 | rs1 << 15 | funct3 << 12 | 0x63);
    }

    /// Sets a register to any 32-bit value, zero-extended: in parts of 10, 11 and 11 bits, so that
    /// nothing is sign-extended.
    pub(super) fn li(&mut self, rd: Reg, value: u32) {
        if value < 2048 {
            return self.addi(rd, ZERO, value as i32);
        }
        self.addi(rd, ZERO, (value >> 22) as i32);
        for shift in [11, 0] {
            self.slli(rd, rd, 11);
            self.addi(rd, rd, (value >> shift & 0x7ff) as i32);
        }
    }

    pub(super) fn mv(&mut self, rd: Reg, rs: Reg) {
        self.addi(rd, rs, 0);
    }

    pub(super) fn addi(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.itype(0x13, 0, rd, rs1, imm);
    }

    pub(super) fn andi(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.itype(0x13, 7, rd, rs1, imm);
    }

    pub(super) fn slli(&mut self, rd: Reg, rs1: Reg, by: i32) {
        self.itype(0x13, 1, rd, rs1, by);
    }

    pub(super) fn srli(&mut self, rd: Reg, rs1: Reg, by: i32) {
        self.itype(0x13, 5, rd, rs1, by);
    }

    pub(super) fn add(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.rtype(0, 0, rd, rs1, rs2);
    }

    pub(super) fn xor(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.rtype(0, 4, rd, rs1, rs2);
    }

    pub(super) fn mul(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.rtype(1, 0, rd, rs1, rs2);
    }

    pub(super) fn ld(&mut self, rd: Reg, imm: i32, rs1: Reg) {
        self.itype(0x03, 3, rd, rs1, imm);
    }

    pub(super) fn lwu(&mut self, rd: Reg, imm: i32, rs1: Reg) {
        self.itype(0x03, 6, rd, rs1, imm);
    }

    pub(super) fn lhu(&mut self, rd: Reg, imm: i32, rs1: Reg) {
        self.itype(0x03, 5, rd, rs1, imm);
    }

    pub(super) fn sd(&mut self, rs2: Reg, imm: i32, rs1: Reg) {
        self.store(3, rs2, rs1, imm);
    }

    pub(super) fn sw(&mut self, rs2: Reg, imm: i32, rs1: Reg) {
        self.store(2, rs2, rs1, imm);
    }

    pub(super) fn sh(&mut self, rs2: Reg, imm: i32, rs1: Reg) {
        self.store(1, rs2, rs1, imm);
    }

    pub(super) fn beq(&mut self, rs1: Reg, rs2: Reg, to: &'static str) {
        self.branch(0, rs1, rs2, to);
    }

    pub(super) fn bne(&mut self, rs1: Reg, rs2: Reg, to: &'static str) {
        self.branch(1, rs1, rs2, to);
    }

    pub(super) fn bltu(&mut self, rs1: Reg, rs2: Reg, to: &'static str) {
        self.branch(6, rs1, rs2, to);
    }

    /// Jumps, keeping the way back in `rd`.
    pub(super) fn jal(&mut self, rd: Reg, to: &'static str) {
        self.jumps.push((self.words.len(), to, Jump::Long));
        self.words.push(rd << 7 | 0x6f);
    }

    pub(super) fn j(&mut self, to: &'static str) {
        self.jal(ZERO, to);
    }

    pub(super) fn ret(&mut self) {
        self.itype(0x67, 0, ZERO, RA, 0);
    }

    /// Reads virtual time: CSR 0xc01.
    pub(super) fn rdtime(&mut self, rd: Reg) {
        self.words.push(0xc01 << 20 | 2 << 12 | rd << 7 | 0x73);
    }

    /// Sets bits of `sie`, CSR 0x104.
    pub(super) fn set_sie(&mut self, rs1: Reg) {
        self.words.push(0x104 << 20 | rs1 << 15 | 2 << 12 | 0x73);
    }

    pub(super) fn wfi(&mut self) {
        self.words.push(0x1050_0073);
    }

    pub(super) fn ecall(&mut self) {
        self.words.push(0x73);
    }
}

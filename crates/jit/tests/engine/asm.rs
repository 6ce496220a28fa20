//! A tiny assembler: one function per instruction, a buffer with an address.

/// R-type.
pub(crate) fn r(f7: u32, rs2: u32, rs1: u32, f3: u32, rd: u32, opcode: u32) -> u32 {
    f7 << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | rd << 7 | opcode
}

/// I-type; the immediate is cut to 12 bits.
pub(crate) fn i(imm: i32, rs1: u32, f3: u32, rd: u32, opcode: u32) -> u32 {
    (imm as u32) << 20 | rs1 << 15 | f3 << 12 | rd << 7 | opcode
}

/// S-type.
pub(crate) fn s(imm: i32, rs2: u32, rs1: u32, f3: u32, opcode: u32) -> u32 {
    let imm = imm as u32;
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (imm & 31) << 7 | opcode
}

/// B-type branch: 0 beq, 1 bne, 4 blt, 5 bge, 6 bltu, 7 bgeu.
pub(crate) fn branch(f3: u32, rs1: u32, rs2: u32, offset: i32) -> u32 {
    let o = offset as u32;
    (o >> 12 & 1) << 31
        | (o >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | f3 << 12
        | (o >> 1 & 15) << 8
        | (o >> 11 & 1) << 7
        | 0x63
}

pub(crate) fn jal(rd: u32, offset: i32) -> u32 {
    let o = offset as u32;
    (o >> 20 & 1) << 31
        | (o >> 1 & 0x3ff) << 21
        | (o >> 11 & 1) << 20
        | (o >> 12 & 0xff) << 12
        | rd << 7
        | 0x6f
}

pub(crate) fn jalr(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(imm, rs1, 0, rd, 0x67)
}

pub(crate) fn lui(rd: u32, imm20: u32) -> u32 {
    imm20 << 12 | rd << 7 | 0x37
}

pub(crate) fn auipc(rd: u32, imm20: u32) -> u32 {
    imm20 << 12 | rd << 7 | 0x17
}

pub(crate) fn addi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(imm, rs1, 0, rd, 0x13)
}

pub(crate) fn addiw(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(imm, rs1, 0, rd, 0x1b)
}

pub(crate) fn slli(rd: u32, rs1: u32, by: i32) -> u32 {
    i(by, rs1, 1, rd, 0x13)
}

pub(crate) fn add(rd: u32, rs1: u32, rs2: u32) -> u32 {
    r(0, rs2, rs1, 0, rd, 0x33)
}

/// Loads by funct3: 0 lb, 1 lh, 2 lw, 3 ld, 4 lbu, 5 lhu, 6 lwu.
pub(crate) fn load(f3: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    i(imm, rs1, f3, rd, 0x03)
}

pub(crate) fn ld(rd: u32, rs1: u32, imm: i32) -> u32 {
    load(3, rd, rs1, imm)
}

/// Stores by funct3: 0 sb, 1 sh, 2 sw, 3 sd.
pub(crate) fn store(f3: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    s(imm, rs2, rs1, f3, 0x23)
}

pub(crate) fn sd(rs2: u32, rs1: u32, imm: i32) -> u32 {
    store(3, rs2, rs1, imm)
}

pub(crate) fn sw(rs2: u32, rs1: u32, imm: i32) -> u32 {
    store(2, rs2, rs1, imm)
}

/// AMO by funct5 (2 lr, 3 sc, 1 swap, 0 add, …); `double` for .d.
pub(crate) fn amo(f5: u32, double: bool, rd: u32, rs1: u32, rs2: u32) -> u32 {
    r(f5 << 2, rs2, rs1, 2 + u32::from(double), rd, 0x2f)
}

/// Cache-block operations: 0 inval, 1 clean, 2 flush, 4 zero.
pub(crate) fn cbo(which: i32, rs1: u32) -> u32 {
    i(which, rs1, 2, 0, 0x0f)
}

pub(crate) fn csrrw(rd: u32, csr: u32, rs1: u32) -> u32 {
    csr << 20 | rs1 << 15 | 1 << 12 | rd << 7 | 0x73
}

pub(crate) fn csrrs(rd: u32, csr: u32, rs1: u32) -> u32 {
    csr << 20 | rs1 << 15 | 2 << 12 | rd << 7 | 0x73
}

pub(crate) fn csrrc(rd: u32, csr: u32, rs1: u32) -> u32 {
    csr << 20 | rs1 << 15 | 3 << 12 | rd << 7 | 0x73
}

pub(crate) fn csrrwi(rd: u32, csr: u32, imm: u32) -> u32 {
    csr << 20 | imm << 15 | 5 << 12 | rd << 7 | 0x73
}

pub(crate) fn csrr(rd: u32, csr: u32) -> u32 {
    csrrs(rd, csr, 0)
}

pub(crate) fn csrw(csr: u32, rs1: u32) -> u32 {
    csrrw(0, csr, rs1)
}

pub(crate) const NOP: u32 = 0x13;
pub(crate) const ECALL: u32 = 0x73;
pub(crate) const EBREAK: u32 = 0x0010_0073;
pub(crate) const SRET: u32 = 0x1020_0073;
pub(crate) const MRET: u32 = 0x3020_0073;
pub(crate) const WFI: u32 = 0x1050_0073;
pub(crate) const FENCE: u32 = 0x0ff0_000f;
pub(crate) const FENCE_I: u32 = 0x0000_100f;
pub(crate) const SFENCE: u32 = 0x1200_0073;
/// Jumps to itself: where programs end.
pub(crate) const SPIN: u32 = 0x6f;
pub(crate) const C_NOP: u16 = 1;

/// Code at an address.
pub(crate) struct Asm {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Asm {
    pub(crate) fn at(base: u64) -> Self {
        Self {
            base,
            bytes: Vec::new(),
        }
    }

    /// The address of the next instruction.
    pub(crate) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(crate) fn op(&mut self, word: u32) -> &mut Self {
        self.bytes.extend_from_slice(&word.to_le_bytes());
        self
    }

    pub(crate) fn ops(&mut self, words: &[u32]) -> &mut Self {
        for word in words {
            self.op(*word);
        }
        self
    }

    pub(crate) fn c(&mut self, half: u16) -> &mut Self {
        self.bytes.extend_from_slice(&half.to_le_bytes());
        self
    }

    /// Fills with c.nop up to `address`.
    pub(crate) fn pad_to(&mut self, address: u64) -> &mut Self {
        while self.here() < address {
            self.c(C_NOP);
        }
        self
    }

    /// Loads any constant.
    pub(crate) fn li(&mut self, rd: u32, value: u64) -> &mut Self {
        let v = value as i64;
        if (-2048..2048).contains(&v) {
            return self.op(addi(rd, 0, v as i32));
        }
        let low = (v << 52 >> 52) as i32;
        if v == i64::from(v as i32) {
            let high = (v.wrapping_sub(i64::from(low)) >> 12) as u32 & 0xf_ffff;
            return self.op(lui(rd, high)).op(addiw(rd, rd, low));
        }
        let high = v.wrapping_sub(i64::from(low)) >> 12;
        self.li(rd, high as u64)
            .op(slli(rd, rd, 12))
            .op(addi(rd, rd, low))
    }
}

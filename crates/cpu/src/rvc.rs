//! Decoder of 16-bit instructions (RISC-V Unprivileged ISA, chapter "C").

use crate::decode::{fop, illegal, op};
use crate::op::{Kind, Op};

fn bit(raw: u16, from: u32, to: u32) -> i32 {
    i32::from(raw >> from & 1) << to
}

fn field(raw: u16, high: u32, low: u32, to: u32) -> i32 {
    (i32::from(raw >> low) & ((1 << (high - low + 1)) - 1)) << to
}

fn sign(value: i32, top: u32) -> i32 {
    value << (31 - top) >> (31 - top)
}

fn imm6(raw: u16) -> i32 {
    sign(bit(raw, 12, 5) | field(raw, 6, 2, 0), 5)
}

fn shamt(raw: u16) -> i32 {
    bit(raw, 12, 5) | field(raw, 6, 2, 0)
}

fn imm_j(raw: u16) -> i32 {
    sign(
        bit(raw, 12, 11)
            | bit(raw, 11, 4)
            | field(raw, 10, 9, 8)
            | bit(raw, 8, 10)
            | bit(raw, 7, 6)
            | bit(raw, 6, 7)
            | field(raw, 5, 3, 1)
            | bit(raw, 2, 5),
        11,
    )
}

fn imm_b(raw: u16) -> i32 {
    sign(
        bit(raw, 12, 8)
            | field(raw, 11, 10, 3)
            | field(raw, 6, 5, 6)
            | field(raw, 4, 3, 1)
            | bit(raw, 2, 5),
        8,
    )
}

/// Decodes a compressed instruction to the op it expands to.
pub(crate) fn decode_compressed(raw: u16) -> Op {
    use Kind::*;
    let full = u32::from(raw >> 7 & 31);
    let full2 = u32::from(raw >> 2 & 31);
    let low = u32::from(raw >> 2 & 7) + 8;
    let mid = u32::from(raw >> 7 & 7) + 8;
    let word = field(raw, 12, 10, 3) | bit(raw, 6, 2) | bit(raw, 5, 6);
    let double = field(raw, 12, 10, 3) | field(raw, 6, 5, 6);
    match (raw & 3, raw >> 13) {
        (0, 0) => {
            let imm =
                field(raw, 12, 11, 4) | field(raw, 10, 7, 6) | bit(raw, 6, 2) | bit(raw, 5, 3);
            if imm == 0 {
                illegal()
            } else {
                op(Addi, low, 2, 0, imm)
            }
        }
        (0, 1) => fop(Fld, low, mid, 0, double),
        (0, 2) => op(Lw, low, mid, 0, word),
        (0, 3) => op(Ld, low, mid, 0, double),
        (0, 5) => op(Fsd, 0, mid, low, double),
        (0, 6) => op(Sw, 0, mid, low, word),
        (0, 7) => op(Sd, 0, mid, low, double),
        (1, 0) if full == 0 => op(Nop, 0, 0, 0, 0),
        (1, 0) => op(Addi, full, full, 0, imm6(raw)),
        (1, 1) if full != 0 => op(Addiw, full, full, 0, imm6(raw)),
        (1, 2) => op(Li, full, 0, 0, imm6(raw)),
        (1, 3) if full == 2 => {
            let imm = sign(
                bit(raw, 12, 9)
                    | bit(raw, 6, 4)
                    | bit(raw, 5, 6)
                    | field(raw, 4, 3, 7)
                    | bit(raw, 2, 5),
                9,
            );
            if imm == 0 {
                illegal()
            } else {
                op(Addi, 2, 2, 0, imm)
            }
        }
        (1, 3) => {
            let imm = imm6(raw) << 12;
            if imm == 0 {
                illegal()
            } else {
                op(Li, full, 0, 0, imm)
            }
        }
        (1, 4) => match (raw >> 10 & 3, raw >> 12 & 1, raw >> 5 & 3) {
            (0, _, _) => op(Srli, mid, mid, 0, shamt(raw)),
            (1, _, _) => op(Srai, mid, mid, 0, shamt(raw)),
            (2, _, _) => op(Andi, mid, mid, 0, imm6(raw)),
            (_, 0, 0) => op(Sub, mid, mid, low, 0),
            (_, 0, 1) => op(Xor, mid, mid, low, 0),
            (_, 0, 2) => op(Or, mid, mid, low, 0),
            (_, 0, _) => op(And, mid, mid, low, 0),
            (_, _, 0) => op(Subw, mid, mid, low, 0),
            (_, _, 1) => op(Addw, mid, mid, low, 0),
            _ => illegal(),
        },
        (1, 5) => op(Jal, 0, 0, 0, imm_j(raw)),
        (1, 6) => op(Beq, 0, mid, 0, imm_b(raw)),
        (1, 7) => op(Bne, 0, mid, 0, imm_b(raw)),
        (2, 0) => op(Slli, full, full, 0, shamt(raw)),
        (2, 1) => fop(
            Fld,
            full,
            2,
            0,
            bit(raw, 12, 5) | field(raw, 6, 5, 3) | field(raw, 4, 2, 6),
        ),
        (2, 2) if full != 0 => op(
            Lw,
            full,
            2,
            0,
            bit(raw, 12, 5) | field(raw, 6, 4, 2) | field(raw, 3, 2, 6),
        ),
        (2, 3) if full != 0 => op(
            Ld,
            full,
            2,
            0,
            bit(raw, 12, 5) | field(raw, 6, 5, 3) | field(raw, 4, 2, 6),
        ),
        (2, 4) => match (raw >> 12 & 1, full, full2) {
            (0, 0, 0) => illegal(),
            (0, _, 0) => op(Jalr, 0, full, 0, 0),
            (0, _, _) => op(Add, full, 0, full2, 0),
            (_, 0, 0) => op(Ebreak, 0, 0, 0, 0),
            (_, _, 0) => op(Jalr, 1, full, 0, 0),
            (_, _, _) => op(Add, full, full, full2, 0),
        },
        (2, 5) => op(
            Fsd,
            0,
            2,
            full2,
            field(raw, 12, 10, 3) | field(raw, 9, 7, 6),
        ),
        (2, 6) => op(Sw, 0, 2, full2, field(raw, 12, 9, 2) | field(raw, 8, 7, 6)),
        (2, 7) => op(Sd, 0, 2, full2, field(raw, 12, 10, 3) | field(raw, 9, 7, 6)),
        _ => illegal(),
    }
}

//! Decoder of 32-bit instructions (RISC-V Unprivileged ISA, RV64IMAFD with
//! Zicsr, Zifencei, Zba, Zbb, Zbs, Zicond, Zicbom, Zicboz and Zawrs; Privileged
//! Architecture for the other SYSTEM opcodes).

use crate::hart::SINK;
use crate::op::{Kind, Op};

fn bits(raw: u32, high: u32, low: u32) -> u32 {
    (raw >> low) & ((1 << (high - low + 1)) - 1)
}

fn imm_i(raw: u32) -> i32 {
    raw as i32 >> 20
}

fn imm_s(raw: u32) -> i32 {
    ((raw as i32) >> 25 << 5) | bits(raw, 11, 7) as i32
}

fn imm_b(raw: u32) -> i32 {
    (raw as i32 >> 31 << 12)
        | (bits(raw, 7, 7) << 11 | bits(raw, 30, 25) << 5 | bits(raw, 11, 8) << 1) as i32
}

fn imm_j(raw: u32) -> i32 {
    (raw as i32 >> 31 << 20)
        | (bits(raw, 19, 12) << 12 | bits(raw, 20, 20) << 11 | bits(raw, 30, 21) << 1) as i32
}

/// Builds an integer-destination op: rd = x0 becomes the sink register.
pub(crate) fn op(kind: Kind, rd: u32, rs1: u32, rs2: u32, imm: i32) -> Op {
    let rd = if rd == 0 { SINK } else { rd as u8 };
    Op {
        kind,
        rd,
        rs1: rs1 as u8,
        rs2: rs2 as u8,
        imm,
        off: 0,
        aux: 0,
        raw: 0,
    }
}

/// Builds an op whose rd is a floating-point register (f0 is a real one).
pub(crate) fn fop(kind: Kind, rd: u32, rs1: u32, rs2: u32, imm: i32) -> Op {
    Op {
        rd: rd as u8,
        ..op(kind, 1, rs1, rs2, imm)
    }
}

pub(crate) fn illegal() -> Op {
    op(Kind::Illegal, 0, 0, 0, 0)
}

/// An instruction at the end of a page of which only the first half is known.
pub(crate) fn crossing(first: u16, off: u16) -> Op {
    Op {
        off,
        raw: u32::from(first),
        ..op(Kind::Crossing, 0, 0, 0, 0)
    }
}

/// True if the first halfword starts a 32-bit instruction.
pub(crate) fn is_long(first: u16) -> bool {
    first & 3 == 3
}

/// Decodes one instruction at byte offset `off` of its block. `raw` holds 16
/// valid bits for a compressed instruction, else 32.
pub(crate) fn decode(raw: u32, off: u16) -> Op {
    let mut op = if raw & 3 == 3 {
        decode_long(raw)
    } else {
        crate::rvc::decode_compressed(raw as u16)
    };
    op.off = off;
    op.raw = raw;
    use Kind::*;
    match op.kind {
        // Never overflows: auipc's immediate is a multiple of 4096, off is below it.
        Beq | Bne | Blt | Bge | Bltu | Bgeu | Jal | Auipc => op.imm += i32::from(off),
        _ => {}
    }
    op
}

fn decode_long(raw: u32) -> Op {
    use Kind::*;
    let (rd, f3, rs1, rs2) = (
        bits(raw, 11, 7),
        bits(raw, 14, 12),
        bits(raw, 19, 15),
        bits(raw, 24, 20),
    );
    match raw & 0x7f {
        0x37 => op(Li, rd, 0, 0, (raw & 0xffff_f000) as i32),
        0x17 => op(Auipc, rd, 0, 0, (raw & 0xffff_f000) as i32),
        0x6f => op(Jal, rd, 0, 0, imm_j(raw)),
        0x67 if f3 == 0 => op(Jalr, rd, rs1, 0, imm_i(raw)),
        0x63 => match f3 {
            0 => op(Beq, 0, rs1, rs2, imm_b(raw)),
            1 => op(Bne, 0, rs1, rs2, imm_b(raw)),
            4 => op(Blt, 0, rs1, rs2, imm_b(raw)),
            5 => op(Bge, 0, rs1, rs2, imm_b(raw)),
            6 => op(Bltu, 0, rs1, rs2, imm_b(raw)),
            7 => op(Bgeu, 0, rs1, rs2, imm_b(raw)),
            _ => illegal(),
        },
        0x03 => match f3 {
            0 => op(Lb, rd, rs1, 0, imm_i(raw)),
            1 => op(Lh, rd, rs1, 0, imm_i(raw)),
            2 => op(Lw, rd, rs1, 0, imm_i(raw)),
            3 => op(Ld, rd, rs1, 0, imm_i(raw)),
            4 => op(Lbu, rd, rs1, 0, imm_i(raw)),
            5 => op(Lhu, rd, rs1, 0, imm_i(raw)),
            6 => op(Lwu, rd, rs1, 0, imm_i(raw)),
            _ => illegal(),
        },
        0x23 => match f3 {
            0 => op(Sb, 0, rs1, rs2, imm_s(raw)),
            1 => op(Sh, 0, rs1, rs2, imm_s(raw)),
            2 => op(Sw, 0, rs1, rs2, imm_s(raw)),
            3 => op(Sd, 0, rs1, rs2, imm_s(raw)),
            _ => illegal(),
        },
        0x07 => match f3 {
            2 => fop(Flw, rd, rs1, 0, imm_i(raw)),
            3 => fop(Fld, rd, rs1, 0, imm_i(raw)),
            _ => illegal(),
        },
        0x27 => match f3 {
            2 => op(Fsw, 0, rs1, rs2, imm_s(raw)),
            3 => op(Fsd, 0, rs1, rs2, imm_s(raw)),
            _ => illegal(),
        },
        0x13 => decode_op_imm(raw, rd, f3, rs1),
        0x1b => decode_op_imm_32(raw, rd, f3, rs1, rs2),
        0x33 => decode_op(raw, rd, f3, rs1, rs2),
        0x3b => decode_op_32(raw, rd, f3, rs1, rs2),
        0x2f => decode_amo(raw, rd, f3, rs1, rs2),
        0x0f => match f3 {
            0 if raw == 0x0100_000f => op(Pause, 0, 0, 0, 0),
            0 => op(Fence, 0, 0, 0, 0),
            1 => op(FenceI, 0, 0, 0, 0),
            2 if rd == 0 => match raw >> 20 {
                0 => op(CboInval, 0, rs1, 0, 0),
                1 => op(CboClean, 0, rs1, 0, 0),
                2 => op(CboFlush, 0, rs1, 0, 0),
                4 => op(CboZero, 0, rs1, 0, 0),
                _ => illegal(),
            },
            _ => illegal(),
        },
        0x73 => decode_system(raw, rd, f3, rs1, rs2),
        0x43 => decode_fma(raw, FmaddS, FmaddD),
        0x47 => decode_fma(raw, FmsubS, FmsubD),
        0x4b => decode_fma(raw, FnmsubS, FnmsubD),
        0x4f => decode_fma(raw, FnmaddS, FnmaddD),
        0x53 => decode_fp(raw, rd, f3, rs1, rs2),
        _ => illegal(),
    }
}

fn decode_op_imm(raw: u32, rd: u32, f3: u32, rs1: u32) -> Op {
    use Kind::*;
    let imm = imm_i(raw);
    let shift = bits(raw, 25, 20) as i32;
    match (f3, raw >> 26) {
        (0, _) if rd == 0 => op(Nop, 0, 0, 0, 0),
        (0, _) if rs1 == 0 => op(Li, rd, 0, 0, imm),
        (0, _) => op(Addi, rd, rs1, 0, imm),
        (1, 0) => op(Slli, rd, rs1, 0, shift),
        (1, 0x0a) => op(Bseti, rd, rs1, 0, shift),
        (1, 0x12) => op(Bclri, rd, rs1, 0, shift),
        (1, 0x1a) => op(Binvi, rd, rs1, 0, shift),
        (1, 0x18) => match shift {
            0 => op(Clz, rd, rs1, 0, 0),
            1 => op(Ctz, rd, rs1, 0, 0),
            2 => op(Cpop, rd, rs1, 0, 0),
            4 => op(SextB, rd, rs1, 0, 0),
            5 => op(SextH, rd, rs1, 0, 0),
            _ => illegal(),
        },
        (2, _) => op(Slti, rd, rs1, 0, imm),
        (3, _) => op(Sltiu, rd, rs1, 0, imm),
        (4, _) => op(Xori, rd, rs1, 0, imm),
        (5, 0) => op(Srli, rd, rs1, 0, shift),
        (5, 0x10) => op(Srai, rd, rs1, 0, shift),
        (5, 0x12) => op(Bexti, rd, rs1, 0, shift),
        (5, 0x18) => op(Rori, rd, rs1, 0, shift),
        (5, 0x0a) if shift == 7 => op(OrcB, rd, rs1, 0, 0),
        (5, 0x1a) if shift == 0x38 => op(Rev8, rd, rs1, 0, 0),
        (6, _) => op(Ori, rd, rs1, 0, imm),
        (7, _) => op(Andi, rd, rs1, 0, imm),
        _ => illegal(),
    }
}

fn decode_op_imm_32(raw: u32, rd: u32, f3: u32, rs1: u32, rs2: u32) -> Op {
    use Kind::*;
    let shift = bits(raw, 25, 20) as i32;
    match (f3, raw >> 25) {
        (0, _) => op(Addiw, rd, rs1, 0, imm_i(raw)),
        (1, 0) => op(Slliw, rd, rs1, 0, shift),
        (1, 4 | 5) => op(SlliUw, rd, rs1, 0, shift),
        (1, 0x30) => match rs2 {
            0 => op(Clzw, rd, rs1, 0, 0),
            1 => op(Ctzw, rd, rs1, 0, 0),
            2 => op(Cpopw, rd, rs1, 0, 0),
            _ => illegal(),
        },
        (5, 0) => op(Srliw, rd, rs1, 0, shift),
        (5, 0x20) => op(Sraiw, rd, rs1, 0, shift),
        (5, 0x30) => op(Roriw, rd, rs1, 0, shift),
        _ => illegal(),
    }
}

fn decode_op(raw: u32, rd: u32, f3: u32, rs1: u32, rs2: u32) -> Op {
    use Kind::*;
    let kind = match (raw >> 25, f3) {
        (0, 0) => Add,
        (0x20, 0) => Sub,
        (0, 1) => Sll,
        (0, 2) => Slt,
        (0, 3) => Sltu,
        (0, 4) => Xor,
        (0, 5) => Srl,
        (0x20, 5) => Sra,
        (0, 6) => Or,
        (0, 7) => And,
        (1, 0) => Mul,
        (1, 1) => Mulh,
        (1, 2) => Mulhsu,
        (1, 3) => Mulhu,
        (1, 4) => Div,
        (1, 5) => Divu,
        (1, 6) => Rem,
        (1, 7) => Remu,
        (0x10, 2) => Sh1add,
        (0x10, 4) => Sh2add,
        (0x10, 6) => Sh3add,
        (0x20, 4) => Xnor,
        (0x20, 6) => Orn,
        (0x20, 7) => Andn,
        (5, 4) => Min,
        (5, 5) => Minu,
        (5, 6) => Max,
        (5, 7) => Maxu,
        (0x30, 1) => Rol,
        (0x30, 5) => Ror,
        (0x14, 1) => Bset,
        (0x24, 1) => Bclr,
        (0x24, 5) => Bext,
        (0x34, 1) => Binv,
        (7, 5) => CzeroEqz,
        (7, 7) => CzeroNez,
        _ => return illegal(),
    };
    op(kind, rd, rs1, rs2, 0)
}

fn decode_op_32(raw: u32, rd: u32, f3: u32, rs1: u32, rs2: u32) -> Op {
    use Kind::*;
    let kind = match (raw >> 25, f3) {
        (0, 0) => Addw,
        (0x20, 0) => Subw,
        (0, 1) => Sllw,
        (0, 5) => Srlw,
        (0x20, 5) => Sraw,
        (1, 0) => Mulw,
        (1, 4) => Divw,
        (1, 5) => Divuw,
        (1, 6) => Remw,
        (1, 7) => Remuw,
        (4, 0) => AddUw,
        (4, 4) if rs2 == 0 => ZextH,
        (0x10, 2) => Sh1addUw,
        (0x10, 4) => Sh2addUw,
        (0x10, 6) => Sh3addUw,
        (0x30, 1) => Rolw,
        (0x30, 5) => Rorw,
        _ => return illegal(),
    };
    op(kind, rd, rs1, rs2, 0)
}

fn decode_amo(raw: u32, rd: u32, f3: u32, rs1: u32, rs2: u32) -> Op {
    use Kind::*;
    let word = match f3 {
        2 => true,
        3 => false,
        _ => return illegal(),
    };
    let pick = |w: Kind, d: Kind| if word { w } else { d };
    let kind = match raw >> 27 {
        2 if rs2 == 0 => pick(LrW, LrD),
        3 => pick(ScW, ScD),
        1 => pick(AmoSwapW, AmoSwapD),
        0 => pick(AmoAddW, AmoAddD),
        4 => pick(AmoXorW, AmoXorD),
        0xc => pick(AmoAndW, AmoAndD),
        8 => pick(AmoOrW, AmoOrD),
        0x10 => pick(AmoMinW, AmoMinD),
        0x14 => pick(AmoMaxW, AmoMaxD),
        0x18 => pick(AmoMinuW, AmoMinuD),
        0x1c => pick(AmoMaxuW, AmoMaxuD),
        _ => return illegal(),
    };
    op(kind, rd, rs1, rs2, 0)
}

fn decode_system(raw: u32, rd: u32, f3: u32, rs1: u32, rs2: u32) -> Op {
    use Kind::*;
    let kind = match f3 {
        0 => {
            return match raw {
                0x0000_0073 => op(Ecall, 0, 0, 0, 0),
                0x0010_0073 => op(Ebreak, 0, 0, 0, 0),
                0x1020_0073 => op(Sret, 0, 0, 0, 0),
                0x3020_0073 => op(Mret, 0, 0, 0, 0),
                0x1050_0073 => op(Wfi, 0, 0, 0, 0),
                0x00d0_0073 => op(WrsNto, 0, 0, 0, 0),
                0x01d0_0073 => op(WrsSto, 0, 0, 0, 0),
                0x1800_0073 => op(SfenceWInval, 0, 0, 0, 0),
                0x1810_0073 => op(SfenceInvalIr, 0, 0, 0, 0),
                _ if raw >> 25 == 9 && rd == 0 => op(SfenceVma, 0, rs1, rs2, 0),
                _ if raw >> 25 == 11 && rd == 0 => op(SinvalVma, 0, rs1, rs2, 0),
                _ => illegal(),
            };
        }
        1 => Csrrw,
        2 => Csrrs,
        3 => Csrrc,
        5 => Csrrwi,
        6 => Csrrsi,
        7 => Csrrci,
        _ => return illegal(),
    };
    Op {
        aux: (raw >> 20) as u16,
        ..op(kind, rd, rs1, 0, rd as i32)
    }
}

fn decode_fma(raw: u32, single: Kind, double: Kind) -> Op {
    let kind = match bits(raw, 26, 25) {
        0 => single,
        1 => double,
        _ => return illegal(),
    };
    let aux = (bits(raw, 31, 27) << 3 | bits(raw, 14, 12)) as u16;
    Op {
        aux,
        ..fop(
            kind,
            bits(raw, 11, 7),
            bits(raw, 19, 15),
            bits(raw, 24, 20),
            0,
        )
    }
}

fn decode_fp(raw: u32, rd: u32, f3: u32, rs1: u32, rs2: u32) -> Op {
    use Kind::*;
    let double = match bits(raw, 26, 25) {
        0 => false,
        1 => true,
        _ => return illegal(),
    };
    let pick = |s: Kind, d: Kind| if double { d } else { s };
    // Destination in an integer register?
    let mut to_integer = false;
    let kind = match (raw >> 27, rs2, f3) {
        (0x00, _, _) => pick(FaddS, FaddD),
        (0x01, _, _) => pick(FsubS, FsubD),
        (0x02, _, _) => pick(FmulS, FmulD),
        (0x03, _, _) => pick(FdivS, FdivD),
        (0x0b, 0, _) => pick(FsqrtS, FsqrtD),
        (0x04, _, 0) => pick(FsgnjS, FsgnjD),
        (0x04, _, 1) => pick(FsgnjnS, FsgnjnD),
        (0x04, _, 2) => pick(FsgnjxS, FsgnjxD),
        (0x05, _, 0) => pick(FminS, FminD),
        (0x05, _, 1) => pick(FmaxS, FmaxD),
        (0x08, 1, _) if !double => FcvtSD,
        (0x08, 0, _) if double => FcvtDS,
        (0x1a, 0, _) => pick(FcvtSW, FcvtDW),
        (0x1a, 1, _) => pick(FcvtSWu, FcvtDWu),
        (0x1a, 2, _) => pick(FcvtSL, FcvtDL),
        (0x1a, 3, _) => pick(FcvtSLu, FcvtDLu),
        (0x1e, 0, 0) => pick(FmvWX, FmvDX),
        _ => {
            to_integer = true;
            match (raw >> 27, rs2, f3) {
                (0x14, _, 2) => pick(FeqS, FeqD),
                (0x14, _, 1) => pick(FltS, FltD),
                (0x14, _, 0) => pick(FleS, FleD),
                (0x18, 0, _) => pick(FcvtWS, FcvtWD),
                (0x18, 1, _) => pick(FcvtWuS, FcvtWuD),
                (0x18, 2, _) => pick(FcvtLS, FcvtLD),
                (0x18, 3, _) => pick(FcvtLuS, FcvtLuD),
                (0x1c, 0, 0) => pick(FmvXW, FmvXD),
                (0x1c, 0, 1) => pick(FclassS, FclassD),
                _ => return illegal(),
            }
        }
    };
    let aux = f3 as u16;
    if to_integer {
        Op {
            aux,
            ..op(kind, rd, rs1, rs2, 0)
        }
    } else {
        Op {
            aux,
            ..fop(kind, rd, rs1, rs2, 0)
        }
    }
}

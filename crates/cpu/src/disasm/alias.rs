//! Pseudo-instructions, and what the decoded form alone does not tell apart.

use super::write as with;
use crate::csr::addr;
use crate::hart::SINK;
use crate::op::{Kind, Op};

/// An `unimp` of 32 bits: a write to the read-only cycle counter.
const UNIMP: u32 = 0xc000_1073;
const FENCE_TSO: u32 = 0x8330_000f;
const NOP: u32 = 0x13;
const C_NOP: u32 = 1;

/// The text, if there is a better one than mnemonic and operands of the kind.
pub(super) fn write(op: &Op, pc: u64) -> Option<String> {
    let long = op.raw & 3 == 3;
    let (rd, rs1, rs2) = (op.rd, op.rs1, op.rs2);
    let to_zero = rd == SINK;
    let text = |name: &str, operands: &str| Some(with(op, pc, name, operands));
    match op.kind {
        Kind::Illegal if !long && op.raw == 0 => text("unimp", ""),
        Kind::Illegal if !long => Some(format!(".insn 2, {:#06x}", op.raw)),
        Kind::Illegal => Some(format!(".insn 4, {:#010x}", op.raw)),
        Kind::Nop => Some(nop(op.raw)),
        Kind::Li
            if if long {
                op.raw & 0x7f == 0x37
            } else {
                op.raw >> 13 == 3
            } =>
        {
            text("lui", "d,u")
        }
        Kind::Addi if op.imm == 0 => text("mv", "d,s"),
        Kind::Addiw if op.imm == 0 => text("sext.w", "d,s"),
        Kind::Xori if op.imm == -1 => text("not", "d,s"),
        Kind::Andi if op.imm == 255 => text("zext.b", "d,s"),
        Kind::Sltiu if op.imm == 1 => text("seqz", "d,s"),
        Kind::Ori if to_zero => prefetch(op),
        // c.mv
        Kind::Add if !long && op.raw >> 12 == 8 => text("mv", "d,t"),
        Kind::Sub if rs1 == 0 => text("neg", "d,t"),
        Kind::Subw if rs1 == 0 => text("negw", "d,t"),
        Kind::Sltu if rs1 == 0 => text("snez", "d,t"),
        Kind::Slt if rs2 == 0 => text("sltz", "d,s"),
        Kind::Slt if rs1 == 0 => text("sgtz", "d,t"),
        Kind::AddUw if rs2 == 0 => text("zext.w", "d,s"),
        Kind::Beq if rs2 == 0 => text("beqz", "s,b"),
        Kind::Bne if rs2 == 0 => text("bnez", "s,b"),
        Kind::Bge if rs1 == 0 => text("blez", "t,b"),
        Kind::Bge if rs2 == 0 => text("bgez", "s,b"),
        Kind::Blt if rs2 == 0 => text("bltz", "s,b"),
        Kind::Blt if rs1 == 0 => text("bgtz", "t,b"),
        Kind::Jal if to_zero => text("j", "b"),
        Kind::Jal if rd == 1 => text("jal", "b"),
        Kind::Jalr => {
            let name = if to_zero { "jr" } else { "jalr" };
            let link = if to_zero || rd == 1 { "" } else { "d," };
            match op.imm {
                0 if to_zero && rs1 == 1 => text("ret", ""),
                0 => text(name, &format!("{link}s")),
                _ => text(name, &format!("{link}i(s)")),
            }
        }
        Kind::Fence if op.raw == FENCE_TSO => text("fence.tso", ""),
        Kind::Fence if op.raw >> 20 & 0xff == 0xff => text("fence", ""),
        Kind::SfenceVma if rs2 == 0 && rs1 == 0 => text("sfence.vma", ""),
        Kind::SfenceVma if rs2 == 0 => text("sfence.vma", "s"),
        Kind::Csrrw if op.raw == UNIMP => text("unimp", ""),
        Kind::Csrrs | Kind::Csrrw if csr_alias(op).is_some() => {
            let (name, operands) = csr_alias(op)?;
            text(name, operands)
        }
        Kind::Csrrs if rs1 == 0 => text("csrr", "d,c"),
        Kind::Csrrw if to_zero => text("csrw", "c,s"),
        Kind::Csrrs if to_zero => text("csrs", "c,s"),
        Kind::Csrrc if to_zero => text("csrc", "c,s"),
        Kind::Csrrwi if to_zero => text("csrwi", "c,z"),
        Kind::Csrrsi if to_zero => text("csrsi", "c,z"),
        Kind::Csrrci if to_zero => text("csrci", "c,z"),
        Kind::FsgnjS if rs1 == rs2 => text("fmv.s", "D,S"),
        Kind::FsgnjnS if rs1 == rs2 => text("fneg.s", "D,S"),
        Kind::FsgnjxS if rs1 == rs2 => text("fabs.s", "D,S"),
        Kind::FsgnjD if rs1 == rs2 => text("fmv.d", "D,S"),
        Kind::FsgnjnD if rs1 == rs2 => text("fneg.d", "D,S"),
        Kind::FsgnjxD if rs1 == rs2 => text("fabs.d", "D,S"),
        // Exact conversions: assemblers set the rounding mode to 0.
        Kind::FcvtDW if op.aux & 7 == 0 => text("fcvt.d.w", "D,s"),
        Kind::FcvtDWu if op.aux & 7 == 0 => text("fcvt.d.wu", "D,s"),
        Kind::FcvtDS if op.aux & 7 == 0 => text("fcvt.d.s", "D,S"),
        _ => None,
    }
}

/// addi to x0: the decoder keeps neither source nor immediate.
fn nop(raw: u32) -> String {
    if raw == NOP || raw == C_NOP {
        return "nop".into();
    }
    if raw & 3 == 3 {
        let source = super::x((raw >> 15 & 31) as u8);
        return format!("addi zero,{source},{}", raw as i32 >> 20);
    }
    let imm = (raw >> 12 & 1) << 5 | raw >> 2 & 31;
    format!("c.nop {}", (imm as i32) << 26 >> 26)
}

/// The hints of Zicbop.
fn prefetch(op: &Op) -> Option<String> {
    let name = match op.imm & 31 {
        0 => "prefetch.i",
        1 => "prefetch.r",
        3 => "prefetch.w",
        _ => return None,
    };
    Some(format!("{name} {}({})", op.imm & !31, super::x(op.rs1)))
}

fn csr_alias(op: &Op) -> Option<(&'static str, &'static str)> {
    let read = op.kind == Kind::Csrrs && op.rs1 == 0;
    let to_zero = op.rd == SINK;
    Some(match (op.aux, op.kind) {
        (addr::CYCLE, _) if read => ("rdcycle", "d"),
        (addr::TIME, _) if read => ("rdtime", "d"),
        (addr::INSTRET, _) if read => ("rdinstret", "d"),
        (addr::FCSR, _) if read => ("frcsr", "d"),
        (addr::FRM, _) if read => ("frrm", "d"),
        (addr::FFLAGS, _) if read => ("frflags", "d"),
        (addr::FCSR, Kind::Csrrw) if to_zero => ("fscsr", "s"),
        (addr::FRM, Kind::Csrrw) if to_zero => ("fsrm", "s"),
        (addr::FFLAGS, Kind::Csrrw) if to_zero => ("fsflags", "s"),
        (addr::FCSR, Kind::Csrrw) => ("fscsr", "d,s"),
        (addr::FRM, Kind::Csrrw) => ("fsrm", "d,s"),
        (addr::FFLAGS, Kind::Csrrw) => ("fsflags", "d,s"),
        _ => return None,
    })
}

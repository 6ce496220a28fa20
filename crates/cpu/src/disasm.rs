//! Instructions as text, for reports and people. The decoder decides what an
//! instruction is; here is only how it is written, with the pseudo-instructions of
//! the RISC-V Assembly Programmer's Manual.

mod alias;
mod names;

use crate::decode::decode;
use crate::hart::SINK;
use crate::op::{Kind, Op};
use names::{FLOAT, INTEGER, csr_name};
use std::fmt::Write;

/// The instruction `raw` at address `pc` (16 bits if the lowest two are not both
/// set, else 32), for example `addi a0,sp,16` or `bnez a5,0x80000040`. What is no
/// instruction of this hart becomes an `.insn` directive that assembles to the
/// same bits.
pub fn disassemble(raw: u32, pc: u64) -> String {
    let raw = if raw & 3 == 3 { raw } else { raw & 0xffff };
    let op = decode(raw, 0);
    alias::write(&op, pc).unwrap_or_else(|| {
        let (name, operands) = text(op.kind);
        write(&op, pc, &format!("{name}{}", suffix(&op)), operands)
    })
}

/// Name of register `n` (0–31) in the calling convention: integer, or floating-point.
pub fn register_name(n: u8, float: bool) -> &'static str {
    if float { f(n) } else { x(n & 31) }
}

/// Ordering bits of atomics.
fn suffix(op: &Op) -> &'static str {
    let atomic = op.kind as u8 >= Kind::LrW as u8 && op.kind as u8 <= Kind::AmoMaxuD as u8;
    match (atomic, op.raw >> 25 & 3) {
        (true, 1) => ".rl",
        (true, 2) => ".aq",
        (true, 3) => ".aqrl",
        _ => "",
    }
}

fn x(number: u8) -> &'static str {
    // Writes to the sink are writes to x0.
    if number == SINK {
        INTEGER[0]
    } else {
        INTEGER[usize::from(number & 31)]
    }
}

fn f(number: u8) -> &'static str {
    FLOAT[usize::from(number & 31)]
}

/// `name`, and the operands with each letter replaced:
///
/// | letter | operand |
/// |---|---|
/// | `d` `s` `t` | integer rd, rs1, rs2 |
/// | `D` `S` `T` `R` | floating-point rd, rs1, rs2, rs3 |
/// | `i` `h` `u` | immediate: decimal, hexadecimal, upper 20 bits |
/// | `b` | address pc + immediate |
/// | `c` `z` | CSR, 5-bit immediate in place of rs1 |
/// | `m` | comma and rounding mode, if it isn't dynamic |
/// | `p` `q` | what a fence orders: before, after |
fn write(op: &Op, pc: u64, name: &str, operands: &str) -> String {
    let mut out = String::from(name);
    if !operands.is_empty() {
        out.push(' ');
    }
    for letter in operands.chars() {
        // Writing to a String cannot fail.
        let _ = match letter {
            'd' => write!(out, "{}", x(op.rd)),
            's' => write!(out, "{}", x(op.rs1)),
            't' => write!(out, "{}", x(op.rs2)),
            'D' => write!(out, "{}", f(op.rd)),
            'S' => write!(out, "{}", f(op.rs1)),
            'T' => write!(out, "{}", f(op.rs2)),
            'R' => write!(out, "{}", f((op.aux >> 3) as u8)),
            'i' => write!(out, "{}", op.imm),
            'h' => write!(out, "{:#x}", op.imm),
            'u' => write!(out, "{:#x}", op.imm >> 12 & 0xf_ffff),
            'b' => write!(out, "{:#x}", pc.wrapping_add(op.imm as i64 as u64)),
            'c' => write!(out, "{}", csr_name(op.aux)),
            'z' => write!(out, "{}", op.rs1),
            'm' => write!(out, "{}", rounding(op.aux & 7)),
            'p' => write!(out, "{}", ordered(op.raw >> 24)),
            'q' => write!(out, "{}", ordered(op.raw >> 20)),
            other => write!(out, "{other}"),
        };
    }
    out
}

fn rounding(rm: u16) -> &'static str {
    match rm {
        0 => ",rne",
        1 => ",rtz",
        2 => ",rdn",
        3 => ",rup",
        4 => ",rmm",
        7 => "",
        // Reserved: the instruction traps.
        _ => ",unknown",
    }
}

fn ordered(bits: u32) -> String {
    let all = ['i', 'o', 'r', 'w'].into_iter().zip([8, 4, 2, 1]);
    let set: String = all.filter(|(_, b)| bits & b != 0).map(|(c, _)| c).collect();
    if set.is_empty() { "0".into() } else { set }
}

/// Mnemonic and operands of each kind.
#[rustfmt::skip]
fn text(kind: Kind) -> (&'static str, &'static str) {
    use Kind::*;
    match kind {
        Nop => ("nop", ""), Li => ("li", "d,i"), Auipc => ("auipc", "d,u"),
        Addi => ("addi", "d,s,i"), Slti => ("slti", "d,s,i"), Sltiu => ("sltiu", "d,s,i"),
        Xori => ("xori", "d,s,i"), Ori => ("ori", "d,s,i"), Andi => ("andi", "d,s,i"),
        Slli => ("slli", "d,s,h"), Srli => ("srli", "d,s,h"), Srai => ("srai", "d,s,h"),
        Addiw => ("addiw", "d,s,i"), Slliw => ("slliw", "d,s,h"),
        Srliw => ("srliw", "d,s,h"), Sraiw => ("sraiw", "d,s,h"),
        Add => ("add", "d,s,t"), Sub => ("sub", "d,s,t"), Sll => ("sll", "d,s,t"),
        Slt => ("slt", "d,s,t"), Sltu => ("sltu", "d,s,t"), Xor => ("xor", "d,s,t"),
        Srl => ("srl", "d,s,t"), Sra => ("sra", "d,s,t"), Or => ("or", "d,s,t"),
        And => ("and", "d,s,t"), Addw => ("addw", "d,s,t"), Subw => ("subw", "d,s,t"),
        Sllw => ("sllw", "d,s,t"), Srlw => ("srlw", "d,s,t"), Sraw => ("sraw", "d,s,t"),
        Mul => ("mul", "d,s,t"), Mulh => ("mulh", "d,s,t"), Mulhsu => ("mulhsu", "d,s,t"),
        Mulhu => ("mulhu", "d,s,t"), Div => ("div", "d,s,t"), Divu => ("divu", "d,s,t"),
        Rem => ("rem", "d,s,t"), Remu => ("remu", "d,s,t"), Mulw => ("mulw", "d,s,t"),
        Divw => ("divw", "d,s,t"), Divuw => ("divuw", "d,s,t"), Remw => ("remw", "d,s,t"),
        Remuw => ("remuw", "d,s,t"),
        AddUw => ("add.uw", "d,s,t"), Sh1add => ("sh1add", "d,s,t"),
        Sh2add => ("sh2add", "d,s,t"), Sh3add => ("sh3add", "d,s,t"),
        Sh1addUw => ("sh1add.uw", "d,s,t"), Sh2addUw => ("sh2add.uw", "d,s,t"),
        Sh3addUw => ("sh3add.uw", "d,s,t"), SlliUw => ("slli.uw", "d,s,h"),
        Andn => ("andn", "d,s,t"), Orn => ("orn", "d,s,t"), Xnor => ("xnor", "d,s,t"),
        Clz => ("clz", "d,s"), Ctz => ("ctz", "d,s"), Cpop => ("cpop", "d,s"),
        Clzw => ("clzw", "d,s"), Ctzw => ("ctzw", "d,s"), Cpopw => ("cpopw", "d,s"),
        Max => ("max", "d,s,t"), Maxu => ("maxu", "d,s,t"), Min => ("min", "d,s,t"),
        Minu => ("minu", "d,s,t"), SextB => ("sext.b", "d,s"), SextH => ("sext.h", "d,s"),
        ZextH => ("zext.h", "d,s"), Rol => ("rol", "d,s,t"), Ror => ("ror", "d,s,t"),
        Rori => ("rori", "d,s,h"), Rolw => ("rolw", "d,s,t"), Rorw => ("rorw", "d,s,t"),
        Roriw => ("roriw", "d,s,h"), OrcB => ("orc.b", "d,s"), Rev8 => ("rev8", "d,s"),
        Bclr => ("bclr", "d,s,t"), Bclri => ("bclri", "d,s,h"), Bext => ("bext", "d,s,t"),
        Bexti => ("bexti", "d,s,h"), Binv => ("binv", "d,s,t"), Binvi => ("binvi", "d,s,h"),
        Bset => ("bset", "d,s,t"), Bseti => ("bseti", "d,s,h"),
        CzeroEqz => ("czero.eqz", "d,s,t"), CzeroNez => ("czero.nez", "d,s,t"),
        Lb => ("lb", "d,i(s)"), Lh => ("lh", "d,i(s)"), Lw => ("lw", "d,i(s)"),
        Ld => ("ld", "d,i(s)"), Lbu => ("lbu", "d,i(s)"), Lhu => ("lhu", "d,i(s)"),
        Lwu => ("lwu", "d,i(s)"), Sb => ("sb", "t,i(s)"), Sh => ("sh", "t,i(s)"),
        Sw => ("sw", "t,i(s)"), Sd => ("sd", "t,i(s)"), Flw => ("flw", "D,i(s)"),
        Fld => ("fld", "D,i(s)"), Fsw => ("fsw", "T,i(s)"), Fsd => ("fsd", "T,i(s)"),
        Beq => ("beq", "s,t,b"), Bne => ("bne", "s,t,b"), Blt => ("blt", "s,t,b"),
        Bge => ("bge", "s,t,b"), Bltu => ("bltu", "s,t,b"), Bgeu => ("bgeu", "s,t,b"),
        Jal => ("jal", "d,b"), Jalr => ("jalr", "d,i(s)"),
        LrW => ("lr.w", "d,(s)"), LrD => ("lr.d", "d,(s)"),
        ScW => ("sc.w", "d,t,(s)"), ScD => ("sc.d", "d,t,(s)"),
        AmoSwapW => ("amoswap.w", "d,t,(s)"), AmoAddW => ("amoadd.w", "d,t,(s)"),
        AmoXorW => ("amoxor.w", "d,t,(s)"), AmoAndW => ("amoand.w", "d,t,(s)"),
        AmoOrW => ("amoor.w", "d,t,(s)"), AmoMinW => ("amomin.w", "d,t,(s)"),
        AmoMaxW => ("amomax.w", "d,t,(s)"), AmoMinuW => ("amominu.w", "d,t,(s)"),
        AmoMaxuW => ("amomaxu.w", "d,t,(s)"),
        AmoSwapD => ("amoswap.d", "d,t,(s)"), AmoAddD => ("amoadd.d", "d,t,(s)"),
        AmoXorD => ("amoxor.d", "d,t,(s)"), AmoAndD => ("amoand.d", "d,t,(s)"),
        AmoOrD => ("amoor.d", "d,t,(s)"), AmoMinD => ("amomin.d", "d,t,(s)"),
        AmoMaxD => ("amomax.d", "d,t,(s)"), AmoMinuD => ("amominu.d", "d,t,(s)"),
        AmoMaxuD => ("amomaxu.d", "d,t,(s)"),
        CboInval => ("cbo.inval", "(s)"), CboClean => ("cbo.clean", "(s)"),
        CboFlush => ("cbo.flush", "(s)"), CboZero => ("cbo.zero", "(s)"),
        Fence => ("fence", "p,q"), FenceI => ("fence.i", ""), Ecall => ("ecall", ""),
        Ebreak => ("ebreak", ""), Sret => ("sret", ""), Mret => ("mret", ""),
        Wfi => ("wfi", ""), SfenceVma => ("sfence.vma", "s,t"),
        SinvalVma => ("sinval.vma", "s,t"), SfenceWInval => ("sfence.w.inval", ""),
        SfenceInvalIr => ("sfence.inval.ir", ""), Pause => ("pause", ""),
        WrsNto => ("wrs.nto", ""), WrsSto => ("wrs.sto", ""),
        Csrrw => ("csrrw", "d,c,s"), Csrrs => ("csrrs", "d,c,s"), Csrrc => ("csrrc", "d,c,s"),
        Csrrwi => ("csrrwi", "d,c,z"), Csrrsi => ("csrrsi", "d,c,z"),
        Csrrci => ("csrrci", "d,c,z"),
        FaddS => ("fadd.s", "D,S,Tm"), FsubS => ("fsub.s", "D,S,Tm"),
        FmulS => ("fmul.s", "D,S,Tm"), FdivS => ("fdiv.s", "D,S,Tm"),
        FsqrtS => ("fsqrt.s", "D,Sm"), FsgnjS => ("fsgnj.s", "D,S,T"),
        FsgnjnS => ("fsgnjn.s", "D,S,T"), FsgnjxS => ("fsgnjx.s", "D,S,T"),
        FminS => ("fmin.s", "D,S,T"), FmaxS => ("fmax.s", "D,S,T"),
        FcvtWS => ("fcvt.w.s", "d,Sm"), FcvtWuS => ("fcvt.wu.s", "d,Sm"),
        FcvtLS => ("fcvt.l.s", "d,Sm"), FcvtLuS => ("fcvt.lu.s", "d,Sm"),
        FmvXW => ("fmv.x.w", "d,S"), FeqS => ("feq.s", "d,S,T"), FltS => ("flt.s", "d,S,T"),
        FleS => ("fle.s", "d,S,T"), FclassS => ("fclass.s", "d,S"),
        FcvtSW => ("fcvt.s.w", "D,sm"), FcvtSWu => ("fcvt.s.wu", "D,sm"),
        FcvtSL => ("fcvt.s.l", "D,sm"), FcvtSLu => ("fcvt.s.lu", "D,sm"),
        FmvWX => ("fmv.w.x", "D,s"), FcvtSD => ("fcvt.s.d", "D,Sm"),
        FmaddS => ("fmadd.s", "D,S,T,Rm"), FmsubS => ("fmsub.s", "D,S,T,Rm"),
        FnmsubS => ("fnmsub.s", "D,S,T,Rm"), FnmaddS => ("fnmadd.s", "D,S,T,Rm"),
        FaddD => ("fadd.d", "D,S,Tm"), FsubD => ("fsub.d", "D,S,Tm"),
        FmulD => ("fmul.d", "D,S,Tm"), FdivD => ("fdiv.d", "D,S,Tm"),
        FsqrtD => ("fsqrt.d", "D,Sm"), FsgnjD => ("fsgnj.d", "D,S,T"),
        FsgnjnD => ("fsgnjn.d", "D,S,T"), FsgnjxD => ("fsgnjx.d", "D,S,T"),
        FminD => ("fmin.d", "D,S,T"), FmaxD => ("fmax.d", "D,S,T"),
        FcvtWD => ("fcvt.w.d", "d,Sm"), FcvtWuD => ("fcvt.wu.d", "d,Sm"),
        FcvtLD => ("fcvt.l.d", "d,Sm"), FcvtLuD => ("fcvt.lu.d", "d,Sm"),
        FmvXD => ("fmv.x.d", "d,S"), FeqD => ("feq.d", "d,S,T"), FltD => ("flt.d", "d,S,T"),
        FleD => ("fle.d", "d,S,T"), FclassD => ("fclass.d", "d,S"),
        FcvtDW => ("fcvt.d.w", "D,sm"), FcvtDWu => ("fcvt.d.wu", "D,sm"),
        FcvtDL => ("fcvt.d.l", "D,sm"), FcvtDLu => ("fcvt.d.lu", "D,sm"),
        FmvDX => ("fmv.d.x", "D,s"), FcvtDS => ("fcvt.d.s", "D,Sm"),
        FmaddD => ("fmadd.d", "D,S,T,Rm"), FmsubD => ("fmsub.d", "D,S,T,Rm"),
        FnmsubD => ("fnmsub.d", "D,S,T,Rm"), FnmaddD => ("fnmadd.d", "D,S,T,Rm"),
        Crossing | Illegal => (".insn", ""),
    }
}

#[cfg(test)]
mod tests;

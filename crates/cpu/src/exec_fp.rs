//! F and D instructions on the exact soft float of `twinvm_fp`.

use crate::exec::{Core, Flow};
use crate::hart::Hart;
use crate::op::{Kind, Op};
use crate::trap::Exception;
use twinvm_fp::{self as fp, Flags, Rm, box32, unbox32};

const SIGN32: u32 = 1 << 31;
const SIGN64: u64 = 1 << 63;

impl Core {
    pub(crate) fn float(&mut self, hart: &mut Hart, op: &Op) -> Flow {
        match compute(hart, op) {
            Some(()) => Flow::Next,
            None => Flow::Trap(Exception::illegal(op.raw)),
        }
    }
}

/// `None` means illegal instruction: FS off or a reserved rounding mode.
fn compute(hart: &mut Hart, op: &Op) -> Option<()> {
    use Kind::*;
    if hart.fs_off() {
        return None;
    }
    let (rs1, rs2, rs3) = (
        usize::from(op.rs1),
        usize::from(op.rs2),
        usize::from(op.aux >> 3 & 31),
    );
    let rm = || {
        let field = op.aux as u8 & 7;
        Rm::from_bits(if field == 7 { hart.frm } else { field })
    };
    let s = |n: usize| unbox32(hart.f.0[n]);
    let d = |n: usize| hart.f.0[n];
    let x = hart.x.0[rs1];
    let mut flags = Flags(0);
    let fl = &mut flags;
    enum To {
        Single(u32),
        Double(u64),
        Integer(u64),
    }
    use To::*;
    let word = |v: i32| Integer(v as i64 as u64);
    let result = match op.kind {
        FaddS => Single(fp::f32_add(s(rs1), s(rs2), rm()?, fl)),
        FsubS => Single(fp::f32_sub(s(rs1), s(rs2), rm()?, fl)),
        FmulS => Single(fp::f32_mul(s(rs1), s(rs2), rm()?, fl)),
        FdivS => Single(fp::f32_div(s(rs1), s(rs2), rm()?, fl)),
        FsqrtS => Single(fp::f32_sqrt(s(rs1), rm()?, fl)),
        FsgnjS => Single(s(rs1) & !SIGN32 | s(rs2) & SIGN32),
        FsgnjnS => Single(s(rs1) & !SIGN32 | !s(rs2) & SIGN32),
        FsgnjxS => Single(s(rs1) ^ s(rs2) & SIGN32),
        FminS => Single(fp::f32_min(s(rs1), s(rs2), fl)),
        FmaxS => Single(fp::f32_max(s(rs1), s(rs2), fl)),
        FcvtWS => word(fp::f32_to_i32(s(rs1), rm()?, fl)),
        FcvtWuS => word(fp::f32_to_u32(s(rs1), rm()?, fl) as i32),
        FcvtLS => Integer(fp::f32_to_i64(s(rs1), rm()?, fl) as u64),
        FcvtLuS => Integer(fp::f32_to_u64(s(rs1), rm()?, fl)),
        FmvXW => word(hart.f.0[rs1] as i32),
        FeqS => Integer(u64::from(fp::f32_eq(s(rs1), s(rs2), fl))),
        FltS => Integer(u64::from(fp::f32_lt(s(rs1), s(rs2), fl))),
        FleS => Integer(u64::from(fp::f32_le(s(rs1), s(rs2), fl))),
        FclassS => Integer(u64::from(fp::f32_classify(s(rs1)))),
        FcvtSW => Single(fp::f32_from_i32(x as i32, rm()?, fl)),
        FcvtSWu => Single(fp::f32_from_u32(x as u32, rm()?, fl)),
        FcvtSL => Single(fp::f32_from_i64(x as i64, rm()?, fl)),
        FcvtSLu => Single(fp::f32_from_u64(x, rm()?, fl)),
        FmvWX => Single(x as u32),
        FcvtSD => Single(fp::f64_to_f32(d(rs1), rm()?, fl)),
        FmaddS => Single(fp::f32_fma(s(rs1), s(rs2), s(rs3), rm()?, fl)),
        FmsubS => Single(fp::f32_fma(s(rs1), s(rs2), s(rs3) ^ SIGN32, rm()?, fl)),
        FnmsubS => Single(fp::f32_fma(s(rs1) ^ SIGN32, s(rs2), s(rs3), rm()?, fl)),
        FnmaddS => Single(fp::f32_fma(
            s(rs1) ^ SIGN32,
            s(rs2),
            s(rs3) ^ SIGN32,
            rm()?,
            fl,
        )),
        FaddD => Double(fp::f64_add(d(rs1), d(rs2), rm()?, fl)),
        FsubD => Double(fp::f64_sub(d(rs1), d(rs2), rm()?, fl)),
        FmulD => Double(fp::f64_mul(d(rs1), d(rs2), rm()?, fl)),
        FdivD => Double(fp::f64_div(d(rs1), d(rs2), rm()?, fl)),
        FsqrtD => Double(fp::f64_sqrt(d(rs1), rm()?, fl)),
        FsgnjD => Double(d(rs1) & !SIGN64 | d(rs2) & SIGN64),
        FsgnjnD => Double(d(rs1) & !SIGN64 | !d(rs2) & SIGN64),
        FsgnjxD => Double(d(rs1) ^ d(rs2) & SIGN64),
        FminD => Double(fp::f64_min(d(rs1), d(rs2), fl)),
        FmaxD => Double(fp::f64_max(d(rs1), d(rs2), fl)),
        FcvtWD => word(fp::f64_to_i32(d(rs1), rm()?, fl)),
        FcvtWuD => word(fp::f64_to_u32(d(rs1), rm()?, fl) as i32),
        FcvtLD => Integer(fp::f64_to_i64(d(rs1), rm()?, fl) as u64),
        FcvtLuD => Integer(fp::f64_to_u64(d(rs1), rm()?, fl)),
        FmvXD => Integer(d(rs1)),
        FeqD => Integer(u64::from(fp::f64_eq(d(rs1), d(rs2), fl))),
        FltD => Integer(u64::from(fp::f64_lt(d(rs1), d(rs2), fl))),
        FleD => Integer(u64::from(fp::f64_le(d(rs1), d(rs2), fl))),
        FclassD => Integer(u64::from(fp::f64_classify(d(rs1)))),
        FcvtDW => Double(fp::f64_from_i32(x as i32, rm()?, fl)),
        FcvtDWu => Double(fp::f64_from_u32(x as u32, rm()?, fl)),
        FcvtDL => Double(fp::f64_from_i64(x as i64, rm()?, fl)),
        FcvtDLu => Double(fp::f64_from_u64(x, rm()?, fl)),
        FmvDX => Double(x),
        FcvtDS => {
            rm()?;
            Double(fp::f32_to_f64(s(rs1), fl))
        }
        FmaddD => Double(fp::f64_fma(d(rs1), d(rs2), d(rs3), rm()?, fl)),
        FmsubD => Double(fp::f64_fma(d(rs1), d(rs2), d(rs3) ^ SIGN64, rm()?, fl)),
        FnmsubD => Double(fp::f64_fma(d(rs1) ^ SIGN64, d(rs2), d(rs3), rm()?, fl)),
        FnmaddD => Double(fp::f64_fma(
            d(rs1) ^ SIGN64,
            d(rs2),
            d(rs3) ^ SIGN64,
            rm()?,
            fl,
        )),
        _ => return None,
    };
    let rd = usize::from(op.rd);
    match result {
        Single(v) => hart.f.0[rd] = box32(v),
        Double(v) => hart.f.0[rd] = v,
        Integer(v) => hart.x.0[rd] = v,
    }
    // Integer results without flags leave the floating-point state clean.
    if flags.0 != 0 || !matches!(result, Integer(_)) {
        hart.fflags |= flags.0;
        hart.set_fs_dirty();
    }
    Some(())
}

//! Templates of conversions between floating-point formats and integers.

use super::asm::{Alu, Cond, Hole, RAX, RCX, Size};
use super::float::{LAST_OF_HOST, TRUNCATE, rounding};
use super::float_state::host_mode;
use super::registers::X0;
use super::sse::{Float, Scalar, Xmm};
use super::translate::Translation;
use Float::{Double, Single};
use Size::{D, Q};
use twinvm_cpu::tier::DecodedOp as Op;

/// What an integer type of a conversion is.
#[derive(Clone, Copy)]
pub(super) struct Integer {
    wide: bool,
    signed: bool,
}

pub(super) const W: Integer = Integer {
    wide: false,
    signed: true,
};
pub(super) const WU: Integer = Integer {
    wide: false,
    signed: false,
};
pub(super) const L: Integer = Integer {
    wide: true,
    signed: true,
};
pub(super) const LU: Integer = Integer {
    wide: true,
    signed: false,
};

impl Translation<'_, '_> {
    pub(super) fn convert_to_integer(&mut self, k: usize, op: &Op, float: Float, to: Integer) {
        let mut slow = Vec::new();
        let mode = rounding(op);
        // Rounding apart raises inexact before the range is looked at: not where a
        // number out of range can have a fraction.
        let apart = self.sink.features.sse41
            && mode <= LAST_OF_HOST
            && mode != TRUNCATE
            && (to.wide || !to.signed || float == Single);
        self.boxed(k, op, float, &[op.rs1]);
        if !apart && mode != TRUNCATE {
            slow.extend(self.same_rounding(op));
        }
        let mut from = self.get_float(op.rs1, X0);
        if !to.signed {
            slow.push(self.beyond_unsigned(float, to.wide, from));
        }
        if apart {
            self.asm.round(float, host_mode(mode), X0, from);
            from = X0;
        }
        let truncate = apart || mode == TRUNCATE;
        let wide = to.wide || !to.signed;
        self.asm.float_to_integer(float, wide, truncate, RAX, from);
        if to.signed {
            // Out of range the host gives the least number: less one, it overflows.
            let size = if wide { Q } else { D };
            self.asm.alu_imm(size, Alu::Cmp, RAX, 1);
            slow.push(self.asm.jcc(Cond::O));
        }
        self.put_sized(op.rd, RAX, if to.wide { Q } else { D });
        self.slow_all(k, op, slow);
    }

    /// Negative (zero, too), a NaN, or perhaps larger than an unsigned integer in each
    /// mode, or than a signed one of 64 bits.
    fn beyond_unsigned(&mut self, float: Float, wide: bool, from: Xmm) -> Hole {
        self.asm.float_to_general(float, RAX, from);
        match (float, wide) {
            // 2^32 and 2^63: from there on singles have no fraction.
            (Single, false) => self.asm.alu_imm(D, Alu::Cmp, RAX, 0x4f80_0000),
            (Single, true) => self.asm.alu_imm(D, Alu::Cmp, RAX, 0x5f00_0000),
            (Double, _) => {
                // 2^32 - 1, next to which others would round to 2^32, and 2^63.
                let bound = if wide {
                    0x43e0 << 48
                } else {
                    0x41ef_ffff_ffe0_0001
                };
                self.asm.mov_imm64(RCX, bound);
                self.asm.alu(Q, Alu::Cmp, RAX, RCX);
            }
        }
        self.asm.jcc(Cond::AE)
    }

    pub(super) fn convert_from_integer(&mut self, k: usize, op: &Op, float: Float, from: Integer) {
        let mut slow = Vec::new();
        if from.wide || float == Single {
            slow.extend(self.same_rounding(op));
        }
        let mut operand = self.operand(op.rs1);
        if !from.signed {
            self.load(RAX, op.rs1);
            if from.wide {
                self.asm.test(Q, RAX, RAX);
                slow.push(self.asm.jcc(Cond::S));
            } else {
                self.asm.mov(D, RAX, RAX);
            }
            operand = RAX.into();
        }
        let to = self.float_result(op.rd, X0);
        // What a single leaves is its box.
        match float {
            Single => self.asm.ones(to),
            Double => self.asm.zeros(to),
        }
        let wide = from.wide || !from.signed;
        self.asm.integer_to_float(float, wide, to, operand);
        self.put_float(op.rd, to, float);
        self.slow_all(k, op, slow);
    }

    /// Double to single.
    pub(super) fn narrow(&mut self, k: usize, op: &Op) {
        let slow = self.same_rounding(op);
        let to = self.float_result_apart(op.rd, &[op.rs1]);
        self.asm.ones(to);
        let from = self.float_operand(op.rs1);
        self.asm.scalar(Double, Scalar::Convert, to, from);
        self.no_other_nan(Single, to);
        self.put_float(op.rd, to, Single);
        self.slow_all(k, op, slow);
    }

    /// Single to double.
    pub(super) fn widen(&mut self, k: usize, op: &Op) {
        self.boxed(k, op, Single, &[op.rs1]);
        let to = self.float_result_apart(op.rd, &[op.rs1]);
        self.asm.zeros(to);
        let from = self.float_operand(op.rs1);
        self.asm.scalar(Single, Scalar::Convert, to, from);
        self.no_other_nan(Double, to);
        self.put_float(op.rd, to, Double);
    }
}

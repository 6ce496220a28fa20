//! Encodes the instructions for floating point: SSE2, and a few of SSE4.1 and FMA.

use super::asm::{Asm, Reg, Rm};

/// A vector register by its number. Only the lowest 64 bits are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Xmm(pub(crate) u8);

impl From<Xmm> for Rm {
    fn from(xmm: Xmm) -> Self {
        Rm::Reg(Reg(xmm.0))
    }
}

/// Format of a floating-point operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float {
    Single,
    Double,
}

/// Instructions on the lowest element: `to = to OP from`, or `to = OP from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Scalar {
    Sqrt = 0x51,
    Add = 0x58,
    Mul = 0x59,
    /// To the other format.
    Convert = 0x5a,
    Sub = 0x5c,
    Min = 0x5d,
    Div = 0x5e,
    Max = 0x5f,
}

/// Bit operations on all 128 bits. `Andn` complements `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Logic {
    And = 0x54,
    Andn = 0x55,
    Or = 0x56,
    Xor = 0x57,
}

/// Multiply-add, by the opcode of `to = ±(a * b) ± to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fused {
    /// `a * b + to`
    Add = 0xb9,
    /// `a * b - to`
    Sub = 0xbb,
    /// `-(a * b) + to`
    NegAdd = 0xbd,
    /// `-(a * b) - to`
    NegSub = 0xbf,
}

impl Float {
    fn prefix(self) -> u8 {
        match self {
            Float::Single => 0xf3,
            Float::Double => 0xf2,
        }
    }
}

impl Asm {
    fn sse(&mut self, prefix: u8, opcode: u8, to: Xmm, from: impl Into<Rm>) {
        self.op(prefix, false, &[0x0f, opcode], Reg(to.0), from);
    }

    // ---- moves ------------------------------------------------------------

    /// Copies a whole register.
    pub(crate) fn movaps(&mut self, to: Xmm, from: Xmm) {
        self.sse(0, 0x28, to, from);
    }

    /// Loads from memory and clears the rest; from a register, only the lowest
    /// element changes.
    pub(crate) fn load_float(&mut self, float: Float, to: Xmm, from: impl Into<Rm>) {
        self.sse(float.prefix(), 0x10, to, from);
    }

    pub(crate) fn store_float(&mut self, float: Float, to: Rm, from: Xmm) {
        self.sse(float.prefix(), 0x11, from, to);
    }

    /// 32 or 64 bits of a general register; the rest is cleared.
    pub(crate) fn general_to_float(&mut self, float: Float, to: Xmm, from: Rm) {
        let wide = float == Float::Double;
        self.op(0x66, wide, &[0x0f, 0x6e], Reg(to.0), from);
    }

    /// 32 or 64 bits to a general register; 32 are zero-extended.
    pub(crate) fn float_to_general(&mut self, float: Float, to: Reg, from: Xmm) {
        let wide = float == Float::Double;
        self.op(0x66, wide, &[0x0f, 0x7e], Reg(from.0), to);
    }

    // ---- bits -------------------------------------------------------------

    pub(crate) fn logic(&mut self, logic: Logic, to: Xmm, from: Xmm) {
        self.sse(0, logic as u8, to, from);
    }

    pub(crate) fn zeros(&mut self, to: Xmm) {
        self.logic(Logic::Xor, to, to);
    }

    pub(crate) fn ones(&mut self, to: Xmm) {
        self.sse(0x66, 0x76, to, to);
    }

    /// Each byte becomes 0xff if it is the same in both, else 0.
    pub(crate) fn equal_bytes(&mut self, to: Xmm, from: Xmm) {
        self.sse(0x66, 0x74, to, from);
    }

    /// Shifts each 64 bits.
    pub(crate) fn shift_left(&mut self, to: Xmm, by: u8) {
        self.op(0x66, false, &[0x0f, 0x73], Reg(6), to);
        self.code.push(by);
    }

    /// Shifts each 64 bits.
    pub(crate) fn shift_right(&mut self, to: Xmm, by: u8) {
        self.op(0x66, false, &[0x0f, 0x73], Reg(2), to);
        self.code.push(by);
    }

    // ---- arithmetic -------------------------------------------------------

    pub(crate) fn scalar(&mut self, float: Float, scalar: Scalar, to: Xmm, from: impl Into<Rm>) {
        self.sse(float.prefix(), scalar as u8, to, from);
    }

    /// Compares: unordered sets ZF, PF and CF; less, CF; equal, ZF. `quiet`: only a
    /// signaling NaN is invalid; else any.
    pub(crate) fn compare(&mut self, float: Float, quiet: bool, a: Xmm, b: impl Into<Rm>) {
        let prefix = match float {
            Float::Single => 0,
            Float::Double => 0x66,
        };
        self.sse(prefix, if quiet { 0x2e } else { 0x2f }, a, b);
    }

    /// From an integer of 32 or 64 bits; the rest of the register stays.
    pub(crate) fn integer_to_float(&mut self, float: Float, wide: bool, to: Xmm, from: Rm) {
        self.op(float.prefix(), wide, &[0x0f, 0x2a], Reg(to.0), from);
    }

    /// To an integer of 32 or 64 bits, truncated or as the rounding mode says.
    pub(crate) fn float_to_integer(
        &mut self,
        float: Float,
        wide: bool,
        truncate: bool,
        to: Reg,
        from: Xmm,
    ) {
        let opcode = if truncate { 0x2c } else { 0x2d };
        self.op(float.prefix(), wide, &[0x0f, opcode], to, Rm::from(from));
    }

    /// Rounds to an integer (SSE4.1) with the mode of MXCSR's numbering.
    pub(crate) fn round(&mut self, float: Float, mode: u8, to: Xmm, from: Xmm) {
        let opcode = match float {
            Float::Single => 0x0a,
            Float::Double => 0x0b,
        };
        self.op(0x66, false, &[0x0f, 0x3a, opcode], Reg(to.0), from);
        self.code.push(mode);
    }

    /// Multiplies and adds with one rounding (FMA). A place in memory has a base that
    /// needs no SIB byte.
    pub(crate) fn fused(&mut self, float: Float, fused: Fused, to: Xmm, a: Xmm, b: Rm) {
        let (base, mode, disp) = match b {
            Rm::Reg(reg) => (reg, 0xc0, None),
            Rm::Mem(base, disp) | Rm::Sib(base, _, _, disp) => (base, 0x80, Some(disp)),
        };
        let wide = u8::from(float == Float::Double) << 7;
        // R, X, B and vvvv are inverted; opcode map 2, prefix 0x66.
        let extend = (!to.0 >> 3 & 1) << 7 | 1 << 6 | (!base.0 >> 3 & 1) << 5 | 2;
        let operand = wide | (!a.0 & 15) << 3 | 1;
        let operands = mode | (to.0 & 7) << 3 | base.0 & 7;
        self.code
            .extend_from_slice(&[0xc4, extend, operand, fused as u8, operands]);
        if let Some(disp) = disp {
            self.imm32(disp);
        }
    }

    // ---- MXCSR ------------------------------------------------------------

    pub(crate) fn load_mxcsr(&mut self, from: Rm) {
        self.op(0, false, &[0x0f, 0xae], Reg(2), from);
    }

    pub(crate) fn store_mxcsr(&mut self, to: Rm) {
        self.op(0, false, &[0x0f, 0xae], Reg(3), to);
    }
}

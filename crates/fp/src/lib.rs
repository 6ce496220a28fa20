//! Floating point for the RISC-V F and D extensions, in integer arithmetic.
//!
//! Two hosts that run the same guest must agree on every result bit and every
//! exception flag, whatever their processors do. So nothing here trusts the
//! host's floating-point flags or NaN rules: operands and results are raw bit
//! patterns and all rounding is done in integers.
//!
//! Behaviour follows the RISC-V unprivileged ISA manual, chapters "F" and "D":
//!
//! - every NaN result is the canonical NaN;
//! - tininess is detected after rounding;
//! - all five rounding modes, among them round to nearest, ties to max
//!   magnitude ([`Rm::Rmm`]);
//! - `fmin`/`fmax` are `minimumNumber`/`maximumNumber` (F version 2.2);
//! - integer conversions saturate, and NaN converts to the largest value.
//!
//! Flags accumulate: a function only ever sets bits in the [`Flags`] it is
//! given. Sign injection is plain bit work and stays with the caller, as does
//! the sign change of `fmsub`, `fnmadd` and `fnmsub`.
//!
//! ```
//! use twinvm_fp::{Flags, Rm, f64_div};
//!
//! let mut flags = Flags::default();
//! let third = f64_div(1f64.to_bits(), 3f64.to_bits(), Rm::Rne, &mut flags);
//! assert_eq!(f64::from_bits(third), 1.0 / 3.0);
//! assert_eq!(flags, Flags(Flags::NX));
//! ```
#![forbid(unsafe_code)]

mod add;
mod api;
mod compare;
mod convert;
mod format;
mod mul;
mod round;

pub use api::*;

/// Rounding mode, numbered as in the `rm` field and in `frm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rm {
    /// To nearest, ties to even.
    Rne = 0,
    /// Towards zero.
    Rtz = 1,
    /// Down, towards minus infinity.
    Rdn = 2,
    /// Up, towards plus infinity.
    Rup = 3,
    /// To nearest, ties to max magnitude.
    Rmm = 4,
}

impl Rm {
    /// The mode with this `frm` encoding; `None` for 5 and 6 (reserved), 7
    /// (dynamic, to be resolved by the caller) and anything larger.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Rm> {
        match bits {
            0 => Some(Rm::Rne),
            1 => Some(Rm::Rtz),
            2 => Some(Rm::Rdn),
            3 => Some(Rm::Rup),
            4 => Some(Rm::Rmm),
            _ => None,
        }
    }
}

/// Accrued exception flags, laid out as in `fflags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Inexact.
    pub const NX: u8 = 1;
    /// Underflow: the result is tiny after rounding, and inexact.
    pub const UF: u8 = 2;
    /// Overflow.
    pub const OF: u8 = 4;
    /// Divide by zero.
    pub const DZ: u8 = 8;
    /// Invalid operation.
    pub const NV: u8 = 16;

    /// Sets the given bits.
    #[inline]
    pub(crate) fn raise(&mut self, bits: u8) {
        self.0 |= bits;
    }
}

/// NaN-boxes a single in a 64-bit register: the upper half is all ones.
#[inline]
pub const fn box32(bits: u32) -> u64 {
    0xffff_ffff_0000_0000 | bits as u64
}

/// Reads a single from a 64-bit register: the canonical NaN unless the
/// register holds a properly NaN-boxed value.
#[inline]
pub const fn unbox32(register: u64) -> u32 {
    if register >> 32 == 0xffff_ffff {
        register as u32
    } else {
        0x7fc0_0000
    }
}

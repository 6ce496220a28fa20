//! The two formats and how their bit patterns come apart.
//!
//! Both are handled as `u64`; a single lives in the low half. Inside an
//! operation a significand is left-aligned: its leading one is bit 63, and
//! it stands for `significand / 2^63 * 2^(exponent - BIAS)`.

use crate::Flags;

/// The constants of an IEEE 754 binary interchange format.
pub(crate) trait Format {
    /// Stored significand bits.
    const MANT: u32;
    /// Exponent field bits.
    const EXP_BITS: u32;

    /// The sign bit.
    const SIGN: u64 = 1 << (Self::MANT + Self::EXP_BITS);
    /// The stored significand bits.
    const FRAC: u64 = (1 << Self::MANT) - 1;
    /// The exponent field of infinities and NaNs.
    const EXP_MAX: i32 = (1 << Self::EXP_BITS) - 1;
    /// What the exponent field adds to the exponent.
    const BIAS: i32 = (1 << (Self::EXP_BITS - 1)) - 1;
    /// Positive infinity.
    const INF: u64 = (Self::EXP_MAX as u64) << Self::MANT;
    /// Set in quiet NaNs.
    const QUIET: u64 = 1 << (Self::MANT - 1);
    /// The canonical NaN.
    const NAN: u64 = Self::INF | Self::QUIET;
    /// Bits of a left-aligned significand that do not fit the format.
    const GUARD: u32 = 63 - Self::MANT;
}

/// binary32.
pub(crate) struct F32;

impl Format for F32 {
    const MANT: u32 = 23;
    const EXP_BITS: u32 = 8;
}

/// binary64.
pub(crate) struct F64;

impl Format for F64 {
    const MANT: u32 = 52;
    const EXP_BITS: u32 = 11;
}

/// The bits without the sign.
#[inline(always)]
pub(crate) fn magnitude<F: Format>(a: u64) -> u64 {
    a & (F::SIGN - 1)
}

/// Whether `a` is a NaN of either kind.
#[inline(always)]
pub(crate) fn is_nan<F: Format>(a: u64) -> bool {
    magnitude::<F>(a) > F::INF
}

/// Whether `a` is a signaling NaN.
#[inline(always)]
pub(crate) fn is_signaling<F: Format>(a: u64) -> bool {
    is_nan::<F>(a) && a & F::QUIET == 0
}

/// Whether a magnitude is neither zero, subnormal, infinite nor NaN.
#[inline(always)]
pub(crate) fn is_normal<F: Format>(magnitude: u64) -> bool {
    magnitude.wrapping_sub(1 << F::MANT) < F::INF - (1 << F::MANT)
}

/// Exponent field and left-aligned significand of a normal magnitude.
#[inline(always)]
pub(crate) fn unpack_normal<F: Format>(magnitude: u64) -> (i32, u64) {
    let exponent = (magnitude >> F::MANT) as i32;
    (exponent, (magnitude << F::GUARD) | 1 << 63)
}

/// Exponent and left-aligned significand of a finite magnitude other than
/// zero. Subnormals come out normalised, with an exponent below one.
#[inline(always)]
pub(crate) fn unpack_finite<F: Format>(magnitude: u64) -> (i32, u64) {
    debug_assert!(magnitude != 0 && magnitude < F::INF);
    if magnitude >> F::MANT != 0 {
        unpack_normal::<F>(magnitude)
    } else {
        let shift = magnitude.leading_zeros();
        let exponent = 1 + F::GUARD as i32 - shift as i32;
        (exponent, magnitude << shift)
    }
}

/// The result of an operation with a NaN among its operands: canonical, and
/// invalid if one of them signals.
#[cold]
pub(crate) fn propagate_nan<F: Format>(operands: &[u64], flags: &mut Flags) -> u64 {
    if operands.iter().any(|&a| is_signaling::<F>(a)) {
        flags.raise(Flags::NV);
    }
    F::NAN
}

/// The result of an operation that has no meaningful one.
#[cold]
pub(crate) fn invalid<F: Format>(flags: &mut Flags) -> u64 {
    flags.raise(Flags::NV);
    F::NAN
}

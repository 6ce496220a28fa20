//! Conversion between formats, and to and from integers.

use crate::format::{F32, F64, Format, is_nan, magnitude, propagate_nan, unpack_finite};
use crate::round::round_pack;
use crate::{Flags, Rm};

/// The magnitudes that an integer type can hold on either side of zero.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// Magnitude of the least value.
    pub(crate) below: u64,
    /// The largest value.
    pub(crate) above: u64,
}

impl Range {
    /// The range of `i32`.
    pub(crate) const I32: Range = Range {
        below: 1 << 31,
        above: i32::MAX as u64,
    };
    /// The range of `u32`.
    pub(crate) const U32: Range = Range {
        below: 0,
        above: u32::MAX as u64,
    };
    /// The range of `i64`.
    pub(crate) const I64: Range = Range {
        below: 1 << 63,
        above: i64::MAX as u64,
    };
    /// The range of `u64`.
    pub(crate) const U64: Range = Range {
        below: 0,
        above: u64::MAX,
    };
}

/// Rounds to an integer and fits it into `range`. The result is in two's
/// complement; out of range it saturates with NV alone, and NaN gives the
/// largest value (ISA manual, table of `fcvt` domains).
#[inline(always)]
pub(crate) fn to_int<F: Format>(a: u64, range: Range, rm: Rm, flags: &mut Flags) -> u64 {
    let negative = a & F::SIGN != 0;
    let x = magnitude::<F>(a);
    if x == 0 {
        return 0;
    }
    if x >= F::INF {
        flags.raise(Flags::NV);
        return saturated(range, negative && x == F::INF);
    }

    let (field, significand) = unpack_finite::<F>(x);
    let exponent = field - F::BIAS;
    // The fraction is left-aligned in 64 bits, one half being bit 63.
    let (whole, fraction) = match exponent {
        64.. => {
            flags.raise(Flags::NV);
            return saturated(range, negative);
        }
        63 => (significand, 0),
        0..63 => (
            significand >> (63 - exponent),
            significand << (exponent + 1),
        ),
        -1 => (0, significand),
        _ => (0, 1),
    };
    const HALF: u64 = 1 << 63;
    let up = match rm {
        Rm::Rne => fraction > HALF || fraction == HALF && whole & 1 == 1,
        Rm::Rmm => fraction >= HALF,
        Rm::Rtz => false,
        Rm::Rdn => negative && fraction != 0,
        Rm::Rup => !negative && fraction != 0,
    };
    // No carry out: a number with a fraction has fewer than 64 whole bits.
    let rounded = whole + u64::from(up);
    if rounded > if negative { range.below } else { range.above } {
        flags.raise(Flags::NV);
        return saturated(range, negative);
    }
    flags.raise(if fraction != 0 { Flags::NX } else { 0 });
    if negative {
        rounded.wrapping_neg()
    } else {
        rounded
    }
}

/// The end of the range on the given side.
#[inline(always)]
fn saturated(range: Range, negative: bool) -> u64 {
    if negative {
        range.below.wrapping_neg()
    } else {
        range.above
    }
}

/// The nearest number to the integer of this sign and magnitude.
#[inline(always)]
pub(crate) fn from_int<F: Format>(
    negative: bool,
    magnitude: u64,
    rm: Rm,
    flags: &mut Flags,
) -> u64 {
    if magnitude == 0 {
        return 0;
    }
    let shift = magnitude.leading_zeros();
    let sign = if negative { F::SIGN } else { 0 };
    let exponent = 63 - shift as i32 + F::BIAS;
    round_pack::<F>(sign, exponent, magnitude << shift, rm, flags)
}

/// Single to double: always exact.
#[inline(always)]
pub(crate) fn widen(a: u64, flags: &mut Flags) -> u64 {
    let sign = (a & F32::SIGN) << 32;
    let x = magnitude::<F32>(a);
    if is_nan::<F32>(a) {
        propagate_nan::<F32>(&[a], flags);
        return F64::NAN;
    }
    if x == 0 {
        return sign;
    }
    if x == F32::INF {
        return sign | F64::INF;
    }
    let (field, significand) = unpack_finite::<F32>(x);
    let exponent = (field - F32::BIAS + F64::BIAS) as u64;
    sign | (exponent << F64::MANT) | ((significand >> F64::GUARD) & F64::FRAC)
}

/// Double to single.
#[inline(always)]
pub(crate) fn narrow(a: u64, rm: Rm, flags: &mut Flags) -> u64 {
    let sign = (a & F64::SIGN) >> 32;
    let x = magnitude::<F64>(a);
    if is_nan::<F64>(a) {
        propagate_nan::<F64>(&[a], flags);
        return F32::NAN;
    }
    if x == 0 {
        return sign;
    }
    if x == F64::INF {
        return sign | F32::INF;
    }
    let (field, significand) = unpack_finite::<F64>(x);
    let exponent = field - F64::BIAS + F32::BIAS;
    round_pack::<F32>(sign, exponent, significand, rm, flags)
}

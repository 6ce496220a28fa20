//! Rounding: from a wide significand to a packed result with its flags.

use crate::format::Format;
use crate::{Flags, Rm};

/// Shifts right; bits that fall off are remembered as a one in the lowest
/// bit ("sticky"), so that rounding still sees that something was there.
#[inline(always)]
pub(crate) fn shift_right_sticky(value: u64, by: u32) -> u64 {
    if by < 64 {
        (value >> by) | u64::from(value & ((1 << by) - 1) != 0)
    } else {
        u64::from(value != 0)
    }
}

/// As [`shift_right_sticky`], for 128 bits.
#[inline(always)]
pub(crate) fn shift_right_sticky_wide(value: u128, by: u32) -> u128 {
    if by < 128 {
        (value >> by) | u128::from(value & ((1 << by) - 1) != 0)
    } else {
        u128::from(value != 0)
    }
}

/// The upper half, with the lower half folded into its lowest bit.
#[inline(always)]
pub(crate) fn upper_sticky(value: u128) -> u64 {
    (value >> 64) as u64 | u64::from(value as u64 != 0)
}

/// The sign of an exact zero that comes from operands of opposite signs.
#[inline(always)]
pub(crate) fn cancelled<F: Format>(rm: Rm) -> u64 {
    if rm == Rm::Rdn { F::SIGN } else { 0 }
}

/// What to add to a left-aligned significand so that dropping its guard bits
/// rounds it. Ties to even still need their lowest bit cleared.
#[inline(always)]
fn increment<F: Format>(rm: Rm, negative: bool) -> u64 {
    let below_one = (1 << F::GUARD) - 1;
    match rm {
        Rm::Rne | Rm::Rmm => 1 << (F::GUARD - 1),
        Rm::Rtz => 0,
        Rm::Rdn => u64::from(negative) * below_one,
        Rm::Rup => u64::from(!negative) * below_one,
    }
}

/// Rounds and packs the magnitude, without regard to the format's range
/// except that `exponent` is at least one. A significand without its leading
/// bit (subnormal) needs `exponent` one; a carry out of the significand moves
/// into the exponent field by itself.
#[inline(always)]
fn round_in_range<F: Format>(
    negative: bool,
    exponent: i32,
    significand: u64,
    rm: Rm,
    flags: &mut Flags,
) -> u64 {
    let guard = significand & ((1 << F::GUARD) - 1);
    let (sum, carry) = significand.overflowing_add(increment::<F>(rm, negative));
    let mut rounded = (sum >> F::GUARD) | u64::from(carry) << (F::MANT + 1);
    if guard == 1 << (F::GUARD - 1) && rm == Rm::Rne {
        rounded &= !1;
    }
    flags.raise(if guard != 0 { Flags::NX } else { 0 });
    (((exponent - 1) as u64) << F::MANT) + rounded
}

/// Rounds a left-aligned significand (bit 63 set, sticky at the bottom) and
/// packs it under `sign` (zero or the format's sign bit), raising NX, OF and
/// UF as they fall due. `exponent` is biased and may lie far out of range.
#[inline(always)]
pub(crate) fn round_pack<F: Format>(
    sign: u64,
    exponent: i32,
    significand: u64,
    rm: Rm,
    flags: &mut Flags,
) -> u64 {
    debug_assert!(significand >> 63 == 1);
    // At the largest exponent a carry would overflow, so that one is an edge.
    if exponent >= 1 && exponent < F::EXP_MAX - 1 {
        sign | round_in_range::<F>(sign != 0, exponent, significand, rm, flags)
    } else {
        sign | round_edge::<F>(sign != 0, exponent, significand, rm, flags)
    }
}

/// The magnitude of a result that may overflow or be subnormal.
#[cold]
#[inline(never)]
fn round_edge<F: Format>(
    negative: bool,
    exponent: i32,
    significand: u64,
    rm: Rm,
    flags: &mut Flags,
) -> u64 {
    if exponent >= F::EXP_MAX {
        return overflow::<F>(negative, rm, flags);
    }
    if exponent >= 1 {
        let mut rounding = Flags::default();
        let packed = round_in_range::<F>(negative, exponent, significand, rm, &mut rounding);
        if packed >= F::INF {
            return overflow::<F>(negative, rm, flags);
        }
        flags.raise(rounding.0);
        return packed;
    }
    // Tiny after rounding: still below the least normal number when rounded
    // to full precision with an exponent that knows no bounds.
    let (_, carry) = significand.overflowing_add(increment::<F>(rm, negative));
    let tiny = exponent < 0 || !carry;
    let aligned = shift_right_sticky(significand, exponent.abs_diff(1));
    let mut rounding = Flags::default();
    let packed = round_in_range::<F>(negative, 1, aligned, rm, &mut rounding);
    if tiny && rounding.0 != 0 {
        rounding.raise(Flags::UF);
    }
    flags.raise(rounding.0);
    packed
}

/// The magnitude of an overflow: infinity, or the largest finite number if
/// the mode rounds away from infinity.
fn overflow<F: Format>(negative: bool, rm: Rm, flags: &mut Flags) -> u64 {
    flags.raise(Flags::OF | Flags::NX);
    let to_infinity = match rm {
        Rm::Rne | Rm::Rmm => true,
        Rm::Rtz => false,
        Rm::Rdn => negative,
        Rm::Rup => !negative,
    };
    if to_infinity { F::INF } else { F::INF - 1 }
}

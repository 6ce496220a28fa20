//! Addition. Subtraction is addition with the second sign turned.

use crate::format::{Format, invalid, is_nan, magnitude, propagate_nan};
use crate::round::{cancelled, round_pack, shift_right_sticky};
use crate::{Flags, Rm};

/// `a + b`.
#[inline(always)]
pub(crate) fn add<F: Format>(a: u64, b: u64, rm: Rm, flags: &mut Flags) -> u64 {
    let opposite = (a ^ b) & F::SIGN != 0;
    // With the larger magnitude in front the difference can't be negative,
    // and the sign is the larger one's.
    let (large, small) = if magnitude::<F>(a) >= magnitude::<F>(b) {
        (a, b)
    } else {
        (b, a)
    };
    let sign = large & F::SIGN;
    let (large, small) = (magnitude::<F>(large), magnitude::<F>(small));
    if large >= F::INF {
        return add_special::<F>(a, b, flags);
    }

    let (large_exponent, large_sig) = unpack_addend::<F>(large);
    let (small_exponent, small_sig) = unpack_addend::<F>(small);
    let small_sig = shift_right_sticky(small_sig, large_exponent.abs_diff(small_exponent));
    // A lost bit matters only when the exponents are more than GUARD - 1
    // apart; then the difference keeps at least its second bit, and the
    // sticky bit stays below the rounding position.
    let sum = if opposite {
        large_sig - small_sig
    } else {
        large_sig + small_sig
    };
    if sum == 0 {
        return if opposite { cancelled::<F>(rm) } else { sign };
    }
    let shift = sum.leading_zeros();
    let exponent = large_exponent + 1 - shift as i32;
    round_pack::<F>(sign, exponent, sum << shift, rm, flags)
}

/// Exponent and significand with the leading one at bit 62, which leaves room
/// for a carry. Subnormals and zero stay as they are: no leading one.
#[inline(always)]
fn unpack_addend<F: Format>(magnitude: u64) -> (i32, u64) {
    let field = (magnitude >> F::MANT) as i32;
    let hidden = u64::from(field != 0) << F::MANT;
    (
        field.max(1),
        ((magnitude & F::FRAC) | hidden) << (F::GUARD - 1),
    )
}

/// A sum with an infinity or a NaN in it.
#[cold]
#[inline(never)]
fn add_special<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return propagate_nan::<F>(&[a, b], flags);
    }
    match (magnitude::<F>(a) == F::INF, magnitude::<F>(b) == F::INF) {
        (true, true) if a != b => invalid::<F>(flags),
        (true, _) => a,
        _ => b,
    }
}

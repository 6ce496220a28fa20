//! Comparison, minimum, maximum and classification.

use crate::Flags;
use crate::format::{Format, is_nan, is_signaling, magnitude};

/// A key that orders numbers as integers, minus zero below plus zero.
#[inline(always)]
fn order<F: Format>(a: u64) -> i64 {
    let magnitude = magnitude::<F>(a) as i64;
    if a & F::SIGN != 0 {
        -1 - magnitude
    } else {
        magnitude
    }
}

/// Whether both are zeros, which compare equal whatever their signs.
#[inline(always)]
fn both_zero<F: Format>(a: u64, b: u64) -> bool {
    magnitude::<F>(a | b) == 0
}

/// `a == b`; only a signaling NaN is invalid.
#[inline(always)]
pub(crate) fn eq<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if is_signaling::<F>(a) || is_signaling::<F>(b) {
            flags.raise(Flags::NV);
        }
        return false;
    }
    a == b || both_zero::<F>(a, b)
}

/// `a < b`; any NaN is invalid.
#[inline(always)]
pub(crate) fn lt<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        flags.raise(Flags::NV);
        return false;
    }
    order::<F>(a) < order::<F>(b) && !both_zero::<F>(a, b)
}

/// `a <= b`; any NaN is invalid.
#[inline(always)]
pub(crate) fn le<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        flags.raise(Flags::NV);
        return false;
    }
    order::<F>(a) <= order::<F>(b) || both_zero::<F>(a, b)
}

/// `minimumNumber` (`want_less`) or `maximumNumber`.
#[inline(always)]
pub(crate) fn pick<F: Format>(a: u64, b: u64, want_less: bool, flags: &mut Flags) -> u64 {
    if is_signaling::<F>(a) || is_signaling::<F>(b) {
        flags.raise(Flags::NV);
    }
    match (is_nan::<F>(a), is_nan::<F>(b)) {
        (true, true) => F::NAN,
        (true, false) => b,
        (false, true) => a,
        (false, false) => {
            if (order::<F>(a) < order::<F>(b)) == want_less {
                a
            } else {
                b
            }
        }
    }
}

/// The ten-bit mask of `fclass`, one bit set.
#[inline(always)]
pub(crate) fn classify<F: Format>(a: u64) -> u32 {
    let negative = a & F::SIGN != 0;
    let magnitude = magnitude::<F>(a);
    if magnitude > F::INF {
        return if a & F::QUIET != 0 { 1 << 9 } else { 1 << 8 };
    }
    // Bits 0 to 3 are the negative classes from infinity up to zero, bits 4
    // to 7 the positive ones from zero up to infinity.
    let size = if magnitude == F::INF {
        3
    } else if magnitude >> F::MANT != 0 {
        2
    } else if magnitude != 0 {
        1
    } else {
        0
    };
    1 << if negative { 3 - size } else { 4 + size }
}

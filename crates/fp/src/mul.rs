//! Multiplication, fused multiply-add, division and square root.

use crate::format::{
    Format, invalid, is_nan, is_normal, magnitude, propagate_nan, unpack_finite, unpack_normal,
};
use crate::round::{cancelled, round_pack, shift_right_sticky_wide, upper_sticky};
use crate::{Flags, Rm};

/// `a * b`.
#[inline(always)]
pub(crate) fn mul<F: Format>(a: u64, b: u64, rm: Rm, flags: &mut Flags) -> u64 {
    let sign = (a ^ b) & F::SIGN;
    let (x, y) = (magnitude::<F>(a), magnitude::<F>(b));
    let ((x_exponent, x_sig), (y_exponent, y_sig)) = if is_normal::<F>(x) && is_normal::<F>(y) {
        (unpack_normal::<F>(x), unpack_normal::<F>(y))
    } else {
        if x >= F::INF || y >= F::INF {
            if is_nan::<F>(a) || is_nan::<F>(b) {
                return propagate_nan::<F>(&[a, b], flags);
            }
            return if x == 0 || y == 0 {
                invalid::<F>(flags)
            } else {
                sign | F::INF
            };
        }
        if x == 0 || y == 0 {
            return sign;
        }
        (unpack_finite::<F>(x), unpack_finite::<F>(y))
    };

    let product = upper_sticky(u128::from(x_sig) * u128::from(y_sig));
    // Both lie in [1, 2), so the product needs a shift of at most one; the
    // sticky bit stays well below the rounding position.
    let shift = product.leading_zeros();
    let exponent = x_exponent + y_exponent - F::BIAS + 1 - shift as i32;
    round_pack::<F>(sign, exponent, product << shift, rm, flags)
}

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn fma<F: Format>(a: u64, b: u64, c: u64, rm: Rm, flags: &mut Flags) -> u64 {
    let product_sign = (a ^ b) & F::SIGN;
    let addend_sign = c & F::SIGN;
    let (x, y, z) = (magnitude::<F>(a), magnitude::<F>(b), magnitude::<F>(c));
    if !(is_normal::<F>(x) && is_normal::<F>(y) && is_normal::<F>(z))
        && let Some(result) = fma_special::<F>(a, b, c, rm, flags)
    {
        return result;
    }

    let (x_exponent, x_sig) = unpack_finite::<F>(x);
    let (y_exponent, y_sig) = unpack_finite::<F>(y);
    // Both terms are put below bit 127, which is left for a carry. Neither
    // fills its 127 bits, so that a bit is lost in alignment only when the
    // exponents are far apart, and then cancellation takes two bits at most.
    let mut product = (u128::from(x_sig) * u128::from(y_sig)) >> 1;
    let product_exponent = x_exponent + y_exponent - F::BIAS + 1;
    let mut exponent = product_exponent;
    let mut addend = 0;
    if z != 0 {
        let (z_exponent, z_sig) = unpack_finite::<F>(z);
        addend = u128::from(z_sig) << 63;
        let distance = product_exponent.abs_diff(z_exponent);
        if product_exponent >= z_exponent {
            addend = shift_right_sticky_wide(addend, distance);
        } else {
            product = shift_right_sticky_wide(product, distance);
            exponent = z_exponent;
        }
    }
    let (sign, sum) = if product_sign == addend_sign {
        (product_sign, product + addend)
    } else if product >= addend {
        (product_sign, product - addend)
    } else {
        (addend_sign, addend - product)
    };
    if sum == 0 {
        return cancelled::<F>(rm);
    }
    let shift = sum.leading_zeros();
    let exponent = exponent + 1 - shift as i32;
    round_pack::<F>(sign, exponent, upper_sticky(sum << shift), rm, flags)
}

/// The fused multiply-adds whose product is not a finite number other than
/// zero, or whose addend is not finite. `None` for the others.
#[cold]
#[inline(never)]
fn fma_special<F: Format>(a: u64, b: u64, c: u64, rm: Rm, flags: &mut Flags) -> Option<u64> {
    let product_sign = (a ^ b) & F::SIGN;
    let addend_sign = c & F::SIGN;
    let (x, y, z) = (magnitude::<F>(a), magnitude::<F>(b), magnitude::<F>(c));
    let infinite_product = x == F::INF || y == F::INF;
    let zero_product = x == 0 || y == 0;
    let any_nan = is_nan::<F>(a) || is_nan::<F>(b) || is_nan::<F>(c);

    // Infinity times zero is invalid even if the addend is a quiet NaN
    // (ISA manual, "Single-Precision Floating-Point Computational
    // Instructions").
    let result = if infinite_product && zero_product {
        invalid::<F>(flags)
    } else if any_nan {
        propagate_nan::<F>(&[a, b, c], flags)
    } else if infinite_product {
        if z == F::INF && product_sign != addend_sign {
            invalid::<F>(flags)
        } else {
            product_sign | F::INF
        }
    } else if z == F::INF {
        c
    } else if zero_product {
        if z == 0 && product_sign != addend_sign {
            cancelled::<F>(rm)
        } else {
            c
        }
    } else {
        return None;
    };
    Some(result)
}

/// `a / b`.
#[inline(always)]
pub(crate) fn div<F: Format>(a: u64, b: u64, rm: Rm, flags: &mut Flags) -> u64 {
    let sign = (a ^ b) & F::SIGN;
    let (x, y) = (magnitude::<F>(a), magnitude::<F>(b));
    let ((x_exponent, x_sig), (y_exponent, y_sig)) = if is_normal::<F>(x) && is_normal::<F>(y) {
        (unpack_normal::<F>(x), unpack_normal::<F>(y))
    } else {
        if is_nan::<F>(a) || is_nan::<F>(b) {
            return propagate_nan::<F>(&[a, b], flags);
        }
        if x == y && (x == 0 || x == F::INF) {
            return invalid::<F>(flags);
        }
        if x == F::INF {
            return sign | F::INF;
        }
        if x == 0 || y == F::INF {
            return sign;
        }
        if y == 0 {
            flags.raise(Flags::DZ);
            return sign | F::INF;
        }
        (unpack_finite::<F>(x), unpack_finite::<F>(y))
    };

    let smaller = x_sig < y_sig;
    let exponent = x_exponent - y_exponent + F::BIAS - i32::from(smaller);
    let quotient = if F::MANT <= 30 {
        // The significand without its guard bits is short enough for one
        // 64-bit division to give all quotient bits and more.
        let numerator = x_sig >> u32::from(!smaller);
        let divisor = y_sig >> 32;
        let quotient = numerator / divisor;
        (quotient << 32) | u64::from(quotient * divisor != numerator)
    } else {
        let numerator = u128::from(x_sig) << (63 + u32::from(smaller));
        let divisor = u128::from(y_sig);
        let quotient = numerator / divisor;
        quotient as u64 | u64::from(quotient * divisor != numerator)
    };
    round_pack::<F>(sign, exponent, quotient, rm, flags)
}

/// The square root of `a`.
#[inline(always)]
pub(crate) fn sqrt<F: Format>(a: u64, rm: Rm, flags: &mut Flags) -> u64 {
    let x = magnitude::<F>(a);
    if is_nan::<F>(a) {
        return propagate_nan::<F>(&[a], flags);
    }
    if x == 0 {
        return a;
    }
    if a & F::SIGN != 0 {
        return invalid::<F>(flags);
    }
    if x == F::INF {
        return a;
    }

    let (field, significand) = unpack_finite::<F>(x);
    let exponent = field - F::BIAS;
    // radicand / 2^62 lies in [1, 4) and what is left of the exponent is
    // even. The lowest bit of a left-aligned significand is free.
    let radicand = significand >> u32::from(exponent & 1 == 0);
    let upper = radicand.isqrt();
    let rest = radicand - upper * upper;
    let root = if F::MANT <= 30 {
        // 32 bits of root are enough.
        (upper << 32) | u64::from(rest != 0)
    } else {
        // One step of long-hand root extraction in base 2^32 (Zimmermann,
        // "Karatsuba Square Root"): the estimate is right or one too large.
        let wide = u128::from(radicand) << 64;
        let mut root = (upper << 32) + (rest << 31) / upper;
        let mut square = u128::from(root) * u128::from(root);
        if square > wide {
            square -= 2 * u128::from(root) - 1;
            root -= 1;
        }
        root | u64::from(square != wide)
    };
    round_pack::<F>(0, (exponent >> 1) + F::BIAS, root, rm, flags)
}

//! The public functions: one set per format, on raw bits.

use crate::convert::{self, Range};
use crate::format::{F32, F64};
use crate::{Flags, Rm, add, compare, mul};

/// Writes out the functions of one format.
macro_rules! format_functions {
    (
        $format:ty, $bits:ty, $sign:expr, $name:literal:
        $add:ident $sub:ident $mul:ident $div:ident $sqrt:ident $fma:ident
        $min:ident $max:ident $eq:ident $lt:ident $le:ident $classify:ident
        $to_i32:ident $to_u32:ident $to_i64:ident $to_u64:ident
        $from_i32:ident $from_u32:ident $from_i64:ident $from_u64:ident
    ) => {
        #[doc = concat!("`a + b` in ", $name, ".")]
        pub fn $add(a: $bits, b: $bits, rm: Rm, flags: &mut Flags) -> $bits {
            add::add::<$format>(u64::from(a), u64::from(b), rm, flags) as $bits
        }

        #[doc = concat!("`a - b` in ", $name, ".")]
        pub fn $sub(a: $bits, b: $bits, rm: Rm, flags: &mut Flags) -> $bits {
            $add(a, b ^ $sign, rm, flags)
        }

        #[doc = concat!("`a * b` in ", $name, ".")]
        pub fn $mul(a: $bits, b: $bits, rm: Rm, flags: &mut Flags) -> $bits {
            mul::mul::<$format>(u64::from(a), u64::from(b), rm, flags) as $bits
        }

        #[doc = concat!("`a / b` in ", $name, ".")]
        pub fn $div(a: $bits, b: $bits, rm: Rm, flags: &mut Flags) -> $bits {
            mul::div::<$format>(u64::from(a), u64::from(b), rm, flags) as $bits
        }

        #[doc = concat!("The square root of `a` in ", $name, ".")]
        pub fn $sqrt(a: $bits, rm: Rm, flags: &mut Flags) -> $bits {
            mul::sqrt::<$format>(u64::from(a), rm, flags) as $bits
        }

        #[doc = concat!("`a * b + c` in ", $name, ", rounded once (`fmadd`).")]
        ///
        /// The caller turns the signs of `a` and `c` for the other three:
        /// `fmsub` is `a, b, -c`; `fnmsub` is `-a, b, c`; `fnmadd` is
        /// `-a, b, -c`.
        pub fn $fma(a: $bits, b: $bits, c: $bits, rm: Rm, flags: &mut Flags) -> $bits {
            mul::fma::<$format>(u64::from(a), u64::from(b), u64::from(c), rm, flags) as $bits
        }

        #[doc = concat!("The smaller of two ", $name, " numbers (`fmin`).")]
        ///
        /// Minus zero is below plus zero. A NaN loses against a number; two
        /// give the canonical NaN. A signaling NaN is invalid.
        #[inline]
        pub fn $min(a: $bits, b: $bits, flags: &mut Flags) -> $bits {
            compare::pick::<$format>(u64::from(a), u64::from(b), true, flags) as $bits
        }

        #[doc = concat!("The larger of two ", $name, " numbers (`fmax`), otherwise as `fmin`.")]
        #[inline]
        pub fn $max(a: $bits, b: $bits, flags: &mut Flags) -> $bits {
            compare::pick::<$format>(u64::from(a), u64::from(b), false, flags) as $bits
        }

        #[doc = concat!("`a == b` in ", $name, " (`feq`); only a signaling NaN is invalid.")]
        #[inline]
        pub fn $eq(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            compare::eq::<$format>(u64::from(a), u64::from(b), flags)
        }

        #[doc = concat!("`a < b` in ", $name, " (`flt`); any NaN is invalid.")]
        #[inline]
        pub fn $lt(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            compare::lt::<$format>(u64::from(a), u64::from(b), flags)
        }

        #[doc = concat!("`a <= b` in ", $name, " (`fle`); any NaN is invalid.")]
        #[inline]
        pub fn $le(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            compare::le::<$format>(u64::from(a), u64::from(b), flags)
        }

        #[doc = concat!("The class of a ", $name, " value as `fclass` gives it: one of ten bits.")]
        #[inline]
        pub fn $classify(a: $bits) -> u32 {
            compare::classify::<$format>(u64::from(a))
        }

        #[doc = concat!("From ", $name, " to `i32`, saturating (`fcvt.w`).")]
        pub fn $to_i32(a: $bits, rm: Rm, flags: &mut Flags) -> i32 {
            convert::to_int::<$format>(u64::from(a), Range::I32, rm, flags) as i32
        }

        #[doc = concat!("From ", $name, " to `u32`, saturating (`fcvt.wu`).")]
        ///
        /// RV64 sign-extends this result too; the caller does that.
        pub fn $to_u32(a: $bits, rm: Rm, flags: &mut Flags) -> u32 {
            convert::to_int::<$format>(u64::from(a), Range::U32, rm, flags) as u32
        }

        #[doc = concat!("From ", $name, " to `i64`, saturating (`fcvt.l`).")]
        pub fn $to_i64(a: $bits, rm: Rm, flags: &mut Flags) -> i64 {
            convert::to_int::<$format>(u64::from(a), Range::I64, rm, flags) as i64
        }

        #[doc = concat!("From ", $name, " to `u64`, saturating (`fcvt.lu`).")]
        pub fn $to_u64(a: $bits, rm: Rm, flags: &mut Flags) -> u64 {
            convert::to_int::<$format>(u64::from(a), Range::U64, rm, flags)
        }

        #[doc = concat!("From `i32` to ", $name, ".")]
        pub fn $from_i32(a: i32, rm: Rm, flags: &mut Flags) -> $bits {
            $from_i64(i64::from(a), rm, flags)
        }

        #[doc = concat!("From `u32` to ", $name, ".")]
        pub fn $from_u32(a: u32, rm: Rm, flags: &mut Flags) -> $bits {
            $from_u64(u64::from(a), rm, flags)
        }

        #[doc = concat!("From `i64` to ", $name, ".")]
        pub fn $from_i64(a: i64, rm: Rm, flags: &mut Flags) -> $bits {
            convert::from_int::<$format>(a < 0, a.unsigned_abs(), rm, flags) as $bits
        }

        #[doc = concat!("From `u64` to ", $name, ".")]
        pub fn $from_u64(a: u64, rm: Rm, flags: &mut Flags) -> $bits {
            convert::from_int::<$format>(false, a, rm, flags) as $bits
        }
    };
}

format_functions! {
    F32, u32, 1 << 31, "single precision":
    f32_add f32_sub f32_mul f32_div f32_sqrt f32_fma
    f32_min f32_max f32_eq f32_lt f32_le f32_classify
    f32_to_i32 f32_to_u32 f32_to_i64 f32_to_u64
    f32_from_i32 f32_from_u32 f32_from_i64 f32_from_u64
}

format_functions! {
    F64, u64, 1 << 63, "double precision":
    f64_add f64_sub f64_mul f64_div f64_sqrt f64_fma
    f64_min f64_max f64_eq f64_lt f64_le f64_classify
    f64_to_i32 f64_to_u32 f64_to_i64 f64_to_u64
    f64_from_i32 f64_from_u32 f64_from_i64 f64_from_u64
}

/// From single to double precision (`fcvt.d.s`): always exact, so it takes no
/// rounding mode. A signaling NaN is invalid.
pub fn f32_to_f64(a: u32, flags: &mut Flags) -> u64 {
    convert::widen(u64::from(a), flags)
}

/// From double to single precision (`fcvt.s.d`).
pub fn f64_to_f32(a: u64, rm: Rm, flags: &mut Flags) -> u32 {
    convert::narrow(a, rm, flags) as u32
}

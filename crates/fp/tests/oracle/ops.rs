//! The operations, ours and the oracle's, in one table.
#![allow(unsafe_code)] // The oracle is C.

use softfloat_sys as sf;
use twinvm_fp::{Flags, Rm};

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    Int,
}

/// One operation in both implementations, on operands widened to `u64`.
pub(crate) struct Op {
    pub(crate) name: &'static str,
    pub(crate) inputs: &'static [Kind],
    pub(crate) ours: fn([u64; 3], Rm, &mut Flags) -> u64,
    theirs: unsafe fn([u64; 3], u8) -> u64,
}

/// The oracle's result and flags.
pub(crate) fn oracle(op: &Op, operands: [u64; 3], rm: Rm, before: u8) -> (u64, u8) {
    // SAFETY: plain C functions on scalars. Their mode and flags are
    // thread-local (the crate's build script defines THREAD_LOCAL), so tests
    // may run side by side.
    unsafe {
        sf::softfloat_roundingMode_write_helper(rm as u8);
        sf::softfloat_exceptionFlags_write_helper(before);
        let result = (op.theirs)(operands, rm as u8);
        (result, sf::softfloat_exceptionFlags_read_helper())
    }
}

/// One format's functions under names that the table can share.
mod ours32 {
    pub(super) use twinvm_fp::{
        f32_add as add, f32_classify as classify, f32_div as div, f32_eq as eq, f32_fma as fma,
        f32_from_i32 as from_i32, f32_from_i64 as from_i64, f32_from_u32 as from_u32,
        f32_from_u64 as from_u64, f32_le as le, f32_lt as lt, f32_max as max, f32_min as min,
        f32_mul as mul, f32_sqrt as sqrt, f32_sub as sub, f32_to_i32 as to_i32,
        f32_to_i64 as to_i64, f32_to_u32 as to_u32, f32_to_u64 as to_u64,
    };
}

/// As [`ours32`].
mod ours64 {
    pub(super) use twinvm_fp::{
        f64_add as add, f64_classify as classify, f64_div as div, f64_eq as eq, f64_fma as fma,
        f64_from_i32 as from_i32, f64_from_i64 as from_i64, f64_from_u32 as from_u32,
        f64_from_u64 as from_u64, f64_le as le, f64_lt as lt, f64_max as max, f64_min as min,
        f64_mul as mul, f64_sqrt as sqrt, f64_sub as sub, f64_to_i32 as to_i32,
        f64_to_i64 as to_i64, f64_to_u32 as to_u32, f64_to_u64 as to_u64,
    };
}

/// The oracle's functions under the same names, and the constants that its
/// `fmin`, `fmax` and `fclass` need.
mod theirs32 {
    pub(super) use softfloat_sys::{
        f32_add as add, f32_div as div, f32_eq as eq, f32_isSignalingNaN as is_signaling,
        f32_le as le, f32_lt as lt, f32_lt_quiet as lt_quiet, f32_mul as mul, f32_mulAdd as fma,
        f32_sqrt as sqrt, f32_sub as sub, f32_to_i32 as to_i32, f32_to_i64 as to_i64,
        f32_to_ui32 as to_u32, f32_to_ui64 as to_u64, i32_to_f32 as from_i32,
        i64_to_f32 as from_i64, ui32_to_f32 as from_u32, ui64_to_f32 as from_u64,
    };
    pub(super) type Bits = u32;
    pub(super) type Host = f32;
    pub(super) const SIGN: u32 = 0x8000_0000;
    pub(super) const NAN: u32 = 0x7fc0_0000;
    pub(super) fn wrap(bits: u64) -> softfloat_sys::float32_t {
        softfloat_sys::float32_t { v: bits as u32 }
    }
}

/// As [`theirs32`].
mod theirs64 {
    pub(super) use softfloat_sys::{
        f64_add as add, f64_div as div, f64_eq as eq, f64_isSignalingNaN as is_signaling,
        f64_le as le, f64_lt as lt, f64_lt_quiet as lt_quiet, f64_mul as mul, f64_mulAdd as fma,
        f64_sqrt as sqrt, f64_sub as sub, f64_to_i32 as to_i32, f64_to_i64 as to_i64,
        f64_to_ui32 as to_u32, f64_to_ui64 as to_u64, i32_to_f64 as from_i32,
        i64_to_f64 as from_i64, ui32_to_f64 as from_u32, ui64_to_f64 as from_u64,
    };
    pub(super) type Bits = u64;
    pub(super) type Host = f64;
    pub(super) const SIGN: u64 = 0x8000_0000_0000_0000;
    pub(super) const NAN: u64 = 0x7ff8_0000_0000_0000;
    pub(super) fn wrap(bits: u64) -> softfloat_sys::float64_t {
        softfloat_sys::float64_t { v: bits }
    }
}

/// One entry. `unsafe` inside is the call into the oracle.
macro_rules! op {
    ($name:expr, [$($kind:ident),+], $ours:expr, |$o:pat_param, $rm:pat_param| $theirs:expr) => {{
        /// # Safety
        /// As the oracle's functions: none beyond a thread of its own state.
        unsafe fn theirs($o: [u64; 3], $rm: u8) -> u64 {
            // SAFETY: see `oracle`.
            unsafe { $theirs }
        }
        Op { name: $name, inputs: &[$(Kind::$kind),+], ours: $ours, theirs }
    }};
}

/// All operations of one format.
macro_rules! format_ops {
    ($table:ident, $kind:ident, $ours:ident, $theirs:ident) => {
        mod $table {
            use super::$theirs::{self as t, Bits, Host, NAN, SIGN, wrap};
            use super::{Kind, Op, $ours as o};
            use softfloat_sys::softfloat_raiseFlags;
            use twinvm_fp::Flags;

            /// SoftFloat has no `fmin` and `fmax`: this puts them together
            /// from its quiet comparison and the ISA manual's words.
            ///
            /// # Safety
            /// As the oracle's functions.
            unsafe fn pick(a: u64, b: u64, min: bool) -> u64 {
                let nan = |x: u64| Host::from_bits(x as Bits).is_nan();
                // SAFETY: see `oracle`.
                unsafe {
                    if t::is_signaling(wrap(a)) || t::is_signaling(wrap(b)) {
                        softfloat_raiseFlags(Flags::NV);
                    }
                    match (nan(a), nan(b)) {
                        (true, true) => return u64::from(NAN),
                        (true, false) => return b,
                        (false, true) => return a,
                        _ => {}
                    }
                    let equal = !t::lt_quiet(wrap(a), wrap(b)) && !t::lt_quiet(wrap(b), wrap(a));
                    let a_is_less = if equal {
                        a as Bits & SIGN != 0
                    } else {
                        t::lt_quiet(wrap(a), wrap(b))
                    };
                    if a_is_less == min { a } else { b }
                }
            }

            /// The class by the host's categories.
            ///
            /// # Safety
            /// As the oracle's functions.
            unsafe fn class(a: u64) -> u64 {
                use std::num::FpCategory::*;
                let host = Host::from_bits(a as Bits);
                let negative = a as Bits & SIGN != 0;
                let bit = match (host.classify(), negative) {
                    (Infinite, true) => 0,
                    (Normal, true) => 1,
                    (Subnormal, true) => 2,
                    (Zero, true) => 3,
                    (Zero, false) => 4,
                    (Subnormal, false) => 5,
                    (Normal, false) => 6,
                    (Infinite, false) => 7,
                    // SAFETY: see `oracle`.
                    (Nan, _) if unsafe { t::is_signaling(wrap(a)) } => 8,
                    (Nan, _) => 9,
                };
                1 << bit
            }

            pub(super) const TABLE: &[Op] = &[
                op!(
                    concat!(stringify!($kind), " add"),
                    [$kind, $kind],
                    |[a, b, _], rm, fl| o::add(a as Bits, b as Bits, rm, fl).into(),
                    |[a, b, _], _| t::add(wrap(a), wrap(b)).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " sub"),
                    [$kind, $kind],
                    |[a, b, _], rm, fl| o::sub(a as Bits, b as Bits, rm, fl).into(),
                    |[a, b, _], _| t::sub(wrap(a), wrap(b)).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " mul"),
                    [$kind, $kind],
                    |[a, b, _], rm, fl| o::mul(a as Bits, b as Bits, rm, fl).into(),
                    |[a, b, _], _| t::mul(wrap(a), wrap(b)).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " div"),
                    [$kind, $kind],
                    |[a, b, _], rm, fl| o::div(a as Bits, b as Bits, rm, fl).into(),
                    |[a, b, _], _| t::div(wrap(a), wrap(b)).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " sqrt"),
                    [$kind],
                    |[a, ..], rm, fl| o::sqrt(a as Bits, rm, fl).into(),
                    |[a, ..], _| t::sqrt(wrap(a)).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " fma"),
                    [$kind, $kind, $kind],
                    |[a, b, c], rm, fl| { o::fma(a as Bits, b as Bits, c as Bits, rm, fl).into() },
                    |[a, b, c], _| t::fma(wrap(a), wrap(b), wrap(c)).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " min"),
                    [$kind, $kind],
                    |[a, b, _], _, fl| o::min(a as Bits, b as Bits, fl).into(),
                    |[a, b, _], _| pick(a, b, true)
                ),
                op!(
                    concat!(stringify!($kind), " max"),
                    [$kind, $kind],
                    |[a, b, _], _, fl| o::max(a as Bits, b as Bits, fl).into(),
                    |[a, b, _], _| pick(a, b, false)
                ),
                op!(
                    concat!(stringify!($kind), " eq"),
                    [$kind, $kind],
                    |[a, b, _], _, fl| o::eq(a as Bits, b as Bits, fl).into(),
                    |[a, b, _], _| t::eq(wrap(a), wrap(b)).into()
                ),
                op!(
                    concat!(stringify!($kind), " lt"),
                    [$kind, $kind],
                    |[a, b, _], _, fl| o::lt(a as Bits, b as Bits, fl).into(),
                    |[a, b, _], _| t::lt(wrap(a), wrap(b)).into()
                ),
                op!(
                    concat!(stringify!($kind), " le"),
                    [$kind, $kind],
                    |[a, b, _], _, fl| o::le(a as Bits, b as Bits, fl).into(),
                    |[a, b, _], _| t::le(wrap(a), wrap(b)).into()
                ),
                op!(
                    concat!(stringify!($kind), " classify"),
                    [$kind],
                    |[a, ..], _, _| o::classify(a as Bits).into(),
                    |[a, ..], _| class(a)
                ),
                op!(
                    concat!(stringify!($kind), " to_i32"),
                    [$kind],
                    |[a, ..], rm, fl| u64::from(o::to_i32(a as Bits, rm, fl) as u32),
                    |[a, ..], rm| u64::from(t::to_i32(wrap(a), rm, true) as u32)
                ),
                op!(
                    concat!(stringify!($kind), " to_u32"),
                    [$kind],
                    |[a, ..], rm, fl| o::to_u32(a as Bits, rm, fl).into(),
                    |[a, ..], rm| u64::from(t::to_u32(wrap(a), rm, true) as u32)
                ),
                op!(
                    concat!(stringify!($kind), " to_i64"),
                    [$kind],
                    |[a, ..], rm, fl| o::to_i64(a as Bits, rm, fl) as u64,
                    |[a, ..], rm| t::to_i64(wrap(a), rm, true) as u64
                ),
                op!(
                    concat!(stringify!($kind), " to_u64"),
                    [$kind],
                    |[a, ..], rm, fl| o::to_u64(a as Bits, rm, fl),
                    |[a, ..], rm| t::to_u64(wrap(a), rm, true)
                ),
                op!(
                    concat!(stringify!($kind), " from_i32"),
                    [Int],
                    |[a, ..], rm, fl| o::from_i32(a as i32, rm, fl).into(),
                    |[a, ..], _| t::from_i32(a as i32).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " from_u32"),
                    [Int],
                    |[a, ..], rm, fl| o::from_u32(a as u32, rm, fl).into(),
                    |[a, ..], _| t::from_u32(a as u32).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " from_i64"),
                    [Int],
                    |[a, ..], rm, fl| o::from_i64(a as i64, rm, fl).into(),
                    |[a, ..], _| t::from_i64(a as i64).v.into()
                ),
                op!(
                    concat!(stringify!($kind), " from_u64"),
                    [Int],
                    |[a, ..], rm, fl| o::from_u64(a, rm, fl).into(),
                    |[a, ..], _| t::from_u64(a).v.into()
                ),
            ];
        }
    };
}

format_ops!(table32, F32, ours32, theirs32);
format_ops!(table64, F64, ours64, theirs64);

/// Between the formats.
const CROSS: &[Op] = &[
    op!(
        "f32_to_f64",
        [F32],
        |[a, ..], _, fl| twinvm_fp::f32_to_f64(a as u32, fl),
        |[a, ..], _| sf::f32_to_f64(theirs32::wrap(a)).v
    ),
    op!(
        "f64_to_f32",
        [F64],
        |[a, ..], rm, fl| twinvm_fp::f64_to_f32(a, rm, fl).into(),
        |[a, ..], _| sf::f64_to_f32(theirs64::wrap(a)).v.into()
    ),
];

/// Every operation there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Op> {
    table32::TABLE.iter().chain(table64::TABLE).chain(CROSS)
}

//! What RISC-V floating point means, in a few vectors worked out by hand.
//! These need no oracle and run on every host.

use twinvm_fp::*;

const NX: u8 = Flags::NX;
const UF: u8 = Flags::UF;
const OF: u8 = Flags::OF;
const DZ: u8 = Flags::DZ;
const NV: u8 = Flags::NV;

const NAN64: u64 = 0x7ff8_0000_0000_0000;
const SNAN64: u64 = 0x7ff0_0000_0000_0001;
const INF64: u64 = 0x7ff0_0000_0000_0000;
const MAX64: u64 = 0x7fef_ffff_ffff_ffff;
const MIN_NORMAL64: u64 = 0x0010_0000_0000_0000;
const SIGN64: u64 = 1 << 63;

const NAN32: u32 = 0x7fc0_0000;
const SNAN32: u32 = 0x7f80_0001;
const INF32: u32 = 0x7f80_0000;
const MAX32: u32 = 0x7f7f_ffff;

const MODES: [Rm; 5] = [Rm::Rne, Rm::Rtz, Rm::Rdn, Rm::Rup, Rm::Rmm];

fn d(value: f64) -> u64 {
    value.to_bits()
}

fn s(value: f32) -> u32 {
    value.to_bits()
}

/// Result and flags of an operation that starts from clear flags.
fn run<T>(operation: impl FnOnce(&mut Flags) -> T) -> (T, u8) {
    let mut flags = Flags::default();
    let result = operation(&mut flags);
    (result, flags.0)
}

#[test]
fn rounding_modes_have_their_encodings() {
    for (bits, rm) in MODES.into_iter().enumerate() {
        assert_eq!(Rm::from_bits(bits as u8), Some(rm));
        assert_eq!(rm as usize, bits);
    }
    for bits in 5..=255 {
        assert_eq!(Rm::from_bits(bits), None);
    }
}

#[test]
fn singles_are_boxed_with_ones() {
    assert_eq!(box32(0x3f80_0000), 0xffff_ffff_3f80_0000);
    assert_eq!(unbox32(0xffff_ffff_3f80_0000), 0x3f80_0000);
    assert_eq!(unbox32(0xffff_fffe_3f80_0000), NAN32);
    assert_eq!(unbox32(0x3f80_0000), NAN32);
    // A boxed NaN keeps its payload: unboxing is not arithmetic.
    assert_eq!(unbox32(0xffff_ffff_7f80_0001), SNAN32);
}

#[test]
fn flags_accumulate_and_are_never_cleared() {
    let mut flags = Flags(DZ | UF);
    f64_add(d(1.0), d(2.0), Rm::Rne, &mut flags);
    assert_eq!(flags, Flags(DZ | UF));
    f64_div(d(1.0), d(3.0), Rm::Rne, &mut flags);
    assert_eq!(flags, Flags(DZ | UF | NX));
}

#[test]
fn one_tenth_and_two_tenths_in_each_mode() {
    // The exact sum of these two doubles lies exactly halfway between
    // 0x3fd3333333333333 and 0x3fd3333333333334.
    let expected = [0x34, 0x33, 0x33, 0x34, 0x34];
    for (rm, low) in MODES.into_iter().zip(expected) {
        let (sum, flags) = run(|f| f64_add(d(0.1), d(0.2), rm, f));
        assert_eq!(sum, 0x3fd3_3333_3333_3300 | low, "{rm:?}");
        assert_eq!(flags, NX);
    }
}

#[test]
fn ties_differ_between_even_and_max_magnitude() {
    // 2^24 + 1 lies halfway between two singles; the even one is below.
    let tie = |rm| run(|f| f32_from_i32((1 << 24) + 1, rm, f));
    assert_eq!(tie(Rm::Rne), (s(16_777_216.0), NX));
    assert_eq!(tie(Rm::Rmm), (s(16_777_218.0), NX));
    let minus = |rm| run(|f| f32_from_i32(-(1 << 24) - 1, rm, f));
    assert_eq!(minus(Rm::Rmm), (s(-16_777_218.0), NX));
    assert_eq!(minus(Rm::Rup), (s(-16_777_216.0), NX));
    assert_eq!(minus(Rm::Rdn), (s(-16_777_218.0), NX));
}

#[test]
fn exact_cancellation_is_minus_zero_only_when_rounding_down() {
    for rm in MODES {
        let zero = if rm == Rm::Rdn { SIGN64 } else { 0 };
        assert_eq!(run(|f| f64_sub(d(1.5), d(1.5), rm, f)), (zero, 0));
        assert_eq!(run(|f| f64_add(d(0.0), d(-0.0), rm, f)), (zero, 0));
        assert_eq!(run(|f| f64_fma(d(2.0), d(3.0), d(-6.0), rm, f)), (zero, 0));
        assert_eq!(run(|f| f64_add(d(-0.0), d(-0.0), rm, f)), (SIGN64, 0));
    }
}

#[test]
fn nan_results_are_canonical() {
    let payload = 0xfff8_dead_beef_0000;
    assert_eq!(run(|f| f64_add(payload, d(1.0), Rm::Rne, f)), (NAN64, 0));
    assert_eq!(run(|f| f64_mul(d(1.0), SNAN64, Rm::Rne, f)), (NAN64, NV));
    assert_eq!(run(|f| f64_sqrt(d(-1.0), Rm::Rne, f)), (NAN64, NV));
    assert_eq!(run(|f| f64_sqrt(d(-0.0), Rm::Rne, f)), (d(-0.0), 0));
    assert_eq!(run(|f| f64_sub(INF64, INF64, Rm::Rne, f)), (NAN64, NV));
    assert_eq!(run(|f| f64_div(INF64, INF64, Rm::Rne, f)), (NAN64, NV));
    assert_eq!(run(|f| f64_div(0, 0, Rm::Rne, f)), (NAN64, NV));
    assert_eq!(run(|f| f64_to_f32(payload, Rm::Rne, f)), (NAN32, 0));
    assert_eq!(run(|f| f32_to_f64(SNAN32, f)), (NAN64, NV));
}

#[test]
fn division_by_zero() {
    assert_eq!(
        run(|f| f32_div(s(1.0), s(-0.0), Rm::Rne, f)),
        (s(f32::NEG_INFINITY), DZ)
    );
    // Infinity by zero is exact, not a division by zero.
    assert_eq!(run(|f| f32_div(INF32, 0, Rm::Rne, f)), (INF32, 0));
}

#[test]
fn fused_infinity_times_zero_is_invalid_even_with_a_quiet_nan() {
    assert_eq!(run(|f| f64_fma(INF64, 0, NAN64, Rm::Rne, f)), (NAN64, NV));
    assert_eq!(run(|f| f64_fma(d(1.0), 0, NAN64, Rm::Rne, f)), (NAN64, 0));
}

#[test]
fn fused_multiply_add_rounds_once() {
    // (1 + 2^-52)^2 - (1 + 2^-51) = 2^-104, which two roundings would lose.
    let a = d(1.0) + 1;
    let c = (d(1.0) + 2) | SIGN64;
    assert_eq!(
        run(|f| f64_fma(a, a, c, Rm::Rne, f)),
        (d(2f64.powi(-104)), 0)
    );
}

#[test]
fn overflow_goes_to_infinity_or_to_the_largest_number() {
    let expected = [INF64, MAX64, MAX64, INF64, INF64];
    for (rm, result) in MODES.into_iter().zip(expected) {
        assert_eq!(
            run(|f| f64_mul(MAX64, d(2.0), rm, f)),
            (result, OF | NX),
            "{rm:?}"
        );
    }
    assert_eq!(
        run(|f| f32_mul(MAX32 | 1 << 31, s(2.0), Rm::Rup, f)),
        (MAX32 | 1 << 31, OF | NX)
    );
}

#[test]
fn tininess_is_detected_after_rounding() {
    // (1 + 2^-52) (1 - 2^-52) = 1 - 2^-104 times the least normal number: to
    // nearest at full precision that is the least normal number, so the
    // result is inexact but not tiny.
    let product = |rm| run(|f| f64_mul(MIN_NORMAL64 + 1, d(1.0) - 2, rm, f));
    assert_eq!(product(Rm::Rne), (MIN_NORMAL64, NX));
    assert_eq!(product(Rm::Rtz), (MIN_NORMAL64 - 1, NX | UF));
    // 1 - 2^-53 times the least normal number is exact at full precision, and
    // so tiny, though it is delivered as the least normal number.
    let product = |rm| run(|f| f64_mul(MIN_NORMAL64, d(1.0) - 1, rm, f));
    assert_eq!(product(Rm::Rne), (MIN_NORMAL64, NX | UF));
    // An exact subnormal result raises nothing.
    assert_eq!(
        run(|f| f64_mul(MIN_NORMAL64, d(0.5), Rm::Rne, f)),
        (MIN_NORMAL64 / 2, 0)
    );
}

#[test]
fn minimum_and_maximum_prefer_numbers() {
    assert_eq!(run(|f| f64_min(d(-0.0), d(0.0), f)), (d(-0.0), 0));
    assert_eq!(run(|f| f64_max(d(-0.0), d(0.0), f)), (d(0.0), 0));
    assert_eq!(run(|f| f64_min(NAN64, d(1.0), f)), (d(1.0), 0));
    assert_eq!(run(|f| f64_max(d(1.0), SNAN64, f)), (d(1.0), NV));
    assert_eq!(run(|f| f64_min(NAN64 | SIGN64, NAN64, f)), (NAN64, 0));
    assert_eq!(run(|f| f32_max(SNAN32, NAN32, f)), (NAN32, NV));
}

#[test]
fn comparison_is_quiet_for_eq_only() {
    assert_eq!(run(|f| f64_eq(NAN64, NAN64, f)), (false, 0));
    assert_eq!(run(|f| f64_eq(SNAN64, d(1.0), f)), (false, NV));
    assert_eq!(run(|f| f64_lt(NAN64, d(1.0), f)), (false, NV));
    assert_eq!(run(|f| f64_le(d(1.0), NAN64, f)), (false, NV));
    assert_eq!(run(|f| f64_eq(d(0.0), d(-0.0), f)), (true, 0));
    assert_eq!(run(|f| f64_lt(d(-0.0), d(0.0), f)), (false, 0));
    assert_eq!(run(|f| f64_le(d(0.0), d(-0.0), f)), (true, 0));
    assert_eq!(run(|f| f64_lt(d(-2.0), d(-1.0), f)), (true, 0));
}

#[test]
fn classes_have_their_bits() {
    let values = [
        s(f32::NEG_INFINITY),
        s(-1.0),
        0x8000_0001,
        s(-0.0),
        0,
        1,
        s(1.0),
        INF32,
        SNAN32,
        NAN32,
    ];
    for (bit, value) in values.into_iter().enumerate() {
        assert_eq!(f32_classify(value), 1 << bit, "{value:#x}");
    }
    assert_eq!(f64_classify(SNAN64 | SIGN64), 1 << 8);
    assert_eq!(f64_classify(NAN64 | SIGN64), 1 << 9);
}

#[test]
fn conversion_to_integers_saturates() {
    assert_eq!(run(|f| f64_to_i32(NAN64, Rm::Rtz, f)), (i32::MAX, NV));
    assert_eq!(
        run(|f| f64_to_i32(NAN64 | SIGN64, Rm::Rtz, f)),
        (i32::MAX, NV)
    );
    assert_eq!(run(|f| f64_to_u64(NAN64, Rm::Rtz, f)), (u64::MAX, NV));
    assert_eq!(
        run(|f| f64_to_i64(INF64 | SIGN64, Rm::Rtz, f)),
        (i64::MIN, NV)
    );
    assert_eq!(run(|f| f64_to_u32(d(-1.0), Rm::Rtz, f)), (0, NV));
    assert_eq!(
        run(|f| f64_to_i64(d(2f64.powi(63)), Rm::Rtz, f)),
        (i64::MAX, NV)
    );
    assert_eq!(
        run(|f| f64_to_i64(d(-2f64.powi(63)), Rm::Rtz, f)),
        (i64::MIN, 0)
    );
    assert_eq!(
        run(|f| f64_to_i32(d(2147483647.5), Rm::Rtz, f)),
        (i32::MAX, NX)
    );
    // Out of range after rounding: invalid, and then not inexact.
    assert_eq!(
        run(|f| f64_to_i32(d(2147483647.5), Rm::Rne, f)),
        (i32::MAX, NV)
    );
}

#[test]
fn small_fractions_round_to_unsigned_by_mode() {
    // -0.5 is in range when it rounds to zero, out of range when to -1.
    let convert = |rm| run(|f| f32_to_u32(s(-0.5), rm, f));
    assert_eq!(convert(Rm::Rne), (0, NX));
    assert_eq!(convert(Rm::Rtz), (0, NX));
    assert_eq!(convert(Rm::Rup), (0, NX));
    assert_eq!(convert(Rm::Rdn), (0, NV));
    assert_eq!(convert(Rm::Rmm), (0, NV));
    assert_eq!(run(|f| f32_to_i32(s(2.5), Rm::Rne, f)), (2, NX));
    assert_eq!(run(|f| f32_to_i32(s(2.5), Rm::Rmm, f)), (3, NX));
    assert_eq!(run(|f| f32_to_i32(s(-2.5), Rm::Rmm, f)), (-3, NX));
}

//! The F and D instructions, and how hard operands for them are put together.

use Kind::*;

/// What an operand or the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Double,
    Integer,
}

/// One instruction: its word but for registers and rounding mode, its operands and result, and
/// the funct3 values that it is run with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) word: u32,
    pub(crate) operands: usize,
    pub(crate) from: Kind,
    pub(crate) to: Kind,
    pub(crate) f3: &'static [u32],
}

/// All of them; those that round are run with the modes `rounded`.
pub(crate) fn forms(rounded: &'static [u32]) -> Vec<Form> {
    let mut out = Vec::new();
    for (format, kind) in [(0, Single), (1, Double)] {
        let mut form = |f7: u32, rs2: u32, operands, from, to, f3| {
            let word = (f7 + format) << 25 | rs2 << 20 | 0x53;
            out.push(Form {
                word,
                operands,
                from,
                to,
                f3,
            });
        };
        for f7 in [0, 4, 8, 0xc] {
            form(f7, 0, 2, kind, kind, rounded);
        }
        form(0x10, 0, 2, kind, kind, &[0, 1, 2]);
        form(0x14, 0, 2, kind, kind, &[0, 1]);
        form(0x50, 0, 2, kind, Integer, &[0, 1, 2]);
        form(0x2c, 0, 1, kind, kind, rounded);
        form(0x70, 0, 1, kind, Integer, &[0, 1]);
        form(0x78, 0, 1, Integer, kind, &[0]);
        for width in 0..4 {
            form(0x60, width, 1, kind, Integer, rounded);
            form(0x68, width, 1, Integer, kind, rounded);
        }
        // fcvt.s.d and fcvt.d.s.
        let other = if kind == Single { Double } else { Single };
        form(0x20, 1 - format, 1, other, kind, rounded);
        for opcode in [0x43, 0x47, 0x4b, 0x4f] {
            out.push(Form {
                word: format << 25 | opcode,
                operands: 3,
                from: kind,
                to: kind,
                f3: rounded,
            });
        }
    }
    out
}

/// Marks of a format: exponents, and fractions.
pub(crate) struct Format {
    /// Bits of the fraction.
    pub(crate) mantissa: u64,
    /// The exponent of one.
    pub(crate) bias: u64,
    /// The exponent of infinity and NaN.
    pub(crate) top: u64,
    /// The largest fraction.
    pub(crate) all: u64,
    /// The highest bit of a fraction.
    pub(crate) half: u64,
}

pub(crate) fn format(kind: Kind) -> Format {
    let (mantissa, bias) = if kind == Single {
        (23, 127)
    } else {
        (52, 1023)
    };
    Format {
        mantissa,
        bias,
        top: 2 * bias + 1,
        all: (1 << mantissa) - 1,
        half: 1 << (mantissa - 1),
    }
}

/// Numbers with these exponents and fractions, of both signs; singles are boxed, and two more
/// stand in registers that box none.
pub(crate) fn floats(kind: Kind, pairs: &[(u64, &[u64])]) -> Vec<u64> {
    let mantissa = format(kind).mantissa;
    let (boxed, sign) = match kind {
        Single => (!0 << 32, 1 << 31),
        _ => (0, 1 << 63),
    };
    let mut out = Vec::new();
    for (exponent, fractions) in pairs {
        for fraction in *fractions {
            let value = exponent << mantissa | fraction;
            out.extend([boxed | value, boxed | sign | value]);
        }
    }
    if kind == Single {
        out.extend([0x3f80_0000, 0xffff_fffe_3f80_0000]);
    }
    out
}

/// Both signs of zero, subnormals, the ends of the normal range, values around one,
/// ties, the ends of integers, infinities and NaNs; as singles also in a register that
/// boxes none.
pub(crate) fn hard_floats(kind: Kind) -> Vec<u64> {
    let Format {
        mantissa,
        bias,
        top,
        all,
        half,
    } = format(kind);
    let pairs: [(u64, &[u64]); 17] = [
        (0, &[0, 1, half, all]),
        (1, &[0, 1, all]),
        (bias - mantissa - 1, &[0, 1]),
        (bias / 2, &[half + 1]),
        (bias - 1, &[0, all]),
        (bias, &[0, 1, half, all - 1]),
        (bias + 1, &[half + half / 2]),
        (bias + 30, &[all, all - half / 2]),
        (bias + 31, &[0, half, all, all - 1]),
        (bias + 32, &[0]),
        (bias + mantissa, &[all]),
        (bias + 62, &[all]),
        (bias + 63, &[0, all]),
        (bias + 64, &[0]),
        (bias + bias / 2, &[1]),
        (top - 1, &[0, all]),
        (top, &[0, 1, half, all]),
    ];
    let mut out = floats(kind, &pairs);
    if kind == Double {
        // Around the ends of 32 bits, with fractions.
        for n in [2_147_483_647.0f64, 2_147_483_648.0, 4_294_967_295.0] {
            for near in [n - 0.75, n - 0.5, n, n + 0.25, n + 0.5, n + 0.75] {
                out.extend([near.to_bits(), (-near).to_bits()]);
            }
        }
    }
    out
}

/// Integers around powers of two, with ties and what is near them, and their negatives.
pub(crate) fn hard_integers() -> Vec<u64> {
    let mut out = vec![0];
    for bit in [0, 1, 22, 23, 24, 30, 31, 32, 51, 52, 53, 54, 61, 62, 63] {
        let power = 1u64 << bit;
        for near in [
            power.wrapping_sub(1),
            power,
            power + 1,
            power | power >> 24 | power >> 25,
            power | power >> 53 | power >> 54,
        ] {
            out.extend([near, near.wrapping_neg()]);
        }
    }
    out
}

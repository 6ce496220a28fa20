//! Operands: hard ones by design, and random ones that are hard by bias.

use crate::ops::Kind;
use twinvm_fp::{Flags, Rm, f32_mul, f64_mul};

/// Shape of a format: stored significand bits and exponent bits.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    mantissa: u32,
    exponent: u32,
}

pub(crate) const F32: Shape = Shape {
    mantissa: 23,
    exponent: 8,
};
pub(crate) const F64: Shape = Shape {
    mantissa: 52,
    exponent: 11,
};

impl Shape {
    fn frac(self) -> u64 {
        (1 << self.mantissa) - 1
    }

    fn bias(self) -> u64 {
        (1 << (self.exponent - 1)) - 1
    }

    fn max_field(self) -> u64 {
        (1 << self.exponent) - 1
    }

    fn sign(self) -> u64 {
        1 << (self.mantissa + self.exponent)
    }

    /// Both signs of the value with this exponent field and fraction.
    fn push(self, out: &mut Vec<u64>, field: u64, fraction: u64) {
        let magnitude = field << self.mantissa | fraction & self.frac();
        out.extend([magnitude, magnitude | self.sign()]);
    }
}

/// Fewer values, for the cube of a three-operand function.
pub(crate) fn hard_reduced(shape: Shape) -> Vec<u64> {
    let mut out = Vec::new();
    let (frac, bias, top) = (shape.frac(), shape.bias(), shape.max_field());
    let half = 1 << (shape.mantissa - 1);
    for (field, fractions) in [
        (0, &[0, 1, half, frac][..]),
        (1, &[0, 1]),
        (2, &[frac]),
        (bias - u64::from(shape.mantissa) - 1, &[0, 1]),
        (bias - 1, &[0, frac]),
        (bias, &[0, 1, half, frac]),
        (bias + 1, &[0]),
        (bias + u64::from(shape.mantissa) + 1, &[0]),
        (top - 1, &[0, frac]),
        (top, &[0, 1, half]),
    ] {
        for &fraction in fractions {
            shape.push(&mut out, field, fraction);
        }
    }
    out
}

/// Zeros, subnormals, the ends of the normal range, values around one, around
/// the limits of the integer types and of the other format, halfway cases,
/// infinities, quiet and signaling NaNs.
pub(crate) fn hard(shape: Shape) -> Vec<u64> {
    let mut out = Vec::new();
    let (frac, bias, top) = (shape.frac(), shape.bias(), shape.max_field());
    let mantissa = u64::from(shape.mantissa);
    let half = 1 << (shape.mantissa - 1);
    let fields = [
        0,
        1,
        2,
        mantissa + 1,
        bias / 2,
        bias - mantissa - 2,
        bias - mantissa - 1,
        bias - mantissa,
        bias - 2,
        bias - 1,
        bias,
        bias + 1,
        bias + 2,
        bias + mantissa - 1,
        bias + mantissa,
        bias + mantissa + 1,
        bias + 30,
        bias + 31,
        bias + 32,
        bias + 62,
        bias + 63,
        bias + 64,
        bias + bias / 2,
        top - 2,
        top - 1,
        top,
    ];
    for field in fields {
        for fraction in [0, 1, 2, half - 1, half, half + 1, frac - 1, frac] {
            shape.push(&mut out, field, fraction);
        }
    }
    // Halves and near-halves around small integers and the integer limits.
    for (exponent, keep) in [(0, 0), (1, 1), (2, 2), (30, 30), (31, 31)] {
        if keep + 1 >= shape.mantissa {
            continue;
        }
        let tie = 1 << (shape.mantissa - keep - 1);
        let odd = frac & !(2 * tie - 1);
        for fraction in [tie, tie - 1, tie + 1, odd | tie, odd | (tie - 1), odd] {
            shape.push(&mut out, bias + exponent, fraction);
        }
    }
    // Doubles around what rounds to a single's limits, and halfway between.
    if shape.mantissa == 52 {
        for exponent in [-150_i64, -149, -127, -126, -1, 0, 1, 127, 128] {
            for fraction in [1 << 28, (1 << 28) + 1, 3 << 28, frac - (1 << 28) + 1] {
                for near in [fraction - 1, fraction] {
                    shape.push(&mut out, bias.wrapping_add_signed(exponent), near);
                }
            }
        }
    }
    out
}

/// Integers around powers of two and around what the significands can hold.
pub(crate) fn hard_ints() -> Vec<u64> {
    let mut out = vec![0];
    for bit in 0..64 {
        let power = 1_u64 << bit;
        for near in [power.wrapping_sub(1), power, power + 1] {
            out.extend([near, near.wrapping_neg()]);
        }
        for mantissa in [24, 53] {
            if bit >= mantissa {
                let tie = 1_u64 << (bit - mantissa);
                for low in [tie, tie - 1, tie + 1, 3 * tie] {
                    let value = power.wrapping_add(low);
                    out.extend([value, value.wrapping_neg()]);
                }
            }
        }
    }
    out
}

/// A xorshift64* generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 8) % bound
    }

    /// Bits in few long runs, so that carries travel far and ties occur.
    fn runs(&mut self) -> u64 {
        let mut bits = if self.below(2) == 0 { 0 } else { u64::MAX };
        for _ in 0..self.below(4) {
            bits ^= u64::MAX << self.below(64);
        }
        if self.below(4) == 0 {
            bits ^= 1 << self.below(64);
        }
        bits
    }

    fn float(&mut self, shape: Shape) -> u64 {
        let fraction = match self.below(3) {
            0 => self.next(),
            _ => self.runs() ^ (self.next() & self.runs() & self.runs()),
        } & shape.frac();
        let top = shape.max_field();
        let field = match self.below(8) {
            0 => self.below(4),
            1 => top - self.below(4),
            2 | 3 => self.below(top + 1),
            // Around one, near enough for sums to overlap and for integers.
            _ => shape.bias() - 70 + self.below(140),
        };
        let sign = if self.below(2) == 0 { 0 } else { shape.sign() };
        sign | field << shape.mantissa | fraction
    }

    pub(crate) fn operand(&mut self, kind: Kind) -> u64 {
        match kind {
            Kind::F32 => self.float(F32),
            Kind::F64 => self.float(F64),
            Kind::Int => {
                let bits = if self.below(2) == 0 {
                    self.next()
                } else {
                    self.runs()
                };
                let value = bits >> self.below(64);
                if self.below(2) == 0 {
                    value
                } else {
                    value.wrapping_neg()
                }
            }
        }
    }

    /// Ties operands together now and then: nearly equal ones, and addends
    /// that all but cancel a product.
    pub(crate) fn relate(&mut self, inputs: &[Kind], operands: &mut [u64; 3]) {
        if self.below(4) != 0 || inputs.len() < 2 {
            return;
        }
        let (shape, other) = match inputs[0] {
            Kind::F32 => (F32, operands[0]),
            Kind::F64 => (F64, operands[0]),
            Kind::Int => return,
        };
        let last = inputs.len() - 1;
        let mut near = if inputs.len() == 2 {
            other
        } else {
            let mut unused = Flags::default();
            let [a, b, _] = *operands;
            match inputs[0] {
                Kind::F32 => f32_mul(a as u32, b as u32, Rm::Rne, &mut unused).into(),
                _ => f64_mul(a, b, Rm::Rne, &mut unused),
            }
        };
        near = near.wrapping_add(self.below(5)).wrapping_sub(2);
        if self.below(4) != 0 {
            near ^= shape.sign();
        }
        operands[last] = near & (shape.sign() << 1).wrapping_sub(1);
    }
}

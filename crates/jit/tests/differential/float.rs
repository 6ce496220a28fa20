//! Programs that run one F or D instruction over all combinations of hard
//! operands, in each rounding mode, and read the flags after each.

use crate::asm::*;
use crate::layout::*;
use crate::program::Program;

/// What an operand or the result is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Double,
    Integer,
}

use Kind::*;

/// One instruction: funct7 and rs2 as far as they are fixed, its operands, and
/// the funct3 values that it is run with.
struct Form {
    word: u32,
    operands: u32,
    from: Kind,
    to_integer: bool,
    f3: &'static [u32],
}

/// The five modes, and the one in frm.
const ROUNDED: &[u32] = &[0, 1, 2, 3, 4, 7];

fn forms() -> Vec<Form> {
    let mut out = Vec::new();
    for (format, kind) in [(0, Single), (1, Double)] {
        let mut form = |f7: u32, rs2: u32, operands, from, to_integer, f3| {
            let word = (f7 + format) << 25 | rs2 << 20 | 0x53;
            out.push(Form {
                word,
                operands,
                from,
                to_integer,
                f3,
            });
        };
        for f7 in [0, 4, 8, 0xc] {
            form(f7, 0, 2, kind, false, ROUNDED);
        }
        form(0x10, 0, 2, kind, false, &[0, 1, 2]);
        form(0x14, 0, 2, kind, false, &[0, 1]);
        form(0x50, 0, 2, kind, true, &[0, 1, 2]);
        form(0x2c, 0, 1, kind, false, ROUNDED);
        form(0x70, 0, 1, kind, true, &[0, 1]);
        form(0x78, 0, 1, Integer, false, &[0]);
        for width in 0..4 {
            form(0x60, width, 1, kind, true, ROUNDED);
            form(0x68, width, 1, Integer, false, ROUNDED);
        }
        // fcvt.s.d and fcvt.d.s.
        let other = if kind == Single { Double } else { Single };
        form(0x20, 1 - format, 1, other, false, ROUNDED);
        for opcode in [0x43, 0x47, 0x4b, 0x4f] {
            out.push(Form {
                word: format << 25 | opcode,
                operands: 3,
                from: kind,
                to_integer: false,
                f3: ROUNDED,
            });
        }
    }
    out
}

/// Both signs of zero, subnormals, the ends of the normal range, values around
/// one, ties, infinities and NaNs; singles also in a register that boxes none.
fn floats(kind: Kind, few: bool) -> Vec<u64> {
    let (mantissa, bias) = if kind == Single {
        (23, 127)
    } else {
        (52, 1023)
    };
    let (top, all, half) = (2 * bias + 1, (1u64 << mantissa) - 1, 1u64 << (mantissa - 1));
    let mut out = Vec::new();
    let pairs: &[(u64, &[u64])] = if few {
        &[
            (0, &[0, 1, all]),
            (1, &[0]),
            (bias - 1, &[all]),
            (bias, &[0, 1, half | 1]),
            (bias + mantissa, &[1]),
            (top - 1, &[all]),
            (top, &[0, 1, half]),
        ]
    } else {
        &[
            (0, &[0, 1, half, all]),
            (1, &[0, 1, all]),
            (bias - mantissa - 1, &[0, 1]),
            (bias / 2, &[half + 1]),
            (bias - 1, &[0, all]),
            (bias, &[0, 1, half, all - 1]),
            (bias + 1, &[half + half / 2]),
            (bias + 31, &[0]),
            (bias + mantissa, &[all]),
            (bias + 63, &[0, all]),
            (bias + bias / 2, &[1]),
            (top - 1, &[0, all]),
            (top, &[0, 1, half, all]),
        ]
    };
    let boxed = if kind == Single { !0 << 32 } else { 0 };
    for (exponent, fractions) in pairs {
        for fraction in *fractions {
            let value = exponent << mantissa | fraction;
            let sign = 1 << if kind == Single { 31 } else { 63 };
            out.extend([boxed | value, boxed | sign | value]);
        }
    }
    if kind == Single {
        out.extend([0x3f80_0000, 0xffff_fffe_3f80_0000]);
    }
    out
}

fn integers() -> Vec<u64> {
    let mut out = vec![0];
    for bit in [0, 1, 22, 23, 24, 30, 31, 32, 51, 52, 53, 54, 61, 62, 63] {
        let power = 1u64 << bit;
        for near in [
            power.wrapping_sub(1),
            power,
            power + 1,
            power | power >> 24 | power >> 25,
        ] {
            out.extend([near, near.wrapping_neg()]);
        }
    }
    out
}

/// One program per instruction, and how many combinations of operands and
/// modes it runs.
pub(crate) fn programs() -> Vec<(Program, u64)> {
    forms().iter().map(program).collect()
}

fn program(form: &Form) -> (Program, u64) {
    let values = match form.from {
        Integer => integers(),
        kind => floats(kind, form.operands == 3),
    };
    let mut ram = vec![0; RAM_BYTES as usize];
    for (n, value) in values.iter().enumerate() {
        put(&mut ram, DATA + 8 * n as u64, &value.to_le_bytes());
    }
    let mut a = Asm::at(DRIVER);
    a.li(5, 3 << 13).op(csrrs(0, 0x300, 5));
    for (n, f3) in form.f3.iter().enumerate() {
        a.op(csrrwi(0, 2, n as u32 % 5));
        a.li(20, DATA).li(21, DATA + 8 * values.len() as u64);
        nest(&mut a, form, *f3, 0);
    }
    let end = a.here();
    a.op(SPIN);
    put(&mut ram, DRIVER, &a.bytes);
    let cases = (values.len() as u64).pow(form.operands) * form.f3.len() as u64;
    let limit = 1_000_000;
    (Program { ram, end, limit }, cases)
}

/// The loop over operand `depth`, whose address is in x10 and up.
fn nest(a: &mut Asm, form: &Form, f3: u32, depth: u32) {
    if depth == form.operands {
        let rd = if form.to_integer { 6 } else { 9 };
        let mut word = form.word | f3 << 12 | rd << 7 | 1 << 15;
        if form.operands > 1 {
            word |= 2 << 20;
        }
        if form.operands > 2 {
            word |= 3 << 27;
        }
        a.op(csrrwi(0, 1, 0)).op(word).op(csrr(7, 1));
        return;
    }
    let (pointer, to) = (10 + depth, 1 + depth);
    a.op(addi(pointer, 20, 0));
    let start = a.here();
    let load = if form.from == Integer { 0x03 } else { 0x07 };
    a.op(i(0, pointer, 3, to, load));
    nest(a, form, f3, depth + 1);
    a.op(addi(pointer, pointer, 8));
    let back = start.wrapping_sub(a.here()) as i32;
    a.op(branch(1, pointer, 21, back));
}

//! Programs that run one F or D instruction over all combinations of hard
//! operands, in each rounding mode, and read the flags after each.

use crate::asm::*;
use crate::float_forms::Kind::{self, Integer};
use crate::float_forms::{Form, Format, floats, format, forms, hard_floats, hard_integers};
use crate::layout::*;
use crate::program::Program;

/// The five modes, and the one in frm.
const ROUNDED: &[u32] = &[0, 1, 2, 3, 4, 7];

/// Some hard operands, for instructions that take three.
fn few_floats(kind: Kind) -> Vec<u64> {
    let Format {
        mantissa,
        bias,
        top,
        all,
        half,
    } = format(kind);
    let pairs: [(u64, &[u64]); 7] = [
        (0, &[0, 1, all]),
        (1, &[0]),
        (bias - 1, &[all]),
        (bias, &[0, 1, half | 1]),
        (bias + mantissa, &[1]),
        (top - 1, &[all]),
        (top, &[0, 1, half]),
    ];
    floats(kind, &pairs)
}

/// One program per instruction, and how many combinations of operands and
/// modes it runs.
pub(crate) fn programs() -> Vec<(Program, u64)> {
    forms(ROUNDED).iter().map(program).collect()
}

fn program(form: &Form) -> (Program, u64) {
    let values = match form.from {
        Integer => hard_integers(),
        kind if form.operands == 3 => few_floats(kind),
        kind => hard_floats(kind),
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
    let cases = (values.len() as u64).pow(form.operands as u32) * form.f3.len() as u64;
    let limit = 1_000_000;
    (Program { ram, end, limit }, cases)
}

/// The loop over operand `depth`, whose address is in x10 and up.
fn nest(a: &mut Asm, form: &Form, f3: u32, depth: u32) {
    if depth as usize == form.operands {
        let rd = if form.to == Integer { 6 } else { 9 };
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

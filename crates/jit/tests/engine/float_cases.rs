//! Every F and D instruction over hard operands, in each rounding mode, with operands
//! and results in registers of all kinds: translated code must give the result and
//! the flags of the interpreter. And blocks that mix them, with the unit's state and
//! the rounding mode changing under them.

use crate::asm::*;
use crate::float_forms::Kind::{self, Integer, Single};
use crate::float_forms::{Form, Format, floats, format, forms, hard_floats, hard_integers};
use crate::rng::Rng;
use crate::world::*;

/// The modes of an instruction: the five, two that are reserved, and that of frm.
const ROUNDED: &[u32] = &[0, 1, 2, 3, 4, 5, 7];
/// Where operands come from and where the result goes. Of the registers f2, f9, f13
/// and f15, x8 and x15 are likely to be in registers of the host; f20 and up, x20 and
/// x30 are not.
const REGISTERS: [(u32, [u32; 3]); 12] = [
    (15, [13, 9, 2]),
    (15, [15, 13, 2]),
    (15, [13, 15, 2]),
    (15, [13, 9, 15]),
    (15, [15, 15, 15]),
    (15, [13, 13, 13]),
    (20, [13, 9, 2]),
    (15, [21, 22, 23]),
    (15, [21, 22, 15]),
    (20, [21, 22, 23]),
    (20, [20, 20, 21]),
    (20, [21, 20, 20]),
];

const RESULTS: u64 = DATA + 0x8000;

/// A few hard operands, for instructions that take three.
fn few_floats(kind: Kind) -> Vec<u64> {
    let Format {
        mantissa,
        bias,
        top,
        all,
        half,
    } = format(kind);
    let pairs: [(u64, &[u64]); 6] = [
        (0, &[0, 1]),
        (1, &[0]),
        (bias, &[0, half | 1]),
        (bias + mantissa, &[1]),
        (top - 1, &[all]),
        (top, &[0, 1]),
    ];
    floats(kind, &pairs)
}

/// The registers of an integer where the form has one.
fn register(kind: Kind, number: u32) -> u32 {
    match (kind, number) {
        (Integer, 20..) => 30,
        (Integer, 15) => 15,
        (Integer, _) => 8,
        _ => number,
    }
}

/// Runs the instruction on all combinations of operands: result and flags of each
/// go to [`RESULTS`].
fn program(a: &mut Asm, form: &Form, f3: u32, rd: u32, sources: &[u32], count: usize) {
    let to = register(form.to, rd);
    let from = sources.iter().map(|n| register(form.from, *n));
    let from = from.collect::<Vec<_>>();
    let load = if form.from == Integer { 0x03 } else { 0x07 };
    let mut word = form.word | f3 << 12 | to << 7 | from[0] << 15;
    if form.operands > 1 {
        word |= from[1] << 20;
    }
    if form.operands > 2 {
        word |= from[2] << 27;
    }
    // x4: results, x5: end of operands, x6, x7 and x9: operands.
    let pointers = [6, 7, 9];
    let mut starts = [0; 3];
    a.li(4, RESULTS).li(5, DATA + 8 * count as u64);
    for depth in 0..form.operands {
        a.li(pointers[depth], DATA);
        starts[depth] = a.here();
    }
    for depth in 0..form.operands {
        a.op(i(0, pointers[depth], 3, from[depth], load));
    }
    a.op(word);
    a.op(s(0, to, 4, 3, if form.to == Integer { 0x23 } else { 0x27 }));
    a.op(csrrwi(16, 1, 0)).op(sd(16, 4, 8)).op(addi(4, 4, 16));
    for depth in (0..form.operands).rev() {
        let pointer = pointers[depth];
        a.op(addi(pointer, pointer, 8));
        let back = starts[depth].wrapping_sub(a.here()) as i32;
        a.op(branch(1, pointer, 5, back));
    }
}

/// Goes on behind the instruction that trapped, which leaves its mark.
fn skip(a: &mut Asm) {
    a.ops(&[csrr(31, 0x341), addi(31, 31, 4), csrw(0x341, 31)]);
    a.ops(&[csrr(31, 0x342), addi(17, 17, 1), MRET]);
}

const ENGINES: [Way; 2] = [
    (Cut::Never, Between::Nothing, Tier::Interpreter),
    (Cut::Never, Between::Nothing, Tier::Translated(0)),
];

/// The choices of [`REGISTERS`] that differ with this number of operands.
fn registers(operands: usize) -> Vec<(u32, &'static [u32])> {
    let mut out = Vec::new();
    for (rd, sources) in &REGISTERS {
        let choice = (*rd, &sources[..operands]);
        if !out.contains(&choice) {
            out.push(choice);
        }
    }
    out
}

/// Numbers whose sums, products, quotients and roots are often near a bound: of the
/// normal range, of a tie, of an exact result.
fn random(form: &Form, rng: &mut Rng) -> Vec<u64> {
    let count = [200, 40, 12][form.operands - 1];
    let Format { mantissa, bias, .. } = format(form.from);
    let (boxed, sign) = match form.from {
        Single => (!0 << 32, 31),
        _ => (0, 63),
    };
    let mut number = || {
        if form.from == Integer {
            return rng.next() as i64 as u64 >> rng.below(64);
        }
        let near = rng.pick(&[
            0,
            bias / 2,
            bias / 2 + 1,
            bias,
            bias,
            bias * 3 / 2,
            bias * 2,
        ]);
        let exponent = (near + rng.below(mantissa + 3)).saturating_sub(mantissa / 2);
        let exponent = exponent.min(2 * bias + u64::from(rng.chance(8)));
        let shift = rng.below(mantissa + 1);
        let any = rng.next();
        let fraction = rng.pick(&[any, any << shift, !0 << shift, 1 << shift, 1, 0]);
        let fraction = fraction & ((1 << mantissa) - 1);
        boxed | rng.below(2) << sign | exponent << mantissa | fraction
    };
    (0..count).map(|_| number()).collect()
}

fn all_cases(form: &Form, values: &[u64], f3: u32, frm: u32) -> u64 {
    let cases = values.len().pow(form.operands as u32) as u64;
    assert!(16 * cases < 0x7_0000, "the results fit");
    let mut done = 0;
    for (rd, sources) in registers(form.operands) {
        let mut world = World::new(|a| program(a, form, f3, rd, sources, values.len()));
        world.code(M_HANDLER, skip);
        world.set_csr("mstatus", 3 << 13);
        world.hart.fcsr = (frm << 5) as u8;
        for (n, value) in values.iter().enumerate() {
            world.word(DATA + 8 * n as u64, *value);
        }
        let steps = 40 + 20 * cases;
        let [reference, after] = ENGINES.map(|way| Run::new(&world, way).go(steps));
        let case = format!("{form:x?} f3 {f3} rd {rd} from {sources:?} frm {frm}");
        for n in 0..cases {
            let at = RESULTS + 16 * n;
            let result = |of: &After| (of.word(at), of.word(at + 8));
            let (got, want) = (result(&after), result(&reference));
            let count = values.len();
            let digits = (0..form.operands as u32).rev();
            let operands = digits.map(|d| values[n as usize / count.pow(d) % count]);
            let operands = operands.collect::<Vec<_>>();
            assert_eq!(got, want, "operands {operands:x?}, {case}");
        }
        assert_eq!(after.hart, reference.hart, "{case}");
        after.compare(&reference, &case);
        done += cases;
    }
    done
}

#[test]
fn every_instruction_in_every_mode() {
    let mut cases = 0;
    for form in forms(ROUNDED) {
        for f3 in form.f3 {
            // Only the dynamic mode looks at frm, but for whether the host has it.
            let frm: &[u32] = match (form.f3 == ROUNDED, f3) {
                (true, 7) => &[0, 1, 2, 3, 4],
                (true, _) => &[0, 2],
                (false, _) => &[0],
            };
            let values = match form.from {
                Integer => hard_integers(),
                kind if form.operands == 3 => few_floats(kind),
                kind => hard_floats(kind),
            };
            for frm in frm {
                cases += all_cases(&form, &values, *f3, *frm);
            }
        }
    }
    assert!(cases > 1_000_000, "only {cases} cases");
}

/// `FLOAT_SEEDS=100 cargo test --release -p twinvm-jit --test engine random_operands`
/// does more.
#[test]
fn random_operands() {
    let seeds = std::env::var("FLOAT_SEEDS").map_or(1, |n| n.parse().expect("a number"));
    for seed in 0..seeds {
        let mut rng = Rng::new(seed);
        for form in forms(ROUNDED) {
            for frm in 0..4 {
                let values = random(&form, &mut rng);
                all_cases(&form, &values, *form.f3.last().expect("one"), frm);
            }
        }
    }
}

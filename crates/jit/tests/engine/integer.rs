//! RV64IM arithmetic against references in wide integers.

use crate::asm::*;
use crate::world::*;

pub(crate) const EDGES: [u64; 14] = [
    0,
    1,
    2,
    31,
    63,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
    -2i64 as u64,
    0xdead_beef_cafe_f00d,
];

pub(crate) fn word(v: u64) -> u64 {
    v as i32 as i64 as u64
}

fn high(a: i128, b: i128) -> u64 {
    // |a|, |b| <= 2^64: the product of the two may need 129 bits, so go by halves.
    let (a_low, a_high) = (a & 0xffff_ffff, a >> 32);
    let low = a_low * b;
    let carry = (low >> 32) + a_high * b;
    (carry >> 32) as u64
}

fn divide(a: i128, b: i128, bits: u32) -> (u64, u64) {
    if b == 0 {
        return (u64::MAX, a as u64);
    }
    if a == -(1 << (bits - 1)) && b == -1 {
        return (a as u64, 0);
    }
    ((a / b) as u64, (a % b) as u64)
}

pub(crate) type Binary = (u32, u32, u32, fn(u64, u64) -> u64);

/// funct7, funct3, opcode, meaning.
const BINARY: [Binary; 28] = [
    (0, 0, 0x33, |a, b| a.wrapping_add(b)),
    (0x20, 0, 0x33, |a, b| a.wrapping_sub(b)),
    (0, 1, 0x33, |a, b| a.wrapping_shl(b as u32 & 63)),
    (0, 2, 0x33, |a, b| ((a as i64) < b as i64).into()),
    (0, 3, 0x33, |a, b| (a < b).into()),
    (0, 4, 0x33, |a, b| a ^ b),
    (0, 5, 0x33, |a, b| a.wrapping_shr(b as u32 & 63)),
    (0x20, 5, 0x33, |a, b| {
        (i128::from(a as i64) >> (b & 63)) as u64
    }),
    (0, 6, 0x33, |a, b| a | b),
    (0, 7, 0x33, |a, b| a & b),
    (0, 0, 0x3b, |a, b| word(a.wrapping_add(b))),
    (0x20, 0, 0x3b, |a, b| word(a.wrapping_sub(b))),
    (0, 1, 0x3b, |a, b| word(a << (b & 31))),
    (0, 5, 0x3b, |a, b| word((a & 0xffff_ffff) >> (b & 31))),
    (0x20, 5, 0x3b, |a, b| {
        (i64::from(a as i32) >> (b & 31)) as u64
    }),
    (1, 0, 0x33, |a, b| {
        (u128::from(a).wrapping_mul(u128::from(b))) as u64
    }),
    (1, 1, 0x33, |a, b| {
        high((a as i64).into(), (b as i64).into())
    }),
    (1, 2, 0x33, |a, b| high((a as i64).into(), b.into())),
    (1, 3, 0x33, |a, b| high(a.into(), b.into())),
    (1, 4, 0x33, |a, b| {
        divide((a as i64).into(), (b as i64).into(), 64).0
    }),
    (1, 5, 0x33, |a, b| divide(a.into(), b.into(), 64).0),
    (1, 6, 0x33, |a, b| {
        divide((a as i64).into(), (b as i64).into(), 64).1
    }),
    (1, 7, 0x33, |a, b| divide(a.into(), b.into(), 64).1),
    (1, 0, 0x3b, |a, b| word(a.wrapping_mul(b))),
    (1, 4, 0x3b, |a, b| {
        word(divide((a as i32).into(), (b as i32).into(), 32).0)
    }),
    (1, 5, 0x3b, |a, b| {
        word(divide((a as u32).into(), (b as u32).into(), 32).0)
    }),
    (1, 6, 0x3b, |a, b| {
        word(divide((a as i32).into(), (b as i32).into(), 32).1)
    }),
    (1, 7, 0x3b, |a, b| {
        word(divide((a as u32).into(), (b as u32).into(), 32).1)
    }),
];

#[test]
fn register_operations_on_edge_values() {
    on_edge_values(&BINARY);
}

/// Runs each instruction on all pairs of [`EDGES`], also with rd = rs1 and rd = x0.
pub(crate) fn on_edge_values(table: &[Binary]) {
    for (f7, f3, opcode, meaning) in table.iter().copied() {
        let mut want = Vec::new();
        let mut world = World::new(|a| {
            // x3 walks the operands, x4 the results.
            for x in EDGES {
                for y in EDGES {
                    want.push((x, y, meaning(x, y)));
                }
            }
            let start = a.here();
            a.ops(&[
                ld(1, 3, 0),
                ld(2, 3, 8),
                r(f7, 2, 1, f3, 5, opcode),
                r(f7, 2, 1, f3, 0, opcode),
                sd(5, 4, 0),
                r(f7, 2, 1, f3, 1, opcode),
                sd(1, 4, 8),
                addi(3, 3, 16),
                addi(4, 4, 16),
            ]);
            let back = start.wrapping_sub(a.here()) as i64 as i32;
            a.op(branch(1, 3, 6, back));
        });
        let results = DATA + 0x4000;
        for (n, (x, y, _)) in want.iter().enumerate() {
            world.word(DATA + 16 * n as u64, *x);
            world.word(DATA + 16 * n as u64 + 8, *y);
        }
        world.set_x(3, DATA).set_x(4, results);
        world.set_x(6, DATA + 16 * want.len() as u64);
        world.check(10 * want.len() as u64 + 2, |after| {
            for (n, (x, y, value)) in want.iter().enumerate() {
                let at = results + 16 * n as u64;
                let name = format!("op {opcode:#x} {f3} {f7:#x} of {x:#x} {y:#x}");
                assert_eq!(after.word(at), *value, "{name}");
                assert_eq!(after.word(at + 8), *value, "{name}, rd = rs1");
            }
        });
    }
}

#[test]
fn immediate_operations() {
    let table: [Unary; 22] = [
        (addi(5, 1, -2048), |a| a.wrapping_sub(2048)),
        (addi(5, 1, 2047), |a| a.wrapping_add(2047)),
        (i(-1, 1, 2, 5, 0x13), |a| ((a as i64) < -1).into()),
        (i(-1, 1, 3, 5, 0x13), |a| (a < u64::MAX).into()),
        (i(1, 1, 3, 5, 0x13), |a| (a == 0).into()),
        (i(-1, 1, 4, 5, 0x13), |a| !a),
        (i(0x555, 1, 6, 5, 0x13), |a| a | 0x555),
        (i(-16, 1, 7, 5, 0x13), |a| a & !15),
        (i(0, 1, 1, 5, 0x13), |a| a),
        (i(63, 1, 1, 5, 0x13), |a| a << 63),
        (i(63, 1, 5, 5, 0x13), |a| a >> 63),
        (i(32, 1, 5, 5, 0x13), |a| a >> 32),
        (i(0x400 | 63, 1, 5, 5, 0x13), |a| ((a as i64) >> 63) as u64),
        (addiw(5, 1, -1), |a| word(a.wrapping_sub(1))),
        (addiw(5, 1, 0), word),
        (i(31, 1, 1, 5, 0x1b), |a| word(a << 31)),
        (i(31, 1, 5, 5, 0x1b), |a| word((a & 0xffff_ffff) >> 31)),
        (i(0, 1, 5, 5, 0x1b), word),
        (i(0x400 | 31, 1, 5, 5, 0x1b), |a| {
            ((a as i32) >> 31) as i64 as u64
        }),
        (lui(5, 0x80000), |_| 0xffff_ffff_8000_0000),
        (lui(5, 0x7ffff), |_| 0x7fff_f000),
        (auipc(5, 0xfffff), |_| CODE + 4 - 0x1000),
    ];
    on_edges(&table);
}

/// An instruction from x1 to x5, and its meaning.
pub(crate) type Unary = (u32, fn(u64) -> u64);

pub(crate) fn on_edges(table: &[Unary]) {
    for (op, meaning) in table.iter().copied() {
        for x in EDGES {
            let mut world = World::new(|a| {
                a.ops(&[NOP, op]);
            });
            world.set_x(1, x);
            world.check(4, |after| {
                assert_eq!(after.x(5), meaning(x), "{op:#010x} of {x:#x}");
            });
        }
    }
}

#[test]
fn reserved_encodings_are_illegal() {
    all_illegal(&[
        i(0x800, 1, 1, 5, 0x13),
        i(0x200, 1, 5, 5, 0x13),
        i(32, 1, 1, 5, 0x1b),
        i(32, 1, 5, 5, 0x1b),
        i(0, 1, 2, 5, 0x1b),
        r(2, 2, 1, 0, 5, 0x33),
        r(0x20, 2, 1, 1, 5, 0x33),
        r(1, 2, 1, 1, 5, 0x3b),
        load(7, 5, 1, 0),
        store(4, 5, 1, 0),
        branch(2, 1, 2, 8),
        i(0, 1, 1, 1, 0x67),
        amo(2, false, 5, 1, 1),
        amo(5, false, 5, 1, 2),
        r(0, 2, 1, 1, 5, 0x2f),
        i(0, 1, 4, 5, 0x73),
        0x0020_0073,
        0x1020_00f3,
        0x0000_505b,
        0x0000_007f,
        ILLEGAL,
    ]);
}

/// Each of the words traps as an illegal instruction and does nothing else.
pub(crate) fn all_illegal(words: &[u32]) {
    for op in words.iter().copied() {
        let mut world = World::new(|a| {
            a.ops(&[addi(5, 0, 7), op]);
        });
        world.set_x(1, DATA);
        world.check(4, |after| {
            assert_eq!(after.csr("mcause"), 2, "{op:#010x}");
            assert_eq!(after.csr("mtval"), u64::from(op));
            assert_eq!(after.csr("mepc"), CODE + 4);
            assert_eq!(after.x(5), 7);
            assert_eq!(after.hart.traps, 1);
        });
    }
}

//! Zba, Zbb, Zbs and Zicond against bit-by-bit references.

use crate::asm::*;
use crate::integer::{Binary, Unary, all_illegal, on_edge_values, on_edges, word};

fn low(v: u64) -> u64 {
    v & 0xffff_ffff
}

fn bit(v: u64, n: u64) -> u64 {
    v >> (n & 63) & 1
}

/// Bit `n` of the result is bit `from(n)` of `v`.
fn permute(v: u64, width: u64, from: impl Fn(u64) -> u64) -> u64 {
    (0..width).fold(0, |out, n| out | bit(v, from(n) % width) << n)
}

fn rotate_left(v: u64, by: u64, width: u64) -> u64 {
    permute(v, width, |n| n + width - by % width)
}

fn rotate_right(v: u64, by: u64, width: u64) -> u64 {
    permute(v, width, |n| n + by % width)
}

/// Zeros above the highest set bit of `width`, or below the lowest.
fn zeros(v: u64, width: u64, leading: bool) -> u64 {
    let at = |n: u64| if leading { width - 1 - n } else { n };
    (0..width).take_while(|n| bit(v, at(*n)) == 0).count() as u64
}

fn ones(v: u64, width: u64) -> u64 {
    (0..width).map(|n| bit(v, n)).sum()
}

#[test]
fn register_operations() {
    let table: [Binary; 28] = [
        (0x10, 2, 0x33, |a, b| a.wrapping_mul(2).wrapping_add(b)),
        (0x10, 4, 0x33, |a, b| a.wrapping_mul(4).wrapping_add(b)),
        (0x10, 6, 0x33, |a, b| a.wrapping_mul(8).wrapping_add(b)),
        (0x04, 0, 0x3b, |a, b| low(a).wrapping_add(b)),
        (0x10, 2, 0x3b, |a, b| (low(a) * 2).wrapping_add(b)),
        (0x10, 4, 0x3b, |a, b| (low(a) * 4).wrapping_add(b)),
        (0x10, 6, 0x3b, |a, b| (low(a) * 8).wrapping_add(b)),
        (0x20, 7, 0x33, |a, b| a & (b ^ u64::MAX)),
        (0x20, 6, 0x33, |a, b| a | (b ^ u64::MAX)),
        (0x20, 4, 0x33, |a, b| a ^ (b ^ u64::MAX)),
        (
            0x05,
            4,
            0x33,
            |a, b| {
                if (a as i64) < b as i64 { a } else { b }
            },
        ),
        (0x05, 5, 0x33, |a, b| if a < b { a } else { b }),
        (
            0x05,
            6,
            0x33,
            |a, b| {
                if (a as i64) < b as i64 { b } else { a }
            },
        ),
        (0x05, 7, 0x33, |a, b| if a < b { b } else { a }),
        (0x30, 1, 0x33, |a, b| rotate_left(a, b & 63, 64)),
        (0x30, 5, 0x33, |a, b| rotate_right(a, b & 63, 64)),
        (0x30, 1, 0x3b, |a, b| word(rotate_left(a, b & 31, 32))),
        (0x30, 5, 0x3b, |a, b| word(rotate_right(a, b & 31, 32))),
        (0x24, 1, 0x33, |a, b| a - (bit(a, b) << (b & 63))),
        (0x24, 5, 0x33, bit),
        (0x34, 1, 0x33, |a, b| {
            a.wrapping_add(1 << (b & 63)) & 1 << (b & 63) | a & !(1 << (b & 63))
        }),
        (0x14, 1, 0x33, |a, b| a + ((1 - bit(a, b)) << (b & 63))),
        (0x07, 5, 0x33, |a, b| a * u64::from(b != 0)),
        (0x07, 7, 0x33, |a, b| a * u64::from(b == 0)),
        // Their neighbours, which must stay what they are.
        (0, 4, 0x33, |a, b| a ^ b),
        (0, 6, 0x33, |a, b| a | b),
        (0, 7, 0x33, |a, b| a & b),
        (0x20, 0, 0x33, |a, b| a.wrapping_sub(b)),
    ];
    on_edge_values(&table);
}

#[test]
fn immediate_operations() {
    let table: [Unary; 29] = [
        (i(0x080 | 33, 1, 1, 5, 0x1b), |a| low(a) << 33),
        (i(0x080 | 63, 1, 1, 5, 0x1b), |a| low(a) << 63),
        (i(0x080, 1, 1, 5, 0x1b), low),
        (i(0x600, 1, 1, 5, 0x13), |a| zeros(a, 64, true)),
        (i(0x601, 1, 1, 5, 0x13), |a| zeros(a, 64, false)),
        (i(0x602, 1, 1, 5, 0x13), |a| ones(a, 64)),
        (i(0x600, 1, 1, 5, 0x1b), |a| zeros(a, 32, true)),
        (i(0x601, 1, 1, 5, 0x1b), |a| zeros(a, 32, false)),
        (i(0x602, 1, 1, 5, 0x1b), |a| ones(a, 32)),
        (i(0x604, 1, 1, 5, 0x13), |a| {
            (a & 0x7f).wrapping_sub(a & 0x80)
        }),
        (i(0x605, 1, 1, 5, 0x13), |a| {
            (a & 0x7fff).wrapping_sub(a & 0x8000)
        }),
        (r(4, 0, 1, 4, 5, 0x3b), |a| a % 0x1_0000),
        (i(0x600 | 1, 1, 5, 5, 0x13), |a| rotate_right(a, 1, 64)),
        (i(0x600 | 63, 1, 5, 5, 0x13), |a| rotate_right(a, 63, 64)),
        (i(0x600, 1, 5, 5, 0x13), |a| a),
        (i(0x600 | 1, 1, 5, 5, 0x1b), |a| {
            word(rotate_right(a, 1, 32))
        }),
        (i(0x600 | 31, 1, 5, 5, 0x1b), |a| {
            word(rotate_right(a, 31, 32))
        }),
        (i(0x600, 1, 5, 5, 0x1b), word),
        (i(0x287, 1, 5, 5, 0x13), |a| {
            permute(
                a.to_le_bytes()
                    .map(|b| u64::from(b != 0))
                    .iter()
                    .rev()
                    .fold(0, |v, b| v << 8 | b),
                64,
                |n| n & !7,
            )
        }),
        (i(0x6b8, 1, 5, 5, 0x13), |a| {
            permute(a, 64, |n| 56 - (n & !7) + (n & 7))
        }),
        (i(0x480, 1, 1, 5, 0x13), |a| a & !1),
        (i(0x480 | 63, 1, 1, 5, 0x13), |a| a % (1 << 63)),
        (i(0x480, 1, 5, 5, 0x13), |a| a % 2),
        (i(0x480 | 63, 1, 5, 5, 0x13), |a| {
            u64::from(a as i64 >= 0) ^ 1
        }),
        (i(0x680, 1, 1, 5, 0x13), |a| a ^ 1),
        (i(0x680 | 63, 1, 1, 5, 0x13), |a| a.wrapping_add(1 << 63)),
        (i(0x280, 1, 1, 5, 0x13), |a| a | 1),
        (i(0x280 | 63, 1, 1, 5, 0x13), |a| a % (1 << 63) + (1 << 63)),
        (i(0x280 | 32, 1, 1, 5, 0x13), |a| a | 0x1_0000_0000),
    ];
    on_edges(&table);
}

#[test]
fn reserved_encodings() {
    all_illegal(&[
        // Unary forms that don't exist.
        i(0x603, 1, 1, 5, 0x13),
        i(0x606, 1, 1, 5, 0x13),
        i(0x620, 1, 1, 5, 0x13),
        i(0x603, 1, 1, 5, 0x1b),
        i(0x604, 1, 1, 5, 0x1b),
        i(0x286, 1, 5, 5, 0x13),
        i(0x280, 1, 5, 5, 0x13),
        // rev8 as RV32 has it, brev8.
        i(0x698, 1, 5, 5, 0x13),
        i(0x687, 1, 5, 5, 0x13),
        i(0x6b9, 1, 5, 5, 0x13),
        i(0x620, 1, 5, 5, 0x1b),
        i(0x280, 1, 1, 5, 0x1b),
        i(0x480, 1, 1, 5, 0x1b),
        // pack, packh, packw; zext.h as RV32 has it.
        r(4, 2, 1, 4, 5, 0x33),
        r(4, 2, 1, 7, 5, 0x33),
        r(4, 0, 1, 4, 5, 0x33),
        r(4, 2, 1, 4, 5, 0x3b),
        // clmul, clmulr, clmulh.
        r(5, 2, 1, 1, 5, 0x33),
        r(5, 2, 1, 2, 5, 0x33),
        r(5, 2, 1, 3, 5, 0x33),
        // xperm, gorc, grev, shfl.
        r(0x14, 2, 1, 2, 5, 0x33),
        r(0x14, 2, 1, 5, 5, 0x33),
        r(0x34, 2, 1, 5, 5, 0x33),
        r(0x10, 2, 1, 1, 5, 0x33),
        r(0x10, 2, 1, 0, 5, 0x33),
        r(0x10, 2, 1, 1, 5, 0x3b),
        r(0x20, 2, 1, 7, 5, 0x3b),
        r(0x24, 2, 1, 1, 5, 0x3b),
        r(7, 2, 1, 4, 5, 0x33),
        r(7, 2, 1, 6, 5, 0x33),
        r(7, 2, 1, 5, 5, 0x3b),
        // Cache-block operations that don't exist, or with rd.
        cbo(3, 1),
        cbo(5, 1),
        cbo(-1, 1),
        cbo(4, 1) | 1 << 7,
        cbo(0, 1) | 5 << 7,
        i(4, 1, 3, 0, 0x0f),
    ]);
}

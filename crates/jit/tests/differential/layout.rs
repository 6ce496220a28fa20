//! Where a program's parts lie in RAM, and under which virtual addresses.

use crate::rng::Rng;
use twinvm_mem::RAM_BASE;

pub(crate) const RAM_BYTES: u64 = 1 << 20;
/// Where both machines start: M-mode code that sets each scene and ends all.
pub(crate) const DRIVER: u64 = RAM_BASE;
pub(crate) const DRIVER_END: u64 = RAM_BASE + 0x2_0000;
pub(crate) const M_HANDLER: u64 = RAM_BASE + 0x2_0000;
pub(crate) const S_HANDLER: u64 = RAM_BASE + 0x2_1000;
/// Where the handlers read the cause.
pub(crate) const M_CAUSE: u64 = M_HANDLER + 0x50;
pub(crate) const S_CAUSE: u64 = S_HANDLER + 0x50;
/// The scenes' own code.
pub(crate) const SEGMENTS: u64 = RAM_BASE + 0x3_0000;
pub(crate) const SEGMENTS_END: u64 = RAM_BASE + 0x6_0000;
/// What loads and stores reach: 64 KiB, so that a NAPOT entry can map it.
pub(crate) const DATA: u64 = RAM_BASE + 0x6_0000;
pub(crate) const DATA_END: u64 = RAM_BASE + 0x7_0000;
pub(crate) const TABLES: u64 = RAM_BASE + 0x7_0000;
pub(crate) const TABLES_END: u64 = RAM_BASE + 0x8_0000;
/// Operands for the registers: 512 integers, then 512 floating-point numbers.
pub(crate) const OPERANDS: u64 = RAM_BASE + 0x8_0000;

/// Roots: Sv48, and two of Sv39 (the first of which Sv48 has as its next level).
pub(crate) const ROOT48: u64 = TABLES;
pub(crate) const ROOT39: u64 = TABLES + 0x1000;
pub(crate) const ROOT39_B: u64 = TABLES + 0x2000;
pub(crate) const MID: u64 = TABLES + 0x3000;
pub(crate) const MID_B: u64 = TABLES + 0x4000;
pub(crate) const LEAF: u64 = TABLES + 0x5000;
pub(crate) const LEAF_B: u64 = TABLES + 0x6000;

/// The window whose pages have random entries: 16 of data, 16 of data as one
/// NAPOT region or none, then the segments, then superpages.
pub(crate) const WINDOW: u64 = 0x4000_0000;
pub(crate) const WINDOW_NAPOT: u64 = WINDOW + (16 << 12);
pub(crate) const WINDOW_CODE: u64 = WINDOW + (32 << 12);
/// RAM once more, for U-mode.
pub(crate) const USER: u64 = 0xc000_0000;
/// RAM once more, for S-mode, at the top of the address space.
pub(crate) const HIGH: u64 = 0xffff_ffff_c000_0000;
/// RAM once more under Sv48 only, in one terapage.
pub(crate) const TERA: u64 = 1 << 39 | RAM_BASE;

pub(crate) const SV39: u64 = 8 << 60;
pub(crate) const SV48: u64 = 9 << 60;

/// Bits of page-table entries.
pub(crate) mod pte {
    pub(crate) const V: u64 = 1;
    pub(crate) const R: u64 = 2;
    pub(crate) const W: u64 = 4;
    pub(crate) const X: u64 = 8;
    pub(crate) const U: u64 = 16;
    pub(crate) const A: u64 = 64;
    pub(crate) const D: u64 = 128;
    pub(crate) const N: u64 = 1 << 63;
}

pub(crate) fn entry(pa: u64, flags: u64) -> u64 {
    pa >> 12 << 10 | flags
}

pub(crate) fn put(ram: &mut [u8], at: u64, bytes: &[u8]) {
    let at = (at - RAM_BASE) as usize;
    ram[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_word(ram: &mut [u8], at: u64, value: u64) {
    put(ram, at, &value.to_le_bytes());
}

/// Random permissions, most of them useful.
pub(crate) fn flags(rng: &mut Rng) -> u64 {
    use pte::*;
    match rng.below(6) {
        0 => rng.below(256),
        1 => rng.below(1024) | V,
        _ => {
            let rights = rng.pick(&[R | W, R | W | X, R, R | X, X]);
            V | rights | rng.pick(&[0, U]) | rng.pick(&[0, A, A | D, A | D])
        }
    }
}

/// A random entry for a leaf table's data pages.
pub(crate) fn data_entry(rng: &mut Rng) -> u64 {
    let page = DATA + (rng.below(16) << 12);
    let flags = flags(rng);
    match rng.below(16) {
        // Reserved bits, and the N bit where it means nothing.
        0 => entry(page, flags) | 1 << rng.below(64),
        1 => entry(page, flags) | pte::N,
        2 => rng.next(),
        _ => entry(page, flags),
    }
}

/// The page tables; every program has the same shape and its own entries.
pub(crate) fn tables(ram: &mut [u8], rng: &mut Rng) {
    use pte::*;
    const ALL: u64 = V | R | W | X | A | D;
    for (root, mid, leaf) in [(ROOT39, MID, LEAF), (ROOT39_B, MID_B, LEAF_B)] {
        put_word(ram, root + 8, entry(mid, V));
        put_word(ram, root + 8 * 2, entry(RAM_BASE, ALL));
        put_word(ram, root + 8 * 3, entry(RAM_BASE, ALL | U));
        // Not as a leaf, reserved, or a superpage that isn't aligned.
        put_word(ram, root + 8 * 4, entry(RAM_BASE + 0x1000, ALL));
        put_word(ram, root + 8 * 5, rng.next());
        put_word(
            ram,
            root + 8 * 511,
            entry(RAM_BASE, ALL | rng.pick(&[0, 32])),
        );
        put_word(ram, mid, entry(leaf, V | rng.pick(&[0, 0, 0, 32])));
        for n in 1..8 {
            let odd = if rng.chance(4) { 0x1000 } else { 0 };
            // Never a pointer: code is no table.
            let flags = flags(rng);
            let leaf = if flags & (R | W | X) == 0 { R } else { 0 };
            put_word(ram, mid + 8 * n, entry(RAM_BASE + odd, flags | leaf));
        }
        // Pointers that are not: reserved bits, U, A or D in a non-leaf; a table
        // outside RAM.
        for n in 8..12 {
            let bits = rng.pick(&[U, A, D, 1 << 8, 1 << 54, 1 << 61, N]);
            put_word(ram, mid + 8 * n, entry(leaf, V) | bits);
        }
        put_word(ram, mid + 8 * 12, entry(RAM_BASE + RAM_BYTES, V));
        for n in 0..16 {
            put_word(ram, leaf + 8 * n, data_entry(rng));
        }
        let napot = !rng.chance(4);
        let (low, common) = (rng.pick(&[8, 8, 8, 0, 4, 12]), flags(rng) | V | R | A | D);
        for n in 16..32 {
            let value = if napot {
                entry(DATA, common) | low << 10 | N
            } else {
                data_entry(rng)
            };
            put_word(ram, leaf + 8 * n, value);
        }
        for n in 0..(SEGMENTS_END - SEGMENTS) >> 12 {
            let rights = rng.pick(&[R | X, X, R | W | X, R | X, R | W | X]);
            let user = rng.pick(&[0, U]);
            let bits = V | rights | user | rng.pick(&[0, A, A | D]);
            let page = SEGMENTS + (n << 12);
            put_word(ram, leaf + 8 * (32 + n), entry(page, bits));
        }
    }
    put_word(ram, ROOT48, entry(ROOT39, V));
    put_word(ram, ROOT48 + 8, entry(0, ALL | rng.pick(&[0, U])));
    put_word(ram, ROOT48 + 16, entry(1 << 30, ALL));
    put_word(ram, ROOT48 + 8 * 511, entry(ROOT39, V));
}

/// An integer with a bias to limits and to values near powers of two.
pub(crate) fn integer(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => rng.next(),
        1 => rng.next() as i32 as u64,
        2 => rng.below(128).wrapping_sub(64),
        3 => (1u64 << rng.below(64))
            .wrapping_add(rng.below(3))
            .wrapping_sub(1),
        4 => rng.pick(&[0, u64::MAX, 1 << 63, i64::MAX as u64, 1 << 31, 0x7fff_ffff]),
        _ => rng.next() >> rng.below(64),
    }
}

/// The bits of a floating-point number, or of a NaN box, or of none.
pub(crate) fn float(rng: &mut Rng) -> u64 {
    let fraction = |rng: &mut Rng, bits: u32| {
        let all = (1u64 << bits) - 1;
        match rng.below(5) {
            0 => rng.next() & all,
            1 => rng.pick(&[0, 0, 1, all, all - 1]),
            2 => 1 << (bits - 1) | rng.below(2),
            3 => (all << rng.below(u64::from(bits))) & all,
            _ => 1 << rng.below(u64::from(bits)),
        }
    };
    let exponent = |rng: &mut Rng, bits: u32| {
        let top = (1u64 << bits) - 1;
        match rng.below(6) {
            0 => rng.below(3),
            1 => top - rng.below(3),
            2 => rng.below(top + 1),
            _ => top / 2 + rng.below(100) - 50,
        }
    };
    let sign = rng.below(2);
    match rng.below(20) {
        0..10 => sign << 63 | exponent(rng, 11) << 52 | fraction(rng, 52),
        10..19 => !0 << 32 | sign << 31 | exponent(rng, 8) << 23 | fraction(rng, 23),
        // A box that isn't one.
        _ => rng.next() << 32 | sign << 31 | exponent(rng, 8) << 23 | fraction(rng, 23),
    }
}

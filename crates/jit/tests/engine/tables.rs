//! Sv39 tables for tests.

use crate::world::*;
use twinvm_cpu::Mode;
use twinvm_mem::RAM_BASE;

pub(crate) const V: u64 = 1;
pub(crate) const R: u64 = 2;
pub(crate) const W: u64 = 4;
pub(crate) const X: u64 = 8;
pub(crate) const U: u64 = 16;
pub(crate) const A: u64 = 64;
pub(crate) const D: u64 = 128;
/// A readable, writable supervisor page in use.
pub(crate) const DATA_PAGE: u64 = V | R | W | A | D;
/// An executable supervisor page in use.
pub(crate) const CODE_PAGE: u64 = V | R | X | A;

pub(crate) const ROOT: u64 = RAM_BASE + 0x4_0000;
pub(crate) const MID: u64 = RAM_BASE + 0x4_1000;
pub(crate) const LEAF: u64 = RAM_BASE + 0x4_2000;
/// A second table of the lowest level, in no use at first.
pub(crate) const LEAF2: u64 = RAM_BASE + 0x4_3000;
/// Where `LEAF` maps.
pub(crate) const VIRTUAL: u64 = 0x4000_0000;

pub(crate) fn pte(pa: u64, flags: u64) -> u64 {
    pa >> 12 << 10 | flags
}

pub(crate) fn satp(root: u64) -> u64 {
    8 << 60 | root >> 12
}

/// Physical address of data page `n`, which starts with the word 0x100 + n.
pub(crate) fn data_page(n: u64) -> u64 {
    DATA + (n << 12)
}

/// Virtual address that entry `n` of [`LEAF`] maps.
pub(crate) fn page(n: u64) -> u64 {
    VIRTUAL + (n << 12)
}

/// Address of entry `n` of a table.
pub(crate) fn slot(table: u64, n: u64) -> u64 {
    table + 8 * n
}

impl World {
    /// Turns paging on: RAM mapped to itself for S by one entry of the root,
    /// three levels of tables at [`VIRTUAL`].
    pub(crate) fn paged(&mut self, mode: Mode) -> &mut Self {
        self.mode(mode).set_csr("satp", satp(ROOT));
        self.word(slot(ROOT, 2), pte(RAM_BASE, DATA_PAGE | X));
        self.word(slot(ROOT, 1), pte(MID, V));
        self.word(slot(MID, 0), pte(LEAF, V));
        for n in 0..8 {
            self.word(data_page(n), 0x100 + n);
        }
        self
    }

    /// Entry `n` of [`LEAF`].
    pub(crate) fn map(&mut self, n: u64, pa: u64, flags: u64) -> &mut Self {
        self.word(slot(LEAF, n), pte(pa, flags))
    }
}

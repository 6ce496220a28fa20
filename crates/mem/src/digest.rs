//! The content hash of RAM: a sum over pages, free of order.

use crate::memory::is_zero;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// `Σ H(page number, content) mod 2^128` over the pages that are not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDigest(pub u128);

/// Current hash of each page and their sum.
pub(crate) struct PageHashes {
    pages: Vec<u128>,
    sum: u128,
}

impl PageHashes {
    /// All pages zero: every term is 0.
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![0; pages],
            sum: 0,
        }
    }

    pub(crate) fn update(&mut self, page: usize, bytes: &[u8]) {
        let hash = page_hash(page as u64, bytes);
        self.sum = self.sum.wrapping_sub(self.pages[page]).wrapping_add(hash);
        self.pages[page] = hash;
    }

    /// Whether the page's last hash says that it is all zero.
    pub(crate) fn is_zero(&self, page: usize) -> bool {
        self.pages[page] == 0
    }

    pub(crate) fn sum(&self) -> MemoryDigest {
        MemoryDigest(self.sum)
    }
}

/// The term of one page. A zero page contributes nothing, so RAM that was never
/// touched needs no hashing.
fn page_hash(page: u64, bytes: &[u8]) -> u128 {
    if is_zero(bytes) {
        0
    } else {
        xxh3_128_with_seed(bytes, page)
    }
}

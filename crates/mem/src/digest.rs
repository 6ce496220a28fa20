//! The content hash of RAM: a sum over pages, free of order.

use crate::memory::is_zero;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Flags of changed pages that are looked at together.
const FLAGS: usize = 64;

/// `Σ H(page number, content) mod 2^128` over the pages that are not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDigest(pub u128);

/// Current hash of each page and their sum.
pub(crate) struct PageHashes {
    pages: Vec<u128>,
    sum: u128,
    /// Pages whose hash has changed since they were last asked for, if anybody asks.
    changed: Option<Vec<bool>>,
    /// Those that were hashed again and are the same are noted, too.
    note_same: bool,
}

impl PageHashes {
    /// All pages zero: every term is 0.
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![0; pages],
            sum: 0,
            changed: None,
            note_same: false,
        }
    }

    /// All pages are zero now.
    pub(crate) fn clear(&mut self) {
        if let Some(changed) = &mut self.changed {
            for (changed, hash) in changed.iter_mut().zip(&self.pages) {
                *changed |= *hash != 0;
            }
        }
        // New zeroes: memory that nobody uses is given back.
        self.pages = vec![0; self.pages.len()];
        self.sum = 0;
    }

    pub(crate) fn update(&mut self, page: usize, bytes: &[u8]) {
        let hash = page_hash(page as u64, bytes);
        let before = self.pages[page];
        if let (true, Some(changed)) = (hash != before || self.note_same, &mut self.changed) {
            changed[page] = true;
        }
        self.sum = self.sum.wrapping_sub(before).wrapping_add(hash);
        self.pages[page] = hash;
    }

    /// From now on notes which hashes change, or, with `same`, all that are computed.
    pub(crate) fn note_changes(&mut self, same: bool) {
        self.note_same = same;
        self.changed
            .get_or_insert_with(|| vec![false; self.pages.len()]);
    }

    /// The pages noted since the last call, in order, and their hashes.
    pub(crate) fn take_changes(&mut self) -> Vec<(u32, u128)> {
        let Some(changed) = &mut self.changed else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for (n, flags) in changed.chunks_mut(FLAGS).enumerate() {
            // Mostly there are none, and that is quickly seen.
            if !flags.iter().fold(false, |any, changed| any | changed) {
                continue;
            }
            for (page, changed) in (n * FLAGS..).zip(flags) {
                if std::mem::take(changed) {
                    taken.push((page as u32, self.pages[page]));
                }
            }
        }
        taken
    }

    /// The page's last hash; 0 for a zero page.
    pub(crate) fn get(&self, page: usize) -> Option<u128> {
        self.pages.get(page).copied()
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
pub(crate) fn page_hash(page: u64, bytes: &[u8]) -> u128 {
    if is_zero(bytes) {
        0
    } else {
        xxh3_128_with_seed(bytes, page)
    }
}

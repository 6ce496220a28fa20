//! Blocks by the physical address where they start, and their translations.
//!
//! One table for all address spaces: what is known of code outlives the translations of fetches
//! that led there. The layout is fixed: a [`crate::tier::Tier`] reads it with machine code.

use crate::block::Block;
use std::cell::Cell;

/// Blocks that are known at once: 2^n of them.
pub(crate) const CODES: usize = 1 << 16;
/// Entries that are cleared together.
const CHUNK: usize = 64;
/// Equals no place: those are even.
const NOWHERE: u64 = 1;
/// An entry that is found by its place is at `(place ^ place >> FOLD) >> 1`, modulo [`CODES`].
pub(crate) const FOLD: u8 = 11;

/// A block, where it is and where its translation starts.
#[derive(Clone)]
#[repr(C, align(32))]
pub(crate) struct Entry {
    /// Where the block starts, from the start of RAM.
    pub(crate) place: u64,
    /// If it has no translation, the tier's cold entry.
    pub(crate) code: u64,
    block: Block,
    /// How often the block was entered, up to 254.
    heat: Cell<u8>,
}

impl Entry {
    const fn none() -> Self {
        Self {
            place: NOWHERE,
            code: 0,
            block: Block {
                start: 0,
                len: 0,
                id: 0,
            },
            heat: Cell::new(0),
        }
    }
}

/// See the module's documentation.
pub(crate) struct Codes {
    entries: Vec<Entry>,
    /// A bit for each [`CHUNK`] entries: some of them may not be empty. Clearing the whole table
    /// takes as long as many thousand instructions.
    used: [u64; CODES / CHUNK / 64],
}

#[inline(always)]
fn index(place: u64) -> usize {
    ((place ^ (place >> FOLD)) >> 1) as usize & (CODES - 1)
}

impl Codes {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![Entry::none(); CODES],
            used: [0; _],
        }
    }

    /// The block at a place, if it is known, and its heat.
    #[inline(always)]
    pub(crate) fn get(&self, place: u64) -> Option<(Block, &Cell<u8>)> {
        let entry = &self.entries[index(place)];
        (entry.place == place).then_some((entry.block, &entry.heat))
    }

    /// Remembers a block, and where to go for its translation. Gives back the block that had
    /// to go for it, with its heat.
    #[must_use]
    pub(crate) fn set(
        &mut self,
        place: u64,
        block: Block,
        code: u64,
        heat: u8,
    ) -> Option<(Block, u8)> {
        let index = index(place);
        self.used[index / CHUNK / 64] |= 1 << (index / CHUNK % 64);
        let entry = &mut self.entries[index];
        let gone = (entry.place != NOWHERE).then(|| (entry.block, entry.heat.get()));
        *entry = Entry {
            place,
            code,
            block,
            heat: Cell::new(heat),
        };
        gone
    }

    /// Forgets the block at a place.
    pub(crate) fn remove(&mut self, place: u64) {
        let entry = &mut self.entries[index(place)];
        if entry.place == place {
            *entry = Entry::none();
        }
    }

    /// Forgets all blocks that go to `cold`; of the others, what they were decoded to.
    pub(crate) fn forget_decoded(&mut self, cold: u64) {
        for entry in &mut self.entries {
            if entry.code == cold {
                *entry = Entry::none();
            }
            entry.block = entry.block.without_ops();
        }
    }

    /// Forgets all blocks.
    pub(crate) fn clear(&mut self) {
        for (chunk, entries) in self.entries.chunks_mut(CHUNK).enumerate() {
            if self.used[chunk / 64] >> (chunk % 64) & 1 != 0 {
                entries.fill(Entry::none());
            }
        }
        self.used.fill(0);
    }

    /// For machine code.
    pub(crate) fn entries(&self) -> *const Entry {
        self.entries.as_ptr()
    }
}

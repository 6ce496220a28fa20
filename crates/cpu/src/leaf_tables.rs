//! The last of the page tables on the way to recently used addresses: a walk begins there.

/// Tables that are known in a space.
const TABLES: usize = 64;
/// Bits of the addresses that one table maps.
const REACH: u32 = 21;
/// No address is that high above the bits.
const NOTHING: u64 = u64::MAX;

/// Where the tables are that map 4 KiB pages, by the addresses they map.
pub(crate) struct LeafTables {
    /// Addresses without the bits that the table maps, and its physical address.
    tables: [(u64, u64); TABLES],
}

fn index(va: u64) -> usize {
    (va >> REACH) as usize & (TABLES - 1)
}

impl LeafTables {
    pub(crate) const NONE: Self = Self {
        tables: [(NOTHING, 0); TABLES],
    };

    /// The table that maps `va`.
    pub(crate) fn get(&self, va: u64) -> Option<u64> {
        let (mapped, table) = self.tables[index(va)];
        (mapped == va >> REACH).then_some(table)
    }

    /// A walk for `va` has ended in `table`.
    pub(crate) fn set(&mut self, va: u64, table: u64) {
        self.tables[index(va)] = (va >> REACH, table);
    }

    /// Forgets the tables that map some of `len` bytes from `va`.
    pub(crate) fn drop_range(&mut self, va: u64, len: u64) {
        let last = va.wrapping_add(len - 1) >> REACH;
        for entry in &mut self.tables {
            if entry.0 >= va >> REACH && entry.0 <= last {
                *entry = (NOTHING, 0);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::NONE;
    }
}

#[cfg(test)]
mod tests;

//! How many translations there are of which part of the address space: where there are none,
//! none must be looked for when page tables go, as they do with each process.

/// Bits of the addresses that one table of 4 KiB pages maps.
const TABLE: u32 = 21;
/// Bits of the addresses that a table of such tables maps.
const UPPER: u32 = 30;
/// Bits of the addresses that a table of those maps.
const TOP: u32 = 39;

/// See the module's documentation. Several parts share a number, which is that of all of them.
pub(crate) struct Live {
    tables: [u16; 256],
    uppers: [u16; 32],
    tops: [u16; 8],
    all: u16,
}

impl Live {
    pub(crate) const NONE: Self = Self {
        tables: [0; 256],
        uppers: [0; 32],
        tops: [0; 8],
        all: 0,
    };

    fn counts(&mut self, va: u64) -> [&mut u16; 4] {
        let tables = &mut self.tables[table(va)];
        let uppers = &mut self.uppers[upper(va)];
        [tables, uppers, &mut self.tops[top(va)], &mut self.all]
    }

    /// There is one more translation, that of the page of `va`.
    pub(crate) fn add(&mut self, va: u64) {
        for count in self.counts(va) {
            *count += 1;
        }
    }

    /// The translation of the page of `va` is no more.
    pub(crate) fn remove(&mut self, va: u64) {
        for count in self.counts(va) {
            *count -= 1;
        }
    }

    /// False if no page of `len` bytes from `va` has a translation.
    pub(crate) fn any(&self, va: u64, len: u64) -> bool {
        let last = va.wrapping_add(len - 1);
        if va >> TABLE == last >> TABLE {
            self.tables[table(va)] != 0
        } else if va >> UPPER == last >> UPPER {
            self.uppers[upper(va)] != 0
        } else if va >> TOP == last >> TOP {
            self.tops[top(va)] != 0
        } else {
            self.all != 0
        }
    }
}

fn table(va: u64) -> usize {
    (va >> TABLE ^ va >> UPPER) as usize & 255
}

fn upper(va: u64) -> usize {
    (va >> UPPER) as usize & 31
}

fn top(va: u64) -> usize {
    (va >> TOP) as usize & 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_of_while_it_has_translations() {
        let mut live = Live::NONE;
        let (page, high) = (0x40_2000, 0xffff_ffff_8000_1000);
        live.add(page);
        live.add(page + 0x1000);
        live.add(high);
        assert!(live.any(0x40_0000, 1 << TABLE) && live.any(0, 1 << UPPER));
        assert!(!live.any(0x60_0000, 1 << TABLE) && !live.any(1 << UPPER, 1 << UPPER));
        assert!(live.any(high - 0x1000, 1 << TABLE) && live.any(high - 0x1000, 1 << UPPER));
        live.remove(page);
        assert!(live.any(0x40_0000, 1 << TABLE));
        live.remove(page + 0x1000);
        assert!(!live.any(0x40_0000, 1 << TABLE) && !live.any(0, 1 << UPPER));
        assert!(
            !live.any(0, 1 << TOP) && live.any(0, 1 << 47) && live.any(high & !0xfff, 1 << TOP)
        );
        live.remove(high);
        assert!(!live.any(0, 1 << 47) && !live.any(high, 1));
    }
}

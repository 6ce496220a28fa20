//! What is kept for one address space: translations of data, and translations of
//! fetches. SUM and MXR say nothing about fetches, so a space of data and one of
//! fetches are things apart.
//!
//! The layout is fixed: a [`crate::tier::Tier`] reads it with machine code.

use crate::leaf_tables::LeafTables;
use crate::live::Live;
use crate::walk::Space;
use twinvm_mem::{PAGE_BYTES, PAGE_SHIFT};

/// Data translations of a space: the index is that of the virtual page, of which these bits
/// count. One of them stands apart: Linux maps libraries 128 MiB below the stack.
const DATA_PAGES: usize = (LOW_PAGES - 1) | HIGH_PAGE;
const LOW_PAGES: usize = 1 << 11;
const HIGH_PAGE: usize = 1 << 15;
/// One more than the highest index. Most of it is never used, and the host gives no memory.
const DATA: usize = HIGH_PAGE + LOW_PAGES;
/// Fetch translations of a space.
pub(crate) const FETCH: usize = 1024;
/// Equals no tag of an address: those keep the page and, for the interpreter, the
/// lowest three bits; never this one.
const NO_TAG: u64 = 1 << 11;

/// A data translation of one virtual page.
#[derive(Clone, Copy)]
pub(crate) struct DataEntry {
    /// Virtual page address if loads are allowed.
    pub(crate) load: u64,
    /// Virtual page address if fast stores are allowed; then loads are, too.
    pub(crate) store: u64,
    /// Offset of the page from the start of RAM.
    pub(crate) offset: u64,
    /// Added to a virtual address it gives the address in this process.
    pub(crate) addend: u64,
}

/// A [`DataEntry`], its fields in their order. All zero where no index leads.
type Words = [u64; 4];

impl DataEntry {
    const NONE: Self = Self {
        load: NO_TAG,
        store: NO_TAG,
        offset: 0,
        addend: 0,
    };

    /// An entry that allows what it is told to for the page of `va`.
    pub(crate) fn new(va: u64, offset: u64, ram: u64, load: bool, store: bool) -> Self {
        let tag = page_of(va);
        Self {
            load: if load { tag } else { NO_TAG },
            store: if store { tag } else { NO_TAG },
            offset,
            addend: ram.wrapping_add(offset).wrapping_sub(tag),
        }
    }

    #[inline(always)]
    fn of(words: &Words) -> Self {
        let [load, store, offset, addend] = *words;
        Self {
            load,
            store,
            offset,
            addend,
        }
    }

    fn words(self) -> Words {
        [self.load, self.store, self.offset, self.addend]
    }
}

/// Where the code of a virtual page is: a page of RAM that may be executed as a whole.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct FetchEntry {
    pub(crate) tag: u64,
    /// Added to a virtual address it gives the place from the start of RAM.
    addend: u64,
    /// Number of the page from the start of RAM.
    pub(crate) page: u32,
}

impl FetchEntry {
    const NONE: Self = Self {
        tag: NO_TAG,
        addend: 0,
        page: 0,
    };
}

/// Address spaces kept side by side: four processes with U, S, S+SUM and some room.
pub(crate) const SPACES: usize = 16;

/// What is known of one space.
pub(crate) trait Tlb {
    fn new() -> Box<Self>;
    fn clear(&mut self);
}

/// What is known of the spaces in use, one of which is the current.
pub(crate) struct Spaces<T> {
    spaces: [Option<Space>; SPACES],
    tlbs: Vec<Box<T>>,
    next_victim: usize,
    current: usize,
}

impl<T: Tlb> Spaces<T> {
    pub(crate) fn new() -> Self {
        Self {
            spaces: [None; SPACES],
            tlbs: vec![T::new()],
            next_victim: 0,
            current: 0,
        }
    }

    /// Makes a space the current one. True if another had to go for it.
    pub(crate) fn select(&mut self, space: Space) -> bool {
        if self.spaces[self.current] == Some(space) {
            return false;
        }
        if let Some(slot) = self.spaces.iter().position(|s| *s == Some(space)) {
            self.current = slot;
            return false;
        }
        let free = self.spaces.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.next_victim);
        if free.is_none() {
            self.next_victim = (slot + 1) % SPACES;
            self.tlbs[slot].clear();
        } else if slot >= self.tlbs.len() {
            self.tlbs.push(T::new());
        }
        self.spaces[slot] = Some(space);
        self.current = slot;
        free.is_none()
    }

    /// The current space.
    pub(crate) fn space(&self) -> Space {
        self.spaces[self.current].unwrap_or(Space::bare(0))
    }

    /// A mask with the bit of the current space.
    pub(crate) fn mask(&self) -> u16 {
        1 << self.current
    }

    /// What is known of the current space.
    #[inline(always)]
    pub(crate) fn tlb(&self) -> &T {
        &self.tlbs[self.current]
    }

    /// What is known of the current space.
    #[inline(always)]
    pub(crate) fn tlb_mut(&mut self) -> &mut T {
        &mut self.tlbs[self.current]
    }

    /// What is known of the spaces in a mask.
    pub(crate) fn tlbs(&mut self, mask: u16) -> impl Iterator<Item = &mut T> {
        let numbered = self.tlbs.iter_mut().enumerate();
        numbered.filter_map(move |(slot, tlb)| (mask >> slot & 1 != 0).then_some(&mut **tlb))
    }
}

/// A mask of all spaces.
pub(crate) const ALL_SPACES: u16 = u16::MAX;

/// Translations of loads and stores.
pub(crate) struct DataTlb {
    data: Box<[Words; DATA]>,
    pub(crate) tables: LeafTables,
    /// Of entries that allow anything.
    live: Live,
}

/// Places that calls will return to, and the translated code for them.
const RETURNS: usize = 64;

/// Where a call returns to.
#[derive(Clone, Copy)]
#[repr(C)]
struct Return {
    pc: u64,
    code: u64,
}

impl Return {
    /// What is found at no index: the pcs are such that others have it, odd ones too.
    const NONE: [Self; RETURNS] = {
        let mut returns = [Self { pc: 0, code: 0 }; RETURNS];
        returns[0].pc = 2;
        returns
    };
}

/// Translations of fetches.
#[repr(C)]
pub(crate) struct FetchTlb {
    fetch: [FetchEntry; FETCH],
    /// The tier's: it notes calls here, and believes what it finds.
    returns: [Return; RETURNS],
    pub(crate) tables: LeafTables,
    live: Live,
}

/// Offsets in a `DataTlb` and a `FetchTlb`, and in the table of code, for machine code.
pub mod layout {
    use super::{FetchEntry, FetchTlb, Return, Words};
    use crate::codes::Entry;
    use std::mem::{offset_of, size_of};

    /// Of the number of a virtual page, the bits that are the index of its data entry.
    pub const DATA_PAGES: usize = super::DATA_PAGES;
    /// Bytes of a data entry.
    pub const DATA_STRIDE: usize = size_of::<Words>();
    /// The tag for loads in a data entry: the virtual page's address.
    pub const DATA_LOAD: usize = 0;
    /// The tag for stores in a data entry: the virtual page's address.
    pub const DATA_STORE: usize = 8;
    /// Where the page is from the start of RAM, in a data entry.
    pub const DATA_OFFSET: usize = 16;
    /// What is added to a virtual address, in a data entry.
    pub const DATA_ADDEND: usize = 24;
    /// Number of fetch entries; the index is the virtual page modulo this.
    pub const FETCH_ENTRIES: usize = super::FETCH;
    /// Bytes of a fetch entry.
    pub const FETCH_STRIDE: usize = size_of::<FetchEntry>();
    /// The virtual page's address, in a fetch entry.
    pub const FETCH_TAG: usize = offset_of!(FetchTlb, fetch) + offset_of!(FetchEntry, tag);
    /// What is added to a virtual address to get the place from the start of RAM, in a
    /// fetch entry.
    pub const FETCH_ADDEND: usize = offset_of!(FetchTlb, fetch) + offset_of!(FetchEntry, addend);
    /// The number of the page of RAM, in a fetch entry (32 bits).
    pub const FETCH_PAGE: usize = offset_of!(FetchTlb, fetch) + offset_of!(FetchEntry, page);
    /// Number of places that calls return to; the index is pc / 2 modulo this.
    pub const RETURNS: usize = super::RETURNS;
    /// Bytes of an entry.
    pub const RETURN_STRIDE: usize = size_of::<Return>();
    /// The pc, in an entry.
    pub const RETURN_PC: usize = offset_of!(FetchTlb, returns) + offset_of!(Return, pc);
    /// Where the translated code for it starts, in an entry.
    pub const RETURN_CODE: usize = offset_of!(FetchTlb, returns) + offset_of!(Return, code);
    /// Blocks that are known by their place from the start of RAM: the index is bits 1 to n
    /// of place ^ (place >> [`CODE_FOLD`]), where this is 2^n.
    pub const CODES: usize = crate::codes::CODES;
    /// See [`CODES`].
    pub const CODE_FOLD: u8 = crate::codes::FOLD;
    /// Bytes of an entry.
    pub const CODE_STRIDE: usize = size_of::<Entry>();
    /// The place of a known block, in an entry.
    pub const CODE_PLACE: usize = offset_of!(Entry, place);
    /// Where to go for it, in an entry.
    pub const CODE_ENTRY: usize = offset_of!(Entry, code);
}

/// True if the tag is of a page in `len` bytes from `va`.
fn within(tag: u64, va: u64, len: u64) -> bool {
    tag != NO_TAG && tag.wrapping_sub(va) < len
}

pub(crate) fn page_of(va: u64) -> u64 {
    va & !(PAGE_BYTES as u64 - 1)
}

#[inline(always)]
pub(crate) fn data_index(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & DATA_PAGES
}

#[inline(always)]
fn fetch_index(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & (FETCH - 1)
}

impl Tlb for DataTlb {
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        // Zeroes, which the host gives without memory behind them.
        let words: Box<[Words]> = vec![[0; 4]; DATA].into();
        let Ok(data) = words.try_into() else {
            unreachable!("it was made with this length");
        };
        let mut tlb = Box::new(Self {
            data,
            tables: LeafTables::NONE,
            live: Live::NONE,
        });
        tlb.clear();
        tlb
    }

    fn clear(&mut self) {
        self.tables.clear();
        self.live = Live::NONE;
        for words in self.entries_mut() {
            *words = DataEntry::NONE.words();
        }
    }
}

impl DataTlb {
    #[inline(always)]
    pub(crate) fn data(&self, va: u64) -> DataEntry {
        DataEntry::of(&self.data[data_index(va)])
    }

    pub(crate) fn set(&mut self, va: u64, entry: DataEntry) {
        self.drop_index(data_index(va));
        if entry.load != NO_TAG {
            self.live.add(entry.load);
        }
        self.data[data_index(va)] = entry.words();
    }

    /// Drops the entry at an index.
    fn drop_index(&mut self, index: usize) {
        let words = &mut self.data[index];
        // Without loads nothing is allowed.
        let DataEntry { load, .. } = DataEntry::of(words);
        if load != NO_TAG {
            self.live.remove(load);
        }
        *words = DataEntry::NONE.words();
    }

    /// The same if it is of a page in `len` bytes from `va`.
    fn drop_within(&mut self, index: usize, va: u64, len: u64) {
        if within(DataEntry::of(&self.data[index]).load, va, len) {
            self.drop_index(index);
        }
    }

    /// For machine code.
    pub(crate) fn words(&self) -> *const u8 {
        self.data.as_ptr().cast()
    }

    /// Those that an index leads to.
    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Words> {
        let (low, high) = self.data.split_at_mut(HIGH_PAGE);
        low[..LOW_PAGES].iter_mut().chain(high)
    }

    /// Withdraws all write tags, or those of one page of RAM.
    pub(crate) fn withdraw_write_tags(&mut self, offset: Option<u64>) {
        for words in self.entries_mut() {
            withdraw(words, offset);
        }
    }

    /// Withdraws the write tag of a page of RAM, if the entry has it.
    pub(crate) fn withdraw_write_tag_at(&mut self, offset: u64, index: usize) {
        withdraw(&mut self.data[index & DATA_PAGES], Some(offset));
    }

    /// Drops the translation of one virtual page.
    pub(crate) fn drop_page(&mut self, va: u64) {
        self.drop_within(data_index(va), page_of(va), 1);
    }

    /// Drops the translations of `len` bytes from `va`.
    pub(crate) fn drop_range(&mut self, va: u64, len: u64) {
        const FEW: u64 = 512;
        self.tables.drop_range(va, len);
        if !self.live.any(va, len) {
            return;
        }
        if len >> PAGE_SHIFT <= FEW {
            for page in 0..len >> PAGE_SHIFT {
                let va = va.wrapping_add(page << PAGE_SHIFT);
                self.drop_within(data_index(va), va, 1);
            }
            return;
        }
        for index in (0..LOW_PAGES).chain(HIGH_PAGE..DATA) {
            self.drop_within(index, va, len);
        }
    }
}

/// Withdraws the entry's write tag, if it is of this page of RAM, or in any case.
fn withdraw(words: &mut Words, offset: Option<u64>) {
    let entry = DataEntry::of(words);
    if offset.is_none_or(|offset| offset == entry.offset) {
        *words = DataEntry {
            store: NO_TAG,
            ..entry
        }
        .words();
    }
}

impl Tlb for FetchTlb {
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(Self {
            fetch: [FetchEntry::NONE; FETCH],
            returns: Return::NONE,
            tables: LeafTables::NONE,
            live: Live::NONE,
        })
    }

    fn clear(&mut self) {
        self.tables.clear();
        self.live = Live::NONE;
        self.fetch.fill(FetchEntry::NONE);
        self.forget_returns();
    }
}

impl FetchTlb {
    /// What code or translations of fetches were may be no more.
    pub(crate) fn forget_returns(&mut self) {
        self.returns = Return::NONE;
    }

    /// The page of RAM that `va` is fetched from, if known.
    pub(crate) fn fetch(&self, va: u64) -> Option<u32> {
        let entry = &self.fetch[fetch_index(va)];
        (entry.tag == page_of(va)).then_some(entry.page)
    }

    pub(crate) fn set_fetch(&mut self, va: u64, page: u32) {
        let tag = page_of(va);
        self.drop_index(fetch_index(va));
        self.live.add(tag);
        self.fetch[fetch_index(va)] = FetchEntry {
            tag,
            addend: (u64::from(page) << PAGE_SHIFT).wrapping_sub(tag),
            page,
        };
    }

    /// Drops the translation of one virtual page; true if there was one.
    pub(crate) fn drop_page(&mut self, va: u64) -> bool {
        self.forget_returns();
        let index = fetch_index(va);
        let fetched = self.fetch[index].tag == page_of(va);
        if fetched {
            self.drop_index(index);
        }
        fetched
    }

    /// Drops the entry at an index.
    fn drop_index(&mut self, index: usize) {
        let entry = &mut self.fetch[index];
        if entry.tag != NO_TAG {
            self.live.remove(entry.tag);
        }
        *entry = FetchEntry::NONE;
    }

    /// Drops the translations of `len` bytes from `va`; true if there were some.
    pub(crate) fn drop_range(&mut self, va: u64, len: u64) -> bool {
        self.tables.drop_range(va, len);
        // Those of a page outlive its entry, when another takes its place.
        self.forget_returns();
        if !self.live.any(va, len) {
            return false;
        }
        let mut fetched = false;
        for index in 0..FETCH {
            if within(self.fetch[index].tag, va, len) {
                self.drop_index(index);
                fetched = true;
            }
        }
        fetched
    }

    /// Where `pc` is from the start of RAM, if that is known.
    #[inline(always)]
    pub(crate) fn place(&self, pc: u64) -> Option<u64> {
        let entry = &self.fetch[fetch_index(pc)];
        (entry.tag == page_of(pc)).then(|| pc.wrapping_add(entry.addend))
    }
}

#[cfg(test)]
mod tests;

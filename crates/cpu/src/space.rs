//! What is kept for one address space: translations of data; translations of fetches,
//! and where the code of the fetched pages is. SUM and MXR say nothing about fetches,
//! so a space of data and one of fetches are things apart.
//!
//! The layout is fixed: a [`crate::tier::Tier`] reads it with machine code.

use crate::block::Block;
use crate::walk::Space;
use twinvm_mem::{PAGE_BYTES, PAGE_SHIFT};

/// Data translations of a space, one per virtual page modulo their number.
pub(crate) const DATA: usize = 1024;
/// Fetch translations of a space.
pub(crate) const FETCH: usize = 256;
/// Blocks found by virtual address, per fetch translation.
pub(crate) const ROW: usize = 64;
/// Equals no tag of an address: those keep the page and, for the interpreter, the
/// lowest three bits; never this one.
const NO_TAG: u64 = 1 << 11;
/// Equals no pc.
const NO_PC: u64 = 1;

/// A data translation of one virtual page.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct DataEntry {
    /// Virtual page address if loads are allowed.
    pub(crate) load: u64,
    /// Virtual page address if fast stores are allowed.
    pub(crate) store: u64,
    /// Offset of the page from the start of RAM.
    pub(crate) offset: u64,
    /// Added to a virtual address it gives the address in this process.
    pub(crate) addend: u64,
}

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
}

/// Where the code of a virtual page is: a page of RAM that may be executed as a whole.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct FetchEntry {
    pub(crate) tag: u64,
    /// Number of the page from the start of RAM.
    pub(crate) page: u32,
    /// True if the row of blocks isn't empty.
    used: bool,
}

impl FetchEntry {
    const NONE: Self = Self {
        tag: NO_TAG,
        page: 0,
        used: false,
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
#[repr(C)]
pub(crate) struct DataTlb {
    data: [DataEntry; DATA],
}

/// Translations of fetches. A row of blocks belongs to the fetch entry of the same
/// index: it holds blocks of that page only, and goes with the entry.
#[repr(C)]
pub(crate) struct FetchTlb {
    fetch: [FetchEntry; FETCH],
    /// The pc of each block.
    pcs: [u64; FETCH * ROW],
    /// Where its translation starts; if it has none, the tier's cold entry.
    code: [u64; FETCH * ROW],
    blocks: [Block; FETCH * ROW],
}

/// Offsets in a `DataTlb` and a `FetchTlb`, for machine code.
pub mod layout {
    use super::{DataEntry, DataTlb, FetchEntry, FetchTlb};
    use std::mem::{offset_of, size_of};

    /// Number of data entries; the index is the virtual page modulo this.
    pub const DATA_ENTRIES: usize = super::DATA;
    /// Bytes of a data entry.
    pub const DATA_STRIDE: usize = size_of::<DataEntry>();
    /// The tag for loads in a data entry: the virtual page's address.
    pub const DATA_LOAD: usize = offset_of!(DataTlb, data) + offset_of!(DataEntry, load);
    /// The tag for stores in a data entry: the virtual page's address.
    pub const DATA_STORE: usize = offset_of!(DataTlb, data) + offset_of!(DataEntry, store);
    /// What is added to a virtual address, in a data entry.
    pub const DATA_ADDEND: usize = offset_of!(DataTlb, data) + offset_of!(DataEntry, addend);
    /// Number of fetch entries; the index is the virtual page modulo this.
    pub const FETCH_ENTRIES: usize = super::FETCH;
    /// Bytes of a fetch entry.
    pub const FETCH_STRIDE: usize = size_of::<FetchEntry>();
    /// The virtual page's address, in a fetch entry.
    pub const FETCH_TAG: usize = offset_of!(FetchTlb, fetch) + offset_of!(FetchEntry, tag);
    /// The number of the page of RAM, in a fetch entry (32 bits).
    pub const FETCH_PAGE: usize = offset_of!(FetchTlb, fetch) + offset_of!(FetchEntry, page);
    /// Blocks known by pc, per fetch entry, 2^n of them: the index is that of the
    /// fetch entry times this, plus bits 1 to n of pc ^ (pc >> n).
    pub const ROW: usize = super::ROW;
    /// The pc of a known block (8 bytes per block).
    pub const PCS: usize = offset_of!(FetchTlb, pcs);
    /// Where to go for it (8 bytes per block).
    pub const CODE: usize = offset_of!(FetchTlb, code);
}

/// True if the tag is of a page in `len` bytes from `va`.
fn within(tag: u64, va: u64, len: u64) -> bool {
    tag != NO_TAG && tag.wrapping_sub(va) < len
}

pub(crate) fn page_of(va: u64) -> u64 {
    va & !(PAGE_BYTES as u64 - 1)
}

#[inline(always)]
fn data_index(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & (DATA - 1)
}

#[inline(always)]
fn fetch_index(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & (FETCH - 1)
}

#[inline(always)]
fn block_index(pc: u64) -> usize {
    fetch_index(pc) * ROW + ((((pc >> ROW.trailing_zeros()) ^ pc) >> 1) as usize & (ROW - 1))
}

impl Tlb for DataTlb {
    // Made on the stack first: not where select() is inlined.
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(Self {
            data: [DataEntry::NONE; DATA],
        })
    }

    fn clear(&mut self) {
        self.data.fill(DataEntry::NONE);
    }
}

impl DataTlb {
    #[inline(always)]
    pub(crate) fn data(&self, va: u64) -> &DataEntry {
        &self.data[data_index(va)]
    }

    pub(crate) fn data_mut(&mut self, va: u64) -> &mut DataEntry {
        &mut self.data[data_index(va)]
    }

    /// Withdraws the write tags of one page of RAM, or of all.
    pub(crate) fn withdraw_write_tags(&mut self, offset: Option<u64>) {
        for entry in &mut self.data {
            if offset.is_none_or(|offset| offset == entry.offset) {
                entry.store = NO_TAG;
            }
        }
    }

    /// Drops the translation of one virtual page.
    pub(crate) fn drop_page(&mut self, va: u64) {
        let page = page_of(va);
        let data = &mut self.data[data_index(va)];
        if data.load == page || data.store == page {
            *data = DataEntry::NONE;
        }
    }

    /// Drops the translations of `len` bytes from `va`.
    pub(crate) fn drop_range(&mut self, va: u64, len: u64) {
        for data in &mut self.data {
            if within(data.load, va, len) || within(data.store, va, len) {
                *data = DataEntry::NONE;
            }
        }
    }
}

impl Tlb for FetchTlb {
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(Self {
            fetch: [FetchEntry::NONE; FETCH],
            pcs: [NO_PC; FETCH * ROW],
            code: [0; FETCH * ROW],
            blocks: [Block::default(); FETCH * ROW],
        })
    }

    fn clear(&mut self) {
        for index in 0..FETCH {
            self.drop_fetch_at(index);
        }
    }
}

impl FetchTlb {
    /// The page of RAM that `va` is fetched from, if known.
    pub(crate) fn fetch(&self, va: u64) -> Option<u32> {
        let entry = &self.fetch[fetch_index(va)];
        (entry.tag == page_of(va)).then_some(entry.page)
    }

    pub(crate) fn set_fetch(&mut self, va: u64, page: u32) {
        let index = fetch_index(va);
        self.drop_fetch_at(index);
        self.fetch[index] = FetchEntry {
            tag: page_of(va),
            page,
            used: false,
        };
    }

    fn drop_fetch_at(&mut self, index: usize) {
        self.clear_row(index);
        self.fetch[index] = FetchEntry::NONE;
    }

    fn clear_row(&mut self, index: usize) {
        if self.fetch[index].used {
            self.fetch[index].used = false;
            self.pcs[index * ROW..][..ROW].fill(NO_PC);
        }
    }

    /// Drops the translation of one virtual page; true if there was one.
    pub(crate) fn drop_page(&mut self, va: u64) -> bool {
        let index = fetch_index(va);
        let fetched = self.fetch[index].tag == page_of(va);
        if fetched {
            self.drop_fetch_at(index);
        }
        fetched
    }

    /// Drops the translations of `len` bytes from `va`; true if there were some.
    pub(crate) fn drop_range(&mut self, va: u64, len: u64) -> bool {
        let mut fetched = false;
        for index in 0..FETCH {
            if within(self.fetch[index].tag, va, len) {
                self.drop_fetch_at(index);
                fetched = true;
            }
        }
        fetched
    }

    /// The block at `pc`, if it is known.
    #[inline(always)]
    pub(crate) fn block(&self, pc: u64) -> Option<Block> {
        let index = block_index(pc);
        (self.pcs[index] == pc).then(|| self.blocks[index])
    }

    /// Remembers a block of a page whose fetch translation is known.
    pub(crate) fn set_block(&mut self, pc: u64, block: Block, code: u64) {
        let entry = &mut self.fetch[fetch_index(pc)];
        if entry.tag != page_of(pc) {
            return;
        }
        entry.used = true;
        let index = block_index(pc);
        self.pcs[index] = pc;
        self.code[index] = code;
        self.blocks[index] = block;
    }

    /// No block is known any more.
    pub(crate) fn drop_all_blocks(&mut self) {
        for index in 0..FETCH {
            self.clear_row(index);
        }
    }

    /// The code of a page of RAM has changed: blocks of it are not known any more.
    pub(crate) fn drop_blocks(&mut self, page: u32) {
        for index in 0..FETCH {
            if self.fetch[index].page == page {
                self.clear_row(index);
            }
        }
    }
}

//! What is kept for one address space: translations of data, translations of
//! fetches, and where the code of the fetched pages is.
//!
//! The layout is fixed: a [`crate::tier::Tier`] reads it with machine code.

use crate::block::Block;
use twinvm_mem::{PAGE_BYTES, PAGE_SHIFT};

/// Data translations of a space, one per virtual page modulo their number.
pub(crate) const DATA: usize = 1024;
/// Fetch translations of a space.
pub(crate) const FETCH: usize = 256;
/// Blocks found by virtual address, per fetch translation.
pub(crate) const ROW: usize = 16;
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

/// See the module's documentation. A row of blocks belongs to the fetch entry of the
/// same index: it holds blocks of that page only, and goes with the entry.
#[repr(C)]
pub(crate) struct SpaceTlb {
    data: [DataEntry; DATA],
    fetch: [FetchEntry; FETCH],
    /// The pc of each block.
    pcs: [u64; FETCH * ROW],
    /// Where its translation starts; if it has none, the tier's cold entry.
    code: [u64; FETCH * ROW],
    blocks: [Block; FETCH * ROW],
}

/// Offsets in a `SpaceTlb`, for machine code.
pub mod layout {
    use super::{DataEntry, FetchEntry, SpaceTlb};
    use std::mem::{offset_of, size_of};

    /// Number of data entries; the index is the virtual page modulo this.
    pub const DATA_ENTRIES: usize = super::DATA;
    /// Bytes of a data entry.
    pub const DATA_STRIDE: usize = size_of::<DataEntry>();
    /// The tag for loads in a data entry: the virtual page's address.
    pub const DATA_LOAD: usize = offset_of!(SpaceTlb, data) + offset_of!(DataEntry, load);
    /// The tag for stores in a data entry: the virtual page's address.
    pub const DATA_STORE: usize = offset_of!(SpaceTlb, data) + offset_of!(DataEntry, store);
    /// What is added to a virtual address, in a data entry.
    pub const DATA_ADDEND: usize = offset_of!(SpaceTlb, data) + offset_of!(DataEntry, addend);
    /// Number of fetch entries; the index is the virtual page modulo this.
    pub const FETCH_ENTRIES: usize = super::FETCH;
    /// Bytes of a fetch entry.
    pub const FETCH_STRIDE: usize = size_of::<FetchEntry>();
    /// The virtual page's address, in a fetch entry.
    pub const FETCH_TAG: usize = offset_of!(SpaceTlb, fetch) + offset_of!(FetchEntry, tag);
    /// The number of the page of RAM, in a fetch entry (32 bits).
    pub const FETCH_PAGE: usize = offset_of!(SpaceTlb, fetch) + offset_of!(FetchEntry, page);
    /// Blocks known by pc, per fetch entry: the index is that of the fetch entry
    /// times this, plus bits 1 and up of the pc modulo this.
    pub const ROW: usize = super::ROW;
    /// The pc of a known block (8 bytes per block).
    pub const PCS: usize = offset_of!(SpaceTlb, pcs);
    /// Where to go for it (8 bytes per block).
    pub const CODE: usize = offset_of!(SpaceTlb, code);
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
    fetch_index(pc) * ROW + ((pc >> 1) as usize & (ROW - 1))
}

impl SpaceTlb {
    pub(crate) fn new() -> Box<Self> {
        let tlb = Self {
            data: [DataEntry::NONE; DATA],
            fetch: [FetchEntry::NONE; FETCH],
            pcs: [NO_PC; FETCH * ROW],
            code: [0; FETCH * ROW],
            blocks: [Block::default(); FETCH * ROW],
        };
        Box::new(tlb)
    }

    pub(crate) fn clear(&mut self) {
        self.data.fill(DataEntry::NONE);
        for index in 0..FETCH {
            self.drop_fetch_at(index);
        }
    }

    // ---- data -------------------------------------------------------------

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

    // ---- fetch ------------------------------------------------------------

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

    // ---- both -------------------------------------------------------------

    /// Drops the translations of one virtual page; true if there was one for fetches.
    pub(crate) fn drop_page(&mut self, va: u64) -> bool {
        let page = page_of(va);
        let data = &mut self.data[data_index(va)];
        if data.load == page || data.store == page {
            *data = DataEntry::NONE;
        }
        let index = fetch_index(va);
        let fetched = self.fetch[index].tag == page;
        if fetched {
            self.drop_fetch_at(index);
        }
        fetched
    }

    /// Drops the translations of `len` bytes from `va`; true if there were some for
    /// fetches.
    pub(crate) fn drop_range(&mut self, va: u64, len: u64) -> bool {
        let within = |tag: u64| tag != NO_TAG && tag.wrapping_sub(va) < len;
        for data in &mut self.data {
            if within(data.load) || within(data.store) {
                *data = DataEntry::NONE;
            }
        }
        let mut fetched = false;
        for index in 0..FETCH {
            if within(self.fetch[index].tag) {
                self.drop_fetch_at(index);
                fetched = true;
            }
        }
        fetched
    }

    // ---- blocks -----------------------------------------------------------

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

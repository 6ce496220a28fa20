//! Cached translations, coherent with the page tables in memory.
//!
//! Invalid entries are never cached. Each table page that a walk has read is
//! tagged in [`Memory`] and remembered here with its level and the virtual
//! address of its first entry; a store over a valid entry drops what was derived
//! from it. Fences therefore have nothing to do.

use crate::leaf_tables::LeafTables;
use crate::page_map::PageMap;
use crate::pmp::{Pmp, PmpMap, perm};
use crate::space::{ALL_SPACES, DataEntry, DataTlb, FetchTlb, Spaces, Tlb, page_of};
use crate::walk::{Access, MAX_LEVELS, Space, Translation, Visit, WalkFault, extend, walk};
use crate::write_tags::WriteTags;
use twinvm_mem::{Memory, PAGE_BYTES, PAGE_SHIFT, RAM_BASE};

/// PMP maps kept side by side, so that harts may differ in theirs.
const PMP_MAPS: usize = 64;
/// Slow stores to a table page until it is taken for recycled memory: all
/// derived from it is dropped and the tag withdrawn.
const STORES_UNTIL_UNTAGGED: u8 = 64;
/// Withdrawing single write tags costs a scan; from here on drop all at once.
const MANY_WRITE_TAGS: usize = 8;

/// What is remembered of a page that holds page tables.
#[derive(Clone, Copy, Default)]
struct TablePage {
    known: bool,
    /// Read at two levels or two virtual bases.
    mixed: bool,
    level: u8,
    stores: u8,
    bits: u8,
    /// The spaces whose walks have read it, for data and for fetches.
    data: u16,
    fetch: u16,
    base: u64,
}

/// Where an instruction parcel is.
pub(crate) struct Fetch {
    pub(crate) pa: u64,
    /// The page is in RAM and may be executed as a whole: code from there may be
    /// kept in blocks.
    pub(crate) page: bool,
}

/// Translations of all address spaces in use.
pub(crate) struct Mmu {
    data: Spaces<DataTlb>,
    fetch: Spaces<FetchTlb>,
    /// What PMPs allow; [`Space::pmp`] is an index. The first allows all.
    pmp_maps: Vec<PmpMap>,
    tables: PageMap<TablePage>,
    visited: Vec<Visit>,
    /// Where write tags of a page are.
    write_tags: WriteTags,
    /// Fetch translations were dropped: the next instruction may be another.
    pub(crate) fetch_dropped: bool,
    pub(crate) walks: u64,
}

impl Mmu {
    pub(crate) fn new() -> Self {
        Self {
            data: Spaces::new(),
            fetch: Spaces::new(),
            pmp_maps: vec![PmpMap::open()],
            tables: PageMap::new(),
            visited: Vec::with_capacity(MAX_LEVELS),
            write_tags: WriteTags::default(),
            fetch_dropped: false,
            walks: 0,
        }
    }

    /// Chooses the spaces for fetches and for loads and stores.
    pub(crate) fn select(&mut self, fetch: Space, data: Space) {
        self.fetch_dropped |= self.fetch.select(fetch.of_fetches());
        self.data.select(data);
    }

    /// What is known in the space that loads and stores use.
    #[inline(always)]
    pub(crate) fn data_tlb(&self) -> &DataTlb {
        self.data.tlb()
    }

    /// What is known in the space that fetches use.
    #[inline(always)]
    pub(crate) fn fetch_tlb(&self) -> &FetchTlb {
        self.fetch.tlb()
    }

    /// What is known in the space that fetches use.
    pub(crate) fn fetch_tlb_mut(&mut self) -> &mut FetchTlb {
        self.fetch.tlb_mut()
    }

    /// Numbers of what a hart's PMP allows in M-mode, and in S and U. A full table
    /// is emptied, with every translation.
    pub(crate) fn pmp_numbers(&mut self, mem: &mut Memory, pmp: &Pmp) -> [u8; 2] {
        let maps = [pmp.map(true), pmp.map(false)];
        if self.pmp_maps.len() + maps.len() > PMP_MAPS {
            self.flush(mem);
            self.pmp_maps.truncate(1);
        }
        maps.map(|map| {
            let known = self.pmp_maps.iter().position(|m| *m == map);
            known.unwrap_or_else(|| {
                self.pmp_maps.push(map);
                self.pmp_maps.len() - 1
            }) as u8
        })
    }

    /// Drops every translation; forgets the table pages.
    pub(crate) fn flush(&mut self, mem: &mut Memory) {
        self.data.tlbs(ALL_SPACES).for_each(Tlb::clear);
        self.fetch.tlbs(ALL_SPACES).for_each(Tlb::clear);
        for page in self.tables.clear() {
            mem.clear_table(page as usize);
        }
        self.fetch_dropped = true;
    }

    /// Translated code was thrown away.
    pub(crate) fn forget_returns(&mut self) {
        for tlb in self.fetch.tlbs(ALL_SPACES) {
            tlb.forget_returns();
        }
    }

    /// Withdraws all fast write tags.
    pub(crate) fn drop_write_tags(&mut self) {
        for tlb in self.data.tlbs(ALL_SPACES) {
            tlb.withdraw_write_tags(None);
        }
    }

    pub(crate) fn withdraw_write_tags(&mut self, pages: &[u32]) {
        if pages.len() > MANY_WRITE_TAGS {
            return self.drop_write_tags();
        }
        for page in pages {
            let offset = u64::from(*page) << PAGE_SHIFT;
            let places = self.write_tags.take(*page);
            for tlb in self.data.tlbs(ALL_SPACES) {
                match &places {
                    Some(indices) => {
                        for index in indices.clone() {
                            tlb.withdraw_write_tag_at(offset, index);
                        }
                    }
                    None => tlb.withdraw_write_tags(Some(offset)),
                }
            }
        }
    }

    /// Valid entries `first..=last` of a table page were overwritten.
    pub(crate) fn table_changed(&mut self, mem: &mut Memory, page: u32, first: u16, last: u16) {
        let Some(table) = self.tables.get(page).copied().filter(|t| t.known) else {
            return;
        };
        if table.mixed {
            return self.flush(mem);
        }
        for entry in first..=last {
            let shift = PAGE_SHIFT + 9 * u32::from(table.level);
            let va = table.base.wrapping_add(u64::from(entry) << shift);
            let va = extend(va, u32::from(table.bits));
            if table.level == 0 {
                self.drop_page(&table, va);
            } else {
                self.drop_range(&table, va, 1 << shift);
            }
        }
    }

    /// Drops the translations of `len` bytes from `va` that are derived from a table.
    fn drop_range(&mut self, table: &TablePage, va: u64, len: u64) {
        for tlb in self.data.tlbs(table.data) {
            tlb.drop_range(va, len);
        }
        for tlb in self.fetch.tlbs(table.fetch) {
            self.fetch_dropped |= tlb.drop_range(va, len);
        }
    }

    fn drop_page(&mut self, table: &TablePage, va: u64) {
        for tlb in self.data.tlbs(table.data) {
            tlb.drop_page(va);
        }
        for tlb in self.fetch.tlbs(table.fetch) {
            self.fetch_dropped |= tlb.drop_page(va);
        }
    }

    /// A slow store went to a page that holds tables. Pages that take many
    /// stores are probably recycled: stop watching them.
    pub(crate) fn note_table_store(&mut self, mem: &mut Memory, page: usize) {
        let Some(table) = self.tables.get_mut(page as u32) else {
            return;
        };
        table.stores = table.stores.saturating_add(1);
        if table.stores >= STORES_UNTIL_UNTAGGED {
            let table = std::mem::take(table);
            if table.mixed {
                return self.flush(mem);
            }
            let shift = PAGE_SHIFT + 9 * u32::from(table.level);
            if shift + 9 == u32::from(table.bits) {
                return self.flush(mem);
            }
            self.drop_range(&table, table.base, 512 << shift);
            mem.clear_table(page);
            // Stores to it are fast from now on: nobody may go on with what it said.
            self.fetch_dropped = true;
        }
    }

    /// Those of the space that decides the access.
    fn leaf_tables(&mut self, access: Access) -> &mut LeafTables {
        match access {
            Access::Fetch => &mut self.fetch.tlb_mut().tables,
            Access::Load | Access::Store => &mut self.data.tlb_mut().tables,
        }
    }

    fn walk(
        &mut self,
        mem: &mut Memory,
        space: &Space,
        va: u64,
        access: Access,
    ) -> Result<Translation, WalkFault> {
        self.walks += 1;
        let mut visited = std::mem::take(&mut self.visited);
        let last = self.leaf_tables(access).get(va);
        let pmp = &self.pmp_maps[usize::from(space.pmp)];
        let result = walk(mem, space, pmp, va, access, last, &mut visited);
        if result.is_ok() {
            if last.is_none()
                && let Some(visit) = visited.last().filter(|visit| visit.level == 0)
            {
                let table = RAM_BASE + (u64::from(visit.page) << PAGE_SHIFT);
                self.leaf_tables(access).set(va, table);
            }
            let (data, fetch) = match access {
                Access::Fetch => (0, self.fetch.mask()),
                Access::Load | Access::Store => (self.data.mask(), 0),
            };
            for visit in &visited {
                self.remember(mem, visit, data, fetch);
            }
        }
        self.visited = visited;
        result
    }

    fn remember(&mut self, mem: &mut Memory, visit: &Visit, data: u16, fetch: u16) {
        let Some(table) = self.tables.get_or_default(mem, visit.page) else {
            return;
        };
        table.stores = 0;
        if !table.known {
            *table = TablePage {
                known: true,
                mixed: false,
                level: visit.level,
                stores: 0,
                bits: visit.bits,
                data: 0,
                fetch: 0,
                base: visit.base,
            };
            mem.mark_table(visit.page as usize);
        } else if (table.level, table.base, table.bits) != (visit.level, visit.base, visit.bits) {
            table.mixed = true;
        }
        table.data |= data;
        table.fetch |= fetch;
    }

    /// Where the instruction parcel at `va` is; cached if all of its page may be
    /// executed.
    pub(crate) fn fetch(&mut self, mem: &mut Memory, va: u64) -> Result<Fetch, WalkFault> {
        let offset = va & (PAGE_BYTES as u64 - 1);
        if let Some(page) = self.fetch_tlb().fetch(va) {
            let pa = RAM_BASE + (u64::from(page) << PAGE_SHIFT) + offset;
            return Ok(Fetch { pa, page: true });
        }
        let space = self.fetch.space();
        let pa = if space.is_bare() {
            va
        } else {
            self.walk(mem, &space, va, Access::Fetch)?.pa
        };
        let pmp = &self.pmp_maps[usize::from(space.pmp)];
        let whole = pmp.page(page_of(pa));
        let allowed = whole.unwrap_or_else(|| pmp.allowed(pa, 2));
        if allowed & perm::X == 0 {
            return Err(WalkFault::Access);
        }
        if whole.is_none() || !mem.contains(pa, 2) {
            return Ok(Fetch { pa, page: false });
        }
        let page = ((pa - RAM_BASE) >> PAGE_SHIFT) as u32;
        self.fetch.tlb_mut().set_fetch(va, page);
        Ok(Fetch { pa, page: true })
    }

    /// Dropped fetch translations have been taken notice of.
    pub(crate) fn fetch_seen(&mut self) {
        self.fetch_dropped = false;
    }

    /// Physical address of a load or store of `len` bytes at `va`, within one page;
    /// caches what may be done in all of the page, if it is RAM.
    pub(crate) fn data(
        &mut self,
        mem: &mut Memory,
        va: u64,
        len: usize,
        access: Access,
    ) -> Result<u64, WalkFault> {
        let space = self.data.space();
        let translation = if space.is_bare() {
            Translation {
                pa: va,
                load: true,
                store: true,
            }
        } else {
            self.walk(mem, &space, va, access)?
        };
        let pa = translation.pa;
        let pmp = &self.pmp_maps[usize::from(space.pmp)];
        let whole = pmp.page(page_of(pa));
        let allowed = whole.unwrap_or_else(|| pmp.allowed(pa, len as u64));
        if allowed & access.perm() == 0 {
            return Err(WalkFault::Access);
        }
        if whole.is_some() && mem.contains(page_of(pa), PAGE_BYTES as u64) {
            let page = ((pa - RAM_BASE) >> PAGE_SHIFT) as usize;
            let load = translation.load && allowed & perm::R != 0;
            let writable = load && translation.store && allowed & perm::W != 0;
            let store = writable && mem.claim_write_tag(page);
            let offset = (page as u64) << PAGE_SHIFT;
            if store {
                self.write_tags.note(mem, page as u32, va);
            }
            let entry = DataEntry::new(va, offset, mem.host_address(), load, store);
            self.data.tlb_mut().set(va, entry);
        }
        Ok(pa)
    }

    /// Physical address of an access that the cached translation allows, though the
    /// fast path refused it (misaligned, or an atomic).
    pub(crate) fn cached(&self, va: u64, access: Access) -> Option<u64> {
        let entry = self.data_tlb().data(va);
        let tag = match access {
            Access::Load => entry.load,
            Access::Store => entry.store,
            Access::Fetch => return None,
        };
        (tag == page_of(va)).then(|| RAM_BASE + entry.offset + (va & (PAGE_BYTES as u64 - 1)))
    }

    /// After a slow store: the page may take fast stores now. Only for the
    /// translation that [`Mmu::data`] has just made for `va`.
    pub(crate) fn upgrade_store(&mut self, mem: &mut Memory, va: u64, pa: u64) {
        let entry = self.data_tlb().data(va);
        if !mem.contains(pa, 1) {
            return;
        }
        let page = ((pa - RAM_BASE) >> PAGE_SHIFT) as usize;
        let known = entry.load == page_of(va) && entry.offset == (page as u64) << PAGE_SHIFT;
        if known && mem.claim_write_tag(page) {
            self.write_tags.note(mem, page as u32, va);
            let entry = DataEntry {
                store: page_of(va),
                ..entry
            };
            self.data.tlb_mut().set(va, entry);
        }
    }
}

//! RAM bytes and page states.

mod compare;

use crate::digest::PageHashes;
use crate::ram::Ram;
use crate::snapshot::{SnapshotBusy, SnapshotReader};
use crate::{MAX_RAM_BYTES, MemoryDigest, PAGE_BYTES, PAGE_SHIFT, RAM_BASE};
use std::ops::Range;

/// Bits of a page's state byte. A fast store is allowed only while it is zero.
pub mod state {
    /// Decoded instructions exist for some chunk of the page.
    pub const CODE: u8 = 1;
    /// The page-table walker has read an entry of the page.
    pub const TABLE: u8 = 2;
    /// The page's hash is current.
    pub const HASHED: u8 = 4;
    /// A snapshot wants the page as it is: the first store copies it aside.
    pub const COW: u8 = 8;
    /// Nobody has stored to the page since power-on, reset or restore: it is all zero. The
    /// first store clears it, and nothing sets it again.
    pub const FRESH: u8 = 16;
    /// The page is as [`Memory::mark_loaded`](crate::Memory::mark_loaded) found it, which the
    /// first store ends: snapshots name it and leave its content out.
    pub const LOADED: u8 = 32;
    /// Of each page of RAM that has just been made or zeroed.
    pub(crate) const ZEROED: u8 = HASHED | FRESH;
    /// What any store to the page ends.
    pub(crate) const UNSTORED: u8 = HASHED | FRESH | LOADED;
}

/// The requested RAM size cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemError {
    /// Zero, above [`MAX_RAM_BYTES`], or not a multiple of the page size.
    #[error(
        "memory of {0} bytes: expected a multiple of 4096 between 4096 and {MAX_RAM_BYTES} bytes"
    )]
    Size(u64),
    /// The host has no such amount of address space or memory.
    #[error("memory of {0} bytes: this host cannot provide it; choose a smaller size")]
    Host(u64),
}

/// A physical access that is not wholly inside RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("physical address {pa:#x} (+{len}) is outside RAM")]
pub struct OutOfRam {
    /// First byte of the access.
    pub pa: u64,
    /// Length of the access in bytes.
    pub len: u64,
}

/// What an engine must undo before the next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A chunk with decoded code in this page was stored to; the page's CODE
    /// state has been cleared.
    Code {
        /// Page index from the start of RAM.
        page: u32,
    },
    /// Valid page-table entries of this page were overwritten.
    Table {
        /// Page index from the start of RAM.
        page: u32,
        /// First entry (8 bytes each) touched.
        first: u16,
        /// Last entry touched.
        last: u16,
    },
    /// Fast write tags of this page must go: its state byte became non-zero.
    WriteTags {
        /// Page index from the start of RAM.
        page: u32,
    },
    /// All fast write tags must go: a snapshot began.
    AllWriteTags,
    /// Everything derived from RAM must go (reset or restore).
    Everything,
}

/// Guest RAM. See the crate's documentation for the rules of stores.
pub struct Memory {
    ram: Ram,
    /// Bit n: the page's 64-byte chunk n holds decoded code.
    code_chunks: Vec<u64>,
    /// True while some engine may hold a fast write tag of the page.
    write_tagged: Vec<bool>,
    hashes: PageHashes,
    changes: Vec<Change>,
}

impl Memory {
    /// RAM of `ram_bytes` zero bytes.
    pub fn new(ram_bytes: u64) -> Result<Self, MemError> {
        if ram_bytes == 0
            || ram_bytes > MAX_RAM_BYTES
            || !ram_bytes.is_multiple_of(PAGE_BYTES as u64)
        {
            return Err(MemError::Size(ram_bytes));
        }
        let len = usize::try_from(ram_bytes).map_err(|_| MemError::Host(ram_bytes))?;
        let pages = len / PAGE_BYTES;
        Ok(Self {
            ram: Ram::zeroed(pages, state::ZEROED).ok_or(MemError::Host(ram_bytes))?,
            code_chunks: vec![0; pages],
            write_tagged: vec![false; pages],
            hashes: PageHashes::new(pages),
            changes: Vec::new(),
        })
    }

    /// Zeroes all RAM, as at power-on. Raises [`Change::Everything`].
    pub fn clear(&mut self) {
        self.ram.zero(state::ZEROED);
        self.forget();
    }

    #[cfg(test)]
    pub(crate) fn clear_in_place(&mut self) {
        self.ram.zero_in_place(state::ZEROED);
        self.forget();
    }

    /// Forgets what was known about each page; all RAM is zero.
    fn forget(&mut self) {
        let pages = self.pages();
        self.code_chunks = vec![0; pages];
        self.write_tagged = vec![false; pages];
        self.hashes.clear();
        self.changes.clear();
        self.changes.push(Change::Everything);
    }

    /// Size of RAM in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.ram.bytes().len() as u64
    }

    /// Where RAM lies in this process, until the next [`Change::Everything`]: for
    /// translated code, which keeps the rules of [`Memory::load_at`] and of
    /// [`Memory::store_tagged`].
    pub fn host_address(&self) -> u64 {
        self.ram.bytes().as_ptr().expose_provenance() as u64
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.ram.pages()
    }

    /// Bytes of the pages that anybody has stored to since power-on, reset or restore, whatever
    /// was stored: the hart, a device, the page-table walker, whoever loaded an image. A restore
    /// stores the pages that its snapshot holds, which are those that were not all zero. Goes
    /// through the state bytes, not through RAM.
    pub fn touched_bytes(&self) -> u64 {
        let touched = self.ram.touched_pages();
        touched as u64 * PAGE_BYTES as u64
    }

    /// True if `len` bytes at `pa` are all RAM.
    #[inline]
    pub fn contains(&self, pa: u64, len: u64) -> bool {
        let offset = pa.wrapping_sub(RAM_BASE);
        let size = self.ram.bytes().len() as u64;
        offset < size && len <= size - offset
    }

    #[inline]
    fn offset(&self, pa: u64, len: usize) -> Result<usize, OutOfRam> {
        if self.contains(pa, len as u64) {
            Ok((pa - RAM_BASE) as usize)
        } else {
            Err(OutOfRam {
                pa,
                len: len as u64,
            })
        }
    }

    /// Copies RAM at `pa` to `out`.
    pub fn read(&self, pa: u64, out: &mut [u8]) -> Result<(), OutOfRam> {
        let at = self.offset(pa, out.len())?;
        out.copy_from_slice(&self.ram.bytes()[at..at + out.len()]);
        Ok(())
    }

    /// The bytes at `pa`, borrowed.
    pub fn slice(&self, pa: u64, len: usize) -> Result<&[u8], OutOfRam> {
        let at = self.offset(pa, len)?;
        Ok(&self.ram.bytes()[at..at + len])
    }

    /// The content of a page by index from the start of RAM.
    pub fn page(&self, page: usize) -> Option<&[u8]> {
        let at = page.checked_mul(PAGE_BYTES)?;
        self.ram.bytes().get(at..at.checked_add(PAGE_BYTES)?)
    }

    /// Loads 2 bytes, little-endian; alignment doesn't matter.
    pub fn load_u16(&self, pa: u64) -> Result<u16, OutOfRam> {
        let mut b = [0; 2];
        self.read(pa, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    /// Loads 4 bytes, little-endian; alignment doesn't matter.
    pub fn load_u32(&self, pa: u64) -> Result<u32, OutOfRam> {
        let mut b = [0; 4];
        self.read(pa, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Loads 8 bytes, little-endian; alignment doesn't matter.
    pub fn load_u64(&self, pa: u64) -> Result<u64, OutOfRam> {
        let mut b = [0; 8];
        self.read(pa, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// The store that everyone uses: keeps all page states true and records
    /// what an engine must drop ([`Memory::take_changes`]). All or nothing.
    pub fn store(&mut self, pa: u64, data: &[u8]) -> Result<(), OutOfRam> {
        let at = self.offset(pa, data.len())?;
        let mut done = 0;
        while done < data.len() {
            let start = at + done;
            let in_page = start & (PAGE_BYTES - 1);
            let take = (PAGE_BYTES - in_page).min(data.len() - done);
            let page = start >> PAGE_SHIFT;
            if self.ram.state(page) != 0 {
                self.before_store(page, in_page, take);
            }
            self.ram.store_released(start, &data[done..done + take]);
            done += take;
        }
        Ok(())
    }

    /// Stores 2 bytes, little-endian.
    pub fn store_u16(&mut self, pa: u64, value: u16) -> Result<(), OutOfRam> {
        self.store(pa, &value.to_le_bytes())
    }

    /// Stores 4 bytes, little-endian.
    pub fn store_u32(&mut self, pa: u64, value: u32) -> Result<(), OutOfRam> {
        self.store(pa, &value.to_le_bytes())
    }

    /// Stores 8 bytes, little-endian.
    pub fn store_u64(&mut self, pa: u64, value: u64) -> Result<(), OutOfRam> {
        self.store(pa, &value.to_le_bytes())
    }

    /// Sets accessed and dirty bits in an entry (`pa` is a multiple of 8), on behalf of
    /// the walker. The translation itself is unchanged, so nothing derived from it is dropped.
    pub fn store_walk_bits(&mut self, pa: u64, entry: u64) -> Result<(), OutOfRam> {
        let at = self.offset(pa, 8)?;
        let page = at >> PAGE_SHIFT;
        if self.ram.state(page) & state::CODE != 0 {
            self.before_code_store(page, at & (PAGE_BYTES - 1), 8);
        }
        self.copy_aside(page);
        self.ram.clear(page, state::UNSTORED);
        self.ram.store_released(at, &entry.to_le_bytes());
        Ok(())
    }

    #[cold]
    fn before_store(&mut self, page: usize, in_page: usize, len: usize) {
        self.copy_aside(page);
        self.ram.clear(page, state::UNSTORED);
        if self.ram.state(page) & state::CODE != 0 {
            self.before_code_store(page, in_page, len);
        }
        if self.ram.state(page) & state::TABLE != 0 {
            let (first, last) = (in_page / 8, (in_page + len - 1) / 8);
            let base = page << PAGE_SHIFT;
            let any_valid = (first..=last).any(|entry| self.ram.bytes()[base + entry * 8] & 1 != 0);
            if any_valid {
                self.changes.push(Change::Table {
                    page: page as u32,
                    first: first as u16,
                    last: last as u16,
                });
            }
        }
    }

    fn before_code_store(&mut self, page: usize, in_page: usize, len: usize) {
        if self.code_chunks[page] & chunk_mask(in_page, len) != 0 {
            self.code_chunks[page] = 0;
            self.ram.clear(page, state::CODE);
            self.changes.push(Change::Code { page: page as u32 });
        }
    }

    // ---- what engines use -------------------------------------------------

    /// Loads `N` bytes at a RAM offset that the engine knows from a translation.
    /// `None` if the offset is not inside RAM.
    #[inline(always)]
    pub fn load_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.ram.bytes().get(offset..)?.first_chunk::<N>().copied()
    }

    /// The fast store, for aligned values under a write tag from
    /// [`Memory::claim_write_tag`]. Returns false, and nothing is stored, if the page's
    /// state byte is not zero (the tag should have been withdrawn) or there is no such
    /// RAM; [`Memory::store`] is always right.
    #[inline(always)]
    pub fn store_tagged<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> bool {
        let stored = self.ram.store_clean(offset, value);
        debug_assert!(
            stored || self.ram.state_of(offset >> PAGE_SHIFT).unwrap_or(0) == 0,
            "fast store to a tagged page"
        );
        stored
    }

    /// Asks for a fast write tag of a page: granted while its state byte is 0.
    pub fn claim_write_tag(&mut self, page: usize) -> bool {
        let granted = self.ram.state_of(page) == Some(0);
        if granted {
            self.write_tagged[page] = true;
        }
        granted
    }

    /// State byte of a page (see [`state`]).
    pub fn page_state(&self, page: usize) -> u8 {
        self.ram.state_of(page).unwrap_or(0)
    }

    /// Notes that `len` bytes at `pa` have been decoded.
    pub fn mark_code(&mut self, pa: u64, len: usize) {
        if let Ok(at) = self.offset(pa, len.max(1)) {
            let page = at >> PAGE_SHIFT;
            self.code_chunks[page] |= chunk_mask(at & (PAGE_BYTES - 1), len.max(1));
            self.set_state(page, state::CODE);
        }
    }

    /// The engine has dropped all it decoded from the page.
    pub fn clear_code(&mut self, page: usize) {
        self.code_chunks[page] = 0;
        self.ram.clear(page, state::CODE);
    }

    /// Notes that the walker has read an entry of the page.
    pub fn mark_table(&mut self, page: usize) {
        self.set_state(page, state::TABLE);
    }

    /// Nothing derived from the page's entries is cached any more.
    pub fn clear_table(&mut self, page: usize) {
        self.ram.clear(page, state::TABLE);
    }

    #[inline]
    fn set_state(&mut self, page: usize, bit: u8) {
        self.ram.set(page, bit);
        if self.write_tagged[page] {
            self.write_tagged[page] = false;
            self.changes.push(Change::WriteTags { page: page as u32 });
        }
    }

    /// True if an engine has something to drop.
    #[inline(always)]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Hands over what must be dropped, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    // ---- snapshot and digest ----------------------------------------------

    /// The order-free sum of page hashes; rehashes only pages stored to since
    /// the last call. Withdraws write tags of the pages it hashes.
    pub fn digest(&mut self) -> MemoryDigest {
        for page in 0..self.pages() {
            if self.ram.state(page) & state::HASHED == 0 {
                self.hashes.update(page, self.ram.page(page));
                self.set_state(page, state::HASHED);
            }
        }
        self.hashes.sum()
    }

    /// Puts a page in place while a snapshot is restored (the RAM was cleared
    /// before). Returns false if the page or its length doesn't exist.
    #[must_use]
    pub fn restore_page(&mut self, page: u32, bytes: &[u8]) -> bool {
        let page = page as usize;
        if bytes.len() != PAGE_BYTES || page >= self.pages() {
            return false;
        }
        self.copy_aside(page);
        self.ram.clear(page, state::UNSTORED);
        self.ram.store_released(page << PAGE_SHIFT, bytes);
        // Hashed while it is at hand: the first digest need not read all RAM at once.
        self.hashes.update(page, bytes);
        self.ram.set(page, state::HASHED);
        true
    }

    /// The content of these pages can be had again without a snapshot: what boots has just been
    /// loaded there. Snapshots leave out those of them that nobody has stored to since
    /// ([`SnapshotReader::loaded`]). Pages that nobody has ever stored to are not meant.
    pub fn mark_loaded(&mut self, pages: Range<u32>) {
        for page in pages.start as usize..(pages.end as usize).min(self.pages()) {
            if self.ram.state(page) & state::FRESH == 0 {
                self.set_state(page, state::LOADED);
            }
        }
    }

    /// Freezes the content of RAM: the reader has it, on any thread, while the guest
    /// goes on. Several snapshots may be in progress ([`crate::MAX_SNAPSHOTS`]).
    ///
    /// The guest's pause is this call: few passes over the state bytes, of which a
    /// gigabyte of RAM has 256 KiB.
    pub fn begin_snapshot(&mut self) -> Result<SnapshotReader, SnapshotBusy> {
        let reader = self.ram.begin()?;
        self.write_tagged.fill(false);
        self.changes.push(Change::AllWriteTags);
        Ok(reader)
    }

    /// A page is about to be stored to: keeps it if a snapshot still wants it.
    #[inline]
    fn copy_aside(&mut self, page: usize) {
        let state = self.ram.state(page);
        if state & state::COW != 0 {
            let known_zero = state & state::HASHED != 0 && self.hashes.is_zero(page);
            self.ram.release(page, known_zero);
        }
    }
}

fn chunk_mask(in_page: usize, len: usize) -> u64 {
    let (first, last) = (in_page / 64, (in_page + len - 1) / 64);
    let upto_last = if last >= 63 {
        u64::MAX
    } else {
        (1 << (last + 1)) - 1
    };
    upto_last & !((1u64 << first) - 1)
}

/// Whether a whole page is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes == [0; PAGE_BYTES]
}

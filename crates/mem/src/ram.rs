//! The bytes of RAM, the state byte of each page, and who may read them when.
//!
//! One thread owns a [`Ram`]: the guest's. It alone writes, and it alone changes
//! state bytes. The readers of snapshots are on other threads. What keeps them apart
//! is the page's state bit [`state::COW`]:
//!
//! * [`Ram::begin`] sets it on all pages that a snapshot wants. The others are known without
//!   it ([`state::FRESH`], [`state::LOADED`]), and no reader reads them.
//! * While it is set, nothing writes to the page: every write in this file looks.
//! * [`Ram::release`] clears it, after no reader reads the page nor ever will
//!   ([`Shared::keep`]).
//!
//! So a reader may read any page it has claimed, and needs no lock to do it.

#![allow(unsafe_code)]

use crate::host::Mapping;
use crate::memory::state;
use crate::snapshot::{MAX_SNAPSHOTS, Shared, SnapshotBusy, SnapshotReader};
use crate::{PAGE_BYTES, PAGE_SHIFT};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// The most runs of loaded pages that a snapshot names: a guest that stores to every second page
/// must not make snapshots with more names than content.
pub(crate) const MAX_LOADED_RUNS: usize = 4096;
/// State bytes that are looked at together.
const CHUNK: usize = 64;

/// See the module's documentation.
pub(crate) struct Ram {
    /// The mapping's first byte and length, at hand.
    base: NonNull<u8>,
    len: usize,
    mapping: Arc<Mapping>,
    state: Vec<u8>,
    /// Snapshots whose readers may still read `mapping`. A reader that is not here
    /// reads another mapping, or has ended.
    snapshots: Vec<Arc<Shared>>,
}

// SAFETY: `base` points into `mapping`, which this value keeps; what is reached through
// it is bytes.
unsafe impl Send for Ram {}
// SAFETY: through a shared reference RAM is only read. Writes need `&mut`.
unsafe impl Sync for Ram {}

impl Ram {
    /// `pages` pages of zero bytes, each in state `initial`; `None` if the host has not
    /// that much.
    pub(crate) fn zeroed(pages: usize, initial: u8) -> Option<Self> {
        let mapping = Arc::new(Mapping::zeroed(pages.checked_mul(PAGE_BYTES)?)?);
        Some(Self {
            base: mapping.base(),
            len: mapping.len(),
            mapping,
            state: vec![initial & !state::COW; pages],
            snapshots: Vec::new(),
        })
    }

    /// All RAM.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has `len` initialised bytes and lives as long as `self`.
        // While this borrow lives nobody writes: only `&mut self` methods do, and
        // readers of snapshots only read.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// One page; the number must be one of RAM's.
    pub(crate) fn page(&self, page: usize) -> &[u8] {
        &self.bytes()[page << PAGE_SHIFT..][..PAGE_BYTES]
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.state.len()
    }

    /// State byte of a page that exists.
    #[inline(always)]
    pub(crate) fn state(&self, page: usize) -> u8 {
        self.state[page]
    }

    /// State byte of a page, if there is such a page.
    pub(crate) fn state_of(&self, page: usize) -> Option<u8> {
        self.state.get(page).copied()
    }

    /// Number of pages that were stored to.
    pub(crate) fn touched_pages(&self) -> usize {
        let touched = |state: &&u8| **state & state::FRESH == 0;
        self.state.iter().filter(touched).count()
    }

    /// Sets bits other than COW.
    pub(crate) fn set(&mut self, page: usize, bits: u8) {
        self.state[page] |= bits & !state::COW;
    }

    /// Clears bits other than COW.
    pub(crate) fn clear(&mut self, page: usize, bits: u8) {
        self.state[page] &= !bits | state::COW;
    }

    /// Stores to a page whose state byte is 0; false, and nothing stored, if it isn't,
    /// or if the bytes are not all in one page of RAM.
    #[inline(always)]
    pub(crate) fn store_clean<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> bool {
        const { assert!(N <= PAGE_BYTES) };
        let clean = self.state.get(offset >> PAGE_SHIFT) == Some(&0);
        if !clean || offset & (PAGE_BYTES - 1) > PAGE_BYTES - N {
            return false;
        }
        // SAFETY: the page has a state byte, so it lies in the mapping, and so do N
        // bytes that don't leave it. `&mut self`: no borrow of RAM lives. The COW bit
        // is clear: no reader reads this page. A byte array has no alignment.
        unsafe {
            self.base
                .as_ptr()
                .add(offset)
                .cast::<[u8; N]>()
                .write(value)
        };
        true
    }

    /// Stores bytes that are all in one page, which was released before.
    pub(crate) fn store_released(&mut self, offset: usize, data: &[u8]) {
        let page = offset >> PAGE_SHIFT;
        assert!(
            self.state[page] & state::COW == 0
                && data.len() <= PAGE_BYTES - (offset & (PAGE_BYTES - 1)),
            "a store to a page that a snapshot may be reading"
        );
        // SAFETY: as in `store_clean`; `data` can't overlap RAM, which is borrowed
        // exclusively.
        unsafe {
            let place = self.base.as_ptr().add(offset);
            place.copy_from_nonoverlapping(data.as_ptr(), data.len());
        }
    }

    /// The page is about to change: keeps its content for the snapshots that want it.
    /// `zero`: it is known to be all zero.
    #[cold]
    pub(crate) fn release(&mut self, page: usize, zero: bool) {
        self.snapshots.retain(|snapshot| !snapshot.is_over());
        for snapshot in &self.snapshots {
            snapshot.keep(page, self.page(page), zero);
        }
        self.state[page] &= !state::COW;
    }

    /// Begins a snapshot of RAM as it is.
    pub(crate) fn begin(&mut self) -> Result<SnapshotReader, SnapshotBusy> {
        self.snapshots.retain(|snapshot| !snapshot.is_over());
        if self.snapshots.len() >= MAX_SNAPSHOTS {
            return Err(SnapshotBusy);
        }
        let loaded = self.loaded_runs();
        for state in &mut self.state {
            *state |= if is_wanted(*state) { state::COW } else { 0 };
        }
        let wanted = self.state.iter().map(|state| is_wanted(*state));
        let shared = Arc::new(Shared::new(Arc::clone(&self.mapping), wanted));
        self.snapshots.push(Arc::clone(&shared));
        Ok(SnapshotReader::new(shared, loaded))
    }

    /// The pages that are as they were loaded, in order. What is behind the last run that may be
    /// named is no longer known to be so.
    fn loaded_runs(&mut self) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for (n, pages) in self.state.chunks_mut(CHUNK).enumerate() {
            // Mostly there are none, and that is quickly seen.
            if pages.iter().fold(0, |any, state| any | state) & state::LOADED == 0 {
                continue;
            }
            for (page, state) in (n * CHUNK..).zip(pages) {
                let page = page as u32;
                if *state & state::LOADED == 0 {
                    continue;
                }
                let full = runs.len() == MAX_LOADED_RUNS;
                match runs.last_mut() {
                    Some(run) if run.end == page => run.end += 1,
                    _ if full => *state &= !state::LOADED,
                    _ => runs.push(page..page + 1),
                }
            }
        }
        runs
    }

    /// Zeroes all RAM; each page is in state `initial` afterwards.
    ///
    /// Snapshots in progress keep the old memory to themselves.
    pub(crate) fn zero(&mut self, initial: u8) {
        match Self::zeroed(self.pages(), initial) {
            Some(fresh) => *self = fresh,
            None => self.zero_in_place(initial),
        }
    }

    /// The same without new memory.
    pub(crate) fn zero_in_place(&mut self, initial: u8) {
        for page in 0..self.pages() {
            if self.state[page] & state::COW != 0 {
                self.release(page, false);
            }
            self.store_released(page << PAGE_SHIFT, &[0; PAGE_BYTES]);
            self.state[page] = initial & !state::COW;
        }
    }
}

/// Whether a snapshot has to hold the content of a page with this state byte.
fn is_wanted(state: u8) -> bool {
    state & (state::FRESH | state::LOADED) == 0
}

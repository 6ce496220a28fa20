//! Copy-on-write snapshots: the pages as they were at one moment, read while the
//! guest goes on.

use std::collections::BTreeMap;

use crate::memory::{Change, Memory, is_zero, state};
use crate::{PAGE_BYTES, PAGE_SHIFT};

/// A snapshot in progress: copies of pages that were stored to since it began.
///
/// Bounded by the number of pages: each is copied at most once per snapshot.
#[derive(Default)]
pub(crate) struct PageCopies {
    aside: BTreeMap<u32, Box<[u8]>>,
    /// The next page to hand out; `None` if no snapshot is in progress.
    next: Option<usize>,
}

impl Memory {
    /// Freezes the content of RAM for [`Memory::snapshot_page`]. A snapshot that is
    /// still in progress ends.
    pub fn begin_snapshot(&mut self) {
        self.end_snapshot();
        for page in 0..self.pages() {
            // Pages known to be zero are not part of a snapshot; a store to one
            // that was must not count, so they are marked all the same.
            self.state[page] |= state::COW;
        }
        self.write_tagged.fill(false);
        self.changes.push(Change::AllWriteTags);
        self.copies.next = Some(0);
    }

    /// The next page of the snapshot that is not all zero, in order of page number;
    /// `None` when there are no more, which ends the snapshot.
    pub fn snapshot_page(&mut self, out: &mut Vec<u8>) -> Option<u32> {
        let mut page = self.copies.next?;
        while page < self.pages() {
            if self.state[page] & state::COW != 0 {
                self.state[page] &= !state::COW;
                let known_zero = self.state[page] & state::HASHED != 0 && self.hashes.is_zero(page);
                let at = page << PAGE_SHIFT;
                let bytes = &self.bytes[at..at + PAGE_BYTES];
                if !known_zero && !is_zero(bytes) {
                    out.extend_from_slice(bytes);
                    self.copies.next = Some(page + 1);
                    return Some(page as u32);
                }
            } else if let Some(bytes) = self.copies.aside.remove(&(page as u32)) {
                out.extend_from_slice(&bytes);
                self.copies.next = Some(page + 1);
                return Some(page as u32);
            }
            page += 1;
        }
        self.end_snapshot();
        None
    }

    /// Gives a snapshot up.
    pub fn end_snapshot(&mut self) {
        if self.copies.next.take().is_some() {
            for state in &mut self.state {
                *state &= !state::COW;
            }
            self.copies.aside.clear();
        }
    }

    /// A page is about to be stored to: keeps it if a snapshot still wants it.
    #[inline]
    pub(crate) fn copy_aside(&mut self, page: usize) {
        if self.state[page] & state::COW != 0 {
            self.state[page] &= !state::COW;
            let at = page << PAGE_SHIFT;
            let bytes = &self.bytes[at..at + PAGE_BYTES];
            if !is_zero(bytes) {
                self.copies.aside.insert(page as u32, bytes.into());
            }
        }
    }
}

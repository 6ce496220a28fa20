//! Snapshots: the pages as they were at one moment, read by another thread while the
//! guest goes on.
//!
//! Each page of a snapshot has a claim, which goes one way only:
//!
//! ```text
//!            reader: it is next          reader: it is copied
//!   WANTED ----------------------> READING ----------------------> DONE
//!      |                                                             ^
//!      +-------------------------------------------------------------+
//!            guest: its first store copies the page aside
//! ```
//!
//! Pages that nobody has ever stored to are zero, and those that are as they were loaded can be
//! loaded again: both begin as DONE, and no reader looks at them.
//!
//! A guest that stores to a page just being read waits for the copy's end, a few
//! hundred nanoseconds.

#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::{Mapping, give_way};
use crate::memory::is_zero;
use crate::{PAGE_BYTES, PAGE_SHIFT};

/// Snapshots in progress at one time: one for a joining node, one for a person, and
/// some whose readers have not yet noticed that nobody wants them any more.
pub const MAX_SNAPSHOTS: usize = 8;

const WANTED: u8 = 0;
const READING: u8 = 1;
const DONE: u8 = 2;
/// Looks at a claim before the reader is given the core: longer than a copy takes.
const SPINS: u32 = 1000;

/// More snapshots than may be in progress at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SNAPSHOTS} snapshots of this machine are being taken: wait until one is complete")]
pub struct SnapshotBusy;

/// What the guest's thread and a snapshot's reader have in common.
pub(crate) struct Shared {
    mapping: Arc<Mapping>,
    claims: Box<[AtomicU8]>,
    aside: Mutex<Aside>,
    /// The most bytes that ever waited aside.
    aside_peak_bytes: AtomicUsize,
    /// The reader has ended: it reads nothing more.
    over: AtomicBool,
}

/// Pages that the guest has copied and the reader has not yet taken. At most each page
/// of RAM once.
#[derive(Default)]
struct Aside {
    pages: Vec<(u32, Box<[u8]>)>,
    closed: bool,
}

impl Shared {
    /// `wanted` says of each page of the mapping whether the snapshot wants it.
    pub(crate) fn new(mapping: Arc<Mapping>, wanted: impl Iterator<Item = bool>) -> Self {
        let claim = |wanted| AtomicU8::new(if wanted { WANTED } else { DONE });
        Self {
            mapping,
            claims: wanted.map(claim).collect(),
            aside: Mutex::default(),
            aside_peak_bytes: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn aside(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reader has ended.
    pub(crate) fn is_over(&self) -> bool {
        // Acquire: its last reads come before whatever the guest's thread does next.
        self.over.load(Ordering::Acquire)
    }

    /// Guest's side: `page`, with this content, is about to change. On return the reader
    /// doesn't read it and never will.
    pub(crate) fn keep(&self, page: usize, bytes: &[u8], zero: bool) {
        let claim = &self.claims[page];
        {
            // The claim changes under the lock: a reader that has found no page wanted
            // finds all that were copied aside.
            let mut aside = self.aside();
            let taken = claim.compare_exchange(WANTED, DONE, Ordering::Relaxed, Ordering::Acquire);
            match taken {
                Ok(_) => {
                    if !zero && !aside.closed && !is_zero(bytes) {
                        aside.pages.push((page as u32, bytes.into()));
                        let waiting = aside.pages.len() * PAGE_BYTES;
                        self.aside_peak_bytes.fetch_max(waiting, Ordering::Relaxed);
                    }
                    return;
                }
                Err(DONE) => return,
                Err(_) => {}
            }
        }
        let mut looks = 0u32;
        // Acquire: the reader's copy comes before the guest's store.
        while claim.load(Ordering::Acquire) == READING && !self.is_over() {
            looks += 1;
            if looks.is_multiple_of(SPINS) {
                give_way();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Reads the pages of a snapshot, on any thread. Dropping it gives the snapshot up and
/// frees what was copied for it.
pub struct SnapshotReader {
    shared: Arc<Shared>,
    /// Pages before this one are claimed by somebody.
    next: usize,
    /// Taken from those aside, not yet handed out.
    taken: Vec<(u32, Box<[u8]>)>,
    loaded: Vec<Range<u32>>,
}

impl SnapshotReader {
    pub(crate) fn new(shared: Arc<Shared>, loaded: Vec<Range<u32>>) -> Self {
        Self {
            shared,
            next: 0,
            taken: Vec::new(),
            loaded,
        }
    }

    /// Pages that [`next_page`](Self::next_page) leaves out because they are as they were loaded
    /// ([`Memory::mark_loaded`](crate::Memory::mark_loaded)), in order.
    pub fn loaded(&self) -> &[Range<u32>] {
        &self.loaded
    }

    /// Appends the content of a page that was not all zero, nor is one of [`loaded`](Self::loaded),
    /// and returns its number; `None` when there are no more. Each comes once: in order of number, but those
    /// that the guest has copied aside come first, so that few wait there.
    pub fn next_page(&mut self, out: &mut Vec<u8>) -> Option<u32> {
        // Memory is had before a page is claimed: the guest may wait for that one.
        out.reserve(PAGE_BYTES);
        loop {
            if self.taken.is_empty() {
                self.taken = std::mem::take(&mut self.shared.aside().pages);
            }
            if let Some((page, bytes)) = self.taken.pop() {
                out.extend_from_slice(&bytes);
                return Some(page);
            }
            // Most pages of a young guest are not wanted, and to pass one over costs next to
            // nothing: no look at those aside, no attempt to claim it.
            let wanted = |claim: &AtomicU8| claim.load(Ordering::Relaxed) == WANTED;
            let ahead = &self.shared.claims[self.next..];
            let Some(passed_over) = ahead.iter().position(wanted) else {
                self.next = self.shared.claims.len();
                // All were claimed before the last look at those aside? Look once more.
                if self.shared.aside().pages.is_empty() {
                    return None;
                }
                continue;
            };
            let page = self.next + passed_over;
            let claim = &self.shared.claims[page];
            self.next = page + 1;
            // Acquire is not needed to see the content: this thread got the reader after
            // the snapshot began, and the page has not changed since.
            let claimed =
                claim.compare_exchange(WANTED, READING, Ordering::Relaxed, Ordering::Relaxed);
            if claimed.is_err() {
                continue;
            }
            let found = !is_zero(self.claimed(page));
            if found {
                out.extend_from_slice(self.claimed(page));
            }
            // Release: the copy comes before the guest's store.
            claim.store(DONE, Ordering::Release);
            if found {
                return Some(page as u32);
            }
        }
    }

    /// A page whose claim says READING, by this reader.
    fn claimed(&self, page: usize) -> &[u8] {
        let at = page << PAGE_SHIFT;
        debug_assert!(at + PAGE_BYTES <= self.shared.mapping.len());
        // SAFETY: there is one claim per page of the mapping, so the page lies in it, and
        // `shared` keeps the mapping. Its bytes are initialised. Nobody writes to them
        // during this borrow: the page was wanted, so its COW bit was set when the snapshot
        // began, and that is cleared only by `Ram::release`, which waits in `Shared::keep` while the claim says
        // READING (the only other way out, a reader that is over, needs this reader
        // dropped).
        unsafe {
            let base = self.shared.mapping.base().as_ptr();
            std::slice::from_raw_parts(base.add(at), PAGE_BYTES)
        }
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The most bytes that have waited aside at one time so far.
    pub fn aside_peak_bytes(&self) -> usize {
        self.shared.aside_peak_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for SnapshotReader {
    fn drop(&mut self) {
        let mut aside = self.shared.aside();
        aside.closed = true;
        aside.pages = Vec::new();
        drop(aside);
        // Release: what was read comes before whatever the guest's thread does next.
        self.shared.over.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;

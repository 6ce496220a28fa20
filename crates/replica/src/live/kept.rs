//! What the live half keeps while somebody follows, so that the first thing that differs can be
//! named when the follower finds a difference.
//!
//! The follower stands still where it has found it; this side has gone on. So for each digest the
//! state of harts and devices is kept, with the hashes of the pages stored to since the digest
//! before (one that has changed and changed back may have been something else in between), and for
//! each anchor and output time and harts. Nothing is hashed for it and nothing encoded that the
//! digest doesn't. It is thrown away as soon as the follower has passed it, which it does only if
//! it is equal.

use super::{Live, LiveError};
use crate::HostTime;
use crate::compare::{PageTold, Told};
use std::collections::{BTreeMap, VecDeque};
use twinvm_log::StateEntry;
use twinvm_machine::{Machine, Moment};

/// Digests that are kept at most: a follower is a second behind, or has a queue of log that is
/// full.
const MAX_ENTRIES: usize = 64;
/// Hashes of pages that are kept at most, 16 bytes each.
const MAX_PAGES: usize = 1 << 20;
/// Anchors and outputs of which time and harts are kept at most, for a machine of one hart (1.2 KB each).
const MAX_MOMENTS: usize = 4096;
/// Moments whose memory is kept for the next ones: about as many as come between two words of a
/// follower that is close behind, and few enough to stay in the processor's cache.
const MAX_SPARE: usize = 64;

/// See the module's documentation.
pub(super) struct Kept {
    entries: VecDeque<StateEntry>,
    /// Hashes in them.
    pages: usize,
    moments: VecDeque<(u64, Moment)>,
    most_moments: usize,
    /// Moments that were passed, whose memory is used again.
    spare: Vec<Moment>,
}

impl Kept {
    /// Begins to keep. What follows has this machine's RAM.
    pub(super) fn new(machine: &mut Machine) -> Self {
        machine.note_stored_pages();
        machine.take_changed_pages();
        Self {
            entries: VecDeque::new(),
            pages: 0,
            moments: VecDeque::new(),
            spare: Vec::new(),
            most_moments: (MAX_MOMENTS / machine.config().harts.max(1) as usize).max(1),
        }
    }

    /// An anchor or output comes into the log at `position`; nothing has been done about it yet.
    pub(super) fn record(&mut self, position: u64, machine: &Machine) {
        if self.moments.len() >= self.most_moments {
            self.forget_moment();
        }
        let moment = match self.spare.pop() {
            Some(mut moment) => {
                machine.moment_into(&mut moment);
                moment
            }
            None => machine.moment(),
        };
        self.moments.push_back((position, moment));
    }

    fn forget_moment(&mut self) {
        if let Some((_, moment)) = self.moments.pop_front()
            && self.spare.len() < MAX_SPARE
        {
            self.spare.push(moment);
        }
    }

    /// A digest came into the log.
    pub(super) fn digest(&mut self, entry: StateEntry) {
        self.pages += entry.pages.len();
        self.entries.push_back(entry);
        while self.entries.len() > MAX_ENTRIES || self.pages > MAX_PAGES {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.pages -= entry.pages.len();
        }
    }

    /// The follower has applied all records before `position`, and found nothing.
    fn passed(&mut self, position: u64) {
        while self.entries.front().is_some_and(|e| e.position < position) {
            self.forget_first();
        }
        while self.moments.front().is_some_and(|(at, _)| *at < position) {
            self.forget_moment();
        }
    }

    fn entry(&self, position: u64) -> Option<&StateEntry> {
        self.entries.iter().find(|entry| entry.position == position)
    }

    /// Pages that were stored to between the digest before `position` and the last one, with their
    /// last hashes.
    fn stored_since(&self, position: u64) -> BTreeMap<u32, u64> {
        let later = self.entries.iter().filter(|e| e.position > position);
        later.flat_map(|e| e.pages.iter().copied()).collect()
    }
}

impl Live {
    /// Somebody follows from here on, with a copy of the machine as it is: keeps what it takes to
    /// name a difference.
    pub(crate) fn keep(&mut self) {
        self.kept = Some(Kept::new(&mut self.machine));
    }

    /// Nobody follows any more.
    pub(crate) fn forget_kept(&mut self) {
        self.kept = None;
    }

    /// The follower has applied all records before `position`.
    pub(crate) fn passed(&mut self, position: u64) {
        if let Some(kept) = &mut self.kept {
            kept.passed(position);
        }
    }

    /// What was true here at the record at `position`. If that is no digest, one is put into the
    /// log now: what has not changed until now was as it is then, too.
    pub(crate) fn tell(&mut self, position: u64, now: HostTime) -> Result<Told, LiveError> {
        let digest = |kept: &Kept| {
            kept.entry(position).map(|entry| Told {
                exact: true,
                whole: true,
                digest: entry.digest,
                state: entry.state.clone(),
                registers: Vec::new(),
                pages: entry.pages.clone(),
            })
        };
        if let Some(told) = self.kept.as_ref().and_then(digest) {
            return Ok(told);
        }
        if self.kept.is_none() {
            return Ok(Told::default());
        }
        self.log_digest(now)?;
        self.flush();
        let Some(kept) = &self.kept else {
            return Ok(Told::default());
        };
        let at = kept.moments.iter().find(|(at, _)| *at == position);
        Ok(Told {
            exact: false,
            whole: true,
            digest: 0,
            state: Vec::new(),
            registers: at.map_or_else(Vec::new, |(_, moment)| moment.state().encode()),
            pages: kept.stored_since(position).into_iter().collect(),
        })
    }

    /// What is known of a page at the record at `position`: its hash, and its content if that is
    /// still the same.
    pub(crate) fn tell_page(&self, position: u64, page: u32) -> PageTold {
        let unknown = PageTold {
            page,
            hash: None,
            bytes: None,
        };
        let (Some(kept), Some((now, last))) = (&self.kept, self.machine.page_content_hash(page))
        else {
            return unknown;
        };
        let entry = kept.entry(position);
        let at_entry = entry.and_then(|entry| {
            let index = entry.pages.binary_search_by_key(&page, |(page, _)| *page);
            Some(entry.pages.get(index.ok()?)?.1)
        });
        let hash = match at_entry {
            Some(hash) => hash,
            None if kept.stored_since(position).contains_key(&page) => return unknown,
            None => last as u64,
        };
        let same = now as u64 == hash;
        PageTold {
            page,
            hash: Some(hash),
            bytes: same
                .then(|| self.machine.page(page).map(<[u8]>::to_vec))
                .flatten(),
        }
    }
}

//! A node's copies of the machine's disks.

mod sync;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, never};
use twinvm_machine::DiskRequest;
use twinvm_protocol::{DiskMark, Generation, NoteLevel};
use twinvm_replica::{Event, Flush, Replica};

use super::{NodeLoop, NodeOptions};
use crate::disk::{DiskDone, DiskEvent, DiskOptions, DiskSet, Point, SetError};
use crate::journal::Journal;
use crate::store::NodeStore;

pub(super) use sync::DisksForSync;

/// What a disk's line of trouble says where nobody else has a copy.
const TOLD_TO_GUEST: &str = "; the guest gets an I/O error";
/// While disks are copied the journal says every so often how far that is: 10 s.
const TELL_NS: u64 = 10_000_000_000;

/// The disks at work.
pub(super) struct NodeDisks {
    /// None if the VM has no disks.
    set: Option<Arc<DiskSet>>,
    events: Receiver<DiskEvent>,
    /// Requests without a result yet.
    under_way: Arc<AtomicUsize>,
    /// So many of them are of a machine that is gone. As long as there are any, nothing is begun.
    stale: usize,
    /// What came meanwhile; bounded by what a machine may have in flight.
    waiting: VecDeque<DiskRequest>,
    /// The last moment that was named.
    point: Option<(u64, Point)>,
    /// A copy of disks was under way at the last look, and when the journal heard of it.
    told: Option<(bool, u64)>,
}

impl NodeDisks {
    /// Opens the disks of the node whose folder this is.
    pub(super) fn open(options: &NodeOptions, store: &NodeStore) -> Result<Self, SetError> {
        let mut disks = Self {
            set: None,
            events: never(),
            under_way: Arc::default(),
            stale: 0,
            waiting: VecDeque::new(),
            point: None,
            told: None,
        };
        if !options.disks.is_empty() {
            let how = DiskOptions {
                flush: options.flush != Flush::Never,
                sync_bytes_s: options.sync_bytes_s,
            };
            let set = DiskSet::open(store.folder(), options.disks.clone(), how)?;
            disks.events = set.events().clone();
            disks.set = Some(Arc::new(set));
        }
        Ok(disks)
    }

    /// The same disks for copies to and from the other node.
    pub(super) fn for_sync(&self) -> DisksForSync {
        DisksForSync::new(self.set.clone(), Arc::clone(&self.under_way))
    }

    /// What the copies here are worth.
    pub(super) fn mark(&self) -> DiskMark {
        let Some(set) = &self.set else {
            return DiskMark::NONE;
        };
        let whole = set.check_whole().is_ok();
        match set.mark() {
            None => DiskMark {
                consistent: whole,
                ..DiskMark::FRESH
            },
            Some(mark) => DiskMark {
                has_disks: true,
                generation: Generation(mark.generation),
                pending: mark.pending.map(Generation),
                consistent: mark.consistent && whole,
            },
        }
    }

    /// Stores the mark durably.
    pub(super) fn set_mark(&self, mark: DiskMark) -> Result<(), SetError> {
        let Some(set) = &self.set else {
            return Ok(());
        };
        if !mark.consistent {
            return set.set_inconsistent();
        }
        if set.mark().is_none() {
            // The VM's first start, from the files that are here.
            set.found()?;
        }
        // Else the protocol has been told, or is: from half a copy a person has had the VM started.
        if set.mark().is_some_and(|own| !own.consistent) {
            set.set_consistent()?;
        }
        set.set_generation(mark.generation.0, mark.pending.map(|pending| pending.0))
    }

    /// What announces results.
    pub(super) fn wakes(&self) -> &Receiver<DiskEvent> {
        &self.events
    }

    /// Has a request carried out.
    pub(super) fn submit(&mut self, request: DiskRequest) {
        if self.stale > 0 {
            self.waiting.push_back(request);
        } else if let Some(set) = &self.set {
            self.under_way.fetch_add(1, Ordering::Relaxed);
            set.submit(request);
        }
    }

    /// Makes durable what was written; `flush` is for the answer.
    pub(super) fn flush(&self, flush: u64) {
        if let Some(set) = &self.set {
            set.flush(flush);
        }
    }

    /// Names this moment, and makes durable what was written before it.
    pub(super) fn begin_point(&mut self, point: u64, flush: u64, in_flight: &[DiskRequest]) {
        if let Some(set) = &self.set {
            self.point = Some((point, set.begin_point(in_flight)));
            set.flush(flush);
        }
    }

    /// Both nodes have what was written before this moment.
    pub(super) fn clear_to(&mut self, point: u64) {
        if let (Some(set), Some((_, moment))) =
            (&self.set, self.point.take_if(|(own, _)| *own == point))
        {
            set.clear_to(moment);
        }
    }

    /// The copies here may differ from the other node's anywhere.
    pub(super) fn doubt(&self) -> Result<(), SetError> {
        self.set.as_ref().map_or(Ok(()), |set| set.doubt())
    }

    /// Whose requests these are is gone: their results mean nothing, and what comes waits for
    /// their end.
    pub(super) fn forget(&mut self) {
        self.stale = self.under_way.load(Ordering::Relaxed);
        self.waiting.clear();
    }

    /// One request has ended. False if its result means nothing any more.
    fn ended(&mut self) -> bool {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.stale == 0 {
            return true;
        }
        self.stale -= 1;
        if self.stale == 0 {
            for request in std::mem::take(&mut self.waiting) {
                self.submit(request);
            }
        }
        false
    }

    /// Tells the journal how far a copy of disks is.
    pub(super) fn look(&mut self, now_ns: u64, replica: &Replica, journal: &mut Journal) {
        // Asked for seldom: whoever copies holds what knows it.
        let recent = |(_, told_ns): (bool, u64)| now_ns.saturating_sub(told_ns) < TELL_NS;
        if replica.is_syncing() && self.told.is_some_and(recent) {
            return;
        }
        match (replica.sync_progress(), self.told) {
            (None, None) => {}
            (None, Some((out, _))) => {
                self.told = None;
                let whose = if out { "to" } else { "from" };
                journal.tell(
                    NoteLevel::Info,
                    "disks",
                    &format!("the copy of the disks {whose} the other node has ended"),
                );
            }
            // How much it is isn't known yet, or it is nothing.
            (Some((_, progress)), _) if progress.total_bytes.max(progress.done_bytes) == 0 => {}
            (Some((out, progress)), _) => {
                self.told = Some((out, now_ns));
                let whose = if out {
                    "to the joining node"
                } else {
                    "from the live node"
                };
                let (stage, done) = (progress.stage, progress.done_bytes >> 20);
                let text = match progress.total_bytes >> 20 {
                    0 => format!("disks {whose}: {stage}, {done} MiB so far"),
                    total => format!("disks {whose}: {stage}, {done} of {total} MiB"),
                };
                journal.tell(NoteLevel::Info, "disks", &text);
            }
        }
    }
}

impl NodeLoop {
    /// Takes one thing that comes from the disks, if there is one.
    pub(super) fn take_disk_event(&mut self) -> bool {
        let Ok(event) = self.disks.events.try_recv() else {
            return false;
        };
        match event {
            DiskEvent::Done(done) => self.disk_done(done),
            DiskEvent::Flushed { ticket, result } => self.apply(Event::DisksFlushed {
                flush: ticket,
                result,
            }),
            // The replica asks its copies after each event.
            DiskEvent::Sync => self.tell_queued(),
        }
        true
    }

    /// Takes one result of a disk that both nodes reach, if there is one.
    pub(super) fn take_shared_result(&mut self) -> bool {
        let Some(done) = self.shared.next() else {
            return false;
        };
        if let Some(trouble) = &done.trouble {
            self.journal.tell(NoteLevel::Error, "disk", trouble);
        }
        self.apply(Event::DiskDone {
            device: done.device,
            id: done.id,
            status: done.status,
            data: done.data,
        });
        true
    }

    fn disk_done(&mut self, done: DiskDone) {
        if let Some(trouble) = &done.trouble {
            // What the guest hears of it depends on the other node.
            let trouble = trouble.replace(TOLD_TO_GUEST, "");
            self.journal.tell(NoteLevel::Error, "disk", &trouble);
        }
        if self.disks.ended() {
            self.apply(Event::DiskDone {
                device: done.device,
                id: done.id,
                status: done.status,
                data: done.data,
            });
        }
    }
}

//! Shared disks that both nodes read by themselves ([`Reads::Own`]).
//!
//! While the VM is protected the log only says that a read has ended, and a hash of what was read
//! (`BlockEnded`). The backup's machine makes the same request and reads the same place, over a
//! connection on which it can't write; the result waits until the log tells of it, as one of a
//! disk of which each node has a copy.
//!
//! ```text
//! live: reads ── BlockEnded, at p ──> backup: reads the same, comes to p
//!   the guest writes there: the gate lets it go, and it waits …
//!       │ ── the word "come to p?" ──────────────> │
//!       │ <──────── the word "come to p" ──────────┤   or any ack that says so
//!   … until here, then it is begun
//! ```
//!
//! So the backup reads what the live node has read: whatever had changed it before was done when
//! the live node's request was made, and whatever changes it later waits for the backup. It waits as
//! long as the record may name that backup; one whose server doesn't answer executes nothing, and is
//! dropped for that (`stall_ms`). A backup that was dropped and hasn't heard of it may read what was
//! written since. That is no divergence, and it asks before it says so ([`super::examine`]).
//!
//! What a backup reads before its machine is installed is thrown away: it only shows that it can.

use std::collections::VecDeque;

use super::disks::SUBJECT;
use super::*;
use twinvm_machine::{DiskOp, DiskRequest, MAX_DISK_REQUESTS, SECTOR_BYTES, VIRTIO_SLOTS};

/// Second byte of a word. Never reused.
pub(super) const WORD_COME_TO: u8 = 7;
pub(super) const WORD_HAS_COME: u8 = 8;
/// Reads that the backup may not have come to yet. Above it they are logged: a backup that is so far
/// behind need not be asked for more.
const MAX_UNREAD: usize = 1 << 14;
/// The number of a read that no guest has made. A machine counts from 0.
const PROBE: u64 = u64::MAX;

/// How long after a read has failed it is tried again: 100 ms.
const AGAIN_NS: u64 = 100_000_000;

/// How long a node that joins waits for what it will have to read: 10 s. Meanwhile the log for it
/// grows at the live node.
const PROBE_NS: u64 = 10_000_000_000;

/// How a backup learns what the guest has read from a disk that both nodes reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reads {
    /// From the log.
    #[default]
    Log,
    /// It reads the same by itself.
    Own,
}

/// A read that has ended on the live node.
struct Unread {
    device: u8,
    offset: u64,
    end: u64,
    /// The end of its record.
    position: u64,
}

/// What a replica knows of the disks that both nodes read.
#[derive(Default)]
pub(super) struct OwnReads {
    slots: [bool; VIRTIO_SLOTS],
    /// Live: what the backup may not have read yet, in the order of the log.
    unread: VecDeque<Unread>,
    /// Live: writes that the gate has let go and that would change it, each with the position that
    /// the backup must come to before. No read of the same place is made while one waits, so that
    /// stays. Bounded by what a machine may have in flight.
    writes: VecDeque<(u64, DiskRequest)>,
    /// Live: the position that the backup is to be asked for, and was asked for last.
    ask: u64,
    asked: u64,
    /// Backup: the live node wants to hear that the machine here has come so far.
    wanted: Option<u64>,
    /// Backup, draining: the read that has failed here, and when it is to be tried again.
    again: Option<(u8, u64, u64)>,
    /// It was said that one has.
    told: bool,
    /// Joining: disks that have not shown yet that they can be read here.
    probes: Vec<u8>,
    /// They have until then.
    probes_until_ns: u64,
}

impl OwnReads {
    pub(super) fn has(&self, device: u8) -> bool {
        self.slots.get(usize::from(device)) == Some(&true)
    }

    pub(super) fn any(&self) -> bool {
        self.slots.contains(&true)
    }

    pub(super) fn slots(&self) -> [bool; VIRTIO_SLOTS] {
        self.slots
    }

    pub(super) fn set(&mut self, device: u8) {
        if let Some(own) = self.slots.get_mut(usize::from(device)) {
            *own = true;
        }
    }

    /// Whether every disk that is to be read here can be.
    pub(super) fn can_be_had(&self) -> bool {
        self.probes.is_empty()
    }

    /// The machine here is another one, or none.
    pub(super) fn forget(&mut self) {
        *self = Self {
            slots: self.slots,
            ..Self::default()
        };
    }

    /// Whether the backup may not have come so far.
    fn awaits(&self, position: u64) -> bool {
        let first = self.unread.front();
        first.is_some_and(|first| first.position <= position)
    }

    /// The position that the backup must come to before this may be changed.
    fn holds(&self, request: &DiskRequest) -> Option<u64> {
        let end = request.offset.saturating_add(request.bytes);
        let overlaps = |read: &&Unread| {
            read.device == request.device && read.offset < end && request.offset < read.end
        };
        self.unread
            .iter()
            .rev()
            .find(overlaps)
            .map(|read| read.position)
    }
}

fn word(kind: u8, position: u64) -> Vec<u8> {
    let mut bytes = vec![SUBJECT, kind];
    bytes.extend_from_slice(&position.to_le_bytes());
    bytes
}

impl Replica {
    // ---- the live node --------------------------------------------------------------

    /// Whether the backup is to read by itself what this request has read.
    pub(super) fn left_to_backup(&self, result: &DiskResult) -> bool {
        matches!(self.vm, Vm::Live(_))
            && self.own_reads.has(result.device)
            && self.node.protected()
            && self.own_reads.unread.len() < MAX_UNREAD
            && result.status == crate::replay::DONE
            && self
                .in_flight(result.device, result.id)
                .is_some_and(|request| request.op == DiskOp::Read)
    }

    /// It has ended so, and its record is the last one of the log.
    pub(super) fn leave_to_backup(&mut self, request: &DiskRequest) {
        if let Vm::Live(live) = &self.vm {
            self.own_reads.unread.push_back(Unread {
                device: request.device,
                offset: request.offset,
                end: request.offset.saturating_add(request.bytes),
                position: live.position(),
            });
        }
    }

    /// The gate has let a write go; true if it must wait for what the backup has to read.
    /// Next hop: [`Replica::begin_writes`].
    pub(super) fn waits_for_reads(&mut self, request: &DiskRequest) -> bool {
        self.forget_what_was_read();
        let Some(position) = self.own_reads.holds(request) else {
            return false;
        };
        #[cfg(feature = "mutations")]
        if self.overwrites_unread {
            return false;
        }
        let write = (position, request.clone());
        self.own_reads.writes.push_back(write);
        self.own_reads.ask = self.own_reads.ask.max(position);
        true
    }

    /// What the backup has come to needs no more care, and nothing does once no backup can be named.
    fn forget_what_was_read(&mut self) {
        let own = &mut self.own_reads;
        if own.unread.is_empty() {
            return;
        }
        if self.node.emits_freely() {
            own.unread.clear();
        } else if let Some(peer) = self.peer {
            own.has_come_to(peer.position.0);
        }
    }

    /// Begins the writes that have waited for long enough, and asks for what the others wait for.
    pub(super) fn begin_writes(&mut self, env: &mut dyn Env) {
        self.forget_what_was_read();
        if self.own_reads.writes.is_empty() {
            return;
        }
        for (position, request) in std::mem::take(&mut self.own_reads.writes) {
            match self.own_reads.awaits(position) {
                true => self.own_reads.writes.push_back((position, request)),
                false => self.begin_request(request),
            }
        }
        let own = &mut self.own_reads;
        if !own.writes.is_empty()
            && own.ask > own.asked
            && let Some(session) = self.node.session()
        {
            own.asked = own.ask;
            let bytes = word(WORD_COME_TO, own.ask);
            self.tell(env, ProtocolEvent::Side { session, bytes });
        }
    }

    /// Writes of a live node's guest that wait for what the backup has to read; 0 if none does.
    pub fn writes_that_wait(&self) -> usize {
        self.own_reads.writes.len()
    }

    // ---- the backup -----------------------------------------------------------------

    /// A node joins: what it will have to read must be there for it. Meanwhile the machine comes.
    pub(super) fn probe_reads(&mut self, now: HostTime) {
        self.own_reads.forget();
        if !self.own_reads.any() {
            return;
        }
        self.own_reads.probes_until_ns = now.mono_ns.saturating_add(PROBE_NS);
        self.actions.push_back(Action::ReadDisks);
        for device in (0..).zip(self.own_reads.slots).filter(|(_, own)| *own) {
            let device: u8 = device.0;
            self.own_reads.probes.push(device);
            self.begin_request(DiskRequest {
                device,
                id: PROBE,
                op: DiskOp::Read,
                offset: 0,
                bytes: SECTOR_BYTES,
                data: Vec::new().into(),
            });
        }
    }

    /// A node that joins doesn't wait for ever.
    pub(super) fn probe_tick(&mut self, env: &mut dyn Env, now: HostTime) {
        if let (Vm::Installing(install), Some(device)) = (&self.vm, self.own_reads.probes.first())
            && now.mono_ns >= self.own_reads.probes_until_ns
        {
            let session = install.session;
            let (disk, s) = (self.disk_name(*device), PROBE_NS / 1_000_000_000);
            let why = format!(
                "{disk}: its server has not answered a read for {s} s, and reads = \"own\" takes one"
            );
            self.tell(env, ProtocolEvent::SessionFailed { session, why });
        }
    }

    /// A disk has answered a node that joins.
    pub(super) fn probed(&mut self, env: &mut dyn Env, result: &DiskResult) {
        self.own_reads
            .probes
            .retain(|device| *device != result.device);
        if result.status != crate::replay::DONE {
            let why = format!("{} can't be read from here", self.disk_name(result.device));
            return self.disk_is_broken(env, &why);
        }
        self.install_if_whole(env);
    }

    /// A read has failed here, and the live node that could is perhaps gone: this machine may be the
    /// only one, so it is kept and the read tried again. Whoever has lost it to the live node learns
    /// that from the record.
    pub(super) fn read_again_later(&mut self, device: u8, now: HostTime) {
        let Vm::Following(following) = &mut self.vm else {
            return;
        };
        let Some(id) = following.replay.once_more(device) else {
            return;
        };
        let at = now.mono_ns.saturating_add(AGAIN_NS);
        self.own_reads.again = Some((device, id, at));
        if !std::mem::replace(&mut self.own_reads.told, true) {
            let disk = self.disk_name(device);
            self.note(
                NoteLevel::Error,
                format!(
                    "{disk} can't be read here, so this node can't take over yet: it is tried \
                     again and again; mend its way to the disk"
                ),
            );
        }
    }

    /// The time for that has come.
    pub(super) fn read_again(&mut self, now: HostTime) {
        let due = |(_, _, at): &mut (u8, u64, u64)| *at <= now.mono_ns;
        if let Some((device, id, _)) = self.own_reads.again.take_if(due)
            && matches!(&self.vm, Vm::Following(following) if following.draining)
            && let Some(request) = self.in_flight(device, id)
        {
            self.begin_request(request);
        }
    }

    /// Begins what the machine that follows has asked for. No more of it may be under way than a
    /// machine can have in flight: what the log has told already is not asked for any more.
    pub(super) fn begin_own_reads(&mut self) {
        while let Some(request) = self.shared.made.front() {
            let (device, id) = (request.device, request.id);
            if self.shared.under_way_of(device) >= MAX_DISK_REQUESTS {
                let made = std::mem::take(&mut self.shared.made);
                let wanted = |r: &DiskRequest| self.in_flight(r.device, r.id).is_some();
                self.shared.made = made.into_iter().filter(wanted).collect();
                return;
            }
            if let Some(request) = self.shared.made.pop_front()
                && self.in_flight(device, id).is_some()
            {
                self.begin_request(request);
            }
        }
    }

    /// Tells the live node, if it has asked, that the machine here has come so far.
    pub(super) fn has_come(&mut self, env: &mut dyn Env) {
        if let (Vm::Following(following), Some(wanted)) = (&self.vm, self.own_reads.wanted)
            && following.replay.position() >= wanted
        {
            self.own_reads.wanted = None;
            let session = following.session;
            let bytes = word(WORD_HAS_COME, wanted);
            self.tell(env, ProtocolEvent::Side { session, bytes });
        }
    }

    // ---- both -----------------------------------------------------------------------

    /// What the other node says of it.
    pub(super) fn reads_heard(&mut self, kind: u8, position: u64) {
        match (kind, &self.vm) {
            (WORD_COME_TO, Vm::Following(_)) if self.own_reads.any() => {
                self.own_reads.wanted = self.own_reads.wanted.max(Some(position));
            }
            (WORD_HAS_COME, Vm::Live(_)) => self.own_reads.has_come_to(position),
            // What was on its way when one side had gone on.
            _ => {}
        }
    }
}

impl OwnReads {
    /// The backup has come so far in the log.
    fn has_come_to(&mut self, position: u64) {
        while self
            .unread
            .front()
            .is_some_and(|read| read.position <= position)
        {
            self.unread.pop_front();
        }
    }
}

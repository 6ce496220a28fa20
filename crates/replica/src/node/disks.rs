//! Disks of which each node has a copy: requests out, results in, on both roles.
//!
//! A live node logs that a request has ended, and how; a backup's machine makes the same request,
//! which is carried out on its own copy, and waits with the record until that is done. So both
//! copies are written in the same way, and reads cost no log.

use std::collections::{BTreeSet, VecDeque};

use super::reads::{WORD_COME_TO, WORD_HAS_COME};
use super::sync::{WORD_IN, WORD_OUT};
use super::*;
use crate::replay::DONE;
use twinvm_machine::{DiskOp, DiskRequest, MAX_DISK_REQUESTS, VIRTIO_SLOTS};

/// Results that may wait at most: all that can be in flight.
const MAX_KEPT: usize = MAX_DISK_REQUESTS * VIRTIO_SLOTS;
/// What these words between the replicas are about: the first byte of each. Never reused
/// ([`crate::compare`] has the other).
pub(super) const SUBJECT: u8 = 2;
/// Second byte: a flush is done on the backup. Never reused.
const WORD_FLUSHED: u8 = 1;
/// When a guest's flush counts as done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flush {
    /// When what was written is on stable storage at the live node and, if there is one, at the
    /// backup.
    Both,
    /// When it is at the live node.
    #[default]
    Live,
    /// At once: a loss of power may take back what the guest believes is safe.
    Never,
}

/// What a replica knows of its disks.
pub(super) struct Disks {
    any: bool,
    flush: Flush,
    /// Results that came while nothing may be logged.
    kept: VecDeque<DiskResult>,
    /// Of the guest's flushes in flight, with [`Flush::Both`]: done here, and done at the backup.
    flushed_here: Vec<DiskResult>,
    flushed_there: BTreeSet<(u8, u64)>,
    /// A claim waits for this flush, holding the log up to there.
    claim_flush: Option<(u64, Position)>,
    flushes: u64,
}

impl Disks {
    pub(super) fn new(config: &MachineConfig) -> Self {
        let is_disk = |slot: &SlotConfig| matches!(slot, SlotConfig::Disk(_));
        Self {
            any: config.slots.iter().any(is_disk),
            flush: Flush::default(),
            kept: VecDeque::new(),
            flushed_here: Vec::new(),
            flushed_there: BTreeSet::new(),
            claim_flush: None,
            flushes: 0,
        }
    }

    pub(super) fn set_any(&mut self, any: bool) {
        self.any = any;
    }

    pub(super) fn any(&self) -> bool {
        self.any
    }
}

impl Replica {
    /// When a guest's flush counts as done; [`Flush::Live`] if nobody says.
    pub fn set_flush(&mut self, flush: Flush) {
        self.disks.flush = flush;
    }

    /// Why this node joins nobody until it is started again, if so.
    pub fn stays_out(&self) -> Option<&str> {
        self.node.stays_out()
    }

    /// Hands out the requests that the machine has made since the last call.
    pub(super) fn hand_out_disks(&mut self, now: HostTime) {
        if !self.disks.any && !self.shared.any() {
            return;
        }
        // A flush that is done at once may let out what had to wait.
        loop {
            let (requests, live) = match &mut self.vm {
                Vm::Live(live) => (live.take_disk_requests(), true),
                Vm::Following(following) => (following.replay.take_disk_requests(), false),
                Vm::Nothing | Vm::Installing(_) => return,
            };
            if requests.is_empty() {
                return self.at_point();
            }
            let mut flushes = false;
            for request in requests {
                if self.shared.has(request.device) {
                    self.share(request);
                    continue;
                }
                flushes |= request.op == DiskOp::Flush;
                self.points.wrote |= !matches!(request.op, DiskOp::Flush | DiskOp::Read);
                self.hand_out(now, request);
            }
            // The backup comes to the flush only by a record behind it.
            if live && flushes && self.flushes_on_both() {
                self.beckon(now);
            }
        }
    }

    fn hand_out(&mut self, now: HostTime, mut request: DiskRequest) {
        if self.disks.flush == Flush::Never {
            match &mut request.op {
                DiskOp::Flush => {
                    let done = DiskResult {
                        device: request.device,
                        id: request.id,
                        status: DONE,
                        data: Vec::new(),
                    };
                    return self.deliver(now, done);
                }
                DiskOp::Write { durable } => *durable = false,
                _ => {}
            }
        }
        self.actions.push_back(Action::Disk(request));
    }

    /// Whether a guest's flush waits for the backup too.
    fn flushes_on_both(&self) -> bool {
        self.disks.flush == Flush::Both && self.node.protected()
    }

    fn beckon(&mut self, now: HostTime) {
        if let Vm::Live(live) = &mut self.vm
            && let Err(error) = live.beckon(now)
        {
            self.fatal(error.to_string());
        }
    }

    /// The request with this number, if the machine here has it in flight.
    pub(super) fn in_flight(&self, device: u8, id: u64) -> Option<DiskRequest> {
        match &self.vm {
            Vm::Live(live) => live.machine().disk_request(device, id),
            Vm::Following(following) => following.replay.machine().disk_request(device, id),
            Vm::Nothing | Vm::Installing(_) => None,
        }
    }

    /// A request has ended on this node's copy.
    pub(super) fn disk_done(&mut self, env: &mut dyn Env, now: HostTime, result: DiskResult) {
        if self.shared.has(result.device) {
            return self.shared_done(env, now, result);
        }
        let Some(request) = self.in_flight(result.device, result.id) else {
            return;
        };
        if result.status != DONE && !self.bears_failure(env, &result) {
            return;
        }
        if self.frozen {
            return self.keep(result);
        }
        let flush = request.op == DiskOp::Flush;
        match &mut self.vm {
            Vm::Live(_) => {
                if flush && self.flushes_on_both() {
                    let key = (result.device, result.id);
                    if !self.disks.flushed_there.remove(&key) {
                        self.disks.flushed_here.push(result);
                        return;
                    }
                }
                let level = self.backup_is_level();
                self.deliver(now, result);
                self.hand_out_disks(now);
                self.woken(level);
                self.send_batches(env);
            }
            Vm::Following(following) => {
                let session = following.session;
                let DiskResult { device, id, .. } = result;
                self.deliver(now, result);
                if flush && self.disks.flush == Flush::Both {
                    let mut bytes = vec![SUBJECT, WORD_FLUSHED, device];
                    bytes.extend_from_slice(&id.to_le_bytes());
                    self.tell(env, ProtocolEvent::Side { session, bytes });
                }
                self.drain_on(env);
            }
            Vm::Nothing | Vm::Installing(_) => {}
        }
    }

    /// A result has come for which a drain may have waited.
    pub(super) fn drain_on(&mut self, env: &mut dyn Env) {
        // One that has nothing left to execute is over.
        let waits = |following: &Following| following.draining && following.replay.backlog() > 0;
        if !matches!(&self.vm, Vm::Following(following) if waits(following)) {
            return;
        }
        let mut events = VecDeque::new();
        self.drain(env, &mut events);
        for event in events {
            self.tell(env, event);
        }
    }

    /// A request has failed here. False if the guest doesn't get to see it.
    fn bears_failure(&mut self, env: &mut dyn Env, result: &DiskResult) -> bool {
        let disk = self.disk_name(result.device);
        match &self.vm {
            Vm::Live(_) if self.frozen || !self.node.protected() => true,
            Vm::Live(_) => {
                // The backup's copy can do it: as in a planned takeover.
                let why = format!(
                    "{disk} fails here: the VM goes to the backup, and this node stays out until \
                     it is started again: mend the disk first"
                );
                self.note(NoteLevel::Error, why.clone());
                self.node.stay_out(Some(why));
                let ctl = twinvm_protocol::Ctl::Takeover;
                self.tell_of_leaving(env, ProtocolEvent::Ctl(ctl));
                if !self.frozen {
                    self.node.stay_out(None);
                    return true;
                }
                self.keep(result.clone());
                false
            }
            // Nothing more is compared with a log: it becomes the guest's own.
            Vm::Following(following) if following.draining && following.replay.backlog() == 0 => {
                true
            }
            Vm::Following(_) => {
                let why = format!(
                    "{disk} fails here: this node can't be the backup and stays out until it is \
                     started again: mend the disk first"
                );
                self.node.stay_out(Some(why.clone()));
                self.tell(env, ProtocolEvent::Unfit { why });
                false
            }
            Vm::Nothing | Vm::Installing(_) => false,
        }
    }

    /// This host's disk can't take a copy.
    pub(super) fn disk_is_broken(&mut self, env: &mut dyn Env, why: &str) {
        let why = format!(
            "{why}: this node can't be the backup and stays out until it is started again: mend \
             the disk first"
        );
        self.node.stay_out(Some(why.clone()));
        self.note(NoteLevel::Error, why.clone());
        self.tell(env, ProtocolEvent::Unfit { why });
    }

    pub(super) fn disk_name(&self, device: u8) -> String {
        match self.config.slots.get(usize::from(device)) {
            Some(SlotConfig::Disk(disk)) => format!("disk {}", disk.number),
            _ => format!("the disk in slot {device}"),
        }
    }

    /// A request has ended otherwise on the live node: this copy is another one from here on. Of a
    /// disk that both reach: it can't be read from here, and won't be before somebody mends that.
    pub(super) fn disk_differs(&mut self, device: u8, (log, own): (u8, u8)) -> String {
        let disk = self.disk_name(device);
        if self.shared.has(device) {
            let why = format!(
                "{disk} can be read at the live node and not here: this node can't be the backup \
                 and stays out until it is started again: mend its way to the disk first"
            );
            self.node.stay_out(Some(why.clone()));
            return why;
        }
        format!(
            "{disk}: a request has ended with status {log} at the live node, with {own} here: the \
             copy here is thrown away"
        )
    }

    /// Keeps a result until the machine goes on.
    pub(super) fn keep(&mut self, result: DiskResult) {
        if self.disks.kept.len() >= MAX_KEPT {
            return self.fatal(format!("more than {MAX_KEPT} results of disks"));
        }
        self.disks.kept.push_back(result);
    }

    /// Hands a result to the machine: now if it is live, else when the log says so.
    pub(super) fn deliver(&mut self, now: HostTime, result: DiskResult) {
        let left = match self.left_to_backup(&result) {
            true => self.in_flight(result.device, result.id),
            false => None,
        };
        let DiskResult {
            device,
            id,
            status,
            data,
        } = result;
        match &mut self.vm {
            Vm::Live(live) => {
                // What a shared disk gave, nobody else may ask it for, unless both nodes read it.
                let ended = match self.shared.has(device) && left.is_none() {
                    true => live.block_done(device, id, status, data, now),
                    false => live.block_ended(device, id, status, data, now),
                };
                if let Err(error) = ended {
                    return self.fatal(error.to_string());
                }
                self.idle = None;
                if let Some(request) = left {
                    self.leave_to_backup(&request);
                }
            }
            Vm::Following(following) => following.replay.disk_done(device, id, status, data),
            Vm::Nothing | Vm::Installing(_) => {}
        }
    }

    /// What came while the machine was frozen.
    pub(super) fn disks_thaw(&mut self, now: HostTime) {
        // Nobody has taken the VM over: its errors are the guest's.
        self.node.stay_out(None);
        for result in std::mem::take(&mut self.disks.kept) {
            if self.in_flight(result.device, result.id).is_some() {
                self.deliver(now, result);
            }
        }
        self.hand_out_disks(now);
    }

    /// The machine that followed is live: its requests are under way, and what has ended without
    /// a record gets one.
    pub(super) fn disks_go_live(&mut self, now: HostTime, ended: Vec<DiskResult>) {
        self.disks.claim_flush = None;
        self.forget_points();
        for result in ended {
            self.deliver(now, result);
        }
        self.hand_out_disks(now);
    }

    /// There is no backup any more for whose flushes the guest would wait.
    pub(super) fn disks_alone(&mut self, now: HostTime) {
        self.forget_points();
        self.disks.flushed_there.clear();
        for result in std::mem::take(&mut self.disks.flushed_here) {
            if self.frozen {
                self.keep(result);
            } else {
                self.deliver(now, result);
            }
        }
    }

    /// What differs may be the copy here, where no map of what was written names it.
    pub(super) fn doubt_disks(&mut self) {
        if self.disks.any {
            self.actions.push_back(Action::DoubtDisks);
        }
    }

    /// The machine here is gone.
    pub(super) fn forget_disks(&mut self) {
        if !self.disks.any && !self.shared.any() {
            return;
        }
        self.disks.kept.clear();
        self.disks.flushed_here.clear();
        self.disks.flushed_there.clear();
        self.disks.claim_flush = None;
        self.shared.forget();
        self.own_reads.forget();
        self.forget_points();
        self.actions.push_back(Action::ForgetDisks);
    }

    /// What the other replica says of disks.
    pub(super) fn disks_heard(
        &mut self,
        env: &mut dyn Env,
        session: SessionId,
        bytes: &[u8],
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let heard = match bytes {
            [WORD_FLUSHED, device, id @ ..] if let Ok(id) = <[u8; 8]>::try_from(id) => {
                self.flushed_there(env.now(), (*device, u64::from_le_bytes(id)));
                Ok(())
            }
            [kind @ (WORD_COME_TO | WORD_HAS_COME), position @ ..]
                if let Ok(position) = <[u8; 8]>::try_from(position) =>
            {
                self.reads_heard(*kind, u64::from_le_bytes(position));
                Ok(())
            }
            [kind @ (WORD_OUT | WORD_IN), bytes @ ..] => {
                self.sync_heard(env, session, *kind, bytes)
            }
            bytes if self.disks.any => {
                self.point_heard(bytes, events);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(why) = heard {
            self.sync.end(session);
            events.push_back(ProtocolEvent::SessionFailed { session, why });
        }
    }

    /// The backup has carried out one of the guest's flushes.
    fn flushed_there(&mut self, now: HostTime, key: (u8, u64)) {
        let is_flush = self
            .in_flight(key.0, key.1)
            .is_some_and(|request| request.op == DiskOp::Flush);
        if !is_flush || self.disks.flush != Flush::Both || !matches!(self.vm, Vm::Live(_)) {
            return;
        }
        let here = &mut self.disks.flushed_here;
        let at = here.iter().position(|one| (one.device, one.id) == key);
        match at {
            Some(at) => {
                let result = here.swap_remove(at);
                if self.frozen {
                    return self.keep(result);
                }
                let level = self.backup_is_level();
                self.deliver(now, result);
                self.hand_out_disks(now);
                self.woken(level);
            }
            None => {
                // Bounded by what is in flight: it names one of those.
                self.disks.flushed_there.insert(key);
            }
        }
    }

    // ---- claiming -----------------------------------------------------------

    /// All stored log is executed: brings the disks to rest first. True if the claim has to wait
    /// for that.
    pub(super) fn flush_for_claim(&mut self, position: Position) -> bool {
        if !self.disks.any || self.disks.flush == Flush::Never {
            return false;
        }
        if self.disks.claim_flush.is_none() {
            let flush = self.next_flush();
            self.disks.claim_flush = Some((flush, position));
            self.actions.push_back(Action::FlushDisks { flush });
        }
        true
    }

    pub(super) fn next_flush(&mut self) -> u64 {
        self.disks.flushes += 1;
        self.disks.flushes
    }

    pub(super) fn disks_flushed(
        &mut self,
        env: &mut dyn Env,
        flush: u64,
        result: Result<(), String>,
    ) {
        if self.point_flushed(env, flush, result.is_ok()) {
            return;
        }
        let Some((_, position)) = self.disks.claim_flush.filter(|(own, _)| *own == flush) else {
            return;
        };
        match result {
            Ok(()) => self.tell(env, ProtocolEvent::Drained { position }),
            Err(why) => {
                let why = format!(
                    "what was written can't be made durable here ({why}): this node doesn't claim \
                     the VM, and stays out until it is started again: mend the disk first"
                );
                self.node.stay_out(Some(why.clone()));
                self.tell(env, ProtocolEvent::Unfit { why });
            }
        }
    }
}

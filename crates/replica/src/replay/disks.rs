//! Disks on the replaying side that has copies of its own: the same requests are carried out here
//! too, and their results wait until the log tells when they take effect.

use std::collections::VecDeque;

use super::{Divergence, Replay, ReplayExit};
use twinvm_log::{Body, Record};
use twinvm_machine::{DiskOp, DiskRequest, Machine, Output, OutputItem, VIRTIO_SLOTS, disk_hash};

/// Status of a request that was done (virtio 1.2 section 5.2.6).
pub(crate) const DONE: u8 = 0;

/// The result of a disk's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskResult {
    pub(crate) device: u8,
    pub(crate) id: u64,
    pub(crate) status: u8,
    pub(crate) data: Vec<u8>,
}

/// What is under way on this side's copies.
#[derive(Debug, Default)]
pub(super) struct OwnDisks {
    /// There are some, in these virtio slots.
    own: [bool; VIRTIO_SLOTS],
    /// The contents of these are the other side's too, which may change them without this one.
    shared: [bool; VIRTIO_SLOTS],
    /// Of each virtio slot, the number of the first request not yet handed out.
    next: [u64; VIRTIO_SLOTS],
    /// Ended here, not yet in the log. Each belongs to a request in flight, so there are few.
    ended: VecDeque<DiskResult>,
    /// The next record waits for the end of this request.
    waits: Option<(u8, u64)>,
    /// Nothing is executed beyond this position.
    pause_at: Option<u64>,
}

/// A machine that followed a log, as [`Replay::into_live`] hands it on.
pub(crate) struct Followed {
    pub(crate) machine: Machine,
    /// Of each virtio slot, the number of the first request that is not under way.
    pub(crate) next: [u64; VIRTIO_SLOTS],
    /// Results that no record has told of.
    pub(crate) ended: Vec<DiskResult>,
}

impl Replay {
    /// Each disk of the machine has a copy here, which is as the machine's disk was at the
    /// position where this replay begins: requests are to be carried out on it.
    pub fn own_disks(&mut self) {
        self.disks.own = [true; VIRTIO_SLOTS];
    }

    /// The contents of the disks in these virtio slots are at a server that both sides reach: reads
    /// are to be carried out here too. Nothing else is.
    pub(crate) fn own_reads(&mut self, slots: [bool; VIRTIO_SLOTS]) {
        for (own, shared) in self.disks.own.iter_mut().zip(slots) {
            *own |= shared;
        }
        self.disks.shared = slots;
    }

    /// Disk requests to be carried out on this side's copies, as
    /// [`Live::take_disk_requests`](crate::Live::take_disk_requests): after each call of
    /// [`Replay::run`]. None without [`Replay::own_disks`].
    ///
    /// Next hop: the host's disks, then [`Replay::disk_done`].
    pub fn take_disk_requests(&mut self) -> Vec<DiskRequest> {
        if !self.disks.own.contains(&true) {
            return Vec::new();
        }
        self.machine.disk_requests(&mut self.disks.next)
    }

    /// A request has ended on this side's copy. It takes effect when the log says so.
    pub fn disk_done(&mut self, device: u8, id: u64, status: u8, data: Vec<u8>) {
        let known = self
            .disks
            .ended
            .iter()
            .any(|one| (one.device, one.id) == (device, id));
        if known || self.machine.disk_request(device, id).is_none() {
            return;
        }
        self.disks.waits.take_if(|waits| *waits == (device, id));
        self.disks.ended.push_back(DiskResult {
            device,
            id,
            status,
            data,
        });
    }

    /// The request that has ended here otherwise than the record in front says is to be carried out
    /// once more: its number. Nothing is executed before it has ended again.
    pub(crate) fn once_more(&mut self, device: u8) -> Option<u64> {
        let first = self.disks.ended.pop_front_if(|one| one.device == device)?;
        self.disks.waits = Some((device, first.id));
        Some(first.id)
    }

    /// Whether nothing can be executed before a request has ended here.
    pub fn waits_for_disk(&self) -> bool {
        self.disks.waits.is_some()
    }

    /// [`Replay::run`] returns when it has come to this position, and not beyond it.
    pub(crate) fn pause_at(&mut self, position: Option<u64>) {
        self.disks.pause_at = position;
    }

    /// Whether it stands there.
    pub(super) fn pauses(&self) -> bool {
        self.disks.pause_at == Some(self.position)
    }

    /// Ends the replay for a machine that goes on by itself.
    pub(crate) fn into_live(self) -> Followed {
        Followed {
            machine: self.machine,
            next: self.disks.next,
            ended: self.disks.ended.into(),
        }
    }

    /// Compares the record in front with what the machine here has asked of a disk that both
    /// sides reach.
    pub(super) fn check_write(
        &mut self,
        device: u8,
        id: u64,
        hash: u64,
    ) -> Result<ReplayExit, Divergence> {
        let Some(request) = self.machine.disk_request(device, id) else {
            return Err(self.diverged(format!(
                "the log has request {id} of the disk in slot {device}, here it is not in flight"
            )));
        };
        let own = disk_hash(&request, &[]);
        if own != hash {
            return Err(self.diverged(format!(
                "the disk in slot {device}: {} has hash {hash:#018x} in the log, {own:#018x} here",
                describe(&request)
            )));
        }
        self.records.pop_front();
        self.position += 1;
        let icount = self.machine.icount();
        let items = vec![OutputItem::Disk(request)];
        Ok(ReplayExit::Output {
            position: self.position,
            output: Output { icount, items },
        })
    }

    /// The log has brought what a request has read: whatever is read here is not needed.
    pub(super) fn forget_disk_result(&mut self, device: u8, id: u64) {
        let ended = &mut self.disks.ended;
        ended.retain(|one| (one.device, one.id) != (device, id));
    }

    /// Applies the record in front: a request has ended on the side that wrote the log.
    pub(super) fn apply_disk(
        &mut self,
        device: u8,
        id: u64,
        status: u8,
        hash: u64,
    ) -> Result<Option<ReplayExit>, Divergence> {
        if self.disks.own.get(usize::from(device)) != Some(&true) {
            let what = "the log leaves out what a disk has read: it is of a node with a copy of \
                        the disk, and needs one";
            return Err(self.diverged(what.to_owned()));
        }
        let Some(request) = self.machine.disk_request(device, id) else {
            return Err(self.diverged(format!(
                "request {id} of the disk in slot {device} has ended in the log, here it is not in \
                 flight"
            )));
        };
        let ended = &mut self.disks.ended;
        let at = ended
            .iter()
            .position(|one| (one.device, one.id) == (device, id));
        let Some(result) = at.and_then(|at| ended.remove(at)) else {
            self.disks.waits = Some((device, id));
            return Ok(Some(ReplayExit::Waits));
        };
        // A read or a flush that failed there has changed nothing: the copies are still equal.
        let harmless = matches!(request.op, DiskOp::Read | DiskOp::Flush);
        let failed_there = status != DONE && result.status == DONE && harmless;
        if result.status != status && !failed_there {
            let status = (status, result.status);
            self.disks.ended.push_front(result);
            return Ok(Some(ReplayExit::DiskDiffers { device, status }));
        }
        let data = match failed_there {
            true => Vec::new(),
            false => result.data,
        };
        let own = disk_hash(&request, &data);
        if own != hash {
            let mut divergence = self.diverged(format!(
                "the disk in slot {device}: {} has hash {hash:#018x} in the log, {own:#018x} here",
                describe(&request)
            ));
            divergence.doubtful = self.disks.shared.get(usize::from(device)) == Some(&true);
            return Err(divergence);
        }
        let record = Record {
            icount: self.machine.icount(),
            body: Body::BlockDone {
                device,
                id,
                status,
                data,
            },
        };
        if let Err(error) = self.machine.inject(&record) {
            return Err(self.diverged(error.to_string()));
        }
        self.records.pop_front();
        self.position += 1;
        Ok(None)
    }
}

fn describe(request: &DiskRequest) -> String {
    let what = match request.op {
        DiskOp::Read => "a read",
        DiskOp::Write { .. } => "a write",
        DiskOp::Flush => return format!("flush {}", request.id),
        DiskOp::Discard => "a discard",
        DiskOp::WriteZeroes { .. } => "a write of zeros",
    };
    format!(
        "{what} (request {}) of {} bytes at {}",
        request.id, request.bytes, request.offset
    )
}

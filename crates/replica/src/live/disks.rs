//! Disks on the live side: requests out, results in.

use super::{Live, LiveError};
use crate::pacing::HostTime;
use twinvm_log::{Body, Record};
use twinvm_machine::{DiskRequest, disk_hash};

impl Live {
    /// Disk requests to be carried out, oldest first: those that the guest has made since the last
    /// call, and with the first call all that were in flight when this began. To be looked at
    /// after each slice. They may be carried out in any order and all at once, none overlaps
    /// another.
    ///
    /// Next hop: the host's disks, then [`Live::block_done`] or [`Live::block_ended`].
    pub fn take_disk_requests(&mut self) -> Vec<DiskRequest> {
        self.machine.disk_requests(&mut self.disks_next)
    }

    /// A disk request has ended: `status` is 0 if it was done, 1 if it failed, and `data` is what
    /// a read that was done has read, which the log carries: whoever replays needs no disk.
    ///
    /// # Errors
    /// [`LiveError`]: no such request can have ended like this.
    pub fn block_done(
        &mut self,
        device: u8,
        id: u64,
        status: u8,
        data: Vec<u8>,
        now: HostTime,
    ) -> Result<(), LiveError> {
        self.step_time(now)?;
        let body = Body::BlockDone {
            device,
            id,
            status,
            data,
        };
        self.append(body, now)?;
        Ok(())
    }

    /// The same of a disk that whoever follows has a copy of: the log says only that the request
    /// has ended and how, and what tells that both copies were the same.
    ///
    /// # Errors
    /// [`LiveError`]: no such request can have ended like this.
    pub fn block_ended(
        &mut self,
        device: u8,
        id: u64,
        status: u8,
        data: Vec<u8>,
        now: HostTime,
    ) -> Result<(), LiveError> {
        self.step_time(now)?;
        let request = self.machine.disk_request(device, id);
        let hash = request.map_or(0, |request| disk_hash(&request, &data));
        let icount = self.machine.icount();
        let body = Body::BlockEnded {
            device,
            id,
            status,
            hash,
        };
        self.push(&Record { icount, body }, now)?;
        let body = Body::BlockDone {
            device,
            id,
            status,
            data,
        };
        self.machine.inject(&Record { icount, body })?;
        Ok(())
    }

    /// The guest has asked for a change of a disk that whoever follows reaches too. The end of its
    /// record: when that is acked the request may be carried out.
    ///
    /// # Errors
    /// [`LiveError`]: a fault of ours.
    pub fn disk_write(&mut self, request: &DiskRequest, now: HostTime) -> Result<u64, LiveError> {
        let body = Body::DiskWrite {
            device: request.device,
            id: request.id,
            hash: disk_hash(request, &[]),
        };
        let icount = self.machine.icount();
        Ok(self.push(&Record { icount, body }, now)? + 1)
    }

    /// Lets whoever follows run to this very step: an anchor, on its way at once.
    ///
    /// # Errors
    /// [`LiveError`]: a fault of ours.
    pub fn beckon(&mut self, now: HostTime) -> Result<(), LiveError> {
        self.anchor(now)?;
        self.flush();
        Ok(())
    }

    /// An anchor whose end is a point; the position behind it.
    pub(crate) fn point(&mut self, now: HostTime) -> Result<u64, LiveError> {
        self.anchor(now)?;
        Ok(self.position())
    }

    /// The requests up to these numbers were handed out by the replay that this goes on from.
    pub(crate) fn requests_are_under_way(&mut self, next: [u64; twinvm_machine::VIRTIO_SLOTS]) {
        self.disks_next = next;
    }
}

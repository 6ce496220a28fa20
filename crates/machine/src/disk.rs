//! What is known of a disk's requests beside their results.

use crate::machine::Machine;
use twinvm_devices::map::VIRTIO_SLOTS;
use twinvm_devices::virtio::{DiskOp, DiskRequest};
use xxhash_rust::xxh3::Xxh3;

impl Machine {
    /// The request with this number, if it is in flight on the disk in this slot.
    pub fn disk_request(&self, device: u8, id: u64) -> Option<DiskRequest> {
        let mut since = [u64::MAX; VIRTIO_SLOTS];
        *since.get_mut(usize::from(device))? = id;
        let found = self.disk_requests(&mut since);
        found.into_iter().find(|request| request.id == id)
    }
}

/// Hash of what a request was and of what it wrote or, in `read`, has read: equal on two machines
/// whose guests are the same and whose disks had the same contents.
pub fn disk_hash(request: &DiskRequest, read: &[u8]) -> u64 {
    let op: u8 = match request.op {
        DiskOp::Read => 0,
        DiskOp::Write { durable: false } => 1,
        DiskOp::Write { durable: true } => 2,
        DiskOp::Flush => 3,
        DiskOp::Discard => 4,
        DiskOp::WriteZeroes { unmap: false } => 5,
        DiskOp::WriteZeroes { unmap: true } => 6,
    };
    let mut hash = Xxh3::new();
    hash.update(&[request.device, op]);
    hash.update(&request.offset.to_le_bytes());
    hash.update(&request.bytes.to_le_bytes());
    // At most one of the two has any.
    hash.update(&request.data);
    hash.update(read);
    hash.digest()
}

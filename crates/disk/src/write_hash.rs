//! What a machine has had written, as one number.

use twinvm_machine::{DiskOp, DiskRequest};
use xxhash_rust::xxh3::Xxh3;

/// The sum of the hashes of all requests that change a disk. The order doesn't matter, so two
/// machines that made the same requests have the same one, however their disks carried them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteHash(pub u128);

impl WriteHash {
    /// Adds a request, if it changes a disk.
    pub fn add(&mut self, request: &DiskRequest) {
        let op: u8 = match request.op {
            DiskOp::Read | DiskOp::Flush => return,
            DiskOp::Write { .. } => 1,
            // All of them leave zeros.
            DiskOp::Discard | DiskOp::WriteZeroes { .. } => 2,
        };
        let mut hash = Xxh3::new();
        hash.update(&[request.device, op]);
        hash.update(&request.id.to_le_bytes());
        hash.update(&request.offset.to_le_bytes());
        hash.update(&request.bytes.to_le_bytes());
        hash.update(&request.data);
        self.0 = self.0.wrapping_add(hash.digest128());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64, op: DiskOp, offset: u64, data: &[u8]) -> DiskRequest {
        DiskRequest {
            device: 1,
            id,
            op,
            offset,
            bytes: data.len() as u64,
            data: data.into(),
        }
    }

    #[test]
    fn every_part_of_a_write_counts_and_its_place_among_others_does_not() {
        let write = DiskOp::Write { durable: false };
        let sum = |requests: &[DiskRequest]| {
            let mut sum = WriteHash::default();
            requests.iter().for_each(|request| sum.add(request));
            sum
        };
        let a = request(1, write, 512, b"one");
        let b = request(2, write, 1024, b"two");
        let both = sum(&[a.clone(), b.clone()]);
        assert_eq!(both, sum(&[b.clone(), a.clone()]));
        for other in [
            request(2, write, 1024, b"twO"),
            request(2, write, 1536, b"two"),
            request(3, write, 1024, b"two"),
            request(2, DiskOp::Discard, 1024, b"two"),
        ] {
            assert_ne!(both, sum(&[a.clone(), other]));
        }
        assert_eq!(sum(&[request(5, DiskOp::Read, 0, b"xxx")]).0, 0);
    }
}

//! The nodes' disks, or the server that both reach.

use super::*;
use crate::small;
use crate::toy::{DISK_BYTES, Done};
use twinvm_machine::{DiskConfig, SECTOR_BYTES};

impl World {
    pub(crate) fn toy(&self, at: usize) -> std::cell::RefMut<'_, Toy> {
        self.env.toys[at].borrow_mut()
    }

    pub(super) fn disk(&mut self, at: usize, work: Work) {
        let mut byte = [0];
        self.env.random(&mut byte);
        let now_ns = self.env.now_ns;
        if let (Some(server), Work::Request(request)) = (&mut self.server, &work) {
            return server.begin(now_ns + u64::from(byte[0]) * 8_000, at, request.clone());
        }
        self.toy(at).begin(now_ns, u64::from(byte[0]) * 8_000, work);
    }

    pub(super) fn forget_disk(&mut self, at: usize) {
        if let Some(server) = &mut self.server {
            server.forget(at);
        }
        let mut dice = self.env.dice;
        self.toy(at).forget(|| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            dice >> 63 == 1
        });
        self.env.dice = dice;
    }

    /// Hands a node what its disk has done by now.
    pub(super) fn disks_done(&mut self, at: usize) {
        let now_ns = self.env.now_ns;
        loop {
            let done = match &mut self.server {
                Some(server) => server.done(now_ns, at),
                None => self.toy(at).done(now_ns),
            };
            let Some(done) = done else {
                return;
            };
            let event = match done {
                Done::Request {
                    device,
                    id,
                    status,
                    data,
                } => Event::DiskDone {
                    device,
                    id,
                    status,
                    data,
                },
                Done::Flush(flush) => Event::DisksFlushed {
                    flush,
                    result: Ok(()),
                },
            };
            self.apply(at, event);
        }
    }
}

/// A machine with a disk only.
pub(super) fn disk_machine(rounds: u32) -> MachineConfig {
    let disk = DiskConfig {
        sectors: DISK_BYTES as u64 / SECTOR_BYTES,
        read_only: false,
        number: 0,
    };
    MachineConfig {
        ram_bytes: 16 << 20,
        slots: vec![SlotConfig::Disk(disk)],
        images: Images::new(small::disk_worker(rounds), None),
        ..machine()
    }
}

//! The host's clocks and dice, for the replica.

use std::sync::Arc;

use twinvm_replica::{DisksIn, DisksOut, Env, HostTime, SnapshotPieces, SnapshotSource, Stored};

use super::disks::DisksForSync;
use super::snapshots::read_pieces;
use crate::intake::Intake;
use crate::random::fill_random;
use crate::time;

/// Reads the host.
pub(super) struct HostEnv {
    disks: DisksForSync,
    /// Where the channel's readers store.
    pub(super) intake: Arc<Intake>,
}

impl HostEnv {
    pub(super) fn new(disks: DisksForSync, intake: Arc<Intake>) -> Self {
        Self { disks, intake }
    }
}

impl Env for HostEnv {
    fn now(&mut self) -> HostTime {
        HostTime {
            mono_ns: time::mono_ns(),
        }
    }

    fn ran(&mut self, _steps: u64) {}

    fn random(&mut self, bytes: &mut [u8]) {
        // Never a guess: what a guest calls random must be. A node that ends is always safe.
        if let Err(error) = fill_random(bytes) {
            panic!("the host has no random numbers: {error}");
        }
    }

    fn wall_ns(&mut self) -> u64 {
        time::wall_ns()
    }

    fn read_snapshot(&mut self, source: SnapshotSource) -> Box<dyn SnapshotPieces> {
        read_pieces(source)
    }

    fn send_disks(&mut self) -> Result<Box<dyn DisksOut>, String> {
        self.disks.out()
    }

    fn take_disks(&mut self) -> Result<Box<dyn DisksIn>, String> {
        self.disks.inward()
    }

    fn end_storing(&mut self) -> Vec<Stored> {
        self.intake.close()
    }
}

//! The world's clock and dice, and what is beside a replica.

use super::*;

/// The world's clock and dice.
pub(super) struct Surroundings {
    pub(super) now_ns: u64,
    pub(super) dice: u64,
    /// Whose turn it is.
    pub(super) at: usize,
    pub(super) toys: [Rc<RefCell<Toy>>; 2],
    /// Stored and acked beside a replica that has not been told yet.
    pub(super) kept: Vec<Stored>,
}

impl Env for Surroundings {
    fn now(&mut self) -> HostTime {
        self.now_ns += LOOK_NS;
        HostTime {
            mono_ns: self.now_ns,
        }
    }

    fn ran(&mut self, _steps: u64) {}

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (self.dice >> 56) as u8;
        }
    }

    fn wall_ns(&mut self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn read_snapshot(&mut self, source: SnapshotSource) -> Box<dyn SnapshotPieces> {
        Box::new(source)
    }

    fn send_disks(&mut self) -> Result<Box<dyn DisksOut>, String> {
        Ok(Box::new(ToyOut::new(&self.toys[self.at])))
    }

    fn take_disks(&mut self) -> Result<Box<dyn DisksIn>, String> {
        let Self { dice, toys, .. } = self;
        toys[self.at].borrow_mut().forget(|| {
            *dice = dice.wrapping_mul(5).wrapping_add(1);
            *dice >> 60 > 7
        });
        Ok(Box::new(ToyIn::new(&self.toys[self.at])))
    }

    fn end_storing(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.kept)
    }
}

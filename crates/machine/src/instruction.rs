//! What the harts are about to execute, for reports.

use crate::machine::{BoardBus, Machine};
use twinvm_cpu::{Bus, peek_instruction};

/// The instruction that a hart comes to next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upcoming {
    /// Its address, as the hart sees it.
    pub pc: u64,
    /// Its 16 or 32 bits; `None` where nothing can be fetched.
    pub raw: Option<u32>,
    /// Traps that the hart has taken before. If there is one more afterwards, the step was the
    /// trap.
    pub traps: u64,
}

impl Machine {
    /// The hart that has the turn: who made the last step. Who makes the next is decided before
    /// it, when the machine runs.
    pub fn running_hart(&self) -> usize {
        self.harts.running_id()
    }

    /// What each hart comes to next. Changes nothing.
    pub fn upcoming(&mut self) -> Vec<Upcoming> {
        let bus = BoardBus(&mut self.board);
        let outside = |pa| bus.fetch(pa);
        self.harts
            .all()
            .iter()
            .map(|hart| {
                let peeked = peek_instruction(hart, &self.mem, &outside);
                Upcoming {
                    pc: peeked.pc,
                    raw: peeked.raw,
                    traps: hart.traps(),
                }
            })
            .collect()
    }
}

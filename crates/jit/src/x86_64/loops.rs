//! Blocks that are loops: the branch at their end leads to their beginning.
//!
//! Of the guest's registers that live in the host's, a loop may use few, and others that
//! live in memory all the more. So a loop has places of its own: registers that it
//! doesn't use make room for those that it does, once before the first round, and back
//! again wherever it is left.

use super::asm::{Reg, Size};
use super::registers::{MAPPED, PLACES, Place, home};
use super::translate::Translation;
use super::words;
use twinvm_cpu::tier::DecodedOp as Op;

/// Uses of a register below which it stays in memory: taking it in and putting it back
/// costs two accesses in itself.
const FEWEST_USES: u32 = 2;

/// A host register that holds another of the guest's in a loop.
#[derive(Debug, Clone, Copy)]
struct Guest {
    reg: Reg,
    /// The guest's register that it holds elsewhere.
    usual: u8,
    /// That which it holds in the loop.
    now: u8,
    /// The loop writes it.
    written: bool,
}

/// A block that is a loop.
#[derive(Debug)]
pub(super) struct Loop {
    guests: Vec<Guest>,
    /// Where a round begins.
    head: usize,
}

impl Loop {
    /// Looks at a block's ops.
    pub(super) fn of(ops: &[Op]) -> Option<Self> {
        let last = ops.last()?;
        (words::is_branch(last.kind) && last.imm == 0).then(|| Self {
            guests: guests(ops),
            head: 0,
        })
    }
}

fn guests(ops: &[Op]) -> Vec<Guest> {
    let mut uses = [0u32; PLACES.len()];
    let mut written = 0;
    for op in ops {
        let reads = words::read(op);
        let writes = words::written(op);
        written |= writes;
        for (guest, uses) in uses.iter_mut().enumerate().take(32).skip(1) {
            *uses += (reads >> guest & 1) + (writes >> guest & 1);
        }
    }
    let idle = MAPPED
        .into_iter()
        .filter(|(guest, _)| uses[usize::from(*guest)] == 0);
    let wanted = |guest: &u8| {
        let at = usize::from(*guest);
        PLACES[at] == Place::Memory && uses[at] >= FEWEST_USES
    };
    let mut busy: Vec<u8> = (1..32).filter(wanted).collect();
    busy.sort_by_key(|guest| std::cmp::Reverse(uses[usize::from(*guest)]));
    let pairs = idle.zip(busy);
    pairs
        .map(|((usual, reg), now)| Guest {
            reg,
            usual,
            now,
            written: written >> now & 1 != 0,
        })
        .collect()
}

impl Translation<'_, '_> {
    /// Before the block: if it is a loop, its rounds begin here.
    pub(super) fn enter_loop(&mut self) {
        self.enter_registers();
        let head = self.asm.here();
        if let Some(looped) = &mut self.looped {
            looped.head = head;
            for guest in &looped.guests {
                self.places[usize::from(guest.usual)] = Place::Memory;
                self.places[usize::from(guest.now)] = Place::Host(guest.reg);
            }
        }
    }

    /// Where a loop's last branch goes to; it has to be branch `k`.
    pub(super) fn back(&self, k: usize) -> Option<usize> {
        let looped = self.looped.as_ref().filter(|_| k + 1 == self.steps);
        looped.map(|looped| looped.head)
    }

    /// Takes in the registers of a loop.
    pub(super) fn enter_registers(&mut self) {
        for guest in self.looped.iter().flat_map(|looped| &looped.guests) {
            self.asm.store(Size::Q, home(guest.usual), guest.reg);
            self.asm.mov(Size::Q, guest.reg, home(guest.now));
        }
    }

    /// All registers are where they usually are. What follows leaves the loop, or calls
    /// [`Self::enter_registers`].
    pub(super) fn leave_loop(&mut self) {
        for guest in self.looped.iter().flat_map(|looped| &looped.guests) {
            if guest.written {
                self.asm.store(Size::Q, home(guest.now), guest.reg);
            }
            self.asm.mov(Size::Q, guest.reg, home(guest.usual));
        }
    }
}

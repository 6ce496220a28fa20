//! Which host register holds what while translated code runs.

use super::asm::*;

/// Steps left until the limit, less those that the current block was charged for.
pub(super) const BUDGET: Reg = R15;
/// What is known of the address space: `twinvm_cpu::tier::layout`.
pub(super) const SPACE: Reg = R14;
/// The guest's registers in memory, from [`BIAS`] bytes after the first on.
pub(super) const STATE: Reg = RBP;
/// So that all integer registers are within reach of a displacement of 8 bits.
pub(super) const BIAS: i32 = 128;

/// Guest registers that live in host registers: those most used.
pub(super) const MAPPED: [(u8, Reg); 9] = [
    (2, RBX),  // sp
    (8, R12),  // s0
    (9, R13),  // s1
    (10, RDI), // a0
    (11, RSI), // a1
    (12, R8),  // a2
    (13, R9),  // a3
    (14, R10), // a4
    (15, R11), // a5
];

/// Where a guest register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Host(Reg),
    Memory,
    /// Writes to x0 go there.
    Nowhere,
}

const PLACES: [Place; 33] = {
    let mut places = [Place::Memory; 33];
    places[32] = Place::Nowhere;
    let mut n = 0;
    while n < MAPPED.len() {
        places[MAPPED[n].0 as usize] = Place::Host(MAPPED[n].1);
        n += 1;
    }
    places
};

pub(super) fn place(guest: u8) -> Place {
    PLACES[usize::from(guest)]
}

/// The guest's integer register in memory.
pub(super) fn home(guest: u8) -> Rm {
    Rm::Mem(STATE, i32::from(guest) * 8 - BIAS)
}

//! Which host register holds what while translated code runs.

use super::asm::*;
use super::sse::Xmm;
use twinvm_cpu::tier::FLOAT_REGISTERS;

/// Steps left until the limit, less those that the current block was charged for.
pub(super) const BUDGET: Reg = R15;
/// Translations of loads and stores: `twinvm_cpu::tier::layout`.
pub(super) const DATA: Reg = R14;
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

/// Integer registers, and what is beyond them: writes to x0.
pub(super) const PLACES: [Place; 33] = {
    let mut places = [Place::Memory; 33];
    places[32] = Place::Nowhere;
    let mut n = 0;
    while n < MAPPED.len() {
        places[MAPPED[n].0 as usize] = Place::Host(MAPPED[n].1);
        n += 1;
    }
    places
};

/// The guest's integer register in memory.
pub(super) fn home(guest: u8) -> Rm {
    Rm::Mem(STATE, i32::from(guest) * 8 - BIAS)
}

/// Free between instructions, as RAX, RCX and RDX are.
pub(super) const X0: Xmm = Xmm(0);
/// As [`X0`].
pub(super) const X1: Xmm = Xmm(1);

/// Guest floating-point registers that live in host registers while the guest's
/// floating-point state is loaded: those most used.
pub(super) const MAPPED_FLOAT: [(u8, Xmm); 14] = [
    (10, Xmm(2)), // fa0
    (11, Xmm(3)), // fa1
    (12, Xmm(4)), // fa2
    (13, Xmm(5)), // fa3
    (14, Xmm(6)), // fa4
    (15, Xmm(7)), // fa5
    (4, Xmm(8)),  // ft4
    (18, Xmm(9)), // fs2
    (0, Xmm(10)), // ft0
    (1, Xmm(11)), // ft1
    (2, Xmm(12)), // ft2
    (3, Xmm(13)), // ft3
    (8, Xmm(14)), // fs0
    (9, Xmm(15)), // fs1
];

const FLOAT_PLACES: [Option<Xmm>; 32] = {
    let mut places = [None; 32];
    let mut n = 0;
    while n < MAPPED_FLOAT.len() {
        places[MAPPED_FLOAT[n].0 as usize] = Some(MAPPED_FLOAT[n].1);
        n += 1;
    }
    places
};

/// The host register of a guest's floating-point register; `None`: in memory.
pub(super) fn float_place(guest: u8) -> Option<Xmm> {
    FLOAT_PLACES[usize::from(guest & 31)]
}

/// The guest's floating-point register in memory.
pub(super) fn float_home(guest: u8) -> Rm {
    Rm::Mem(STATE, FLOAT_REGISTERS as i32 + i32::from(guest) * 8 - BIAS)
}

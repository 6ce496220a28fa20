//! The guest's floating-point state in the host's processor: registers, rounding
//! mode, flags.
//!
//! It is loaded when a block meets its first floating-point instruction, if the unit
//! is on and dirty and the host has the rounding mode; else the interpreter runs the
//! rest of the block. From then on registers of [`MAPPED_FLOAT`] are in the host's,
//! and MXCSR has the guest's mode and collects its flags, until the interpreter has
//! something to do or translated code is left. So guests that compute with integers
//! pay one comparison there.

use super::FLOAT;
use super::asm::*;
use super::registers::{BIAS, MAPPED_FLOAT, STATE, float_home};
use super::sse::Float;
use twinvm_cpu::tier::{FLOAT_FLAGS, FLOAT_ROUNDING, STATUS, STATUS_FLOAT};

/// What [`FLOAT`] holds while the guest's state isn't loaded; else one more than the
/// rounding mode (frm).
const NOT_LOADED: u8 = 0;
/// MXCSR with all exceptions masked, no flags, to nearest.
const MXCSR: u32 = 0x1f80;
/// The flags in MXCSR.
const MXCSR_FLAGS: i32 = 0x3f;
/// MXCSR's rounding mode by frm, two bits each.
const MODES: u32 = 0b10_01_11_00;
/// The last rounding mode that the host has: RUP. RMM it hasn't.
const LAST_MODE: i32 = 3;

/// What is in [`FLOAT`] when the guest's state is loaded with this rounding mode.
pub(super) fn loaded_with(rounding: u8) -> u8 {
    rounding + 1
}

/// MXCSR's number of a rounding mode below RMM.
pub(super) fn host_mode(rounding: u8) -> u8 {
    (MODES >> (2 * rounding)) as u8 & 3
}

/// Where MXCSR is kept, from a frame on.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// The host's, while the guest's is loaded.
    pub(super) host: i32,
    /// The guest's, with the flags that it has raised.
    pub(super) guest: i32,
}

/// The flags (fflags) that the guest's MXCSR has collected.
pub(super) const fn flags(mxcsr: u32) -> u8 {
    const fn bit(mxcsr: u32, from: u32, to: u32) -> u8 {
        ((mxcsr >> from & 1) << to) as u8
    }
    // Invalid, division by zero, overflow, underflow, inexact. That an operand was
    // subnormal is nothing to the guest.
    bit(mxcsr, 0, 4) | bit(mxcsr, 2, 3) | bit(mxcsr, 3, 2) | bit(mxcsr, 4, 1) | bit(mxcsr, 5, 0)
}

/// The flags by what MXCSR holds in its lowest bits.
pub(super) static FLAGS: [u8; MXCSR_FLAGS as usize + 1] = {
    let mut table = [0; MXCSR_FLAGS as usize + 1];
    let mut mxcsr = 0;
    while mxcsr < table.len() {
        table[mxcsr] = flags(mxcsr as u32);
        mxcsr += 1;
    }
    table
};

const FLAGS_AT: Rm = Rm::Mem(STATE, FLOAT_FLAGS as i32 - BIAS);

/// RAX = all flags that are raised, while the guest's state is loaded. `table`: where
/// in the frame the address of [`FLAGS`] is. Uses RCX and RDX.
pub(super) fn read_flags(asm: &mut Asm, depth: i32, frame: i32, kept: Kept, table: i32) {
    asm.mov(Size::Q, RDX, Rm::Mem(RSP, frame + depth));
    asm.store_mxcsr(Rm::Mem(RDX, kept.guest));
    asm.mov(Size::D, RAX, Rm::Mem(RDX, kept.guest));
    asm.alu_imm(Size::D, Alu::And, RAX, MXCSR_FLAGS);
    asm.mov(Size::Q, RCX, Rm::Mem(RDX, table));
    asm.movzx8(RAX, Rm::Sib(RCX, RAX, 0, 0));
    asm.movzx8(RCX, FLAGS_AT);
    asm.alu(Size::D, Alu::Or, RAX, RCX);
}

/// The flags raised are those in RCX, while the guest's state is loaded. Uses RAX, RCX
/// and RDX.
pub(super) fn write_flags(asm: &mut Asm, depth: i32, frame: i32, kept: Kept) {
    asm.alu_imm(Size::D, Alu::And, RCX, 0x1f);
    asm.store8(FLAGS_AT, RCX);
    asm.mov(Size::Q, RDX, Rm::Mem(RSP, frame + depth));
    let mxcsr = Rm::Mem(RDX, kept.guest);
    asm.store_mxcsr(mxcsr);
    asm.mov(Size::D, RAX, mxcsr);
    asm.mov(Size::D, RCX, RAX);
    asm.alu_imm(Size::D, Alu::And, RAX, !MXCSR_FLAGS);
    asm.alu(Size::D, Alu::Cmp, RAX, RCX);
    let none = asm.jcc(Cond::E);
    asm.store(Size::D, mxcsr, RAX);
    asm.load_mxcsr(mxcsr);
    asm.fill_here(none);
}

pub(super) fn note_not_loaded(asm: &mut Asm) {
    asm.store8_imm(Rm::Mem(RSP, FLOAT), NOT_LOADED);
}

/// Loads the guest's state if it may be used, and ends with ZF clear; else with ZF
/// set. RSP is `depth` bytes lower than in a block, `frame` where the frame is kept.
/// Uses RAX, RCX and RDX.
pub(super) fn begin(asm: &mut Asm, depth: i32, frame: i32, kept: Kept) {
    const STATUS_AT: Rm = Rm::Mem(STATE, STATUS as i32 - BIAS);
    const ROUNDING_AT: Rm = Rm::Mem(STATE, FLOAT_ROUNDING as i32 - BIAS);
    let noted = Rm::Mem(RSP, FLOAT + depth);
    asm.mov(Size::D, RAX, STATUS_AT);
    asm.alu_imm(Size::D, Alu::And, RAX, STATUS_FLOAT as i32);
    asm.alu_imm(Size::D, Alu::Cmp, RAX, STATUS_FLOAT as i32);
    let not_dirty = asm.jcc(Cond::NE);
    asm.movzx8(RCX, ROUNDING_AT);
    asm.alu_imm(Size::D, Alu::Cmp, RCX, LAST_MODE);
    let no_such_mode = asm.jcc(Cond::A);
    asm.lea(Size::D, RAX, Rm::Mem(RCX, i32::from(loaded_with(0))));
    asm.store8(noted, RAX);
    asm.mov_imm32(RAX, MODES);
    asm.alu(Size::D, Alu::Add, RCX, RCX);
    asm.shift_cl(Size::D, Shift::Shr, RAX);
    asm.alu_imm(Size::D, Alu::And, RAX, 3);
    asm.shift_imm(Size::D, Shift::Shl, RAX, 13);
    asm.alu_imm(Size::D, Alu::Or, RAX, MXCSR as i32);
    asm.mov(Size::Q, RDX, Rm::Mem(RSP, frame + depth));
    asm.store_mxcsr(Rm::Mem(RDX, kept.host));
    asm.store(Size::D, Rm::Mem(RDX, kept.guest), RAX);
    asm.load_mxcsr(Rm::Mem(RDX, kept.guest));
    for (guest, xmm) in MAPPED_FLOAT {
        asm.load_float(Float::Double, xmm, float_home(guest));
    }
    asm.fill_here(not_dirty);
    asm.fill_here(no_such_mode);
    asm.cmp8_imm(noted, NOT_LOADED);
}

/// Puts the guest's state back, if it is loaded. RDI: the frame.
pub(super) fn end_if_loaded(asm: &mut Asm, depth: i32, kept: Kept) {
    asm.cmp8_imm(Rm::Mem(RSP, FLOAT + depth), NOT_LOADED);
    let not_loaded = asm.jcc(Cond::E);
    end(asm, depth, kept);
    asm.fill_here(not_loaded);
}

/// Puts the guest's state back. RDI: the frame.
pub(super) fn end(asm: &mut Asm, depth: i32, kept: Kept) {
    for (guest, xmm) in MAPPED_FLOAT {
        asm.store_float(Float::Double, float_home(guest), xmm);
    }
    asm.store_mxcsr(Rm::Mem(RDI, kept.guest));
    asm.load_mxcsr(Rm::Mem(RDI, kept.host));
    asm.store8_imm(Rm::Mem(RSP, FLOAT + depth), NOT_LOADED);
}

//! Templates of atomic instructions, of `cbo.zero` and of `orc.b`.
//!
//! Harts run in turn on one thread, so an atomic instruction is plain loads and stores. As in
//! the interpreter, they work on aligned values of pages that the data entry allows; whatever
//! else there is the interpreter does.

use super::asm::{Alu, Cond, Hole, RAX, RCX, RDX, Reg, Rm, Size};
use super::memory::ADDEND;
use super::registers::{BIAS, DATA, STATE, X0, X1};
use super::sse::Float;
use super::translate::Translation;
use Size::{D, Q};
use twinvm_cpu::CACHE_BLOCK_BYTES;
use twinvm_cpu::tier::{
    DecodedOp as Op, ENABLED, ENABLED_ZERO, Kind, MODE, MODE_SUPERVISOR, RESERVED_PLACE,
    RESERVED_SIZE, layout,
};
use twinvm_mem::PAGE_BYTES;

/// What is in the hart's state at an offset from the integer registers.
pub(super) fn state(offset: isize) -> Rm {
    Rm::Mem(STATE, offset as i32 - BIAS)
}

impl Translation<'_, '_> {
    /// False if the op is none of these.
    pub(super) fn atomic_op(&mut self, k: usize, op: &Op) -> bool {
        use Kind::*;
        if (LrW as u8..=CboZero as u8).contains(&(op.kind as u8)) {
            self.extend_all_words();
        }
        match op.kind {
            OrcB => self.orc_b(op),
            CboZero => self.zero_block(k, op),
            LrW => self.load_reserved(k, op, D),
            LrD => self.load_reserved(k, op, Q),
            ScW => self.store_conditional(k, op, D),
            ScD => self.store_conditional(k, op, Q),
            AmoSwapW | AmoAddW | AmoXorW | AmoAndW | AmoOrW | AmoMinW | AmoMaxW | AmoMinuW
            | AmoMaxuW => self.amo(k, op, D),
            AmoSwapD | AmoAddD | AmoXorD | AmoAndD | AmoOrD | AmoMinD | AmoMaxD | AmoMinuD
            | AmoMaxuD => self.amo(k, op, Q),
            _ => return false,
        }
        true
    }

    /// Each byte that isn't 0 becomes 0xff.
    fn orc_b(&mut self, op: &Op) {
        let from = self.operand(op.rs1);
        self.asm.general_to_float(Float::Double, X0, from);
        self.asm.zeros(X1);
        self.asm.equal_bytes(X0, X1);
        self.asm.float_to_general(Float::Double, RAX, X0);
        self.asm.group3(Q, 2, RAX);
        self.put(op.rd, RAX);
    }

    /// Goes to the hole unless the data entry allows the access of `bytes` aligned bytes
    /// at the address in RAX. RCX is the entry's place afterwards. Uses RDX.
    fn aligned(&mut self, bytes: i32, tag: usize) -> Hole {
        self.find_entry();
        self.asm.mov(Q, RDX, RAX);
        // No tag has the bits of a misaligned address.
        let page = -(PAGE_BYTES as i32);
        self.asm.alu_imm(Q, Alu::And, RDX, page | (bytes - 1));
        let tag = Rm::Sib(DATA, RCX, 0, tag as i32);
        self.asm.alu(Q, Alu::Cmp, RDX, tag);
        self.asm.jcc(Cond::NE)
    }

    /// RAX = where the address is in this process; the data entry is at RCX.
    fn add_addend(&mut self) {
        self.asm.alu(Q, Alu::Add, RAX, ADDEND);
    }

    /// RDX = how far the address in RAX is from the start of RAM; the data entry is at RCX.
    fn place(&mut self) {
        self.asm.mov(D, RDX, RAX);
        self.asm.alu_imm(D, Alu::And, RDX, PAGE_BYTES as i32 - 1);
        let offset = Rm::Sib(DATA, RCX, 0, layout::DATA_OFFSET as i32);
        self.asm.alu(Q, Alu::Add, RDX, offset);
    }

    fn load_sign_extended(&mut self, size: Size, to: Reg) {
        match size {
            D => self.asm.movsx32(to, Rm::Mem(RAX, 0)),
            Q => self.asm.mov(Q, to, Rm::Mem(RAX, 0)),
        }
    }

    fn amo(&mut self, k: usize, op: &Op, size: Size) {
        use Kind::*;
        let point = self.point(k, op);
        self.load(RAX, op.rs1);
        let slow = self.aligned(bytes(size), layout::DATA_STORE);
        self.add_addend();
        self.load_sign_extended(size, RDX);
        self.load(RCX, op.rs2);
        match op.kind {
            AmoAddW | AmoAddD => self.asm.alu(size, Alu::Add, RCX, RDX),
            AmoXorW | AmoXorD => self.asm.alu(size, Alu::Xor, RCX, RDX),
            AmoAndW | AmoAndD => self.asm.alu(size, Alu::And, RCX, RDX),
            AmoOrW | AmoOrD => self.asm.alu(size, Alu::Or, RCX, RDX),
            AmoMinW | AmoMinD => self.choose(size, Cond::L),
            AmoMaxW | AmoMaxD => self.choose(size, Cond::GE),
            AmoMinuW | AmoMinuD => self.choose(size, Cond::B),
            AmoMaxuW | AmoMaxuD => self.choose(size, Cond::AE),
            _ => {}
        }
        self.asm.store(size, Rm::Mem(RAX, 0), RCX);
        self.put(op.rd, RDX);
        self.slow(slow, point);
    }

    /// The old value, in RDX, stays if it compares so to the operand, in RCX.
    fn choose(&mut self, size: Size, cond: Cond) {
        self.asm.alu(size, Alu::Cmp, RDX, RCX);
        self.asm.cmov(cond, RCX, RDX);
    }

    fn load_reserved(&mut self, k: usize, op: &Op, size: Size) {
        let point = self.point(k, op);
        self.load(RAX, op.rs1);
        let slow = self.aligned(bytes(size), layout::DATA_LOAD);
        self.place();
        self.asm.store(Q, state(RESERVED_PLACE), RDX);
        self.asm.store_imm(state(RESERVED_SIZE), bytes(size));
        self.add_addend();
        self.load_sign_extended(size, RAX);
        self.put(op.rd, RAX);
        self.slow(slow, point);
    }

    fn store_conditional(&mut self, k: usize, op: &Op, size: Size) {
        let point = self.point(k, op);
        self.load(RAX, op.rs1);
        let slow = self.aligned(bytes(size), layout::DATA_STORE);
        self.place();
        self.add_addend();
        // RDX = 0 if the reservation is this one's.
        self.asm.alu(Q, Alu::Xor, RDX, state(RESERVED_PLACE));
        self.asm.mov(Q, RCX, state(RESERVED_SIZE));
        self.asm.alu_imm(Q, Alu::Xor, RCX, bytes(size));
        self.asm.alu(Q, Alu::Or, RDX, RCX);
        self.asm.store_imm(state(RESERVED_SIZE), 0);
        self.asm.test(Q, RDX, RDX);
        let failed = self.asm.jcc(Cond::NE);
        self.load(RCX, op.rs2);
        self.asm.store(size, Rm::Mem(RAX, 0), RCX);
        self.asm.fill_here(failed);
        self.asm.test(Q, RDX, RDX);
        self.asm.setcc(Cond::NE, RAX);
        self.asm.movzx8(RAX, RAX);
        self.put(op.rd, RAX);
        self.slow(slow, point);
    }

    /// In S-mode, where it is enabled: kernels clear pages with it.
    fn zero_block(&mut self, k: usize, op: &Op) {
        let point = self.point(k, op);
        self.asm.movzx8(RCX, state(ENABLED));
        self.asm.group3(D, 2, RCX);
        self.asm.alu_imm(D, Alu::And, RCX, ENABLED_ZERO);
        self.asm.movzx8(RDX, state(MODE));
        self.asm.alu_imm(D, Alu::Xor, RDX, MODE_SUPERVISOR);
        self.asm.alu(D, Alu::Or, RCX, RDX);
        let elsewhere = self.asm.jcc(Cond::NE);
        self.load(RAX, op.rs1);
        self.asm
            .alu_imm(Q, Alu::And, RAX, -(CACHE_BLOCK_BYTES as i32));
        let slow = self.aligned(1, layout::DATA_STORE);
        self.add_addend();
        self.asm.set(RCX, 0);
        for at in (0..CACHE_BLOCK_BYTES as i32).step_by(8) {
            self.asm.store(Q, Rm::Mem(RAX, at), RCX);
        }
        self.slow(elsewhere, point);
        self.slow(slow, point);
    }
}

fn bytes(size: Size) -> i32 {
    match size {
        D => 4,
        Q => 8,
    }
}

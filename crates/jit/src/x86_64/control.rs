//! Templates of branches and jumps.

use super::asm::{Alu, Cond, RAX, RCX, RDX, RSP, Rm, Shift, Size};
use super::translate::{Later, Translation};
use super::{FETCH, PAGE_VA};
use Size::{D, Q};
use twinvm_cpu::tier::{DecodedOp as Op, Kind, layout};
use twinvm_mem::PAGE_BYTES;

impl Translation<'_, '_> {
    pub(super) fn branch(&mut self, k: usize, op: &Op) {
        use Kind::*;
        let cond = match op.kind {
            Beq => Cond::E,
            Bne => Cond::NE,
            Blt => Cond::L,
            Bge => Cond::GE,
            Bltu => Cond::B,
            _ => Cond::AE,
        };
        let first = self.get(op.rs1, RAX);
        if op.rs2 == 0 {
            // Against zero: the flags are those of a comparison with it.
            self.asm.test(Q, first, first);
        } else {
            let second = self.operand(op.rs2);
            self.asm.alu(Q, Alu::Cmp, first, second);
        }
        let taken = self.asm.jcc(cond);
        let target = self.start + op.imm;
        let refund = self.steps - k - 1;
        if refund == 0 {
            self.joined_later(taken, target);
        } else {
            self.later.push(Later::Side {
                from: taken,
                refund,
                target,
            });
        }
    }

    pub(super) fn link_register(&mut self, op: &Op) {
        self.page_relative(op.rd, self.start + op.next_off() as i32);
    }

    pub(super) fn jump_register(&mut self, op: &Op) {
        let base = self.get(op.rs1, RAX);
        self.asm.lea(Q, RAX, Rm::Mem(base, op.imm));
        self.asm.alu_imm(Q, Alu::And, RAX, -2);
        self.link_register(op);
        // The row of the target's page, and its place there.
        const ROW_BITS: u8 = layout::ROW.trailing_zeros() as u8;
        const ROWS: i32 = ((layout::FETCH_ENTRIES - 1) * layout::ROW) as i32;
        self.asm.mov(D, RCX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RCX, 12 - ROW_BITS);
        self.asm.alu_imm(D, Alu::And, RCX, ROWS);
        self.asm.mov(D, RDX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RDX, ROW_BITS);
        self.asm.alu(D, Alu::Xor, RDX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RDX, 1);
        self.asm.alu_imm(D, Alu::And, RDX, layout::ROW as i32 - 1);
        self.asm.alu(D, Alu::Add, RCX, RDX);
        self.asm.mov(Q, RDX, Rm::Mem(RSP, FETCH));
        self.asm.lea(Q, RCX, Rm::Sib(RDX, RCX, 3, 0));
        self.asm
            .alu(Q, Alu::Cmp, RAX, Rm::Mem(RCX, layout::PCS as i32));
        let unknown = self.asm.jcc(Cond::NE);
        self.asm.fill(unknown, self.sink.common.cold);
        self.asm.mov(Q, RDX, RAX);
        self.asm.alu_imm(Q, Alu::And, RDX, -(PAGE_BYTES as i32));
        self.asm.store(Q, Rm::Mem(RSP, PAGE_VA), RDX);
        self.asm.jmp_rm(Rm::Mem(RCX, layout::CODE as i32));
    }
}

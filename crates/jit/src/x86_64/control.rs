//! Templates of branches and jumps.

use super::PAGE_VA;
use super::asm::{Alu, Cond, RAX, RCX, RDX, RSP, Rm, Shift, Size};
use super::registers::SPACE;
use super::translate::{Later, Translation};
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
        self.link_register_keeping_rax(op);
        // The row of the target's page, and its place there.
        const { assert!(layout::ROW == 16 && layout::FETCH_ENTRIES == 256) };
        self.asm.mov(D, RCX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RCX, 8);
        self.asm.alu_imm(D, Alu::And, RCX, 0xff0);
        self.asm.mov(D, RDX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RDX, 1);
        self.asm.alu_imm(D, Alu::And, RDX, 15);
        self.asm.alu(D, Alu::Add, RCX, RDX);
        self.asm
            .alu(Q, Alu::Cmp, RAX, Rm::Sib(SPACE, RCX, 3, layout::PCS as i32));
        let unknown = self.asm.jcc(Cond::NE);
        self.asm.fill(unknown, self.sink.common.cold);
        self.asm.mov(Q, RDX, RAX);
        self.asm.alu_imm(Q, Alu::And, RDX, -(PAGE_BYTES as i32));
        self.asm.store(Q, Rm::Mem(RSP, PAGE_VA), RDX);
        self.asm.jmp_rm(Rm::Sib(SPACE, RCX, 3, layout::CODE as i32));
    }

    pub(super) fn link_register_keeping_rax(&mut self, op: &Op) {
        if self.nowhere(op) {
            return;
        }
        let offset = self.start + op.next_off() as i32;
        let to = self.result(op.rd, RCX);
        self.asm.mov(Q, to, Rm::Mem(RSP, PAGE_VA));
        self.asm.alu_imm(Q, Alu::Add, to, offset);
        self.put(op.rd, to);
    }
}

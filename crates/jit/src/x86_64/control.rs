//! Templates of branches and jumps.

use super::asm::{Alu, Cond, RAX, RCX, RDX, RSP, Rm, Shift, Size};
use super::translate::{Later, Translation};
use super::{CODES, FETCH, PAGE_VA};
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
        let refund = self.steps - k - 1;
        if refund == 0 {
            self.extend_all_words();
        }
        let size = self.size;
        let first = self.get_sized(size, op.rs1, RAX);
        if op.rs2 == 0 {
            // Against zero: the flags are those of a comparison with it.
            self.asm.test(size, first, first);
        } else {
            let second = self.operand(op.rs2);
            self.asm.alu(size, Alu::Cmp, first, second);
        }
        let taken = self.asm.jcc(cond);
        let target = self.start + op.imm;
        if refund == 0 {
            self.joined_later(taken, target);
        } else {
            self.later.push(Later::Side {
                from: taken,
                refund,
                target,
                pending: self.words.pending,
            });
        }
    }

    pub(super) fn link_register(&mut self, op: &Op) {
        self.page_relative(op.rd, self.start + op.next_off() as i32);
    }

    /// Goes to where the table of known blocks says: returns, too.
    pub(super) fn jump_register(&mut self, op: &Op) {
        let base = self.get(op.rs1, RAX);
        self.asm.lea(Q, RAX, Rm::Mem(base, op.imm));
        self.asm.alu_imm(Q, Alu::And, RAX, -2);
        self.link_register(op);
        // The target's page, and from it the place in RAM.
        const PAGES: u8 = 12 - layout::FETCH_STRIDE.trailing_zeros() as u8;
        const MASK: i32 = ((layout::FETCH_ENTRIES - 1) * layout::FETCH_STRIDE) as i32;
        self.asm.mov(D, RCX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RCX, PAGES);
        self.asm.alu_imm(D, Alu::And, RCX, MASK);
        self.asm.alu(Q, Alu::Add, RCX, Rm::Mem(RSP, FETCH));
        self.asm.mov(Q, RDX, RAX);
        self.asm.alu_imm(Q, Alu::And, RDX, -(PAGE_BYTES as i32));
        let tag = Rm::Mem(RCX, layout::FETCH_TAG as i32);
        self.asm.alu(Q, Alu::Cmp, RDX, tag);
        let unknown = self.asm.jcc(Cond::NE);
        self.asm.fill(unknown, self.sink.common.cold);
        self.asm.store(Q, Rm::Mem(RSP, PAGE_VA), RDX);
        self.asm
            .mov(Q, RCX, Rm::Mem(RCX, layout::FETCH_ADDEND as i32));
        self.asm.alu(Q, Alu::Add, RCX, RAX);
        // The code there: places are even, and an entry has 32 bytes.
        const { assert!(layout::CODE_STRIDE == 32) };
        self.asm.mov(D, RDX, RCX);
        self.asm.shift_imm(D, Shift::Shr, RDX, layout::CODE_FOLD);
        self.asm.alu(D, Alu::Xor, RDX, RCX);
        self.asm
            .alu_imm(D, Alu::And, RDX, (layout::CODES as i32 - 1) << 1);
        self.asm.shift_imm(D, Shift::Shl, RDX, 4);
        self.asm.alu(Q, Alu::Add, RDX, Rm::Mem(RSP, CODES));
        let place = Rm::Mem(RDX, layout::CODE_PLACE as i32);
        self.asm.alu(Q, Alu::Cmp, RCX, place);
        let unknown = self.asm.jcc(Cond::NE);
        self.asm.fill(unknown, self.sink.common.cold);
        self.asm.jmp_rm(Rm::Mem(RDX, layout::CODE_ENTRY as i32));
    }
}

//! Templates of branches and jumps.

use super::asm::{Alu, Asm, Cond, RAX, RCX, RDX, RSP, Rm, Shift, Size};
use super::registers::home;
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
        if let Some(head) = self.back(k) {
            self.asm.fill(taken, head);
        } else if refund == 0 {
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

    /// A call is noted for its return. RAX stays as it is.
    fn note_return(&mut self, op: &Op) {
        let offset = self.start + op.next_off() as i32;
        // What returns says which page it is: the landing must be in it.
        if !is_link(op.rd) || offset >= PAGE_BYTES as i32 {
            return;
        }
        let index = (offset as usize >> 1) % layout::RETURNS * layout::RETURN_STRIDE;
        self.asm.mov(Q, RDX, Rm::Mem(RSP, FETCH));
        self.asm.mov(Q, RCX, home(op.rd));
        let pc = Rm::Mem(RDX, (layout::RETURN_PC + index) as i32);
        self.asm.store(Q, pc, RCX);
        let landing = self.asm.lea_code(RCX);
        let code = Rm::Mem(RDX, (layout::RETURN_CODE + index) as i32);
        self.asm.store(Q, code, RCX);
        self.later.push(Later::Landing {
            from: landing,
            target: offset,
        });
    }

    /// jal, or what amounts to it.
    pub(super) fn jump(&mut self, op: &Op, target: i32) {
        self.link_register(op);
        self.note_return(op);
        let hole = self.asm.jmp();
        self.joined_later(hole, target);
    }

    pub(super) fn jump_register(&mut self, op: &Op) {
        if is_link(op.rs1) && op.imm == 0 && self.nowhere(op) {
            return self.go_back(op);
        }
        let base = self.get(op.rs1, RAX);
        self.asm.lea(Q, RAX, Rm::Mem(base, op.imm));
        self.link_register(op);
        self.note_return(op);
        look_up(&mut self.asm, self.sink.common.cold);
    }

    /// A return: to where a call was noted, else as other jumps.
    fn go_back(&mut self, op: &Op) {
        const INDEX: i32 = (layout::RETURNS as i32 - 1) << 1;
        const { assert!(layout::RETURN_STRIDE == 16) };
        self.load(RAX, op.rs1);
        self.asm.mov(D, RCX, RAX);
        self.asm.alu_imm(D, Alu::And, RCX, INDEX);
        self.asm.mov(Q, RDX, Rm::Mem(RSP, FETCH));
        let pc = Rm::Sib(RDX, RCX, 3, layout::RETURN_PC as i32);
        self.asm.alu(Q, Alu::Cmp, RAX, pc);
        let other = self.asm.jcc(Cond::NE);
        self.asm.fill(other, self.sink.common.look_up);
        self.asm.alu_imm(Q, Alu::And, RAX, -(PAGE_BYTES as i32));
        self.asm.store(Q, Rm::Mem(RSP, PAGE_VA), RAX);
        let code = Rm::Sib(RDX, RCX, 3, layout::RETURN_CODE as i32);
        self.asm.jmp_rm(code);
    }
}

/// A register that calls leave the return address in (RISC-V ISA manual, table of hints
/// for return-address stacks).
fn is_link(register: u8) -> bool {
    matches!(register, 1 | 5)
}

/// RCX = the fetch entry for the address in RAX.
pub(super) fn find_fetch_entry(asm: &mut Asm) {
    const SHIFT: u8 = 12 - layout::FETCH_STRIDE.trailing_zeros() as u8;
    const MASK: i32 = ((layout::FETCH_ENTRIES - 1) * layout::FETCH_STRIDE) as i32;
    const { assert!(layout::FETCH_STRIDE.is_power_of_two()) };
    asm.mov(D, RCX, RAX);
    asm.shift_imm(D, Shift::Shr, RCX, SHIFT);
    asm.alu_imm(D, Alu::And, RCX, MASK);
    asm.alu(Q, Alu::Add, RCX, Rm::Mem(RSP, FETCH));
}

/// Goes to RAX, where the table of known blocks says; `cold` if it doesn't know.
pub(super) fn look_up(asm: &mut Asm, cold: usize) {
    asm.alu_imm(Q, Alu::And, RAX, -2);
    // The target's page, and from it the place in RAM.
    find_fetch_entry(asm);
    asm.mov(Q, RDX, RAX);
    asm.alu_imm(Q, Alu::And, RDX, -(PAGE_BYTES as i32));
    asm.alu(Q, Alu::Cmp, RDX, Rm::Mem(RCX, layout::FETCH_TAG as i32));
    let unknown = asm.jcc(Cond::NE);
    asm.fill(unknown, cold);
    asm.store(Q, Rm::Mem(RSP, PAGE_VA), RDX);
    asm.mov(Q, RCX, Rm::Mem(RCX, layout::FETCH_ADDEND as i32));
    asm.alu(Q, Alu::Add, RCX, RAX);
    // The code there: places are even, and an entry has 32 bytes.
    const { assert!(layout::CODE_STRIDE == 32) };
    asm.mov(D, RDX, RCX);
    asm.shift_imm(D, Shift::Shr, RDX, layout::CODE_FOLD);
    asm.alu(D, Alu::Xor, RDX, RCX);
    asm.alu_imm(D, Alu::And, RDX, (layout::CODES as i32 - 1) << 1);
    asm.shift_imm(D, Shift::Shl, RDX, 4);
    asm.alu(Q, Alu::Add, RDX, Rm::Mem(RSP, CODES));
    asm.alu(Q, Alu::Cmp, RCX, Rm::Mem(RDX, layout::CODE_PLACE as i32));
    let unknown = asm.jcc(Cond::NE);
    asm.fill(unknown, cold);
    asm.jmp_rm(Rm::Mem(RDX, layout::CODE_ENTRY as i32));
}

//! Templates of integer instructions.

use super::PAGE_VA;
use super::asm::{Alu, Asm, Cond, RAX, RCX, RDX, RSP, Reg, Rm, Shift, Size};
use super::registers::{Place, home};
use super::translate::Translation;
use Size::{D, Q};
use twinvm_cpu::tier::DecodedOp as Op;

impl Translation<'_, '_> {
    pub(super) fn constant(&mut self, rd: u8, value: i32) {
        match self.place_of(rd) {
            Place::Host(reg) => self.asm.set(reg, value),
            Place::Memory => self.asm.store_imm(home(rd), value),
            Place::Nowhere => {}
        }
    }

    /// rd = an address at an offset from this page's start. RAX stays as it is.
    pub(super) fn page_relative(&mut self, rd: u8, offset: i32) {
        if matches!(self.place_of(rd), Place::Nowhere) {
            return;
        }
        let to = self.result(rd, RCX);
        self.asm.mov(Q, to, Rm::Mem(RSP, PAGE_VA));
        self.asm.alu_imm(Q, Alu::Add, to, offset);
        self.put(rd, to);
    }

    pub(super) fn addi(&mut self, op: &Op) {
        match (self.place_of(op.rd), self.place_of(op.rs1)) {
            (Place::Nowhere, _) => {}
            // A move.
            _ if op.imm == 0 => self.copy(op.rd, op.rs1),
            (Place::Memory, _) if op.rd == op.rs1 => {
                self.asm.alu_imm(Q, Alu::Add, home(op.rd), op.imm);
            }
            (Place::Host(to), Place::Host(from)) if to == from => {
                self.asm.alu_imm(Q, Alu::Add, to, op.imm);
            }
            (_, Place::Host(from)) => {
                let to = self.result(op.rd, RAX);
                self.asm.lea(Q, to, Rm::Mem(from, op.imm));
                self.put(op.rd, to);
            }
            _ => {
                let to = self.result(op.rd, RAX);
                self.load(to, op.rs1);
                self.asm.alu_imm(Q, Alu::Add, to, op.imm);
                self.put(op.rd, to);
            }
        }
    }

    /// rd = another register, with as many bits as it has.
    fn copy(&mut self, rd: u8, from: u8) {
        let scratch = self.result(rd, RAX);
        let from = self.get_sized(self.size, from, scratch);
        self.put_sized(rd, from, self.size);
    }

    pub(super) fn addiw(&mut self, op: &Op) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        let from = self.get_sized(D, op.rs1, to);
        let sum = if op.imm == 0 {
            from
        } else {
            self.asm.lea(D, to, Rm::Mem(from, op.imm));
            to
        };
        self.put_sized(op.rd, sum, D);
    }

    pub(super) fn alu_imm(&mut self, op: &Op, alu: Alu) {
        if self.nowhere(op) {
            return;
        }
        let size = self.size;
        if op.rd == op.rs1 && size == Q && matches!(self.place_of(op.rd), Place::Memory) {
            return self.asm.alu_imm(Q, alu, home(op.rd), op.imm);
        }
        let to = self.result(op.rd, RAX);
        if self.place_of(op.rs1) != Place::Host(to) {
            self.load_sized(size, to, op.rs1);
        }
        self.asm.alu_imm(size, alu, to, op.imm);
        self.put_sized(op.rd, to, size);
    }

    /// Of the result no more than 31 bits can be set.
    pub(super) fn and_positive(&mut self, op: &Op) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        if self.place_of(op.rs1) != Place::Host(to) {
            self.load_sized(D, to, op.rs1);
        }
        self.asm.alu_imm(D, Alu::And, to, op.imm);
        self.put(op.rd, to);
    }

    pub(super) fn add(&mut self, op: &Op) {
        match (
            self.place_of(op.rd),
            self.place_of(op.rs1),
            self.place_of(op.rs2),
        ) {
            (Place::Nowhere, ..) => {}
            // A move.
            _ if op.rs1 == 0 => self.copy(op.rd, op.rs2),
            (Place::Host(to), Place::Host(a), Place::Host(b)) if to != a && to != b => {
                self.asm.lea(Q, to, Rm::Sib(a, b, 0, 0));
            }
            _ => self.alu(op, Q, Alu::Add),
        }
    }

    pub(super) fn alu(&mut self, op: &Op, size: Size, alu: Alu) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        let (first, second) = (self.operand(op.rs1), self.operand(op.rs2));
        let compute = if first == Rm::Reg(to) {
            self.asm.alu(size, alu, to, second);
            to
        } else if second == Rm::Reg(to) && alu != Alu::Sub {
            self.asm.alu(size, alu, to, first);
            to
        } else {
            let compute = if second == Rm::Reg(to) { RAX } else { to };
            self.load_sized(size, compute, op.rs1);
            self.asm.alu(size, alu, compute, second);
            compute
        };
        self.put_sized(op.rd, compute, size);
    }

    /// The result of an operation of this size, sign-extended if that is 32 bits, or
    /// to be so later.
    pub(super) fn put_sized(&mut self, rd: u8, from: Reg, size: Size) {
        if size == Q {
            return self.put(rd, from);
        }
        if !self.lazy {
            let to = self.result(rd, RAX);
            self.asm.movsx32(to, from);
            return self.put(rd, to);
        }
        match self.place_of(rd) {
            Place::Host(reg) if reg == from => {}
            Place::Host(reg) => self.asm.mov(D, reg, from),
            Place::Memory => self.asm.store(D, home(rd), from),
            Place::Nowhere => return,
        }
        self.left_pending = true;
    }

    pub(super) fn unary(&mut self, op: &Op, size: Size, change: impl Fn(&mut Asm, Reg)) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        if self.place_of(op.rs1) != Place::Host(to) {
            self.load_sized(size, to, op.rs1);
        }
        change(&mut self.asm, to);
        self.put_sized(op.rd, to, size);
    }

    pub(super) fn extend(&mut self, op: &Op, how: impl Fn(&mut Asm, Reg, Rm)) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        let from = self.get_sized(D, op.rs1, RAX);
        how(&mut self.asm, to, from.into());
        self.put(op.rd, to);
    }

    pub(super) fn shift_imm(&mut self, op: &Op, size: Size, shift: Shift) {
        if self.nowhere(op) {
            return;
        }
        let most = if size == Q { 63 } else { 31 };
        let to = self.result(op.rd, RAX);
        if self.place_of(op.rs1) != Place::Host(to) {
            self.load_sized(size, to, op.rs1);
        }
        let count = op.imm as u8 & most;
        self.asm.shift_imm(size, shift, to, count);
        if shift == Shift::Shr && count != 0 {
            // Positive: sign-extended already.
            return self.put(op.rd, to);
        }
        self.put_sized(op.rd, to, size);
    }

    pub(super) fn shift(&mut self, op: &Op, size: Size, shift: Shift) {
        if self.nowhere(op) {
            return;
        }
        self.load_sized(D, RCX, op.rs2);
        let to = self.result(op.rd, RAX);
        let compute = if op.rd == op.rs2 { RAX } else { to };
        if self.place_of(op.rs1) != Place::Host(compute) {
            self.load_sized(size, compute, op.rs1);
        }
        // The host, too, takes the low bits of cl.
        self.asm.shift_cl(size, shift, compute);
        self.put_sized(op.rd, compute, size);
    }

    /// rd = 1 if the comparison just made says so.
    pub(super) fn put_condition(&mut self, rd: u8, cond: Cond) {
        self.asm.setcc(cond, RAX);
        let to = self.result(rd, RAX);
        self.asm.movzx8(to, RAX);
        self.put(rd, to);
    }

    pub(super) fn compare_imm(&mut self, op: &Op, cond: Cond) {
        if self.nowhere(op) {
            return;
        }
        let first = self.get_sized(self.size, op.rs1, RAX);
        self.asm.alu_imm(self.size, Alu::Cmp, first, op.imm);
        self.put_condition(op.rd, cond);
    }

    pub(super) fn compare(&mut self, op: &Op, cond: Cond) {
        if self.nowhere(op) {
            return;
        }
        let first = self.get_sized(self.size, op.rs1, RAX);
        let second = self.operand(op.rs2);
        self.asm.alu(self.size, Alu::Cmp, first, second);
        self.put_condition(op.rd, cond);
    }

    pub(super) fn mul(&mut self, op: &Op, size: Size) {
        if self.nowhere(op) {
            return;
        }
        let second = self.operand(op.rs2);
        let to = self.result(op.rd, RAX);
        let compute = if second == Rm::Reg(to) { RAX } else { to };
        if self.place_of(op.rs1) != Place::Host(compute) {
            self.load_sized(size, compute, op.rs1);
        }
        self.asm.imul(size, compute, second);
        self.put_sized(op.rd, compute, size);
    }

    pub(super) fn mul_high(&mut self, op: &Op, group3: u8) {
        if self.nowhere(op) {
            return;
        }
        self.load(RAX, op.rs1);
        let second = self.get(op.rs2, RDX);
        self.asm.group3(Q, group3, second);
        self.put(op.rd, RDX);
    }

    pub(super) fn divide(&mut self, op: &Op, size: Size, signed: bool, quotient: bool) {
        if self.nowhere(op) {
            return;
        }
        self.load_sized(size, RCX, op.rs2);
        self.load_sized(size, RAX, op.rs1);
        self.asm.test(size, RCX, RCX);
        let zero = self.asm.jcc(Cond::E);
        // The least number divided by -1 would trap here.
        let negate = signed.then(|| {
            self.asm.alu_imm(size, Alu::Cmp, RCX, -1);
            self.asm.jcc(Cond::E)
        });
        if signed {
            self.asm.sign_rdx(size);
            self.asm.group3(size, 7, RCX);
        } else {
            self.asm.set(RDX, 0);
            self.asm.group3(size, 6, RCX);
        }
        if !quotient {
            self.asm.mov(size, RAX, RDX);
        }
        let done = self.asm.jmp();
        let mut dones = vec![done];
        if let Some(negate) = negate {
            self.asm.fill_here(negate);
            if quotient {
                self.asm.group3(size, 3, RAX);
            } else {
                self.asm.set(RAX, 0);
            }
            dones.push(self.asm.jmp());
        }
        self.asm.fill_here(zero);
        if quotient {
            self.asm.set(RAX, -1);
        }
        for done in dones {
            self.asm.fill_here(done);
        }
        self.put_sized(op.rd, RAX, size);
    }

    pub(super) fn shifted_add(&mut self, op: &Op, shift: u8, word: bool) {
        if self.nowhere(op) {
            return;
        }
        let first = if word {
            self.load_sized(D, RAX, op.rs1);
            RAX
        } else {
            self.get(op.rs1, RAX)
        };
        let second = self.get(op.rs2, RCX);
        let to = self.result(op.rd, RAX);
        self.asm.lea(Q, to, Rm::Sib(second, first, shift, 0));
        self.put(op.rd, to);
    }

    /// rd = rs1 OP !rs2
    pub(super) fn negated(&mut self, op: &Op, alu: Alu) {
        if self.nowhere(op) {
            return;
        }
        let size = self.size;
        self.load_sized(size, RAX, op.rs2);
        self.asm.group3(size, 2, RAX);
        let first = self.operand(op.rs1);
        self.asm.alu(size, alu, RAX, first);
        self.put_sized(op.rd, RAX, size);
    }

    pub(super) fn count(&mut self, op: &Op, wide: bool, opcode: &[u8]) {
        if self.nowhere(op) {
            return;
        }
        let size = if wide { Q } else { D };
        let from = self.get_sized(size, op.rs1, RAX);
        let to = self.result(op.rd, RAX);
        self.asm.op(0xf3, wide, opcode, to, from);
        self.put(op.rd, to);
    }

    pub(super) fn select(&mut self, op: &Op, second: Cond) {
        if self.nowhere(op) {
            return;
        }
        self.load(RAX, op.rs1);
        let other = self.get(op.rs2, RCX);
        self.asm.alu(Q, Alu::Cmp, RAX, other);
        self.asm.cmov(second, RAX, other);
        self.put(op.rd, RAX);
    }

    /// Bit instructions with the number of the bit in a register.
    pub(super) fn bit(&mut self, op: &Op, opcode: u8) {
        if self.nowhere(op) {
            return;
        }
        let number = self.get_sized(D, op.rs2, RCX);
        self.load(RAX, op.rs1);
        self.asm.op(0, true, &[0x0f, opcode], number, RAX);
        self.put(op.rd, RAX);
    }

    pub(super) fn bit_imm(&mut self, op: &Op, group8: u8) {
        let number = op.imm as u8 & 63;
        self.unary(op, Q, |asm, reg| {
            asm.op(0, true, &[0x0f, 0xba], Reg(group8), reg);
            asm.code.push(number);
        });
    }

    pub(super) fn zero_if(&mut self, op: &Op, cond: Cond) {
        if self.nowhere(op) {
            return;
        }
        self.asm.set(RDX, 0);
        self.load(RAX, op.rs1);
        let second = self.get(op.rs2, RCX);
        self.asm.test(Q, second, second);
        self.asm.cmov(cond, RAX, RDX);
        self.put(op.rd, RAX);
    }
}

//! Templates of loads and stores.

use super::asm::{Alu, Cond, Hole, RAX, RCX, RDX, Rm, Shift, Size};
use super::registers::{DATA, Place, place};
use super::translate::{Later, Translation};
use Size::{D, Q};
use twinvm_cpu::tier::{DecodedOp as Op, Kind, layout};
use twinvm_mem::PAGE_BYTES;

impl Translation<'_, '_> {
    /// Leaves the place in this process of `size` bytes at rs1 + imm in RAX; what the
    /// data entry doesn't allow goes to the hole. An access that crosses into another
    /// page meets an entry that isn't its last byte's.
    pub(super) fn translate_address(&mut self, op: &Op, size: i32, tag: usize) -> Hole {
        const SHIFT: u8 = 12 - layout::DATA_STRIDE.trailing_zeros() as u8;
        const MASK: i32 = ((layout::DATA_ENTRIES - 1) * layout::DATA_STRIDE) as i32;
        const { assert!(layout::DATA_STRIDE.is_power_of_two()) };
        match place(op.rs1) {
            Place::Host(base) if op.imm == 0 => self.asm.mov(Q, RAX, base),
            Place::Host(base) => self.asm.lea(Q, RAX, Rm::Mem(base, op.imm)),
            _ => {
                self.load(RAX, op.rs1);
                if op.imm != 0 {
                    self.asm.alu_imm(Q, Alu::Add, RAX, op.imm);
                }
            }
        }
        self.asm.mov(D, RCX, RAX);
        self.asm.shift_imm(D, Shift::Shr, RCX, SHIFT);
        self.asm.alu_imm(D, Alu::And, RCX, MASK);
        if size == 1 {
            self.asm.mov(Q, RDX, RAX);
        } else {
            self.asm.lea(Q, RDX, Rm::Mem(RAX, size - 1));
        }
        self.asm.alu_imm(Q, Alu::And, RDX, -(PAGE_BYTES as i32));
        self.asm
            .alu(Q, Alu::Cmp, RDX, Rm::Sib(DATA, RCX, 0, tag as i32));
        let slow = self.asm.jcc(Cond::NE);
        let addend = Rm::Sib(DATA, RCX, 0, layout::DATA_ADDEND as i32);
        self.asm.alu(Q, Alu::Add, RAX, addend);
        slow
    }

    pub(super) fn read(&mut self, k: usize, op: &Op) {
        use Kind::*;
        let size = match op.kind {
            Lb | Lbu => 1,
            Lh | Lhu => 2,
            Lw | Lwu => 4,
            _ => 8,
        };
        let point = self.point(k, op);
        let slow = self.translate_address(op, size, layout::DATA_LOAD);
        let from = Rm::Mem(RAX, 0);
        let to = self.result(op.rd, RAX);
        match op.kind {
            Lb => self.asm.movsx8(to, from),
            Lbu => self.asm.movzx8(to, from),
            Lh => self.asm.movsx16(to, from),
            Lhu => self.asm.movzx16(to, from),
            Lw => self.asm.movsx32(to, from),
            Lwu => self.asm.mov(D, to, from),
            _ => self.asm.mov(Q, to, from),
        }
        self.put(op.rd, to);
        self.slow(slow, point);
    }

    pub(super) fn write(&mut self, k: usize, op: &Op) {
        use Kind::*;
        let size = match op.kind {
            Sb => 1,
            Sh => 2,
            Sw => 4,
            _ => 8,
        };
        let point = self.point(k, op);
        let slow = self.translate_address(op, size, layout::DATA_STORE);
        let to = Rm::Mem(RAX, 0);
        let from = self.get(op.rs2, RCX);
        match op.kind {
            Sb => self.asm.store8(to, from),
            Sh => self.asm.store16(to, from),
            Sw => self.asm.store(D, to, from),
            _ => self.asm.store(Q, to, from),
        }
        self.slow(slow, point);
    }

    pub(super) fn slow(&mut self, from: Hole, point: u32) {
        let back = self.asm.here();
        self.later.push(Later::Slow {
            from,
            point,
            back,
            float: self.float,
        });
    }
}

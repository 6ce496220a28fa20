//! Templates of loads and stores.

use super::GROUPS;
use super::asm::{Alu, Cond, Hole, RAX, RCX, RDX, RSP, Rm, Shift, Size};
use super::groups::Role;
use super::registers::{DATA, Place};
use super::translate::{Later, Translation};
use Size::{D, Q};
use twinvm_cpu::tier::{DecodedOp as Op, Kind, layout};
use twinvm_mem::PAGE_BYTES;

/// What is to be added to an address of the page whose data entry is at RCX.
pub(super) const ADDEND: Rm = Rm::Sib(DATA, RCX, 0, layout::DATA_ADDEND as i32);

/// Where a group's number to add lies.
fn slot_at(slot: u8) -> Rm {
    Rm::Mem(RSP, GROUPS + 8 * i32::from(slot))
}

impl Translation<'_, '_> {
    /// Where the bytes of an access are in this process. What the data entry doesn't
    /// allow goes to the hole; there is none where another access has checked it.
    /// Uses RAX, RCX and RDX.
    pub(super) fn address(
        &mut self,
        k: usize,
        op: &Op,
        size: i32,
        store: bool,
    ) -> (Rm, Option<Hole>) {
        match self.role(k) {
            Role::Alone => {
                self.effective(op.rs1, op.imm);
                let slow = self.check(size, store);
                self.asm.alu(Q, Alu::Add, RAX, ADDEND);
                (Rm::Mem(RAX, 0), Some(slow))
            }
            Role::Leader {
                low,
                high,
                store,
                slot,
            } => {
                self.effective(op.rs1, low);
                let refused = self.check(high - low, store);
                self.refuses(refused, k);
                self.asm.mov(Q, RDX, ADDEND);
                if let Some(slot) = slot {
                    self.asm.store(Q, slot_at(slot), RDX);
                }
                let at = match self.place_of(op.rs1) {
                    Place::Host(base) => Rm::Sib(RDX, base, 0, op.imm),
                    _ => Rm::Sib(RDX, RAX, 0, op.imm - low),
                };
                (at, None)
            }
            Role::Member { from } => {
                if let Some(slot) = from {
                    self.asm.mov(Q, RDX, slot_at(slot));
                }
                let base = self.get(op.rs1, RAX);
                (Rm::Sib(RDX, base, 0, op.imm), None)
            }
        }
    }

    /// RAX = a register and a displacement.
    fn effective(&mut self, base: u8, displacement: i32) {
        match self.place_of(base) {
            Place::Host(base) if displacement == 0 => self.asm.mov(Q, RAX, base),
            Place::Host(base) => self.asm.lea(Q, RAX, Rm::Mem(base, displacement)),
            _ => {
                self.load(RAX, base);
                if displacement != 0 {
                    self.asm.alu_imm(Q, Alu::Add, RAX, displacement);
                }
            }
        }
    }

    /// RCX = place of the data entry for the address in RAX.
    pub(super) fn find_entry(&mut self) {
        const SHIFT: u8 = 12 - layout::DATA_STRIDE.trailing_zeros() as u8;
        const MASK: i32 = (layout::DATA_PAGES * layout::DATA_STRIDE) as i32;
        const { assert!(layout::DATA_STRIDE.is_power_of_two()) };
        if self.sink.features.bmi2 {
            self.asm.rorx32(RCX, RAX, SHIFT);
        } else {
            self.asm.mov(D, RCX, RAX);
            self.asm.shift_imm(D, Shift::Shr, RCX, SHIFT);
        }
        self.asm.alu_imm(D, Alu::And, RCX, MASK);
    }

    /// Goes to the hole unless `bytes` bytes from RAX on are in one page whose data
    /// entry allows the access; RCX is the entry's place afterwards. Bytes in two
    /// pages meet an entry that isn't the last byte's. Uses RDX.
    fn check(&mut self, bytes: i32, store: bool) -> Hole {
        self.find_entry();
        if bytes == 1 {
            self.asm.mov(Q, RDX, RAX);
        } else {
            self.asm.lea(Q, RDX, Rm::Mem(RAX, bytes - 1));
        }
        self.asm.alu_imm(Q, Alu::And, RDX, -(PAGE_BYTES as i32));
        let tag = if store {
            layout::DATA_STORE
        } else {
            layout::DATA_LOAD
        };
        self.asm
            .alu(Q, Alu::Cmp, RDX, Rm::Sib(DATA, RCX, 0, tag as i32));
        self.asm.jcc(Cond::NE)
    }

    pub(super) fn read(&mut self, k: usize, op: &Op) {
        use Kind::*;
        let size = match op.kind {
            Lb | Lbu => 1,
            Lh | Lhu => 2,
            Lw | Lwu => 4,
            _ => 8,
        };
        let (from, slow) = self.address(k, op, size, false);
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
        self.slow_all(k, op, slow);
    }

    pub(super) fn write(&mut self, k: usize, op: &Op) {
        use Kind::*;
        let size = match op.kind {
            Sb => 1,
            Sh => 2,
            Sw => 4,
            _ => 8,
        };
        let (to, slow) = self.address(k, op, size, true);
        let width = if size == 8 { Q } else { D };
        let from = self.get_sized(width, op.rs2, RCX);
        match op.kind {
            Sb => self.asm.store8(to, from),
            Sh => self.asm.store16(to, from),
            Sw => self.asm.store(D, to, from),
            _ => self.asm.store(Q, to, from),
        }
        self.slow_all(k, op, slow);
    }

    pub(super) fn slow(&mut self, from: Hole, point: u32) {
        let back = self.asm.here();
        self.later.push(Later::Slow {
            from,
            point,
            back,
            float: self.float,
            pending: self.words_before.pending,
        });
    }
}

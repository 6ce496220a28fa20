//! Templates of instructions that read sstatus, or switch S-mode's interrupts off: kernels do so
//! around each short piece of code that they must not come between.
//!
//! Nothing is left to the run loop. An interrupt that waits is only let in by a bit that is
//! set, translations are decided by others, and none of them changes here: whatever would set a bit
//! is the interpreter's, and so are the other modes.

use super::asm::{Alu, Cond, RAX, RCX, RDX, Reg, Shift, Size};
use super::atomic::state;
use super::translate::{Later, Translation};
use Size::{D, Q};
use twinvm_cpu::tier::{
    DecodedOp as Op, Kind, MODE, MODE_SUPERVISOR, SSTATUS, SSTATUS_UPPER, SSTATUS_WRITABLE, STATUS,
    STATUS_FLOAT, STATUS_INTERRUPTS,
};

impl Translation<'_, '_> {
    /// False if the op is none of these.
    pub(super) fn status_op(&mut self, k: usize, op: &Op) -> bool {
        let off = op.kind == Kind::Csrrci && u32::from(op.rs1) == STATUS_INTERRUPTS;
        if op.aux != SSTATUS || !(off || op.kind == Kind::Csrrs) {
            return false;
        }
        self.extend_all_words();
        let point = self.point(k, op);
        self.asm.movzx8(RDX, state(MODE));
        self.asm.alu_imm(D, Alu::Cmp, RDX, MODE_SUPERVISOR);
        let mut slow = vec![self.asm.jcc(Cond::NE)];
        self.asm.mov(Q, RDX, state(STATUS));
        if !off && op.rs1 != 0 {
            // Bits that it would set.
            self.asm.mov(D, RAX, RDX);
            self.asm.group3(D, 2, RAX);
            self.asm.alu_imm(D, Alu::And, RAX, SSTATUS_WRITABLE as i32);
            self.load(RCX, op.rs1);
            self.asm.alu(D, Alu::And, RAX, RCX);
            slow.push(self.asm.jcc(Cond::NE));
        }
        if !self.nowhere(op) {
            self.sstatus(RAX);
            self.put(op.rd, RAX);
        }
        if off {
            let others = !(STATUS_INTERRUPTS as i32);
            self.asm.mov(Q, RDX, state(STATUS));
            self.asm.alu_imm(Q, Alu::And, RDX, others);
            self.asm.store(Q, state(STATUS), RDX);
        }
        let back = self.asm.here();
        for from in slow {
            self.later.push(Later::Slow {
                from,
                point,
                back,
                // Nothing follows the last.
                float: self.float && k + 1 < self.steps,
                pending: 0,
            });
        }
        true
    }

    /// What sstatus reads as, of mstatus in RDX. Uses RCX and RDX.
    fn sstatus(&mut self, to: Reg) {
        self.asm.mov(D, RCX, RDX);
        self.asm.alu_imm(D, Alu::And, RCX, STATUS_FLOAT as i32);
        self.asm.alu_imm(D, Alu::Cmp, RCX, STATUS_FLOAT as i32);
        self.asm.setcc(Cond::E, RCX);
        self.asm.movzx8(RCX, RCX);
        // SD is bit 63: the upper half's bit 31.
        self.asm.shift_imm(D, Shift::Shl, RCX, 31);
        self.asm.mov(D, to, RDX);
        self.asm.alu_imm(D, Alu::And, to, SSTATUS_WRITABLE as i32);
        self.asm.shift_imm(Q, Shift::Shr, RDX, 32);
        self.asm.alu_imm(D, Alu::And, RDX, SSTATUS_UPPER as i32);
        self.asm.alu(D, Alu::Or, RDX, RCX);
        self.asm.shift_imm(Q, Shift::Shl, RDX, 32);
        self.asm.alu(Q, Alu::Or, to, RDX);
    }
}

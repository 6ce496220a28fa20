//! 32-bit results whose sign extension to 64 bits is put off.
//!
//! Instructions that compute with 32 bits leave the result sign-extended. Mostly the
//! next to read it looks at 32 bits again, and then the register is written anew. So
//! where a later op of the block writes the register again, the extension waits until
//! somebody wants all 64 bits; who leaves the block before makes up for it out of line.
//! And of values that are known to be sign-extended from 32 bits, the bitwise
//! operations and comparisons are those of 32 bits.

use super::asm::{RAX, Size};
use super::registers::{Place, home};
use super::translate::Translation;
use twinvm_cpu::tier::{DecodedOp as Op, Kind};

/// What is known of the guest's integer registers between two ops; a bit for each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words {
    /// Only the lower 32 bits are what they must be.
    pub(super) pending: u32,
    /// The value is, or will be, sign-extended from its lower 32 bits.
    known: u32,
}

fn bit(guest: u8) -> u32 {
    1u32.checked_shl(u32::from(guest)).unwrap_or(0)
}

/// The integer registers that an op reads.
pub(super) fn read(op: &Op) -> u32 {
    let (whole, low) = reads(op);
    whole | low
}

/// The integer register that an op writes, if it does.
pub(super) fn written(op: &Op) -> u32 {
    if writes(op) { bit(op.rd) } else { 0 }
}

pub(super) fn is_branch(kind: Kind) -> bool {
    use Kind::*;
    matches!(kind, Beq | Bne | Blt | Bge | Bltu | Bgeu)
}

/// What an op looks at, as bits: of registers that it reads whole, and of those of
/// which it reads the lower 32 bits at most.
fn reads(op: &Op) -> (u32, u32) {
    use Kind::*;
    let (first, second) = (bit(op.rs1), bit(op.rs2));
    match op.kind {
        Nop | Li | Auipc | Jal | Fence => (0, 0),
        Addiw | Slliw | Srliw | Sraiw | SlliUw | Clzw | Ctzw | Cpopw | SextB | SextH | ZextH
        | Roriw => (0, first),
        Andi if op.imm >= 0 => (0, first),
        Addw | Subw | Sllw | Srlw | Sraw | Mulw | Divw | Divuw | Remw | Remuw | Rolw | Rorw => {
            (0, first | second)
        }
        Sll | Srl | Sra | Rol | Ror | Bclr | Bext | Binv | Bset => (first, second),
        AddUw | Sh1addUw | Sh2addUw | Sh3addUw => (second, first),
        Sb | Sh | Sw => (first, second),
        kind if (kind as u8) < Add as u8 => (first, 0),
        Lb | Lh | Lw | Ld | Lbu | Lhu | Lwu | Flw | Fld | Fsw | Fsd => (first, 0),
        FcvtSW | FcvtSWu | FcvtSL | FcvtSLu | FmvWX | FcvtDW | FcvtDWu | FcvtDL | FcvtDLu
        | FmvDX => (first, 0),
        // The numbers are those of floating-point registers.
        kind if (FaddS as u8..=FnmaddD as u8).contains(&(kind as u8)) => (0, 0),
        _ => (first | second, 0),
    }
}

/// Operations that on values sign-extended from 32 bits can be done with 32 bits, and
/// give such a value.
fn is_bitwise(op: &Op) -> bool {
    use Kind::*;
    match op.kind {
        Xori | Ori | Andi | Xor | Or | And | Andn | Orn | Xnor | Slti | Sltiu | Slt | Sltu => true,
        Addi => op.imm == 0,
        Add => op.rs1 == 0,
        Beq | Bne | Blt | Bge | Bltu | Bgeu => true,
        _ => false,
    }
}

/// True if the result is sign-extended from 32 bits, whatever the operands are.
fn gives_word(op: &Op) -> bool {
    use Kind::*;
    match op.kind {
        Li | Addiw | Slliw | Srliw | Sraiw | Addw | Subw | Sllw | Srlw | Sraw | Mulw | Divw
        | Divuw | Remw | Remuw | Slt | Sltu | Slti | Sltiu | Lb | Lh | Lw | Lbu | Lhu | SextB
        | SextH | ZextH | Clz | Ctz | Cpop | Clzw | Ctzw | Cpopw | Rolw | Rorw | Roriw | Bext
        | Bexti => true,
        Andi => op.imm >= 0,
        Srli => (op.imm & 63) > 32,
        _ => false,
    }
}

/// True if the op writes an integer register.
fn writes(op: &Op) -> bool {
    use Kind::*;
    let kind = op.kind as u8;
    kind <= Lwu as u8
        || (LrW as u8..=AmoMaxuD as u8).contains(&kind)
        || (Csrrw as u8..=Csrrci as u8).contains(&kind)
        || matches!(
            op.kind,
            FcvtWS
                | FcvtWuS
                | FcvtLS
                | FcvtLuS
                | FmvXW
                | FeqS
                | FltS
                | FleS
                | FclassS
                | FcvtWD
                | FcvtWuD
                | FcvtLD
                | FcvtLuD
                | FmvXD
                | FeqD
                | FltD
                | FleD
                | FclassD
        )
}

/// For each op, whether a later one writes the same register, with nothing between
/// that needs the interpreter as a rule.
pub(super) fn written_again(ops: &[Op]) -> Vec<bool> {
    let mut later = 0;
    let mut again = vec![false; ops.len()];
    for (k, op) in ops.iter().enumerate().rev() {
        if op.kind as u8 > Kind::Bgeu as u8 {
            later = 0;
        } else if writes(op) {
            again[k] = later & bit(op.rd) != 0;
            later |= bit(op.rd);
        }
    }
    again
}

impl Translation<'_, '_> {
    /// Before the template of an op: its operands are such that it can be done with
    /// operands of `self.size`.
    pub(super) fn prepare_words(&mut self, k: usize, op: &Op) {
        let (whole, low) = reads(op);
        let sources = whole | low;
        let words = is_bitwise(op) && sources & !self.words.known & !1 == 0;
        self.size = if words && sources & self.words.pending != 0 {
            Size::D
        } else {
            self.extend_words(whole & self.words.pending);
            Size::Q
        };
        self.lazy =
            self.again.get(k).copied().unwrap_or(false) && (op.kind as u8) < Kind::Flw as u8;
        self.words_before = self.words;
        self.left_pending = false;
        if writes(op) {
            let word = gives_word(op) || words;
            self.words.known &= !bit(op.rd);
            if word {
                self.words.known |= bit(op.rd);
            }
            self.words.pending &= !bit(op.rd);
        }
    }

    /// After the template.
    pub(super) fn note_words(&mut self, op: &Op) {
        if self.left_pending {
            self.words.pending |= bit(op.rd);
        }
    }

    /// Sign-extends what is in registers of a mask. Uses RAX.
    pub(super) fn extend_words(&mut self, mask: u32) {
        self.emit_extensions(mask);
        self.words.pending &= !mask;
    }

    /// All registers are what they must be.
    pub(super) fn extend_all_words(&mut self) {
        self.extend_words(self.words.pending);
    }

    /// The instructions alone: what is known stays as it is.
    pub(super) fn emit_extensions(&mut self, mask: u32) {
        for guest in (0..32).filter(|guest| mask >> guest & 1 != 0) {
            match self.place_of(guest) {
                Place::Host(reg) => self.asm.movsx32(reg, reg),
                _ => {
                    self.asm.movsx32(RAX, home(guest));
                    self.asm.store(Size::Q, home(guest), RAX);
                }
            }
        }
    }
}

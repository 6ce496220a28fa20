//! The decoded form of an instruction.

/// What an [`Op`] does. One kind per instruction; compressed instructions are
/// decoded to the kind they expand to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
// The variants have the names of the instructions.
#[allow(missing_docs)]
pub enum Kind {
    Nop, Li, Auipc,
    Addi, Slti, Sltiu, Xori, Ori, Andi, Slli, Srli, Srai, Addiw, Slliw, Srliw, Sraiw,
    Add, Sub, Sll, Slt, Sltu, Xor, Srl, Sra, Or, And, Addw, Subw, Sllw, Srlw, Sraw,
    Mul, Mulh, Mulhsu, Mulhu, Div, Divu, Rem, Remu, Mulw, Divw, Divuw, Remw, Remuw,
    // Zba, Zbb, Zbs, Zicond.
    AddUw, Sh1add, Sh2add, Sh3add, Sh1addUw, Sh2addUw, Sh3addUw, SlliUw,
    Andn, Orn, Xnor, Clz, Ctz, Cpop, Clzw, Ctzw, Cpopw, Max, Maxu, Min, Minu, SextB, SextH, ZextH,
    Rol, Ror, Rori, Rolw, Rorw, Roriw, OrcB, Rev8,
    Bclr, Bclri, Bext, Bexti, Binv, Binvi, Bset, Bseti, CzeroEqz, CzeroNez,
    Lb, Lh, Lw, Ld, Lbu, Lhu, Lwu, Sb, Sh, Sw, Sd, Flw, Fld, Fsw, Fsd,
    Beq, Bne, Blt, Bge, Bltu, Bgeu, Jal, Jalr,
    // From here on: out of line.
    LrW, LrD, ScW, ScD,
    AmoSwapW, AmoAddW, AmoXorW, AmoAndW, AmoOrW, AmoMinW, AmoMaxW, AmoMinuW, AmoMaxuW,
    AmoSwapD, AmoAddD, AmoXorD, AmoAndD, AmoOrD, AmoMinD, AmoMaxD, AmoMinuD, AmoMaxuD,
    CboInval, CboClean, CboFlush, CboZero,
    Fence, FenceI, Ecall, Ebreak, Sret, Mret, Wfi, SfenceVma,
    SinvalVma, SfenceWInval, SfenceInvalIr, Pause, WrsNto, WrsSto,
    // At the end of a block: an instruction of 32 bits, the second half of which is on the next
    // page. What it does is known when it is executed.
    Crossing,
    Csrrw, Csrrs, Csrrc, Csrrwi, Csrrsi, Csrrci,
    FaddS, FsubS, FmulS, FdivS, FsqrtS, FsgnjS, FsgnjnS, FsgnjxS, FminS, FmaxS,
    FcvtWS, FcvtWuS, FcvtLS, FcvtLuS, FmvXW, FeqS, FltS, FleS, FclassS,
    FcvtSW, FcvtSWu, FcvtSL, FcvtSLu, FmvWX, FcvtSD, FmaddS, FmsubS, FnmsubS, FnmaddS,
    FaddD, FsubD, FmulD, FdivD, FsqrtD, FsgnjD, FsgnjnD, FsgnjxD, FminD, FmaxD,
    FcvtWD, FcvtWuD, FcvtLD, FcvtLuD, FmvXD, FeqD, FltD, FleD, FclassD,
    FcvtDW, FcvtDWu, FcvtDL, FcvtDLu, FmvDX, FcvtDS, FmaddD, FmsubD, FnmsubD, FnmaddD,
    Illegal,
}

impl Kind {
    /// True if no instruction may follow in the same block: the next pc, the
    /// privilege mode, or what is enabled may change.
    pub(crate) fn ends_block(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Jal | Jalr
                | FenceI
                | Ecall
                | Ebreak
                | Sret
                | Mret
                | Wfi
                | SfenceVma
                | Pause
                | WrsNto
                | WrsSto
                | Crossing
                | Illegal
        ) || (self as u8 >= Csrrw as u8 && self as u8 <= Csrrci as u8)
    }
}

/// One decoded instruction of a block.
#[derive(Debug, Clone, Copy)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// Destination; writes to x0 were turned to the sink register.
    pub rd: u8,
    /// First source; x0 reads as zero.
    pub rs1: u8,
    /// Second source.
    pub rs2: u8,
    /// Immediate. For branches, jal and auipc: relative to the block's start.
    pub imm: i32,
    /// Offset of the instruction from the block's start, bytes.
    pub off: u16,
    /// CSR number; or rm in bits 2:0 and rs3 in bits 7:3.
    pub aux: u16,
    /// The instruction's bits (16 if compressed), for xtval.
    pub raw: u32,
}

impl Op {
    /// True if no instruction may follow in the same block.
    pub(crate) fn ends_block(&self) -> bool {
        self.kind.ends_block() && !self.is_fflags()
    }

    /// True if it reads or writes the floating-point flags by their CSR: libraries do
    /// so around comparisons. It changes nothing else.
    pub fn is_fflags(&self) -> bool {
        use Kind::*;
        self.aux == crate::csr::addr::FFLAGS
            && matches!(self.kind, Csrrw | Csrrs | Csrrc | Csrrwi | Csrrsi | Csrrci)
    }

    /// Offset of the following instruction from the block's start, bytes.
    #[inline(always)]
    pub fn next_off(&self) -> u64 {
        u64::from(self.off) + if self.raw & 3 == 3 { 4 } else { 2 }
    }
}

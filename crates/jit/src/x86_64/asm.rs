//! Encodes x86-64 instructions (Intel 64 Architectures Software Developer's Manual,
//! volume 2).

/// A general register by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reg(pub(crate) u8);

pub(crate) const RAX: Reg = Reg(0);
pub(crate) const RCX: Reg = Reg(1);
pub(crate) const RDX: Reg = Reg(2);
pub(crate) const RBX: Reg = Reg(3);
pub(crate) const RSP: Reg = Reg(4);
pub(crate) const RBP: Reg = Reg(5);
pub(crate) const RSI: Reg = Reg(6);
pub(crate) const RDI: Reg = Reg(7);
pub(crate) const R8: Reg = Reg(8);
pub(crate) const R9: Reg = Reg(9);
pub(crate) const R10: Reg = Reg(10);
pub(crate) const R11: Reg = Reg(11);
pub(crate) const R12: Reg = Reg(12);
pub(crate) const R13: Reg = Reg(13);
pub(crate) const R14: Reg = Reg(14);
pub(crate) const R15: Reg = Reg(15);

/// An operand that is a register or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rm {
    Reg(Reg),
    /// `[base + disp]`
    Mem(Reg, i32),
    /// `[base + index * (1 << scale) + disp]`; the index is not RSP.
    Sib(Reg, Reg, u8, i32),
}

impl From<Reg> for Rm {
    fn from(reg: Reg) -> Self {
        Rm::Reg(reg)
    }
}

/// Operand size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    D,
    Q,
}

/// The two-operand instructions of opcode group 1; the number is that of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Alu {
    Add = 0,
    Or = 1,
    /// With borrow.
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotations of opcode group 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// Conditions, by their number in jcc, setcc and cmovcc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cond {
    O = 0,
    B = 2,
    AE = 3,
    E = 4,
    NE = 5,
    A = 7,
    S = 8,
    P = 10,
    NP = 11,
    L = 12,
    GE = 13,
}

/// Code under construction; it will lie at `base` in the buffer.
pub(crate) struct Asm {
    pub(crate) code: Vec<u8>,
    pub(crate) base: usize,
}

/// A place in the code whose 32-bit displacement is still to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole(pub(crate) usize);

impl Asm {
    /// Offset in the buffer of the next instruction.
    pub(crate) fn here(&self) -> usize {
        self.base + self.code.len()
    }

    fn byte(&mut self, byte: u8) {
        self.code.push(byte);
    }

    pub(crate) fn imm32(&mut self, value: i32) {
        self.code.extend_from_slice(&value.to_le_bytes());
    }

    /// Prefixes, opcode and operands. `opcode` is one byte, or two or three that begin
    /// with 0x0f; `prefix` is a mandatory prefix or 0.
    pub(crate) fn op(
        &mut self,
        prefix: u8,
        wide: bool,
        opcode: &[u8],
        reg: Reg,
        rm: impl Into<Rm>,
    ) {
        self.op_sized(prefix, wide, false, opcode, reg, rm.into());
    }

    fn op_sized(&mut self, prefix: u8, wide: bool, byte: bool, opcode: &[u8], reg: Reg, rm: Rm) {
        if prefix != 0 {
            self.byte(prefix);
        }
        let (x, b) = match rm {
            Rm::Reg(reg) | Rm::Mem(reg, _) => (0, reg.0 >> 3),
            Rm::Sib(base, index, ..) => (index.0 >> 3, base.0 >> 3),
        };
        let rex = (wide as u8) << 3 | (reg.0 >> 3) << 2 | x << 1 | b;
        // Byte registers 4 to 7 are the low ones only with a REX prefix.
        let low_byte = byte && (reg.0 >= 4 || matches!(rm, Rm::Reg(r) if r.0 >= 4));
        if rex != 0 || low_byte {
            self.byte(0x40 | rex);
        }
        self.code.extend_from_slice(opcode);
        let field = (reg.0 & 7) << 3;
        match rm {
            Rm::Reg(r) => self.byte(0xc0 | field | r.0 & 7),
            Rm::Mem(base, disp) => {
                let mode = mode(base, disp);
                self.byte(mode << 6 | field | base.0 & 7);
                if base.0 & 7 == 4 {
                    self.byte(0x24);
                }
                self.disp(mode, disp);
            }
            Rm::Sib(base, index, scale, disp) => {
                let mode = mode(base, disp);
                self.byte(mode << 6 | field | 4);
                self.byte(scale << 6 | (index.0 & 7) << 3 | base.0 & 7);
                self.disp(mode, disp);
            }
        }
    }

    fn disp(&mut self, mode: u8, disp: i32) {
        match mode {
            0 => {}
            1 => self.byte(disp as u8),
            _ => self.imm32(disp),
        }
    }

    // ---- moves ------------------------------------------------------------

    pub(crate) fn mov(&mut self, size: Size, to: Reg, from: impl Into<Rm>) {
        self.op(0, size == Size::Q, &[0x8b], to, from);
    }

    pub(crate) fn store(&mut self, size: Size, to: impl Into<Rm>, from: Reg) {
        self.op(0, size == Size::Q, &[0x89], from, to);
    }

    pub(crate) fn store8(&mut self, to: impl Into<Rm>, from: Reg) {
        self.op_sized(0, false, true, &[0x88], from, to.into());
    }

    pub(crate) fn store16(&mut self, to: impl Into<Rm>, from: Reg) {
        self.op(0x66, false, &[0x89], from, to);
    }

    /// Sign-extends 8 bits to 64.
    pub(crate) fn movsx8(&mut self, to: Reg, from: impl Into<Rm>) {
        self.op(0, true, &[0x0f, 0xbe], to, from);
    }

    /// Sign-extends 16 bits to 64.
    pub(crate) fn movsx16(&mut self, to: Reg, from: impl Into<Rm>) {
        self.op(0, true, &[0x0f, 0xbf], to, from);
    }

    /// Sign-extends 32 bits to 64.
    pub(crate) fn movsx32(&mut self, to: Reg, from: impl Into<Rm>) {
        self.op(0, true, &[0x63], to, from);
    }

    /// Zero-extends 8 bits to 64.
    pub(crate) fn movzx8(&mut self, to: Reg, from: impl Into<Rm>) {
        self.op_sized(0, false, true, &[0x0f, 0xb6], to, from.into());
    }

    /// Zero-extends 16 bits to 64.
    pub(crate) fn movzx16(&mut self, to: Reg, from: impl Into<Rm>) {
        self.op(0, false, &[0x0f, 0xb7], to, from);
    }

    /// Sets a register to a sign-extended immediate. Changes flags.
    pub(crate) fn set(&mut self, to: Reg, value: i32) {
        if value == 0 {
            self.alu(Size::D, Alu::Xor, to, to);
        } else if value > 0 {
            self.mov_imm32(to, value as u32);
        } else {
            self.op(0, true, &[0xc7], Reg(0), to);
            self.imm32(value);
        }
    }

    /// Sets a register to a zero-extended immediate; flags stay.
    pub(crate) fn mov_imm32(&mut self, to: Reg, value: u32) {
        if to.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0xb8 | to.0 & 7);
        self.imm32(value as i32);
    }

    /// Sets 64 bits of memory to a sign-extended immediate.
    pub(crate) fn store_imm(&mut self, to: impl Into<Rm>, value: i32) {
        self.op(0, true, &[0xc7], Reg(0), to);
        self.imm32(value);
    }

    /// Sets a register to any value; flags stay.
    pub(crate) fn mov_imm64(&mut self, to: Reg, value: u64) {
        self.byte(0x48 | to.0 >> 3);
        self.byte(0xb8 | to.0 & 7);
        self.code.extend_from_slice(&value.to_le_bytes());
    }

    /// Sets 8 bits of memory.
    pub(crate) fn store8_imm(&mut self, to: Rm, value: u8) {
        self.op(0, false, &[0xc6], Reg(0), to);
        self.byte(value);
    }

    /// Compares 8 bits of memory.
    pub(crate) fn cmp8_imm(&mut self, a: Rm, value: u8) {
        self.op(0, false, &[0x80], Reg(7), a);
        self.byte(value);
    }

    pub(crate) fn lea(&mut self, size: Size, to: Reg, from: Rm) {
        self.op(0, size == Size::Q, &[0x8d], to, from);
    }

    // ---- arithmetic -------------------------------------------------------

    /// `to = to OP from`
    pub(crate) fn alu(&mut self, size: Size, alu: Alu, to: Reg, from: impl Into<Rm>) {
        self.op(0, size == Size::Q, &[(alu as u8) << 3 | 3], to, from);
    }

    /// `to = to OP imm`
    pub(crate) fn alu_imm(&mut self, size: Size, alu: Alu, to: impl Into<Rm>, imm: i32) {
        let wide = size == Size::Q;
        match i8::try_from(imm) {
            Ok(short) => {
                self.op(0, wide, &[0x83], Reg(alu as u8), to);
                self.byte(short as u8);
            }
            Err(_) => {
                self.op(0, wide, &[0x81], Reg(alu as u8), to);
                self.imm32(imm);
            }
        }
    }

    pub(crate) fn test(&mut self, size: Size, a: Reg, b: Reg) {
        self.op(0, size == Size::Q, &[0x85], a, b);
    }

    /// `to = to SHIFT imm`
    pub(crate) fn shift_imm(&mut self, size: Size, shift: Shift, to: impl Into<Rm>, imm: u8) {
        self.op(0, size == Size::Q, &[0xc1], Reg(shift as u8), to);
        self.byte(imm);
    }

    /// `to = to SHIFT cl`
    pub(crate) fn shift_cl(&mut self, size: Size, shift: Shift, to: impl Into<Rm>) {
        self.op(0, size == Size::Q, &[0xd3], Reg(shift as u8), to);
    }

    /// `to = to * from`, low half.
    pub(crate) fn imul(&mut self, size: Size, to: Reg, from: impl Into<Rm>) {
        self.op(0, size == Size::Q, &[0x0f, 0xaf], to, from);
    }

    /// Opcode group 3 on one operand: 2 not, 3 neg, 4 mul, 5 imul, 6 div, 7 idiv.
    pub(crate) fn group3(&mut self, size: Size, number: u8, rm: impl Into<Rm>) {
        self.op(0, size == Size::Q, &[0xf7], Reg(number), rm);
    }

    /// A VEX prefix for 32 bits with a map, the other source and the mandatory prefix,
    /// an opcode, and two registers; the high bits of all are inverted.
    fn vex(&mut self, reg: Reg, rm: Reg, [map, other, opcode]: [u8; 3]) {
        self.byte(0xc4);
        self.byte((!reg.0 >> 3 & 1) << 7 | 1 << 6 | (!rm.0 >> 3 & 1) << 5 | map);
        self.byte(other);
        self.byte(opcode);
        self.byte(0xc0 | (reg.0 & 7) << 3 | rm.0 & 7);
    }

    /// Rotates 32 bits to the right (BMI2); flags stay.
    pub(crate) fn rorx32(&mut self, to: Reg, from: Reg, count: u8) {
        self.vex(to, from, [3, 0x7b, 0xf0]);
        self.byte(count);
    }

    /// Sign-extends RAX into RDX.
    pub(crate) fn sign_rdx(&mut self, size: Size) {
        if size == Size::Q {
            self.byte(0x48);
        }
        self.byte(0x99);
    }

    pub(crate) fn setcc(&mut self, cond: Cond, to: Reg) {
        self.op_sized(
            0,
            false,
            true,
            &[0x0f, 0x90 | cond as u8],
            Reg(0),
            to.into(),
        );
    }

    pub(crate) fn cmov(&mut self, cond: Cond, to: Reg, from: impl Into<Rm>) {
        self.op(0, true, &[0x0f, 0x40 | cond as u8], to, from);
    }

    /// Swaps the eight bytes of a register.
    pub(crate) fn bswap(&mut self, reg: Reg) {
        self.byte(0x48 | reg.0 >> 3);
        self.byte(0x0f);
        self.byte(0xc8 | reg.0 & 7);
    }

    /// The address of code.
    pub(crate) fn lea_code(&mut self, to: Reg) -> Hole {
        // Relative to the next instruction.
        self.byte(0x48 | (to.0 >> 3) << 2);
        self.byte(0x8d);
        self.byte((to.0 & 7) << 3 | 5);
        self.hole()
    }

    // ---- control flow -----------------------------------------------------

    pub(crate) fn jcc(&mut self, cond: Cond) -> Hole {
        self.byte(0x0f);
        self.byte(0x80 | cond as u8);
        self.hole()
    }

    pub(crate) fn jmp(&mut self) -> Hole {
        self.byte(0xe9);
        self.hole()
    }

    pub(crate) fn call(&mut self) -> Hole {
        self.byte(0xe8);
        self.hole()
    }

    pub(crate) fn jmp_rm(&mut self, rm: impl Into<Rm>) {
        self.op(0, false, &[0xff], Reg(4), rm);
    }

    pub(crate) fn call_rm(&mut self, rm: impl Into<Rm>) {
        self.op(0, false, &[0xff], Reg(2), rm);
    }

    pub(crate) fn ret(&mut self) {
        self.byte(0xc3);
    }

    pub(crate) fn push(&mut self, reg: Reg) {
        if reg.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0x50 | reg.0 & 7);
    }

    pub(crate) fn pop(&mut self, reg: Reg) {
        if reg.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0x58 | reg.0 & 7);
    }

    fn hole(&mut self) -> Hole {
        self.imm32(0);
        Hole(self.here() - 4)
    }

    /// Lets the jump go to an offset in the buffer.
    pub(crate) fn fill(&mut self, hole: Hole, target: usize) {
        let at = hole.0 - self.base;
        self.code[at..at + 4].copy_from_slice(&displacement(hole, target).to_le_bytes());
    }

    /// Lets the jump go to the next instruction.
    pub(crate) fn fill_here(&mut self, hole: Hole) {
        self.fill(hole, self.here());
    }
}

/// What the hole must hold for a jump to an offset in the buffer.
pub(crate) fn displacement(hole: Hole, target: usize) -> i32 {
    (target as i64 - (hole.0 as i64 + 4)) as i32
}

fn mode(base: Reg, disp: i32) -> u8 {
    if disp == 0 && base.0 & 7 != 5 {
        0
    } else if i8::try_from(disp).is_ok() {
        1
    } else {
        2
    }
}

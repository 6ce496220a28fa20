//! One block: a template per instruction.

use super::asm::{Alu, Asm, Cond, Hole, RAX, RCX, RDX, RSP, Reg, Rm, Shift, Size};
use super::registers::{BUDGET, Place, SPACE, float_home, home, place};
use super::{Common, Features, Jump, PAGE_VA, Point};
use Size::{D, Q};
use twinvm_cpu::tier::{Code, DecodedOp as Op, Kind, layout};
use twinvm_mem::PAGE_BYTES;

/// What is translated goes here.
pub(super) struct Sink<'a> {
    pub(super) points: &'a mut Vec<Point>,
    pub(super) jumps: &'a mut Vec<Jump>,
    pub(super) common: &'a Common,
    pub(super) features: Features,
}

/// Code out of line, after the block.
enum Later {
    /// An access that the inline translation refused: the interpreter does it.
    Slow { from: Hole, point: u32, back: usize },
    /// A jump that leaves before the end gives back the steps that were not made.
    Side {
        from: Hole,
        refund: usize,
        target: i32,
    },
    /// A jump that isn't joined to its target yet.
    Unjoined { jump: u32 },
}

struct Translation<'a, 'b> {
    asm: Asm,
    sink: &'a mut Sink<'b>,
    /// Offset of the block in its page.
    start: i32,
    /// Index of the first op for the interpreter.
    first: u32,
    /// Steps of the block.
    steps: usize,
    later: Vec<Later>,
}

/// Translates a block to code for offset `base` of the buffer.
pub(super) fn translate(code: &Code<'_>, base: usize, sink: &mut Sink<'_>) -> Vec<u8> {
    let steps = steps(code.ops);
    let start = (code.pa % PAGE_BYTES as u64) as i32;
    let mut block = Translation {
        asm: Asm {
            code: Vec::with_capacity(32 * steps + 64),
            base,
        },
        sink,
        start,
        first: code.first,
        steps,
        later: Vec::new(),
    };
    block.all(&code.ops[..steps]);
    block.asm.code
}

/// How many ops to take: a branch back, the end of a loop, ends the block, so that
/// the loop's path pays nothing for leaving early.
fn steps(ops: &[Op]) -> usize {
    let back = |op: &Op| is_branch(op.kind) && op.imm <= i32::from(op.off);
    ops.iter().position(back).map_or(ops.len(), |at| at + 1)
}

fn is_branch(kind: Kind) -> bool {
    use Kind::*;
    matches!(kind, Beq | Bne | Blt | Bge | Bltu | Bgeu)
}

impl Translation<'_, '_> {
    fn all(&mut self, ops: &[Op]) {
        let steps = self.steps as i32;
        self.asm.alu_imm(Q, Alu::Sub, BUDGET, steps);
        let tail = self.asm.jcc(Cond::S);
        let mut open = true;
        for (k, op) in ops.iter().enumerate() {
            open = self.one(k, op);
        }
        if open {
            let end = ops.last().map_or(0, Op::next_off) as i32;
            let hole = self.asm.jmp();
            self.joined_later(hole, self.start + end);
        }
        self.asm.fill_here(tail);
        self.asm.alu_imm(Q, Alu::Add, BUDGET, steps);
        self.asm.set(RCX, self.start);
        let leave = self.asm.jmp();
        self.asm.fill(leave, self.sink.common.tail);
        while let Some(later) = self.later.pop() {
            self.out_of_line(later);
        }
    }

    fn out_of_line(&mut self, later: Later) {
        match later {
            Later::Slow { from, point, back } => {
                self.asm.fill_here(from);
                self.call_interpreter(point);
                let hole = self.asm.jmp();
                self.asm.fill(hole, back);
            }
            Later::Side {
                from,
                refund,
                target,
            } => {
                self.asm.fill_here(from);
                self.asm.alu_imm(Q, Alu::Add, BUDGET, refund as i32);
                let hole = self.asm.jmp();
                self.joined_later(hole, target);
            }
            Later::Unjoined { jump } => {
                let stub = self.asm.here();
                let entry = &mut self.sink.jumps[jump as usize];
                entry.stub = stub;
                let (hole, target, id) = (entry.hole, entry.target, entry.id);
                self.asm.fill(hole, stub);
                self.asm.mov_imm32(RCX, target as u32);
                self.asm.mov_imm32(RDX, id);
                let leave = self.asm.jmp();
                self.asm.fill(leave, self.sink.common.link);
            }
        }
    }

    /// The jump at `hole` leads to an offset from this page's start.
    fn joined_later(&mut self, hole: Hole, target: i32) {
        let jump = self.sink.jumps.len() as u32;
        let id = self.sink.common.first_jump.wrapping_add(jump);
        self.sink.jumps.push(Jump {
            hole,
            stub: 0,
            target,
            id,
        });
        self.later.push(Later::Unjoined { jump });
    }

    fn point(&mut self, k: usize, op: &Op) -> u32 {
        self.sink.points.push(Point {
            op: self.first + k as u32,
            at: (self.start as u16).wrapping_add(op.off),
            left: (self.steps - k) as u16,
        });
        (self.sink.points.len() - 1) as u32
    }

    fn call_interpreter(&mut self, point: u32) {
        self.asm.mov_imm32(RCX, point);
        let call = self.asm.call();
        self.asm.fill(call, self.sink.common.interpret);
    }

    /// False if the code doesn't go on after it.
    fn one(&mut self, k: usize, op: &Op) -> bool {
        use Kind::*;
        match op.kind {
            Nop | Fence => {}
            Li => self.constant(op.rd, op.imm),
            Auipc => self.page_relative(op.rd, self.start + op.imm),
            Addi => self.addi(op),
            Slti => self.compare_imm(op, Cond::L),
            Sltiu => self.compare_imm(op, Cond::B),
            Xori if op.imm == -1 => self.unary(op, Q, |asm, d| asm.group3(Q, 2, d)),
            Xori => self.alu_imm(op, Alu::Xor),
            Ori => self.alu_imm(op, Alu::Or),
            Andi => self.alu_imm(op, Alu::And),
            Slli => self.shift_imm(op, Q, Shift::Shl),
            Srli => self.shift_imm(op, Q, Shift::Shr),
            Srai => self.shift_imm(op, Q, Shift::Sar),
            Addiw => self.addiw(op),
            Slliw => self.shift_imm(op, D, Shift::Shl),
            Srliw => self.shift_imm(op, D, Shift::Shr),
            Sraiw => self.shift_imm(op, D, Shift::Sar),
            Add => self.add(op),
            Sub => self.alu(op, Q, Alu::Sub),
            Sll => self.shift(op, Q, Shift::Shl),
            Slt => self.compare(op, Cond::L),
            Sltu => self.compare(op, Cond::B),
            Xor => self.alu(op, Q, Alu::Xor),
            Srl => self.shift(op, Q, Shift::Shr),
            Sra => self.shift(op, Q, Shift::Sar),
            Or => self.alu(op, Q, Alu::Or),
            And => self.alu(op, Q, Alu::And),
            Addw => self.alu(op, D, Alu::Add),
            Subw => self.alu(op, D, Alu::Sub),
            Sllw => self.shift(op, D, Shift::Shl),
            Srlw => self.shift(op, D, Shift::Shr),
            Sraw => self.shift(op, D, Shift::Sar),
            Mul => self.mul(op, Q),
            Mulw => self.mul(op, D),
            Mulh => self.mul_high(op, 5),
            Mulhu => self.mul_high(op, 4),
            Div => self.divide(op, Q, true, true),
            Divu => self.divide(op, Q, false, true),
            Rem => self.divide(op, Q, true, false),
            Remu => self.divide(op, Q, false, false),
            Divw => self.divide(op, D, true, true),
            Divuw => self.divide(op, D, false, true),
            Remw => self.divide(op, D, true, false),
            Remuw => self.divide(op, D, false, false),
            AddUw => self.shifted_add(op, 0, true),
            Sh1add => self.shifted_add(op, 1, false),
            Sh2add => self.shifted_add(op, 2, false),
            Sh3add => self.shifted_add(op, 3, false),
            Sh1addUw => self.shifted_add(op, 1, true),
            Sh2addUw => self.shifted_add(op, 2, true),
            Sh3addUw => self.shifted_add(op, 3, true),
            SlliUw => {
                let shift = op.imm as u8 & 63;
                self.load(RAX, op.rs1);
                self.asm.mov(D, RAX, RAX);
                self.asm.shift_imm(Q, Shift::Shl, RAX, shift);
                self.put(op.rd, RAX);
            }
            Andn => self.negated(op, Alu::And),
            Orn => self.negated(op, Alu::Or),
            Xnor => self.negated(op, Alu::Xor),
            Clz if self.sink.features.lzcnt => self.count(op, true, &[0x0f, 0xbd]),
            Clzw if self.sink.features.lzcnt => self.count(op, false, &[0x0f, 0xbd]),
            Ctz if self.sink.features.bmi1 => self.count(op, true, &[0x0f, 0xbc]),
            Ctzw if self.sink.features.bmi1 => self.count(op, false, &[0x0f, 0xbc]),
            Cpop if self.sink.features.popcnt => self.count(op, true, &[0x0f, 0xb8]),
            Cpopw if self.sink.features.popcnt => self.count(op, false, &[0x0f, 0xb8]),
            // The second is taken if the comparison rs1 : rs2 says so.
            Max => self.select(op, Cond::L),
            Maxu => self.select(op, Cond::B),
            Min => self.select(op, Cond::GE),
            Minu => self.select(op, Cond::AE),
            SextB => self.extend(op, Asm::movsx8),
            SextH => self.extend(op, Asm::movsx16),
            ZextH => self.extend(op, Asm::movzx16),
            Rol => self.shift(op, Q, Shift::Rol),
            Ror => self.shift(op, Q, Shift::Ror),
            Rori => self.shift_imm(op, Q, Shift::Ror),
            Rolw => self.shift(op, D, Shift::Rol),
            Rorw => self.shift(op, D, Shift::Ror),
            Roriw => self.shift_imm(op, D, Shift::Ror),
            Rev8 => self.unary(op, Q, Asm::bswap),
            Bset => self.bit(op, 0xab),
            Bclr => self.bit(op, 0xb3),
            Binv => self.bit(op, 0xbb),
            Bseti => self.bit_imm(op, 5),
            Bclri => self.bit_imm(op, 6),
            Binvi => self.bit_imm(op, 7),
            Bext => {
                self.load(RCX, op.rs2);
                self.load(RAX, op.rs1);
                self.asm.shift_cl(Q, Shift::Shr, RAX);
                self.asm.alu_imm(D, Alu::And, RAX, 1);
                self.put(op.rd, RAX);
            }
            Bexti => {
                self.load(RAX, op.rs1);
                self.asm.shift_imm(Q, Shift::Shr, RAX, op.imm as u8 & 63);
                self.asm.alu_imm(D, Alu::And, RAX, 1);
                self.put(op.rd, RAX);
            }
            CzeroEqz => self.zero_if(op, Cond::E),
            CzeroNez => self.zero_if(op, Cond::NE),
            Lb | Lh | Lw | Ld | Lbu | Lhu | Lwu => self.read(k, op),
            Sb | Sh | Sw | Sd => self.write(k, op),
            Beq | Bne | Blt | Bge | Bltu | Bgeu => self.branch(k, op),
            Jal => {
                self.link_register(op);
                let hole = self.asm.jmp();
                self.joined_later(hole, self.start + op.imm);
                return false;
            }
            Jalr => {
                self.jump_register(op);
                return false;
            }
            _ => {
                let point = self.point(k, op);
                self.call_interpreter(point);
            }
        }
        true
    }

    // ---- registers --------------------------------------------------------

    /// The host register that holds the guest's, or `scratch` after loading it.
    fn get(&mut self, guest: u8, scratch: Reg) -> Reg {
        match place(guest) {
            Place::Host(reg) => reg,
            _ => {
                self.load(scratch, guest);
                scratch
            }
        }
    }

    /// Where the guest's register is. x0 reads as zero in memory too.
    fn operand(&self, guest: u8) -> Rm {
        match place(guest) {
            Place::Host(reg) => reg.into(),
            _ => home(guest),
        }
    }

    fn load(&mut self, to: Reg, guest: u8) {
        if guest == 0 {
            self.asm.set(to, 0);
        } else {
            let from = self.operand(guest);
            self.asm.mov(Q, to, from);
        }
    }

    /// Where to compute a result for the guest's register.
    fn result(&self, guest: u8, scratch: Reg) -> Reg {
        match place(guest) {
            Place::Host(reg) => reg,
            _ => scratch,
        }
    }

    /// The result for the guest's register is in `from`.
    fn put(&mut self, guest: u8, from: Reg) {
        match place(guest) {
            Place::Host(reg) if reg == from => {}
            Place::Host(reg) => self.asm.mov(Q, reg, from),
            Place::Memory => self.asm.store(Q, home(guest), from),
            Place::Nowhere => {}
        }
    }

    fn nowhere(&self, op: &Op) -> bool {
        matches!(place(op.rd), Place::Nowhere)
    }

    // ---- integers ---------------------------------------------------------

    fn constant(&mut self, rd: u8, value: i32) {
        match place(rd) {
            Place::Host(reg) => self.asm.set(reg, value),
            Place::Memory => self.asm.store_imm(home(rd), value),
            Place::Nowhere => {}
        }
    }

    /// rd = an address at an offset from this page's start.
    fn page_relative(&mut self, rd: u8, offset: i32) {
        if matches!(place(rd), Place::Nowhere) {
            return;
        }
        let to = self.result(rd, RAX);
        self.asm.mov(Q, to, Rm::Mem(RSP, PAGE_VA));
        self.asm.alu_imm(Q, Alu::Add, to, offset);
        self.put(rd, to);
    }

    fn addi(&mut self, op: &Op) {
        match (place(op.rd), place(op.rs1)) {
            (Place::Nowhere, _) => {}
            (Place::Memory, _) if op.rd == op.rs1 => {
                self.asm.alu_imm(Q, Alu::Add, home(op.rd), op.imm);
            }
            (Place::Host(to), Place::Host(from)) if to == from => {
                if op.imm != 0 {
                    self.asm.alu_imm(Q, Alu::Add, to, op.imm);
                }
            }
            (_, Place::Host(from)) if op.imm == 0 => self.put(op.rd, from),
            (_, Place::Host(from)) => {
                let to = self.result(op.rd, RAX);
                self.asm.lea(Q, to, Rm::Mem(from, op.imm));
                self.put(op.rd, to);
            }
            _ => {
                let to = self.result(op.rd, RAX);
                self.load(to, op.rs1);
                if op.imm != 0 {
                    self.asm.alu_imm(Q, Alu::Add, to, op.imm);
                }
                self.put(op.rd, to);
            }
        }
    }

    fn addiw(&mut self, op: &Op) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        if op.imm == 0 {
            let from = self.operand(op.rs1);
            self.asm.movsx32(to, from);
        } else {
            let from = self.get(op.rs1, RAX);
            self.asm.lea(D, RAX, Rm::Mem(from, op.imm));
            self.asm.movsx32(to, RAX);
        }
        self.put(op.rd, to);
    }

    fn alu_imm(&mut self, op: &Op, alu: Alu) {
        if self.nowhere(op) {
            return;
        }
        if op.rd == op.rs1 && matches!(place(op.rd), Place::Memory) {
            return self.asm.alu_imm(Q, alu, home(op.rd), op.imm);
        }
        let to = self.result(op.rd, RAX);
        if place(op.rs1) != Place::Host(to) {
            self.load(to, op.rs1);
        }
        self.asm.alu_imm(Q, alu, to, op.imm);
        self.put(op.rd, to);
    }

    fn add(&mut self, op: &Op) {
        match (place(op.rd), place(op.rs1), place(op.rs2)) {
            (Place::Nowhere, ..) => {}
            // A move.
            _ if op.rs1 == 0 => {
                let from = self.get(op.rs2, RAX);
                self.put(op.rd, from);
            }
            (Place::Host(to), Place::Host(a), Place::Host(b)) if to != a && to != b => {
                self.asm.lea(Q, to, Rm::Sib(a, b, 0, 0));
            }
            _ => self.alu(op, Q, Alu::Add),
        }
    }

    fn alu(&mut self, op: &Op, size: Size, alu: Alu) {
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
            self.load(compute, op.rs1);
            self.asm.alu(size, alu, compute, second);
            compute
        };
        self.put_sized(op.rd, compute, size);
    }

    /// The result of an operation of this size, sign-extended if that is 32 bits.
    fn put_sized(&mut self, rd: u8, from: Reg, size: Size) {
        if size == D {
            let to = self.result(rd, RAX);
            self.asm.movsx32(to, from);
            self.put(rd, to);
        } else {
            self.put(rd, from);
        }
    }

    fn unary(&mut self, op: &Op, size: Size, change: impl Fn(&mut Asm, Reg)) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        if place(op.rs1) != Place::Host(to) {
            self.load(to, op.rs1);
        }
        change(&mut self.asm, to);
        self.put_sized(op.rd, to, size);
    }

    fn extend(&mut self, op: &Op, how: impl Fn(&mut Asm, Reg, Rm)) {
        if self.nowhere(op) {
            return;
        }
        let to = self.result(op.rd, RAX);
        let from = self.get(op.rs1, RAX);
        how(&mut self.asm, to, from.into());
        self.put(op.rd, to);
    }

    fn shift_imm(&mut self, op: &Op, size: Size, shift: Shift) {
        if self.nowhere(op) {
            return;
        }
        let most = if size == Q { 63 } else { 31 };
        let to = self.result(op.rd, RAX);
        if place(op.rs1) != Place::Host(to) {
            self.load(to, op.rs1);
        }
        self.asm.shift_imm(size, shift, to, op.imm as u8 & most);
        self.put_sized(op.rd, to, size);
    }

    fn shift(&mut self, op: &Op, size: Size, shift: Shift) {
        if self.nowhere(op) {
            return;
        }
        self.load(RCX, op.rs2);
        let to = self.result(op.rd, RAX);
        let compute = if op.rd == op.rs2 { RAX } else { to };
        if place(op.rs1) != Place::Host(compute) {
            self.load(compute, op.rs1);
        }
        // The host, too, takes the low bits of cl.
        self.asm.shift_cl(size, shift, compute);
        self.put_sized(op.rd, compute, size);
    }

    /// rd = 1 if the comparison just made says so.
    fn put_condition(&mut self, rd: u8, cond: Cond) {
        self.asm.setcc(cond, RAX);
        let to = self.result(rd, RAX);
        self.asm.movzx8(to, RAX);
        self.put(rd, to);
    }

    fn compare_imm(&mut self, op: &Op, cond: Cond) {
        if self.nowhere(op) {
            return;
        }
        let first = self.get(op.rs1, RAX);
        self.asm.alu_imm(Q, Alu::Cmp, first, op.imm);
        self.put_condition(op.rd, cond);
    }

    fn compare(&mut self, op: &Op, cond: Cond) {
        if self.nowhere(op) {
            return;
        }
        let first = self.get(op.rs1, RAX);
        let second = self.operand(op.rs2);
        self.asm.alu(Q, Alu::Cmp, first, second);
        self.put_condition(op.rd, cond);
    }

    fn mul(&mut self, op: &Op, size: Size) {
        if self.nowhere(op) {
            return;
        }
        let second = self.operand(op.rs2);
        let to = self.result(op.rd, RAX);
        let compute = if second == Rm::Reg(to) { RAX } else { to };
        if place(op.rs1) != Place::Host(compute) {
            self.load(compute, op.rs1);
        }
        self.asm.imul(size, compute, second);
        self.put_sized(op.rd, compute, size);
    }

    fn mul_high(&mut self, op: &Op, group3: u8) {
        if self.nowhere(op) {
            return;
        }
        self.load(RAX, op.rs1);
        let second = self.get(op.rs2, RDX);
        self.asm.group3(Q, group3, second);
        self.put(op.rd, RDX);
    }

    fn divide(&mut self, op: &Op, size: Size, signed: bool, quotient: bool) {
        if self.nowhere(op) {
            return;
        }
        self.load(RCX, op.rs2);
        self.load(RAX, op.rs1);
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

    fn shifted_add(&mut self, op: &Op, shift: u8, word: bool) {
        if self.nowhere(op) {
            return;
        }
        let mut first = self.get(op.rs1, RAX);
        if word {
            self.asm.mov(D, RAX, first);
            first = RAX;
        }
        let second = self.get(op.rs2, RCX);
        let to = self.result(op.rd, RAX);
        self.asm.lea(Q, to, Rm::Sib(second, first, shift, 0));
        self.put(op.rd, to);
    }

    /// rd = rs1 OP !rs2
    fn negated(&mut self, op: &Op, alu: Alu) {
        if self.nowhere(op) {
            return;
        }
        self.load(RAX, op.rs2);
        self.asm.group3(Q, 2, RAX);
        let first = self.operand(op.rs1);
        self.asm.alu(Q, alu, RAX, first);
        self.put(op.rd, RAX);
    }

    fn count(&mut self, op: &Op, wide: bool, opcode: &[u8]) {
        if self.nowhere(op) {
            return;
        }
        let from = self.get(op.rs1, RAX);
        let to = self.result(op.rd, RAX);
        self.asm.op(0xf3, wide, opcode, to, from);
        self.put(op.rd, to);
    }

    fn select(&mut self, op: &Op, second: Cond) {
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
    fn bit(&mut self, op: &Op, opcode: u8) {
        if self.nowhere(op) {
            return;
        }
        let number = self.get(op.rs2, RCX);
        self.load(RAX, op.rs1);
        self.asm.op(0, true, &[0x0f, opcode], number, RAX);
        self.put(op.rd, RAX);
    }

    fn bit_imm(&mut self, op: &Op, group8: u8) {
        let number = op.imm as u8 & 63;
        self.unary(op, Q, |asm, reg| {
            asm.op(0, true, &[0x0f, 0xba], Reg(group8), reg);
            asm.code.push(number);
        });
    }

    fn zero_if(&mut self, op: &Op, cond: Cond) {
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

    // ---- memory -----------------------------------------------------------

    /// Leaves the place in this process of `size` bytes at rs1 + imm in RAX; what the
    /// data entry doesn't allow goes to the hole. An access that crosses into another
    /// page meets an entry that isn't its last byte's.
    fn translate_address(&mut self, op: &Op, size: i32, tag: usize) -> Hole {
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
            .alu(Q, Alu::Cmp, RDX, Rm::Sib(SPACE, RCX, 0, tag as i32));
        let slow = self.asm.jcc(Cond::NE);
        let addend = Rm::Sib(SPACE, RCX, 0, layout::DATA_ADDEND as i32);
        self.asm.alu(Q, Alu::Add, RAX, addend);
        slow
    }

    fn read(&mut self, k: usize, op: &Op) {
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

    fn write(&mut self, k: usize, op: &Op) {
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

    fn slow(&mut self, from: Hole, point: u32) {
        let back = self.asm.here();
        self.later.push(Later::Slow { from, point, back });
    }

    // ---- control flow -----------------------------------------------------

    fn branch(&mut self, k: usize, op: &Op) {
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

    fn link_register(&mut self, op: &Op) {
        self.page_relative(op.rd, self.start + op.next_off() as i32);
    }

    fn jump_register(&mut self, op: &Op) {
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

    fn link_register_keeping_rax(&mut self, op: &Op) {
        if self.nowhere(op) {
            return;
        }
        let offset = self.start + op.next_off() as i32;
        let to = self.result(op.rd, RCX);
        self.asm.mov(Q, to, Rm::Mem(RSP, PAGE_VA));
        self.asm.alu_imm(Q, Alu::Add, to, offset);
        self.put(op.rd, to);
    }

    /// Where a floating-point register is.
    #[expect(dead_code, reason = "the templates of floating point come next")]
    fn float(&self, guest: u8) -> Rm {
        float_home(guest)
    }
}

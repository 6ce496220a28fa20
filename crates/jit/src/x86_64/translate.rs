//! One block: a template per instruction.

use super::asm::{Alu, Asm, Cond, Hole, RAX, RCX, RDX, Reg, Rm, Shift, Size};
use super::groups::{self, Plan, Role, Span};
use super::loops::Loop;
use super::registers::{BUDGET, PLACES, Place, home};
use super::sse::{Float, Xmm};
use super::words::{self, Words};
use super::{Common, Features, Jump};
use Size::{D, Q};
use twinvm_cpu::tier::{Code, DecodedOp as Op, Kind};
use twinvm_mem::PAGE_BYTES;

/// Bits of a point below the steps that are left.
pub(super) const POINT_LEFT: u32 = 16;

/// What is translated goes here.
pub(super) struct Sink<'a> {
    pub(super) jumps: &'a mut Vec<Jump>,
    pub(super) common: &'a Common,
    pub(super) features: Features,
}

/// Code out of line, after the block.
pub(super) enum Later {
    /// An access that the inline translation refused: the interpreter does it.
    Slow {
        from: Hole,
        point: u32,
        back: usize,
        float: bool,
        pending: u32,
    },
    /// The first floating-point instruction of the block: load the guest's state; if
    /// it may not be used, leave before it.
    Begin {
        from: Hole,
        back: usize,
        left: usize,
        at: i32,
        pending: u32,
    },
    /// Leave before an instruction: the interpreter runs the rest of the block.
    Leave {
        from: Hole,
        left: usize,
        at: i32,
        pending: u32,
    },
    /// The result in a register is a NaN: make it the canonical one.
    Nan {
        from: Hole,
        back: usize,
        float: Float,
        xmm: Xmm,
    },
    /// A jump that leaves before the end gives back the steps that were not made.
    Side {
        from: Hole,
        refund: usize,
        target: i32,
        pending: u32,
    },
    /// Where a return lands that `from` notes.
    Landing { from: Hole, target: i32 },
    /// A jump that isn't joined to its target yet.
    Unjoined { jump: u32 },
}

pub(super) struct Translation<'a, 'b> {
    pub(super) asm: Asm,
    pub(super) sink: &'a mut Sink<'b>,
    /// Offset of the block in its page.
    pub(super) start: i32,
    /// Steps of the block.
    pub(super) steps: usize,
    pub(super) later: Vec<Later>,
    /// The guest's floating-point state is loaded from here on.
    pub(super) float: bool,
    /// Floating-point registers that are known to hold a single.
    pub(super) boxed: u32,
    plan: Plan,
    /// Where leaders go that refuse, by their op.
    refused: Vec<(Hole, usize)>,
    /// Whether a later op writes the register that an op writes.
    pub(super) again: Vec<bool>,
    /// Where the guest's registers are.
    pub(super) places: [Place; PLACES.len()],
    /// If the block is a loop.
    pub(super) looped: Option<Loop>,
    pub(super) words: Words,
    /// What [`Self::words`] was before the template of the current op.
    pub(super) words_before: Words,
    /// The last auipc: its op, register, and value from this page's start.
    upper: Option<(usize, u8, i32)>,
    /// The current op can be done with operands of this size.
    pub(super) size: Size,
    /// The sign extension of the current op's result can wait.
    pub(super) lazy: bool,
    /// And it does.
    pub(super) left_pending: bool,
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
        steps,
        later: Vec::new(),
        float: false,
        boxed: 0,
        plan: groups::plan(&code.ops[..steps]),
        refused: Vec::new(),
        places: PLACES,
        looped: Loop::of(&code.ops[..steps]),
        again: words::written_again(&code.ops[..steps]),
        words: Words::default(),
        words_before: Words::default(),
        upper: None,
        size: Q,
        lazy: false,
        left_pending: false,
    };
    block.all(&code.ops[..steps]);
    block.asm.code
}

/// How many ops to take: a branch back, the end of a loop, ends the block, so that
/// the loop's path pays nothing for leaving early.
fn steps(ops: &[Op]) -> usize {
    let back = |op: &Op| words::is_branch(op.kind) && op.imm <= i32::from(op.off);
    ops.iter().position(back).map_or(ops.len(), |at| at + 1)
}

impl Translation<'_, '_> {
    pub(super) fn all(&mut self, ops: &[Op]) {
        let steps = self.steps as i32;
        self.enter_loop();
        self.asm.alu_imm(Q, Alu::Sub, BUDGET, steps);
        let tail = self.asm.jcc(Cond::S);
        let mut open = true;
        let mut spans = Vec::with_capacity(self.plan.spans.len());
        for (k, op) in ops.iter().enumerate() {
            if self.plan.span_from(k) {
                spans.push((self.float, self.boxed, self.words, 0));
            }
            open = self.one(k, op);
            if self.plan.span_until(k)
                && let Some((.., after)) = spans.last_mut()
            {
                *after = self.asm.here();
            }
        }
        if open {
            self.extend_all_words();
            self.leave_loop();
            let end = ops.last().map_or(0, Op::next_off) as i32;
            let hole = self.asm.jmp();
            self.joined_later(hole, self.start + end);
        }
        self.asm.fill_here(tail);
        self.asm.alu_imm(Q, Alu::Add, BUDGET, steps);
        self.leave_before(self.start);
        let plan = std::mem::take(&mut self.plan);
        for (span, (float, boxed, words, after)) in plan.spans.iter().zip(spans) {
            (self.float, self.boxed, self.words) = (float, boxed, words);
            self.each_alone(*span, ops, after);
        }
        while let Some(later) = self.later.pop() {
            self.out_of_line(later);
        }
    }

    /// The ops of a span again, for when a leader refuses: each access is checked on
    /// its own. Then it goes on at `after`.
    fn each_alone(&mut self, span: Span, ops: &[Op], after: usize) {
        for (k, op) in ops.iter().enumerate().take(span.last + 1).skip(span.first) {
            let here = self.asm.here();
            for (hole, _) in self.refused.iter().filter(|(_, at)| *at == k) {
                self.asm.fill(*hole, here);
            }
            self.one(k, op);
        }
        let hole = self.asm.jmp();
        self.asm.fill(hole, after);
    }

    pub(super) fn role(&self, k: usize) -> Role {
        self.plan.role(k)
    }

    /// The leader at op `k` refuses where `hole` is.
    pub(super) fn refuses(&mut self, hole: Hole, k: usize) {
        self.refused.push((hole, k));
    }

    pub(super) fn out_of_line(&mut self, later: Later) {
        match later {
            Later::Slow {
                from,
                point,
                back,
                float,
                pending,
            } => {
                self.asm.fill_here(from);
                self.emit_extensions(pending);
                self.call_interpreter(point, float);
                let hole = self.asm.jmp();
                self.asm.fill(hole, back);
            }
            Later::Begin {
                from,
                back,
                left,
                at,
                pending,
            } => {
                self.asm.fill_here(from);
                let call = self.asm.call();
                self.asm.fill(call, self.sink.common.begin_float);
                let ready = self.asm.jcc(Cond::NE);
                self.asm.fill(ready, back);
                self.emit_extensions(pending);
                self.asm.alu_imm(Q, Alu::Add, BUDGET, left as i32);
                self.leave_before(at);
            }
            Later::Leave {
                from,
                left,
                at,
                pending,
            } => {
                self.asm.fill_here(from);
                self.emit_extensions(pending);
                self.asm.alu_imm(Q, Alu::Add, BUDGET, left as i32);
                self.leave_before(at);
            }
            Later::Nan {
                from,
                back,
                float,
                xmm,
            } => {
                self.asm.fill_here(from);
                self.canonical_nan(float, xmm);
                let hole = self.asm.jmp();
                self.asm.fill(hole, back);
            }
            Later::Side {
                from,
                refund,
                target,
                pending,
            } => {
                self.asm.fill_here(from);
                self.emit_extensions(pending);
                self.leave_loop();
                self.asm.alu_imm(Q, Alu::Add, BUDGET, refund as i32);
                let hole = self.asm.jmp();
                self.joined_later(hole, target);
            }
            Later::Landing { from, target } => {
                self.asm.fill_here(from);
                let hole = self.asm.jmp();
                self.joined_later(hole, target);
            }
            Later::Unjoined { jump } => {
                let stub = self.asm.here();
                let entry = &mut self.sink.jumps[jump as usize];
                entry.stub = stub as u32;
                let (hole, target) = (entry.hole(), entry.target);
                let id = self.sink.common.first_jump.wrapping_add(jump);
                self.asm.fill(hole, stub);
                self.asm.mov_imm32(RCX, target as u32);
                self.asm.mov_imm32(RDX, id);
                let leave = self.asm.jmp();
                self.asm.fill(leave, self.sink.common.link);
            }
        }
    }

    /// Leaves for the interpreter before the instruction at an offset from this page's
    /// start; its steps are not counted.
    fn leave_before(&mut self, at: i32) {
        self.leave_loop();
        self.asm.set(RCX, at);
        let leave = self.asm.jmp();
        self.asm.fill(leave, self.sink.common.tail);
    }

    /// The jump at `hole` leads to an offset from this page's start.
    pub(super) fn joined_later(&mut self, hole: Hole, target: i32) {
        let jump = self.sink.jumps.len() as u32;
        self.sink.jumps.push(Jump {
            hole: hole.0 as u32,
            stub: 0,
            target,
            joined: 0,
        });
        self.later.push(Later::Unjoined { jump });
    }

    /// A place where the code calls the interpreter: offset of the instruction in its
    /// page, and above it the steps of the block that are left, this one among them.
    pub(super) fn point(&self, k: usize, op: &Op) -> u32 {
        let at = (self.start as u16).wrapping_add(op.off);
        u32::from(at) | ((self.steps - k) as u32) << POINT_LEFT
    }

    /// `float`: the guest's floating-point state is loaded.
    pub(super) fn call_interpreter(&mut self, point: u32, float: bool) {
        self.leave_loop();
        self.asm.mov_imm32(RCX, point);
        let call = self.asm.call();
        let interpret = if float {
            self.sink.common.interpret_float
        } else {
            self.sink.common.interpret
        };
        self.asm.fill(call, interpret);
        self.enter_registers();
    }

    /// False if the code doesn't go on after it.
    pub(super) fn one(&mut self, k: usize, op: &Op) -> bool {
        self.prepare_words(k, op);
        let open = self.template(k, op);
        self.note_words(op);
        open
    }

    fn template(&mut self, k: usize, op: &Op) -> bool {
        use Kind::*;
        match op.kind {
            Nop | Fence | FenceI => {}
            Li => self.constant(op.rd, op.imm),
            Auipc => {
                self.page_relative(op.rd, self.start + op.imm);
                self.upper = Some((k, op.rd, self.start + op.imm));
            }
            Addi => self.addi(op),
            Slti => self.compare_imm(op, Cond::L),
            Sltiu => self.compare_imm(op, Cond::B),
            Xori if op.imm == -1 => self.unary(op, self.size, |asm, d| asm.group3(Q, 2, d)),
            Xori => self.alu_imm(op, Alu::Xor),
            Ori => self.alu_imm(op, Alu::Or),
            Andi if op.imm >= 0 => self.and_positive(op),
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
            Xor => self.alu(op, self.size, Alu::Xor),
            Srl => self.shift(op, Q, Shift::Shr),
            Sra => self.shift(op, Q, Shift::Sar),
            Or => self.alu(op, self.size, Alu::Or),
            And => self.alu(op, self.size, Alu::And),
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
                self.load_sized(D, RAX, op.rs1);
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
                self.load_sized(D, RCX, op.rs2);
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
                self.extend_all_words();
                self.jump(op, self.start + op.imm);
                return false;
            }
            Jalr => {
                self.extend_all_words();
                match self.pair(k, op) {
                    Some(target) => self.jump(op, target),
                    None => self.jump_register(op),
                }
                return false;
            }
            _ if self.float_op(k, op) || self.atomic_op(k, op) || self.status_op(k, op) => {}
            _ => {
                self.extend_all_words();
                let point = self.point(k, op);
                // Nothing follows the last.
                let float = self.float && k + 1 < self.steps;
                self.call_interpreter(point, float);
            }
        }
        true
    }

    /// Where a jalr leads, from this page's start, if an auipc comes right before it.
    fn pair(&self, k: usize, op: &Op) -> Option<i32> {
        let (at, rd, value) = self.upper?;
        let together = at + 1 == k && rd == op.rs1;
        together
            .then(|| value.checked_add(op.imm))?
            .map(|to| to & !1)
    }

    // ---- registers --------------------------------------------------------

    pub(super) fn place_of(&self, guest: u8) -> Place {
        self.places[usize::from(guest)]
    }

    /// The host register that holds the guest's, or `scratch` after loading it.
    pub(super) fn get(&mut self, guest: u8, scratch: Reg) -> Reg {
        self.get_sized(Q, guest, scratch)
    }

    /// The same; of what is in memory only so much is read.
    pub(super) fn get_sized(&mut self, size: Size, guest: u8, scratch: Reg) -> Reg {
        match self.place_of(guest) {
            Place::Host(reg) => reg,
            _ => {
                self.load_sized(size, scratch, guest);
                scratch
            }
        }
    }

    /// Where the guest's register is. x0 reads as zero in memory too.
    pub(super) fn operand(&self, guest: u8) -> Rm {
        match self.place_of(guest) {
            Place::Host(reg) => reg.into(),
            _ => home(guest),
        }
    }

    pub(super) fn load(&mut self, to: Reg, guest: u8) {
        self.load_sized(Q, to, guest);
    }

    /// With 32 bits what is above is zero. A register in memory of which only 32 bits
    /// are what they must be is read with 32 bits: they were written alone.
    pub(super) fn load_sized(&mut self, size: Size, to: Reg, guest: u8) {
        if guest == 0 {
            self.asm.set(to, 0);
        } else {
            let from = self.operand(guest);
            self.asm.mov(size, to, from);
        }
    }

    /// Where to compute a result for the guest's register.
    pub(super) fn result(&self, guest: u8, scratch: Reg) -> Reg {
        match self.place_of(guest) {
            Place::Host(reg) => reg,
            _ => scratch,
        }
    }

    /// The result for the guest's register is in `from`.
    pub(super) fn put(&mut self, guest: u8, from: Reg) {
        match self.place_of(guest) {
            Place::Host(reg) if reg == from => {}
            Place::Host(reg) => self.asm.mov(Q, reg, from),
            Place::Memory => self.asm.store(Q, home(guest), from),
            Place::Nowhere => {}
        }
    }

    pub(super) fn nowhere(&self, op: &Op) -> bool {
        matches!(self.place_of(op.rd), Place::Nowhere)
    }
}

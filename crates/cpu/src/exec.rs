//! Executes the ops of a block: integer instructions, loads, stores, branches.
//! Everything rarer is out of line (`exec_mem`, `exec_system`, `exec_fp`).

use crate::block::{Block, Blocks};
use crate::clock::Clock;
use crate::counters::Kinds;
use crate::csr::CsrView;
use crate::decode::{decode, is_long};
use crate::engine::Env;
use crate::hart::Hart;
use crate::mmu::Mmu;
use crate::op::{Kind, Op};
use crate::trap::Exception;

/// The highest bits of a product are the hash of an instruction.
const DECODED_SHIFT: u32 = 24;

/// What came of executing blocks. Retired steps are counted and the hart's pc is
/// set, except where it says otherwise.
pub(crate) enum Outcome {
    /// The limit is reached, or the next block isn't known by virtual address or is
    /// hot.
    Done,
    /// Interrupts, modes, devices or memory's tags may have changed: look before the
    /// next step.
    Look,
    /// The next op traps; the hart's pc is that op's. The trap is not counted.
    Trap(Exception),
    /// The next op is an ECALL for the built-in SBI.
    Sbi,
    /// The last op said that others may run.
    Yield,
}

/// What an out-of-line op came to.
pub(crate) enum Flow {
    /// Retired, on to the next op.
    Next,
    /// Retired; look before the next step.
    Look,
    /// Retired with a new pc in the hart; look before the next step.
    Jumped,
    /// Traps.
    Trap(Exception),
    /// ECALL for the built-in SBI.
    Sbi,
    /// Retired; other harts may run.
    Yield,
}

/// The part of the engine that ops use.
pub(crate) struct Core {
    pub(crate) mmu: Mmu,
    /// Interrupt inputs as of the last device access.
    pub(crate) lines: u64,
    pub(crate) mtimecmp: u64,
    /// Virtual time at which a device wants to act by itself.
    pub(crate) alarm: u64,
    /// Devices were accessed: ask for lines and attention.
    pub(crate) touched_bus: bool,
    /// Mode or CSRs that decide translations were written: choose spaces anew.
    pub(crate) reselect: bool,
    /// PMP registers were written, or another hart runs: look them up anew.
    pub(crate) pmp_changed: bool,
    pub(crate) blocks_run: u64,
    /// The last of the instructions with equal hashes that [`Core::op_at`] has decoded.
    decoded: [Op; 1 << (32 - DECODED_SHIFT)],
    /// Instructions executed one at a time for the second engine.
    pub(crate) interpreted: Kinds,
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            mmu: Mmu::new(),
            lines: 0,
            mtimecmp: u64::MAX,
            alarm: u64::MAX,
            touched_bus: false,
            reselect: true,
            pmp_changed: true,
            blocks_run: 0,
            decoded: [decode(0, 0); 1 << (32 - DECODED_SHIFT)],
            interpreted: Kinds::new(),
        }
    }

    pub(crate) fn view<'a>(&self, clock: &'a Clock, icount: u64) -> CsrView<'a> {
        CsrView {
            clock,
            icount,
            lines: self.lines,
            mtimecmp: self.mtimecmp,
        }
    }

    /// True if something happened that the run loop must see before the next step.
    #[inline(always)]
    pub(crate) fn must_look(&self, env: &Env) -> bool {
        self.touched_bus || env.mem.has_changes() || self.mmu.fetch_dropped
    }

    /// Returns the bytes and whether the run loop must look before the next step.
    #[inline(always)]
    fn load<const N: usize>(
        &mut self,
        env: &mut Env,
        va: u64,
        steps: usize,
    ) -> Result<([u8; N], bool), Exception> {
        let entry = self.mmu.data_tlb().data(va);
        if entry.load == va & (!0xfff | (N as u64 - 1))
            && let Some(bytes) = env.mem.load_at((entry.offset + (va & 0xfff)) as usize)
        {
            return Ok((bytes, false));
        }
        let value = self.load_slow(env, va, N, steps)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&value.to_le_bytes()[..N]);
        Ok((bytes, self.must_look(env)))
    }

    /// Returns whether the run loop must look before the next step.
    #[inline(always)]
    fn store<const N: usize>(
        &mut self,
        env: &mut Env,
        va: u64,
        value: [u8; N],
        steps: usize,
    ) -> Result<bool, Exception> {
        let entry = self.mmu.data_tlb().data(va);
        if entry.store == va & (!0xfff | (N as u64 - 1))
            && env
                .mem
                .store_tagged((entry.offset + (va & 0xfff)) as usize, value)
        {
            return Ok(false);
        }
        self.store_slow(env, va, &value, steps)?;
        Ok(self.must_look(env))
    }

    /// Executes `block`, which is at hart.pc, and the blocks that follow it as long
    /// as they are known and not hot, until the step counter is `limit`.
    pub(crate) fn execute(
        &mut self,
        hart: &mut Hart,
        env: &mut Env,
        blocks: &Blocks,
        mut block: Block,
        limit: u64,
    ) -> Outcome {
        let mut pc = hart.pc;
        loop {
            let ops = blocks.ops_of(block, limit - env.icount);
            let (steps, next) = match self.execute_ops(hart, env, ops, pc) {
                Ok(done) => done,
                Err(outcome) => return outcome,
            };
            env.icount += steps as u64;
            pc = next;
            self.blocks_run += 1;
            let known = if env.icount < limit {
                let place = self.mmu.fetch_tlb().place(pc);
                place.and_then(|place| blocks.cold_at(place))
            } else {
                None
            };
            match known {
                Some(next) => block = next,
                None => {
                    hart.pc = pc;
                    return Outcome::Done;
                }
            }
        }
    }

    /// The instruction at `pc`, in a page whose fetch translation is known, or in two.
    pub(crate) fn op_at(&mut self, env: &Env, pc: u64) -> Option<Op> {
        let parcel = |pc| {
            let place = self.mmu.fetch_tlb().place(pc)?;
            env.mem.load_at(place as usize).map(u16::from_le_bytes)
        };
        let low = parcel(pc)?;
        let mut raw = u32::from(low);
        if is_long(low) {
            raw |= u32::from(parcel(pc.wrapping_add(2))?) << 16;
        }
        let last = &mut self.decoded[(raw.wrapping_mul(0x9e37_79b1) >> DECODED_SHIFT) as usize];
        if last.raw != raw {
            *last = decode(raw, 0);
        }
        Some(*last)
    }

    /// Executes one op of a block that is at hart.pc.
    #[inline(never)]
    pub(crate) fn execute_one(&mut self, hart: &mut Hart, env: &mut Env, op: &Op) -> Outcome {
        let pc = hart.pc;
        match self.execute_ops(hart, env, std::slice::from_ref(op), pc) {
            Ok((steps, next)) => {
                env.icount += steps as u64;
                hart.pc = next;
                Outcome::Done
            }
            Err(outcome) => outcome,
        }
    }

    /// Executes ops of the block at `pc`: how many retired, and the next pc; an error
    /// has set both.
    #[inline(always)]
    fn execute_ops(
        &mut self,
        hart: &mut Hart,
        env: &mut Env,
        ops: &[Op],
        pc: u64,
    ) -> Result<(usize, u64), Outcome> {
        'ops: {
            for (k, op) in ops.iter().enumerate() {
                macro_rules! x {
                    ($field:ident) => {
                        hart.x.0[op.$field as usize]
                    };
                }
                macro_rules! set {
                    ($value:expr) => {
                        hart.x.0[op.rd as usize] = $value
                    };
                }
                macro_rules! imm {
                    () => {
                        op.imm as i64 as u64
                    };
                }
                macro_rules! sext32 {
                    ($value:expr) => {
                        $value as i32 as i64 as u64
                    };
                }
                macro_rules! branch {
                    ($cond:expr) => {
                        if $cond {
                            break 'ops Ok((k + 1, pc.wrapping_add(imm!())));
                        }
                    };
                }
                macro_rules! trap {
                    ($exception:expr) => {{
                        env.icount += k as u64;
                        hart.pc = pc.wrapping_add(u64::from(op.off));
                        return Err(Outcome::Trap($exception));
                    }};
                }
                macro_rules! look {
                    () => {{
                        env.icount += k as u64 + 1;
                        hart.pc = pc.wrapping_add(op.next_off());
                        return Err(Outcome::Look);
                    }};
                }
                macro_rules! load {
                    ($type:ty, $n:literal, $widen:ty) => {{
                        let va = x!(rs1).wrapping_add(imm!());
                        match self.load::<$n>(env, va, k) {
                            Ok((bytes, must_look)) => {
                                set!(<$type>::from_le_bytes(bytes) as $widen as u64);
                                if must_look {
                                    look!();
                                }
                            }
                            Err(exception) => trap!(exception),
                        }
                    }};
                }
                macro_rules! store {
                    ($type:ty) => {{
                        let va = x!(rs1).wrapping_add(imm!());
                        let value = (x!(rs2) as $type).to_le_bytes();
                        match self.store(env, va, value, k) {
                            Ok(false) => {}
                            Ok(true) => look!(),
                            Err(exception) => trap!(exception),
                        }
                    }};
                }
                macro_rules! float_load {
                    ($n:literal, $convert:expr) => {{
                        if hart.fs_off() {
                            trap!(Exception::illegal(op.raw));
                        }
                        let va = x!(rs1).wrapping_add(imm!());
                        match self.load::<$n>(env, va, k) {
                            Ok((bytes, must_look)) => {
                                hart.f.0[op.rd as usize] = $convert(bytes);
                                hart.set_fs_dirty();
                                if must_look {
                                    look!();
                                }
                            }
                            Err(exception) => trap!(exception),
                        }
                    }};
                }
                macro_rules! float_store {
                    ($type:ty) => {{
                        if hart.fs_off() {
                            trap!(Exception::illegal(op.raw));
                        }
                        let va = x!(rs1).wrapping_add(imm!());
                        let value = (hart.f.0[op.rs2 as usize] as $type).to_le_bytes();
                        match self.store(env, va, value, k) {
                            Ok(false) => {}
                            Ok(true) => look!(),
                            Err(exception) => trap!(exception),
                        }
                    }};
                }
                match op.kind {
                    Kind::Nop | Kind::Fence => {}
                    Kind::Li => set!(imm!()),
                    Kind::Auipc => set!(pc.wrapping_add(imm!())),
                    Kind::Addi => set!(x!(rs1).wrapping_add(imm!())),
                    Kind::Slti => set!(u64::from((x!(rs1) as i64) < i64::from(op.imm))),
                    Kind::Sltiu => set!(u64::from(x!(rs1) < imm!())),
                    Kind::Xori => set!(x!(rs1) ^ imm!()),
                    Kind::Ori => set!(x!(rs1) | imm!()),
                    Kind::Andi => set!(x!(rs1) & imm!()),
                    Kind::Slli => set!(x!(rs1) << (op.imm & 63)),
                    Kind::Srli => set!(x!(rs1) >> (op.imm & 63)),
                    Kind::Srai => set!(((x!(rs1) as i64) >> (op.imm & 63)) as u64),
                    Kind::Addiw => set!(sext32!(x!(rs1).wrapping_add(imm!()))),
                    Kind::Slliw => set!(sext32!((x!(rs1) as u32) << (op.imm & 31))),
                    Kind::Srliw => set!(sext32!((x!(rs1) as u32) >> (op.imm & 31))),
                    Kind::Sraiw => set!(sext32!((x!(rs1) as i32) >> (op.imm & 31))),
                    Kind::Add => set!(x!(rs1).wrapping_add(x!(rs2))),
                    Kind::Sub => set!(x!(rs1).wrapping_sub(x!(rs2))),
                    Kind::Sll => set!(x!(rs1) << (x!(rs2) & 63)),
                    Kind::Slt => set!(u64::from((x!(rs1) as i64) < (x!(rs2) as i64))),
                    Kind::Sltu => set!(u64::from(x!(rs1) < x!(rs2))),
                    Kind::Xor => set!(x!(rs1) ^ x!(rs2)),
                    Kind::Srl => set!(x!(rs1) >> (x!(rs2) & 63)),
                    Kind::Sra => set!(((x!(rs1) as i64) >> (x!(rs2) & 63)) as u64),
                    Kind::Or => set!(x!(rs1) | x!(rs2)),
                    Kind::And => set!(x!(rs1) & x!(rs2)),
                    Kind::Addw => set!(sext32!(x!(rs1).wrapping_add(x!(rs2)))),
                    Kind::Subw => set!(sext32!(x!(rs1).wrapping_sub(x!(rs2)))),
                    Kind::Sllw => set!(sext32!((x!(rs1) as u32) << (x!(rs2) & 31))),
                    Kind::Srlw => set!(sext32!((x!(rs1) as u32) >> (x!(rs2) & 31))),
                    Kind::Sraw => set!(sext32!((x!(rs1) as i32) >> (x!(rs2) & 31))),
                    Kind::Mul => set!(x!(rs1).wrapping_mul(x!(rs2))),
                    Kind::Mulh => {
                        let wide = i128::from(x!(rs1) as i64) * i128::from(x!(rs2) as i64);
                        set!((wide >> 64) as u64);
                    }
                    Kind::Mulhsu => {
                        let wide = i128::from(x!(rs1) as i64) * i128::from(x!(rs2));
                        set!((wide >> 64) as u64);
                    }
                    Kind::Mulhu => {
                        let wide = u128::from(x!(rs1)) * u128::from(x!(rs2));
                        set!((wide >> 64) as u64);
                    }
                    Kind::Div => set!(div(x!(rs1) as i64, x!(rs2) as i64) as u64),
                    Kind::Divu => set!(x!(rs1).checked_div(x!(rs2)).unwrap_or(u64::MAX)),
                    Kind::Rem => set!(rem(x!(rs1) as i64, x!(rs2) as i64) as u64),
                    Kind::Remu => set!(x!(rs1).checked_rem(x!(rs2)).unwrap_or(x!(rs1))),
                    Kind::Mulw => set!(sext32!(x!(rs1).wrapping_mul(x!(rs2)))),
                    Kind::Divw => {
                        set!(sext32!(div(
                            i64::from(x!(rs1) as i32),
                            i64::from(x!(rs2) as i32)
                        )));
                    }
                    Kind::Divuw => {
                        let (a, b) = (x!(rs1) as u32, x!(rs2) as u32);
                        set!(sext32!(a.checked_div(b).unwrap_or(u32::MAX)));
                    }
                    Kind::Remw => {
                        set!(sext32!(rem(
                            i64::from(x!(rs1) as i32),
                            i64::from(x!(rs2) as i32)
                        )));
                    }
                    Kind::Remuw => {
                        let (a, b) = (x!(rs1) as u32, x!(rs2) as u32);
                        set!(sext32!(a.checked_rem(b).unwrap_or(a)));
                    }
                    Kind::AddUw => set!(x!(rs2).wrapping_add(zext32(x!(rs1)))),
                    Kind::Sh1add => set!(x!(rs2).wrapping_add(x!(rs1) << 1)),
                    Kind::Sh2add => set!(x!(rs2).wrapping_add(x!(rs1) << 2)),
                    Kind::Sh3add => set!(x!(rs2).wrapping_add(x!(rs1) << 3)),
                    Kind::Sh1addUw => set!(x!(rs2).wrapping_add(zext32(x!(rs1)) << 1)),
                    Kind::Sh2addUw => set!(x!(rs2).wrapping_add(zext32(x!(rs1)) << 2)),
                    Kind::Sh3addUw => set!(x!(rs2).wrapping_add(zext32(x!(rs1)) << 3)),
                    Kind::SlliUw => set!(zext32(x!(rs1)) << (op.imm & 63)),
                    Kind::Andn => set!(x!(rs1) & !x!(rs2)),
                    Kind::Orn => set!(x!(rs1) | !x!(rs2)),
                    Kind::Xnor => set!(!(x!(rs1) ^ x!(rs2))),
                    Kind::Clz => set!(u64::from(x!(rs1).leading_zeros())),
                    Kind::Ctz => set!(u64::from(x!(rs1).trailing_zeros())),
                    Kind::Cpop => set!(u64::from(x!(rs1).count_ones())),
                    Kind::Clzw => set!(u64::from((x!(rs1) as u32).leading_zeros())),
                    Kind::Ctzw => set!(u64::from((x!(rs1) as u32).trailing_zeros())),
                    Kind::Cpopw => set!(u64::from((x!(rs1) as u32).count_ones())),
                    Kind::Max => set!((x!(rs1) as i64).max(x!(rs2) as i64) as u64),
                    Kind::Maxu => set!(x!(rs1).max(x!(rs2))),
                    Kind::Min => set!((x!(rs1) as i64).min(x!(rs2) as i64) as u64),
                    Kind::Minu => set!(x!(rs1).min(x!(rs2))),
                    Kind::SextB => set!(x!(rs1) as i8 as i64 as u64),
                    Kind::SextH => set!(x!(rs1) as i16 as i64 as u64),
                    Kind::ZextH => set!(u64::from(x!(rs1) as u16)),
                    Kind::Rol => set!(x!(rs1).rotate_left(x!(rs2) as u32 & 63)),
                    Kind::Ror => set!(x!(rs1).rotate_right(x!(rs2) as u32 & 63)),
                    Kind::Rori => set!(x!(rs1).rotate_right(op.imm as u32 & 63)),
                    Kind::Rolw => {
                        set!(sext32!((x!(rs1) as u32).rotate_left(x!(rs2) as u32 & 31)));
                    }
                    Kind::Rorw => {
                        set!(sext32!((x!(rs1) as u32).rotate_right(x!(rs2) as u32 & 31)));
                    }
                    Kind::Roriw => {
                        set!(sext32!((x!(rs1) as u32).rotate_right(op.imm as u32 & 31)));
                    }
                    Kind::OrcB => set!(orc_b(x!(rs1))),
                    Kind::Rev8 => set!(x!(rs1).swap_bytes()),
                    Kind::Bclr => set!(x!(rs1) & !(1 << (x!(rs2) & 63))),
                    Kind::Bclri => set!(x!(rs1) & !(1 << (op.imm & 63))),
                    Kind::Bext => set!(x!(rs1) >> (x!(rs2) & 63) & 1),
                    Kind::Bexti => set!(x!(rs1) >> (op.imm & 63) & 1),
                    Kind::Binv => set!(x!(rs1) ^ 1 << (x!(rs2) & 63)),
                    Kind::Binvi => set!(x!(rs1) ^ 1 << (op.imm & 63)),
                    Kind::Bset => set!(x!(rs1) | 1 << (x!(rs2) & 63)),
                    Kind::Bseti => set!(x!(rs1) | 1 << (op.imm & 63)),
                    Kind::CzeroEqz => set!(if x!(rs2) == 0 { 0 } else { x!(rs1) }),
                    Kind::CzeroNez => set!(if x!(rs2) != 0 { 0 } else { x!(rs1) }),
                    Kind::Lb => load!(i8, 1, i64),
                    Kind::Lh => load!(i16, 2, i64),
                    Kind::Lw => load!(i32, 4, i64),
                    Kind::Ld => load!(u64, 8, u64),
                    Kind::Lbu => load!(u8, 1, u64),
                    Kind::Lhu => load!(u16, 2, u64),
                    Kind::Lwu => load!(u32, 4, u64),
                    Kind::Sb => store!(u8),
                    Kind::Sh => store!(u16),
                    Kind::Sw => store!(u32),
                    Kind::Sd => store!(u64),
                    Kind::Flw => float_load!(4, |b| twinvm_fp::box32(u32::from_le_bytes(b))),
                    Kind::Fld => float_load!(8, u64::from_le_bytes),
                    Kind::Fsw => float_store!(u32),
                    Kind::Fsd => float_store!(u64),
                    Kind::Beq => branch!(x!(rs1) == x!(rs2)),
                    Kind::Bne => branch!(x!(rs1) != x!(rs2)),
                    Kind::Blt => branch!((x!(rs1) as i64) < (x!(rs2) as i64)),
                    Kind::Bge => branch!((x!(rs1) as i64) >= (x!(rs2) as i64)),
                    Kind::Bltu => branch!(x!(rs1) < x!(rs2)),
                    Kind::Bgeu => branch!(x!(rs1) >= x!(rs2)),
                    Kind::Jal => {
                        set!(pc.wrapping_add(op.next_off()));
                        break 'ops Ok((k + 1, pc.wrapping_add(imm!())));
                    }
                    Kind::Jalr => {
                        let target = x!(rs1).wrapping_add(imm!()) & !1;
                        set!(pc.wrapping_add(op.next_off()));
                        break 'ops Ok((k + 1, target));
                    }
                    // The run loop fetches it.
                    Kind::Crossing => {
                        break 'ops Ok((k, pc.wrapping_add(u64::from(op.off))));
                    }
                    _ => match self.rare(hart, env, op, k, pc) {
                        Flow::Next => {}
                        Flow::Look => look!(),
                        Flow::Jumped => {
                            env.icount += k as u64 + 1;
                            return Err(Outcome::Look);
                        }
                        Flow::Trap(exception) => trap!(exception),
                        Flow::Sbi => {
                            env.icount += k as u64;
                            hart.pc = pc.wrapping_add(u64::from(op.off));
                            return Err(Outcome::Sbi);
                        }
                        Flow::Yield => {
                            env.icount += k as u64 + 1;
                            hart.pc = pc.wrapping_add(op.next_off());
                            return Err(Outcome::Yield);
                        }
                    },
                }
            }
            let end = ops.last().map_or(0, Op::next_off);
            Ok((ops.len(), pc.wrapping_add(end)))
        }
    }

    /// Atomics, cache-block, system and floating-point instructions.
    #[inline(never)]
    fn rare(&mut self, hart: &mut Hart, env: &mut Env, op: &Op, k: usize, pc: u64) -> Flow {
        let kind = op.kind as u8;
        if op.kind == Kind::Illegal {
            Flow::Trap(Exception::illegal(op.raw))
        } else if kind >= Kind::FaddS as u8 {
            self.float(hart, op)
        } else if kind >= Kind::FenceI as u8 {
            self.system(hart, env, op, k, pc)
        } else {
            let done = if kind >= Kind::CboInval as u8 {
                self.cache_block(hart, env, op)
            } else {
                self.atomic(hart, env, op)
            };
            match done {
                Ok(()) if self.must_look(env) => Flow::Look,
                Ok(()) => Flow::Next,
                Err(exception) => Flow::Trap(exception),
            }
        }
    }
}

fn div(a: i64, b: i64) -> i64 {
    if b == 0 { -1 } else { a.wrapping_div(b) }
}

fn zext32(value: u64) -> u64 {
    u64::from(value as u32)
}

/// Each byte that isn't 0 becomes 0xff.
fn orc_b(value: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The top bit of each byte: set if any bit of the byte is.
    let any = (((value & LOW) + LOW) | value) & !LOW;
    (any >> 7) * 0xff
}

fn rem(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { a.wrapping_rem(b) }
}

//! Templates of floating-point instructions, loads and stores.
//!
//! What the host computes is what RISC-V asks for, and raises the same flags, but for
//! these: a NaN among the results (the canonical one is put in its place); operands
//! that box no single (the interpreter runs the rest of the block); conversions out of
//! range, minimum, maximum and class of a NaN, and fused operations with a NaN as the result
//! (the interpreter does them again: until then the host has raised no flag that they
//! don't). Where it would have, the operand is looked at before.

use super::FLOAT;
use super::asm::{Alu, Cond, Hole, RAX, RCX, RDX, RSP, Reg, Rm, Shift, Size};
use super::float_convert::{L, LU, W, WU};
use super::float_state::loaded_with;
use super::registers::{X0, X1, float_home, float_place};
use super::sse::{Float, Fused, Logic, Scalar, Xmm};
use super::translate::{Later, Translation};
use Float::{Double, Single};
use Size::{D, Q};
use twinvm_cpu::tier::{DecodedOp as Op, Kind};

const NAN_SINGLE: u64 = 0xffff_ffff_7fc0_0000;
const NAN_DOUBLE: u64 = 0x7ff8_0000_0000_0000;

/// Rounding modes in an instruction (RISC-V ISA manual, table of rounding modes).
pub(super) const TRUNCATE: u8 = 1;
pub(super) const LAST_OF_HOST: u8 = 3;
const LAST: u8 = 4;
const DYNAMIC: u8 = 7;

pub(super) fn rounding(op: &Op) -> u8 {
    op.aux as u8 & 7
}

fn third(op: &Op) -> u8 {
    op.aux as u8 >> 3 & 31
}

/// What happens to the sign.
#[derive(Clone, Copy)]
enum Sign {
    Take,
    Negate,
    Multiply,
}

impl Translation<'_, '_> {
    /// False if there is no template.
    pub(super) fn float_op(&mut self, k: usize, op: &Op) -> bool {
        if !self.has_template(op) {
            self.boxed &= !(1 << (op.rd & 31));
            return false;
        }
        if !self.float {
            self.begin(k, op);
        }
        use Kind::*;
        match op.kind {
            Flw => self.load_float(k, op, Single),
            Fld => self.load_float(k, op, Double),
            Fsw => self.store_float(k, op, Single),
            Fsd => self.store_float(k, op, Double),
            FaddS => self.two(k, op, Single, Scalar::Add),
            FaddD => self.two(k, op, Double, Scalar::Add),
            FsubS => self.two(k, op, Single, Scalar::Sub),
            FsubD => self.two(k, op, Double, Scalar::Sub),
            FmulS => self.two(k, op, Single, Scalar::Mul),
            FmulD => self.two(k, op, Double, Scalar::Mul),
            FdivS => self.two(k, op, Single, Scalar::Div),
            FdivD => self.two(k, op, Double, Scalar::Div),
            FsqrtS => self.square_root(k, op, Single),
            FsqrtD => self.square_root(k, op, Double),
            FmaddS => self.fused(k, op, Single, Fused::Add),
            FmaddD => self.fused(k, op, Double, Fused::Add),
            FmsubS => self.fused(k, op, Single, Fused::Sub),
            FmsubD => self.fused(k, op, Double, Fused::Sub),
            FnmsubS => self.fused(k, op, Single, Fused::NegAdd),
            FnmsubD => self.fused(k, op, Double, Fused::NegAdd),
            FnmaddS => self.fused(k, op, Single, Fused::NegSub),
            FnmaddD => self.fused(k, op, Double, Fused::NegSub),
            FsgnjS => self.sign(k, op, Single, Sign::Take),
            FsgnjD => self.sign(k, op, Double, Sign::Take),
            FsgnjnS => self.sign(k, op, Single, Sign::Negate),
            FsgnjnD => self.sign(k, op, Double, Sign::Negate),
            FsgnjxS => self.sign(k, op, Single, Sign::Multiply),
            FsgnjxD => self.sign(k, op, Double, Sign::Multiply),
            FminS => self.extreme(k, op, Single, Scalar::Min),
            FminD => self.extreme(k, op, Double, Scalar::Min),
            FmaxS => self.extreme(k, op, Single, Scalar::Max),
            FmaxD => self.extreme(k, op, Double, Scalar::Max),
            FeqS => self.equal(k, op, Single),
            FeqD => self.equal(k, op, Double),
            FltS => self.less(k, op, Single, Cond::A),
            FltD => self.less(k, op, Double, Cond::A),
            FleS => self.less(k, op, Single, Cond::AE),
            FleD => self.less(k, op, Double, Cond::AE),
            FclassS => self.classify(k, op, Single),
            FclassD => self.classify(k, op, Double),
            FcvtWS => self.convert_to_integer(k, op, Single, W),
            FcvtWD => self.convert_to_integer(k, op, Double, W),
            FcvtWuS => self.convert_to_integer(k, op, Single, WU),
            FcvtWuD => self.convert_to_integer(k, op, Double, WU),
            FcvtLS => self.convert_to_integer(k, op, Single, L),
            FcvtLD => self.convert_to_integer(k, op, Double, L),
            FcvtLuS => self.convert_to_integer(k, op, Single, LU),
            FcvtLuD => self.convert_to_integer(k, op, Double, LU),
            FcvtSW => self.convert_from_integer(k, op, Single, W),
            FcvtDW => self.convert_from_integer(k, op, Double, W),
            FcvtSWu => self.convert_from_integer(k, op, Single, WU),
            FcvtDWu => self.convert_from_integer(k, op, Double, WU),
            FcvtSL => self.convert_from_integer(k, op, Single, L),
            FcvtDL => self.convert_from_integer(k, op, Double, L),
            FcvtSLu => self.convert_from_integer(k, op, Single, LU),
            FcvtDLu => self.convert_from_integer(k, op, Double, LU),
            FcvtSD => self.narrow(k, op),
            FcvtDS => self.widen(k, op),
            FmvXW => {
                let from = self.get_float(op.rs1, X0);
                self.asm.float_to_general(Single, RAX, from);
                self.put_sized(op.rd, RAX, D);
            }
            FmvXD => {
                let from = self.get_float(op.rs1, X0);
                let to = self.result(op.rd, RAX);
                self.asm.float_to_general(Double, to, from);
                self.put(op.rd, to);
            }
            FmvWX => {
                let from = self.operand(op.rs1);
                self.asm.general_to_float(Single, X1, from);
                self.box_single(op.rd, X1);
            }
            _ if op.is_fflags() => self.flags(op),
            FmvDX => {
                let from = self.operand(op.rs1);
                let to = self.float_result(op.rd, X0);
                self.asm.general_to_float(Double, to, from);
                self.put_float(op.rd, to, Double);
            }
            _ => {}
        }
        true
    }

    fn has_template(&self, op: &Op) -> bool {
        use Kind::*;
        let rounding = rounding(op);
        // Of instructions that round, and those that always give the exact result.
        let rounds = rounding <= LAST_OF_HOST || rounding == DYNAMIC;
        let exact = rounding <= LAST || rounding == DYNAMIC;
        match op.kind {
            Flw | Fld | Fsw | Fsd | FsgnjS | FsgnjnS | FsgnjxS | FsgnjD | FsgnjnD | FsgnjxD
            | FminS | FmaxS | FminD | FmaxD | FeqS | FltS | FleS | FeqD | FltD | FleD | FclassS
            | FclassD | FmvXW | FmvWX | FmvXD | FmvDX => true,
            FaddS | FsubS | FmulS | FdivS | FsqrtS | FaddD | FsubD | FmulD | FdivD | FsqrtD
            | FcvtWS | FcvtWuS | FcvtLS | FcvtLuS | FcvtWD | FcvtWuD | FcvtLD | FcvtLuD
            | FcvtSW | FcvtSWu | FcvtSL | FcvtSLu | FcvtDL | FcvtDLu | FcvtSD => rounds,
            FcvtDW | FcvtDWu | FcvtDS => exact,
            FmaddS | FmsubS | FnmsubS | FnmaddS | FmaddD | FmsubD | FnmsubD | FnmaddD => {
                rounds && self.sink.features.fma
            }
            Csrrs => op.is_fflags() && op.rs1 == 0,
            Csrrw | Csrrwi => op.is_fflags(),
            _ => false,
        }
    }

    // ---- state ------------------------------------------------------------

    fn begin(&mut self, k: usize, op: &Op) {
        self.asm.cmp8_imm(Rm::Mem(RSP, FLOAT), 0);
        let from = self.asm.jcc(Cond::E);
        self.later.push(Later::Begin {
            from,
            back: self.asm.here(),
            left: self.steps - k,
            at: self.start + i32::from(op.off),
            pending: self.words_before.pending,
        });
        self.float = true;
    }

    fn leave_if(&mut self, k: usize, op: &Op, cond: Cond) {
        let from = self.asm.jcc(cond);
        self.later.push(Later::Leave {
            from,
            left: self.steps - k,
            at: self.start + i32::from(op.off),
            pending: self.words_before.pending,
        });
    }

    /// The interpreter does the instruction if the mode in it isn't the one in use.
    pub(super) fn same_rounding(&mut self, op: &Op) -> Option<Hole> {
        let rounding = rounding(op);
        (rounding != DYNAMIC).then(|| {
            self.asm
                .cmp8_imm(Rm::Mem(RSP, FLOAT), loaded_with(rounding));
            self.asm.jcc(Cond::NE)
        })
    }

    /// Where the interpreter does the instruction instead.
    pub(super) fn slow_all(&mut self, k: usize, op: &Op, holes: impl IntoIterator<Item = Hole>) {
        let mut point = None;
        for hole in holes {
            let point = *point.get_or_insert_with(|| self.point(k, op));
            self.slow(hole, point);
        }
    }

    /// Reads the flags, or reads and writes them.
    fn flags(&mut self, op: &Op) {
        if !self.nowhere(op) {
            let call = self.asm.call();
            self.asm.fill(call, self.sink.common.read_flags);
        }
        // Before rd is written.
        match op.kind {
            Kind::Csrrw => self.load(RCX, op.rs1),
            Kind::Csrrwi => self.asm.mov_imm32(RCX, u32::from(op.rs1)),
            _ => return self.put(op.rd, RAX),
        }
        self.put(op.rd, RAX);
        let call = self.asm.call();
        self.asm.fill(call, self.sink.common.write_flags);
    }

    // ---- registers --------------------------------------------------------

    /// The host register that holds the guest's, or `scratch` after loading it.
    pub(super) fn get_float(&mut self, guest: u8, scratch: Xmm) -> Xmm {
        float_place(guest).unwrap_or_else(|| {
            self.copy_float(scratch, guest);
            scratch
        })
    }

    fn copy_float(&mut self, to: Xmm, guest: u8) {
        match float_place(guest) {
            Some(from) if from == to => {}
            Some(from) => self.asm.movaps(to, from),
            None => self.asm.load_float(Double, to, float_home(guest)),
        }
    }

    pub(super) fn float_operand(&self, guest: u8) -> Rm {
        float_place(guest).map_or(float_home(guest), Rm::from)
    }

    /// Where to compute a result for the guest's register.
    pub(super) fn float_result(&self, guest: u8, scratch: Xmm) -> Xmm {
        float_place(guest).unwrap_or(scratch)
    }

    /// The same, if the sources must stay as they are until it is known.
    pub(super) fn float_result_apart(&self, guest: u8, sources: &[u8]) -> Xmm {
        match float_place(guest) {
            Some(to) if !sources.contains(&guest) => to,
            _ => X0,
        }
    }

    /// The result for the guest's register is in `from`; a single is boxed.
    pub(super) fn put_float(&mut self, guest: u8, from: Xmm, float: Float) {
        match float_place(guest) {
            Some(to) if to == from => {}
            Some(to) => self.asm.movaps(to, from),
            None => self.asm.store_float(Double, float_home(guest), from),
        }
        let bit = 1 << guest;
        match float {
            Single => self.boxed |= bit,
            Double => self.boxed &= !bit,
        }
    }

    /// The result is the single in `from`, which isn't X0.
    fn box_single(&mut self, rd: u8, from: Xmm) {
        let to = self.float_result(rd, X0);
        self.asm.ones(to);
        self.asm.load_float(Single, to, from);
        self.put_float(rd, to, Single);
    }

    /// Leaves if one of the registers boxes no single. Afterwards it is known that they do,
    /// so nothing may go around it: it comes before all that goes to the interpreter.
    pub(super) fn boxed(&mut self, k: usize, op: &Op, float: Float, sources: &[u8]) {
        if float == Double {
            return;
        }
        let mut hosts = None;
        for guest in sources {
            if self.boxed & 1 << guest != 0 {
                continue;
            }
            self.boxed |= 1 << guest;
            match (float_place(*guest), hosts) {
                (None, _) => {
                    let Rm::Mem(base, at) = float_home(*guest) else {
                        continue;
                    };
                    self.asm.alu_imm(D, Alu::Cmp, Rm::Mem(base, at + 4), -1);
                    self.leave_if(k, op, Cond::NE);
                }
                (Some(xmm), None) => hosts = Some(xmm),
                (Some(xmm), Some(before)) => {
                    if before != X0 {
                        self.asm.movaps(X0, before);
                    }
                    self.asm.logic(Logic::And, X0, xmm);
                    hosts = Some(X0);
                }
            }
        }
        if let Some(xmm) = hosts {
            self.asm.float_to_general(Double, RAX, xmm);
            self.asm.shift_imm(Q, Shift::Sar, RAX, 32);
            self.asm.alu_imm(Q, Alu::Add, RAX, 1);
            self.leave_if(k, op, Cond::NE);
        }
    }

    /// A NaN in the register becomes the canonical one. The host raises for it what
    /// RISC-V does: invalid, if an operand was a signaling NaN or the operation had
    /// no result.
    pub(super) fn no_other_nan(&mut self, float: Float, xmm: Xmm) {
        self.asm.compare(float, true, xmm, xmm);
        let from = self.asm.jcc(Cond::P);
        let back = self.asm.here();
        self.later.push(Later::Nan {
            from,
            back,
            float,
            xmm,
        });
    }

    pub(super) fn canonical_nan(&mut self, float: Float, xmm: Xmm) {
        let nan = match float {
            Single => NAN_SINGLE,
            Double => NAN_DOUBLE,
        };
        self.asm.mov_imm64(RAX, nan);
        self.asm.general_to_float(Double, xmm, RAX.into());
    }

    // ---- memory -----------------------------------------------------------

    fn load_float(&mut self, k: usize, op: &Op, float: Float) {
        match float {
            Single => {
                let (from, slow) = self.address(k, op, 4, false);
                self.asm.load_float(Single, X1, from);
                self.box_single(op.rd, X1);
                self.slow_all(k, op, slow);
            }
            Double => {
                let (from, slow) = self.address(k, op, 8, false);
                let to = self.float_result(op.rd, X0);
                self.asm.load_float(Double, to, from);
                self.put_float(op.rd, to, Double);
                self.slow_all(k, op, slow);
            }
        }
    }

    fn store_float(&mut self, k: usize, op: &Op, float: Float) {
        let size = match float {
            Single => 4,
            Double => 8,
        };
        let (to, slow) = self.address(k, op, size, true);
        let from = self.get_float(op.rs2, X0);
        self.asm.store_float(float, to, from);
        self.slow_all(k, op, slow);
    }

    // ---- arithmetic -------------------------------------------------------

    fn two(&mut self, k: usize, op: &Op, float: Float, scalar: Scalar) {
        self.boxed(k, op, float, &[op.rs1, op.rs2]);
        let slow = self.same_rounding(op);
        let either = matches!(scalar, Scalar::Add | Scalar::Mul);
        let (first, second) = if either && op.rd == op.rs2 {
            (op.rs2, op.rs1)
        } else {
            (op.rs1, op.rs2)
        };
        // The upper half of a single stays that of the first operand.
        let to = if op.rd == first {
            self.float_result(op.rd, X0)
        } else {
            self.float_result_apart(op.rd, &[second])
        };
        self.copy_float(to, first);
        let second = self.float_operand(second);
        self.asm.scalar(float, scalar, to, second);
        self.no_other_nan(float, to);
        self.put_float(op.rd, to, float);
        self.slow_all(k, op, slow);
    }

    fn square_root(&mut self, k: usize, op: &Op, float: Float) {
        self.boxed(k, op, float, &[op.rs1]);
        let slow = self.same_rounding(op);
        let to = self.float_result(op.rd, X0);
        self.copy_float(to, op.rs1);
        self.asm.scalar(float, Scalar::Sqrt, to, to);
        self.no_other_nan(float, to);
        self.put_float(op.rd, to, float);
        self.slow_all(k, op, slow);
    }

    fn fused(&mut self, k: usize, op: &Op, float: Float, fused: Fused) {
        let sources = [op.rs1, op.rs2, third(op)];
        self.boxed(k, op, float, &sources);
        let slow = self.same_rounding(op);
        let to = self.float_result_apart(op.rd, &sources);
        let first = self.get_float(op.rs1, X1);
        let second = self.float_operand(op.rs2);
        self.copy_float(to, third(op));
        self.asm.fused(float, fused, to, first, second);
        self.asm.compare(float, true, to, to);
        // Infinity times zero plus a quiet NaN is invalid, other than on the host.
        let nan = self.asm.jcc(Cond::P);
        self.put_float(op.rd, to, float);
        self.slow_all(k, op, slow.into_iter().chain([nan]));
    }

    fn sign(&mut self, k: usize, op: &Op, float: Float, sign: Sign) {
        self.boxed(k, op, float, &[op.rs1, op.rs2]);
        if let (Sign::Take, true) = (sign, op.rs1 == op.rs2) {
            let to = self.float_result(op.rd, X0);
            self.copy_float(to, op.rs1);
            return self.put_float(op.rd, to, float);
        }
        if op.rs1 != op.rs2 {
            return self.other_sign(op, float, sign);
        }
        // X0: the sign bit alone.
        self.asm.ones(X0);
        self.asm.shift_left(X0, 63);
        if float == Single {
            self.asm.shift_right(X0, 32);
        }
        let from = self.get_float(op.rs1, X1);
        let logic = match sign {
            Sign::Multiply => Logic::Andn,
            _ => Logic::Xor,
        };
        self.asm.logic(logic, X0, from);
        self.put_float(op.rd, X0, float);
    }

    /// The second operand decides whether the sign of the first changes.
    fn other_sign(&mut self, op: &Op, float: Float, sign: Sign) {
        self.float_to_general(RAX, op.rs1);
        self.float_to_general(RCX, op.rs2);
        if matches!(sign, Sign::Negate) {
            self.asm.group3(Q, 2, RCX);
        }
        if !matches!(sign, Sign::Multiply) {
            self.asm.alu(Q, Alu::Xor, RCX, RAX);
        }
        match float {
            Single => self.asm.alu_imm(D, Alu::And, RCX, i32::MIN),
            Double => {
                self.asm.shift_imm(Q, Shift::Shr, RCX, 63);
                self.asm.shift_imm(Q, Shift::Shl, RCX, 63);
            }
        }
        self.asm.alu(Q, Alu::Xor, RAX, RCX);
        let to = self.float_result(op.rd, X0);
        self.asm.general_to_float(Double, to, RAX.into());
        self.put_float(op.rd, to, float);
    }

    fn float_to_general(&mut self, to: Reg, guest: u8) {
        match float_place(guest) {
            Some(from) => self.asm.float_to_general(Double, to, from),
            None => self.asm.mov(Q, to, float_home(guest)),
        }
    }

    /// Minimum or maximum.
    fn extreme(&mut self, k: usize, op: &Op, float: Float, scalar: Scalar) {
        self.boxed(k, op, float, &[op.rs1, op.rs2]);
        let (first, second) = (self.float_operand(op.rs1), self.float_operand(op.rs2));
        self.copy_float(X0, op.rs1);
        self.copy_float(X1, op.rs2);
        self.asm.compare(float, true, X0, X1);
        let nan = self.asm.jcc(Cond::P);
        // Of equal operands the host takes the second. Both ways make the same but of
        // two zeros, and there the signs decide.
        self.asm.scalar(float, scalar, X0, second);
        self.asm.scalar(float, scalar, X1, first);
        let logic = match scalar {
            Scalar::Min => Logic::Or,
            _ => Logic::And,
        };
        self.asm.logic(logic, X0, X1);
        self.put_float(op.rd, X0, float);
        self.slow_all(k, op, [nan]);
    }

    // ---- comparisons ------------------------------------------------------

    fn equal(&mut self, k: usize, op: &Op, float: Float) {
        self.boxed(k, op, float, &[op.rs1, op.rs2]);
        let first = self.get_float(op.rs1, X0);
        let second = self.float_operand(op.rs2);
        self.asm.compare(float, true, first, second);
        self.asm.setcc(Cond::NP, RCX);
        self.asm.setcc(Cond::E, RAX);
        self.asm.alu(D, Alu::And, RAX, RCX);
        let to = self.result(op.rd, RAX);
        self.asm.movzx8(to, RAX);
        self.put(op.rd, to);
    }

    /// `cond` of the second compared to the first.
    fn less(&mut self, k: usize, op: &Op, float: Float, cond: Cond) {
        self.boxed(k, op, float, &[op.rs1, op.rs2]);
        let second = self.get_float(op.rs2, X0);
        let first = self.float_operand(op.rs1);
        self.asm.compare(float, false, second, first);
        self.put_condition(op.rd, cond);
    }

    fn classify(&mut self, k: usize, op: &Op, float: Float) {
        self.boxed(k, op, float, &[op.rs1]);
        // Twice the least normal number and infinity, without their signs.
        let (size, normal, infinity, sign) = match float {
            Single => (D, 0x0100_0000, 0xff00_0000, 31),
            Double => (Q, 0x0020 << 48, 0xffe0 << 48, 63),
        };
        let from = self.get_float(op.rs1, X0);
        self.asm.float_to_general(float, RAX, from);
        self.asm.lea(size, RCX, Rm::Sib(RAX, RAX, 0, 0));
        // Of positive ones: zero 4, subnormal 5, normal 6, infinity 7.
        self.asm.mov_imm32(RDX, 4);
        self.asm.alu_imm(size, Alu::Cmp, RCX, 1);
        self.asm.alu_imm(D, Alu::Sbb, RDX, -1);
        self.asm.mov_imm64(RAX, normal);
        self.asm.alu(size, Alu::Cmp, RCX, RAX);
        self.asm.alu_imm(D, Alu::Sbb, RDX, -1);
        self.asm.mov_imm64(RAX, infinity);
        self.asm.alu(size, Alu::Cmp, RCX, RAX);
        let nan = self.asm.jcc(Cond::A);
        self.asm.alu_imm(D, Alu::Sbb, RDX, -1);
        // Of negative ones: 7 less that.
        self.asm.float_to_general(float, RAX, from);
        self.asm.shift_imm(size, Shift::Sar, RAX, sign);
        self.asm.alu_imm(D, Alu::And, RAX, 7);
        self.asm.mov(D, RCX, RAX);
        self.asm.alu(D, Alu::Xor, RCX, RDX);
        self.asm.mov_imm32(RAX, 1);
        self.asm.shift_cl(D, Shift::Shl, RAX);
        self.put(op.rd, RAX);
        self.slow_all(k, op, [nan]);
    }
}

//! The way into translated code and out of it.

#![allow(unsafe_code)]

use super::asm::*;
use super::groups::SLOTS;
use super::registers::{BIAS, BUDGET, DATA, MAPPED, STATE, home};
use super::translate::POINT_LEFT;
use super::{CODES, Common, FETCH, GROUPS, PAGE_VA, control, float_state};
use std::ffi::c_void;
use std::mem::offset_of;
use twinvm_cpu::tier::Window;
use twinvm_mem::PAGE_BYTES;

/// Where the frame's address lies, from RSP.
const FRAME: i32 = 8;
/// Bytes below the saved registers: with them and the return address the stack is
/// aligned to 16 bytes.
const LOCALS: i32 = GROUPS + 8 * SLOTS as i32;
const _: () = assert!((LOCALS + 8 * (SAVED.len() as i32 + 1)) % 16 == 0);
/// Registers that a function must keep (System V ABI for x86-64, section 3.2.1).
const SAVED: [Reg; 6] = [RBP, RBX, R12, R13, R14, R15];

/// Why translated code was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Fewer steps are left than the block has.
    Tail,
    /// The target of an indirect jump isn't known.
    Cold,
    /// The jump of this number isn't joined to its target.
    Jump(u32),
    /// The interpreter said so, and has set pc and step count.
    Look,
}

const TAIL: u32 = 0;
const COLD: u32 = 1;
const JUMP: u32 = 2;
const LOOK: u32 = 3;

/// What a run of translated code works with.
#[repr(C)]
pub(super) struct Frame {
    pc: u64,
    budget: i64,
    interpret: extern "sysv64" fn(*mut Frame, u32, i64, u64) -> bool,
    /// The window, whose lifetimes end with the run.
    window: *mut c_void,
    limit: u64,
    host_mxcsr: u32,
    /// 0: nothing was collected since it was looked at.
    guest_mxcsr: u32,
    fetch: *mut u8,
    codes: *const u8,
    /// [`float_state::FLAGS`].
    flags: *const u8,
}

const MXCSR_KEPT: float_state::Kept = float_state::Kept {
    host: offset_of!(Frame, host_mxcsr) as i32,
    guest: offset_of!(Frame, guest_mxcsr) as i32,
};

/// What the code returns, in RAX and RDX.
#[repr(C)]
struct Returned {
    why: u64,
    jump: u64,
}

/// `enter(frame, entry, state, data, budget, page)`
type Enter = unsafe extern "sysv64" fn(*mut Frame, u64, *mut u8, *const u8, i64, u64) -> Returned;

impl Frame {
    /// Runs translated code from `entry` on. Afterwards pc and step count are set.
    pub(super) fn run(window: &mut Window<'_, '_>, enter: u64, entry: u64, limit: u64) -> Left {
        let pc = window.pc();
        let budget = (limit - window.icount()).min(i64::MAX as u64) as i64;
        let limit = window.icount() + budget as u64;
        let (data, fetch) = (window.data(), window.fetch());
        let state = window.registers().cast::<u8>().wrapping_add(BIAS as usize);
        let mut frame = Frame {
            pc,
            budget,
            interpret,
            window: (&raw mut *window).cast(),
            limit,
            host_mxcsr: 0,
            guest_mxcsr: 0,
            fetch,
            codes: window.codes(),
            flags: float_state::FLAGS.as_ptr(),
        };
        // SAFETY: `enter` is the address of the code that `common` has made, which is
        // executable and follows this signature; `entry` that of a translation in the
        // same buffer, which nobody changes while it runs. The code uses the stack
        // below it, reads the translations and writes the hart's registers, which the window
        // has exclusively, and guest RAM where the entries allow it: those
        // exist only for pages of RAM, and for stores only under a write tag. It
        // reaches the window again only through `interpret`.
        let returned = unsafe {
            let enter = std::mem::transmute::<*const (), Enter>(std::ptr::with_exposed_provenance(
                enter as usize,
            ));
            enter(
                &raw mut frame,
                entry,
                state,
                data,
                budget,
                pc & !(PAGE_BYTES as u64 - 1),
            )
        };
        window.raise_flags(float_state::flags(frame.guest_mxcsr));
        let why = returned.why as u32;
        if why != LOOK {
            window.set_position(frame.pc, limit - frame.budget as u64);
        }
        match why {
            TAIL => Left::Tail,
            COLD => Left::Cold,
            JUMP => Left::Jump(returned.jump as u32),
            _ => Left::Look,
        }
    }
}

/// Called by translated code for an instruction of which the interpreter does all.
/// `budget` is what is left after the whole block, `page` the virtual address of the
/// page. False: leave.
extern "sysv64" fn interpret(frame: *mut Frame, point: u32, budget: i64, page: u64) -> bool {
    // SAFETY: translated code hands on what `Frame::run` gave it, which waits for it and
    // touches neither frame nor window meanwhile.
    let (window, limit, mxcsr) = unsafe {
        let frame = &mut *frame;
        let window = &mut *frame.window.cast::<Window<'_, '_>>();
        let mxcsr = std::mem::take(&mut frame.guest_mxcsr);
        (window, frame.limit, mxcsr)
    };
    window.raise_flags(float_state::flags(mxcsr));
    let icount = limit
        .wrapping_sub(budget as u64)
        .wrapping_sub(u64::from(point >> POINT_LEFT));
    window.interpret(page + u64::from(point & ((1 << POINT_LEFT) - 1)), icount)
}

/// The code that all blocks use.
pub(super) fn common() -> (Vec<u8>, Common) {
    let mut asm = Asm {
        code: Vec::new(),
        base: 0,
    };
    let mut common = Common {
        enter: asm.here(),
        ..Common::default()
    };
    for reg in SAVED {
        asm.push(reg);
    }
    asm.alu_imm(Size::Q, Alu::Sub, RSP, LOCALS);
    asm.store(Size::Q, Rm::Mem(RSP, PAGE_VA), R9);
    asm.store(Size::Q, Rm::Mem(RSP, FRAME), RDI);
    float_state::note_not_loaded(&mut asm);
    asm.mov(Size::Q, RAX, Rm::Mem(RDI, offset_of!(Frame, fetch) as i32));
    asm.store(Size::Q, Rm::Mem(RSP, FETCH), RAX);
    asm.mov(Size::Q, RAX, Rm::Mem(RDI, offset_of!(Frame, codes) as i32));
    asm.store(Size::Q, Rm::Mem(RSP, CODES), RAX);
    asm.mov(Size::Q, STATE, RDX);
    asm.mov(Size::Q, DATA, RCX);
    asm.mov(Size::Q, BUDGET, R8);
    asm.mov(Size::Q, RAX, RSI);
    fill(&mut asm);
    asm.jmp_rm(RAX);

    common.interpret = asm.here();
    interpret_one(&mut asm, false);
    common.interpret_float = asm.here();
    interpret_one(&mut asm, true);
    common.read_flags = asm.here();
    let table = offset_of!(Frame, flags) as i32;
    float_state::read_flags(&mut asm, 8, FRAME, MXCSR_KEPT, table);
    asm.ret();
    common.write_flags = asm.here();
    float_state::write_flags(&mut asm, 8, FRAME, MXCSR_KEPT);
    asm.ret();
    common.begin_float = asm.here();
    float_state::begin(&mut asm, 8, FRAME, MXCSR_KEPT);
    asm.ret();

    // RCX: the offset of pc from the page's address, sign-extended from 32 bits.
    common.tail = asm.here();
    asm.set(RDX, 0);
    asm.mov_imm32(RAX, TAIL);
    let tail = asm.jmp();
    // The same, and RDX is the number of the jump.
    common.link = asm.here();
    asm.mov_imm32(RAX, JUMP);
    asm.fill_here(tail);
    asm.movsx32(RCX, RCX);
    asm.alu(Size::Q, Alu::Add, RCX, Rm::Mem(RSP, PAGE_VA));
    let out = asm.jmp();
    // RAX: pc.
    common.cold = asm.here();
    asm.mov(Size::Q, RCX, RAX);
    asm.mov_imm32(RAX, COLD);
    asm.fill_here(out);
    spill(&mut asm);
    asm.mov(Size::Q, RDI, Rm::Mem(RSP, FRAME));
    float_state::end_if_loaded(&mut asm, 0, MXCSR_KEPT);
    asm.store(Size::Q, Rm::Mem(RDI, offset_of!(Frame, pc) as i32), RCX);
    asm.store(
        Size::Q,
        Rm::Mem(RDI, offset_of!(Frame, budget) as i32),
        BUDGET,
    );
    leave(&mut asm);
    common.look_up = asm.here();
    control::look_up(&mut asm, common.cold);
    common.end = asm.here();
    (asm.code, common)
}

/// RCX: number of the point. Returns if the block goes on. `float`: the guest's
/// floating-point state is loaded, and is so again afterwards; what may turn the unit
/// off or change the mode ends a block.
fn interpret_one(asm: &mut Asm, float: bool) {
    // The return address lies below the locals.
    const DEPTH: i32 = 8;
    spill(asm);
    asm.mov(Size::Q, RDI, Rm::Mem(RSP, FRAME + DEPTH));
    if float {
        float_state::end(asm, DEPTH, MXCSR_KEPT);
    } else {
        float_state::end_if_loaded(asm, DEPTH, MXCSR_KEPT);
    }
    asm.mov(Size::D, RSI, RCX);
    asm.mov(Size::Q, RDX, BUDGET);
    asm.mov(Size::Q, RCX, Rm::Mem(RSP, PAGE_VA + DEPTH));
    asm.alu_imm(Size::Q, Alu::Sub, RSP, 8);
    asm.call_rm(Rm::Mem(RDI, offset_of!(Frame, interpret) as i32));
    asm.alu_imm(Size::Q, Alu::Add, RSP, 8);
    asm.op(0, false, &[0x84], RAX, RAX);
    let stop = asm.jcc(Cond::E);
    if float {
        float_state::begin(asm, DEPTH, FRAME, MXCSR_KEPT);
    }
    fill(asm);
    asm.ret();
    asm.fill_here(stop);
    asm.alu_imm(Size::Q, Alu::Add, RSP, DEPTH);
    asm.mov_imm32(RAX, LOOK);
    leave(asm);
}

fn leave(asm: &mut Asm) {
    asm.alu_imm(Size::Q, Alu::Add, RSP, LOCALS);
    for reg in SAVED.into_iter().rev() {
        asm.pop(reg);
    }
    asm.ret();
}

fn spill(asm: &mut Asm) {
    for (guest, reg) in MAPPED {
        asm.store(Size::Q, home(guest), reg);
    }
}

fn fill(asm: &mut Asm) {
    for (guest, reg) in MAPPED {
        asm.mov(Size::Q, reg, home(guest));
    }
}

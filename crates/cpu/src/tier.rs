//! The seam for a second engine that runs translated blocks.
//!
//! The interpreter is the reference. Where a [`Tier`] is plugged in
//! ([`crate::Engine::set_tier`]), blocks that were entered often are given to it, and
//! it runs them as long as nothing needs the run loop. It must be indistinguishable:
//! the same state after each step. All that is rare it leaves to the interpreter, one
//! instruction at a time, through its [`Window`].
//!
//! What a tier keeps is derived from memory, as everything in an engine.

use crate::block::Blocks;
use crate::csr::addr;
use crate::engine::Env;
use crate::exec::{Core, Outcome};
use crate::hart::{Hart, Mode, Registers, Reservation, envcfg, status};
use crate::op::Op;
use crate::space::FetchTlb;
use std::mem::offset_of;

pub use crate::op::{Kind, Op as DecodedOp};
pub use crate::space::layout;

/// Offset of the floating-point registers from the integer registers, bytes. Both
/// are arrays of 64-bit values.
pub const FLOAT_REGISTERS: isize = offset_of!(Hart, f) as isize - offset_of!(Hart, x) as isize;
/// Offset of the rounding mode (frm, 8 bits) from the integer registers, bytes.
pub const FLOAT_ROUNDING: isize = offset_of!(Hart, frm) as isize - offset_of!(Hart, x) as isize;
/// Offset of the flags (fflags, 8 bits) from the integer registers, bytes.
pub const FLOAT_FLAGS: isize = offset_of!(Hart, fflags) as isize - offset_of!(Hart, x) as isize;
/// Offset of mstatus from the integer registers, bytes.
pub const STATUS: isize = offset_of!(Hart, mstatus) as isize - offset_of!(Hart, x) as isize;
/// The bits of mstatus that are all set while floating-point instructions may run and
/// need not note it: FS is dirty.
pub const STATUS_FLOAT: u32 = status::FS as u32;
/// The number of the CSR that shows S-mode a part of mstatus.
pub const SSTATUS: u16 = addr::SSTATUS;
/// The part of mstatus that sstatus reads and writes.
pub const SSTATUS_WRITABLE: u32 = crate::csr::SSTATUS_MASK as u32;
/// What sstatus reads of the upper half of mstatus.
pub const SSTATUS_UPPER: u32 = (status::UXL >> 32) as u32;
/// The bit of mstatus that lets interrupts of S-mode in.
pub const STATUS_INTERRUPTS: u32 = status::SIE as u32;
const _: () = assert!(crate::csr::SSTATUS_MASK >> 31 == 0 && status::SD == 1 << 63);

/// Offset of the reservation's place (64 bits) from the integer registers, bytes.
pub const RESERVED_PLACE: isize = RESERVATION + offset_of!(Reservation, place) as isize;
/// Offset of its size (64 bits) from the integer registers, bytes: 4, 8, or 0 if there is
/// no reservation.
pub const RESERVED_SIZE: isize = RESERVATION + offset_of!(Reservation, size) as isize;
const RESERVATION: isize = offset_of!(Hart, reservation) as isize - offset_of!(Hart, x) as isize;
/// Offset of the privilege mode (8 bits) from the integer registers, bytes.
pub const MODE: isize = offset_of!(Hart, mode) as isize - offset_of!(Hart, x) as isize;
/// S-mode's number.
pub const MODE_SUPERVISOR: i32 = Mode::Supervisor as i32;
/// Offset of what M-mode enables for S-mode (the low 8 bits of menvcfg) from the integer
/// registers, bytes.
pub const ENABLED: isize = offset_of!(Hart, menvcfg) as isize - offset_of!(Hart, x) as isize;
/// cbo.zero is enabled.
pub const ENABLED_ZERO: i32 = envcfg::CBZE as i32;

/// A decoded block for a tier to translate.
pub struct Code<'a> {
    /// Physical address of the first instruction.
    pub pa: u64,
    /// Its virtual address now. Other address spaces may have it elsewhere.
    pub va: u64,
    /// The instructions. None crosses a page; one that does may come last, as
    /// [`Kind::Crossing`], for [`Window::interpret`].
    pub ops: &'a [Op],
}

/// Why a tier stopped. The hart's pc and the step count are those of the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierExit {
    /// The limit is nearer than the end of the block at pc.
    Tail,
    /// The code at pc is not known to be translated.
    Lookup,
    /// The same, after a jump that [`Tier::link`] can make go there directly.
    Link(u32),
    /// An instruction left to the interpreter says that the run loop must look.
    Look,
}

/// A piece of code that a tier has made, for tools that look at the process from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodePiece {
    /// Where it starts, in this process.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
    /// What it is for.
    pub role: CodeRole,
}

/// What a piece of code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeRole {
    /// A translation.
    Block {
        /// Physical address of its first instruction.
        pa: u64,
        /// Virtual address of its first instruction when it was translated.
        va: u64,
    },
    /// A jump into another page, whose physical address this is.
    Jump {
        /// The page.
        page: u64,
    },
    /// What all translations use: the ways in and out.
    Common,
}

/// Is told of each piece of code.
pub type CodeListener = Box<dyn FnMut(&CodePiece) + Send>;

/// A second engine.
pub trait Tier: Send {
    /// Translates a block. Where its code starts (never 0), or `None` if there is no
    /// room: all is flushed then, and begins anew.
    fn translate(&mut self, code: &Code<'_>) -> Option<u64>;

    /// Where code goes that jumps to a block without a translation.
    fn cold(&self) -> u64;

    /// Runs translated code from `entry`, which is for the hart's pc, until the step
    /// count is `limit` at most.
    fn run(&mut self, window: &mut Window<'_, '_>, entry: u64, limit: u64) -> TierExit;

    /// The jump of [`TierExit::Link`] leads to the translation at `entry`, which is
    /// code of RAM's page number `page`.
    fn link(&mut self, jump: u32, entry: u64, page: u32);

    /// The block whose translation starts at `entry` is no longer what memory holds.
    /// It is never entered again.
    fn retire(&mut self, entry: u64);

    /// Forgets all translations.
    fn flush(&mut self);

    /// Tells of the code that there always is, and from now on of each piece that is made.
    /// After a flush pieces come to lie where others were.
    fn listen(&mut self, listener: CodeListener);

    /// What translations take.
    fn memory(&self) -> TierMemory;
}

/// Memory that a tier uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierMemory {
    /// Bytes of code now.
    pub code_bytes: u64,
    /// The most bytes of code so far. The host keeps that much memory.
    pub peak_code_bytes: u64,
    /// Bytes of tables beside the code.
    pub table_bytes: u64,
}

/// What a tier sees of the machine while it runs.
pub struct Window<'a, 'e> {
    pub(crate) core: &'a mut Core,
    pub(crate) hart: &'a mut Hart,
    pub(crate) env: &'a mut Env<'e>,
    pub(crate) blocks: &'a Blocks,
    pub(crate) outcome: Outcome,
}

impl Window<'_, '_> {
    /// The hart's integer registers; [`FLOAT_REGISTERS`] lie at a fixed offset.
    pub fn registers(&mut self) -> *mut u64 {
        let Registers(x) = &mut self.hart.x;
        x.as_mut_ptr()
    }

    /// Translations of loads and stores: see [`layout`]. The tier only reads them.
    pub fn data(&self) -> *const u8 {
        self.core.mmu.data_tlb().words()
    }

    /// Translations of fetches, and the places that calls return to: see [`layout`]. Of
    /// the tier's are the returns alone: it notes there that the code at a pc, which is
    /// a block's or leads to one, starts at an address. That is forgotten when a
    /// translation that led there is dropped, or any translated code.
    pub fn fetch(&mut self) -> *mut u8 {
        let tlb: *mut FetchTlb = self.core.mmu.fetch_tlb_mut();
        tlb.cast()
    }

    /// Where code is, by its place from the start of RAM: see [`layout`]. The tier only
    /// reads it.
    pub fn codes(&self) -> *const u8 {
        self.blocks.codes().entries().cast()
    }

    /// The hart's program counter.
    pub fn pc(&self) -> u64 {
        self.hart.pc
    }

    /// Steps since power-on.
    pub fn icount(&self) -> u64 {
        self.env.icount
    }

    /// Sets pc and step count to those of the next step.
    pub fn set_position(&mut self, pc: u64, icount: u64) {
        self.hart.pc = pc;
        self.env.icount = icount;
    }

    /// Raises floating-point flags (fflags).
    pub fn raise_flags(&mut self, flags: u8) {
        self.hart.fflags |= flags;
    }

    /// Interprets one instruction of a translated block, which is at `pc`, after step
    /// `icount`. True if that was all: what data entries said before still holds, even
    /// if other entries are in their place now. False if the tier must stop with
    /// [`TierExit::Look`]: pc and step count are set then.
    pub fn interpret(&mut self, pc: u64, icount: u64) -> bool {
        self.set_position(pc, icount);
        let Some(op) = self.core.op_at(self.env, pc) else {
            // The next page's translation isn't known: the run loop fetches.
            self.outcome = Outcome::Look;
            return false;
        };
        self.core.interpreted.count(op.kind);
        self.outcome = self.core.execute_one(self.hart, self.env, &op);
        if self.hart.pc != pc.wrapping_add(op.next_off()) && matches!(self.outcome, Outcome::Done) {
            // A jump that lies on two pages.
            self.outcome = Outcome::Look;
        }
        matches!(self.outcome, Outcome::Done)
    }
}

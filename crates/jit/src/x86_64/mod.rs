//! The backend for x86-64 hosts.

mod asm;
mod atomic;
mod control;
mod enter;
mod float;
mod float_convert;
mod float_state;
mod groups;
mod integer;
mod loops;
mod memory;
mod registers;
mod sse;
mod status;
mod translate;
mod words;

use crate::NoCodeMemory;
use crate::buffer::CodeBuffer;
use asm::{Alu, Asm, Cond, Hole, RAX, RCX, RSP, Rm, Size, displacement};
use enter::{Frame, Left};
use std::collections::BTreeMap;
use translate::{Sink, translate};
use twinvm_cpu::tier::{
    Code, CodeListener, CodePiece, CodeRole, Tier, TierExit, TierMemory, Window, layout,
};
use twinvm_mem::{PAGE_BYTES, PAGE_SHIFT, RAM_BASE};

/// Where the virtual address of the current page lies, from RSP.
const PAGE_VA: i32 = 0;
/// Where it is noted, in 8 bits, whether the guest's floating-point state is loaded,
/// from RSP: see [`float_state`].
const FLOAT: i32 = 16;
/// Where the address of the translations of fetches lies, from RSP.
const FETCH: i32 = 24;
/// Where the address of the table of code lies, from RSP.
const CODES: i32 = 32;
/// Where what [`groups`] keep lies, from RSP: 8 bytes for each slot.
const GROUPS: i32 = 40;

/// A direct jump.
#[derive(Debug, Clone, Copy)]
struct Jump {
    /// Offset of a [`Hole`].
    hole: u32,
    /// Where it goes while it isn't joined to its target: out.
    stub: u32,
    /// The target's offset from the start of the jump's page.
    target: i32,
    /// Where the block's code starts that it was joined to last, if it still is; else 0.
    joined: u32,
}

impl Jump {
    fn hole(&self) -> Hole {
        Hole(self.hole as usize)
    }

    fn stub(&self) -> usize {
        self.stub as usize
    }
}

/// Code that all blocks use, by its offset.
#[derive(Debug, Clone, Copy, Default)]
struct Common {
    enter: usize,
    interpret: usize,
    /// The same where the guest's floating-point state is loaded, and stays so.
    interpret_float: usize,
    /// Loads the guest's floating-point state. Afterwards ZF is set if it may not be
    /// used.
    begin_float: usize,
    /// RAX = the flags raised, while the guest's floating-point state is loaded.
    read_flags: usize,
    /// The flags raised are those in RCX.
    write_flags: usize,
    tail: usize,
    link: usize,
    cold: usize,
    /// Goes to the pc in RAX.
    look_up: usize,
    end: usize,
    /// Number of the first jump; each flush begins above all numbers before it.
    first_jump: u32,
}

/// What the host's processor has beyond the base.
#[derive(Debug, Clone, Copy)]
struct Features {
    lzcnt: bool,
    bmi1: bool,
    bmi2: bool,
    popcnt: bool,
    sse41: bool,
    fma: bool,
}

/// The tier for x86-64 hosts.
pub(crate) struct Translator {
    buffer: CodeBuffer,
    common: Common,
    features: Features,
    jumps: Vec<Jump>,
    /// Jumps from other pages, by where the code of the block starts that they lead to, and
    /// their number: where the check is that they have for it.
    incoming: BTreeMap<(usize, u32), u32>,
    listener: Option<CodeListener>,
}

impl Translator {
    /// Keeps so many bytes of code.
    pub(crate) fn new(code_bytes: usize) -> Result<Self, NoCodeMemory> {
        let mut translator = Self {
            buffer: CodeBuffer::new(code_bytes)?,
            common: Common::default(),
            features: Features {
                lzcnt: is_x86_feature_detected!("lzcnt"),
                bmi1: is_x86_feature_detected!("bmi1"),
                bmi2: is_x86_feature_detected!("bmi2"),
                popcnt: is_x86_feature_detected!("popcnt"),
                sse41: is_x86_feature_detected!("sse4.1"),
                fma: is_x86_feature_detected!("fma"),
            },
            jumps: Vec::new(),
            incoming: BTreeMap::new(),
            listener: None,
        };
        let (code, common) = enter::common();
        let fits = translator.buffer.append(&code);
        assert!(fits, "the buffer is larger than the common code");
        translator.common = common;
        Ok(translator)
    }

    fn jump(&self, id: u32) -> Option<Jump> {
        let index = id.wrapping_sub(self.common.first_jump) as usize;
        self.jumps.get(index).copied()
    }

    fn note_joined(&mut self, id: u32, entry: usize) {
        let index = id.wrapping_sub(self.common.first_jump) as usize;
        if let Some(jump) = self.jumps.get_mut(index) {
            jump.joined = entry as u32;
        }
    }

    /// Tells of the code that was appended from offset `from` on.
    fn tell(&mut self, from: usize, role: CodeRole) {
        if let Some(listener) = &mut self.listener {
            listener(&CodePiece {
                address: self.buffer.address(from),
                bytes: (self.buffer.used() - from) as u64,
                role,
            });
        }
    }

    /// Code that checks that the page the jump leads to is still page `page` of RAM,
    /// and goes to `entry`; else out, as the jump did before.
    fn checked_jump(&mut self, jump: &Jump, entry: usize, page: u32) -> Option<usize> {
        let base = self.buffer.used();
        let mut asm = Asm {
            code: Vec::with_capacity(64),
            base,
        };
        let page_offset = jump.target & -(PAGE_BYTES as i32);
        asm.mov(Size::Q, RAX, Rm::Mem(RSP, PAGE_VA));
        asm.alu_imm(Size::Q, Alu::Add, RAX, page_offset);
        control::find_fetch_entry(&mut asm);
        let tag = Rm::Mem(RCX, layout::FETCH_TAG as i32);
        asm.alu(Size::Q, Alu::Cmp, RAX, tag);
        let moved = asm.jcc(Cond::NE);
        asm.fill(moved, jump.stub());
        let number = Rm::Mem(RCX, layout::FETCH_PAGE as i32);
        asm.alu_imm(Size::D, Alu::Cmp, number, page as i32);
        let moved = asm.jcc(Cond::NE);
        asm.fill(moved, jump.stub());
        asm.store(Size::Q, Rm::Mem(RSP, PAGE_VA), RAX);
        let go = asm.jmp();
        asm.fill(go, entry);
        if !self.buffer.append(&asm.code) {
            return None;
        }
        let page = RAM_BASE + (u64::from(page) << PAGE_SHIFT);
        self.tell(base, CodeRole::Jump { page });
        Some(base)
    }
}

impl Tier for Translator {
    fn translate(&mut self, code: &Code<'_>) -> Option<u64> {
        let base = self.buffer.used();
        let translated = translate(
            code,
            base,
            &mut Sink {
                jumps: &mut self.jumps,
                common: &self.common,
                features: self.features,
            },
        );
        if !self.buffer.append(&translated) {
            return None;
        }
        let Code { pa, va, .. } = *code;
        self.tell(base, CodeRole::Block { pa, va });
        Some(self.buffer.address(base))
    }

    fn cold(&self) -> u64 {
        self.buffer.address(self.common.cold)
    }

    fn run(&mut self, window: &mut Window<'_, '_>, entry: u64, limit: u64) -> TierExit {
        let enter = self.buffer.address(self.common.enter);
        match Frame::run(window, enter, entry, limit) {
            Left::Tail => TierExit::Tail,
            Left::Cold => TierExit::Lookup,
            Left::Jump(id) => TierExit::Link(id),
            Left::Look => TierExit::Look,
        }
    }

    fn link(&mut self, id: u32, entry: u64, page: u32) {
        let Some(jump) = self.jump(id) else {
            return;
        };
        let entry = self.buffer.offset(entry);
        if jump.joined as usize == entry {
            // Its check said no, because the page wasn't known.
            return;
        }
        let to = if (0..PAGE_BYTES as i32).contains(&jump.target) {
            entry
        } else {
            match self.incoming.get(&(entry, id)) {
                // The jump has led elsewhere since.
                Some(to) => *to as usize,
                None => {
                    let Some(to) = self.checked_jump(&jump, entry, page) else {
                        return;
                    };
                    self.incoming.insert((entry, id), to as u32);
                    to
                }
            }
        };
        let hole = jump.hole();
        self.buffer.patch(hole.0, displacement(hole, to));
        self.note_joined(id, entry);
    }

    fn retire(&mut self, entry: u64) {
        let entry = self.buffer.offset(entry);
        let all = (entry, 0)..=(entry, u32::MAX);
        let ids: Vec<u32> = self.incoming.range(all).map(|((_, id), _)| *id).collect();
        for id in ids {
            self.incoming.remove(&(entry, id));
            if let Some(jump) = self.jump(id) {
                let hole = jump.hole();
                self.buffer.patch(hole.0, displacement(hole, jump.stub()));
                self.note_joined(id, 0);
            }
        }
    }

    fn flush(&mut self) {
        self.buffer.truncate(self.common.end);
        self.common.first_jump = self.common.first_jump.wrapping_add(self.jumps.len() as u32);
        self.jumps.clear();
        self.incoming.clear();
    }

    fn listen(&mut self, mut listener: CodeListener) {
        listener(&CodePiece {
            address: self.buffer.address(0),
            bytes: self.common.end as u64,
            role: CodeRole::Common,
        });
        self.listener = Some(listener);
    }

    fn memory(&self) -> TierMemory {
        let tables = self.jumps.capacity() * size_of::<Jump>()
            + self.incoming.len() * size_of::<((usize, u32), u32)>();
        TierMemory {
            code_bytes: self.buffer.used() as u64,
            peak_code_bytes: self.buffer.peak() as u64,
            table_bytes: tables as u64,
        }
    }
}

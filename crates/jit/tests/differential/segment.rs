//! A scene's own code: random instructions, with branches, calls, loops, code and
//! tables that rewrite each other, and changes of mode and address space.

use crate::asm::*;
use crate::instructions::*;
use crate::layout::*;
use crate::program::{Scene, Writer};
use crate::rng::Rng;
use twinvm_cpu::Mode;
use twinvm_mem::RAM_BASE;

/// mstatus.TVM and TW.
const TVM: u64 = 1 << 20;
const TW: u64 = 1 << 21;

fn csrrsi(rd: u32, csr: u32, imm: u32) -> u32 {
    csrrwi(rd, csr, imm) ^ 3 << 12
}

fn csrrci(rd: u32, csr: u32, imm: u32) -> u32 {
    csrrwi(rd, csr, imm) | 2 << 12
}

impl Writer<'_> {
    /// The random code of a scene; its virtual address.
    pub(crate) fn segment(&mut self, scene: &Scene, flavour: Flavour) -> u64 {
        if self.source.rng.chance(4) {
            // Across the end of a page.
            let page = (self.code.here() | 0xfff) + 1;
            let start = page - 2 * (10 + self.source.rng.below(200));
            if start > self.code.here() {
                self.code.pad_to(start);
            }
        }
        if self.source.rng.chance(2) {
            self.code.c(C_NOP);
        }
        let entry = self.code.here().wrapping_add(scene.shift);
        self.returned = false;
        let length = 60 + self.source.rng.below(120);
        let stop = self.code.bytes.len() + 4 * length as usize;
        while self.code.bytes.len() < stop {
            self.unit(scene, flavour);
        }
        let mark = self.source.kept.mark();
        self.code.op(addi(mark, 0, 1)).op(ECALL);
        entry
    }

    fn some(&mut self, flavour: Flavour, count: u64) -> Asm {
        let mut part = Asm::at(0);
        for _ in 0..count {
            self.source.emit(&mut part, flavour);
        }
        part
    }

    fn unit(&mut self, scene: &Scene, flavour: Flavour) {
        match self.source.rng.below(40) {
            0 | 1 => self.branch(flavour),
            2 => self.call(flavour),
            3 => self.repeat(flavour),
            4 | 5 => {
                let at = self.source.rng.pick(&POINTERS);
                let value = pointer(self.source.rng, scene);
                self.code.li(at, value);
            }
            6 if flavour != Flavour::Integer => self.rewrite(scene),
            7 if flavour == Flavour::Csr => self.switch(scene),
            9 if flavour == Flavour::Csr => self.wait(scene),
            8 if flavour == Flavour::Float => {
                let (value, f) = (float(self.source.rng), self.source.rng.below(32));
                let rd = 5 + self.source.rng.below(3) as u32;
                self.code
                    .li(rd, value)
                    .op(r(0x79, 0, rd, 0, f as u32, 0x53));
            }
            _ => self.source.emit(&mut self.code, flavour),
        }
    }

    /// A branch over a few instructions.
    fn branch(&mut self, flavour: Flavour) {
        let count = 1 + self.source.rng.below(6);
        let part = self.some(flavour, count);
        let (a, b) = (self.source.rs(), self.source.rs());
        let over = part.bytes.len() as i32;
        let rng = &mut *self.source.rng;
        if over < 250 && rng.chance(3) {
            // c.beqz, c.bnez, c.j and padding, so that 4 bytes on is a boundary.
            let o = (over + 2) as u32 as u16;
            if rng.chance(3) {
                let imm = (o >> 11 & 1) << 12
                    | (o >> 4 & 1) << 11
                    | (o >> 8 & 3) << 9
                    | (o >> 10 & 1) << 8
                    | (o >> 6 & 1) << 7
                    | (o >> 7 & 1) << 6
                    | (o >> 1 & 7) << 3
                    | (o >> 5 & 1) << 2;
                self.code.c(5 << 13 | imm | 1);
            } else {
                let imm = (o >> 8 & 1) << 12
                    | (o >> 3 & 3) << 10
                    | (o >> 6 & 3) << 5
                    | (o >> 1 & 3) << 3
                    | (o >> 5 & 1) << 2;
                let f3 = rng.pick(&[6, 7]) << 13;
                self.code.c(f3 | imm | (a as u16 & 7) << 7 | 1);
            }
        } else {
            let f3 = rng.pick(&[0, 1, 4, 5, 6, 7]);
            self.code.op(branch(f3, a, b, over + 4));
        }
        self.code.bytes.extend_from_slice(&part.bytes);
        if self.code.here() & 2 != 0 {
            self.code.c(C_NOP);
        }
    }

    /// jal or jalr over a few instructions, or to a place that isn't fetched.
    fn call(&mut self, flavour: Flavour) {
        let count = self.source.rng.below(5);
        let part = self.some(flavour, count);
        let rd = self.source.rd();
        let over = part.bytes.len() as i32;
        if self.source.rng.chance(2) {
            self.code.op(jal(rd, over + 4));
        } else {
            let odd = self.source.rng.below(2) as i32;
            self.code.op(auipc(5, 0)).op(jalr(rd, 5, over + 8 + odd));
        }
        self.code.bytes.extend_from_slice(&part.bytes);
    }

    /// A loop of a few rounds.
    fn repeat(&mut self, flavour: Flavour) {
        let count = self.source.kept.count();
        let (rounds, length) = (self.source.rng.below(6) + 2, self.source.rng.below(8) + 1);
        let body = self.some(flavour, length);
        self.code.op(addi(count, 0, rounds as i32));
        self.code.bytes.extend_from_slice(&body.bytes);
        self.code.op(addi(count, count, -1));
        let back = body.bytes.len() as i32 + 4;
        self.code.op(branch(1, count, 0, -back));
    }

    /// Stores over the code ahead or over a table entry, with the fence that the
    /// architecture asks for.
    fn rewrite(&mut self, scene: &Scene) {
        let rd = loop {
            let rd = self.source.rd();
            if !(rd == 0 || (5..8).contains(&rd)) {
                break rd;
            }
        };
        if self.source.rng.chance(2) {
            // Overwrites an instruction a little ahead; U-mode has its own view.
            let word = loop {
                let mut one = Asm::at(0);
                self.source.emit(&mut one, Flavour::Bits);
                if one.bytes.len() == 4 {
                    break u32::from_le_bytes(one.bytes[..4].try_into().unwrap_or([0x13, 0, 0, 0]));
                }
            };
            let word = if word & 3 == 3 { word } else { NOP };
            self.code.li(rd, word as i32 as u64);
            self.code.op(auipc(5, 0)).op(sw(rd, 5, 12)).op(FENCE_I);
            self.code.op(NOP);
            return;
        }
        // Where the fence may be illegal, the store would be left without.
        if scene.mode == Mode::User || scene.status & TVM != 0 || self.returned {
            return;
        }
        let rng = &mut *self.source.rng;
        let slot = rng.pick(&[LEAF, LEAF_B]) + 8 * rng.below(32);
        let value = data_entry(rng);
        let fence = rng.pick(&[SFENCE, SFENCE, SINVAL]);
        self.code.li(5, slot).li(rd, value);
        self.code.op(sd(rd, 5, 0)).op(fence);
    }

    /// Where TW makes WFI illegal, WRS.NTO may be or just not wait. WFI where it doesn't
    /// wait: with an interrupt pending that cannot be taken, or
    /// where it is illegal.
    fn wait(&mut self, scene: &Scene) {
        let (m, tw) = (scene.mode == Mode::Machine, scene.status & TW != 0);
        if m && !self.returned {
            let ssip = 2;
            self.code.op(csrrci(0, 0x300, 8));
            self.code
                .op(csrrsi(0, 0x304, ssip))
                .op(csrrsi(0, 0x344, ssip));
            self.code.op(WFI).op(WRS_NTO);
        } else if !m && (scene.mode == Mode::User || tw) && !self.returned {
            self.code.op(WFI);
        } else if !self.returned {
            self.code.op(WRS_NTO);
        }
    }

    /// Another address space, or a return to another mode.
    fn switch(&mut self, scene: &Scene) {
        let rng = &mut *self.source.rng;
        if rng.chance(2) && scene.mode != Mode::User && scene.satp != 0 {
            // Modes that don't exist change nothing.
            let mode = rng.pick(&[1, 2, 3, 7, 11, 15]) << 60;
            let satp = rng.pick(&[
                SV39 | ROOT39 >> 12,
                SV39 | ROOT39_B >> 12,
                SV48 | ROOT48 >> 12,
                mode | ROOT39 >> 12,
            ]) | rng.below(1 << 16) << 44;
            self.code.li(5, satp).op(csrw(0x180, 5)).op(csrr(6, 0x180));
            return;
        }
        self.returned = true;
        let (epc, xret, status, previous) = if scene.mode == Mode::Machine {
            (0x341, MRET, 0x300, rng.pick(&[0u64, 0x800, 0x1800]))
        } else {
            (0x141, SRET, 0x100, rng.pick(&[0, 0x100]))
        };
        let (all, to) = (
            if epc == 0x341 { 0x1800 } else { 0x100 },
            if previous == 0 && scene.satp != 0 && scene.shift == 0 {
                USER - RAM_BASE
            } else {
                0
            },
        );
        self.code.li(5, all).op(csrrc(0, status, 5));
        self.code.li(5, previous).op(csrrs(0, status, 5));
        self.code.li(7, to).op(auipc(5, 0)).op(addi(5, 5, 20));
        self.code.op(add(5, 5, 7)).op(csrw(epc, 5)).op(xret);
    }
}

/// An address that a load or store may use: of data, in one of its views, or of
/// nothing.
pub(crate) fn pointer(rng: &mut Rng, scene: &Scene) -> u64 {
    let within = 8 * rng.below(0x1d00) + rng.pick(&[0, 0, 0, 0, 1, 2, 4]);
    let data = DATA + 0x800 + within;
    let nothing = [
        RAM_BASE + RAM_BYTES,
        RAM_BASE + RAM_BYTES - 4,
        RAM_BASE - 0x900,
        0x5000_0000,
        1 << 56,
        1 << 38,
        1 << 63,
        u64::MAX - 3,
        WINDOW - 4,
    ];
    if rng.chance(20) {
        return rng.pick(&nothing);
    }
    if rng.chance(30) {
        return OPERANDS + 0x800 + (within & 0x7ff);
    }
    // MPRV lets M-mode see what the others see.
    let paged = scene.satp != 0 && (scene.mode != Mode::Machine || scene.status >> 17 & 1 != 0);
    if !paged {
        return data;
    }
    let edge = ((1 + rng.below(31)) << 12) - rng.below(12);
    match rng.below(10) {
        0 | 1 => data,
        2 | 3 => data - RAM_BASE + USER,
        4..7 => WINDOW + (within & 0x1_ffff),
        7 => WINDOW + edge,
        8 => WINDOW_NAPOT + within % 0xf000 + 0x800,
        _ => {
            let n = 1 + rng.below(12);
            WINDOW + (n << 21) + (data - RAM_BASE)
        }
    }
}

//! Random programs that both machines run from reset.
//!
//! A program is a row of scenes. For each, code in M-mode (the driver) sets
//! CSRs, page tables and PMP at random, fills the registers with operands and
//! drops to the scene's segment of random instructions in some mode. Traps go
//! to handlers that read what the trap wrote and go on behind the instruction;
//! a trap after the scene's mark, or a fetch that faults, ends the scene.

use crate::asm::*;
use crate::instructions::*;
use crate::layout::*;
use crate::rng::Rng;
use twinvm_cpu::Mode;
use twinvm_mem::RAM_BASE;

/// mstatus.TVM and TSR.
const TVM: u64 = 1 << 20;
const TSR: u64 = 1 << 22;
const SCENES: usize = 40;

/// Code and data, and where the program ends: at an instruction that jumps to
/// itself.
pub(crate) struct Program {
    pub(crate) ram: Vec<u8>,
    pub(crate) end: u64,
}

/// What a scene runs under.
struct Scene {
    mode: Mode,
    satp: u64,
    /// The segment's virtual address minus its physical one.
    shift: u64,
    status: u64,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut ram = vec![0; RAM_BYTES as usize];
        let rng = &mut rng;
        tables(&mut ram, rng);
        for n in 0..512 {
            put(&mut ram, OPERANDS + 8 * n, &integer(rng).to_le_bytes());
            put(&mut ram, OPERANDS + 0x1000 + 8 * n, &float(rng).to_le_bytes());
        }
        for at in (DATA..DATA_END).step_by(8) {
            let value = if rng.chance(2) { integer(rng) } else { float(rng) };
            put(&mut ram, at, &value.to_le_bytes());
        }
        let kept = Kept {
            first: rng.pick(&[16, 20, 24, 27]),
        };
        for (at, m) in [(M_HANDLER, true), (S_HANDLER, false)] {
            let mut asm = Asm::at(at);
            handler(&mut asm, kept, m);
            put(&mut ram, at, &asm.bytes);
        }
        let stce = rng.below(2) << 63;
        let mut writer = Writer {
            stce,
            returned: false,
            source: Source { rng, kept },
            driver: Asm::at(DRIVER),
            code: Asm::at(SEGMENTS),
        };
        writer.prelude();
        for _ in 0..SCENES {
            writer.scene();
        }
        let end = writer.last();
        let (driver, code) = (writer.driver, writer.code);
        assert!(driver.here() <= DRIVER_END && code.here() <= SEGMENTS_END);
        put(&mut ram, DRIVER, &driver.bytes);
        put(&mut ram, SEGMENTS, &code.bytes);
        Self { ram, end }
    }
}

/// The handler of M-mode or S-mode. It begins with the jumps of vectored mode.
fn handler(a: &mut Asm, kept: Kept, m: bool) {
    let base = if m { 0x300 } else { 0x100 };
    let (ie, epc, cause, tval, ip) = (base + 4, base + 0x41, base + 0x42, base + 0x43, base + 0x44);
    let xret = if m { MRET } else { SRET };
    let (h, g, mark) = (kept.scratch(), kept.scratch2(), kept.mark());
    for n in 0..16 {
        a.op(jal(0, 4 * (16 - n)));
    }
    let mut end = Asm::at(0);
    if m {
        end.op(jalr(0, kept.next(), 0));
    } else {
        end.op(addi(mark, 0, 1)).op(ECALL);
    }
    let sync = [
        csrr(h, epc),
        // The end: a trap after the mark, or one in fetching (cause 1 or 12).
        branch(1, mark, 0, 4 * 8),
        addi(g, g, -1),
        branch(0, g, 0, 4 * 6),
        addi(g, g, -11),
        branch(0, g, 0, 4 * 4),
        addi(h, h, 4),
        csrw(epc, h),
        xret,
    ];
    let interrupt = [
        addi(h, 0, 1),
        r(0, g, h, 1, h, 0x33),
        csrrc(0, ie, h),
        xret,
    ];
    a.ops(&[csrr(h, tval), csrr(h, base), csrr(h, ip)]);
    // Written back: where two causes are allowed, the reference's goes on.
    a.op(csrr(g, cause)).op(csrw(cause, g));
    a.op(branch(5, g, 0, 4 + 4 * interrupt.len() as i32));
    a.ops(&interrupt).ops(&sync);
    a.bytes.extend_from_slice(&end.bytes);
}

struct Writer<'a> {
    source: Source<'a>,
    driver: Asm,
    code: Asm,
    /// menvcfg.STCE, for a whole program: the reference sees a change of what makes
    /// STIP pending only when its clock ticks.
    stce: u64,
    /// The segment has gone to another mode.
    returned: bool,
}

impl Writer<'_> {
    /// From reset: no timer, PMP open, all registers known.
    fn prelude(&mut self) {
        let a = &mut self.driver;
        for n in 1..32 {
            a.op(addi(n, 0, 0));
        }
        a.li(5, u64::MAX).li(6, 0x200_4000).op(sd(5, 6, 0));
        a.li(5, 3 << 13).op(csrrs(7, 0x300, 5));
        for n in 0..32 {
            a.op(r(0x79, 0, 0, 0, n, 0x53));
        }
        a.li(5, u64::MAX);
        a.op(csrw(0x14d, 5)).op(csrrwi(0, 0xb02, 0));
        a.li(5, M_HANDLER).op(csrw(0x305, 5));
        a.li(5, S_HANDLER).op(csrw(0x105, 5));
        // After reset, menvcfg.ADUE is set or not.
        a.op(csrrwi(0, 0x30a, 0));
        // The reference's boot code opens PMP by its first entry.
        if NEW {
        a.op(csrrwi(0, 0x3a0, 0)).op(csrrwi(0, 0x3b0, 0));
        }
        // What there is after reset.
        for csr in DUMP {
            a.op(csrr(7, *csr));
        }
        if NEW {
        a.li(5, u64::MAX);
        a.op(csrw(0x3b0 + OPEN, 5));
        a.li(5, 0x1f << 56).op(csrw(0x3a2, 5));
        }
    }

    fn scene(&mut self) {
        self.torture();
        let scene = self.choose();
        self.edit_tables();
        self.pmp();
        let rng = &mut *self.source.rng;
        let kept = self.source.kept;
        let high = scene.satp != 0 && rng.chance(2);
        let vectored = rng.below(2);
        let stvec = S_HANDLER + vectored + if high { HIGH.wrapping_sub(RAM_BASE) } else { 0 };
        // ECALL from S always ends in M: a scene ends with it.
        let any = rng.next();
        let mut medeleg = rng.pick(&[0, u64::MAX, any]) & !(1 << 9);
        if scene.mode == Mode::Machine || scene.status & TSR != 0 {
            // Where SRET may be illegal, the handler in S-mode must not get that trap.
            medeleg &= !4;
        }
        let sets = [
            (0x305, M_HANDLER + rng.below(2)),
            (0x105, stvec),
            (0x302, medeleg),
            (0x303, sometimes(rng)),
            (0x30a, self.stce | rng.pick(&[1 << 61, 0, 0xf1]) | rng.next() & (1 << 61 | 0xf1)),
            (0x10a, rng.next() & 0xf1),
            (0x306, rng.next()),
            (0x106, rng.next()),
            (0x304, sometimes(rng)),
            (0x344, sometimes(rng)),
            (0x180, scene.satp),
        ];
        let flavour = rng.pick(&FLAVOURS);
        let (xs, fs) = (rng.below(480) * 8, rng.below(480) * 8);
        let a = &mut self.driver;
        for (csr, value) in sets {
            a.li(5, legal(csr, value)).op(csrw(csr, 5));
        }
        a.op(SFENCE);
        a.li(31, OPERANDS + 0x1000 + fs);
        for n in 0..32 {
            a.op(i(8 * n, 31, 3, n as u32, 0x07));
        }
        let status = scene.status;
        let entry = self.segment(&scene, flavour);
        let a = &mut self.driver;
        let (h, next) = (kept.scratch(), kept.next());
        a.li(h, entry).op(csrw(0x341, h)).li(h, status);
        // The operands' address is in the register loaded last.
        a.li(31, OPERANDS + xs);
        for n in 1..32 {
            if n != h {
                a.op(ld(n, 31, 8 * n as i32));
            }
        }
        for at in POINTERS {
            let value = pointer(self.source.rng, &scene);
            self.driver.li(at, value);
        }
        let a = &mut self.driver;
        a.op(addi(kept.mark(), 0, 0));
        a.op(auipc(next, 0)).op(addi(next, next, 16));
        a.op(csrw(0x300, h)).op(MRET);
    }

    /// Random values into CSRs while no trap can come, each read back.
    fn torture(&mut self) {
        let base = 3 << 13;
        let h = self.source.kept.scratch();
        self.driver.op(addi(self.source.kept.mark(), 0, 0));
        self.driver.li(h, base).op(csrw(0x300, h));
        self.driver.op(csrrwi(0, 0x304, 0));
        for _ in 0..self.source.rng.below(8) {
            let csr = self.source.rng.pick(TORTURE);
            let mut value = integer(self.source.rng);
            value = match csr {
                // No interrupt may come.
                0x300 => value & !8,
                // Sv57, which the reference has; Bare with more bits.
                0x180 if matches!(value >> 60, 0 | 10) || (!NEW && value >> 60 == 9) => value << 4 >> 4 | SV39,
                0x30a => legal(csr, value) & !(1 << 63) | self.stce,
                _ => legal(csr, value),
            };
            let f3 = if matches!(csr, 0x180 | 0x30a | 0x14d) { 1 } else {self.source.rng.pick(&[1, 1, 2, 3])};
            self.driver
                .li(5, value)
                .op(csr << 20 | 5 << 15 | f3 << 12 | 6 << 7 | 0x73)
                .op(csrr(7, csr));
            self.driver.li(h, base).op(csrw(0x300, h));
            self.driver.li(h, M_HANDLER).op(csrw(0x305, h));
        }
        self.driver.op(csrrwi(0, 0x180, 0)).op(SFENCE);
        for _ in 0..4 {
            let csr = self.source.rng.pick(DUMP);
            self.driver.op(csrr(6, csr));
        }
    }

    /// New entries in the tables, and a look at old ones: the walk sets A and D.
    fn edit_tables(&mut self) {
        let rng = &mut *self.source.rng;
        for _ in 0..rng.below(6) {
            let table = rng.pick(&[LEAF, LEAF_B]);
            let slot = table + 8 * rng.below(32);
            let value = data_entry(rng);
            self.driver.li(5, slot).li(6, value).op(ld(7, 5, 0));
            self.driver.op(sd(6, 5, 0)).op(SFENCE);
        }
    }

    /// Some regions over data, code and tables; the last entry opens the rest.
    fn pmp(&mut self) {
        let rng = &mut *self.source.rng;
        if !NEW { return; }
        let count = if rng.chance(2) { 0 } else { 1 + rng.below(8) };
        let mut config = 0;
        for n in 0..8 {
            if n >= count {
                continue;
            }
            let place = match rng.below(10) {
                0 => TABLES + 0x1000 * rng.below(8),
                1 => SEGMENTS + 0x1000 * rng.below(0x30),
                _ => DATA + 0x1000 * rng.below(16),
            };
            let locked = place >> 16 == DATA >> 16 && rng.chance(12);
            let mode = rng.pick(&[0, 1, 2, 3, 3, 3]);
            // Of the last page, a region must not reach what lies behind.
            let at = place + (rng.below(0xc00) & rng.pick(&[!3, !7, !63, 0]));
            let value = if mode == 3 {
                let ones = rng.below(9);
                let at = at & !((8 << ones) - 1);
                at >> 2 | ((1 << ones) - 1)
            } else {
                at >> 2
            };
            let rights = rng.pick(&[0, 1, 3, 4, 5, 7, 1, 3]);
            // A locked top of range reaches down to any address below.
            let locked = locked && mode != 1;
            config |= (rights | mode << 3 | u64::from(locked) << 7) << (8 * n);
            self.driver.li(5, value).op(csrw(0x3b0 + n as u32, 5));
        }
        self.driver.li(5, config).op(csrw(0x3a0, 5)).op(csrr(6, 0x3a0));
        self.driver.op(SFENCE);
    }

    fn choose(&mut self) -> Scene {
        let rng = &mut *self.source.rng;
        let mode = rng.pick(&[Mode::Machine, Mode::Supervisor, Mode::User, Mode::User]);
        let asid = rng.below(1 << 16) << 44;
        let satp = rng.pick(&[
            0,
            SV39 | ROOT39 >> 12 | asid,
            SV39 | ROOT39_B >> 12,
            if NEW { SV48 | ROOT48 >> 12 | asid } else { 0},
            SV39 | ROOT39 >> 12,
        ]);
        let window = WINDOW_CODE.wrapping_sub(SEGMENTS);
        let places: &[u64] = match (mode, satp >> 60) {
            (Mode::Machine, _) | (_, 0) => &[0],
            (Mode::Supervisor, 8) => &[0, 0, HIGH.wrapping_sub(RAM_BASE), window],
            (Mode::Supervisor, _) => {
                &[0, HIGH.wrapping_sub(RAM_BASE), window, TERA - RAM_BASE]
            }
            _ => &[USER - RAM_BASE, USER - RAM_BASE, window],
        };
        let shift = rng.pick(places);
        // FS, MPIE, SIE, SPIE, SPP, MPRV, SUM, MXR, TVM, TW, TSR.
        let fs = rng.pick(&[0, 1, 2, 3, 3, 3, 3, 3]) << 13;
        let traps = if rng.chance(3) { rng.next() & 0x70_0000 } else { 0 };
        let status = rng.next() & 0xe_01a2 | fs | traps | (mode as u64) << 11;
        Scene {
            mode,
            satp,
            shift,
            status,
        }
    }

    /// The random code of a scene; its virtual address.
    fn segment(&mut self, scene: &Scene, flavour: Flavour) -> u64 {
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
            8 if flavour == Flavour::Float => {
                let (value, f) = (float(self.source.rng), self.source.rng.below(32));
                let rd = 5 + self.source.rng.below(3) as u32;
                self.code.li(rd, value).op(r(0x79, 0, rd, 0, f as u32, 0x53));
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

    /// Another address space, or a return to another mode.
    fn switch(&mut self, scene: &Scene) {
        let rng = &mut *self.source.rng;
        if rng.chance(2) && scene.mode != Mode::User && scene.satp != 0 {
            // Modes that don't exist change nothing.
            let mode = rng.pick(&[1, 2, 3, 7, 11, 15]) << 60;
            let satp = rng.pick(&[
                SV39 | ROOT39 >> 12,
                SV39 | ROOT39_B >> 12,
                if NEW { SV48 | ROOT48 >> 12 } else { SV39 | ROOT39 >> 12 },
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

    /// Shows the tables and what CSRs hold, and ends; the last address.
    fn last(&mut self) -> u64 {
        let h = self.source.kept.scratch();
        let a = &mut self.driver;
        a.li(h, 3 << 13).op(csrw(0x300, h));
        for csr in DUMP {
            a.op(csrr(7, *csr));
        }
        for (table, count) in [(ROOT48, 1 << 9), (ROOT39, 8), (ROOT39_B, 8)]
            .into_iter()
            .chain([MID, MID_B].map(|table| (table, 16)))
            .chain([LEAF, LEAF_B].map(|table| (table, 80)))
        {
            let count = if table == ROOT48 { 4 } else { count };
            a.li(5, table).li(6, table + 8 * count);
            a.ops(&[ld(7, 5, 0), addi(5, 5, 8), branch(1, 5, 6, -8)]);
        }
        let end = a.here();
        a.op(SPIN);
        end
    }
}

/// Without the bits that each machine may hold in its own way.
fn legal(csr: u32, value: u64) -> u64 {
    match csr {
        // FIOM: writable or not.
        0x30a | 0x10a => value & !1,
        // Reserved modes are legalised to direct or to vectored.
        0x305 | 0x105 => value & !2,
        // Misaligned fetch, which cannot happen, and hardware error.
        // Atomics that aren't aligned may raise either of two exceptions: both go
        // to the same mode.
        0x302 => value & 0xb3ae | (value & 0xa0) >> 1,
        // Of counters that always read as zero.
        0x320 => value & 5,
        // Never due.
        0x14d => value | 1 << 62,
        _ => value,
    }
}

/// Interrupt bits: none, those of S-mode, or any.
fn sometimes(rng: &mut Rng) -> u64 {
    let any = rng.next();
    rng.pick(&[0, 0x222, any])
}

/// An address that a load or store may use: of data, in one of its views, or of
/// nothing.
fn pointer(rng: &mut Rng, scene: &Scene) -> u64 {
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
        return OPERANDS + (within & 0x7ff);
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

/// The PMP entry that opens what no other one decides.
const OPEN: u32 = 15;

/// CSRs whose every value and change both machines must show alike.
const DUMP: &[u32] = &[
    0x300, 0x302, 0x303, 0x304, 0x305, 0x306, 0x30a, 0x320, 0x340, 0x341, 0x342, 0x343, 0x344,
    0x100, 0x104, 0x105, 0x106, 0x10a, 0x140, 0x141, 0x142, 0x143, 0x144, 0x14d, 0x180, 0x003,
    0xb02, 0xc02, 0x3a0, 0x3a2, 0x3b0, 0x3b1, 0x3b7, 0x3bf, 0xf14, 0xf15,
];

/// CSRs that take any value while nothing can trap.
const TORTURE: &[u32] = &[
    0x300, 0x302, 0x303, 0x304, 0x305, 0x306, 0x30a, 0x340, 0x341, 0x342, 0x343, 0x344, 0x100,
    0x104, 0x105, 0x106, 0x10a, 0x140, 0x141, 0x142, 0x143, 0x144, 0x180, 0x003, 0x001, 0x002,
    0xb02, 0xb03, 0x323, 0x320, 0x3b0, 0x3b5, 0x3b8, 0x14d,
];

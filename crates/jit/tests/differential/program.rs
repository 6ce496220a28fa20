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
use crate::segment::pointer;
use twinvm_cpu::Mode;
use twinvm_mem::RAM_BASE;

/// mstatus.TSR.
const TSR: u64 = 1 << 22;
const SCENES: usize = 40;

/// Code and data, and where the program ends: at an instruction that jumps to
/// itself.
pub(crate) struct Program {
    pub(crate) ram: Vec<u8>,
    pub(crate) end: u64,
    /// Instructions after which it is given up: far above what it takes.
    pub(crate) limit: u64,
}

/// What a scene runs under.
pub(crate) struct Scene {
    pub(crate) mode: Mode,
    pub(crate) satp: u64,
    /// The segment's virtual address minus its physical one.
    pub(crate) shift: u64,
    pub(crate) status: u64,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut ram = vec![0; RAM_BYTES as usize];
        let rng = &mut rng;
        tables(&mut ram, rng);
        for n in 0..512 {
            put(&mut ram, OPERANDS + 8 * n, &integer(rng).to_le_bytes());
            put(
                &mut ram,
                OPERANDS + 0x1000 + 8 * n,
                &float(rng).to_le_bytes(),
            );
        }
        for at in (DATA..DATA_END).step_by(8) {
            let value = if rng.chance(2) {
                integer(rng)
            } else {
                float(rng)
            };
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
        let odd = rng.chance(4);
        let mut writer = Writer {
            stce,
            returned: false,
            source: Source { rng, kept, odd },
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
        Self {
            ram,
            end,
            limit: 200_000,
        }
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
    let interrupt = [addi(h, 0, 1), r(0, g, h, 1, h, 0x33), csrrc(0, ie, h), xret];
    // Written back: where two values are allowed, the reference's goes on.
    a.ops(&[csrr(h, tval), csrw(tval, h), csrr(h, base), csrr(h, ip)]);
    assert!(
        a.here() & 0xfff == M_CAUSE & 0xfff,
        "the handler's cause is elsewhere"
    );
    a.op(csrr(g, cause)).op(csrw(cause, g));
    a.op(branch(5, g, 0, 4 + 4 * interrupt.len() as i32));
    a.ops(&interrupt).ops(&sync);
    a.bytes.extend_from_slice(&end.bytes);
}

pub(crate) struct Writer<'a> {
    pub(crate) source: Source<'a>,
    driver: Asm,
    pub(crate) code: Asm,
    /// menvcfg.STCE, for a whole program: the reference sees a change of what makes
    /// STIP pending only when its clock ticks.
    stce: u64,
    /// The segment has gone to another mode.
    pub(crate) returned: bool,
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
        a.li(5, self.stce).op(csrw(0x30a, 5));
        // The reference's boot code opens PMP by its first entry.
        a.op(csrrwi(0, 0x3a0, 0)).op(csrrwi(0, 0x3b0, 0));
        // What there is after reset.
        for csr in DUMP {
            a.op(csrr(7, *csr));
        }
        a.li(5, u64::MAX);
        a.op(csrw(0x3b0 + OPEN, 5));
        a.li(5, 0x1f << 56).op(csrw(0x3a2, 5));
    }

    fn scene(&mut self) {
        self.torture();
        let scene = self.choose();
        self.edit_tables();
        let protected = self.pmp();
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
        if protected {
            // Nor the trap that its own fetch may cause.
            medeleg &= !2;
        }
        let sets = [
            (0x305, M_HANDLER + rng.below(2)),
            (0x105, stvec),
            (0x302, medeleg),
            (0x303, sometimes(rng)),
            (
                0x30a,
                self.stce | rng.pick(&[1 << 61, 0, 0xf1]) | rng.next() & (1 << 61 | 0xf1),
            ),
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
                0x180 if matches!(value >> 60, 0 | 10) => value << 4 >> 4 | SV39,
                0x30a => legal(csr, value) & !(1 << 63) | self.stce,
                _ => legal(csr, value),
            };
            let f3 = if matches!(csr, 0x180 | 0x30a | 0x14d) {
                1
            } else {
                self.source.rng.pick(&[1, 1, 2, 3])
            };
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
    /// True if there are any.
    fn pmp(&mut self) -> bool {
        let rng = &mut *self.source.rng;
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
        self.driver
            .li(5, config)
            .op(csrw(0x3a0, 5))
            .op(csrr(6, 0x3a0));
        self.driver.op(SFENCE);
        // Locked ones of an earlier scene lie over data, which holds no code.
        count != 0
    }

    fn choose(&mut self) -> Scene {
        let rng = &mut *self.source.rng;
        let mode = rng.pick(&[Mode::Machine, Mode::Supervisor, Mode::User, Mode::User]);
        let asid = rng.below(1 << 16) << 44;
        let satp = rng.pick(&[
            0,
            SV39 | ROOT39 >> 12 | asid,
            SV39 | ROOT39_B >> 12,
            SV48 | ROOT48 >> 12 | asid,
            SV39 | ROOT39 >> 12,
        ]);
        let window = WINDOW_CODE.wrapping_sub(SEGMENTS);
        let places: &[u64] = match (mode, satp >> 60) {
            (Mode::Machine, _) | (_, 0) => &[0],
            (Mode::Supervisor, 8) => &[0, 0, HIGH.wrapping_sub(RAM_BASE), window],
            (Mode::Supervisor, _) => &[0, HIGH.wrapping_sub(RAM_BASE), window, TERA - RAM_BASE],
            _ => &[USER - RAM_BASE, USER - RAM_BASE, window],
        };
        let shift = rng.pick(places);
        // FS, MPIE, SIE, SPIE, SPP, MPRV, SUM, MXR, TVM, TW, TSR.
        let fs = rng.pick(&[0, 1, 2, 3, 3, 3, 3, 3]) << 13;
        let traps = if rng.chance(3) {
            rng.next() & 0x70_0000
        } else {
            0
        };
        let status = rng.next() & 0xe_01a2 | fs | traps | (mode as u64) << 11;
        Scene {
            mode,
            satp,
            shift,
            status,
        }
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

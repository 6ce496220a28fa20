//! Blocks of floating point among other things, in loops: registers of all kinds,
//! flags that collect, loads and stores that miss, and the unit's state and the
//! rounding mode changing under them.

use crate::asm::*;
use crate::rng::Rng;
use crate::world::*;

const TABLE: u64 = DATA + 0x1000;
const FAR: u64 = DATA + 0x2_0000;

/// One instruction without a trap but for reserved modes; x10 and x11 are bases.
fn float(rng: &mut Rng) -> u32 {
    let f = |rng: &mut Rng| rng.below(32) as u32;
    let to = |rng: &mut Rng| rng.pick(&[0, 14, 15, 16, 28, 29]);
    let rm = rng.pick(&[7, 7, 7, 7, 7, 7, 0, 1, 2, 3, 4]);
    // Mostly doubles: what isn't boxed ends a block early.
    let format = u32::from(!rng.chance(4));
    match rng.below(12) {
        0 => i(rng.below(32) as i32 * 8, 10, 2 + format, f(rng), 0x07),
        1 => s(rng.below(32) as i32 * 8, f(rng), 11, 2 + format, 0x27),
        2 | 3 => {
            let opcode = rng.pick(&[0x43, 0x47, 0x4b, 0x4f]);
            f(rng) << 27 | r(format, f(rng), f(rng), rm, f(rng), opcode)
        }
        4..8 => {
            let f7 = rng.pick(&[0, 4, 8, 0xc]) + format;
            r(f7, f(rng), f(rng), rm, f(rng), 0x53)
        }
        8 => {
            let f7 = rng.pick(&[0x10, 0x10, 0x10, 0x14]) + format;
            let (f3, from) = (rng.below(2) as u32, f(rng));
            let second = if rng.chance(2) { from } else { f(rng) };
            r(f7, second, from, f3, f(rng), 0x53)
        }
        9 => {
            let (width, from) = (rng.below(4) as u32, f(rng));
            r(0x60 + format, width, from, rm, to(rng), 0x53)
        }
        10 => {
            let (width, from) = (rng.below(4) as u32, to(rng));
            r(0x68 + format, width, from, rm, f(rng), 0x53)
        }
        _ => match rng.below(4) {
            0 => {
                let f3 = rng.below(3) as u32;
                r(0x50 + format, f(rng), f(rng), f3, to(rng), 0x53)
            }
            1 => r(0x70 + format, 0, f(rng), rng.below(2) as u32, to(rng), 0x53),
            2 => r(0x20 + format, 1 - format, f(rng), rm, f(rng), 0x53),
            _ => r(0x78 + format, 0, to(rng), 0, f(rng), 0x53),
        },
    }
}

fn other(rng: &mut Rng) -> u32 {
    let x = |rng: &mut Rng| rng.pick(&[14, 15, 16, 28, 29]);
    match rng.below(9) {
        0 => ld(x(rng), 10, 8 * rng.below(32) as i32),
        1 => sd(x(rng), 11, 8 * rng.below(32) as i32),
        // Out of the block, forward.
        2 => branch(rng.pick(&[0, 4, 6]), x(rng), x(rng), 8),
        // Has no template.
        3 => r(1, x(rng), x(rng), 2, x(rng), 0x33),
        // Flags, and the mode.
        4 if rng.chance(4) => csrr(x(rng), 3),
        4 if rng.chance(4) => csrrwi(0, 2, rng.below(5) as u32),
        // Flags alone, which end no block.
        8 if rng.chance(2) => csrr(x(rng), 1),
        8 => {
            // Of csrrw to csrrci, with a register or its number.
            let f3 = rng.pick(&[1, 1, 2, 3, 5, 6, 7]);
            let rd = if rng.chance(2) { 0 } else { x(rng) };
            i(1, x(rng), f3, rd, 0x73)
        }
        _ => add(x(rng), x(rng), x(rng)),
    }
}

fn value(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => rng.next(),
        1 => !0 << 32 | rng.next() >> 32,
        2 => !0 << 32 | u64::from((rng.below(2000) as f32 - 1000.0).to_bits()),
        3 => rng.pick(&[0, 1 << 63, 0x7ff0_0000_0000_0001, 0xfff0_0000_0000_0000]),
        _ => (rng.below(1 << 40) as f64 / 1048576.0 - 524288.0).to_bits(),
    }
}

fn fill(rng: &mut Rng, world: &mut World) {
    world.hart.f.fill_with(|| value(rng));
    for n in 0..32 {
        world.word(DATA + 8 * n, value(rng));
        world.word(FAR + 8 * n, value(rng));
    }
}

#[test]
fn random_blocks_in_loops() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let mut world = World::new(|a| {
            a.li(10, DATA).li(12, 12);
            // Now and then across a page, so that the interpreter must help.
            a.li(11, DATA + 0xff0 - 8 * rng.below(40));
            let start = a.here();
            for _ in 0..40 {
                a.op(if rng.chance(4) {
                    other(rng)
                } else {
                    float(rng)
                });
            }
            a.op(addi(12, 12, -1));
            let back = start.wrapping_sub(a.here()) as i32;
            a.op(branch(1, 12, 0, back));
            a.op(csrr(13, 3));
        });
        fill(rng, &mut world);
        world.set_csr("mstatus", 3 << 13);
        world.hart.fcsr = (rng.below(4) << 5) as u8;
        world.check(500, |_| {});
    }
}

/// A loop that sets mstatus.FS and frm anew in each turn from a table. What traps is
/// counted, and skipped with the unit on again or not.
#[test]
fn the_unit_changes_under_a_hot_loop() {
    for seed in 0..24 {
        let mut rng = Rng::new(100 + seed);
        let rng = &mut rng;
        let turns = 24;
        let mut world = World::new(|a| {
            a.li(10, DATA).li(11, FAR).li(12, turns).li(13, TABLE);
            a.li(6, 3 << 13);
            let start = a.here();
            // frm while the unit is on, then its state.
            a.ops(&[csrrs(0, 0x300, 6), ld(5, 13, 8), csrw(2, 5)]);
            a.ops(&[ld(5, 13, 0), csrrc(0, 0x300, 6), csrrs(0, 0x300, 5)]);
            for _ in 0..rng.below(3) {
                a.op(other(rng));
            }
            for _ in 0..6 {
                a.op(float(rng));
            }
            a.ops(&[csrr(28, 0x300), sd(28, 13, 16)]);
            for _ in 0..3 {
                a.op(float(rng));
            }
            a.ops(&[csrrs(0, 0x300, 6), csrr(28, 3), sd(28, 13, 24)]);
            a.ops(&[addi(13, 13, 32), addi(12, 12, -1)]);
            let back = start.wrapping_sub(a.here()) as i32;
            a.op(branch(1, 12, 0, back));
        });
        let initial = 1 << 13;
        world.code(M_HANDLER, |a| {
            a.ops(&[csrr(31, 0x341), addi(31, 31, 4), csrw(0x341, 31)]);
            a.op(addi(17, 17, 1));
            if seed % 2 == 0 {
                a.li(31, initial).op(csrrs(0, 0x300, 31));
            }
            a.op(MRET);
        });
        fill(rng, &mut world);
        for turn in 0..turns {
            let state = rng.pick(&[0, 1, 2, 3, 3, 3, 3, 3]);
            let mode = rng.pick(&[0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7]);
            world.word(TABLE + 32 * turn, state << 13);
            world.word(TABLE + 32 * turn + 8, mode);
        }
        world.check(1200, |after| {
            assert_eq!(after.x(12), 0, "all turns, seed {seed}");
        });
    }
}

/// Flags are there at each step that looks for them, whatever came between.
#[test]
fn flags_collect_and_are_read_in_a_hot_loop() {
    let (one, three, huge) = (1.0f64.to_bits(), 3.0f64.to_bits(), f64::MAX.to_bits());
    let mut world = World::new(|a| {
        a.li(12, 10).li(13, TABLE);
        let start = a.here();
        // Inexact; overflow; division by zero; each seen by the next read.
        for (word, other) in [
            (r(0x0d, 2, 1, 7, 4, 0x53), addi(14, 14, 1)),
            (r(0x09, 3, 3, 7, 4, 0x53), r(1, 14, 14, 2, 14, 0x33)),
            (r(0x0d, 0, 1, 7, 4, 0x53), ld(14, 13, 0)),
        ] {
            a.ops(&[word, other, csrr(15, 1), sd(15, 13, 0), addi(13, 13, 8)]);
        }
        a.ops(&[csrrwi(0, 1, 0), addi(12, 12, -1)]);
        let back = start.wrapping_sub(a.here()) as i32;
        a.op(branch(1, 12, 0, back));
    });
    world.hart.f[1] = one;
    world.hart.f[2] = three;
    world.hart.f[3] = huge;
    world.set_csr("mstatus", 3 << 13);
    world.check(200, |after| {
        for n in 0..10 {
            let flags = [0, 1, 2].map(|m| after.word(TABLE + 24 * n + 8 * m));
            assert_eq!(flags, [1, 5, 13], "turn {n}");
        }
    });
}
